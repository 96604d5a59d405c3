//! KFP's intermediate representation (`PipelineSpec` 2.1.0), as protojson writes it.
//!
//! Typed after the public proto; unknown fields are ignored, as upstream's server does for newer SDKs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The first document of a compiled package.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the proto's own names")]
pub struct PipelineSpec {
    pub pipeline_info: PipelineInfo,
    pub deployment_spec: DeploymentSpec,
    pub components: BTreeMap<String, Component>,
    pub root: Component,
    pub schema_version: String,
    pub sdk_version: String,
    pub default_pipeline_root: String,
}

/// Name and description.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the proto's own names")]
pub struct PipelineInfo {
    pub name: String,
    pub display_name: String,
    pub description: String,
}

/// Executors by label.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the proto's own names")]
pub struct DeploymentSpec {
    pub executors: BTreeMap<String, Executor>,
}

/// What runs a leaf component.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the proto's own names")]
pub struct Executor {
    pub container: Option<Container>,
    pub importer: Option<Importer>,
    pub resolver: Option<Value>,
    pub custom_job: Option<Value>,
}

/// A container executor.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the proto's own names")]
pub struct Container {
    pub image: String,
    pub command: Vec<String>,
    pub args: Vec<String>,
    pub env: Vec<EnvVar>,
    pub resources: Option<Resources>,
}

/// An environment variable.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the proto's own names")]
pub struct EnvVar {
    pub name: String,
    pub value: String,
}

/// Requests and limits; strings win over the deprecated numbers.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the proto's own names")]
pub struct Resources {
    pub cpu_limit: Option<f64>,
    pub memory_limit: Option<f64>,
    pub cpu_request: Option<f64>,
    pub memory_request: Option<f64>,
    pub resource_cpu_limit: String,
    pub resource_memory_limit: String,
    pub resource_cpu_request: String,
    pub resource_memory_request: String,
    pub accelerator: Option<Accelerator>,
}

/// GPUs and such.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the proto's own names")]
pub struct Accelerator {
    #[serde(rename = "type")]
    pub kind: String,
    pub count: Option<Value>,
    pub resource_type: String,
    pub resource_count: String,
}

/// An importer executor.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the proto's own names")]
pub struct Importer {
    pub artifact_uri: Option<RuntimeValue>,
    pub type_schema: Option<ArtifactType>,
    pub metadata: Option<Value>,
    pub reimport: bool,
    pub download_to_workspace: bool,
}

/// A constant or the name of a parameter.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the proto's own names")]
pub struct RuntimeValue {
    pub constant: Option<Value>,
    pub runtime_parameter: Option<String>,
}

/// A component: a leaf with an executor, or a dag.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the proto's own names")]
pub struct Component {
    pub input_definitions: InputDefinitions,
    pub output_definitions: OutputDefinitions,
    pub executor_label: Option<String>,
    pub dag: Option<Dag>,
}

/// Declared inputs.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the proto's own names")]
pub struct InputDefinitions {
    pub parameters: BTreeMap<String, ParameterDefinition>,
    pub artifacts: BTreeMap<String, ArtifactDefinition>,
}

/// Declared outputs.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the proto's own names")]
pub struct OutputDefinitions {
    pub parameters: BTreeMap<String, ParameterDefinition>,
    pub artifacts: BTreeMap<String, ArtifactDefinition>,
}

/// A parameter's type and default.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the proto's own names")]
pub struct ParameterDefinition {
    pub parameter_type: String,
    /// The deprecated form: `INT`, `DOUBLE`, `STRING`.
    #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
    pub old_type: String,
    /// Absent is not the same as `null`, but both mean: no default.
    pub default_value: Option<Value>,
    pub is_optional: bool,
    pub literals: Vec<Value>,
}

/// An artifact's type.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the proto's own names")]
pub struct ArtifactDefinition {
    pub artifact_type: ArtifactType,
    pub is_artifact_list: bool,
    pub is_optional: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Value>,
}

/// Schema of an artifact.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the proto's own names")]
pub struct ArtifactType {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub schema_title: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub schema_uri: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub instance_schema: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub schema_version: String,
}

/// A dag component.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the proto's own names")]
pub struct Dag {
    pub tasks: BTreeMap<String, Task>,
    pub outputs: DagOutputs,
}

/// Where a dag's outputs come from.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the proto's own names")]
pub struct DagOutputs {
    pub parameters: BTreeMap<String, DagOutputParameter>,
    pub artifacts: BTreeMap<String, DagOutputArtifact>,
}

/// A dag's output parameter.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the proto's own names")]
pub struct DagOutputParameter {
    pub value_from_parameter: Option<ParameterSelector>,
    pub value_from_oneof: Option<ParameterSelectors>,
}

