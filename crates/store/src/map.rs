//! All records by key, as a persistent map: a clone costs nothing and never changes.
//!
//! A thin shell over `immutable-chunkmap`, so that the rest of the crate does not know which map it is.

use std::ops::Bound;
use std::sync::Arc;

use immutable_chunkmap::map::MapM;

use crate::Record;

/// Records by key.
#[derive(Clone, Default)]
pub(crate) struct Map(MapM<Arc<str>, Record>);

impl Map {
    pub(crate) fn new() -> Self {
        Self(MapM::new())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Record> {
        self.0.get(key)
    }

    pub(crate) fn insert(&mut self, key: Arc<str>, record: Record) -> Option<Record> {
        self.0.insert_cow(key, record)
    }

    pub(crate) fn remove(&mut self, key: &Arc<str>) -> Option<Record> {
        self.0.remove_cow(key)
    }

    /// The records from a key on, in the keys' byte order.
    pub(crate) fn from<'a>(
        &'a self,
        from: Bound<&'a str>,
    ) -> impl Iterator<Item = (&'a Arc<str>, &'a Record)> + 'a {
        self.0.range::<str, _>((from, Bound::Unbounded))
    }
}
