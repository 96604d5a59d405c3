//! Models that are there only while they are needed.
//!
//! A lazy model sleeps until a call needs it. All calls that come meanwhile wait for the one load; their number is
//! bounded (`control`), and each waits as long as its own deadline allows. Where room is needed, the model that was
//! not asked for the longest goes to sleep: requests note in the index when they asked, without a lock.
//!
//! A model that cannot be loaded refuses for a few seconds and then sleeps again, so that a flood of calls to it does
//! not become a flood of reads.
//!
//! Not here: who waits (`control`), when models were asked for (`index`).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::managed::Retry;
use super::manager::{Answer, Failed, Manager, Waiter};
use crate::refusal::Reason;
use crate::served::Served;

/// How long a model that could not be loaded refuses without another try.
const REFUSES: Duration = Duration::from_secs(5);

/// A lazy model is tried again whenever it is needed, and not too often.
pub(super) fn retry(usual: Retry) -> Retry {
    Retry { times_max: u32::MAX, wait: usual.wait.min(REFUSES) }
}

impl Manager {
    /// Has a lazy model loaded, and answers when it is there or cannot be.
    pub(super) fn wake(&mut self, name: Arc<str>, answer: Answer) {
        let Some(managed) = self.models.get_mut(&name).filter(|managed| !managed.is_removed) else {
            return self.no_such_model(&name, answer);
        };
        if managed.sleeps() && !managed.is_held {
            if !self.rouse(&name) {
                return Self::no_room(&name, answer);
            }
            let managed = self.models.get_mut(&name);
            Self::look_at(managed.into_iter(), &mut self.due, true);
        }
        self.waiters.push(Waiter { names: BTreeSet::from([name]), with_labels: false, answer });
    }

    pub(super) fn no_room(name: &Arc<str>, answer: Answer) {
        let why = format!("model {name} is not loaded: as many models as there may be are being loaded");
        let failed = Failed { model: name.clone(), path: Default::default(), reason: Reason::QueueFull, why };
        let _ = answer.send(Err(failed));
    }

    /// Lets a lazy model be loaded where there may be one more; false where there may not.
    pub(super) fn rouse(&mut self, name: &Arc<str>) -> bool {
        let Some(lazy) = self.loading.lazy else { return true };
        if !self.awake.contains(name) {
            while lazy.models_max.is_some_and(|max| self.awake.len() >= max.max(1)) {
                let Some(victim) = self.least_recent(None) else { return false };
                self.evict(&victim);
            }
        }
        let index = self.index.load();
        let used = index.cell(name).map_or(0, |cell| {
            index.touch(cell);
            cell.used()
        });
        if let Some(managed) = self.models.get_mut(name) {
            managed.is_awake = true;
        }
        if !self.awake.contains(name) {
            index.turnover.loads.fetch_add(1, Relaxed);
        }
        self.awake.put(name, used);
        index.turnover.awake.store(self.awake.len(), Relaxed);
        self.due.insert(name.clone());
        self.changed.insert(name.clone());
        true
    }

    /// Makes room for a version that was read; an error where it alone takes more than there may be.
    pub(super) fn make_room(
        &mut self,
        name: &Arc<str>,
        read: Result<Box<Served>, String>,
    ) -> Result<Box<Served>, String> {
        let served = read?;
        let (Some(max), bytes) = (self.loading.lazy.and_then(|lazy| lazy.bytes_max), served.about.bytes)
        else {
            return Ok(served);
        };
        if bytes > max {
            return Err(format!("it takes {bytes} bytes of memory, and all models together may take {max}"));
        }
        let mut taken: u64 =
            self.awake.names().filter_map(|name| self.models.get(name)).map(|m| m.bytes()).sum();
        while taken.saturating_add(bytes) > max {
            let Some(victim) = self.least_recent(Some(name)) else { break };
            taken = taken.saturating_sub(self.models.get(&victim).map_or(0, |managed| managed.bytes()));
            self.evict(&victim);
        }
        Ok(served)
    }

    /// The loaded model that was not asked for the longest.
    fn least_recent(&mut self, but: Option<&Arc<str>>) -> Option<Arc<str>> {
        let index = self.index.load();
        let models = &self.models;
        let is_there =
            |name: &Arc<str>| Some(name) != but && models.get(name).is_some_and(|managed| managed.is_idle());
        self.awake.oldest(|name| index.cell(name).map_or(0, |cell| cell.used()), is_there)
    }

    fn evict(&mut self, name: &Arc<str>) {
        tracing::info!(model = %name, "it goes to sleep to make room");
        self.index.load().turnover.evictions.fetch_add(1, Relaxed);
        self.sleep(name);
    }

    /// Puts a lazy model to sleep of which nothing came.
    pub(super) fn doze(&mut self, name: &Arc<str>, now: Instant) {
        if self.models.get(name).is_some_and(|managed| managed.is_to_sleep(now)) {
            if let Some(managed) = self.models.get_mut(name) {
                managed.records.clear();
            }
            self.index.load().turnover.failures.fetch_add(1, Relaxed);
            self.sleep(name);
        }
    }

    fn sleep(&mut self, name: &Arc<str>) {
        if let Some(managed) = self.models.get_mut(name) {
            managed.is_awake = false;
        }
        self.awake.remove(name);
        self.index.load().turnover.awake.store(self.awake.len(), Relaxed);
        self.due.insert(name.clone());
        self.changed.insert(name.clone());
    }
}
