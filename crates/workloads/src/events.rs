//! Events that controllers tell users about objects.
//!
//! A reconcile never waits for one: they go through a bounded channel to one task, and what does not fit is dropped
//! with a log line (an Event is a courtesy, not state). The same words about the same object again become a higher `count`.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, Resource, ResourceExt};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::objects::time;

/// Events that wait to be written.
const WAITING_MAX: usize = 4096;
/// Events whose repetition is noticed.
const REMEMBERED_MAX: usize = 4096;
/// A repetition later than this is a new Event.
const REPEAT_WITHIN: Duration = Duration::from_secs(600);

/// `Normal` or `Warning`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Severity {
    /// All is as it should be.
    Normal,
    /// Someone should look.
    Warning,
}

/// Something to tell about the object that is being reconciled; what pure functions return.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Normal or warning.
    pub severity: Severity,
    /// Upstream's reason in camel case.
    pub reason: &'static str,
    /// A sentence for people.
    pub message: String,
}

impl Note {
    /// All is as it should be.
    pub fn normal(reason: &'static str, message: impl Into<String>) -> Self {
        Self { severity: Severity::Normal, reason, message: message.into() }
    }

    /// Someone should look.
    pub fn warning(reason: &'static str, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, reason, message: message.into() }
    }
}

/// Where controllers put their events. Cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    sender: mpsc::Sender<(ObjectReference, &'static str, Note)>,
}

/// The task that writes what recorders were told; `run` it beside the controllers.
pub struct Writer {
    client: Client,
    receiver: mpsc::Receiver<(ObjectReference, &'static str, Note)>,
    seen: HashMap<Sameness, Seen>,
    order: VecDeque<Sameness>,
}

type Sameness = (String, &'static str, String);

struct Seen {
    namespace: String,
    name: String,
    count: i32,
    at: Instant,
}

/// A recorder and the writer behind it.
pub fn recorder(client: Client) -> (Recorder, Writer) {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    (Recorder { sender }, Writer { client, receiver, seen: HashMap::new(), order: VecDeque::new() })
}

impl Recorder {
    /// Tells `note` about `object` in the name of `component` (upstream's, such as `job-controller`).
    pub fn tell<K: Resource<DynamicType = ()>>(&self, object: &K, component: &'static str, note: Note) {
        let reference = ObjectReference {
            api_version: Some(K::api_version(&()).into_owned()),
            kind: Some(K::kind(&()).into_owned()),
            namespace: object.namespace(),
            name: Some(object.name_any()),
            uid: object.uid(),
            resource_version: object.resource_version(),
            field_path: None,
        };
        if self.sender.try_send((reference, component, note)).is_err() {
            tracing::warn!(component, "too many events wait; one is dropped");
        }
    }
}

impl Writer {
    /// Writes events until every recorder is gone.
    pub async fn run(mut self) {
        while let Some((object, component, note)) = self.receiver.recv().await {
            let sameness = (object.uid.clone().unwrap_or_default(), note.reason, note.message.clone());
            let result = match self.repeated(&sameness) {
                Some((namespace, name, count)) => self.count(&namespace, &name, count).await,
                None => self.create(object, component, note, sameness).await,
            };
            if let Err(error) = result {
                tracing::debug!(component, %error, "an event was not written");
            }
        }
    }

    fn repeated(&mut self, sameness: &Sameness) -> Option<(String, String, i32)> {
        let seen = self.seen.get_mut(sameness).filter(|seen| seen.at.elapsed() < REPEAT_WITHIN)?;
        seen.count += 1;
        seen.at = Instant::now();
        Some((seen.namespace.clone(), seen.name.clone(), seen.count))
    }

    async fn count(&self, namespace: &str, name: &str, count: i32) -> kube::Result<()> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let patch = Patch::Merge(json!({"count": count, "lastTimestamp": time(Timestamp::now())}));
        api.patch(name, &PatchParams::default(), &patch).await.map(drop)
    }

    async fn create(
        &mut self,
        object: ObjectReference,
        component: &'static str,
        note: Note,
        sameness: Sameness,
    ) -> kube::Result<()> {
        let event = event(object, component, note, Timestamp::now());
        let namespace = event.metadata.namespace.clone().unwrap_or_default();
        let name = event.name_any();
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        api.create(&PostParams::default(), &event).await?;
        self.remember(sameness, Seen { namespace, name, count: 1, at: Instant::now() });
        Ok(())
    }

    fn remember(&mut self, sameness: Sameness, seen: Seen) {
        if self.seen.insert(sameness.clone(), seen).is_none() {
            self.order.push_back(sameness);
        }
        if self.order.len() > REMEMBERED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
    }
}

/// The object as upstream's recorder writes it; events about cluster-wide objects live in `default`.
fn event(object: ObjectReference, component: &'static str, note: Note, now: Timestamp) -> Event {
    let namespace =
        object.namespace.clone().filter(|ns| !ns.is_empty()).unwrap_or_else(|| "default".to_owned());
    let about = object.name.clone().unwrap_or_default();
    let type_ = match note.severity {
        Severity::Normal => "Normal",
        Severity::Warning => "Warning",
    };
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{about}.{:x}", now.as_nanosecond())),
            namespace: Some(namespace),
            ..ObjectMeta::default()
        },
        involved_object: object,
        reason: Some(note.reason.to_owned()),
        message: Some(note.message),
        type_: Some(type_.to_owned()),
        count: Some(1),
        first_timestamp: Some(time(now)),
        last_timestamp: Some(time(now)),
        event_time: None::<MicroTime>,
        source: Some(EventSource { component: Some(component.to_owned()), host: None }),
        reporting_component: Some(component.to_owned()),
        reporting_instance: Some(String::new()),
        ..Event::default()
    }
}
