//! The routes, and what all calls share: tenant, owner, arguments, answer.
//!
//! MLflow's client speaks `/api/2.0`, its web page `/ajax-api/2.0`, newer services `/api/3.0`; all three lead to the same
//! handlers. A handler takes a context and arguments and gives a JSON value: no handler knows HTTP.

mod aliases;
mod artifact_proxy;
mod datasets;
pub(crate) mod experiments;
mod info;
mod logged_models;
mod logging;
pub(crate) mod metrics;
pub(crate) mod models;
pub(crate) mod runs;
mod runs_read;
mod runs_search;
pub(crate) mod versions;
mod versions_search;

use std::future::Future;

use axum::Router;
use axum::extract::{DefaultBodyLimit, RawPathParams, Request};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use http::{HeaderMap, Method, StatusCode};
use serde_json::Value;

use crate::args::Args;
use crate::error::{Error, Result};
use crate::{Caller, Context, Registry};

/// Largest JSON body. MLflow's own limit for a batch is 1 MB; model signatures in dataset schemas can be larger.
const BODY_BYTES_MAX: usize = 32 << 20;

/// The header in which the client names its workspace, which is our tenant.
const WORKSPACE_HEADER: &str = "x-mlflow-workspace";

/// All routes.
pub(crate) fn router(registry: &Registry) -> Router {
    let mlflow = tracking(registry).merge(model_registry(registry));
    let mut router = Router::new().merge(info::routes(registry));
    for prefix in ["/api/2.0", "/ajax-api/2.0", "/api/3.0", "/ajax-api/3.0"] {
        router = router.nest(&format!("{prefix}/mlflow"), mlflow.clone());
        router = router.nest(&format!("{prefix}/mlflow-artifacts"), artifact_proxy::routes(registry));
    }
    router.layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
}

fn tracking(r: &Registry) -> Router {
    const GET: MethodFilter = MethodFilter::GET;
    const POST: MethodFilter = MethodFilter::POST;
    let both = GET.or(POST);
    Router::new()
        .route("/experiments/create", call(r, POST, experiments::create))
        .route("/experiments/search", call(r, both, experiments::search))
        .route("/experiments/get", call(r, GET, experiments::get))
        .route("/experiments/get-by-name", call(r, GET, experiments::get_by_name))
        .route("/experiments/delete", call(r, POST, experiments::delete))
        .route("/experiments/restore", call(r, POST, experiments::restore))
        .route("/experiments/update", call(r, POST, experiments::update))
        .route("/experiments/set-experiment-tag", call(r, POST, experiments::set_tag))
        .route("/experiments/delete-experiment-tag", call(r, POST, experiments::delete_tag))
        .route("/experiments/search-datasets", call(r, POST, datasets::search))
        .route("/runs/create", call(r, POST, runs::create))
        .route("/runs/get", call(r, GET, runs::get))
        .route("/runs/update", call(r, POST, runs::update))
        .route("/runs/delete", call(r, POST, runs::delete))
        .route("/runs/restore", call(r, POST, runs::restore))
        .route("/runs/search", call(r, POST, runs_search::search))
        .route("/runs/log-metric", call(r, POST, logging::log_metric))
        .route("/runs/log-parameter", call(r, POST, logging::log_param))
        .route("/runs/log-batch", call(r, POST, logging::log_batch))
        .route("/runs/set-tag", call(r, POST, logging::set_tag))
        .route("/runs/delete-tag", call(r, POST, logging::delete_tag))
        .route("/runs/log-inputs", call(r, POST, datasets::log_inputs))
        .route("/runs/outputs", call(r, POST, datasets::log_outputs))
        .route("/runs/log-model", call(r, POST, logging::log_model))
        .route("/metrics/get-history", call(r, GET, metrics::history))
        .route("/metrics/get-history-bulk", call(r, GET, metrics::history_bulk))
        .route("/metrics/get-history-bulk-interval", call(r, GET, metrics::history_bulk_interval))
        .route("/artifacts/list", call(r, GET, runs::list_artifacts))
        .route("/logged-models", call(r, POST, logged_models::create))
        .route("/logged-models/search", call(r, POST, logged_models::search))
        .route(
            "/logged-models/{model_id}",
            call(r, GET, logged_models::get)
                .merge(call(r, MethodFilter::PATCH, logged_models::finalize))
                .merge(call(r, MethodFilter::DELETE, logged_models::delete)),
        )
        .route("/logged-models/{model_id}/tags", call(r, MethodFilter::PATCH, logged_models::set_tags))
        .route(
            "/logged-models/{model_id}/tags/{tag_key}",
            call(r, MethodFilter::DELETE, logged_models::delete_tag),
        )
        .route("/logged-models/{model_id}/params", call(r, POST, logged_models::log_params))
        .route("/logged-models/{model_id}/artifacts/directories", call(r, GET, logged_models::list_artifacts))
        .route("/server-info", call(r, GET, info::server_info))
}

