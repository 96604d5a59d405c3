//! The KFP front end: a PipelineSpec and its runtime parameters become a [`Plan`].
//!
//! Components are templates, tasks are tasks; the driver and the launcher of upstream are one pass
//! here: `resolve` finds values, `pod` writes the executor input, `outputs` reads what came back.

pub mod cache_key;
pub mod outputs;
pub mod placeholders;
pub mod platform;
pub mod pod;
pub mod python;
pub mod resolve;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::workflow::{KfpRun, admission, ir};
use serde::Deserialize;
use serde_json::Value;

use crate::model::{
    ArtifactBinding, Binding, Body, Dag, Declared, Front, Gate, KfpFront, Plan, Repeat, Retry, RetryPolicy,
    Task, Template, Use,
};
use crate::ready::{self, Ready, Test};
use crate::{Error, Identity, text};

/// Name of the root component's template.
pub const ROOT: &str = "root";

/// Compiles a run.
pub fn compile(identity: Identity, run: &KfpRun) -> Result<Plan, Error> {
    let spec = admission::check_pipeline(&run.pipeline_spec, "pipelineSpec")
        .map_err(|all| Error::new(all.to_string()))?;
    let platform = run.platform_spec.as_ref().map(ir::PlatformSpec::deserialize).transpose();
    let platform =
        platform.map_err(|error| Error::new(format!("invalid platformSpec: {error}")))?.unwrap_or_default();
    let platform = platform.platforms.get("kubernetes").cloned().unwrap_or_default();
    let mut names = BTreeMap::new();
    names.insert((String::new(), ROOT.to_owned()), 0);
    for (place, name) in spec.components.keys().enumerate() {
        names.insert((String::new(), name.clone()), place + 1);
    }
    let mut templates = vec![template(&spec, &names, ROOT, &spec.root)?];
    for (name, component) in &spec.components {
        templates.push(template(&spec, &names, name, component)?);
    }
    let mut entry = Task::plain(ROOT, Use::At(0));
    for (name, value) in &run.runtime_config.parameters {
        entry.parameters.push((name.clone(), Binding::Constant(value.clone())));
    }
    let created = text::rfc3339(identity.created_ms);
    let deadline = platform.pipeline_config.get("activeDeadlineSeconds").and_then(Value::as_i64);
    let front = front(&identity, run, &spec, platform.deployment_spec.executors, &created);
    Ok(Plan {
        identity,
        templates,
        names,
        entry: Arc::new(entry),
        hooks: Vec::new(),
        parallelism: None,
        deadline_ms: deadline.map(|seconds| seconds.saturating_mul(1000)),
        suspended: false,
        front: Front::Kfp(Box::new(front)),
    })
}

fn front(
    identity: &Identity,
    run: &KfpRun,
    spec: &ir::PipelineSpec,
    platform: BTreeMap<String, serde_json::Map<String, Value>>,
    created: &str,
) -> KfpFront {
    let or = |text: &str, other: &str| if text.is_empty() { other.to_owned() } else { text.to_owned() };
    let asked = run.runtime_config.pipeline_root.clone().filter(|root| !root.is_empty());
    let asked = asked.or_else(|| Some(spec.default_pipeline_root.clone()).filter(|root| !root.is_empty()));
    let root =
        asked.unwrap_or_else(|| format!("minio://{}/v2/artifacts/{}", identity.bucket, identity.namespace));
    let created = or(&run.created_at, created);
    KfpFront {
        run_id: or(&run.run_id, &identity.uid),
        display_name: or(&run.display_name, &identity.name),
        pipeline_name: or(&run.pipeline_name, &spec.pipeline_info.name),
        root: root.trim_end_matches('/').to_owned(),
        scheduled_at: or(&run.scheduled_at, &created),
        created_at: created,
        executors: spec.deployment_spec.executors.clone(),
        platform,
    }
}

type Names = BTreeMap<(String, String), usize>;

fn template(
    spec: &ir::PipelineSpec,
    names: &Names,
    name: &str,
    component: &ir::Component,
) -> Result<Template, Error> {
    let body = match (&component.dag, &component.executor_label) {
        (Some(declared), _) => Body::Dag(dag(spec, names, declared)?),
        (None, Some(label)) => leaf(spec, label),
        (None, None) => Body::Refused(format!("component '{name}' has neither a dag nor an executor")),
    };
    Ok(Template {
        name: name.to_owned(),
        scope: String::new(),
        body,
        parallelism: None,
        fail_fast: true,
        retry: None,
        declared: Declared::Kfp(Box::new(component.clone())),
    })
}

fn leaf(spec: &ir::PipelineSpec, label: &str) -> Body {
    let executor = spec.deployment_spec.executors.get(label);
    match executor {
        Some(executor) if executor.importer.is_some() => Body::Import,
        Some(ir::Executor { container: Some(container), .. }) => match container.image.as_str() {
            "argostub/createpvc" | "argostub/deletepvc" => {
                Body::Refused(format!("executor '{label}': CreatePVC and DeletePVC are not supported yet"))
            }
            _ => Body::Pod,
        },
        _ => Body::Refused(format!("executor '{label}' is neither a container nor an importer")),
    }
}

fn dag(spec: &ir::PipelineSpec, names: &Names, declared: &ir::Dag) -> Result<Dag, Error> {
    let order: Vec<&String> = declared.tasks.keys().collect();
    let place = |name: &str| order.iter().position(|known| *known == name);
    let mut tasks = Vec::with_capacity(order.len());
    for (name, source) in &declared.tasks {
        tasks.push(Arc::new(task(spec, names, &place, name, source)?));
    }
    let dependents = ready::dependents(&tasks);
    let targets = (0..tasks.len()).collect();
    Ok(Dag { tasks, dependents, targets })
}

