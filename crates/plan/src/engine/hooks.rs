//! Retries, exit handlers and lifecycle hooks.

use super::{Engine, HookOf, Ix, State};
use crate::model::{Hook, Phase, Retry, Task};
use crate::{Error, argo, text};

impl Engine {
    // Retries.

    /// Starts the next attempt of a Retry node.
    pub(super) fn next_attempt(&mut self, ix: Ix) {
        let State::Retry { attempts } = &mut self.nodes[ix].state else { return };
        let number = *attempts;
        *attempts += 1;
        let node = &self.nodes[ix];
        let (Some(template), Some(task)) = (node.template, node.task.clone()) else { return };
        let name = format!("{}({number})", node.name);
        let display = format!("{}({number})", node.display);
        let (boundary, depth) = (node.boundary, node.depth);
        let (inputs, item, iteration) = (node.inputs.clone(), node.item.clone(), node.iteration);
        self.start_body(
            Some(ix),
            boundary,
            &task,
            name,
            display,
            template,
            inputs,
            item,
            iteration,
            depth,
            Some(number),
        );
    }

    pub(super) fn attempt_ended(&mut self, ix: Ix, child: Ix) {
        let (phase, message) = (self.nodes[child].phase, self.nodes[child].message.clone());
        self.nodes[ix].outputs = self.nodes[child].outputs.clone();
        if !phase.bad() {
            return self.end(ix, phase, "");
        }
        match self.retry_at(ix, child, phase) {
            // It began and ended within one event, so nobody but the plan had a say: the next one would end as it did.
            Ok(Some(at)) if at <= self.now && child >= self.nodes_before => self.end(ix, phase, &message),
            Ok(Some(at)) if at <= self.now => self.next_attempt(ix),
            Ok(Some(at)) => {
                self.timers.insert((at, ix));
            }
            Ok(None) => {
                let exhausted = if self.shutdown.is_none() && self.nodes[ix].children.len() > 1 {
                    "No more retries left"
                } else {
                    &message
                };
                let exhausted = exhausted.to_owned();
                self.end(ix, phase, &exhausted);
            }
            Err(error) => self.end(ix, Phase::Error, &error.0),
        }
    }

    /// When the next attempt is due; `None`: there is none.
    fn retry_at(&self, ix: Ix, child: Ix, phase: Phase) -> Result<Option<i64>, Error> {
        let Some(retry) = self.retry_of(ix) else { return Ok(None) };
        let shut = self.shutdown.is_some() && !self.nodes[ix].in_hook;
        if shut || !retry.covers(phase) {
            return Ok(None);
        }
        let State::Retry { attempts } = self.nodes[ix].state else { return Ok(None) };
        let read = |text: &Option<String>| -> Result<Option<String>, Error> {
            text.as_deref().map(|text| argo::resolve::own_text(self, ix, text)).transpose()
        };
        if let Some(limit) = read(&retry.limit)? {
            let limit: u32 = limit
                .trim()
                .parse()
                .map_err(|_| Error::new(format!("retryStrategy.limit {limit:?} is no number")))?;
            if attempts > limit {
                return Ok(None);
            }
        }
        if let Some(expression) = &retry.expression
            && !argo::resolve::retry_condition(self, ix, child, expression)?
        {
            return Ok(None);
        }
        let Some(pause) = read(&retry.pause)? else { return Ok(Some(self.now)) };
        let mut pause = text::duration_ms(&pause)? as f64;
        if let Some(factor) = read(&retry.factor)? {
            let factor: f64 = factor
                .trim()
                .parse()
                .map_err(|_| Error::new(format!("backoff.factor {factor:?} is no number")))?;
            pause *= factor.powi(i32::try_from(attempts).unwrap_or(i32::MAX) - 1);
        }
        if let Some(cap) = read(&retry.cap)? {
            pause = pause.min(text::duration_ms(&cap)? as f64);
        }
        let at = self.now.saturating_add(pause as i64);
        if let Some(most) = read(&retry.max_duration)? {
            let last = self.nodes[ix].started.saturating_add(text::duration_ms(&most)?);
            if at > last {
                return Ok(None);
            }
        }
        Ok(Some(at))
    }

    fn retry_of(&self, ix: Ix) -> Option<Retry> {
        let node = &self.nodes[ix];
        let task = node.task.as_ref().and_then(|task| task.retry.clone());
        task.or_else(|| node.template.and_then(|at| self.plan.templates[at].retry.clone()))
    }

    // Hooks of nodes.

    /// Starts hooks of a node whose condition holds now.
    pub(super) fn node_hooks(&mut self, ix: Ix) {
        let Some(task) = self.nodes[ix].task.clone() else { return };
        if !self.owns_hooks(ix) {
            return;
        }
        for hook in task.hooks.iter().filter(|hook| hook.name != "exit") {
            self.try_node_hook(ix, hook);
        }
    }

