//! Strategic merge patch: JSON merge patch that knows which lists are merged, and by which key.
//!
//! Directives inside a patch: `$patch: delete|replace|merge` in an object or list item, `$retainKeys` in an object,
//! `$deleteFromPrimitiveList/<field>` and `$setElementOrder/<field>` beside a list.

use serde_json::{Map, Value};

use super::schema::{Field, Node, Schema};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_PRIMITIVES: &str = "$deleteFromPrimitiveList/";
const ELEMENT_ORDER: &str = "$setElementOrder/";

/// Why a strategic merge patch cannot be applied; upstream answers 400 with this text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PatchError(pub String);

type Result<T> = std::result::Result<T, PatchError>;

/// Applies a strategic merge patch. Only built-in kinds take one: their schemas carry merge keys.
///
/// # Errors
/// A directive that is malformed, or a list item without its merge key.
pub fn strategic_merge(base: &Value, patch: &Value, schema: &Schema) -> Result<Value> {
    let (Value::Object(base), Value::Object(patch)) = (base, patch) else {
        return Err(PatchError("Invalid JSON document: expected an object".into()));
    };
    merge_map(base, patch, Some(schema)).map(Value::Object)
}

type Object = Map<String, Value>;

fn merge_map(base: &Object, patch: &Object, schema: Option<&Schema>) -> Result<Object> {
    match patch.get(DIRECTIVE).map(|d| d.as_str()) {
        Some(Some("replace")) => return Ok(without_directives(patch)),
        Some(Some("delete")) => return Ok(Map::new()),
        Some(Some("merge")) | None => {}
        Some(_) => return Err(unknown_directive(&patch[DIRECTIVE])),
    }
    let mut out = base.clone();
    retain_keys(&mut out, patch)?;
    for (name, value) in patch {
        if name == DIRECTIVE || name == RETAIN_KEYS || name.starts_with(ELEMENT_ORDER) {
            continue;
        }
        if let Some(list) = name.strip_prefix(DELETE_PRIMITIVES) {
            delete_primitives(&mut out, list, value)?;
            continue;
        }
        let field = schema.and_then(|s| s.properties.get(name));
        let inner = field.map(Field::schema).or_else(|| schema.and_then(|s| s.field(name)));
        merge_field(&mut out, name, value, field, inner, order_of(patch, name)?)?;
    }
    // An order without a list of its own: the items stay, only their places change.
    for (name, order) in patch {
        let Some(list) = name.strip_prefix(ELEMENT_ORDER).filter(|list| !patch.contains_key(*list)) else {
            continue;
        };
        let key = schema.and_then(|s| s.properties.get(list)).and_then(|f| f.merge_key.clone());
        if let (Some(Value::Array(items)), Value::Array(order)) = (out.get_mut(list), order) {
            *items = ordered(std::mem::take(items), base.get(list), order, key.as_deref());
        }
    }
    Ok(out)
}

fn merge_field(
    out: &mut Object,
    name: &str,
    value: &Value,
    field: Option<&Field>,
    inner: Option<&Schema>,
    order: Option<&Vec<Value>>,
) -> Result<()> {
    let merged = match (out.get(name), value) {
        (_, Value::Null) => {
            out.shift_remove(name);
            return Ok(());
        }
        (Some(Value::Object(old)), Value::Object(new)) => {
            // A map that is one value is still merged here, as upstream does: atomicity is for apply.
            Value::Object(merge_map(old, new, inner)?)
        }
        (old, Value::Array(new)) if field.is_some_and(|f| f.patch_merge) => {
            let empty = Vec::new();
            let old = old.and_then(Value::as_array).unwrap_or(&empty);
            let key = field.and_then(|f| f.merge_key.as_deref());
            let of = inner.and_then(|s| s.items.as_ref()).map(Node::get);
            let merged = merge_list(old, new, key, of)?;
            let merged = match order {
                Some(order) => ordered(merged, Some(&Value::Array(old.clone())), order, key),
                None => merged,
            };
            Value::Array(merged)
        }
        (None, Value::Object(new)) => Value::Object(merge_map(&Map::new(), new, inner)?),
        (_, other) => clean(other),
    };
    out.insert(name.to_owned(), merged);
    Ok(())
}

