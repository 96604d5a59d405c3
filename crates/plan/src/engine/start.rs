//! Making nodes: from a task to the pods, groups and waits it comes down to.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::Value;

use super::{Action, DEPTH_MAX, DagState, Engine, Ix, Kind, NODES_MAX, Node, PodState, Stage, State};
use crate::ids;
use crate::model::{Body, Gate, Phase, Repeat, Task};
use crate::values::Values;
use crate::{Error, argo, kfp, text};

impl Engine {
    /// A new node, running from now.
    #[expect(clippy::too_many_arguments, reason = "the fields every node has")]
    pub(super) fn add(
        &mut self,
        parent: Option<Ix>,
        boundary: Option<Ix>,
        task: Option<&Arc<Task>>,
        name: String,
        display: String,
        kind: Kind,
        state: State,
        depth: u32,
    ) -> Ix {
        let ix = self.nodes.len();
        let (key, id) = self.identify(&name);
        self.keys.insert(key, ix);
        let in_hook = self.starting_hook || parent.or(boundary).is_some_and(|up| self.nodes[up].in_hook);
        self.nodes.push(Node {
            parent,
            boundary,
            hook_of: None,
            name,
            display,
            key,
            id,
            kind,
            template: None,
            task: task.cloned(),
            item: None,
            iteration: None,
            depth,
            in_hook,
            hidden: false,
            phase: Phase::Running,
            message: String::new(),
            started: self.now,
            finished: None,
            inputs: Values::default(),
            outputs: Values::default(),
            children: Vec::new(),
            hook_nodes: Vec::new(),
            state,
            hooks_open: 0,
            hooks_begun: Vec::new(),
            attempt: None,
            told: false,
        });
        if let Some(parent) = parent {
            self.nodes[parent].children.push(ix);
        }
        ix
    }

    /// Hash and id of a name. Argo's 32 bits collide above some ten thousand nodes; the later one is salted.
    fn identify(&self, name: &str) -> (u32, String) {
        let workflow = &self.plan.identity.name;
        let mut key = ids::fnv1a(name);
        let mut salt = 0;
        while self.keys.contains_key(&key) {
            salt += 1;
            key = ids::fnv1a(&format!("{name}#{salt}"));
        }
        let id = if salt == 0 { ids::node_id(workflow, name) } else { format!("{workflow}-{key}") };
        (key, id)
    }

    /// Starts one use of a template, its loop included. Returns the node that stands for it.
    #[expect(clippy::too_many_arguments, reason = "where the task stands")]
    pub(super) fn start_task(
        &mut self,
        parent: Option<Ix>,
        boundary: Option<Ix>,
        task: &Arc<Task>,
        name: String,
        display: String,
        item: Option<Value>,
        iteration: Option<u32>,
        depth: u32,
        expanded: bool,
    ) -> Ix {
        if !expanded && task.repeat.is_some() {
            return self.start_loop(parent, boundary, task, name, display, depth);
        }
        match self.gate(boundary, task, item.as_ref()) {
            Ok(true) => {}
            Ok(false) => {
                let ix =
                    self.add(parent, boundary, Some(task), name, display, Kind::Skipped, State::None, depth);
                self.nodes[ix].iteration = iteration;
                let message = match &task.gate {
                    Some(Gate::When(text)) => format!("when '{text}' evaluated false"),
                    _ => "the condition is false".into(),
                };
                self.end(ix, Phase::Skipped, &message);
                return ix;
            }
            Err(error) => return self.start_failed(parent, boundary, task, name, display, depth, &error),
        }
        let resolved = self.resolve_template(boundary, task, item.as_ref()).and_then(|template| {
            let inputs = self.resolve_inputs(boundary, task, item.as_ref(), template)?;
            Ok((template, inputs))
        });
        let (template, inputs) = match resolved {
            Ok(found) => found,
            Err(error) => return self.start_failed(parent, boundary, task, name, display, depth, &error),
        };
        let plan = self.plan.clone();
        let retry = task.retry.as_ref().or(plan.templates[template].retry.as_ref());
        let ix = if retry.is_some() {
            let state = State::Retry { attempts: 0 };
            let ix = self.add(parent, boundary, Some(task), name, display, Kind::Retry, state, depth);
            self.nodes[ix].template = Some(template);
            self.nodes[ix].inputs = inputs;
            self.nodes[ix].item = item;
            self.nodes[ix].iteration = iteration;
            self.next_attempt(ix);
            ix
        } else {
            self.start_body(
                parent, boundary, task, name, display, template, inputs, item, iteration, depth, None,
            )
        };
        self.node_hooks(ix);
        ix
    }

    #[expect(clippy::too_many_arguments, reason = "where the task stands")]
    fn start_failed(
        &mut self,
        parent: Option<Ix>,
        boundary: Option<Ix>,
        task: &Arc<Task>,
        name: String,
        display: String,
        depth: u32,
        error: &Error,
    ) -> Ix {
        let ix = self.add(parent, boundary, Some(task), name, display, Kind::Skipped, State::None, depth);
        self.end(ix, Phase::Error, &error.0);
        ix
    }

