//! Kubernetes' hand-written defaults for its own kinds (`pkg/apis/*/v1/defaults.go`, release 1.34).
//!
//! Controllers and clients compare what they get back with what they know of a real server, so the same fields must be
//! filled in with the same values. All functions are idempotent: a stored object goes through them again on update.

mod pod;
mod workload;

use serde_json::{Map, Value, json};

pub(crate) type Object = Map<String, Value>;

/// Fills in what the real API server fills in on create and update of the stored version of a kind.
pub fn apply(group: &str, kind: &str, object: &mut Value) {
    let Some(map) = object.as_object_mut() else { return };
    match (group, kind) {
        ("", "Pod") => pod::pod(map),
        ("", "PodTemplate") => at(map, "template", pod::template),
        ("", "Service") => at(map, "spec", service),
        ("", "Secret") => put(map, "type", "Opaque"),
        ("", "PersistentVolume") => at(map, "spec", |spec| {
            put(spec, "persistentVolumeReclaimPolicy", "Retain");
            put(spec, "volumeMode", "Filesystem");
        }),
        ("", "PersistentVolumeClaim") => workload::claim(map),
        ("", "Endpoints") => {
            each(map, "subsets", |subset| each(subset, "ports", |port| put(port, "protocol", "TCP")))
        }
        ("", "LimitRange") => at(map, "spec", |spec| each(spec, "limits", limit)),
        ("", "ReplicationController") => workload::replication_controller(map),
        ("apps", "Deployment") => at(map, "spec", workload::deployment),
        ("apps", "ReplicaSet") => at(map, "spec", workload::replica_set),
        ("apps", "StatefulSet") => at(map, "spec", workload::stateful_set),
        ("apps", "DaemonSet") => at(map, "spec", workload::daemon_set),
        ("batch", "Job") => workload::job(map),
        ("batch", "CronJob") => at(map, "spec", workload::cron_job),
        ("autoscaling", "HorizontalPodAutoscaler") => at(map, "spec", workload::autoscaler),
        ("discovery.k8s.io", "EndpointSlice") => each(map, "ports", |port| {
            put(port, "name", "");
            put(port, "protocol", "TCP");
        }),
        ("networking.k8s.io", "NetworkPolicy") => at(map, "spec", network_policy),
        ("networking.k8s.io", "IngressClass") => {
            at_some(map, "spec", |spec| at_some(spec, "parameters", |of| put(of, "scope", "Cluster")));
        }
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => binding(map),
        ("storage.k8s.io", "StorageClass") => {
            put(map, "reclaimPolicy", "Delete");
            put(map, "volumeBindingMode", "Immediate");
        }
        ("scheduling.k8s.io", "PriorityClass") => put(map, "preemptionPolicy", "PreemptLowerPriority"),
        _ => {}
    }
}

/// Sets a field that is absent, `null` or empty text.
pub(crate) fn put(map: &mut Object, name: &str, value: impl Into<Value>) {
    let absent = match map.get(name) {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(_) => false,
    };
    if absent {
        map.insert(name.to_owned(), value.into());
    }
}

/// Sets a number that is absent, `null` or 0, where Go's type knows no "absent".
pub(crate) fn put_nonzero(map: &mut Object, name: &str, value: i64) {
    if map.get(name).and_then(Value::as_i64).unwrap_or(0) == 0 {
        map.insert(name.to_owned(), value.into());
    }
}

/// Works on the object under a name, made when absent.
pub(crate) fn at(map: &mut Object, name: &str, run: impl FnOnce(&mut Object)) {
    put(map, name, json!({}));
    at_some(map, name, run);
}

/// Works on the object under a name, if there is one.
pub(crate) fn at_some(map: &mut Object, name: &str, run: impl FnOnce(&mut Object)) {
    if let Some(Value::Object(inner)) = map.get_mut(name) {
        run(inner);
    }
}

/// Works on each object of the list under a name.
pub(crate) fn each(map: &mut Object, name: &str, run: impl Fn(&mut Object)) {
    if let Some(Value::Array(items)) = map.get_mut(name) {
        items.iter_mut().filter_map(Value::as_object_mut).for_each(run);
    }
}

pub(crate) fn text<'a>(map: &'a Object, name: &str) -> &'a str {
    map.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn service(spec: &mut Object) {
    put(spec, "sessionAffinity", "None");
    if text(spec, "sessionAffinity") == "ClientIP" {
        at(spec, "sessionAffinityConfig", |config| {
            at(config, "clientIP", |ip| put(ip, "timeoutSeconds", 10_800));
        });
    } else {
        spec.shift_remove("sessionAffinityConfig");
    }
    put(spec, "type", "ClusterIP");
    let kind = text(spec, "type").to_owned();
    each(spec, "ports", |port| {
        put(port, "protocol", "TCP");
        let target = port.get("targetPort");
        if target.is_none_or(|t| t.is_null() || *t == json!(0) || *t == json!("")) {
            let number = port.get("port").cloned().unwrap_or(json!(0));
            port.insert("targetPort".into(), number);
        }
    });
    let external = matches!(kind.as_str(), "NodePort" | "LoadBalancer");
    if external {
        put(spec, "externalTrafficPolicy", "Cluster");
    }
    if external || kind == "ClusterIP" {
        put(spec, "internalTrafficPolicy", "Cluster");
        put(spec, "ipFamilies", json!(["IPv4"]));
        put(spec, "ipFamilyPolicy", "SingleStack");
    }
    if kind == "LoadBalancer" {
        put(spec, "allocateLoadBalancerNodePorts", true);
    }
}

fn limit(limit: &mut Object) {
    if text(limit, "type") != "Container" {
        return;
    }
    fill_from(limit, "max", "default");
    fill_from(limit, "default", "defaultRequest");
    fill_from(limit, "min", "defaultRequest");
}

/// What one map of quantities has and the other lacks.
pub(crate) fn fill_from(map: &mut Object, from: &str, to: &str) {
    let Some(Value::Object(source)) = map.get(from).cloned() else { return };
    at(map, to, |target| {
        for (name, value) in source {
            target.entry(name).or_insert(value);
        }
    });
}

fn network_policy(spec: &mut Object) {
    let has_egress = spec.get("egress").and_then(Value::as_array).is_some_and(|rules| !rules.is_empty());
    let types = if has_egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
    put(spec, "policyTypes", types);
    for direction in ["ingress", "egress"] {
        each(spec, direction, |rule| each(rule, "ports", |port| put(port, "protocol", "TCP")));
    }
}

fn binding(map: &mut Object) {
    at_some(map, "roleRef", |role| put(role, "apiGroup", "rbac.authorization.k8s.io"));
    each(map, "subjects", |subject| match text(subject, "kind") {
        "ServiceAccount" => {}
        _ => put(subject, "apiGroup", "rbac.authorization.k8s.io"),
    });
}
