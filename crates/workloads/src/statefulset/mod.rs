//! Keeps the named pods of a StatefulSet and their claims: what upstream's statefulset controller does.
//!
//! Not here: ControllerRevisions, so a pod below the partition that must be made again gets the new template, and
//! `kubectl rollout undo` has nothing to go back to; `persistentVolumeClaimRetentionPolicy` (claims are always kept).

pub mod decide;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, Volume};
use kube::ResourceExt;
use kube::api::{Api, PostParams};

use crate::cache::Key;
use crate::context::Context;
use crate::deployment::template::hash;
use crate::error::{Doing, Error, status};
use crate::objects::{controller_of, controller_ref, is_controlled_by, is_deleting, pod_from_template};
use crate::queue::{Queue, work};
use decide::{HASH_LABEL, decide};

const COMPONENT: &str = "statefulset-controller";
const WORKERS: usize = 2;

/// The StatefulSet controller of one cluster.
pub struct StatefulSets {
    context: Arc<Context>,
    queue: Queue<Key>,
}

impl StatefulSets {
    /// A controller that reads the context's caches. It starts with `run`.
    pub fn new(context: &Arc<Context>) -> Arc<Self> {
        let controller = Arc::new(Self { context: context.clone(), queue: Queue::default() });
        let queue = controller.queue.clone();
        context.stateful_sets.on_change(move |change| {
            change.new.into_iter().for_each(|set| queue.add(Key::of(set.as_ref())));
        });
        let queue = controller.queue.clone();
        context.pods.on_change(move |change| {
            let Some(pod) = change.latest() else { return };
            let owner = controller_of(&pod.metadata).filter(|owner| owner.kind == "StatefulSet");
            let key = owner.map(|owner| Key::new(pod.namespace().unwrap_or_default(), &owner.name));
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

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let Some(set) = self.context.stateful_sets.get(key).filter(|set| !is_deleting(&set.metadata)) else {
            return Ok(None);
        };
        let Some(spec) = &set.spec else { return Ok(None) };
        let uid = set.uid().unwrap_or_default();
        let owned = self.context.pods.owned_by(&uid).into_iter();
        let pods: Vec<_> = owned.filter(|pod| is_controlled_by(&pod.metadata, &uid)).collect();
        let revision = format!("{}-{}", set.name_any(), hash(&spec.template, 0));
        let plan = decide(&set, &pods, &revision, Timestamp::now());
        self.context.delete_pods(set.as_ref(), COMPONENT, &plan.delete).await?;
        for ordinal in &plan.create {
            self.create_claims(&set, *ordinal).await?;
        }
        let made = plan.create.iter().map(|ordinal| pod_of(&set, *ordinal, &revision)).collect();
        self.context.create_pods(set.as_ref(), COMPONENT, made).await?;
        if set.status.as_ref() != Some(&plan.status) {
            let mut next = set.as_ref().clone();
            next.status = Some(plan.status);
            self.context.write_status(&self.context.stateful_sets, next).await?;
        }
        // A pod that is ready but not yet for long enough: looked at again when it may be.
        let min_ready =
            spec.min_ready_seconds.and_then(|seconds| u64::try_from(seconds).ok()).filter(|s| *s > 0);
        Ok(min_ready.map(Duration::from_secs))
    }

    /// A claim that is there already is the pod's own from before.
    async fn create_claims(&self, set: &StatefulSet, ordinal: i32) -> Result<(), Error> {
        let namespace = set.namespace().unwrap_or_default();
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.context.client.clone(), &namespace);
        for template in set.spec.iter().flat_map(|spec| spec.volume_claim_templates.iter().flatten()) {
            let name = claim_name(template, set, ordinal);
            if self.context.claims.get(&Key::new(&namespace, &name)).is_some() {
                continue;
            }
            let mut claim = template.clone();
            claim.metadata.name = Some(name.clone());
            claim.metadata.namespace = Some(namespace.clone());
            claim.status = None;
            match api.create(&PostParams::default(), &claim).await {
                Ok(created) => self.context.claims.observe(created),
                Err(error) if status(&error) == Some(409) => {}
                Err(error) => return Err(error).doing(|| format!("create claim \"{namespace}/{name}\"")),
            }
        }
        Ok(())
    }
}

fn claim_name(template: &PersistentVolumeClaim, set: &StatefulSet, ordinal: i32) -> String {
    format!("{}-{}-{ordinal}", template.name_any(), set.name_any())
}

fn pod_of(set: &StatefulSet, ordinal: i32, revision: &str) -> Pod {
    let spec = set.spec.clone().unwrap_or_default();
    let name = format!("{}-{ordinal}", set.name_any());
    let prefix = format!("{}-", set.name_any());
    let namespace = set.namespace().unwrap_or_default();
    let mut pod = pod_from_template(&spec.template, &namespace, &prefix, controller_ref(set));
    pod.metadata.name = Some(name.clone());
    let labels = pod.labels_mut();
    labels.insert(HASH_LABEL.to_owned(), revision.to_owned());
    labels.insert("statefulset.kubernetes.io/pod-name".to_owned(), name.clone());
    labels.insert("apps.kubernetes.io/pod-index".to_owned(), ordinal.to_string());
    let inner = pod.spec.get_or_insert_default();
    inner.hostname = Some(name);
    inner.subdomain = spec.service_name.clone();
    let volumes = inner.volumes.get_or_insert_default();
    for template in spec.volume_claim_templates.iter().flatten() {
        let volume_name = template.name_any();
        volumes.retain(|volume| volume.name != volume_name);
        volumes.push(Volume {
            name: volume_name,
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim_name(template, set, ordinal),
                read_only: None,
            }),
            ..Volume::default()
        });
    }
    pod
}
