//! The flight recorder: the last slow or failed calls.
//!
//! Each thread that serves writes to a ring of its own, so that a flood of failures on one is no lock for another. A
//! ring is bounded and grows only as calls fail; together they hold [`KEPT`].
//!
//! Not here: which calls are slow (`observe`), the page (`admin`).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;

use super::record::Record;

/// Records of all rings together.
pub(crate) const KEPT: usize = 10_000;

/// The rings.
#[derive(Debug)]
pub(crate) struct Flight {
    rings: Box<[Ring]>,
    each: usize,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Ring {
    records: Mutex<VecDeque<Record>>,
    seen: AtomicUsize,
}

thread_local! {
    /// Which ring a thread writes to, before the number of rings is taken into account.
    static OWN: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Relaxed)
    };
}

impl Flight {
    /// With so many rings.
    pub(crate) fn new(rings: usize) -> Self {
        let rings = rings.clamp(1, 64);
        Self { rings: (0..rings).map(|_| Ring::default()).collect(), each: KEPT / rings }
    }

    /// Keeps a record instead of the oldest of its ring.
    pub(crate) fn keep(&self, record: Record) {
        let ring = &self.rings[OWN.with(|own| *own) % self.rings.len()];
        ring.seen.fetch_add(1, Relaxed);
        let mut records = ring.records.lock();
        if records.len() >= self.each {
            records.pop_front();
        }
        records.push_back(record);
    }

    /// How many were ever kept.
    pub(crate) fn seen(&self) -> usize {
        self.rings.iter().map(|ring| ring.seen.load(Relaxed)).sum()
    }

    /// What `wanted` lets through, the newest first, at most so many.
    pub(crate) fn last(&self, count: usize, wanted: impl Fn(&Record) -> bool) -> Vec<Record> {
        let mut all = Vec::new();
        for ring in &self.rings {
            // Copied under the lock, so that whoever writes waits for a copy and not for a page.
            let records = ring.records.lock();
            all.extend(records.iter().rev().filter(|record| wanted(record)).take(count).cloned());
        }
        all.sort_by_key(|record| std::cmp::Reverse(record.arrived));
        all.truncate(count);
        all
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::metrics::Phases;

    fn record(second: u64, status: u16) -> Record {
        Record {
            called: None,
            arrived: SystemTime::UNIX_EPOCH + Duration::from_secs(second),
            whole: Duration::ZERO,
            waited: 0,
            phases: Phases::default(),
            rows: 0,
            request_bytes: 0,
            reply_bytes: 0,
            status,
            reason: None,
            text: None,
            trace: None,
        }
    }

    #[test]
    fn the_newest_are_kept_from_all_threads_and_never_more_than_the_bound() {
        let flight = Flight::new(4);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let flight = &flight;
                scope.spawn(move || {
                    (0..KEPT as u64).for_each(|second| flight.keep(record(4 * second + thread, 400)));
                });
            }
        });
        let all = flight.last(usize::MAX, |_| true);
        assert!(all.len() <= KEPT && all.len() >= KEPT / 4, "{}", all.len());
        assert_eq!(flight.seen(), 4 * KEPT);
        assert!(all.is_sorted_by(|newer, older| newer.arrived >= older.arrived));
        flight.keep(record(1 << 40, 504));
        assert_eq!(flight.last(3, |record| record.status == 504).len(), 1);
        assert_eq!(flight.last(1, |_| true)[0].status, 504);
    }
}
