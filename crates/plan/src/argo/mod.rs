//! The Argo front end: a workflow spec becomes a [`Plan`].
//!
//! * `names`, `resolve`, `loops`: tags, arguments, conditions and loops at run time.
//! * `pod`: a leaf template becomes a pod.
//! * `outputs`: what a node gives to others.

pub mod loops;
mod names;
pub mod outputs;
pub mod pod;
pub mod resolve;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::workflow::argo::{self, Template as Declared, TemplateRef, WorkflowSpec};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::model::{
    ArgoFront, ArtifactBinding, Binding, Body, Dag, Declared as Declares, Front, Gate, Hook, Plan, Repeat,
    Retry, RetryPolicy, Task, Template, Use,
};
use crate::ready::{self, Ready, Test};
use crate::{Error, Identity};

/// Specs of the WorkflowTemplates that `templateRef`s name, by scope (`ns/name`, `cluster/name`).
pub type Library = BTreeMap<String, Value>;

/// Scope of a `templateRef`.
pub fn scope_of(reference: &TemplateRef, namespace: &str) -> String {
    if reference.cluster_scope {
        format!("cluster/{}", reference.name)
    } else {
        format!("{namespace}/{}", reference.name)
    }
}

/// The spec that runs: the template's, with the workflow's own fields over it.
pub fn merge(workflow: &Value, template: &Value) -> Value {
    let mut merged = template.as_object().cloned().unwrap_or_default();
    for (name, field) in workflow.as_object().into_iter().flatten() {
        if name == "workflowTemplateRef" {
            continue;
        }
        match (name.as_str(), merged.get_mut(name)) {
            ("arguments", Some(below)) => {
                for list in ["parameters", "artifacts"] {
                    merge_named(below, field, list);
                }
            }
            ("volumes" | "templates" | "volumeClaimTemplates", Some(Value::Array(below))) => {
                below.extend(field.as_array().cloned().unwrap_or_default());
            }
            ("nodeSelector" | "hooks" | "podMetadata" | "workflowMetadata", Some(Value::Object(below))) => {
                below.extend(field.as_object().cloned().unwrap_or_default());
            }
            _ => {
                merged.insert(name.clone(), field.clone());
            }
        }
    }
    Value::Object(merged)
}

fn merge_named(below: &mut Value, over: &Value, list: &str) {
    let Some(over) = over.get(list).and_then(Value::as_array) else { return };
    let Some(fields) = below.as_object_mut() else { return };
    let items = fields.entry(list).or_insert_with(|| Value::Array(Vec::new()));
    let Some(items) = items.as_array_mut() else { return };
    for item in over {
        match items.iter_mut().find(|known| known.get("name") == item.get("name")) {
            Some(known) => {
                if let (Some(known), Some(item)) = (known.as_object_mut(), item.as_object()) {
                    if item.contains_key("value") || item.contains_key("valueFrom") {
                        known.remove("value");
                        known.remove("valueFrom");
                    }
                    known.extend(item.clone());
                }
            }
            None => items.push(item.clone()),
        }
    }
}

/// The `templateRef`s that a spec names, to be fetched into the library before compiling.
pub fn references(spec: &Value) -> Vec<TemplateRef> {
    let mut found = BTreeSet::new();
    let mut open = vec![spec];
    while let Some(value) = open.pop() {
        match value {
            Value::Object(fields) => {
                if let Some(reference) =
                    fields.get("templateRef").and_then(|at| TemplateRef::deserialize(at).ok())
                {
                    found.insert(reference);
                }
                open.extend(fields.values());
            }
            Value::Array(items) => open.extend(items),
            _ => {}
        }
    }
    found.into_iter().collect()
}

