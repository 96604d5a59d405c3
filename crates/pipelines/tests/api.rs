//! KFP's API through its router, with a cluster that holds Workflows in memory and lets the test play the controller.
//!
//! `SLIPWAY_TEST_POSTGRES=postgres://user@host:port` runs the same on PostgreSQL; `SLIPWAY_KFP_PYTHON=/venv/bin/python` lets the real SDK
//! drive it as well.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::IntoResponse;
use axum::routing::get;
use futures::StreamExt;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use objects::{ArtifactStore, ObjectName};
use pipelines::{Config, Pipelines, cache};
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tower::ServiceExt;

const HELLO: &str = r#"
pipelineInfo: {name: hello}
root:
  dag:
    tasks:
      say:
        componentRef: {name: comp-say}
        taskInfo: {name: say}
        inputs: {parameters: {text: {componentInputParameter: text}}}
  inputDefinitions:
    parameters:
      text: {parameterType: STRING, defaultValue: hi}
components:
  comp-say:
    executorLabel: exec-say
    inputDefinitions: {parameters: {text: {parameterType: STRING}}}
deploymentSpec:
  executors:
    exec-say: {container: {image: busybox, command: [echo], args: ["x"]}}
schemaVersion: 2.1.0
sdkVersion: kfp-2.17.0
"#;

/// The Workflows of a cluster.
#[derive(Clone)]
struct Cluster {
    objects: Arc<Mutex<BTreeMap<String, Value>>>,
    events: broadcast::Sender<Value>,
    /// Whether a created Workflow succeeds at once.
    finish: bool,
    /// Whether deletions are not told: the test does.
    hold: Arc<std::sync::atomic::AtomicBool>,
}

impl Cluster {
    fn new(finish: bool) -> Self {
        Self { objects: Arc::default(), events: broadcast::channel(64).0, finish, hold: Arc::default() }
    }

    fn client(&self) -> kube::Client {
        let one = get(fetch).patch(patch).delete(remove);
        let router = Router::new()
            .route("/apis/argoproj.io/v1alpha1/workflows", get(list))
            .route("/apis/argoproj.io/v1alpha1/namespaces/{ns}/workflows", get(list).post(create))
            .route("/apis/argoproj.io/v1alpha1/namespaces/{ns}/workflows/{name}", one)
            .with_state(self.clone());
        kube::Client::new(router, "default")
    }

    fn set_status(&self, name: &str, status: Value) {
        let mut objects = self.objects.lock().unwrap();
        let object = objects.get_mut(name).unwrap();
        object["status"] = status;
        let _ = self.events.send(json!({"type": "MODIFIED", "object": object}));
    }

    fn only(&self) -> (String, Value) {
        let objects = self.objects.lock().unwrap();
        let (name, object) = objects.iter().next().unwrap();
        (name.clone(), object.clone())
    }
}

fn status(code: StatusCode) -> axum::response::Response {
    let body = json!({"kind": "Status", "status": "Failure", "code": code.as_u16(), "reason": "x", "message": code.to_string()});
    (code, axum::Json(body)).into_response()
}

async fn create(
    State(cluster): State<Cluster>,
    axum::Json(mut object): axum::Json<Value>,
) -> axum::response::Response {
    let name = object["metadata"]["name"].as_str().unwrap().to_owned();
    object["metadata"]["uid"] = format!("uid-of-{name}").into();
    object["metadata"]["resourceVersion"] = "1".into();
    if cluster.finish {
        object["status"] = json!({"phase": "Succeeded", "finishedAt": "2099-01-01T00:00:00Z", "nodes": {
            "a": {"id": "a", "displayName": "root", "type": "DAG", "phase": "Succeeded", "startedAt": "2026-01-01T00:00:01Z"},
            "b": {"id": "b", "displayName": "say", "type": "Pod", "phase": "Succeeded", "startedAt": "2026-01-01T00:00:01Z"}}});
    }
    cluster.objects.lock().unwrap().insert(name, object.clone());
    let _ = cluster.events.send(json!({"type": "ADDED", "object": object}));
    (StatusCode::CREATED, axum::Json(object)).into_response()
}

