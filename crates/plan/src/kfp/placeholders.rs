//! KFP's placeholders in commands and arguments, resolved in one pass.
//!
//! Upstream replaces `{{$}}` first and other placeholders inside its JSON afterwards, which breaks on
//! values with quotes; here a placeholder's value is never looked at again.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{Error, text};

/// What placeholders of one task stand for.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The whole ExecutorInput.
    pub executor_input: Value,
    /// Input parameters, defaults included.
    pub parameters: BTreeMap<String, Value>,
    /// `pipeline_root` and the like, by what stands after `$.`.
    pub run: BTreeMap<String, String>,
}

/// Most nesting of `IfPresent` and `Concat`.
const DEPTH_MAX: usize = 32;

/// One command or argument: it may vanish or become several.
pub fn expand(argument: &str, facts: &Facts) -> Result<Vec<String>, Error> {
    if argument.trim_start().starts_with('{')
        && let Ok(value) = serde_json::from_str::<Value>(argument)
        && (value.get("IfPresent").is_some() || value.get("Concat").is_some())
    {
        return structure(&value, facts, 0);
    }
    Ok(vec![string(argument, facts)?])
}

fn structure(value: &Value, facts: &Facts, depth: usize) -> Result<Vec<String>, Error> {
    if depth > DEPTH_MAX {
        return Err(Error::new("placeholders are nested too deep"));
    }
    match value {
        Value::String(text) => Ok(vec![string(text, facts)?]),
        Value::Array(items) => {
            let mut all = Vec::new();
            for item in items {
                all.extend(structure(item, facts, depth + 1)?);
            }
            Ok(all)
        }
        Value::Object(fields) => {
            if let Some(parts) = fields.get("Concat") {
                return Ok(vec![structure(parts, facts, depth + 1)?.concat()]);
            }
            let Some(choice) = fields.get("IfPresent") else {
                return Ok(vec![value.to_string()]);
            };
            let name = choice.get("InputName").and_then(Value::as_str).unwrap_or_default();
            let artifact =
                facts.executor_input.pointer("/inputs/artifacts").and_then(|all| all.get(name)).is_some();
            let present = artifact || facts.parameters.get(name).is_some_and(|value| !value.is_null());
            match choice.get(if present { "Then" } else { "Else" }) {
                Some(branch) => structure(branch, facts, depth + 1),
                None => Ok(Vec::new()),
            }
        }
        other => Ok(vec![other.to_string()]),
    }
}

