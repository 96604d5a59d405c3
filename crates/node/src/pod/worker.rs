//! The task of one pod: messages in, steps out, status written.
//!
//! Everything that is known survives in the pod folder and in the API, so the task can end with the server and begin
//! again: it adopts a living shim, or learns from the folder how everything ended.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container as ContainerObject, Pod, PodStatus};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use pod_protocol::shim::{CREATE_ERROR, Event, Exit, Request, START_ERROR, Started, folder};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::decide::{self, Container, Phase, RestartPolicy, Role, Seen, Step, Waiting, decide};
use super::prepare::{self, Failure, Prepared, Surroundings};
use super::probe::{self, Finding, Kind, Report, Target};
use super::report::Reporter;
use super::status;
use crate::Context;
use crate::cgroups;
use crate::folder::{self as files, PodFolder};
use crate::shim::{self, Events, Shim};
use crate::volumes::{self, Tokens};

/// Messages that may wait for one pod's task.
const INBOX_MAX: usize = 256;
/// How often volumes of config maps, secrets and tokens are brought up to date.
const REFRESH: Duration = Duration::from_secs(60);
/// First delay after a failed preparation; it doubles up to the restart back-off's bound.
const RETRY_FIRST_S: i64 = 1;
const RETRY_MAX_S: i64 = 300;
/// What is kept of a termination message, and of a log that stands in for one.
const MESSAGE_BYTES_MAX: usize = 4096;
const MESSAGE_LOG_BYTES_MAX: usize = 2048;
/// On a pod: what stood in for the images of its containers, a JSON object by container.
const STAND_IN_ANNOTATION: &str = "slipway.dev/image-stand-in";
/// Grace when a pod object vanished without one.
const ORPHAN_GRACE_S: i64 = 1;

/// What a pod's task is told.
#[derive(Debug)]
pub enum Message {
    /// The object as it is now.
    Pod(Arc<Pod>),
    /// The object is gone from the API.
    Gone,
    /// The surroundings, with the shim when a new one was started.
    Surroundings(Result<(Surroundings, Option<(Shim, Events)>), Failure>, Tokens),
    /// The spec of an attempt is written.
    Prepared(String, u32, Result<Prepared, Failure>),
    /// A probe found something.
    Probe(Report),
}

/// The handle of a pod's task.
#[derive(Debug)]
pub struct Handle {
    /// Its inbox.
    pub inbox: mpsc::Sender<Message>,
    /// The task.
    pub task: JoinHandle<()>,
}

/// Starts the task of a pod that is bound to this node.
pub fn start(context: Arc<Context>, pod: Arc<Pod>) -> Handle {
    let (inbox, messages) = mpsc::channel(INBOX_MAX);
    let worker = Worker::new(context, pod, inbox.clone());
    Handle { inbox, task: tokio::spawn(worker.run(messages)) }
}

/// How far the pod's surroundings are.
enum Setup {
    None,
    Busy,
    Done(Surroundings),
    Failed { until: Timestamp, failures: u32 },
}

struct Worker {
    context: Arc<Context>,
    pod: Arc<Pod>,
    uid: String,
    folder: PodFolder,
    inbox: mpsc::Sender<Message>,
    containers: Vec<Container>,
    setup: Setup,
    /// Failed tries of the setup in a row.
    failures: u32,
    tokens: Tokens,
    address: Option<crate::network::PodAddress>,
    shim: Option<Shim>,
    events: Option<Events>,
    probes: BTreeMap<String, Vec<JoinHandle<()>>>,
    start_time: Timestamp,
    reporter: Reporter,
    /// What stood in for which container's image.
    stand_ins: BTreeMap<String, String>,
    /// The object is gone from the API.
    gone: bool,
    over_deadline: bool,
    finished: bool,
    /// Everything of it is removed; the task ends.
    removed: bool,
}

