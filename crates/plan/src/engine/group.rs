//! Groups: steps, dags and loops, each told when one of its children ended.

use serde_json::Value;

use super::{DagState, Engine, Ix, Kind, State};
use crate::model::{Body, Dag, Front, Phase, Plan, Task};
use crate::ready::Ended;
use crate::values::Values;
use crate::{argo, kfp};

impl Engine {
    /// A child of a group ended.
    pub(super) fn tell(&mut self, parent: Ix, child: Ix) {
        if self.nodes[parent].phase.ended() {
            return;
        }
        match self.nodes[parent].kind {
            Kind::Retry => self.attempt_ended(parent, child),
            Kind::TaskGroup => self.item_ended(parent),
            Kind::StepGroup => self.step_ended(parent),
            Kind::Steps => self.group_ended(parent, child),
            Kind::Dag => self.dag_task_ended(parent, child),
            Kind::Pod | Kind::Suspend | Kind::Skipped => {}
        }
    }

    // Loops.

    fn item_ended(&mut self, ix: Ix) {
        if let State::Loop { open, .. } = &mut self.nodes[ix].state {
            *open -= 1;
        }
        if self.shutdown.is_some() && !self.nodes[ix].in_hook {
            self.forget_waiting(ix);
        }
        self.more_items(ix);
        let State::Loop { open: 0, waiting } = &self.nodes[ix].state else { return };
        if !waiting.is_empty() {
            return;
        }
        let children = self.nodes[ix].children.clone();
        let worst = children.iter().map(|child| self.nodes[*child].phase).find(|phase| phase.bad());
        self.nodes[ix].outputs = match self.plan.front {
            Front::Argo(_) => argo::outputs::aggregate(self, &children),
            Front::Kfp(_) => kfp::outputs::aggregate(self, ix, &children),
        };
        self.end(ix, worst.unwrap_or(Phase::Succeeded), "");
    }

    fn forget_waiting(&mut self, ix: Ix) {
        if let State::Loop { waiting, .. } = &mut self.nodes[ix].state {
            waiting.clear();
        }
    }

    /// Outputs of a loop over nothing.
    pub(super) fn empty_loop(&self, task: &Task) -> Values {
        match self.plan.front {
            Front::Argo(_) => argo::outputs::aggregate(self, &[]),
            Front::Kfp(_) => kfp::outputs::empty_loop(self, task),
        }
    }

    // Steps.

    pub(super) fn start_group(&mut self, ix: Ix, group: usize) {
        let plan = self.plan.clone();
        let Some(groups) = steps_of(&plan, self.nodes[ix].template) else { return };
        let Some(steps) = groups.get(group) else { return self.finish_group(ix, Phase::Succeeded, "") };
        if let State::Steps { group: now, .. } = &mut self.nodes[ix].state {
            *now = group;
        }
        let name = format!("{}[{group}]", self.nodes[ix].name);
        let state = State::StepGroup { open: steps.len(), waiting: (0..steps.len()).collect() };
        let depth = self.nodes[ix].depth;
        let display = format!("[{group}]");
        let child = self.add(Some(ix), Some(ix), None, name, display, Kind::StepGroup, state, depth);
        if steps.is_empty() {
            return self.end(child, Phase::Succeeded, "");
        }
        self.more_steps(ix, child);
    }

    fn more_steps(&mut self, ix: Ix, group: Ix) {
        let plan = self.plan.clone();
        let Some(template) = self.nodes[ix].template else { return };
        let limit = plan.templates[template].parallelism.filter(|limit| *limit > 0);
        let State::Steps { group: place, .. } = self.nodes[ix].state else { return };
        let Some(steps) = steps_of(&plan, Some(template)).and_then(|groups| groups.get(place)) else {
            return;
        };
        loop {
            let running = {
                let ended = |child: &&Ix| !self.nodes[**child].told;
                self.nodes[group].children.iter().filter(ended).count()
            };
            if limit.is_some_and(|limit| running >= limit as usize) {
                return;
            }
            let State::StepGroup { waiting, .. } = &mut self.nodes[group].state else { return };
            let Some(at) = waiting.pop_front() else { return };
            let step = &steps[at];
            let name = format!("{}.{}", self.nodes[group].name, step.name);
            let depth = self.nodes[ix].depth;
            let display = step.display.clone();
            let child = self.start_task(Some(group), Some(ix), step, name, display, None, None, depth, false);
            if let State::Steps { members, .. } = &mut self.nodes[ix].state {
                members.insert(step.name.clone(), child);
            }
        }
    }

    fn step_ended(&mut self, group: Ix) {
        let Some(steps) = self.nodes[group].parent else { return };
        let State::StepGroup { open, .. } = &mut self.nodes[group].state else { return };
        *open -= 1;
        if *open > 0 {
            return self.more_steps(steps, group);
        }
        let bad = self.nodes[group].children.iter().copied().find(|child| {
            let node = &self.nodes[*child];
            node.phase.bad() && !accepted(node.task.as_deref(), node.phase)
        });
        match bad {
            None => self.end(group, Phase::Succeeded, ""),
            Some(child) => {
                let phase = self.nodes[child].phase;
                let message = format!("child '{}' failed", self.nodes[child].id);
                self.end(group, phase, &message);
            }
        }
    }

