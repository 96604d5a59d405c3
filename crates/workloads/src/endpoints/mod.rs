//! Keeps the EndpointSlices of every Service that selects pods: what upstream's endpointslice controller does.
//!
//! Not here: the older `Endpoints` kind, which upstream has deprecated; slices that users make for Services without a selector.

pub mod decide;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, PostParams};

use crate::cache::Key;
use crate::context::Context;
use crate::error::{Doing, Error, status};
use crate::objects::{controller_ref, generated_name};
use crate::queue::{Queue, work};
use decide::{Content, MANAGED_BY, MANAGER, SERVICE_NAME, content, decide, is_selecting, selects};

const COMPONENT: &str = "endpointslice-controller";
const WORKERS: usize = 8;

/// The EndpointSlice controller of one cluster.
pub struct Endpoints {
    context: Arc<Context>,
    queue: Queue<Key>,
}

impl Endpoints {
    /// A controller that reads the context's caches. It starts with `run`.
    pub fn new(context: &Arc<Context>) -> Arc<Self> {
        let controller = Arc::new(Self { context: context.clone(), queue: Queue::default() });
        let queue = controller.queue.clone();
        context.services.on_change(move |change| {
            change.latest().into_iter().for_each(|service| queue.add(Key::of(service.as_ref())));
        });
        let to = controller.clone();
        context.pods.on_change(move |change| {
            if change.old.zip(change.new).is_some_and(|(old, new)| is_same_endpoint(old, new)) {
                return;
            }
            change.old.into_iter().chain(change.new).for_each(|pod| to.see_pod(pod));
        });
        let queue = controller.queue.clone();
        context.slices.on_change(move |change| {
            let Some(slice) = change.latest() else { return };
            let service = slice.labels().get(SERVICE_NAME);
            let key = service.map(|name| Key::new(slice.namespace().unwrap_or_default(), name));
            key.into_iter().for_each(|key| queue.add(key));
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

    fn see_pod(&self, pod: &Pod) {
        let services = self.context.services.in_namespace(&pod.namespace().unwrap_or_default());
        let selecting = services.iter().filter(|service| selects(service, pod));
        selecting.for_each(|service| self.queue.add(Key::of(service.as_ref())));
    }

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let slices = self.slices(key);
        let service = self.context.services.get(key).filter(|service| is_selecting(service));
        let Some(service) = service else {
            // The slices of a Service that is gone go with it; those of one that selects nothing any more, here.
            if self.context.services.get(key).is_some_and(|service| service.spec.is_some()) {
                self.delete(&slices).await?;
            }
            return Ok(None);
        };
        let pods = self.context.pods.in_namespace(&key.namespace);
        self.bring_in_line(&service, slices, decide(&service, &pods)).await?;
        Ok(None)
    }

    fn slices(&self, key: &Key) -> Vec<Arc<EndpointSlice>> {
        let all = self.context.slices.in_namespace(&key.namespace).into_iter();
        let ours = all.filter(|slice| {
            slice.labels().get(SERVICE_NAME) == Some(&key.name)
                && slice.labels().get(MANAGED_BY).is_some_and(|manager| manager == MANAGER)
        });
        ours.collect()
    }

    /// Slices that are right stay; others are rewritten, then made or deleted.
    async fn bring_in_line(
        &self,
        service: &Service,
        mut slices: Vec<Arc<EndpointSlice>>,
        mut wanted: Vec<Content>,
    ) -> Result<(), Error> {
        slices.retain(|slice| match wanted.iter().position(|of| *of == content(slice)) {
            Some(at) => {
                wanted.remove(at);
                false
            }
            None => true,
        });
        let mut spare = slices.into_iter();
        for content in wanted {
            match spare.next() {
                Some(slice) => self.rewrite(&slice, content).await?,
                None => self.create(service, content).await?,
            }
        }
        self.delete(&spare.collect::<Vec<_>>()).await
    }

    fn api(&self, namespace: &str) -> Api<EndpointSlice> {
        Api::namespaced(self.context.client.clone(), namespace)
    }

    async fn create(&self, service: &Service, content: Content) -> Result<(), Error> {
        let namespace = service.namespace().unwrap_or_default();
        let prefix = format!("{}-", service.name_any());
        let slice = EndpointSlice {
            metadata: ObjectMeta {
                name: Some(generated_name(&prefix)),
                generate_name: Some(prefix),
                namespace: Some(namespace.clone()),
                labels: Some(content.labels),
                owner_references: Some(vec![controller_ref(service)]),
                ..ObjectMeta::default()
            },
            address_type: "IPv4".to_owned(),
            ports: Some(content.ports),
            endpoints: content.endpoints,
        };
        let created = self.api(&namespace).create(&PostParams::default(), &slice).await;
        let created = created.doing(|| format!("create a slice of service \"{}\"", Key::of(service)))?;
        self.context.slices.observe(created);
        Ok(())
    }

    async fn rewrite(&self, slice: &EndpointSlice, content: Content) -> Result<(), Error> {
        let mut next = slice.clone();
        next.metadata.labels = Some(content.labels);
        next.ports = Some(content.ports);
        next.endpoints = content.endpoints;
        let api = self.api(&slice.namespace().unwrap_or_default());
        let written = api.replace(&slice.name_any(), &PostParams::default(), &next).await;
        let written = written.doing(|| format!("write slice \"{}\"", Key::of(slice)))?;
        self.context.slices.observe(written);
        Ok(())
    }

    async fn delete(&self, slices: &[Arc<EndpointSlice>]) -> Result<(), Error> {
        for slice in slices {
            let api = self.api(&slice.namespace().unwrap_or_default());
            match api.delete(&slice.name_any(), &DeleteParams::default()).await {
                Err(error) if status(&error) == Some(404) => {}
                other => drop(other.doing(|| format!("delete slice \"{}\"", Key::of(slice.as_ref())))?),
            }
            self.context.slices.forget(slice);
        }
        Ok(())
    }
}

/// Whether nothing changed that an endpoint shows.
fn is_same_endpoint(old: &Pod, new: &Pod) -> bool {
    let shown = |pod: &Pod| {
        let ip = pod.status.as_ref().and_then(|status| status.pod_ip.clone());
        let state = (crate::objects::is_ready(pod), crate::objects::is_finished(pod));
        (ip, state, pod.metadata.deletion_timestamp.is_some(), pod.labels().clone())
    };
    shown(old) == shown(new)
}
