//! What the engine knows of one node.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde_json::Value;

use crate::kfp::cache_key::CacheKey;
use crate::model::{Phase, Task};
use crate::order::PodOrder;
use crate::values::Values;

/// Place of a node in the engine's arena.
pub type Ix = usize;

/// Type of a node, with Argo's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A pod (or what needs none, like an importer).
    Pod,
    /// A steps template.
    Steps,
    /// One group of steps.
    StepGroup,
    /// A dag template.
    Dag,
    /// The items of a loop.
    TaskGroup,
    /// The attempts of a node.
    Retry,
    /// A suspend template.
    Suspend,
    /// Something that was not run.
    Skipped,
}

impl Kind {
    /// Argo's word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pod => "Pod",
            Self::Steps => "Steps",
            Self::StepGroup => "StepGroup",
            Self::Dag => "DAG",
            Self::TaskGroup => "TaskGroup",
            Self::Retry => "Retry",
            Self::Suspend => "Suspend",
            Self::Skipped => "Skipped",
        }
    }
}

/// A node.
#[derive(Debug, Clone)]
pub struct Node {
    /// Told when this one ended; none for the entry and for hooks.
    pub parent: Option<Ix>,
    /// The group whose template this node is part of.
    pub boundary: Option<Ix>,
    /// The node that this one is a hook of, and whether it is the whole workflow's (`None` inside).
    pub hook_of: Option<HookOf>,
    /// Full name.
    pub name: String,
    /// Short name.
    pub display: String,
    /// Hash of the name: what events and labels call it.
    pub key: u32,
    /// Id.
    pub id: String,
    /// Type.
    pub kind: Kind,
    /// Place of the template.
    pub template: Option<usize>,
    /// The use of the template.
    pub task: Option<Arc<Task>>,
    /// The item, in a loop.
    pub item: Option<Value>,
    /// Position in the loop.
    pub iteration: Option<u32>,
    /// How deep it is: a workflow that recurses for ever must end.
    pub depth: u32,
    /// Part of a hook: not stopped by a shutdown.
    pub in_hook: bool,
    /// Not shown: a loop in steps has no node of its own in Argo.
    pub hidden: bool,
    /// Phase.
    pub phase: Phase,
    /// Why.
    pub message: String,
    /// When it started.
    pub started: i64,
    /// When it ended.
    pub finished: Option<i64>,
    /// What goes in.
    pub inputs: Values,
    /// What came out.
    pub outputs: Values,
    /// Nodes inside, in order.
    pub children: Vec<Ix>,
    /// Hook nodes of it.
    pub hook_nodes: Vec<Ix>,
    /// What its type needs.
    pub state: State,
    /// Hooks of it that run.
    pub hooks_open: u32,
    /// Names of hooks that were started.
    pub hooks_begun: Vec<String>,
    /// It is one attempt of a Retry node: which.
    pub attempt: Option<u32>,
    /// The parent knows that it ended.
    pub told: bool,
}

/// Whose hook a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookOf {
    /// The workflow's.
    Workflow,
    /// A node's.
    Node(Ix),
}

/// What a node's type needs.
#[derive(Debug, Clone)]
pub enum State {
    /// Nothing.
    None,
    /// A pod.
    Pod(PodState),
    /// A steps template: the running group; finished steps by name.
    Steps {
        /// Place of the running group.
        group: usize,
        /// Steps by name.
        members: BTreeMap<String, Ix>,
    },
    /// One group: children that run, children that wait for their turn.
    StepGroup {
        /// Children that have not ended.
        open: usize,
        /// Steps that wait, by place.
        waiting: VecDeque<usize>,
    },
    /// A dag.
    Dag(DagState),
    /// A loop.
    Loop {
        /// Items that have not ended.
        open: usize,
        /// Items that wait.
        waiting: VecDeque<(u32, Value)>,
    },
    /// Attempts.
    Retry {
        /// Attempts begun.
        attempts: u32,
    },
    /// Waits for a time or a person.
    Suspend,
}

/// A dag's tasks.
#[derive(Debug, Clone, Default)]
pub struct DagState {
    /// Node of each task, once there is one.
    pub nodes: Vec<Option<Ix>>,
    /// Tasks by name, once there is a node.
    pub members: BTreeMap<String, Ix>,
    /// For each task, how many of those it looks at have not ended.
    pub missing: Vec<usize>,
    /// Phase of the branch that ends in this task: an omitted task inherits the worst before it.
    pub branch: Vec<Option<Phase>>,
    /// Tasks that run.
    pub open: usize,
    /// Tasks that wait for a free place.
    pub waiting: VecDeque<usize>,
    /// Nothing new is started.
    pub stopped: bool,
}

/// A pod.
#[derive(Debug, Clone, Default)]
pub struct PodState {
    /// The attempt's token: a report with another is stale.
    pub token: u32,
    /// Name of the pod.
    pub pod: String,
    /// What to create, until it ended.
    pub order: Option<Arc<PodOrder>>,
    /// Where it stands.
    pub stage: Stage,
    /// KFP: key of the cache and whether it was a hit.
    pub cache: Option<(Box<CacheKey>, bool)>,
    /// Machine that runs it.
    pub host: String,
}

/// Where a pod node stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stage {
    /// The cache was asked.
    Asked,
    /// Waits for a free place or for the end of a suspension.
    #[default]
    Queued,
    /// The pod is ordered.
    Ordered,
    /// It ended.
    Done,
}
