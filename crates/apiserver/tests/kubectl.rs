//! The real kubectl against the server.

#![allow(clippy::unwrap_used, reason = "a test's failure is its panic")]

mod common;

use common::{Cluster, has_kubectl};

const DEPLOYMENT: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: main, image: "nginx:1"}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {a: "1"}
"#;

const DEFINITION: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: widgets, kind: Widget, shortNames: [wd]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}, scale: {specReplicasPath: .spec.size, statusReplicasPath: .status.size}}
    additionalPrinterColumns:
    - {name: Size, type: integer, jsonPath: .spec.size}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            required: [size]
            properties:
              size: {type: integer, minimum: 1}
              color: {type: string, default: red}
          status: {type: object, x-kubernetes-preserve-unknown-fields: true}
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_are_applied_shown_scaled_and_deleted() {
    if !has_kubectl() {
        return;
    }
    let cluster = Cluster::start().await;
    let text = cluster.ok(&["apply", "-f", "-"], DEPLOYMENT).await;
    assert!(
        text.contains("deployment.apps/web created") && text.contains("configmap/settings created"),
        "{text}"
    );
    let text = cluster.ok(&["apply", "-f", "-"], DEPLOYMENT).await;
    assert!(text.contains("deployment.apps/web unchanged"), "{text}");
    let text = cluster.ok(&["get", "deploy,svc,cm", "-o", "wide"], "").await;
    assert!(text.contains("CONTAINERS") && text.contains("0/2") && text.contains("10.96.0."), "{text}");
    let changed = DEPLOYMENT.replace("nginx:1", "nginx:2");
    let (same, text) = cluster.kubectl(&["diff", "-f", "-"], &changed).await.unwrap();
    assert!(!same && text.contains("+      - image: nginx:2"), "{text}");
    let wrong = DEPLOYMENT
        .replace("matchLabels: {app: web}", "matchLabels: {app: other}")
        .replace("name: web,", "name: wrong,");
    let (ok, text) = cluster.kubectl(&["create", "-f", "-"], &wrong).await.unwrap();
    assert!(!ok && text.contains("`selector` does not match template `labels`"), "{text}");
    let text = cluster.ok(&["apply", "--server-side", "--field-manager=other", "-f", "-"], DEPLOYMENT).await;
    assert!(text.contains("deployment.apps/web serverside-applied"), "{text}");
    cluster.ok(&["scale", "deploy/web", "--replicas=3"], "").await;
    let text = cluster
        .ok(&["get", "deploy", "web", "-o", "jsonpath={.spec.replicas} {.metadata.generation}"], "")
        .await;
    assert_eq!(text, "3 2");
    let text = cluster.ok(&["describe", "deploy", "web"], "").await;
    assert!(text.contains("nginx:1"), "{text}");
    cluster.ok(&["label", "cm", "settings", "x=y"], "").await;
    let text = cluster.ok(&["get", "cm", "-l", "x=y", "-o", "name"], "").await;
    assert_eq!(text.trim(), "configmap/settings");
    cluster.ok(&["delete", "deploy", "web", "--wait=true"], "").await;
    let (ok, text) = cluster.kubectl(&["get", "deploy", "web"], "").await.unwrap();
    assert!(
        !ok && text.contains("Error from server (NotFound): deployments.apps \"web\" not found"),
        "{text}"
    );
    let text = cluster.ok(&["get", "ns"], "").await;
    assert!(text.contains("kubeflow") && text.contains("Active"), "{text}");
    let (_, text) = cluster.kubectl(&["auth", "can-i", "list", "pods", "--as=nobody"], "").await.unwrap();
    assert_eq!(text.trim(), "no");
    cluster.ok(&["api-resources"], "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_custom_kind_is_served_at_once_and_goes_with_its_instances() {
    if !has_kubectl() {
        return;
    }
    let cluster = Cluster::start().await;
    cluster.ok(&["create", "-f", "-"], DEFINITION).await;
    cluster.ok(&["wait", "crd/widgets.example.com", "--for=condition=Established", "--timeout=5s"], "").await;
    let widget = "apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: w}\nspec: {size: 3}\n";
    cluster.ok(&["apply", "-f", "-"], widget).await;
    let text = cluster.ok(&["get", "wd"], "").await;
    assert!(text.contains("SIZE") && text.contains('3'), "{text}");
    let bad = widget.replace("size: 3", "size: 0, colour: x");
    let (ok, text) = cluster.kubectl(&["apply", "-f", "-"], &bad).await.unwrap();
    assert!(!ok && text.contains("strict decoding error: unknown field \"spec.colour\""), "{text}");
    let (ok, text) = cluster.kubectl(&["apply", "--validate=ignore", "-f", "-"], &bad).await.unwrap();
    assert!(!ok && text.contains("spec.size in body should be greater than or equal to 1"), "{text}");
    let text = cluster.ok(&["explain", "widget.spec"], "").await;
    assert!(text.contains("size") && text.contains("<integer> -required-"), "{text}");
    let text = cluster.ok(&["explain", "widget"], "").await;
    assert!(text.contains("Standard object's metadata"), "{text}");
    let text = cluster.ok(&["explain", "pod.spec.containers.livenessProbe"], "").await;
    assert!(text.contains("Periodic probe of container liveness") && text.contains("httpGet"), "{text}");
    let text = cluster.ok(&["explain", "deployment", "--recursive"], "").await;
    assert!(
        text.contains("maxSurge\t<IntOrString>") && text.contains("enables declarative updates"),
        "{text}"
    );
    cluster.ok(&["scale", "widget/w", "--replicas=5"], "").await;
    let text = cluster.ok(&["get", "widget", "w", "-o", "jsonpath={.spec.size} {.spec.color}"], "").await;
    assert_eq!(text, "5 red");
    cluster.ok(&["delete", "crd", "widgets.example.com", "--timeout=5s"], "").await;
    let (ok, _) = cluster.kubectl(&["get", "widgets"], "").await.unwrap();
    assert!(!ok);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_made_by_typed_clients_arrive_whole() {
    if !has_kubectl() {
        return;
    }
    // `kubectl create` sends protobuf.
    let cluster = Cluster::start().await;
    cluster.ok(&["create", "secret", "generic", "s", "--from-literal=a=b"], "").await;
    assert_eq!(
        cluster.ok(&["get", "secret", "s", "-o", "jsonpath={.data.a} {.type}"], "").await,
        "Yg== Opaque"
    );
    cluster.ok(&["create", "job", "j", "--image=busybox", "--", "true"], "").await;
    let path = "jsonpath={.spec.template.spec.containers[0].command[0]} {.spec.backoffLimit}";
    assert_eq!(cluster.ok(&["get", "job", "j", "-o", path], "").await, "true 6");
    cluster.ok(&["create", "role", "r", "--verb=get", "--resource=pods"], "").await;
    cluster.ok(&["create", "rolebinding", "b", "--role=r", "--user=bob"], "").await;
    assert_eq!(cluster.ok(&["auth", "can-i", "get", "pods", "--as=bob"], "").await.trim(), "yes");
    assert!(cluster.ok(&["create", "token", "default"], "").await.starts_with("ey"));
}
