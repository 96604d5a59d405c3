//! The next steps of a StatefulSet: pure.
//!
//! Pods have fixed names `SET-ORDINAL`. In order (the default), a pod is made only when all before it are available, removed only
//! when all after it are gone, and replaced by a new template from the last to the first, one at a time.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use crate::objects::{is_available, is_deleting, is_finished, is_ready};

/// The label that tells the pods of one template from those of another.
pub const HASH_LABEL: &str = "controller-revision-hash";

/// What is to be done.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// Ordinals that get a pod.
    pub create: Vec<i32>,
    /// Names of pods to delete.
    pub delete: Vec<String>,
    /// The status as it should be.
    pub status: StatefulSetStatus,
}

/// The ordinal of a pod by its name.
pub fn ordinal(set: &str, pod: &str) -> Option<i32> {
    pod.strip_prefix(set)?.strip_prefix('-')?.parse().ok().filter(|ordinal| *ordinal >= 0)
}

/// The steps for a StatefulSet and the pods that it controls; `revision` is the name of its template.
pub fn decide(set: &StatefulSet, pods: &[Arc<Pod>], revision: &str, now: Timestamp) -> Plan {
    let Some(spec) = &set.spec else { return Plan::default() };
    let name = set.name_any();
    let by_ordinal: BTreeMap<i32, &Arc<Pod>> =
        pods.iter().filter_map(|pod| Some((ordinal(&name, &pod.name_any())?, pod))).collect();
    let start = spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0);
    let wanted = start..start + spec.replicas.unwrap_or(1).max(0);
    let in_order = spec.pod_management_policy.as_deref() != Some("Parallel");
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    let healthy = |pod: &Pod| !is_deleting(&pod.metadata) && is_available(pod, min_ready, now) == Ok(true);
    let is_new = |pod: &Pod| pod.labels().get(HASH_LABEL).is_some_and(|of| of == revision);
    let mut plan = Plan::default();
    let mut settled = true;
    for at in wanted.clone() {
        match by_ordinal.get(&at) {
            None => plan.create.push(at),
            Some(pod) if is_finished(pod) && !is_deleting(&pod.metadata) => plan.delete.push(pod.name_any()),
            Some(pod) if healthy(pod) => continue,
            Some(_) => {}
        }
        settled = false;
        if in_order {
            break;
        }
    }
    let surplus = by_ordinal.iter().rev().filter(|(at, _)| !wanted.contains(at)).map(|(_, pod)| *pod);
    if settled || !in_order {
        for pod in surplus {
            settled = false;
            if !is_deleting(&pod.metadata) {
                plan.delete.push(pod.name_any());
            }
            if in_order {
                break;
            }
        }
    }
    if settled && !on_delete(set) {
        let from = start + partition(set);
        let old = by_ordinal.range(from.min(wanted.end)..wanted.end).rev().find(|(_, pod)| !is_new(pod));
        plan.delete.extend(old.map(|(_, pod)| pod.name_any()));
    }
    plan.status = status(set, &by_ordinal, revision, is_new, healthy);
    plan
}

fn on_delete(set: &StatefulSet) -> bool {
    let strategy = set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
    strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete")
}

fn partition(set: &StatefulSet) -> i32 {
    let strategy = set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    rolling.and_then(|rolling| rolling.partition).unwrap_or(0).max(0)
}

