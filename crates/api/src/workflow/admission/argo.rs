//! Argo specs: templates that exist, graphs without cycles, references that name something.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

use super::{Problems, paths};
use crate::workflow::argo::{Arguments, Dag, Hook, Task, Template, WorkflowSpec};

/// A Workflow's spec.
pub(super) fn check_workflow_spec(spec: &Value, at: &str) -> Result<(), Problems> {
    check(spec, at, true)
}

/// A WorkflowTemplate's spec: it may lack an entrypoint.
pub(super) fn check_template_spec(spec: &Value, at: &str) -> Result<(), Problems> {
    check(spec, at, false)
}

fn check(spec: &Value, at: &str, runs: bool) -> Result<(), Problems> {
    let mut problems = Problems::default();
    let typed = match WorkflowSpec::deserialize(spec) {
        Ok(typed) => typed,
        Err(error) => {
            problems.add(at, error.to_string());
            return Err(problems);
        }
    };
    let mut seen = BTreeSet::new();
    for (index, template) in typed.templates.iter().enumerate() {
        let field = format!("{at}.templates[{index}]");
        if template.name.is_empty() {
            problems.add(format!("{field}.name"), "template must have a name");
        } else if !seen.insert(template.name.as_str()) {
            problems.add(format!("{field}.name"), format!("template name '{}' is not unique", template.name));
        }
    }
    // With a workflowTemplateRef the names live elsewhere.
    let names = typed.workflow_template_ref.is_none().then_some(&seen);
    let checker = Checker { names };
    checker.entry(&typed, at, runs, &mut problems);
    for (index, template) in typed.templates.iter().enumerate() {
        checker.template(template, &format!("{at}.templates[{index}]"), &mut problems);
    }
    if let Some(what) = unsupported_spec(&typed) {
        problems.add(format!("{at}.{what}"), "is not supported yet");
    }
    problems.into_result()
}

fn unsupported_spec(spec: &WorkflowSpec) -> Option<&'static str> {
    [
        (spec.synchronization.is_some(), "synchronization"),
        (spec.pod_spec_patch.is_some(), "podSpecPatch"),
        (spec.volume_claim_gc.is_some() && spec.volume_claim_templates.is_empty(), "volumeClaimGC"),
    ]
    .into_iter()
    .find_map(|(there, what)| there.then_some(what))
}

/// What a template uses that the engine does not run.
pub fn unsupported_template(template: &Template) -> Option<&'static str> {
    [
        (template.resource.is_some(), "resource"),
        (template.container_set.is_some(), "containerSet"),
        (template.http.is_some(), "http"),
        (template.plugin.is_some(), "plugin"),
        (template.data.is_some(), "data"),
        (template.daemon == Some(true), "daemon"),
        (template.memoize.is_some(), "memoize"),
        (template.synchronization.is_some(), "synchronization"),
        (template.pod_spec_patch.is_some(), "podSpecPatch"),
    ]
    .into_iter()
    .find_map(|(there, what)| there.then_some(what))
}

struct Checker<'a> {
    /// Names of templates; `None` when they cannot be known here.
    names: Option<&'a BTreeSet<&'a str>>,
}

