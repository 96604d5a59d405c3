//! Artifacts: their URIs, the store that keeps them, the HTTP face that serves them, and the fetcher.
//!
//! * [`uri`]: every URI the platform accepts, parsed once; what exists as a value is safe to use as a path or key.
//! * [`store`]: objects in `DATA/artifacts/<bucket>/<key>`, written atomically and synced before they are visible.
//! * [`face`]: the store over HTTP for pods, each caller held to its own namespace's keys.
//! * [`fetch`](mod@fetch): what `storage-initializer` does: any URI to a folder, `models:/` resolved through the registry.
//!
//! Not here: who a token belongs to (a [`face::Gate`] that the binary wires), and what an artifact means
//! (the registry's lineage). Remote buckets (`s3://`, `gs://`) parse but are not served yet; every
//! path that meets one says so.

pub mod error;
pub mod face;
pub mod fetch;
pub mod store;
pub mod uri;

pub use error::Error;
pub use fetch::{Endpoints, Fetched, fetch, storage_initializer};
pub use store::{ArtifactStore, ObjectMeta};
pub use uri::{ArtifactUri, ModelSelector, ObjectName, Scheme};
