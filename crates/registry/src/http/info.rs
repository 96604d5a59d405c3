//! `/health`, `/version` and what the server can do.

use axum::Router;
use axum::routing::get;
use http::StatusCode;
use serde_json::{Value, json};

use super::plain;
use crate::args::Args;
use crate::error::Result;
use crate::{Context, Registry};

/// The MLflow release whose API this is; its client logs a warning when it is newer than the server.
const MLFLOW_VERSION: &str = "3.17.2";

/// Routes outside the API's prefixes.
pub(super) fn routes(_registry: &Registry) -> Router {
    Router::new()
        .route("/health", get(|| async { plain(StatusCode::OK, "OK") }))
        .route("/version", get(|| async { plain(StatusCode::OK, MLFLOW_VERSION) }))
}

/// What the client asks before it chooses how to move artifacts.
pub(super) async fn server_info(context: Context, _args: Args) -> Result<Value> {
    Ok(json!({
        "store_type": "SqlStore",
        "workspaces_enabled": context.registry.inner.config.isolate_namespaces,
        "multipart_uploads_enabled": false,
        "multipart_downloads_enabled": false,
        "presigned_uploads_enabled": false,
        "presigned_downloads_enabled": false,
        "features_enabled": [],
    }))
}
