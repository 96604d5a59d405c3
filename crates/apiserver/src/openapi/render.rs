//! A [`Schema`] as OpenAPI JSON.

use std::collections::BTreeSet;

use super::prose::Prose;

use serde_json::{Map, Value, json};

use crate::facts::schema::{Field, ListType, Node, Rules, Schema, Type};

/// What one document has in common for all its schemas.
#[derive(Default)]
pub(super) struct Context<'a> {
    /// The texts of built-in definitions.
    pub prose: Prose<'a>,
    /// The definitions that were referred to.
    pub wanted: BTreeSet<String>,
}

/// The JSON of a schema.
pub(super) fn schema(schema: &Schema, context: &mut Context<'_>) -> Value {
    let mut out = Map::new();
    let text = if schema.is_builtin() { context.prose.of(&schema.name) } else { Some(&*schema.description) };
    if let Some(text) = text.filter(|text| !text.is_empty()) {
        out.insert("description".into(), text.into());
    }
    set_type(&mut out, schema);
    if !schema.required.is_empty() {
        out.insert("required".into(), json!(schema.required));
    }
    if !schema.properties.is_empty() {
        let mut properties = Map::new();
        for (name, one) in &schema.properties {
            let mut rendered = field(one, context);
            if let Some(text) = context.prose.of_field(&schema.name, name) {
                rendered["description"] = text.into();
            }
            properties.insert(name.clone(), rendered);
        }
        out.insert("properties".into(), properties.into());
    }
    if let Some(of) = &schema.additional {
        out.insert("additionalProperties".into(), node(of, context));
    }
    if let Some(of) = &schema.items {
        out.insert("items".into(), node(of, context));
    }
    set_extensions(&mut out, schema);
    if let Some(rules) = &schema.rules {
        set_rules(&mut out, schema.kind, rules, context);
    }
    Value::Object(out)
}

fn node(of: &Node, context: &mut Context<'_>) -> Value {
    match of {
        Node::Own(inner) => schema(inner, context),
        Node::Builtin(_) => {
            let name = &of.get().name;
            context.wanted.insert(name.clone());
            json!({ "allOf": [{ "$ref": format!("#/components/schemas/{name}") }] })
        }
    }
}

fn field(field: &Field, context: &mut Context<'_>) -> Value {
    let mut out = node(&field.node, context);
    let strategies = [(field.patch_merge, "merge"), (field.retain_keys, "retainKeys")];
    let strategy: Vec<&str> = strategies.iter().filter(|(is, _)| *is).map(|(_, name)| *name).collect();
    if !strategy.is_empty() {
        out["x-kubernetes-patch-strategy"] = strategy.join(",").into();
    }
    if let Some(key) = &field.merge_key {
        out["x-kubernetes-patch-merge-key"] = key.as_str().into();
    }
    if let Some(default) = &field.default {
        out["default"] = default.clone();
    }
    out
}

fn set_type(out: &mut Map<String, Value>, schema: &Schema) {
    let name = match schema.kind {
        Type::Any => None,
        Type::Object => Some("object"),
        Type::Array => Some("array"),
        Type::String => Some("string"),
        Type::Integer => Some("integer"),
        Type::Number => Some("number"),
        Type::Boolean => Some("boolean"),
        Type::IntOrString if schema.is_builtin() => {
            out.insert("oneOf".into(), json!([{ "type": "integer" }, { "type": "string" }]));
            None
        }
        Type::IntOrString => {
            out.insert("x-kubernetes-int-or-string".into(), true.into());
            None
        }
        Type::Quantity => {
            out.insert("oneOf".into(), json!([{ "type": "string" }, { "type": "number" }]));
            None
        }
    };
    if let Some(name) = name {
        out.insert("type".into(), name.into());
    }
    if !schema.format.is_empty() {
        out.insert("format".into(), schema.format.as_str().into());
    }
    if schema.nullable {
        out.insert("nullable".into(), true.into());
    }
}

fn set_extensions(out: &mut Map<String, Value>, schema: &Schema) {
    match schema.list {
        ListType::Atomic => {}
        ListType::Set => drop(out.insert("x-kubernetes-list-type".into(), "set".into())),
        ListType::Map => drop(out.insert("x-kubernetes-list-type".into(), "map".into())),
    }
    if !schema.map_keys.is_empty() {
        out.insert("x-kubernetes-list-map-keys".into(), json!(schema.map_keys));
    }
    if schema.map_atomic {
        out.insert("x-kubernetes-map-type".into(), "atomic".into());
    }
    if schema.preserve_unknown && !schema.is_builtin() && schema.kind != Type::Any {
        out.insert("x-kubernetes-preserve-unknown-fields".into(), true.into());
    }
    if schema.embedded {
        out.insert("x-kubernetes-embedded-resource".into(), true.into());
    }
}

fn set_rules(out: &mut Map<String, Value>, kind: Type, rules: &Rules, context: &mut Context<'_>) {
    if !rules.enumeration.is_empty() {
        out.insert("enum".into(), json!(rules.enumeration));
    }
    if let Some(pattern) = &rules.pattern {
        out.insert("pattern".into(), pattern.text.as_str().into());
    }
    for (name, exclusive, bound) in
        [("minimum", "exclusiveMinimum", rules.minimum), ("maximum", "exclusiveMaximum", rules.maximum)]
    {
        if let Some((bound, is_exclusive)) = bound {
            out.insert(name.into(), json!(bound));
            if is_exclusive {
                out.insert(exclusive.into(), true.into());
            }
        }
    }
    let (low, high) = match kind {
        Type::Array => ("minItems", "maxItems"),
        Type::Object => ("minProperties", "maxProperties"),
        _ => ("minLength", "maxLength"),
    };
    for (name, bound) in [(low, rules.length_min), (high, rules.length_max)] {
        if let Some(bound) = bound {
            out.insert(name.into(), bound.into());
        }
    }
    for (name, all) in [("allOf", &rules.all_of), ("anyOf", &rules.any_of), ("oneOf", &rules.one_of)] {
        if !all.is_empty() {
            out.insert(name.into(), all.iter().map(|one| schema(one, context)).collect());
        }
    }
    if let Some(not) = &rules.not {
        out.insert("not".into(), schema(not, context));
    }
}
