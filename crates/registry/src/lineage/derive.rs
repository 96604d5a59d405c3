//! What a Workflow's status says happened, as rows: pure, so that the same status gives the same rows every time.
//!
//! The run's id is the KFP run's (or the Workflow's uid) without dashes; a task attempt's id is a digest of
//! (run uid, node id, attempt). Nothing here depends on when or how often it is asked.

use std::collections::HashMap;

use api::workflow::status::{Artifact, NodeStatus, Outputs, Parameter};
use api::workflow::{Workflow, label};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::run_id_of;

/// The annotation in which the node says what stood in for an image.
pub const STAND_IN_ANNOTATION: &str = "slipway.dev/image-stand-in";
/// Annotations that name the run's experiment; the first that is there counts.
const EXPERIMENT_ANNOTATIONS: [&str; 2] =
    ["slipway.dev/experiment-name", "pipelines.kubeflow.org/experiment-name"];

/// What a pod adds to its node's status.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct PodFacts {
    /// Image of the main container, as the pod asks for it.
    pub image: String,
    /// What ran in its place; empty when the image itself did.
    pub stand_in: String,
}

/// All rows of one Workflow.
#[derive(Debug, Clone, PartialEq)]
pub struct RunRecord {
    /// Id of the MLflow run.
    pub run_id: String,
    /// The Workflow's uid.
    pub workflow_uid: String,
    /// Its Kubernetes namespace.
    pub namespace: String,
    /// Name of the experiment.
    pub experiment: String,
    /// Name of the run.
    pub name: String,
    /// MLflow's status.
    pub status: &'static str,
    /// Milliseconds since 1970.
    pub started: Option<i64>,
    /// Milliseconds since 1970; nothing while it runs.
    pub finished: Option<i64>,
    /// Arguments of the run.
    pub params: Vec<(String, String)>,
    /// Where it came from.
    pub tags: Vec<(String, String)>,
    /// Its pods, one an attempt.
    pub tasks: Vec<TaskRecord>,
}

/// One attempt of one task.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskRecord {
    /// Id of the nested MLflow run.
    pub run_id: String,
    /// Node of the Workflow.
    pub node_id: String,
    /// From 0.
    pub attempt: i64,
    /// Display name.
    pub name: String,
    /// Template or component.
    pub template: String,
    /// Argo's phase.
    pub phase: String,
    /// MLflow's status.
    pub status: &'static str,
    /// Why it is in this phase.
    pub message: String,
    /// Name of the pod.
    pub pod: String,
    /// Image and what stood in for it.
    pub facts: PodFacts,
    /// Whether the outputs came from the cache.
    pub cached: bool,
    /// Milliseconds since 1970.
    pub started: Option<i64>,
    /// Milliseconds since 1970.
    pub finished: Option<i64>,
    /// Inputs, and outputs as `output.<name>`.
    pub params: Vec<(String, String)>,
    /// Numbers in the metadata of `system.Metrics` artifacts.
    pub metrics: Vec<(String, f64)>,
    /// Inputs and outputs.
    pub artifacts: Vec<ArtifactRecord>,
}

/// One artifact of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArtifactRecord {
    /// `INPUT` or `OUTPUT`.
    pub direction: &'static str,
    /// Its name, with its place in a list if it is in one.
    pub name: String,
    /// Where it is.
    pub uri: String,
}

/// The rows of a Workflow; nothing before it has a uid and a status.
pub fn derive(workflow: &Workflow, pods: &HashMap<String, PodFacts>) -> Option<RunRecord> {
    let uid = workflow.metadata.uid.clone()?;
    let status = workflow.status.as_ref()?;
    let kfp = workflow.kfp();
    let labels = workflow.metadata.labels.as_ref();
    let named = kfp.as_ref().map(|run| run.run_id.clone()).filter(|id| !id.is_empty());
    let labelled = labels.and_then(|labels| labels.get(label::RUN_ID).cloned());
    let workflow_name = workflow.metadata.name.clone().unwrap_or_default();
    let display = kfp.as_ref().map(|run| run.display_name.clone()).filter(|name| !name.is_empty());
    let mut tasks: Vec<TaskRecord> =
        status.nodes.values().filter(|node| node.kind == "Pod").map(|node| task(&uid, node, pods)).collect();
    tasks.sort_by(|a, b| (&a.node_id, a.attempt).cmp(&(&b.node_id, b.attempt)));
    Some(RunRecord {
        run_id: run_id_of(&named.or(labelled).unwrap_or_else(|| uid.clone())),
        namespace: workflow.metadata.namespace.clone().unwrap_or_default(),
        experiment: experiment(workflow),
        name: display.unwrap_or_else(|| workflow_name.clone()),
        status: run_status(workflow, &status.phase),
        started: status.started_at.as_deref().and_then(millis),
        finished: status.finished_at.as_deref().and_then(millis),
        params: arguments(workflow),
        tags: tags(workflow, &uid, &workflow_name),
        workflow_uid: uid,
        tasks,
    })
}

