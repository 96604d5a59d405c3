//! What a KFP task gives to others: its report, a dag's selectors, a loop's lists.

use std::collections::BTreeMap;

use api::workflow::ir;
use pod_protocol::launch::LaunchReport;
use serde_json::{Map, Value, json};

use super::pod::{UNSET, kind_of, planned_outputs};
use super::resolve::{component, front};
use crate::engine::{Engine, Ix, Kind};
use crate::model::{Body, Declared, Phase, Task, Use};
use crate::values::{ArtifactRef, Values};
use crate::{Error, text};

/// Outputs of a container, from its report.
pub fn leaf(engine: &Engine, ix: Ix, report: &LaunchReport, succeeded: bool) -> Result<Values, Error> {
    let mut outputs = Values::default();
    let Some(component) = component(engine, ix) else { return Ok(outputs) };
    let executor = report.executor_output.clone().unwrap_or(Value::Null);
    for (name, definition) in &component.output_definitions.parameters {
        let given = executor.get("parameterValues").and_then(|values| values.get(name));
        let file = report.parameters.get(name).filter(|text| *text != UNSET);
        let value = match (given, file) {
            (Some(value), _) => Some(output_value(name, definition, value)?),
            (None, Some(text)) => Some(parse(name, definition, text)?),
            (None, None) => None,
        };
        match value {
            Some(value) => {
                outputs.parameters.insert(name.clone(), value);
            }
            None if succeeded && !definition.is_optional => {
                return Err(Error::new(format!("output parameter '{name}' was not written")));
            }
            None => {}
        }
    }
    for (name, planned) in planned_outputs(engine, ix)? {
        let written = executor.pointer("/artifacts").and_then(|all| all.get(&name));
        let written = written.and_then(|list| list.get("artifacts")).and_then(Value::as_array);
        let list = match written.filter(|list| !list.is_empty()) {
            Some(list) => list.iter().map(|one| merged(&planned, one)).collect(),
            None => vec![ArtifactRef { name: String::new(), ..planned.clone() }],
        };
        let uploaded = report.artifacts.get(&name);
        let list: Vec<ArtifactRef> = list
            .into_iter()
            .map(|mut artifact: ArtifactRef| {
                if let Some(uploaded) = uploaded.filter(|uploaded| uploaded.uri == artifact.uri) {
                    artifact.size = Some(uploaded.size);
                    artifact.sha256.clone_from(&uploaded.sha256);
                }
                artifact
            })
            .collect();
        outputs.artifacts.insert(name, list);
    }
    Ok(outputs)
}

/// What the component wrote about an artifact, over what was planned.
fn merged(planned: &ArtifactRef, written: &Value) -> ArtifactRef {
    let mut artifact = ArtifactRef { name: String::new(), ..planned.clone() };
    let uri = written.get("uri").and_then(Value::as_str).filter(|uri| !uri.is_empty());
    if let Some(uri) = uri {
        uri.clone_into(&mut artifact.uri);
    }
    let mut metadata = planned.metadata.as_ref().and_then(Value::as_object).cloned().unwrap_or_default();
    metadata.extend(written.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default());
    artifact.metadata = (!metadata.is_empty()).then(|| text::tidy(&Value::Object(metadata)));
    artifact
}

fn output_value(name: &str, definition: &ir::ParameterDefinition, value: &Value) -> Result<Value, Error> {
    let value = text::tidy(value);
    if definition.kind() == "STRING" && !value.is_null() {
        return Ok(Value::String(text::plain(&value)));
    }
    match api::workflow::admission::misfit(definition, &value) {
        None => Ok(value),
        Some(why) => Err(Error::new(format!("output parameter '{name}': {why}"))),
    }
}

