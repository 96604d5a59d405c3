//! Where the calls of a connection run.
//!
//! A few calls at a time stay on the connection's own event loop, where nothing wakes another thread. When many are
//! under way they go round all loops: reading, evaluating and writing then use every core, and only the framing
//! stays where the connection is.
//!
//! Not here: long evaluations, which leave the loops altogether (`compute`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use futures::FutureExt;
use hyper::rt::Executor;
use tokio::runtime::Handle;

/// From so many calls under way on, they are spread.
const SPREAD_FROM: usize = 8;

/// The server's event loops.
#[derive(Clone, Default)]
pub(crate) struct Loops(Arc<[Handle]>);

impl Loops {
    pub(crate) fn new(handles: Vec<Handle>) -> Self {
        Self(handles.into())
    }

    /// The executor of one connection, whose calls it counts.
    pub(super) fn of_connection(&self, calls: Arc<AtomicUsize>) -> Spread {
        Spread { loops: self.0.clone(), calls, next: Arc::default() }
    }
}

/// Runs a connection's calls.
#[derive(Clone)]
pub(super) struct Spread {
    loops: Arc<[Handle]>,
    calls: Arc<AtomicUsize>,
    next: Arc<AtomicUsize>,
}

/// Counts a call down however it ends.
struct Under(Arc<AtomicUsize>);

impl Drop for Under {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl<F> Executor<F> for Spread
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, call: F) {
        let under = Under(self.calls.clone());
        let count = self.calls.fetch_add(1, Relaxed);
        // Not an async block, into which the call would be moved twice.
        let call = call.map(move |_| drop(under));
        if count < SPREAD_FROM || self.loops.len() < 2 {
            tokio::spawn(call);
            return;
        }
        let place = self.next.fetch_add(1, Relaxed) % self.loops.len();
        self.loops[place].spawn(call);
    }
}
