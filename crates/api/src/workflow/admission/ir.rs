//! KFP runs: a spec that is a pipeline, components that exist, graphs without cycles, parameters that fit.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Problems, paths};
use crate::workflow::KfpRun;
use crate::workflow::ir::{Component, Dag, ParameterDefinition, PipelineSpec};

/// `spec.kfp` of a Workflow.
pub(super) fn check_run(run: &Value, at: &str) -> Result<(), Problems> {
    let mut problems = Problems::default();
    let typed = match KfpRun::deserialize(run) {
        Ok(typed) => typed,
        Err(error) => {
            problems.add(format!("{at}.kfp"), error.to_string());
            return Err(problems);
        }
    };
    let field = format!("{at}.kfp");
    if paths::bad_name(&typed.run_id).is_some() {
        problems.add(format!("{field}.runId"), "must be the run's id");
    }
    if let Some(detail) = typed.runtime_config.pipeline_root.as_deref().and_then(paths::climbs) {
        problems.add(format!("{field}.runtimeConfig.pipelineRoot"), detail);
    }
    let spec = match check_pipeline(&typed.pipeline_spec, &format!("{field}.pipelineSpec")) {
        Ok(spec) => spec,
        Err(more) => {
            problems.0.extend(more.0);
            return Err(problems);
        }
    };
    check_parameters(&spec.root, &typed.runtime_config.parameters, &field, &mut problems);
    problems.into_result()
}

/// Checks that a document is a pipeline that can run, and returns it typed.
///
/// The KFP face calls this at upload and at run creation, so that no broken pipeline is stored.
pub fn check_pipeline(document: &Value, at: &str) -> Result<PipelineSpec, Problems> {
    let mut problems = Problems::default();
    let Some(fields) = document.as_object() else {
        problems.add(at, "is not a pipeline: a mapping with pipelineInfo, root and components was expected");
        return Err(problems);
    };
    for needed in ["pipelineInfo", "root"] {
        if !fields.contains_key(needed) {
            problems.add(at, format!("is not a compiled KFP v2 pipeline: it has no '{needed}'"));
        }
    }
    if !problems.0.is_empty() {
        return Err(problems);
    }
    let spec = match PipelineSpec::deserialize(document) {
        Ok(spec) => spec,
        Err(error) => {
            problems.add(at, format!("is not a valid PipelineSpec: {error}"));
            return Err(problems);
        }
    };
    check_name(&spec.pipeline_info.name, at, &mut problems);
    if spec.root.dag.is_none() {
        problems.add(format!("{at}.root"), "must be a dag");
    }
    check_component(&spec, "root", &spec.root, &format!("{at}.root"), &mut problems);
    for (name, component) in &spec.components {
        check_component(&spec, name, component, &format!("{at}.components.{name}"), &mut problems);
    }
    check_nesting(&spec, at, &mut problems);
    problems.into_result().map(|()| spec)
}

fn check_name(name: &str, at: &str, problems: &mut Problems) {
    let legal = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    let starts = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if !legal || !starts || name.len() > 128 {
        problems.add(
            format!("{at}.pipelineInfo.name"),
            format!(
                "{name:?} must be 1 to 128 lower case letters, digits and '-', and begin with a letter or digit"
            ),
        );
    }
}

fn check_component(
    spec: &PipelineSpec,
    name: &str,
    component: &Component,
    at: &str,
    problems: &mut Problems,
) {
    let outputs = component.output_definitions.artifacts.keys();
    for key in outputs.chain(component.output_definitions.parameters.keys()) {
        if let Some(detail) = paths::bad_name(key) {
            problems.add(format!("{at}.outputDefinitions"), detail);
        }
    }
    match (&component.dag, &component.executor_label) {
        (Some(dag), _) => check_dag(spec, dag, component, at, problems),
        (None, Some(label)) => match spec.deployment_spec.executors.get(label) {
            None => problems.add(
                format!("{at}.executorLabel"),
                format!("executor '{label}' of component '{name}' is not in deploymentSpec.executors"),
            ),
            Some(executor) if executor.container.is_none() && executor.importer.is_none() => problems.add(
                format!("{at}.executorLabel"),
                format!(
                    "executor '{label}' is neither a container nor an importer; others are not supported"
                ),
            ),
            Some(_) => {}
        },
        (None, None) => {
            problems.add(at, format!("component '{name}' has neither a dag nor an executorLabel"))
        }
    }
}

