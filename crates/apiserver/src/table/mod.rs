//! Answers as `Table`: the columns that `kubectl get` shows, computed where the objects are.
//!
//! Columns and their texts are upstream's (`pkg/printers/internalversion`); custom kinds bring theirs as JSONPath.

mod autoscaler;
mod cells;
mod columns;
mod format;
mod jsonpath;
mod network;
mod pods;

use serde_json::{Map, Value, json};

use crate::object;
use crate::request::Query;
use crate::resource::Resource;

/// `metav1.TableOptions`.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Leave out the column definitions.
    pub no_headers: bool,
    include: String,
}

impl Options {
    /// Reads the parameters.
    pub fn read(query: &Query) -> Self {
        Self { no_headers: query.flag("noHeaders"), include: query.get("includeObject").to_owned() }
    }
}

/// The object reduced to `PartialObjectMetadata`.
pub fn partial(object: &Value) -> Value {
    let metadata = object.get("metadata").cloned().unwrap_or_else(|| json!({}));
    json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata })
}

/// One row.
pub fn row(resource: &Resource, object: &Value, options: &Options) -> Value {
    let cells = match &resource.custom {
        Some(custom) => jsonpath::cells(custom, object),
        None => cells::of(resource, object),
    };
    let mut out = Map::new();
    out.insert("cells".into(), cells.into());
    let conditions = cells::row_conditions(resource, object);
    if !conditions.is_empty() {
        out.insert("conditions".into(), conditions.into());
    }
    match options.include.as_str() {
        "None" => {}
        "Object" => drop(out.insert("object".into(), object.clone())),
        _ => drop(out.insert("object".into(), partial(object))),
    }
    Value::Object(out)
}

/// The table around rows.
pub fn document(resource: &Resource, rows: Vec<Value>, meta: Value, with_columns: bool) -> Value {
    let definitions = if with_columns { columns::of(resource) } else { Vec::new() };
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": meta,
        "columnDefinitions": if with_columns { Value::from(definitions) } else { Value::Null }, "rows": rows,
    })
}

/// `metadata.name`, the first cell of nearly every row.
fn name(object: &Value) -> Value {
    object::name(object).into()
}

/// `metadata.creationTimestamp` as an age.
fn age(object: &Value) -> Value {
    format::since(object::meta_str(object, "creationTimestamp")).into()
}
