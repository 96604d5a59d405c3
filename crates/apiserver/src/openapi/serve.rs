//! Answers for `/openapi/v3`: documents are made when first asked for, kept packed while clients ask, then let go.
//!
//! kubectl asks for many at once and then not for hours (the hash in the address lets it keep them), so a document in
//! memory between two uses would be there for nobody.
//!
//! Not here: what is in a document.

use std::collections::HashMap;
use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::{hash, index, url, write_document};
use crate::error::{ApiError, Result};
use crate::http::{Ctx, encode};
use crate::resource::Registry;

/// How long documents stay after the last use of any.
const KEEP: Duration = Duration::from_secs(30);

/// The documents that somebody asked for lately.
#[derive(Default)]
pub(crate) struct Documents(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    /// By group and version: fingerprint, and the document under gzip.
    packed: HashMap<(String, String), (String, Bytes)>,
    /// When one was last asked for; `None` when none is kept.
    used: Option<Instant>,
}

impl Documents {
    /// The document of a version and its fingerprint. One is made at a time: it takes a core for some milliseconds.
    async fn get(
        self: &Arc<Self>,
        registry: Arc<Registry>,
        group: &str,
        version: &str,
    ) -> Result<(String, Bytes)> {
        let found = registry.version(group, version).ok_or_else(ApiError::no_such_path)?;
        let wanted = hash(group, found).to_owned();
        let key = (group.to_owned(), version.to_owned());
        let mut kept = self.0.lock().await;
        if kept.used.replace(Instant::now()).is_none() {
            tokio::spawn(self.clone().let_go());
        }
        if let Some(one) = kept.packed.get(&key).filter(|(hash, _)| *hash == wanted) {
            return Ok(one.clone());
        }
        let (group, version) = key.clone();
        let made = tokio::task::spawn_blocking(move || pack(&registry, &group, &version)).await;
        let packed = made.map_err(ApiError::internal)?.map_err(ApiError::internal)?;
        kept.packed.insert(key, (wanted.clone(), packed.clone()));
        Ok((wanted, packed))
    }

    /// Empties itself once nobody has asked for a while.
    async fn let_go(self: Arc<Self>) {
        loop {
            let used = self.0.lock().await.used.unwrap_or_else(Instant::now);
            tokio::time::sleep_until(used + KEEP).await;
            let mut kept = self.0.lock().await;
            if kept.used.is_none_or(|used| used.elapsed() >= KEEP) {
                *kept = Kept::default();
                return;
            }
        }
    }
}

fn pack(registry: &Registry, group: &str, version: &str) -> std::io::Result<Bytes> {
    let mut out = GzEncoder::new(Vec::new(), Compression::fast());
    if let Some(version) = registry.version(group, version) {
        write_document(version, &mut out)?;
    }
    out.finish().map(Bytes::from)
}

/// Answers for a path below `/openapi/`.
///
/// # Errors
/// 404 for documents that are not served, 406 for a client that takes no JSON.
pub async fn answer(ctx: &Ctx, path: &[&str]) -> Result<Response<Body>> {
    if !takes_json(&ctx.headers) {
        return Err(ApiError::not_acceptable(&["application/json"]));
    }
    let registry = ctx.server.registry();
    let (group, version) = match path {
        ["v3"] => return Ok(encode(StatusCode::OK, &index(&registry), ctx.accept)),
        ["v3", "api", version] => ("", *version),
        ["v3", "apis", group, version] => (*group, *version),
        _ => return Err(ApiError::no_such_path()),
    };
    let found = registry.version(group, version).ok_or_else(ApiError::no_such_path)?;
    let (asked, current) = (ctx.query.get("hash"), hash(group, found));
    if !asked.is_empty() && asked != current {
        return Ok(moved(&url(group, found)));
    }
    let has = ctx.headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok()).unwrap_or("");
    let is_known = has.split(',').any(|one| one.trim().trim_start_matches("W/").trim_matches('"') == current);
    let mut response = if is_known {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        let (_, packed) = ctx.server.documents.get(registry.clone(), group, version).await?;
        body(packed, ctx.accept.gzip)?
    };
    set(&mut response, header::ETAG, &format!("\"{current}\""));
    response.headers_mut().append(header::VARY, HeaderValue::from_static("Accept"));
    if !asked.is_empty() {
        // The address names the content, so what is behind it never changes.
        set(&mut response, header::CACHE_CONTROL, "public, immutable, max-age=31536000");
    }
    Ok(response)
}

/// The address of an older document leads to the current one.
fn moved(location: &str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    set(&mut response, header::LOCATION, location);
    response
}

fn body(packed: Bytes, takes_gzip: bool) -> Result<Response<Body>> {
    let mut response = if takes_gzip {
        let mut response = Response::new(Body::from(packed));
        set(&mut response, header::CONTENT_ENCODING, "gzip");
        response
    } else {
        let mut text = Vec::new();
        GzDecoder::new(&packed[..]).read_to_end(&mut text).map_err(ApiError::internal)?;
        Response::new(Body::from(text))
    };
    set(&mut response, header::CONTENT_TYPE, "application/json");
    response.headers_mut().append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    Ok(response)
}

fn set(response: &mut Response<Body>, name: HeaderName, value: &str) {
    let value = HeaderValue::from_str(value).expect("made of digits, names of groups and our own words");
    response.headers_mut().insert(name, value);
}

/// Some clients ask for protobuf first, and most of those take JSON as well.
fn takes_json(headers: &HeaderMap) -> bool {
    let text = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
    text.is_empty()
        || text.split(',').any(|one| {
            let media = one.split(';').next().unwrap_or("").trim();
            matches!(media, "application/json" | "application/*" | "*/*")
        })
}
