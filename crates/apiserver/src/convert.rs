//! Between the version an object is stored in and the one it is served in.
//!
//! Only two built-in kinds differ by more than `apiVersion`; what an older form cannot say travels in an annotation or
//! stays in storage, as upstream does.

use serde_json::{Map, Value, json};

use crate::object;
use crate::resource::{Convert, Resource};

/// Makes a stored object one of the served version.
pub fn from_storage(resource: &Resource, object: &mut Value) {
    match resource.convert {
        Convert::Same => return,
        Convert::ApiVersion => {}
        Convert::AutoscalerV1 => autoscaler_to_v1(object),
        Convert::EventV1 => rename(object, EVENT_FIELDS, false),
    }
    if let Some(map) = object.as_object_mut() {
        map.insert("apiVersion".into(), resource.api_version().into());
    }
}

/// Makes an object of the served version one to store.
pub fn to_storage(resource: &Resource, object: &mut Value) {
    match resource.convert {
        Convert::Same | Convert::ApiVersion => {}
        Convert::AutoscalerV1 => autoscaler_from_v1(object),
        Convert::EventV1 => rename(object, EVENT_FIELDS, true),
    }
    object::set_type(object, &resource.storage_api_version, &resource.kind);
}

/// `events.k8s.io/v1` name, core name.
const EVENT_FIELDS: &[(&str, &str)] = &[
    ("note", "message"),
    ("regarding", "involvedObject"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

fn rename(object: &mut Value, fields: &[(&str, &str)], to_storage: bool) {
    let Some(map) = object.as_object_mut() else { return };
    for (served, stored) in fields {
        let (from, to) = if to_storage { (served, stored) } else { (stored, served) };
        if let Some(value) = object::remove(map, from) {
            map.insert((*to).into(), value);
        }
    }
}

fn is_cpu_utilization(metric: &Value) -> bool {
    object::text(metric, "/resource/name") == "cpu"
        && metric.pointer("/resource/target/averageUtilization").is_some_and(|value| !value.is_null())
}

fn autoscaler_to_v1(object: &mut Value) {
    let metrics = object::items(object, "/spec/metrics").to_vec();
    let cpu = metrics.iter().find(|metric| is_cpu_utilization(metric)).cloned();
    let others: Vec<&Value> = metrics.iter().filter(|metric| Some(*metric) != cpu.as_ref()).collect();
    let kept = (!others.is_empty()).then(|| json!(others).to_string());
    let spec = object::section(object, "spec");
    object::remove(spec, "metrics");
    let behavior = object::remove(spec, "behavior").map(|value| value.to_string());
    if let Some(cpu) = cpu {
        let target = cpu["resource"]["target"]["averageUtilization"].clone();
        spec.insert("targetCPUUtilizationPercentage".into(), target);
    }
    let now = object::items(object, "/status/currentMetrics").iter().find_map(|metric| {
        metric.pointer("/resource/current/averageUtilization").filter(|value| !value.is_null()).cloned()
    });
    let status = object::section(object, "status");
    object::remove(status, "currentMetrics");
    object::remove(status, "conditions");
    if let Some(now) = now {
        status.insert("currentCPUUtilizationPercentage".into(), now);
    }
    for (name, text) in [("metrics", kept), ("behavior", behavior)] {
        let Some(text) = text else { continue };
        let annotations =
            object::meta_mut(object).entry("annotations").or_insert_with(|| Value::Object(Map::new()));
        if let Some(map) = annotations.as_object_mut() {
            map.insert(format!("autoscaling.alpha.kubernetes.io/{name}"), text.into());
        }
    }
}

fn autoscaler_from_v1(object: &mut Value) {
    let mut taken = Vec::new();
    for name in ["metrics", "behavior"] {
        let key = format!("autoscaling.alpha.kubernetes.io/{name}");
        let annotations = object::meta_mut(object).get_mut("annotations").and_then(Value::as_object_mut);
        let text = annotations.and_then(|map| object::remove(map, &key));
        let value = text.and_then(|text| serde_json::from_str::<Value>(text.as_str().unwrap_or("")).ok());
        taken.push(value);
    }
    let spec = object::section(object, "spec");
    let mut metrics = Vec::new();
    if let Some(percent) =
        object::remove(spec, "targetCPUUtilizationPercentage").filter(|value| !value.is_null())
    {
        metrics.push(json!({
            "type": "Resource",
            "resource": { "name": "cpu", "target": { "type": "Utilization", "averageUtilization": percent } }
        }));
    }
    if let Some(Value::Array(others)) = taken[0].take() {
        metrics.extend(others);
    }
    if !metrics.is_empty() {
        spec.insert("metrics".into(), metrics.into());
    }
    if let Some(behavior) = taken[1].take() {
        spec.insert("behavior".into(), behavior);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_autoscaler_survives_the_way_through_v1() {
        let registry = crate::builtin::registry();
        let v1 = registry.get("autoscaling", "v1", "horizontalpodautoscalers").unwrap();
        let mut object = json!({
            "apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "x"},
            "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 60}
        });
        to_storage(&v1, &mut object);
        assert_eq!(object["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 60);
        assert_eq!(object["apiVersion"], "autoscaling/v2");
        from_storage(&v1, &mut object);
        assert_eq!(object["spec"]["targetCPUUtilizationPercentage"], 60);
        assert!(object["spec"].get("metrics").is_none());
    }
}
