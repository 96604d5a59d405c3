//! The controller in an embedded cluster, as its own ServiceAccount; the test plays Deployment controller and node.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use std::sync::Arc;

use api::serving::InferenceService;
use apiserver::{Admission, ApiServer, Config, FieldError, Ipv4Range, Pki, PortRange, UserInfo};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Resource};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// The family's rules, as the embedder wires them.
struct Rules;

impl Admission for Rules {
    fn handles(&self, group: &str, _: &str) -> bool {
        group == api::serving::GROUP
    }

    fn defaults(&self, _: &str, _: &str, kind: &str, object: &mut Value) {
        api::serving::admission::defaults(kind, object);
    }

    fn validate(&self, _: &str, _: &str, kind: &str, object: &Value, _: Option<&Value>) -> Vec<FieldError> {
        let found = api::serving::admission::check(kind, object);
        found.into_iter().map(|problem| FieldError::invalid(problem.field, "", problem.detail)).collect()
    }
}

struct Cluster {
    _folder: tempfile::TempDir,
    admin: Client,
    controller: tokio::task::JoinHandle<()>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.controller.abort();
    }
}

async fn cluster() -> Cluster {
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
    let server: Arc<ApiServer> = ApiServer::start(state, pki, config, vec![Arc::new(Rules)]).await.unwrap();
    let admin = server.client(UserInfo::admin());
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "default"}});
    create(&admin, DynamicObject::deserialize(account).unwrap()).await;
    for document in
        api::crds().chain(api::install_manifests()).flat_map(serde_yaml_ng::Deserializer::from_str)
    {
        create(&admin, DynamicObject::deserialize(document).unwrap()).await;
    }
    let client = server.client(UserInfo::service_account("kubeflow", "serving"));
    let controller = tokio::spawn(serving::run(client, serving::Config::default()));
    Cluster { _folder: folder, admin, controller }
}

async fn create(client: &Client, object: DynamicObject) {
    let types = object.types.clone().unwrap();
    let (group, version) = types.api_version.split_once('/').unwrap_or(("", &types.api_version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &types.kind));
    let objects: Api<DynamicObject> = match &object.metadata.namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    objects.create(&PostParams::default(), &object).await.unwrap();
}

impl Cluster {
    fn api<K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>>(&self) -> Api<K> {
        Api::namespaced(self.admin.clone(), "default")
    }

    async fn apply(&self, text: &str) -> Result<InferenceService, kube::Error> {
        let object: InferenceService = serde_yaml_ng::from_str(text).unwrap();
        self.api().create(&PostParams::default(), &object).await
    }

    /// Waits for an object that is as wanted.
    async fn wait<K>(&self, name: &str, wanted: impl Fn(&K) -> bool) -> K
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + Send
            + DeserializeOwned
            + 'static,
    {
        let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let seen = watcher(self.api::<K>(), only).applied_objects();
        let found = seen.try_filter(|object| futures::future::ready(wanted(object)));
        let mut found = std::pin::pin!(found);
        let waited = tokio::time::timeout(std::time::Duration::from_secs(15), found.next()).await;
        waited.unwrap_or_else(|_| panic!("{name} never became as wanted")).unwrap().unwrap()
    }
}

fn condition(service: &InferenceService, kind: &str) -> (String, String) {
    let list = service.status["conditions"].as_array().cloned().unwrap_or_default();
    let found = list.into_iter().find(|one| one["type"] == kind).unwrap_or_default();
    let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
    (text("status"), text("reason"))
}

const IRIS: &str = "
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata: {name: iris, namespace: default}
spec:
  predictor:
    sklearn: {storageUri: 'models:/iris/1'}
";