/// Compiles a spec (after [`merge`]).
pub fn compile(identity: Identity, spec: &Value, library: &Library) -> Result<Plan, Error> {
    let typed =
        WorkflowSpec::deserialize(spec).map_err(|error| Error::new(format!("invalid spec: {error}")))?;
    let mut compiler =
        Compiler { templates: Vec::new(), names: BTreeMap::new(), namespace: identity.namespace.clone() };
    compiler.declare("", spec)?;
    for (scope, spec) in library {
        compiler.declare(scope, spec)?;
    }
    compiler.bodies()?;
    let entry_name = typed.entrypoint.clone().ok_or_else(|| Error::new("entrypoint is required"))?;
    let mut entry = compiler.call("", &entry_name, &typed.arguments)?;
    // The workflow's own retry strategy is that of its entry.
    entry.retry = typed.retry_strategy.as_ref().map(retry).transpose()?;
    let mut hooks = Vec::new();
    if let Some(exit) = &typed.on_exit {
        let call = Arc::new(compiler.call("", exit, &typed.arguments)?);
        hooks.push(Hook { name: "exit".into(), expression: None, call });
    }
    for (name, hook) in &typed.hooks {
        hooks.push(compiler.hook("", name, hook)?);
    }
    let parameters = workflow_parameters(&typed)?;
    let captures =
        std::iter::once(spec).chain(library.values()).any(|spec| spec.to_string().contains("outputs.result"));
    Ok(Plan {
        identity,
        templates: compiler.templates,
        names: compiler.names,
        entry: Arc::new(entry),
        hooks,
        parallelism: typed.parallelism,
        deadline_ms: typed.active_deadline_seconds.map(|seconds| seconds.saturating_mul(1000)),
        suspended: typed.suspend == Some(true),
        front: Front::Argo(Box::new(ArgoFront { spec: typed, parameters, captures })),
    })
}

fn workflow_parameters(spec: &WorkflowSpec) -> Result<BTreeMap<String, Value>, Error> {
    let mut parameters = BTreeMap::new();
    for parameter in &spec.arguments.parameters {
        let value = parameter.value.as_ref().or(parameter.default.as_ref());
        if let Some(value) = value {
            if !parameter.allowed.is_empty() && !parameter.allowed.contains(value) {
                return Err(Error::new(format!(
                    "spec.arguments.parameters.{}: {:?} is not one of its enum values",
                    parameter.name,
                    value.as_str()
                )));
            }
            parameters.insert(parameter.name.clone(), Value::String(value.0.clone()));
        } else if parameter.value_from.is_none() {
            return Err(Error::new(format!(
                "spec.arguments.{}.value or valueFrom is required",
                parameter.name
            )));
        }
    }
    Ok(parameters)
}

/// Refuses a name that two tasks of a template have: conditions and values refer to tasks by name.
fn unique<'a>(
    template: &str,
    list: &str,
    names: impl Iterator<Item = (usize, &'a str)>,
) -> Result<(), Error> {
    let mut known = BTreeSet::new();
    for (at, name) in names {
        if !known.insert(name) {
            return Err(Error::new(format!("templates.{template}.{list}[{at}].name '{name}' is not unique")));
        }
    }
    Ok(())
}

struct Compiler {
    templates: Vec<Template>,
    names: BTreeMap<(String, String), usize>,
    namespace: String,
}

impl Compiler {
    /// Gives each template of a spec its place, so that bodies can refer to any of them.
    fn declare(&mut self, scope: &str, spec: &Value) -> Result<(), Error> {
        let defaults = spec.get("templateDefaults").cloned().unwrap_or(Value::Null);
        for (at, raw) in spec.get("templates").and_then(Value::as_array).into_iter().flatten().enumerate() {
            let raw = with_defaults(raw, &defaults);
            let place = self.add(scope, raw)?;
            let name = self.templates[place].name.clone();
            if self.names.insert((scope.to_owned(), name.clone()), place).is_some() {
                return Err(Error::new(format!("templates[{at}].name '{name}' is not unique")));
            }
        }
        Ok(())
    }

    fn add(&mut self, scope: &str, raw: Value) -> Result<usize, Error> {
        let typed = Declared::deserialize(&raw).map_err(|error| {
            let name = raw.get("name").and_then(Value::as_str).unwrap_or_default();
            Error::new(format!("invalid template '{name}': {error}"))
        })?;
        let retry = typed.retry_strategy.as_ref().map(retry).transpose()?;
        self.templates.push(Template {
            name: typed.name.clone(),
            scope: scope.to_owned(),
            body: Body::Refused(String::new()),
            parallelism: typed.parallelism,
            fail_fast: typed.dag.as_ref().and_then(|dag| dag.fail_fast).or(typed.fail_fast).unwrap_or(true),
            retry,
            declared: Declares::Argo(Box::new(typed), raw),
        });
        Ok(self.templates.len() - 1)
    }

