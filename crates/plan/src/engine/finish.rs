//! Ends: of attempts, of nodes, of the workflow. An end is queued and passed upward in `settle`, so
//! that a long chain of skipped tasks costs no stack.

use super::{Action, Engine, Event, HookOf, Ix, Outcome, PodEnd, Stage, State};
use crate::model::{Front, Phase};
use crate::values::Values;
use crate::{argo, kfp};

impl Engine {
    /// A node ends. Twice is once.
    pub(super) fn end(&mut self, ix: Ix, phase: Phase, message: &str) {
        let node = &mut self.nodes[ix];
        if node.phase.ended() && node.finished.is_some() {
            return;
        }
        node.phase = phase;
        message.clone_into(&mut node.message);
        node.finished = Some(self.now);
        if let State::Pod(pod) = &mut node.state {
            pod.stage = Stage::Done;
            pod.order = None;
            self.active.remove(&ix);
            self.pods_done += 1;
        }
        self.ended.push_back(ix);
    }

    /// Passes ends upward until nothing moves.
    pub(super) fn settle(&mut self) {
        loop {
            while let Some(ix) = self.ended.pop_front() {
                self.conclude(ix);
            }
            self.drain_queue();
            if self.ended.is_empty() {
                return;
            }
        }
    }

    fn conclude(&mut self, ix: Ix) {
        if self.nodes[ix].told {
            return;
        }
        self.end_hooks(ix);
        if self.nodes[ix].hooks_open > 0 {
            return;
        }
        self.nodes[ix].told = true;
        self.keep_globals(ix);
        match (self.nodes[ix].hook_of, self.nodes[ix].parent) {
            (Some(HookOf::Node(of)), _) => self.node_hook_ended(of, ix),
            (Some(HookOf::Workflow), _) => self.workflow_hook_ended(ix),
            (None, Some(parent)) => self.tell(parent, ix),
            (None, None) => self.root_ended(),
        }
    }

    pub(super) fn pod_ended(&mut self, ix: Ix, end: &PodEnd) {
        if let State::Pod(pod) = &mut self.nodes[ix].state
            && !end.host.is_empty()
        {
            pod.host.clone_from(&end.host);
        }
        let exit_code = end.exit_code.or(end.report.as_ref().and_then(|report| report.exit_code));
        let outputs = match (&self.plan.front, &end.report) {
            (_, None) => Ok(Values::default()),
            (Front::Argo(_), Some(report)) => argo::outputs::leaf(self, ix, report),
            (Front::Kfp(_), Some(report)) => {
                kfp::outputs::leaf(self, ix, report, end.outcome == Outcome::Succeeded)
            }
        };
        let (mut outputs, problem) = match outputs {
            Ok(outputs) => (outputs, None),
            Err(error) => (Values::default(), Some(error.0)),
        };
        outputs.exit_code = exit_code;
        self.nodes[ix].outputs = outputs;
        let launcher = end.report.as_ref().and_then(|report| report.error.clone());
        let (phase, message) = match (end.outcome, problem.or(launcher)) {
            (Outcome::Succeeded, None) => (Phase::Succeeded, String::new()),
            (Outcome::Succeeded, Some(problem)) => (Phase::Error, problem),
            (Outcome::Failed, problem) => (Phase::Failed, failure(end, exit_code, problem)),
            (Outcome::Error, problem) => (Phase::Error, failure(end, exit_code, problem)),
        };
        // KFP knows one kind of failure that its retry policy covers.
        let kfp = matches!(self.plan.front, Front::Kfp(_));
        let phase = if kfp && phase == Phase::Error && end.outcome == Outcome::Succeeded {
            Phase::Failed
        } else {
            phase
        };
        if phase == Phase::Succeeded {
            self.record(ix);
        }
        self.end(ix, phase, &message);
    }

    /// Offers the outputs of a finished task to the cache.
    fn record(&mut self, ix: Ix) {
        let node = &self.nodes[ix];
        let State::Pod(pod) = &node.state else { return };
        if let Some((key, _)) = &pod.cache {
            let action = Action::Record {
                key: key.clone(),
                outputs: Box::new(node.outputs.clone()),
                node_id: node.id.clone(),
            };
            self.actions.push(action);
        }
    }

    pub(super) fn cache_answered(&mut self, ix: Ix, hit: Option<&Values>) {
        let Some(outputs) = hit else { return self.enqueue(ix) };
        self.nodes[ix].outputs = outputs.clone();
        if let State::Pod(pod) = &mut self.nodes[ix].state
            && let Some((_, known)) = &mut pod.cache
        {
            *known = true;
        }
        self.end(ix, Phase::Succeeded, "");
    }

    /// Outputs with a `globalName` become `workflow.outputs`.
    fn keep_globals(&mut self, ix: Ix) {
        if matches!(self.plan.front, Front::Argo(_)) && self.nodes[ix].phase == Phase::Succeeded {
            let (parameters, artifacts) = argo::outputs::globals(self, ix);
            self.globals.parameters.extend(parameters);
            self.globals.artifacts.extend(artifacts);
        }
    }

    pub(super) fn root_ended(&mut self) {
        self.workflow_hooks();
        self.workflow_exit();
        self.finish_when_idle();
    }

    /// The workflow ends when its entry and its hooks have.
    pub(super) fn finish_when_idle(&mut self) {
        let Some(root) = self.root else { return };
        if self.finished.is_some() || !self.nodes[root].told || self.workflow_hooks_open > 0 {
            return;
        }
        let root = &self.nodes[root];
        let mut phase = if root.phase.bad() { root.phase } else { Phase::Succeeded };
        let mut message = root.message.clone();
        let hooks = self.nodes.iter().filter(|node| node.hook_of == Some(HookOf::Workflow));
        if let Some(bad) = hooks.into_iter().find(|node| node.phase.bad())
            && !phase.bad()
        {
            phase = bad.phase;
            message.clone_from(&bad.message);
        }
        if let Some(shutdown) = &self.shutdown
            && phase.bad()
        {
            message.clone_from(&shutdown.message);
            phase = Phase::Failed;
        }
        if root.phase == Phase::Skipped {
            message.clone_from(&root.message);
        }
        self.phase = Some(phase);
        self.message = message;
        self.finished = Some(self.now);
        self.timers.clear();
        self.actions.push(Action::Finished { phase });
    }

    /// Why the workflow is in its phase.
    pub fn message(&self) -> &str {
        &self.message
    }
}

/// Argo's words for a failed container.
fn failure(end: &PodEnd, exit_code: Option<i32>, problem: Option<String>) -> String {
    match (problem, exit_code) {
        (Some(problem), _) => problem,
        (None, _) if !end.message.is_empty() => end.message.clone(),
        (None, Some(code)) => format!("Error (exit code {code})"),
        (None, None) => "the pod failed".into(),
    }
}

impl Event {
    /// When it happened; none for what carries no time.
    pub fn at(&self) -> Option<i64> {
        match self {
            Self::Begin { at }
            | Self::Running { at, .. }
            | Self::Ended { at, .. }
            | Self::Cache { at, .. }
            | Self::Tick { at }
            | Self::Suspend { at, .. }
            | Self::Resume { at, .. }
            | Self::Shutdown { at, .. } => Some(*at),
            Self::Waiting { .. } => None,
        }
    }
}