/// The text of an output file, by its type.
fn parse(name: &str, definition: &ir::ParameterDefinition, source: &str) -> Result<Value, Error> {
    let trimmed = source.trim();
    let bad =
        || Error::new(format!("output parameter '{name}': {trimmed:?} is not of type {}", definition.kind()));
    Ok(match definition.kind() {
        "STRING" => Value::String(source.to_owned()),
        "NUMBER_INTEGER" => Value::from(trimmed.parse::<i64>().map_err(|_| bad())?),
        "NUMBER_DOUBLE" => text::tidy(&Value::from(trimmed.parse::<f64>().map_err(|_| bad())?)),
        "BOOLEAN" => match trimmed {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Value::Bool(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Value::Bool(false),
            _ => return Err(bad()),
        },
        _ => {
            let value: Value = serde_json::from_str(trimmed).map_err(|_| bad())?;
            output_value(name, definition, &value)?
        }
    })
}

/// Outputs of a dag, by its selectors: the first that ran.
pub fn group(engine: &Engine, ix: Ix) -> Result<Values, Error> {
    let mut outputs = Values::default();
    let Some(component) = component(engine, ix) else { return Ok(outputs) };
    let Some(dag) = &component.dag else { return Ok(outputs) };
    let ran = |task: &str| {
        engine.member(ix, task).map(|at| engine.node(at)).filter(|node| node.phase == Phase::Succeeded)
    };
    for (name, source) in &dag.outputs.parameters {
        let oneof = source.value_from_oneof.iter().flat_map(|all| &all.parameter_selectors);
        let mut selectors = source.value_from_parameter.iter().chain(oneof);
        let found = selectors.find_map(|one| {
            ran(&one.producer_subtask)?.outputs.parameters.get(&one.output_parameter_key).cloned()
        });
        let optional =
            component.output_definitions.parameters.get(name).is_some_and(|output| output.is_optional);
        match found {
            Some(value) => {
                outputs.parameters.insert(name.clone(), value);
            }
            None if optional || source.value_from_oneof.is_none() => {}
            None => return Err(Error::new(format!("no branch gave the output parameter '{name}'"))),
        }
    }
    for (name, source) in &dag.outputs.artifacts {
        let found = source.artifact_selectors.iter().find_map(|one| {
            ran(&one.producer_subtask)?.outputs.artifacts.get(&one.output_artifact_key).cloned()
        });
        match found {
            Some(list) => {
                outputs.artifacts.insert(name.clone(), list);
            }
            None if source.artifact_selectors.len() > 1 => {
                return Err(Error::new(format!("no branch gave the output artifact '{name}'")));
            }
            None => {}
        }
    }
    Ok(outputs)
}

/// Outputs of a loop: what its iterations gave, in order; flat, as upstream collects them.
pub fn aggregate(engine: &Engine, ix: Ix, children: &[Ix]) -> Values {
    let mut outputs = Values::default();
    let inner = component(engine, ix).or_else(|| used(engine, engine.node(ix).task.as_deref()));
    for child in children {
        let node = engine.node(*child);
        for (name, value) in &node.outputs.parameters {
            let slot = outputs.parameters.entry(name.clone()).or_insert_with(|| json!([]));
            let Value::Array(list) = slot else { continue };
            match value {
                Value::Array(items) if from_loop(engine, *child, inner, name) => {
                    list.extend(items.iter().cloned())
                }
                value => list.push(value.clone()),
            }
        }
        for (name, list) in &node.outputs.artifacts {
            outputs.artifacts.entry(name.clone()).or_default().extend(list.iter().cloned());
        }
    }
    outputs
}

/// Whether an iteration's output is itself the list of an inner loop.
fn from_loop(engine: &Engine, child: Ix, component: Option<&ir::Component>, name: &str) -> bool {
    let Some(dag) = component.and_then(|component| component.dag.as_ref()) else { return false };
    let source = dag.outputs.parameters.get(name).and_then(|output| output.value_from_parameter.as_ref());
    let Some(source) = source else { return false };
    let producer = engine.member(child, &source.producer_subtask);
    producer.is_some_and(|at| engine.node(at).kind == Kind::TaskGroup)
}

fn used<'a>(engine: &'a Engine, task: Option<&Task>) -> Option<&'a ir::Component> {
    let Use::At(place) = task?.uses else { return None };
    match &engine.plan().templates[place].declared {
        Declared::Kfp(component) => Some(component),
        Declared::Argo(..) => None,
    }
}

/// Outputs of a loop over nothing: empty lists.
pub fn empty_loop(engine: &Engine, task: &Task) -> Values {
    let mut outputs = Values::default();
    let Some(component) = used(engine, Some(task)) else { return outputs };
    for name in component.output_definitions.parameters.keys() {
        outputs.parameters.insert(name.clone(), json!([]));
    }
    for name in component.output_definitions.artifacts.keys() {
        outputs.artifacts.insert(name.clone(), Vec::new());
    }
    outputs
}

/// The artifact that an importer registers.
pub fn imported(engine: &Engine, ix: Ix) -> Result<Values, Error> {
    let front = front(engine)?;
    let node = engine.node(ix);
    debug_assert!(matches!(node.template.map(|at| &engine.plan().templates[at].body), Some(Body::Import)));
    let Some(component) = component(engine, ix) else { return Ok(Values::default()) };
    let executor = component.executor_label.as_ref().and_then(|label| front.executors.get(label));
    let Some(importer) = executor.and_then(|executor| executor.importer.as_ref()) else {
        return Err(Error::new("the component has no importer"));
    };
    let uri = importer.artifact_uri.clone().unwrap_or_default();
    let uri = match (&uri.constant, &uri.runtime_parameter) {
        (Some(constant), _) => Some(text::plain(constant)),
        (None, Some(name)) => node.inputs.parameters.get(name).map(text::plain),
        (None, None) => None,
    };
    let uri =
        uri.filter(|uri| !uri.is_empty()).ok_or_else(|| Error::new("the importer has no artifact URI"))?;
    if uri.split('/').any(|part| part == "..") {
        return Err(Error::new(format!("artifact URI {uri:?} must not contain '..'")));
    }
    let kind = importer.type_schema.clone().unwrap_or_default();
    let metadata = importer.metadata.as_ref().map(|metadata| in_metadata(metadata, &node.inputs.parameters));
    let artifact = ArtifactRef {
        uri,
        kind: kind_of(&kind),
        schema_version: kind.schema_version,
        metadata: metadata.filter(|value| value.as_object().is_some_and(|map| !map.is_empty())),
        ..ArtifactRef::default()
    };
    let mut outputs = Values::default();
    for name in component.output_definitions.artifacts.keys() {
        outputs.artifacts.insert(name.clone(), vec![artifact.clone()]);
    }
    Ok(outputs)
}

/// Placeholders of inputs inside an importer's metadata.
fn in_metadata(metadata: &Value, parameters: &BTreeMap<String, Value>) -> Value {
    match metadata {
        Value::String(text) => Value::String(super::placeholders::inputs_only(text, parameters)),
        Value::Array(items) => items.iter().map(|item| in_metadata(item, parameters)).collect(),
        Value::Object(fields) => {
            let done = fields.iter().map(|(name, field)| (name.clone(), in_metadata(field, parameters)));
            Value::Object(done.collect::<Map<_, _>>())
        }
        other => other.clone(),
    }
}
