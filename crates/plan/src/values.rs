//! What flows between nodes: parameters as JSON values, artifacts as references.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Parameters and artifacts of a node, going in or coming out.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Values {
    /// Parameters by name; Argo's are strings.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, Value>,
    /// Artifacts by name; KFP allows lists.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub artifacts: BTreeMap<String, Vec<ArtifactRef>>,
    /// Standard output of a step, when something reads it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// Exit code of the main container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
}

/// An artifact: where it is and what is known of it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ArtifactRef {
    /// KFP: name of the artifact (its id, as text).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Where it is.
    pub uri: String,
    /// Path in the container that made or reads it, when declared.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// Packed as a gzipped tar.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tar: bool,
    /// Bytes that stand in the spec instead of a store (Argo's `raw`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raw: Option<String>,
    /// KFP: schema title.
    #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// KFP: schema version.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub schema_version: String,
    /// KFP: metadata of the artifact.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Value>,
    /// Bytes in the store, when known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// SHA-256 of a single file.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sha256: String,
}
