//! The workflow family: Argo's kinds, the KFP extension, and the engine's journal.
//!
//! A `Workflow` holds either Argo's own spec or, under `spec.kfp`, a compiled KFP pipeline with its
//! run-time parameters ([`KfpRun`]). Both become one plan in `plan`.
//!
//! Types are typed only as deep as the platform decides anything from them: containers, volumes
//! and the like stay JSON, so that no field of the user's is lost.

pub mod admission;
pub mod argo;
pub mod ir;
pub mod journal;
pub mod kfp;
pub mod resource;
pub mod status;

pub use argo::WorkflowSpec;
pub use journal::WorkflowJournal;
pub use kfp::{KfpRun, RuntimeConfig};
pub use resource::{Workflow, WorkflowTaskResult};
pub use status::{NodeStatus, WorkflowStatus};

/// API group of Argo's kinds.
pub const GROUP: &str = "argoproj.io";
/// Their version.
pub const VERSION: &str = "v1alpha1";
/// `group/version` of Argo's kinds.
pub const API_VERSION: &str = "argoproj.io/v1alpha1";

/// Labels and annotations, as Argo writes them.
pub mod label {
    /// Name of the workflow a pod (or task result) belongs to.
    pub const WORKFLOW: &str = "workflows.argoproj.io/workflow";
    /// `"true"` once a pod or workflow is done.
    pub const COMPLETED: &str = "workflows.argoproj.io/completed";
    /// The workflow's phase, on the workflow.
    pub const PHASE: &str = "workflows.argoproj.io/phase";
    /// The template's WorkflowTemplate, on workflows that refer to one.
    pub const WORKFLOW_TEMPLATE: &str = "workflows.argoproj.io/workflow-template";
    /// The same for cluster-wide templates.
    pub const CLUSTER_WORKFLOW_TEMPLATE: &str = "workflows.argoproj.io/cluster-workflow-template";
    /// Node id, an annotation of pods.
    pub const NODE_ID: &str = "workflows.argoproj.io/node-id";
    /// Node name, an annotation of pods.
    pub const NODE_NAME: &str = "workflows.argoproj.io/node-name";
    /// Ours: the attempt's token, an annotation of pods; a report with another one is stale.
    pub const ATTEMPT: &str = "slipway.dev/attempt";
    /// KFP's run id, on workflows and pods.
    pub const RUN_ID: &str = "pipeline/runid";
    /// KFP's task name, an annotation of pods.
    pub const TASK_NAME: &str = "pipelines.kubeflow.org/task-name";
}