fn status(
    set: &StatefulSet,
    pods: &BTreeMap<i32, &Arc<Pod>>,
    revision: &str,
    is_new: impl Fn(&Pod) -> bool,
    healthy: impl Fn(&Pod) -> bool,
) -> StatefulSetStatus {
    let before = set.status.clone().unwrap_or_default();
    let live: Vec<&&Arc<Pod>> = pods.values().filter(|pod| !is_finished(pod)).collect();
    let count =
        |of: &dyn Fn(&Pod) -> bool| i32::try_from(live.iter().filter(|pod| of(pod)).count()).unwrap_or(0);
    let updated = count(&|pod| is_new(pod) && !is_deleting(&pod.metadata));
    let all = count(&|_| true);
    let current =
        before.current_revision.clone().filter(|_| updated < all).unwrap_or_else(|| revision.to_owned());
    let of_current = count(&|pod| pod.labels().get(HASH_LABEL) == Some(&current));
    StatefulSetStatus {
        replicas: all,
        ready_replicas: Some(count(&|pod| is_ready(pod) && !is_deleting(&pod.metadata))),
        available_replicas: Some(count(&healthy)),
        current_replicas: Some(of_current).filter(|count| *count > 0),
        updated_replicas: Some(updated).filter(|count| *count > 0),
        current_revision: Some(current),
        update_revision: Some(revision.to_owned()),
        observed_generation: set.metadata.generation,
        collision_count: Some(0),
        conditions: before.conditions,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn set(extra: Value) -> StatefulSet {
        let mut object = json!({"metadata": {"name": "db"}, "spec": {"replicas": 3, "serviceName": "db", "selector": {},
            "template": {}}});
        for (key, value) in extra.as_object().unwrap() {
            object["spec"][key] = value.clone();
        }
        serde_json::from_value(object).unwrap()
    }

    fn pod(name: &str, ready: &str, hash: &str) -> Arc<Pod> {
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": name, "labels": {HASH_LABEL: hash}},
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}}))
            .unwrap(),
        )
    }

    fn check(name: &str, extra: Value, pods: &[Arc<Pod>], create: &[i32], delete: &[&str]) {
        let plan = decide(&set(extra), pods, "new", "2026-01-01T00:00:00Z".parse().unwrap());
        let delete: Vec<String> = delete.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!((plan.create.as_slice(), plan.delete), (create, delete), "{name}");
    }

    #[test]
    fn pods_come_and_go_in_order() {
        let up = |name| pod(name, "True", "new");
        let down = |name| pod(name, "False", "new");
        check("first", json!({}), &[], &[0], &[]);
        check("waits", json!({}), &[down("db-0")], &[], &[]);
        check("second", json!({}), &[up("db-0")], &[1], &[]);
        check("hole", json!({}), &[up("db-0"), up("db-2")], &[1], &[]);
        check("all", json!({}), &[up("db-0"), up("db-1"), up("db-2")], &[], &[]);
        check("shrink", json!({"replicas": 1}), &[up("db-0"), up("db-1"), up("db-2")], &[], &["db-2"]);
        check("sick ones stop a shrink", json!({"replicas": 1}), &[down("db-0"), up("db-1")], &[], &[]);
        let parallel = |replicas: i32| json!({"podManagementPolicy": "Parallel", "replicas": replicas});
        check("parallel", parallel(3), &[down("db-1")], &[0, 2], &[]);
        check("parallel shrink", parallel(0), &[up("db-0"), up("db-1")], &[], &["db-1", "db-0"]);
    }

    #[test]
    fn a_new_template_replaces_pods_from_the_last_to_the_partition() {
        let pods = [pod("db-0", "True", "old"), pod("db-1", "True", "old"), pod("db-2", "True", "old")];
        check("last first", json!({}), &pods, &[], &["db-2"]);
        let half = [pods[0].clone(), pods[1].clone(), pod("db-2", "False", "new")];
        check("one at a time", json!({}), &half, &[], &[]);
        let partition =
            json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}});
        let done = [pods[0].clone(), pods[1].clone(), pod("db-2", "True", "new")];
        check("partition", partition, &done, &[], &[]);
        check("on delete", json!({"updateStrategy": {"type": "OnDelete"}}), &pods, &[], &[]);
        let plan = decide(&set(json!({})), &done, "new", "2026-01-01T00:00:00Z".parse().unwrap());
        assert_eq!((plan.status.updated_replicas, plan.status.ready_replicas), (Some(1), Some(3)));
    }
}
