//! The plan: what both vocabularies come down to.
//!
//! A template is a thing that can run; a task is one use of a template inside a group. The engine
//! walks these; only values and pods are the front ends' matter.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::workflow::{argo, ir};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Identity;
use crate::ready::Ready;

/// Phase of a node or workflow, with Argo's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// Not started, or waiting for its pod.
    Pending,
    /// Running.
    Running,
    /// Ended well.
    Succeeded,
    /// Not run: its condition was false.
    Skipped,
    /// The user's work failed.
    Failed,
    /// The platform could not run it.
    Error,
    /// Not run: its readiness can no longer come true.
    Omitted,
}

impl Phase {
    /// Argo's word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Skipped => "Skipped",
            Self::Failed => "Failed",
            Self::Error => "Error",
            Self::Omitted => "Omitted",
        }
    }

    /// Nothing more comes.
    pub fn ended(self) -> bool {
        !matches!(self, Self::Pending | Self::Running)
    }

    /// Ended badly.
    pub fn bad(self) -> bool {
        matches!(self, Self::Failed | Self::Error)
    }
}

/// A compiled workflow.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Who runs it.
    pub identity: Identity,
    /// Templates; tasks name them by place.
    pub templates: Vec<Template>,
    /// Places of templates by scope and name: `""` is the workflow's own scope.
    pub names: BTreeMap<(String, String), usize>,
    /// The first node.
    pub entry: Arc<Task>,
    /// Hooks of the whole workflow; the one named `exit` is `onExit`.
    pub hooks: Vec<Hook>,
    /// Most pods at once.
    pub parallelism: Option<u32>,
    /// Milliseconds after which the workflow fails.
    pub deadline_ms: Option<i64>,
    /// Starts suspended.
    pub suspended: bool,
    /// The vocabulary.
    pub front: Front,
}

/// What the vocabulary adds to a plan.
#[derive(Debug, Clone, PartialEq)]
pub enum Front {
    /// Argo: the merged spec (pod defaults, volumes) and workflow parameters.
    Argo(Box<ArgoFront>),
    /// KFP: the run.
    Kfp(Box<KfpFront>),
}

/// Argo's part of a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct ArgoFront {
    /// The spec, after the merge with a workflowTemplateRef.
    pub spec: argo::WorkflowSpec,
    /// Values of `spec.arguments`.
    pub parameters: BTreeMap<String, Value>,
    /// Something reads a `result`.
    pub captures: bool,
}

/// KFP's part of a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct KfpFront {
    /// Run id.
    pub run_id: String,
    /// Display name of the run.
    pub display_name: String,
    /// Name of the pipeline.
    pub pipeline_name: String,
    /// Root of artifact URIs, without a `/` at the end.
    pub root: String,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339.
    pub scheduled_at: String,
    /// Executors by label.
    pub executors: BTreeMap<String, ir::Executor>,
    /// Kubernetes configs of executors by label.
    pub platform: BTreeMap<String, serde_json::Map<String, Value>>,
}

/// A thing that can run.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    /// Its name (KFP: of the component).
    pub name: String,
    /// Scope of its references: `""`, or the WorkflowTemplate it comes from (`ns/name`, `cluster/name`).
    pub scope: String,
    /// What it does.
    pub body: Body,
    /// Most active children of a group.
    pub parallelism: Option<u32>,
    /// A group starts nothing new after a failure.
    pub fail_fast: bool,
    /// Attempts.
    pub retry: Option<Retry>,
    /// Declarations.
    pub declared: Declared,
}

/// What a template declares, in its vocabulary.
#[derive(Debug, Clone, PartialEq)]
pub enum Declared {
    /// The template typed, and as JSON for substitution.
    Argo(Box<argo::Template>, Value),
    /// The component.
    Kfp(Box<ir::Component>),
}

/// What a template does.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// Runs a pod.
    Pod,
    /// Registers an artifact that exists (KFP importer).
    Import,
    /// Waits to be resumed, or for a time (text with tags).
    Suspend(Option<String>),
    /// Tasks in groups.
    Steps(Vec<Vec<Arc<Task>>>),
    /// Tasks with readiness.
    Dag(Dag),
    /// Cannot run, and says why: the rest of the workflow still can.
    Refused(String),
}

/// Tasks of a dag.
#[derive(Debug, Clone, PartialEq)]
pub struct Dag {
    /// The tasks.
    pub tasks: Vec<Arc<Task>>,
    /// For each task, who looks at it.
    pub dependents: Vec<Vec<usize>>,
    /// The tasks that decide the phase.
    pub targets: Vec<usize>,
}

