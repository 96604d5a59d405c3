//! What a row costs, as it was measured.
//!
//! Nobody can tell from a graph how long a foreign library takes for it, and the server wants to know whether a call is
//! short. So the first calls are taken for long ones, and then the runs speak.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A row's nanoseconds before anything ran.
const UNKNOWN_NS: u64 = 1_000_000;

/// A moving mean.
#[derive(Debug)]
pub(crate) struct Cost(AtomicU64);

impl Cost {
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(UNKNOWN_NS))
    }

    /// Nanoseconds of a row.
    pub(crate) fn row_ns(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Counts a run. Two at once may lose one of both, which a mean survives.
    pub(crate) fn count(&self, took: Duration, rows: usize) {
        let own = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX) / rows.max(1) as u64;
        let old = self.0.load(Relaxed);
        self.0.store((old - old / 8).saturating_add(own / 8).max(1), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_goes_where_the_runs_are() {
        let cost = Cost::new();
        assert_eq!(cost.row_ns(), UNKNOWN_NS);
        (0..100).for_each(|_| cost.count(Duration::from_micros(80), 4));
        assert!((19_000..22_000).contains(&cost.row_ns()), "{}", cost.row_ns());
        cost.count(Duration::MAX, 0);
        assert!(cost.row_ns() > UNKNOWN_NS);
    }
}