#[tokio::test(flavor = "multi_thread")]
async fn a_model_becomes_ready_with_its_deployment() {
    let cluster = cluster().await;
    let created = cluster.apply(IRIS).await.unwrap();
    assert_eq!(created.spec["predictor"]["model"]["modelFormat"]["name"], "sklearn");
    let deployment = cluster.wait::<Deployment>("iris-predictor", |_| true).await;
    assert_eq!(deployment.spec.as_ref().unwrap().replicas, Some(1));
    let service = cluster.wait::<Service>("iris", |_| true).await;
    let ports: Vec<i32> = service.spec.unwrap().ports.unwrap().iter().map(|port| port.port).collect();
    assert_eq!(ports, [80, 8080]);
    cluster.wait::<Service>("iris-predictor", |_| true).await;
    let status = json!({"status": {"observedGeneration": deployment.metadata.generation, "replicas": 1, "readyReplicas": 1,
        "conditions": [{"type": "Available", "status": "True", "reason": "MinimumReplicasAvailable", "message": "up"}]}});
    cluster
        .api::<Deployment>()
        .patch_status("iris-predictor", &PatchParams::default(), &Patch::Merge(status))
        .await
        .unwrap();
    let ready = cluster.wait::<InferenceService>("iris", |one| condition(one, "Ready").0 == "True").await;
    assert_eq!(ready.status["url"], "http://iris-default.example.com");
    assert_eq!(ready.status["clusterServingRuntimeName"], "kserve-sklearnserver");
    assert_eq!(ready.status["observedGeneration"], 1);

    // A range of replicas brings an autoscaler, a single number takes it away.
    let patch = |value: Value| Patch::Merge(json!({"spec": {"predictor": value}}));
    let services = cluster.api::<InferenceService>();
    services.patch("iris", &PatchParams::default(), &patch(json!({"maxReplicas": 3}))).await.unwrap();
    cluster.wait::<HorizontalPodAutoscaler>("iris-predictor", |_| true).await;
    services.patch("iris", &PatchParams::default(), &patch(json!({"minReplicas": 3}))).await.unwrap();
    cluster.wait::<Deployment>("iris-predictor", |one| one.spec.as_ref().unwrap().replicas == Some(3)).await;
    cluster.wait::<InferenceService>("iris", |one| one.status["observedGeneration"] == 3).await;
    assert!(cluster.api::<HorizontalPodAutoscaler>().get_opt("iris-predictor").await.unwrap().is_none());

    // Stopping takes the workload away and says so.
    let stop = Patch::Merge(json!({"metadata": {"annotations": {"serving.kserve.io/stop": "true"}}}));
    services.patch("iris", &PatchParams::default(), &stop).await.unwrap();
    cluster.wait::<InferenceService>("iris", |one| condition(one, "Stopped").0 == "True").await;
    let gone = cluster.api::<Deployment>().get_opt("iris-predictor").await.unwrap();
    assert!(gone.is_none_or(|one| one.metadata.deletion_timestamp.is_some()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_initializer_is_told_in_the_model_status() {
    let cluster = cluster().await;
    cluster.apply(IRIS).await.unwrap();
    cluster.wait::<Deployment>("iris-predictor", |_| true).await;
    let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "labels": {
            "app": "isvc.iris-predictor", "serving.kserve.io/inferenceservice": "iris"}},
        "spec": {"containers": [{"name": "kserve-container", "image": "x"}]}}))
    .unwrap();
    let pods = cluster.api::<Pod>();
    pods.create(&PostParams::default(), &pod).await.unwrap();
    let status = json!({"status": {"phase": "Pending", "initContainerStatuses": [{"name": "storage-initializer", "image": "", "imageID": "",
        "ready": false, "restartCount": 1, "state": {"terminated": {"exitCode": 1, "message": "model iris has no version 1"}}}]}});
    pods.patch_status("p", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    let service = cluster
        .wait::<InferenceService>("iris", |one| {
            one.status["modelStatus"]["transitionStatus"] == "BlockedByFailedLoad"
        })
        .await;
    assert_eq!(service.status["modelStatus"]["lastFailureInfo"]["message"], "model iris has no version 1");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_users_files_are_taken_and_say_what_is_missing() {
    let cluster = cluster().await;
    cluster.apply(include_str!("../../../examples/iris/kserve-pytorch.yaml")).await.unwrap();
    let service = cluster.wait::<InferenceService>("pytorch-iris", |one| !one.status.is_null()).await;
    assert_eq!(condition(&service, "Ready"), ("False".into(), "NoSupportingRuntime".into()));
    assert_eq!(service.spec["explainable"]["strategy"], "shap");
    // A runtime that serves the format heals it without a touch.
    let runtime = json!({"apiVersion": "serving.kserve.io/v1alpha1", "kind": "ClusterServingRuntime", "metadata": {"name": "torch"},
        "spec": {"supportedModelFormats": [{"name": "pytorch", "autoSelect": true}],
            "containers": [{"name": "kserve-container", "image": "me/torch:1"}]}});
    create(&cluster.admin, DynamicObject::deserialize(runtime).unwrap()).await;
    cluster.wait::<Deployment>("pytorch-iris-predictor", |_| true).await;

    let mut batched = include_str!("../../../examples/iris/batched-model.yaml").to_owned();
    batched = batched.replace("name: batched-model", "name: batched-model\n  namespace: default");
    assert_eq!(cluster.apply(&batched).await.unwrap().spec["predictor"]["maxBatchSize"], 64);
    let hostile = IRIS.replace("models:/iris/1", "file:///srv/../etc");
    let refused = cluster.apply(&hostile).await.unwrap_err().to_string();
    assert!(refused.contains("storageUri") && refused.contains("file:///srv/../etc"), "{refused}");
}
