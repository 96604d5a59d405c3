//! The handle: opening, committing, reading, watching.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Sender, TrySendError, bounded};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::db::Db;
use crate::state::Shared;
use crate::writer::{Request, Writer};
use crate::{Change, Durability, Error, Record, Revision, Snapshot, Watch, folder};

/// Bounds of a store.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many events the history keeps for watches and old snapshots, also across restarts.
    pub history_events_max: usize,
    /// How many bytes of superseded values the history keeps.
    pub history_bytes_max: usize,
    /// How many transactions may wait for the writer; one more is [`Error::Full`].
    pub queue_max: usize,
    /// How many events may wait for one watcher; one more ends it with [`Error::Lagged`].
    pub watch_queue_max: usize,
    /// Only for tests of durability.
    #[doc(hidden)]
    pub testing: Testing,
}

/// Only for tests of durability: another file layer, and syncs that do not happen.
#[doc(hidden)]
#[derive(Debug, Clone, Default)]
pub struct Testing {
    /// The name of a registered SQLite VFS.
    pub vfs: Option<&'static str>,
    /// Whether to leave out the syncs.
    pub synchronous_off: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            history_events_max: 10_000,
            history_bytes_max: 16 << 20,
            queue_max: 4096,
            watch_queue_max: 4096,
            testing: Testing::default(),
        }
    }
}

/// A handle of the open store; clones share it. The last one to go waits until pending writes are saved.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    queue: Mutex<Option<Sender<Request>>>,
    queue_max: usize,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Store {
    /// Opens or makes the store in a folder: `VERSION` and `cluster.db`. Blocks while it reads all records.
    ///
    /// # Errors
    /// [`Error::InUse`] when another process has it, [`Error::Newer`] when a newer release wrote it,
    /// [`Error::Corrupt`], [`Error::Database`], [`Error::File`].
    pub fn open(dir: &Path, options: Options) -> Result<Self, Error> {
        folder::prepare(dir)?;
        let db = Db::open(&dir.join("cluster.db"), &options)?;
        folder::sync(dir)?;
        let mut loaded = db.load(&options)?;
        let mut victims = Vec::new();
        loaded.history.trim(&mut victims);
        let shared = Arc::new(Shared::new(
            loaded.map.clone(),
            loaded.revision,
            loaded.history,
            options.watch_queue_max,
        ));
        let writer = Writer {
            db,
            shared: Arc::clone(&shared),
            map: loaded.map,
            revision: loaded.revision,
            reserved: loaded.reserved,
            pending: Vec::new(),
            victims,
        };
        let (queue, requests) = bounded(options.queue_max);
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer.run(&requests))
            .map_err(Error::file("start the writer of", dir))?;
        let inner = Inner {
            shared,
            queue: Mutex::new(Some(queue)),
            queue_max: options.queue_max,
            writer: Mutex::new(Some(thread)),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Commits a transaction: all changes or none, synced before this returns or anyone sees it. The records are in
    /// the order of the changes; a deletion's is its tombstone. A call that is dropped while it waits is still
    /// carried out.
    ///
    /// # Errors
    /// [`Error::Conflict`], [`Error::NotFound`], [`Error::TooLarge`], [`Error::Render`]: refused, nothing written.
    /// [`Error::Full`]: too many wait. [`Error::Database`]: not written (after a failed sync: uncertain, and the
    /// store answers [`Error::Closed`] from then on).
    pub async fn commit(&self, changes: Vec<Change>) -> Result<Vec<Record>, Error> {
        self.commit_with(changes, Durability::Synced).await
    }

    /// As [`Store::commit`], with the choice to be visible before the sync; see [`Durability::Exempt`].
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub async fn commit_with(
        &self,
        changes: Vec<Change>,
        durability: Durability,
    ) -> Result<Vec<Record>, Error> {
        let (answer, wait) = oneshot::channel();
        self.send(Request { changes, durability, answer })?;
        wait.await.unwrap_or_else(|_| Err(closed()))
    }

    /// [`Store::commit`] for a thread without a runtime. Do not call it in async code.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub fn commit_blocking(&self, changes: Vec<Change>) -> Result<Vec<Record>, Error> {
        let (answer, wait) = oneshot::channel();
        self.send(Request { changes, durability: Durability::Synced, answer })?;
        wait.blocking_recv().unwrap_or_else(|_| Err(closed()))
    }

    fn send(&self, request: Request) -> Result<(), Error> {
        let queue = self.inner.queue.lock();
        let sender = queue.as_ref().ok_or_else(closed)?;
        sender.try_send(request).map_err(|e| match e {
            TrySendError::Full(_) => Error::Full { bound: self.inner.queue_max },
            TrySendError::Disconnected(_) => closed(),
        })
    }

    /// The state now.
    pub fn snapshot(&self) -> Snapshot {
        self.inner.shared.snapshot()
    }

    /// The state at an earlier revision, for the next page of a list.
    ///
    /// # Errors
    /// [`Error::Compacted`] when it is older than the history, [`Error::Future`] when it is not yet.
    pub fn snapshot_at(&self, revision: Revision) -> Result<Snapshot, Error> {
        self.inner.shared.snapshot_at(revision)
    }

    /// All events after a revision whose keys start with `prefix`. Let the prefix end in `/`: others cost a
    /// comparison for every write of the store.
    ///
    /// # Errors
    /// [`Error::Compacted`] when the history does not reach back, [`Error::Future`] when the revision is not yet.
    pub fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, Error> {
        self.inner.shared.watch(prefix, after)
    }

    /// The newest revision that is visible.
    pub fn revision(&self) -> Revision {
        self.inner.shared.revision()
    }

    /// The oldest revision that [`Store::watch`] and [`Store::snapshot_at`] surely take.
    pub fn oldest_revision(&self) -> Revision {
        self.inner.shared.oldest()
    }

    /// Waits until a revision is visible; returns the one that is.
    pub async fn wait_revision(&self, revision: Revision) -> Revision {
        let mut revisions = self.inner.shared.revisions();
        // The sender lives as long as this handle, so the wait cannot fail.
        let reached = revisions.wait_for(|now| *now >= revision).await.map(|now| *now);
        reached.unwrap_or_else(|_| self.revision())
    }

    /// Takes no more writes, saves what is pending, and ends all watches. Blocks for at most a few syncs.
    pub fn close(&self) {
        self.inner.close();
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("revision", &self.revision()).finish_non_exhaustive()
    }
}

impl Inner {
    fn close(&self) {
        drop(self.queue.lock().take());
        let writer = self.writer.lock().take();
        if let Some(thread) = writer
            && thread.join().is_err()
        {
            tracing::error!("the store's writer panicked");
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

fn closed() -> Error {
    Error::Closed { reason: Arc::from("it was closed") }
}
