//! Puts the platform's kinds and roles into the cluster: the very documents that a real cluster would get.
//!
//! A document whose digest is on the object already is left alone, so that a restart writes nothing.

use anyhow::{Context, Result};
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams},
};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const DIGEST: &str = "slipway.dev/document";

/// Creates or updates every document.
pub async fn apply(client: &Client) -> Result<()> {
    for stream in api::crds().chain(api::install_manifests()) {
        for document in serde_yaml_ng::Deserializer::from_str(stream) {
            let object = Value::deserialize(document).context("a document of the platform is no YAML")?;
            if !object.is_null() {
                apply_one(client, object).await?;
            }
        }
    }
    Ok(())
}

async fn apply_one(client: &Client, mut document: Value) -> Result<()> {
    let digest = hex::encode(Sha256::digest(document.to_string()));
    document["metadata"]["annotations"][DIGEST] = json!(digest);
    let object: DynamicObject =
        serde_json::from_value(document.clone()).context("a document has no type or metadata")?;
    let name = object.name_any();
    let objects = objects(client, &object)?;
    match objects.get_opt(&name).await? {
        Some(found) if found.annotations().get(DIGEST) == Some(&digest) => Ok(()),
        Some(_) => {
            objects.patch(&name, &PatchParams::default(), &Patch::Merge(document)).await?;
            Ok(())
        }
        None => {
            objects
                .create(&PostParams::default(), &object)
                .await
                .with_context(|| format!("cannot create {name}"))?;
            Ok(())
        }
    }
}

fn objects(client: &Client, object: &DynamicObject) -> Result<Api<DynamicObject>> {
    let types = object.types.as_ref().context("a document has no kind")?;
    let (group, version) = types.api_version.split_once('/').unwrap_or(("", &types.api_version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &types.kind));
    Ok(match object.namespace() {
        Some(namespace) => Api::namespaced_with(client.clone(), &namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    })
}
