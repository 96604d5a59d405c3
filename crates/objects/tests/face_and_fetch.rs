//! The face and the fetcher together, over real sockets: what a pod's launcher and storage initializer rely on.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use axum::extract::Query;
use axum::routing::get;
use axum::{Json, Router};
use objects::face::{Caller, Gate, Refusal};
use objects::{ArtifactStore, Endpoints, ObjectName, storage_initializer};
use pod_protocol::launch::TaskResultPost;
use serde_json::json;

struct Tokens;

#[async_trait]
impl Gate for Tokens {
    async fn authenticate(&self, token: Option<&str>) -> Result<Caller, Refusal> {
        match token {
            Some("platform") => Ok(Caller::Platform),
            Some(namespace) => Ok(Caller::Namespace(namespace.to_owned())),
            None => Err(Refusal::Unauthenticated("no token".to_owned())),
        }
    }

    async fn task_result(&self, _post: TaskResultPost) -> Result<(), Refusal> {
        Ok(())
    }
}

async fn serve(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

async fn face(folder: &Path) -> (ArtifactStore, Endpoints) {
    let store = ArtifactStore::open(folder).unwrap();
    let url = serve(objects::face::router(store.clone(), Arc::new(Tokens))).await;
    (store, Endpoints { artifacts_url: Some(url), tracking_uri: None, token: Some("team".to_owned()) })
}

fn name(key: &str) -> ObjectName {
    ObjectName::new("mlpipeline", key).unwrap()
}

#[tokio::test]
async fn files_and_folders_arrive_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let (store, endpoints) = face(&folder.path().join("store")).await;
    store.put_bytes(&name("team/run/model.pkl"), "pickle").await.unwrap();
    store.put_bytes(&name("team/tree/MLmodel"), "a").await.unwrap();
    store.put_bytes(&name("team/tree/data/odd name%41+?.bin"), "b").await.unwrap();

    let dest = folder.path().join("one");
    let got = storage_initializer("minio://mlpipeline/team/run/model.pkl", &dest, &endpoints).await.unwrap();
    assert_eq!((got.files, got.bytes), (1, 6));
    assert_eq!(std::fs::read(dest.join("model.pkl")).unwrap(), b"pickle");

    let dest = folder.path().join("tree");
    let got = storage_initializer("minio://mlpipeline/team/tree", &dest, &endpoints).await.unwrap();
    assert_eq!(got.files, 2);
    assert_eq!(std::fs::read(dest.join("data/odd name%41+?.bin")).unwrap(), b"b");

    let absent = storage_initializer("minio://mlpipeline/team/none", &dest, &endpoints).await.unwrap_err();
    assert!(absent.is_not_found(), "{absent}");
    let other = storage_initializer("minio://mlpipeline/other/x", &dest, &endpoints).await.unwrap_err();
    assert!(other.to_string().contains("403"), "{other}");
    let s3 = storage_initializer("s3://bucket/x", &dest, &endpoints).await.unwrap_err();
    assert!(s3.to_string().contains("not implemented yet"), "{s3}");
}

#[tokio::test]
async fn the_face_checks_digests_tokens_and_names() {
    let folder = tempfile::tempdir().unwrap();
    let (_, endpoints) = face(folder.path()).await;
    let base = endpoints.artifacts_url.unwrap();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::new();
    let url = format!("{base}/v1/objects/mlpipeline/team/x");
    let put = |digest: &'static str| {
        http.put(&url).bearer_auth("team").header(objects::face::SHA256_HEADER, digest).body("abc").send()
    };
    assert_eq!(put("00").await.unwrap().status(), 400);
    let sha = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(put(sha).await.unwrap().status(), 201);
    let got = http.get(&url).bearer_auth("team").send().await.unwrap();
    assert_eq!(got.content_length(), Some(3));
    assert_eq!(got.text().await.unwrap(), "abc");
    let head = http.head(&url).bearer_auth("team").send().await.unwrap();
    assert_eq!(head.headers()["content-length"], "3");
    assert_eq!(http.get(&url).send().await.unwrap().status(), 401);
    assert_eq!(http.get(&url).bearer_auth("other").send().await.unwrap().status(), 403);
    let hidden = format!("{base}/v1/objects/mlpipeline/team/%2e%2e/other/x");
    assert_eq!(http.get(&hidden).bearer_auth("team").send().await.unwrap().status(), 403);
    let encoded = format!("{base}/v1/objects/mlpipeline/team%2f..%2fother/x");
    assert_eq!(http.get(&encoded).bearer_auth("team").send().await.unwrap().status(), 400);
    assert_eq!(http.delete(&url).bearer_auth("team").send().await.unwrap().status(), 204);
    assert_eq!(http.get(&url).bearer_auth("team").send().await.unwrap().status(), 404);
}

