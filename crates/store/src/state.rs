//! What readers and watchers see: always a synced state (or an exempt one, see [`crate::Durability`]).

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::watch as tokio_watch;

use crate::history::History;
use crate::watch::{Watch, Watchers};
use crate::{Error, Event, Revision, Snapshot};

pub(crate) use crate::map::Map;

struct State {
    map: Map,
    revision: Revision,
    history: History,
    watchers: Watchers,
}

/// The published state, shared by the writer and all handles.
pub(crate) struct Shared {
    state: RwLock<State>,
    revision: tokio_watch::Sender<Revision>,
    watch_queue_max: usize,
}

impl Shared {
    pub(crate) fn new(map: Map, revision: Revision, history: History, watch_queue_max: usize) -> Self {
        let state = State { map, revision, history, watchers: Watchers::default() };
        Self { state: RwLock::new(state), revision: tokio_watch::Sender::new(revision), watch_queue_max }
    }

    pub(crate) fn revision(&self) -> Revision {
        *self.revision.borrow()
    }

    pub(crate) fn revisions(&self) -> tokio_watch::Receiver<Revision> {
        self.revision.subscribe()
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let state = self.state.read();
        Snapshot { revision: state.revision, map: state.map.clone() }
    }

    pub(crate) fn snapshot_at(&self, asked: Revision) -> Result<Snapshot, Error> {
        let state = self.state.read();
        let map = state.history.rewind(state.map.clone(), asked, state.revision)?;
        Ok(Snapshot { revision: asked, map })
    }

    pub(crate) fn oldest(&self) -> Revision {
        self.state.read().history.compacted()
    }

    pub(crate) fn watch(self: &Arc<Self>, prefix: &str, after: Revision) -> Result<Watch, Error> {
        let mut guard = self.state.write();
        let state = &mut *guard;
        let missed = state.history.after(after, state.revision)?;
        let backlog: VecDeque<Event> = missed.filter(|e| e.record.key.starts_with(prefix)).cloned().collect();
        Ok(Watch::register(&mut state.watchers, self, prefix, self.watch_queue_max, backlog, after))
    }

    /// Shows a group to everyone; `victims` gets the log rows that fell out of history.
    pub(crate) fn publish(
        &self,
        map: Map,
        revision: Revision,
        events: Vec<Event>,
        victims: &mut Vec<Revision>,
    ) {
        {
            let mut state = self.state.write();
            for event in events {
                state.watchers.deliver(&event);
                state.history.push(event);
            }
            state.history.trim(victims);
            state.map = map;
            state.revision = revision;
        }
        self.revision.send_replace(revision);
    }

    /// Ends all watchers: the store is closed.
    pub(crate) fn end_watchers(&self) {
        self.state.write().watchers = Watchers::default();
    }
}