/// The first of several that ran.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the proto's own names")]
pub struct ParameterSelectors {
    pub parameter_selectors: Vec<ParameterSelector>,
}

/// One task's output parameter.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the proto's own names")]
pub struct ParameterSelector {
    pub producer_subtask: String,
    pub output_parameter_key: String,
}

/// A dag's output artifact.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the proto's own names")]
pub struct DagOutputArtifact {
    pub artifact_selectors: Vec<ArtifactSelector>,
}

/// One task's output artifact.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the proto's own names")]
pub struct ArtifactSelector {
    pub producer_subtask: String,
    pub output_artifact_key: String,
}

/// A task: one use of a component.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the proto's own names")]
pub struct Task {
    pub task_info: TaskInfo,
    pub component_ref: ComponentRef,
    pub inputs: TaskInputs,
    pub dependent_tasks: Vec<String>,
    pub caching_options: CachingOptions,
    pub trigger_policy: TriggerPolicy,
    pub parameter_iterator: Option<ParameterIterator>,
    pub artifact_iterator: Option<ArtifactIterator>,
    pub iterator_policy: IteratorPolicy,
    pub retry_policy: Option<RetryPolicy>,
}

/// Display name.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the proto's own names")]
pub struct TaskInfo {
    pub name: String,
    pub task_name: String,
}

/// Name of a component.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the proto's own names")]
pub struct ComponentRef {
    pub name: String,
}

/// What a task is given.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the proto's own names")]
pub struct TaskInputs {
    pub parameters: BTreeMap<String, InputParameter>,
    pub artifacts: BTreeMap<String, InputArtifact>,
}

/// One input parameter of a task.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the proto's own names")]
pub struct InputParameter {
    pub task_output_parameter: Option<TaskOutputParameter>,
    pub runtime_value: Option<RuntimeValue>,
    pub component_input_parameter: Option<String>,
    pub task_final_status: Option<TaskFinalStatus>,
    pub parameter_expression_selector: String,
}

/// Another task's output.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the proto's own names")]
pub struct TaskOutputParameter {
    pub producer_task: String,
    pub output_parameter_key: String,
}

/// Another task's end.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the proto's own names")]
pub struct TaskFinalStatus {
    pub producer_task: String,
}

/// One input artifact of a task.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the proto's own names")]
pub struct InputArtifact {
    pub task_output_artifact: Option<TaskOutputArtifact>,
    pub component_input_artifact: Option<String>,
}

/// Another task's artifact.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the proto's own names")]
pub struct TaskOutputArtifact {
    pub producer_task: String,
    pub output_artifact_key: String,
}

/// Whether a task's results are taken from and put into the cache.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the proto's own names")]
pub struct CachingOptions {
    pub enable_cache: bool,
    pub cache_key: String,
}

/// When a task runs.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the proto's own names")]
pub struct TriggerPolicy {
    pub condition: String,
    pub strategy: String,
}

/// A loop over parameter values.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the proto's own names")]
pub struct ParameterIterator {
    pub items: IteratorItems,
    pub item_input: String,
}

/// What a parameter loop goes over.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the proto's own names")]
pub struct IteratorItems {
    pub raw: Option<String>,
    pub input_parameter: Option<String>,
}

/// A loop over artifacts.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the proto's own names")]
pub struct ArtifactIterator {
    pub items: ArtifactIteratorItems,
    pub item_input: String,
}

/// What an artifact loop goes over.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the proto's own names")]
pub struct ArtifactIteratorItems {
    pub input_artifact: String,
}

/// How many iterations run at once.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the proto's own names")]
pub struct IteratorPolicy {
    pub parallelism_limit: u32,
}

/// Retries of a task.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the proto's own names")]
pub struct RetryPolicy {
    pub max_retry_count: u32,
    pub backoff_duration: String,
    pub backoff_factor: f64,
    pub backoff_max_duration: String,
}

impl ParameterDefinition {
    /// The type, whichever of the two fields names it.
    pub fn kind(&self) -> &str {
        match self.old_type.as_str() {
            _ if !self.parameter_type.is_empty() => &self.parameter_type,
            "INT" => "NUMBER_INTEGER",
            "DOUBLE" => "NUMBER_DOUBLE",
            _ => "STRING",
        }
    }
}

/// The constants of `{platforms: {kubernetes: ...}}` that the engine reads; the rest stays JSON.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PlatformSpec {
    /// By platform name.
    pub platforms: BTreeMap<String, Platform>,
}

/// One platform.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Platform {
    /// Kubernetes executor configs by executor label.
    pub deployment_spec: PlatformDeployment,
    /// Workspace, TTLs, deadline.
    pub pipeline_config: Map<String, Value>,
}

/// Executor configs by label.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PlatformDeployment {
    /// The configs, as JSON.
    pub executors: BTreeMap<String, Map<String, Value>>,
}
