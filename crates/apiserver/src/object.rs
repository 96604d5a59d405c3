//! Reading and writing the parts that all Kubernetes objects share, on untyped JSON.
//!
//! Untyped because an object must come back with everything it was sent with; see ADR 0003.
//! Not here: what a kind means.

use bytes::Bytes;
use serde_json::{Map, Value};

/// Stands in for the resourceVersion until the store has chosen it.
const SPLIT: &str = "\"resourceVersion\":\"";

/// The object's `metadata`, or an empty map when absent.
pub fn meta(object: &Value) -> Option<&Map<String, Value>> {
    object.get("metadata").and_then(Value::as_object)
}

/// The object's `metadata`, made when absent. Anything that is no object is replaced by one.
pub fn meta_mut(object: &mut Value) -> &mut Map<String, Value> {
    section(object, "metadata")
}

/// A top-level map of an object, made when absent or of another type.
pub fn section<'a>(object: &'a mut Value, name: &str) -> &'a mut Map<String, Value> {
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let map = object.as_object_mut().expect("made an object above");
    let entry = map.entry(name).or_insert_with(|| Value::Object(Map::new()));
    if !entry.is_object() {
        *entry = Value::Object(Map::new());
    }
    entry.as_object_mut().expect("made an object above")
}

/// A string of the metadata, empty when absent.
pub fn meta_str<'a>(object: &'a Value, field: &str) -> &'a str {
    object.get("metadata").and_then(|meta| meta.get(field)).and_then(Value::as_str).unwrap_or("")
}

/// `metadata.name`.
pub fn name(object: &Value) -> &str {
    meta_str(object, "name")
}

/// `metadata.namespace`.
pub fn namespace(object: &Value) -> &str {
    meta_str(object, "namespace")
}

/// `metadata.uid`.
pub fn uid(object: &Value) -> &str {
    meta_str(object, "uid")
}

/// `metadata.resourceVersion`.
pub fn resource_version(object: &Value) -> &str {
    meta_str(object, "resourceVersion")
}

/// The string at a JSON pointer, empty when absent.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or("")
}

/// The array at a JSON pointer, empty when absent.
pub fn items<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or(&[])
}

/// The integer at a JSON pointer.
pub fn int(object: &Value, pointer: &str) -> Option<i64> {
    object.pointer(pointer).and_then(Value::as_i64)
}

/// The list of finalizers.
pub fn finalizers(object: &Value) -> Vec<&str> {
    items(object, "/metadata/finalizers").iter().filter_map(Value::as_str).collect()
}

/// True when the object has been asked to go.
pub fn is_terminating(object: &Value) -> bool {
    meta(object).is_some_and(|meta| meta.get("deletionTimestamp").is_some_and(|at| !at.is_null()))
}

/// Sets `apiVersion` and `kind`, first in the object.
pub fn set_type(object: &mut Value, api_version: &str, kind: &str) {
    let Value::Object(old) = object else { return };
    let mut map = Map::with_capacity(old.len() + 2);
    map.insert("kind".into(), kind.into());
    map.insert("apiVersion".into(), api_version.into());
    for (key, value) in std::mem::take(old) {
        if key != "kind" && key != "apiVersion" {
            map.insert(key, value);
        }
    }
    *old = map;
}

/// Removes a key without disturbing the order of the others.
pub fn remove(map: &mut Map<String, Value>, key: &str) -> Option<Value> {
    map.shift_remove(key)
}

/// The time now as Kubernetes writes it: seconds, UTC.
pub fn now() -> String {
    time(jiff::Timestamp::now())
}

/// A time as Kubernetes writes it.
pub fn time(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// An object serialised but for its resourceVersion, so that the store's writer only splices bytes.
pub struct Rendered {
    head: Vec<u8>,
    tail: Vec<u8>,
    split: bool,
}

impl Rendered {
    /// Serialises an object; its own resourceVersion is ignored.
    pub fn new(object: &Value) -> Self {
        let empty = Map::new();
        let map = object.as_object().unwrap_or(&empty);
        let mut head = Vec::with_capacity(1024);
        let mut tail = Vec::new();
        let mut split = false;
        head.push(b'{');
        for (index, (key, value)) in map.iter().enumerate() {
            let out = if split { &mut tail } else { &mut head };
            if index > 0 {
                out.push(b',');
            }
            write_json(out, key);
            out.push(b':');
            match value.as_object() {
                Some(meta) if key == "metadata" => {
                    tail = write_meta(&mut head, meta);
                    split = true;
                }
                _ => write_json(out, value),
            }
        }
        if split { &mut tail } else { &mut head }.push(b'}');
        Self { head, tail, split }
    }

    /// The bytes with their resourceVersion.
    pub fn at(self, revision: u64) -> Bytes {
        let mut out = self.head;
        if self.split {
            out.extend_from_slice(revision.to_string().as_bytes());
            out.extend_from_slice(&self.tail);
        }
        Bytes::from(out)
    }
}

/// Writes the metadata up to the resourceVersion into `head`; what follows comes back.
fn write_meta(head: &mut Vec<u8>, meta: &Map<String, Value>) -> Vec<u8> {
    head.push(b'{');
    for key in ["name", "generateName", "namespace", "uid"] {
        if let Some(value) = meta.get(key) {
            write_json(head, key);
            head.push(b':');
            write_json(head, value);
            head.push(b',');
        }
    }
    head.extend_from_slice(SPLIT.as_bytes());
    let mut tail = vec![b'"'];
    for (key, value) in meta {
        if !matches!(key.as_str(), "name" | "generateName" | "namespace" | "uid" | "resourceVersion") {
            tail.push(b',');
            write_json(&mut tail, key);
            tail.push(b':');
            write_json(&mut tail, value);
        }
    }
    tail.push(b'}');
    tail
}

fn write_json<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(out, value).expect("JSON values serialise into memory");
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rendering_puts_the_revision_in_the_metadata_only() {
        let cases = [
            json!({"kind": "A", "metadata": {"name": "x", "labels": {"resourceVersion": "1"}}, "spec": {"a": [1]}}),
            json!({"metadata": {"name": "x", "resourceVersion": "3"}}),
            json!({"metadata": {}, "z": 1, "y": "resourceVersion"}),
        ];
        for object in cases {
            let bytes = Rendered::new(&object).at(42);
            let mut want = object.clone();
            meta_mut(&mut want).insert("resourceVersion".into(), "42".into());
            let got: Value = serde_json::from_slice(&bytes).unwrap();
            assert_eq!(got, want);
        }
    }
}
