//! The state machine of a workflow.
//!
//! [`Engine::apply`] takes one [`Event`] and returns the [`Action`]s that follow from it. It is
//! deterministic: the same events in the same order give the same state, so the events are the
//! journal. A caller writes an event to the journal first and acts afterwards; after a crash it
//! replays, and asks [`Engine::outstanding`] what has to be done (again, harmlessly).
//!
//! * `start` makes nodes; `finish` passes ends upward; `group` holds steps, dags and loops;
//!   `hooks` exit handlers and retries; `view` the projection into `Workflow.status`.
//!
//! Not here: how a value is resolved or a pod is put together (the front ends).

mod event;
mod finish;
mod group;
mod hooks;
mod node;
mod start;
mod view;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

pub use event::{Action, Event, Outcome, PodEnd};
pub(crate) use group::element;
pub use node::{DagState, HookOf, Ix, Kind, Node, PodState, Stage, State};

use crate::model::{Phase, Plan};
use crate::order::PodOrder;
use crate::values::Values;

/// Deepest nesting of templates.
pub const DEPTH_MAX: u32 = 100;
/// Most nodes of one workflow.
pub const NODES_MAX: usize = 1_000_000;

/// A running workflow.
#[derive(Debug, Clone)]
pub struct Engine {
    plan: Arc<Plan>,
    nodes: Vec<Node>,
    /// Nodes that were there before the event that is being applied.
    nodes_before: usize,
    /// Nodes by the hash of their name.
    keys: HashMap<u32, Ix>,
    phase: Option<Phase>,
    message: String,
    started: i64,
    finished: Option<i64>,
    now: i64,
    tokens: u32,
    root: Option<Ix>,
    /// Ended nodes whose end has not been passed on.
    ended: VecDeque<Ix>,
    /// Pod nodes that wait for a place.
    queue: VecDeque<Ix>,
    /// Pods ordered and not ended.
    active: BTreeSet<Ix>,
    timers: BTreeSet<(i64, Ix)>,
    suspended: bool,
    shutdown: Option<Shutdown>,
    globals: Values,
    workflow_hooks_open: u32,
    workflow_hooks_begun: Vec<String>,
    starting_hook: bool,
    actions: Vec<Action>,
    pods_done: u64,
    pods_known: u64,
}

/// Why nothing new is started.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Shutdown {
    terminate: bool,
    message: String,
}

impl Engine {
    /// A workflow that has not begun.
    pub fn new(plan: Arc<Plan>) -> Self {
        let suspended = plan.suspended;
        Self {
            plan,
            nodes: Vec::new(),
            nodes_before: 0,
            keys: HashMap::new(),
            phase: None,
            message: String::new(),
            started: 0,
            finished: None,
            now: 0,
            tokens: 0,
            root: None,
            ended: VecDeque::new(),
            queue: VecDeque::new(),
            active: BTreeSet::new(),
            timers: BTreeSet::new(),
            suspended,
            shutdown: None,
            globals: Values::default(),
            workflow_hooks_open: 0,
            workflow_hooks_begun: Vec::new(),
            starting_hook: false,
            actions: Vec::new(),
            pods_done: 0,
            pods_known: 0,
        }
    }

