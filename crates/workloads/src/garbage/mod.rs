//! Deletes what lost its owners: upstream's garbage collector, over built-in and custom resources alike.
//!
//! * `graph` knows who owns whom and decides; `resources` discovers and watches: one stream of changes feeds the graph.
//! * This file carries the steps out. Every change names the uid and version it was decided on, so a decision on old news fails
//!   and is taken again.

pub mod graph;
pub mod resources;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::{Notify, mpsc, watch};

use crate::cache::Key;
use crate::error::{Doing, Error, status};
use crate::queue::{Queue, work};
use graph::{Graph, Node, Step};
use resources::{Resources, Seen};

const COMPONENT: &str = "garbage-collector";
const WORKERS: usize = 16;
/// Changes that wait to be taken in.
const CHANGES_MAX: usize = 4096;

/// The garbage collector of one cluster.
pub struct Garbage {
    /// What can be watched and deleted.
    pub resources: Arc<Resources>,
    graph: Mutex<Graph>,
    queue: Queue<String>,
    /// The namespaces of objects that went, for whoever waits for one to become empty.
    emptied: Queue<Key>,
    synced: watch::Sender<bool>,
}

impl Garbage {
    /// A collector that writes as `client`; it tells `emptied` the namespace of every object that is gone.
    pub fn new(client: kube::Client, emptied: Queue<Key>) -> Arc<Self> {
        let resources = Resources::new(client);
        let synced = watch::channel(false).0;
        Arc::new(Self { resources, graph: Mutex::default(), queue: Queue::default(), emptied, synced })
    }

    /// Works until it is dropped.
    pub async fn run(self: Arc<Self>) {
        let (sender, receiver) = mpsc::channel(CHANGES_MAX);
        let rediscover = Arc::new(Notify::new());
        let follow = self.resources.clone().follow(sender, rediscover.clone());
        let take_in = self.clone().take_in(receiver, rediscover);
        let (collector, queue) = (self.clone(), self.queue.clone());
        let collect = async {
            self.wait_synced().await;
            work(COMPONENT, queue, WORKERS, move |uid| {
                let collector = collector.clone();
                async move { collector.collect(&uid).await }
            })
            .await;
        };
        futures::join!(follow, take_in, collect);
    }

    /// Returns once every resource has been listed: before that, an owner that is not in the graph means nothing.
    pub async fn wait_synced(&self) {
        let mut synced = self.synced.subscribe();
        // The sender lives as long as `self`, so waiting cannot fail.
        let _always_ok = synced.wait_for(|synced| *synced).await;
    }

    /// The objects of a namespace.
    pub fn members(&self, namespace: &str) -> Vec<Node> {
        self.graph.lock().members(namespace)
    }

    async fn take_in(self: Arc<Self>, mut changes: mpsc::Receiver<Seen>, rediscover: Arc<Notify>) {
        let mut listed = HashSet::new();
        while let Some(change) = changes.recv().await {
            match change {
                Seen::Object(node) => {
                    if node.resource == "customresourcedefinitions.apiextensions.k8s.io" {
                        rediscover.notify_one();
                    }
                    let affected = self.graph.lock().upsert(node);
                    affected.into_iter().for_each(|uid| self.queue.add(uid));
                }
                Seen::Gone(uid) => self.gone(&uid, &rediscover),
                Seen::Listed(resource, uids) => {
                    let exist: HashSet<String> = uids.into_iter().collect();
                    let known = self.graph.lock().of_resource(&resource);
                    let gone = known.into_iter().filter(|uid| !exist.contains(uid));
                    gone.for_each(|uid| self.gone(&uid, &rediscover));
                    listed.insert(resource);
                    if listed.len() >= self.resources.watched() {
                        self.synced.send_replace(true);
                    }
                }
            }
        }
    }

    fn gone(&self, uid: &str, rediscover: &Notify) {
        let (node, affected) = {
            let mut graph = self.graph.lock();
            (graph.get(uid).cloned(), graph.remove(uid))
        };
        affected.into_iter().for_each(|uid| self.queue.add(uid));
        let Some(node) = node else { return };
        if node.resource == "customresourcedefinitions.apiextensions.k8s.io" {
            rediscover.notify_one();
        }
        if !node.key.namespace.is_empty() {
            self.emptied.add(Key::new("", node.key.namespace));
        }
    }

