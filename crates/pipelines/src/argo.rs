//! Argo's artifact addresses: `GET /artifacts/{ns}/{workflow}/{node}/{artifact}` and `/input-artifacts/…`.
//!
//! A single file is answered as the bytes that the step wrote; a folder as a gzipped tar with the artifact's name.
//! What a step wrote is not trusted by browsers: it is sandboxed and never rendered with scripts.

use std::sync::Arc;

use api::workflow::Workflow;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};
use kube::Api;
use objects::{ArtifactUri, ObjectName};
use tokio_util::io::ReaderStream;

use crate::Face;
use crate::error::{Doing, Error, Result};

/// Largest folder that is packed for an answer, in bytes: it is packed in memory.
const FOLDER_BYTES_MAX: u64 = 256 << 20;

type App = State<Arc<Face>>;
type Place = Path<(String, String, String, String)>;

pub(crate) async fn output(state: App, place: Place) -> Result<Response> {
    serve(state, place, false).await
}

pub(crate) async fn input(state: App, place: Place) -> Result<Response> {
    serve(state, place, true).await
}

async fn serve(
    State(face): App,
    Path((namespace, workflow, node, artifact)): Place,
    input: bool,
) -> Result<Response> {
    let api = Api::<Workflow>::namespaced(face.client.clone(), &namespace);
    let found = api.get_opt(&workflow).await.doing("read the Workflow")?;
    let found =
        found.ok_or_else(|| Error::NotFound { what: "workflow", id: format!("{namespace}/{workflow}") })?;
    let place = place_of(&found, &node, &artifact, input)?;
    match face.artifacts.get(&place).await {
        Ok((file, meta)) => {
            let body = Body::from_stream(ReaderStream::with_capacity(file, 256 * 1024));
            let mut response = (headers(place.file_name()), body).into_response();
            response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(meta.size));
            Ok(response)
        }
        Err(error) if error.is_not_found() => {
            let packed = pack(&face, &place).await?;
            Ok((headers(&format!("{}.tgz", place.file_name())), packed).into_response())
        }
        Err(error) => Err(error.into()),
    }
}

/// Where a node's artifact is.
pub(crate) fn place_of(workflow: &Workflow, node: &str, name: &str, input: bool) -> Result<ObjectName> {
    let status = workflow.status.as_ref();
    let node_status = status.and_then(|status| status.nodes.get(node));
    let node_status = node_status.ok_or_else(|| Error::NotFound { what: "node", id: node.to_owned() })?;
    let list = if input { &node_status.inputs.artifacts } else { &node_status.outputs.artifacts };
    let artifact = list.iter().find(|artifact| artifact.name == name);
    let artifact = artifact.ok_or_else(|| Error::NotFound { what: "artifact", id: name.to_owned() })?;
    if let Some(s3) = &artifact.s3 {
        return Ok(ObjectName::new(&s3.bucket, &s3.key)?);
    }
    match artifact.uri.parse::<ArtifactUri>()? {
        ArtifactUri::Object(objects::Scheme::Minio, name) => Ok(name),
        other => Err(objects::Error::NotYet {
            uri: other.to_string(),
            what: "serving an artifact of another store",
        }
        .into()),
    }
}

async fn pack(face: &Face, folder: &ObjectName) -> Result<Vec<u8>> {
    let files = face.artifacts.list_folder(folder).await?;
    if files.is_empty() {
        return Err(objects::Error::NotFound(folder.to_string()).into());
    }
    let bytes: u64 = files.iter().map(|file| file.size).sum();
    if bytes > FOLDER_BYTES_MAX {
        let text =
            format!("folder {folder} has {bytes} bytes, more than the {FOLDER_BYTES_MAX} that are packed");
        return Err(Error::Precondition(text));
    }
    let top = folder.file_name().to_owned();
    let mut sources = Vec::with_capacity(files.len());
    for file in files {
        let relative = file.key[folder.key().len() + 1..].to_owned();
        sources.push((format!("{top}/{relative}"), face.artifacts.path(&folder.join(&relative)?)));
    }
    let packed = tokio::task::spawn_blocking(move || pack_files(&sources)).await;
    let packed = packed.expect("packing does not panic");
    packed.map_err(|source| objects::Error::Io { path: folder.key().into(), source }.into())
}

fn pack_files(sources: &[(String, std::path::PathBuf)]) -> std::io::Result<Vec<u8>> {
    let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut archive = tar::Builder::new(gzip);
    for (name, path) in sources {
        archive.append_path_with_name(path, name)?;
    }
    archive.into_inner()?.finish()
}

fn headers(file_name: &str) -> http::HeaderMap {
    let mut headers = http::HeaderMap::new();
    let plain: String = file_name
        .chars()
        .map(|c| if c.is_ascii_graphic() && c != '"' && c != '\\' { c } else { '_' })
        .collect();
    let disposition = HeaderValue::from_str(&format!("filename=\"{plain}\""));
    headers.insert(header::CONTENT_DISPOSITION, disposition.expect("graphic ASCII is legal in a header"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type(file_name)));
    let policy =
        "sandbox; base-uri 'none'; default-src 'none'; img-src 'self'; style-src 'self' 'unsafe-inline'";
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("SAMEORIGIN"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers
}

fn content_type(file_name: &str) -> &'static str {
    match file_name.rsplit_once('.').map(|(_, end)| end) {
        Some("html" | "htm") => "text/html; charset=utf-8",
        Some("txt" | "log" | "md") => "text/plain; charset=utf-8",
        Some("json") => "application/json",
        Some("csv") => "text/csv; charset=utf-8",
        Some("png") => "image/png",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("svg") => "image/svg+xml",
        Some("tgz" | "gz") => "application/gzip",
        _ => "application/octet-stream",
    }
}
