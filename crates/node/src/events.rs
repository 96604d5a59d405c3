//! Events of the node about pods, worded as the kubelet words them.
//!
//! Written by one task from a bounded queue: an event that finds it full is dropped, as events are for people and
//! must never hold a pod up.

use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::sync::mpsc;

/// Events that may wait to be written.
const QUEUE_MAX: usize = 1024;
/// Repeated events whose count is remembered.
const KNOWN_MAX: usize = 4096;

/// Where events are left.
#[derive(Debug, Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Note>,
}

#[derive(Debug)]
struct Note {
    about: ObjectReference,
    kind: &'static str,
    reason: String,
    message: String,
}

impl Recorder {
    /// Starts the task that writes them; it ends when the last recorder is gone.
    pub fn start(client: kube::Client, node: String) -> Self {
        let (queue, mut notes) = mpsc::channel::<Note>(QUEUE_MAX);
        tokio::spawn(async move {
            let mut known: HashMap<String, (String, i32)> = HashMap::new();
            while let Some(note) = notes.recv().await {
                if known.len() > KNOWN_MAX {
                    known.clear();
                }
                if let Err(error) = write(&client, &node, note, &mut known).await {
                    tracing::debug!(%error, "an event was not written");
                }
            }
        });
        Self { queue }
    }

    /// Something usual.
    pub fn normal(&self, pod: &Pod, container: Option<&str>, reason: &str, message: impl Into<String>) {
        self.note("Normal", pod, container, reason, message.into());
    }

    /// Something that somebody should look at.
    pub fn warning(&self, pod: &Pod, container: Option<&str>, reason: &str, message: impl Into<String>) {
        self.note("Warning", pod, container, reason, message.into());
    }

    fn note(&self, kind: &'static str, pod: &Pod, container: Option<&str>, reason: &str, message: String) {
        let about = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            name: pod.metadata.name.clone(),
            namespace: pod.metadata.namespace.clone(),
            uid: pod.metadata.uid.clone(),
            resource_version: pod.metadata.resource_version.clone(),
            field_path: container.map(|name| format!("spec.containers{{{name}}}")),
        };
        let _ = self.queue.try_send(Note { about, kind, reason: reason.into(), message });
    }
}

async fn write(
    client: &kube::Client,
    node: &str,
    note: Note,
    known: &mut HashMap<String, (String, i32)>,
) -> Result<(), kube::Error> {
    let namespace = note.about.namespace.clone().unwrap_or_else(|| "default".into());
    let events: Api<Event> = Api::namespaced(client.clone(), &namespace);
    let now = Time(Timestamp::now());
    let uid = note.about.uid.clone().unwrap_or_default();
    let key = format!("{uid}\0{:?}\0{}\0{}", note.about.field_path, note.reason, note.message);
    if let Some((name, count)) = known.get_mut(&key) {
        *count += 1;
        let patch = json!({"count": count, "lastTimestamp": now});
        return events.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop);
    }
    let suffix = now.0.as_nanosecond();
    let name = format!("{}.{suffix:x}", note.about.name.as_deref().unwrap_or("pod"));
    let event = Event {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(namespace),
            ..ObjectMeta::default()
        },
        involved_object: note.about,
        type_: Some(note.kind.into()),
        reason: Some(note.reason),
        message: Some(note.message),
        count: Some(1),
        first_timestamp: Some(now.clone()),
        last_timestamp: Some(now),
        source: Some(EventSource { component: Some("kubelet".into()), host: Some(node.into()) }),
        reporting_component: Some("kubelet".into()),
        reporting_instance: Some(node.into()),
        ..Event::default()
    };
    events.create(&PostParams::default(), &event).await?;
    known.insert(key, (name, 1));
    Ok(())
}
