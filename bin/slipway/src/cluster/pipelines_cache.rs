//! Step results kept by the pipelines' database, as the workflow controller asks for them.
//!
//! A failure is a miss: a step that runs again is slower, never wrong.

use async_trait::async_trait;
use pipelines::{
    Pipelines,
    cache::{self, Entry, Key},
};
use plan::kfp::cache_key::CacheKey;
use serde_json::Value;
use workflows::{CachedOutputs, StepCache};

/// The adapter.
pub struct Cache(pub Pipelines);

#[async_trait]
impl StepCache for Cache {
    async fn lookup(&self, key: &CacheKey) -> Option<CachedOutputs> {
        let found = cache::lookup(&self.0, &key_of(key)).await;
        let entry =
            found.inspect_err(|error| tracing::warn!(%error, "the step cache was not asked")).ok()??;
        serde_json::from_value(entry.outputs).ok()
    }

    async fn record(&self, key: &CacheKey, run: &str, node_id: &str, outputs: &CachedOutputs) {
        let Ok(value) = serde_json::to_value(outputs) else { return };
        let mut artifact_uris = Vec::new();
        collect_uris(&value, &mut artifact_uris);
        let entry =
            Entry { run_id: run.to_owned(), node_id: node_id.to_owned(), outputs: value, artifact_uris };
        if let Err(error) = cache::record(&self.0, &key_of(key), &entry).await {
            tracing::warn!(%error, "a step's result was not kept");
        }
    }
}

fn key_of(key: &CacheKey) -> Key {
    Key {
        namespace: key.namespace.clone(),
        pipeline: key.scope.clone(),
        fingerprint: key.fingerprint.clone(),
    }
}

/// Every `uri` field: what must still exist for the result to be of use.
fn collect_uris(value: &Value, uris: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match field {
                    Value::String(uri) if name == "uri" && !uri.is_empty() => uris.push(uri.clone()),
                    other => collect_uris(other, uris),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect_uris(item, uris)),
        _ => {}
    }
}
