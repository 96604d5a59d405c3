//! What every controller of the manager shares: the client, the caches, the recorder, and the writes that go through both.

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{
    Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{Api, DeleteParams, PostParams};
use kube::{Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cache::{Cache, Key};
use crate::error::{Doing, Error, status};
use crate::events::{Note, Recorder};

/// Pods created or deleted at once in one reconcile.
const BURST: usize = 16;

/// Shared by the controllers.
pub struct Context {
    /// Identity `system:kube-controller-manager`.
    pub client: Client,
    /// Where events go.
    pub recorder: Recorder,
    /// Pods.
    pub pods: Cache<Pod>,
    /// Nodes.
    pub nodes: Cache<Node>,
    /// Namespaces.
    pub namespaces: Cache<Namespace>,
    /// ServiceAccounts.
    pub accounts: Cache<ServiceAccount>,
    /// ReplicaSets.
    pub replica_sets: Cache<ReplicaSet>,
    /// Deployments.
    pub deployments: Cache<Deployment>,
    /// DaemonSets.
    pub daemon_sets: Cache<DaemonSet>,
    /// StatefulSets.
    pub stateful_sets: Cache<StatefulSet>,
    /// CronJobs.
    pub cron_jobs: Cache<CronJob>,
    /// Jobs.
    pub jobs: Cache<Job>,
    /// Services.
    pub services: Cache<Service>,
    /// EndpointSlices.
    pub slices: Cache<EndpointSlice>,
    /// PersistentVolumeClaims.
    pub claims: Cache<PersistentVolumeClaim>,
    /// PersistentVolumes.
    pub volumes: Cache<PersistentVolume>,
    /// StorageClasses.
    pub classes: Cache<StorageClass>,
    /// HorizontalPodAutoscalers.
    pub autoscalers: Cache<HorizontalPodAutoscaler>,
}

impl Context {
    /// Empty caches around a client.
    pub fn new(client: Client, recorder: Recorder) -> Self {
        Self {
            client,
            recorder,
            pods: Cache::default(),
            nodes: Cache::default(),
            namespaces: Cache::default(),
            accounts: Cache::default(),
            replica_sets: Cache::default(),
            deployments: Cache::default(),
            daemon_sets: Cache::default(),
            stateful_sets: Cache::default(),
            cron_jobs: Cache::default(),
            jobs: Cache::default(),
            services: Cache::default(),
            slices: Cache::default(),
            claims: Cache::default(),
            volumes: Cache::default(),
            classes: Cache::default(),
            autoscalers: Cache::default(),
        }
    }

    /// Writes the status of a namespaced object as it is in `next`, and takes the answer into the cache.
    /// An object that is gone is no error.
    pub async fn write_status<K>(&self, cache: &Cache<K>, next: K) -> Result<(), Error>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
        K: Clone + Serialize + DeserializeOwned + std::fmt::Debug + Send + Sync + 'static,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), &next.namespace().unwrap_or_default());
        match api.replace_status(&next.name_any(), &PostParams::default(), &next).await {
            Ok(written) => cache.observe(written),
            Err(error) if status(&error) == Some(404) => {}
            Err(error) => {
                return Err(error)
                    .doing(|| format!("write the status of {} \"{}\"", K::kind(&()), Key::of(&next)));
            }
        }
        Ok(())
    }

    /// Creates pods for `owner`, several at a time. The first one goes alone: what is wrong with it is wrong with all.
    pub async fn create_pods<K: Resource<DynamicType = ()>>(
        &self,
        owner: &K,
        component: &'static str,
        mut pods: Vec<Pod>,
    ) -> Result<(), Error> {
        let mut size = 1;
        while !pods.is_empty() {
            let rest = pods.split_off(size.min(pods.len()));
            let batch = pods.into_iter().map(|pod| self.create_pod(owner, component, pod));
            let results = futures::future::join_all(batch).await;
            results.into_iter().collect::<Result<Vec<()>, Error>>()?;
            pods = rest;
            size = (size * 4).min(BURST);
        }
        Ok(())
    }

    async fn create_pod<K: Resource<DynamicType = ()>>(
        &self,
        owner: &K,
        component: &'static str,
        pod: Pod,
    ) -> Result<(), Error> {
        let namespace = pod.namespace().unwrap_or_default();
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
        match api.create(&PostParams::default(), &pod).await {
            Ok(created) => {
                let words = format!("Created pod: {}", created.name_any());
                self.recorder.tell(owner, component, Note::normal("SuccessfulCreate", words));
                self.pods.observe(created);
                Ok(())
            }
            Err(error) => {
                let words = format!("Error creating: {error}");
                self.recorder.tell(owner, component, Note::warning("FailedCreate", words));
                Err(error).doing(|| format!("create a pod of {} \"{}\"", K::kind(&()), owner.name_any()))
            }
        }
    }

    /// Deletes pods of `owner`'s namespace by name, several at a time. A pod that is gone is no error.
    pub async fn delete_pods<K: Resource<DynamicType = ()>>(
        &self,
        owner: &K,
        component: &'static str,
        names: &[String],
    ) -> Result<(), Error> {
        let namespace = owner.meta().namespace.clone().unwrap_or_default();
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
        for batch in names.chunks(BURST) {
            let deletes = batch.iter().map(|name| self.delete_pod(&api, owner, component, name));
            futures::future::join_all(deletes).await.into_iter().collect::<Result<Vec<()>, Error>>()?;
        }
        Ok(())
    }

    async fn delete_pod<K: Resource<DynamicType = ()>>(
        &self,
        api: &Api<Pod>,
        owner: &K,
        component: &'static str,
        name: &str,
    ) -> Result<(), Error> {
        match api.delete(name, &DeleteParams::default()).await {
            Ok(answer) => {
                answer.either(|pod| self.pods.observe(pod), |_status| ());
                let words = format!("Deleted pod: {name}");
                self.recorder.tell(owner, component, Note::normal("SuccessfulDelete", words));
                Ok(())
            }
            Err(error) if status(&error) == Some(404) => Ok(()),
            Err(error) => Err(error).doing(|| format!("delete pod \"{name}\"")),
        }
    }
}
