//! What an Argo node gives to others: a leaf's report, a group's `valueFrom`, a loop's lists.

use std::collections::BTreeMap;

use api::workflow::argo::{Parameter, Template};
use pod_protocol::launch::LaunchReport;
use serde_json::{Value, json};

use super::{names, pod, resolve};
use crate::Error;
use crate::engine::{Engine, Ix};
use crate::model::Declared;
use crate::tags::{self, Text};
use crate::text;
use crate::values::{ArtifactRef, Values};

fn declared(engine: &Engine, ix: Ix) -> Option<&Template> {
    match &engine.plan().templates[engine.node(ix).template?].declared {
        Declared::Argo(template, _) => Some(template),
        Declared::Kfp(_) => None,
    }
}

/// Outputs of a pod, from its report.
pub fn leaf(engine: &Engine, ix: Ix, report: &LaunchReport) -> Result<Values, Error> {
    // One newline at the end is the shell's, not the value's: Argo takes it off, too.
    let trimmed = |text: &str| text.strip_suffix('\n').unwrap_or(text).to_owned();
    let result = report.result.as_deref().map(trimmed);
    let mut outputs = Values { result, ..Values::default() };
    let Some(template) = declared(engine, ix) else { return Ok(outputs) };
    for (name, value) in &report.parameters {
        outputs.parameters.insert(name.clone(), Value::String(trimmed(value)));
    }
    // An output may be computed from inputs alone.
    for parameter in &template.outputs.parameters {
        let code = parameter.value_from.as_ref().and_then(|from| from.expression.as_deref());
        if let Some(code) = code {
            let value = tags::evaluate(code, &names::Names::of_node(engine, ix))?;
            outputs.parameters.insert(parameter.name.clone(), Value::String(text::plain(&value)));
        }
    }
    for artifact in &template.outputs.artifacts {
        let Some(uploaded) = report.artifacts.get(&artifact.name) else { continue };
        let found = ArtifactRef {
            uri: uploaded.uri.clone(),
            path: artifact.path.clone().unwrap_or_default(),
            tar: pod::is_tar(artifact),
            size: Some(uploaded.size),
            sha256: uploaded.sha256.clone(),
            ..ArtifactRef::default()
        };
        outputs.artifacts.insert(artifact.name.clone(), vec![found]);
    }
    Ok(outputs)
}

/// Outputs of a steps or dag node, from its members.
pub fn group(engine: &Engine, ix: Ix) -> Result<Values, Error> {
    let mut outputs = Values::default();
    let Some(template) = declared(engine, ix) else { return Ok(outputs) };
    let item = engine.node(ix).item.as_ref();
    let names = names::Names::inside(engine, Some(ix), item);
    for parameter in &template.outputs.parameters {
        if let Some(value) = group_parameter(parameter, &names)? {
            outputs.parameters.insert(parameter.name.clone(), Value::String(value));
        }
    }
    for artifact in &template.outputs.artifacts {
        if let Some(found) = resolve::artifact_value(engine, artifact, &names)? {
            outputs.artifacts.insert(artifact.name.clone(), vec![found]);
        } else if !artifact.optional {
            return Err(Error::new(format!("unable to resolve outputs.artifacts.{}", artifact.name)));
        }
    }
    Ok(outputs)
}

fn group_parameter(parameter: &Parameter, names: &names::Names<'_>) -> Result<Option<String>, Error> {
    let Some(from) = &parameter.value_from else {
        return Ok(parameter.value.as_ref().map(|text| text.0.clone()));
    };
    let default = from.default.as_ref().map(|text| text.0.clone());
    if let Some(code) = &from.expression {
        return match tags::evaluate(code, names) {
            Ok(Value::Null) => Ok(default),
            Ok(value) => Ok(Some(text::plain(&value))),
            Err(error) => default.map_or(Err(error), |text| Ok(Some(text))),
        };
    }
    let Some(reference) = &from.parameter else { return Ok(default) };
    match tags::maybe(reference, names)? {
        Text::Plain(text) => Ok(Some(text)),
        Text::Absent => match default {
            Some(text) => Ok(Some(text)),
            None => Err(Error::new(format!("unable to resolve outputs.parameters.{}", parameter.name))),
        },
    }
}

/// Outputs of a loop: JSON lists of what its items gave, in order.
pub fn aggregate(engine: &Engine, children: &[Ix]) -> Values {
    let mut lists: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    let mut results = Vec::new();
    for child in children {
        let outputs = &engine.node(*child).outputs;
        results.extend(outputs.result.as_deref().map(crate::engine::element));
        for (name, value) in &outputs.parameters {
            lists.entry(name.clone()).or_default().push(crate::engine::element(&text::plain(value)));
        }
    }
    let mut values = Values { result: Some(json!(results).to_string()), ..Values::default() };
    for (name, list) in lists {
        values.parameters.insert(name, Value::String(json!(list).to_string()));
    }
    values
}

/// Outputs with a global name, of one node.
pub fn globals(engine: &Engine, ix: Ix) -> (BTreeMap<String, Value>, BTreeMap<String, Vec<ArtifactRef>>) {
    let (mut parameters, mut artifacts) = (BTreeMap::new(), BTreeMap::new());
    let Some(template) = declared(engine, ix) else { return (parameters, artifacts) };
    let node = engine.node(ix);
    for parameter in &template.outputs.parameters {
        if let (Some(global), Some(value)) =
            (&parameter.global_name, node.outputs.parameters.get(&parameter.name))
        {
            parameters.insert(global.clone(), value.clone());
        }
    }
    for artifact in &template.outputs.artifacts {
        if let (Some(global), Some(list)) =
            (&artifact.global_name, node.outputs.artifacts.get(&artifact.name))
        {
            artifacts.insert(global.clone(), list.clone());
        }
    }
    (parameters, artifacts)
}
