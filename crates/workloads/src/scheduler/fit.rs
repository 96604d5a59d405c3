//! Whether a pod fits a node: pure, with upstream's reasons in upstream's words.
//!
//! The order of the checks is upstream's filter order, because the first that fails gives the reason: unschedulable, node name,
//! taints, affinity, resources.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, Pod, Taint, Toleration};
use types::quantity::Quantity;
use types::selector::{Labels, Operator, Requirement};

/// Amounts by resource name. `pods` counts like any other.
pub type Resources = BTreeMap<String, Quantity>;

/// What a pod asks of a node, worked out once a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Its effective requests, with one of `pods`.
    pub resources: Resources,
}

/// A node as the scheduler sees it.
#[derive(Clone, Debug, Default)]
pub struct NodeState {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.labels`.
    pub labels: Labels,
    /// `spec.taints`.
    pub taints: Vec<Taint>,
    /// `spec.unschedulable`.
    pub unschedulable: bool,
    /// `status.allocatable`.
    pub allocatable: Resources,
    /// The sum of what its pods ask for.
    pub requested: Resources,
}

/// Why a pod cannot go to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// Upstream's reasons, one for each thing that is wrong.
    pub reasons: Vec<String>,
    /// Whether no eviction of other pods could help.
    pub unresolvable: bool,
}

impl NodeState {
    /// Reads a node; nothing is requested of it yet.
    pub fn of(node: &Node) -> Self {
        let spec = node.spec.clone().unwrap_or_default();
        let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
        let read = |(name, amount): (&String, &k8s_openapi::apimachinery::pkg::api::resource::Quantity)| {
            Some((name.clone(), amount.0.parse().ok()?))
        };
        Self {
            name: node.metadata.name.clone().unwrap_or_default(),
            labels: node.metadata.labels.clone().unwrap_or_default(),
            taints: spec.taints.unwrap_or_default(),
            unschedulable: spec.unschedulable.unwrap_or(false),
            allocatable: allocatable.into_iter().flatten().filter_map(read).collect(),
            requested: Resources::new(),
        }
    }

    /// Counts a pod in.
    pub fn add(&mut self, request: &Request) {
        for (name, amount) in &request.resources {
            *self.requested.entry(name.clone()).or_default() += *amount;
        }
    }

    /// Counts a pod out.
    pub fn remove(&mut self, request: &Request) {
        for (name, amount) in &request.resources {
            *self.requested.entry(name.clone()).or_default() -= *amount;
        }
    }

    /// The share of CPU and memory that would be free: what scoring prefers. From 0 to 1, below 0 when overcommitted.
    pub fn free_share(&self) -> f64 {
        let share = |name: &str| {
            let allocatable = self.allocatable.get(name).map_or(0.0, Quantity::as_f64);
            let requested = self.requested.get(name).map_or(0.0, Quantity::as_f64);
            if allocatable > 0.0 { 1.0 - requested / allocatable } else { 0.0 }
        };
        (share("cpu") + share("memory")) / 2.0
    }
}

impl Request {
    /// The effective request: the sum of containers and sidecars, or the largest init container, plus overhead.
    pub fn of(pod: &Pod) -> Self {
        let Some(spec) = &pod.spec else { return Self::default() };
        let mut total = Resources::new();
        for container in &spec.containers {
            add(&mut total, &requests(container.resources.as_ref()));
        }
        let mut sidecars = Resources::new();
        let mut peak = Resources::new();
        for container in spec.init_containers.iter().flatten() {
            let own = requests(container.resources.as_ref());
            if container.restart_policy.as_deref() == Some("Always") {
                add(&mut sidecars, &own);
                max(&mut peak, &sidecars);
            } else {
                let mut during = sidecars.clone();
                add(&mut during, &own);
                max(&mut peak, &during);
            }
        }
        add(&mut total, &sidecars);
        max(&mut total, &peak);
        for (name, amount) in spec.overhead.iter().flatten() {
            *total.entry(name.clone()).or_default() += amount.0.parse().unwrap_or_default();
        }
        total.insert("pods".to_owned(), Quantity::from_millis(1000));
        Self { resources: total }
    }
}

fn requests(resources: Option<&k8s_openapi::api::core::v1::ResourceRequirements>) -> Resources {
    let Some(resources) = resources else { return Resources::new() };
    // A limit without a request is the request, as API defaulting has it.
    let limits = resources.limits.iter().flatten();
    let both = limits.chain(resources.requests.iter().flatten());
    both.filter_map(|(name, amount)| Some((name.clone(), amount.0.parse().ok()?))).collect()
}

fn add(total: &mut Resources, more: &Resources) {
    for (name, amount) in more {
        *total.entry(name.clone()).or_default() += *amount;
    }
}

fn max(total: &mut Resources, other: &Resources) {
    for (name, amount) in other {
        let entry = total.entry(name.clone()).or_default();
        *entry = (*entry).max(*amount);
    }
}

/// Whether `pod` may go to `node`. With `overcommit`, CPU, memory and disk are not counted; devices always are.
pub fn fits(pod: &Pod, request: &Request, node: &NodeState, overcommit: bool) -> Result<(), Misfit> {
    let spec = pod.spec.clone().unwrap_or_default();
    let tolerations = spec.tolerations.unwrap_or_default();
    let never = |reason: String| Misfit { reasons: vec![reason], unresolvable: true };
    if node.unschedulable && !tolerations.iter().any(|t| tolerates(t, &unschedulable_taint())) {
        return Err(never("node(s) were unschedulable".to_owned()));
    }
    if let Some(taint) = untolerated(&node.taints, &tolerations) {
        let value = taint.value.clone().unwrap_or_default();
        return Err(never(format!("node(s) had untolerated taint {{{}: {value}}}", taint.key)));
    }
    if !matches_affinity(pod, node) {
        return Err(never("node(s) didn't match Pod's node affinity/selector".to_owned()));
    }
    resources_fit(request, node, overcommit)
}

fn resources_fit(request: &Request, node: &NodeState, overcommit: bool) -> Result<(), Misfit> {
    let mut reasons = Vec::new();
    let mut unresolvable = false;
    for (name, wanted) in &request.resources {
        let lenient = overcommit && matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage");
        if wanted.is_zero() || lenient {
            continue;
        }
        // A node that does not speak of pods or disk does not limit them.
        let limit = match (node.allocatable.get(name), name.as_str()) {
            (Some(limit), _) => *limit,
            (None, "pods" | "ephemeral-storage") => continue,
            (None, _) => Quantity::ZERO,
        };
        let used = node.requested.get(name).copied().unwrap_or_default();
        if *wanted > limit - used {
            reasons.push(if name == "pods" {
                "Too many pods".to_owned()
            } else {
                format!("Insufficient {name}")
            });
            unresolvable |= *wanted > limit;
        }
    }
    if reasons.is_empty() { Ok(()) } else { Err(Misfit { reasons, unresolvable }) }
}

fn unschedulable_taint() -> Taint {
    Taint {
        key: "node.kubernetes.io/unschedulable".to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    }
}

fn untolerated<'a>(taints: &'a [Taint], tolerations: &[Toleration]) -> Option<&'a Taint> {
    let hard = taints.iter().filter(|taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute"));
    hard.into_iter().find(|taint| !tolerations.iter().any(|toleration| tolerates(toleration, taint)))
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or("");
    let key = toleration.key.as_deref().unwrap_or("");
    if !effect.is_empty() && effect != taint.effect {
        return false;
    }
    if !key.is_empty() && key != taint.key {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or("Equal") {
        "Exists" => true,
        "Equal" | "" => toleration.value.as_deref().unwrap_or("") == taint.value.as_deref().unwrap_or(""),
        _ => false,
    }
}

fn matches_affinity(pod: &Pod, node: &NodeState) -> bool {
    let Some(spec) = &pod.spec else { return true };
    let selected = spec.node_selector.iter().flatten();
    if !selected.into_iter().all(|(key, value)| node.labels.get(key) == Some(value)) {
        return false;
    }
    let required = spec
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.as_ref())
        .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    required.is_none_or(|required| required.node_selector_terms.iter().any(|term| matches_term(term, node)))
}

/// An empty term matches nothing.
fn matches_term(term: &NodeSelectorTerm, node: &NodeState) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let by_label = |requirement: &NodeSelectorRequirement| {
        holds(requirement, node.labels.get(&requirement.key).map(String::as_str))
    };
    let by_field = |requirement: &NodeSelectorRequirement| {
        requirement.key == "metadata.name" && holds(requirement, Some(&node.name))
    };
    expressions.iter().all(by_label) && fields.iter().all(by_field)
}

fn holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let Ok(operator) = requirement.operator.parse::<Operator>() else { return false };
    let values = requirement.values.clone().unwrap_or_default();
    Requirement { key: requirement.key.clone(), operator, values }.matches_value(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn node() -> NodeState {
        NodeState::of(
            &serde_json::from_value(json!({"metadata": {"name": "n1", "labels": {"zone": "a"}},
                "status": {"allocatable": {"cpu": "2", "memory": "4Gi", "pods": "3"}}}))
            .unwrap(),
        )
    }

    fn pod(spec: Value) -> Pod {
        let mut pod = json!({"spec": {"containers": []}});
        for (key, value) in spec.as_object().unwrap() {
            pod["spec"][key] = value.clone();
        }
        serde_json::from_value(pod).unwrap()
    }

    fn asking(requests: Value) -> Pod {
        pod(json!({"containers": [{"name": "c", "resources": {"requests": requests}}]}))
    }

    fn check(name: &str, pod: &Pod, node: &NodeState, want: Result<(), (&[&str], bool)>) {
        let found = fits(pod, &Request::of(pod), node, false);
        let want = want.map_err(|(reasons, unresolvable)| Misfit {
            reasons: reasons.iter().map(|reason| (*reason).to_owned()).collect(),
            unresolvable,
        });
        assert_eq!(found, want, "{name}");
    }

    #[test]
    fn reasons_are_upstreams() {
        let mut busy = node();
        busy.add(&Request::of(&asking(json!({"cpu": "1500m"}))));
        let mut full = node();
        (0..3).for_each(|_| full.add(&Request::of(&pod(json!({})))));
        let mut tainted = node();
        tainted.taints =
            serde_json::from_value(json!([{"key": "gpu", "value": "yes", "effect": "NoSchedule"}])).unwrap();
        let mut cordoned = node();
        cordoned.unschedulable = true;
        let affinity = |value: &str| {
            pod(json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                {"nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": [value]}]}]}}}}))
        };
        let tolerant = pod(json!({"tolerations": [{"key": "gpu", "operator": "Exists"}]}));
        check("fits", &asking(json!({"cpu": "2", "memory": "4Gi"})), &node(), Ok(()));
        check("never", &asking(json!({"cpu": "3"})), &node(), Err((&["Insufficient cpu"], true)));
        check("not now", &asking(json!({"cpu": "1"})), &busy, Err((&["Insufficient cpu"], false)));
        let gpu = asking(json!({"nvidia.com/gpu": "1", "memory": "5Gi"}));
        check("device", &gpu, &node(), Err((&["Insufficient memory", "Insufficient nvidia.com/gpu"], true)));
        check("pods", &pod(json!({})), &full, Err((&["Too many pods"], false)));
        check("taint", &pod(json!({})), &tainted, Err((&["node(s) had untolerated taint {gpu: yes}"], true)));
        check("tolerated", &tolerant, &tainted, Ok(()));
        check("cordoned", &pod(json!({})), &cordoned, Err((&["node(s) were unschedulable"], true)));
        let nowhere: (&[&str], bool) = (&["node(s) didn't match Pod's node affinity/selector"], true);
        check("selector", &pod(json!({"nodeSelector": {"zone": "b"}})), &node(), Err(nowhere));
        check("affinity", &affinity("a"), &node(), Ok(()));
        check("other affinity", &affinity("b"), &node(), Err(nowhere));
    }

    #[test]
    fn overcommit_forgives_all_but_devices() {
        let big = asking(json!({"cpu": "64", "memory": "1Ti"}));
        assert_eq!(fits(&big, &Request::of(&big), &node(), true), Ok(()));
        let gpu = asking(json!({"nvidia.com/gpu": "1"}));
        assert!(fits(&gpu, &Request::of(&gpu), &node(), true).is_err());
    }

    #[test]
    fn the_effective_request_is_the_larger_of_init_and_run() {
        let pod = pod(json!({
            "initContainers": [
                {"name": "side", "restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}},
                {"name": "init", "resources": {"requests": {"cpu": "2"}}}],
            "containers": [{"name": "a", "resources": {"requests": {"cpu": "1"}}},
                {"name": "b", "resources": {"limits": {"cpu": "500m"}}}],
            "overhead": {"cpu": "50m"}}));
        assert_eq!(Request::of(&pod).resources["cpu"].to_string(), "2150m");
    }
}