    fn bodies(&mut self) -> Result<(), Error> {
        let mut place = 0;
        // Inline templates are added on the way, and have bodies too.
        while place < self.templates.len() {
            let scope = self.templates[place].scope.clone();
            let Declares::Argo(typed, _) = &self.templates[place].declared else { break };
            let typed = typed.clone();
            self.templates[place].body = self.body(&scope, &typed)?;
            place += 1;
        }
        Ok(())
    }

    fn body(&mut self, scope: &str, typed: &Declared) -> Result<Body, Error> {
        if let Some(what) = unsupported(typed) {
            let text = format!("template '{}' uses '{what}', which is not supported yet", typed.name);
            return Ok(Body::Refused(text));
        }
        if let Some(groups) = &typed.steps {
            let names = groups
                .iter()
                .enumerate()
                .flat_map(|(at, steps)| steps.iter().map(move |step| (at, step.name.as_str())));
            unique(&typed.name, "steps", names)?;
            let groups = groups.iter().map(|steps| {
                steps
                    .iter()
                    .map(|step| Ok(Arc::new(self.task(scope, step)?)))
                    .collect::<Result<Vec<_>, Error>>()
            });
            return Ok(Body::Steps(groups.collect::<Result<_, _>>()?));
        }
        if let Some(dag) = &typed.dag {
            unique(&typed.name, "tasks", dag.tasks.iter().map(|task| task.name.as_str()).enumerate())?;
            return self.dag(scope, dag).map(Body::Dag);
        }
        if let Some(suspend) = &typed.suspend {
            return Ok(Body::Suspend(suspend.duration.as_ref().map(|text| text.0.clone())));
        }
        if typed.container.is_some() || typed.script.is_some() {
            return Ok(Body::Pod);
        }
        Ok(Body::Refused(format!("template '{}' has nothing to run", typed.name)))
    }

    fn dag(&mut self, scope: &str, dag: &argo::Dag) -> Result<Dag, Error> {
        let place = |name: &str| dag.tasks.iter().position(|task| task.name == name);
        let mut tasks = Vec::with_capacity(dag.tasks.len());
        for declared in &dag.tasks {
            let mut task = self.task(scope, declared)?;
            task.ready = match &declared.depends {
                Some(text) => ready::parse(text, &place)?,
                None => {
                    let needs = declared.dependencies.iter().map(|name| {
                        let at = place(name)
                            .ok_or_else(|| Error::new(format!("dependency '{name}' not defined")))?;
                        Ok(Ready::Is(at, Test::Fine))
                    });
                    Ready::All(needs.collect::<Result<_, Error>>()?)
                }
            };
            let mut needs = BTreeSet::new();
            task.ready.tasks(&mut needs);
            task.needs = needs.into_iter().collect();
            tasks.push(Arc::new(task));
        }
        let dependents = ready::dependents(&tasks);
        let targets = match dag.target.as_deref().map(str::trim).filter(|text| !text.is_empty()) {
            Some(names) => names
                .split_whitespace()
                .map(|name| place(name).ok_or_else(|| Error::new(format!("target '{name}' not defined"))))
                .collect::<Result<_, _>>()?,
            None => (0..tasks.len()).filter(|at| dependents[*at].is_empty()).collect(),
        };
        Ok(Dag { tasks, dependents, targets })
    }

    fn task(&mut self, scope: &str, declared: &argo::Task) -> Result<Task, Error> {
        let uses = match (&declared.template, &declared.template_ref, &declared.inline) {
            (Some(name), None, None) => self.uses(scope, name)?,
            (None, Some(reference), None) => {
                let scope = scope_of(reference, &self.namespace);
                self.uses(&scope, &reference.template)?
            }
            (None, None, Some(inline)) => Use::At(self.add(scope, inline.clone())?),
            _ => return Err(Error::new(format!("'{}' must have one template", declared.name))),
        };
        let mut task = Task::plain(&declared.name, uses);
        task.parameters = declared.arguments.parameters.iter().filter_map(binding).collect();
        task.artifacts = artifacts(&declared.arguments);
        task.gate = declared.when.clone().filter(|text| !text.trim().is_empty()).map(Gate::When);
        task.repeat = repeat(declared);
        task.continue_on = declared.continue_on.unwrap_or_default();
        if let Some(exit) = &declared.on_exit {
            let call = Arc::new(self.call(scope, exit, &argo::Arguments::default())?);
            task.hooks.push(Hook { name: "exit".into(), expression: None, call });
        }
        for (name, hook) in &declared.hooks {
            task.hooks.push(self.hook(scope, name, hook)?);
        }
        Ok(task)
    }

