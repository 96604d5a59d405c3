//! The workflow engine: one plan, one state machine, two vocabularies.
//!
//! * [`argo`] and [`kfp`] are the front ends: they turn a spec into a [`Plan`], and a leaf of it
//!   into a [`PodOrder`].
//! * [`engine`] is the machine: events in, actions out. The events, in order, are the journal;
//!   replaying them gives the same state.
//!
//! Pure: no IO, no clock, no randomness. Time stands in the events.

pub mod argo;
pub mod cel_gate;
pub mod engine;
pub mod ids;
pub mod kfp;
pub mod model;
pub mod order;
pub mod ready;
pub mod tags;
pub mod text;
pub mod values;
pub mod when;

pub use engine::{Action, Engine, Event};
pub use model::Plan;
pub use order::PodOrder;

/// Why a spec cannot become a plan, or a value cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub String);

impl Error {
    /// From anything that reads as text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// Who runs the plan: what stands in names, URIs and globals.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Identity {
    /// The workflow's name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its uid.
    pub uid: String,
    /// When it was created, milliseconds since 1970.
    pub created_ms: i64,
    /// Its labels.
    pub labels: std::collections::BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: std::collections::BTreeMap<String, String>,
    /// Bucket for artifacts.
    pub bucket: String,
}