fn check_dag(spec: &PipelineSpec, dag: &Dag, component: &Component, at: &str, problems: &mut Problems) {
    let mut edges: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, task) in &dag.tasks {
        let field = format!("{at}.dag.tasks.{name}");
        if let Some(detail) = paths::bad_name(name) {
            problems.add(&field, detail);
        }
        let used = &task.component_ref.name;
        if !spec.components.contains_key(used) {
            problems.add(
                format!("{field}.componentRef.name"),
                format!("component '{used}' is not defined in components"),
            );
        }
        let mut needs: BTreeSet<&str> = task.dependent_tasks.iter().map(String::as_str).collect();
        for (input, source) in &task.inputs.parameters {
            needs.extend(source.task_output_parameter.iter().map(|from| from.producer_task.as_str()));
            if let Some(from) = &source.component_input_parameter
                && !component.input_definitions.parameters.contains_key(from)
                && !loops_over(task, from)
            {
                problems.add(
                    format!("{field}.inputs.parameters.{input}"),
                    format!("'{from}' is not an input parameter of the dag"),
                );
            }
        }
        for source in task.inputs.artifacts.values() {
            needs.extend(source.task_output_artifact.iter().map(|from| from.producer_task.as_str()));
        }
        for need in &needs {
            if !dag.tasks.contains_key(*need) {
                problems.add(&field, format!("depends on task '{need}', which is not in the dag"));
            }
        }
        edges.insert(name, needs.into_iter().collect());
    }
    if let Some(cycle) = find_cycle(&edges) {
        problems.add(format!("{at}.dag"), format!("tasks depend on each other in a cycle: {cycle}"));
    }
}

fn loops_over(task: &crate::workflow::ir::Task, name: &str) -> bool {
    task.parameter_iterator.as_ref().is_some_and(|iterator| iterator.item_input == name)
}

/// A component that contains itself would never end.
fn check_nesting(spec: &PipelineSpec, at: &str, problems: &mut Problems) {
    let mut edges: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, component) in &spec.components {
        let tasks = component.dag.iter().flat_map(|dag| dag.tasks.values());
        edges.insert(name, tasks.map(|task| task.component_ref.name.as_str()).collect());
    }
    if let Some(cycle) = find_cycle(&edges) {
        problems
            .add(format!("{at}.components"), format!("components contain each other in a cycle: {cycle}"));
    }
}

/// A cycle among the edges, as `a -> b -> a`; without recursion, so that depth cannot hurt.
pub(super) fn find_cycle(edges: &BTreeMap<&str, Vec<&str>>) -> Option<String> {
    let mut done: BTreeSet<&str> = BTreeSet::new();
    for start in edges.keys() {
        let mut path: Vec<(&str, usize)> = vec![(start, 0)];
        let mut on_path: BTreeSet<&str> = BTreeSet::from([*start]);
        while let Some((node, next)) = path.last().copied() {
            let following = edges.get(node).and_then(|list| list.get(next)).copied();
            let Some(following) = following else {
                path.pop();
                on_path.remove(node);
                done.insert(node);
                continue;
            };
            path.last_mut().expect("the path is not empty here").1 += 1;
            if on_path.contains(following) {
                let from = path.iter().position(|(name, _)| *name == following).unwrap_or(0);
                let mut names: Vec<&str> = path[from..].iter().map(|(name, _)| *name).collect();
                names.push(following);
                return Some(names.join(" -> "));
            }
            if !done.contains(following) && edges.contains_key(following) {
                path.push((following, 0));
                on_path.insert(following);
            }
        }
    }
    None
}

