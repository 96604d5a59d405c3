//! Argo's workflow spec, typed as deep as the engine decides anything from it.
//!
//! Containers, volumes, affinities and such stay JSON and go to the pod as they are. Features that
//! the engine does not have yet are fields too, so that admission can name them instead of dropping them.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// Text in YAML that may be written as a number or boolean (`value: 1`); kept as text.
#[derive(Debug, Clone, PartialEq, Eq, Default, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Text(pub String);

impl Text {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Value::deserialize(deserializer)? {
            Value::String(text) => Self(text),
            Value::Null => Self(String::new()),
            other => Self(other.to_string()),
        })
    }
}

/// Spec of a Workflow or (without the run-time switches) of a WorkflowTemplate.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "Argo's own names: see its field reference")]
pub struct WorkflowSpec {
    pub kfp: Option<super::KfpRun>,
    pub entrypoint: Option<String>,
    pub arguments: Arguments,
    pub templates: Vec<Template>,
    pub template_defaults: Option<Value>,
    pub on_exit: Option<String>,
    pub hooks: BTreeMap<String, Hook>,
    pub volumes: Vec<Value>,
    pub volume_claim_templates: Vec<Value>,
    #[serde(rename = "volumeClaimGC")]
    pub volume_claim_gc: Option<Value>,
    pub parallelism: Option<u32>,
    pub active_deadline_seconds: Option<i64>,
    pub suspend: Option<bool>,
    pub shutdown: Option<String>,
    #[serde(rename = "podGC")]
    pub pod_gc: Option<PodGc>,
    pub ttl_strategy: Option<TtlStrategy>,
    pub service_account_name: Option<String>,
    pub node_selector: Option<Value>,
    pub tolerations: Option<Value>,
    pub affinity: Option<Value>,
    pub image_pull_secrets: Option<Value>,
    pub security_context: Option<Value>,
    pub host_network: Option<bool>,
    pub dns_policy: Option<String>,
    pub dns_config: Option<Value>,
    pub host_aliases: Option<Value>,
    pub scheduler_name: Option<String>,
    pub pod_priority_class_name: Option<String>,
    pub automount_service_account_token: Option<bool>,
    pub workflow_template_ref: Option<WorkflowTemplateRef>,
    pub pod_metadata: Option<Metadata>,
    pub workflow_metadata: Option<Metadata>,
    pub retry_strategy: Option<RetryStrategy>,
    pub archive_logs: Option<bool>,
    pub priority: Option<i64>,
    pub pod_spec_patch: Option<String>,
    pub synchronization: Option<Value>,
    pub metrics: Option<Value>,
    #[serde(rename = "artifactGC")]
    pub artifact_gc: Option<Value>,
    pub artifact_repository_ref: Option<Value>,
    pub pod_disruption_budget: Option<Value>,
    pub executor: Option<Value>,
}

/// `workflowTemplateRef`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "Argo's own names")]
pub struct WorkflowTemplateRef {
    pub name: String,
    pub cluster_scope: bool,
}

/// `templateRef` of a step or task.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "Argo's own names")]
pub struct TemplateRef {
    pub name: String,
    pub template: String,
    pub cluster_scope: bool,
}

/// Labels and annotations.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "Argo's own names")]
pub struct Metadata {
    pub labels: BTreeMap<String, Text>,
    pub annotations: BTreeMap<String, Text>,
}

/// When pods are removed.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "Argo's own names")]
pub struct PodGc {
    pub strategy: String,
    pub delete_delay_duration: Option<Text>,
    pub label_selector: Option<Value>,
}

/// When the finished workflow is removed.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "Argo's own names")]
pub struct TtlStrategy {
    pub seconds_after_completion: Option<i64>,
    pub seconds_after_success: Option<i64>,
    pub seconds_after_failure: Option<i64>,
}

/// Parameters and artifacts by name; inputs, outputs and arguments share the form.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "Argo's own names")]
pub struct Arguments {
    pub parameters: Vec<Parameter>,
    pub artifacts: Vec<Artifact>,
}

/// A parameter.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "Argo's own names")]
pub struct Parameter {
    pub name: String,
    pub value: Option<Text>,
    pub default: Option<Text>,
    #[serde(rename = "enum")]
    pub allowed: Vec<Text>,
    pub description: Option<Text>,
    pub global_name: Option<String>,
    pub value_from: Option<ValueFrom>,
}

/// Where a parameter's value comes from.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "Argo's own names")]
pub struct ValueFrom {
    pub path: Option<String>,
    pub json_path: Option<String>,
    pub jq_filter: Option<String>,
    pub parameter: Option<String>,
    pub expression: Option<String>,
    pub supplied: Option<Value>,
    pub event: Option<String>,
    pub config_map_key_ref: Option<Value>,
    pub default: Option<Text>,
}

