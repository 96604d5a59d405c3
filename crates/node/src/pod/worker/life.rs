//! A container's life as its shim and its probes tell it: started, probed, stopped, ended.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Container as ContainerObject;
use pod_protocol::shim::{CREATE_ERROR, Exit, Request, START_ERROR, Started, folder};

use super::{Message, Setup, Worker, object_of, restart_policy, unknown_exit};
use crate::folder::{self as files, PodFolder};
use crate::pod::decide::{self, Phase, RestartPolicy};
use crate::pod::prepare::Failure;
use crate::pod::probe::{self, Finding, Kind, Report, Target};
use crate::shim;

/// What is kept of a termination message, and of a log that stands in for one.
const MESSAGE_BYTES_MAX: usize = 4096;
const MESSAGE_LOG_BYTES_MAX: usize = 2048;
/// Grace when a pod object vanished without one.
const ORPHAN_GRACE_S: i64 = 1;

impl Worker {
    pub(super) fn started(&mut self, name: &str, started: &Started) {
        let since = started.started_at.parse().unwrap_or_else(|_| Timestamp::now());
        let Some(object) = object_of(&self.pod, name) else { return };
        let Some(container) = self.container(name) else { return };
        container.phase = Phase::Running { since };
        container.waiting = None;
        container.stopping = false;
        container.condemned = false;
        container.started = object.startup_probe.is_none();
        container.ready = container.started && object.readiness_probe.is_none();
        let attempt = container.attempt;
        self.watch_probes(name, attempt, object);
    }

    pub(super) fn exited(&mut self, name: &str, attempt: u32, mut exit: Exit) {
        self.folder.prune(name, attempt);
        if exit.reason.as_deref() == Some(CREATE_ERROR) {
            // Nothing ran: the attempt does not count, and its folder makes room for the next try.
            let _ = std::fs::remove_dir_all(self.folder.attempt(name, attempt));
            let message = exit.message.take().unwrap_or_default();
            return self.back_to_wait(name, Some(Failure { reason: CREATE_ERROR.into(), message }));
        }
        if exit.reason.as_deref() == Some(START_ERROR) {
            let message = format!(
                "failed to create containerd task: failed to create shim task: OCI runtime create failed: unable to \
                 start container process: {}: unknown",
                exit.message.take().unwrap_or_default()
            );
            self.context.events.warning(&self.pod, Some(name), "Failed", format!("Error: {message}"));
            exit.message = Some(message);
        }
        self.ended(name, exit);
        let policy = restart_policy(&self.pod);
        let (pod, namespace) = (self.pod.metadata.name.clone(), self.pod.metadata.namespace.clone());
        let uid = self.uid.clone();
        if let Some(container) = self.container(name)
            && container.quick_ends > 1
            && policy != RestartPolicy::Never
        {
            let message = format!(
                "Back-off restarting failed container {name} in pod {}_{}({uid})",
                pod.unwrap_or_default(),
                namespace.unwrap_or_default()
            );
            self.context.events.warning(&self.pod, Some(name), "BackOff", message);
        }
    }

    /// Takes an end into account, whether just told or read from the folder.
    pub(super) fn ended(&mut self, name: &str, mut exit: Exit) {
        for task in self.probes.remove(name).into_iter().flatten() {
            task.abort();
        }
        if exit.message.is_none()
            && let Some(object) = object_of(&self.pod, name)
            && let Some(container) = self.container(name)
        {
            let attempt = container.attempt;
            exit.message = termination_message(&self.folder, &object, attempt, &exit);
        }
        let Some(container) = self.container(name) else { return };
        let at = exit.finished_at.parse().unwrap_or_else(|_| Timestamp::now());
        if let Phase::Running { since } = container.phase {
            container.quick_ends = decide::quick_ends(container.quick_ends, at.duration_since(since));
        } else if container.phase == Phase::Starting {
            container.quick_ends += 1;
        }
        container.phase = Phase::Exited { exit, at };
        (container.started, container.ready) = (false, false);
        (container.condemned, container.stopping) = (false, false);
    }

    /// The shim died: its containers died with it, and their codes are what they left, or unknown.
    pub(super) async fn shim_gone(&mut self) {
        (self.shim, self.events) = (None, None);
        self.setup = match std::mem::replace(&mut self.setup, Setup::None) {
            Setup::Busy => Setup::Busy,
            _ => Setup::None,
        };
        let running: Vec<(String, u32, bool)> = self
            .containers
            .iter()
            .filter(|container| matches!(container.phase, Phase::Running { .. } | Phase::Starting))
            .map(|container| (container.name.clone(), container.attempt, container.is_running()))
            .collect();
        for (name, attempt, was_running) in running {
            let place = self.folder.attempt(&name, attempt);
            let started: Option<Started> = files::read(&place.join(folder::STARTED)).ok();
            if let Some(started) = &started {
                shim::end_orphan(started).await;
            }
            match (files::read::<Exit>(&place.join(folder::EXIT)).ok(), started) {
                (Some(exit), _) => self.exited(&name, attempt, exit),
                (None, None) if !was_running => self.back_to_wait(&name, None),
                (None, started) => {
                    let exit = unknown_exit(&started.unwrap_or_default());
                    let _ = files::write(&place.join(folder::EXIT), &exit);
                    self.ended(&name, exit);
                }
            }
        }
        if !self.finished {
            let message = "The pod's shim died and its containers with it";
            self.context.events.warning(&self.pod, None, "SandboxChanged", message);
        }
    }

