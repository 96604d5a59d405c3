//! How large a batch pays, learnt from the batches that ran.
//!
//! A network reads its weights once for a batch however many rows there are, a forest walks its trees for each row: the
//! first gains from batches, the second makes everybody wait for the last. Times are kept by classes of size, each twice
//! the one before, and a class is used as long as a row in it costs clearly less than in the class below. A class that
//! was never tried is tried when the one below is known, and what was found not to pay is tried again now and then.
//!
//! Pure: times come in as numbers. Not here: which calls (`former`).

use std::time::Duration;

/// Classes of 1, 2, 3-4, 5-8, … rows; the last is of all that is more.
pub(crate) const CLASSES: usize = 13;
/// A class pays when a row costs at most this share of what it costs in the class below.
const GAIN: f64 = 0.93;
/// How much the last batch counts against those before.
const WEIGHT: f64 = 0.25;
/// How much it counts where it was far quicker.
const TRUST: f64 = 0.75;
/// A batch that took so many times what was expected counts as no more, and one of less than this part is far quicker.
const FAR: f64 = 1.5;
/// One in so many batches may be one class larger than pays.
const TRY_EVERY: u64 = 64;

/// One class.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    /// Mean nanoseconds of a row; 0 where there was no batch.
    row_ns: f64,
}

/// What batches of a model cost.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cost {
    classes: [Seen; CLASSES],
    batches: u64,
}

/// The class of a number of rows.
pub(crate) fn class(rows: usize) -> usize {
    (rows.max(1).next_power_of_two().trailing_zeros() as usize).min(CLASSES - 1)
}

impl Cost {
    /// Learns from a batch.
    pub(crate) fn ran(&mut self, rows: usize, time: Duration) {
        self.batches += 1;
        let row_ns = (time.as_nanos() as f64 / rows.max(1) as f64).max(1.0);
        let seen = &mut self.classes[class(rows)];
        let was = seen.row_ns;
        seen.row_ns = match was {
            0.0 => row_ns,
            // Whatever the machine does beside it only makes a batch slower: a quick one is the model's own time.
            _ if row_ns < was / FAR => was + TRUST * (row_ns - was),
            _ => was + WEIGHT * (row_ns.min(was * FAR) - was),
        };
    }

    /// Rows up to which a batch pays, at most `rows_max`, in at most `time_max`.
    pub(crate) fn rows(&self, rows_max: usize, time_max: Option<Duration>) -> usize {
        let mut best = 0;
        let mut tries = self.batches % TRY_EVERY == TRY_EVERY - 1;
        for next in 1..CLASSES {
            let (below, above) = (self.classes[best].row_ns, self.classes[next].row_ns);
            if below == 0.0 {
                break;
            }
            let pays = above == 0.0 || above <= GAIN * below;
            if !pays && !std::mem::take(&mut tries) {
                break;
            }
            best = next;
            if above == 0.0 {
                break;
            }
        }
        let in_time = |class: &usize| {
            let time = self.time(1 << class);
            time_max.is_none_or(|max| time.is_none_or(|time| time <= max))
        };
        let best = (0..=best).rev().find(in_time).unwrap_or(0);
        (1_usize << best).min(rows_max).max(1)
    }

    /// How long a batch of so many rows takes; `None` before there was one.
    pub(crate) fn time(&self, rows: usize) -> Option<Duration> {
        let class = class(rows);
        // The next smaller one that is known says the most that it should be, the next larger one the least.
        let below = self.classes[..=class].iter().rev().find(|seen| seen.row_ns > 0.0);
        let seen = below.or_else(|| self.classes.iter().find(|seen| seen.row_ns > 0.0))?;
        Some(Duration::from_nanos((seen.row_ns * rows as f64) as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs batches as large as they pay, on a model that takes so long for a batch and for each row.
    fn settled(batch_us: u64, row_us: u64) -> Cost {
        let mut cost = Cost::default();
        for _ in 0..200 {
            let rows = cost.rows(1000, None);
            cost.ran(rows, Duration::from_micros(batch_us + row_us * rows as u64));
        }
        cost
    }

    #[test]
    fn batches_grow_as_long_as_they_pay() {
        for (batch_us, row_us, want) in [(0, 1000, 1), (4000, 700, 64), (1000, 10, 1024), (50, 1000, 1)] {
            let rows = settled(batch_us, row_us).rows(10_000, None);
            assert!(rows >= want / 2 && rows <= want * 2, "{batch_us} + {row_us} a row: {rows}, not {want}");
        }
    }

    #[test]
    fn a_batch_is_no_longer_than_it_may_take() {
        let cost = settled(4000, 700);
        let rows = cost.rows(1000, Some(Duration::from_millis(16)));
        assert_eq!(rows, 16, "64 rows take 49 ms, 16 take 15");
        assert_eq!(cost.rows(1000, Some(Duration::from_micros(1))), 1, "one row has to run some time");
        assert_eq!(cost.rows(3, None), 3);
    }

    #[test]
    fn a_model_that_changes_is_learnt_anew() {
        let mut cost = settled(0, 1000);
        for _ in 0..2000 {
            let rows = cost.rows(1000, None);
            cost.ran(rows, Duration::from_micros(4000 + 100 * rows as u64));
        }
        assert!(cost.rows(1000, None) >= 64, "{}", cost.rows(1000, None));
    }

    #[test]
    fn a_batch_that_the_machine_interrupted_does_not_look_like_the_model() {
        let mut cost = settled(4000, 100);
        let rows = cost.rows(1000, None);
        let quick = Duration::from_micros(4000 + 100 * rows as u64 / 4);
        cost.ran(rows / 4, Duration::from_secs(1));
        assert_eq!(cost.rows(1000, None), rows);
        for _ in 0..20 {
            cost.ran(rows / 4, Duration::from_secs(1));
        }
        assert!(cost.rows(1000, None) < rows / 4, "what is always slow is slow");
        for _ in 0..6 {
            cost.ran(rows / 4, quick);
        }
        assert_eq!(cost.rows(1000, None), rows, "a few batches tell that it is over");
    }

    #[test]
    fn times_are_told_for_any_size_once_one_is_known() {
        assert_eq!(Cost::default().time(8), None);
        let mut cost = Cost::default();
        cost.ran(4, Duration::from_millis(8));
        assert_eq!(cost.time(1), Some(Duration::from_millis(2)));
        assert_eq!(cost.time(64), Some(Duration::from_millis(128)));
    }
}