#[tokio::test]
async fn a_registered_model_resolves_to_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let (store, mut endpoints) = face(&folder.path().join("store")).await;
    store.put_bytes(&name("team/m/model.joblib"), "bytes").await.unwrap();
    let registry = Router::new()
        .route(
            "/api/2.0/mlflow/model-versions/get-download-uri",
            get(async |Query(q): Query<std::collections::HashMap<String, String>>| {
                let uri = match q["version"].as_str() {
                    "1" => "minio://mlpipeline/team/m",
                    "2" => "models:/m-abc",
                    _ => "models:/loop/9",
                };
                Json(json!({ "artifact_uri": uri }))
            }),
        )
        .route("/api/2.0/mlflow/registered-models/alias", get(async || Json(json!({"model_version": {"version": "2"}}))))
        .route(
            "/api/2.0/mlflow/logged-models/m-abc",
            get(async || Json(json!({"model": {"info": {"artifact_uri": "mlflow-artifacts:/1/models/m-abc/artifacts"}}}))),
        )
        .route(
            "/api/2.0/mlflow-artifacts/artifacts",
            get(async |Query(q): Query<std::collections::HashMap<String, String>>| {
                Json(match q["path"].as_str() {
                    "1/models/m-abc/artifacts" => json!({"files": [
                        {"path": "MLmodel", "is_dir": false, "file_size": 3}, {"path": "sub", "is_dir": true}]}),
                    "1/models/m-abc/artifacts/sub" => json!({"files": [{"path": "x.bin", "is_dir": false}]}),
                    _ => json!({"files": []}),
                })
            }),
        )
        .route("/api/2.0/mlflow-artifacts/artifacts/{*path}", get(async |axum::extract::Path(p): axum::extract::Path<String>| p));
    endpoints.tracking_uri = Some(serve(registry).await);

    let dest = folder.path().join("v1");
    let got = storage_initializer("models:/iris/1", &dest, &endpoints).await.unwrap();
    assert_eq!(got.source, "minio://mlpipeline/team/m");
    assert_eq!(std::fs::read(dest.join("model.joblib")).unwrap(), b"bytes");

    let dest = folder.path().join("alias");
    storage_initializer("models:/iris@champion", &dest, &endpoints).await.unwrap();
    assert_eq!(
        std::fs::read_to_string(dest.join("sub/x.bin")).unwrap(),
        "1/models/m-abc/artifacts/sub/x.bin"
    );

    let looped = storage_initializer("models:/loop/9", &dest, &endpoints).await.unwrap_err();
    assert!(looped.to_string().contains("more than 4 times"), "{looped}");
}

#[tokio::test]
async fn a_local_folder_is_copied_but_no_link_leads_out() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("src");
    std::fs::create_dir_all(source.join("a")).unwrap();
    std::fs::write(source.join("a/f"), "x").unwrap();
    std::os::unix::fs::symlink("a/f", source.join("inside")).unwrap();
    let uri = format!("file://{}", source.display());
    let got = storage_initializer(&uri, &folder.path().join("d"), &Endpoints::default()).await.unwrap();
    assert_eq!(got.files, 2);
    std::os::unix::fs::symlink("/etc/hostname", source.join("outside")).unwrap();
    let refused =
        storage_initializer(&uri, &folder.path().join("e"), &Endpoints::default()).await.unwrap_err();
    assert!(refused.to_string().contains("leads out"), "{refused}");
}
