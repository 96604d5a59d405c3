//! The one writer: gathers a group, decides it in memory, makes it durable, then shows it.
//!
//! While one group is being synced the next one gathers in the queue, so under load the cost of a sync is shared.
//! A transaction that fails is left out of its group and spoils nothing of the others. All answers wait for the sync,
//! also refusals: a conflict may rest on a write of the same group.
//!
//! When a sync fails, what the disk holds is uncertain (the kernel may have dropped the pages), so the writer
//! takes no more writes until the folder is opened again. A full disk is different: SQLite rolls back cleanly.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use rusqlite::ErrorCode;
use tokio::sync::oneshot;

use crate::db::{Batch, Db};
use crate::state::{Map, Shared};
use crate::{
    Change, Durability, EXEMPT_DELAY_MS_MAX, Error, Event, EventKind, Expect, Record, Revision,
    VALUE_BYTES_MAX,
};

/// How many transactions one group may hold.
const GROUP_MAX: usize = 256;
/// How many exempt events may wait for the disk before they are written without waiting for others.
const PENDING_MAX: usize = 512;
/// How many dead log rows gather before a group removes them.
const VICTIMS_MIN: usize = 512;
const EXEMPT_DELAY: Duration = Duration::from_millis(EXEMPT_DELAY_MS_MAX);
/// How long to wait before writing pending events again to a disk that was full.
const DISK_FULL_DELAY: Duration = Duration::from_secs(1);
/// How far ahead revisions are set aside for exempt writes.
const RESERVE: Revision = 4096;

/// One transaction that waits for the writer.
pub(crate) struct Request {
    pub(crate) changes: Vec<Change>,
    pub(crate) durability: Durability,
    pub(crate) answer: oneshot::Sender<Result<Vec<Record>, Error>>,
}

type Answer = (oneshot::Sender<Result<Vec<Record>, Error>>, Result<Vec<Record>, Error>);

/// The writer's own state.
pub(crate) struct Writer {
    pub(crate) db: Db,
    pub(crate) shared: Arc<Shared>,
    pub(crate) map: Map,
    pub(crate) revision: Revision,
    pub(crate) reserved: Revision,
    /// Exempt events that are visible and not yet on disk.
    pub(crate) pending: Vec<Event>,
    pub(crate) victims: Vec<Revision>,
}

/// A group as decided in memory.
struct Decided {
    map: Map,
    revision: Revision,
    events: Vec<Event>,
    answers: Vec<Answer>,
    synced: bool,
}

impl Writer {
    /// Runs until all handles are gone, then writes what is pending.
    pub(crate) fn run(mut self, queue: &Receiver<Request>) {
        let mut flush_at: Option<Instant> = None;
        let broken = loop {
            let first = match flush_at {
                None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(at) => queue.recv_deadline(at),
            };
            let done = match first {
                Ok(request) => self.group(request, queue),
                Err(RecvTimeoutError::Timeout) => self.write(&[], None),
                Err(RecvTimeoutError::Disconnected) => break None,
            };
            match done {
                Err(error) if is_disk_full(&error) => flush_at = Some(Instant::now() + DISK_FULL_DELAY),
                Err(error) => break Some(error),
                Ok(()) if self.pending.is_empty() => flush_at = None,
                Ok(()) => flush_at = flush_at.or_else(|| Some(Instant::now() + EXEMPT_DELAY)),
            }
        };
        match broken {
            None => self.close(),
            Some(error) => refuse_all(queue, &error),
        }
        self.shared.end_watchers();
    }

    fn close(&mut self) {
        // A clean end: no exempt write is lost, so no revision needs to be skipped.
        let reserved = (self.reserved > self.revision).then_some(self.revision);
        if let Err(error) = self.write(&[], reserved) {
            tracing::error!(%error, "the last writes of the store were not saved");
        }
    }

    /// One group; an error here means that the store must not go on.
    fn group(&mut self, first: Request, queue: &Receiver<Request>) -> Result<(), Error> {
        let requests = std::iter::once(first).chain(queue.try_iter()).take(GROUP_MAX).collect();
        let decided = decide(self.map.clone(), self.revision, requests);
        if decided.events.is_empty() {
            answer(decided.answers);
            return Ok(());
        }
        let reserve = self.reserve_for(&decided);
        let must_write = decided.synced || reserve.is_some() || self.pending.len() > PENDING_MAX;
        if must_write && let Err(error) = self.write(&decided.events, reserve) {
            let fatal = !is_disk_full(&error);
            answer(decided.answers.into_iter().map(|(to, _)| (to, Err(error.clone()))).collect());
            return if fatal { Err(error) } else { Ok(()) };
        }
        if !must_write {
            self.pending.extend(decided.events.iter().cloned());
        }
        self.map = decided.map.clone();
        self.revision = decided.revision;
        self.shared.publish(decided.map, decided.revision, decided.events, &mut self.victims);
        answer(decided.answers);
        Ok(())
    }

    /// A new reservation, if exempt writes of this group need one (or soon will).
    fn reserve_for(&self, decided: &Decided) -> Option<Revision> {
        let exhausted = !decided.synced && decided.revision > self.reserved;
        let in_use = self.reserved > self.revision;
        let nearly = decided.synced && in_use && decided.revision + RESERVE / 2 > self.reserved;
        (exhausted || nearly).then_some(decided.revision + RESERVE)
    }

