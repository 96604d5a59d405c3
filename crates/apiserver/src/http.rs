//! One request from head to answer: authenticate, understand, authorise, dispatch, encode.
//!
//! The order is upstream's: nothing of a request is looked at beyond its line and headers before its sender is known and
//! allowed. The same path serves TLS connections and the clients in this process.

use std::io::Write as _;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use parking_lot::Mutex;
use serde_json::Value;

use crate::authn::UserInfo;
use crate::error::{ApiError, Result};
use crate::request::{Accept, Query, RequestInfo};
use crate::server::ApiServer;
use crate::{discovery, handlers, object};

/// Largest request body, in bytes; upstream's limit.
pub const BODY_BYTES_MAX: usize = 3 << 20;

/// Answers from this size on are compressed for clients that take gzip; upstream's threshold.
const GZIP_BYTES_MIN: usize = 128 << 10;

/// What every step of one request needs.
pub struct Ctx {
    /// The server.
    pub server: Arc<ApiServer>,
    /// Who asks.
    pub user: UserInfo,
    /// What for.
    pub info: RequestInfo,
    /// With which parameters.
    pub query: Query,
    /// In which form.
    pub accept: Accept,
    /// Headers of the request.
    pub headers: HeaderMap,
    /// Texts for `Warning` headers, in order.
    pub warnings: Mutex<Vec<String>>,
}

impl Ctx {
    /// Adds a `Warning` header to the answer, once.
    pub fn warn(&self, text: impl Into<String>) {
        let text = text.into();
        let mut warnings = self.warnings.lock();
        if !warnings.contains(&text) {
            warnings.push(text);
        }
    }

    /// True for `dryRun=All`.
    pub fn dry_run(&self) -> bool {
        !self.query.get("dryRun").is_empty()
    }
}

/// Answers one request. Never fails: a failure is an answer.
pub async fn handle(server: Arc<ApiServer>, request: Request<Body>) -> Response<Body> {
    let accept = Accept::parse(request.headers());
    let (parts, body) = request.into_parts();
    match answer(server, parts, body, accept.clone()).await {
        Ok(response) => response,
        Err(error) => error_response(&error, accept.unwrap_or_default()),
    }
}

