//! Services, configuration data, claims, role bindings.

use base64::Engine as _;
use serde_json::Value;

use super::{At, Findings, port_name_problems};
use crate::field::FieldError;
use crate::names;

pub(super) fn service(found: &mut Findings, spec: &At<'_>, old: Option<&Value>) {
    let kind = spec.child("type");
    found.one_of(&kind, &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]);
    let ports = spec.child("ports");
    let is_headless = spec.child("clusterIP").text() == "None";
    let is_external = kind.text() == "ExternalName";
    if is_external && spec.child("externalName").text().is_empty() {
        found.required(&spec.child("externalName"), "");
    }
    if ports.items().next().is_none() && !is_headless && !is_external {
        found.required(&ports, "");
    }
    let needs_name = ports.items().count() > 1;
    found.unique(ports.items().map(|port| port.child("name")));
    let mut seen = Vec::new();
    for port in ports.items() {
        service_port(found, &port, needs_name);
        let id = (port.child("protocol").text(), port.child("port").int());
        if seen.contains(&id) {
            let shown = serde_json::json!({ "port": id.1, "protocol": id.0 });
            found.errors.push(FieldError::duplicate(&port.path, shown));
        }
        seen.push(id);
    }
    found.labels(&spec.child("selector"));
    found.one_of(&spec.child("sessionAffinity"), &["ClientIP", "None"]);
    found.one_of(&spec.child("internalTrafficPolicy"), &["Cluster", "Local"]);
    let address = spec.child("clusterIP");
    let had = old.and_then(|old| old["clusterIP"].as_str()).unwrap_or_default();
    if !had.is_empty() && had != address.text() && !is_external && !address.text().is_empty() {
        found.errors.push(FieldError::immutable("spec.clusterIPs[0]", address.value.clone()));
    }
}

fn service_port(found: &mut Findings, port: &At<'_>, needs_name: bool) {
    let name = port.child("name");
    if name.text().is_empty() {
        if needs_name {
            found.required(&name, "");
        }
    } else {
        found.label_name(&name);
    }
    found.port(&port.child("port"));
    found.one_of(&port.child("protocol"), &["SCTP", "TCP", "UDP"]);
    let target = port.child("targetPort");
    match target.value {
        Value::String(text) => {
            for problem in port_name_problems(text) {
                found.invalid(&target, problem);
            }
        }
        Value::Number(_) => found.port(&target),
        _ => {}
    }
}

/// Keys of ConfigMaps and Secrets, base64 of the latter.
pub(super) fn data(found: &mut Findings, object: &Value) {
    let root = At::root(object);
    let mut bytes = 0;
    for part in ["data", "binaryData"] {
        let is_base64 = part == "binaryData" || object["kind"] == "Secret";
        for (key, value) in root.child(part).entries() {
            let named = |detail: &str| FieldError::invalid(&value.path, key.as_str(), detail);
            let is_legal = key.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c));
            if key.is_empty() || !is_legal {
                found.errors.push(named(
                    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or \
                     'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
                ));
            } else if key.len() > 253 {
                found.errors.push(named("must be no more than 253 bytes"));
            }
            bytes += value.text().len();
            let is_broken =
                is_base64 && base64::engine::general_purpose::STANDARD.decode(value.text()).is_err();
            if is_broken {
                found.invalid(&value, "must be valid base64");
            }
        }
    }
    if bytes > (1 << 20) && object["kind"] != "Secret" {
        found.errors.push(FieldError {
            wrong: crate::field::Wrong::TooLong,
            field: String::new(),
            value: None,
            detail: "may not be more than 1048576 bytes".into(),
        });
    }
}

pub(super) fn claim(found: &mut Findings, spec: &At<'_>, object: &Value, old: Option<&Value>) {
    let modes = spec.child("accessModes");
    if modes.items().next().is_none() {
        found.required(&modes, "at least 1 access mode is required");
    }
    for mode in modes.items() {
        let known = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
        found.one_of(&At { path: modes.path.clone(), ..mode }, &known);
    }
    let storage = spec.child("resources").child("requests").child("storage");
    if storage.is_absent() {
        found.errors.push(FieldError::required("spec.resources[storage]", ""));
    }
    let Some(old) = old.map(|old| &old["spec"]) else { return };
    let frozen = |value: &Value| {
        let mut out = value.as_object().cloned().unwrap_or_default();
        out.shift_remove("resources");
        out
    };
    let mut before = frozen(old);
    // Binding: the volume's name (and the class that was defaulted) may be filled in once.
    for field in ["volumeName", "storageClassName"] {
        if before.get(field).and_then(Value::as_str).unwrap_or_default().is_empty()
            && let Some(value) = object["spec"].get(field)
        {
            before.insert(field.into(), value.clone());
        }
    }
    if frozen(spec.value) != before {
        let detail = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        found.forbidden(spec, detail);
    }
    let amount =
        |value: &Value| value.as_str().and_then(|text| text.parse::<types::quantity::Quantity>().ok());
    let before = amount(&old["resources"]["requests"]["storage"]);
    if let (Some(new), Some(before)) = (amount(storage.value), before)
        && new < before
    {
        found.forbidden(&storage, "field can not be less than previous value");
    }
}

pub(super) fn binding(found: &mut Findings, object: &Value) {
    let root = At::root(object);
    let role = root.child("roleRef");
    let is_cluster = object["kind"] == "ClusterRoleBinding";
    let known: &[&str] = if is_cluster { &["ClusterRole"] } else { &["ClusterRole", "Role"] };
    found
        .one_of(&At { value: &Value::String(role.child("kind").text().into()), ..role.child("kind") }, known);
    if role.child("name").text().is_empty() {
        found.required(&role.child("name"), "");
    }
    for subject in root.child("subjects").items() {
        if subject.child("name").text().is_empty() {
            found.required(&subject.child("name"), "");
        }
        let kind = subject.child("kind");
        found.one_of(&kind, &["Group", "ServiceAccount", "User"]);
        if kind.text() == "ServiceAccount" {
            let namespace = subject.child("namespace");
            if namespace.text().is_empty() {
                found.required(&namespace, "");
            }
            let name = subject.child("name");
            for problem in names::subdomain_problems(name.text()) {
                found.invalid(&name, problem);
            }
        }
    }
}