async fn fetch(
    State(cluster): State<Cluster>,
    Path((_, name)): Path<(String, String)>,
) -> axum::response::Response {
    match cluster.objects.lock().unwrap().get(&name) {
        Some(object) => axum::Json(object.clone()).into_response(),
        None => status(StatusCode::NOT_FOUND),
    }
}

async fn patch(
    State(cluster): State<Cluster>,
    Path((_, name)): Path<(String, String)>,
    axum::Json(patch): axum::Json<Value>,
) -> axum::response::Response {
    let mut objects = cluster.objects.lock().unwrap();
    let object = objects.get_mut(&name).unwrap();
    object["spec"]["shutdown"] = patch["spec"]["shutdown"].clone();
    axum::Json(object.clone()).into_response()
}

async fn remove(
    State(cluster): State<Cluster>,
    Path((_, name)): Path<(String, String)>,
) -> axum::response::Response {
    match cluster.objects.lock().unwrap().remove(&name) {
        Some(object) => {
            if !cluster.hold.load(std::sync::atomic::Ordering::SeqCst) {
                let _ = cluster.events.send(json!({"type": "DELETED", "object": object}));
            }
            axum::Json(object).into_response()
        }
        None => status(StatusCode::NOT_FOUND),
    }
}

async fn list(
    State(cluster): State<Cluster>,
    Query(query): Query<BTreeMap<String, String>>,
) -> axum::response::Response {
    if !query.contains_key("watch") {
        let items: Vec<_> = cluster.objects.lock().unwrap().values().cloned().collect();
        let list = json!({"kind": "WorkflowList", "apiVersion": "argoproj.io/v1alpha1", "metadata": {"resourceVersion": "1"}, "items": items});
        return axum::Json(list).into_response();
    }
    let events = futures::stream::unfold(cluster.events.subscribe(), async |mut events| {
        let event: Value = events.recv().await.ok()?;
        Some((Ok::<_, std::convert::Infallible>(format!("{event}\n")), events))
    });
    Body::from_stream(events).into_response()
}

/// A fresh database: a SQLite file, or one of the PostgreSQL server that `SLIPWAY_TEST_POSTGRES` names.
async fn database(folder: &std::path::Path) -> String {
    let Ok(server) = std::env::var("SLIPWAY_TEST_POSTGRES") else {
        return format!("sqlite://{}", folder.join("platform.db").display());
    };
    sqlx::any::install_default_drivers();
    let name = format!("pipelines_{}", uuid::Uuid::new_v4().simple());
    let mut connection =
        <sqlx::AnyConnection as sqlx::Connection>::connect(&format!("{server}/postgres")).await.unwrap();
    let sql = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
    sqlx::Executor::execute(&mut connection, sqlx::query(sql)).await.unwrap();
    format!("{server}/{name}")
}

struct World {
    _folder: tempfile::TempDir,
    cluster: Cluster,
    pipelines: Pipelines,
    artifacts: ArtifactStore,
}

impl World {
    async fn new(finish: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let artifacts = ArtifactStore::open(folder.path().join("artifacts")).unwrap();
        let cluster = Cluster::new(finish);
        let config = Config {
            database_url: database(folder.path()).await,
            client: cluster.client(),
            artifacts: artifacts.clone(),
            namespace: "default".into(),
        };
        let pipelines = Pipelines::open(config).await.unwrap();
        Self { _folder: folder, cluster, pipelines, artifacts }
    }

    async fn call(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let body = body.map_or(Body::empty(), |body| Body::from(body.to_string()));
        self.send(Request::builder().method(method).uri(path).body(body).unwrap()).await
    }

    async fn send(&self, request: Request<Body>) -> (u16, Value) {
        let response = self.pipelines.router().oneshot(request).await.unwrap();
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        (code, serde_json::from_slice(&bytes).unwrap_or(Value::String(text)))
    }

    async fn api(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        self.call(method, &format!("/apis/v2beta1{path}"), body).await
    }