/// A text with its placeholders.
fn string(source: &str, facts: &Facts) -> Result<String, Error> {
    let mut done = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{{$") {
        let Some(end) = rest[start..].find("}}") else { break };
        done.push_str(&rest[..start]);
        let inside = &rest[start + 3..start + end];
        match one(inside, facts)? {
            Some(value) => done.push_str(&value),
            None => done.push_str(&rest[start..start + end + 2]),
        }
        rest = &rest[start + end + 2..];
    }
    done.push_str(rest);
    Ok(done)
}

fn one(inside: &str, facts: &Facts) -> Result<Option<String>, Error> {
    if inside.is_empty() {
        return Ok(Some(text::json(&facts.executor_input)));
    }
    let path = inside.trim_start_matches('.');
    if let Some(value) = facts.run.get(path) {
        return Ok(Some(value.clone()));
    }
    let input = &facts.executor_input;
    let at = |pointer: &str| input.pointer(pointer).map(text::plain);
    if path == "outputs.output_file" || path == "outputMetadataUri" {
        return Ok(at("/outputs/outputFile"));
    }
    let Some((kind, rest)) = path.split_once("['") else { return Ok(None) };
    let Some((name, field)) = rest.split_once("']") else { return Ok(None) };
    let missing = || Error::new(format!("placeholder {{{{${inside}}}}}: there is no '{name}'"));
    let list = |side: &str| input.pointer(&format!("/{side}/artifacts")).and_then(|all| all.get(name));
    let value = match (kind, field) {
        ("inputs.parameters", "") => {
            return Ok(Some(facts.parameters.get(name).map(text::plain).ok_or_else(missing)?));
        }
        ("outputs.parameters", ".output_file") => {
            let all = input.pointer("/outputs/parameters").and_then(|all| all.get(name));
            all.and_then(|file| file.get("outputFile")).map(text::plain)
        }
        ("inputs.artifacts", field) => artifact(list("inputs"), field),
        ("outputs.artifacts", field) => artifact(list("outputs"), field),
        _ => return Ok(None),
    };
    Ok(Some(value.ok_or_else(missing)?))
}

fn artifact(list: Option<&Value>, field: &str) -> Option<String> {
    let list = list?.get("artifacts")?;
    if field.is_empty() {
        return Some(text::json(list));
    }
    let first = list.get(0)?;
    match field {
        ".uri" => first.get("uri").map(text::plain),
        ".path" => {
            let custom = first.get("customPath").and_then(Value::as_str).filter(|path| !path.is_empty());
            let uri = first.get("uri").and_then(Value::as_str)?;
            Some(custom.map_or_else(|| super::pod::local_path(uri), str::to_owned))
        }
        ".metadata" => Some(text::json(first.get("metadata").unwrap_or(&Value::Object(Default::default())))),
        other => {
            let key = other.strip_prefix(".metadata['")?.strip_suffix("']")?;
            first.get("metadata")?.get(key).map(text::plain)
        }
    }
}

/// A constant that names other inputs of its own task, as f-strings do.
pub fn inputs_only(template: &str, parameters: &BTreeMap<String, Value>) -> String {
    let facts = Facts { parameters: parameters.clone(), ..Facts::default() };
    string(template, &facts).unwrap_or_else(|_| template.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn facts() -> Facts {
        let executor_input = json!({
            "inputs": {"parameterValues": {"n": 4.0, "s": "a \"{{$.inputs.parameters['n']}}\""},
                "artifacts": {"d": {"artifacts": [{"name": "1", "uri": "minio://mlpipeline/a/d", "metadata": {"k": 1}}]}}},
            "outputs": {"parameters": {"o": {"outputFile": "/tmp/kfp/outputs/o"}}, "outputFile": "/x/output_metadata.json"},
        });
        let parameters = BTreeMap::from([
            ("n".to_owned(), json!(4.0)),
            ("s".to_owned(), json!("a \"{{$.inputs.parameters['n']}}\"")),
            ("l".to_owned(), json!([1.0, "x"])),
        ]);
        Facts { executor_input, parameters, run: BTreeMap::new() }
    }

    #[test]
    fn placeholders_are_replaced_once() {
        let facts = facts();
        for (argument, want) in [
            ("--n={{$.inputs.parameters['n']}}!", vec!["--n=4!"]),
            ("{{$.inputs.parameters['s']}}", vec!["a \"{{$.inputs.parameters['n']}}\""]),
            ("{{$.inputs.parameters['l']}}", vec!["[1,\"x\"]"]),
            ("{{$.inputs.artifacts['d'].uri}}", vec!["minio://mlpipeline/a/d"]),
            ("{{$.inputs.artifacts['d'].path}}", vec!["/minio/mlpipeline/a/d"]),
            ("{{$.inputs.artifacts['d'].metadata['k']}}", vec!["1"]),
            ("{{$.outputs.parameters['o'].output_file}}", vec!["/tmp/kfp/outputs/o"]),
            (
                r#"{"IfPresent": {"InputName": "n", "Then": ["--n", "{{$.inputs.parameters['n']}}"]}}"#,
                vec!["--n", "4"],
            ),
            (r#"{"IfPresent": {"InputName": "none", "Then": ["--n"]}}"#, vec![]),
            (r#"{"Concat": ["a=", "{{$.inputs.parameters['n']}}"]}"#, vec!["a=4"]),
            ("{{other}}", vec!["{{other}}"]),
        ] {
            assert_eq!(expand(argument, &facts).unwrap(), want, "{argument}");
        }
        assert!(expand("{{$.inputs.parameters['none']}}", &facts).is_err());
        let whole = expand("{{$}}", &facts).unwrap().remove(0);
        let read: Value = serde_json::from_str(&whole).unwrap();
        assert_eq!(read["inputs"]["parameterValues"]["s"], "a \"{{$.inputs.parameters['n']}}\"");
        assert!(whole.contains("\"n\":4,"), "{whole}");
    }
}
