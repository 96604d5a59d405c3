//! Which code an input reached.
//!
//! Code that is compiled with `-C instrument-coverage` counts how often each of its regions is entered, in a section
//! of the process that the linker names. Here that section is set to zero before an input and looked through after it.
//! What is new is a region that was never reached, one that was entered a new order of magnitude of times, or a new
//! pattern of reached and not reached ones among neighbours: the compiler leaves out counters whose number follows from
//! others, so that the way past an early return shows only in that the return was not taken.
#![allow(unsafe_code, reason = "the compiler's counters are memory that no Rust value owns")]

/// What all inputs together reached.
#[derive(Debug, Default)]
pub struct Reached {
    /// For each region the orders of magnitude that were seen, as bits.
    seen: Vec<u8>,
    /// A bit for each hash of a pattern.
    patterns: Vec<u64>,
    regions: usize,
}

/// What is new about an input.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct News {
    /// A region that was never reached.
    pub region: bool,
    /// A region that was entered a new order of magnitude of times.
    pub count: bool,
    /// A pattern among neighbours.
    pub pattern: bool,
}

/// Bits for patterns. Two that share one cost an input that would have been kept, no more.
const PATTERNS: usize = 1 << 22;

impl Reached {
    /// How many regions were reached.
    pub fn regions(&self) -> usize {
        self.regions
    }

    /// How many there are; 0 where the program was compiled without coverage.
    pub fn regions_max() -> usize {
        counters::all().len()
    }

    /// Sets all counters to zero.
    pub fn begin() {
        counters::clear();
    }

    /// Takes in what was reached since [`Reached::begin`].
    pub fn end(&mut self) -> News {
        let counters = counters::all();
        self.seen.resize(counters.len(), 0);
        self.patterns.resize(PATTERNS / 64, 0);
        let (mut news, mut pattern) = (News::default(), 0_u16);
        for (place, (seen, counter)) in self.seen.iter_mut().zip(counters).enumerate() {
            let count = counters::value(counter);
            pattern = pattern << 1 | u16::from(count > 0);
            if place % 4 == 3 && pattern != 0 {
                let hash = (place as u64) << 16 | u64::from(pattern);
                let bit = (hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 42) as usize % PATTERNS;
                let word = &mut self.patterns[bit / 64];
                news.pattern |= *word >> (bit % 64) & 1 == 0;
                *word |= 1 << (bit % 64);
            }
            if count == 0 {
                continue;
            }
            let bit = magnitude(count);
            if *seen & bit == 0 {
                news.count = true;
                news.region |= *seen == 0;
                self.regions += usize::from(*seen == 0);
                *seen |= bit;
            }
        }
        news
    }
}

/// 1, 2, 3, 4 to 7, 8 to 15, to 31, to 127, more: a loop that turns once more is rarely something new.
fn magnitude(count: u64) -> u8 {
    match count {
        0..=1 => 1,
        2 => 2,
        3 => 4,
        4..8 => 8,
        8..16 => 16,
        16..32 => 32,
        32..128 => 64,
        128.. => 128,
    }
}

#[cfg(slipway_coverage)]
mod counters {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    unsafe extern "C" {
        #[link_name = "__start___llvm_prf_cnts"]
        static START: AtomicU64;
        #[link_name = "__stop___llvm_prf_cnts"]
        static STOP: AtomicU64;
    }

    /// The program's counters.
    pub(super) fn all() -> &'static [AtomicU64] {
        // SAFETY: the linker puts the two names at the ends of one section, which consists of counters of eight bytes
        // and lives as long as the process. Instrumented code changes them while they are read here, on this thread
        // only between two reads; as atomics they may be shared with any other.
        unsafe {
            let (start, stop) = (&raw const START, &raw const STOP);
            std::slice::from_raw_parts(start, (stop.addr() - start.addr()) / size_of::<AtomicU64>())
        }
    }

    pub(super) fn value(counter: &AtomicU64) -> u64 {
        counter.load(Relaxed)
    }

    pub(super) fn clear() {
        all().iter().for_each(|counter| counter.store(0, Relaxed));
    }
}

#[cfg(not(slipway_coverage))]
mod counters {
    pub(super) fn all() -> &'static [u64] {
        &[]
    }

    pub(super) fn value(counter: &u64) -> u64 {
        *counter
    }

    pub(super) fn clear() {}
}