/// Name of the experiment: said in an annotation, else the pipeline's, else what the Workflow was made from.
fn experiment(workflow: &Workflow) -> String {
    let annotations = workflow.metadata.annotations.as_ref();
    let said =
        EXPERIMENT_ANNOTATIONS.iter().find_map(|key| annotations.and_then(|all| all.get(*key)).cloned());
    if let Some(name) = said.filter(|name| !name.is_empty()) {
        return name;
    }
    pipeline(workflow)
}

fn pipeline(workflow: &Workflow) -> String {
    if let Some(run) = workflow.kfp() {
        let in_spec =
            run.pipeline_spec.pointer("/pipelineInfo/name").and_then(Value::as_str).unwrap_or_default();
        let name = if run.pipeline_name.is_empty() { in_spec } else { &run.pipeline_name };
        if !name.is_empty() {
            return name.to_owned();
        }
    }
    let template = workflow.spec.pointer("/workflowTemplateRef/name").and_then(Value::as_str);
    let prefix = workflow.metadata.generate_name.as_deref().map(|prefix| prefix.trim_end_matches('-'));
    let name = template.or(prefix.filter(|name| !name.is_empty())).or(workflow.metadata.name.as_deref());
    name.unwrap_or("Default").to_owned()
}

fn run_status(workflow: &Workflow, phase: &str) -> &'static str {
    let stopped = workflow.spec.get("shutdown").and_then(Value::as_str).is_some_and(|text| !text.is_empty());
    match status(phase) {
        "FAILED" if stopped => "KILLED",
        other => other,
    }
}

fn status(phase: &str) -> &'static str {
    match phase {
        "Pending" => "SCHEDULED",
        "Succeeded" | "Skipped" => "FINISHED",
        "Failed" | "Error" => "FAILED",
        "Omitted" => "KILLED",
        _ => "RUNNING",
    }
}

