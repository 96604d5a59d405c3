//! Binds pods to nodes: what kube-scheduler does.
//!
//! * `fit` judges one pod on one node, `book` keeps account of what is where, `message` words the refusal: all pure.
//! * This file takes pending pods in turn, decides, and writes bindings through the `binding` subresource, several at once.
//!
//! A pod that fits nowhere keeps its place outside the queue until something changes that could help it: a node, a claim, or a
//! pod that ended. Not here: preemption, pod affinity, topology spread, volume topology.

mod book;
pub mod fit;
mod message;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Binding, Node, ObjectReference, PersistentVolumeClaim, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::Semaphore;

use crate::cache::{Cache, Key};
use crate::error::{Doing, Error, status};
use crate::events::{Note, Recorder};
use crate::objects::{is_active, node_of, pod_condition, time};
use crate::queue::{Queue, work};
use book::Book;
use fit::Request;

const COMPONENT: &str = "default-scheduler";
/// Bindings in flight at once.
const BINDINGS_MAX: usize = 64;

/// The scheduler of one cluster.
pub struct Scheduler {
    client: Client,
    recorder: Recorder,
    overcommit: bool,
    pods: Cache<Pod>,
    claims: Cache<PersistentVolumeClaim>,
    book: Mutex<Book>,
    queue: Queue<Key>,
    waiting: Mutex<HashSet<Key>>,
    bindings: Semaphore,
}

impl Scheduler {
    /// A scheduler that reads these caches and writes as `client`. It starts with `run`.
    pub fn new(
        client: Client,
        recorder: Recorder,
        overcommit: bool,
        pods: &Cache<Pod>,
        nodes: &Cache<Node>,
        claims: &Cache<PersistentVolumeClaim>,
    ) -> Arc<Self> {
        let scheduler = Arc::new(Self {
            client,
            recorder,
            overcommit,
            pods: pods.clone(),
            claims: claims.clone(),
            book: Mutex::default(),
            queue: Queue::default(),
            waiting: Mutex::default(),
            bindings: Semaphore::new(BINDINGS_MAX),
        });
        let to = scheduler.clone();
        pods.on_change(move |change| match change.new {
            Some(pod) => to.see_pod(pod),
            None => change.old.into_iter().for_each(|pod| to.see_pod_gone(pod)),
        });
        let to = scheduler.clone();
        nodes.on_change(move |change| match change.new {
            Some(node) => to.see_node(change.old.map(AsRef::as_ref), node),
            None => change.old.into_iter().for_each(|node| to.book.lock().node_gone(&node.name_any())),
        });
        let to = scheduler.clone();
        claims.on_change(move |_| to.wake());
        scheduler
    }

    /// Schedules until it is dropped.
    pub async fn run(self: Arc<Self>) {
        let (scheduler, queue) = (self.clone(), self.queue.clone());
        work("scheduler", queue, 1, move |key| {
            let scheduler = scheduler.clone();
            async move { scheduler.schedule(&key).await }
        })
        .await;
    }

    fn see_pod(&self, pod: &Pod) {
        let freed = self.book.lock().pod(pod);
        if freed {
            self.wake();
        }
        if is_mine(pod) {
            self.queue.add(Key::of(pod));
        }
    }

    fn see_pod_gone(&self, pod: &Pod) {
        self.waiting.lock().remove(&Key::of(pod));
        let freed = self.book.lock().pod_gone(&pod.uid().unwrap_or_default());
        if freed {
            self.wake();
        }
    }

    /// A node's heartbeat changes nothing that a pod could wait for.
    fn see_node(&self, old: Option<&Node>, node: &Node) {
        let matters = |node: &Node| {
            let allocatable = node.status.as_ref().and_then(|status| status.allocatable.clone());
            (node.spec.clone(), node.metadata.labels.clone(), allocatable)
        };
        if old.is_some_and(|old| matters(old) == matters(node)) {
            return;
        }
        self.book.lock().node(node);
        self.wake();
    }

    /// Something changed that may help those who wait.
    fn wake(&self) {
        let waiting: Vec<Key> = self.waiting.lock().drain().collect();
        waiting.into_iter().for_each(|key| self.queue.add(key));
    }

    async fn schedule(self: &Arc<Self>, key: &Key) -> Result<Option<Duration>, Error> {
        let Some(pod) = self.pods.get(key).filter(|pod| is_mine(pod)) else { return Ok(None) };
        if is_gated(&pod) {
            let words = "Scheduling is blocked due to non-empty scheduling gates";
            self.refuse(&pod, "SchedulingGated", words).await?;
            return Ok(None);
        }
        if self.book.lock().is_placed(&pod.uid().unwrap_or_default()) {
            return Ok(None);
        }
        // Before the decision, so that a change which comes in between wakes it.
        self.waiting.lock().insert(key.clone());
        match self.decide(&pod) {
            Ok(node) => {
                self.waiting.lock().remove(key);
                self.clone().bind(pod, node).await;
            }
            Err(message) => self.refuse(&pod, "Unschedulable", &message).await?,
        }
        Ok(None)
    }