fn model_registry(r: &Registry) -> Router {
    const GET: MethodFilter = MethodFilter::GET;
    const POST: MethodFilter = MethodFilter::POST;
    const PATCH: MethodFilter = MethodFilter::PATCH;
    const DELETE: MethodFilter = MethodFilter::DELETE;
    Router::new()
        .route("/registered-models/create", call(r, POST, models::create))
        .route("/registered-models/rename", call(r, POST, models::rename))
        .route("/registered-models/update", call(r, PATCH, models::update))
        .route("/registered-models/delete", call(r, DELETE, models::delete))
        .route("/registered-models/get", call(r, GET, models::get))
        .route("/registered-models/search", call(r, GET.or(POST), models::search))
        .route("/registered-models/get-latest-versions", call(r, GET.or(POST), versions_search::latest))
        .route("/registered-models/set-tag", call(r, POST, models::set_tag))
        .route("/registered-models/delete-tag", call(r, DELETE, models::delete_tag))
        .route(
            "/registered-models/alias",
            call(r, POST, aliases::set).merge(call(r, GET, aliases::get)).merge(call(
                r,
                DELETE,
                aliases::delete,
            )),
        )
        .route("/model-versions/create", call(r, POST, versions::create))
        .route("/model-versions/get", call(r, GET, versions::get))
        .route("/model-versions/search", call(r, GET.or(POST), versions_search::search))
        .route("/model-versions/get-download-uri", call(r, GET, versions::download_uri))
        .route("/model-versions/update", call(r, PATCH, versions::update))
        .route("/model-versions/delete", call(r, DELETE, versions::delete))
        .route("/model-versions/transition-stage", call(r, POST, versions::transition_stage))
        .route("/model-versions/set-tag", call(r, POST, versions::set_tag))
        .route("/model-versions/delete-tag", call(r, DELETE, versions::delete_tag))
}

/// A route that leads to `handler`.
fn call<F, Fut>(registry: &Registry, methods: MethodFilter, handler: F) -> MethodRouter
where
    F: Fn(Context, Args) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Value>> + Send + 'static,
{
    let registry = registry.clone();
    on(methods, move |path: RawPathParams, request: Request| {
        let (registry, handler) = (registry.clone(), handler.clone());
        async move {
            let answer = async {
                let context = context(&registry, &request)?;
                let args = read_args(&path, request).await?;
                handler(context, args).await
            };
            answer.await.map_or_else(IntoResponse::into_response, |value| json_response(&value))
        }
    })
}

fn json_response(value: &Value) -> Response {
    ([(http::header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}

/// The caller's tenant and name.
fn context(registry: &Registry, request: &Request) -> Result<Context> {
    let config = &registry.inner.config;
    let caller = request.extensions().get::<Caller>();
    let wanted = workspace(request.headers())?;
    let held = caller.and_then(|caller| caller.namespace.clone());
    let namespace = match (held, wanted) {
        (Some(held), Some(wanted)) if held != wanted => {
            return Err(Error::NotFound(format!("Workspace '{wanted}' not found")));
        }
        (Some(held), _) => held,
        (None, Some(wanted)) if config.isolate_namespaces => wanted,
        (None, _) => config.default_namespace.clone(),
    };
    Ok(registry.context(namespace, caller.map(|caller| caller.owner.clone())))
}

fn workspace(headers: &HeaderMap) -> Result<Option<String>> {
    let Some(value) = headers.get(WORKSPACE_HEADER) else { return Ok(None) };
    let name = value.to_str().unwrap_or_default();
    let label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > 63 || !name.chars().all(label) {
        return Err(Error::Invalid(format!("Invalid workspace '{name}': expected the name of a namespace")));
    }
    Ok(Some(name.to_owned()))
}

async fn read_args(path: &RawPathParams, request: Request) -> Result<Args> {
    let from_query = matches!(*request.method(), Method::GET | Method::DELETE);
    let query = request.uri().query().unwrap_or_default().to_owned();
    let limit = BODY_BYTES_MAX;
    let body = axum::body::to_bytes(request.into_body(), limit)
        .await
        .map_err(|_| Error::Invalid(format!("Request body is larger than {limit} bytes")))?;
    let mut args =
        if body.is_empty() && from_query { Args::from_pairs(pairs(&query)) } else { Args::from_body(&body)? };
    for (key, value) in path {
        args.insert(key, value.to_owned());
    }
    Ok(args)
}

/// Decoded pairs of a query string.
fn pairs(query: &str) -> Vec<(String, String)> {
    let decode = |text: &str| crate::validate::percent_decode(&text.replace('+', " "));
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(key, value)| (decode(key), decode(value)))
        .collect()
}

/// A status and text that is not MLflow's JSON.
pub(crate) fn plain(status: StatusCode, text: &'static str) -> Response {
    (status, text).into_response()
}