fn arguments(workflow: &Workflow) -> Vec<(String, String)> {
    if let Some(run) = workflow.kfp() {
        return run
            .runtime_config
            .parameters
            .iter()
            .map(|(key, value)| (key.clone(), plain(value)))
            .collect();
    }
    let list = workflow.spec.pointer("/arguments/parameters").and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .filter_map(|param| Some((param.get("name")?.as_str()?.to_owned(), plain(param.get("value")?))))
        .collect()
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn tags(workflow: &Workflow, uid: &str, name: &str) -> Vec<(String, String)> {
    let mut tags = vec![
        ("mlflow.source.type".to_owned(), "JOB".to_owned()),
        ("mlflow.source.name".to_owned(), pipeline(workflow)),
        ("slipway.dev/workflow".to_owned(), name.to_owned()),
        ("slipway.dev/workflow-uid".to_owned(), uid.to_owned()),
        ("slipway.dev/namespace".to_owned(), workflow.metadata.namespace.clone().unwrap_or_default()),
    ];
    if let Some(run) = workflow.kfp() {
        tags.push(("slipway.dev/kfp-run-id".to_owned(), run.run_id));
    }
    tags
}

fn task(uid: &str, node: &NodeStatus, pods: &HashMap<String, PodFacts>) -> TaskRecord {
    let attempt = node.attempt.map(i64::from).or_else(|| attempt_of_name(&node.name)).unwrap_or(0);
    let name = [&node.task_name, &node.display_name, &node.name].into_iter().find(|name| !name.is_empty());
    let mut params = parameters(&node.inputs, "");
    params.extend(parameters(&node.outputs, "output."));
    let mut artifacts = artifacts(&node.inputs, "INPUT");
    artifacts.extend(self::artifacts(&node.outputs, "OUTPUT"));
    TaskRecord {
        run_id: task_run_id(uid, &node.id, attempt),
        node_id: node.id.clone(),
        attempt,
        name: name.cloned().unwrap_or_default(),
        template: node.template_name.clone(),
        phase: node.phase.clone(),
        status: status(&node.phase),
        message: node.message.clone(),
        facts: pods.get(&node.pod_name).cloned().unwrap_or_default(),
        pod: node.pod_name.clone(),
        cached: node.memoization_status.as_ref().is_some_and(|memo| memo.hit),
        started: node.started_at.as_deref().and_then(millis),
        finished: node.finished_at.as_deref().and_then(millis),
        params,
        metrics: node.outputs.artifacts.iter().flat_map(metrics).collect(),
        artifacts,
    }
}

/// Argo names attempts `task(0)`, `task(1)`.
fn attempt_of_name(name: &str) -> Option<i64> {
    let (_, rest) = name.rsplit_once('(')?;
    rest.strip_suffix(')')?.parse().ok()
}

/// 32 hex digits from the key of the row.
fn task_run_id(uid: &str, node_id: &str, attempt: i64) -> String {
    let digest = Sha256::digest(format!("{uid}\n{node_id}\n{attempt}"));
    hex::encode(&digest[..16])
}

fn parameters(side: &Outputs, prefix: &str) -> Vec<(String, String)> {
    let given = |param: &Parameter| Some((format!("{prefix}{}", param.name), param.value.clone()?));
    side.parameters.iter().filter_map(given).collect()
}

fn artifacts(side: &Outputs, direction: &'static str) -> Vec<ArtifactRecord> {
    let record = |artifact: &Artifact| {
        let uri = match (&artifact.uri, &artifact.s3) {
            (uri, _) if !uri.is_empty() => uri.clone(),
            (_, Some(s3)) => format!("minio://{}/{}", s3.bucket, s3.key),
            _ => return None,
        };
        let name = match artifact.index.unwrap_or(0) {
            0 => artifact.name.clone(),
            index => format!("{}[{index}]", artifact.name),
        };
        Some(ArtifactRecord { direction, name, uri })
    };
    side.artifacts.iter().filter_map(record).collect()
}

fn metrics(artifact: &Artifact) -> Vec<(String, f64)> {
    let numbers = artifact.metadata.as_ref().filter(|_| artifact.kind == "system.Metrics");
    let fields = numbers.and_then(Value::as_object).into_iter().flatten();
    fields.filter_map(|(key, value)| Some((key.clone(), value.as_f64()?))).collect()
}

fn millis(time: &str) -> Option<i64> {
    time.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn workflow() -> Workflow {
        serde_json::from_value(json!({
            "metadata": {"name": "iris-abc", "namespace": "team", "uid": "11111111-2222-3333-4444-555555555555"},
            "spec": {"kfp": {
                "runId": "0b5d4e1c-7c1f-4f8e-9d5e-111122223333",
                "displayName": "iris-run-001",
                "pipelineSpec": {"pipelineInfo": {"name": "iris-classification-pipeline"}},
                "runtimeConfig": {"parameters": {"name": "iris", "depth": 3}},
            }},
            "status": {"phase": "Succeeded", "startedAt": "2026-01-02T03:04:05Z", "finishedAt": "2026-01-02T03:04:06Z", "nodes": {
                "iris-abc": {"id": "iris-abc", "name": "iris-abc", "type": "DAG", "phase": "Succeeded"},
                "n1": {"id": "n1", "name": "iris-abc.train(1)", "displayName": "train", "type": "Pod", "phase": "Succeeded", "podName": "p1",
                    "outputs": {
                        "parameters": [{"name": "n", "value": "7"}, {"name": "never"}],
                        "artifacts": [
                            {"name": "model", "uri": "minio://mlpipeline/k/model"},
                            {"name": "m", "type": "system.Metrics", "metadata": {"accuracy": 0.9, "note": "x"}, "s3": {"bucket": "b", "key": "k"}},
                        ],
                    }},
            }},
        }))
        .unwrap()
    }

    #[test]
    fn a_kfp_run_is_derived_with_its_tasks() {
        let facts = PodFacts { image: "python:3.9-slim".into(), stand_in: "host python 3.11".into() };
        let record = derive(&workflow(), &HashMap::from([("p1".to_owned(), facts.clone())])).unwrap();
        assert_eq!(record.run_id, "0b5d4e1c7c1f4f8e9d5e111122223333");
        assert_eq!(record.experiment, "iris-classification-pipeline");
        assert_eq!((record.name.as_str(), record.status), ("iris-run-001", "FINISHED"));
        assert_eq!(record.finished.unwrap() - record.started.unwrap(), 1000);
        assert!(record.params.contains(&("depth".into(), "3".into())));
        let [task] = &record.tasks[..] else { panic!("one pod") };
        assert_eq!((task.attempt, &task.facts), (1, &facts));
        assert_eq!(task.params, [("output.n".to_owned(), "7".to_owned())]);
        assert_eq!(task.metrics, [("accuracy".to_owned(), 0.9)]);
        assert_eq!(task.artifacts[0].uri, "minio://mlpipeline/k/model");
        assert_eq!(task.artifacts[1].uri, "minio://b/k");
    }

    #[test]
    fn deriving_again_gives_the_same_rows() {
        assert_eq!(derive(&workflow(), &HashMap::new()), derive(&workflow(), &HashMap::new()));
    }

    #[test]
    fn attempts_of_a_task_are_different_runs() {
        assert_ne!(task_run_id("u", "n", 0), task_run_id("u", "n", 1));
        assert_eq!(task_run_id("u", "n", 0).len(), 32);
    }

    #[test]
    fn an_argo_workflow_is_named_by_what_it_was_made_from() {
        let mut given = workflow();
        given.spec = json!({"workflowTemplateRef": {"name": "train"}, "arguments": {"parameters": [{"name": "a", "value": 5}]}});
        let record = derive(&given, &HashMap::new()).unwrap();
        assert_eq!(record.experiment, "train");
        assert_eq!(record.run_id, "11111111222233334444555555555555");
        assert_eq!(record.params, [("a".to_owned(), "5".to_owned())]);
    }

    #[test]
    fn a_workflow_without_status_has_no_rows() {
        let mut given = workflow();
        given.status = None;
        assert!(derive(&given, &HashMap::new()).is_none());
    }
}
