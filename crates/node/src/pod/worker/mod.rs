//! The task of one pod: messages in, steps out, status written.
//!
//! Everything that is known survives in the pod folder and in the API, so the task can end with the server and begin
//! again: it adopts a living shim, or learns from the folder how everything ended.

mod adopt;
mod close;
mod life;
mod setup;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container as ContainerObject, Pod, PodStatus};
use kube::Api;
use pod_protocol::shim::{CREATE_ERROR, Event, Exit, Started};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::Context;
use crate::cgroups;
use crate::folder::PodFolder;
use crate::pod::decide::{Container, Phase, RestartPolicy, Role, Seen, Step, decide};
use crate::pod::prepare::{self, Failure, Prepared, Surroundings};
use crate::pod::probe::Report;
use crate::pod::report::Reporter;
use crate::pod::status;
use crate::shim::{Events, Shim};
use crate::volumes::Tokens;

/// Messages that may wait for one pod's task.
const INBOX_MAX: usize = 256;
/// How often volumes of config maps, secrets and tokens are brought up to date.
const REFRESH: Duration = Duration::from_secs(60);

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
    let worker = Worker::new(context.clone(), pod, inbox.clone());
    Handle { inbox, task: context.work.spawn(worker.run(messages)) }
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
                event = next_event(&mut self.events) => self.take_event(event).await,
                () = sleep => {}
                _ = refresh.tick() => self.refresh().await,
            }
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

    async fn take_event(&mut self, event: Option<Event>) {
        match event {
            None => self.shim_gone().await,
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
