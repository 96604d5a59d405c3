//! The server's rules, through its service in process.

#![allow(clippy::unwrap_used, reason = "a test's failure is its panic")]

mod common;

use apiserver::UserInfo;
use axum::body::Body;
use common::Cluster;
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

#[tokio::test]
async fn an_update_with_an_old_version_is_a_conflict_and_a_same_one_changes_nothing() {
    let cluster = Cluster::start().await;
    let (_, first) = cluster.call("POST", MAPS, Some(map("a", json!({"k": "1"})))).await;
    let path = format!("{MAPS}/a");
    let mut second = first.clone();
    second["data"]["k"] = "2".into();
    let (status, updated) = cluster.call("PUT", &path, Some(second.clone())).await;
    assert_eq!(status, StatusCode::OK, "{updated}");
    let (status, refused) = cluster.call("PUT", &path, Some(second)).await;
    assert_eq!((status, refused["reason"].as_str()), (StatusCode::CONFLICT, Some("Conflict")));
    assert_eq!(
        refused["message"],
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to \
         the latest version and try again"
    );
    let (_, same) = cluster.call("PUT", &path, Some(updated.clone())).await;
    assert_eq!(same["metadata"]["resourceVersion"], updated["metadata"]["resourceVersion"]);
    let (status, taken) = cluster.call("POST", MAPS, Some(map("a", json!({})))).await;
    assert_eq!(
        (status, taken["message"].as_str()),
        (StatusCode::CONFLICT, Some("configmaps \"a\" already exists"))
    );
}

#[tokio::test]
async fn generated_names_dry_runs_and_missing_namespaces() {
    let cluster = Cluster::start().await;
    let generated = json!({"metadata": {"generateName": "x-"}});
    let (status, made) = cluster.call("POST", MAPS, Some(generated)).await;
    assert_eq!(status, StatusCode::CREATED);
    assert!(made["metadata"]["name"].as_str().unwrap().starts_with("x-"));
    let (status, _) = cluster.call("POST", &format!("{MAPS}?dryRun=All"), Some(map("dry", json!({})))).await;
    assert_eq!(status, StatusCode::CREATED);
    assert_eq!(cluster.call("GET", &format!("{MAPS}/dry"), None).await.0, StatusCode::NOT_FOUND);
    let (status, refused) =
        cluster.call("POST", "/api/v1/namespaces/none/configmaps", Some(map("a", json!({})))).await;
    assert_eq!(
        (status, refused["message"].as_str()),
        (StatusCode::NOT_FOUND, Some("namespaces \"none\" not found"))
    );
    let (status, refused) = cluster.call("POST", MAPS, Some(map("Bad_Name", json!({})))).await;
    assert_eq!((status, refused["reason"].as_str()), (StatusCode::UNPROCESSABLE_ENTITY, Some("Invalid")));
    assert_eq!(refused["details"]["causes"][0]["field"], "metadata.name");
}

#[tokio::test]
async fn pages_of_a_list_are_of_one_state() {
    let cluster = Cluster::start().await;
    for name in ["a", "b", "c"] {
        cluster.call("POST", MAPS, Some(map(name, json!({})))).await;
    }
    let (_, first) = cluster.call("GET", &format!("{MAPS}?limit=2"), None).await;
    assert_eq!(first["items"].as_array().unwrap().len(), 2);
    assert_eq!(first["metadata"]["remainingItemCount"], 1);
    cluster.call("DELETE", &format!("{MAPS}/c"), None).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let (_, second) = cluster.call("GET", &format!("{MAPS}?limit=2&continue={token}"), None).await;
    assert_eq!(second["items"][0]["metadata"]["name"], "c");
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let (status, refused) = cluster.call("GET", &format!("{MAPS}?resourceVersion=999999"), None).await;
    assert_eq!((status, refused["reason"].as_str()), (StatusCode::GATEWAY_TIMEOUT, Some("Timeout")));
}

