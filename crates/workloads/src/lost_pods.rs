//! Deletes pods whose node is gone: upstream's pod garbage collector.
//!
//! Nobody will ever report on such a pod, and its owner waits for it. It gets a while, because a node that registers again
//! under its name (a restarted server) takes its pods up. Not here: a limit on ended pods, which belong to their Jobs.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams};

use crate::cache::Key;
use crate::context::Context;
use crate::error::{Doing, Error, status};
use crate::objects::node_of;
use crate::queue::{Queue, work};

const COMPONENT: &str = "pod-garbage-collector";
/// How long a node may be gone, as upstream.
const QUARANTINE: Duration = Duration::from_secs(40);

/// The controller of one cluster. Keys are nodes.
pub struct LostPods {
    context: Arc<Context>,
    queue: Queue<Key>,
}

impl LostPods {
    /// A controller that reads the context's caches. It starts with `run`.
    pub fn new(context: &Arc<Context>) -> Arc<Self> {
        let controller = Arc::new(Self { context: context.clone(), queue: Queue::default() });
        let queue = controller.queue.clone();
        context.nodes.on_change(move |change| {
            if let (Some(node), None) = (change.old, change.new) {
                queue.add_after(Key::of(node.as_ref()), QUARANTINE);
            }
        });
        controller
    }

    /// Works until it is dropped. Nodes that went while no server ran are found from the pods.
    pub async fn run(self: Arc<Self>) {
        for pod in self.context.pods.all() {
            let node = node_of(&pod).map(|name| Key::new("", name));
            let lost = node.filter(|node| self.context.nodes.get(node).is_none());
            lost.into_iter().for_each(|node| self.queue.add_after(node, QUARANTINE));
        }
        let (controller, queue) = (self.clone(), self.queue.clone());
        work(COMPONENT, queue, 1, move |key| {
            let controller = controller.clone();
            async move { controller.reconcile(&key).await }
        })
        .await;
    }

    async fn reconcile(&self, node: &Key) -> Result<Option<Duration>, Error> {
        if self.context.nodes.get(node).is_some() {
            return Ok(None);
        }
        // The cache may be behind; what follows cannot be undone.
        let nodes: Api<Node> = Api::all(self.context.client.clone());
        if nodes.get_opt(&node.name).await.doing(|| format!("look up node \"{node}\""))?.is_some() {
            return Ok(None);
        }
        let all = self.context.pods.all();
        for pod in all.iter().filter(|pod| node_of(pod) == Some(&node.name)) {
            self.delete(pod).await?;
        }
        Ok(None)
    }

    async fn delete(&self, pod: &Pod) -> Result<(), Error> {
        let api: Api<Pod> =
            Api::namespaced(self.context.client.clone(), &pod.namespace().unwrap_or_default());
        match api.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await {
            Err(error) if status(&error) == Some(404) => Ok(()),
            other => other.map(drop).doing(|| format!("delete the lost pod \"{}\"", Key::of(pod))),
        }
    }
}
