//! One running workflow: its engine, its journal, and the order of things: journal, then act, then show.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use api::workflow::argo::{PodGc, TtlStrategy};
use api::workflow::{Workflow, WorkflowStatus};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use plan::engine::{Kind, Outcome, PodEnd};
use plan::model::{Front, Phase};
use plan::{Action, Engine, Event};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

use crate::build::FINALIZER;
use crate::controller::{Mail, Mailbox};
use crate::journal::Journal;
use crate::observe::{self, Seen, observe};
use crate::rim::{Ordered, Rim};
use crate::source::Source;
use crate::{CachedOutputs, Error};

/// Calls at once for one workflow.
const CALLS_AT_ONCE: usize = 16;
/// Least pause between two projections of an unchanged phase.
const STATUS_PAUSE: Duration = Duration::from_millis(100);
/// More of it for each node: large objects are written less often.
const STATUS_PAUSE_PER_NODE: Duration = Duration::from_millis(1);
/// Argo's default of `podGC.deleteDelayDuration`.
const GC_DELAY_MS: i64 = 5_000;
/// Longest nap while no timer is set.
const IDLE: Duration = Duration::from_secs(3600);

/// How long the cache may take before it counts as a miss.
const CACHE_PATIENCE: Duration = Duration::from_secs(2);

/// How a workflow's task ended.
#[derive(Debug)]
pub enum Ended {
    /// The workflow ended or is gone.
    Done,
    /// Something failed that may work later.
    Again(Error),
}

/// Whether a workflow has ended.
pub fn finished(workflow: &Workflow) -> bool {
    workflow.status.as_ref().is_some_and(|status| status.finished_at.is_some())
}

/// When a finished workflow is to be deleted, milliseconds since 1970.
pub fn expires_at(workflow: &Workflow) -> Option<i64> {
    let status = workflow.status.as_ref()?;
    let stored = status.stored_workflow_template_spec.as_ref().and_then(|spec| spec.get("ttlStrategy"));
    let strategy = workflow.spec.get("ttlStrategy").or(stored)?;
    let strategy = TtlStrategy::deserialize(strategy).ok()?;
    let seconds = match status.phase.as_str() {
        "Succeeded" => strategy.seconds_after_success,
        _ => strategy.seconds_after_failure,
    };
    let seconds = seconds.or(strategy.seconds_after_completion)?;
    let at: jiff::Timestamp = status.finished_at.as_ref()?.parse().ok()?;
    Some(at.as_millisecond().saturating_add(seconds.saturating_mul(1000)))
}

/// Milliseconds since 1970.
fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// Runs a workflow to its end.
pub async fn run(rim: Rim, workflow: Workflow, mailbox: Arc<Mailbox>, ended: Arc<AtomicBool>) -> Ended {
    if finished(&workflow) {
        return expire(&rim, &workflow, &mailbox).await;
    }
    let mut actor = match Actor::open(rim.clone(), &workflow, mailbox.clone()).await {
        Ok(actor) => actor,
        Err(Error::Spec(why)) => {
            refuse(&rim, &why).await;
            return Ended::Done;
        }
        Err(error) => return Ended::Again(error),
    };
    match actor.work(&workflow).await {
        Ok(()) => {}
        Err(_) if mailbox.is_gone() => return Ended::Done,
        Err(error) => return Ended::Again(error),
    }
    if mailbox.is_gone() {
        return Ended::Done;
    }
    let status = actor.projection();
    actor.clean_up().await;
    ended.store(true, Ordering::Release);
    let workflow = Workflow { status: Some(status), ..workflow };
    expire(&rim, &workflow, &mailbox).await
}

/// A spec that cannot run ends at once, as in Argo: phase `Error` and why.
async fn refuse(rim: &Rim, why: &str) {
    let now = plan::text::rfc3339(now_ms());
    let status = WorkflowStatus {
        phase: "Error".into(),
        message: format!("invalid spec: {why}"),
        started_at: Some(now.clone()),
        finished_at: Some(now),
        progress: "0/0".into(),
        conditions: vec![api::workflow::status::Condition {
            kind: "Completed".into(),
            status: "True".into(),
        }],
        ..WorkflowStatus::default()
    };
    rim.write_status(&status).await;
}

/// Waits for the end of the time to live, then deletes the workflow.
async fn expire(rim: &Rim, workflow: &Workflow, mailbox: &Mailbox) -> Ended {
    let Some(at) = expires_at(workflow) else { return Ended::Done };
    let until = Instant::now() + millis(at - now_ms());
    while !mailbox.is_gone() {
        tokio::select! {
            () = tokio::time::sleep_until(until) => {
                rim.delete_workflow().await;
                return Ended::Done;
            }
            () = mailbox.changed() => {}
        }
    }
    Ended::Done
}