/// One use of a template.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// Its name in the group.
    pub name: String,
    /// The name people see.
    pub display: String,
    /// The template.
    pub uses: Use,
    /// Parameters given.
    pub parameters: Vec<(String, Binding)>,
    /// Artifacts given.
    pub artifacts: Vec<(String, ArtifactBinding)>,
    /// The tasks before it that readiness looks at.
    pub needs: Vec<usize>,
    /// When it may start.
    pub ready: Ready,
    /// Runs even after a failure stopped the group (KFP exit tasks).
    pub always: bool,
    /// Whether it runs at all.
    pub gate: Option<Gate>,
    /// The loop.
    pub repeat: Option<Repeat>,
    /// Most items at once.
    pub at_once: Option<u32>,
    /// Failures its dependents accept.
    pub continue_on: argo::ContinueOn,
    /// Hooks; `exit` runs when it ended.
    pub hooks: Vec<Hook>,
    /// KFP: attempts of this task.
    pub retry: Option<Retry>,
    /// KFP: whether results come from and go to the cache.
    pub cache: Option<ir::CachingOptions>,
}

/// Which template a task uses.
#[derive(Debug, Clone, PartialEq)]
pub enum Use {
    /// The one at this place.
    At(usize),
    /// The one of this name (text with tags) in this scope.
    Named(String, String),
}

/// Where a parameter's value comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum Binding {
    /// Text with tags.
    Text(String),
    /// An expression.
    Expression(String),
    /// A value.
    Constant(Value),
    /// An input of the group.
    Input(String),
    /// Another task's output.
    Output(String, String),
    /// How another task ended (KFP `taskFinalStatus`).
    FinalStatus(String),
    /// A part of a value.
    Selected(Box<Binding>, String),
    /// The item of the loop.
    Item,
}

/// Where an artifact comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum ArtifactBinding {
    /// Argo: the artifact argument as it is written.
    Argo(Box<argo::Artifact>),
    /// An input of the group.
    Input(String),
    /// Another task's output.
    Output(String, String),
    /// The item of the loop.
    Item,
}

/// Whether a task runs.
#[derive(Debug, Clone, PartialEq)]
pub enum Gate {
    /// Argo's `when`: text with tags.
    When(String),
    /// CEL over the task's inputs.
    Cel(String),
}

/// What a loop goes over.
#[derive(Debug, Clone, PartialEq)]
pub enum Repeat {
    /// These, with tags.
    Items(Vec<Value>),
    /// A JSON list in text with tags.
    Param(String),
    /// Numbers.
    Sequence(argo::Sequence),
    /// KFP: a list, given to the input of this name.
    Parameter(Binding, String),
    /// KFP: a list of artifacts, given to the input of this name.
    Artifact(ArtifactBinding, String),
}

/// A lifecycle hook.
#[derive(Debug, Clone, PartialEq)]
pub struct Hook {
    /// Its name; `exit` runs at the end.
    pub name: String,
    /// When it runs; `exit` may have none.
    pub expression: Option<String>,
    /// The template and what it is given.
    pub call: Arc<Task>,
}

/// Attempts of a node.
#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    /// Retries after the first attempt (text: a number, or a tag); none: no bound.
    pub limit: Option<String>,
    /// Which ends are tried again.
    pub policy: RetryPolicy,
    /// First pause (a duration with tags).
    pub pause: Option<String>,
    /// Growth of the pause.
    pub factor: Option<String>,
    /// Longest pause.
    pub cap: Option<String>,
    /// No attempt starts later than this after the first.
    pub max_duration: Option<String>,
    /// Must hold for another attempt.
    pub expression: Option<String>,
}

/// Which ends are tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryPolicy {
    /// Failed and Error.
    Always,
    /// Failed.
    OnFailure,
    /// Error.
    OnError,
}

impl Retry {
    /// Whether this end is one to try again.
    pub fn covers(&self, phase: Phase) -> bool {
        match self.policy {
            RetryPolicy::Always => phase.bad(),
            RetryPolicy::OnFailure => phase == Phase::Failed,
            RetryPolicy::OnError => phase == Phase::Error,
        }
    }
}

impl Task {
    /// A plain use of a template.
    pub fn plain(name: &str, uses: Use) -> Self {
        Self {
            name: name.to_owned(),
            display: name.to_owned(),
            uses,
            parameters: Vec::new(),
            artifacts: Vec::new(),
            needs: Vec::new(),
            ready: Ready::All(Vec::new()),
            always: false,
            gate: None,
            repeat: None,
            at_once: None,
            continue_on: argo::ContinueOn::default(),
            hooks: Vec::new(),
            retry: None,
            cache: None,
        }
    }
}
