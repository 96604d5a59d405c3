//! The roles and bindings that every cluster has from the start.
//!
//! Names and reach are upstream's; lists of resources are shortened to what this server serves.

use serde_json::{Value, json};

const GROUP: &str = "rbac.authorization.k8s.io";

fn meta(name: &str) -> Value {
    json!({
        "name": name,
        "labels": { "kubernetes.io/bootstrapping": "rbac-defaults" },
        "annotations": { "rbac.authorization.kubernetes.io/autoupdate": "true" },
    })
}

fn role(name: &str, rules: Value) -> Value {
    json!({ "kind": "ClusterRole", "apiVersion": format!("{GROUP}/v1"), "metadata": meta(name), "rules": rules })
}

fn part(name: &str, target: &str, rules: Value) -> Value {
    let mut out = role(name, rules);
    out["metadata"]["labels"][format!("rbac.authorization.k8s.io/aggregate-to-{target}")] = "true".into();
    out
}

fn sum(name: &str, targets: &[&str], own: Option<&str>) -> Value {
    let selectors: Vec<Value> = targets
        .iter()
        .map(|target| json!({ "matchLabels": { format!("rbac.authorization.k8s.io/aggregate-to-{target}"): "true" } }))
        .collect();
    let mut out = role(name, json!([]));
    out["aggregationRule"] = json!({ "clusterRoleSelectors": selectors });
    if let Some(own) = own {
        out["metadata"]["labels"][format!("rbac.authorization.k8s.io/aggregate-to-{own}")] = "true".into();
    }
    out
}

fn binding(name: &str, role: &str, subjects: Value) -> Value {
    json!({
        "kind": "ClusterRoleBinding", "apiVersion": format!("{GROUP}/v1"), "metadata": meta(name),
        "roleRef": { "apiGroup": GROUP, "kind": "ClusterRole", "name": role }, "subjects": subjects,
    })
}

fn group(name: &str) -> Value {
    json!({ "kind": "Group", "apiGroup": GROUP, "name": name })
}

fn user(name: &str) -> Value {
    json!({ "kind": "User", "apiGroup": GROUP, "name": name })
}

const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "delete", "deletecollection", "patch", "update"];

/// Resources that `view` reads, by group.
const VIEWED: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "bindings",
            "configmaps",
            "endpoints",
            "events",
            "limitranges",
            "namespaces",
            "namespaces/status",
            "persistentvolumeclaims",
            "persistentvolumeclaims/status",
            "pods",
            "pods/log",
            "pods/status",
            "replicationcontrollers",
            "replicationcontrollers/scale",
            "replicationcontrollers/status",
            "resourcequotas",
            "resourcequotas/status",
            "serviceaccounts",
            "services",
            "services/status",
        ],
    ),
    (
        "apps",
        &[
            "controllerrevisions",
            "daemonsets",
            "daemonsets/status",
            "deployments",
            "deployments/scale",
            "deployments/status",
            "replicasets",
            "replicasets/scale",
            "replicasets/status",
            "statefulsets",
            "statefulsets/scale",
            "statefulsets/status",
        ],
    ),
    ("autoscaling", &["horizontalpodautoscalers", "horizontalpodautoscalers/status"]),
    ("batch", &["cronjobs", "cronjobs/status", "jobs", "jobs/status"]),
    ("discovery.k8s.io", &["endpointslices"]),
    ("networking.k8s.io", &["ingresses", "ingresses/status", "networkpolicies"]),
    ("policy", &["poddisruptionbudgets", "poddisruptionbudgets/status"]),
];

/// Resources that `edit` writes, by group.
const EDITED: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "configmaps",
            "events",
            "persistentvolumeclaims",
            "pods",
            "pods/attach",
            "pods/eviction",
            "pods/exec",
            "pods/portforward",
            "replicationcontrollers",
            "replicationcontrollers/scale",
            "secrets",
            "serviceaccounts",
            "serviceaccounts/token",
            "services",
        ],
    ),
    (
        "apps",
        &[
            "daemonsets",
            "deployments",
            "deployments/scale",
            "replicasets",
            "replicasets/scale",
            "statefulsets",
            "statefulsets/scale",
        ],
    ),
    ("autoscaling", &["horizontalpodautoscalers"]),
    ("batch", &["cronjobs", "jobs"]),
    ("networking.k8s.io", &["ingresses", "networkpolicies"]),
    ("policy", &["poddisruptionbudgets"]),
    ("coordination.k8s.io", &["leases"]),
];

fn rules(table: &[(&str, &[&str])], verbs: &[&str]) -> Vec<Value> {
    table
        .iter()
        .map(|(group, resources)| json!({ "apiGroups": [group], "resources": resources, "verbs": verbs }))
        .collect()
}

