//! Watches Workflows and their pods, keeps one task per running workflow, and hands out what changed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::workflow::{Workflow, label};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher::{self, Event};
use kube::{Api, ResourceExt};
use tokio::sync::Notify;

use crate::actor::{self, Ended};
use crate::build::{FINALIZER, Owner};
use crate::rim::{self, Rim};
use crate::{CachedOutputs, Config};

/// Pause before a workflow whose task failed is taken up again.
const AGAIN: Duration = Duration::from_secs(3);

/// What changed for one workflow; newer states replace older ones, so it is bounded by its pods.
#[derive(Default)]
pub struct Mailbox {
    state: Mutex<Mail>,
    notify: Notify,
    gone: AtomicBool,
}

/// The content of a mailbox.
#[derive(Default)]
pub struct Mail {
    /// Pods by name, with whether they were deleted.
    pub pods: BTreeMap<String, (Pod, bool)>,
    /// The workflow.
    pub object: Option<Workflow>,
    /// Answers of the cache: node, token, outputs.
    pub answers: Vec<(u32, u32, Option<CachedOutputs>)>,
}

impl Mailbox {
    /// Changes the content and wakes the task.
    pub fn put(&self, change: impl FnOnce(&mut Mail)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.notify.notify_one();
    }

    /// Takes everything.
    pub fn take(&self) -> Mail {
        std::mem::take(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits for a change.
    pub async fn changed(&self) {
        self.notify.notified().await;
    }

    /// The workflow was deleted.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    fn set_gone(&self) {
        self.gone.store(true, Ordering::Release);
        self.notify.notify_one();
    }
}

struct Entry {
    uid: String,
    mailbox: Arc<Mailbox>,
    ended: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Name = (String, String);

/// The controller.
pub struct Controller {
    client: kube::Client,
    config: Config,
    running: BTreeMap<Name, Entry>,
    /// Pods seen before the workflows were listed.
    early: Vec<Pod>,
    synced: bool,
}

impl Controller {
    /// A controller that has seen nothing.
    pub fn new(client: kube::Client, config: Config) -> Self {
        Self { client, config, running: BTreeMap::new(), early: Vec::new(), synced: false }
    }

    /// Watches for ever.
    pub async fn run(mut self) {
        let workflows: Api<Workflow> = Api::all(self.client.clone());
        let pods: Api<Pod> = Api::all(self.client.clone());
        let mut workflows = cluster::watch(workflows, watcher::Config::default());
        let mut pods = cluster::watch(pods, watcher::Config::default().labels(label::WORKFLOW));
        loop {
            tokio::select! {
                Some(event) = workflows.next() => match event {
                    Ok(event) => self.workflow_event(event),
                    Err(error) => pause_after("workflows", &error).await,
                },
                Some(event) = pods.next() => match event {
                    Ok(event) => self.pod_event(event),
                    Err(error) => pause_after("pods", &error).await,
                },
                else => return,
            }
        }
    }

    fn workflow_event(&mut self, event: Event<Workflow>) {
        match event {
            Event::Apply(workflow) | Event::InitApply(workflow) => self.workflow_changed(workflow),
            Event::Delete(workflow) => {
                if let Some(entry) = self.running.remove(&name_of(&workflow)) {
                    entry.mailbox.set_gone();
                }
            }
            Event::Init => {}
            Event::InitDone => {
                self.synced = true;
                for pod in std::mem::take(&mut self.early) {
                    self.pod_changed(pod, false);
                }
            }
        }
    }

    fn workflow_changed(&mut self, workflow: Workflow) {
        let name = name_of(&workflow);
        let uid = workflow.uid().unwrap_or_default();
        if let Some(entry) = self.running.get(&name)
            && entry.uid == uid
            && !entry.ended.load(Ordering::Acquire)
        {
            return entry.mailbox.put(|mail| mail.object = Some(workflow));
        }
        if workflow.metadata.deletion_timestamp.is_some() {
            return;
        }
        // One that ended needs a task only while its time to live runs, and that task keeps running.
        let known = self.running.get(&name).is_some_and(|entry| entry.uid == uid);
        if known && actor::finished(&workflow) {
            return;
        }
        if actor::finished(&workflow) && actor::expires_at(&workflow).is_none() {
            self.running.remove(&name);
            return;
        }
        let owner = Owner { name: name.1.clone(), namespace: name.0.clone(), uid: uid.clone() };
        let rim = Rim { client: self.client.clone(), config: self.config.clone(), owner };
        let mailbox = Arc::new(Mailbox::default());
        let ended = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(supervise(rim, workflow, mailbox.clone(), ended.clone()));
        self.running.insert(name, Entry { uid, mailbox, ended, task });
    }

    fn pod_event(&mut self, event: Event<Pod>) {
        match event {
            Event::Apply(pod) | Event::InitApply(pod) => self.pod_changed(pod, false),
            Event::Delete(pod) => self.pod_changed(pod, true),
            Event::Init | Event::InitDone => {}
        }
    }

    fn pod_changed(&mut self, pod: Pod, gone: bool) {
        if !self.synced {
            // Only pods that nobody may know any more matter later; tasks list their own at the start.
            if pod.metadata.deletion_timestamp.is_some() && !gone {
                self.early.push(pod);
            }
            return;
        }
        let Some(workflow) = pod.labels().get(label::WORKFLOW) else { return };
        let name = (pod.namespace().unwrap_or_default(), workflow.clone());
        let entry = self.running.get(&name).filter(|entry| !entry.ended.load(Ordering::Acquire));
        let ours = entry.filter(|entry| pod.owner_references().iter().any(|owner| owner.uid == entry.uid));
        if let Some(entry) = ours {
            return entry.mailbox.put(|mail| {
                mail.pods.insert(pod.name_any(), (pod, gone));
            });
        }
        let held = pod.finalizers().iter().any(|finalizer| finalizer == FINALIZER);
        if held && !gone && pod.metadata.deletion_timestamp.is_some() {
            let pods: Api<Pod> = Api::namespaced(self.client.clone(), &name.0);
            tokio::spawn(async move { rim::release(&pods, &pod.name_any()).await });
        }
    }
}

/// Runs a workflow's task, and again when it failed: a fault in one workflow stops no other.
async fn supervise(rim: Rim, workflow: Workflow, mailbox: Arc<Mailbox>, ended: Arc<AtomicBool>) {
    loop {
        let task = AbortOnDrop(tokio::spawn(actor::run(
            rim.clone(),
            workflow.clone(),
            mailbox.clone(),
            ended.clone(),
        )));
        match task.join().await {
            Ok(Ended::Done) => break,
            Ok(Ended::Again(error)) => {
                tracing::warn!(workflow = %rim.owner.name, namespace = %rim.owner.namespace, %error, "trying again");
            }
            Err(error) => tracing::error!(workflow = %rim.owner.name, %error, "the workflow's task failed"),
        }
        if mailbox.is_gone() {
            break;
        }
        tokio::time::sleep(AGAIN).await;
    }
    ended.store(true, Ordering::Release);
}

/// A task that ends with its owner.
struct AbortOnDrop(tokio::task::JoinHandle<Ended>);

impl AbortOnDrop {
    async fn join(mut self) -> Result<Ended, tokio::task::JoinError> {
        (&mut self.0).await
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn name_of(workflow: &Workflow) -> Name {
    (workflow.namespace().unwrap_or_default(), workflow.name_any())
}

async fn pause_after(what: &str, error: &watcher::Error) {
    tracing::warn!(what, %error, "watch failed, trying again");
    tokio::time::sleep(Duration::from_millis(500)).await;
}
