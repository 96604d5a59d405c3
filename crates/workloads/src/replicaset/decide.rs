//! How many pods a ReplicaSet makes or removes, which ones, and what its status says: pure.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use crate::objects::{is_active, is_available, is_deleting, is_ready, node_of, phase};

/// Pods made or removed in one go.
const BURST_MAX: usize = 500;
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// What is to be done.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// How many pods to make.
    pub create: usize,
    /// Names of pods to delete.
    pub delete: Vec<String>,
    /// The status as it should be.
    pub status: ReplicaSetStatus,
    /// When a pod will have been ready long enough.
    pub look_again: Option<Duration>,
}

/// The steps for one ReplicaSet and the pods that it controls.
pub fn decide(set: &ReplicaSet, pods: &[Arc<Pod>], now: Timestamp) -> Plan {
    let Some(spec) = &set.spec else { return Plan::default() };
    let mut active: Vec<&Arc<Pod>> = pods.iter().filter(|pod| is_active(pod)).collect();
    let wanted = if is_deleting(&set.metadata) { active.len() } else { count(spec.replicas.unwrap_or(1)) };
    let mut plan = Plan { create: wanted.saturating_sub(active.len()).min(BURST_MAX), ..Plan::default() };
    let surplus = active.len().saturating_sub(wanted).min(BURST_MAX);
    if surplus > 0 {
        active.sort_by_cached_key(|pod| worth(pod));
        plan.delete = active.drain(..surplus).map(|pod| pod.name_any()).collect();
    }
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    let mut available = 0;
    for pod in &active {
        match is_available(pod, min_ready, now) {
            Ok(true) => available += 1,
            Ok(false) => {}
            Err(left) => {
                let left = Duration::from_millis(u64::try_from(left).unwrap_or(0));
                plan.look_again = Some(plan.look_again.map_or(left, |earlier: Duration| earlier.min(left)));
            }
        }
    }
    let labels = spec.template.as_ref().and_then(|t| t.metadata.as_ref()).and_then(|m| m.labels.clone());
    let labels = labels.unwrap_or_default();
    let labelled =
        active.iter().filter(|pod| labels.iter().all(|(key, value)| pod.labels().get(key) == Some(value)));
    plan.status = ReplicaSetStatus {
        // Pods that are about to be made are counted when they are there.
        replicas: size(active.len()),
        fully_labeled_replicas: positive(labelled.count()),
        ready_replicas: positive(active.iter().filter(|pod| is_ready(pod)).count()),
        available_replicas: positive(available),
        observed_generation: set.metadata.generation,
        conditions: set.status.as_ref().and_then(|status| status.conditions.clone()),
        terminating_replicas: None,
    };
    plan
}

fn count(replicas: i32) -> usize {
    usize::try_from(replicas).unwrap_or(0)
}

fn size(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn positive(count: usize) -> Option<i32> {
    (count > 0).then(|| size(count))
}

/// What is least is deleted first: without a node, not running, not ready, cheap, restarted often, young.
fn worth(pod: &Pod) -> (bool, u8, bool, i64, i64, i64, String) {
    let rank = match phase(pod) {
        "Running" => 2,
        "Unknown" => 1,
        _ => 0,
    };
    let cost = pod.annotations().get(DELETION_COST).and_then(|cost| cost.parse().ok()).unwrap_or(0);
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    let restarts: i64 =
        statuses.into_iter().flatten().map(|container| i64::from(container.restart_count)).sum();
    let born = pod.metadata.creation_timestamp.as_ref().map_or(i64::MAX, |at| at.0.as_second());
    (node_of(pod).is_some(), rank, is_ready(pod), cost, -restarts, -born, pod.name_any())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set(replicas: i32) -> ReplicaSet {
        serde_json::from_value(
            json!({"metadata": {"name": "r", "generation": 3}, "spec": {"replicas": replicas,
            "selector": {}, "template": {"metadata": {"labels": {"a": "b"}}}}}),
        )
        .unwrap()
    }

    fn pod(name: &str, phase: &str, ready: bool, node: Option<&str>) -> Arc<Pod> {
        let ready = if ready { "True" } else { "False" };
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": name, "labels": {"a": "b"}}, "spec": {"nodeName": node,
                "containers": []}, "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready}]}}))
            .unwrap(),
        )
    }

    fn check(replicas: i32, pods: &[Arc<Pod>], create: usize, delete: &[&str]) -> Plan {
        let plan = decide(&set(replicas), pods, "2026-01-01T00:00:00Z".parse().unwrap());
        assert_eq!(
            (plan.create, plan.delete.iter().map(String::as_str).collect::<Vec<_>>()),
            (create, delete.to_vec())
        );
        plan
    }

    #[test]
    fn what_is_missing_is_made_and_ended_pods_are_replaced() {
        check(3, &[], 3, &[]);
        check(2, &[pod("a", "Running", true, Some("n")), pod("b", "Failed", false, Some("n"))], 1, &[]);
        check(0, &[], 0, &[]);
    }

    #[test]
    fn the_least_useful_pods_go_first() {
        let pods = [
            pod("ready", "Running", true, Some("n")),
            pod("unready", "Running", false, Some("n")),
            pod("pending", "Pending", false, Some("n")),
            pod("unplaced", "Pending", false, None),
        ];
        check(3, &pods, 0, &["unplaced"]);
        check(1, &pods, 0, &["unplaced", "pending", "unready"]);
        let plan = check(0, &pods, 0, &["unplaced", "pending", "unready", "ready"]);
        assert_eq!(plan.status.replicas, 0);
    }

    #[test]
    fn the_status_counts_what_is_ready() {
        let plan =
            check(2, &[pod("a", "Running", true, Some("n")), pod("b", "Running", false, Some("n"))], 0, &[]);
        let status = plan.status;
        assert_eq!(
            (status.replicas, status.ready_replicas, status.available_replicas),
            (2, Some(1), Some(1))
        );
        assert_eq!((status.fully_labeled_replicas, status.observed_generation), (Some(2), Some(3)));
    }
}
