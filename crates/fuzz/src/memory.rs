//! How much memory an input took at its height.
#![allow(
    unsafe_code,
    reason = "counting allocations needs an allocator of its own, and that is an unsafe trait"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The system's allocator, counted.
#[derive(Debug)]
pub struct Counted;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator with the caller's own arguments, so that its promises are kept by
// those of `System`; the counting allocates nothing.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(live, Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(live, Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promises are passed on, and what is freed here came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Begins to look for the height.
pub fn begin() {
    PEAK.store(LIVE.load(Relaxed), Relaxed);
}

/// Bytes at the height since [`begin`], over what there was then; 0 where the allocator is another.
pub fn taken(before: usize) -> usize {
    PEAK.load(Relaxed).saturating_sub(before)
}

/// Bytes that are allocated.
pub fn live() -> usize {
    LIVE.load(Relaxed)
}
