//! Every resource that can be watched and deleted, and one watch of metadata for each.
//!
//! Discovery is asked at the start and whenever a CustomResourceDefinition changes. A watch shows metadata alone, so custom
//! objects of any size cost little here.

use std::collections::HashMap;
use std::sync::Arc;

use futures::StreamExt;
use kube::api::{Api, DynamicObject};
use kube::core::PartialObjectMeta;
use kube::discovery::{ApiCapabilities, ApiResource, Discovery, Scope, verbs};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use parking_lot::RwLock;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use super::graph::Node;

/// What a watch says.
pub enum Seen {
    /// An object is new or changed.
    Object(Node),
    /// The object of that uid is gone.
    Gone(String),
    /// A list of the resource is complete; these uids exist.
    Listed(String, Vec<String>),
}

/// One resource.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Group, version, kind, plural.
    pub api: ApiResource,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// Whether the graph watches it; the others are only emptied with their namespace.
    pub watched: bool,
}

/// The resources of the cluster by `plural.group`.
pub struct Resources {
    client: Client,
    entries: RwLock<HashMap<String, Entry>>,
}

/// The name of a resource in the graph.
pub fn name(api: &ApiResource) -> String {
    if api.group.is_empty() { api.plural.clone() } else { format!("{}.{}", api.plural, api.group) }
}

impl Resources {
    /// None are known before `follow` runs.
    pub fn new(client: Client) -> Arc<Self> {
        Arc::new(Self { client, entries: RwLock::default() })
    }

    /// The resource of that name.
    pub fn get(&self, name: &str) -> Option<Entry> {
        self.entries.read().get(name).cloned()
    }

    /// The resource of an owner reference.
    pub fn of_kind(&self, api_version: &str, kind: &str) -> Option<Entry> {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        let entries = self.entries.read();
        entries.values().find(|entry| entry.api.group == group && entry.api.kind == kind).cloned()
    }

    /// The resources whose objects live in namespaces.
    pub fn namespaced(&self) -> Vec<Entry> {
        self.entries.read().values().filter(|entry| entry.namespaced).cloned().collect()
    }

    /// Access to the objects of a resource, in a namespace where it has one.
    pub fn api(&self, entry: &Entry, namespace: &str) -> Api<PartialObjectMeta<DynamicObject>> {
        if entry.namespaced && !namespace.is_empty() {
            Api::namespaced_with(self.client.clone(), namespace, &entry.api)
        } else {
            Api::all_with(self.client.clone(), &entry.api)
        }
    }

    /// Watches everything and reports to the channel, until it is dropped. `again` asks for a new discovery.
    pub async fn follow(self: Arc<Self>, seen: mpsc::Sender<Seen>, again: Arc<tokio::sync::Notify>) {
        let mut tasks = JoinSet::new();
        let mut running: HashMap<String, AbortHandle> = HashMap::new();
        let mut pause = std::time::Duration::from_millis(50);
        loop {
            match discover(&self.client).await {
                Ok(found) => {
                    pause = std::time::Duration::from_millis(50);
                    self.bring_in_line(&found, &mut running, &mut tasks, &seen);
                    again.notified().await;
                }
                Err(error) => {
                    tracing::warn!(%error, "discovery failed; it is retried");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(std::time::Duration::from_secs(30));
                }
            }
        }
    }

    fn bring_in_line(
        &self,
        found: &HashMap<String, Entry>,
        running: &mut HashMap<String, AbortHandle>,
        tasks: &mut JoinSet<()>,
        seen: &mpsc::Sender<Seen>,
    ) {
        let gone: Vec<String> = running.keys().filter(|name| !found.contains_key(*name)).cloned().collect();
        for name in gone {
            running.remove(&name).into_iter().for_each(|task| task.abort());
            let seen = seen.clone();
            // An empty list takes the resource's objects out of the graph.
            tasks.spawn(async move { drop(seen.send(Seen::Listed(name, Vec::new())).await) });
        }
        // Known before the first report comes, which is judged by how many are known.
        *self.entries.write() = found.clone();
        for (name, entry) in found.iter().filter(|(_, entry)| entry.watched) {
            if running.contains_key(name) {
                continue;
            }
            let api = self.api(entry, "");
            running.insert(name.clone(), tasks.spawn(follow_one(name.clone(), api, seen.clone())));
        }
    }

    /// How many resources are watched.
    pub fn watched(&self) -> usize {
        self.entries.read().values().filter(|entry| entry.watched).count()
    }
}

async fn discover(client: &Client) -> kube::Result<HashMap<String, Entry>> {
    let discovery = Discovery::new(client.clone()).run().await?;
    let mut found = HashMap::new();
    for group in discovery.groups() {
        for (api, capabilities) in group.recommended_resources() {
            // The same events are served by two groups; one is enough.
            if group.name() == "events.k8s.io" {
                continue;
            }
            entry(api, &capabilities)
                .into_iter()
                .for_each(|entry| drop(found.insert(name(&entry.api), entry)));
        }
    }
    Ok(found)
}

fn entry(api: ApiResource, capabilities: &ApiCapabilities) -> Option<Entry> {
    let can = |verb| capabilities.supports_operation(verb);
    if !can(verbs::LIST) || !can(verbs::WATCH) || !can(verbs::DELETE) {
        return None;
    }
    // Events and leases come and go all the time, and own nothing.
    let watched = !matches!(api.plural.as_str(), "events" | "leases");
    Some(Entry { api, namespaced: capabilities.scope == Scope::Namespaced, watched })
}

async fn follow_one(name: String, api: Api<PartialObjectMeta<DynamicObject>>, seen: mpsc::Sender<Seen>) {
    let mut events = watcher(api, watcher::Config::default()).default_backoff().boxed();
    let mut listed = Vec::new();
    while let Some(event) = events.next().await {
        let report = match event {
            Ok(watcher::Event::Init) => {
                listed.clear();
                None
            }
            Ok(watcher::Event::InitApply(object)) => {
                listed.extend(object.uid());
                Node::of(&name, &object.metadata).map(Seen::Object)
            }
            Ok(watcher::Event::InitDone) => Some(Seen::Listed(name.clone(), std::mem::take(&mut listed))),
            Ok(watcher::Event::Apply(object)) => Node::of(&name, &object.metadata).map(Seen::Object),
            Ok(watcher::Event::Delete(object)) => object.uid().map(Seen::Gone),
            Err(error) => {
                tracing::warn!(resource = name, %error, "a watch of metadata failed; it is retried");
                None
            }
        };
        if let Some(report) = report
            && seen.send(report).await.is_err()
        {
            return;
        }
    }
}
