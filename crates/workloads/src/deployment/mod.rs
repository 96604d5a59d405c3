//! Rolls Deployments out: what upstream's deployment controller does.
//!
//! * `template` finds the set of the current template, `decide` picks the steps of the rollout, `status` words it: all pure.
//! * This file reads the caches, writes ReplicaSets, revisions and the status.
//!
//! `kubectl rollout undo` and `history` work from the revision annotations. Not here: taking over sets that nobody controls.

pub mod decide;
mod status;
pub mod template;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::cache::Key;
use crate::context::Context;
use crate::error::{Doing, Error, status as http_status};
use crate::events::Note;
use crate::objects::{controller_of, controller_ref, is_controlled_by, is_deleting};
use crate::queue::{Queue, work};
use decide::{DESIRED, MAX, REVISION, Set, Step, Wanted, decide};
use template::HASH_LABEL;

const COMPONENT: &str = "deployment-controller";
const WORKERS: usize = 8;
/// Annotations of a Deployment that its sets do not carry.
const NOT_COPIED: [&str; 5] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    DESIRED,
    MAX,
    "deprecated.deployment.rollback.to",
];

/// The Deployment controller of one cluster.
pub struct Deployments {
    context: Arc<Context>,
    queue: Queue<Key>,
}

impl Deployments {
    /// A controller that reads the context's caches. It starts with `run`.
    pub fn new(context: &Arc<Context>) -> Arc<Self> {
        let controller = Arc::new(Self { context: context.clone(), queue: Queue::default() });
        let queue = controller.queue.clone();
        context.deployments.on_change(move |change| {
            change.new.into_iter().for_each(|deployment| queue.add(Key::of(deployment.as_ref())));
        });
        let queue = controller.queue.clone();
        context.replica_sets.on_change(move |change| {
            let Some(set) = change.latest() else { return };
            let owner = controller_of(&set.metadata).filter(|owner| owner.kind == "Deployment");
            let key = owner.map(|owner| Key::new(set.namespace().unwrap_or_default(), &owner.name));
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
        let Some(deployment) = self.context.deployments.get(key) else { return Ok(None) };
        if is_deleting(&deployment.metadata) {
            return Ok(None);
        }
        let before = self.sets(&deployment);
        let new = template::current(&deployment, &before).cloned();
        let old = others(&before, new.as_deref());
        let wanted = Wanted::of(&deployment);
        let new_set = new.as_deref().map(Set::of);
        let steps = decide(&wanted, new_set.as_ref(), &old);
        let deployment = self.number(&deployment, new.as_ref(), &old).await?;
        for step in &steps {
            self.act(&deployment, &wanted, &before, step).await?;
        }
        self.write_status(&deployment, &wanted).await
    }

    fn sets(&self, deployment: &Deployment) -> Vec<Arc<ReplicaSet>> {
        let uid = deployment.uid().unwrap_or_default();
        let owned = self.context.replica_sets.owned_by(&uid).into_iter();
        owned.filter(|set| is_controlled_by(&set.metadata, &uid)).collect()
    }

    /// Gives the current template its revision: one above all others, also when an old template comes back.
    async fn number(
        &self,
        deployment: &Arc<Deployment>,
        new: Option<&Arc<ReplicaSet>>,
        old: &[Set],
    ) -> Result<Arc<Deployment>, Error> {
        let revision = next_revision(old, new.map(AsRef::as_ref)).to_string();
        if let Some(new) = new.filter(|new| new.annotations().get(REVISION) != Some(&revision)) {
            let annotations = json!({"metadata": {"annotations": {REVISION: revision}}});
            self.patch_set(new, annotations).await?;
        }
        if deployment.annotations().get(REVISION) == Some(&revision) {
            return Ok(deployment.clone());
        }
        let api: Api<Deployment> =
            Api::namespaced(self.context.client.clone(), &deployment.namespace().unwrap_or_default());
        let patch = Patch::Merge(json!({"metadata": {"annotations": {REVISION: revision}}}));
        let written = api.patch(&deployment.name_any(), &PatchParams::default(), &patch).await;
        let written = written.doing(|| format!("number deployment \"{}\"", Key::of(deployment.as_ref())))?;
        self.context.deployments.observe(written.clone());
        Ok(Arc::new(written))
    }

    async fn act(
        &self,
        deployment: &Deployment,
        wanted: &Wanted,
        sets: &[Arc<ReplicaSet>],
        step: &Step,
    ) -> Result<(), Error> {
        let named = |name: &str| sets.iter().find(|set| set.name_any() == name);
        match step {
            Step::Create(replicas) => self.create(deployment, wanted, *replicas).await,
            Step::Scale(name, to) => match named(name) {
                Some(set) => self.scale(deployment, wanted, set, *to).await,
                None => Ok(()),
            },
            Step::Delete(name) => match named(name) {
                Some(set) => self.delete(set).await,
                None => Ok(()),
            },
        }
    }

    async fn create(&self, deployment: &Deployment, wanted: &Wanted, replicas: i32) -> Result<(), Error> {
        let collisions = deployment.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0);
        let set = new_set(deployment, wanted, replicas, collisions);
        let name = set.name_any();
        let api: Api<ReplicaSet> =
            Api::namespaced(self.context.client.clone(), &deployment.namespace().unwrap_or_default());
        match api.create(&PostParams::default(), &set).await {
            Ok(created) => self.context.replica_sets.observe(created),
            Err(error) if http_status(&error) == Some(409) => {
                return self.collided(deployment, &name, error).await;
            }
            Err(error) => return Err(error).doing(|| format!("create replica set \"{name}\"")),
        }
        if replicas > 0 {
            self.tell_scaled(deployment, &name, 0, replicas);
        }
        Ok(())
    }

    /// The name is taken: by our own set, which the watch has yet to show, or by a stranger, and then another hash is needed.
    async fn collided(&self, deployment: &Deployment, name: &str, error: kube::Error) -> Result<(), Error> {
        let namespace = deployment.namespace().unwrap_or_default();
        let api: Api<ReplicaSet> = Api::namespaced(self.context.client.clone(), &namespace);
        let taken = api.get_opt(name).await.doing(|| format!("read replica set \"{name}\""))?;
        let ours = taken.as_ref().is_some_and(|set| {
            is_controlled_by(&set.metadata, &deployment.uid().unwrap_or_default())
                && template::current(deployment, &[Arc::new(set.clone())]).is_some()
        });
        if ours {
            taken.into_iter().for_each(|set| self.context.replica_sets.observe(set));
            return Ok(());
        }
        let mut next = deployment.clone();
        let status = next.status.get_or_insert_default();
        status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
        self.context.write_status(&self.context.deployments, next).await?;
        Err(error).doing(|| format!("create replica set \"{name}\""))
    }

    async fn scale(
        &self,
        deployment: &Deployment,
        wanted: &Wanted,
        set: &ReplicaSet,
        to: i32,
    ) -> Result<(), Error> {
        let from = Set::of(set).replicas;
        let annotations = json!({DESIRED: wanted.replicas.to_string(), MAX: wanted.max().to_string()});
        let patch = json!({"spec": {"replicas": to}, "metadata": {"annotations": annotations}});
        self.patch_set(set, patch).await?;
        self.tell_scaled(deployment, &set.name_any(), from, to);
        Ok(())
    }

    fn tell_scaled(&self, deployment: &Deployment, set: &str, from: i32, to: i32) {
        let way = if to > from { "up" } else { "down" };
        let words = format!("Scaled {way} replica set {set} from {from} to {to}");
        self.context.recorder.tell(deployment, COMPONENT, Note::normal("ScalingReplicaSet", words));
    }

    async fn delete(&self, set: &ReplicaSet) -> Result<(), Error> {
        let api: Api<ReplicaSet> =
            Api::namespaced(self.context.client.clone(), &set.namespace().unwrap_or_default());
        match api.delete(&set.name_any(), &DeleteParams::background()).await {
            Err(error) if http_status(&error) == Some(404) => Ok(()),
            other => other.map(drop).doing(|| format!("delete replica set \"{}\"", Key::of(set))),
        }
    }

    async fn patch_set(&self, set: &ReplicaSet, patch: serde_json::Value) -> Result<(), Error> {
        let api: Api<ReplicaSet> =
            Api::namespaced(self.context.client.clone(), &set.namespace().unwrap_or_default());
        let written = api.patch(&set.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await;
        let written = written.doing(|| format!("change replica set \"{}\"", Key::of(set)))?;
        self.context.replica_sets.observe(written);
        Ok(())
    }

    async fn write_status(
        &self,
        deployment: &Deployment,
        wanted: &Wanted,
    ) -> Result<Option<Duration>, Error> {
        let sets = self.sets(deployment);
        let new = template::current(deployment, &sets).cloned();
        let old = others(&sets, new.as_deref());
        let (status, look_again) = status::status(deployment, wanted, new.as_deref(), &old, Timestamp::now());
        if deployment.status.as_ref() != Some(&status) {
            let mut next = deployment.clone();
            next.status = Some(status);
            self.context.write_status(&self.context.deployments, next).await?;
        }
        Ok(look_again)
    }
}

fn others(sets: &[Arc<ReplicaSet>], new: Option<&ReplicaSet>) -> Vec<Set> {
    let new_name = new.map(|new| new.name_any());
    let rest = sets.iter().filter(|set| Some(set.name_any()) != new_name);
    rest.map(|set| Set::of(set)).collect()
}

fn next_revision(old: &[Set], new: Option<&ReplicaSet>) -> i64 {
    let highest_old = old.iter().map(|set| set.revision).max().unwrap_or(0);
    new.map_or(0, |set| Set::of(set).revision).max(highest_old + 1)
}

/// The set of the Deployment's template.
fn new_set(deployment: &Deployment, wanted: &Wanted, replicas: i32, collisions: i32) -> ReplicaSet {
    let spec = deployment.spec.clone().unwrap_or_default();
    let hash = template::hash(&spec.template, collisions);
    let mut pod_template = spec.template.clone();
    let labels = pod_template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(HASH_LABEL.to_owned(), hash.clone());
    let labels = labels.clone();
    let mut selector = spec.selector.clone();
    selector.match_labels.get_or_insert_default().insert(HASH_LABEL.to_owned(), hash.clone());
    let mut annotations = deployment.annotations().clone();
    annotations.retain(|name, _| !NOT_COPIED.contains(&name.as_str()));
    annotations.insert(DESIRED.to_owned(), wanted.replicas.to_string());
    annotations.insert(MAX.to_owned(), wanted.max().to_string());
    let revision = deployment.annotations().get(REVISION).cloned().unwrap_or_else(|| "1".to_owned());
    annotations.insert(REVISION.to_owned(), revision);
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", deployment.name_any())),
            namespace: deployment.namespace(),
            labels: Some(labels),
            annotations: Some(annotations),
            owner_references: Some(vec![controller_ref(deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(replicas),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(pod_template),
        }),
        status: None,
    }
}
