//! The SQLite file: one append-only log of revisions.
//!
//! `log` holds every kept revision of every record; the newest row of a key is its current state, so opening is one
//! scan in revision order that fills the map and the history together. A row goes when history no longer needs it and
//! a newer one exists. `meta` has `compacted` (see `history`) and `reserved`: revisions up to it may have been shown
//! by exempt writes, so a start after a crash continues above.
//!
//! The file is held with an exclusive lock: it keeps a second server out, and the WAL index stays in this process.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, params};

use crate::history::History;
use crate::open::Options;
use crate::state::Map;
use crate::{Error, Event, EventKind, Record, Revision, header};

const PUT: i64 = 0;
const DELETE: i64 = 1;

/// The database as loaded.
pub(crate) struct Loaded {
    pub(crate) map: Map,
    pub(crate) history: History,
    /// The newest revision ever shown to anyone.
    pub(crate) revision: Revision,
    pub(crate) reserved: Revision,
}

/// The open database. Only the writer thread has it.
pub(crate) struct Db {
    connection: Connection,
}

/// What one transaction of the database writes.
#[derive(Default)]
pub(crate) struct Batch<'a> {
    pub(crate) events: &'a [Event],
    pub(crate) victims: &'a [Revision],
    pub(crate) compacted: Revision,
    pub(crate) reserved: Option<Revision>,
}

impl Db {
    pub(crate) fn open(path: &Path, options: &Options) -> Result<Self, Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let opened = match options.testing.vfs {
            Some(vfs) => Connection::open_with_flags_and_vfs(path, flags, vfs),
            None => Connection::open_with_flags(path, flags),
        };
        let connection = opened.map_err(Error::database("open the database"))?;
        // Long enough for a server that is just going down to let go.
        connection.busy_timeout(Duration::from_millis(500)).map_err(Error::database("open the database"))?;
        let db = Self { connection };
        db.configure(options).map_err(|e| match e.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                Error::InUse { path: path.to_owned() }
            }
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
                Error::Corrupt { what: path.display().to_string(), detail: e.to_string() }
            }
            _ => Error::database("set up the database")(e),
        })?;
        Ok(db)
    }

    fn configure(&self, options: &Options) -> rusqlite::Result<()> {
        let synchronous = if options.testing.synchronous_off { "OFF" } else { "FULL" };
        self.connection.execute_batch(&format!(
            "PRAGMA page_size = 8192;
             PRAGMA locking_mode = EXCLUSIVE;
             PRAGMA journal_mode = WAL;
             PRAGMA synchronous = {synchronous};
             PRAGMA journal_size_limit = 16777216;
             PRAGMA cache_size = -4096;
             BEGIN IMMEDIATE;
             CREATE TABLE IF NOT EXISTS log (
                 revision INTEGER PRIMARY KEY, kind INTEGER NOT NULL, created INTEGER NOT NULL,
                 key TEXT NOT NULL, value BLOB NOT NULL);
             CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
             COMMIT;"
        ))
    }

    /// Reads everything in one scan.
    pub(crate) fn load(&self, options: &Options) -> Result<Loaded, Error> {
        let compacted = self.meta("compacted")?;
        let reserved = self.meta("reserved")?;
        let mut history = History::new(options.history_events_max, options.history_bytes_max, compacted);
        let mut map = Map::new();
        let mut revision = compacted;
        let reading = "read the log";
        let mut scan = self
            .connection
            .prepare("SELECT revision, kind, created, key, value FROM log ORDER BY revision")
            .map_err(Error::database(reading))?;
        let mut rows = scan.query([]).map_err(Error::database(reading))?;
        while let Some(row) = rows.next().map_err(Error::database(reading))? {
            let event = read_row(row, &mut map)?;
            revision = revision.max(event.record.modified);
            if event.record.modified > compacted {
                history.push(event);
            }
        }
        let revision = revision.max(reserved);
        history.set_start(revision);
        Ok(Loaded { map, history, revision, reserved })
    }

    fn meta(&self, name: &str) -> Result<Revision, Error> {
        let found = self
            .connection
            .query_row("SELECT value FROM meta WHERE name = ?1", [name], |r| r.get::<_, i64>(0));
        match found {
            Ok(value) => Ok(value as Revision),
            Err(rusqlite::Error::QueryReturnedNoRows) => Ok(0),
            Err(e) => Err(Error::database("read the metadata")(e)),
        }
    }

    /// One durable transaction: when this returns, it is synced.
    pub(crate) fn write(&mut self, batch: &Batch<'_>) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        {
            let mut insert = transaction.prepare_cached(
                "INSERT INTO log (revision, kind, created, key, value) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?;
            for event in batch.events {
                let record = &event.record;
                let kind = if event.kind == EventKind::Delete { DELETE } else { PUT };
                let value = header::encode(&record.value);
                insert.execute(params![
                    record.modified as i64,
                    kind,
                    record.created as i64,
                    &*record.key,
                    value
                ])?;
            }
            let mut meta =
                transaction.prepare_cached("INSERT OR REPLACE INTO meta (name, value) VALUES (?1, ?2)")?;
            if !batch.victims.is_empty() {
                let mut remove = transaction.prepare_cached("DELETE FROM log WHERE revision = ?1")?;
                for revision in batch.victims {
                    remove.execute([*revision as i64])?;
                }
                meta.execute(params!["compacted", batch.compacted as i64])?;
            }
            if let Some(reserved) = batch.reserved {
                meta.execute(params!["reserved", reserved as i64])?;
            }
        }
        transaction.commit()
    }
}

/// Turns a row into the event it was, and applies it to the map.
fn read_row(row: &rusqlite::Row<'_>, map: &mut Map) -> Result<Event, Error> {
    let reading = "read the log";
    let revision: i64 = row.get(0).map_err(Error::database(reading))?;
    let kind: i64 = row.get(1).map_err(Error::database(reading))?;
    let created: i64 = row.get(2).map_err(Error::database(reading))?;
    let key = row.get_ref(3).and_then(|v| Ok(v.as_str()?)).map_err(Error::database(reading))?;
    let stored = row.get_ref(4).and_then(|v| Ok(v.as_blob()?)).map_err(Error::database(reading))?;
    let value = header::decode(stored).map_err(|e| Error::Corrupt {
        what: format!("revision {revision} of {key:?}"),
        detail: e.to_string(),
    })?;
    let previous = map.get(key).cloned();
    let key = previous.as_ref().map_or_else(|| Arc::from(key), |p| Arc::clone(&p.key));
    let record = Record { key, value, created: created as Revision, modified: revision as Revision };
    let kind = match kind {
        PUT => {
            map.insert(Arc::clone(&record.key), record.clone());
            EventKind::Put { created: previous.is_none() }
        }
        DELETE => {
            map.remove(&record.key);
            EventKind::Delete
        }
        other => {
            let what = format!("revision {revision} of {:?}", record.key);
            return Err(Error::Corrupt { what, detail: format!("kind {other} is unknown") });
        }
    };
    Ok(Event { kind, record, previous })
}
