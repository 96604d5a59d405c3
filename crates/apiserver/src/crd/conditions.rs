//! What a definition must be, the names it gets, and the conditions that tell so.

use serde_json::{Value, json};

use super::{PREFIX, condition};
use crate::field::FieldError;
use crate::object;
use crate::server::ApiServer;
use crate::storage;

/// True when a condition of the status holds.
pub fn is_true(definition: &Value, kind: &str) -> bool {
    let mut all = object::items(definition, "/status/conditions").iter();
    all.any(|one| one["type"] == kind && one["status"] == "True")
}

fn set(definition: &mut Value, wanted: Value) {
    let mut all = object::items(definition, "/status/conditions").to_vec();
    match all.iter_mut().find(|one| one["type"] == wanted["type"]) {
        Some(old) if old["status"] == wanted["status"] => return,
        Some(old) => *old = wanted,
        None => all.push(wanted),
    }
    object::section(definition, "status").insert("conditions".into(), all.into());
}

/// Names that upstream derives when they are not given.
fn default_names(definition: &mut Value) {
    let Some(names) = definition.pointer_mut("/spec/names").and_then(Value::as_object_mut) else { return };
    let kind = names.get("kind").and_then(Value::as_str).unwrap_or("").to_owned();
    names.entry("singular").or_insert_with(|| kind.to_lowercase().into());
    names.entry("listKind").or_insert_with(|| format!("{kind}List").into());
}

/// A new definition has no status of the client's.
pub fn prepare_create(definition: &mut Value) {
    default_names(definition);
    let spec = object::section(definition, "spec");
    spec.entry("conversion").or_insert_with(|| json!({ "strategy": "None" }));
}

/// An update keeps the status.
pub fn prepare_update(new: &mut Value, _old: &Value) {
    default_names(new);
    let spec = object::section(new, "spec");
    spec.entry("conversion").or_insert_with(|| json!({ "strategy": "None" }));
}

/// Accepts names and establishes the kind, in the same write: validation refuses what could not be served.
pub fn finish(definition: &mut Value) {
    if object::is_terminating(definition) {
        return;
    }
    let names = definition.pointer("/spec/names").cloned().unwrap_or_else(|| json!({}));
    let storage: Vec<Value> = object::items(definition, "/spec/versions")
        .iter()
        .filter(|one| one["storage"] == true)
        .map(|one| one["name"].clone())
        .collect();
    let mut stored = object::items(definition, "/status/storedVersions").to_vec();
    for name in storage {
        if !stored.contains(&name) {
            stored.push(name);
        }
    }
    let status = object::section(definition, "status");
    status.insert("acceptedNames".into(), names);
    status.insert("storedVersions".into(), stored.into());
    set(definition, condition("NamesAccepted", "True", "NoConflicts", "no conflicts found"));
    let text = "the initial names have been accepted";
    set(definition, condition("Established", "True", "InitialNamesAccepted", text));
}

/// The condition of a definition whose instances are going.
pub fn mark_terminating(definition: &mut Value) {
    let text = "CustomResource deletion is in progress";
    set(definition, condition("Terminating", "True", "InstanceDeletionInProgress", text));
}

/// What is wrong with a definition, alone and beside the others.
pub fn validate(server: &ApiServer, definition: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut out = Vec::new();
    let text = |pointer: &str| object::text(definition, pointer);
    let (group, plural) = (text("/spec/group"), text("/spec/names/plural"));
    let want = format!("{plural}.{group}");
    if object::name(definition) != want {
        let detail = "must be spec.names.plural+\".\"+spec.group";
        out.push(FieldError::invalid("metadata.name", object::name(definition), detail));
    }
    for (field, value) in
        [("spec.group", group), ("spec.names.plural", plural), ("spec.names.kind", text("/spec/names/kind"))]
    {
        if value.is_empty() {
            out.push(FieldError::required(field, ""));
        }
    }
    if !matches!(text("/spec/scope"), "Namespaced" | "Cluster") {
        out.push(FieldError::not_supported("spec.scope", text("/spec/scope"), &["Cluster", "Namespaced"]));
    }
    if text("/spec/conversion/strategy") == "Webhook" {
        let detail = "this server converts only by strategy None";
        out.push(FieldError::forbidden("spec.conversion.strategy", detail));
    }
    versions(definition, &mut out);
    if let Some(old) = old {
        for field in ["group", "scope", "names/plural", "names/kind"] {
            let pointer = format!("/spec/{field}");
            if old.pointer(&pointer) != definition.pointer(&pointer) {
                let path = format!("spec.{}", field.replace('/', "."));
                out.push(FieldError::immutable(path, text(&pointer)));
            }
        }
    }
    out.extend(name_conflicts(server, definition));
    out
}

fn versions(definition: &Value, out: &mut Vec<FieldError>) {
    let versions = object::items(definition, "/spec/versions");
    let stored = versions.iter().filter(|one| one["storage"] == true).count();
    if stored != 1 {
        let shown = definition.pointer("/spec/versions").cloned().unwrap_or_default();
        out.push(FieldError::invalid(
            "spec.versions",
            shown,
            "must have exactly one version marked as storage version",
        ));
    }
    for (index, version) in versions.iter().enumerate() {
        let schema = version.pointer("/schema/openAPIV3Schema");
        match schema {
            None => out.push(FieldError::required(
                format!("spec.versions[{index}].schema.openAPIV3Schema"),
                "schemas are required",
            )),
            Some(schema) if schema["type"] != "object" => {
                let field = format!("spec.versions[{index}].schema.openAPIV3Schema.type");
                out.push(match schema.get("type") {
                    None => FieldError::required(field, "must not be empty at the root"),
                    Some(other) => FieldError::invalid(field, other.clone(), "must be object at the root"),
                });
            }
            Some(_) => {}
        }
    }
}

/// Two definitions of one group must not share a name.
fn name_conflicts(server: &ApiServer, definition: &Value) -> Vec<FieldError> {
    let group = object::text(definition, "/spec/group");
    let mut out = Vec::new();
    let registry = server.registry();
    let is_builtin = registry.groups().iter().filter(|one| one.name == group).any(|one| {
        one.versions.iter().flat_map(|version| &version.resources).any(|resource| resource.custom.is_none())
    });
    if is_builtin {
        out.push(FieldError::forbidden("spec.group", "the group is one of the server's own"));
    }
    for other in storage::read_all(&server.store, PREFIX) {
        let is_other = object::name(&other) != object::name(definition);
        if !is_other || object::text(&other, "/spec/group") != group {
            continue;
        }
        for field in ["kind", "listKind"] {
            let pointer = format!("/spec/names/{field}");
            let name = object::text(definition, &pointer);
            if !name.is_empty() && name == object::text(&other, &pointer) {
                let detail = format!("is already in use by {:?}", object::name(&other));
                out.push(FieldError::invalid(format!("spec.names.{field}"), name, detail));
            }
        }
    }
    out
}