/// The next frames of a watch.
async fn frames(cluster: &Cluster, query: &str, count: usize) -> Vec<Value> {
    let request = Request::builder().uri(format!("{MAPS}?watch=1&{query}")).body(Body::empty()).unwrap();
    let mut body = cluster.server.service(UserInfo::admin()).oneshot(request).await.unwrap().into_body();
    let mut text = String::new();
    while text.lines().count() < count || !text.ends_with('\n') {
        let Some(frame) = body.frame().await else { break };
        text.push_str(std::str::from_utf8(frame.unwrap().data_ref().unwrap()).unwrap());
    }
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn a_watch_tells_the_state_then_changes_and_what_a_selector_gains_and_loses() {
    let cluster = Cluster::start().await;
    let labelled = |value: &str| json!({"metadata": {"name": "a", "labels": {"l": value}}});
    let (_, made) = cluster.call("POST", MAPS, Some(labelled("x"))).await;
    let version = made["metadata"]["resourceVersion"].as_str().unwrap();
    let path = format!("{MAPS}/a");
    cluster.call("PUT", &path, Some(labelled("y"))).await;
    cluster.call("PUT", &path, Some(labelled("x"))).await;
    cluster.call("DELETE", &path, None).await;
    let seen = frames(&cluster, &format!("resourceVersion={version}&labelSelector=l%3Dx"), 3).await;
    let kinds: Vec<&str> = seen.iter().map(|one| one["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["DELETED", "ADDED", "DELETED"]);
    cluster.call("POST", MAPS, Some(map("b", json!({})))).await;
    let query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let seen = frames(&cluster, query, 2).await;
    assert_eq!((seen[0]["type"].as_str(), seen[1]["type"].as_str()), (Some("ADDED"), Some("BOOKMARK")));
    assert_eq!(seen[1]["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
}

#[tokio::test]
async fn finalizers_hold_an_object_and_patches_let_it_go() {
    let cluster = Cluster::start().await;
    let held = json!({"metadata": {"name": "h", "finalizers": ["example.com/hold"]}});
    cluster.call("POST", MAPS, Some(held)).await;
    let path = format!("{MAPS}/h");
    let (status, marked) = cluster.call("DELETE", &path, None).await;
    assert_eq!(status, StatusCode::OK);
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    let patch = json!([{"op": "remove", "path": "/metadata/finalizers"}]);
    let media = "application/json-patch+json";
    let (status, _) = cluster.call_as(UserInfo::admin(), "PATCH", &path, media, Some(patch)).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(cluster.call("GET", &path, None).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_namespace_goes_when_its_finalizers_are_gone() {
    let cluster = Cluster::start().await;
    let path = "/api/v1/namespaces/gone";
    cluster.call("POST", "/api/v1/namespaces", Some(json!({"metadata": {"name": "gone"}}))).await;
    let (_, marked) = cluster.call("DELETE", path, None).await;
    assert_eq!(marked["status"]["phase"], "Terminating");
    let (status, refused) =
        cluster.call("POST", &format!("{path}/configmaps"), Some(map("a", json!({})))).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{refused}");
    let mut finalized = marked;
    finalized["spec"]["finalizers"] = json!([]);
    let (status, told) = cluster.call("PUT", &format!("{path}/finalize"), Some(finalized)).await;
    assert_eq!(status, StatusCode::OK, "{told}");
    assert_eq!(cluster.call("GET", path, None).await.0, StatusCode::NOT_FOUND);
}

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "busybox"}]}})
}

#[tokio::test]
async fn a_bound_pod_is_marked_first_and_a_token_ends_with_it() {
    let cluster = Cluster::start().await;
    let pods = "/api/v1/namespaces/default/pods";
    let (status, made) = cluster.call("POST", pods, Some(pod("p"))).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    assert_eq!(made["spec"]["serviceAccountName"], "default");
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}});
    assert_eq!(
        cluster.call("POST", &format!("{pods}/p/binding"), Some(binding.clone())).await.0,
        StatusCode::CREATED
    );
    let (status, _) = cluster.call("POST", &format!("{pods}/p/binding"), Some(binding)).await;
    assert_eq!(status, StatusCode::CONFLICT);
    let request = json!({"spec": {"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p"}}});
    let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let (_, issued) = cluster.call("POST", path, Some(request)).await;
    let token = issued["status"]["token"].as_str().unwrap().to_owned();
    let review = json!({"spec": {"token": token}});
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    let (_, held) = cluster.call("POST", reviews, Some(review.clone())).await;
    assert_eq!(held["status"]["user"]["username"], "system:serviceaccount:default:default", "{held}");
    let (_, marked) = cluster.call("DELETE", &format!("{pods}/p"), None).await;
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
    cluster.call("DELETE", &format!("{pods}/p?gracePeriodSeconds=0"), None).await;
    assert_eq!(cluster.call("GET", &format!("{pods}/p"), None).await.0, StatusCode::NOT_FOUND);
    let (_, gone) = cluster.call("POST", reviews, Some(review)).await;
    assert!(gone["status"].get("authenticated").is_none(), "{gone}");
}

