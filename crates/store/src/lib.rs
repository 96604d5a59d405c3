//! Revisioned records, durable before visible.
//!
//! Every write is a transaction of [`Change`]s; each change takes a revision of its own, strictly rising. One writer
//! thread gathers waiting transactions into a group, appends them to SQLite's log, waits for the sync, and only then
//! shows them to readers and watchers and answers. Reads never touch the disk: all current records live in a
//! persistent ordered map, so a [`Snapshot`] costs a pointer copy and stays consistent for ever.
//!
//! * [`Store`] opens a folder, commits, reads and watches.
//! * [`Snapshot`] is one consistent state: `get`, `range`.
//! * [`Watch`] is the stream of [`Event`]s behind one key prefix.
//!
//! Exempt from "synced before visible", and only when the caller says so by [`Durability::Exempt`]: Lease renewals,
//! Events and pod status that the shim can rebuild. After a crash such a write may be gone; its revision is never
//! given again, and a watch that resumes from it gets [`Error::Compacted`], so its client lists anew.
//!
//! Not here: what the bytes mean, who may write them, and the rules of Kubernetes; that is `apiserver`.

mod db;
mod error;
mod folder;
mod header;
mod history;
mod map;
mod open;
mod snapshot;
mod state;
mod watch;
mod writer;

use std::sync::Arc;

use bytes::Bytes;

pub use error::Error;
pub use header::{Encoding, Header};
pub use open::{Options, Store, Testing};
pub use snapshot::Snapshot;
pub use watch::Watch;

/// A point in the store's history; the first write is 1. Kubernetes' `resourceVersion`.
pub type Revision = u64;

/// One value at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// `/<group>/<resource>/<namespace>/<name>`; cluster-scoped: `/<group>/<resource>/<name>`; core group: `core`.
    pub key: Arc<str>,
    /// The serialised object, its resourceVersion included, ready for the wire.
    pub value: Bytes,
    /// Revision of its creation.
    pub created: Revision,
    /// Revision of its last change.
    pub modified: Revision,
}

/// What a change requires of the record it meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Nothing; a delete still needs a record to delete.
    Any,
    /// No record under the key.
    Absent,
    /// A record whose `modified` is this.
    Revision(Revision),
}

/// Serialises a value, given the revision that it will carry. Runs once, in the writer thread: keep it short.
pub type RenderPut = Box<dyn FnOnce(Revision) -> Bytes + Send>;

/// Serialises a deleted object's last state, given the revision of the deletion and the record that goes.
pub type RenderTombstone = Box<dyn FnOnce(Revision, &Record) -> Bytes + Send>;

/// One step of a transaction.
pub enum Change {
    /// Creates or replaces a record.
    Put {
        /// Where.
        key: Arc<str>,
        /// What must be there now.
        expect: Expect,
        /// The new bytes.
        value: RenderPut,
    },
    /// Removes a record; watchers get the tombstone.
    Delete {
        /// Where.
        key: Arc<str>,
        /// What must be there now.
        expect: Expect,
        /// The bytes that watchers of the deletion get.
        tombstone: RenderTombstone,
    },
}

impl Change {
    /// A [`Change::Put`].
    pub fn put(
        key: impl Into<Arc<str>>,
        expect: Expect,
        value: impl FnOnce(Revision) -> Bytes + Send + 'static,
    ) -> Self {
        Self::Put { key: key.into(), expect, value: Box::new(value) }
    }

    /// A [`Change::Delete`].
    pub fn delete(
        key: impl Into<Arc<str>>,
        expect: Expect,
        tombstone: impl FnOnce(Revision, &Record) -> Bytes + Send + 'static,
    ) -> Self {
        Self::Delete { key: key.into(), expect, tombstone: Box::new(tombstone) }
    }

    /// The key that this change writes.
    pub fn key(&self) -> &Arc<str> {
        match self {
            Self::Put { key, .. } | Self::Delete { key, .. } => key,
        }
    }
}

impl std::fmt::Debug for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Put { key, expect, .. } => {
                f.debug_struct("Put").field("key", key).field("expect", expect).finish()
            }
            Self::Delete { key, expect, .. } => {
                f.debug_struct("Delete").field("key", key).field("expect", expect).finish()
            }
        }
    }
}

/// When a commit becomes visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// After it is synced to disk: the rule.
    #[default]
    Synced,
    /// At once; it reaches the disk with the next group, within [`EXEMPT_DELAY_MS_MAX`] if none comes.
    /// For Lease renewals, Events and pod status that the shim can rebuild, nothing else.
    Exempt,
}

/// Longest time, in milliseconds, that an exempt write waits for its turn to the disk.
pub const EXEMPT_DELAY_MS_MAX: u64 = 50;

/// Largest value, in bytes. etcd's usual limit for a request is 1.5 MiB; workflow documents may be larger.
pub const VALUE_BYTES_MAX: usize = 16 << 20;

/// What happened to a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// It has new bytes.
    Put {
        /// There was none under the key before.
        created: bool,
    },
    /// It is gone.
    Delete,
}

/// One change as watchers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The new state; for a deletion the tombstone, whose `modified` is the deletion's revision.
    pub record: Record,
    /// The state before, so that a watcher with a selector knows what enters and what leaves.
    pub previous: Option<Record>,
}