    async fn upload(&self, path: &str, file: &str) -> (u16, Value) {
        let body = format!(
            "--B\r\nContent-Disposition: form-data; name=\"uploadfile\"; filename=\"hello.yaml\"\r\n\r\n{file}\r\n--B--\r\n"
        );
        let request = Request::post(format!("/apis/v2beta1{path}"))
            .header("content-type", "multipart/form-data; boundary=B")
            .body(Body::from(body))
            .unwrap();
        self.send(request).await
    }
}

fn spec() -> Value {
    // The server reads YAML; JSON is YAML's subset both ways for this document.
    pipelines::package::Package::read(HELLO.as_bytes(), "hello.yaml").unwrap().to_api()
}

#[tokio::test]
async fn a_run_is_a_workflow_and_its_row_follows_it() {
    let world = World::new(false).await;
    let body = json!({"display_name": "first", "pipeline_spec": spec(), "runtime_config": {"parameters": {"text": "x"}}});
    let (code, run) = world.api("POST", "/runs", Some(body)).await;
    assert_eq!(code, 200, "{run}");
    let id = run["run_id"].as_str().unwrap().to_owned();
    assert_eq!((&run["state"], &run["finished_at"]), (&json!("PENDING"), &json!("1970-01-01T00:00:00Z")));
    assert_eq!(run["pipeline_spec"]["pipelineInfo"]["name"], "hello");
    let (name, workflow) = world.cluster.only();
    assert_eq!(workflow["metadata"]["namespace"], "default");
    assert_eq!(workflow["spec"]["kfp"]["runId"], id.as_str());

    world.cluster.set_status(&name, json!({"phase": "Running", "startedAt": "2026-01-01T00:00:00Z"}));
    assert_eq!(world.api("GET", &format!("/runs/{id}"), None).await.1["state"], "RUNNING");
    assert_eq!(world.api("POST", &format!("/runs/{id}:terminate"), None).await.0, 200);
    let (_, run) = world.api("GET", &format!("/runs/{id}"), None).await;
    assert_eq!(run["state"], "CANCELING");
    world.cluster.set_status(
        &name,
        json!({"phase": "Failed", "message": "stopped", "finishedAt": "2026-01-01T00:00:09Z"}),
    );
    let (_, run) = world.api("GET", &format!("/runs/{id}"), None).await;
    assert_eq!((&run["state"], &run["error"]["message"]), (&json!("FAILED"), &json!("stopped")));
    let states: Vec<_> =
        run["state_history"].as_array().unwrap().iter().map(|s| s["state"].clone()).collect();
    assert_eq!(states, ["PENDING", "RUNNING", "CANCELING", "FAILED"]);
    assert_eq!(world.api("POST", &format!("/runs/{id}:terminate"), None).await.0, 400);
    assert_eq!(world.api("POST", &format!("/runs/{id}:retry"), None).await.0, 501);
    assert_eq!(world.api("DELETE", &format!("/runs/{id}"), None).await.0, 200);
    assert_eq!(
        world.api("GET", &format!("/runs/{id}"), None).await,
        (
            404,
            json!({
        "code": 5, "message": format!("run `{id}` does not exist"), "details": []})
        )
    );
    assert!(world.cluster.objects.lock().unwrap().is_empty());
    assert_eq!(world.api("GET", "/runs", None).await, (200, json!({})));
}

#[tokio::test]
async fn argos_calls_reach_the_same_objects() {
    let world = World::new(false).await;
    let workflow =
        json!({"metadata": {"name": "w"}, "spec": {"entrypoint": "main", "templates": [], "odd": 1}});
    let (code, made) =
        world.call("POST", "/api/v1/workflows/team", Some(json!({"workflow": workflow}))).await;
    assert_eq!(
        (code, &made["metadata"]["namespace"], &made["spec"]["odd"]),
        (200, &json!("team"), &json!(1)),
        "{made}"
    );
    assert_eq!(world.call("GET", "/api/v1/workflows/team/w", None).await.1["spec"]["entrypoint"], "main");
    assert_eq!(
        world.call("GET", "/api/v1/workflows/team", None).await.1["items"][0]["metadata"]["name"],
        "w"
    );
    let (_, stopped) = world.call("PUT", "/api/v1/workflows/team/w/stop", Some(json!({}))).await;
    assert_eq!(stopped["spec"]["shutdown"], "Stop");
    assert_eq!(world.call("PUT", "/api/v1/workflows/team/w/retry", None).await.0, 501);
    assert_eq!(world.call("DELETE", "/api/v1/workflows/team/w", None).await.0, 200);
    assert_eq!(world.call("GET", "/api/v1/workflows/team/w", None).await.0, 404);
}

