//! What is refused before a workflow is stored or run: pure, and the same in process, as a webhook and in the controller.

use std::fmt;

use serde_json::Value;

mod argo;
mod ir;
mod paths;

pub use argo::unsupported_template;
pub use ir::{check_pipeline, misfit};

/// One thing that is wrong, in Kubernetes' form: field, value, what was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Path of the field, e.g. `spec.templates[0].steps[1].template`.
    pub field: String,
    /// What is wrong, naming the value.
    pub detail: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.detail)
    }
}

/// Everything that is wrong with an object.
#[derive(Debug, Clone, PartialEq, Eq, Default, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl Problems {
    /// Adds one.
    pub(crate) fn add(&mut self, field: impl Into<String>, detail: impl Into<String>) {
        self.0.push(Problem { field: field.into(), detail: detail.into() });
    }

    /// `Ok` when nothing is wrong.
    pub(crate) fn into_result(self) -> Result<(), Self> {
        if self.0.is_empty() { Ok(()) } else { Err(self) }
    }
}

/// Checks an object of the family by its kind; kinds of others pass.
///
/// `templateRef`s are not followed: what they name may come later.
pub fn check(kind: &str, object: &Value) -> Result<(), Problems> {
    let spec = object.get("spec").unwrap_or(&Value::Null);
    match kind {
        "Workflow" => check_workflow_spec(spec, "spec"),
        "WorkflowTemplate" | "ClusterWorkflowTemplate" => argo::check_template_spec(spec, "spec"),
        "CronWorkflow" => {
            let inner = spec.get("workflowSpec").unwrap_or(&Value::Null);
            check_workflow_spec(inner, "spec.workflowSpec")
        }
        _ => Ok(()),
    }
}

/// Checks the spec of a Workflow: Argo's, or KFP's when `kfp` is there.
pub fn check_workflow_spec(spec: &Value, at: &str) -> Result<(), Problems> {
    if let Some(run) = spec.get("kfp") { ir::check_run(run, at) } else { argo::check_workflow_spec(spec, at) }
}
