//! Watches: events behind one key prefix, in order, without gaps.
//!
//! The writer finds the watchers of an event by the event's key: each prefix of the key that ends in `/` is
//! looked up in a table, so the cost is that of the watchers that match, not of all. Events are shared;
//! a watcher has a bounded queue and is ended when it overflows, because a client that lists again costs less than
//! a queue without end.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures::Stream;
use tokio::sync::mpsc::{self, Receiver, Sender, error::TrySendError};

use crate::state::Shared;
use crate::{Error, Event, Revision};

/// The writer's end of one watcher.
struct Watcher {
    queue: Sender<Event>,
    lagged: Arc<AtomicBool>,
}

/// All watchers, by prefix.
#[derive(Default)]
pub(crate) struct Watchers {
    /// Prefixes that end in `/`.
    by_prefix: HashMap<Arc<str>, Vec<Watcher>>,
    /// Any other prefix, such as a whole key; compared with the key of every event.
    odd: Vec<(Arc<str>, Watcher)>,
}

impl Watchers {
    fn add(&mut self, prefix: &Arc<str>, watcher: Watcher) {
        if prefix.ends_with('/') {
            self.by_prefix.entry(Arc::clone(prefix)).or_default().push(watcher);
        } else {
            self.odd.push((Arc::clone(prefix), watcher));
        }
    }

    /// Hands an event to everyone whose prefix it has.
    pub(crate) fn deliver(&mut self, event: &Event) {
        let key = &event.record.key;
        let ends = key.match_indices('/').map(|(at, _)| at + 1);
        for end in ends {
            let Some(watchers) = self.by_prefix.get_mut(&key[..end]) else { continue };
            watchers.retain(|w| w.offer(event));
            if watchers.is_empty() {
                self.by_prefix.remove(&key[..end]);
            }
        }
        self.odd.retain(|(prefix, w)| !key.starts_with(&**prefix) || w.offer(event));
    }
}

impl Watcher {
    /// Whether the watcher is still there afterwards.
    fn offer(&self, event: &Event) -> bool {
        match self.queue.try_send(event.clone()) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                self.lagged.store(true, Ordering::Release);
                false
            }
            Err(TrySendError::Closed(_)) => false,
        }
    }
}

/// The events behind one prefix. A stream that ends with [`Error::Lagged`] when its reader is too slow, and without
/// an error when the store closes.
pub struct Watch {
    prefix: Arc<str>,
    bound: usize,
    backlog: VecDeque<Event>,
    queue: Receiver<Event>,
    lagged: Arc<AtomicBool>,
    ended: bool,
    shared: Arc<Shared>,
    seen: Revision,
}

impl Watch {
    /// Registers a watcher; call under the state's lock, with the events it missed.
    pub(crate) fn register(
        watchers: &mut Watchers,
        shared: &Arc<Shared>,
        prefix: &str,
        bound: usize,
        backlog: VecDeque<Event>,
        after: Revision,
    ) -> Self {
        let (sender, queue) = mpsc::channel(bound);
        let prefix: Arc<str> = Arc::from(prefix);
        let lagged = Arc::new(AtomicBool::new(false));
        watchers.add(&prefix, Watcher { queue: sender, lagged: Arc::clone(&lagged) });
        Self { prefix, bound, backlog, queue, lagged, ended: false, shared: Arc::clone(shared), seen: after }
    }

    /// The next event; `None` when the store has closed or after an error.
    pub async fn next(&mut self) -> Option<Result<Event, Error>> {
        std::future::poll_fn(|cx| self.poll_event(cx)).await
    }

    /// A revision up to which this watcher has been given everything, or `None` while events wait. What a bookmark
    /// may carry.
    pub fn progress(&mut self) -> Option<Revision> {
        if self.ended {
            return None;
        }
        // Read before the queue: what is published up to here is in the queue already.
        let published = self.shared.revision();
        let drained = self.backlog.is_empty() && self.queue.is_empty() && !self.queue.is_closed();
        drained.then(|| published.max(self.seen))
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Event, Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if let Some(event) = self.backlog.pop_front() {
            self.seen = event.record.modified;
            return Poll::Ready(Some(Ok(event)));
        }
        match self.queue.poll_recv(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(event)) => {
                self.seen = event.record.modified;
                Poll::Ready(Some(Ok(event)))
            }
            Poll::Ready(None) => {
                self.ended = true;
                let lagged = self.lagged.load(Ordering::Acquire);
                let error = Error::Lagged { prefix: Arc::clone(&self.prefix), bound: self.bound };
                Poll::Ready(lagged.then_some(Err(error)))
            }
        }
    }
}

impl Stream for Watch {
    type Item = Result<Event, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_event(cx)
    }
}
