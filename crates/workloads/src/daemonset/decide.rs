//! Which nodes need a pod of a DaemonSet, and which pods go: pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{
    Affinity, Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec,
    Toleration,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use types::percent::{IntOrPercent, Round};

use crate::objects::{is_active, is_available, is_deleting, is_finished, is_ready, node_of};
use crate::scheduler::fit::{NodeState, Request, fits};

/// The label that tells the pods of one template from those of another.
pub const HASH_LABEL: &str = "controller-revision-hash";
/// What a daemon tolerates without asking: conditions of the node under which it should go on.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];

/// What is to be done.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// Names of nodes that get a pod.
    pub create: Vec<String>,
    /// Names of pods to delete.
    pub delete: Vec<String>,
    /// The status as it should be.
    pub status: DaemonSetStatus,
}

/// The steps for a DaemonSet; `hash` is that of its template.
pub fn decide(set: &DaemonSet, nodes: &[Arc<Node>], pods: &[Arc<Pod>], hash: &str, now: Timestamp) -> Plan {
    let Some(spec) = &set.spec else { return Plan::default() };
    let probe =
        Pod { spec: Some(pinned(spec.template.spec.clone().unwrap_or_default(), None)), ..Pod::default() };
    let runs_on = |node: &&Arc<Node>| fits(&probe, &Request::default(), &NodeState::of(node), true).is_ok();
    let eligible: Vec<String> = nodes.iter().filter(runs_on).map(|node| node.name_any()).collect();
    let mut by_node: BTreeMap<String, Vec<&Arc<Pod>>> = BTreeMap::new();
    let mut plan = Plan::default();
    for pod in pods.iter().filter(|pod| !is_deleting(&pod.metadata)) {
        if is_finished(pod) {
            plan.delete.push(pod.name_any());
        } else if let Some(node) = target(pod) {
            by_node.entry(node).or_default().push(pod);
        }
    }
    let misplaced: Vec<String> = by_node.keys().filter(|node| !eligible.contains(node)).cloned().collect();
    for node in &misplaced {
        plan.delete.extend(by_node.remove(node).into_iter().flatten().map(|pod| pod.name_any()));
    }
    for node in &eligible {
        // A pod that is on its way out is waited for, so that two never share the node's ports.
        let leaving = pods.iter().any(|pod| is_deleting(&pod.metadata) && target(pod).as_ref() == Some(node));
        match by_node.get_mut(node) {
            None if !leaving => plan.create.push(node.clone()),
            None => {}
            Some(here) => {
                here.sort_by_key(|pod| {
                    (!is_ready(pod), pod.metadata.creation_timestamp.as_ref().map(|at| at.0))
                });
                plan.delete.extend(here.drain(1..).map(|pod| pod.name_any()));
            }
        }
    }
    let kept: Vec<&Arc<Pod>> = by_node.into_values().flatten().collect();
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    let available = |pod: &&&Arc<Pod>| is_available(pod, min_ready, now) == Ok(true);
    let is_new = |pod: &&&Arc<Pod>| pod.labels().get(HASH_LABEL).is_some_and(|of| of == hash);
    let desired = size(eligible.len());
    let on_delete = spec.update_strategy.as_ref().and_then(|s| s.type_.as_deref()) == Some("OnDelete");
    if !on_delete {
        let budget = budget(set, desired) - (desired - size(kept.iter().filter(available).count()));
        plan.delete.extend(outdated(&kept, is_new, available, budget));
    }
    plan.status = DaemonSetStatus {
        desired_number_scheduled: desired,
        current_number_scheduled: size(kept.len()),
        number_misscheduled: size(misplaced.len()),
        number_ready: size(kept.iter().filter(|pod| is_ready(pod)).count()),
        number_available: positive(kept.iter().filter(available).count()),
        number_unavailable: positive(
            eligible.len() - kept.iter().filter(available).count().min(eligible.len()),
        ),
        updated_number_scheduled: positive(kept.iter().filter(is_new).count()),
        observed_generation: set.metadata.generation,
        collision_count: None,
        conditions: None,
    };
    plan
}

/// Pods of older templates that may go now: broken ones at once, the others within the budget.
fn outdated<'a>(
    kept: &'a [&'a Arc<Pod>],
    is_new: impl Fn(&&&Arc<Pod>) -> bool,
    available: impl Fn(&&&Arc<Pod>) -> bool,
    budget: i32,
) -> Vec<String> {
    let old: Vec<&&Arc<Pod>> = kept.iter().filter(|pod| !is_new(pod)).collect();
    let (healthy, broken): (Vec<&&Arc<Pod>>, Vec<&&Arc<Pod>>) =
        old.into_iter().partition(|pod| available(pod));
    let allowed = usize::try_from(budget).unwrap_or(0);
    broken.into_iter().chain(healthy.into_iter().take(allowed)).map(|pod| pod.name_any()).collect()
}

