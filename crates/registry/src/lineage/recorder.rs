//! Watches Workflows and their pods, and writes what they did.
//!
//! It holds only Workflows that are not yet recorded as finished, and of pods only image and stand-in. Until both lists
//! are complete nothing is written, so that a restart does not record a task without its image. A write that fails is
//! tried again; rows are keyed by what they describe, so a second write is no second row.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use api::workflow::{Workflow, label};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};

use super::derive::{PodFacts, RunRecord, STAND_IN_ANNOTATION, derive};
use super::write::write;
use crate::Registry;
use crate::error::Result;

/// How long a failed write waits.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// How image ids of stand-ins begin.
const STAND_IN_ID_PREFIX: &str = "slipway.dev/stand-in/";

type Key = (String, String);

#[derive(Default)]
struct State {
    workflows: HashMap<Key, Workflow>,
    /// By namespace, then by pod.
    pods: HashMap<String, HashMap<String, PodFacts>>,
    changed: HashSet<Key>,
    workflows_listed: bool,
    pods_listed: bool,
    /// The last record written of each Workflow that still runs.
    written: HashMap<Key, RunRecord>,
}

/// Records for ever. Ends only when both watches end, which they do not.
pub async fn run(client: Client, registry: Registry) {
    let mut workflows = cluster::watch(Api::<Workflow>::all(client.clone()), watcher::Config::default());
    let selector = watcher::Config::default().labels(label::WORKFLOW);
    let mut pods = cluster::watch(Api::<Pod>::all(client), selector);
    let mut state = State::default();
    loop {
        let retry = !state.changed.is_empty();
        tokio::select! {
            event = workflows.next() => match event {
                Some(Ok(event)) => state.workflow_event(event),
                Some(Err(error)) => tracing::debug!(%error, "watch of workflows"),
                None => return,
            },
            event = pods.next() => match event {
                Some(Ok(event)) => state.pod_event(event),
                Some(Err(error)) => tracing::debug!(%error, "watch of pods"),
                None => return,
            },
            () = tokio::time::sleep(RETRY_AFTER), if retry => {}
        }
        if state.workflows_listed && state.pods_listed {
            state.record_changed(&registry).await;
        }
    }
}

impl State {
    fn workflow_event(&mut self, event: Event<Workflow>) {
        match event {
            Event::Apply(workflow) | Event::InitApply(workflow) => {
                let meta = &workflow.metadata;
                let key = (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
                self.changed.insert(key.clone());
                self.workflows.insert(key, workflow);
            }
            Event::Delete(workflow) => {
                let meta = workflow.metadata;
                let key = (meta.namespace.unwrap_or_default(), meta.name.unwrap_or_default());
                self.workflows.remove(&key);
                self.changed.remove(&key);
                self.written.remove(&key);
            }
            Event::Init => {}
            Event::InitDone => self.workflows_listed = true,
        }
    }

    fn pod_event(&mut self, event: Event<Pod>) {
        match event {
            Event::Apply(pod) | Event::InitApply(pod) => {
                let namespace = pod.metadata.namespace.clone().unwrap_or_default();
                let name = pod.metadata.name.clone().unwrap_or_default();
                let facts = facts(&pod);
                let known = self.pods.entry(namespace.clone()).or_default().insert(name, facts.clone());
                let workflow =
                    pod.metadata.labels.as_ref().and_then(|labels| labels.get(label::WORKFLOW)).cloned();
                let key = (namespace, workflow.unwrap_or_default());
                if known.as_ref() != Some(&facts) && self.workflows.contains_key(&key) {
                    self.changed.insert(key);
                }
            }
            Event::Delete(pod) => {
                let namespace = pod.metadata.namespace.unwrap_or_default();
                if let Some(pods) = self.pods.get_mut(&namespace) {
                    pods.remove(&pod.metadata.name.unwrap_or_default());
                }
            }
            Event::Init => {}
            Event::InitDone => self.pods_listed = true,
        }
    }

    /// Writes what changed; what cannot be written stays changed.
    async fn record_changed(&mut self, registry: &Registry) {
        for key in std::mem::take(&mut self.changed) {
            let Some(workflow) = self.workflows.get(&key) else { continue };
            let none = HashMap::new();
            let Some(record) = derive(workflow, self.pods.get(&key.0).unwrap_or(&none)) else { continue };
            if self.written.get(&key) == Some(&record) {
                continue;
            }
            if let Err(error) = record_run(registry, &record).await {
                tracing::warn!(workflow = %format!("{}/{}", key.0, key.1), error = %error.chain(), "lineage not written yet");
                self.changed.insert(key);
                continue;
            }
            if record.finished.is_some() {
                self.workflows.remove(&key);
                self.written.remove(&key);
            } else {
                self.written.insert(key, record);
            }
        }
    }
}

/// Writes one record into the tenant it belongs to. Writing it again changes nothing.
///
/// # Errors
/// When the database fails; nothing of the record is written then.
pub async fn record_run(registry: &Registry, record: &RunRecord) -> Result<()> {
    let config = &registry.inner.config;
    let tenant = if config.isolate_namespaces { &record.namespace } else { &config.default_namespace };
    let context = registry.context(tenant.clone(), None);
    write(&context, record).await
}

fn facts(pod: &Pod) -> PodFacts {
    let containers = pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default();
    let Some(main) =
        containers.iter().find(|container| container.name == "main").or_else(|| containers.first())
    else {
        return PodFacts::default();
    };
    // The annotation holds `{container: what stands in}`.
    let annotation = pod.metadata.annotations.as_ref().and_then(|all| all.get(STAND_IN_ANNOTATION));
    let by_container = annotation.and_then(|text| serde_json::from_str::<HashMap<String, String>>(text).ok());
    let said = by_container.and_then(|mut all| all.remove(&main.name));
    // Without it, the id of the image that runs tells that it is a stand-in.
    let statuses =
        pod.status.as_ref().and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    let running =
        statuses.iter().find(|status| status.name == main.name).map(|status| status.image_id.as_str());
    let by_id = running.filter(|id| id.starts_with(STAND_IN_ID_PREFIX)).map(str::to_owned);
    PodFacts { image: main.image.clone().unwrap_or_default(), stand_in: said.or(by_id).unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_stand_in_is_read_from_the_annotation_or_the_image_id() {
        let pod = |annotations: serde_json::Value, id: &str| -> Pod {
            serde_json::from_value(json!({
                "metadata": {"name": "p", "annotations": annotations},
                "spec": {"containers": [{"name": "side", "image": "s"}, {"name": "main", "image": "python:3.9-slim"}]},
                "status": {"containerStatuses": [{"name": "main", "image": "", "imageID": id, "ready": true, "restartCount": 0}]},
            }))
            .unwrap()
        };
        let said = pod(json!({STAND_IN_ANNOTATION: r#"{"main": "the host's Python", "side": "x"}"#}), "");
        let expected = PodFacts { image: "python:3.9-slim".into(), stand_in: "the host's Python".into() };
        assert_eq!(facts(&said), expected);
        let by_id = pod(json!({}), "slipway.dev/stand-in/python:3.9-slim");
        assert_eq!(facts(&by_id).stand_in, "slipway.dev/stand-in/python:3.9-slim");
        assert_eq!(facts(&pod(json!({}), "sha256:1")).stand_in, "");
    }
}
