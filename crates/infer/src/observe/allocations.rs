//! A heap profile of the running process: who asked for the memory that was taken, and not given back, while it was
//! looked at.
//!
//! [`Allocator`] is the system's allocator with one question before it: is a profile being taken? While none is, that
//! is one load of a word that nobody writes, and nothing else is paid. While one is, each thread counts down the bytes
//! that it asks for, and at random points, on average every [`RATE`] bytes, the stack is walked and kept. What is given
//! back is looked for among what was kept; a table of small counters says of nearly all of it that it is not there.
//!
//! Memory from before the profile is in none: who holds it cannot be known any more.
//!
//! Not here: walking stacks (`profile`), names (`symbols`), sums of all memory (`heap`).
#![allow(unsafe_code)] // An allocator is unsafe by its trait. Each block has a note.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use super::profile::{Stacks, here};

/// Bytes between two samples, on average.
pub(super) const RATE: usize = 128 << 10;
/// Frames of a stack, at most: the innermost.
const FRAMES: usize = 64;
/// Stacks that are told apart, and samples that are followed until they are given back, at most.
const STACKS_MAX: usize = 16 << 10;
const LIVE_MAX: usize = 64 << 10;

/// The system's allocator, which can be asked who takes memory. A binary that wants heap profiles has it as its global
/// allocator.
#[derive(Debug, Default)]
pub struct Allocator;

static IS_ON: AtomicBool = AtomicBool::new(false);
static RECORDER: Mutex<Option<Recorder>> = Mutex::new(None);
/// Samples that came while another thread held the recorder.
static MISSED: AtomicU64 = AtomicU64::new(0);
/// How many followed places have this hash, as far as a byte counts; a full byte stays full.
static MAYBE: [AtomicU8; 1 << 16] = [const { AtomicU8::new(0) }; 1 << 16];

thread_local! {
    // Without destructors, so that they can be used whenever memory is, also when a thread ends.
    static LEFT: Cell<usize> = const { Cell::new(0) };
    static DRAWN: Cell<u64> = const { Cell::new(0) };
    /// This thread keeps a sample, and the memory for that is not to be sampled.
    static IS_INSIDE: Cell<bool> = const { Cell::new(false) };
}

// SAFETY: every call goes on to the system's allocator with the caller's own arguments, and its answer is passed on
// unchanged; what is done besides neither touches that memory nor unwinds.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise about the layout is passed on.
        let place = unsafe { System.alloc(layout) };
        if IS_ON.load(Ordering::Relaxed) {
            taken(place, layout.size());
        }
        place
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        let place = unsafe { System.alloc_zeroed(layout) };
        if IS_ON.load(Ordering::Relaxed) {
            taken(place, layout.size());
        }
        place
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // Before: afterwards another thread may have the same place.
        if IS_ON.load(Ordering::Relaxed) {
            given_back(place);
        }
        // SAFETY: the caller's promise that the place is ours and has this layout is passed on.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let is_on = IS_ON.load(Ordering::Relaxed);
        if is_on {
            given_back(place);
        }
        // SAFETY: as above.
        let new = unsafe { System.realloc(place, layout, size) };
        if is_on {
            taken(new, size);
        }
        new
    }
}

/// A share of the memory that one stack asked for.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    live: u64,
    live_bytes: u64,
    all: u64,
    all_bytes: u64,
}

#[derive(Default)]
struct Recorder {
    stacks: HashMap<Vec<usize>, usize>,
    tallies: Vec<Tally>,
    /// Samples that were not given back: their stack and size.
    live: HashMap<usize, (usize, usize)>,
}

fn missed() {
    MISSED.fetch_add(1, Ordering::Relaxed);
}

fn recorder() -> MutexGuard<'static, Option<Recorder>> {
    RECORDER.lock().unwrap_or_else(PoisonError::into_inner)
}

fn maybe(place: usize) -> &'static AtomicU8 {
    // Places are multiples of 16; the golden ratio spreads their upper bits.
    &MAYBE[((place >> 4) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) as usize >> 48]
}

