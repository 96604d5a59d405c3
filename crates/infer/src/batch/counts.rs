//! What a model's queue counts, for whoever shows it.
//!
//! All are plain atomics that only grow, except the three gauges; nothing here is touched by calls that run at once on
//! the event loops. Names of metrics that show them well: `slipway_batch_rows` (histogram over [`SIZES`]),
//! `slipway_queue_age_seconds` (histogram over [`AGES`]), `slipway_queue_refused_total{reason}`,
//! `slipway_queue_calls`, `slipway_queue_rows`, `slipway_batches_running`, `slipway_queue_rows_limit`.
//!
//! Not here: rendering (`metrics`).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::refusal::Reason;

/// Upper bounds of batch sizes in rows; one more bucket is unbounded.
pub const SIZES: [u64; 13] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096];
/// Upper bounds of queue ages in microseconds; one more bucket is unbounded.
pub const AGES: [u64; 12] =
    [50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 100_000, 500_000, 1_000_000];

/// The counts of one version of a model.
#[derive(Debug, Default)]
pub struct Counts {
    /// Calls that ran in batches.
    pub calls: AtomicU64,
    /// Batches.
    pub batches: AtomicU64,
    /// Rows of batches, without those that fill them up.
    pub rows: AtomicU64,
    /// Rows that fill batches up to an allowed size.
    pub filled: AtomicU64,
    /// Batches by their rows, each bucket by itself; see [`SIZES`].
    pub sizes: [AtomicU64; SIZES.len() + 1],
    /// Calls by how long they waited, each bucket by itself; see [`AGES`].
    pub ages: [AtomicU64; AGES.len() + 1],
    /// Nanoseconds that calls waited.
    pub age_ns: AtomicU64,
    /// Nanoseconds that batches ran.
    pub run_ns: AtomicU64,
    /// Batches that had an error and were run again in parts.
    pub divided: AtomicU64,
    /// Calls that were turned away or dropped, by [`Reason::index`].
    pub refused: [AtomicU64; Reason::ALL.len()],
    /// Gauge: calls that wait.
    pub queued: AtomicU64,
    /// Gauge: rows that wait.
    pub queued_rows: AtomicU64,
    /// Gauge: batches that run.
    pub running: AtomicU64,
    /// Gauge: rows that may wait now.
    pub limit: AtomicU64,
}

impl Counts {
    pub(super) fn batch(&self, rows: usize, filled: usize, calls: usize, time: Duration) {
        let size = SIZES.iter().position(|bound| rows as u64 <= *bound).unwrap_or(SIZES.len());
        self.sizes[size].fetch_add(1, Relaxed);
        self.batches.fetch_add(1, Relaxed);
        self.calls.fetch_add(calls as u64, Relaxed);
        self.rows.fetch_add(rows as u64, Relaxed);
        self.filled.fetch_add(filled.saturating_sub(rows) as u64, Relaxed);
        self.run_ns.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    pub(super) fn waited(&self, age: Duration) {
        let micros = u64::try_from(age.as_micros()).unwrap_or(u64::MAX);
        let bucket = AGES.iter().position(|bound| micros <= *bound).unwrap_or(AGES.len());
        self.ages[bucket].fetch_add(1, Relaxed);
        self.age_ns.fetch_add(u64::try_from(age.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    pub(super) fn refused(&self, reason: Reason) {
        self.refused[reason.index()].fetch_add(1, Relaxed);
    }
}