fn retain_keys(out: &mut Object, patch: &Object) -> Result<()> {
    let Some(keys) = patch.get(RETAIN_KEYS) else { return Ok(()) };
    let keys =
        keys.as_array().ok_or_else(|| PatchError(format!("expecting list of keys in {RETAIN_KEYS}")))?;
    let has = |name: &str| keys.iter().any(|key| key.as_str() == Some(name));
    let stray = patch.iter().find(|(name, value)| !name.starts_with('$') && !value.is_null() && !has(name));
    if let Some((name, _)) = stray {
        return Err(PatchError(format!(
            "{RETAIN_KEYS} directive doesn't contain key {name:?} that is in the patch"
        )));
    }
    out.retain(|name, _| has(name));
    Ok(())
}

fn delete_primitives(out: &mut Object, list: &str, value: &Value) -> Result<()> {
    let gone =
        value.as_array().ok_or_else(|| PatchError(format!("{DELETE_PRIMITIVES}{list} must be a list")))?;
    if let Some(Value::Array(items)) = out.get_mut(list) {
        items.retain(|item| !gone.contains(item));
    }
    Ok(())
}

fn order_of<'a>(patch: &'a Object, name: &str) -> Result<Option<&'a Vec<Value>>> {
    match patch.get(&format!("{ELEMENT_ORDER}{name}")) {
        None => Ok(None),
        Some(Value::Array(order)) => Ok(Some(order)),
        Some(_) => Err(PatchError(format!("{ELEMENT_ORDER}{name} must be a list"))),
    }
}

fn merge_list(old: &[Value], new: &[Value], key: Option<&str>, of: Option<&Schema>) -> Result<Vec<Value>> {
    let Some(key) = key else {
        let mut out = old.to_vec();
        for item in new {
            if !out.contains(item) {
                out.push(item.clone());
            }
        }
        return Ok(out);
    };
    let directive = |item: &Value| item.get(DIRECTIVE).and_then(Value::as_str).map(str::to_owned);
    if new.iter().any(|item| directive(item).as_deref() == Some("replace")) {
        return Ok(new.iter().filter(|item| item.get(DIRECTIVE).is_none()).map(clean).collect());
    }
    let mut out = old.to_vec();
    for item in new {
        let Value::Object(map) = item else {
            return Err(PatchError(format!("expected an object in a list merged by {key:?}, got {item}")));
        };
        let id = map
            .get(key)
            .ok_or_else(|| PatchError(format!("map: {item} does not contain declared merge key: {key}")))?;
        match directive(item).as_deref() {
            Some("delete") => {
                out.retain(|one| one.get(key) != Some(id));
                continue;
            }
            Some("merge") | None => {}
            Some(_) => return Err(unknown_directive(&item[DIRECTIVE])),
        }
        match out.iter_mut().find(|one| one.get(key) == Some(id)) {
            Some(Value::Object(found)) => *found = merge_map(found, map, of)?,
            Some(_) | None => out.push(Value::Object(merge_map(&Map::new(), map, of)?)),
        }
    }
    Ok(out)
}

/// The list in the order that the client gives; items it does not name keep their place relative to their neighbours
/// of before.
fn ordered(merged: Vec<Value>, old: Option<&Value>, order: &[Value], key: Option<&str>) -> Vec<Value> {
    let id = |item: &Value| match key {
        Some(key) => item.get(key).cloned().unwrap_or(Value::Null),
        None => item.clone(),
    };
    let before: Vec<Value> = old.and_then(Value::as_array).into_iter().flatten().map(&id).collect();
    let wanted: Vec<Value> = order.iter().map(&id).collect();
    let place = |list: &[Value], item: &Value| list.iter().position(|one| *one == id(item));
    let (mut named, mut others): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| place(&wanted, item).is_some());
    named.sort_by_key(|item| place(&wanted, item));
    others.sort_by_key(|item| place(&before, item).unwrap_or(usize::MAX));
    let mut out = Vec::with_capacity(named.len() + others.len());
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    while let (Some(left), Some(right)) = (others.peek(), named.peek()) {
        let other_first = match (place(&before, left), place(&before, right)) {
            (Some(left), Some(right)) => left < right,
            _ => false,
        };
        out.extend(if other_first { others.next() } else { named.next() });
    }
    out.extend(others);
    out.extend(named);
    out
}

