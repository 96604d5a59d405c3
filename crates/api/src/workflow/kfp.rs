//! `Workflow.spec.kfp`: a compiled KFP pipeline and what one run of it was given.
//!
//! The pipelines face creates such Workflows; everything a run needs is in the object, so that the
//! controller asks nobody and a Workflow can be copied to another cluster and still runs.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One run of a compiled pipeline.
///
/// Nodes of the run appear in `Workflow.status.nodes`: `templateName` is the component's name,
/// `displayName` the task's, inputs and outputs hold parameters (values as JSON text for numbers,
/// booleans, lists and structs; plain for strings) and artifacts (`name` and `s3`-free `uri`,
/// see [`crate::workflow::status::Artifact`]).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KfpRun {
    /// Id of the run: a UUID; part of every artifact URI, label `pipeline/runid` of its pods.
    pub run_id: String,
    /// The run's display name, what `{{$.pipeline_job_name}}` becomes.
    pub display_name: String,
    /// `pipelineInfo.name`, part of every artifact URI and scope of the cache; empty: taken from the spec.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pipeline_name: String,
    /// First document of the package: the PipelineSpec, camelCase, untouched.
    pub pipeline_spec: Value,
    /// Second document, when there is one: `{platforms: {kubernetes: ...}}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform_spec: Option<Value>,
    /// What the caller gave.
    pub runtime_config: RuntimeConfig,
    /// When the run was created, RFC 3339; `{{$.pipeline_job_create_time_utc}}`. Empty: the Workflow's own time.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub created_at: String,
    /// When a recurring run was due, RFC 3339; `{{$.pipeline_job_schedule_time_utc}}`. Empty: as `created_at`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub scheduled_at: String,
    /// Experiment of the run (lineage only).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub experiment_id: String,
    /// Pipeline it came from, when it was an uploaded one (lineage only).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pipeline_id: String,
    /// Version of that pipeline (lineage only).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pipeline_version_id: String,
    /// Recurring run that made it (lineage only).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub recurring_run_id: String,
}

/// `runtime_config` of KFP's API.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RuntimeConfig {
    /// Root parameters by name, as JSON values; unknown names are refused.
    pub parameters: Map<String, Value>,
    /// Root of artifact URIs; default `minio://mlpipeline/v2/artifacts/<namespace>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pipeline_root: Option<String>,
}
