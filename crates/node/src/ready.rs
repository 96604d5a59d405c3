//! Waiting for a descriptor that tokio has no type for: a terminal, an inotify queue.
#![allow(unsafe_code)] // `AsyncFd::register` asks its caller to keep the descriptor open.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

/// The descriptor, which must not block, as something to wait for.
pub fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` stays open and the same for as long as the `AsyncFd` that owns it, and is closed by
    // nobody else.
    Ok(unsafe { AsyncFd::register(fd) }?)
}
