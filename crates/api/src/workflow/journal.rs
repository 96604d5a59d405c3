//! `WorkflowJournal`: the truth of a running workflow, in segments.
//!
//! Segment 0 holds the resolved source of the plan and no records; the others hold the events that
//! the engine was fed, in order. Replaying them gives the engine's state (ADR 0006).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// API group of the journal.
pub const GROUP: &str = "slipway.dev";
/// Its version.
pub const VERSION: &str = "v1alpha1";
/// A segment is never larger than this, in bytes of JSON of its records.
pub const SEGMENT_BYTES_MAX: usize = 512 * 1024;
/// A segment is sealed at this size: an append rewrites the segment, so small ones are cheap to append to.
pub const SEGMENT_BYTES_SEAL: usize = 48 * 1024;

/// One segment of a workflow's journal, named `<workflow>-<first 8 of the uid>-<index>`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkflowJournal {
    /// `slipway.dev/v1alpha1`.
    pub api_version: String,
    /// `WorkflowJournal`.
    pub kind: String,
    /// Metadata; owned by the Workflow, label `workflows.argoproj.io/workflow`.
    pub metadata: ObjectMeta,
    /// The content.
    pub spec: Segment,
}

/// What a segment holds.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Segment {
    /// Version of the record format; an engine that does not know it refuses to replay.
    pub format: u32,
    /// Place of the segment in the journal, from 0.
    pub index: u32,
    /// Uid of the workflow: a new workflow of the same name has another journal.
    pub workflow_uid: String,
    /// Segment 0: what the plan was compiled from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Value>,
    /// The events, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<Value>,
}