fn millis(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

struct Actor {
    rim: Rim,
    mailbox: Arc<Mailbox>,
    source: Source,
    engine: Engine,
    journal: Journal,
    /// Attempts by the name of their pod.
    pods: BTreeMap<String, (u32, u32)>,
    /// Events that wait for the next round.
    inbox: Vec<Event>,
    /// Actions that a replay left.
    left: Vec<Action>,
    suspended: bool,
    shown_phase: Option<Phase>,
    dirty: bool,
    shown_at: Instant,
    /// Writes to the cache that are under way.
    records: tokio::task::JoinSet<()>,
}

impl Actor {
    async fn open(rim: Rim, workflow: &Workflow, mailbox: Arc<Mailbox>) -> Result<Self, Error> {
        let found = Journal::load(&rim.client, &rim.owner).await?;
        let (source, engine, journal, inbox) = match found {
            Some(found) => {
                let source = Source::deserialize(&found.source)
                    .map_err(|error| Error::Spec(format!("the journal's source: {error}")))?;
                let plan = Arc::new(source.compile()?);
                let engine = Engine::replay(plan, &found.events);
                // A crash between the source and the first event.
                let inbox =
                    if engine.phase().is_none() { vec![Event::Begin { at: now_ms() }] } else { Vec::new() };
                (source, engine, found.journal, inbox)
            }
            None => {
                let source = Source::resolve(&rim.client, workflow, &rim.config).await?;
                let engine = Engine::new(Arc::new(source.compile()?));
                let text = serde_json::to_value(&source).expect("a source is plain data");
                let journal = Journal::begin(&rim.client, &rim.owner, &text).await?;
                (source, engine, journal, vec![Event::Begin { at: now_ms() }])
            }
        };
        if let Front::Argo(front) = &engine.plan().front {
            let claims = rim.ensure_claims(&front.spec.volume_claim_templates).await;
            claims.map_err(Error::Spec)?;
        }
        let pods = engine.ordered().map(|(node, token, pod)| (pod.to_owned(), (node, token))).collect();
        let left = engine.outstanding();
        let suspended = engine.plan().suspended;
        let shown_at = Instant::now();
        Ok(Self {
            rim,
            mailbox,
            source,
            engine,
            journal,
            pods,
            inbox,
            left,
            suspended,
            shown_phase: None,
            dirty: true,
            shown_at,
            records: tokio::task::JoinSet::new(),
        })
    }

    async fn work(&mut self, workflow: &Workflow) -> Result<(), Error> {
        // What happened while nobody looked comes first: a pod that ended must not be ordered again.
        for pod in self.rim.list_pods().await? {
            self.pod_seen(&pod, false).await;
        }
        self.object_seen(workflow);
        let left = std::mem::take(&mut self.left);
        self.round().await?;
        self.act(left).await;
        loop {
            if self.mailbox.is_gone() {
                return Ok(());
            }
            self.round().await?;
            let over = self.engine.finished().is_some();
            if over {
                // Who sees the end may start a run that counts on the cache.
                let records = std::mem::take(&mut self.records);
                drop(tokio::time::timeout(CACHE_PATIENCE, records.join_all()).await);
            } else {
                while self.records.try_join_next().is_some() {}
            }
            self.show(over).await;
            if over || self.mailbox.is_gone() {
                return Ok(());
            }
            if !self.inbox.is_empty() {
                continue;
            }
            self.wait().await;
        }
    }

    /// Waits for mail, a timer, or the next projection.
    async fn wait(&mut self) {
        let timer = self.engine.next_timer().map(|at| Instant::now() + millis(at - now_ms()));
        let show = self.dirty.then(|| self.shown_at + self.status_pause());
        let until = [timer, show].into_iter().flatten().min().unwrap_or_else(|| Instant::now() + IDLE);
        tokio::select! {
            () = self.mailbox.changed() => {}
            () = tokio::time::sleep_until(until) => {}
        }
        let mail = self.mailbox.take();
        self.read(mail).await;
        if self.engine.next_timer().is_some_and(|at| at <= now_ms()) {
            self.inbox.push(Event::Tick { at: now_ms() });
        }
    }

    async fn read(&mut self, mail: Mail) {
        for (pod, gone) in mail.pods.into_values() {
            self.pod_seen(&pod, gone).await;
        }
        for (node, token, hit) in mail.answers {
            self.inbox.push(Event::Cache { node, token, hit: hit.map(Box::new), at: now_ms() });
        }
        if let Some(object) = mail.object {
            self.object_seen(&object);
        }
    }

    async fn pod_seen(&mut self, pod: &Pod, gone: bool) {
        let name = pod.name_any();
        let Some((node, token)) = self.pods.get(&name).copied() else {
            let held = pod.finalizers().iter().any(|finalizer| finalizer == FINALIZER);
            if held && !gone {
                self.let_go(name);
            }
            return;
        };
        if observe::token(pod).is_some_and(|own| own != token) {
            return;
        }
        let at = now_ms();
        match observe(pod, gone) {
            Seen::Waiting(message) => self.inbox.push(Event::Waiting { node, token, message }),
            Seen::Running(host) => self.inbox.push(Event::Running { node, token, host, at }),
            Seen::Ended(end) => self.inbox.push(Event::Ended { node, token, end: Box::new(end), at }),
            Seen::Elsewhere(mut end) => {
                let id =
                    self.engine.order(node, token).map(|order| order.node_id.clone()).unwrap_or_default();
                match self.rim.task_result(&id).await {
                    Some(report) => {
                        end.exit_code = report.exit_code.or(end.exit_code);
                        end.report = Some(report);
                    }
                    None => {
                        end.outcome = Outcome::Error;
                        end.message = format!("the step's report, WorkflowTaskResult '{id}', is not there");
                        end.report = None;
                    }
                }
                self.inbox.push(Event::Ended { node, token, end: Box::new(end), at });
            }
        }
    }

    /// The user's switches: suspend, shutdown, a resumed node.
    fn object_seen(&mut self, workflow: &Workflow) {
        let at = now_ms();
        let on = workflow.spec.get("suspend").and_then(Value::as_bool).unwrap_or(false);
        if on != self.suspended {
            self.suspended = on;
            self.inbox.push(Event::Suspend { on, at });
        }
        let deadline = workflow.spec.get("activeDeadlineSeconds").and_then(Value::as_i64);
        match workflow.spec.get("shutdown").and_then(Value::as_str) {
            Some("Stop") => self.inbox.push(Event::Shutdown { terminate: false, at }),
            Some("Terminate") => self.inbox.push(Event::Shutdown { terminate: true, at }),
            _ if deadline == Some(0) => self.inbox.push(Event::Shutdown { terminate: true, at }),
            _ => {}
        }
        // `argo resume` writes the end of a suspend node into the status.
        let Some(shown) = &workflow.status else { return };
        for node in
            self.engine.nodes().iter().filter(|node| node.kind == Kind::Suspend && !node.phase.ended())
        {
            if shown.nodes.get(&node.id).is_some_and(|shown| shown.phase == "Succeeded") {
                self.inbox.push(Event::Resume { node: node.id.clone(), at });
            }
        }
    }

    /// Feeds the engine, makes what it took durable, then acts.
    async fn round(&mut self) -> Result<(), Error> {
        while !self.inbox.is_empty() {
            let mut records = Vec::new();
            let mut actions = Vec::new();
            let mut released = Vec::new();
            for event in std::mem::take(&mut self.inbox) {
                if !self.engine.accepts(&event) {
                    continue;
                }
                if let Event::Ended { node, token, .. } = &event {
                    released.extend(self.engine.order(*node, *token).map(|order| order.name.clone()));
                }
                actions.extend(self.engine.apply(&event));
                self.dirty = true;
                if event.durable() {
                    records.push(event);
                }
            }
            self.journal.append(&records).await?;
            for name in released {
                self.pods.remove(&name);
                self.pod_gc(&name);
                self.let_go(name);
            }
            self.act(actions).await;
        }
        Ok(())
    }

    async fn act(&mut self, actions: Vec<Action>) {
        let mut starts = Vec::new();
        for action in actions {
            match action {
                Action::StartPod { node, token } => {
                    if let Some(order) = self.engine.order(node, token) {
                        self.pods.insert(order.name.clone(), (node, token));
                        starts.push((node, token, order));
                    }
                }
                Action::StopPod { pod } => {
                    self.pods.remove(&pod);
                    let rim = self.rim.clone();
                    tokio::spawn(async move {
                        rim.stop_pod(&pod).await;
                        rim.release_pod(&pod).await;
                    });
                }
                Action::Lookup { node, token, key } => {
                    let (cache, mailbox) = (self.rim.config.cache.clone(), self.mailbox.clone());
                    tokio::spawn(async move {
                        // A cache that does not answer is a miss: the step runs.
                        let asked = tokio::time::timeout(CACHE_PATIENCE, cache.lookup(&key)).await;
                        let hit: Option<CachedOutputs> = asked.ok().flatten();
                        mailbox.put(|mail| mail.answers.push((node, token, hit)));
                    });
                }
                Action::Record { key, outputs, node_id } => {
                    let run = match &self.engine.plan().front {
                        Front::Kfp(front) => front.run_id.clone(),
                        Front::Argo(_) => self.rim.owner.uid.clone(),
                    };
                    let cache = self.rim.config.cache.clone();
                    self.records.spawn(async move { cache.record(&key, &run, &node_id, &outputs).await });
                }
                Action::Finished { phase } => {
                    let Rim { owner, .. } = &self.rim;
                    tracing::info!(workflow = %owner.name, namespace = %owner.namespace, phase = phase.word(), "finished");
                }
            }
        }
        let rim = self.rim.clone();
        let made = futures::stream::iter(starts)
            .map(|(node, token, order)| {
                let rim = rim.clone();
                async move { (node, token, rim.start_pod(&order, token).await) }
            })
            .buffer_unordered(CALLS_AT_ONCE)
            .collect::<Vec<_>>()
            .await;
        for (node, token, ordered) in made {
            if let Ordered::Refused(message) = ordered {
                let end = PodEnd { outcome: Outcome::Error, message, ..PodEnd::default() };
                self.inbox.push(Event::Ended { node, token, end: Box::new(end), at: now_ms() });
            }
        }
    }

    fn let_go(&self, pod: String) {
        let rim = self.rim.clone();
        tokio::spawn(async move { rim.release_pod(&pod).await });
    }

    fn status_pause(&self) -> Duration {
        let nodes = u32::try_from(self.engine.nodes().len()).unwrap_or(u32::MAX);
        (STATUS_PAUSE + STATUS_PAUSE_PER_NODE.saturating_mul(nodes)).min(Duration::from_secs(5))
    }

    fn projection(&self) -> WorkflowStatus {
        let mut status = self.engine.status();
        if self.source.referred {
            status.stored_workflow_template_spec = Some(self.source.spec.clone());
        }
        let bucket = &self.rim.config.bucket;
        status.artifact_repository_ref = Some(
            serde_json::json!({ "artifactRepository": { "s3": { "bucket": bucket } }, "default": true }),
        );
        status
    }

    /// Writes the projection: at once when the phase changed, else not too often.
    async fn show(&mut self, now: bool) {
        let phase = self.engine.phase();
        let due = self.dirty && self.shown_at.elapsed() >= self.status_pause();
        if !now && !due && phase == self.shown_phase {
            return;
        }
        let status = self.projection();
        if !self.rim.write_status(&status).await {
            return;
        }
        self.shown_phase = phase;
        self.shown_at = Instant::now();
        self.dirty = false;
    }

    fn gc_strategy(&self) -> Option<PodGc> {
        match &self.engine.plan().front {
            Front::Argo(front) => front.spec.pod_gc.clone(),
            Front::Kfp(_) => None,
        }
    }

    /// Removes a finished pod when `podGC` asks for it.
    fn pod_gc(&self, pod: &str) {
        let Some(gc) = self.gc_strategy() else { return };
        let good = self.engine.ended_pods().any(|(name, phase)| name == pod && phase == Phase::Succeeded);
        let due = gc.strategy == "OnPodCompletion" || (gc.strategy == "OnPodSuccess" && good);
        if due {
            self.remove_later(pod.to_owned(), &gc);
        }
    }

    fn remove_later(&self, pod: String, gc: &PodGc) {
        let delay =
            gc.delete_delay_duration.as_ref().and_then(|text| plan::text::duration_ms(text.as_str()).ok());
        let (rim, delay) = (self.rim.clone(), millis(delay.unwrap_or(GC_DELAY_MS)));
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            rim.stop_pod(&pod).await;
        });
    }

    /// After the end: no pod is held, `podGC` is done, the journal goes when the status holds everything.
    async fn clean_up(&mut self) {
        let good = self.engine.phase() == Some(Phase::Succeeded);
        let gc = self.gc_strategy();
        for pod in self.rim.list_pods().await.unwrap_or_default() {
            if pod.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
                self.rim.release_pod(&pod.name_any()).await;
            }
            let Some(gc) = &gc else { continue };
            let due = gc.strategy == "OnWorkflowCompletion" || (gc.strategy == "OnWorkflowSuccess" && good);
            if due {
                self.remove_later(pod.name_any(), gc);
            }
        }
        if self.engine.status().nodes_omitted.is_none() {
            self.journal.remove().await;
        }
    }
}
