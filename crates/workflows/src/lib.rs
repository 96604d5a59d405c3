//! The Workflow controller: observes Workflows and pods, lets `plan` decide, acts.
//!
//! One task per running workflow (`actor`) owns its engine. `controller` watches and hands out;
//! `journal` makes events durable before anything is done about them; `observe` turns a pod's state
//! into an event and `build` an order into a pod, both pure.
//!
//! Not here: what a workflow means (`plan`), what happens inside a container (`pod launch`), where
//! cached outputs are kept ([`StepCache`], given by the binary).

mod actor;
mod build;
mod controller;
mod journal;
mod observe;
mod rim;
mod source;

use std::sync::Arc;

use async_trait::async_trait;
pub use build::{FINALIZER, build_pod};
pub use observe::{Seen, observe};
pub use plan::kfp::cache_key::CacheKey;
pub use plan::values::Values as CachedOutputs;

/// What the controller is told at its start.
#[derive(Clone)]
pub struct Config {
    /// Base URL of the artifact face as pods reach it.
    pub artifacts_url: String,
    /// `MLFLOW_TRACKING_URI` for pods; empty: not set.
    pub tracking_uri: String,
    /// Bucket for artifacts, `mlpipeline`.
    pub bucket: String,
    /// Image that holds the launcher, e.g. `slipway/pod:0.1.0`.
    pub pod_image: String,
    /// Where outputs of finished KFP tasks are looked up.
    pub cache: Arc<dyn StepCache>,
}

/// Outputs of finished tasks by key. Both calls are best effort: a failure is a miss.
#[async_trait]
pub trait StepCache: Send + Sync {
    /// The newest outputs under this key whose artifacts still exist.
    async fn lookup(&self, key: &CacheKey) -> Option<CachedOutputs>;
    /// Puts a finished task's outputs under its key. `run` is the Workflow's uid (KFP: the run id).
    async fn record(&self, key: &CacheKey, run: &str, node_id: &str, outputs: &CachedOutputs);
}

/// Remembers nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoCache;

#[async_trait]
impl StepCache for NoCache {
    async fn lookup(&self, _: &CacheKey) -> Option<CachedOutputs> {
        None
    }
    async fn record(&self, _: &CacheKey, _: &str, _: &str, _: &CachedOutputs) {}
}

/// Runs the controller until its future is dropped.
pub async fn run(client: kube::Client, config: Config) {
    controller::Controller::new(client, config).run().await;
}

/// Why the controller could not do something.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused or failed.
    #[error("cannot {doing}")]
    Api {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: kube::Error,
    },
    /// The workflow itself is wrong.
    #[error("{0}")]
    Spec(String),
    /// The journal is not readable.
    #[error("journal of workflow {workflow}: {why}")]
    Journal {
        /// The workflow.
        workflow: String,
        /// What is wrong with it.
        why: String,
    },
}

impl Error {
    fn api(doing: &'static str) -> impl Fn(kube::Error) -> Self {
        move |source| Self::Api { doing, source }
    }
}
