//! Validation of custom objects against their schema, in the words of upstream's schema validator.

mod cel;

use serde_json::Value;

use super::fields::{fits, join};
use super::schema::{ListType, Node, Rules, Schema, Type};
use crate::field::{FieldError, Wrong};

/// Everything in a custom object that its schema forbids; `old` is the stored object on an update (for transition
/// rules). CEL rules run only when the object has the right shape, as upstream does.
pub fn validate(value: &Value, old: Option<&Value>, schema: &Schema) -> Vec<FieldError> {
    let mut out = Vec::new();
    shape(value, schema, "", &mut out);
    if out.is_empty() {
        cel::check(value, old, schema, "", &mut out);
    }
    out
}

fn shape(value: &Value, schema: &Schema, path: &str, out: &mut Vec<FieldError>) {
    if value.is_null() && (schema.nullable || schema.kind == Type::Any || path.is_empty()) {
        return;
    }
    // ObjectMeta and its like are checked by hand-written code.
    if schema.is_builtin() {
        return;
    }
    if !fits(value, schema) {
        out.push(wrong_type(value, schema, path));
        return;
    }
    if let Some(rules) = &schema.rules {
        values(value, rules, path, out);
        composed(value, rules, path, out);
    }
    match value {
        Value::Object(map) => {
            for name in schema.required.iter().filter(|name| !map.contains_key(*name)) {
                out.push(FieldError::required(join(path, name), ""));
            }
            for (name, inner) in map {
                let Some(field) = schema.field(name) else { continue };
                shape(inner, field, &join(path, name), out);
            }
        }
        Value::Array(items) => {
            unique(items, schema, path, out);
            let Some(of) = schema.items.as_ref().map(Node::get) else { return };
            for (index, item) in items.iter().enumerate() {
                shape(item, of, &format!("{path}[{index}]"), out);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn wrong_type(value: &Value, schema: &Schema, path: &str) -> FieldError {
    let wanted = match schema.kind {
        Type::Object => "object",
        Type::Array => "array",
        Type::String => "string",
        Type::Integer => "integer",
        Type::Number => "number",
        Type::Boolean => "boolean",
        Type::IntOrString => "integer,string",
        Type::Quantity => "string",
        Type::Any => "any",
    };
    let found = type_name(value);
    let detail = format!("{path} in body must be of type {wanted}: {found:?}");
    FieldError { wrong: Wrong::TypeInvalid, ..FieldError::invalid(path, found, detail) }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Bounds, patterns, enumerations.
fn values(value: &Value, rules: &Rules, path: &str, out: &mut Vec<FieldError>) {
    if !rules.enumeration.is_empty() && !rules.enumeration.contains(value) {
        // In the author's order, all quoted, also numbers.
        let quoted = |one: &Value| match one {
            Value::String(text) => format!("{text:?}"),
            other => format!("{:?}", other.to_string()),
        };
        let known: Vec<String> = rules.enumeration.iter().map(quoted).collect();
        let detail = format!("supported values: {}", known.join(", "));
        out.push(FieldError {
            wrong: Wrong::NotSupported,
            ..FieldError::invalid(path, value.clone(), detail)
        });
    }
    let says =
        |detail: String| FieldError::invalid(path, value.clone(), format!("{path} in body should {detail}"));
    let too = |wrong: Wrong, detail: String| FieldError {
        wrong,
        detail,
        ..FieldError::invalid(path, value.clone(), "")
    };
    match value {
        Value::String(text) => {
            let length = text.chars().count() as u64;
            if let Some(least) = rules.length_min.filter(|least| length < *least) {
                out.push(says(format!("be at least {least} chars long")));
            }
            if let Some(most) = rules.length_max.filter(|most| length > *most) {
                out.push(too(Wrong::TooLong, format!("may not be more than {most} bytes")));
            }
            if let Some(pattern) = rules.pattern.as_ref().filter(|pattern| !pattern.matches(text)) {
                out.push(says(format!("match '{}'", pattern.text)));
            }
        }
        Value::Number(number) => bounds(number.as_f64().unwrap_or(0.0), rules, &says, out),
        Value::Array(items) => count(items.len(), "items", rules, &says, &too, out),
        Value::Object(map) => count(map.len(), "properties", rules, &says, &too, out),
        Value::Null | Value::Bool(_) => {}
    }
}

fn bounds(number: f64, rules: &Rules, says: &dyn Fn(String) -> FieldError, out: &mut Vec<FieldError>) {
    match rules.minimum {
        Some((bound, true)) if number <= bound => out.push(says(format!("be greater than {bound}"))),
        Some((bound, false)) if number < bound => {
            out.push(says(format!("be greater than or equal to {bound}")))
        }
        _ => {}
    }
    match rules.maximum {
        Some((bound, true)) if number >= bound => out.push(says(format!("be less than {bound}"))),
        Some((bound, false)) if number > bound => out.push(says(format!("be less than or equal to {bound}"))),
        _ => {}
    }
    if let Some(step) = rules.multiple_of.filter(|step| (number / step).fract() != 0.0) {
        out.push(says(format!("be a multiple of {step}")));
    }
}

fn count(
    found: usize,
    what: &str,
    rules: &Rules,
    says: &dyn Fn(String) -> FieldError,
    too: &dyn Fn(Wrong, String) -> FieldError,
    out: &mut Vec<FieldError>,
) {
    let found = found as u64;
    if let Some(least) = rules.length_min.filter(|least| found < *least) {
        out.push(says(format!("have at least {least} {what}")));
    }
    if let Some(most) = rules.length_max.filter(|most| found > *most) {
        let many = too(Wrong::TooMany, format!("must have at most {most} items"));
        out.push(FieldError { value: Some(found.into()), ..many });
    }
}

/// `allOf`, `anyOf`, `oneOf`, `not`.
fn composed(value: &Value, rules: &Rules, path: &str, out: &mut Vec<FieldError>) {
    let holds = |schema: &Schema| {
        let mut found = Vec::new();
        shape(value, schema, path, &mut found);
        found.is_empty()
    };
    let says = |detail: &str| FieldError::invalid(path, value.clone(), format!("{path:?} {detail}"));
    for schema in &rules.all_of {
        shape(value, schema, path, out);
    }
    if !rules.any_of.is_empty() && !rules.any_of.iter().any(holds) {
        out.push(says("must validate at least one schema (anyOf)"));
    }
    if !rules.one_of.is_empty() {
        match rules.one_of.iter().filter(|schema| holds(schema)).count() {
            1 => {}
            0 => out.push(says("must validate one and only one schema (oneOf). Found none valid")),
            many => {
                out.push(says(&format!(
                    "must validate one and only one schema (oneOf). Found {many} valid alternatives"
                )));
            }
        }
    }
    if rules.not.as_ref().is_some_and(|schema| holds(schema)) {
        out.push(says("must not validate the schema (not)"));
    }
}

/// Items of sets and maps come once.
fn unique(items: &[Value], schema: &Schema, path: &str, out: &mut Vec<FieldError>) {
    let id = |item: &Value| match schema.list {
        ListType::Atomic => Value::Null,
        ListType::Set => item.clone(),
        ListType::Map => {
            let keys = schema.map_keys.iter().filter_map(|key| Some((key.clone(), item.get(key)?.clone())));
            Value::Object(keys.collect())
        }
    };
    if schema.list == ListType::Atomic {
        return;
    }
    let mut seen: Vec<Value> = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let id = id(item);
        if seen.contains(&id) {
            out.push(FieldError::duplicate(format!("{path}[{index}]"), id));
        } else {
            seen.push(id);
        }
    }
}

#[cfg(test)]
mod tests;
