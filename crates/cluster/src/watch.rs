//! Watches of any kind: kube's watcher over texts, which are read as the wanted type event by event.
//!
//! An object that does not fit its type is an error of the stream. In the list that begins a watch it ends the list,
//! which is begun anew after a pause: nobody may take what could not be read for gone. Later the watch goes on with
//! the next event.
//!
//! Not here: what is kept of the objects (the callers).

use std::time::Duration;

use futures::stream::{BoxStream, StreamExt, unfold};
use kube::api::{Api, ApiResource};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Config, Event};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;

use crate::raw::Raw;

/// How long a list waits that an unreadable object ended.
const RELIST_AFTER: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 5_000 });

/// Events of a watch.
type Events<K> = BoxStream<'static, watcher::Result<Event<K>>>;

/// Every change of the objects that `api` and `config` select, for ever; failures are told and retried with backoff.
pub fn watch<K>(api: Api<K>, config: Config) -> Events<K>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Send + 'static,
{
    watch_with(api, &(), config)
}

/// [`watch`] for a kind that is known at run time only.
pub fn watch_with<K>(api: Api<K>, kind: &K::DynamicType, config: Config) -> Events<K>
where
    K: Resource + DeserializeOwned + Send + 'static,
{
    let namespace = api.namespace().map(str::to_owned);
    let source = Source { kind: ApiResource::erase::<K>(kind), namespace, client: api.into_client(), config };
    unfold(Feed::new(source), |mut feed| async {
        let event = feed.next().await?.and_then(typed);
        if event.as_ref().is_err_and(is_unreadable) {
            feed.distrust();
        }
        Some((event, feed))
    })
    .boxed()
}

fn typed<K: DeserializeOwned>(event: Event<Raw>) -> watcher::Result<Event<K>> {
    let read = |raw: &Raw| {
        let read = serde_json::from_str(raw.text());
        read.map_err(|error| watcher::Error::WatchFailed(kube::Error::SerdeError(error)))
    };
    Ok(match event {
        Event::Apply(raw) => Event::Apply(read(&raw)?),
        Event::Delete(raw) => Event::Delete(read(&raw)?),
        Event::Init => Event::Init,
        Event::InitApply(raw) => Event::InitApply(read(&raw)?),
        Event::InitDone => Event::InitDone,
    })
}

fn is_unreadable(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchFailed(kube::Error::SerdeError(_)))
}

/// What is watched.
struct Source {
    client: Client,
    kind: ApiResource,
    namespace: Option<String>,
    config: Config,
}

impl Source {
    fn events(&self) -> Events<Raw> {
        let client = self.client.clone();
        let api: Api<Raw> = match &self.namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, &self.kind),
            None => Api::all_with(client, &self.kind),
        };
        watcher::watcher(api, self.config.clone()).default_backoff().boxed()
    }
}

/// The untyped watch, and whether it is inside a list.
struct Feed {
    source: Source,
    events: Events<Raw>,
    listing: bool,
    relist: bool,
}

impl Feed {
    fn new(source: Source) -> Self {
        let events = source.events();
        Self { source, events, listing: false, relist: false }
    }

    async fn next(&mut self) -> Option<watcher::Result<Event<Raw>>> {
        if std::mem::take(&mut self.relist) {
            tokio::time::sleep(RELIST_AFTER).await;
            self.events = self.source.events();
        }
        let event = self.events.next().await;
        match &event {
            Some(Ok(Event::Init)) => self.listing = true,
            Some(Ok(Event::InitDone)) => self.listing = false,
            _ => {}
        }
        event
    }

    /// The last object could not be read.
    fn distrust(&mut self) {
        self.relist = self.listing;
    }
}

#[cfg(test)]
mod tests;
