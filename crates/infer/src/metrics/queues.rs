//! What the queues of models show: batch sizes, queue ages, and what was turned away.
//!
//! Counts are each version's own (`batch::counts`) and live as long as it does: a version that is loaded again begins
//! anew, which Prometheus takes for a restart.
//!
//! Not here: queues (`batch`), the names of peers (`peers`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::counts::Tally;
use super::text::Text;
use crate::batch::Counts;
use crate::batch::counts::{AGES, SIZES};
use crate::refusal::Reason;
use crate::served::Served;

/// One number of a queue.
type Number = fn(&Counts) -> &AtomicU64;

/// Appends them for the versions whose calls ever waited.
pub(super) fn write(text: &mut Text, all: &[Arc<Served>]) {
    let queues: Vec<(&str, String, &Counts)> = all
        .iter()
        .filter_map(|served| {
            Some((&*served.name, served.version.unwrap_or(1).to_string(), served.queue.counts()?))
        })
        .collect();
    if queues.is_empty() {
        return;
    }
    let name = "slipway_batch_rows";
    text.family(name, "histogram", "Rows of a batch.");
    for (model, version, counts) in &queues {
        let tally = Tally { buckets: loaded(&counts.sizes), sum: counts.rows.load(Relaxed) };
        text.histogram(name, &[("model", model), ("version", version)], &SIZES, &tally, 1.0);
    }
    let name = "slipway_queue_age_seconds";
    text.family(name, "histogram", "How long calls waited in their model's queue.");
    for (model, version, counts) in &queues {
        // Bounds are in microseconds, the sum in nanoseconds.
        let tally = Tally { buckets: loaded(&counts.ages), sum: counts.age_ns.load(Relaxed) / 1_000 };
        text.histogram(name, &[("model", model), ("version", version)], &AGES, &tally, 1e6);
    }
    let name = "slipway_queue_refused_total";
    text.family(name, "counter", "Calls that a queue turned away or dropped, by reason.");
    for (model, version, counts) in &queues {
        for reason in Reason::ALL {
            let count = counts.refused[reason.index()].load(Relaxed);
            if count > 0 {
                let labels = [("model", *model), ("version", version.as_str()), ("reason", reason.word())];
                text.sample(name, &labels, count);
            }
        }
    }
    let numbers: [(&str, &str, &str, Number); 7] = [
        ("slipway_batch_calls_total", "counter", "Calls that ran in batches.", |counts| &counts.calls),
        (
            "slipway_batch_filled_rows_total",
            "counter",
            "Rows that fill batches up to an allowed size.",
            |counts| &counts.filled,
        ),
        (
            "slipway_batch_divided_total",
            "counter",
            "Batches that failed and were run again in parts.",
            |counts| &counts.divided,
        ),
        ("slipway_queue_calls", "gauge", "Calls that wait.", |counts| &counts.queued),
        ("slipway_queue_rows", "gauge", "Rows that wait.", |counts| &counts.queued_rows),
        ("slipway_queue_rows_limit", "gauge", "Rows that may wait now.", |counts| &counts.limit),
        ("slipway_batches_running", "gauge", "Batches that run.", |counts| &counts.running),
    ];
    for (name, kind, help, of) in numbers {
        text.family(name, kind, help);
        for (model, version, counts) in &queues {
            text.sample(name, &[("model", model), ("version", version)], of(counts).load(Relaxed));
        }
    }
}

fn loaded<const N: usize>(buckets: &[AtomicU64; N]) -> [u64; N] {
    std::array::from_fn(|place| buckets[place].load(Relaxed))
}