    /// Chooses and takes the room in one step.
    fn decide(&self, pod: &Pod) -> Result<String, String> {
        let mut book = self.book.lock();
        if let Some(reason) = self.claims_missing(pod) {
            return Err(message::not_yet(&reason, book.node_count()));
        }
        let request = Request::of(pod);
        let node = book.choose(pod, &request, self.overcommit)?;
        book.place(&pod.uid().unwrap_or_default(), &node, request);
        Ok(node)
    }

    /// Why the pod's claims do not let it run yet.
    fn claims_missing(&self, pod: &Pod) -> Option<String> {
        let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
        let names = volumes
            .filter_map(|volume| volume.persistent_volume_claim.as_ref())
            .map(|claim| &claim.claim_name);
        let namespace = pod.namespace().unwrap_or_default();
        for name in names {
            let Some(claim) = self.claims.get(&Key::new(&namespace, name)) else {
                return Some(format!("persistentvolumeclaim \"{name}\" not found"));
            };
            if claim.metadata.deletion_timestamp.is_some() {
                return Some(format!("persistentvolumeclaim \"{name}\" is being deleted"));
            }
            let bound = claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
            if !bound {
                return Some("pod has unbound immediate PersistentVolumeClaims".to_owned());
            }
        }
        None
    }

    /// Writes the binding in a task of its own, so that many pods are bound in one go.
    async fn bind(self: Arc<Self>, pod: Arc<Pod>, node: String) {
        let scheduler = self.clone();
        // The bound on what is in flight; the semaphore is never closed.
        let Ok(permit) = self.bindings.acquire().await else { return };
        permit.forget();
        tokio::spawn(async move {
            scheduler.write_binding(&pod, &node).await;
            scheduler.bindings.add_permits(1);
        });
    }

    async fn write_binding(&self, pod: &Pod, node: &str) {
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        match self.post_binding(pod, &namespace, &name, node).await {
            Ok(()) => {
                let words = format!("Successfully assigned {namespace}/{name} to {node}");
                self.recorder.tell(pod, COMPONENT, Note::normal("Scheduled", words));
            }
            Err(error) => {
                // Bound by someone else: the watch tells where, and corrects the account.
                if status(&error) == Some(409) {
                    return;
                }
                self.book.lock().pod_gone(&pod.uid().unwrap_or_default());
                if status(&error) != Some(404) {
                    tracing::warn!(pod = %Key::of(pod), node, %error, "a binding failed; it is retried");
                }
                self.queue.add_after(Key::of(pod), Duration::from_millis(100));
                self.wake();
            }
        }
    }

    async fn post_binding(&self, pod: &Pod, namespace: &str, name: &str, node: &str) -> kube::Result<()> {
        let target = ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(node.to_owned()),
            ..ObjectReference::default()
        };
        let metadata = ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
            uid: pod.uid(),
            ..ObjectMeta::default()
        };
        let binding = Binding { metadata, target };
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let params = PostParams::default();
        let _answer: serde_json::Value = api.create_subresource("binding", name, &params, &binding).await?;
        Ok(())
    }

    /// Says on the pod why it waits; once for the same words.
    async fn refuse(&self, pod: &Arc<Pod>, reason: &str, message: &str) -> Result<(), Error> {
        let current = pod_condition(pod, "PodScheduled");
        let said = current.is_some_and(|now| {
            now.status == "False"
                && now.reason.as_deref() == Some(reason)
                && now.message.as_deref() == Some(message)
        });
        if said {
            return Ok(());
        }
        let since =
            current.filter(|now| now.status == "False").and_then(|now| now.last_transition_time.clone());
        let condition = PodCondition {
            type_: "PodScheduled".to_owned(),
            status: "False".to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_transition_time: Some(since.unwrap_or_else(|| time(Timestamp::now()))),
            ..PodCondition::default()
        };
        // By strategic merge, so that the other conditions stay.
        let patch = Patch::Strategic(json!({"status": {"conditions": [condition]}}));
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        let result = api.patch_status(&pod.name_any(), &PatchParams::default(), &patch).await;
        if result.as_ref().is_err_and(|error| status(error) == Some(404)) {
            return Ok(());
        }
        let written = result.doing(|| format!("say why pod \"{}\" waits", Key::of(pod.as_ref())))?;
        self.pods.observe(written);
        if reason == "Unschedulable" {
            self.recorder.tell(pod.as_ref(), COMPONENT, Note::warning("FailedScheduling", message));
        }
        Ok(())
    }
}

/// Whether it is this scheduler's to place.
fn is_mine(pod: &Pod) -> bool {
    let scheduler = pod.spec.as_ref().and_then(|spec| spec.scheduler_name.as_deref());
    node_of(pod).is_none() && is_active(pod) && matches!(scheduler, None | Some("" | COMPONENT))
}

fn is_gated(pod: &Pod) -> bool {
    let gates = pod.spec.as_ref().and_then(|spec| spec.scheduling_gates.as_ref());
    gates.is_some_and(|gates| !gates.is_empty())
}