    pub(super) fn watch_probes(&mut self, name: &str, attempt: u32, object: ContainerObject) {
        let Some(ip) = self.address.as_ref().map(|address| address.ip.to_string()) else { return };
        let started = self.container(name).is_some_and(|container| container.started);
        let target = Target { container: Arc::new(object.clone()), ip, folder: self.folder.clone() };
        let all = match started {
            false => vec![(Kind::Startup, object.startup_probe)],
            true => vec![(Kind::Liveness, object.liveness_probe), (Kind::Readiness, object.readiness_probe)],
        };
        let tasks = self.probes.entry(name.to_owned()).or_default();
        for (kind, probe) in all {
            let Some(probe) = probe else { continue };
            let inbox = self.inbox.clone();
            let report = move |report: Report| {
                let _ = inbox.try_send(Message::Probe(report));
            };
            tasks.push(probe::watch(target.clone(), attempt, kind, probe, report));
        }
    }

    pub(super) fn probed(&mut self, (name, attempt, kind, finding): Report) {
        let Some(container) = self.container(&name) else { return };
        if container.attempt != attempt || !container.is_running() || container.stopping {
            return;
        }
        let mut say = None;
        match (kind, finding) {
            (Kind::Startup, Finding::Good) => container.started = true,
            (Kind::Readiness, Finding::Good) => container.ready = true,
            (Kind::Liveness, Finding::Good) => {}
            (_, Finding::Failed(message)) => say = Some(message),
            (Kind::Readiness, Finding::Bad(message)) => {
                container.ready = false;
                say = Some(message);
            }
            (Kind::Liveness | Kind::Startup, Finding::Bad(message)) => {
                container.condemned = true;
                say = Some(message);
            }
        }
        let (begins, condemned) = (kind == Kind::Startup && container.started, container.condemned);
        if let Some(message) = say {
            let text = format!("{} probe failed: {message}", kind.word());
            self.context.events.warning(&self.pod, Some(&name), "Unhealthy", text);
        }
        if condemned {
            let text =
                format!("Container {name} failed {} probe, will be restarted", kind.word().to_lowercase());
            self.context.events.normal(&self.pod, Some(&name), "Killing", text);
        }
        if begins && let Some(object) = object_of(&self.pod, &name) {
            let ready = object.readiness_probe.is_none();
            if let Some(container) = self.container(&name) {
                container.ready = ready;
            }
            self.watch_probes(&name, attempt, object);
        }
    }

    pub(super) async fn stop(&mut self, name: &str) {
        let grace_s = self.grace_s();
        let Some(object) = object_of(&self.pod, name) else { return };
        let Some(container) = self.container(name) else { return };
        container.stopping = true;
        if !container.condemned {
            self.context.events.normal(
                &self.pod,
                Some(name),
                "Killing",
                format!("Stopping container {name}"),
            );
        }
        let Some(shim) = self.shim.clone() else { return };
        let ip = self.address.as_ref().map(|address| address.ip.to_string()).unwrap_or_default();
        let hook = object.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.clone());
        let target = Target { container: Arc::new(object), ip, folder: self.folder.clone() };
        let name = name.to_owned();
        tokio::spawn(async move {
            let begun = tokio::time::Instant::now();
            let grace = Duration::from_secs(grace_s.max(0) as u64);
            if let Some(hook) = hook.filter(|_| !grace.is_zero()) {
                let _ = tokio::time::timeout(grace, probe::hook(&target, &hook)).await;
            }
            // A hook that used the whole grace leaves the container two more seconds, as upstream.
            let left = grace.saturating_sub(begun.elapsed()).max(Duration::from_secs(2).min(grace));
            shim.ask(Request::Stop { container: name, signal: None, grace_ms: left.as_millis() as u64 })
                .await;
        });
    }

    pub(super) fn grace_s(&self) -> i64 {
        let spec = self.pod.spec.as_ref();
        let of_spec = spec.and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(30);
        if self.gone {
            return ORPHAN_GRACE_S.min(of_spec);
        }
        self.pod.metadata.deletion_grace_period_seconds.unwrap_or(of_spec)
    }
}

fn termination_message(
    folder: &PodFolder,
    object: &ContainerObject,
    attempt: u32,
    exit: &Exit,
) -> Option<String> {
    let place = folder.attempt(&object.name, attempt);
    let text = files::read_bounded(&place.join("termination-log"), MESSAGE_BYTES_MAX).unwrap_or_default();
    if !text.is_empty() {
        return Some(text);
    }
    let from_log =
        object.termination_message_policy.as_deref() == Some("FallbackToLogsOnError") && exit.code != 0;
    from_log
        .then(|| crate::logs::tail(&place.join(folder::LOG), MESSAGE_LOG_BYTES_MAX))
        .filter(|text| !text.is_empty())
}