    fn group_ended(&mut self, ix: Ix, group: Ix) {
        let (phase, message) = (self.nodes[group].phase, self.nodes[group].message.clone());
        if phase != Phase::Succeeded {
            return self.finish_group(ix, phase, &message);
        }
        let State::Steps { group: place, .. } = self.nodes[ix].state else { return };
        self.start_group(ix, place + 1);
    }

    /// A steps or dag node ends, with its outputs.
    fn finish_group(&mut self, ix: Ix, phase: Phase, message: &str) {
        let outputs = match self.plan.front {
            Front::Argo(_) => argo::outputs::group(self, ix),
            Front::Kfp(_) => kfp::outputs::group(self, ix),
        };
        match outputs {
            Ok(outputs) => {
                self.nodes[ix].outputs = outputs;
                self.end(ix, phase, message);
            }
            // A failed group may lack outputs without that being another error.
            Err(_) if phase.bad() => self.end(ix, phase, message),
            Err(error) => self.end(ix, Phase::Error, &error.0),
        }
    }

    // Dags.

    pub(super) fn start_dag(&mut self, ix: Ix) {
        let plan = self.plan.clone();
        let Some(dag) = dag_of(&plan, self.nodes[ix].template) else { return };
        let count = dag.tasks.len();
        self.nodes[ix].state = State::Dag(DagState {
            nodes: vec![None; count],
            missing: dag.tasks.iter().map(|task| task.needs.len()).collect(),
            branch: vec![None; count],
            ..DagState::default()
        });
        for (place, task) in dag.tasks.iter().enumerate() {
            if task.needs.is_empty() {
                self.consider(ix, dag, place);
            }
        }
        self.finish_dag_when_idle(ix, dag);
    }

    /// All that a task looks at has ended: it starts, or never will.
    fn consider(&mut self, ix: Ix, dag: &Dag, place: usize) {
        let task = &dag.tasks[place];
        let State::Dag(state) = &self.nodes[ix].state else { return };
        let stopped = state.stopped && !task.always;
        let shut = self.shutdown.is_some() && !self.nodes[ix].in_hook;
        if stopped || shut {
            return;
        }
        let nodes = &state.nodes;
        let ready = task.ready.holds(&|before| self.ended_of(nodes[before], &dag.tasks[before]));
        if !ready {
            let name = format!("{}.{}", self.nodes[ix].name, task.name);
            let depth = self.nodes[ix].depth;
            let display = task.display.clone();
            let child =
                self.add(Some(ix), Some(ix), Some(task), name, display, Kind::Skipped, State::None, depth);
            self.place_task(ix, place, &task.name, child);
            return self.end(child, Phase::Omitted, "omitted: depends condition not met");
        }
        if let State::Dag(state) = &mut self.nodes[ix].state {
            state.waiting.push_back(place);
        }
        self.more_tasks(ix, dag);
    }

    fn more_tasks(&mut self, ix: Ix, dag: &Dag) {
        let plan = self.plan.clone();
        let limit =
            self.nodes[ix].template.and_then(|at| plan.templates[at].parallelism).filter(|limit| *limit > 0);
        loop {
            let State::Dag(state) = &mut self.nodes[ix].state else { return };
            if limit.is_some_and(|limit| state.open >= limit as usize) {
                return;
            }
            let Some(place) = state.waiting.pop_front() else { return };
            if state.stopped && !dag.tasks[place].always {
                continue;
            }
            let task = &dag.tasks[place];
            let name = format!("{}.{}", self.nodes[ix].name, task.name);
            let depth = self.nodes[ix].depth;
            let display = task.display.clone();
            let child = self.start_task(Some(ix), Some(ix), task, name, display, None, None, depth, false);
            self.place_task(ix, place, &task.name, child);
        }
    }

    fn place_task(&mut self, ix: Ix, place: usize, name: &str, child: Ix) {
        if let State::Dag(state) = &mut self.nodes[ix].state {
            state.nodes[place] = Some(child);
            state.members.insert(name.to_owned(), child);
            state.open += 1;
        }
    }

    fn ended_of(&self, node: Option<Ix>, task: &Task) -> Ended {
        let Some(ix) = node else {
            return Ended { phase: Phase::Omitted, any_succeeded: false, all_failed: false, accepted: false };
        };
        let node = &self.nodes[ix];
        let items: Vec<Phase> = match node.kind {
            Kind::TaskGroup => node.children.iter().map(|child| self.nodes[*child].phase).collect(),
            _ => vec![node.phase],
        };
        Ended {
            phase: node.phase,
            any_succeeded: items.contains(&Phase::Succeeded),
            all_failed: items.iter().all(|phase| *phase == Phase::Failed),
            accepted: accepted(Some(task), node.phase),
        }
    }

