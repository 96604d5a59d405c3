//! Experiments, runs, models and lineage in SQL, with the MLflow REST API as their face.
//!
//! * [`Registry`] owns the database and the artifact store; [`Registry::router`] is what a real `mlflow` client talks to.
//! * [`lineage`] derives rows from Workflows: what a pipeline did is recorded without the pipeline's help.
//!
//! A tenant is a `namespace` on every row. One machine has one tenant unless [`Config::isolate_namespaces`] is set; then
//! the client's `X-MLFLOW-WORKSPACE` header, or the [`Caller`] that the embedder authenticated, chooses it.
//!
//! Not here: who may call (the embedder's layer in front of the router), and how models are served.

mod args;
mod artifacts;
mod db;
mod error;
mod filter;
mod http;
pub mod lineage;
mod page;
mod validate;

use std::sync::Arc;

use object_store::ObjectStore;

pub use error::{Error, Result};

use artifacts::Artifacts;
use db::Db;

/// What a registry needs to open.
#[derive(Clone)]
pub struct Config {
    /// `sqlite:///path/to/platform.db` (created when absent) or `postgres://user@host/database`.
    pub database_url: String,
    /// Where `mlflow-artifacts:` lives; keys are `<namespace>/<experiment>/…`.
    pub artifacts: Arc<dyn ObjectStore>,
    /// The tenant of callers that name none.
    pub default_namespace: String,
    /// The owner written on rows of callers that are not known by name.
    pub default_owner: String,
    /// Whether Kubernetes namespaces are tenants of their own. Off on one machine: there every client sees every run.
    pub isolate_namespaces: bool,
}

impl Config {
    /// One tenant named `default`.
    #[must_use]
    pub fn new(database_url: impl Into<String>, artifacts: Arc<dyn ObjectStore>) -> Self {
        Self {
            database_url: database_url.into(),
            artifacts,
            default_namespace: "default".to_owned(),
            default_owner: "slipway".to_owned(),
            isolate_namespaces: false,
        }
    }
}

/// Who calls, as far as the embedder's authentication knows: insert it into the request's extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Name written as the owner of new rows.
    pub owner: String,
    /// The tenant the caller is held to; a header cannot leave it.
    pub namespace: Option<String>,
}

/// The registry; cheap to clone.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

struct Inner {
    db: Db,
    artifacts: Artifacts,
    config: Config,
}

impl Registry {
    /// Opens the database and brings its schema up to date.
    ///
    /// # Errors
    /// When the database cannot be opened, or was written by a newer binary.
    pub async fn open(config: Config) -> Result<Self> {
        let db = Db::open(&config.database_url).await?;
        let artifacts = Artifacts::new(config.artifacts.clone());
        let registry = Self { inner: Arc::new(Inner { db, artifacts, config }) };
        let namespace = registry.inner.config.default_namespace.clone();
        http::experiments::ensure_default(&registry.context(namespace, None)).await?;
        Ok(registry)
    }

    /// The MLflow REST API: `/api/2.0/mlflow/…`, `/ajax-api/2.0/mlflow/…`, `/api/2.0/mlflow-artifacts/…`, `/health`, `/version`.
    pub fn router(&self) -> axum::Router {
        http::router(self)
    }

    fn context(&self, namespace: String, owner: Option<String>) -> Context {
        let owner = owner.unwrap_or_else(|| self.inner.config.default_owner.clone());
        Context { registry: self.clone(), namespace, owner }
    }
}

/// One call's registry, tenant and owner.
#[derive(Clone)]
pub(crate) struct Context {
    registry: Registry,
    pub(crate) namespace: String,
    pub(crate) owner: String,
}

impl Context {
    pub(crate) fn db(&self) -> &Db {
        &self.registry.inner.db
    }

    pub(crate) fn artifacts(&self) -> &Artifacts {
        &self.registry.inner.artifacts
    }
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
