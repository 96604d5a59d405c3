//! What the engine is told and what it asks for. Events are the journal's records.

use pod_protocol::launch::LaunchReport;
use serde::{Deserialize, Serialize};

use crate::kfp::cache_key::CacheKey;
use crate::model::Phase;
use crate::values::Values;

/// Something that happened. Times are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "camelCase")]
pub enum Event {
    /// The workflow starts.
    Begin {
        /// When.
        at: i64,
    },
    /// A pod of an attempt started to run. Not journaled: the pod itself says it again.
    Running {
        /// The node.
        node: u32,
        /// The attempt's token.
        token: u32,
        /// Machine that runs it.
        host: String,
        /// When.
        at: i64,
    },
    /// A pod waits and says why. Not journaled.
    Waiting {
        /// The node.
        node: u32,
        /// The attempt's token.
        token: u32,
        /// Why, e.g. `ImagePullBackOff: ...`.
        message: String,
    },
    /// An attempt ended.
    Ended {
        /// The node.
        node: u32,
        /// The attempt's token.
        token: u32,
        /// How.
        end: Box<PodEnd>,
        /// When.
        at: i64,
    },
    /// The cache answered.
    Cache {
        /// The node.
        node: u32,
        /// The attempt's token.
        token: u32,
        /// The outputs of an earlier run, on a hit.
        hit: Option<Box<Values>>,
        /// When.
        at: i64,
    },
    /// Time passed.
    Tick {
        /// When.
        at: i64,
    },
    /// `spec.suspend` was set or cleared.
    Suspend {
        /// The new value.
        on: bool,
        /// When.
        at: i64,
    },
    /// One suspend node is resumed (or failed) by name, id or display name.
    Resume {
        /// Which one; empty: all.
        node: String,
        /// When.
        at: i64,
    },
    /// `spec.shutdown` was set.
    Shutdown {
        /// `true`: Terminate (no exit handlers); else Stop.
        terminate: bool,
        /// When.
        at: i64,
    },
}

impl Event {
    /// Whether the journal must hold it before anything is done about it.
    pub fn durable(&self) -> bool {
        !matches!(self, Self::Running { .. } | Self::Waiting { .. })
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodEnd {
    /// How.
    pub outcome: Outcome,
    /// Why, when it ended badly.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Exit code of the main container, when it ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The launcher's report, when there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<LaunchReport>,
    /// Machine that ran it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub host: String,
}

/// Ends of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// The command succeeded.
    Succeeded,
    /// The command failed.
    #[default]
    Failed,
    /// The platform failed: the pod was deleted, evicted or could not be made.
    Error,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Create the pod of this node's attempt ([`super::Engine::order`]); doing it twice does no harm.
    StartPod {
        /// The node.
        node: u32,
        /// The attempt's token.
        token: u32,
    },
    /// Delete the pod.
    StopPod {
        /// Its name.
        pod: String,
    },
    /// Ask the cache, and answer with [`Event::Cache`].
    Lookup {
        /// The node.
        node: u32,
        /// The attempt's token.
        token: u32,
        /// The key.
        key: Box<CacheKey>,
    },
    /// Put a finished task's outputs into the cache.
    Record {
        /// The key.
        key: Box<CacheKey>,
        /// The outputs.
        outputs: Box<Values>,
        /// Id of the node that made them.
        node_id: String,
    },
    /// The workflow ended.
    Finished {
        /// How.
        phase: Phase,
    },
}
