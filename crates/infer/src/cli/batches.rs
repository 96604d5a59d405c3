//! Flags that say how calls wait for their evaluation, for `slipway serve`.
//!
//! Names are TensorFlow Serving's; `--max_batch_size` and `--batch_timeout_micros` are what `maxBatchSize` and
//! `maxLatency` of an InferenceService's batcher say.
//!
//! Not here: what they do (`batch`).

use std::time::Duration;

use clap::{ArgAction, Args};

use super::tfs::read;
use crate::config::{Batching, Config, Mode, Queueing, tfs};

/// How calls wait.
#[derive(Debug, Clone, Args)]
#[command(rename_all = "snake_case")]
pub struct Batches {
    /// What runs together where nothing else is said: auto (what waits anyway, as far as it pays) or off (nothing).
    #[arg(long = "batching", default_value = "auto", value_parser = ["auto", "off"])]
    pub batching: String,
    /// Put calls together as `--batching_parameters_file` says, where a model says nothing else.
    #[arg(long = "enable_batching", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", action = ArgAction::Set)]
    pub enable_batching: bool,
    /// How, in the form of TensorFlow Serving's file.
    #[arg(long = "batching_parameters_file", default_value = "")]
    pub batching_parameters_file: String,
    /// Rows of a batch, at most, instead of a file; calls are put together as they come.
    #[arg(long = "max_batch_size", conflicts_with = "batching_parameters_file")]
    pub max_batch_size: Option<usize>,
    /// Microseconds that a call may wait for others while the model is at work.
    #[arg(long = "batch_timeout_micros", requires = "max_batch_size")]
    pub batch_timeout_micros: Option<u64>,
    /// Milliseconds that calls may wait, all of them and for some time, before more are refused; 0 refuses none.
    #[arg(long = "queue_wait_max_ms", default_value_t = 2000)]
    pub queue_wait_max_ms: u64,
}

impl Batches {
    pub(super) fn apply(&self, config: &mut Config) -> Result<(), String> {
        let file = read(&self.batching_parameters_file, tfs::batching)?;
        if file.is_some() && !self.enable_batching {
            return Err("--batching_parameters_file needs --enable_batching".to_owned());
        }
        let fixed = match (file, self.max_batch_size) {
            (Some(file), _) => Some(file),
            (None, Some(rows_max)) => {
                let wait_max = Duration::from_micros(self.batch_timeout_micros.unwrap_or(0));
                let batching = Batching { rows_max, wait_max, ..Batching::default() };
                batching.check().map_err(|why| format!("--{why}"))?;
                Some(batching)
            }
            (None, None) => self.enable_batching.then(Batching::default),
        };
        let mode = match (fixed, self.batching.as_str()) {
            (Some(batching), _) => Mode::Fixed(batching),
            (None, "off") => Mode::Alone,
            (None, _) => Mode::Auto,
        };
        let wait_max = (self.queue_wait_max_ms > 0).then(|| Duration::from_millis(self.queue_wait_max_ms));
        config.queueing = Queueing { mode, wait_max };
        Ok(())
    }
}
