//! Argo's values at run time: texts, conditions, and arguments bound to declared inputs.

use api::workflow::argo;
use serde_json::{Value, json};

use super::names::Names;
use crate::engine::{Engine, Ix};
use crate::model::{ArtifactBinding, Binding, Declared, Phase, Task};
use crate::tags::{self, Text};
use crate::values::{ArtifactRef, Values};
use crate::{Error, text, when as conditions};

/// A text in a group's template.
pub fn text(
    engine: &Engine,
    boundary: Option<Ix>,
    item: Option<&Value>,
    text: &str,
) -> Result<String, Error> {
    tags::string(text, &Names::inside(engine, boundary, item))
}

/// A text in a node's own template.
pub fn own_text(engine: &Engine, ix: Ix, text: &str) -> Result<String, Error> {
    tags::string(text, &Names::of_node(engine, ix))
}

/// `when`.
pub fn when(
    engine: &Engine,
    boundary: Option<Ix>,
    item: Option<&Value>,
    condition: &str,
) -> Result<bool, Error> {
    conditions::evaluate(&text(engine, boundary, item, condition)?)
}

/// `expression` of a node's hook.
pub fn hook_condition(engine: &Engine, ix: Ix, code: &str) -> Result<bool, Error> {
    let node = engine.node(ix);
    let mut names = Names::inside(engine, node.boundary, node.item.as_ref());
    names.also = Some(ix);
    tags::condition(code, &names)
}

/// `expression` of a workflow's hook.
pub fn workflow_condition(engine: &Engine, code: &str) -> Result<bool, Error> {
    tags::condition(code, &Names::inside(engine, None, None))
}

/// `retryStrategy.expression`.
pub fn retry_condition(engine: &Engine, ix: Ix, last: Ix, code: &str) -> Result<bool, Error> {
    let child = engine.node(last);
    let mut names = Names::of_node(engine, ix);
    let exit_code = child.outputs.exit_code.map_or("-1".to_owned(), |code| code.to_string());
    let seconds = (child.finished.unwrap_or(child.started) - child.started) / 1000;
    names.extra.insert("lastRetry.exitCode".into(), json!(exit_code));
    names.extra.insert("lastRetry.status".into(), json!(child.phase.word()));
    names.extra.insert("lastRetry.duration".into(), json!(seconds.to_string()));
    names.extra.insert("lastRetry.message".into(), json!(child.message));
    tags::condition(code, &names)
}

/// What goes into a use of a template: arguments bound to the declared inputs.
pub fn inputs(
    engine: &Engine,
    boundary: Option<Ix>,
    task: &Task,
    item: Option<&Value>,
    template: usize,
) -> Result<Values, Error> {
    let names = Names::inside(engine, boundary, item);
    let Declared::Argo(declared, _) = &engine.plan().templates[template].declared else {
        return Ok(Values::default());
    };
    let mut inputs = Values::default();
    for parameter in &declared.inputs.parameters {
        let given = task.parameters.iter().find(|(name, _)| *name == parameter.name);
        let mut value = match given {
            Some((_, binding)) => argument(binding, &names)?,
            None => None,
        };
        if value.is_none() {
            value = fallback(parameter, &names)?;
        }
        let Some(value) = value else {
            return Err(Error::new(format!("inputs.parameters.{} was not supplied", parameter.name)));
        };
        let allowed =
            parameter.allowed.is_empty() || parameter.allowed.iter().any(|one| one.as_str() == value);
        if !allowed {
            return Err(Error::new(format!(
                "inputs.parameters.{}: {value:?} is not one of its enum values",
                parameter.name
            )));
        }
        inputs.parameters.insert(parameter.name.clone(), Value::String(value));
    }
    for artifact in &declared.inputs.artifacts {
        let given = task.artifacts.iter().find(|(name, _)| *name == artifact.name);
        let found = match given {
            Some((_, ArtifactBinding::Argo(argument))) => artifact_value(engine, argument, &names)?,
            _ => artifact_value(engine, artifact, &names)?,
        };
        match found {
            Some(mut found) => {
                found.path = artifact.path.clone().unwrap_or_default();
                inputs.artifacts.insert(artifact.name.clone(), vec![found]);
            }
            None if artifact.optional => {}
            None if given
                .is_some_and(|(_, binding)| matches!(binding, ArtifactBinding::Argo(a) if a.optional)) => {}
            None => return Err(Error::new(format!("inputs.artifacts.{} was not supplied", artifact.name))),
        }
    }
    Ok(inputs)
}