fn check_parameters(root: &Component, given: &Map<String, Value>, at: &str, problems: &mut Problems) {
    let declared = &root.input_definitions.parameters;
    for (name, value) in given {
        let field = format!("{at}.runtimeConfig.parameters.{name}");
        match declared.get(name) {
            None => problems.add(field, format!("parameter '{name}' is not an input of the pipeline")),
            Some(definition) => {
                if let Some(detail) = misfit(definition, value) {
                    problems.add(field, detail);
                }
            }
        }
    }
    for (name, definition) in declared {
        if !given.contains_key(name) && definition.default_value.is_none() && !definition.is_optional {
            problems.add(
                format!("{at}.runtimeConfig.parameters"),
                format!("parameter '{name}' of type {} is required", definition.kind()),
            );
        }
    }
}

/// Why a value does not fit a parameter's type; `None` when it does.
pub fn misfit(definition: &ParameterDefinition, value: &Value) -> Option<String> {
    if value.is_null() && definition.is_optional {
        return None;
    }
    let kind = definition.kind();
    let fits = match kind {
        "NUMBER_INTEGER" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "NUMBER_DOUBLE" => value.is_number(),
        "STRING" => value.is_string(),
        "BOOLEAN" => value.is_boolean(),
        "LIST" => value.is_array(),
        "STRUCT" | "TASK_FINAL_STATUS" | "TASK_CONFIG" => value.is_object(),
        _ => true,
    };
    if !fits {
        return Some(format!("{value} is not of type {kind}"));
    }
    let literal = definition.literals.is_empty() || definition.literals.contains(value);
    (!literal).then(|| {
        let allowed: Vec<String> = definition.literals.iter().map(Value::to_string).collect();
        format!("{value} is not one of {}", allowed.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::super::check;
    use super::*;
    use serde_json::json;

    fn pipeline(tasks: &Value) -> Value {
        json!({
            "pipelineInfo": {"name": "p"},
            "root": {"dag": {"tasks": tasks}, "inputDefinitions": {"parameters": {
                "n": {"parameterType": "NUMBER_INTEGER"}}}},
            "components": {"c": {"executorLabel": "e"}},
            "deploymentSpec": {"executors": {"e": {"container": {"image": "a", "command": ["true"]}}}},
        })
    }

    fn run(spec: &Value, parameters: &Value) -> Value {
        json!({"spec": {"kfp": {"runId": "r", "pipelineSpec": spec,
            "runtimeConfig": {"parameters": parameters}}}})
    }

    #[test]
    fn each_mistake_is_named() {
        let good = pipeline(&json!({"a": {"componentRef": {"name": "c"}}}));
        let cases = [
            (run(&json!("text"), &json!({})), "is not a pipeline"),
            (run(&json!({"a": 1}), &json!({})), "not a compiled KFP v2 pipeline: it has no 'pipelineInfo'"),
            (
                run(&pipeline(&json!({"a": {"componentRef": {"name": "nope"}}})), &json!({"n": 1})),
                "component 'nope' is not defined",
            ),
            (
                run(
                    &pipeline(&json!({
                        "a": {"componentRef": {"name": "c"}, "dependentTasks": ["b"]},
                        "b": {"componentRef": {"name": "c"}, "dependentTasks": ["a"]}})),
                    &json!({"n": 1}),
                ),
                "cycle: a -> b -> a",
            ),
            (run(&good, &json!({})), "parameter 'n' of type NUMBER_INTEGER is required"),
            (run(&good, &json!({"n": "1"})), "\"1\" is not of type NUMBER_INTEGER"),
            (run(&good, &json!({"n": 1, "m": 1})), "parameter 'm' is not an input"),
        ];
        for (object, want) in cases {
            let problems = check("Workflow", &object).unwrap_err().to_string();
            assert!(problems.contains(want), "{problems:?} lacks {want:?}");
        }
        assert_eq!(check("Workflow", &run(&good, &json!({"n": 1.0}))), Ok(()));
    }
}
