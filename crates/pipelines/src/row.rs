//! A run as its Workflow tells it: pure.
//!
//! The Workflow is the truth of a run's state. The row beside it serves lists, and outlives a deleted Workflow. It is
//! derived, never edited: the same Workflow gives the same row, so events may come twice or be lost.

use std::collections::BTreeMap;

use api::workflow::{KfpRun, NodeStatus, Workflow};
use serde_json::{Value, json};

use crate::package::Package;
use crate::wire;

/// Annotation with the run's description, which nothing but this API knows.
pub(crate) const DESCRIPTION: &str = "pipelines.kubeflow.org/description";
/// Most tasks shown of one run.
const TASKS_MAX: usize = 5_000;

/// What a Workflow says about its run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Derived {
    pub(crate) run: KfpRun,
    pub(crate) namespace: String,
    pub(crate) workflow: String,
    pub(crate) workflow_uid: String,
    pub(crate) description: String,
    pub(crate) service_account: String,
    pub(crate) created_at: i64,
    pub(crate) scheduled_at: i64,
    pub(crate) finished_at: i64,
    pub(crate) state: &'static str,
    pub(crate) error: String,
    pub(crate) task_details: Value,
}

/// Whether a state is a run's last.
pub(crate) fn is_final(state: &str) -> bool {
    matches!(state, "SUCCEEDED" | "FAILED" | "SKIPPED" | "CANCELED")
}

/// The run of a Workflow; none when it is not one of KFP's.
pub(crate) fn derive(workflow: &Workflow) -> Option<Derived> {
    let run = workflow.kfp()?;
    let id = uuid::Uuid::parse_str(&run.run_id).ok()?;
    let metadata = &workflow.metadata;
    let created = metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_microsecond());
    let created_at = Some(wire::micros(&run.created_at)).filter(|at| *at != 0).unwrap_or(created);
    let scheduled_at = Some(wire::micros(&run.scheduled_at)).filter(|at| *at != 0).unwrap_or(created_at);
    let status = workflow.status.clone().unwrap_or_default();
    let stopping = workflow.spec["shutdown"].as_str().is_some_and(|how| !how.is_empty())
        || workflow.spec["activeDeadlineSeconds"].as_i64() == Some(0);
    let state = run_state(&status.phase, stopping);
    let finished = status.finished_at.as_deref().map_or(0, wire::micros);
    let run_id = id.to_string();
    Some(Derived {
        namespace: metadata.namespace.clone().unwrap_or_default(),
        workflow: metadata.name.clone().unwrap_or_default(),
        workflow_uid: metadata.uid.clone().unwrap_or_default(),
        description: metadata
            .annotations
            .as_ref()
            .and_then(|a| a.get(DESCRIPTION))
            .cloned()
            .unwrap_or_default(),
        service_account: workflow.spec["serviceAccountName"].as_str().unwrap_or_default().to_owned(),
        created_at,
        scheduled_at,
        // Argo's times are whole seconds: a run must not end before it was created.
        finished_at: if is_final(state) { finished.max(created_at) } else { 0 },
        state,
        error: if state == "FAILED" { status.message.clone() } else { String::new() },
        task_details: task_details(&run_id, &status.nodes),
        run: KfpRun { run_id, ..run },
    })
}

fn run_state(phase: &str, stopping: bool) -> &'static str {
    match phase {
        "Succeeded" => "SUCCEEDED",
        // A terminated run ends FAILED as upstream: older clients wait for ever on CANCELED.
        "Failed" | "Error" => "FAILED",
        _ if stopping => "CANCELING",
        "Running" => "RUNNING",
        _ => "PENDING",
    }
}

fn node_state(phase: &str) -> &'static str {
    match phase {
        "Succeeded" => "SUCCEEDED",
        "Failed" | "Error" => "FAILED",
        "Skipped" | "Omitted" => "SKIPPED",
        "Running" => "RUNNING",
        _ => "PENDING",
    }
}

/// The nodes as `PipelineTaskDetail`s, in the order they started.
fn task_details(run_id: &str, nodes: &BTreeMap<String, NodeStatus>) -> Value {
    let mut ordered: Vec<&NodeStatus> = nodes.values().collect();
    ordered.sort_by(|a, b| (&a.started_at, &a.id).cmp(&(&b.started_at, &b.id)));
    let details = ordered.into_iter().take(TASKS_MAX).map(|node| task_detail(run_id, node));
    Value::Array(details.collect())
}

