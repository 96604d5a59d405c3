//! Empties a namespace that is being deleted, and lets it go when nothing is left in it.
//!
//! Its contents are what the garbage collector's graph knows, so no list is made until the end: one look at every resource
//! confirms that the namespace is empty, because a watch may be behind. What arrives late is deleted in the next round.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, PostParams, PropagationPolicy};

use crate::cache::Key;
use crate::context::Context;
use crate::error::{Doing, Error, status};
use crate::garbage::Garbage;
use crate::objects::is_deleting;
use crate::queue::{Queue, work};

const COMPONENT: &str = "namespace-controller";
const WORKERS: usize = 4;
/// Deletes in flight for one namespace.
const DELETES_MAX: usize = 16;
const FINALIZER: &str = "kubernetes";

/// The namespace controller of one cluster.
pub struct Namespaces {
    context: Arc<Context>,
    garbage: Arc<Garbage>,
    queue: Queue<Key>,
}

impl Namespaces {
    /// A controller that works on `queue`, into which the garbage collector puts namespaces that lost an object.
    pub fn new(context: &Arc<Context>, garbage: &Arc<Garbage>, queue: Queue<Key>) -> Arc<Self> {
        let controller = Arc::new(Self { context: context.clone(), garbage: garbage.clone(), queue });
        let queue = controller.queue.clone();
        context.namespaces.on_change(move |change| {
            let leaving = change.new.filter(|namespace| is_deleting(&namespace.metadata));
            leaving.into_iter().for_each(|namespace| queue.add(Key::of(namespace.as_ref())));
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
        let Some(namespace) = self.context.namespaces.get(key).filter(|one| is_deleting(&one.metadata))
        else {
            return Ok(None);
        };
        let held = namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_ref());
        if !held.is_some_and(|held| held.iter().any(|finalizer| finalizer == FINALIZER)) {
            return Ok(None);
        }
        let members = self.garbage.members(&key.name);
        if !members.is_empty() {
            let fresh = members.iter().filter(|node| !node.deleting);
            let delete = |uid: String| async move {
                self.garbage.delete(&uid, Some(PropagationPolicy::Background)).await
            };
            let deletes =
                futures::stream::iter(fresh.map(|node| delete(node.uid.clone())).collect::<Vec<_>>());
            let results: Vec<Result<(), Error>> = deletes.buffer_unordered(DELETES_MAX).collect().await;
            results.into_iter().collect::<Result<Vec<()>, Error>>()?;
            // The next look comes when the watch shows the last of them gone.
            return Ok(None);
        }
        if self.empty_the_rest(&key.name).await? {
            self.finalize(&namespace).await?;
            return Ok(None);
        }
        // Something is there that the graph has yet to learn of; its removal calls again, this is for what slips through.
        Ok(Some(Duration::from_secs(1)))
    }

    /// Deletes what the graph does not hold (events, leases); says whether nothing else is left.
    async fn empty_the_rest(&self, namespace: &str) -> Result<bool, Error> {
        let mut empty = true;
        for entry in self.garbage.resources.namespaced() {
            let api = self.garbage.resources.api(&entry, namespace);
            let doing = || format!("empty {} of \"{namespace}\"", entry.api.plural);
            let left = api.list(&ListParams::default().limit(1)).await.doing(doing)?;
            if left.items.is_empty() {
                continue;
            }
            empty &= !entry.watched;
            api.delete_collection(&DeleteParams::background(), &ListParams::default()).await.doing(doing)?;
        }
        Ok(empty)
    }

    async fn finalize(&self, namespace: &Namespace) -> Result<(), Error> {
        let name = namespace.name_any();
        let mut next = namespace.clone();
        if let Some(held) = next.spec.as_mut().and_then(|spec| spec.finalizers.as_mut()) {
            held.retain(|finalizer| finalizer != FINALIZER);
        }
        let api: Api<Namespace> = Api::all(self.context.client.clone());
        match api.replace_subresource("finalize", &name, &PostParams::default(), &next).await {
            Err(error) if status(&error) == Some(404) => Ok(()),
            other => other.map(drop).doing(|| format!("let namespace \"{name}\" go")),
        }
    }
}