impl Checker<'_> {
    fn entry(&self, spec: &WorkflowSpec, at: &str, runs: bool, problems: &mut Problems) {
        match &spec.entrypoint {
            Some(entry) => self.known(entry, &format!("{at}.entrypoint"), problems),
            None if runs && self.names.is_some() => {
                problems.add(format!("{at}.entrypoint"), "entrypoint is required");
            }
            None => {}
        }
        if let Some(exit) = &spec.on_exit {
            self.known(exit, &format!("{at}.onExit"), problems);
        }
        for (name, hook) in &spec.hooks {
            self.hook(hook, &format!("{at}.hooks.{name}"), problems);
        }
        check_names(&spec.arguments, &format!("{at}.arguments"), problems);
    }

    fn known(&self, name: &str, field: &str, problems: &mut Problems) {
        let Some(names) = self.names else { return };
        if !name.contains("{{") && !names.contains(name) {
            problems.add(field, format!("template name '{name}' undefined"));
        }
    }

    fn hook(&self, hook: &Hook, field: &str, problems: &mut Problems) {
        if let Some(template) = &hook.template {
            self.known(template, &format!("{field}.template"), problems);
        }
    }

    fn template(&self, template: &Template, at: &str, problems: &mut Problems) {
        let bodies = [
            template.container.is_some(),
            template.script.is_some(),
            template.steps.is_some(),
            template.dag.is_some(),
            template.suspend.is_some(),
            template.resource.is_some(),
            template.container_set.is_some(),
            template.http.is_some(),
            template.plugin.is_some(),
            template.data.is_some(),
        ];
        if bodies.iter().filter(|there| **there).count() != 1 {
            problems.add(
                at,
                format!(
                    "template '{}' must have exactly one of container, script, steps, dag, suspend, \
                     resource, containerSet, http, plugin, data",
                    template.name
                ),
            );
        }
        if let Some(what) = unsupported_template(template) {
            problems.add(format!("{at}.{what}"), "is not supported yet");
        }
        check_names(&template.inputs, &format!("{at}.inputs"), problems);
        check_names(&template.outputs, &format!("{at}.outputs"), problems);
        check_paths(template, at, problems);
        let inputs = &template.inputs;
        if let Some(groups) = &template.steps {
            let all: Vec<&Task> = groups.iter().flatten().collect();
            for (group, steps) in groups.iter().enumerate() {
                for (index, step) in steps.iter().enumerate() {
                    let field = format!("{at}.steps[{group}][{index}]");
                    self.task(step, &all, inputs, &field, problems);
                }
            }
            check_unique(&all, at, problems);
        }
        if let Some(dag) = &template.dag {
            let all: Vec<&Task> = dag.tasks.iter().collect();
            for (index, task) in all.iter().enumerate() {
                self.task(task, &all, inputs, &format!("{at}.dag.tasks[{index}]"), problems);
            }
            check_unique(&all, at, problems);
            check_graph(dag, &format!("{at}.dag"), problems);
        }
    }

    fn task(&self, task: &Task, all: &[&Task], inputs: &Arguments, at: &str, problems: &mut Problems) {
        let uses = [task.template.is_some(), task.template_ref.is_some(), task.inline.is_some()];
        if uses.iter().filter(|there| **there).count() != 1 {
            problems
                .add(at, format!("'{}' must have exactly one of template, templateRef, inline", task.name));
        }
        if let Some(template) = &task.template {
            self.known(template, &format!("{at}.template"), problems);
        }
        if let Some(exit) = &task.on_exit {
            self.known(exit, &format!("{at}.onExit"), problems);
        }
        for (name, hook) in &task.hooks {
            self.hook(hook, &format!("{at}.hooks.{name}"), problems);
        }
        let names: BTreeSet<&str> = all.iter().map(|task| task.name.as_str()).collect();
        check_names(&task.arguments, &format!("{at}.arguments"), problems);
        for (field, text) in texts(task) {
            for tag in tags(text) {
                if let Some(detail) = bad_reference(tag, &names, inputs) {
                    problems.add(format!("{at}.{field}"), detail);
                }
            }
        }
    }
}

/// The texts of a task in which simple tags may stand.
fn texts(task: &Task) -> Vec<(String, &str)> {
    let mut texts = Vec::new();
    for parameter in &task.arguments.parameters {
        if let Some(value) = &parameter.value {
            texts.push((format!("arguments.parameters.{}", parameter.name), value.as_str()));
        }
    }
    for artifact in &task.arguments.artifacts {
        if let Some(from) = &artifact.from {
            texts.push((format!("arguments.artifacts.{}", artifact.name), from.as_str()));
        }
    }
    if let Some(when) = &task.when {
        texts.push(("when".into(), when));
    }
    if let Some(items) = &task.with_param {
        texts.push(("withParam".into(), items));
    }
    texts
}

/// The simple tags of a text: what stands between `{{` and `}}`, without expression and nested ones.
fn tags(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("{{") {
        rest = &rest[start + 2..];
        let Some(end) = rest.find("}}") else { break };
        let tag = rest[..end].trim();
        if !tag.starts_with('=') && !tag.contains("{{") {
            found.push(tag);
        }
        rest = &rest[end + 2..];
    }
    found
}

fn bad_reference(tag: &str, names: &BTreeSet<&str>, inputs: &Arguments) -> Option<String> {
    let parts: Vec<&str> = tag.split('.').collect();
    match parts.as_slice() {
        ["tasks" | "steps", name, ..] if !names.contains(name) => {
            Some(format!("failed to resolve {{{{{tag}}}}}: there is no task or step '{name}'"))
        }
        ["inputs", "parameters", name] => {
            let known = inputs.parameters.iter().any(|parameter| parameter.name == *name);
            (!known).then(|| format!("failed to resolve {{{{{tag}}}}}"))
        }
        ["inputs", "artifacts", name, ..] => {
            let known = inputs.artifacts.iter().any(|artifact| artifact.name == *name);
            (!known).then(|| format!("failed to resolve {{{{{tag}}}}}"))
        }
        _ => None,
    }
}

fn check_unique(tasks: &[&Task], at: &str, problems: &mut Problems) {
    let mut seen = BTreeSet::new();
    for task in tasks {
        if task.name.is_empty() {
            problems.add(at, "a step or task must have a name");
        } else if !seen.insert(&task.name) {
            problems.add(at, format!("name '{}' is not unique", task.name));
        }
    }
}

fn check_names(arguments: &Arguments, at: &str, problems: &mut Problems) {
    let mut seen = BTreeSet::new();
    for parameter in &arguments.parameters {
        if let Some(detail) = paths::bad_name(&parameter.name) {
            problems.add(format!("{at}.parameters"), detail);
        }
        if !seen.insert(&parameter.name) {
            problems.add(format!("{at}.parameters"), format!("name '{}' is not unique", parameter.name));
        }
    }
    let mut seen = BTreeSet::new();
    for artifact in &arguments.artifacts {
        if let Some(detail) = paths::bad_name(&artifact.name) {
            problems.add(format!("{at}.artifacts"), detail);
        }
        if !seen.insert(&artifact.name) {
            problems.add(format!("{at}.artifacts"), format!("name '{}' is not unique", artifact.name));
        }
    }
}