fn task_detail(run_id: &str, node: &NodeStatus) -> Value {
    let state = node_state(&node.phase);
    let time = |at: &Option<String>| at.as_deref().map(|at| wire::time(wire::micros(at))).unwrap_or_default();
    let children: Vec<_> = node.children.iter().map(|id| json!({ "pod_name": id })).collect();
    let error = match state {
        "FAILED" if !node.message.is_empty() => json!({ "code": 2, "message": node.message, "details": [] }),
        _ => Value::Null,
    };
    wire::without_zeros(json!({
        "run_id": run_id,
        "task_id": node.id,
        "display_name": node.display_name,
        "create_time": time(&node.started_at),
        "start_time": time(&node.started_at),
        "end_time": time(&node.finished_at),
        "state": state,
        "error": error,
        "parent_task_id": node.boundary_id,
        "child_tasks": children,
    }))
}

impl Derived {
    /// `pipeline_spec` of the API; empty for a run of an uploaded version, which is referred to instead.
    pub(crate) fn spec_column(&self) -> String {
        if !self.run.pipeline_version_id.is_empty() {
            return String::new();
        }
        let package = Package {
            pipeline_spec: self.run.pipeline_spec.clone(),
            platform_spec: self.run.platform_spec.clone(),
        };
        package.to_api().to_string()
    }

    /// `runtime_config` of the API.
    pub(crate) fn runtime_config_column(&self) -> String {
        wire::without_zeros(json!({
            "parameters": self.run.runtime_config.parameters,
            "pipeline_root": self.run.runtime_config.pipeline_root,
        }))
        .to_string()
    }
}

/// The history with `state` added when it is a new one.
pub(crate) fn with_state(history: Value, state: &str, now: i64) -> Value {
    let mut entries = match history {
        Value::Array(entries) => entries,
        _ => Vec::new(),
    };
    if entries.last().and_then(|last| last["state"].as_str()) != Some(state) {
        entries.push(json!({ "update_time": wire::time(now), "state": state }));
    }
    Value::Array(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "11111111-2222-4333-8444-555555555555";

    fn workflow(status: Value, spec: Value) -> Workflow {
        let mut object = json!({
            "metadata": {"name": "hello-abcde", "namespace": "team", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"kfp": {"runId": ID, "displayName": "d", "pipelineSpec": {}}},
            "status": status,
        });
        for (key, value) in spec.as_object().unwrap() {
            object["spec"][key] = value.clone();
        }
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn the_phase_becomes_the_state() {
        for (phase, spec, state) in [
            ("", json!({}), "PENDING"),
            ("Running", json!({}), "RUNNING"),
            ("Running", json!({"shutdown": "Terminate"}), "CANCELING"),
            ("Failed", json!({"shutdown": "Terminate"}), "FAILED"),
            ("Succeeded", json!({}), "SUCCEEDED"),
            ("Error", json!({}), "FAILED"),
        ] {
            let status = json!({"phase": phase, "finishedAt": "2026-01-01T00:00:05Z", "message": "m"});
            let derived = derive(&workflow(status, spec)).unwrap();
            assert_eq!(derived.state, state);
            assert_eq!(derived.finished_at != 0, is_final(state));
            assert_eq!(derived.error.is_empty(), state != "FAILED");
        }
    }

    #[test]
    fn nodes_become_tasks_and_states_are_remembered_once() {
        let nodes = json!({
            "hello-abcde": {"id": "hello-abcde", "displayName": "root", "phase": "Running", "startedAt": "2026-01-01T00:00:01Z", "children": ["n2"]},
            "n2": {"id": "n2", "displayName": "say", "phase": "Failed", "message": "exit 1", "boundaryID": "hello-abcde",
                   "startedAt": "2026-01-01T00:00:02Z", "finishedAt": "2026-01-01T00:00:03Z"},
        });
        let derived = derive(&workflow(json!({"phase": "Running", "nodes": nodes}), json!({}))).unwrap();
        let tasks = derived.task_details.as_array().unwrap();
        assert_eq!(tasks[0]["child_tasks"][0]["pod_name"], "n2");
        assert_eq!((&tasks[1]["state"], &tasks[1]["error"]["message"]), (&json!("FAILED"), &json!("exit 1")));
        assert!(tasks[0].get("end_time").is_none());
        let history =
            with_state(with_state(with_state(Value::Null, "RUNNING", 1), "RUNNING", 2), "SUCCEEDED", 3);
        assert_eq!(history.as_array().unwrap().len(), 2);
    }
}
