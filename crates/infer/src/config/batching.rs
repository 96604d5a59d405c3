//! How calls of a model are put together, in the words of TensorFlow Serving and of Triton.
//!
//! Both describe one machine: at most `threads` batches run, each of at most `rows_max` rows; calls wait until a batch
//! is full or its oldest call has waited `wait_max`. The wait is a bound, not a habit: where nothing runs, nothing
//! waits.
//!
//! A model about which nobody says anything is batched as experience with it shows ([`Mode::Auto`]).
//!
//! Not here: forming batches (`batch`).

use std::collections::BTreeMap;
use std::time::Duration;

/// How a model's calls are batched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batching {
    /// Rows of a batch, at most (`max_batch_size`).
    pub rows_max: usize,
    /// How long a call may wait for others while the model works on something else (`batch_timeout_micros`,
    /// `max_queue_delay_microseconds`).
    pub wait_max: Duration,
    /// Rows that wait, at most, counted in full batches (`max_enqueued_batches`).
    pub queued_batches_max: usize,
    /// Batches that run at the same time, at most (`num_batch_threads`, the instances of `instance_group`).
    pub threads: usize,
    /// Rows that a batch should have, ascending (`preferred_batch_size`).
    pub preferred: Vec<usize>,
    /// Rows that a batch must have, ascending, the last being `rows_max`; smaller batches are filled up with copies of
    /// a row (`allowed_batch_sizes`). Empty allows any.
    pub allowed: Vec<usize>,
    /// Whether calls of more than `rows_max` rows are cut (`enable_large_batch_splitting`) or refused.
    pub splits: bool,
    /// Whether calls whose tensors differ in length are filled up and put together (`pad_variable_length_inputs`).
    pub pads: bool,
    /// Levels of priority; 1 is the most urgent (`priority_levels`). 0 is one level.
    pub priorities: u32,
    /// The level of calls that name none (`default_priority_level`).
    pub default_priority: u32,
    /// How calls wait (`default_queue_policy`).
    pub policy: QueuePolicy,
    /// How calls of a level wait, where it differs (`priority_queue_policy`).
    pub policies: BTreeMap<u32, QueuePolicy>,
}

/// Which calls of a model run together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Mode {
    /// What waits anyway, as many rows as were found to pay; nothing waits for others.
    #[default]
    Auto,
    /// Each call runs alone.
    Alone,
    /// As somebody said.
    Fixed(Batching),
}

/// How the calls of a model wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queueing {
    /// Which calls run together.
    pub mode: Mode,
    /// Where even the shortest wait of a while is longer, more calls are refused until it is not; `None` refuses none
    /// for that. [`Mode::Fixed`] has bounds of its own.
    pub wait_max: Option<Duration>,
}

impl Default for Queueing {
    fn default() -> Self {
        Self { mode: Mode::default(), wait_max: Some(Duration::from_secs(2)) }
    }
}

/// What becomes of a call whose time in the queue is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overdue {
    /// It is refused.
    #[default]
    Reject,
    /// It waits on, behind all that are in time.
    Delay,
}

/// How calls wait, as Triton's `ModelQueuePolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueuePolicy {
    /// When the time is over.
    pub overdue: Overdue,
    /// How long a call may wait; `None` is for ever.
    pub timeout: Option<Duration>,
    /// Whether a call may name a shorter time.
    pub allows_override: bool,
    /// Calls that wait, at most; `None` is bounded by rows alone.
    pub calls_max: Option<usize>,
}

impl Default for Batching {
    /// TensorFlow Serving's defaults.
    fn default() -> Self {
        Self {
            rows_max: 1000,
            wait_max: Duration::ZERO,
            queued_batches_max: 10,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            preferred: Vec::new(),
            allowed: Vec::new(),
            splits: true,
            pads: false,
            priorities: 0,
            default_priority: 0,
            policy: QueuePolicy::default(),
            policies: BTreeMap::new(),
        }
    }
}

/// Batches that may be configured to run at the same time, and rows in one.
const THREADS_MAX: usize = 1024;
const ROWS_MAX: usize = 1 << 24;

impl Batching {
    /// Refuses what contradicts itself.
    pub fn check(&self) -> Result<(), String> {
        let is_ascending =
            |sizes: &[usize]| sizes.is_sorted_by(|one, other| one < other) && sizes.first() != Some(&0);
        if self.rows_max == 0 || self.rows_max > ROWS_MAX {
            return Err(format!("max_batch_size {} is not from 1 to {ROWS_MAX}", self.rows_max));
        }
        if self.threads == 0 || self.threads > THREADS_MAX {
            return Err(format!("num_batch_threads {} is not from 1 to {THREADS_MAX}", self.threads));
        }
        if self.queued_batches_max == 0 {
            return Err("max_enqueued_batches 0 leaves no room for any call".to_owned());
        }
        if !is_ascending(&self.allowed) {
            return Err(format!("allowed_batch_sizes {:?} do not ascend from 1", self.allowed));
        }
        if self.allowed.last().is_some_and(|last| *last != self.rows_max) {
            let rows_max = self.rows_max;
            return Err(format!(
                "the last of allowed_batch_sizes {:?} is not max_batch_size {rows_max}",
                self.allowed
            ));
        }
        if !is_ascending(&self.preferred) || self.preferred.last().is_some_and(|last| *last > self.rows_max) {
            let rows_max = self.rows_max;
            return Err(format!(
                "preferred_batch_size {:?} do not ascend from 1 to {rows_max}",
                self.preferred
            ));
        }
        if self.default_priority > self.priorities || (self.priorities > 0 && self.default_priority == 0) {
            let (default, levels) = (self.default_priority, self.priorities);
            return Err(format!("default_priority_level {default} is none of the {levels} priority_levels"));
        }
        match self.policies.keys().find(|level| **level == 0 || **level > self.priorities) {
            Some(level) => Err(format!("priority_queue_policy of level {level}, which there is not")),
            None => Ok(()),
        }
    }
}