fn unknown_directive(found: &Value) -> PatchError {
    PatchError(format!("unknown patch type found in patch: {found}"))
}

fn without_directives(map: &Object) -> Object {
    let kept = map.iter().filter(|(name, value)| !name.starts_with('$') && !value.is_null());
    kept.map(|(name, value)| (name.clone(), clean(value))).collect()
}

/// A value of the patch that is new to the object: directives and `null`s mean nothing there.
fn clean(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(without_directives(map)),
        Value::Array(items) => Value::Array(items.iter().map(clean).collect()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::schema_of;
    use super::*;

    fn check(name: &str, base: Value, patch: Value, want: Value) {
        let schema = schema_of("", "v1", "Pod").expect("the table has it");
        assert_eq!(strategic_merge(&base, &patch, schema).unwrap(), want, "{name}");
    }

    #[test]
    fn lists_are_merged_by_their_keys() {
        let two = json!({"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]}});
        check(
            "changed",
            two.clone(),
            json!({"spec": {"containers": [{"name": "b", "image": "3"}]}}),
            json!({"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "3"}]}}),
        );
        check(
            "deleted and added",
            two.clone(),
            json!({"spec": {"containers": [{"name": "a", "$patch": "delete"}, {"name": "c"}]}}),
            json!({"spec": {"containers": [{"name": "b", "image": "2"}, {"name": "c"}]}}),
        );
        check(
            "replaced",
            two.clone(),
            json!({"spec": {"containers": [{"name": "z"}, {"$patch": "replace"}]}}),
            json!({"spec": {"containers": [{"name": "z"}]}}),
        );
        check(
            "ordered",
            two,
            json!({"spec": {"$setElementOrder/containers": [{"name": "c"}, {"name": "a"}], "containers": [{"name": "c"}]}}),
            json!({"spec": {"containers": [{"name": "c"}, {"name": "a", "image": "1"}, {"name": "b", "image": "2"}]}}),
        );
    }

    #[test]
    fn maps_nulls_and_primitives_follow_their_rules() {
        check(
            "null removes",
            json!({"metadata": {"labels": {"a": "1", "b": "2"}}}),
            json!({"metadata": {"labels": {"a": null, "c": "3"}}}),
            json!({"metadata": {"labels": {"b": "2", "c": "3"}}}),
        );
        check(
            "finalizers are a set",
            json!({"metadata": {"finalizers": ["x", "y"]}}),
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["x"], "finalizers": ["z"]}}),
            json!({"metadata": {"finalizers": ["y", "z"]}}),
        );
        check(
            "retained keys",
            json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}),
            json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/"}}]}}),
            json!({"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}}),
        );
        check(
            "atomic lists are replaced",
            json!({"spec": {"tolerations": [{"key": "a"}]}}),
            json!({"spec": {"tolerations": [{"key": "b"}]}}),
            json!({"spec": {"tolerations": [{"key": "b"}]}}),
        );
        check(
            "replace directive",
            json!({"metadata": {"labels": {"a": "1"}}}),
            json!({"metadata": {"labels": {"$patch": "replace", "b": "2"}}}),
            json!({"metadata": {"labels": {"b": "2"}}}),
        );
    }

    #[test]
    fn an_item_without_its_key_is_refused() {
        let schema = schema_of("", "v1", "Pod").expect("the table has it");
        let patch = json!({"spec": {"containers": [{"image": "x"}]}});
        assert!(strategic_merge(&json!({}), &patch, schema).is_err());
    }
}