/// Bytes until the next sample: exponentially distributed, so that no pattern of sizes hides from it.
fn next_gap() -> usize {
    let mut word = DRAWN.get();
    if word == 0 {
        // Each thread has its own beginning: where its variables lie.
        word = std::ptr::from_ref(&DRAWN).addr() as u64
            ^ LEFT.with(|left| std::ptr::from_ref(left).addr() as u64)
            | 1;
    }
    word ^= word << 13;
    word ^= word >> 7;
    word ^= word << 17;
    DRAWN.set(word);
    let share = ((word >> 11) + 1) as f64 / (1_u64 << 53) as f64;
    (-share.ln() * RATE as f64) as usize
}

fn taken(place: *mut u8, size: usize) {
    let left = LEFT.get();
    if size < left {
        return LEFT.set(left - size);
    }
    if place.is_null() || IS_INSIDE.get() {
        return;
    }
    LEFT.set(next_gap());
    keep(place.addr(), size);
}

#[cold]
#[inline(never)]
fn keep(place: usize, size: usize) {
    IS_INSIDE.set(true);
    // Whoever takes memory does not wait for a profile; a process that was forked off could wait for ever.
    let locked = match RECORDER.try_lock() {
        Ok(locked) => Some(locked),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    };
    match locked {
        Some(mut locked) => {
            if let Some(recorder) = &mut *locked {
                recorder.keep(place, size);
            }
        }
        None => missed(),
    }
    IS_INSIDE.set(false);
}

fn given_back(place: *mut u8) {
    if maybe(place.addr()).load(Ordering::Relaxed) != 0 && !IS_INSIDE.get() {
        forget(place.addr());
    }
}

#[cold]
#[inline(never)]
fn forget(place: usize) {
    IS_INSIDE.set(true);
    if let Some(recorder) = &mut *recorder() {
        recorder.forget(place);
    }
    IS_INSIDE.set(false);
}

impl Recorder {
    fn keep(&mut self, place: usize, size: usize) {
        let stack = here(FRAMES);
        let next = self.tallies.len();
        let index = match self.stacks.get(&stack) {
            Some(index) => *index,
            None if next < STACKS_MAX => {
                self.stacks.insert(stack, next);
                self.tallies.push(Tally::default());
                next
            }
            None => return missed(),
        };
        let tally = &mut self.tallies[index];
        tally.all += 1;
        tally.all_bytes += size as u64;
        if self.live.len() >= LIVE_MAX {
            return missed();
        }
        tally.live += 1;
        tally.live_bytes += size as u64;
        self.live.insert(place, (index, size));
        let _ = maybe(place).fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| count.checked_add(1));
    }

    fn forget(&mut self, place: usize) {
        let Some((index, size)) = self.live.remove(&place) else { return };
        let tally = &mut self.tallies[index];
        tally.live -= 1;
        tally.live_bytes -= size as u64;
        let fewer = |count: u8| (count < u8::MAX).then(|| count.saturating_sub(1));
        let _ = maybe(place).fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer);
    }
}

/// A profile that is being taken; one at a time in a process.
pub(super) struct Taking(());

/// Why none is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotTaken {
    /// Another one is.
    Busy,
    /// The process has another allocator.
    Unknown,
}

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    stacks: Vec<(Vec<usize>, Tally)>,
    pub(super) missed: u64,
}

impl Taking {
    pub(super) fn start() -> Result<Self, NotTaken> {
        // The unwinder's first walk may take memory for itself.
        drop(here(1));
        {
            let mut slot = recorder();
            if slot.is_some() {
                return Err(NotTaken::Busy);
            }
            *slot = Some(Recorder::default());
        }
        let taking = Self(());
        MAYBE.iter().for_each(|count| count.store(0, Ordering::Relaxed));
        MISSED.store(0, Ordering::Relaxed);
        // Whether the allocator is ours shows with the first sample, which is this one.
        IS_ON.store(true, Ordering::SeqCst);
        LEFT.set(0);
        drop(std::hint::black_box(Box::new([0_u8; 64])));
        let is_ours = LEFT.get() != 0;
        if is_ours { Ok(taking) } else { Err(NotTaken::Unknown) }
    }

    /// Stops and gives what was seen.
    pub(super) fn stop(self) -> Seen {
        IS_ON.store(false, Ordering::SeqCst);
        let Some(Recorder { stacks, tallies, .. }) = recorder().take() else { return Seen::default() };
        let stacks = stacks.into_iter().map(|(stack, index)| (stack, tallies[index])).collect();
        Seen { stacks, missed: MISSED.load(Ordering::Relaxed) }
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        IS_ON.store(false, Ordering::SeqCst);
        let gone = recorder().take();
        drop(gone);
    }
}

