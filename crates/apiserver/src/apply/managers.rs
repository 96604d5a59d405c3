//! `metadata.managedFields`: who owns which fields.

use serde_json::{Value, json};

use super::set::Set;

/// How a manager writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// By server-side apply: it states all it wants.
    Apply,
    /// By any other write.
    Update,
}

/// Who writes, in all that makes two writers different.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manager {
    /// `fieldManager` of the request.
    pub name: String,
    /// Apply or update.
    pub operation: Operation,
    /// The version the fields are of.
    pub api_version: String,
    /// Such as `status`; empty for the object itself.
    pub subresource: String,
}

/// A manager and its fields.
#[derive(Debug, Clone)]
pub struct Owned {
    /// Who.
    pub manager: Manager,
    /// When it last changed its set.
    pub time: String,
    /// What.
    pub fields: Set,
}

impl Manager {
    /// As upstream's conflict texts name it.
    pub fn shown(&self, time: &str) -> String {
        let mut out = format!("{:?}", self.name);
        if !self.subresource.is_empty() {
            out.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if self.operation == Operation::Update {
            out.push_str(&format!(" using {}", self.api_version));
            if !time.is_empty() {
                out.push_str(&format!(" at {time}"));
            }
        }
        out
    }

    /// Whether two entries are of one manager; an applier is one whatever version it applies.
    pub fn is(&self, other: &Manager) -> bool {
        let is_version = self.operation == Operation::Apply || self.api_version == other.api_version;
        self.name == other.name
            && self.operation == other.operation
            && self.subresource == other.subresource
            && is_version
    }
}

/// The managers of an object.
pub fn read(object: Option<&Value>) -> Vec<Owned> {
    let entries =
        object.and_then(|object| object.pointer("/metadata/managedFields")).and_then(Value::as_array);
    let text = |entry: &Value, name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    let read = |entry: &Value| {
        let operation = match entry["operation"].as_str()? {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return None,
        };
        let manager = Manager {
            name: text(entry, "manager"),
            operation,
            api_version: text(entry, "apiVersion"),
            subresource: text(entry, "subresource"),
        };
        Some(Owned { manager, time: text(entry, "time"), fields: Set::from_json(&entry["fieldsV1"]) })
    };
    entries.into_iter().flatten().filter_map(read).collect()
}

/// Writes the managers into an object, in upstream's order.
pub fn write(object: &mut Value, mut all: Vec<Owned>) {
    all.retain(|owned| !owned.fields.is_empty());
    all.sort_by(|a, b| {
        let key = |owned: &Owned| (owned.manager.operation, owned.time.clone(), owned.manager.name.clone());
        key(a).cmp(&key(b))
    });
    let entry = |owned: &Owned| {
        let mut out = json!({
            "manager": owned.manager.name,
            "operation": if owned.manager.operation == Operation::Apply { "Apply" } else { "Update" },
            "apiVersion": owned.manager.api_version,
            "time": owned.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": owned.fields.to_json(),
        });
        if !owned.manager.subresource.is_empty() {
            out["subresource"] = owned.manager.subresource.as_str().into();
        }
        out
    };
    let entries: Vec<Value> = all.iter().map(entry).collect();
    let metadata = crate::object::meta_mut(object);
    if entries.is_empty() {
        metadata.shift_remove("managedFields");
    } else {
        metadata.insert("managedFields".into(), entries.into());
    }
}
