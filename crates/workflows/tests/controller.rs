//! The controller against the real API server in this process, with pods that are only pretended.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::workflow::{Workflow, WorkflowJournal};
use apiserver::{ApiServer, Config, Ipv4Range, Pki, PortRange, UserInfo};
use async_trait::async_trait;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Namespace, PersistentVolumeClaim, Pod};
use kube::api::{Api, ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use pod_protocol::launch::{LaunchReport, LaunchSpec, UploadedArtifact};
use serde::Deserialize;
use serde_json::{Value, json};
use store::Store;
use tokio::task::JoinHandle;
use workflows::{CacheKey, CachedOutputs, StepCache};

const PATIENCE: Duration = Duration::from_secs(15);

#[derive(Default)]
struct Memory(Mutex<BTreeMap<CacheKey, CachedOutputs>>);

#[async_trait]
impl StepCache for Memory {
    async fn lookup(&self, key: &CacheKey) -> Option<CachedOutputs> {
        self.0.lock().unwrap().get(key).cloned()
    }
    async fn record(&self, key: &CacheKey, _: &str, _: &str, outputs: &CachedOutputs) {
        self.0.lock().unwrap().insert(key.clone(), outputs.clone());
    }
}

struct World {
    client: Client,
    controller: JoinHandle<()>,
    node: JoinHandle<()>,
    cache: Arc<Memory>,
    /// Names of pods that the pretended node was asked to run, in order.
    ran: Arc<Mutex<Vec<String>>>,
    _dir: tempfile::TempDir,
    _server: Arc<ApiServer>,
}

impl World {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), store::Options::default()).unwrap();
        let pki = Pki::open(&dir.path().join("pki")).unwrap();
        let config = Config {
            advertise: "127.0.0.1:6443".parse().unwrap(),
            service_range: Ipv4Range { base: Ipv4Addr::new(10, 96, 0, 0), prefix: 16 },
            node_ports: PortRange::default(),
            admin_token: None,
            namespaces: Vec::new(),
        };
        let server = ApiServer::start(store, pki, config, Vec::new()).await.unwrap();
        let client = server.client(UserInfo::admin());
        let kubeflow: Namespace = serde_json::from_value(json!({"metadata": {"name": "kubeflow"}})).unwrap();
        drop(Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &kubeflow).await);
        for stream in api::crds().chain(api::install_manifests()) {
            for document in serde_yaml_ng::Deserializer::from_str(stream) {
                apply(&client, Value::deserialize(document).unwrap()).await;
            }
        }
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": "default", "namespace": "default"}});
        apply(&client, account).await;
        let cache = Arc::new(Memory::default());
        let ran = Arc::new(Mutex::new(Vec::new()));
        let node = tokio::spawn(pretend_node(client.clone(), ran.clone()));
        // The controller's own identity: its Role must suffice.
        let own = server.client(UserInfo::new(
            "system:serviceaccount:kubeflow:workflows",
            &["system:serviceaccounts", "system:serviceaccounts:kubeflow", "system:authenticated"],
        ));
        let controller = tokio::spawn(workflows::run(own, config_of(cache.clone())));
        Self { client, controller, node, cache, ran, _dir: dir, _server: server }
    }

    async fn create(&self, name: &str, spec: Value) {
        let workflow = json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow",
            "metadata": {"name": name, "namespace": "default"}, "spec": spec});
        apply(&self.client, workflow).await;
    }

    async fn wait(&self, name: &str, so: impl Fn(&Workflow) -> bool) -> Workflow {
        let api: Api<Workflow> = Api::namespaced(self.client.clone(), "default");
        let mut last = None;
        let states = async {
            let mut states = watcher::watch_object(api, name).boxed();
            while let Some(state) = states.next().await {
                let Some(state) = state.unwrap() else { continue };
                if so(&state) {
                    return state;
                }
                last = Some(state);
            }
            panic!("the watch ended")
        };
        match tokio::time::timeout(PATIENCE, states).await {
            Ok(state) => state,
            Err(_) => panic!("{name} did not become so; it is {last:#?}"),
        }
    }

    async fn wait_phase(&self, name: &str, phase: &str) -> Workflow {
        let ended =
            |workflow: &Workflow| workflow.status.as_ref().is_some_and(|status| status.finished_at.is_some());
        let workflow = self.wait(name, ended).await;
        let status = workflow.status.clone().unwrap();
        assert_eq!(status.phase, phase, "{}", status.message);
        workflow
    }

    fn ran(&self) -> Vec<String> {
        self.ran.lock().unwrap().clone()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.controller.abort();
        self.node.abort();
    }
}