impl Seen {
    /// The text form of gperftools' heap profiler, which every `pprof` reads and scales up by the rate of samples.
    pub(super) fn to_pprof(&self, maps: &str) -> Vec<u8> {
        let mut text = String::new();
        let line = |text: &mut String, tally: &Tally| {
            let Tally { live, live_bytes, all, all_bytes } = tally;
            let _ = write!(text, "{live}: {live_bytes} [{all}: {all_bytes}] @");
        };
        let mut sum = Tally::default();
        for (_, tally) in &self.stacks {
            sum.live += tally.live;
            sum.live_bytes += tally.live_bytes;
            sum.all += tally.all;
            sum.all_bytes += tally.all_bytes;
        }
        text.push_str("heap profile: ");
        line(&mut text, &sum);
        let _ = writeln!(text, " heap_v2/{RATE}");
        for (stack, tally) in &self.stacks {
            line(&mut text, tally);
            for address in stack {
                let _ = write!(text, " {address:#x}");
            }
            text.push('\n');
        }
        text.push_str("\nMAPPED_LIBRARIES:\n");
        text.push_str(maps);
        text.into_bytes()
    }

    /// The stacks by the bytes that they hold, scaled up.
    pub(super) fn held(&self) -> Stacks {
        let held = |tally: &Tally| {
            let mean = tally.live_bytes as f64 / tally.live as f64;
            // A place of so many bytes has a sample in it with this probability.
            (tally.live_bytes as f64 / (1.0 - (-mean / RATE as f64).exp())) as usize
        };
        let all = self.stacks.iter().filter(|(_, tally)| tally.live > 0);
        Stacks(all.map(|(stack, tally)| (stack.clone(), held(tally))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_exponential_around_the_rate() {
        let gaps: Vec<usize> = (0..20_000).map(|_| next_gap()).collect();
        let mean = gaps.iter().sum::<usize>() / gaps.len();
        // Five standard deviations of the mean are some 3.5 %.
        assert!(mean.abs_diff(RATE) < RATE / 25, "{mean}");
        let short = gaps.iter().filter(|gap| **gap < RATE).count();
        assert!(short.abs_diff(12_642) < 400, "1 - 1/e of 20,000: {short}");
    }

    #[test]
    fn what_is_given_back_is_no_longer_live() {
        let mut recorder = Recorder::default();
        recorder.keep(0x1000, 100);
        recorder.keep(0x2000, 50);
        recorder.forget(0x1000);
        recorder.forget(0x3000);
        let sum = |recorder: &Recorder, of: fn(&Tally) -> u64| recorder.tallies.iter().map(of).sum::<u64>();
        assert_eq!((sum(&recorder, |tally| tally.live), sum(&recorder, |tally| tally.live_bytes)), (1, 50));
        assert_eq!((sum(&recorder, |tally| tally.all), sum(&recorder, |tally| tally.all_bytes)), (2, 150));
        recorder.forget(0x2000);
        assert_eq!(sum(&recorder, |tally| tally.live), 0);
    }

    #[test]
    fn a_profile_is_pprofs_text_and_its_bytes_are_scaled_up() {
        let tally = Tally { live: 2, live_bytes: 64, all: 5, all_bytes: 160 };
        let seen = Seen { stacks: vec![(vec![0x10, 0x20], tally)], missed: 0 };
        let text = String::from_utf8(seen.to_pprof("maps")).expect("text");
        assert_eq!(
            text,
            "heap profile: 2: 64 [5: 160] @ heap_v2/131072\n2: 64 [5: 160] @ 0x10 0x20\n\nMAPPED_LIBRARIES:\nmaps"
        );
        let held = seen.held().0[&vec![0x10, 0x20]];
        // Two of 32 bytes stand for as many bytes as lie between samples, each.
        assert!(held.abs_diff(2 * RATE) < RATE / 100, "{held}");
    }

    #[test]
    fn a_process_with_another_allocator_has_no_profile() {
        assert_eq!(Taking::start().err(), Some(NotTaken::Unknown));
    }
}
