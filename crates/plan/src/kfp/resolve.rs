//! Values of KFP tasks at run time: bindings, types, conditions, loops.

use std::collections::BTreeMap;

use api::workflow::ir;
use serde_json::{Map, Value, json};

use crate::engine::{Engine, Ix};
use crate::model::{ArtifactBinding, Binding, Body, Declared, Front, KfpFront, Phase, Repeat, Task};
use crate::values::{ArtifactRef, Values};
use crate::{Error, cel_gate, text};

/// Most items of one loop.
const ITEMS_MAX: usize = 100_000;

/// KFP's part of the plan.
pub(super) fn front(engine: &Engine) -> Result<&KfpFront, Error> {
    match &engine.plan().front {
        Front::Kfp(front) => Ok(front),
        Front::Argo(_) => Err(Error::new("not a KFP plan")),
    }
}

/// The component of a node.
pub(super) fn component(engine: &Engine, ix: Ix) -> Option<&ir::Component> {
    match &engine.plan().templates[engine.node(ix).template?].declared {
        Declared::Kfp(component) => Some(component),
        Declared::Argo(..) => None,
    }
}

/// A value by its binding; `None` when its producer did not run or it was never given.
fn value(
    engine: &Engine,
    boundary: Option<Ix>,
    item: Option<&Value>,
    binding: &Binding,
) -> Result<Option<Value>, Error> {
    Ok(match binding {
        Binding::Constant(constant) => Some(special(engine, constant)?),
        Binding::Input(name) => boundary.and_then(|ix| engine.node(ix).inputs.parameters.get(name)).cloned(),
        Binding::Output(task, key) => {
            let node = boundary.and_then(|ix| engine.member(ix, task)).map(|ix| engine.node(ix));
            node.and_then(|node| node.outputs.parameters.get(key)).cloned()
        }
        Binding::FinalStatus(task) => Some(final_status(engine, boundary, task)?),
        Binding::Selected(inner, code) => match value(engine, boundary, item, inner)? {
            Some(inner) => Some(cel_gate::select(code, &text_of_selected(&inner))?),
            None => None,
        },
        Binding::Item => item.cloned(),
        Binding::Text(_) | Binding::Expression(_) => None,
    })
}

/// `string_value` of a selector is the value's JSON text; a string that holds JSON already is it.
fn text_of_selected(value: &Value) -> String {
    text::plain(value)
}

/// Constants that stand for facts of the run.
fn special(engine: &Engine, constant: &Value) -> Result<Value, Error> {
    let Value::String(placeholder) = constant else { return Ok(constant.clone()) };
    if !placeholder.contains("{{$.") {
        return Ok(constant.clone());
    }
    let front = front(engine)?;
    let identity = &engine.plan().identity;
    let resolved = match placeholder.as_str() {
        "{{$.pipeline_job_name}}" => front.display_name.clone(),
        "{{$.pipeline_job_resource_name}}" => identity.name.clone(),
        "{{$.pipeline_job_uuid}}" => front.run_id.clone(),
        "{{$.pipeline_job_create_time_utc}}" => front.created_at.clone(),
        "{{$.pipeline_job_schedule_time_utc}}" => front.scheduled_at.clone(),
        "{{$.pipeline_root}}" => front.root.clone(),
        // The task's own name and id are known when its node is: see `own_constants`.
        _ => return Ok(constant.clone()),
    };
    Ok(Value::String(resolved))
}

fn final_status(engine: &Engine, boundary: Option<Ix>, task: &str) -> Result<Value, Error> {
    let member = boundary.and_then(|ix| engine.member(ix, task)).map(|ix| engine.node(ix));
    let phase = member.map_or(Phase::Omitted, |node| node.phase);
    // Upstream gives the metadata store's words; errors, which it leaves empty, are filled here.
    let state = match phase {
        Phase::Succeeded => "COMPLETE",
        Phase::Skipped | Phase::Omitted => "CANCELED",
        _ => "FAILED",
    };
    let mut error = Map::new();
    if let Some(node) = member.filter(|node| node.phase.bad()) {
        error.insert("code".into(), json!(node.outputs.exit_code.unwrap_or(1)));
        error.insert("message".into(), json!(node.message));
    }
    Ok(json!({
        "state": state,
        "pipelineJobResourceName": engine.plan().identity.name,
        "pipelineTaskName": task,
        "error": error,
    }))
}