    /// Items and attempts share their task with the node above; hooks belong to the upper one.
    fn owns_hooks(&self, ix: Ix) -> bool {
        let node = &self.nodes[ix];
        let same = |above: Ix| match (&self.nodes[above].task, &node.task) {
            (Some(upper), Some(own)) => std::sync::Arc::ptr_eq(upper, own),
            _ => false,
        };
        !node.parent.is_some_and(same)
    }

    pub(super) fn end_hooks(&mut self, ix: Ix) {
        let Some(task) = self.nodes[ix].task.clone() else { return };
        let terminated = self.shutdown.as_ref().is_some_and(|shutdown| shutdown.terminate);
        let ran = !matches!(self.nodes[ix].phase, Phase::Omitted | Phase::Skipped);
        if terminated || !ran || task.hooks.is_empty() || !self.owns_hooks(ix) {
            return;
        }
        for hook in &task.hooks {
            self.try_node_hook(ix, hook);
        }
    }

    fn try_node_hook(&mut self, ix: Ix, hook: &Hook) {
        if self.nodes[ix].hooks_begun.contains(&hook.name) {
            return;
        }
        let exit = hook.name == "exit";
        let due = match &hook.expression {
            None => Ok(exit && self.nodes[ix].phase.ended()),
            Some(_) if exit && !self.nodes[ix].phase.ended() => Ok(false),
            Some(expression) => argo::resolve::hook_condition(self, ix, expression),
        };
        // A condition that cannot be evaluated yet is not true yet.
        if !due.unwrap_or(false) {
            return;
        }
        self.nodes[ix].hooks_begun.push(hook.name.clone());
        self.nodes[ix].hooks_open += 1;
        let suffix = if exit { "onExit".to_owned() } else { format!("hooks.{}", hook.name) };
        let name = format!("{}.{suffix}", self.nodes[ix].name);
        let display = format!("{}.{suffix}", self.nodes[ix].display);
        let (boundary, depth) = (self.nodes[ix].boundary, self.nodes[ix].depth);
        let item = self.nodes[ix].item.clone();
        let child = self.start_hook(boundary, &hook.call, name, display, item, depth);
        self.nodes[child].hook_of = Some(HookOf::Node(ix));
        self.nodes[ix].hook_nodes.push(child);
    }

    fn start_hook(
        &mut self,
        boundary: Option<Ix>,
        call: &std::sync::Arc<Task>,
        name: String,
        display: String,
        item: Option<serde_json::Value>,
        depth: u32,
    ) -> Ix {
        let before = std::mem::replace(&mut self.starting_hook, true);
        let child = self.start_task(None, boundary, call, name, display, item, None, depth, true);
        self.starting_hook = before;
        child
    }

    pub(super) fn node_hook_ended(&mut self, of: Ix, hook: Ix) {
        self.nodes[of].hooks_open -= 1;
        let bad = self.nodes[hook].phase;
        let message = format!("hook '{}' failed", self.nodes[hook].name);
        let node = &mut self.nodes[of];
        if bad.bad() && !node.phase.bad() && node.phase.ended() {
            node.phase = bad;
            node.message = message;
        }
        if self.nodes[of].phase.ended() && self.nodes[of].hooks_open == 0 {
            self.ended.push_back(of);
        }
    }

    // Hooks of the workflow.

    /// Starts hooks of the workflow whose condition holds now.
    pub(super) fn workflow_hooks(&mut self) {
        let plan = self.plan.clone();
        for hook in plan.hooks.iter().filter(|hook| hook.name != "exit") {
            let due = hook.expression.as_deref().map(|code| argo::resolve::workflow_condition(self, code));
            if !self.workflow_hooks_begun.contains(&hook.name) && matches!(due, Some(Ok(true))) {
                self.begin_workflow_hook(hook);
            }
        }
    }

    /// Starts `onExit`, once the entry ended.
    pub(super) fn workflow_exit(&mut self) {
        let plan = self.plan.clone();
        if self.shutdown.as_ref().is_some_and(|shutdown| shutdown.terminate) {
            return;
        }
        for hook in plan.hooks.iter().filter(|hook| hook.name == "exit") {
            let due = hook
                .expression
                .as_deref()
                .map_or(Ok(true), |code| argo::resolve::workflow_condition(self, code));
            if !self.workflow_hooks_begun.contains(&hook.name) && matches!(due, Ok(true)) {
                self.begin_workflow_hook(hook);
            }
        }
    }

    fn begin_workflow_hook(&mut self, hook: &Hook) {
        self.workflow_hooks_begun.push(hook.name.clone());
        self.workflow_hooks_open += 1;
        let suffix = if hook.name == "exit" { "onExit".to_owned() } else { format!("hooks.{}", hook.name) };
        let name = format!("{}.{suffix}", self.plan.identity.name);
        let child = self.start_hook(None, &hook.call, name.clone(), name, None, 0);
        self.nodes[child].hook_of = Some(HookOf::Workflow);
    }

    pub(super) fn workflow_hook_ended(&mut self, _hook: Ix) {
        self.workflow_hooks_open -= 1;
        self.finish_when_idle();
    }
}
