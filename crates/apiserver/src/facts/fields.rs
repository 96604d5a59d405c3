//! Walks over a value by its schema: unknown fields, pruning, defaults, decode errors.

use serde_json::{Map, Value};

use super::schema::{Node, Schema, Type};

/// The fields of a value that its schema does not know, as paths (`spec.containers[0].imagee`), sorted by occurrence.
/// Upstream's message is `unknown field "<path>"`; with `fieldValidation=Strict` they are joined by `, ` behind
/// `strict decoding error: `.
pub fn unknown_fields(value: &Value, schema: &Schema) -> Vec<String> {
    let mut found = Vec::new();
    collect_unknown(value, schema, "", &mut found);
    found
}

fn collect_unknown(value: &Value, schema: &Schema, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (name, inner) in map {
                let at = join(path, name);
                match schema.field(name) {
                    Some(field) => collect_unknown(inner, field, &at, found),
                    None if schema.preserve_unknown => {}
                    None if schema.kind == Type::Any => {}
                    None => found.push(at),
                }
            }
        }
        Value::Array(items) => {
            let Some(of) = schema.items.as_ref().map(Node::get) else { return };
            for (index, item) in items.iter().enumerate() {
                collect_unknown(item, of, &format!("{path}[{index}]"), found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// `a.b`, or `b` at the root.
pub(crate) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// Drops the fields that the schema does not know.
pub fn prune(value: &mut Value, schema: &Schema) {
    match value {
        Value::Object(map) => {
            if !schema.preserve_unknown && schema.kind != Type::Any {
                map.retain(|name, _| schema.knows(name));
            }
            for (name, inner) in map.iter_mut() {
                if let Some(field) = schema.field(name) {
                    prune(inner, field);
                }
            }
        }
        Value::Array(items) => {
            let Some(of) = schema.items.as_ref().map(Node::get) else { return };
            items.iter_mut().for_each(|item| prune(item, of));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Drops `null`s: decoding into Go's types and encoding again does the same for built-in kinds. For custom kinds only
/// where `null` is not allowed and there is a default, which then takes its place: call [`apply_defaults`].
pub fn drop_nulls(value: &mut Value, schema: &Schema) {
    match value {
        Value::Object(map) => {
            let keeps = schema.kind == Type::Any || (schema.preserve_unknown && schema.properties.is_empty());
            if !keeps {
                map.retain(|_, inner| !inner.is_null());
            }
            for (name, inner) in map.iter_mut() {
                if let Some(field) = schema.field(name) {
                    drop_nulls(inner, field);
                }
            }
        }
        Value::Array(items) => {
            let Some(of) = schema.items.as_ref().map(Node::get) else { return };
            items.iter_mut().for_each(|item| drop_nulls(item, of));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Fills in the schema's defaults where a field is absent, or `null` though that is not allowed.
pub fn apply_defaults(value: &mut Value, schema: &Schema) {
    match value {
        Value::Object(map) => {
            for (name, field) in &schema.properties {
                let Some(default) = &field.default else { continue };
                let absent = match map.get(name) {
                    None => true,
                    Some(inner) => inner.is_null() && !field.schema().nullable,
                };
                if absent {
                    map.insert(name.clone(), default.clone());
                }
            }
            for (name, inner) in map.iter_mut() {
                if let Some(field) = schema.field(name) {
                    apply_defaults(inner, field);
                }
            }
        }
        Value::Array(items) => {
            let Some(of) = schema.items.as_ref().map(Node::get) else { return };
            items.iter_mut().for_each(|item| apply_defaults(item, of));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The first value of a built-in object that cannot be decoded, in the words of Go's decoder:
/// `json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32`. Upstream puts
/// `Deployment in version "v1" cannot be handled as a Deployment: ` before it.
pub fn decode_error(value: &Value, schema: &Schema) -> Option<String> {
    let place = Place { owner: schema.short_name(), path: String::new() };
    decode(value, schema, &place, "")
}

/// The innermost Go struct and the path from the root, without indices.
struct Place<'a> {
    owner: &'a str,
    path: String,
}

fn decode(value: &Value, schema: &Schema, place: &Place<'_>, element: &str) -> Option<String> {
    let found = match value {
        Value::Null => return None,
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    if !fits(value, schema) {
        return Some(mismatch(found, value, schema, place, element));
    }
    match value {
        Value::Object(map) => decode_object(map, schema, place),
        Value::Array(items) => {
            let of = schema.items.as_ref().map(Node::get)?;
            items.iter().find_map(|item| decode(item, of, place, ""))
        }
        _ => None,
    }
}

fn decode_object(map: &Map<String, Value>, schema: &Schema, place: &Place<'_>) -> Option<String> {
    let named = !schema.properties.is_empty() && schema.is_builtin();
    for (name, inner) in map {
        let Some(field) = schema.field(name) else { continue };
        let in_map = !schema.properties.contains_key(name);
        let inside = Place {
            owner: if named { schema.short_name() } else { place.owner },
            path: if in_map { place.path.clone() } else { join(&place.path, name) },
        };
        if let Some(error) = decode(inner, field, &inside, name) {
            return Some(error);
        }
    }
    None
}

/// Whether a value has the type that the schema asks for, `null` aside.
pub(crate) fn fits(value: &Value, schema: &Schema) -> bool {
    match schema.kind {
        Type::Any => true,
        Type::Object => value.is_object(),
        Type::Array => value.is_array(),
        // Go decodes a byte slice from base64 text only; its check is by validation.
        Type::String => value.is_string(),
        Type::Integer => is_integer(value, &schema.format),
        Type::Number => value.is_number(),
        Type::Boolean => value.is_boolean(),
        Type::IntOrString => value.is_string() || is_integer(value, "int32"),
        Type::Quantity => match value {
            Value::String(text) => text.parse::<types::quantity::Quantity>().is_ok(),
            other => other.is_number(),
        },
    }
}

/// Whether a number is whole and within its format.
fn is_integer(value: &Value, format: &str) -> bool {
    let Value::Number(number) = value else { return false };
    let whole = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
    let whole =
        whole.or_else(|| number.as_f64().filter(|f| f.fract() == 0.0 && f.abs() < 1e18).map(|f| f as i128));
    match whole {
        None => false,
        Some(number) if format == "int32" => i32::try_from(number).is_ok(),
        Some(number) => i64::try_from(number).is_ok(),
    }
}

fn mismatch(found: &str, value: &Value, schema: &Schema, place: &Place<'_>, _element: &str) -> String {
    if schema.kind == Type::Quantity && value.is_string() {
        return QUANTITY_ERROR.to_owned();
    }
    let shown = match value {
        Value::Number(number) if matches!(schema.kind, Type::Integer) => format!("number {number}"),
        _ => found.to_owned(),
    };
    let wanted = go_type(schema);
    if place.path.is_empty() {
        return format!("json: cannot unmarshal {shown} into Go value of type {wanted}");
    }
    format!(
        "json: cannot unmarshal {shown} into Go struct field {}.{} of type {wanted}",
        place.owner, place.path
    )
}

/// Upstream's text for a quantity that does not parse.
pub(crate) const QUANTITY_ERROR: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

/// The name of the Go type that a built-in schema stands for.
fn go_type(schema: &Schema) -> String {
    match schema.kind {
        Type::Object if !schema.properties.is_empty() => go_struct(schema),
        Type::Object | Type::Any => match &schema.additional {
            Some(of) => format!("map[string]{}", go_type(of.get())),
            None => go_struct(schema),
        },
        Type::Array => {
            format!("[]{}", schema.items.as_ref().map_or_else(String::new, |of| go_type(of.get())))
        }
        Type::String if schema.is_builtin() => go_struct(schema),
        Type::String => "string".into(),
        Type::Integer if schema.format == "int64" => "int64".into(),
        Type::Integer => "int32".into(),
        Type::Number => "float64".into(),
        Type::Boolean => "bool".into(),
        Type::IntOrString => "intstr.IntOrString".into(),
        Type::Quantity => "resource.Quantity".into(),
    }
}

fn go_struct(schema: &Schema) -> String {
    let mut parts = schema.name.rsplit('.');
    let kind = parts.next().unwrap_or_default();
    match parts.next() {
        Some(package) => format!("{package}.{kind}"),
        None => kind.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::schema_of;
    use super::*;

    fn deployment() -> &'static Schema {
        schema_of("apps", "v1", "Deployment").expect("the table has it")
    }

    #[test]
    fn unknown_fields_are_named_by_path() {
        let value = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"labels": {"a": "b"}, "x": 1},
            "spec": {"foo": 1, "template": {"spec": {"containers": [{"name": "a"}, {"imagee": "x"}]}}}});
        let want = ["metadata.x", "spec.foo", "spec.template.spec.containers[1].imagee"];
        assert_eq!(unknown_fields(&value, deployment()), want);
        let mut pruned = value;
        prune(&mut pruned, deployment());
        assert!(unknown_fields(&pruned, deployment()).is_empty());
        assert_eq!(pruned["metadata"]["labels"]["a"], "b");
    }

    #[test]
    fn decode_errors_read_as_upstream() {
        let cases = [
            (
                json!({"spec": {"replicas": "x"}}),
                "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
            ),
            (
                json!({"spec": {"template": {"spec": {"containers": [{"env": [{"name": "a", "value": 1}]}]}}}}),
                "json: cannot unmarshal number into Go struct field EnvVar.spec.template.spec.containers.env.value of type string",
            ),
            (
                json!({"metadata": {"labels": {"a": 1}}}),
                "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
            ),
            (
                json!({"spec": {"template": {"spec": {"containers": "x"}}}}),
                "json: cannot unmarshal string into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container",
            ),
            (
                json!({"spec": {"template": {"spec": {"containers": [{"resources": {"limits": {"cpu": "x"}}}]}}}}),
                QUANTITY_ERROR,
            ),
        ];
        for (value, want) in cases {
            assert_eq!(decode_error(&value, deployment()).as_deref(), Some(want));
        }
        assert_eq!(decode_error(&json!({"spec": {"replicas": 3, "paused": null}}), deployment()), None);
    }

    #[test]
    fn defaults_fill_absent_fields_only() {
        let schema = Schema::from_crd(Some(
            &json!({"type": "object", "properties": {"spec": {"type": "object",
            "default": {}, "properties": {"n": {"type": "integer", "default": 3},
            "l": {"type": "array", "items": {"type": "object", "properties": {"p": {"type": "string", "default": "x"}}}}}}}}),
        ));
        let mut value = json!({});
        apply_defaults(&mut value, &schema);
        assert_eq!(value, json!({"spec": {"n": 3}}));
        let mut value = json!({"spec": {"n": null, "l": [{}, {"p": "y"}]}});
        apply_defaults(&mut value, &schema);
        assert_eq!(value, json!({"spec": {"n": 3, "l": [{"p": "x"}, {"p": "y"}]}}));
    }
}