/// A value as its declared type wants it.
pub(super) fn convert(
    name: &str,
    definition: &ir::ParameterDefinition,
    value: Value,
) -> Result<Value, Error> {
    let value = text::tidy(&value);
    if definition.kind() == "STRING" && !value.is_null() {
        return Ok(Value::String(text::plain(&value)));
    }
    match api::workflow::admission::misfit(definition, &value) {
        None => Ok(value),
        Some(why) => Err(Error::new(format!("input parameter '{name}': {why}"))),
    }
}

/// The parameters given to a task, before defaults.
fn parameters(
    engine: &Engine,
    boundary: Option<Ix>,
    task: &Task,
    item: Option<&Value>,
) -> Result<BTreeMap<String, Value>, Error> {
    let mut given = BTreeMap::new();
    for (name, binding) in &task.parameters {
        if let Some(value) = value(engine, boundary, item, binding)? {
            given.insert(name.clone(), value);
        }
    }
    if let (Some(Repeat::Parameter(_, input)), Some(item)) = (&task.repeat, item) {
        given.insert(input.clone(), item.clone());
        // Parts of the item: `pipelinechannel--item-subvar-a` selects from it.
        for (name, binding) in &task.parameters {
            if let Binding::Selected(inner, code) = binding
                && matches!(&**inner, Binding::Input(from) if from == input)
            {
                given.insert(name.clone(), cel_gate::select(code, &text::plain(item))?);
            }
        }
    }
    // A constant may hold placeholders of the task's other inputs.
    let snapshot = given.clone();
    for (name, binding) in &task.parameters {
        if let (Binding::Constant(Value::String(template)), Some(slot)) = (binding, given.get_mut(name))
            && template.contains("{{$.inputs.parameters[")
        {
            *slot = Value::String(super::placeholders::inputs_only(template, &snapshot));
        } else if let (Binding::Constant(Value::String(template)), Some(slot)) =
            (binding, given.get_mut(name))
        {
            if template == "{{$.pipeline_task_name}}" {
                *slot = Value::String(task.name.clone());
            } else if template == "{{$.pipeline_task_uuid}}" {
                let parent = boundary.map_or("", |ix| engine.node(ix).name.as_str());
                *slot = Value::String(crate::ids::fnv1a(&format!("{parent}.{}", task.name)).to_string());
            }
        }
    }
    Ok(given)
}

/// `triggerPolicy.condition`.
pub fn condition(
    engine: &Engine,
    boundary: Option<Ix>,
    task: &Task,
    item: Option<&Value>,
    code: &str,
) -> Result<bool, Error> {
    let mut given = parameters(engine, boundary, task, item)?;
    if let crate::model::Use::At(place) = task.uses
        && let Declared::Kfp(component) = &engine.plan().templates[place].declared
    {
        for (name, definition) in &component.input_definitions.parameters {
            if let Some(default) = &definition.default_value {
                given.entry(name.clone()).or_insert_with(|| default.clone());
            }
        }
    }
    cel_gate::condition(code, &json!(given))
}

