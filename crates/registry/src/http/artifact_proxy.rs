//! `/api/2.0/mlflow-artifacts`: clients store and read artifacts through the server.
//!
//! Bodies are streamed in bounded parts. Multipart and presigned transfers are part of MLflow's API for stores that have
//! them; this one says 501, as upstream does for local stores, and the client falls back to plain transfers.

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, Request};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::header;
use serde_json::{Value, json};

use super::{call, context};
use crate::args::Args;
use crate::error::{Error, Result};
use crate::{Context, Registry};

/// Routes below `/mlflow-artifacts`.
pub(super) fn routes(registry: &Registry) -> Router {
    let (r1, r2, r3) = (registry.clone(), registry.clone(), registry.clone());
    let files = get(move |Path(path): Path<String>, request: Request| async move {
        respond(download(context(&r1, &request), &path).await)
    })
    .put(move |Path(path): Path<String>, request: Request| async move {
        respond(upload(context(&r2, &request), &path, request).await)
    })
    .delete(move |Path(path): Path<String>, request: Request| async move {
        respond(remove(context(&r3, &request), &path).await)
    });
    Router::new()
        .route("/artifacts", call(registry, axum::routing::MethodFilter::GET, list))
        .route("/artifacts/{*path}", files)
        .route("/mpu/{*path}", post(|| async { not_supported("Multipart upload") }))
        .route("/presigned/{*path}", get(|| async { not_supported("Presigned download") }))
        .layer(DefaultBodyLimit::disable())
}

fn respond(answer: Result<Response>) -> Response {
    answer.unwrap_or_else(IntoResponse::into_response)
}

fn not_supported(what: &str) -> Response {
    Error::NotImplemented(format!("{what} is not supported by this server's artifact store")).into_response()
}

async fn download(context: Result<Context>, path: &str) -> Result<Response> {
    let context = context?;
    let found = context.artifacts().get(&context.namespace, path).await?;
    let name = path.rsplit('/').next().unwrap_or_default().replace(['"', '\\'], "_");
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, found.meta.size.to_string()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\"")),
        // What people upload must never run in a browser as the platform's own page.
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
    ];
    Ok((headers, Body::from_stream(found.into_stream())).into_response())
}

async fn upload(context: Result<Context>, path: &str, request: Request) -> Result<Response> {
    let context = context?;
    context.artifacts().put(&context.namespace, path, request.into_body()).await?;
    Ok(axum::Json(json!({})).into_response())
}

async fn remove(context: Result<Context>, path: &str) -> Result<Response> {
    let context = context?;
    context.artifacts().delete(&context.namespace, path).await?;
    Ok(axum::Json(json!({})).into_response())
}

/// The entries' paths are their base names, unlike in `artifacts/list`.
async fn list(context: Context, args: Args) -> Result<Value> {
    let folder = args.text_or_empty("path")?;
    let entries = context.artifacts().list(&context.namespace, &folder).await?;
    let files: Vec<Value> = entries.iter().map(|entry| entry.file_info("")).collect();
    Ok(json!({"files": files}))
}