fn config_of(cache: Arc<Memory>) -> workflows::Config {
    workflows::Config {
        artifacts_url: "http://127.0.0.1:1".into(),
        tracking_uri: "http://127.0.0.1:2".into(),
        bucket: "mlpipeline".into(),
        pod_image: "slipway/pod:test".into(),
        cache,
    }
}

async fn apply(client: &Client, document: Value) {
    let object: DynamicObject = serde_json::from_value(document).unwrap();
    let types = object.types.clone().unwrap();
    let (group, version) = types.api_version.split_once('/').unwrap_or(("", &types.api_version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &types.kind));
    let api: Api<DynamicObject> = match object.namespace() {
        Some(namespace) => Api::namespaced_with(client.clone(), &namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    api.create(&PostParams::default(), &object).await.unwrap();
}

/// Ends every pod as its command says: `false` fails, `hang` runs on, anything else succeeds.
async fn pretend_node(client: Client, ran: Arc<Mutex<Vec<String>>>) {
    let pods: Api<Pod> = Api::all(client.clone());
    let mut changes = watcher(pods, watcher::Config::default()).default_backoff().applied_objects().boxed();
    while let Some(change) = changes.next().await {
        let Ok(pod) = change else { continue };
        let fresh = pod.status.as_ref().is_none_or(|status| status.container_statuses.is_none());
        if !fresh || pod.metadata.deletion_timestamp.is_some() {
            continue;
        }
        let name = pod.name_any();
        if ran.lock().unwrap().contains(&name) {
            continue;
        }
        ran.lock().unwrap().push(name.clone());
        let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap());
        let status = json!({ "status": status_of(&pod) });
        drop(api.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await);
    }
}

fn status_of(pod: &Pod) -> Value {
    let main = &pod.spec.as_ref().unwrap().containers[0];
    let command = main.command.clone().unwrap_or_default();
    let env = main.env.iter().flatten().find(|variable| variable.name == "SLIPWAY_LAUNCH").unwrap();
    let text = env.value.clone().unwrap().replace("$$", "$");
    let spec: LaunchSpec = serde_json::from_str(&text).unwrap();
    let (state, phase) = match command[3].as_str() {
        "hang" => (json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}}), "Running"),
        word => {
            let code = i32::from(word == "false");
            let message = serde_json::to_string(&report(&spec, &command, code)).unwrap();
            let state = json!({"terminated": {"exitCode": code, "message": message}});
            (state, if code == 0 { "Succeeded" } else { "Failed" })
        }
    };
    json!({"phase": phase, "containerStatuses": [{"name": "main", "image": "", "imageID": "", "ready": false,
        "restartCount": 0, "state": state}]})
}

fn report(spec: &LaunchSpec, command: &[String], code: i32) -> LaunchReport {
    let mut report = LaunchReport { version: 1, exit_code: Some(code), ..LaunchReport::default() };
    for artifact in &spec.output_artifacts {
        let uploaded = UploadedArtifact { uri: artifact.uri.clone(), size: 1, files: 1, sha256: "ab".into() };
        report.artifacts.insert(artifact.name.clone(), uploaded);
    }
    if spec.capture_result {
        report.result = command.last().cloned();
    }
    if spec.executor_output.is_some() {
        report.executor_output = Some(json!({"parameterValues": {"Output": "7"}}));
    }
    report
}

