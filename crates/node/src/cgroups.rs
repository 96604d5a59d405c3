//! Requests and limits as cgroups, where this process may make them; otherwise nothing, which `Node` says in a note.
//!
//! Both versions are served: one unified hierarchy, or one hierarchy a controller. A container without limits and
//! requests gets no cgroup: it costs time and would change nothing.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod};
use types::quantity::Quantity;

use crate::Context;

/// The quota's period, in microseconds.
const PERIOD_US: i64 = 100_000;
/// Below this share the kernel's scheduler has no meaning for it.
const SHARES_MIN: i64 = 2;

/// Which cgroups this process can use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Support {
    /// Version 2: the folder under which pods' cgroups are made.
    Unified(PathBuf),
    /// Version 1: the memory and cpu folders under which pods' cgroups are made.
    Split {
        /// Memory.
        memory: PathBuf,
        /// Processor time.
        cpu: PathBuf,
    },
    /// None, and why.
    None(String),
}

impl Support {
    /// Tries to make the node's own cgroup. `key` tells clusters of one machine apart.
    pub fn detect(key: &str) -> Self {
        Self::detect_in(Path::new("/sys/fs/cgroup"), key)
    }

    fn detect_in(root: &Path, key: &str) -> Self {
        let name = format!("slipway-{key}");
        if root.join("cgroup.controllers").exists() {
            let own = root.join(&name);
            let made = std::fs::create_dir_all(&own)
                .and_then(|()| std::fs::write(root.join("cgroup.subtree_control"), "+memory +cpu +pids"))
                .and_then(|()| std::fs::write(own.join("cgroup.subtree_control"), "+memory +cpu +pids"));
            return match made {
                Ok(()) => Self::Unified(own),
                Err(error) => Self::None(format!("cannot use {}: {error}", own.display())),
            };
        }
        let (memory, cpu) = (root.join("memory").join(&name), root.join("cpu").join(&name));
        match std::fs::create_dir_all(&memory).and_then(|()| std::fs::create_dir_all(&cpu)) {
            Ok(()) => Self::Split { memory, cpu },
            Err(error) => Self::None(format!("cannot use {}: {error}", memory.display())),
        }
    }
}

