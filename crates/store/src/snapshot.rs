//! One consistent state of the store.

use std::ops::Bound;

use crate::map::Map;
use crate::{Record, Revision};

/// All records as of one revision. Cheap to take and to clone; what it shows never changes.
#[derive(Clone)]
pub struct Snapshot {
    pub(crate) revision: Revision,
    pub(crate) map: Map,
}

impl Snapshot {
    /// The revision that this state has.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.map.len() == 0
    }

    /// The record under a key.
    pub fn get(&self, key: &str) -> Option<&Record> {
        self.map.get(key)
    }

    /// The records whose keys start with `prefix`, in the keys' byte order, beginning behind `after_key`.
    pub fn range<'a>(
        &'a self,
        prefix: &'a str,
        after_key: Option<&'a str>,
    ) -> impl Iterator<Item = &'a Record> + 'a {
        let from = match after_key {
            Some(key) if key >= prefix => Bound::Excluded(key),
            Some(_) | None => Bound::Included(prefix),
        };
        self.map.from(from).take_while(move |(key, _)| key.starts_with(prefix)).map(|(_, record)| record)
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot")
            .field("revision", &self.revision)
            .field("records", &self.map.len())
            .finish()
    }
}
