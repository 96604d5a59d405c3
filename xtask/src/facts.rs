//! Makes the table of facts about built-in kinds from the OpenAPI documents inside the Go module `k8s.io/kubernetes`.
//!
//! Those documents are the only published source that has field types, list types and map keys, patch strategies and
//! group-version-kinds together; typed crates lack the merge keys. The long descriptions are left out: they are
//! prose, not facts, and nine tenths of the size.
//!
//! Needs `go` and its module proxy; run by hand on an upgrade, the result is checked in.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Map, Value};

/// The release whose facts are taken.
const MODULE: &str = "k8s.io/kubernetes@v1.34.2";
const TABLE: &str = "crates/apiserver/src/facts/table.json.gz";
const BYTES_MAX: usize = 500 * 1024;

/// The documents that hold the kinds this server knows.
const DOCUMENTS: &[&str] = &[
    "api__v1",
    "apis__admissionregistration.k8s.io__v1",
    "apis__apiextensions.k8s.io__v1",
    "apis__apps__v1",
    "apis__authentication.k8s.io__v1",
    "apis__authorization.k8s.io__v1",
    "apis__autoscaling__v1",
    "apis__autoscaling__v2",
    "apis__batch__v1",
    "apis__certificates.k8s.io__v1",
    "apis__coordination.k8s.io__v1",
    "apis__discovery.k8s.io__v1",
    "apis__events.k8s.io__v1",
    "apis__networking.k8s.io__v1",
    "apis__policy__v1",
    "apis__rbac.authorization.k8s.io__v1",
    "apis__scheduling.k8s.io__v1",
    "apis__storage.k8s.io__v1",
];

/// The words of a schema that are facts.
const WORDS: &[&str] = &[
    "type",
    "format",
    "required",
    "oneOf",
    "default",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
    "x-kubernetes-patch-merge-key",
    "x-kubernetes-patch-strategy",
    "x-kubernetes-group-version-kind",
];

/// Downloads, reduces, writes.
pub fn run() -> Result<()> {
    let folder = download()?.join("api/openapi-spec/v3");
    let mut all = BTreeMap::new();
    for name in DOCUMENTS {
        read(&folder.join(format!("{name}_openapi.json")), &mut all)?;
    }
    let kept = reachable(&all);
    let table: Map<String, Value> = kept.iter().map(|name| (name.clone(), reduce(&all[name]))).collect();
    let text = serde_json::to_vec(&Value::Object(table))?;
    let mut packer = flate2::GzBuilder::new().mtime(0).write(Vec::new(), flate2::Compression::best());
    packer.write_all(&text)?;
    let packed = packer.finish()?;
    ensure!(packed.len() <= BYTES_MAX, "the table has {} bytes, more than {BYTES_MAX}", packed.len());
    File::create(TABLE)?.write_all(&packed)?;
    println!("{TABLE}: {} definitions, {} bytes", kept.len(), packed.len());
    Ok(())
}

fn download() -> Result<PathBuf> {
    let output = Command::new("go").args(["mod", "download", "-json", MODULE]).output().context("run go")?;
    ensure!(output.status.success(), "go mod download: {}", String::from_utf8_lossy(&output.stderr));
    let answer: Value = serde_json::from_slice(&output.stdout)?;
    Ok(PathBuf::from(answer["Dir"].as_str().context("go names no folder")?))
}

fn read(path: &Path, all: &mut BTreeMap<String, Value>) -> Result<()> {
    let text = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let document: Value = serde_json::from_slice(&text)?;
    let schemas = document["components"]["schemas"].as_object().context("no schemas")?;
    for (name, schema) in schemas {
        all.insert(name.clone(), schema.clone());
    }
    Ok(())
}

/// The kinds themselves and all that they refer to; lists and options are not asked for by anyone.
fn reachable(all: &BTreeMap<String, Value>) -> BTreeSet<String> {
    let is_root = |name: &str, schema: &Value| {
        let short = name.rsplit('.').next().unwrap_or(name);
        let many = schema["x-kubernetes-group-version-kind"].as_array().is_some_and(|g| g.len() > 4);
        schema.get("x-kubernetes-group-version-kind").is_some() && !short.ends_with("List") && !many
    };
    let mut kept = BTreeSet::new();
    let mut open: Vec<String> = all.iter().filter(|(n, s)| is_root(n, s)).map(|(n, _)| n.clone()).collect();
    open.push("io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta".into());
    while let Some(name) = open.pop() {
        if kept.insert(name.clone()) {
            references(&all[&name], &mut open);
        }
    }
    kept
}

fn references(schema: &Value, found: &mut Vec<String>) {
    match schema {
        Value::Object(map) => {
            if let Some(Value::String(reference)) = map.get("$ref") {
                found.extend(reference.rsplit('/').next().map(str::to_owned));
            }
            map.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The facts of one schema, without prose.
fn reduce(schema: &Value) -> Value {
    let mut out = Map::new();
    for word in WORDS {
        if let Some(value) = schema.get(word) {
            out.insert((*word).to_owned(), value.clone());
        }
    }
    let target = schema.get("$ref").or_else(|| schema.pointer("/allOf/0/$ref")).and_then(Value::as_str);
    if let Some(name) = target.and_then(|reference| reference.rsplit('/').next()) {
        out.insert("$ref".into(), name.into());
    }
    for word in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get(word).filter(|inner| inner.is_object()) {
            out.insert(word.into(), reduce(inner));
        }
    }
    if let Some(Value::Object(properties)) = schema.get("properties") {
        let reduced = properties.iter().map(|(name, inner)| (name.clone(), reduce(inner))).collect();
        out.insert("properties".into(), Value::Object(reduced));
    }
    Value::Object(out)
}
