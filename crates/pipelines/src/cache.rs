//! The step cache: outputs of a finished step by fingerprint, scoped to namespace and pipeline as upstream's.
//!
//! Unlike upstream, a hit is given only while every artifact it names is still in the store. The engine
//! computes the fingerprint; the binary adapts these two calls to its trait.

use serde_json::Value;
use sqlx::Row;

use crate::db::Bind;
use crate::error::{Doing, Result};
use crate::{Pipelines, wire};

/// What identifies a step's work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Namespace of the run.
    pub namespace: String,
    /// `pipelineInfo.name`.
    pub pipeline: String,
    /// Upstream's fingerprint, hex, or the digest of a custom cache key.
    pub fingerprint: String,
}

/// A step that ran before.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Run that did the work.
    pub run_id: String,
    /// Node of it.
    pub node_id: String,
    /// The outputs, as the engine recorded them.
    pub outputs: Value,
    /// URIs that must still exist for the entry to be of use.
    pub artifact_uris: Vec<String>,
}

/// The newest entry of the key whose artifacts all exist.
pub async fn lookup(pipelines: &Pipelines, key: &Key) -> Result<Option<Entry>> {
    let sql = "SELECT run_id, node_id, outputs, artifact_uris FROM kfp_cache WHERE namespace = $1 AND pipeline = $2 \
               AND fingerprint = $3";
    let doing = "look into the step cache";
    let Some(row) = pipelines.face.db.row(sql.to_owned(), &binds(key), doing).await? else { return Ok(None) };
    let text = |name| row.try_get::<String, _>(name).doing(doing);
    let uris = wire::stored("artifact_uris", &text("artifact_uris")?)?;
    let uris: Vec<String> = uris
        .as_array()
        .map(|uris| uris.iter().filter_map(|uri| uri.as_str().map(str::to_owned)).collect())
        .unwrap_or_default();
    for uri in &uris {
        if !exists(pipelines, uri).await? {
            return Ok(None);
        }
    }
    Ok(Some(Entry {
        run_id: text("run_id")?,
        node_id: text("node_id")?,
        outputs: wire::stored("outputs", &text("outputs")?)?,
        artifact_uris: uris,
    }))
}

/// Remembers a step that succeeded; it replaces an older entry.
///
/// Of the URIs only those are kept that exist now: an output may have metadata and no bytes (KFP's metrics), and that step
/// is as good a hit as any.
pub async fn record(pipelines: &Pipelines, key: &Key, entry: &Entry) -> Result<()> {
    let sql = "INSERT INTO kfp_cache (namespace, pipeline, fingerprint, run_id, node_id, created_at, outputs, \
               artifact_uris) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (namespace, pipeline, fingerprint) \
               DO UPDATE SET run_id = excluded.run_id, node_id = excluded.node_id, created_at = excluded.created_at, \
               outputs = excluded.outputs, artifact_uris = excluded.artifact_uris";
    let mut uris = Vec::new();
    for uri in &entry.artifact_uris {
        if exists(pipelines, uri).await? {
            uris.push(uri.clone());
        }
    }
    let mut all: Vec<Bind> = binds(key).to_vec();
    all.extend([
        entry.run_id.as_str().into(),
        entry.node_id.as_str().into(),
        wire::now().into(),
        entry.outputs.to_string().into(),
        Value::from(uris).to_string().into(),
    ]);
    pipelines.face.db.write(sql, &all, "write to the step cache").await.map(|_| ())
}

fn binds(key: &Key) -> [Bind; 3] {
    [key.namespace.as_str().into(), key.pipeline.as_str().into(), key.fingerprint.as_str().into()]
}

/// Objects of other stores count as there: they cannot be asked yet.
async fn exists(pipelines: &Pipelines, uri: &str) -> Result<bool> {
    match uri.parse::<objects::ArtifactUri>() {
        Ok(objects::ArtifactUri::Object(objects::Scheme::Minio, name)) => {
            Ok(pipelines.face.artifacts.exists(&name).await?)
        }
        Ok(_) => Ok(true),
        Err(_) => Ok(false),
    }
}
