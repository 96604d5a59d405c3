//! The MLflow REST calls that turn `models:/…` into a source, and the artifact proxy behind `mlflow-artifacts:/`.
//!
//! Paths and fields are MLflow's (`mlflow/protos/service.proto`, `model_registry.proto`, `mlflow_artifacts.proto`).

use serde_json::Value;

use super::{Context, Sink, encode_path, encode_value};
use crate::Error;
use crate::uri::{ArtifactUri, ModelSelector};

/// Where the registry says that the model is. May itself be a `models:/m-…`.
pub(super) async fn resolve(
    context: &Context<'_>,
    selector: &ModelSelector,
    asked: &ArtifactUri,
) -> Result<ArtifactUri, Error> {
    let base = tracking(context, asked)?;
    let api = format!("{base}/api/2.0/mlflow");
    match selector {
        ModelSelector::Version { name, version } => source_of(context, &api, name, *version).await,
        ModelSelector::Alias { name, alias } => {
            let url = format!(
                "{api}/registered-models/alias?name={}&alias={}",
                encode_value(name),
                encode_value(alias)
            );
            let answer = get(context, &url).await?;
            let version = number(&answer, "/model_version/version", &url)?;
            source_of(context, &api, name, version).await
        }
        ModelSelector::Latest { name } => {
            let url = format!("{api}/registered-models/get-latest-versions?name={}", encode_value(name));
            let answer = get(context, &url).await?;
            let versions = answer["model_versions"].as_array().map(Vec::as_slice).unwrap_or_default();
            let newest = versions.iter().filter_map(|v| as_number(&v["version"])).max();
            let newest = newest.ok_or_else(|| Error::NotFound(asked.to_string()))?;
            source_of(context, &api, name, newest).await
        }
        ModelSelector::Logged { model_id } => {
            let url = format!("{api}/logged-models/{}", encode_path(model_id));
            let answer = get(context, &url).await?;
            text(&answer, "/model/info/artifact_uri", &url)?.parse()
        }
    }
}

async fn source_of(context: &Context<'_>, api: &str, name: &str, version: u64) -> Result<ArtifactUri, Error> {
    let url = format!("{api}/model-versions/get-download-uri?name={}&version={version}", encode_value(name));
    let answer = get(context, &url).await?;
    text(&answer, "/artifact_uri", &url)?.parse()
}

/// A file or a folder through the artifact proxy.
pub(super) async fn fetch_artifacts(
    context: &Context<'_>,
    host: Option<&str>,
    path: &str,
    uri: &ArtifactUri,
    sink: &mut Sink,
) -> Result<(), Error> {
    let base = tracking(context, uri)?;
    if let Some(host) = host
        && authority(base) != host
    {
        let reason = format!("it names the server `{host}`, the tracking server is `{base}`");
        return Err(Error::BadUri { uri: uri.to_string(), reason });
    }
    let proxy = format!("{base}/api/2.0/mlflow-artifacts/artifacts");
    let mut folders = vec![String::new()];
    let mut found = 0_u64;
    while let Some(folder) = folders.pop() {
        let whole = if folder.is_empty() { path.to_owned() } else { format!("{path}/{folder}") };
        let url = format!("{proxy}?path={}", encode_value(&whole));
        let answer = get(context, &url).await?;
        for entry in answer["files"].as_array().map(Vec::as_slice).unwrap_or_default() {
            let name = text(entry, "/path", &url)?;
            let relative = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
            found += 1;
            if found > super::FILES_MAX {
                return Err(Error::TooLarge { name: uri.to_string(), bytes_max: super::BYTES_MAX });
            }
            if entry["is_dir"].as_bool().unwrap_or(false) {
                folders.push(relative);
            } else {
                let url = format!("{proxy}/{}", encode_path(&format!("{path}/{relative}")));
                let response = context.send(&url, context.own(context.http.get(&url))).await?;
                sink.save(&relative, &url, response).await?;
            }
        }
    }
    if found > 0 {
        return Ok(());
    }
    // An empty listing: a file's own path, or nothing.
    let url = format!("{proxy}/{}", encode_path(path));
    let response = match context.send(&url, context.own(context.http.get(&url))).await {
        Err(error) if error.is_not_found() => return Err(Error::NotFound(uri.to_string())),
        other => other?,
    };
    sink.save(path.rsplit('/').next().unwrap_or(path), &url, response).await
}

fn tracking<'a>(context: &'a Context<'_>, uri: &ArtifactUri) -> Result<&'a str, Error> {
    let base = context.endpoints.tracking_uri.as_deref();
    let missing = || Error::NeedsEndpoint { uri: uri.to_string(), setting: "MLFLOW_TRACKING_URI" };
    Ok(base.ok_or_else(missing)?.trim_end_matches('/'))
}

fn authority(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}

async fn get(context: &Context<'_>, url: &str) -> Result<Value, Error> {
    let response = context.send(url, context.own(context.http.get(url))).await?;
    let body = response.bytes().await.map_err(|e| Error::http(url, &e))?;
    serde_json::from_slice(&body).map_err(|e| Error::BadAnswer { url: url.to_owned(), reason: e.to_string() })
}

fn text<'a>(answer: &'a Value, pointer: &str, url: &str) -> Result<&'a str, Error> {
    let missing = || Error::BadAnswer { url: url.to_owned(), reason: format!("`{pointer}` is missing") };
    answer.pointer(pointer).and_then(Value::as_str).ok_or_else(missing)
}

fn number(answer: &Value, pointer: &str, url: &str) -> Result<u64, Error> {
    let missing = || Error::BadAnswer { url: url.to_owned(), reason: format!("`{pointer}` is no version") };
    answer.pointer(pointer).and_then(as_number).ok_or_else(missing)
}

/// Versions are strings in MLflow's JSON; numbers are taken as well.
fn as_number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}
