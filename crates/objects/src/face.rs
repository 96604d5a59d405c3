//! The artifact face: the store over HTTP, for the launcher, the storage initializer and the CLI.
//!
//! Plain HTTP/1.1 so that the static `pod` binary needs no TLS: it listens on the cluster's own address only. A caller
//! shows its ServiceAccount token, a [`Gate`] says whose it is, and [`may_touch`] holds it to the keys of its
//! namespace: `<ns>/…` and KFP's `v2/artifacts/<ns>/…`, in every bucket.
//!
//! * `GET|HEAD|PUT|DELETE /v1/objects/{bucket}/{key}`: bytes as they are; `x-slipway-sha256` both ways.
//! * `GET /v1/objects/{bucket}?prefix=`: JSON lines `{"key","size","modified"}`, by key.
//! * `POST /v1/task-results`: a report too large for the termination message ([`Gate::task_result`]).
//!
//! Errors are `{"error": "…"}` with a fitting status.

use std::sync::Arc;

use async_trait::async_trait;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::StreamExt;
use pod_protocol::launch::TaskResultPost;
use serde::{Deserialize, Serialize};
use tokio_util::io::ReaderStream;

use crate::{ArtifactStore, Error, ObjectMeta, ObjectName};

/// Header with the SHA-256 (hex) of an object: sent with `GET`, `HEAD` and `PUT` answers, checked on `PUT`.
pub const SHA256_HEADER: &str = "x-slipway-sha256";
/// Largest report that `POST /v1/task-results` takes, in bytes; it must fit an API object (1.5 MiB) with its frame.
pub const TASK_RESULT_BYTES_MAX: usize = 1_400_000;
const READ_CHUNK_BYTES: usize = 256 * 1024;

/// Whom a token belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// A ServiceAccount: it may touch the keys of its namespace.
    Namespace(String),
    /// A part of the platform, or its administrator: everything.
    Platform,
}

/// Why a caller was turned away.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// No token, or one that nobody knows.
    #[error("a valid ServiceAccount token is needed: {0}")]
    Unauthenticated(String),
    /// The token's owner may not do this.
    #[error("{0}")]
    Forbidden(String),
    /// The one who knows could not be asked; worth a retry.
    #[error("the caller could not be checked: {0}")]
    Unavailable(String),
}

/// What the face needs from Kubernetes; the binary wires it.
#[async_trait]
pub trait Gate: Send + Sync + 'static {
    /// Who shows this bearer token (none: no `Authorization` header).
    async fn authenticate(&self, token: Option<&str>) -> Result<Caller, Refusal>;

    /// Writes a launcher's report as a `WorkflowTaskResult`. The caller's namespace was checked already.
    /// A repeat of the same report succeeds.
    async fn task_result(&self, post: TaskResultPost) -> Result<(), Refusal>;
}

struct Face {
    store: ArtifactStore,
    gate: Arc<dyn Gate>,
}

/// The face's routes.
pub fn router(store: ArtifactStore, gate: Arc<dyn Gate>) -> Router {
    Router::new()
        .route("/v1/objects/{bucket}", get(list))
        .route("/v1/objects/{bucket}/{*key}", get(read).head(head).put(write).delete(remove))
        .route("/v1/task-results", post(task_result).layer(DefaultBodyLimit::max(TASK_RESULT_BYTES_MAX)))
        .route("/healthz", get(async || "ok"))
        .with_state(Arc::new(Face { store, gate }))
}

/// Whether `caller` may read and write `key` (or list the prefix `key`).
pub fn may_touch(caller: &Caller, key: &str) -> bool {
    let Caller::Namespace(namespace) = caller else { return true };
    let own = key.strip_prefix("v2/artifacts/").unwrap_or(key);
    own.strip_prefix(namespace.as_str()).is_some_and(|rest| rest.starts_with('/'))
}

/// An answer that is an error.
enum Failure {
    Store(Error),
    Gate(Refusal),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Gate(refusal)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (status, text) = match &self {
            Self::Store(error) => (error.status(), error.to_string()),
            Self::Gate(refusal @ Refusal::Unauthenticated(_)) => {
                (StatusCode::UNAUTHORIZED, refusal.to_string())
            }
            Self::Gate(refusal @ Refusal::Forbidden(_)) => (StatusCode::FORBIDDEN, refusal.to_string()),
            Self::Gate(refusal @ Refusal::Unavailable(_)) => {
                (StatusCode::SERVICE_UNAVAILABLE, refusal.to_string())
            }
        };
        if status.is_server_error() {
            tracing::warn!(%status, error = %text, "artifact face");
        }
        (status, Json(serde_json::json!({ "error": text }))).into_response()
    }
}

