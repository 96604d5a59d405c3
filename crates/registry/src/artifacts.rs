//! Where `mlflow-artifacts:` paths are kept: any `object_store`, one prefix a tenant.
//!
//! A path is checked before it becomes a key, and the tenant's prefix is added here and nowhere else, so no caller can
//! name a key outside its own tenant.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{GetResult, ObjectStore, ObjectStoreExt, WriteMultipart};
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::validate;

/// Bodies up to this size are written in one call.
const PART_BYTES: usize = 8 << 20;
/// Parts of one upload in flight.
const PARTS_IN_FLIGHT: usize = 2;
/// Entries of one listing; more is refused rather than cut.
const LIST_MAX: usize = 100_000;

/// The store of artifacts.
#[derive(Clone)]
pub(crate) struct Artifacts {
    store: Arc<dyn ObjectStore>,
}

/// One entry of a folder.
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) size: Option<u64>,
}

impl Entry {
    /// MLflow's `FileInfo`, its path under `folder`.
    pub(crate) fn file_info(&self, folder: &str) -> Value {
        let path = if folder.is_empty() { self.name.clone() } else { format!("{folder}/{}", self.name) };
        match self.size {
            Some(size) => json!({"path": path, "is_dir": false, "file_size": size}),
            None => json!({"path": path, "is_dir": true}),
        }
    }
}

impl Artifacts {
    pub(crate) fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self { store }
    }

    fn key(namespace: &str, path: &str) -> Result<Path> {
        let path = validate::artifact_path(path)?;
        Path::parse(format!("{namespace}/{path}").trim_end_matches('/'))
            .map_err(|error| Error::Invalid(format!("Invalid path: '{path}': {error}")))
    }

    /// Stores the body; readers see all of it or nothing.
    pub(crate) async fn put(&self, namespace: &str, path: &str, body: axum::body::Body) -> Result<()> {
        let key = Self::key(namespace, path)?;
        let fail = |source| Error::Artifact { doing: "store", path: path.to_owned(), source };
        let mut stream = body.into_data_stream();
        let mut head = Vec::new();
        while head.len() < PART_BYTES {
            match stream.next().await {
                Some(chunk) => head.extend_from_slice(&chunk.map_err(|error| broken_body(path, &error))?),
                None => {
                    self.store.put(&key, head.into()).await.map_err(fail)?;
                    return Ok(());
                }
            }
        }
        let upload = self.store.put_multipart(&key).await.map_err(fail)?;
        let mut writer = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
        writer.write(&head);
        drop(head);
        loop {
            match stream.next().await {
                None => break,
                Some(Ok(chunk)) => {
                    writer.wait_for_capacity(PARTS_IN_FLIGHT).await.map_err(fail)?;
                    writer.put(chunk);
                }
                Some(Err(error)) => {
                    // The caller went away: nothing of the upload may stay.
                    let _ = writer.abort().await;
                    return Err(broken_body(path, &error));
                }
            }
        }
        writer.finish().await.map_err(fail)?;
        Ok(())
    }

    /// Opens one artifact.
    pub(crate) async fn get(&self, namespace: &str, path: &str) -> Result<GetResult> {
        let key = Self::key(namespace, path)?;
        self.store.get(&key).await.map_err(|source| match source {
            object_store::Error::NotFound { .. } => Error::NotFound(format!("No such artifact: '{path}'")),
            source => Error::Artifact { doing: "read", path: path.to_owned(), source },
        })
    }

    /// What lies directly in a folder, sorted by name; empty when it does not exist.
    pub(crate) async fn list(&self, namespace: &str, folder: &str) -> Result<Vec<Entry>> {
        let key = Self::key(namespace, folder)?;
        let found = self.store.list_with_delimiter(Some(&key)).await;
        let found = match found {
            Err(object_store::Error::NotFound { .. }) => return Ok(Vec::new()),
            other => {
                other.map_err(|source| Error::Artifact { doing: "list", path: folder.to_owned(), source })?
            }
        };
        if found.objects.len() + found.common_prefixes.len() > LIST_MAX {
            return Err(Error::Invalid(format!("Folder '{folder}' has more than {LIST_MAX} entries")));
        }
        let name = |path: &Path| path.filename().unwrap_or_default().to_owned();
        let folders = found.common_prefixes.iter().map(|path| Entry { name: name(path), size: None });
        let files =
            found.objects.iter().map(|meta| Entry { name: name(&meta.location), size: Some(meta.size) });
        let mut entries: Vec<Entry> = folders.chain(files).collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// Removes an artifact, or all below a folder. Nothing there is no error.
    pub(crate) async fn delete(&self, namespace: &str, path: &str) -> Result<()> {
        if validate::artifact_path(path)?.is_empty() {
            return Err(Error::Invalid("Invalid path: '': the root cannot be deleted".to_owned()));
        }
        let key = Self::key(namespace, path)?;
        let fail = |source| Error::Artifact { doing: "delete", path: path.to_owned(), source };
        let below: Vec<Path> =
            self.store.list(Some(&key)).map_ok(|meta| meta.location).try_collect().await.map_err(fail)?;
        for location in below.iter().chain(std::iter::once(&key)) {
            match self.store.delete(location).await {
                // The key itself may be a folder, which no object store knows.
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(_) if location == &key && !below.is_empty() => {}
                Err(source) => return Err(fail(source)),
            }
        }
        Ok(())
    }
}

fn broken_body(path: &str, error: &axum::Error) -> Error {
    Error::Invalid(format!("Upload of '{path}' ended early: {error}"))
}

/// The path below the tenant's root that `mlflow-artifacts:/…` names; nothing for any other URI.
pub(crate) fn proxied_path(uri: &str) -> Option<&str> {
    let rest = uri.strip_prefix("mlflow-artifacts:")?;
    match rest.strip_prefix("//") {
        // With an authority: //host:port/path.
        Some(rest) => rest.split_once('/').map(|(_, path)| path),
        None => Some(rest.trim_start_matches('/')),
    }
}