fn check_paths(template: &Template, at: &str, problems: &mut Problems) {
    for (side, list) in [("inputs", &template.inputs), ("outputs", &template.outputs)] {
        for artifact in &list.artifacts {
            let field = format!("{at}.{side}.artifacts.{}", artifact.name);
            let key = artifact.s3.as_ref().and_then(|s3| s3.get("key")).and_then(Value::as_str);
            for text in [artifact.path.as_deref(), artifact.sub_path.as_deref(), key].into_iter().flatten() {
                if let Some(detail) = paths::climbs(text) {
                    problems.add(field.clone(), detail);
                }
            }
            let leaf = template.container.is_some() || template.script.is_some();
            if leaf && artifact.path.is_none() && side == "outputs" && artifact.from.is_none() {
                problems.add(field, "path must be specified");
            }
        }
        for parameter in &list.parameters {
            let path = parameter.value_from.as_ref().and_then(|from| from.path.as_deref());
            if let Some(detail) = path.and_then(paths::climbs) {
                problems.add(format!("{at}.{side}.parameters.{}", parameter.name), detail);
            }
        }
    }
}

/// Names in a `depends` expression: words that are not results.
pub(crate) fn names_in_depends(text: &str) -> Vec<&str> {
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    text.split(|c: char| !word(c))
        .filter(|part| !part.is_empty())
        .map(|part| part.split('.').next().unwrap_or(part))
        .collect()
}

fn check_graph(dag: &Dag, at: &str, problems: &mut Problems) {
    let mut edges: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (index, task) in dag.tasks.iter().enumerate() {
        let field = format!("{at}.tasks[{index}]");
        if task.depends.is_some() && !task.dependencies.is_empty() {
            problems.add(&field, "cannot use both 'depends' and 'dependencies'");
        }
        let mut needs: Vec<&str> = task.dependencies.iter().map(String::as_str).collect();
        needs.extend(task.depends.as_deref().map(names_in_depends).unwrap_or_default());
        for need in &needs {
            if !dag.tasks.iter().any(|other| other.name == *need) {
                problems.add(&field, format!("dependency '{need}' not defined"));
            }
        }
        edges.insert(&task.name, needs);
    }
    if let Some(cycle) = super::ir::find_cycle(&edges) {
        problems.add(format!("{at}.tasks"), format!("cycle found: {cycle}"));
    }
}

#[cfg(test)]
mod tests {
    use super::super::check;
    use serde_json::{Value, json};

    fn workflow(templates: &Value) -> Value {
        json!({"spec": {"entrypoint": "main", "templates": templates}})
    }

    #[test]
    fn each_mistake_is_named_with_its_field() {
        let leaf = json!({"name": "leaf", "container": {"image": "a", "command": ["true"]}});
        let cases = [
            (json!([]), "spec.entrypoint: template name 'main' undefined"),
            (json!([{"name": "main"}]), "exactly one of container"),
            (
                json!([{"name": "main", "steps": [[{"name": "a", "template": "nope"}]]}]),
                "spec.templates[0].steps[0][0].template: template name 'nope' undefined",
            ),
            (
                json!([{"name": "main", "dag": {"tasks": [
                    {"name": "a", "template": "leaf", "dependencies": ["b"]},
                    {"name": "b", "template": "leaf", "depends": "a.Succeeded"}]}}, leaf]),
                "cycle found: a -> b -> a",
            ),
            (
                json!([{"name": "main", "dag": {"tasks": [
                    {"name": "a", "template": "leaf", "dependencies": ["c"]}]}}, leaf]),
                "dependency 'c' not defined",
            ),
            (
                json!([{"name": "main", "dag": {"tasks": [{"name": "a", "template": "leaf",
                    "arguments": {"parameters": [{"name": "p", "value": "{{tasks.x.outputs.result}}"}]}}]}}, leaf]),
                "failed to resolve {{tasks.x.outputs.result}}",
            ),
            (
                json!([{"name": "main", "container": {"image": "a", "command": ["true"]},
                    "outputs": {"artifacts": [{"name": "m", "path": "/out/../etc/passwd"}]}}]),
                "must not contain '..'",
            ),
            (
                json!([{"name": "main", "resource": {"action": "create"}}]),
                "spec.templates[0].resource: is not supported yet",
            ),
        ];
        for (templates, want) in cases {
            let problems = check("Workflow", &workflow(&templates)).unwrap_err().to_string();
            assert!(problems.contains(want), "{problems:?} lacks {want:?}");
        }
        let good = json!([{"name": "main", "steps": [[{"name": "a", "template": "leaf"}]]}, leaf]);
        assert_eq!(check("Workflow", &workflow(&good)), Ok(()));
    }
}
