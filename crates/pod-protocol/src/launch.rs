//! What `pod launch` is told, and what it reports.
//!
//! The controller resolves every template and placeholder before the pod exists, so the launcher
//! only moves bytes: files and artifacts in, one process, parameters and artifacts out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The environment variable that carries a [`LaunchSpec`] as JSON.
pub const SPEC_ENV: &str = "SLIPWAY_LAUNCH";
/// Alternatively, the path of a file that holds it (for specs above 96 KiB).
pub const SPEC_FILE_ENV: &str = "SLIPWAY_LAUNCH_FILE";
/// Base URL of the artifact face, e.g. `http://127.42.0.1:7889`.
pub const ARTIFACTS_URL_ENV: &str = "SLIPWAY_ARTIFACTS_URL";
/// Version of this protocol; a launcher refuses others.
pub const VERSION: u32 = 1;
/// A report above this many bytes does not fit the termination message and goes to a `WorkflowTaskResult`.
pub const TERMINATION_MESSAGE_MAX: usize = 4096;

/// One container's work. The command itself is the launcher's argv after `--`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LaunchSpec {
    /// [`VERSION`].
    pub version: u32,
    /// Name of the `WorkflowTaskResult` to write when the report is too large; owner is the Workflow.
    pub task_result: Option<TaskResultRef>,
    /// Text files to write before the command (script source, input parameters as files, raw artifacts).
    pub files: Vec<InputFile>,
    /// Artifacts to fetch before the command.
    pub input_artifacts: Vec<InputArtifact>,
    /// Folders to make before the command, parents included.
    pub folders: Vec<String>,
    /// Files whose text becomes output parameters.
    pub output_parameters: Vec<OutputParameter>,
    /// Paths to upload after the command, also when it failed and the path exists.
    pub output_artifacts: Vec<OutputArtifact>,
    /// Report standard output (last 256 KiB) as `result`.
    pub capture_result: bool,
    /// KFP: path of `output_metadata.json`; its JSON is reported as `executor_output`.
    pub executor_output: Option<String>,
    /// KFP Python components: requirements to provide before the command, from the cache folder.
    pub python: Option<PythonEnv>,
    /// Also upload standard output and error, interleaved, to this URI.
    pub log_uri: Option<String>,
}

/// Names a `WorkflowTaskResult`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskResultRef {
    /// Its name (the node id).
    pub name: String,
    /// Namespace of the workflow.
    pub namespace: String,
    /// Name of the owning workflow.
    pub workflow: String,
    /// Uid of the owning workflow.
    pub workflow_uid: String,
}

/// A text file written before the command runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InputFile {
    /// Absolute path; parents are made.
    pub path: String,
    /// The text.
    pub text: String,
    /// Unix mode; `0o644` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
}

/// How a file or folder is packed in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Archive {
    /// As it is: a file is one object, a folder is a tree of objects below the key.
    #[default]
    None,
    /// A gzipped tar of the path.
    TarGz,
}

/// An artifact fetched before the command runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InputArtifact {
    /// Its name in the template.
    pub name: String,
    /// Where it comes from: `minio://bucket/key`.
    pub uri: String,
    /// Absolute path to put it at.
    pub path: String,
    /// How it is packed.
    #[serde(default)]
    pub archive: Archive,
    /// Missing in the store is not an error.
    #[serde(default)]
    pub optional: bool,
    /// Unix mode for the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
}

/// A file whose text becomes an output parameter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutputParameter {
    /// Its name.
    pub name: String,
    /// Absolute path of the file.
    pub path: String,
    /// Used when the file is missing; none: the step fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
}

/// A path uploaded after the command ran.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutputArtifact {
    /// Its name.
    pub name: String,
    /// Absolute path of the file or folder.
    pub path: String,
    /// Where it goes.
    pub uri: String,
    /// How to pack it.
    #[serde(default)]
    pub archive: Archive,
    /// A missing path is not an error (KFP: always; Argo: `optional`).
    #[serde(default)]
    pub optional: bool,
}

/// Python packages that a component's own `pip install` layer would have installed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PythonEnv {
    /// Folder that keeps environments by key; shared by the pods of one namespace.
    pub cache_folder: String,
    /// The arguments of the component's own pip layers, in order, without the quiet flags.
    pub pip_arguments: Vec<Vec<String>>,
}

/// What the launcher reports: the termination message, or `report` of a `WorkflowTaskResult`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LaunchReport {
    /// [`VERSION`].
    pub version: u32,
    /// The full report is in the `WorkflowTaskResult`; the rest here is cut.
    pub elsewhere: bool,
    /// Exit code of the user's command; none when it never ran.
    pub exit_code: Option<i32>,
    /// Standard output, when asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// Output parameters by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, String>,
    /// Uploaded artifacts by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub artifacts: BTreeMap<String, UploadedArtifact>,
    /// KFP's `output_metadata.json`, as it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub executor_output: Option<serde_json::Value>,
    /// Why the launcher itself failed (an input could not be fetched, an output is missing).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// One uploaded artifact.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UploadedArtifact {
    /// Where it is.
    pub uri: String,
    /// Bytes in the store.
    pub size: u64,
    /// Number of files.
    pub files: u64,
    /// SHA-256 of a single file, hex; empty for folders.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sha256: String,
}

/// Body of `POST {ARTIFACTS_URL}/v1/task-results`: the platform writes it as a `WorkflowTaskResult` with the report
/// under `report`, so that the launcher needs neither TLS nor rights on the Kubernetes API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskResultPost {
    /// Which object.
    pub task_result: TaskResultRef,
    /// Its content.
    pub report: LaunchReport,
}
