//! A queue of keys to reconcile, and the workers that do it.
//!
//! A key waits at most once, however often it is added, and is never worked on by two workers at a time: what is added
//! while its work runs is taken up again afterwards. A failed key comes back after a growing pause. There is no debounce: an idle
//! worker starts in the moment a key is added.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// First pause after a failure; doubles each time.
const BACKOFF_MIN: Duration = Duration::from_millis(5);
/// The longest pause after a failure.
const BACKOFF_MAX: Duration = Duration::from_secs(30);

struct State<T> {
    waiting: VecDeque<T>,
    /// What is in `waiting`, or must go there when its work ends.
    dirty: HashSet<T>,
    working: HashSet<T>,
    later: BinaryHeap<Reverse<(Instant, u64)>>,
    later_keys: HashMap<u64, T>,
    /// The earliest time for which a key is set.
    due: HashMap<T, Instant>,
    failures: HashMap<T, u32>,
    sequence: u64,
}

/// Keys that wait for work. Clones are one queue.
pub struct Queue<T> {
    state: Arc<Mutex<State<T>>>,
    added: Arc<Notify>,
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self { state: self.state.clone(), added: self.added.clone() }
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        let state = State {
            waiting: VecDeque::new(),
            dirty: HashSet::new(),
            working: HashSet::new(),
            later: BinaryHeap::new(),
            later_keys: HashMap::new(),
            due: HashMap::new(),
            failures: HashMap::new(),
            sequence: 0,
        };
        Self { state: Arc::new(Mutex::new(state)), added: Arc::new(Notify::new()) }
    }
}

impl<T: Clone + Eq + Hash + Send + Sync + 'static> Queue<T> {
    /// Work on `key` as soon as a worker is free.
    pub fn add(&self, key: T) {
        let mut state = self.state.lock();
        state.add(key);
        drop(state);
        self.added.notify_one();
    }

    /// Work on `key` after `delay`, unless it is already set for an earlier time.
    pub fn add_after(&self, key: T, delay: Duration) {
        let at = Instant::now() + delay;
        let mut state = self.state.lock();
        if state.due.get(&key).is_some_and(|due| *due <= at) {
            return;
        }
        state.due.insert(key.clone(), at);
        state.sequence += 1;
        let sequence = state.sequence;
        state.later.push(Reverse((at, sequence)));
        state.later_keys.insert(sequence, key);
        drop(state);
        self.added.notify_one();
    }

    /// The next key. It must be handed back with `done`.
    async fn next(&self) -> T {
        loop {
            let next_due = {
                let mut state = self.state.lock();
                let next_due = state.wake_due(Instant::now());
                if let Some(key) = state.waiting.pop_front() {
                    state.dirty.remove(&key);
                    state.working.insert(key.clone());
                    let more = !state.waiting.is_empty();
                    drop(state);
                    // `notify_one` stores one permit only: whoever takes a key passes the call on.
                    if more {
                        self.added.notify_one();
                    }
                    return key;
                }
                next_due
            };
            match next_due {
                Some(at) => tokio::select! {
                    () = self.added.notified() => {}
                    () = sleep_until(at) => {}
                },
                None => self.added.notified().await,
            }
        }
    }

    fn done(&self, key: &T) {
        let mut state = self.state.lock();
        state.working.remove(key);
        let again = state.dirty.contains(key);
        if again {
            state.waiting.push_back(key.clone());
        }
        drop(state);
        if again {
            self.added.notify_one();
        }
    }

    fn succeeded(&self, key: &T) {
        self.state.lock().failures.remove(key);
    }

    fn retry(&self, key: T) -> Duration {
        let failures = {
            let mut state = self.state.lock();
            let count = state.failures.entry(key.clone()).or_insert(0);
            *count = count.saturating_add(1);
            *count
        };
        let delay = backoff(failures);
        self.add_after(key, delay);
        delay
    }
}

fn backoff(failures: u32) -> Duration {
    let factor = 1u32 << (failures.saturating_sub(1)).min(16);
    (BACKOFF_MIN * factor).min(BACKOFF_MAX)
}

impl<T: Clone + Eq + Hash> State<T> {
    fn add(&mut self, key: T) {
        if !self.dirty.insert(key.clone()) || self.working.contains(&key) {
            return;
        }
        self.waiting.push_back(key);
    }

    /// Adds what is due, and says when the next one is.
    fn wake_due(&mut self, now: Instant) -> Option<Instant> {
        while let Some(Reverse((at, sequence))) = self.later.peek().copied() {
            if at > now {
                return Some(at);
            }
            self.later.pop();
            let Some(key) = self.later_keys.remove(&sequence) else { continue };
            if self.due.get(&key) == Some(&at) {
                self.due.remove(&key);
            }
            self.add(key);
        }
        None
    }
}

/// Runs `workers` workers over the queue until it is dropped. `reconcile` returns when the key wants to be looked at again.
pub async fn work<T, F, R>(name: &'static str, queue: Queue<T>, workers: usize, reconcile: F)
where
    T: Clone + Eq + Hash + Send + Sync + std::fmt::Display + 'static,
    F: Fn(T) -> R + Send + Sync,
    R: Future<Output = Result<Option<Duration>, crate::Error>> + Send,
{
    let one = || async {
        loop {
            let key = queue.next().await;
            let result = reconcile(key.clone()).await;
            match result {
                Ok(again) => {
                    queue.succeeded(&key);
                    if let Some(delay) = again {
                        queue.add_after(key.clone(), delay);
                    }
                }
                Err(error) => {
                    let retry_in = queue.retry(key.clone());
                    report(name, &key, &error, retry_in);
                }
            }
            queue.done(&key);
        }
    };
    let all = (0..workers.max(1)).map(|_| one());
    futures::future::join_all(all).await;
}

/// A conflict is a race with someone else's write and heals by itself.
fn report<T: std::fmt::Display>(controller: &str, key: &T, error: &crate::Error, retry_in: Duration) {
    if error.is_conflict() {
        tracing::debug!(controller, %key, %error, ?retry_in, "reconcile met a newer version");
    } else {
        tracing::warn!(controller, %key, error = %error.chain(), ?retry_in, "reconcile failed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_waits_once_and_comes_back_when_added_during_its_work() {
        let queue = Queue::default();
        queue.add("a");
        queue.add("a");
        let key = queue.next().await;
        queue.add("a");
        assert!(queue.state.lock().waiting.is_empty(), "never two workers on one key");
        queue.done(&key);
        assert_eq!(queue.next().await, "a");
        queue.done(&"a");
        assert!(queue.state.lock().waiting.is_empty());
    }

    #[tokio::test]
    async fn the_earliest_delay_wins() {
        let queue = Queue::default();
        let start = Instant::now();
        queue.add_after("a", Duration::from_secs(60));
        queue.add_after("a", Duration::from_millis(20));
        queue.add_after("a", Duration::from_secs(30));
        assert_eq!(queue.next().await, "a");
        assert!(start.elapsed() >= Duration::from_millis(20));
        assert!(start.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn pauses_grow_and_are_bounded() {
        assert_eq!(backoff(1), Duration::from_millis(5));
        assert_eq!(backoff(4), Duration::from_millis(40));
        assert_eq!(backoff(1000), BACKOFF_MAX);
    }
}
