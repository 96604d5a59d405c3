//! The table of built-in kinds: one line each, in the order in which discovery lists them.
//!
//! A kind is here when something in this server gives it its meaning or stores it for a controller that does. Kinds whose
//! effect nobody would carry out (admission webhooks, certificates) are absent on purpose: a 404 is honest.

use std::sync::Arc;

use crate::resource::{ALL_VERBS, Convert, Registry, Resource, Subresource};

/// One line of the table.
struct Row {
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    kind: &'static str,
    short: &'static str,
    scope: Scope,
    subresources: &'static str,
    all: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Scope {
    Namespaced,
    Cluster,
}
use Scope::{Cluster, Namespaced};

#[allow(clippy::too_many_arguments, reason = "a row of a table reads best as a row")]
const fn row(
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    kind: &'static str,
    short: &'static str,
    scope: Scope,
    subresources: &'static str,
    all: bool,
) -> Row {
    Row { group, version, plural, kind, short, scope, subresources, all }
}

#[rustfmt::skip]
const ROWS: &[Row] = &[
    row("", "v1", "configmaps", "ConfigMap", "cm", Namespaced, "", false),
    row("", "v1", "endpoints", "Endpoints", "ep", Namespaced, "", false),
    row("", "v1", "events", "Event", "ev", Namespaced, "", false),
    row("", "v1", "limitranges", "LimitRange", "limits", Namespaced, "", false),
    row("", "v1", "namespaces", "Namespace", "ns", Cluster, "status finalize", false),
    row("", "v1", "nodes", "Node", "no", Cluster, "status", false),
    row("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", "pvc", Namespaced, "status", false),
    row("", "v1", "persistentvolumes", "PersistentVolume", "pv", Cluster, "status", false),
    row("", "v1", "pods", "Pod", "po", Namespaced,
        "status attach binding ephemeralcontainers eviction exec log portforward", true),
    row("", "v1", "podtemplates", "PodTemplate", "", Namespaced, "", false),
    row("", "v1", "replicationcontrollers", "ReplicationController", "rc", Namespaced, "status scale", true),
    row("", "v1", "resourcequotas", "ResourceQuota", "quota", Namespaced, "status", false),
    row("", "v1", "secrets", "Secret", "", Namespaced, "", false),
    row("", "v1", "serviceaccounts", "ServiceAccount", "sa", Namespaced, "token", false),
    row("", "v1", "services", "Service", "svc", Namespaced, "status", true),
    row("apps", "v1", "controllerrevisions", "ControllerRevision", "", Namespaced, "", false),
    row("apps", "v1", "daemonsets", "DaemonSet", "ds", Namespaced, "status", true),
    row("apps", "v1", "deployments", "Deployment", "deploy", Namespaced, "status scale", true),
    row("apps", "v1", "replicasets", "ReplicaSet", "rs", Namespaced, "status scale", true),
    row("apps", "v1", "statefulsets", "StatefulSet", "sts", Namespaced, "status scale", true),
    row("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler", "hpa", Namespaced, "status", true),
    row("autoscaling", "v1", "horizontalpodautoscalers", "HorizontalPodAutoscaler", "hpa", Namespaced, "status", true),
    row("batch", "v1", "cronjobs", "CronJob", "cj", Namespaced, "status", true),
    row("batch", "v1", "jobs", "Job", "", Namespaced, "status", true),
    row("coordination.k8s.io", "v1", "leases", "Lease", "", Namespaced, "", false),
    row("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", "", Namespaced, "", false),
    row("events.k8s.io", "v1", "events", "Event", "ev", Namespaced, "", false),
    row("networking.k8s.io", "v1", "ingressclasses", "IngressClass", "", Cluster, "", false),
    row("networking.k8s.io", "v1", "ingresses", "Ingress", "ing", Namespaced, "status", false),
    row("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", "netpol", Namespaced, "", false),
    row("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", "pdb", Namespaced, "status", false),
    row("rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding", "", Cluster, "", false),
    row("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", "", Cluster, "", false),
    row("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding", "", Namespaced, "", false),
    row("rbac.authorization.k8s.io", "v1", "roles", "Role", "", Namespaced, "", false),
    row("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", "pc", Cluster, "", false),
    row("storage.k8s.io", "v1", "csidrivers", "CSIDriver", "", Cluster, "", false),
    row("storage.k8s.io", "v1", "csinodes", "CSINode", "", Cluster, "", false),
    row("storage.k8s.io", "v1", "storageclasses", "StorageClass", "sc", Cluster, "", false),
    row("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", "crd,crds", Cluster, "status", false),
];

/// Resources that answer a question and store nothing.
#[rustfmt::skip]
const REVIEWS: &[Row] = &[
    row("", "v1", "bindings", "Binding", "", Namespaced, "", false),
    row("authentication.k8s.io", "v1", "selfsubjectreviews", "SelfSubjectReview", "", Cluster, "", false),
    row("authentication.k8s.io", "v1", "tokenreviews", "TokenReview", "", Cluster, "", false),
    row("authorization.k8s.io", "v1", "localsubjectaccessreviews", "LocalSubjectAccessReview", "", Namespaced, "", false),
    row("authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", "", Cluster, "", false),
    row("authorization.k8s.io", "v1", "selfsubjectrulesreviews", "SelfSubjectRulesReview", "", Cluster, "", false),
    row("authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", "", Cluster, "", false),
];

const READ_WRITE: &[&str] = &["get", "patch", "update"];

/// The description of a subresource of a built-in or custom kind.
pub fn subresource(name: &str, kind: &str) -> Option<Subresource> {
    let own = |name, verbs| Subresource { name, group: "", version: "", kind: kind.to_owned(), verbs };
    let of = |name, group, version, kind: &str, verbs| Subresource {
        name,
        group,
        version,
        kind: kind.to_owned(),
        verbs,
    };
    Some(match name {
        "status" => own("status", READ_WRITE),
        "finalize" => own("finalize", &["update"]),
        "ephemeralcontainers" => own("ephemeralcontainers", READ_WRITE),
        "scale" => of("scale", "autoscaling", "v1", "Scale", READ_WRITE),
        "attach" => of("attach", "", "", "PodAttachOptions", &["create", "get"]),
        "exec" => of("exec", "", "", "PodExecOptions", &["create", "get"]),
        "portforward" => of("portforward", "", "", "PodPortForwardOptions", &["create", "get"]),
        "log" => own("log", &["get"]),
        "binding" => of("binding", "", "", "Binding", &["create"]),
        "eviction" => of("eviction", "policy", "v1", "Eviction", &["create"]),
        "token" => of("token", "authentication.k8s.io", "v1", "TokenRequest", &["create"]),
        _ => return None,
    })
}

fn resource(row: &Row, verbs: &'static [&'static str]) -> Resource {
    let mut storage = (row.group, row.version);
    let convert = match (row.group, row.version, row.plural) {
        ("autoscaling", "v1", _) => {
            storage.1 = "v2";
            Convert::AutoscalerV1
        }
        ("events.k8s.io", ..) => {
            storage = ("", "v1");
            Convert::EventV1
        }
        _ => Convert::Same,
    };
    Resource {
        group: row.group.into(),
        version: row.version.into(),
        kind: row.kind.into(),
        list_kind: format!("{}List", row.kind),
        plural: row.plural.into(),
        singular: row.kind.to_lowercase(),
        short_names: row.short.split(',').filter(|one| !one.is_empty()).map(Into::into).collect(),
        categories: if row.all { vec!["all".into()] } else { Vec::new() },
        namespaced: row.scope == Namespaced,
        verbs,
        subresources: row
            .subresources
            .split_whitespace()
            .filter_map(|name| subresource(name, row.kind))
            .collect(),
        storage_group: if storage.0.is_empty() { "core".into() } else { storage.0.into() },
        storage_api_version: crate::resource::api_version(storage.0, storage.1),
        convert,
        custom: None,
    }
}

/// The registry with the built-in kinds alone.
pub fn registry() -> Registry {
    let mut out = Registry::default();
    for row in ROWS {
        out.add(Arc::new(resource(row, verbs_of(row))));
    }
    for row in REVIEWS {
        out.add(Arc::new(resource(row, &["create"])));
    }
    out
}

fn verbs_of(row: &Row) -> &'static [&'static str] {
    match (row.group, row.plural) {
        // A namespace collection is too much to lose in one request; upstream does not offer it either.
        ("", "namespaces") => &["create", "delete", "get", "list", "patch", "update", "watch"],
        _ => ALL_VERBS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_each_path_once_and_stores_events_once() {
        let registry = registry();
        let listed: usize = registry
            .groups()
            .iter()
            .flat_map(|group| &group.versions)
            .map(|version| version.resources.len())
            .sum();
        assert_eq!(listed, ROWS.len() + REVIEWS.len());
        let events = registry.stored().into_iter().filter(|one| one.plural == "events").count();
        assert_eq!(events, 1);
        assert_eq!(registry.get("events.k8s.io", "v1", "events").unwrap().key("a", "b"), "/core/events/a/b");
    }
}
