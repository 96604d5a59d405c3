//! Keeps one pod of a DaemonSet on every node that suits it: what upstream's daemonset controller does.
//!
//! Pods are tied to their node by affinity and bound by the scheduler, as upstream's. Not here: ControllerRevisions, so
//! `kubectl rollout undo` has nothing to go back to; `maxSurge`.

pub mod decide;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt;

use crate::cache::Key;
use crate::context::Context;
use crate::deployment::template::hash;
use crate::error::Error;
use crate::objects::{controller_of, controller_ref, is_controlled_by, is_deleting, pod_from_template};
use crate::queue::{Queue, work};
use decide::{HASH_LABEL, decide, pinned};

const COMPONENT: &str = "daemonset-controller";
const WORKERS: usize = 2;

/// The DaemonSet controller of one cluster.
pub struct DaemonSets {
    context: Arc<Context>,
    queue: Queue<Key>,
}

impl DaemonSets {
    /// A controller that reads the context's caches. It starts with `run`.
    pub fn new(context: &Arc<Context>) -> Arc<Self> {
        let controller = Arc::new(Self { context: context.clone(), queue: Queue::default() });
        let queue = controller.queue.clone();
        context.daemon_sets.on_change(move |change| {
            change.new.into_iter().for_each(|set| queue.add(Key::of(set.as_ref())));
        });
        let queue = controller.queue.clone();
        context.pods.on_change(move |change| {
            let Some(pod) = change.latest() else { return };
            let owner = controller_of(&pod.metadata).filter(|owner| owner.kind == "DaemonSet");
            let key = owner.map(|owner| Key::new(pod.namespace().unwrap_or_default(), &owner.name));
            key.into_iter().for_each(|key| queue.add(key));
        });
        let to = controller.clone();
        context.nodes.on_change(move |change| {
            let placing =
                |node: &k8s_openapi::api::core::v1::Node| (node.spec.clone(), node.metadata.labels.clone());
            if change.old.zip(change.new).is_some_and(|(old, new)| placing(old) == placing(new)) {
                return;
            }
            to.context.daemon_sets.all().iter().for_each(|set| to.queue.add(Key::of(set.as_ref())));
        });
        controller
    }

    /// Works until it is dropped.
    pub async fn run(self: Arc<Self>) {
        let (controller, queue) = (self.clone(), self.queue.clone());
        work(COMPONENT, queue, WORKERS, move |key| {
            let controller = controller.clone();
            async move { controller.reconcile(&key).await }
        })
        .await;
    }

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let Some(set) = self.context.daemon_sets.get(key).filter(|set| !is_deleting(&set.metadata)) else {
            return Ok(None);
        };
        let Some(spec) = &set.spec else { return Ok(None) };
        let uid = set.uid().unwrap_or_default();
        let owned = self.context.pods.owned_by(&uid).into_iter();
        let pods: Vec<_> = owned.filter(|pod| is_controlled_by(&pod.metadata, &uid)).collect();
        let hash = hash(&spec.template, 0);
        let plan = decide(&set, &self.context.nodes.all(), &pods, &hash, Timestamp::now());
        self.context.delete_pods(set.as_ref(), COMPONENT, &plan.delete).await?;
        let prefix = format!("{}-", set.name_any());
        let pod = |node: &String| {
            let mut pod =
                pod_from_template(&spec.template, &key.namespace, &prefix, controller_ref(set.as_ref()));
            pod.labels_mut().insert(HASH_LABEL.to_owned(), hash.clone());
            pod.spec = Some(pinned(pod.spec.take().unwrap_or_default(), Some(node)));
            pod
        };
        self.context.create_pods(set.as_ref(), COMPONENT, plan.create.iter().map(pod).collect()).await?;
        if set.status.as_ref() != Some(&plan.status) {
            let mut next = set.as_ref().clone();
            next.status = Some(plan.status);
            self.context.write_status(&self.context.daemon_sets, next).await?;
        }
        Ok(None)
    }
}
