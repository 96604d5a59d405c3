//! Why the store refused or failed.

use std::path::PathBuf;
use std::sync::Arc;

use crate::Revision;

/// Why the store refused or failed. Cheap to clone: one failed group answers all its callers.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The record is not as the change expected; nothing of the transaction was written.
    #[error("{key:?} is at revision {found:?}, which the change did not expect")]
    Conflict {
        /// The key in question.
        key: Arc<str>,
        /// Its revision now; `None`: there is no record.
        found: Option<Revision>,
    },
    /// A change of an existing record met none.
    #[error("{key:?} does not exist")]
    NotFound {
        /// The key in question.
        key: Arc<str>,
    },
    /// The queue of the writer is full; try again in a moment.
    #[error("the store's queue of {bound} waiting writes is full")]
    Full {
        /// How many transactions may wait.
        bound: usize,
    },
    /// A value over [`crate::VALUE_BYTES_MAX`].
    #[error("the value of {key:?} has {bytes} bytes, more than the {max} allowed")]
    TooLarge {
        /// The key in question.
        key: Arc<str>,
        /// Its size.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// Serialising the value panicked; the writer lives on.
    #[error("serialising the value of {key:?} panicked")]
    Render {
        /// The key in question.
        key: Arc<str>,
    },
    /// The history before `oldest` is no longer kept: list again.
    #[error("revision {asked} is no longer kept; the oldest is {oldest}")]
    Compacted {
        /// What was asked for.
        asked: Revision,
        /// The oldest revision that can be asked for.
        oldest: Revision,
    },
    /// A revision that the store has not reached.
    #[error("revision {asked} is ahead of the store, which is at {current}")]
    Future {
        /// What was asked for.
        asked: Revision,
        /// Where the store is.
        current: Revision,
    },
    /// The watcher fell behind by more than its bound and was ended: list again.
    #[error("the watcher of {prefix:?} fell more than {bound} events behind")]
    Lagged {
        /// What it watched.
        prefix: Arc<str>,
        /// How many events may wait for one watcher.
        bound: usize,
    },
    /// The store is closed, or a sync failed earlier and what is on disk is uncertain until it is opened again.
    #[error("the store is closed for writes: {reason}")]
    Closed {
        /// Why.
        reason: Arc<str>,
    },
    /// Another process has the folder open.
    #[error("{path:?} is in use by another process")]
    InUse {
        /// The database.
        path: PathBuf,
    },
    /// The folder was written by a newer release.
    #[error(
        "{path:?} has format {found}, this binary knows up to {known}; use the newer binary or another data folder"
    )]
    Newer {
        /// The VERSION file.
        path: PathBuf,
        /// What it says.
        found: u32,
        /// The newest format this binary knows.
        known: u32,
    },
    /// What is on disk cannot be understood.
    #[error("{what} is damaged: {detail}")]
    Corrupt {
        /// Which thing.
        what: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The database failed.
    #[error("cannot {doing}")]
    Database {
        /// What was being done.
        doing: &'static str,
        /// The cause.
        source: Arc<rusqlite::Error>,
    },
    /// The file system failed.
    #[error("cannot {doing} {path:?}")]
    File {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// The cause.
        source: Arc<std::io::Error>,
    },
}

impl Error {
    /// For `map_err` over a database call.
    pub(crate) fn database(doing: &'static str) -> impl FnOnce(rusqlite::Error) -> Self {
        move |source| Self::Database { doing, source: Arc::new(source) }
    }

    /// For `map_err` over a file call.
    pub(crate) fn file(doing: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { doing, path, source: Arc::new(source) }
    }
}
