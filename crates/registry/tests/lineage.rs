//! Lineage: what Workflows did becomes rows, by hand and by the recorder in a cluster.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod common;

use std::collections::HashMap;
use std::sync::Arc;

use api::workflow::Workflow;
use apiserver::{ApiServer, Config, Ipv4Range, Pki, PortRange, UserInfo};
use common::open;
use futures::StreamExt;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use registry::lineage::derive::{PodFacts, derive};
use registry::lineage::recorder::{self, record_run};
use serde::Deserialize;
use serde_json::{Value, json};

const RUN: &str = "0b5d4e1c7c1f4f8e9d5e111122223333";
const MODEL: &str =
    "minio://mlpipeline/v2/artifacts/default/iris/0b5d4e1c-7c1f-4f8e-9d5e-111122223333/train/model";

fn spec() -> Value {
    json!({"kfp": {"runId": "0b5d4e1c-7c1f-4f8e-9d5e-111122223333", "displayName": "iris-run-001",
        "pipelineSpec": {"pipelineInfo": {"name": "iris"}}, "runtimeConfig": {"parameters": {"name": "iris"}}}})
}

fn status(phase: &str) -> Value {
    json!({"phase": phase, "startedAt": "2026-01-02T03:04:05Z", "finishedAt": (phase != "Running").then_some("2026-01-02T03:04:06Z"),
        "nodes": {"n1": {"id": "n1", "name": "w.train", "displayName": "train", "type": "Pod", "phase": phase, "podName": "p1",
            "startedAt": "2026-01-02T03:04:05Z",
            "outputs": {"artifacts": [{"name": "model", "uri": MODEL},
                {"name": "m", "type": "system.Metrics", "uri": "minio://b/m", "metadata": {"accuracy": 0.9}}]}}}})
}

fn workflow(phase: &str) -> Workflow {
    serde_json::from_value(json!({"metadata": {"name": "w", "namespace": "default", "uid": "u1"}, "spec": spec(), "status": status(phase)})).unwrap()
}

async fn sqlite() -> (tempfile::TempDir, common::Face) {
    let folder = tempfile::tempdir().unwrap();
    let face = open(&format!("sqlite://{}/platform.db", folder.path().display()), false).await;
    (folder, face)
}

fn tag(run: &Value, key: &str) -> Value {
    let tags = run["run"]["data"]["tags"].as_array().unwrap();
    tags.iter().find(|tag| tag["key"] == key).map_or(Value::Null, |tag| tag["value"].clone())
}

#[tokio::test]
async fn a_workflow_recorded_twice_is_recorded_once() {
    let (_folder, face) = sqlite().await;
    // The version comes first: its run's row is made on demand and filled by the record.
    face.post("registered-models/create", json!({"name": "iris"})).await;
    let made = face.post("model-versions/create", json!({"name": "iris", "source": MODEL})).await;
    assert_eq!(made["model_version"]["run_id"], RUN);
    let pods = HashMap::from([(
        "p1".to_owned(),
        PodFacts { image: "python:3.9-slim".into(), stand_in: "host".into() },
    )]);
    let record = derive(&workflow("Succeeded"), &pods).unwrap();
    record_run(&face.registry, &record).await.unwrap();
    let once = face.post("runs/search", json!({"experiment_ids": ["1"]})).await;
    record_run(&face.registry, &record).await.unwrap();
    // A later look, when the pod is gone, takes nothing away.
    record_run(&face.registry, &derive(&workflow("Succeeded"), &HashMap::new()).unwrap()).await.unwrap();
    assert_eq!(face.post("runs/search", json!({"experiment_ids": ["1"]})).await, once);
    let runs = once["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 2);
    let run = face.get(&format!("runs/get?run_id={RUN}")).await;
    assert_eq!(
        (&run["run"]["info"]["status"], &run["run"]["info"]["run_name"]),
        (&json!("FINISHED"), &json!("iris-run-001"))
    );
    assert_eq!(run["run"]["data"]["metrics"][0]["value"], 0.9);
    let child = runs.iter().find(|run| run["info"]["run_id"] != RUN).unwrap();
    let child = json!({"run": child});
    assert_eq!(tag(&child, "mlflow.parentRunId"), RUN);
    assert_eq!(tag(&child, "slipway.dev/image-stand-in"), "host");
    assert_eq!(tag(&child, "slipway.dev/output-artifact/model"), MODEL);
}

/// A cluster with the platform's kinds and roles.
async fn cluster() -> (tempfile::TempDir, Arc<ApiServer>) {
    let folder = tempfile::tempdir().unwrap();
    let pki = Pki::open(&folder.path().join("pki")).unwrap();
    let state = store::Store::open(folder.path(), store::Options::default()).unwrap();
    let config = Config {
        advertise: "127.0.0.1:1".parse().unwrap(),
        service_range: Ipv4Range { base: "10.96.0.0".parse().unwrap(), prefix: 24 },
        node_ports: PortRange::default(),
        admin_token: None,
        namespaces: vec!["kubeflow".into()],
    };
    let server = ApiServer::start(state, pki, config, Vec::new()).await.unwrap();
    let admin = server.client(UserInfo::admin());
    for document in
        api::crds().chain(api::install_manifests()).flat_map(serde_yaml_ng::Deserializer::from_str)
    {
        let object = DynamicObject::deserialize(document).unwrap();
        let types = object.types.clone().unwrap();
        let (group, version) = types.api_version.split_once('/').unwrap_or(("", &types.api_version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &types.kind));
        let objects: Api<DynamicObject> = match &object.metadata.namespace {
            Some(namespace) => Api::namespaced_with(admin.clone(), namespace, &resource),
            None => Api::all_with(admin.clone(), &resource),
        };
        objects.create(&PostParams::default(), &object).await.unwrap();
    }
    (folder, server)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_recorder_follows_workflows_as_its_own_account() {
    let (_folder, face) = sqlite().await;
    let (_state, server) = cluster().await;
    let admin = server.client(UserInfo::admin());
    let recorder = tokio::spawn(recorder::run(
        server.client(UserInfo::service_account("kubeflow", "registry")),
        face.registry.clone(),
    ));
    let workflows: Api<Workflow> = Api::namespaced(admin, "default");
    let object: Workflow =
        serde_json::from_value(json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow",
        "metadata": {"name": "w"}, "spec": spec()}))
        .unwrap();
    workflows.create(&PostParams::default(), &object).await.unwrap();
    for phase in ["Running", "Succeeded"] {
        let patch = Patch::Merge(json!({"status": status(phase)}));
        workflows.patch("w", &PatchParams::default(), &patch).await.unwrap();
        let wanted = if phase == "Running" { "RUNNING" } else { "FINISHED" };
        // The recorder tells nobody when it has written, so this asks the face until it has.
        let asked = futures::stream::unfold((), |()| async {
            let (_, answer) = face.call("GET", &format!("runs/get?run_id={RUN}"), Value::Null).await;
            tokio::task::yield_now().await;
            Some((answer["run"]["info"]["status"].clone(), ()))
        });
        let written = asked.filter(|status| futures::future::ready(status == wanted));
        let written = std::pin::pin!(written).next().await;
        assert_eq!(written, Some(json!(wanted)));
        assert!(!recorder.is_finished());
    }
    recorder.abort();
}
