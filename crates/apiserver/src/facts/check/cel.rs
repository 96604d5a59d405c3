//! `x-kubernetes-validations`: rules in the Common Expression Language.
//!
//! A rule sees `self` and, on updates, `oldSelf`; a rule that uses `oldSelf` runs only where both exist. A rule that
//! cannot be compiled or fails while it runs is a finding, never a pass: what the author demanded was not shown.
//! Upstream's own libraries beyond the language (`quantity`, `url`, `ip`, `format`) are not there; a rule
//! that calls them says so when it runs.

use cel::{Context, Program};
use serde_json::Value;

use super::super::fields::join;
use super::super::schema::{CelRule, ListType, Node, Schema, Type};
use super::type_name;
use crate::field::{FieldError, Wrong};

/// Runs the rules of a value and of all within it.
pub(super) fn check(
    value: &Value,
    old: Option<&Value>,
    schema: &Schema,
    path: &str,
    out: &mut Vec<FieldError>,
) {
    if schema.is_builtin() || value.is_null() {
        return;
    }
    if let Some(rules) = &schema.rules {
        for rule in &rules.validations {
            out.extend(run(rule, value, old, schema, path));
        }
    }
    match value {
        Value::Object(map) => {
            for (name, inner) in map {
                let Some(field) = schema.field(name) else { continue };
                check(inner, old.and_then(|old| old.get(name)), field, &join(path, name), out);
            }
        }
        Value::Array(items) => {
            let Some(of) = schema.items.as_ref().map(Node::get) else { return };
            for (index, item) in items.iter().enumerate() {
                let old = old.and_then(|old| counterpart(item, old, schema));
                check(item, old, of, &format!("{path}[{index}]"), out);
            }
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Null => {}
    }
}

/// The old item that a new one is compared with: only lists of type map have one.
fn counterpart<'a>(item: &Value, old: &'a Value, schema: &Schema) -> Option<&'a Value> {
    if schema.list != ListType::Map {
        return None;
    }
    let is_same = |one: &&Value| schema.map_keys.iter().all(|key| one.get(key) == item.get(key));
    old.as_array()?.iter().find(is_same)
}

fn run(
    rule: &CelRule,
    value: &Value,
    old: Option<&Value>,
    schema: &Schema,
    path: &str,
) -> Option<FieldError> {
    let program = match Program::compile(&rule.rule) {
        Ok(program) => program,
        Err(error) => return Some(failed(rule, value, path, &format!("rule does not compile: {error}"))),
    };
    let is_transition = program.references().has_variable("oldSelf");
    if is_transition && old.is_none() && !rule.optional_old_self {
        return None;
    }
    let mut context = Context::default();
    let bound = context.add_variable("self", typed(value, schema)).is_ok()
        && old.is_none_or(|old| context.add_variable("oldSelf", typed(old, schema)).is_ok());
    if !bound {
        return Some(failed(rule, value, path, "the value cannot be given to the rule"));
    }
    match program.execute(&context) {
        Ok(cel::Value::Bool(true)) => None,
        Ok(cel::Value::Bool(false)) => Some(refusal(rule, value, path, message(rule, &context))),
        Ok(_) => Some(failed(rule, value, path, "the rule gives no boolean")),
        Err(error) => Some(failed(rule, value, path, &format!("rule failed: {error}"))),
    }
}

/// Values as the rule expects them: whole numbers of a `number` are doubles there.
fn typed(value: &Value, schema: &Schema) -> Value {
    match (value, schema.kind) {
        (Value::Number(number), Type::Number) => number.as_f64().map_or(Value::Null, Value::from),
        (Value::Object(map), _) => {
            let fields = map.iter().map(|(name, inner)| match schema.field(name) {
                Some(field) => (name.clone(), typed(inner, field)),
                None => (name.clone(), inner.clone()),
            });
            Value::Object(fields.collect())
        }
        (Value::Array(items), _) => match schema.items.as_ref().map(Node::get) {
            Some(of) => Value::Array(items.iter().map(|item| typed(item, of)).collect()),
            None => value.clone(),
        },
        _ => value.clone(),
    }
}

fn message(rule: &CelRule, context: &Context<'_, '_>) -> String {
    let computed =
        Program::compile(&rule.message_expression).ok().filter(|_| !rule.message_expression.is_empty());
    if let Some(Ok(cel::Value::String(text))) = computed.map(|program| program.execute(context)) {
        return text.to_string();
    }
    if rule.message.is_empty() { format!("failed rule: {}", rule.rule.trim()) } else { rule.message.clone() }
}

fn refusal(rule: &CelRule, value: &Value, path: &str, message: String) -> FieldError {
    let field = match rule.field_path.strip_prefix('.') {
        Some(inner) => join(path, inner),
        None => path.to_owned(),
    };
    let shown = match value {
        Value::Object(_) | Value::Array(_) => Value::from(type_name(value)),
        scalar => scalar.clone(),
    };
    let wrong = match rule.reason.as_str() {
        "FieldValueForbidden" => Wrong::Forbidden,
        "FieldValueRequired" => Wrong::Required,
        "FieldValueDuplicate" => Wrong::Duplicate,
        _ => Wrong::Invalid,
    };
    FieldError { wrong, ..FieldError::invalid(field, shown, message) }
}

fn failed(rule: &CelRule, value: &Value, path: &str, why: &str) -> FieldError {
    refusal(
        &CelRule { reason: String::new(), ..rule.clone() },
        value,
        path,
        format!("{why}; rule: {}", rule.rule),
    )
}
