//! Sets of fields, as `fieldsV1` has them.
//!
//! A set is a tree. Each edge is a path element in upstream's text form: `f:<name>` a field, `k:{…}` an item by its
//! keys, `v:<json>` an item by its value. An element can be a member itself, have members below, or both.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// A set of fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Set {
    children: BTreeMap<String, Entry>,
}

/// One path element.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry {
    /// The element is in the set.
    pub member: bool,
    /// What is below it.
    pub inner: Set,
}

impl Set {
    /// Whether it has no member.
    pub fn is_empty(&self) -> bool {
        self.children.is_empty()
    }

    /// The elements directly below.
    pub fn entries(&self) -> impl Iterator<Item = (&String, &Entry)> {
        self.children.iter()
    }

    /// One element.
    pub fn get(&self, element: &str) -> Option<&Entry> {
        self.children.get(element)
    }

    /// Adds an element with all that is below it.
    pub fn put(&mut self, element: String, member: bool, inner: Set) {
        if member || !inner.is_empty() {
            let entry = self.children.entry(element).or_default();
            entry.member |= member;
            entry.inner.add(&inner);
        }
    }

    /// Drops an element and all below it.
    pub fn drop_element(&mut self, element: &str) {
        self.children.remove(element);
    }

    /// Keeps only some elements.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.children.retain(|element, _| keep(element));
    }

    /// Changes what is below an element, and drops it when nothing is left.
    pub fn within(&mut self, element: &str, change: impl FnOnce(&mut Set)) {
        let Some(entry) = self.children.get_mut(element) else { return };
        change(&mut entry.inner);
        if !entry.member && entry.inner.is_empty() {
            self.children.remove(element);
        }
    }

    /// Adds all members of another set.
    pub fn add(&mut self, other: &Set) {
        for (element, theirs) in &other.children {
            let entry = self.children.entry(element.clone()).or_default();
            entry.member |= theirs.member;
            entry.inner.add(&theirs.inner);
        }
    }

    /// The members that the other set lacks.
    pub fn minus(&self, other: &Set) -> Set {
        self.combine(other, |mine, theirs| mine && !theirs, true)
    }

    /// The members that both have.
    pub fn and(&self, other: &Set) -> Set {
        self.combine(other, |mine, theirs| mine && theirs, false)
    }

    fn combine(&self, other: &Set, member: impl Fn(bool, bool) -> bool + Copy, alone: bool) -> Set {
        let mut out = Set::default();
        for (element, mine) in &self.children {
            match other.children.get(element) {
                None if alone => drop(out.children.insert(element.clone(), mine.clone())),
                None => {}
                Some(theirs) => {
                    let inner = mine.inner.combine(&theirs.inner, member, alone);
                    out.put(element.clone(), member(mine.member, theirs.member), inner);
                }
            }
        }
        out
    }

    /// The members as paths in upstream's form: `.spec.containers[name="a"].image`.
    pub fn paths(&self) -> Vec<String> {
        let mut out = Vec::new();
        self.collect(&mut String::new(), &mut out);
        out
    }

    fn collect(&self, path: &mut String, out: &mut Vec<String>) {
        for (element, entry) in &self.children {
            let length = path.len();
            path.push_str(&shown(element));
            if entry.member {
                out.push(path.clone());
            }
            entry.inner.collect(path, out);
            path.truncate(length);
        }
    }

    /// The `fieldsV1` value.
    pub fn to_json(&self) -> Value {
        let of = |entry: &Entry| {
            let mut value = entry.inner.to_json();
            if let (true, false, Value::Object(map)) = (entry.member, entry.inner.is_empty(), &mut value) {
                map.shift_insert(0, ".".into(), Value::Object(Map::new()));
            }
            value
        };
        Value::Object(self.children.iter().map(|(element, entry)| (element.clone(), of(entry))).collect())
    }

    /// Reads a `fieldsV1` value; what is not of its form is left out.
    pub fn from_json(value: &Value) -> Self {
        let mut out = Self::default();
        for (element, below) in value.as_object().into_iter().flatten().filter(|(element, _)| *element != ".")
        {
            let map = below.as_object();
            let member = map.is_none_or(|map| map.is_empty() || map.contains_key("."));
            out.put(element.clone(), member, Self::from_json(below));
        }
        out
    }
}

fn shown(element: &str) -> String {
    match element.split_once(':') {
        Some(("f", name)) => format!(".{name}"),
        Some(("v", value)) => format!("[={value}]"),
        Some(("i", index)) => format!("[{index}]"),
        Some(("k", keys)) => {
            let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
            let pairs: Vec<String> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
            format!("[{}]", pairs.join(","))
        }
        _ => format!(".{element}"),
    }
}
