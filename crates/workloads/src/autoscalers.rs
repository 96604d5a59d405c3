//! Says on a HorizontalPodAutoscaler why it does not scale.
//!
//! Autoscaling itself is not here yet: nothing measures pods. The object is kept, and its conditions are upstream's for a target that
//! is missing (`FailedGetScale`), or for metrics that nobody serves (`FailedGetResourceMetric`), which is the truth.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler, HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerStatus,
};
use kube::ResourceExt;

use crate::cache::Key;
use crate::context::Context;
use crate::error::Error;
use crate::events::Note;
use crate::objects::time;
use crate::queue::{Queue, work};

const COMPONENT: &str = "horizontal-pod-autoscaler";

/// The controller of one cluster.
pub struct Autoscalers {
    context: Arc<Context>,
    queue: Queue<Key>,
}

/// A condition as upstream words it.
type Words = (&'static str, &'static str, &'static str, String);

impl Autoscalers {
    /// A controller that reads the context's caches. It starts with `run`.
    pub fn new(context: &Arc<Context>) -> Arc<Self> {
        let controller = Arc::new(Self { context: context.clone(), queue: Queue::default() });
        let queue = controller.queue.clone();
        context.autoscalers.on_change(move |change| {
            change.new.into_iter().for_each(|of| queue.add(Key::of(of.as_ref())));
        });
        let to = controller.clone();
        context.deployments.on_change(move |change| {
            let existence = change.old.is_none() || change.new.is_none();
            let Some(deployment) = change.latest().filter(|_| existence) else { return };
            let all = to.context.autoscalers.in_namespace(&deployment.namespace().unwrap_or_default());
            all.iter().for_each(|of| to.queue.add(Key::of(of.as_ref())));
        });
        controller
    }

    /// Works until it is dropped.
    pub async fn run(self: Arc<Self>) {
        let (controller, queue) = (self.clone(), self.queue.clone());
        work(COMPONENT, queue, 1, move |key| {
            let controller = controller.clone();
            async move { controller.reconcile(&key).await }
        })
        .await;
    }

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let Some(autoscaler) = self.context.autoscalers.get(key) else { return Ok(None) };
        let Some(spec) = &autoscaler.spec else { return Ok(None) };
        let target = &spec.scale_target_ref;
        let replicas = match target.kind.as_str() {
            "Deployment" => self.context.deployments.get(&Key::new(&key.namespace, &target.name)).map(|of| {
                (
                    of.spec.as_ref().and_then(|spec| spec.replicas),
                    of.status.as_ref().and_then(|status| status.replicas),
                )
            }),
            "ReplicaSet" => {
                self.context.replica_sets.get(&Key::new(&key.namespace, &target.name)).map(|of| {
                    (
                        of.spec.as_ref().and_then(|spec| spec.replicas),
                        of.status.as_ref().map(|status| status.replicas),
                    )
                })
            }
            // Other kinds are scaled by controllers that this cluster may not have; nothing true can be said of them here.
            _ => return Ok(None),
        };
        let words = conditions(&target.kind, &target.name, replicas.is_some());
        let current = replicas.and_then(|(_, current)| current);
        self.write(&autoscaler, words, current).await?;
        Ok(None)
    }

    async fn write(
        &self,
        autoscaler: &HorizontalPodAutoscaler,
        words: Vec<Words>,
        current: Option<i32>,
    ) -> Result<(), Error> {
        let before = autoscaler.status.clone().unwrap_or_default();
        let next_status = HorizontalPodAutoscalerStatus {
            conditions: Some(merge(before.conditions.clone().unwrap_or_default(), &words)),
            current_replicas: current,
            desired_replicas: before.desired_replicas,
            ..before.clone()
        };
        if autoscaler.status.as_ref() == Some(&next_status) {
            return Ok(());
        }
        let mut next = autoscaler.clone();
        next.status = Some(next_status);
        self.context.write_status(&self.context.autoscalers, next).await?;
        for (_, _, reason, message) in words.into_iter().filter(|(_, value, ..)| *value == "False") {
            self.context.recorder.tell(autoscaler, COMPONENT, Note::warning(reason, message));
        }
        Ok(())
    }
}

/// What is true of an autoscaler whose target exists or not.
fn conditions(kind: &str, name: &str, exists: bool) -> Vec<Words> {
    if !exists {
        let plural = format!("{}s", kind.to_lowercase());
        let words = format!(
            "the HPA controller was unable to get the target's current scale: {plural}.apps \"{name}\" not found"
        );
        return vec![("AbleToScale", "False", "FailedGetScale", words)];
    }
    let able = "the HPA controller was able to get the target's current scale".to_owned();
    let blind = "the HPA was unable to compute the replica count: unable to get metrics: \
        this cluster serves no metrics API"
        .to_owned();
    vec![
        ("AbleToScale", "True", "SucceededGetScale", able),
        ("ScalingActive", "False", "FailedGetResourceMetric", blind),
    ]
}

fn merge(
    before: Vec<HorizontalPodAutoscalerCondition>,
    words: &[Words],
) -> Vec<HorizontalPodAutoscalerCondition> {
    let now = time(Timestamp::now());
    let make = |(kind, value, reason, message): &Words| {
        let old = before.iter().find(|condition| condition.type_ == *kind && condition.status == *value);
        HorizontalPodAutoscalerCondition {
            type_: (*kind).to_owned(),
            status: (*value).to_owned(),
            reason: Some((*reason).to_owned()),
            message: Some(message.clone()),
            last_transition_time: old
                .and_then(|old| old.last_transition_time.clone())
                .or_else(|| Some(now.clone())),
        }
    };
    words.iter().map(make).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_target_is_told_in_upstreams_words() {
        let words = conditions("Deployment", "web", false);
        assert_eq!((words[0].0, words[0].1, words[0].2), ("AbleToScale", "False", "FailedGetScale"));
        assert!(words[0].3.ends_with("deployments.apps \"web\" not found"));
        let merged = merge(Vec::new(), &words);
        assert_eq!(merge(merged.clone(), &words), merged, "a second look changes nothing");
    }
}