    /// Starts what a template does, once.
    #[expect(clippy::too_many_arguments, reason = "where the task stands")]
    pub(super) fn start_body(
        &mut self,
        parent: Option<Ix>,
        boundary: Option<Ix>,
        task: &Arc<Task>,
        name: String,
        display: String,
        template: usize,
        inputs: Values,
        item: Option<Value>,
        iteration: Option<u32>,
        depth: u32,
        attempt: Option<u32>,
    ) -> Ix {
        let plan = self.plan.clone();
        let body = &plan.templates[template].body;
        let (kind, state) = match body {
            Body::Pod => (Kind::Pod, State::Pod(PodState::default())),
            Body::Import => (Kind::Pod, State::None),
            Body::Suspend(_) => (Kind::Suspend, State::Suspend),
            Body::Steps(_) => (Kind::Steps, State::Steps { group: 0, members: Default::default() }),
            Body::Dag(_) => (Kind::Dag, State::Dag(DagState::default())),
            Body::Refused(_) => (Kind::Skipped, State::None),
        };
        let ix = self.add(parent, boundary, Some(task), name, display, kind, state, depth + 1);
        let node = &mut self.nodes[ix];
        node.template = Some(template);
        node.inputs = inputs;
        node.item = item;
        node.iteration = iteration;
        node.attempt = attempt;
        let in_hook = node.in_hook;
        if depth >= DEPTH_MAX {
            self.end(ix, Phase::Error, &format!("max recursion depth exceeded: {DEPTH_MAX} templates"));
            return ix;
        }
        if self.nodes.len() > NODES_MAX {
            self.end(ix, Phase::Error, &format!("the workflow has more than {NODES_MAX} nodes"));
            return ix;
        }
        if let Some(shutdown) = self.shutdown.clone()
            && (shutdown.terminate || !in_hook)
        {
            self.end(ix, Phase::Failed, &shutdown.message);
            return ix;
        }
        match body {
            Body::Pod => self.start_pod(ix),
            Body::Import => self.import(ix),
            Body::Suspend(duration) => self.start_suspend(ix, duration.as_deref()),
            Body::Steps(_) => self.start_group(ix, 0),
            Body::Dag(_) => self.start_dag(ix),
            Body::Refused(why) => self.end(ix, Phase::Error, why),
        }
        ix
    }

    fn start_suspend(&mut self, ix: Ix, duration: Option<&str>) {
        let Some(duration) = duration else { return };
        match argo::resolve::own_text(self, ix, duration).and_then(|text| text::duration_ms(&text)) {
            Ok(ms) => {
                self.timers.insert((self.now.saturating_add(ms), ix));
            }
            Err(error) => self.end(ix, Phase::Error, &error.0),
        }
    }

    fn import(&mut self, ix: Ix) {
        match kfp::outputs::imported(self, ix) {
            Ok(outputs) => {
                self.nodes[ix].outputs = outputs;
                self.end(ix, Phase::Succeeded, "");
            }
            Err(error) => self.end(ix, Phase::Error, &error.0),
        }
    }

    fn start_pod(&mut self, ix: Ix) {
        self.pods_known += 1;
        self.nodes[ix].phase = Phase::Pending;
        let token = self.next_token();
        let key = match kfp::cache_key::of_node(self, ix) {
            Ok(key) => key,
            Err(error) => return self.end(ix, Phase::Error, &error.0),
        };
        let node_key = self.nodes[ix].key;
        let State::Pod(pod) = &mut self.nodes[ix].state else { return };
        pod.token = token;
        if let Some(key) = key {
            pod.stage = Stage::Asked;
            pod.cache = Some((Box::new(key.clone()), false));
            self.actions.push(Action::Lookup { node: node_key, token, key: Box::new(key) });
            return;
        }
        self.enqueue(ix);
    }

    /// Orders the pod now, or when there is room.
    pub(super) fn enqueue(&mut self, ix: Ix) {
        if let State::Pod(pod) = &mut self.nodes[ix].state {
            pod.stage = Stage::Queued;
        }
        if self.has_room() {
            self.order_pod(ix);
        } else {
            self.queue.push_back(ix);
        }
    }

    pub(super) fn order_pod(&mut self, ix: Ix) {
        let order = match self.plan.front {
            crate::model::Front::Argo(_) => argo::pod::order(self, ix),
            crate::model::Front::Kfp(_) => kfp::pod::order(self, ix),
        };
        let order = match order {
            Ok(order) => Arc::new(order),
            Err(error) => return self.end(ix, Phase::Error, &error.0),
        };
        let node = self.nodes[ix].key;
        let State::Pod(pod) = &mut self.nodes[ix].state else { return };
        pod.pod.clone_from(&order.name);
        pod.order = Some(order);
        pod.stage = Stage::Ordered;
        let token = pod.token;
        self.active.insert(ix);
        self.actions.push(Action::StartPod { node, token });
    }

