//! The family's kinds as `kube` resources, by hand: their documents are files, not derived.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{API_VERSION, WorkflowSpec, WorkflowStatus};

/// Implements [`Resource`] for a namespaced kind with a `metadata` field.
macro_rules! namespaced {
    ($kind:ident, $group:expr, $version:expr, $plural:expr) => {
        impl kube::Resource for $crate::workflow::resource::$kind {
            type DynamicType = ();
            type Scope = NamespaceResourceScope;
            fn kind(_: &()) -> Cow<'_, str> {
                stringify!($kind).into()
            }
            fn group(_: &()) -> Cow<'_, str> {
                $group.into()
            }
            fn version(_: &()) -> Cow<'_, str> {
                $version.into()
            }
            fn plural(_: &()) -> Cow<'_, str> {
                $plural.into()
            }
            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }
            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

/// An Argo `Workflow`. Its spec is kept as JSON beside the typed view ([`Workflow::typed_spec`]).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Workflow {
    /// `argoproj.io/v1alpha1`.
    #[serde(default)]
    pub api_version: String,
    /// `Workflow`.
    #[serde(default)]
    pub kind: String,
    /// Metadata.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// The spec as it was written.
    #[serde(default)]
    pub spec: Value,
    /// What the controller says; absent before it saw the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<WorkflowStatus>,
}

impl Workflow {
    /// A Workflow that runs a KFP pipeline.
    pub fn for_run(metadata: ObjectMeta, run: &super::KfpRun) -> Self {
        let run = serde_json::to_value(run).expect("a run is plain data");
        Self {
            api_version: API_VERSION.into(),
            kind: "Workflow".into(),
            metadata,
            spec: serde_json::json!({ "kfp": run }),
            status: None,
        }
    }

    /// The spec as types; the error names the field that does not fit.
    pub fn typed_spec(&self) -> Result<WorkflowSpec, serde_json::Error> {
        WorkflowSpec::deserialize(&self.spec)
    }

    /// The KFP run, for Workflows that are one.
    pub fn kfp(&self) -> Option<super::KfpRun> {
        self.spec.get("kfp").and_then(|run| super::KfpRun::deserialize(run).ok())
    }
}

namespaced!(Workflow, super::GROUP, super::VERSION, "workflows");
namespaced!(WorkflowTaskResult, super::GROUP, super::VERSION, "workflowtaskresults");
namespaced!(WorkflowTemplate, super::GROUP, super::VERSION, "workflowtemplates");

/// A stored spec that Workflows refer to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkflowTemplate {
    /// Metadata.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// A workflow spec.
    #[serde(default)]
    pub spec: Value,
}

/// The same for the whole cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterWorkflowTemplate {
    /// Metadata.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// A workflow spec.
    #[serde(default)]
    pub spec: Value,
}

impl Resource for ClusterWorkflowTemplate {
    type DynamicType = ();
    type Scope = k8s_openapi::ClusterResourceScope;
    fn kind(_: &()) -> Cow<'_, str> {
        "ClusterWorkflowTemplate".into()
    }
    fn group(_: &()) -> Cow<'_, str> {
        super::GROUP.into()
    }
    fn version(_: &()) -> Cow<'_, str> {
        super::VERSION.into()
    }
    fn plural(_: &()) -> Cow<'_, str> {
        "clusterworkflowtemplates".into()
    }
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// What a container reported when the report is too large for the termination message.
///
/// Named after the node id; Argo's `outputs` form is kept empty, ours is `report`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkflowTaskResult {
    /// `argoproj.io/v1alpha1`.
    pub api_version: String,
    /// `WorkflowTaskResult`.
    pub kind: String,
    /// Metadata; label `workflows.argoproj.io/workflow`, owned by the Workflow.
    pub metadata: ObjectMeta,
    /// A `pod_protocol::launch::LaunchReport` as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<Value>,
    /// Anything else (Argo's executor writes `phase`, `message`, `outputs`).
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}

impl Resource for super::WorkflowJournal {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;
    fn kind(_: &()) -> Cow<'_, str> {
        "WorkflowJournal".into()
    }
    fn group(_: &()) -> Cow<'_, str> {
        super::journal::GROUP.into()
    }
    fn version(_: &()) -> Cow<'_, str> {
        super::journal::VERSION.into()
    }
    fn plural(_: &()) -> Cow<'_, str> {
        "workflowjournals".into()
    }
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
