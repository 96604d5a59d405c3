//! That the server is about to end: said once, and heard by whoever waits for anything.
//!
//! A cancellation token takes a lock for each look at it, and more to wait for it. Every connection waits for it with
//! every message, so a look is a load here, and a connection registers once.
//!
//! Not here: what ends in which order (`server`).

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// A word that is said once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop {
    is_said: Arc<AtomicBool>,
    token: CancellationToken,
}

impl Stop {
    /// Says it; everybody who waits is woken.
    pub(crate) fn say(&self) {
        self.is_said.store(true, Ordering::Release);
        self.token.cancel();
    }

    /// Whether it was said.
    pub(crate) fn is_said(&self) -> bool {
        self.is_said.load(Ordering::Acquire)
    }

    /// Waits until it is said.
    pub(crate) async fn said(&self) {
        self.token.cancelled().await;
    }

    /// The same word for another thread: who waits there meets nobody who waits here on a lock.
    pub(crate) fn elsewhere(&self) -> Self {
        Self { is_said: self.is_said.clone(), token: self.token.child_token() }
    }

    /// For a task that waits for it again and again.
    pub(crate) fn ear(self) -> Ear {
        Ear { stop: self, waits: None }
    }
}

/// A task's way to hear of it.
pub(crate) struct Ear {
    stop: Stop,
    /// What wakes the task, and which task.
    waits: Option<(Pin<Box<WaitForCancellationFutureOwned>>, Waker)>,
}

impl Ear {
    /// Ready once it was said; until then the task is woken when it is.
    pub(crate) fn poll(&mut self, poller: &mut Context<'_>) -> Poll<()> {
        if self.stop.is_said() {
            return Poll::Ready(());
        }
        if self.waits.as_ref().is_some_and(|(_, waker)| waker.will_wake(poller.waker())) {
            return Poll::Pending;
        }
        let mut waits = Box::pin(self.stop.token.clone().cancelled_owned());
        let polled = waits.as_mut().poll(poller);
        self.waits = Some((waits, poller.waker().clone()));
        polled
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn who_looked_before_is_woken_and_who_looks_later_hears_at_once() {
        let stop = Stop::default();
        let mut ear = stop.elsewhere().ear();
        // It goes to another task after it was polled in this one.
        assert!(poll_fn(|poller| Poll::Ready(ear.poll(poller))).await.is_pending());
        let (looked, has_looked) = tokio::sync::oneshot::channel();
        let mut looked = Some(looked);
        let waits = tokio::spawn(async move {
            poll_fn(|poller| {
                let polled = ear.poll(poller);
                looked.take().map(|looked| looked.send(polled.is_pending()));
                // Once more, as registered.
                polled.is_pending().then(|| ear.poll(poller));
                polled
            })
            .await;
            ear
        });
        assert_eq!((has_looked.await, stop.is_said()), (Ok(true), false));
        stop.say();
        let mut ear = waits.await.expect("woken");
        poll_fn(|poller| ear.poll(poller)).await;
        stop.said().await;
        assert!(stop.is_said());
    }
}