fn argument(binding: &Binding, names: &Names<'_>) -> Result<Option<String>, Error> {
    match binding {
        Binding::Text(text) => Ok(match tags::maybe(text, names)? {
            Text::Plain(text) => Some(text),
            Text::Absent => None,
        }),
        Binding::Expression(code) => Ok(match tags::evaluate(code, names)? {
            Value::Null => None,
            value => Some(text::plain(&value)),
        }),
        Binding::Constant(value) => Ok(Some(text::plain(value))),
        _ => Ok(None),
    }
}

fn fallback(parameter: &argo::Parameter, names: &Names<'_>) -> Result<Option<String>, Error> {
    let from = parameter.value_from.as_ref();
    if let Some(code) = from.and_then(|from| from.expression.as_deref()) {
        return argument(&Binding::Expression(code.to_owned()), names);
    }
    if from.is_some_and(|from| from.config_map_key_ref.is_some()) {
        return Err(Error::new(format!(
            "inputs.parameters.{}: valueFrom.configMapKeyRef is not supported yet",
            parameter.name
        )));
    }
    let text = parameter
        .value
        .as_ref()
        .or(parameter.default.as_ref())
        .or(from.and_then(|from| from.default.as_ref()));
    text.map_or(Ok(None), |text| argument(&Binding::Text(text.0.clone()), names))
}

/// What an artifact argument (or a declared artifact with a place of its own) stands for.
pub(super) fn artifact_value(
    engine: &Engine,
    artifact: &argo::Artifact,
    names: &Names<'_>,
) -> Result<Option<ArtifactRef>, Error> {
    if let Some(from) = &artifact.from {
        let inner = from.trim().trim_start_matches("{{").trim_end_matches("}}").trim();
        let mut found = from_name(engine, inner, names)?;
        if let (Some(found), Some(sub)) = (&mut found, &artifact.sub_path) {
            let sub = tags::string(sub, names)?;
            found.uri = format!("{}/{}", found.uri.trim_end_matches('/'), sub.trim_matches('/'));
        }
        return Ok(found);
    }
    if let Some(code) = &artifact.from_expression {
        let value = tags::evaluate(code, names)?;
        return Ok(serde_json::from_value(value).ok().filter(|found: &ArtifactRef| !found.uri.is_empty()));
    }
    if let Some(raw) = &artifact.raw {
        let data = tags::string(&raw.data, names)?;
        return Ok(Some(ArtifactRef { raw: Some(data), ..ArtifactRef::default() }));
    }
    if let Some(s3) = &artifact.s3 {
        let s3 = tags::tree(s3, names)?;
        let uri = super::pod::s3_uri(engine, &s3)?;
        let Some(uri) = uri else { return Ok(None) };
        let tar = artifact.archive.as_ref().is_some_and(|archive| archive.get("tar").is_some());
        return Ok(Some(ArtifactRef { uri, tar, ..ArtifactRef::default() }));
    }
    let others = [
        (artifact.gcs.is_some(), "gcs"),
        (artifact.oss.is_some(), "oss"),
        (artifact.azure.is_some(), "azure"),
        (artifact.git.is_some(), "git"),
        (artifact.hdfs.is_some(), "hdfs"),
        (artifact.http.is_some(), "http"),
        (artifact.artifactory.is_some(), "artifactory"),
    ];
    match others.into_iter().find(|(there, _)| *there) {
        Some((_, what)) => {
            Err(Error::new(format!("artifact '{}': {what} is not supported yet", artifact.name)))
        }
        None => Ok(None),
    }
}

fn from_name(engine: &Engine, name: &str, names: &Names<'_>) -> Result<Option<ArtifactRef>, Error> {
    let unknown = || Error::new(format!("failed to resolve {{{{{name}}}}}"));
    let parts: Vec<&str> = name.split('.').collect();
    let first = |values: &Values, key: &str| values.artifacts.get(key).and_then(|list| list.first()).cloned();
    match parts.as_slice() {
        ["inputs", "artifacts", key] => Ok(names.inputs().and_then(|inputs| first(inputs, key))),
        ["tasks" | "steps", task, "outputs", "artifacts", key] => match names.member(task) {
            Some(ix) => {
                let node = engine.node(ix);
                let found = first(&node.outputs, key);
                match found {
                    None if node.phase == Phase::Succeeded => Ok(None),
                    found => Ok(found),
                }
            }
            None if names.declares(task) => Ok(None),
            None => Err(unknown()),
        },
        ["workflow", "outputs", "artifacts", key] => Ok(first(engine.globals(), key)),
        _ => Err(unknown()),
    }
}
