//! What must be stored before the first request: namespaces, policy, the `kubernetes` Service.
//!
//! Run at every start and harmless when repeated. ServiceAccounts, `kube-root-ca.crt` and the like are made by the
//! controllers, as upstream.

use std::net::IpAddr;

use serde_json::{Value, json};

use crate::authz::bootstrap as policy;
use crate::error::Result;
use crate::object;
use crate::server::ApiServer;
use crate::storage::{self, Write, WriteError};

/// Namespaces that every cluster has.
const NAMESPACES: &[&str] = &["default", "kube-system", "kube-public", "kube-node-lease"];

/// Stores what is not there yet.
///
/// # Errors
/// Failures of the store.
pub async fn run(server: &ApiServer) -> Result<()> {
    let configured = server.config.namespaces.iter().map(String::as_str);
    for name in NAMESPACES.iter().copied().chain(configured) {
        storage::ensure(&server.store, &format!("/core/namespaces/{name}"), namespace(name)).await?;
    }
    for (plural, objects) in [("clusterroles", policy::roles()), ("clusterrolebindings", policy::bindings())]
    {
        for object in objects {
            let key = format!("/rbac.authorization.k8s.io/{plural}/{}", object::name(&object));
            renew(server, &key, object).await?;
        }
    }
    server.policy.invalidate();
    let port = i64::from(server.config.advertise.port());
    let address = server.config.service_range.at(1).to_string();
    storage::ensure(&server.store, "/core/services/default/kubernetes", service(&address, port)).await?;
    let IpAddr::V4(own) = server.config.advertise.ip() else { return Ok(()) };
    let key = "/discovery.k8s.io/endpointslices/default/kubernetes";
    renew(server, key, endpoint_slice(&own.to_string(), port)).await?;
    renew(server, "/core/endpoints/default/kubernetes", endpoints(&own.to_string(), port)).await
}

/// Creates an object, or brings what this release says about it into the one that is there.
async fn renew(server: &ApiServer, key: &str, wanted: Value) -> Result<()> {
    let Some(record) = server.store.snapshot().get(key).cloned() else {
        return storage::ensure(&server.store, key, wanted).await;
    };
    let mut current = storage::parse(&record.value)?;
    let before = current.clone();
    for (field, value) in wanted.as_object().into_iter().flatten() {
        if field != "metadata" {
            current[field] = value.clone();
        }
    }
    if current == before {
        return Ok(());
    }
    match storage::write(&server.store, key, Write::Update(&current, record.modified)).await {
        Ok(_) | Err(WriteError::Conflict | WriteError::NotFound) => Ok(()),
        Err(WriteError::Other(error)) => Err(error),
    }
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