    fn start_loop(
        &mut self,
        parent: Option<Ix>,
        boundary: Option<Ix>,
        task: &Arc<Task>,
        name: String,
        display: String,
        depth: u32,
    ) -> Ix {
        // KFP decides once whether the loop runs; Argo decides for each item.
        let kfp = matches!(task.repeat, Some(Repeat::Parameter(..) | Repeat::Artifact(..)));
        let open = if kfp { self.gate(boundary, task, None) } else { Ok(true) };
        let items = match (open, &task.repeat) {
            (Ok(false), _) => {
                let ix =
                    self.add(parent, boundary, Some(task), name, display, Kind::Skipped, State::None, depth);
                self.end(ix, Phase::Skipped, "the condition is false");
                return ix;
            }
            (Err(error), _) => {
                return self.start_failed(parent, boundary, task, name, display, depth, &error);
            }
            (Ok(true), Some(repeat)) => self.loop_items(boundary, task, repeat),
            (Ok(true), None) => Ok(Vec::new()),
        };
        let items = match items {
            Ok(items) => items,
            Err(error) => return self.start_failed(parent, boundary, task, name, display, depth, &error),
        };
        let in_steps = boundary.is_some_and(|group| self.nodes[group].kind == Kind::Steps);
        if items.is_empty() {
            let ix = self.add(parent, boundary, Some(task), name, display, Kind::Skipped, State::None, depth);
            self.nodes[ix].outputs = self.empty_loop(task);
            self.end(ix, Phase::Skipped, "Skipped, empty params");
            return ix;
        }
        let waiting: VecDeque<(u32, Value)> = items
            .into_iter()
            .enumerate()
            .map(|(at, item)| (u32::try_from(at).unwrap_or(u32::MAX), item))
            .collect();
        let state = State::Loop { open: 0, waiting };
        let ix = self.add(parent, boundary, Some(task), name, display, Kind::TaskGroup, state, depth);
        self.nodes[ix].hidden = in_steps;
        self.more_items(ix);
        self.node_hooks(ix);
        ix
    }

    /// Starts items of a loop while its limit allows.
    pub(super) fn more_items(&mut self, ix: Ix) {
        let Some(task) = self.nodes[ix].task.clone() else { return };
        let limit = task.at_once.filter(|limit| *limit > 0).map_or(usize::MAX, |limit| limit as usize);
        loop {
            let State::Loop { open, waiting } = &mut self.nodes[ix].state else { return };
            if *open >= limit {
                return;
            }
            let Some((at, item)) = waiting.pop_front() else { return };
            *open += 1;
            let (boundary, depth) = (self.nodes[ix].boundary, self.nodes[ix].depth);
            let suffix = argo::loops::item_name(&task, at, &item);
            let name = format!("{}({suffix})", self.nodes[ix].name);
            let display = format!("{}({suffix})", self.nodes[ix].display);
            self.start_task(Some(ix), boundary, &task, name, display, Some(item), Some(at), depth, true);
        }
    }

    fn gate(&self, boundary: Option<Ix>, task: &Task, item: Option<&Value>) -> Result<bool, Error> {
        match &task.gate {
            None => Ok(true),
            Some(Gate::When(text)) => argo::resolve::when(self, boundary, item, text),
            Some(Gate::Cel(code)) => kfp::resolve::condition(self, boundary, task, item, code),
        }
    }

    fn loop_items(&self, boundary: Option<Ix>, task: &Task, repeat: &Repeat) -> Result<Vec<Value>, Error> {
        match repeat {
            Repeat::Items(_) | Repeat::Param(_) | Repeat::Sequence(_) => {
                argo::loops::items(self, boundary, task, repeat)
            }
            Repeat::Parameter(binding, _) => kfp::resolve::loop_items(self, boundary, binding),
            Repeat::Artifact(binding, _) => kfp::resolve::loop_artifacts(self, boundary, binding),
        }
    }

    fn resolve_inputs(
        &self,
        boundary: Option<Ix>,
        task: &Task,
        item: Option<&Value>,
        template: usize,
    ) -> Result<Values, Error> {
        match self.plan.front {
            crate::model::Front::Argo(_) => argo::resolve::inputs(self, boundary, task, item, template),
            crate::model::Front::Kfp(_) => kfp::resolve::inputs(self, boundary, task, item, template),
        }
    }

    fn resolve_template(
        &self,
        boundary: Option<Ix>,
        task: &Task,
        item: Option<&Value>,
    ) -> Result<usize, Error> {
        match &task.uses {
            crate::model::Use::At(place) => Ok(*place),
            crate::model::Use::Named(scope, text) => {
                let name = argo::resolve::text(self, boundary, item, text)?;
                let place = self.plan.names.get(&(scope.clone(), name.clone())).copied();
                place.ok_or_else(|| Error::new(format!("template name '{name}' undefined")))
            }
        }
    }
}
