//! Moves an `InferenceService` to a running server: runtime, Deployment, Services, autoscaler, status.
//!
//! KServe's Standard mode, so that it runs on any cluster: nothing of Knative or Istio.
//!
//! * `observe` reads the cluster; what it returns may already be stale.
//! * [`decide`] says what should be there and what the status is: pure, total, tested by table.
//! * `act` creates, patches and deletes; repeating it does no harm.
//!
//! Not here: how requests reach the Service (`gateway`), fetching models (`objects`, in the pod), scaling (the cluster's
//! autoscaler), canaries and transformers (refused with a condition that says so).

mod act;
mod children;
mod conditions;
mod controller;
pub mod decide;
mod error;
mod flags;
mod model_status;
mod pod;

pub use controller::run;
pub use error::Error;

/// What the controller is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Base URL of the artifact face, given to storage initializers as `SLIPWAY_ARTIFACTS_URL`; empty: not given.
    pub artifacts_url: String,
    /// Base URL of the MLflow face, given to storage initializers as `MLFLOW_TRACKING_URI`; empty: not given.
    pub tracking_uri: String,
    /// Domain of `status.url`. Upstream's default is `example.com`.
    pub domain: String,
    /// Image of the init container that fetches models.
    pub storage_initializer: String,
    /// Images of the platform's own model server, which takes flags for what upstream's agent does; a `*` at the end
    /// means any rest.
    pub own_images: Vec<String>,
    /// Whether `file://` models may be mounted from the node. Only sensible where the node is the user's own machine.
    pub allow_file_uris: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            artifacts_url: String::new(),
            tracking_uri: String::new(),
            domain: "example.com".to_owned(),
            storage_initializer: "kserve/storage-initializer:latest".to_owned(),
            own_images: [
                "kserve/sklearnserver*",
                "kserve/xgbserver*",
                "kserve/lgbserver*",
                "kserve/pmmlserver*",
            ]
            .map(str::to_owned)
            .to_vec(),
            allow_file_uris: true,
        }
    }
}
