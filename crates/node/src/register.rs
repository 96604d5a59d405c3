//! The node's own objects: `Node` with capacity and conditions, and the lease that says it lives.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{
    Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeSpec, NodeStatus, NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, OwnerReference, Time};
use kube::Api;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::Context;

/// How often the lease is renewed, and for how long it holds: the kubelet's numbers.
const LEASE_RENEW: Duration = Duration::from_secs(10);
const LEASE_SECONDS: i32 = 40;
/// How often the conditions' heartbeat is written.
const STATUS_EVERY: u32 = 30;

/// What the machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Processors this process may use.
    pub cpus: u64,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Most pods at a time.
    pub pods: u32,
}

impl Capacity {
    /// Reads it from the machine.
    pub fn detect(pods: u32) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        Self { cpus, memory_bytes: memory_bytes(&meminfo), pods }
    }
}

fn memory_bytes(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|line| line.split_ascii_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Makes or updates the `Node` and says what it has.
pub async fn register(context: &Context) -> Result<(), kube::Error> {
    let nodes: Api<Node> = Api::all(context.config.client.clone());
    let name = &context.config.name;
    let labels = labels(name);
    let node = Node {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            labels: Some(labels.clone()),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec::default()),
        status: None,
    };
    match nodes.create(&PostParams::default(), &node).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let patch = json!({"metadata": {"labels": labels}});
            nodes.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        }
        Err(error) => return Err(error),
    }
    write_status(context).await
}

async fn write_status(context: &Context) -> Result<(), kube::Error> {
    let nodes: Api<Node> = Api::all(context.config.client.clone());
    let before = nodes.get_opt(&context.config.name).await?.and_then(|node| node.status);
    let patch = json!({"status": status(context, before.as_ref())});
    nodes.patch_status(&context.config.name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
}

/// Renews the lease and, more rarely, the conditions, until the task is aborted.
pub async fn heartbeat(context: std::sync::Arc<Context>) {
    let mut interval = tokio::time::interval(LEASE_RENEW);
    for round in 0u32.. {
        interval.tick().await;
        if let Err(error) = renew(&context).await {
            tracing::warn!(%error, "the node's lease was not renewed");
        }
        if round % STATUS_EVERY == STATUS_EVERY - 1
            && let Err(error) = write_status(&context).await
        {
            tracing::warn!(%error, "the node's status was not written");
        }
    }
}

async fn renew(context: &Context) -> Result<(), kube::Error> {
    let name = &context.config.name;
    let leases: Api<Lease> = Api::namespaced(context.config.client.clone(), "kube-node-lease");
    let now = MicroTime(Timestamp::now());
    let patch = json!({"spec": {"renewTime": now}});
    match leases.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        other => return other.map(drop),
    }
    let nodes: Api<Node> = Api::all(context.config.client.clone());
    let uid = nodes.get(name).await?.metadata.uid.unwrap_or_default();
    let owner = OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: name.clone(),
        uid,
        ..OwnerReference::default()
    };
    let spec = LeaseSpec {
        holder_identity: Some(name.clone()),
        lease_duration_seconds: Some(LEASE_SECONDS),
        renew_time: Some(now),
        ..LeaseSpec::default()
    };
    let metadata =
        ObjectMeta { name: Some(name.clone()), owner_references: Some(vec![owner]), ..ObjectMeta::default() };
    leases.create(&PostParams::default(), &Lease { metadata, spec: Some(spec) }).await.map(drop)
}

fn labels(name: &str) -> BTreeMap<String, String> {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    [
        ("kubernetes.io/hostname", name),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", arch),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", arch),
        ("node-role.kubernetes.io/control-plane", ""),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

fn status(context: &Context, before: Option<&NodeStatus>) -> NodeStatus {
    let quantities: BTreeMap<String, Quantity> = [
        ("cpu", context.capacity.cpus.to_string()),
        ("memory", format!("{}Ki", context.capacity.memory_bytes / 1024)),
        ("pods", context.capacity.pods.to_string()),
        ("ephemeral-storage", format!("{}Ki", disk_bytes(&context.config.data_dir) / 1024)),
    ]
    .map(|(key, value)| (key.to_owned(), Quantity(value)))
    .into();
    let address = |kind: &str, address: String| NodeAddress { type_: kind.into(), address };
    NodeStatus {
        capacity: Some(quantities.clone()),
        allocatable: Some(quantities),
        conditions: Some(conditions(before)),
        addresses: Some(vec![
            address("InternalIP", context.config.network.host_ip().to_string()),
            address("Hostname", context.config.name.clone()),
        ]),
        daemon_endpoints: Some(NodeDaemonEndpoints::default()),
        node_info: Some(system_info()),
        ..NodeStatus::default()
    }
}

fn disk_bytes(folder: &std::path::Path) -> u64 {
    rustix::fs::statvfs(folder).map_or(0, |disk| disk.f_blocks * disk.f_frsize)
}

fn conditions(before: Option<&NodeStatus>) -> Vec<NodeCondition> {
    let now = Time(Timestamp::now());
    let wanted = [
        ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
    ];
    let old = before.and_then(|before| before.conditions.clone()).unwrap_or_default();
    let one = |(kind, status, reason, message): (&str, &str, &str, &str)| {
        let same = old.iter().find(|old| old.type_ == kind && old.status == status);
        let since = same.and_then(|old| old.last_transition_time.clone());
        NodeCondition {
            type_: kind.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message.into()),
            last_heartbeat_time: Some(now.clone()),
            last_transition_time: Some(since.unwrap_or_else(|| now.clone())),
        }
    };
    wanted.map(one).into()
}

fn system_info() -> NodeSystemInfo {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let release = read("/etc/os-release");
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("Linux");
    NodeSystemInfo {
        architecture: labels("")["kubernetes.io/arch"].clone(),
        boot_id: read("/proc/sys/kernel/random/boot_id"),
        container_runtime_version: format!("slipway://{}", env!("CARGO_PKG_VERSION")),
        kernel_version: read("/proc/sys/kernel/osrelease"),
        kube_proxy_version: String::new(),
        kubelet_version: "v1.34.0".into(),
        machine_id: read("/etc/machine-id"),
        operating_system: "linux".into(),
        os_image: name.trim_matches('"').to_owned(),
        ..NodeSystemInfo::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_kib() {
        assert_eq!(memory_bytes("MemTotal:       24669048 kB\nMemFree: 1 kB\n"), 24_669_048 * 1024);
        assert_eq!(memory_bytes(""), 0);
    }
}