/// An artifact of a template or argument.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "Argo's own names")]
pub struct Artifact {
    pub name: String,
    pub path: Option<String>,
    pub mode: Option<u32>,
    pub from: Option<String>,
    pub from_expression: Option<String>,
    pub sub_path: Option<String>,
    pub optional: bool,
    pub global_name: Option<String>,
    pub archive: Option<Value>,
    pub archive_logs: Option<bool>,
    pub s3: Option<Value>,
    pub gcs: Option<Value>,
    pub oss: Option<Value>,
    pub azure: Option<Value>,
    pub git: Option<Value>,
    pub hdfs: Option<Value>,
    pub http: Option<Value>,
    pub artifactory: Option<Value>,
    pub raw: Option<RawArtifact>,
}

/// An artifact whose bytes are in the spec.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "Argo's own names")]
pub struct RawArtifact {
    pub data: String,
}

/// A template.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "Argo's own names: see its field reference")]
pub struct Template {
    pub name: String,
    pub inputs: Arguments,
    pub outputs: Arguments,
    pub container: Option<Value>,
    pub script: Option<Value>,
    pub steps: Option<Vec<Vec<Task>>>,
    pub dag: Option<Dag>,
    pub suspend: Option<Suspend>,
    pub resource: Option<Value>,
    pub container_set: Option<Value>,
    pub http: Option<Value>,
    pub plugin: Option<Value>,
    pub data: Option<Value>,
    pub retry_strategy: Option<RetryStrategy>,
    pub parallelism: Option<u32>,
    pub fail_fast: Option<bool>,
    pub active_deadline_seconds: Option<Text>,
    pub timeout: Option<Text>,
    pub daemon: Option<bool>,
    pub memoize: Option<Value>,
    pub synchronization: Option<Value>,
    pub metadata: Option<Metadata>,
    pub volumes: Vec<Value>,
    pub init_containers: Vec<Value>,
    pub sidecars: Vec<Value>,
    pub node_selector: Option<Value>,
    pub tolerations: Option<Value>,
    pub affinity: Option<Value>,
    pub security_context: Option<Value>,
    pub service_account_name: Option<String>,
    pub automount_service_account_token: Option<bool>,
    pub host_aliases: Option<Value>,
    pub scheduler_name: Option<String>,
    pub priority_class_name: Option<String>,
    pub pod_spec_patch: Option<String>,
    pub archive_location: Option<Value>,
    pub metrics: Option<Value>,
}

/// A `dag` template.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "Argo's own names")]
pub struct Dag {
    pub tasks: Vec<Task>,
    pub target: Option<String>,
    pub fail_fast: Option<bool>,
}

/// A step of `steps` or a task of `dag`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "Argo's own names")]
pub struct Task {
    pub name: String,
    pub template: Option<String>,
    pub template_ref: Option<TemplateRef>,
    pub inline: Option<Value>,
    pub arguments: Arguments,
    pub dependencies: Vec<String>,
    pub depends: Option<String>,
    pub when: Option<String>,
    pub with_items: Option<Vec<Value>>,
    pub with_param: Option<String>,
    pub with_sequence: Option<Sequence>,
    pub continue_on: Option<ContinueOn>,
    pub on_exit: Option<String>,
    pub hooks: BTreeMap<String, Hook>,
}

/// `withSequence`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "Argo's own names")]
pub struct Sequence {
    pub count: Option<Text>,
    pub start: Option<Text>,
    pub end: Option<Text>,
    pub format: Option<String>,
}

/// Which failures of a task its dependents do not mind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "Argo's own names")]
pub struct ContinueOn {
    pub failed: bool,
    pub error: bool,
}

/// A lifecycle hook.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "Argo's own names")]
pub struct Hook {
    pub template: Option<String>,
    pub template_ref: Option<TemplateRef>,
    pub arguments: Arguments,
    pub expression: Option<String>,
}

/// A `suspend` template.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "Argo's own names")]
pub struct Suspend {
    pub duration: Option<Text>,
}

/// When and how often a failed node runs again.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "Argo's own names")]
pub struct RetryStrategy {
    pub limit: Option<Text>,
    pub retry_policy: Option<String>,
    pub backoff: Option<Backoff>,
    pub expression: Option<String>,
    pub affinity: Option<Value>,
}

/// Pauses between attempts.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "Argo's own names")]
pub struct Backoff {
    pub duration: Option<Text>,
    pub factor: Option<Text>,
    pub cap: Option<Text>,
    pub max_duration: Option<Text>,
}
