//! What must be stored before the first request: namespaces, policy, the `kubernetes` Service.
//!
//! Run at every start and harmless when repeated. ServiceAccounts, `kube-root-ca.crt` and the like are made by the
//! controllers, as upstream.

use serde_json::{Value, json};
use store::{Change, Expect, Snapshot};

use crate::authz::bootstrap as policy;
use crate::error::Result;
use crate::object;
use crate::server::ApiServer;
use crate::storage;

/// Namespaces that every cluster has.
const NAMESPACES: &[&str] = &["default", "kube-system", "kube-public", "kube-node-lease"];

/// Stores what is not there yet, in one transaction: a start waits for one sync and not for forty.
///
/// # Errors
/// Failures of the store.
pub async fn run(server: &ApiServer) -> Result<()> {
    let snapshot = server.store.snapshot();
    let mut changes = Vec::new();
    let configured = server.config.namespaces.iter().map(String::as_str);
    for name in NAMESPACES.iter().copied().chain(configured) {
        changes.extend(missing(&snapshot, &format!("/core/namespaces/{name}"), namespace(name)));
    }
    for (plural, objects) in [("clusterroles", policy::roles()), ("clusterrolebindings", policy::bindings())]
    {
        for object in objects {
            let key = format!("/rbac.authorization.k8s.io/{plural}/{}", object::name(&object));
            changes.extend(renewed(&snapshot, &key, object)?);
        }
    }
    let port = i64::from(server.config.advertise.port());
    let address = server.config.service_range.at(1).to_string();
    let own = server.config.advertise.ip().to_string();
    changes.extend(renewed(&snapshot, "/core/services/default/kubernetes", service(&address, port))?);
    if server.config.advertise.is_ipv4() {
        let key = "/discovery.k8s.io/endpointslices/default/kubernetes";
        changes.extend(renewed(&snapshot, key, endpoint_slice(&own, port))?);
        changes.extend(renewed(&snapshot, "/core/endpoints/default/kubernetes", endpoints(&own, port))?);
    }
    if !changes.is_empty() {
        server.store.commit(changes).await?;
    }
    server.policy.invalidate();
    Ok(())
}

/// The write of an object that is not there.
fn missing(snapshot: &Snapshot, key: &str, mut wanted: Value) -> Option<Change> {
    if snapshot.get(key).is_some() {
        return None;
    }
    let meta = object::meta_mut(&mut wanted);
    meta.insert("uid".into(), uuid::Uuid::new_v4().to_string().into());
    meta.insert("creationTimestamp".into(), object::now().into());
    Some(storage::put(key, &wanted, Expect::Absent))
}

/// The write of an object that is not there or differs from what this release says of it.
fn renewed(snapshot: &Snapshot, key: &str, wanted: Value) -> Result<Option<Change>> {
    let Some(record) = snapshot.get(key) else { return Ok(missing(snapshot, key, wanted)) };
    let mut current = storage::parse(&record.value)?;
    let before = current.clone();
    for (field, value) in wanted.as_object().into_iter().flatten() {
        if field != "metadata" {
            current[field] = value.clone();
        }
    }
    Ok((current != before).then(|| storage::put(key, &current, Expect::Revision(record.modified))))
}

fn namespace(name: &str) -> Value {
    json!({
        "kind": "Namespace", "apiVersion": "v1",
        "metadata": { "name": name, "labels": { "kubernetes.io/metadata.name": name } },
        "spec": { "finalizers": ["kubernetes"] }, "status": { "phase": "Active" },
    })
}

fn service(address: &str, port: i64) -> Value {
    json!({
        "kind": "Service", "apiVersion": "v1",
        "metadata": {
            "name": "kubernetes", "namespace": "default",
            "labels": { "component": "apiserver", "provider": "kubernetes" },
        },
        "spec": {
            "ports": [{ "name": "https", "protocol": "TCP", "port": 443, "targetPort": port }],
            "clusterIP": address, "clusterIPs": [address], "type": "ClusterIP", "sessionAffinity": "None",
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "internalTrafficPolicy": "Cluster",
        },
        "status": { "loadBalancer": {} },
    })
}

fn endpoint_slice(address: &str, port: i64) -> Value {
    json!({
        "kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1",
        "metadata": {
            "name": "kubernetes", "namespace": "default",
            "labels": { "kubernetes.io/service-name": "kubernetes" },
        },
        "addressType": "IPv4",
        "endpoints": [{ "addresses": [address], "conditions": { "ready": true } }],
        "ports": [{ "name": "https", "protocol": "TCP", "port": port }],
    })
}

fn endpoints(address: &str, port: i64) -> Value {
    json!({
        "kind": "Endpoints", "apiVersion": "v1",
        "metadata": {
            "name": "kubernetes", "namespace": "default",
            "labels": { "endpointslice.kubernetes.io/skip-mirror": "true" },
        },
        "subsets": [{ "addresses": [{ "ip": address }], "ports": [{ "name": "https", "protocol": "TCP", "port": port }] }],
    })
}