    fn uses(&self, scope: &str, name: &str) -> Result<Use, Error> {
        if name.contains("{{") {
            return Ok(Use::Named(scope.to_owned(), name.to_owned()));
        }
        let place = self.names.get(&(scope.to_owned(), name.to_owned()));
        place
            .map(|place| Use::At(*place))
            .ok_or_else(|| Error::new(format!("template name '{name}' undefined")))
    }

    fn call(&self, scope: &str, template: &str, arguments: &argo::Arguments) -> Result<Task, Error> {
        let mut task = Task::plain(template, self.uses(scope, template)?);
        task.parameters = arguments.parameters.iter().filter_map(binding).collect();
        task.artifacts = artifacts(arguments);
        Ok(task)
    }

    fn hook(&self, scope: &str, name: &str, hook: &argo::Hook) -> Result<Hook, Error> {
        let call = match (&hook.template, &hook.template_ref) {
            (Some(template), _) => self.call(scope, template, &hook.arguments)?,
            (None, Some(reference)) => {
                self.call(&scope_of(reference, &self.namespace), &reference.template, &hook.arguments)?
            }
            (None, None) => return Err(Error::new(format!("hook '{name}' has no template"))),
        };
        Ok(Hook { name: name.to_owned(), expression: hook.expression.clone(), call: Arc::new(call) })
    }
}

fn artifacts(arguments: &argo::Arguments) -> Vec<(String, ArtifactBinding)> {
    let bindings = arguments.artifacts.iter();
    bindings
        .map(|artifact| (artifact.name.clone(), ArtifactBinding::Argo(Box::new(artifact.clone()))))
        .collect()
}

fn binding(parameter: &argo::Parameter) -> Option<(String, Binding)> {
    let from = parameter.value_from.as_ref();
    let binding = match (&parameter.value, from.and_then(|from| from.expression.clone())) {
        (Some(value), _) => Binding::Text(value.0.clone()),
        (None, Some(code)) => Binding::Expression(code),
        (None, None) => Binding::Text(parameter.default.as_ref()?.0.clone()),
    };
    Some((parameter.name.clone(), binding))
}

fn repeat(task: &argo::Task) -> Option<Repeat> {
    if let Some(items) = &task.with_items {
        return Some(Repeat::Items(items.clone()));
    }
    if let Some(text) = &task.with_param {
        return Some(Repeat::Param(text.clone()));
    }
    task.with_sequence.clone().map(Repeat::Sequence)
}

/// `templateDefaults` under a template, field by field.
fn with_defaults(raw: &Value, defaults: &Value) -> Value {
    let (Some(fields), Some(defaults)) = (raw.as_object(), defaults.as_object()) else { return raw.clone() };
    let mut merged: Map<String, Value> = fields.clone();
    for (name, default) in defaults {
        match merged.get_mut(name) {
            None if matches!(name.as_str(), "container" | "script") => {}
            None => {
                merged.insert(name.clone(), default.clone());
            }
            Some(field) => *field = with_defaults(field, default),
        }
    }
    Value::Object(merged)
}

fn retry(strategy: &argo::RetryStrategy) -> Result<Retry, Error> {
    let policy = match strategy.retry_policy.as_deref() {
        None | Some("") if strategy.expression.is_some() => RetryPolicy::Always,
        None | Some("" | "OnFailure") => RetryPolicy::OnFailure,
        Some("Always") => RetryPolicy::Always,
        Some("OnError" | "OnTransientError") => RetryPolicy::OnError,
        Some(other) => return Err(Error::new(format!("retryPolicy {other:?} is not known"))),
    };
    let backoff = strategy.backoff.clone().unwrap_or_default();
    let text = |text: Option<argo::Text>| text.map(|text| text.0).filter(|text| !text.is_empty());
    Ok(Retry {
        limit: text(strategy.limit.clone()),
        policy,
        pause: text(backoff.duration),
        factor: text(backoff.factor),
        cap: text(backoff.cap),
        max_duration: text(backoff.max_duration),
        expression: strategy.expression.clone(),
    })
}

/// What a template uses that the engine cannot run.
fn unsupported(template: &Declared) -> Option<&'static str> {
    api::workflow::admission::unsupported_template(template)
}
