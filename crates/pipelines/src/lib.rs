//! The faces of Kubeflow Pipelines and Argo: what `kfp.Client`, its CLI and Argo's artifact links talk to.
//!
//! * KFP's REST API v2beta1: experiments, pipelines and versions in SQL; runs as `Workflow` objects with `spec.kfp`.
//! * Argo's artifact addresses, and its REST calls on workflows.
//! * The step cache ([`cache`]) and the client behind `slipway kfp submit` ([`client`]).
//!
//! The Workflow is the truth of a run; a row derives from it ([`row`], pure) and outlives it. This crate decides nothing about
//! what runs: that is `plan`, driven by `workflows`. Not here yet: recurring runs, retry of a run, KFP v1.

mod argo;
mod argo_server;
pub mod cache;
mod catalog;
pub mod client;
mod db;
pub mod error;
mod experiments;
mod follow;
mod list;
pub mod package;
mod row;
mod rows;
mod runs;
mod wire;

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use axum::{Json, Router};
use objects::ArtifactStore;
use serde_json::{Value, json};

pub use error::{Error, Result};

/// Largest request body: an upload and its frame.
const BODY_BYTES_MAX: usize = package::PACKAGE_BYTES_MAX + (1 << 20);

/// What the faces need.
pub struct Config {
    /// `sqlite:///path/platform.db` or `postgres://…`; shared with the registry.
    pub database_url: String,
    /// As `system:serviceaccount:kubeflow:pipelines`.
    pub client: kube::Client,
    /// The artifact store.
    pub artifacts: ArtifactStore,
    /// Namespace of runs whose experiment names none. Not the platform's own (upstream's `kubeflow`): the steps of a run would then
    /// have the rights of the platform's parts.
    pub namespace: String,
}

/// The open faces. Cheap to clone.
#[derive(Clone)]
pub struct Pipelines {
    face: Arc<Face>,
}

/// What every call needs.
struct Face {
    db: db::Db,
    client: kube::Client,
    artifacts: ArtifactStore,
    namespace: String,
}

impl Pipelines {
    /// Opens the tables and makes the `Default` experiment.
    pub async fn open(config: Config) -> Result<Self> {
        let db = db::Db::open(&config.database_url).await?;
        let face =
            Face { db, client: config.client, artifacts: config.artifacts, namespace: config.namespace };
        experiments::ensure_default(&face).await?;
        Ok(Self { face: Arc::new(face) })
    }

    /// Keeps the rows of runs up with their Workflows; to be spawned, runs until dropped.
    pub async fn follow_workflows(self) -> Result<()> {
        follow::run(&self.face.db, self.face.client.clone()).await
    }

    /// KFP's API and Argo's artifact addresses.
    pub fn router(&self) -> Router {
        let api = Router::new()
            .route("/healthz", get(healthz))
            .route("/experiments", get(experiments::list).post(experiments::create))
            .route(
                "/experiments/{id}",
                get(experiments::get).post(experiments::act).delete(experiments::delete),
            )
            .route("/pipelines", get(catalog::list).post(catalog::create))
            .route("/pipelines/create", post(catalog::create_from_url))
            .route("/pipelines/upload", post(catalog::upload))
            .route("/pipelines/upload_version", post(catalog::upload_version))
            .route("/pipelines/names/{name}", get(catalog::get_by_name))
            .route("/pipelines/{id}", get(catalog::get).delete(catalog::delete))
            .route("/pipelines/{id}/versions", get(catalog::versions).post(catalog::create_from_url))
            .route(
                "/pipelines/{id}/versions/{version}",
                get(catalog::version).delete(catalog::delete_version),
            )
            .route("/runs", get(runs::list).post(runs::create))
            .route("/runs/{id}", get(runs::get).post(runs::act).delete(runs::delete))
            .route("/runs/{run}/nodes/{node}/artifacts/{name}", get(runs::read_artifact))
            .route("/recurringruns", get(no_recurring_runs).post(recurring_runs))
            .route("/recurringruns/{*rest}", get(recurring_runs).post(recurring_runs).delete(recurring_runs))
            .layer(DefaultBodyLimit::max(BODY_BYTES_MAX));
        Router::new()
            .nest("/apis/v2beta1", api)
            .nest("/api/v1", argo_server::router())
            .route("/apis/v1beta1/healthz", get(healthz))
            .route("/artifacts/{namespace}/{workflow}/{node}/{artifact}", get(argo::output))
            .route("/input-artifacts/{namespace}/{workflow}/{node}/{artifact}", get(argo::input))
            .with_state(self.face.clone())
    }
}

async fn healthz() -> Json<Value> {
    // `multi_user` is false and so left out, as every zero; the store's kind is not.
    Json(json!({ "pipeline_store": "database" }))
}

/// There are none, truly: a list is empty.
async fn no_recurring_runs() -> Json<Value> {
    Json(json!({}))
}

async fn recurring_runs() -> Error {
    Error::NotYet("recurring runs")
}