fn budget(set: &DaemonSet, desired: i32) -> i32 {
    let strategy = set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
    let value = strategy.and_then(|s| s.rolling_update.as_ref()).and_then(|r| r.max_unavailable.as_ref());
    let value = match value {
        Some(IntOrString::Int(count)) => IntOrPercent::Int(*count),
        Some(IntOrString::String(text)) => text.parse().unwrap_or(IntOrPercent::Int(1)),
        None => IntOrPercent::Int(1),
    };
    value.of(desired, Round::Up).max(1)
}

/// The node that a pod is on or made for.
fn target(pod: &Pod) -> Option<String> {
    if let Some(node) = node_of(pod).filter(|_| is_active(pod) || is_deleting(&pod.metadata)) {
        return Some(node.to_owned());
    }
    let required = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let terms = &required.required_during_scheduling_ignored_during_execution.as_ref()?.node_selector_terms;
    let fields = terms.iter().flat_map(|term| term.match_fields.iter().flatten());
    let mut by_name = fields.filter(|field| field.key == "metadata.name");
    by_name.next()?.values.as_ref()?.first().cloned()
}

/// The spec of a daemon's pod: with a daemon's tolerations, and tied to a node.
pub fn pinned(mut spec: PodSpec, node: Option<&str>) -> PodSpec {
    let tolerations = spec.tolerations.get_or_insert_default();
    tolerations.extend(TOLERATED.map(|(key, effect)| Toleration {
        key: Some(key.to_owned()),
        operator: Some("Exists".to_owned()),
        effect: Some(effect.to_owned()),
        ..Toleration::default()
    }));
    let Some(node) = node else { return spec };
    let field = NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let affinity = spec.affinity.get_or_insert_with(Affinity::default);
    let by_node = affinity.node_affinity.get_or_insert_with(NodeAffinity::default);
    // The template's own terms were judged when the node was found eligible.
    by_node.required_during_scheduling_ignored_during_execution = Some(NodeSelector {
        node_selector_terms: vec![NodeSelectorTerm {
            match_fields: Some(vec![field]),
            match_expressions: None,
        }],
    });
    spec
}

fn size(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn positive(count: usize) -> Option<i32> {
    (count > 0).then(|| size(count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn set(spec: Value) -> DaemonSet {
        let template = json!({"metadata": {}, "spec": spec});
        serde_json::from_value(
            json!({"metadata": {"name": "d"}, "spec": {"selector": {}, "template": template}}),
        )
        .unwrap()
    }

    fn node(name: &str, taint: bool) -> Arc<Node> {
        let taints = if taint { json!([{"key": "gpu", "effect": "NoSchedule"}]) } else { json!([]) };
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"taints": taints}})).unwrap(),
        )
    }

    fn pod(name: &str, on: &str, hash: &str, ready: &str) -> Arc<Pod> {
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": name, "labels": {HASH_LABEL: hash}},
                "spec": {"nodeName": on, "containers": []},
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}}))
            .unwrap(),
        )
    }

    fn check(spec: Value, nodes: &[Arc<Node>], pods: &[Arc<Pod>], create: &[&str], delete: &[&str]) {
        let plan = decide(&set(spec), nodes, pods, "new", "2026-01-01T00:00:00Z".parse().unwrap());
        assert_eq!(
            (plan.create, plan.delete),
            (
                create.iter().map(|s| (*s).to_owned()).collect(),
                delete.iter().map(|s| (*s).to_owned()).collect()
            )
        );
    }

    #[test]
    fn every_node_that_suits_gets_one_pod() {
        let plain = || json!({"containers": []});
        let nodes = [node("a", false), node("b", false), node("tainted", true)];
        check(plain(), &nodes, &[pod("p", "a", "new", "True")], &["b"], &[]);
        let tolerant = json!({"containers": [], "tolerations": [{"key": "gpu", "operator": "Exists"}]});
        check(tolerant, &nodes, &[], &["a", "b", "tainted"], &[]);
        check(
            plain(),
            &nodes[..1],
            &[pod("p", "a", "new", "True"), pod("q", "a", "new", "False")],
            &[],
            &["q"],
        );
        check(plain(), &nodes[2..], &[pod("p", "tainted", "new", "True")], &[], &["p"]);
    }

    #[test]
    fn old_pods_go_one_at_a_time_and_broken_ones_at_once() {
        let nodes = [node("a", false), node("b", false)];
        let plain = || json!({"containers": []});
        check(plain(), &nodes, &[pod("p", "a", "old", "True"), pod("q", "b", "old", "True")], &[], &["p"]);
        check(plain(), &nodes, &[pod("p", "a", "new", "False"), pod("q", "b", "old", "True")], &[], &[]);
        check(plain(), &nodes, &[pod("p", "a", "old", "False"), pod("q", "b", "old", "True")], &[], &["p"]);
    }
}
