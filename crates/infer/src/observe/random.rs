//! Random words for samples and ids: quick, one generator a thread, no secret.
//!
//! Not here: what is drawn (`access`, `trace`).

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};

thread_local! {
    static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(0));
}

/// A word.
pub(crate) fn word() -> u64 {
    // SplitMix64: a counter that is mixed until neighbours have nothing in common.
    let state = STATE.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    STATE.set(state);
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A share of all events, as a bound that a random word is held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share(u64);

impl Share {
    /// From 0 (nothing) to 1 (everything).
    pub(crate) fn new(share: f64) -> Self {
        // A float that is too large becomes the largest word.
        Self((share * 2_f64.powi(64)) as u64)
    }

    /// Whether an event with this random word belongs to the share.
    pub(crate) fn has(self, word: u64) -> bool {
        self.0 == u64::MAX || word < self.0
    }

    /// Draws.
    pub(crate) fn draw(self) -> bool {
        self.0 != 0 && self.has(word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_kept() {
        let drawn = |share| (0..100_000).filter(|_| Share::new(share).draw()).count();
        assert_eq!((drawn(0.0), drawn(1.0)), (0, 100_000));
        // Five standard deviations of 100,000 draws at 0.1 are 474.
        assert!(drawn(0.1).abs_diff(10_000) < 474, "{}", drawn(0.1));
    }
}