    /// The engine after these events; what they asked for is in [`Engine::outstanding`].
    pub fn replay<'a>(plan: Arc<Plan>, events: impl IntoIterator<Item = &'a Event>) -> Self {
        let mut engine = Self::new(plan);
        for event in events {
            engine.apply(event);
        }
        engine
    }

    /// Takes an event. Stale ones (another token, an ended node or workflow) change nothing.
    pub fn apply(&mut self, event: &Event) -> Vec<Action> {
        if self.finished.is_some() {
            return Vec::new();
        }
        self.nodes_before = self.nodes.len();
        match event {
            Event::Begin { at } => self.begin(*at),
            Event::Running { node, token, host, at } => self.running(*node, *token, host, *at),
            Event::Waiting { node, token, message } => self.waiting(*node, *token, message),
            Event::Ended { node, token, end, at } => {
                if let Some(ix) = self.attempt(*node, *token, Stage::Ordered) {
                    self.now = *at;
                    self.pod_ended(ix, end);
                }
            }
            Event::Cache { node, token, hit, at } => {
                if let Some(ix) = self.attempt(*node, *token, Stage::Asked) {
                    self.now = *at;
                    self.cache_answered(ix, hit.as_deref());
                }
            }
            Event::Tick { at } => self.tick(*at),
            Event::Suspend { on, at } => {
                self.now = *at;
                self.suspended = *on;
                if !on {
                    self.resume("");
                }
            }
            Event::Resume { node, at } => {
                self.now = *at;
                self.resume(node);
            }
            Event::Shutdown { terminate, at } => {
                self.now = *at;
                let word = if *terminate { "Terminate" } else { "Stop" };
                self.shut(*terminate, format!("workflow shutdown with strategy:  {word}"));
            }
        }
        self.settle();
        std::mem::take(&mut self.actions)
    }

    /// Whether an event would change anything: stale ones are not worth a journal record.
    pub fn accepts(&self, event: &Event) -> bool {
        if self.finished.is_some() {
            return false;
        }
        match event {
            Event::Begin { .. } => self.phase.is_none(),
            Event::Running { node, token, .. } => self
                .attempt(*node, *token, Stage::Ordered)
                .is_some_and(|ix| self.nodes[ix].phase == Phase::Pending),
            Event::Waiting { node, token, message } => self
                .attempt(*node, *token, Stage::Ordered)
                .is_some_and(|ix| self.nodes[ix].message != *message),
            Event::Ended { node, token, .. } => self.attempt(*node, *token, Stage::Ordered).is_some(),
            Event::Cache { node, token, .. } => self.attempt(*node, *token, Stage::Asked).is_some(),
            Event::Tick { at } => self.next_timer().is_some_and(|due| due <= *at),
            Event::Suspend { on, .. } => self.phase.is_some() && self.suspended != *on,
            Event::Resume { .. } => self.phase.is_some(),
            Event::Shutdown { terminate, .. } => {
                self.phase.is_some() && self.shutdown.as_ref().is_none_or(|now| *terminate && !now.terminate)
            }
        }
    }

    /// What has been asked for and may not have been done: pods to create, answers of the cache.
    pub fn outstanding(&self) -> Vec<Action> {
        let mut actions = Vec::new();
        for node in &self.nodes {
            let State::Pod(pod) = &node.state else { continue };
            match pod.stage {
                Stage::Ordered => actions.push(Action::StartPod { node: node.key, token: pod.token }),
                Stage::Asked => {
                    if let Some((key, _)) = &pod.cache {
                        actions.push(Action::Lookup { node: node.key, token: pod.token, key: key.clone() });
                    }
                }
                Stage::Queued | Stage::Done => {}
            }
        }
        actions
    }

    /// When [`Event::Tick`] is due next.
    pub fn next_timer(&self) -> Option<i64> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// The pod that an ordered attempt needs.
    pub fn order(&self, node: u32, token: u32) -> Option<Arc<PodOrder>> {
        let ix = self.attempt(node, token, Stage::Ordered)?;
        match &self.nodes[ix].state {
            State::Pod(pod) => pod.order.clone(),
            _ => None,
        }
    }

    /// Node and token of every ordered attempt, by pod name.
    pub fn ordered(&self) -> impl Iterator<Item = (u32, u32, &str)> {
        self.active.iter().filter_map(|ix| {
            let node = &self.nodes[*ix];
            match &node.state {
                State::Pod(pod) => Some((node.key, pod.token, pod.pod.as_str())),
                _ => None,
            }
        })
    }

    /// Names of the pods of nodes that have ended, with how.
    pub fn ended_pods(&self) -> impl Iterator<Item = (&str, Phase)> {
        self.nodes.iter().filter_map(|node| match &node.state {
            State::Pod(pod) if pod.stage == Stage::Done && !pod.pod.is_empty() => {
                Some((pod.pod.as_str(), node.phase))
            }
            _ => None,
        })
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// A node.
    pub fn node(&self, ix: Ix) -> &Node {
        &self.nodes[ix]
    }

    /// Every node.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Outputs with a global name.
    pub fn globals(&self) -> &Values {
        &self.globals
    }

    /// Phase of the workflow; none before it began.
    pub fn phase(&self) -> Option<Phase> {
        self.phase
    }

    /// The entry node.
    pub fn root(&self) -> Option<Ix> {
        self.root
    }

    /// When the workflow began.
    pub fn started(&self) -> i64 {
        self.started
    }

    /// The latest time an event brought.
    pub fn now(&self) -> i64 {
        self.now
    }

    /// When the workflow ended.
    pub fn finished(&self) -> Option<i64> {
        self.finished
    }

    fn begin(&mut self, at: i64) {
        if self.phase.is_some() {
            return;
        }
        self.now = at;
        self.started = at;
        self.phase = Some(Phase::Running);
        let plan = self.plan.clone();
        if let Some(deadline) = plan.deadline_ms {
            self.timers.insert((at.saturating_add(deadline), DEADLINE));
        }
        let name = plan.identity.name.clone();
        let root = self.start_task(None, None, &plan.entry, name.clone(), name, None, None, 0, false);
        self.root = Some(root);
        self.workflow_hooks();
    }

    fn running(&mut self, node: u32, token: u32, host: &str, at: i64) {
        if let Some(ix) = self.attempt(node, token, Stage::Ordered) {
            self.now = self.now.max(at);
            let node = &mut self.nodes[ix];
            node.phase = Phase::Running;
            node.message.clear();
            if let State::Pod(pod) = &mut node.state {
                host.clone_into(&mut pod.host);
            }
        }
    }

    fn waiting(&mut self, node: u32, token: u32, message: &str) {
        if let Some(ix) = self.attempt(node, token, Stage::Ordered) {
            message.clone_into(&mut self.nodes[ix].message);
        }
    }

    /// The node of an attempt, when it is the current one and at this stage.
    fn attempt(&self, key: u32, token: u32, stage: Stage) -> Option<Ix> {
        let ix = *self.keys.get(&key)?;
        match &self.nodes[ix].state {
            State::Pod(pod) if pod.token == token && pod.stage == stage => Some(ix),
            _ => None,
        }
    }

    fn tick(&mut self, at: i64) {
        self.now = self.now.max(at);
        while let Some((due, ix)) = self.timers.first().copied()
            && due <= at
        {
            self.timers.pop_first();
            if ix == DEADLINE {
                self.shut(false, "Step exceeded its deadline".into());
                continue;
            }
            match &self.nodes[ix].state {
                State::Suspend if !self.nodes[ix].phase.ended() => self.end(ix, Phase::Succeeded, ""),
                State::Retry { .. } if !self.nodes[ix].phase.ended() => self.next_attempt(ix),
                _ => {}
            }
            self.settle();
        }
    }

    fn resume(&mut self, which: &str) {
        let chosen: Vec<Ix> = (0..self.nodes.len())
            .filter(|ix| {
                let node = &self.nodes[*ix];
                let named =
                    which.is_empty() || node.name == which || node.id == which || node.display == which;
                named && matches!(node.state, State::Suspend) && !node.phase.ended()
            })
            .collect();
        for ix in chosen {
            self.end(ix, Phase::Succeeded, "");
        }
        self.drain_queue();
    }

    fn shut(&mut self, terminate: bool, message: String) {
        self.shutdown = Some(Shutdown { terminate, message: message.clone() });
        self.suspended = false;
        for ix in 0..self.nodes.len() {
            let node = &self.nodes[ix];
            if node.phase.ended() || (node.in_hook && !terminate) {
                continue;
            }
            match &node.state {
                State::Pod(pod) => {
                    if pod.stage == Stage::Ordered {
                        self.actions.push(Action::StopPod { pod: pod.pod.clone() });
                    }
                    self.end(ix, Phase::Failed, &message);
                }
                State::Suspend | State::Retry { .. } => {
                    // A Retry node that waits for its next attempt has no running child to end it.
                    let idle = node.children.last().is_none_or(|child| self.nodes[*child].phase.ended());
                    if idle || matches!(node.state, State::Suspend) {
                        self.end(ix, Phase::Failed, &message);
                    }
                }
                _ => {}
            }
        }
    }

    fn next_token(&mut self) -> u32 {
        self.tokens += 1;
        self.tokens
    }

    /// Starts waiting pods while there is room.
    fn drain_queue(&mut self) {
        while self.has_room() {
            let Some(ix) = self.queue.pop_front() else { break };
            if !self.nodes[ix].phase.ended() {
                self.order_pod(ix);
            }
        }
    }

    fn has_room(&self) -> bool {
        let limit = self.plan.parallelism.filter(|limit| *limit > 0);
        !self.suspended && limit.is_none_or(|limit| self.active.len() < limit as usize)
    }

    /// Values of workflow-wide status for tags and exit handlers.
    pub fn workflow_status(&self) -> &'static str {
        let root = self.root.map(|ix| self.nodes[ix].phase);
        match root {
            Some(phase) if phase.ended() => phase.word(),
            _ => "Running",
        }
    }

    /// The failed nodes, as `workflow.failures` lists them.
    pub fn failures(&self) -> serde_json::Value {
        let failed = self.nodes.iter().filter(|node| node.phase.bad() && node.kind == Kind::Pod);
        let list = failed.map(|node| {
            serde_json::json!({
                "displayName": node.display,
                "message": node.message,
                "templateName": node.template.map_or("", |at| self.plan.templates[at].name.as_str()),
                "phase": node.phase.word(),
                "podName": match &node.state { State::Pod(pod) => pod.pod.as_str(), _ => "" },
                "finishedAt": node.finished.map(crate::text::rfc3339),
            })
        });
        list.collect()
    }

    /// A member of a group (task of a dag, step of steps) by name.
    pub fn member(&self, group: Ix, name: &str) -> Option<Ix> {
        match &self.nodes[group].state {
            State::Dag(dag) => dag.members.get(name).copied(),
            State::Steps { members, .. } => members.get(name).copied(),
            _ => None,
        }
    }

    /// Every member of a group.
    pub fn members(&self, group: Ix) -> BTreeMap<&str, Ix> {
        match &self.nodes[group].state {
            State::Dag(DagState { members, .. }) | State::Steps { members, .. } => {
                members.iter().map(|(name, ix)| (name.as_str(), *ix)).collect()
            }
            _ => BTreeMap::new(),
        }
    }
}

/// Stands for the whole workflow among timers.
const DEADLINE: Ix = usize::MAX;