    /// Writes the pending events and `events`, synced.
    fn write(&mut self, events: &[Event], reserved: Option<Revision>) -> Result<(), Error> {
        let mut all = std::mem::take(&mut self.pending);
        let pending = all.len();
        all.extend_from_slice(events);
        let trim = self.victims.len() >= VICTIMS_MIN;
        let victims: &[Revision] = if trim { &self.victims } else { &[] };
        let batch = Batch { events: &all, victims, compacted: self.shared.oldest(), reserved };
        let written = self.db.write(&batch).map_err(Error::database("write to the database"));
        match written {
            Ok(()) => {
                if trim {
                    self.victims.clear();
                }
                self.reserved = reserved.unwrap_or(self.reserved);
                Ok(())
            }
            Err(error) => {
                all.truncate(pending);
                self.pending = all;
                if is_disk_full(&error) {
                    tracing::error!(%error, "the disk is full: writes fail until there is room");
                }
                Err(error)
            }
        }
    }
}

fn is_disk_full(error: &Error) -> bool {
    matches!(error, Error::Database { source, .. } if source.sqlite_error_code() == Some(ErrorCode::DiskFull))
}

fn answer(answers: Vec<Answer>) {
    for (to, result) in answers {
        // Nobody waits any more when the caller was cancelled; the write stands all the same.
        drop(to.send(result));
    }
}

/// Answers everyone with why the store ended, until all handles are gone.
fn refuse_all(queue: &Receiver<Request>, error: &Error) {
    tracing::error!(%error, "the store takes no more writes until it is opened again");
    let reason: Arc<str> = Arc::from(format!("{error}; restart to read what the disk holds"));
    for request in queue {
        drop(request.answer.send(Err(Error::Closed { reason: Arc::clone(&reason) })));
    }
}

/// Applies each transaction that can be applied to the map, in order.
fn decide(map: Map, revision: Revision, requests: Vec<Request>) -> Decided {
    let mut decided = Decided { map, revision, events: Vec::new(), answers: Vec::new(), synced: false };
    for request in requests {
        let mut draft = decided.map.clone();
        let result = apply(&mut draft, decided.revision, request.changes);
        let records = match result {
            Err(error) => Err(error),
            Ok(events) => {
                decided.map = draft;
                decided.revision += events.len() as Revision;
                decided.synced |= request.durability == Durability::Synced && !events.is_empty();
                let records = events.iter().map(|e| e.record.clone()).collect();
                decided.events.extend(events);
                Ok(records)
            }
        };
        decided.answers.push((request.answer, records));
    }
    decided
}

/// All changes of one transaction or, on an error, a draft to throw away.
fn apply(draft: &mut Map, revision: Revision, changes: Vec<Change>) -> Result<Vec<Event>, Error> {
    let mut events = Vec::with_capacity(changes.len());
    for (at, change) in changes.into_iter().enumerate() {
        let revision = revision + 1 + at as Revision;
        let event = match change {
            Change::Put { key, expect, value } => {
                let previous = check(draft, &key, expect, false)?;
                let value = render(&key, || value(revision))?;
                let key = previous.as_ref().map_or(key, |p| Arc::clone(&p.key));
                let created = previous.as_ref().map_or(revision, |p| p.created);
                let record = Record { key, value, created, modified: revision };
                draft.insert(Arc::clone(&record.key), record.clone());
                Event { kind: EventKind::Put { created: previous.is_none() }, record, previous }
            }
            Change::Delete { key, expect, tombstone } => {
                let previous = check(draft, &key, expect, true)?.ok_or(Error::NotFound { key })?;
                let value = render(&previous.key, || tombstone(revision, &previous))?;
                draft.remove(&previous.key);
                let key = Arc::clone(&previous.key);
                let record = Record { key, value, created: previous.created, modified: revision };
                Event { kind: EventKind::Delete, record, previous: Some(previous) }
            }
        };
        events.push(event);
    }
    Ok(events)
}

fn check(map: &Map, key: &Arc<str>, expect: Expect, must_exist: bool) -> Result<Option<Record>, Error> {
    let found = map.get(key);
    let conflict = || Error::Conflict { key: Arc::clone(key), found: found.map(|r| r.modified) };
    match (expect, found) {
        (Expect::Revision(_), None) => Err(Error::NotFound { key: Arc::clone(key) }),
        (Expect::Any | Expect::Absent, None) if must_exist => Err(Error::NotFound { key: Arc::clone(key) }),
        (Expect::Absent, Some(_)) => Err(conflict()),
        (Expect::Revision(wanted), Some(record)) if record.modified != wanted => Err(conflict()),
        (Expect::Any | Expect::Absent | Expect::Revision(_), found) => Ok(found.cloned()),
    }
}

/// A request's own code must not be able to stop the writer.
fn render(key: &Arc<str>, run: impl FnOnce() -> bytes::Bytes) -> Result<bytes::Bytes, Error> {
    let value = catch_unwind(AssertUnwindSafe(run)).map_err(|_| Error::Render { key: Arc::clone(key) })?;
    if value.len() > VALUE_BYTES_MAX {
        return Err(Error::TooLarge { key: Arc::clone(key), bytes: value.len(), max: VALUE_BYTES_MAX });
    }
    Ok(value)
}
