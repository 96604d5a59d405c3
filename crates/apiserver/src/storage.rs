//! The one place that talks to the store: objects in, records out.
//!
//! Conflicts come back as a value of their own, because some callers answer 409 and others read again and retry.
//! Not here: what a resource is, and when a write is allowed.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use store::{Change, Durability, Expect, Record, Revision, Store};

use crate::error::{ApiError, Result};
use crate::object::Rendered;

/// Why a write did not happen.
#[derive(Debug)]
pub enum WriteError {
    /// The record is not the one expected.
    Conflict,
    /// The record is gone.
    NotFound,
    /// Something else.
    Other(ApiError),
}

impl From<store::Error> for WriteError {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Conflict { .. } => Self::Conflict,
            store::Error::NotFound { .. } => Self::NotFound,
            store::Error::TooLarge { bytes, max, .. } => Self::Other(ApiError::bad_request(format!(
                "the object has {bytes} bytes when stored, more than the {max} allowed"
            ))),
            store::Error::Full { .. } => {
                Self::Other(ApiError::too_many("too many writes are waiting, please try again later", 1))
            }
            other => Self::Other(ApiError::internal(other)),
        }
    }
}

/// One write.
pub enum Write<'a> {
    /// A new object.
    Create(&'a Value),
    /// The object in place of the one at that revision.
    Update(&'a Value, Revision),
    /// The object, whose last state is given, goes; it must be at that revision.
    Delete(&'a Value, Revision),
}

/// Whether a crash may lose a write of this key for a moment (ARCHITECTURE.md, invariant 5).
fn durability(key: &str) -> Durability {
    let exempt = key.starts_with("/coordination.k8s.io/leases/") || key.starts_with("/core/events/");
    if exempt { Durability::Exempt } else { Durability::Synced }
}

/// Carries out one write; the record written, or the tombstone.
///
/// # Errors
/// See [`WriteError`].
pub async fn write(store: &Store, key: &str, write: Write<'_>) -> Result<Record, WriteError> {
    write_with(store, key, write, durability(key)).await
}

/// As [`write`], for a caller that knows more of what a crash may take: the status of a pod, which its shim can tell again.
///
/// # Errors
/// See [`WriteError`].
pub async fn write_with(
    store: &Store,
    key: &str,
    write: Write<'_>,
    durability: Durability,
) -> Result<Record, WriteError> {
    let change = match write {
        Write::Create(object) => put(key, object, Expect::Absent),
        Write::Update(object, revision) => put(key, object, Expect::Revision(revision)),
        Write::Delete(object, revision) => {
            let rendered = Rendered::new(object);
            Change::delete(key, Expect::Revision(revision), move |at, _| rendered.at(at))
        }
    };
    let mut records = store.commit_with(vec![change], durability).await?;
    records.pop().ok_or_else(|| WriteError::Other(ApiError::internal("the store answered without a record")))
}

/// A put for a transaction of several.
pub fn put(key: impl Into<Arc<str>>, object: &Value, expect: Expect) -> Change {
    let rendered = Rendered::new(object);
    Change::put(key, expect, move |at| rendered.at(at))
}

/// Parses a record's bytes.
///
/// # Errors
/// An internal error when they are no JSON, which only damage explains.
pub fn parse(bytes: &Bytes) -> Result<Value> {
    serde_json::from_slice(bytes)
        .map_err(|error| ApiError::internal(format!("a stored object is damaged: {error}")))
}

/// Parses only the metadata of a record's bytes: `{"metadata": …}`, a fraction of the work for a big object.
pub fn parse_metadata(bytes: &Bytes) -> Option<Value> {
    #[derive(serde::Deserialize)]
    struct Head {
        #[serde(default)]
        metadata: Value,
    }
    let head: Head = serde_json::from_slice(bytes).ok()?;
    Some(serde_json::json!({ "metadata": head.metadata }))
}

/// Reads and parses one object; `None` when there is none.
pub fn read(store: &Store, key: &str) -> Option<Value> {
    let record = store.snapshot().get(key).cloned()?;
    parse(&record.value).ok()
}

/// Reads and parses every object under a prefix.
pub fn read_all(store: &Store, prefix: &str) -> Vec<Value> {
    let snapshot = store.snapshot();
    snapshot.range(prefix, None).filter_map(|record| parse(&record.value).ok()).collect()
}