#[tokio::test]
async fn rights_follow_bindings_and_nobody_grants_more_than_he_has() {
    let cluster = Cluster::start().await;
    let bob = || UserInfo::new("bob", &[]);
    let json_media = "application/json";
    let (status, refused) = cluster.call_as(bob(), "GET", MAPS, json_media, None).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert_eq!(
        refused["message"],
        "configmaps is forbidden: User \"bob\" cannot list resource \"configmaps\" in API group \"\" in the namespace \
         \"default\""
    );
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let binding = json!({"metadata": {"name": "b"}, "subjects": [{"kind": "User", "name": "bob", "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "admin"}});
    assert_eq!(
        cluster.call("POST", &format!("{rbac}/rolebindings"), Some(binding)).await.0,
        StatusCode::CREATED
    );
    assert_eq!(cluster.call_as(bob(), "GET", MAPS, json_media, None).await.0, StatusCode::OK);
    let role = |resource: &str, verb: &str| json!({"metadata": {"name": format!("r-{verb}")}, "rules": [{"apiGroups": [""], "resources": [resource], "verbs": [verb]}]});
    let roles = format!("{rbac}/roles");
    let (status, made) = cluster.call_as(bob(), "POST", &roles, json_media, Some(role("pods", "get"))).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let (status, refused) =
        cluster.call_as(bob(), "POST", &roles, json_media, Some(role("nodes", "delete"))).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .contains("is attempting to grant RBAC permissions not currently held")
    );
}

#[tokio::test]
async fn anonymous_reads_health_and_nothing_else() {
    let cluster = Cluster::start().await;
    let status = |path: &'static str| {
        let service = cluster.server.service(UserInfo::anonymous());
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        async move { service.oneshot(request).await.unwrap().status() }
    };
    assert_eq!(status("/healthz").await, StatusCode::OK);
    assert_eq!(status("/version").await, StatusCode::OK);
    assert_eq!(status("/api").await, StatusCode::FORBIDDEN);
    assert_eq!(status("/api/v1/secrets").await, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn cluster_addresses_are_given_once_and_choices_are_checked() {
    let cluster = Cluster::start().await;
    let path = "/api/v1/namespaces/default/services";
    let service = |name: &str, address: &str| {
        let mut out =
            json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], "type": "NodePort"}});
        if !address.is_empty() {
            out["spec"]["clusterIP"] = address.into();
        }
        out
    };
    let (status, made) = cluster.call("POST", path, Some(service("a", "10.96.0.77"))).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    assert!(made["spec"]["ports"][0]["nodePort"].as_u64().unwrap() >= 30000);
    let (status, refused) = cluster.call("POST", path, Some(service("b", "10.96.0.77"))).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(refused["message"].as_str().unwrap().contains("provided IP is already allocated"), "{refused}");
    let (status, refused) = cluster.call("POST", path, Some(service("c", "10.1.1.1"))).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(
        refused["message"].as_str().unwrap().contains("The range of valid IPs is 10.96.0.0/24"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_definition_serves_its_versions_and_goes_with_its_instances() {
    let cluster = Cluster::start().await;
    let version = |name: &str, storage: bool| {
        json!({"name": name, "served": true, "storage": storage, "subresources": {"status": {}},
            "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}})
    };
    let definition = json!({"metadata": {"name": "things.example.com"}, "spec": {
        "group": "example.com", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"},
        "versions": [version("v1", true), version("v1beta1", false)]}});
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let (status, made) = cluster.call("POST", definitions, Some(definition)).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let old = "/apis/example.com/v1beta1/namespaces/default/things";
    let thing = json!({"apiVersion": "example.com/v1beta1", "kind": "Thing", "metadata": {"name": "t"}, "spec": {"a": 1}, "status": {"b": 2}});
    let (status, made) = cluster.call("POST", old, Some(thing)).await;
    assert_eq!((status, made["apiVersion"].as_str()), (StatusCode::CREATED, Some("example.com/v1beta1")));
    assert!(made.get("status").is_none());
    let new = "/apis/example.com/v1/namespaces/default/things/t";
    let (_, read) = cluster.call("GET", new, None).await;
    assert_eq!((read["apiVersion"].as_str(), read["spec"]["a"].as_i64()), (Some("example.com/v1"), Some(1)));
    let patch = json!({"status": {"b": 3}, "spec": {"a": 9}});
    let media = "application/merge-patch+json";
    let (_, patched) =
        cluster.call_as(UserInfo::admin(), "PATCH", &format!("{new}/status"), media, Some(patch)).await;
    assert_eq!((patched["status"]["b"].as_i64(), patched["spec"]["a"].as_i64()), (Some(3), Some(1)));
    assert_eq!(patched["metadata"]["generation"], 1);
    let path = format!("{definitions}/things.example.com");
    let mut watch = cluster.server.client(UserInfo::admin());
    cluster.call("DELETE", &path, None).await;
    // The deletion runs beside the requests: wait for the state, by watching it.
    wait_gone(&mut watch, "things.example.com").await;
    assert_eq!(cluster.call("GET", new, None).await.0, StatusCode::NOT_FOUND);
}

async fn wait_gone(client: &mut kube::Client, name: &str) {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
    let definitions: kube::Api<CustomResourceDefinition> = kube::Api::all(client.clone());
    let gone =
        kube::runtime::wait::await_condition(definitions, name, |one: Option<&CustomResourceDefinition>| {
            one.is_none()
        });
    tokio::time::timeout(std::time::Duration::from_secs(5), gone).await.unwrap().unwrap();
}
