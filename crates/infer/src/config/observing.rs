//! What a server tells of its inside, and to whom, as checked values.
//!
//! Not here: flags (`cli::observing`), telling it (`observe`, `metrics`).

use std::time::Duration;

pub use crate::observe::{PayloadMode, Payloads, Sampler, Shadow, Target, Traces};

/// What is observed.
#[derive(Debug, Clone, PartialEq)]
pub struct Observing {
    /// Versions of models that the metrics tell apart; what is called beyond them is counted together.
    pub models_max: usize,
    /// Calls that take longer are slow, and kept by the flight recorder as failed ones are.
    pub slow: Duration,
    /// Answers say how long their phases took.
    pub server_timing: bool,
    /// Answers say which model and version gave them.
    pub model_headers: bool,
    /// Where the access log goes, and the share of the calls that it has.
    pub access: Option<(Target, f64)>,
    /// Where spans go.
    pub traces: Option<Traces>,
    /// Which calls have spans.
    pub sampler: Sampler,
    /// Where payloads go.
    pub payloads: Option<Payloads>,
    /// Which calls are asked of other models too.
    pub shadows: Vec<Shadow>,
}

impl Default for Observing {
    fn default() -> Self {
        Self {
            models_max: 100,
            slow: Duration::from_millis(100),
            server_timing: false,
            model_headers: false,
            access: None,
            traces: None,
            sampler: Sampler::default(),
            payloads: None,
            shadows: Vec::new(),
        }
    }
}
