//! Keeps as many pods as a ReplicaSet asks for: what upstream's replicaset controller does.
//!
//! Not here: taking over pods that nobody controls. A pod belongs to the set that made it.

pub mod decide;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition};
use kube::ResourceExt;

use crate::cache::Key;
use crate::context::Context;
use crate::error::Error;
use crate::objects::{controller_of, controller_ref, is_controlled_by, pod_from_template, time};
use crate::queue::{Queue, work};
use decide::{Plan, decide};

const COMPONENT: &str = "replicaset-controller";
const WORKERS: usize = 8;

/// The ReplicaSet controller of one cluster.
pub struct ReplicaSets {
    context: Arc<Context>,
    queue: Queue<Key>,
}

impl ReplicaSets {
    /// A controller that reads the context's caches. It starts with `run`.
    pub fn new(context: &Arc<Context>) -> Arc<Self> {
        let controller = Arc::new(Self { context: context.clone(), queue: Queue::default() });
        let queue = controller.queue.clone();
        context.replica_sets.on_change(move |change| {
            change.new.into_iter().for_each(|set| queue.add(Key::of(set.as_ref())));
        });
        let queue = controller.queue.clone();
        context.pods.on_change(move |change| {
            let Some(pod) = change.latest() else { return };
            let owner = controller_of(&pod.metadata).filter(|owner| owner.kind == "ReplicaSet");
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
        let Some(set) = self.context.replica_sets.get(key) else { return Ok(None) };
        let uid = set.uid().unwrap_or_default();
        let owned = self.context.pods.owned_by(&uid).into_iter();
        let pods: Vec<_> = owned.filter(|pod| is_controlled_by(&pod.metadata, &uid)).collect();
        let mut plan = decide(&set, &pods, Timestamp::now());
        let acted = self.act(&set, &plan).await;
        if let Err(error) = &acted {
            note_failure(&mut plan, error);
        } else if let Some(conditions) = &mut plan.status.conditions {
            conditions.retain(|condition| condition.type_ != "ReplicaFailure");
            if conditions.is_empty() {
                plan.status.conditions = None;
            }
        }
        if set.status.as_ref() != Some(&plan.status) {
            let mut next = set.as_ref().clone();
            next.status = Some(plan.status);
            self.context.write_status(&self.context.replica_sets, next).await?;
        }
        acted.map(|()| plan.look_again)
    }

    async fn act(&self, set: &ReplicaSet, plan: &Plan) -> Result<(), Error> {
        self.context.delete_pods(set, COMPONENT, &plan.delete).await?;
        let template = set.spec.as_ref().and_then(|spec| spec.template.clone()).unwrap_or_default();
        let (namespace, prefix) = (set.namespace().unwrap_or_default(), format!("{}-", set.name_any()));
        let pod = || pod_from_template(&template, &namespace, &prefix, controller_ref(set));
        let pods = (0..plan.create).map(|_| pod()).collect();
        self.context.create_pods(set, COMPONENT, pods).await
    }
}

/// Says in the status that pods could not be made.
fn note_failure(plan: &mut Plan, error: &Error) {
    let conditions = plan.status.conditions.get_or_insert_default();
    if conditions.iter().any(|condition| condition.type_ == "ReplicaFailure") {
        return;
    }
    conditions.push(ReplicaSetCondition {
        type_: "ReplicaFailure".to_owned(),
        status: "True".to_owned(),
        reason: Some("FailedCreate".to_owned()),
        message: Some(error.chain()),
        last_transition_time: Some(time(Timestamp::now())),
    });
}