impl Worker {
    fn new(context: Arc<Context>, pod: Arc<Pod>, inbox: mpsc::Sender<Message>) -> Self {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let folder = PodFolder::new(&context.config.data_dir, &uid);
        let before = pod.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0);
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
        let api = Api::namespaced(context.config.client.clone(), namespace);
        let reporter = Reporter::start(api, pod.metadata.name.clone().unwrap_or_default(), uid.clone());
        Self {
            containers: containers_of(&pod),
            start_time: before.unwrap_or_else(Timestamp::now),
            context,
            uid,
            folder,
            inbox,
            pod,
            setup: Setup::None,
            failures: 0,
            tokens: Tokens::new(),
            address: None,
            shim: None,
            events: None,
            probes: BTreeMap::new(),
            reporter,
            stand_ins: BTreeMap::new(),
            gone: false,
            over_deadline: false,
            finished: false,
            removed: false,
        }
    }

    async fn run(mut self, mut messages: mpsc::Receiver<Message>) {
        self.adopt().await;
        let mut refresh = tokio::time::interval(REFRESH);
        refresh.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        refresh.tick().await;
        loop {
            let wake = self.advance().await;
            if self.removed {
                return;
            }
            let sleep = async {
                match wake {
                    Some(at) => {
                        let left =
                            Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default();
                        tokio::time::sleep(left + Duration::from_millis(1)).await;
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                message = messages.recv() => match message {
                    Some(message) => self.take(message),
                    None => return,
                },
                event = next_event(&mut self.events) => self.take_event(event),
                () = sleep => {}
                _ = refresh.tick() => self.refresh().await,
            }
        }
    }

    /// Learns from the folder what happened before, and joins what still runs.
    async fn adopt(&mut self) {
        if !self.folder.path().exists() {
            return;
        }
        // Before anything else: probes of what runs need it.
        self.address = prepare::attach(&self.context, &self.pod).await.ok();
        let mut running = BTreeMap::new();
        if let Some((shim, mut events)) = shim::adopt(&self.folder).await {
            if let Some(Event::Hello { running: now, .. }) = events.recv().await {
                running = now;
                (self.shim, self.events) = (Some(shim), Some(events));
            }
        }
        for index in 0..self.containers.len() {
            let name = self.containers[index].name.clone();
            let attempts = self.folder.attempts(&name);
            let Some((number, started, exit)) = attempts.last else { continue };
            let runs = running.get(&name) == Some(&number);
            // Asked after the shim: what ended meanwhile has left its record.
            let exit =
                exit.or_else(|| files::read(&self.folder.attempt(&name, number).join(folder::EXIT)).ok());
            let container = &mut self.containers[index];
            container.attempt = number;
            container.previous = attempts.previous;
            container.quick_ends = number + 1;
            match exit {
                Some(exit) => self.ended(&name, exit),
                None if runs => {
                    self.started(&name, &started);
                    self.trust_status(&name, number);
                }
                None => {
                    let exit = unknown_exit(&started);
                    let _ = files::write(&self.folder.attempt(&name, number).join(folder::EXIT), &exit);
                    self.ended(&name, exit);
                }
            }
        }
        let phase = self.pod.status.as_ref().and_then(|status| status.phase.as_deref());
        self.finished = matches!(phase, Some("Succeeded" | "Failed")) && running.is_empty();
        self.over_deadline =
            self.pod.status.as_ref().and_then(|status| status.reason.as_deref()) == Some("DeadlineExceeded");
        if self.finished {
            self.release().await;
        }
    }

    /// What was ready before the server went away counts as ready until a probe says otherwise: a restart of the
    /// server must not take pods out of their Services.
    fn trust_status(&mut self, name: &str, attempt: u32) {
        let status = self.pod.status.as_ref();
        let mut told = status.iter().flat_map(|status| {
            status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten())
        });
        let told = told.find(|told| told.name == name && told.restart_count == attempt as i32).cloned();
        let (Some(told), Some(object)) = (told, object_of(&self.pod, name)) else { return };
        let Some(container) = self.container(name) else { return };
        let was_starting = !container.started;
        container.image_id = told.image_id;
        container.ready |= told.ready;
        container.started |= told.started == Some(true);
        if was_starting && container.started {
            for task in self.probes.remove(name).into_iter().flatten() {
                task.abort();
            }
            self.watch_probes(name, attempt, object);
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Pod(pod) => self.pod = pod,
            Message::Gone => self.gone = true,
            Message::Surroundings(result, tokens) => {
                self.tokens = tokens;
                self.set_up(result);
            }
            Message::Prepared(name, attempt, result) => self.prepared(&name, attempt, result),
            Message::Probe(report) => self.probed(report),
        }
    }

    /// Decides and acts until there is nothing to do now; when to look again.
    async fn advance(&mut self) -> Option<Timestamp> {
        let mut wake = self.deadline();
        if !self.finished {
            let ending = self.is_ending();
            let restart_policy = restart_policy(&self.pod);
            let now = Timestamp::now();
            let seen = Seen { now, restart_policy, containers: &self.containers, ending };
            for step in decide(&seen) {
                match step {
                    Step::Start { container, attempt } => {
                        let later = self.start(&container, attempt).await;
                        wake = earlier(wake, later);
                    }
                    Step::Stop { container } => self.stop(&container).await,
                    Step::Wake { at } => wake = earlier(wake, Some(at)),
                    Step::Finish if matches!(self.setup, Setup::Busy) => {}
                    Step::Finish => {
                        self.finished = true;
                        self.release().await;
                    }
                }
            }
        }
        if !self.gone {
            self.report_status();
        }
        if self.finished && (self.gone || self.pod.metadata.deletion_timestamp.is_some()) {
            self.remove().await;
        }
        wake
    }

    fn is_ending(&self) -> bool {
        self.gone || self.over_deadline || self.pod.metadata.deletion_timestamp.is_some()
    }

    /// `activeDeadlineSeconds`: marks the pod when it is over, else says when it will be.
    fn deadline(&mut self) -> Option<Timestamp> {
        let seconds = self.pod.spec.as_ref().and_then(|spec| spec.active_deadline_seconds)?;
        let at = self.start_time + SignedDuration::from_secs(seconds);
        if self.finished || self.over_deadline {
            return None;
        }
        if at <= Timestamp::now() {
            self.over_deadline = true;
            let message = "Pod was active on the node longer than the specified deadline";
            self.context.events.normal(&self.pod, None, "DeadlineExceeded", message);
            return None;
        }
        Some(at)
    }

    /// Starts an attempt, or what must come before; when to try again if it is not time yet.
    async fn start(&mut self, name: &str, attempt: u32) -> Option<Timestamp> {
        match &self.setup {
            Setup::Busy => return None,
            Setup::Failed { until, .. } if *until > Timestamp::now() => return Some(*until),
            Setup::Done(surroundings) if self.shim.is_some() => {
                let surroundings = surroundings.clone();
                self.prepare(name, attempt, surroundings);
                return None;
            }
            Setup::None | Setup::Failed { .. } | Setup::Done(_) => {}
        }
        self.begin_setup();
        None
    }

    fn begin_setup(&mut self) {
        if let Setup::Failed { failures, .. } = self.setup {
            self.failures = failures;
        }
        self.setup = Setup::Busy;
        let (context, pod, folder) = (self.context.clone(), self.pod.clone(), self.folder.clone());
        let (inbox, mut tokens, has_shim) = (self.inbox.clone(), self.tokens.clone(), self.shim.is_some());
        tokio::spawn(async move {
            let result = async {
                let surroundings = prepare::surroundings(&context, &pod, &folder, &mut tokens).await?;
                let shim = match has_shim {
                    true => None,
                    false => Some(prepare::start_shim(&context, &pod, &folder, &surroundings.address).await?),
                };
                Ok((surroundings, shim))
            };
            let result = result.await;
            let _ = inbox.send(Message::Surroundings(result, tokens)).await;
        });
    }

    fn set_up(&mut self, result: Result<(Surroundings, Option<(Shim, Events)>), Failure>) {
        match result {
            Ok((surroundings, shim)) => {
                self.address = Some(surroundings.address.clone());
                if let Some((shim, events)) = shim {
                    (self.shim, self.events) = (Some(shim), Some(events));
                }
                self.setup = Setup::Done(surroundings);
                self.failures = 0;
                for container in &mut self.containers {
                    container.waiting = None;
                }
            }
            Err(failure) => {
                let failures = self.failures + 1;
                let until = Timestamp::now() + retry_delay(failures);
                self.context.events.warning(&self.pod, None, &failure.reason, failure.message.clone());
                self.setup = Setup::Failed { until, failures };
                if failure.reason == CREATE_ERROR {
                    let (reason, message) = (failure.reason, failure.message);
                    for container in self.containers.iter_mut().filter(|container| !container.is_running()) {
                        let (reason, message) = (reason.clone(), message.clone());
                        container.waiting = Some(Waiting { reason, message, until, failures });
                    }
                }
            }
        }
    }

    fn prepare(&mut self, name: &str, attempt: u32, surroundings: Surroundings) {
        let Some(object) = object_of(&self.pod, name) else { return };
        let Some(container) = self.container(name) else { return };
        if let Phase::Exited { exit, .. } = &container.phase {
            container.previous = Some(exit.clone());
        }
        container.attempt = attempt;
        container.phase = Phase::Starting;
        let (context, pod, folder, inbox) =
            (self.context.clone(), self.pod.clone(), self.folder.clone(), self.inbox.clone());
        let name = name.to_owned();
        tokio::spawn(async move {
            let result = prepare::attempt(&context, &pod, &object, attempt, &folder, &surroundings).await;
            let _ = inbox.send(Message::Prepared(name, attempt, result)).await;
        });
    }

    fn prepared(&mut self, name: &str, attempt: u32, result: Result<Prepared, Failure>) {
        let (ending, shim) = (self.is_ending(), self.shim.clone());
        let Some(container) = self.container(name) else { return };
        if container.phase != Phase::Starting || container.attempt != attempt {
            return;
        }
        let failure = match result {
            Ok(_) if ending => {
                self.back_to_wait(name, None);
                return;
            }
            Ok(prepared) => {
                container.image_id = prepared.image_id;
                container.waiting = None;
                if let Some(what) = prepared.stand_in {
                    self.note_stand_in(name, what);
                }
                let request = Request::Start { container: name.to_owned(), attempt };
                let asked = shim.is_some_and(|shim| shim.try_ask(request));
                if asked {
                    self.context.events.normal(
                        &self.pod,
                        Some(name),
                        "Created",
                        format!("Created container: {name}"),
                    );
                    return;
                }
                Failure { reason: CREATE_ERROR.into(), message: "the pod's shim is gone".into() }
            }
            Err(failure) => failure,
        };
        self.back_to_wait(name, Some(failure));
    }

    /// Says on the pod itself what stood in for its images, beside the status and without holding it up.
    fn note_stand_in(&mut self, name: &str, what: String) {
        if self.stand_ins.insert(name.to_owned(), what).is_some() {
            return;
        }
        let text = serde_json::to_string(&self.stand_ins).unwrap_or_default();
        let patch = json!({"metadata": {"uid": self.uid, "annotations": {STAND_IN_ANNOTATION: text}}});
        let (api, name) = (self.api(), self.name());
        tokio::spawn(async move {
            if let Err(error) = api.patch_metadata(&name, &PatchParams::default(), &Patch::Merge(patch)).await
            {
                tracing::debug!(pod = name, %error, "the stand-in was not noted");
            }
        });
    }

    /// The attempt did not come about: the container is again where it was before it.
    fn back_to_wait(&mut self, name: &str, failure: Option<Failure>) {
        let Some(container) = self.container(name) else { return };
        match (container.attempt, container.previous.take()) {
            (0, _) | (_, None) => container.phase = Phase::New,
            (_, Some(exit)) => {
                container.attempt -= 1;
                let at = exit.finished_at.parse().unwrap_or_else(|_| Timestamp::now());
                container.phase = Phase::Exited { exit, at };
            }
        }
        let Some(failure) = failure else { return };
        let failures = container.waiting.as_ref().map_or(0, |waiting| waiting.failures) + 1;
        let until = Timestamp::now() + retry_delay(failures);
        let (mut reason, mut message) = (failure.reason, failure.message);
        if reason == "ErrImagePull" && failures > 1 {
            message = format!("Back-off pulling image: ErrImagePull: {message}");
            reason = "ImagePullBackOff".into();
        }
        container.waiting =
            Some(Waiting { reason: reason.clone(), message: message.clone(), until, failures });
        let text = if reason.contains("ImagePull") {
            format!("Error: {reason}")
        } else {
            format!("Error: {message}")
        };
        self.context.events.warning(&self.pod, Some(name), "Failed", text);
    }

    fn take_event(&mut self, event: Option<Event>) {
        match event {
            None => self.shim_gone(),
            Some(Event::Started { container, attempt, started }) => {
                if self.container(&container).is_some_and(|known| known.attempt == attempt) {
                    self.started(&container, &started);
                    let message = format!("Started container {container}");
                    self.context.events.normal(&self.pod, Some(&container), "Started", message);
                }
            }
            Some(Event::Exited { container, attempt, exit }) => {
                if self.container(&container).is_some_and(|known| known.attempt == attempt) {
                    self.exited(&container, attempt, exit);
                }
            }
            Some(Event::Refused { message }) => {
                tracing::warn!(pod = %self.uid, message, "the shim refused a request");
                let name = message.split('/').next().unwrap_or_default().to_owned();
                if self.container(&name).is_some_and(|container| container.phase == Phase::Starting) {
                    self.back_to_wait(&name, Some(Failure { reason: CREATE_ERROR.into(), message }));
                }
            }
            Some(Event::Hello { .. } | Event::ExecExited { .. } | Event::Stdin) => {}
        }
    }

    fn started(&mut self, name: &str, started: &Started) {
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

    fn exited(&mut self, name: &str, attempt: u32, mut exit: Exit) {
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
    fn ended(&mut self, name: &str, mut exit: Exit) {
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
    fn shim_gone(&mut self) {
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

    fn watch_probes(&mut self, name: &str, attempt: u32, object: ContainerObject) {
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
                None
            };
            tasks.push(probe::watch(target.clone(), attempt, kind, probe, report));
        }
    }

    fn probed(&mut self, (name, attempt, kind, finding): Report) {
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

    async fn stop(&mut self, name: &str) {
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

    fn grace_s(&self) -> i64 {
        let spec = self.pod.spec.as_ref();
        let of_spec = spec.and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(30);
        if self.gone {
            return ORPHAN_GRACE_S.min(of_spec);
        }
        self.pod.metadata.deletion_grace_period_seconds.unwrap_or(of_spec)
    }

    /// Nothing will run any more: the shim may leave, the address is free.
    async fn release(&mut self) {
        if let Some(shim) = self.shim.take() {
            shim.ask(Request::Shutdown { grace_ms: 0 }).await;
        }
        self.events = None;
        if let Err(error) = self.context.config.network.detach(&self.uid).await {
            tracing::warn!(pod = %self.uid, %error, "the pod's address was not taken back");
        }
        cgroups::remove(&self.context.cgroups, &self.uid);
        let _ = std::fs::remove_dir_all(volumes::memory_folder_of(&self.uid));
    }

    /// Removes the folder and, when it is to be deleted, the object.
    async fn remove(&mut self) {
        if !self.gone {
            self.reporter.flush().await;
            let preconditions = Preconditions { uid: Some(self.uid.clone()), resource_version: None };
            let params = DeleteParams {
                preconditions: Some(preconditions),
                ..DeleteParams::default().grace_period(0)
            };
            match self.api().delete(&self.name(), &params).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {}
                Err(error) => {
                    tracing::warn!(pod = %self.uid, %error, "the pod object was not deleted; trying again");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    let _ = self.inbox.try_send(Message::Pod(self.pod.clone()));
                    return;
                }
            }
        }
        if let Err(error) = self.folder.remove() {
            tracing::warn!(pod = %self.uid, %error, "the pod folder was not removed");
        }
        self.removed = true;
    }

    async fn refresh(&mut self) {
        if self.finished || !matches!(self.setup, Setup::Done(_)) {
            return;
        }
        let facts = prepare::facts(&self.context, &self.pod, self.address.as_ref());
        let prepared = self.context.maker.prepare(&self.pod, &facts, &self.folder, &mut self.tokens).await;
        if let Err(failure) = prepared {
            tracing::debug!(pod = %self.uid, volume = failure.volume, message = failure.message, "not refreshed");
        }
    }

    fn report_status(&self) {
        let ended = self
            .over_deadline
            .then_some(("DeadlineExceeded", "Pod was active on the node longer than the specified deadline"));
        let seen = Seen {
            now: Timestamp::now(),
            restart_policy: restart_policy(&self.pod),
            containers: &self.containers,
            ending: self.is_ending(),
        };
        let mut built = status::build(&status::Inputs {
            pod: &self.pod,
            before: self.reporter.last().or_else(|| self.pod.status.clone().map(Arc::new)),
            seen,
            pod_ip: self.address.as_ref().map(|address| address.ip.to_string()),
            host_ip: self.context.config.network.host_ip().to_string(),
            start_time: self.start_time,
            ended,
            finished: self.finished,
        });
        built.qos_class.get_or_insert_with(|| cgroups::qos_class(&self.pod).to_owned());
        if !self.reporter.last().is_some_and(|last| is_same(&last, &built)) {
            self.reporter.report(built);
        }
    }

    fn api(&self) -> Api<Pod> {
        let namespace = self.pod.metadata.namespace.as_deref().unwrap_or("default");
        Api::namespaced(self.context.config.client.clone(), namespace)
    }

    fn name(&self) -> String {
        self.pod.metadata.name.clone().unwrap_or_default()
    }

    fn container(&mut self, name: &str) -> Option<&mut Container> {
        self.containers.iter_mut().find(|container| container.name == name)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        for task in self.probes.values().flatten() {
            task.abort();
        }
    }
}

async fn next_event(events: &mut Option<Events>) -> Option<Event> {
    match events {
        Some(events) => events.recv().await,
        None => std::future::pending().await,
    }
}

fn earlier(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

fn retry_delay(failures: u32) -> SignedDuration {
    let doublings = failures.saturating_sub(1).min(9);
    SignedDuration::from_secs((RETRY_FIRST_S << doublings).min(RETRY_MAX_S))
}

fn is_same(one: &PodStatus, other: &PodStatus) -> bool {
    serde_json::to_value(one).ok() == serde_json::to_value(other).ok()
}

fn restart_policy(pod: &Pod) -> RestartPolicy {
    match pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()) {
        Some("Never") => RestartPolicy::Never,
        Some("OnFailure") => RestartPolicy::OnFailure,
        _ => RestartPolicy::Always,
    }
}

fn containers_of(pod: &Pod) -> Vec<Container> {
    let Some(spec) = &pod.spec else {
        return Vec::new();
    };
    let init = spec.init_containers.iter().flatten().map(|container| {
        let sidecar = container.restart_policy.as_deref() == Some("Always");
        Container::new(&container.name, if sidecar { Role::Sidecar } else { Role::Init })
    });
    init.chain(spec.containers.iter().map(|container| Container::new(&container.name, Role::Main))).collect()
}

fn object_of(pod: &Pod, name: &str) -> Option<ContainerObject> {
    let spec = pod.spec.as_ref()?;
    let mut all = spec.init_containers.iter().flatten().chain(&spec.containers);
    all.find(|container| container.name == name).cloned()
}

/// What is told of a container whose end nobody saw, in the kubelet's words.
fn unknown_exit(started: &Started) -> Exit {
    Exit {
        code: 137,
        signal: None,
        reason: Some("ContainerStatusUnknown".into()),
        message: Some("The container could not be located when the pod was terminated".into()),
        started_at: (!started.started_at.is_empty()).then(|| started.started_at.clone()),
        finished_at: Timestamp::now().to_string(),
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