#[tokio::test]
async fn the_watch_saves_states_and_a_deleted_workflow_is_a_failed_run() {
    let world = World::new(false).await;
    let mut saved = world.cluster.events.subscribe();
    let follower = tokio::spawn(world.pipelines.clone().follow_workflows());
    // Two subscribers: this test and the watch.
    while world.cluster.events.receiver_count() < 2 {
        tokio::task::yield_now().await;
    }
    let body = json!({"display_name": "first", "pipeline_spec": spec()});
    let (_, run) = world.api("POST", "/runs", Some(body)).await;
    let id = run["run_id"].as_str().unwrap();
    let (name, _) = world.cluster.only();
    let listed = async |state: &str| loop {
        let (_, list) = world.api("GET", "/runs?page_size=5", None).await;
        if list["runs"][0]["state"] == state {
            return;
        }
        tokio::task::yield_now().await;
    };
    world.cluster.set_status(&name, json!({"phase": "Running"}));
    listed("RUNNING").await;
    world.cluster.client();
    let removed = world.cluster.objects.lock().unwrap().remove(&name).unwrap();
    world.cluster.events.send(json!({"type": "DELETED", "object": removed})).unwrap();
    listed("FAILED").await;
    let (_, run) = world.api("GET", &format!("/runs/{id}"), None).await;
    assert!(run["error"]["message"].as_str().unwrap().contains("was deleted"));

    // A deleted run is not brought back by what its Workflow still says.
    let body = json!({"display_name": "second", "pipeline_spec": spec()});
    let (_, second) = world.api("POST", "/runs", Some(body.clone())).await;
    let (_, workflow) = world.cluster.only();
    let path = format!("/runs/{}", second["run_id"].as_str().unwrap());
    // As with a finalizer: the object goes through changes before it is gone.
    world.cluster.hold.store(true, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(world.api("DELETE", &path, None).await.0, 200);
    for event in ["MODIFIED", "DELETED"] {
        world.cluster.events.send(json!({"type": event, "object": workflow})).unwrap();
    }
    let (_, third) = world.api("POST", "/runs", Some(body)).await;
    let (name, _) = world.cluster.only();
    world.cluster.set_status(&name, json!({"phase": "Running"}));
    let path_of_third = format!("/runs/{}", third["run_id"].as_str().unwrap());
    while world.api("GET", "/runs?sort_by=created_at%20desc", None).await.1["runs"][0]["state"] != "RUNNING" {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.api("GET", &path_of_third, None).await.0, 200);
    assert_eq!(world.api("GET", &path, None).await.0, 404);
    assert_eq!(world.api("GET", "/runs", None).await.1["total_size"], 2);
    assert!(saved.recv().await.is_ok());
    follower.abort();
}

#[tokio::test]
async fn pipelines_are_uploaded_listed_run_and_deleted() {
    let world = World::new(true).await;
    let (code, pipeline) =
        world.upload("/pipelines/upload?name=hello&description=d&tags=%7B%22a%22:%22b%22%7D", HELLO).await;
    assert_eq!((code, &pipeline["name"], &pipeline["tags"]["a"]), (200, &json!("hello"), &json!("b")));
    let id = pipeline["pipeline_id"].as_str().unwrap();
    assert_eq!(world.upload("/pipelines/upload?name=hello", HELLO).await.0, 409);
    let (code, error) = world.upload("/pipelines/upload?name=other", "kind: Pod\napiVersion: v1\n").await;
    assert_eq!(code, 400);
    assert!(error["error_message"].as_str().unwrap().contains("kind Pod"), "{error}");
    let (code, version) =
        world.upload(&format!("/pipelines/upload_version?name=v2&pipelineid={id}"), HELLO).await;
    assert_eq!((code, &version["pipeline_spec"]["pipelineInfo"]["name"]), (200, &json!("hello")));
    let (_, versions) =
        world.api("GET", &format!("/pipelines/{id}/versions?sort_by=created_at%20desc"), None).await;
    assert_eq!(
        (&versions["total_size"], &versions["pipeline_versions"][0]["name"]),
        (&json!(2), &json!("v2"))
    );
    assert_eq!(world.api("GET", "/pipelines/names/hello", None).await.1["pipeline_id"], id);

    let body = json!({"display_name": "r", "pipeline_version_reference": {"pipeline_id": id}});
    let (code, run) = world.api("POST", "/runs", Some(body)).await;
    assert_eq!(
        (code, &run["pipeline_version_reference"]["pipeline_version_id"]),
        (200, &version["pipeline_version_id"])
    );
    assert_eq!(run["state"], "SUCCEEDED");
    assert_eq!(run["run_details"]["task_details"].as_array().unwrap().len(), 2);

    assert_eq!(world.api("DELETE", &format!("/pipelines/{id}"), None).await.0, 400);
    assert_eq!(world.api("DELETE", &format!("/pipelines/{id}?cascade=true"), None).await.0, 200);
    assert_eq!(world.api("GET", &format!("/pipelines/{id}"), None).await.0, 404);
}

#[tokio::test]
async fn pages_filters_and_refusals() {
    let world = World::new(true).await;
    for name in ["a", "b", "c"] {
        let body = json!({"display_name": name, "pipeline_spec": spec()});
        assert_eq!(world.api("POST", "/runs", Some(body)).await.0, 200);
    }
    let (_, page) = world.api("GET", "/runs?page_size=2&sort_by=display_name%20desc", None).await;
    let names = |page: &Value| -> Vec<String> {
        page["runs"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|r| r["display_name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!((names(&page), &page["total_size"]), (vec!["c".to_owned(), "b".to_owned()], &json!(3)));
    let token = page["next_page_token"].as_str().unwrap();
    let (_, page) = world.api("GET", &format!("/runs?page_size=2&page_token={token}"), None).await;
    assert_eq!(names(&page), ["a"]);
    assert!(page.get("next_page_token").is_none());
    let filter = "%7B%22predicates%22%3A%5B%7B%22operation%22%3A1%2C%22key%22%3A%22display_name%22%2C%22stringValue%22%3A%22b%22%7D%5D%7D";
    assert_eq!(names(&world.api("GET", &format!("/runs?filter={filter}"), None).await.1), ["b"]);
    assert_eq!(world.api("GET", &format!("/runs?page_token={token}&filter={filter}"), None).await.0, 400);

    let (_, experiments) = world.api("GET", "/experiments", None).await;
    assert_eq!(experiments["experiments"][0]["display_name"], "Default");
    let experiment = experiments["experiments"][0]["experiment_id"].as_str().unwrap();
    assert_eq!(world.api("POST", &format!("/experiments/{experiment}:archive"), None).await.0, 200);
    assert_eq!(world.api("GET", "/runs", None).await.1["runs"][0]["storage_state"], "ARCHIVED");
    for (body, part) in [
        (json!({"display_name": "x", "pipeline_spec": spec()}), "archived"),
        (json!({"display_name": "x"}), "pipeline_spec"),
        (json!({"pipeline_spec": spec()}), "display_name"),
        (json!({"display_name": "x", "nonsense": 1}), "nonsense"),
        (
            json!({"display_name": "x", "pipeline_spec": {"kind": "Workflow", "apiVersion": "argoproj.io/v1alpha1"}}),
            "Argo",
        ),
        (json!({"display_name": "x", "pipeline_spec": spec(), "experiment_id": "nope"}), "nope"),
    ] {
        let (code, error) = world.api("POST", "/runs", Some(body)).await;
        assert!((400..=404).contains(&code), "{error}");
        assert!(error["message"].as_str().unwrap().contains(part), "{error}");
    }
    assert_eq!(world.api("POST", "/recurringruns", Some(json!({}))).await.0, 501);
    assert_eq!(world.api("GET", "/healthz", None).await, (200, json!({"pipeline_store": "database"})));
}

#[tokio::test]
async fn artifacts_are_served_as_argo_does() {
    let world = World::new(true).await;
    let file = ObjectName::new("mlpipeline", "default/w/n/model.pkl").unwrap();
    world.artifacts.put_bytes(&file, "pickle").await.unwrap();
    world
        .artifacts
        .put_bytes(&ObjectName::new("mlpipeline", "default/w/n/tree/a/b").unwrap(), "x")
        .await
        .unwrap();
    let nodes = json!({"n": {"id": "n", "phase": "Succeeded", "outputs": {"artifacts": [
        {"name": "model", "s3": {"bucket": "mlpipeline", "key": "default/w/n/model.pkl"}},
        {"name": "tree", "uri": "minio://mlpipeline/default/w/n/tree"},
        {"name": "bad", "uri": "minio://mlpipeline/../../etc/passwd"}]}}});
    let workflow = json!({"metadata": {"name": "w", "namespace": "default"}, "spec": {}, "status": {"phase": "Succeeded", "nodes": nodes}});
    world.cluster.objects.lock().unwrap().insert("w".into(), workflow);
    let get = async |path: &str| {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = world.pipelines.router().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        (parts, body.collect().await.unwrap().to_bytes())
    };
    let (parts, body) = get("/artifacts/default/w/n/model").await;
    assert_eq!((parts.status.as_u16(), &body[..]), (200, &b"pickle"[..]));
    assert_eq!(parts.headers["content-disposition"], "filename=\"model.pkl\"");
    let (parts, body) = get("/artifacts/default/w/n/tree").await;
    assert_eq!(parts.headers["content-disposition"], "filename=\"tree.tgz\"");
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(&body[..]));
    let names: Vec<_> =
        archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect();
    assert_eq!(names, ["tree/a/b"]);
    assert_eq!(get("/artifacts/default/w/n/bad").await.0.status, 400);
    assert_eq!(get("/artifacts/default/w/n/none").await.0.status, 404);
    assert_eq!(get("/artifacts/default/none/n/model").await.0.status, 404);
    assert_eq!(get("/input-artifacts/default/w/n/model").await.0.status, 404);
}

#[tokio::test]
async fn a_cache_hit_needs_its_artifacts() {
    let world = World::new(true).await;
    let key = cache::Key { namespace: "default".into(), pipeline: "p".into(), fingerprint: "f".into() };
    assert_eq!(cache::lookup(&world.pipelines, &key).await.unwrap(), None);
    let object = ObjectName::new("mlpipeline", "default/x").unwrap();
    world.artifacts.put_bytes(&object, "x").await.unwrap();
    let entry = cache::Entry {
        run_id: "r".into(),
        node_id: "n".into(),
        outputs: json!({"a": 1}),
        artifact_uris: vec!["minio://mlpipeline/default/x".into()],
    };
    let mut recorded = entry.clone();
    recorded.artifact_uris.push("minio://mlpipeline/default/metrics-without-bytes".into());
    cache::record(&world.pipelines, &key, &recorded).await.unwrap();
    cache::record(&world.pipelines, &key, &recorded).await.unwrap();
    assert_eq!(cache::lookup(&world.pipelines, &key).await.unwrap(), Some(entry));
    world.artifacts.delete(&object).await.unwrap();
    assert_eq!(cache::lookup(&world.pipelines, &key).await.unwrap(), None);
}

/// The real SDK, where there is one: `SLIPWAY_KFP_PYTHON` names its interpreter.
#[tokio::test(flavor = "multi_thread")]
async fn the_real_sdk_creates_follows_and_lists() {
    let Ok(python) = std::env::var("SLIPWAY_KFP_PYTHON") else { return };
    let world = World::new(true).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = world.pipelines.router();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../conformance/kfp/client.py");
    let output = tokio::process::Command::new(python).arg(script).arg(url).output().await.unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(world.cluster.events.subscribe().is_empty());
    let _ = futures::stream::empty::<()>().next().await;
}
