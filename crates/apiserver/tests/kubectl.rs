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
    let text = cluster.ok(&["apply", "--validate=false", "-f", "-"], DEPLOYMENT).await;
    assert!(
        text.contains("deployment.apps/web created") && text.contains("configmap/settings created"),
        "{text}"
    );
    let text = cluster.ok(&["apply", "--validate=false", "-f", "-"], DEPLOYMENT).await;
    assert!(text.contains("deployment.apps/web unchanged"), "{text}");
    let text = cluster.ok(&["get", "deploy,svc,cm", "-o", "wide"], "").await;
    assert!(text.contains("CONTAINERS") && text.contains("0/2") && text.contains("10.96.0."), "{text}");
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
    cluster.ok(&["create", "--validate=false", "-f", "-"], DEFINITION).await;
    cluster.ok(&["wait", "crd/widgets.example.com", "--for=condition=Established", "--timeout=5s"], "").await;
    let widget = "apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: w}\nspec: {size: 3}\n";
    cluster.ok(&["apply", "--validate=false", "-f", "-"], widget).await;
    let text = cluster.ok(&["get", "wd"], "").await;
    assert!(text.contains("SIZE") && text.contains('3'), "{text}");
    cluster.ok(&["scale", "widget/w", "--replicas=5"], "").await;
    let text = cluster.ok(&["get", "widget", "w", "-o", "jsonpath={.spec.size} {.spec.color}"], "").await;
    assert_eq!(text, "5 red");
    cluster.ok(&["delete", "crd", "widgets.example.com", "--timeout=5s"], "").await;
    let (ok, _) = cluster.kubectl(&["get", "widgets"], "").await.unwrap();
    assert!(!ok);
}