fn task(
    spec: &ir::PipelineSpec,
    names: &Names,
    place: &dyn Fn(&str) -> Option<usize>,
    name: &str,
    source: &ir::Task,
) -> Result<Task, Error> {
    let component = &source.component_ref.name;
    let at = names.get(&(String::new(), component.clone()));
    let at = at.ok_or_else(|| Error::new(format!("component '{component}' is not defined in components")))?;
    let mut task = Task::plain(name, Use::At(*at));
    if !source.task_info.name.is_empty() {
        task.display.clone_from(&source.task_info.name);
    }
    let mut needs: BTreeSet<&str> = source.dependent_tasks.iter().map(String::as_str).collect();
    for (input, from) in &source.inputs.parameters {
        needs.extend(from.task_output_parameter.iter().map(|from| from.producer_task.as_str()));
        needs.extend(from.task_final_status.iter().map(|from| from.producer_task.as_str()));
        task.parameters.push((input.clone(), parameter(from)?));
    }
    for (input, from) in &source.inputs.artifacts {
        needs.extend(from.task_output_artifact.iter().map(|from| from.producer_task.as_str()));
        task.artifacts.push((input.clone(), artifact(input, from)?));
    }
    task.always = source.trigger_policy.strategy == "ALL_UPSTREAM_TASKS_COMPLETED";
    let test = if task.always { Test::Finished } else { Test::Succeeded };
    for need in needs {
        let at = place(need)
            .ok_or_else(|| Error::new(format!("task '{name}' depends on '{need}', which is not there")))?;
        task.needs.push(at);
    }
    task.ready = Ready::All(task.needs.iter().map(|at| Ready::Is(*at, test)).collect());
    let condition = &source.trigger_policy.condition;
    task.gate = (!condition.is_empty()).then(|| Gate::Cel(condition.clone()));
    task.repeat = repeat(&task, source)?;
    task.at_once = Some(source.iterator_policy.parallelism_limit).filter(|limit| *limit > 0);
    let pod = spec.components.get(component).is_some_and(|component| component.dag.is_none());
    task.retry = source.retry_policy.as_ref().filter(|policy| pod && policy.max_retry_count > 0).map(retry);
    task.cache = Some(source.caching_options.clone()).filter(|options| pod && options.enable_cache);
    Ok(task)
}

fn parameter(from: &ir::InputParameter) -> Result<Binding, Error> {
    let binding = if let Some(output) = &from.task_output_parameter {
        Binding::Output(output.producer_task.clone(), output.output_parameter_key.clone())
    } else if let Some(name) = &from.component_input_parameter {
        Binding::Input(name.clone())
    } else if let Some(status) = &from.task_final_status {
        Binding::FinalStatus(status.producer_task.clone())
    } else if let Some(value) = &from.runtime_value {
        match (&value.constant, &value.runtime_parameter) {
            (Some(constant), _) => Binding::Constant(constant.clone()),
            (None, Some(name)) => Binding::Input(name.clone()),
            // protojson leaves a null constant out.
            (None, None) => Binding::Constant(Value::Null),
        }
    } else {
        return Err(Error::new("an input parameter has no source"));
    };
    Ok(match from.parameter_expression_selector.as_str() {
        "" => binding,
        code => Binding::Selected(Box::new(binding), code.to_owned()),
    })
}

fn artifact(name: &str, from: &ir::InputArtifact) -> Result<ArtifactBinding, Error> {
    if let Some(output) = &from.task_output_artifact {
        return Ok(ArtifactBinding::Output(output.producer_task.clone(), output.output_artifact_key.clone()));
    }
    match &from.component_input_artifact {
        Some(name) => Ok(ArtifactBinding::Input(name.clone())),
        None => Err(Error::new(format!("input artifact '{name}' has no source"))),
    }
}

fn repeat(task: &Task, source: &ir::Task) -> Result<Option<Repeat>, Error> {
    if let Some(iterator) = &source.parameter_iterator {
        let binding = match (&iterator.items.raw, &iterator.items.input_parameter) {
            (Some(raw), _) => {
                let items: Value = serde_json::from_str(raw).map_err(|error| {
                    Error::new(format!("parameterIterator.items.raw is not JSON: {error}"))
                })?;
                Binding::Constant(items)
            }
            (None, Some(name)) => match task.parameters.iter().find(|(known, _)| known == name) {
                Some((_, binding)) => binding.clone(),
                None => Binding::Input(name.clone()),
            },
            (None, None) => return Err(Error::new("a parameterIterator has no items")),
        };
        return Ok(Some(Repeat::Parameter(binding, iterator.item_input.clone())));
    }
    let Some(iterator) = &source.artifact_iterator else { return Ok(None) };
    let name = &iterator.items.input_artifact;
    let binding = match task.artifacts.iter().find(|(known, _)| known == name) {
        Some((_, binding)) => binding.clone(),
        None => ArtifactBinding::Input(name.clone()),
    };
    Ok(Some(Repeat::Artifact(binding, iterator.item_input.clone())))
}

fn retry(policy: &ir::RetryPolicy) -> Retry {
    let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let factor = if policy.backoff_factor == 0.0 { 2.0 } else { policy.backoff_factor };
    Retry {
        limit: Some(policy.max_retry_count.to_string()),
        policy: RetryPolicy::OnFailure,
        pause: some(&policy.backoff_duration),
        factor: Some(factor.to_string()),
        cap: some(&policy.backoff_max_duration),
        max_duration: None,
        expression: None,
    }
}
