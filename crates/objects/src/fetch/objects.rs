//! Objects of the platform's own store, through the artifact face.

use super::{Context, Sink, encode_path, encode_value};
use crate::Error;
use crate::face::ListLine;
use crate::uri::{ArtifactUri, ObjectName};

pub(super) async fn fetch(
    context: &Context<'_>,
    name: &ObjectName,
    uri: &ArtifactUri,
    sink: &mut Sink,
) -> Result<(), Error> {
    let base = context.endpoints.artifacts_url.as_deref().ok_or_else(|| Error::NeedsEndpoint {
        uri: uri.to_string(),
        setting: pod_protocol::launch::ARTIFACTS_URL_ENV,
    })?;
    let bucket_url = format!("{}/v1/objects/{}", base.trim_end_matches('/'), name.bucket());
    let object_url = |key: &str| format!("{bucket_url}/{}", encode_path(key));

    let url = object_url(name.key());
    match context.send(&url, context.own(context.http.get(&url))).await {
        Ok(response) => return sink.save(name.file_name(), &url, response).await,
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error),
    }

    let folder = format!("{}/", name.key());
    let list_url = format!("{bucket_url}?prefix={}", encode_value(&folder));
    let answer = context.send(&list_url, context.own(context.http.get(&list_url))).await?;
    let listing = answer.text().await.map_err(|e| Error::http(&list_url, &e))?;
    let mut found = false;
    for line in listing.lines() {
        let bad = |reason: String| Error::BadAnswer { url: list_url.clone(), reason };
        let line: ListLine = serde_json::from_str(line).map_err(|e| bad(e.to_string()))?;
        let relative =
            line.key.strip_prefix(&folder).ok_or_else(|| bad(format!("`{}` is not below it", line.key)))?;
        let url = object_url(&line.key);
        let response = context.send(&url, context.own(context.http.get(&url))).await?;
        sink.save(relative, &url, response).await?;
        found = true;
    }
    if found { Ok(()) } else { Err(Error::NotFound(uri.to_string())) }
}
