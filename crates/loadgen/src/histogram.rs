//! Latencies in buckets that grow with the value: 128 to each power of two, so within 0.8 % at any size.
//!
//! Recording is an index and an addition; the size is fixed. Not here: what was recorded (`plan`).

use std::time::Duration;

/// Buckets within a power of two.
const STEPS: u64 = 128;
const STEPS_LOG2: u32 = STEPS.ilog2();
/// Enough for every `u64`.
const BUCKETS: usize = (STEPS as usize) * (64 - STEPS_LOG2 as usize + 1);

/// How often each latency was seen.
#[derive(Debug, Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    min_ns: u64,
    max_ns: u64,
    sum_ns: u128,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0, min_ns: u64::MAX, max_ns: 0, sum_ns: 0 }
    }
}

fn bucket(ns: u64) -> usize {
    if ns < STEPS {
        return ns as usize;
    }
    let shift = ns.ilog2() - STEPS_LOG2;
    (u64::from(shift) * STEPS + (ns >> shift)) as usize
}

/// The greatest value of a bucket.
fn upper(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < 2 * STEPS {
        return bucket;
    }
    let shift = bucket / STEPS - 1;
    let step = bucket % STEPS + STEPS;
    // The last bucket ends where `u64` does.
    ((u128::from(step + 1) << shift) - 1).min(u128::from(u64::MAX)) as u64
}

impl Histogram {
    /// Counts one latency.
    pub fn record(&mut self, ns: u64) {
        self.counts[bucket(ns)] += 1;
        self.total += 1;
        self.min_ns = self.min_ns.min(ns);
        self.max_ns = self.max_ns.max(ns);
        self.sum_ns += u128::from(ns);
    }

    /// Adds what another one counted.
    pub fn add(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(own, count)| *own += count);
        self.total += other.total;
        self.min_ns = self.min_ns.min(other.min_ns);
        self.max_ns = self.max_ns.max(other.max_ns);
        self.sum_ns += other.sum_ns;
    }

    /// How many were counted.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The smallest value that this share (0 to 1) of all does not exceed; zero when there are none.
    pub fn quantile(&self, share: f64) -> Duration {
        let rank = ((share * self.total as f64).ceil() as u64).clamp(1, self.total.max(1));
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_nanos(upper(index).min(self.max_ns));
            }
        }
        Duration::ZERO
    }

    /// The greatest.
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.max_ns)
    }

    /// The mean; zero when there are none.
    pub fn mean(&self) -> Duration {
        Duration::from_nanos(u64::try_from(self.sum_ns / u128::from(self.total.max(1))).unwrap_or(u64::MAX))
    }

    /// What share of all is within a latency.
    pub fn share_within(&self, latency: Duration) -> f64 {
        let ns = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        let within: u64 = self.counts[..=bucket(ns)].iter().sum();
        within as f64 / self.total.max(1) as f64
    }

    /// Bars from the smallest to the greatest value, at most `lines` of them: upper edge, share, count.
    pub fn bars(&self, lines: usize) -> Vec<(Duration, f64, u64)> {
        if self.total == 0 || lines == 0 {
            return Vec::new();
        }
        // Equal steps of the logarithm, so that the tail shows beside the body.
        let (low, high) = ((self.min_ns.max(1) as f64).ln(), (self.max_ns.max(2) as f64).ln());
        let step = ((high - low) / lines as f64).max(1e-9);
        let mut counts = vec![0_u64; lines];
        for (index, count) in self.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let place = ((upper(index).max(1) as f64).ln() - low) / step;
            counts[(place as usize).min(lines - 1)] += count;
        }
        let bar = |(line, count): (usize, u64)| {
            let edge = (low + step * (line + 1) as f64).exp() as u64;
            (Duration::from_nanos(edge), count as f64 / self.total as f64, count)
        };
        counts.into_iter().enumerate().map(bar).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bucket_within_a_hundredth() {
        for ns in [0, 1, 127, 128, 129, 255, 256, 257, 1000, 123_456_789, 1 << 40, u64::MAX - 1, u64::MAX] {
            let edge = upper(bucket(ns));
            assert!(edge >= ns, "{ns} above {edge}");
            assert!((edge - ns) as f64 <= ns as f64 * 0.008, "{ns} is far from {edge}");
            assert!(bucket(edge) == bucket(ns) && (edge == u64::MAX || bucket(edge + 1) == bucket(ns) + 1));
        }
    }

    #[test]
    fn quantiles_are_those_of_the_sorted_values() {
        let mut histogram = Histogram::default();
        (1..=1000_u64).for_each(|us| histogram.record(us * 1000));
        for (share, us) in [(0.5, 500.0), (0.9, 900.0), (0.99, 990.0), (0.999, 999.0), (1.0, 1000.0)] {
            let got = histogram.quantile(share).as_nanos() as f64 / 1000.0;
            assert!((got - us).abs() <= us * 0.008, "{share}: {got}");
        }
        assert_eq!(histogram.max(), Duration::from_millis(1));
        assert_eq!(histogram.mean(), Duration::from_nanos(500_500));
        assert!((histogram.share_within(Duration::from_micros(250)) - 0.25).abs() < 0.01);
        assert_eq!(histogram.bars(8).iter().map(|bar| bar.2).sum::<u64>(), 1000);
        assert_eq!(Histogram::default().quantile(0.99), Duration::ZERO);
    }
}
