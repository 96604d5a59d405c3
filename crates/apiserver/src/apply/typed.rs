//! Values by their schema: which fields they have, how two merge, in what they differ.
//!
//! What one manager can own alone is a *leaf*: a scalar, an atomic list or map, an empty one. Other maps and
//! lists are owned by their parts. Fields that a schema does not describe are taken as upstream deduces them: objects
//! by their fields, lists as one value.

use serde_json::{Map, Value};

use super::set::Set;
use crate::facts::schema::{ListType, Node, Schema};

/// A value with the schema that describes it, if any does.
#[derive(Clone, Copy)]
pub struct Typed<'a> {
    /// The value.
    pub value: &'a Value,
    /// Its schema.
    pub schema: Option<&'a Schema>,
}

/// The parts of a value that are owned one by one: element, value, and whether the element is a member itself.
type Parts<'a> = Vec<(String, Typed<'a>, bool)>;

impl<'a> Typed<'a> {
    /// The parts; `None` for a leaf.
    fn parts(self) -> Option<Parts<'a>> {
        match self.value {
            Value::Object(map) if !map.is_empty() && !self.is_atomic_map() => Some(self.fields(map)),
            Value::Array(items) if !items.is_empty() => self.items(items),
            _ => None,
        }
    }

    fn is_atomic_map(self) -> bool {
        self.schema.is_some_and(|schema| {
            let is_opaque = schema.is_builtin() && schema.preserve_unknown;
            schema.map_atomic || is_opaque
        })
    }

    fn fields(self, map: &'a Map<String, Value>) -> Parts<'a> {
        let part = |(name, value): (&'a String, &'a Value)| {
            let schema = self.schema.and_then(|schema| schema.field(name));
            let is_named = self.schema.is_some_and(|schema| schema.properties.contains_key(name));
            (format!("f:{name}"), Typed { value, schema }, !is_named)
        };
        map.iter().map(part).collect()
    }

    fn items(self, items: &'a [Value]) -> Option<Parts<'a>> {
        let list = self.schema?;
        let schema = list.items.as_ref().map(Node::get);
        let mut out: Parts<'a> = Vec::with_capacity(items.len());
        for value in items {
            let element = match list.list {
                ListType::Atomic => return None,
                ListType::Set => format!("v:{value}"),
                ListType::Map => key_of(value, list)?,
            };
            // An item that is there twice cannot be owned by its key.
            if out.iter().any(|(one, ..)| *one == element) {
                return None;
            }
            out.push((element, Typed { value, schema }, true));
        }
        Some(out)
    }
}

/// `k:{…}` of a list's item, keys sorted; a key that is absent counts with its default, as `protocol: TCP` does.
fn key_of(item: &Value, list: &Schema) -> Option<String> {
    let of = list.items.as_ref().map(Node::get)?;
    let mut keys = list.map_keys.clone();
    keys.sort_unstable();
    let mut found = Map::new();
    for key in keys {
        let default = of.properties.get(&key).and_then(|field| field.default.as_ref());
        if let Some(value) = item.get(&key).or(default) {
            found.insert(key, value.clone());
        }
    }
    (!found.is_empty()).then(|| format!("k:{}", Value::Object(found)))
}

/// The fields that a value has.
pub fn fields_of(typed: Typed<'_>) -> Set {
    let mut out = Set::default();
    for (element, part, is_member) in typed.parts().unwrap_or_default() {
        let is_leaf = part.parts().is_none();
        out.put(element, is_leaf || is_member, fields_of(part));
    }
    out
}

/// Lays an applied value over a live one.
pub fn merge(live: Typed<'_>, applied: Typed<'_>) -> Value {
    match (live.value, applied.value, live.parts(), applied.parts()) {
        (Value::Object(old), Value::Object(new), Some(_), Some(_)) => {
            let mut out = old.clone();
            for (name, value) in new {
                let schema = applied.schema.and_then(|schema| schema.field(name));
                let merged = match old.get(name) {
                    Some(before) => merge(Typed { value: before, schema }, Typed { value, schema }),
                    None => value.clone(),
                };
                out.insert(name.clone(), merged);
            }
            Value::Object(out)
        }
        (Value::Array(_), Value::Array(_), Some(old), Some(new)) => {
            let find = |parts: &Parts<'_>, element: &str| parts.iter().position(|(one, ..)| one == element);
            let mut out: Vec<Value> = Vec::with_capacity(old.len() + new.len());
            for (element, part, _) in &old {
                out.push(match find(&new, element) {
                    Some(at) => merge(*part, new[at].1),
                    None => part.value.clone(),
                });
            }
            let fresh = new.iter().filter(|(element, ..)| find(&old, element).is_none());
            out.extend(fresh.map(|(_, part, _)| part.value.clone()));
            Value::Array(out)
        }
        // An empty applied map asks that it be there, not that it be emptied.
        (Value::Object(old), Value::Object(new), Some(_), None) if new.is_empty() => {
            Value::Object(old.clone())
        }
        (Value::Array(old), Value::Array(new), Some(_), None) if new.is_empty() => Value::Array(old.clone()),
        _ => applied.value.clone(),
    }
}

/// In what a new value differs from an old one.
#[derive(Debug, Default)]
pub struct Difference {
    /// Leaves with another value, and fields that are new.
    pub changed: Set,
    /// Fields that are gone.
    pub removed: Set,
}

/// Compares two values of one schema.
pub fn compare(old: Typed<'_>, new: Typed<'_>) -> Difference {
    let mut out = Difference::default();
    let (before, after) = (old.parts().unwrap_or_default(), new.parts().unwrap_or_default());
    let find = |parts: &Parts<'_>, element: &str| parts.iter().position(|(one, ..)| one == element);
    for (element, part, is_member) in &after {
        let Some(at) = find(&before, element) else {
            out.changed.put(element.clone(), part.parts().is_none() || *is_member, fields_of(*part));
            continue;
        };
        let was = before[at].1;
        let (was_leaf, is_leaf) = (was.parts().is_none(), part.parts().is_none());
        if was_leaf && is_leaf {
            out.changed.put(element.clone(), was.value != part.value, Set::default());
            continue;
        }
        let inner = compare(was, *part);
        out.changed.put(element.clone(), is_leaf, inner.changed);
        out.removed.put(element.clone(), false, inner.removed);
    }
    for (element, part, _) in before.iter().filter(|(element, ..)| find(&after, element).is_none()) {
        out.removed.put(element.clone(), true, fields_of(*part));
    }
    out
}

/// Removes what a manager gave up: fields in `last` of which nobody keeps anything.
pub fn prune(value: &mut Value, schema: Option<&Schema>, last: &Set, kept: &Set) {
    match value {
        Value::Object(map) => {
            for (element, entry) in last.entries() {
                let Some(name) = element.strip_prefix("f:") else { continue };
                match kept.get(element) {
                    None => drop(map.shift_remove(name)),
                    Some(kept) => {
                        let inner = schema.and_then(|schema| schema.field(name));
                        if let Some(value) = map.get_mut(name) {
                            prune(value, inner, &entry.inner, &kept.inner);
                        }
                    }
                }
            }
        }
        Value::Array(items) => {
            let Some(list) = schema else { return };
            let element = |item: &Value| match list.list {
                ListType::Atomic => None,
                ListType::Set => Some(format!("v:{item}")),
                ListType::Map => key_of(item, list),
            };
            items.retain(|item| {
                let element = element(item);
                element.is_none_or(|element| last.get(&element).is_none() || kept.get(&element).is_some())
            });
            let of = list.items.as_ref().map(Node::get);
            for item in items {
                let Some(element) = element(item) else { continue };
                if let (Some(last), Some(kept)) = (last.get(&element), kept.get(&element)) {
                    prune(item, of, &last.inner, &kept.inner);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
