//! Column definitions: name, type and whether only `-o wide` shows it.

use serde_json::{Value, json};

use crate::resource::Resource;

/// Comma-separated columns of a kind; `*` marks those for `-o wide`, `#` integers.
fn spec(resource: &Resource) -> &'static str {
    match resource.group_kind() {
        ("", "Pod") => "Name,Ready,Status,Restarts,Age,IP*,Node*,Nominated Node*,Readiness Gates*",
        ("", "ReplicationController") => "Name,Desired#,Current#,Ready#,Age,Containers*,Images*,Selector*",
        ("apps", "ReplicaSet") => "Name,Desired#,Current#,Ready#,Age,Containers*,Images*,Selector*",
        ("apps", "Deployment") => "Name,Ready,Up-to-date#,Available#,Age,Containers*,Images*,Selector*",
        ("apps", "DaemonSet") => {
            "Name,Desired#,Current#,Ready#,Up-to-date#,Available#,Node Selector,Age,Containers*,Images*,Selector*"
        }
        ("apps", "StatefulSet") => "Name,Ready,Age,Containers*,Images*",
        ("apps", "ControllerRevision") => "Name,Controller,Revision#,Age",
        ("batch", "Job") => "Name,Status,Completions,Duration,Age,Containers*,Images*,Selector*",
        ("batch", "CronJob") => {
            "Name,Schedule,Timezone,Suspend,Active#,Last Schedule,Age,Containers*,Images*,Selector*"
        }
        ("", "Service") => "Name,Type,Cluster-IP,External-IP,Port(s),Age,Selector*",
        ("", "Endpoints") => "Name,Endpoints,Age",
        ("discovery.k8s.io", "EndpointSlice") => "Name,AddressType,Ports,Endpoints,Age",
        ("", "Node") => {
            "Name,Status,Roles,Age,Version,Internal-IP*,External-IP*,OS-Image*,Kernel-Version*,Container-Runtime*"
        }
        ("", "Event") => "Last Seen,Type,Reason,Object,Subobject*,Source*,Message,First Seen*,Count*,Name*",
        ("events.k8s.io", "Event") => {
            "Last Seen,Type,Reason,Object,Subobject*,Source*,Message,First Seen*,Count*,Name*"
        }
        ("", "Namespace") => "Name,Status,Age",
        ("", "Secret") => "Name,Type,Data#,Age",
        ("", "ConfigMap") => "Name,Data#,Age",
        ("", "ServiceAccount") => "Name,Secrets#,Age",
        ("", "PersistentVolume") => {
            "Name,Capacity,Access Modes,Reclaim Policy,Status,Claim,StorageClass,VolumeAttributesClass,Reason,Age,VolumeMode*"
        }
        ("", "PersistentVolumeClaim") => {
            "Name,Status,Volume,Capacity,Access Modes,StorageClass,VolumeAttributesClass,Age,VolumeMode*"
        }
        ("", "ResourceQuota") => "Name,Request,Limit,Age",
        ("autoscaling", "HorizontalPodAutoscaler") => "Name,Reference,Targets,MinPods,MaxPods,Replicas,Age",
        ("policy", "PodDisruptionBudget") => "Name,Min Available,Max Unavailable,Allowed Disruptions#,Age",
        ("networking.k8s.io", "Ingress") => "Name,Class,Hosts,Address,Ports,Age",
        ("networking.k8s.io", "IngressClass") => "Name,Controller,Parameters,Age",
        ("networking.k8s.io", "NetworkPolicy") => "Name,Pod-Selector,Age",
        ("rbac.authorization.k8s.io", "Role" | "ClusterRole") => "Name,Created At",
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => {
            "Name,Role,Age,Users*,Groups*,ServiceAccounts*"
        }
        ("storage.k8s.io", "StorageClass") => {
            "Name,Provisioner,ReclaimPolicy,VolumeBindingMode,AllowVolumeExpansion,Age"
        }
        ("scheduling.k8s.io", "PriorityClass") => "Name,Value#,Global-Default,Age,PreemptionPolicy",
        ("coordination.k8s.io", "Lease") => "Name,Holder,Age",
        ("apiextensions.k8s.io", "CustomResourceDefinition") => "Name,Created At",
        _ => "Name,Age",
    }
}

/// The definitions for the wire.
pub fn of(resource: &Resource) -> Vec<Value> {
    if let Some(custom) = &resource.custom {
        let mut out = vec![definition("Name", "string", "name", "", 0)];
        out.extend(custom.columns.iter().map(|column| {
            let Column { name, kind, format, description, priority, .. } = column;
            definition(name, kind, format, description, *priority)
        }));
        return out;
    }
    let columns = spec(resource).split(',');
    columns
        .map(|text| {
            let name = text.trim_end_matches(['*', '#']);
            let kind = if text.contains('#') { "integer" } else { "string" };
            let format = if name == "Name" && !text.contains('*') { "name" } else { "" };
            definition(name, kind, format, "", i64::from(text.contains('*')))
        })
        .collect()
}

use crate::crd::Column;

fn definition(name: &str, kind: &str, format: &str, description: &str, priority: i64) -> Value {
    json!({ "name": name, "type": kind, "format": format, "description": description, "priority": priority })
}
