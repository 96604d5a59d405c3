//! A pod as the plan wants it: what is the user's, and what the launcher must do.
//!
//! The controller adds what is the platform's: the launcher itself, owner, labels, addresses.

use std::collections::BTreeMap;

use pod_protocol::launch::LaunchSpec;
use serde_json::{Map, Value};

/// One pod to run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PodOrder {
    /// Name of the pod; the same attempt always has the same.
    pub name: String,
    /// The main container as JSON, with `image`, `env`, `volumeMounts`, ... but no command or args.
    pub main: Map<String, Value>,
    /// What the launcher runs.
    pub argv: Vec<String>,
    /// The words are final: `$(NAME)` in them is not Kubernetes' to expand (KFP).
    pub literal: bool,
    /// What the launcher does before and after.
    pub launch: LaunchSpec,
    /// More containers, as JSON.
    pub init_containers: Vec<Value>,
    /// More containers beside the main one, as JSON.
    pub sidecars: Vec<Value>,
    /// Fields of the pod's spec (volumes, nodeSelector, serviceAccountName, ...).
    pub spec: Map<String, Value>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Name of the template (KFP: component).
    pub template: String,
    /// The node's name.
    pub node_name: String,
    /// The node's id.
    pub node_id: String,
    /// The task uses the namespace's Python cache: the controller makes and mounts the claim.
    pub python_cache: bool,
    /// Seconds after which the node stops the pod.
    pub deadline_seconds: Option<i64>,
}