/// What goes into a use of a component.
///
/// A leaf's own defaults are left out: they are no part of upstream's cache key; `with_defaults` adds them.
pub fn inputs(
    engine: &Engine,
    boundary: Option<Ix>,
    task: &Task,
    item: Option<&Value>,
    template: usize,
) -> Result<Values, Error> {
    let plan = engine.plan();
    let Declared::Kfp(component) = &plan.templates[template].declared else { return Ok(Values::default()) };
    let leaf = !matches!(plan.templates[template].body, Body::Dag(_));
    let given = parameters(engine, boundary, task, item)?;
    let mut inputs = Values::default();
    for (name, definition) in &component.input_definitions.parameters {
        match given.get(name) {
            Some(Value::Null) if definition.is_optional || definition.default_value.is_some() => {
                if !leaf && let Some(default) = &definition.default_value {
                    inputs.parameters.insert(name.clone(), text::tidy(default));
                }
            }
            Some(value) => {
                inputs.parameters.insert(name.clone(), convert(name, definition, value.clone())?);
            }
            None => match &definition.default_value {
                Some(default) if !leaf => {
                    inputs.parameters.insert(name.clone(), text::tidy(default));
                }
                Some(_) => {}
                None if definition.is_optional => {}
                None => return Err(Error::new(format!("input parameter '{name}' was not supplied"))),
            },
        }
    }
    for (name, definition) in &component.input_definitions.artifacts {
        let binding = task.artifacts.iter().find(|(known, _)| known == name).map(|(_, binding)| binding);
        let found = match (&task.repeat, binding) {
            (Some(Repeat::Artifact(_, input)), _) if input == name => item_artifact(item),
            (_, Some(binding)) => artifacts(engine, boundary, binding),
            (_, None) => None,
        };
        match found {
            Some(list) => {
                inputs.artifacts.insert(name.clone(), list);
            }
            None if definition.is_optional => {}
            None => return Err(Error::new(format!("input artifact '{name}' was not supplied"))),
        }
    }
    Ok(inputs)
}

/// A leaf's inputs with the defaults of its component.
pub(super) fn with_defaults(component: &ir::Component, inputs: &Values) -> BTreeMap<String, Value> {
    let mut parameters = inputs.parameters.clone();
    for (name, definition) in &component.input_definitions.parameters {
        if let Some(default) = &definition.default_value {
            parameters.entry(name.clone()).or_insert_with(|| text::tidy(default));
        }
    }
    parameters
}

fn item_artifact(item: Option<&Value>) -> Option<Vec<ArtifactRef>> {
    serde_json::from_value(item?.clone()).ok().map(|artifact| vec![artifact])
}

fn artifacts(engine: &Engine, boundary: Option<Ix>, binding: &ArtifactBinding) -> Option<Vec<ArtifactRef>> {
    match binding {
        ArtifactBinding::Input(name) => engine.node(boundary?).inputs.artifacts.get(name).cloned(),
        ArtifactBinding::Output(task, key) => {
            let node = engine.node(engine.member(boundary?, task)?);
            node.outputs.artifacts.get(key).cloned()
        }
        ArtifactBinding::Item | ArtifactBinding::Argo(_) => None,
    }
}

/// The items of a loop over values.
pub fn loop_items(engine: &Engine, boundary: Option<Ix>, binding: &Binding) -> Result<Vec<Value>, Error> {
    let items = match value(engine, boundary, None, binding)? {
        Some(Value::String(text)) => serde_json::from_str(&text)
            .map_err(|_| Error::new(format!("a loop needs a list, got the text {text:?}")))?,
        Some(other) => other,
        None => return Err(Error::new("the list of a loop was not supplied")),
    };
    match items {
        Value::Array(items) if items.len() <= ITEMS_MAX => Ok(items),
        Value::Array(items) => {
            Err(Error::new(format!("a loop has {} items, at most {ITEMS_MAX} are allowed", items.len())))
        }
        other => Err(Error::new(format!("a loop needs a list, got {other}"))),
    }
}

/// The items of a loop over artifacts.
pub fn loop_artifacts(
    engine: &Engine,
    boundary: Option<Ix>,
    binding: &ArtifactBinding,
) -> Result<Vec<Value>, Error> {
    let list = artifacts(engine, boundary, binding)
        .ok_or_else(|| Error::new("the artifacts of a loop were not supplied"))?;
    Ok(list.iter().map(|artifact| json!(artifact)).collect())
}