    async fn collect(&self, uid: &str) -> Result<Option<Duration>, Error> {
        let steps = self.graph.lock().decide(uid);
        for step in steps {
            match step {
                Step::LookUp(owner) => self.look_up(uid, &owner).await?,
                Step::Delete(uid, policy) => self.delete(&uid, Some(policy)).await?,
                Step::Strip(uid, owners) => self.strip(&uid, &owners).await?,
                Step::Release(uid, finalizer) => self.release(&uid, finalizer).await?,
            }
        }
        Ok(None)
    }

    /// Asks the API for an owner that no watch has shown.
    async fn look_up(&self, dependent: &str, owner: &OwnerReference) -> Result<(), Error> {
        let Some(node) = self.graph.lock().get(dependent).cloned() else { return Ok(()) };
        // A kind that this cluster does not know may come with a definition that is not installed yet.
        let Some(entry) = self.resources.of_kind(&owner.api_version, &owner.kind) else { return Ok(()) };
        let api = self.resources.api(&entry, &node.key.namespace);
        let found =
            api.get_opt(&owner.name).await.doing(|| format!("look up {} \"{}\"", owner.kind, owner.name))?;
        let exists = found.is_some_and(|object| object.metadata.uid.as_deref() == Some(&owner.uid));
        if !exists {
            self.graph.lock().mark_absent(&owner.uid);
            self.queue.add(dependent.to_owned());
        }
        Ok(())
    }

    /// Deletes the object of that uid; one that is gone, or another of its name, is left.
    pub async fn delete(&self, uid: &str, policy: Option<PropagationPolicy>) -> Result<(), Error> {
        let Some((node, entry)) = self.known(uid) else { return Ok(()) };
        let params = DeleteParams {
            propagation_policy: policy,
            preconditions: Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
            ..DeleteParams::default()
        };
        let result = self.resources.api(&entry, &node.key.namespace).delete(&node.key.name, &params).await;
        unless_gone(result.map(drop), || format!("delete {} \"{}\"", node.resource, node.key))
    }

    async fn strip(&self, uid: &str, owners: &[String]) -> Result<(), Error> {
        let Some((node, _)) = self.known(uid) else { return Ok(()) };
        let kept: Vec<&OwnerReference> =
            node.owners.iter().filter(|owner| !owners.contains(&owner.uid)).collect();
        self.patch(uid, json!({"ownerReferences": kept})).await
    }

    async fn release(&self, uid: &str, finalizer: &str) -> Result<(), Error> {
        let Some((node, _)) = self.known(uid) else { return Ok(()) };
        let kept: Vec<&String> = node.finalizers.iter().filter(|has| *has != finalizer).collect();
        self.patch(uid, json!({"finalizers": kept})).await
    }

    async fn patch(&self, uid: &str, mut metadata: serde_json::Value) -> Result<(), Error> {
        let Some((node, entry)) = self.known(uid) else { return Ok(()) };
        metadata["uid"] = json!(uid);
        metadata["resourceVersion"] = json!(node.version);
        let patch = Patch::Merge(json!({"metadata": metadata}));
        let api = self.resources.api(&entry, &node.key.namespace);
        let result = api.patch(&node.key.name, &PatchParams::default(), &patch).await;
        let result = result.map(drop);
        if result.as_ref().is_err_and(|error| status(error) == Some(404)) {
            return Ok(());
        }
        // A conflict means that the watch is about to show a newer form; the queue tries again.
        result.doing(|| format!("change {} \"{}\"", node.resource, node.key))
    }

    fn known(&self, uid: &str) -> Option<(Node, resources::Entry)> {
        let node = self.graph.lock().get(uid).cloned()?;
        let entry = self.resources.get(&node.resource)?;
        Some((node, entry))
    }
}

/// Gone, or gone and made again under the same name: both are what a delete wants.
fn unless_gone(result: kube::Result<()>, deed: impl FnOnce() -> String) -> Result<(), Error> {
    match result {
        Err(error) if matches!(status(&error), Some(404 | 409)) => Ok(()),
        other => other.doing(deed),
    }
}