impl Face {
    async fn caller(&self, headers: &HeaderMap) -> Result<Caller, Refusal> {
        let header = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        self.gate.authenticate(header.and_then(|value| value.strip_prefix("Bearer "))).await
    }

    async fn admit(&self, headers: &HeaderMap, bucket: &str, key: &str) -> Result<ObjectName, Failure> {
        let caller = self.caller(headers).await?;
        let name = ObjectName::new(bucket, key)?;
        check(&caller, name.key())?;
        Ok(name)
    }
}

fn check(caller: &Caller, key: &str) -> Result<(), Refusal> {
    match caller {
        Caller::Namespace(namespace) if !may_touch(caller, key) => Err(Refusal::Forbidden(format!(
            "key `{key}` is not of namespace `{namespace}`: its keys begin with `{namespace}/` or `v2/artifacts/{namespace}/`"
        ))),
        _ => Ok(()),
    }
}

type Place = Path<(String, String)>;

async fn read(
    State(face): State<Arc<Face>>,
    Path((bucket, key)): Place,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let name = face.admit(&headers, &bucket, &key).await?;
    let (file, meta) = face.store.get(&name).await?;
    let body = Body::from_stream(ReaderStream::with_capacity(file, READ_CHUNK_BYTES));
    Ok((meta_headers(&meta), body).into_response())
}

async fn head(
    State(face): State<Arc<Face>>,
    Path((bucket, key)): Place,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let name = face.admit(&headers, &bucket, &key).await?;
    let meta = face.store.head(&name).await?;
    Ok(meta_headers(&meta).into_response())
}

async fn write(
    State(face): State<Arc<Face>>,
    Path((bucket, key)): Place,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Failure> {
    let name = face.admit(&headers, &bucket, &key).await?;
    let expected = headers.get(SHA256_HEADER).and_then(|value| value.to_str().ok());
    let meta = face.store.put(&name, request.into_body().into_data_stream(), expected).await?;
    let mut response = StatusCode::CREATED.into_response();
    if let Some(value) = digest_header(&meta) {
        response.headers_mut().insert(SHA256_HEADER, value);
    }
    Ok(response)
}

async fn remove(
    State(face): State<Arc<Face>>,
    Path((bucket, key)): Place,
    headers: HeaderMap,
) -> Result<StatusCode, Failure> {
    let name = face.admit(&headers, &bucket, &key).await?;
    face.store.delete(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
struct ListQuery {
    #[serde(default)]
    prefix: String,
}

/// One line of a listing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ListLine {
    /// The whole key.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// RFC 3339, UTC.
    pub modified: String,
}

async fn list(
    State(face): State<Arc<Face>>,
    Path(bucket): Path<String>,
    Query(query): Query<ListQuery>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let caller = face.caller(&headers).await?;
    check(&caller, &query.prefix)?;
    let found = face.store.list(&bucket, &query.prefix).await?;
    let lines = futures::stream::iter(found).map(|meta| {
        let modified = jiff::Timestamp::try_from(meta.modified).unwrap_or_default();
        let line = ListLine { key: meta.key, size: meta.size, modified: format!("{modified:.3}") };
        serde_json::to_vec(&line).map(|mut text| {
            text.push(b'\n');
            text
        })
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

async fn task_result(
    State(face): State<Arc<Face>>,
    headers: HeaderMap,
    Json(post): Json<TaskResultPost>,
) -> Result<StatusCode, Failure> {
    let caller = face.caller(&headers).await?;
    let namespace = &post.task_result.namespace;
    if let Caller::Namespace(own) = &caller
        && own != namespace
    {
        let text = format!("a caller of namespace `{own}` cannot report for namespace `{namespace}`");
        return Err(Refusal::Forbidden(text).into());
    }
    face.gate.task_result(post).await?;
    Ok(StatusCode::CREATED)
}

fn meta_headers(meta: &ObjectMeta) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(meta.size));
    if let Some(value) = digest_header(meta) {
        headers.insert(SHA256_HEADER, value);
    }
    headers
}

fn digest_header(meta: &ObjectMeta) -> Option<HeaderValue> {
    meta.sha256.as_deref().and_then(|sha256| HeaderValue::from_str(sha256).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_touches_only_its_own_keys() {
        let team = Caller::Namespace("team".to_owned());
        for key in ["team/x", "v2/artifacts/team/p/run/x", "team/"] {
            assert!(may_touch(&team, key), "{key}");
        }
        for key in
            ["", "te", "team", "teamx/x", "other/team/x", "v2/artifacts/", "v2/artifacts/other/x", "v2/"]
        {
            assert!(!may_touch(&team, key), "{key}");
            assert!(may_touch(&Caller::Platform, key));
        }
    }
}
