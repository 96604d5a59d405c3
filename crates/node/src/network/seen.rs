//! Objects of one kind as a watch shows them, for the proxy and the name server.

use std::collections::BTreeMap;

use futures::{Stream, StreamExt, TryStreamExt};
use kube::ResourceExt;
use kube::api::Api;
use kube::runtime::watcher;
use serde::de::DeserializeOwned;

/// Every change of a kind, for ever; failures are logged and retried with backoff.
pub(super) fn changes<K>(api: Api<K>) -> impl Stream<Item = watcher::Event<K>> + Send
where
    K: kube::Resource<DynamicType = ()> + DeserializeOwned + Send + 'static,
{
    let events = cluster::watch(api, watcher::Config::default());
    events
        .inspect_err(|error| tracing::warn!(%error, "a watch of the network failed; it is retried"))
        .filter_map(|event| futures::future::ready(event.ok()))
}

/// What exists.
pub(super) struct Seen<K> {
    objects: BTreeMap<(String, String), K>,
    relisted: BTreeMap<(String, String), K>,
    /// Whether a whole list was in.
    pub(super) complete: bool,
}

impl<K: kube::Resource> Seen<K> {
    pub(super) fn new() -> Self {
        Self { objects: BTreeMap::new(), relisted: BTreeMap::new(), complete: false }
    }

    /// All objects, by namespace and name.
    pub(super) fn all(&self) -> impl Iterator<Item = &K> {
        self.objects.values()
    }

    pub(super) fn observe(&mut self, event: watcher::Event<K>) {
        let key = |object: &K| (object.namespace().unwrap_or_default(), object.name_any());
        match event {
            watcher::Event::Apply(object) => drop(self.objects.insert(key(&object), object)),
            watcher::Event::Delete(object) => drop(self.objects.remove(&key(&object))),
            watcher::Event::Init => self.relisted.clear(),
            watcher::Event::InitApply(object) => drop(self.relisted.insert(key(&object), object)),
            watcher::Event::InitDone => {
                self.objects = std::mem::take(&mut self.relisted);
                self.complete = true;
            }
        }
    }
}
