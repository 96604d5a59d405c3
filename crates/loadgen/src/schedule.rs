//! When requests are due.
//!
//! The times follow from the rate alone and never from the answers. Even gaps ask what a steady source sees;
//! Poisson's gaps, the default, are what many independent callers make, bursts included.
//!
//! Not here: the clock (`drive`).

/// How arrivals are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Spacing {
    /// Independent callers: exponential gaps.
    #[default]
    Poisson,
    /// The same gap every time.
    Even,
}

/// Times of arrivals, in nanoseconds since the start; endless.
#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    gap_ns: f64,
    spacing: Spacing,
    at_ns: f64,
    state: u64,
}

impl Schedule {
    /// `rate` is requests a second, and positive.
    pub(crate) fn new(rate: f64, spacing: Spacing, seed: u64) -> Self {
        debug_assert!(rate > 0.0);
        Self { gap_ns: 1e9 / rate, spacing, at_ns: 0.0, state: seed }
    }

    /// A number in (0, 1]: SplitMix64, whose whole state is one word.
    fn uniform(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        ((bits >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }

    /// The next arrival; never before the last one.
    pub(crate) fn next_ns(&mut self) -> u64 {
        let at = self.at_ns;
        self.at_ns += match self.spacing {
            Spacing::Even => self.gap_ns,
            Spacing::Poisson => -self.uniform().ln() * self.gap_ns,
        };
        at as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_keep_the_rate_and_their_order() {
        for spacing in [Spacing::Even, Spacing::Poisson] {
            let mut schedule = Schedule::new(10_000.0, spacing, 7);
            let times: Vec<u64> = (0..100_000).map(|_| schedule.next_ns()).collect();
            assert!(times.is_sorted(), "{spacing:?}");
            // Ten seconds' worth; a Poisson count has a deviation of 0.3 %.
            let seconds = *times.last().expect("some") as f64 / 1e9;
            assert!((seconds - 10.0).abs() < 0.2, "{spacing:?}: {seconds}");
        }
    }

    #[test]
    fn poissons_gaps_are_exponential() {
        let mut schedule = Schedule::new(1e6, Spacing::Poisson, 3);
        let mut last = schedule.next_ns();
        let mut long = 0;
        for _ in 0..100_000 {
            let next = schedule.next_ns();
            long += u32::from(next - last > 2000);
            last = next;
        }
        // e^-2 of the gaps are longer than twice the mean.
        assert!((f64::from(long) / 100_000.0 - 0.1353).abs() < 0.01, "{long}");
    }
}
