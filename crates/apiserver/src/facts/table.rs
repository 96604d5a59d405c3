//! The table of facts about built-in kinds, made by `cargo xtask facts`, embedded packed and read once.

use std::collections::HashMap;
use std::io::Read as _;
use std::sync::LazyLock;

use flate2::read::GzDecoder;
use serde_json::{Map, Value};

use super::parse;
use super::schema::Schema;

static PACKED: &[u8] = include_bytes!("table.json.gz");

struct Table {
    schemas: Vec<Schema>,
    by_name: HashMap<String, usize>,
    /// By (group, version, kind).
    by_kind: HashMap<(String, String, String), usize>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let mut text = Vec::new();
    GzDecoder::new(PACKED).read_to_end(&mut text).expect("the embedded table is whole: a test reads it");
    let raw: Map<String, Value> =
        serde_json::from_slice(&text).expect("the embedded table is JSON: a test reads it");
    let index: HashMap<&str, usize> = raw.keys().enumerate().map(|(at, name)| (name.as_str(), at)).collect();
    let schemas = raw.iter().map(|(name, value)| parse::builtin(name, value, &index)).collect();
    let by_name = raw.keys().enumerate().map(|(at, name)| (name.clone(), at)).collect();
    let mut by_kind = HashMap::new();
    for (at, value) in raw.values().enumerate() {
        let kinds = value.get("x-kubernetes-group-version-kind").and_then(Value::as_array);
        for kind in kinds.into_iter().flatten() {
            let word = |name: &str| kind.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
            by_kind.insert((word("group"), word("version"), word("kind")), at);
        }
    }
    Table { schemas, by_name, by_kind }
});

/// A definition by its index.
pub(crate) fn definition(index: usize) -> &'static Schema {
    &TABLE.schemas[index]
}

/// The index of a definition.
pub(crate) fn index_of(name: &str) -> Option<usize> {
    TABLE.by_name.get(name).copied()
}

/// A definition by its full name, such as `io.k8s.api.core.v1.PodSpec`.
pub fn definition_named(name: &str) -> Option<&'static Schema> {
    index_of(name).map(definition)
}

/// The names of all definitions.
#[cfg(test)]
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    TABLE.by_name.keys().map(String::as_str)
}

/// The kinds that a definition is the schema of, as (group, version, kind).
pub(crate) fn kinds_of(name: &str) -> Vec<(&'static str, &'static str, &'static str)> {
    let Some(index) = index_of(name) else { return Vec::new() };
    let of = TABLE.by_kind.iter().filter(|(_, at)| **at == index);
    let mut kinds: Vec<_> = of.map(|((g, v, k), _)| (g.as_str(), v.as_str(), k.as_str())).collect();
    kinds.sort_unstable();
    kinds
}

/// The schema of a built-in kind.
pub fn schema_of(group: &str, version: &str, kind: &str) -> Option<&'static Schema> {
    let key = (group.to_owned(), version.to_owned(), kind.to_owned());
    TABLE.by_kind.get(&key).map(|at| definition(*at))
}
