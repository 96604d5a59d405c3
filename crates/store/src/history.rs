//! The last events, bounded by number and bytes.
//!
//! Revisions are contiguous except where exempt writes were lost in a crash. A revision in such a hole was once shown
//! to clients but is not in the log, so resuming from it must fail: that is why `position` wants an exact hit.

use std::collections::VecDeque;

use std::sync::Arc;

use crate::map::Map;
use crate::{Error, Event, EventKind, Revision};

/// What an event costs beyond the bytes it keeps alive.
const EVENT_BYTES: usize = 200;

/// The window of events that watches and old snapshots can start from.
pub(crate) struct History {
    events: VecDeque<Event>,
    bytes: usize,
    events_max: usize,
    bytes_max: usize,
    /// Revision of the newest event that is no longer kept.
    compacted: Revision,
    /// Where this run began: a revision that clients can hold though no event has it.
    start: Revision,
}

impl History {
    pub(crate) fn new(events_max: usize, bytes_max: usize, compacted: Revision) -> Self {
        Self { events: VecDeque::new(), bytes: 0, events_max, bytes_max, compacted, start: 0 }
    }

    pub(crate) fn set_start(&mut self, start: Revision) {
        self.start = start;
    }

    pub(crate) fn compacted(&self) -> Revision {
        self.compacted
    }

    pub(crate) fn push(&mut self, event: Event) {
        self.bytes += cost(&event);
        self.events.push_back(event);
    }

    /// Drops what is over the bounds; `victims` gets the log rows that nothing needs any more.
    pub(crate) fn trim(&mut self, victims: &mut Vec<Revision>) {
        while self.events.len() > self.events_max || self.bytes > self.bytes_max {
            let Some(event) = self.events.pop_front() else { break };
            self.bytes -= cost(&event);
            self.compacted = event.record.modified;
            victims.extend(event.previous.as_ref().map(|p| p.modified));
            if event.kind == EventKind::Delete {
                victims.push(event.record.modified);
            }
        }
    }

    /// The events after a revision, oldest first.
    pub(crate) fn after(
        &self,
        asked: Revision,
        current: Revision,
    ) -> Result<impl Iterator<Item = &Event>, Error> {
        let from = self.position(asked, current)?;
        Ok(self.events.range(from..))
    }

    /// The map as it was at a revision: the newer events undone.
    pub(crate) fn rewind(&self, mut map: Map, asked: Revision, current: Revision) -> Result<Map, Error> {
        let from = self.position(asked, current)?;
        for event in self.events.range(from..).rev() {
            match &event.previous {
                Some(previous) => map.insert(Arc::clone(&previous.key), previous.clone()),
                None => map.remove(&event.record.key),
            };
        }
        Ok(map)
    }

    fn position(&self, asked: Revision, current: Revision) -> Result<usize, Error> {
        if asked > current {
            return Err(Error::Future { asked, current });
        }
        match self.events.binary_search_by_key(&asked, |e| e.record.modified) {
            Ok(at) => Ok(at + 1),
            Err(at) if asked == current || asked == self.compacted || asked == self.start => Ok(at),
            Err(_) => Err(Error::Compacted { asked, oldest: self.oldest_after(asked) }),
        }
    }

    fn oldest_after(&self, asked: Revision) -> Revision {
        if asked < self.compacted {
            return self.compacted;
        }
        let next = self.events.partition_point(|e| e.record.modified <= asked);
        self.events.get(next).map_or(self.start, |e| e.record.modified)
    }
}

/// The bytes that only history keeps alive.
fn cost(event: &Event) -> usize {
    let tombstone = if event.kind == EventKind::Delete { event.record.value.len() } else { 0 };
    EVENT_BYTES + event.record.key.len() + tombstone + event.previous.as_ref().map_or(0, |p| p.value.len())
}
