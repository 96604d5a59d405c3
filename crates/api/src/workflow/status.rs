//! `Workflow.status` with Argo's names: what `kubectl get wf`, the `argo` CLI and Hera read.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The status of a workflow: a projection of the engine's state.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkflowStatus {
    /// `Pending`, `Running`, `Succeeded`, `Failed`, `Error`; empty before the start.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub phase: String,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// RFC 3339; absent while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<String>,
    /// `N/M` pods done.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub progress: String,
    /// Why it is in this phase. Empty is written as `null`: a merge patch then takes the old one away.
    #[serde(with = "nullable")]
    pub message: String,
    /// Nodes by id.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub nodes: BTreeMap<String, NodeStatus>,
    /// `Completed`, `PodRunning`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Global outputs.
    #[serde(skip_serializing_if = "Outputs::is_empty")]
    pub outputs: Outputs,
    /// The spec that runs, when it came from a `workflowTemplateRef`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stored_workflow_template_spec: Option<Value>,
    /// Where artifacts of the run are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact_repository_ref: Option<Value>,
    /// Nodes that did not fit here; the whole is in the journal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes_omitted: Option<u64>,
}

/// One condition.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    /// `Completed` or `PodRunning`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True` or `False`.
    pub status: String,
}

/// One node, as Argo's `NodeStatus`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeStatus {
    /// The id: workflow name, or `<workflow>-<FNV-1a 32 of the name>`.
    pub id: String,
    /// The full name.
    pub name: String,
    /// The short name.
    pub display_name: String,
    /// `Pod`, `Steps`, `StepGroup`, `DAG`, `TaskGroup`, `Retry`, `Skipped`, `Suspend`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Template (KFP: component) of the node.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub template_name: String,
    /// `local/` and the workflow's name, or the template's.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub template_scope: String,
    /// `Pending`, `Running`, `Succeeded`, `Skipped`, `Failed`, `Error`, `Omitted`.
    pub phase: String,
    /// Id of the node whose template this one is part of.
    #[serde(rename = "boundaryID", skip_serializing_if = "String::is_empty")]
    pub boundary_id: String,
    /// Why it is in this phase. Empty is written as `null`: a merge patch then takes the old one away.
    #[serde(with = "nullable")]
    pub message: String,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<String>,
    /// `N/M` pods done below and including it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub progress: String,
    /// What went in.
    #[serde(skip_serializing_if = "Outputs::is_empty")]
    pub inputs: Outputs,
    /// What came out.
    #[serde(skip_serializing_if = "Outputs::is_empty")]
    pub outputs: Outputs,
    /// Ids of the nodes that follow or are contained, as Argo draws them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<String>,
    /// Ids of the last nodes inside a group.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub outbound_nodes: Vec<String>,
    /// Name of the machine that ran the pod.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub host_node_name: String,
    /// Ours: name of the pod (upstream's is computed by clients from node and template name).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pod_name: String,
    /// Ours: attempt number of the pod, from 0; with run uid and node id the key of lineage rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// Ours, KFP: the cache key of the task, and whether it was a hit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memoization_status: Option<Memoization>,
    /// Ours, KFP: name of the task in its dag.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub task_name: String,
    /// Set when the node is a hook or an attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_flag: Option<NodeFlag>,
    /// Position in a loop, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iteration: Option<u32>,
}

/// Argo's memoizationStatus; KFP's cache speaks through it too.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Memoization {
    /// Whether the outputs came from the cache.
    pub hit: bool,
    /// The fingerprint.
    pub key: String,
    /// Scope of the cache.
    pub cache_name: String,
}

/// Argo's nodeFlag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeFlag {
    /// A lifecycle hook (`onExit` too).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub hooked: bool,
    /// One attempt of a Retry node.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub retried: bool,
}

/// Inputs or outputs of a node.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Outputs {
    /// Parameters.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<Parameter>,
    /// Artifacts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<Artifact>,
    /// Standard output of a script or container, when something reads it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// Exit code of the main container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<String>,
}

impl Outputs {
    /// Nothing in it.
    pub fn is_empty(&self) -> bool {
        self.parameters.is_empty()
            && self.artifacts.is_empty()
            && self.result.is_none()
            && self.exit_code.is_none()
    }
}

/// A parameter with its value as text.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// Its value; absent for an output that never came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// KFP: its type, e.g. `NUMBER_INTEGER`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub parameter_type: String,
}

/// An artifact and where it is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Artifact {
    /// Its name.
    pub name: String,
    /// Path in the container.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// Where it is: `s3.bucket` and `s3.key`, as Argo says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Location>,
    /// How it is packed, Argo's words: `{none: {}}` or `{tar: {}}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archive: Option<Value>,
    /// Ours: the URI, e.g. `minio://mlpipeline/team/...`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uri: String,
    /// KFP: schema title, e.g. `system.Model`.
    #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// KFP: metadata that the component set (metrics are here).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Value>,
    /// Ours: bytes in the store, when known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Ours: SHA-256 of a single file.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sha256: String,
    /// KFP: position in a list of artifacts under one name, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<u32>,
}

/// A place in a bucket.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct S3Location {
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: String,
}

/// Text whose emptiness must reach a merge patch.
mod nullable {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
        if text.is_empty() { serializer.serialize_none() } else { serializer.serialize_str(text) }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
        Ok(Option::<String>::deserialize(deserializer)?.unwrap_or_default())
    }
}
