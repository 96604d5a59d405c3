//! The allocator of tests that count what is allocated and not yet freed, which no noise of the system changes.
#![allow(
    unsafe_code,
    reason = "counting allocations needs an allocator of its own, and that is an unsafe trait"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The system's allocator, counted.
struct Counted;

static LIVE: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static COUNTED: Counted = Counted;

// SAFETY: every call goes to the system's allocator with the caller's own arguments, so that its promises are kept by
// those of `System`; the counting allocates nothing.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promises are passed on, and what is freed here came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Bytes that are allocated.
pub fn live() -> usize {
    LIVE.load(Relaxed)
}
