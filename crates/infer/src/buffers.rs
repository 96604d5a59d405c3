//! Buffers for reading requests: a connection has one while it has something to say.
//!
//! Thousands of connections of which most are idle are what a gateway holds; their buffers would be most of the
//! server's memory. A few are kept on each thread, so that the busy ones do not ask the allocator.
//!
//! Not here: reading (`connection`).

use std::cell::RefCell;

/// Bytes of a buffer.
pub(crate) const SIZE: usize = 8 << 10;
/// Kept on each thread, at most.
const KEPT_MAX: usize = 64;

thread_local! {
    static KEPT: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer of [`SIZE`] bytes with anything in it.
pub(crate) fn take() -> Vec<u8> {
    KEPT.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; SIZE])
}

/// Takes a buffer back; one that has grown goes.
pub(crate) fn give_back(buffer: Vec<u8>) {
    if buffer.len() != SIZE {
        return;
    }
    KEPT.with_borrow_mut(|kept| {
        if kept.len() < KEPT_MAX {
            kept.push(buffer);
        }
    });
}
