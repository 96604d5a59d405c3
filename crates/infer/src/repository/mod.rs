//! The models that a server knows, and which of their versions answer.
//!
//! Readers look into an immutable [`Index`] without a lock; whoever changes what is served makes a new index and
//! swaps it in. A request keeps the [`Served`] it found, so a swap touches no request.
//!
//! Not here: reading model files (`load`), evaluating (`evaluate`).

mod index;

use std::sync::Arc;

use arc_swap::ArcSwap;

pub(crate) use index::Index;
pub use index::{ModelStatus, NotServed, Snapshot, State, VersionStatus, Which};

use crate::served::Served;

/// The models of a server; cheap to clone.
#[derive(Clone)]
pub struct Repository {
    index: Arc<ArcSwap<Index>>,
}

impl Repository {
    /// A repository of these versions, of which the highest of each name is its default.
    pub fn of(all: Vec<Served>) -> Self {
        let mut index = Index::default();
        for served in all {
            index.put(Arc::new(served));
        }
        Self { index: Arc::new(ArcSwap::from_pointee(index)) }
    }

    /// The version that answers. Without a lock and without an allocation.
    pub fn find(&self, name: &str, which: Which<'_>) -> Result<Arc<Served>, NotServed> {
        self.index.load().find(name, which)
    }

    /// All models with the states of their versions, in the order of their names.
    pub fn snapshot(&self) -> Snapshot {
        self.index.load().snapshot()
    }

    /// One model with the states of its versions.
    pub fn status(&self, name: &str) -> Option<ModelStatus> {
        self.index.load().status(name)
    }

    /// Whether every model that is to be served has a version that answers.
    pub fn is_ready(&self) -> bool {
        self.index.load().is_ready()
    }
}
