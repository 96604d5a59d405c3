//! How many rows may wait, found by how long they wait.
//!
//! A queue that is long for a moment absorbs a burst; one that never empties only makes everybody late. So the shortest
//! wait in each interval counts: where even that is longer than it should be, the limit is cut by a fifth, and where the
//! limit turned calls away although the wait is short, it grows (additive increase, multiplicative decrease).
//!
//! Pure: the clock comes in. Not here: the configured bounds (`former`).

use std::time::{Duration, Instant};

/// Over so long the shortest wait is looked for.
const INTERVAL: Duration = Duration::from_millis(100);
/// What a cut leaves.
const CUT: f64 = 0.8;
/// What the limit grows by in an interval in which it was felt.
const GROWTH: f64 = 1.1;

/// A limit in rows.
#[derive(Debug, Clone)]
pub(crate) struct Limiter {
    limit: f64,
    rows_min: f64,
    rows_max: f64,
    begun: Option<Instant>,
    shortest: Option<Duration>,
    was_felt: bool,
}

impl Limiter {
    /// A limit that begins at its highest.
    pub(crate) fn new(rows_min: usize, rows_max: usize) -> Self {
        let rows_max = rows_max.max(rows_min) as f64;
        Self {
            limit: rows_max,
            rows_min: rows_min as f64,
            rows_max,
            begun: None,
            shortest: None,
            was_felt: false,
        }
    }

    /// Rows that may wait now.
    pub(crate) fn limit(&self) -> usize {
        self.limit as usize
    }

    /// Says whether so many more rows may wait beside those that do.
    pub(crate) fn admits(&mut self, waiting: usize, rows: usize) -> bool {
        let is_in = waiting == 0 || waiting.saturating_add(rows) <= self.limit();
        self.was_felt |= !is_in;
        is_in
    }

    /// Learns how long the call had waited that a batch began with, and what that may be. `rows` were waiting before the
    /// batch was taken.
    pub(crate) fn began(&mut self, waited: Duration, wait_max: Duration, rows: usize, now: Instant) {
        let begun = *self.begun.get_or_insert(now);
        self.shortest = Some(self.shortest.map_or(waited, |shortest| shortest.min(waited)));
        if now.saturating_duration_since(begun) < INTERVAL {
            return;
        }
        let is_long = self.shortest.is_some_and(|shortest| shortest > wait_max);
        if is_long {
            // What waits is what made it long, also where the limit was never reached.
            self.limit = (self.limit.min(rows as f64) * CUT).max(self.rows_min);
        } else if self.was_felt {
            self.limit = (self.limit * GROWTH + 1.0).min(self.rows_max);
        }
        (self.begun, self.shortest, self.was_felt) = (Some(now), None, false);
    }

    /// The queue ran empty, so nothing waited too long.
    pub(crate) fn emptied(&mut self) {
        self.shortest = Some(Duration::ZERO);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A model that runs so many rows a second, offered more, for so many seconds; the wait and the limit at the end.
    fn offered(per_second: usize, offered: usize, seconds: usize) -> (Duration, usize) {
        let mut limiter = Limiter::new(16, 100_000);
        let (start, mut waiting) = (Instant::now(), 0_usize);
        let mut wait = Duration::ZERO;
        for tick in 0..seconds * 100 {
            for _ in 0..offered / 100 {
                waiting += usize::from(limiter.admits(waiting, 1));
            }
            let now = start + Duration::from_millis(10 * tick as u64);
            wait = Duration::from_secs_f64(waiting as f64 / per_second as f64);
            limiter.began(wait, Duration::from_millis(500), waiting, now);
            waiting = waiting.saturating_sub(per_second / 100);
            if waiting == 0 {
                limiter.emptied();
            }
        }
        (wait, limiter.limit())
    }

    #[test]
    fn a_queue_that_never_empties_is_cut_until_its_wait_is_bearable() {
        for per_second in [200, 5_000] {
            let (wait, limit) = offered(per_second, 2 * per_second, 60);
            assert!(wait < Duration::from_millis(700), "{per_second}: {wait:?} at {limit} rows");
            assert!(wait > Duration::from_millis(200), "{per_second}: {wait:?} leaves the model idle");
        }
    }

    #[test]
    fn a_queue_that_empties_keeps_its_limit() {
        assert_eq!(offered(5_000, 4_900, 20).1, 100_000);
    }

    #[test]
    fn an_empty_queue_takes_any_call() {
        assert!(Limiter::new(1, 1).admits(0, 1000));
    }
}
