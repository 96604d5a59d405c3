//! Upstream's cache key: the SHA-256 of a canonical JSON of what decides a task's outputs.
//!
//! The JSON is protojson of `CacheKey`, marshalled again by Go: sorted keys, no spaces, `<`, `>` and
//! `&` escaped, empty maps left out. Environment, resources and Kubernetes settings are not in it.

use std::collections::BTreeMap;

use api::workflow::ir;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::resolve::{component, front};
use crate::engine::{Engine, Ix};
use crate::model::Front;
use crate::values::ArtifactRef;
use crate::{Error, text};

/// Where a task's outputs are looked up.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CacheKey {
    /// Namespace of the run.
    pub namespace: String,
    /// Scope: `pipeline/<pipeline name>`.
    pub scope: String,
    /// Hex SHA-256.
    pub fingerprint: String,
}

/// The key of a node; `None` when its task does not use the cache.
pub fn of_node(engine: &Engine, ix: Ix) -> Result<Option<CacheKey>, Error> {
    let Front::Kfp(_) = &engine.plan().front else { return Ok(None) };
    let front = front(engine)?;
    let node = engine.node(ix);
    let Some(options) = node.task.as_ref().and_then(|task| task.cache.as_ref()) else { return Ok(None) };
    let Some(component) = component(engine, ix) else { return Ok(None) };
    let executor = component.executor_label.as_ref().and_then(|label| front.executors.get(label));
    let Some(container) = executor.and_then(|executor| executor.container.as_ref()) else { return Ok(None) };
    let fingerprint = if options.cache_key.is_empty() {
        fingerprint(&document(component, container, &node.inputs))
    } else {
        let name = &engine.plan().templates[node.template.unwrap_or_default()].name;
        hex::encode(Sha256::digest(format!("{name}\0{}", options.cache_key)))
    };
    Ok(Some(CacheKey {
        namespace: engine.plan().identity.namespace.clone(),
        scope: format!("pipeline/{}", front.pipeline_name),
        fingerprint,
    }))
}

fn document(component: &ir::Component, container: &ir::Container, inputs: &crate::values::Values) -> Value {
    let names = inputs.artifacts.iter().map(|(name, list)| {
        let names: Vec<String> = list.iter().map(artifact_name).collect();
        (name.clone(), json!({ "artifactNames": names }))
    });
    let outputs = component.output_definitions.artifacts.iter().map(|(name, definition)| {
        let mut spec = json!({ "name": name, "type": definition.artifact_type });
        if let Some(metadata) = &definition.metadata {
            spec["metadata"] = metadata.clone();
        }
        (name.clone(), spec)
    });
    let kinds = component.output_definitions.parameters.iter();
    let kinds: BTreeMap<String, &str> =
        kinds.map(|(name, definition)| (name.clone(), definition.kind())).collect();
    let arguments: Vec<&String> = container.command.iter().chain(&container.args).collect();
    json!({
        "inputArtifactNames": Value::Object(names.collect()),
        "inputParameterValues": inputs.parameters,
        "outputArtifactsSpec": Value::Object(outputs.collect()),
        "outputParametersSpec": kinds,
        "containerSpec": { "image": container.image, "cmdArgs": arguments },
    })
}

/// Name of an artifact: upstream's is its id in a store; ours follows from where it is, so that a
/// cached producer leads to cached consumers.
pub fn artifact_name(artifact: &ArtifactRef) -> String {
    if !artifact.name.is_empty() {
        return artifact.name.clone();
    }
    let digest = Sha256::digest(artifact.uri.as_bytes());
    hex::encode(&digest[..8])
}

/// The fingerprint of a key document.
pub fn fingerprint(document: &Value) -> String {
    let mut canonical = String::new();
    write(document, &mut canonical);
    hex::encode(Sha256::digest(canonical.as_bytes()))
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut sorted: Vec<(&String, &Value)> =
                fields.iter().filter(|(name, field)| !left_out(name, field)).collect();
            sorted.sort_by_key(|(name, _)| name.as_str());
            out.push('{');
            for (index, (name, field)) in sorted.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_text(name, out);
                out.push(':');
                write(field, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write(item, out);
            }
            out.push(']');
        }
        Value::String(text) => write_text(text, out),
        other => out.push_str(&text::json(other)),
    }
}

/// protojson leaves empty maps and lists of the key itself out; values of parameters are kept.
fn left_out(name: &str, field: &Value) -> bool {
    let own = [
        "inputArtifactNames",
        "inputParameterValues",
        "outputArtifactsSpec",
        "outputParametersSpec",
        "cmdArgs",
    ];
    own.contains(&name)
        && (field.as_object().is_some_and(|map| map.is_empty())
            || field.as_array().is_some_and(Vec::is_empty))
}

fn write_text(text: &str, out: &mut String) {
    let plain = Value::String(text.to_owned()).to_string();
    for c in plain.chars() {
        match c {
            '<' => out.push_str("\\u003c"),
            '>' => out.push_str("\\u003e"),
            '&' => out.push_str("\\u0026"),
            '\u{2028}' => out.push_str("\\u2028"),
            '\u{2029}' => out.push_str("\\u2029"),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_upstreams() {
        // Both vectors of upstream's own test (backend/src/v2/cacheutils/cache_test.go).
        let model = "title: kfp.Model\ntype: object\nproperties:\n  framework:\n    type: string\n  framework_version:\n    type: string\n";
        let first = json!({
            "inputArtifactNames": {"dataset_one": {"artifactNames": ["1"]}, "dataset_two": {"artifactNames": ["2"]}},
            "inputParameterValues": {"message": "Some string value", "num_steps": 5.0},
            "outputArtifactsSpec": {
                "model": {"name": "model", "type": {"instanceSchema": model}, "metadata": {"name": "model"}},
                "metrics": {"name": "metrics", "type": {"schemaTitle": "kfp.Metrics"}, "metadata": {"name": "metrics"}}},
            "outputParametersSpec": {"output_parameter_one": "STRING", "output_parameter_two": "INT"},
            "containerSpec": {"cmdArgs": ["sh", "ec", "test"], "image": "python:3.9"},
        });
        assert_eq!(fingerprint(&first), "4e8a5d7d70997b0a35429fcd481af8fcd5b9f58ef4391bdb6ad900fd1c63622b");
        let second = json!({
            "inputArtifactNames": {"dataset": {"artifactNames": ["10"]}},
            "inputParameterValues": {},
            "outputParametersSpec": {"output_parameter": "DOUBLE"},
            "containerSpec": {"cmdArgs": ["sh", "ec", "run"], "image": "python:3.9"},
        });
        assert_eq!(fingerprint(&second), "0a4cc1f15cdfad5170e1358518f7128c5278500a670db1b9a3f3d83b93db396e");
    }
}
