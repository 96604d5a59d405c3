//! Pods: first status, quality of service, what follows from the spec.

use serde_json::{Map, Value, json};

use crate::field::FieldError;
use crate::object;

/// A new pod is Pending, whatever the client sent.
pub fn prepare_create(pod: &mut Value) {
    let qos = qos_class(pod);
    if let Some(map) = pod.as_object_mut() {
        map.insert("status".into(), json!({ "phase": "Pending", "qosClass": qos }));
    }
}

/// Tolerations that every pod gets, so that a node's short absence does not cost its pods.
pub fn finish(pod: &mut Value, old: Option<&Value>) {
    if old.is_some() {
        return;
    }
    let qos = qos_class(pod);
    object::section(pod, "status").insert("qosClass".into(), qos.into());
    let tolerations = object::section(pod, "spec").entry("tolerations").or_insert_with(|| json!([]));
    let Some(list) = tolerations.as_array_mut() else { return };
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let is_there = list.iter().any(|one| {
            let effect = object::text(one, "/effect");
            let own_key = object::text(one, "/key");
            (own_key == key || own_key.is_empty()) && (effect == "NoExecute" || effect.is_empty())
        });
        if !is_there {
            list.push(
                json!({ "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300 }),
            );
        }
    }
}

/// A pod gets its node by a binding, never by an update of its own.
pub fn placement_errors(pod: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let node = |pod: &Value| object::text(pod, "/spec/nodeName").to_owned();
    match old {
        Some(old) if node(old) != node(pod) => {
            vec![FieldError::forbidden("spec.nodeName", "may only be set by the subresource `binding`")]
        }
        _ => Vec::new(),
    }
}

/// `Guaranteed`, `Burstable` or `BestEffort`, by the resources of all containers.
pub fn qos_class(pod: &Value) -> &'static str {
    let containers = object::items(pod, "/spec/containers").iter();
    let all: Vec<&Value> = containers.chain(object::items(pod, "/spec/initContainers")).collect();
    let of = |container: &Value, which: &str| -> Map<String, Value> {
        let map = container.pointer(&format!("/resources/{which}")).and_then(Value::as_object).cloned();
        let mut map = map.unwrap_or_default();
        map.retain(|name, amount| (name == "cpu" || name == "memory") && !is_zero(amount));
        map
    };
    if all.iter().all(|one| of(one, "requests").is_empty() && of(one, "limits").is_empty()) {
        return "BestEffort";
    }
    let is_guaranteed = all.iter().all(|one| {
        let (requests, limits) = (of(one, "requests"), of(one, "limits"));
        // A limit alone sets the request to the same.
        limits.len() == 2 && requests.iter().all(|(name, amount)| limits.get(name) == Some(amount))
    });
    if is_guaranteed { "Guaranteed" } else { "Burstable" }
}

fn is_zero(amount: &Value) -> bool {
    match amount {
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text == "0",
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quality_of_service_follows_requests_and_limits() {
        let pod = |resources: Value| json!({"spec": {"containers": [{"resources": resources}]}});
        let both = json!({"cpu": "1", "memory": "1Gi"});
        let cases = [
            (json!({}), "BestEffort"),
            (json!({"requests": {"cpu": "1"}}), "Burstable"),
            (json!({"limits": both}), "Guaranteed"),
            (json!({"limits": both, "requests": both}), "Guaranteed"),
            (json!({"limits": both, "requests": {"cpu": "500m"}}), "Burstable"),
        ];
        for (resources, want) in cases {
            assert_eq!(qos_class(&pod(resources.clone())), want, "{resources}");
        }
    }
}
