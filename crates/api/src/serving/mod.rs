//! The serving family: KServe's InferenceService and its runtimes.
//!
//! * [`admission`] does what KServe's webhooks do: old forms become `model:`, nonsense is refused by field and value.
//! * [`runtime`] chooses the ServingRuntime of a model as KServe does, from objects and from those built in.
//!
//! A predictor is kept as JSON beside the few fields that the platform decides from, because it holds a whole pod spec
//! inline and none of the user's fields may be lost.

pub mod admission;
pub mod resource;
pub mod runtime;
pub mod uri;

pub use resource::{InferenceService, Model, Predictor};

/// API group.
pub const GROUP: &str = "serving.kserve.io";
/// Label of everything that belongs to an InferenceService; its value is the name.
pub const LABEL: &str = "serving.kserve.io/inferenceservice";
/// Annotation that takes the workload away while it is `"true"`.
pub const STOP_ANNOTATION: &str = "serving.kserve.io/stop";
/// Name of the container that serves.
pub const CONTAINER: &str = "kserve-container";
/// Where the model lies in the container.
pub const MODEL_DIR: &str = "/mnt/models";
/// Port of the server in the pod.
pub const PORT: i32 = 8080;

/// The predictor forms of KServe before `model:`; each is a format's name too.
pub const FRAMEWORKS: [&str; 10] = [
    "sklearn",
    "xgboost",
    "lightgbm",
    "tensorflow",
    "pytorch",
    "triton",
    "onnx",
    "huggingface",
    "pmml",
    "paddle",
];
