//! Which code an input reached.
//!
//! LLVM's coverage pass (scripts/fuzz-rustc.sh) gives each edge between basic blocks a counter of one byte, in a section
//! of the process that the linker names. What is new about an input is an edge that was never taken, or one that was
//! taken a new order of magnitude of times.
//!
//! Not here: what was compared on the way (`compared`).
#![allow(unsafe_code, reason = "the compiler's counters are memory that no Rust value owns")]

/// What all inputs together reached.
#[derive(Debug, Default)]
pub struct Reached {
    /// For each edge the orders of magnitude that were seen, as bits.
    seen: Vec<u8>,
    /// In how many runs each edge was taken.
    runs: Vec<u32>,
    edges: usize,
    last: Vec<Taken>,
}

/// An edge and the order of magnitude of times that it was taken, as a bit.
pub type Taken = (u32, u8);

/// What is new about an input.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct News {
    /// What of its edges is new.
    pub taken: Vec<Taken>,
    /// Whether one of them was never taken before.
    pub edge: bool,
}

impl Reached {
    /// How many edges were taken.
    pub fn edges(&self) -> usize {
        self.edges
    }

    /// How many there are; 0 where the program was compiled without coverage.
    pub fn edges_max() -> usize {
        counters::count()
    }

    /// Forgets what was counted since the last [`Reached::end`].
    pub fn begin() {
        counters::drain(|_, _| ());
    }

    /// Takes in what was counted since [`Reached::begin`] or the last call of this.
    pub fn end(&mut self) -> News {
        let edges = counters::count();
        self.seen.resize(edges, 0);
        self.runs.resize(edges, 0);
        self.last.clear();
        let mut news = News::default();
        counters::drain(|place, count| {
            let bit = magnitude(count);
            self.last.push((place as u32, bit));
            let (seen, runs) = (&mut self.seen[place], &mut self.runs[place]);
            *runs = runs.saturating_add(1);
            if *seen & bit == 0 {
                news.taken.push((place as u32, bit));
                news.edge |= *seen == 0;
                self.edges += usize::from(*seen == 0);
                *seen |= bit;
            }
        });
        news
    }

    /// The edges of the last run.
    pub fn last(&self) -> &[Taken] {
        &self.last
    }

    /// Whether the last run took all of these, which are sorted by edge.
    pub fn last_has(&self, wanted: &[Taken]) -> bool {
        wanted.iter().all(|one| self.last.binary_search(one).is_ok())
    }

    /// In how many runs the rarest of these edges was taken.
    pub fn rarest(&self, taken: &[Taken]) -> u32 {
        taken.iter().map(|(edge, _)| self.runs[*edge as usize]).min().unwrap_or(u32::MAX)
    }
}

/// 1, 2, 3, 4 to 7, 8 to 15, to 31, to 127, more: a loop that turns once more is rarely something new.
fn magnitude(count: u8) -> u8 {
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
    use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

    unsafe extern "C" {
        #[link_name = "__start___sancov_cntrs"]
        static START: AtomicU8;
        #[link_name = "__stop___sancov_cntrs"]
        static STOP: AtomicU8;
    }

    fn all() -> &'static [AtomicU8] {
        // SAFETY: the linker puts the two names at the ends of one section, which consists of counters of one byte and
        // lives as long as the process. Instrumented code changes them, on this thread only between two reads here; as
        // atomics they may be shared with any other.
        unsafe {
            let (start, stop) = (&raw const START, &raw const STOP);
            std::slice::from_raw_parts(start, stop.addr() - start.addr())
        }
    }

    pub(super) fn count() -> usize {
        all().len()
    }

    /// Sets all counters to zero and tells which were not.
    pub(super) fn drain(mut tell: impl FnMut(usize, u8)) {
        let all = all();
        // SAFETY: eight counters are as well one number of eight bytes; nearly all of them are zero.
        let (head, words, tail) = unsafe { all.align_to::<AtomicU64>() };
        let mut one = |place: usize, counter: &AtomicU8| {
            let count = counter.load(Relaxed);
            if count > 0 {
                tell(place, count);
                counter.store(0, Relaxed);
            }
        };
        head.iter().enumerate().for_each(|(place, counter)| one(place, counter));
        for (index, word) in words.iter().enumerate() {
            if word.load(Relaxed) != 0 {
                let at = head.len() + index * 8;
                all[at..at + 8].iter().enumerate().for_each(|(place, counter)| one(at + place, counter));
            }
        }
        let at = all.len() - tail.len();
        tail.iter().enumerate().for_each(|(place, counter)| one(at + place, counter));
    }

    /// Called by each instrumented object when the process starts; the section's own ends say all of it.
    #[unsafe(no_mangle)]
    extern "C" fn __sanitizer_cov_8bit_counters_init(_start: *mut u8, _stop: *mut u8) {}
}

#[cfg(not(slipway_coverage))]
mod counters {
    pub(super) fn count() -> usize {
        0
    }

    pub(super) fn drain(_tell: impl FnMut(usize, u8)) {}
}
