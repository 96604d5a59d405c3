//! Revisioned records, durable before visible.
//!
//! The contract that `apiserver` builds on is in [`Record`], [`Change`] and [`Store`].

use std::sync::Arc;

use bytes::Bytes;

/// A point in the store's history; the first write is 1. Kubernetes' `resourceVersion`.
pub type Revision = u64;

/// One value at one revision.
#[derive(Debug, Clone)]
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
