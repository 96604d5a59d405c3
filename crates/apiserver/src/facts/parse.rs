//! Reads schemas from JSON: definitions of the built-in table, and `openAPIV3Schema` of custom kinds.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::schema::{CelRule, Field, ListType, Node, Rules, Schema, Type};

/// The schema of a custom kind, or of a part of one.
pub(crate) fn crd(value: &Value) -> Schema {
    schema(value, &Source::Crd)
}

/// A definition of the built-in table.
pub(crate) fn builtin(name: &str, value: &Value, index: &HashMap<&str, usize>) -> Schema {
    let mut parsed = schema(value, &Source::Builtin(index));
    parsed.name = name.to_owned();
    match parsed.short_name() {
        "Quantity" => parsed.kind = Type::Quantity,
        "IntOrString" => parsed.kind = Type::IntOrString,
        _ => {}
    }
    parsed
}

enum Source<'a> {
    Crd,
    Builtin(&'a HashMap<&'a str, usize>),
}

fn schema(value: &Value, source: &Source<'_>) -> Schema {
    let mut out = Schema { kind: type_of(value), ..Schema::default() };
    let Value::Object(map) = value else { return out };
    for (name, inner) in object(map, "properties") {
        out.properties.insert(name.clone(), field(inner, source));
    }
    out.items = map.get("items").filter(|i| i.is_object()).map(|i| node(i, source));
    out.additional = match map.get("additionalProperties") {
        Some(inner @ Value::Object(_)) => Some(node(inner, source)),
        Some(Value::Bool(true)) => {
            Some(Node::Own(Box::new(Schema { preserve_unknown: true, ..Schema::default() })))
        }
        _ => None,
    };
    out.required = strings(map, "required");
    out.map_keys = strings(map, "x-kubernetes-list-map-keys");
    out.list = match text(map, "x-kubernetes-list-type") {
        "map" => ListType::Map,
        "set" => ListType::Set,
        _ => ListType::Atomic,
    };
    out.map_atomic = text(map, "x-kubernetes-map-type") == "atomic";
    out.preserve_unknown = flag(map, "x-kubernetes-preserve-unknown-fields");
    out.embedded = flag(map, "x-kubernetes-embedded-resource");
    out.nullable = flag(map, "nullable");
    out.format = text(map, "format").to_owned();
    let bare = out.properties.is_empty() && out.additional.is_none();
    match source {
        Source::Builtin(_) => out.preserve_unknown = bare && matches!(out.kind, Type::Object | Type::Any),
        Source::Crd => {
            out.rules = rules(map, out.kind);
            out.description = text(map, "description").into();
            if out.embedded {
                out.add_object_fields();
            }
        }
    }
    out
}

fn type_of(value: &Value) -> Type {
    let get = |word: &str| value.get(word);
    if get("x-kubernetes-int-or-string") == Some(&Value::Bool(true))
        || get("format") == Some(&"int-or-string".into())
    {
        return Type::IntOrString;
    }
    match get("type").and_then(Value::as_str) {
        Some("object") => Type::Object,
        Some("array") => Type::Array,
        Some("string") => Type::String,
        Some("integer") => Type::Integer,
        Some("number") => Type::Number,
        Some("boolean") => Type::Boolean,
        Some(_) | None if get("properties").is_some() => Type::Object,
        Some(_) | None => Type::Any,
    }
}

fn node(value: &Value, source: &Source<'_>) -> Node {
    if let (Source::Builtin(index), Some(name)) = (source, value.get("$ref").and_then(Value::as_str))
        && let Some(at) = index.get(name)
    {
        return Node::Builtin(*at);
    }
    Node::Own(Box::new(schema(value, source)))
}

fn field(value: &Value, source: &Source<'_>) -> Field {
    let strategy = value.get("x-kubernetes-patch-strategy").and_then(Value::as_str).unwrap_or_default();
    let default = value.get("default").filter(|default| match source {
        Source::Crd => true,
        // The documents give Go's zero values as defaults; the server does not fill those in.
        Source::Builtin(_) => !is_zero(default),
    });
    Field {
        node: node(value, source),
        patch_merge: strategy.split(',').any(|part| part == "merge"),
        retain_keys: strategy.split(',').any(|part| part == "retainKeys"),
        merge_key: value.get("x-kubernetes-patch-merge-key").and_then(Value::as_str).map(str::to_owned),
        default: default.cloned(),
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(yes) => !yes,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

fn rules(map: &Map<String, Value>, kind: Type) -> Option<Box<Rules>> {
    let number = |word: &str| map.get(word).and_then(Value::as_f64);
    let count = |word: &str| map.get(word).and_then(Value::as_u64);
    let schemas = |word: &str| {
        map.get(word).and_then(Value::as_array).map_or(Vec::new(), |all| all.iter().map(crd).collect())
    };
    let (length_min, length_max) = match kind {
        Type::Array => (count("minItems"), count("maxItems")),
        Type::Object => (count("minProperties"), count("maxProperties")),
        _ => (count("minLength"), count("maxLength")),
    };
    let out = Rules {
        enumeration: map.get("enum").and_then(Value::as_array).cloned().unwrap_or_default(),
        pattern: map.get("pattern").and_then(Value::as_str).map(Rules::pattern),
        minimum: number("minimum").map(|bound| (bound, flag(map, "exclusiveMinimum"))),
        maximum: number("maximum").map(|bound| (bound, flag(map, "exclusiveMaximum"))),
        multiple_of: number("multipleOf"),
        length_min,
        length_max,
        all_of: schemas("allOf"),
        any_of: schemas("anyOf"),
        one_of: schemas("oneOf"),
        not: map.get("not").filter(|n| n.is_object()).map(|n| Box::new(crd(n))),
        validations: cel_rules(map),
    };
    let is_empty = out.enumeration.is_empty()
        && out.pattern.is_none()
        && out.minimum.is_none()
        && out.maximum.is_none()
        && out.multiple_of.is_none()
        && out.length_min.is_none()
        && out.length_max.is_none()
        && out.all_of.is_empty()
        && out.any_of.is_empty()
        && out.one_of.is_empty()
        && out.not.is_none()
        && out.validations.is_empty();
    (!is_empty).then(|| Box::new(out))
}

fn cel_rules(map: &Map<String, Value>) -> Vec<CelRule> {
    let Some(Value::Array(all)) = map.get("x-kubernetes-validations") else { return Vec::new() };
    let of = |rule: &Value, word: &str| rule.get(word).and_then(Value::as_str).unwrap_or_default().to_owned();
    all.iter()
        .map(|rule| CelRule {
            rule: of(rule, "rule"),
            message: of(rule, "message"),
            message_expression: of(rule, "messageExpression"),
            reason: of(rule, "reason"),
            field_path: of(rule, "fieldPath"),
            optional_old_self: rule.get("optionalOldSelf") == Some(&Value::Bool(true)),
        })
        .collect()
}

fn object<'a>(map: &'a Map<String, Value>, word: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    map.get(word).and_then(Value::as_object).into_iter().flatten()
}

fn strings(map: &Map<String, Value>, word: &str) -> Vec<String> {
    let all = map.get(word).and_then(Value::as_array).into_iter().flatten();
    all.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn text<'a>(map: &'a Map<String, Value>, word: &str) -> &'a str {
    map.get(word).and_then(Value::as_str).unwrap_or_default()
}

fn flag(map: &Map<String, Value>, word: &str) -> bool {
    map.get(word) == Some(&Value::Bool(true))
}