fn leaf(name: &str, command: &str) -> Value {
    json!({"name": name, "container": {"image": "busybox", "command": [command]}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_template_runs_by_reference_and_leaves_nothing_held() {
    let world = World::start().await;
    let mut template: Value =
        serde_yaml_ng::from_str(include_str!("../../plan/tests/fixtures/train-component.yaml")).unwrap();
    template["metadata"]["namespace"] = json!("default");
    apply(&world.client, template).await;
    world.create("train", json!({"workflowTemplateRef": {"name": "train-iris-model"}})).await;
    let workflow = world.wait_phase("train", "Succeeded").await;
    assert_eq!(workflow.labels()["workflows.argoproj.io/phase"], "Succeeded");
    assert_eq!(workflow.labels()["workflows.argoproj.io/completed"], "true");
    let status = workflow.status.unwrap();
    assert_eq!(status.progress, "1/1");
    assert!(status.stored_workflow_template_spec.is_some());
    let artifact = &status.nodes["train"].outputs.artifacts[0];
    assert_eq!(artifact.s3.as_ref().unwrap().key, "default/train/train/model");
    let pods: Api<Pod> = Api::namespaced(world.client.clone(), "default");
    let pod = pods.get("train").await.unwrap();
    let main = &pod.spec.as_ref().unwrap().containers[0];
    assert_eq!(main.command.as_ref().unwrap()[..4], ["/var/run/slipway/pod", "launch", "--", "python"]);
    assert_eq!(pod.annotations()["workflows.argoproj.io/node-name"], "train");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_seeds_pipeline_runs_and_a_second_run_comes_from_the_cache() {
    let world = World::start().await;
    let document: Value =
        serde_yaml_ng::from_str(include_str!("../../plan/tests/fixtures/iris_pipeline.yaml")).unwrap();
    for run in ["one", "two"] {
        let kfp =
            json!({"kfp": {"runId": run, "displayName": run, "pipelineSpec": document, "runtimeConfig": {}}});
        world.create(run, kfp).await;
        world.wait_phase(run, "Succeeded").await;
    }
    assert_eq!(world.ran().len(), 2, "the second run took both steps from the cache: {:?}", world.ran());
    assert_eq!(world.cache.0.lock().unwrap().len(), 2);
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(world.client.clone(), "default");
    assert!(claims.get_opt("slipway-python-cache").await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_that_dies_runs_no_step_twice() {
    let mut world = World::start().await;
    let steps: Vec<Value> = (0..6).map(|at| json!([{"name": format!("s{at}"), "template": "ok"}])).collect();
    let mut spec =
        json!({"entrypoint": "main", "templates": [{"name": "main", "steps": steps}, leaf("ok", "true")]});
    spec["onExit"] = json!("ok");
    world.create("long", spec).await;
    let api: Api<WorkflowJournal> = Api::all(world.client.clone());
    for _ in 0..4 {
        world.controller.abort();
        let own = world.client.clone();
        world.controller = tokio::spawn(workflows::run(own, config_of(world.cache.clone())));
        let before = world.ran().len();
        let moved = async {
            while world.ran().len() == before && before < 7 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, moved).await.unwrap();
    }
    world.wait_phase("long", "Succeeded").await;
    let mut ran = world.ran();
    assert_eq!(ran.len(), 7);
    ran.sort();
    ran.dedup();
    assert_eq!(ran.len(), 7, "each pod ran once");
    let gone = async {
        while !api.list(&ListParams::default()).await.unwrap().items.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_spec_ends_at_once_and_a_terminated_workflow_lets_its_pods_go() {
    let world = World::start().await;
    world.create("bad", json!({"entrypoint": "nope", "templates": [leaf("a", "true")]})).await;
    let bad = world.wait_phase("bad", "Error").await;
    assert!(bad.status.unwrap().message.contains("template name 'nope' undefined"));
    world.create("hang", json!({"entrypoint": "a", "templates": [leaf("a", "hang")]})).await;
    world
        .wait("hang", |workflow| {
            let node = workflow.status.as_ref().and_then(|status| status.nodes.get("hang"));
            node.is_some_and(|node| node.phase == "Running")
        })
        .await;
    let api: Api<Workflow> = Api::namespaced(world.client.clone(), "default");
    let patch = Patch::Merge(json!({"spec": {"shutdown": "Terminate"}}));
    api.patch("hang", &PatchParams::default(), &patch).await.unwrap();
    let ended = world.wait_phase("hang", "Failed").await;
    assert!(ended.status.unwrap().message.contains("Terminate"));
    world.create("fail", json!({"entrypoint": "a", "templates": [leaf("a", "false")]})).await;
    let failed = world.wait_phase("fail", "Failed").await;
    assert_eq!(failed.status.unwrap().nodes["fail"].message, "Error (exit code 1)");
}
