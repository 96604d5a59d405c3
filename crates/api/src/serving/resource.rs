//! `InferenceService` as a `kube` resource, and the part of its predictor that decisions are made from.

use std::borrow::Cow;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// An InferenceService, spec and status as they are stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InferenceService {
    /// `serving.kserve.io/v1beta1`.
    #[serde(default)]
    pub api_version: String,
    /// `InferenceService`.
    #[serde(default)]
    pub kind: String,
    /// Metadata.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// The spec as stored, in the `model:` form.
    #[serde(default)]
    pub spec: Value,
    /// What the controller says.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub status: Value,
}

impl kube::Resource for InferenceService {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;
    fn kind(_: &()) -> Cow<'_, str> {
        "InferenceService".into()
    }
    fn group(_: &()) -> Cow<'_, str> {
        super::GROUP.into()
    }
    fn version(_: &()) -> Cow<'_, str> {
        "v1beta1".into()
    }
    fn plural(_: &()) -> Cow<'_, str> {
        "inferenceservices".into()
    }
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// What the controller reads of `spec.predictor`; the rest is in `rest`: pod fields and what is not acted on.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Predictor {
    /// The model and how to serve it.
    pub model: Option<Model>,
    /// The user's own containers, for a predictor without `model`.
    pub containers: Vec<Value>,
    /// Fewest replicas; 1 when absent.
    pub min_replicas: Option<i32>,
    /// Most replicas; as `min_replicas` when absent.
    pub max_replicas: Option<i32>,
    /// Target of the autoscaler in its metric's unit (percent for cpu and memory).
    pub scale_target: Option<i32>,
    /// `cpu` or `memory` here; `concurrency` and `rps` need Knative.
    pub scale_metric: Option<String>,
    /// Labels of the pods.
    pub labels: Map<String, Value>,
    /// Annotations of the pods.
    pub annotations: Map<String, Value>,
    /// `deploymentStrategy`.
    pub deployment_strategy: Option<Value>,
    /// Everything else.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// `spec.predictor.model`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Model {
    /// What the model is.
    pub model_format: ModelFormat,
    /// Runtime by name; chosen by the format when absent.
    pub runtime: Option<String>,
    /// Where the model is.
    pub storage_uri: Option<String>,
    /// Tag of the runtime's image.
    pub runtime_version: Option<String>,
    /// `v1` when absent.
    pub protocol_version: Option<String>,
    /// Container fields: resources, env, args, image…
    #[serde(flatten)]
    pub container: Map<String, Value>,
}

/// Name and version of a format.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelFormat {
    /// `sklearn`, `xgboost`, …
    pub name: String,
    /// Exact version wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

impl InferenceService {
    /// The predictor, typed; the error names the field that does not fit.
    ///
    /// # Errors
    /// When a field has another type than KServe's.
    pub fn predictor(&self) -> Result<Predictor, serde_json::Error> {
        Predictor::deserialize(&self.spec["predictor"])
    }

    /// Whether the user has stopped it.
    pub fn is_stopped(&self) -> bool {
        let annotations = self.metadata.annotations.as_ref();
        annotations.and_then(|all| all.get(super::STOP_ANNOTATION)).is_some_and(|value| value == "true")
    }
}