/// A Status as an answer.
pub fn error_response(error: &ApiError, accept: Accept) -> Response<Body> {
    if error.code.is_server_error() {
        tracing::warn!(code = error.code.as_u16(), message = %error.message, "request failed");
    }
    let mut response = encode(error.code, &error.to_status(), accept);
    let retry = error.details.as_ref().and_then(|details| object::int(details, "/retryAfterSeconds"));
    if let Some(seconds) = retry {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

async fn answer(
    server: Arc<ApiServer>,
    mut parts: http::request::Parts,
    body: Body,
    accept: Result<Accept>,
) -> Result<Response<Body>> {
    let user = crate::authn::authenticate(&server, &parts)?;
    let user = crate::authn::impersonate(&server, user, &parts.headers)?;
    let query = Query::parse(&parts.uri);
    let info = RequestInfo::parse(&parts.method, &parts.uri, &query);
    crate::authz::require(&server, &user, &info)?;
    let method = parts.method.clone();
    let upgrade = parts.extensions.remove::<hyper::upgrade::OnUpgrade>();
    let ctx = Arc::new(Ctx {
        server,
        user,
        info,
        query,
        accept: if parts_are_openapi(&parts.uri) { Accept::plain(&parts.headers) } else { accept? },
        headers: parts.headers,
        warnings: Mutex::new(Vec::new()),
    });
    let mut response = if ctx.info.is_resource {
        handlers::dispatch(&ctx, &method, body, upgrade).await?
    } else {
        plain_path(&ctx, &method).await?
    };
    if method == Method::HEAD {
        *response.body_mut() = Body::empty();
    }
    add_warnings(&ctx, &mut response);
    Ok(response)
}

fn add_warnings(ctx: &Ctx, response: &mut Response<Body>) {
    for text in ctx.warnings.lock().iter() {
        let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let quoted = clean.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
}

/// OpenAPI documents have media types of their own, judged where they are served.
fn parts_are_openapi(uri: &http::Uri) -> bool {
    uri.path().starts_with("/openapi/")
}

/// Paths that are no resources.
async fn plain_path(ctx: &Ctx, method: &Method) -> Result<Response<Body>> {
    let registry = ctx.server.registry();
    let path = ctx.info.path.trim_end_matches('/');
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Err(ApiError::method_not_allowed());
    }
    let found = match parts.as_slice() {
        ["healthz" | "livez" | "readyz", ..] => return Ok(health(ctx, parts[0])),
        ["version"] => Some(discovery::version()),
        ["api" | "apis"] if ctx.accept.aggregated_discovery => {
            let value = discovery::aggregated(&registry, parts[0] == "api");
            let mut response = encode(StatusCode::OK, &value, ctx.accept);
            response
                .headers_mut()
                .insert(header::CONTENT_TYPE, HeaderValue::from_static(discovery::AGGREGATED));
            response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
            return Ok(response);
        }
        ["api"] => Some(discovery::core_versions(&ctx.server.config.advertise.to_string())),
        ["apis"] => Some(discovery::group_list(&registry)),
        ["api", version] => discovery::resource_list(&registry, "", version),
        ["apis", group] => discovery::group(&registry, group),
        ["apis", group, version] => discovery::resource_list(&registry, group, version),
        ["openid", "v1", "jwks"] => {
            let value = ctx.server.tokens.jwks();
            let mut response = encode(StatusCode::OK, &value, ctx.accept);
            let media = HeaderValue::from_static("application/jwk-set+json");
            response.headers_mut().insert(header::CONTENT_TYPE, media);
            return Ok(response);
        }
        [".well-known", "openid-configuration"] => Some(ctx.server.tokens.discovery()),
        ["openapi", ..] => return crate::openapi::answer(ctx, &parts[1..]).await,
        [] => Some(paths(&registry)),
        _ => None,
    };
    let value = found.ok_or_else(ApiError::no_such_path)?;
    Ok(encode(StatusCode::OK, &value, ctx.accept))
}

fn health(ctx: &Ctx, which: &str) -> Response<Body> {
    let text = if ctx.query.0.iter().any(|(key, _)| key == "verbose") {
        format!("[+]ping ok\n[+]log ok\n[+]store ok\n{which} check passed\n")
    } else {
        "ok".to_owned()
    };
    let mut response = Response::new(Body::from(text));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn paths(registry: &crate::resource::Registry) -> Value {
    let mut all: Vec<String> =
        ["/.well-known/openid-configuration", "/api", "/api/v1", "/apis"].map(Into::into).to_vec();
    for group in registry.groups().iter().filter(|group| !group.name.is_empty()) {
        all.push(format!("/apis/{}", group.name));
        all.extend(group.versions.iter().map(|version| format!("/apis/{}/{}", group.name, version.name)));
    }
    all.extend(
        ["/healthz", "/livez", "/openapi/v3", "/openid/v1/jwks", "/readyz", "/version"].map(Into::into),
    );
    serde_json::json!({ "paths": all })
}

/// A value as an answer, in JSON or YAML, compressed where that pays.
pub fn encode(code: StatusCode, value: &Value, accept: Accept) -> Response<Body> {
    if accept.yaml {
        let text = serde_yaml_ng::to_string(value).unwrap_or_default();
        let mut response = Response::new(Body::from(text));
        *response.status_mut() = code;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/yaml"));
        return response;
    }
    let bytes = serde_json::to_vec(value).expect("JSON values serialise into memory");
    json_bytes(code, Bytes::from(bytes), accept)
}

/// JSON text as an answer.
pub fn json_bytes(code: StatusCode, bytes: Bytes, accept: Accept) -> Response<Body> {
    let compress = accept.gzip && bytes.len() >= GZIP_BYTES_MIN;
    let packed = compress.then(|| gzip(&bytes)).flatten();
    let is_packed = packed.is_some();
    let mut response = Response::new(Body::from(packed.unwrap_or(bytes)));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    if is_packed {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    response
}

fn gzip(bytes: &Bytes) -> Option<Bytes> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).ok()?;
    encoder.finish().ok().map(Bytes::from)
}

/// Reads a whole body.
///
/// # Errors
/// `RequestEntityTooLarge` over [`BODY_BYTES_MAX`]; `BadRequest` when the sender stopped half way.
pub async fn read_body(body: Body) -> Result<Bytes> {
    use http_body_util::BodyExt as _;
    match http_body_util::Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(all) => Ok(all.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            Err(ApiError::too_large(BODY_BYTES_MAX))
        }
        Err(error) => {
            Err(ApiError::bad_request(format!("the body of the request could not be read: {error}")))
        }
    }
}

/// Parses a body as an object by its media type.
///
/// # Errors
/// `UnsupportedMediaType` for protobuf and others, `BadRequest` for text that is neither JSON nor YAML.
pub fn parse_object(headers: &HeaderMap, body: &Bytes) -> Result<Value> {
    let media =
        headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("application/json");
    let kind = media.split(';').next().unwrap_or("").trim();
    let value = match kind {
        "application/json" | "" => serde_json::from_slice(body).map_err(|error| {
            ApiError::bad_request(format!("the object provided is unrecognized (must be of type Object): couldn't get version/kind; json parse error: {error}"))
        })?,
        "application/yaml" => parse_yaml(body)?,
        "application/vnd.kubernetes.protobuf" => crate::protobuf::decode(body).map_err(|what| {
            let given = format!("{kind} with {what}");
            ApiError::unsupported_media_type(&given, &["application/json", "application/yaml"])
        })?,
        other => return Err(ApiError::unsupported_media_type(other, &["application/json", "application/yaml"])),
    };
    Ok(value)
}

/// Parses YAML into the JSON data model.
///
/// # Errors
/// `BadRequest` with the parser's place and reason.
pub fn parse_yaml(body: &[u8]) -> Result<Value> {
    serde_yaml_ng::from_slice(body)
        .map_err(|error| ApiError::bad_request(format!("error converting YAML to JSON: yaml: {error}")))
}
