//! When the clock has folders and lists looked at again.
//!
//! Not here: looking (`manager`).

use std::time::{Duration, Instant};

use crate::config::Source;

/// When the clock asks for a look at something.
pub(super) struct Due {
    every: Option<Duration>,
    at: Instant,
}

impl Due {
    fn new(every: Option<Duration>, now: Instant) -> Self {
        // Faster would do nothing else.
        let every = every.map(|every| every.max(Duration::from_millis(5)));
        Self { every, at: now + every.unwrap_or_default() }
    }

    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.every.is_some() && self.at <= now;
        if is_due {
            self.at = now + self.every.unwrap_or_default();
        }
        is_due
    }
}

/// What is looked at by the clock.
pub(super) struct Polls {
    pub(super) folders: Due,
    pub(super) source: Due,
}

impl Polls {
    pub(super) fn new(source: &Source, folders: Option<Duration>, now: Instant) -> Self {
        let source = match source {
            Source::File { poll, .. } => *poll,
            Source::Folder { only: None, .. } => folders,
            Source::Fixed(_) | Source::Folder { .. } => None,
        };
        Self { folders: Due::new(folders, now), source: Due::new(source, now) }
    }

    pub(super) fn next(&self) -> Option<Instant> {
        let at = |due: &Due| due.every.map(|_| due.at);
        [at(&self.folders), at(&self.source)].into_iter().flatten().min()
    }
}