    fn dag_task_ended(&mut self, ix: Ix, child: Ix) {
        let plan = self.plan.clone();
        let Some(dag) = dag_of(&plan, self.nodes[ix].template) else { return };
        let State::Dag(state) = &mut self.nodes[ix].state else { return };
        state.open -= 1;
        let Some(task) = self.nodes[child].task.clone() else { return };
        let Some(place) = dag.tasks.iter().position(|known| known.name == task.name) else { return };
        let own = self.nodes[child].phase;
        let State::Dag(state) = &mut self.nodes[ix].state else { return };
        let branch = match own {
            Phase::Omitted => worst(task.needs.iter().filter_map(|before| state.branch[*before])),
            phase if accepted(Some(&task), phase) => Phase::Succeeded,
            phase => phase,
        };
        state.branch[place] = Some(branch);
        if branch.bad() && dag.targets.contains(&place) && self.fails_fast(ix) {
            self.stop_dag(ix);
        }
        for following in &dag.dependents[place] {
            let State::Dag(state) = &mut self.nodes[ix].state else { return };
            state.missing[*following] -= 1;
            if state.missing[*following] == 0 {
                self.consider(ix, dag, *following);
            }
        }
        self.more_tasks(ix, dag);
        self.finish_dag_when_idle(ix, dag);
    }

    fn fails_fast(&self, ix: Ix) -> bool {
        self.nodes[ix].template.is_none_or(|at| self.plan.templates[at].fail_fast)
    }

    fn stop_dag(&mut self, ix: Ix) {
        if let State::Dag(state) = &mut self.nodes[ix].state {
            state.stopped = true;
        }
    }

    fn finish_dag_when_idle(&mut self, ix: Ix, dag: &Dag) {
        let State::Dag(state) = &self.nodes[ix].state else { return };
        if state.open > 0 || !state.waiting.is_empty() || self.nodes[ix].phase.ended() {
            return;
        }
        let phase = worst(dag.targets.iter().filter_map(|place| state.branch[*place]));
        let message = match (&self.shutdown, self.plan.front.is_kfp()) {
            (Some(shutdown), _) if !self.nodes[ix].in_hook => shutdown.message.clone(),
            (_, true) => self.first_failure(ix),
            _ => String::new(),
        };
        let unfinished = state.branch.iter().any(Option::is_none);
        let phase = match phase {
            phase if phase.bad() => phase,
            _ if unfinished && self.shutdown.is_some() => Phase::Failed,
            _ if unfinished && state.branch.iter().flatten().any(|phase| phase.bad()) => Phase::Failed,
            _ => Phase::Succeeded,
        };
        let message = if phase.bad() { message } else { String::new() };
        self.finish_group(ix, phase, &message);
    }

    fn first_failure(&self, ix: Ix) -> String {
        let bad =
            self.nodes[ix].children.iter().map(|child| &self.nodes[*child]).find(|node| node.phase.bad());
        bad.map(|node| match node.message.as_str() {
            "" => format!("task '{}' failed", node.display),
            message => format!("task '{}' failed: {message}", node.display),
        })
        .unwrap_or_default()
    }
}

impl Front {
    /// The vocabulary is KFP's.
    pub fn is_kfp(&self) -> bool {
        matches!(self, Self::Kfp(_))
    }
}

fn steps_of(plan: &Plan, template: Option<usize>) -> Option<&Vec<Vec<std::sync::Arc<Task>>>> {
    match &plan.templates.get(template?)?.body {
        Body::Steps(groups) => Some(groups),
        _ => None,
    }
}

fn dag_of(plan: &Plan, template: Option<usize>) -> Option<&Dag> {
    match &plan.templates.get(template?)?.body {
        Body::Dag(dag) => Some(dag),
        _ => None,
    }
}

/// Whether a task's `continueOn` takes this end for a good one.
fn accepted(task: Option<&Task>, phase: Phase) -> bool {
    let Some(task) = task else { return false };
    (phase == Phase::Failed && task.continue_on.failed) || (phase == Phase::Error && task.continue_on.error)
}

/// Error before Failed before all that is fine.
fn worst(phases: impl Iterator<Item = Phase>) -> Phase {
    phases.fold(Phase::Succeeded, |worst, phase| match (worst, phase) {
        (Phase::Error, _) | (_, Phase::Error) => Phase::Error,
        (Phase::Failed, _) | (_, Phase::Failed) => Phase::Failed,
        _ => Phase::Succeeded,
    })
}

/// A value as a list's element: JSON when the text is JSON of a list or object, else the text.
pub(crate) fn element(text: &str) -> Value {
    match serde_json::from_str::<Value>(text) {
        Ok(value @ (Value::Object(_) | Value::Array(_))) => value,
        _ => Value::String(text.to_owned()),
    }
}