/// `status.qosClass`, by the kubelet's rule.
pub fn qos_class(pod: &Pod) -> &'static str {
    let containers =
        pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers));
    let (mut guaranteed, mut any) = (true, false);
    for container in containers {
        let resources = container.resources.clone().unwrap_or_default();
        let limits = resources.limits.unwrap_or_default();
        let requests = resources.requests.unwrap_or_default();
        for kind in ["cpu", "memory"] {
            let (limit, request) = (limits.get(kind), requests.get(kind));
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// Makes the cgroups of a container; the folders to put its process into, and its `oom_score_adj`.
pub fn prepare(context: &Context, uid: &str, pod: &Pod, container: &Container) -> (Vec<String>, i32) {
    let resources = container.resources.clone().unwrap_or_default();
    let amount = |map: &Option<std::collections::BTreeMap<String, _>>, kind: &str| -> Option<i64> {
        let quantity: &k8s_openapi::apimachinery::pkg::api::resource::Quantity = map.as_ref()?.get(kind)?;
        Some(quantity.0.parse::<Quantity>().ok()?.millis())
    };
    let memory_limit = amount(&resources.limits, "memory").map(|millis| millis / 1000);
    let cpu_limit = amount(&resources.limits, "cpu");
    let cpu_request = amount(&resources.requests, "cpu").or(cpu_limit);
    let memory_request =
        amount(&resources.requests, "memory").map_or(memory_limit.unwrap_or(0), |millis| millis / 1000);
    let score = oom_score_adj(qos_class(pod), memory_request, context.capacity.memory_bytes);
    if memory_limit.is_none() && cpu_limit.is_none() && cpu_request.is_none() {
        return (Vec::new(), score);
    }
    let below = format!("{uid}-{}", container.name);
    let mut cgroups = Vec::new();
    let mut make = |folder: PathBuf, settings: &[(&str, String)]| {
        if std::fs::create_dir_all(&folder).is_err() {
            return;
        }
        for (file, value) in settings {
            if let Err(error) = std::fs::write(folder.join(file), value) {
                tracing::debug!(cgroup = %folder.display(), file, %error, "a limit was not set");
            }
        }
        cgroups.push(folder.to_string_lossy().into_owned());
    };
    match &context.cgroups {
        Support::None(_) => {}
        Support::Unified(root) => {
            let mut settings = Vec::new();
            settings.extend(memory_limit.map(|bytes| ("memory.max", bytes.to_string())));
            settings.extend(cpu_limit.map(|millis| ("cpu.max", format!("{} {PERIOD_US}", quota(millis)))));
            settings.extend(cpu_request.map(|millis| ("cpu.weight", weight(shares(millis)).to_string())));
            make(root.join(below), &settings);
        }
        Support::Split { memory, cpu } => {
            if let Some(bytes) = memory_limit {
                make(memory.join(&below), &[("memory.limit_in_bytes", bytes.to_string())]);
            }
            let mut settings = Vec::new();
            settings.extend(cpu_limit.map(|millis| ("cpu.cfs_quota_us", quota(millis).to_string())));
            settings.extend(cpu_request.map(|millis| ("cpu.shares", shares(millis).to_string())));
            if !settings.is_empty() {
                make(cpu.join(&below), &settings);
            }
        }
    }
    (cgroups, score)
}

/// Removes the cgroups of a pod whose processes are gone.
pub fn remove(support: &Support, uid: &str) {
    let roots: &[&PathBuf] = match support {
        Support::None(_) => &[],
        Support::Unified(root) => &[root],
        Support::Split { memory, cpu } => &[memory, cpu],
    };
    for root in roots {
        for item in std::fs::read_dir(root).into_iter().flatten().flatten() {
            if item.file_name().to_string_lossy().starts_with(uid) {
                let _ = std::fs::remove_dir(item.path());
            }
        }
    }
}

fn quota(millis: i64) -> i64 {
    (millis * PERIOD_US / 1000).max(1000)
}

fn shares(millis: i64) -> i64 {
    (millis * 1024 / 1000).max(SHARES_MIN)
}

/// Version 2's weight (1 to 10,000) for version 1's shares (2 to 262,144).
fn weight(shares: i64) -> i64 {
    1 + ((shares.clamp(2, 262_144) - 2) * 9_999) / 262_142
}

fn oom_score_adj(qos_class: &str, memory_request: i64, node_memory: u64) -> i32 {
    match qos_class {
        "Guaranteed" => -997,
        "BestEffort" => 1000,
        _ => {
            let share = 1000 * memory_request / (node_memory.max(1) as i64);
            (1000 - share).clamp(3, 999) as i32
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_kubelets() {
        assert_eq!((quota(500), shares(500), shares(0)), (50_000, 512, 2));
        assert_eq!((weight(2), weight(262_144)), (1, 10_000));
        assert_eq!(oom_score_adj("Burstable", 1 << 30, 4 << 30), 750);
        assert_eq!(oom_score_adj("Burstable", 0, 4 << 30), 999);
    }

    #[test]
    fn a_class_of_service_needs_limits_on_everything() {
        let class = |resources: &str| {
            let text = format!(r#"{{"spec":{{"containers":[{{"name":"a","resources":{resources}}}]}}}}"#);
            qos_class(&serde_json::from_str(&text).unwrap())
        };
        assert_eq!(class("{}"), "BestEffort");
        assert_eq!(class(r#"{"requests":{"cpu":"1"}}"#), "Burstable");
        assert_eq!(class(r#"{"limits":{"cpu":"1","memory":"1Gi"}}"#), "Guaranteed");
    }
}
