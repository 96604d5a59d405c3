//! The Kubernetes settings of an executor (`platforms.kubernetes`), applied to its pod.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::pod::push;
use crate::order::PodOrder;
use crate::{Error, text};

/// Applies a config; a setting that is not supported is an error that names it.
pub fn apply(
    order: &mut PodOrder,
    config: &Map<String, Value>,
    parameters: &BTreeMap<String, Value>,
) -> Result<(), Error> {
    for (name, value) in config {
        let items = value.as_array().cloned().unwrap_or_default();
        match name.as_str() {
            "secretAsEnv" => as_env(order, &items, "secretKeyRef", "secretName", "secretKey", parameters)?,
            "configMapAsEnv" => {
                as_env(order, &items, "configMapKeyRef", "configMapName", "configMapKey", parameters)?
            }
            "secretAsVolume" => {
                for (index, item) in items.iter().enumerate() {
                    let secret = named(item, "secretName", parameters)?;
                    let source = json!({ "secretName": secret, "optional": flag(item, "optional") });
                    mount(order, &format!("secret-{index}"), "secret", source, item)?;
                }
            }
            "configMapAsVolume" => {
                for (index, item) in items.iter().enumerate() {
                    let map = named(item, "configMapName", parameters)?;
                    let source = json!({ "name": map, "optional": flag(item, "optional") });
                    mount(order, &format!("config-{index}"), "configMap", source, item)?;
                }
            }
            "pvcMount" => {
                for (index, item) in items.iter().enumerate() {
                    let claim = named(item, "pvcName", parameters)?;
                    mount(
                        order,
                        &format!("claim-{index}"),
                        "persistentVolumeClaim",
                        json!({ "claimName": claim }),
                        item,
                    )?;
                }
            }
            "emptyDirMounts" => {
                for item in &items {
                    let own = text_at(item, "volumeName");
                    mount(order, &own, "emptyDir", json!({}), item)?;
                }
            }
            "fieldPathAsEnv" => {
                for item in &items {
                    let path = json!({ "fieldRef": { "fieldPath": text_at(item, "fieldPath") } });
                    push(&mut order.main, "env", json!({ "name": text_at(item, "name"), "valueFrom": path }));
                }
            }
            "nodeSelector" => {
                if let Some(labels) = value.get("labels").filter(|labels| labels.is_object()) {
                    order.spec.insert("nodeSelector".into(), labels.clone());
                }
            }
            "tolerations" => tolerations(order, &items)?,
            "podMetadata" => metadata(order, value),
            "imagePullSecret" => {
                for item in &items {
                    let secret = named(item, "secretName", parameters)?;
                    push(&mut order.spec, "imagePullSecrets", json!({ "name": secret }));
                }
            }
            "imagePullPolicy" => {
                order.main.insert("imagePullPolicy".into(), value.clone());
            }
            "activeDeadlineSeconds" => order.deadline_seconds = whole(value),
            "securityContext" => {
                order.main.insert("securityContext".into(), value.clone());
            }
            _ if empty(value) => {}
            other => return Err(Error::new(format!("kubernetes setting '{other}' is not supported yet"))),
        }
    }
    Ok(())
}

fn empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

fn flag(item: &Value, name: &str) -> bool {
    item.get(name).and_then(Value::as_bool).unwrap_or(false)
}

fn text_at(item: &Value, name: &str) -> String {
    item.get(name).map(text::plain).unwrap_or_default()
}

fn whole(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

/// A name that is a constant, an input, or the old plain field.
fn named(item: &Value, field: &str, parameters: &BTreeMap<String, Value>) -> Result<String, Error> {
    // The newer form is `<field>Parameter`, e.g. `secretNameParameter`; for claims it is `pvcNameParameter`.
    if let Some(source) = item.get(format!("{field}Parameter")) {
        if let Some(constant) = source.pointer("/runtimeValue/constant") {
            return Ok(text::plain(constant));
        }
        if let Some(input) = source.get("componentInputParameter").and_then(Value::as_str) {
            let value = parameters.get(input).map(text::plain);
            return value
                .ok_or_else(|| Error::new(format!("{field}: there is no input parameter '{input}'")));
        }
    }
    let old = text_at(item, if field == "pvcName" { "constant" } else { field });
    if old.is_empty() {
        Err(Error::new(format!("{field} is given in a way that is not supported yet")))
    } else {
        Ok(old)
    }
}

fn as_env(
    order: &mut PodOrder,
    items: &[Value],
    reference: &str,
    name: &str,
    key: &str,
    parameters: &BTreeMap<String, Value>,
) -> Result<(), Error> {
    for item in items {
        let object = named(item, name, parameters)?;
        for pair in item.get("keyToEnv").and_then(Value::as_array).into_iter().flatten() {
            let from =
                json!({ "name": object, "key": text_at(pair, key), "optional": flag(item, "optional") });
            let source = Value::Object(Map::from_iter([(reference.to_owned(), from)]));
            push(&mut order.main, "env", json!({ "name": text_at(pair, "envVar"), "valueFrom": source }));
        }
    }
    Ok(())
}

fn mount(order: &mut PodOrder, name: &str, kind: &str, source: Value, item: &Value) -> Result<(), Error> {
    let path = text_at(item, "mountPath");
    if !path.starts_with('/') || path.split('/').any(|part| part == "..") {
        return Err(Error::new(format!("mountPath {path:?} must be absolute and must not contain '..'")));
    }
    let mut mount = json!({ "name": name, "mountPath": path });
    let sub = text_at(item, "subPath");
    if !sub.is_empty() {
        mount["subPath"] = json!(sub);
    }
    push(&mut order.main, "volumeMounts", mount);
    let mut volume = Map::new();
    volume.insert("name".into(), json!(name));
    volume.insert(kind.to_owned(), source);
    push(&mut order.spec, "volumes", Value::Object(volume));
    Ok(())
}

fn tolerations(order: &mut PodOrder, items: &[Value]) -> Result<(), Error> {
    for item in items {
        if item.get("tolerationJson").is_some() {
            return Err(Error::new("kubernetes setting 'tolerationJson' is not supported yet"));
        }
        push(&mut order.spec, "tolerations", item.clone());
    }
    Ok(())
}

fn metadata(order: &mut PodOrder, value: &Value) {
    let pairs = |kind: &str| {
        let map = value.get(kind).and_then(Value::as_object).cloned().unwrap_or_default();
        map.into_iter().map(|(name, value)| (name, text::plain(&value))).collect::<Vec<_>>()
    };
    order.labels.extend(pairs("labels"));
    order.annotations.extend(pairs("annotations"));
}