/// ClusterRoles.
pub fn roles() -> Vec<Value> {
    let mut edit = rules(EDITED, WRITE);
    edit.push(json!({
        "apiGroups": [""], "verbs": READ,
        "resources": ["pods/attach", "pods/exec", "pods/portforward", "secrets"],
    }));
    edit.push(json!({ "apiGroups": [""], "resources": ["serviceaccounts"], "verbs": ["impersonate"] }));
    edit.push(json!({ "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": READ }));
    let everything = json!([
        { "apiGroups": ["*"], "resources": ["*"], "verbs": ["*"] },
        { "nonResourceURLs": ["*"], "verbs": ["*"] },
    ]);
    let admin = json!([
        { "apiGroups": ["authorization.k8s.io"], "resources": ["localsubjectaccessreviews"], "verbs": ["create"] },
        { "apiGroups": [GROUP], "resources": ["rolebindings", "roles"],
          "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"] },
    ]);
    vec![
        role("cluster-admin", everything),
        sum("admin", &["admin", "edit", "view"], None),
        sum("edit", &["edit", "view"], Some("admin")),
        sum("view", &["view"], Some("edit")),
        part("system:aggregate-to-admin", "admin", admin),
        part("system:aggregate-to-edit", "edit", edit.into()),
        part("system:aggregate-to-view", "view", rules(VIEWED, READ).into()),
        role(
            "system:discovery",
            json!([{ "verbs": ["get"], "nonResourceURLs": [
            "/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*", "/readyz",
            "/version", "/version/",
        ] }]),
        ),
        role(
            "system:public-info-viewer",
            json!([{ "verbs": ["get"], "nonResourceURLs": [
            "/healthz", "/livez", "/readyz", "/version", "/version/",
        ] }]),
        ),
        role(
            "system:basic-user",
            json!([
                { "apiGroups": ["authorization.k8s.io"], "verbs": ["create"],
                  "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"] },
                { "apiGroups": ["authentication.k8s.io"], "verbs": ["create"], "resources": ["selfsubjectreviews"] },
            ]),
        ),
        role(
            "system:service-account-issuer-discovery",
            json!([{ "verbs": ["get"], "nonResourceURLs": [
            "/.well-known/openid-configuration", "/.well-known/openid-configuration/", "/openid/v1/jwks",
            "/openid/v1/jwks/",
        ] }]),
        ),
        role("system:kube-controller-manager", controller_manager()),
        role("system:kube-scheduler", scheduler()),
        role("system:node", node()),
        role(
            "system:auth-delegator",
            json!([
                { "apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"] },
                { "apiGroups": ["authorization.k8s.io"], "resources": ["subjectaccessreviews"], "verbs": ["create"] },
            ]),
        ),
    ]
}

/// Upstream gives each controller a role of its own; here one part is all of them, with the union: garbage collection and
/// namespace deletion reach every kind.
fn controller_manager() -> Value {
    json!([
        { "apiGroups": ["*"], "resources": ["*"],
          "verbs": ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"] },
        { "nonResourceURLs": ["/api", "/api/*", "/apis", "/apis/*", "/version"], "verbs": ["get"] },
    ])
}

fn scheduler() -> Value {
    json!([
        { "apiGroups": ["", "events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch", "update"] },
        { "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create", "get", "list", "update", "watch"] },
        { "apiGroups": [""], "resources": ["nodes", "namespaces", "services", "replicationcontrollers"], "verbs": READ },
        { "apiGroups": [""], "resources": ["pods"], "verbs": ["delete", "get", "list", "watch"] },
        { "apiGroups": [""], "resources": ["bindings", "pods/binding"], "verbs": ["create"] },
        { "apiGroups": [""], "resources": ["pods/status"], "verbs": ["patch", "update"] },
        { "apiGroups": ["apps"], "resources": ["replicasets", "statefulsets"], "verbs": READ },
        { "apiGroups": ["policy"], "resources": ["poddisruptionbudgets"], "verbs": READ },
        { "apiGroups": [""], "resources": ["persistentvolumeclaims", "persistentvolumes"],
          "verbs": ["get", "list", "patch", "update", "watch"] },
        { "apiGroups": ["storage.k8s.io"], "resources": ["*"], "verbs": READ },
        { "apiGroups": ["scheduling.k8s.io"], "resources": ["priorityclasses"], "verbs": READ },
    ])
}

fn node() -> Value {
    json!([
        { "apiGroups": [""], "resources": ["services", "persistentvolumes", "persistentvolumeclaims", "configmaps", "secrets", "endpoints", "namespaces", "serviceaccounts"], "verbs": READ },
        { "apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": READ },
        { "apiGroups": [""], "resources": ["nodes"], "verbs": ["create", "get", "list", "watch", "delete", "patch", "update"] },
        { "apiGroups": [""], "resources": ["nodes/status"], "verbs": ["patch", "update"] },
        { "apiGroups": [""], "resources": ["pods"], "verbs": ["create", "delete", "get", "list", "watch"] },
        { "apiGroups": [""], "resources": ["pods/status"], "verbs": ["patch", "update"] },
        { "apiGroups": [""], "resources": ["pods/eviction"], "verbs": ["create"] },
        { "apiGroups": [""], "resources": ["serviceaccounts/token"], "verbs": ["create"] },
        { "apiGroups": ["", "events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch", "update"] },
        { "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create", "delete", "get", "list", "watch", "patch", "update"] },
        { "apiGroups": ["storage.k8s.io"], "resources": ["*"], "verbs": READ },
        { "apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"] },
        { "apiGroups": ["authorization.k8s.io"], "resources": ["subjectaccessreviews"], "verbs": ["create"] },
    ])
}

/// ClusterRoleBindings.
pub fn bindings() -> Vec<Value> {
    let everyone = json!([group("system:authenticated")]);
    let anyone = json!([group("system:authenticated"), group("system:unauthenticated")]);
    vec![
        binding("cluster-admin", "cluster-admin", json!([group("system:masters")])),
        binding("system:discovery", "system:discovery", everyone.clone()),
        binding("system:basic-user", "system:basic-user", everyone),
        binding("system:public-info-viewer", "system:public-info-viewer", anyone),
        binding(
            "system:service-account-issuer-discovery",
            "system:service-account-issuer-discovery",
            json!([group("system:serviceaccounts")]),
        ),
        binding(
            "system:kube-controller-manager",
            "system:kube-controller-manager",
            json!([user("system:kube-controller-manager")]),
        ),
        binding("system:kube-scheduler", "system:kube-scheduler", json!([user("system:kube-scheduler")])),
        binding("system:node", "system:node", json!([group("system:nodes")])),
    ]
}
