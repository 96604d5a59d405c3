//! From an authorised request to the handler of its verb and subresource.

pub mod create;
pub mod decode;
pub mod delete;
pub mod get;
pub mod list;
pub mod patch;
pub mod pods;
pub mod reviews;
pub mod scale;
pub mod update;
pub mod watch;
pub mod write;

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http::{Method, Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use serde_json::Value;

use crate::error::{ApiError, Result};
use crate::http::{self as wire, Ctx};
use crate::request::Form;
use crate::resource::Resource;
use crate::table;

/// Answers a request for a resource.
///
/// # Errors
/// Whatever the handler refuses.
pub async fn dispatch(
    ctx: &Arc<Ctx>,
    method: &Method,
    body: Body,
    upgrade: Option<OnUpgrade>,
) -> Result<Response<Body>> {
    let info = &ctx.info;
    let registry = ctx.server.registry();
    let Some(resource) = registry.get(&info.group, &info.version, &info.resource) else {
        return Err(ApiError::no_such_path());
    };
    let is_scoped = path_names_namespace(&info.path);
    if is_scoped && !resource.namespaced && resource.plural != "namespaces" {
        return Err(ApiError::no_such_path());
    }
    if !resource.namespaced || is_scoped || info.name.is_empty() {
        return verb(ctx, &resource, method, body, upgrade).await;
    }
    Err(ApiError::no_such_path())
}

fn path_names_namespace(path: &str) -> bool {
    path.contains("/namespaces/")
}

async fn verb(
    ctx: &Arc<Ctx>,
    resource: &Arc<Resource>,
    method: &Method,
    body: Body,
    upgrade: Option<OnUpgrade>,
) -> Result<Response<Body>> {
    let info = &ctx.info;
    if !info.subresource.is_empty() {
        return subresource(ctx, resource, body, upgrade).await;
    }
    let is_known = resource.verbs.contains(&info.verb.as_str());
    if !is_known {
        return Err(ApiError::method_not_allowed());
    }
    match info.verb.as_str() {
        "get" => get::get(ctx, resource),
        "list" => list::list(ctx, resource),
        "watch" => watch::watch(ctx, resource),
        "create" if *method == Method::POST && !info.name.is_empty() => Err(ApiError::method_not_allowed()),
        "create" if !resource.verbs.contains(&"get") => {
            reviews::create(ctx, resource, wire::read_body(body).await?).await
        }
        "create" => create::create(ctx, resource, wire::read_body(body).await?).await,
        "update" => update::replace(ctx, resource, wire::read_body(body).await?).await,
        "patch" => patch::patch(ctx, resource, wire::read_body(body).await?).await,
        "delete" => delete::delete(ctx, resource, wire::read_body(body).await?).await,
        "deletecollection" => delete::collection(ctx, resource, wire::read_body(body).await?).await,
        _ => Err(ApiError::method_not_allowed()),
    }
}

async fn subresource(
    ctx: &Arc<Ctx>,
    resource: &Arc<Resource>,
    body: Body,
    upgrade: Option<OnUpgrade>,
) -> Result<Response<Body>> {
    let info = &ctx.info;
    let Some(sub) = resource.subresources.iter().find(|one| one.name == info.subresource) else {
        return Err(ApiError::no_such_path());
    };
    if !sub.verbs.contains(&info.verb.as_str()) {
        return Err(ApiError::method_not_allowed());
    }
    match (sub.name, info.verb.as_str()) {
        ("status" | "ephemeralcontainers", "get") => get::get(ctx, resource),
        ("scale", _) => scale::scale(ctx, resource, wire::read_body(body).await?).await,
        ("log", _) => pods::log(ctx, resource).await,
        ("exec" | "attach" | "portforward", _) => pods::stream(ctx, resource, upgrade).await,
        ("binding", _) => pods::bind(ctx, resource, &info.name, wire::read_body(body).await?).await,
        ("eviction", _) => pods::evict(ctx, resource, wire::read_body(body).await?).await,
        ("token", _) => reviews::token(ctx, resource, wire::read_body(body).await?).await,
        (_, "update") => update::replace(ctx, resource, wire::read_body(body).await?).await,
        (_, "patch") => patch::patch(ctx, resource, wire::read_body(body).await?).await,
        _ => Err(ApiError::method_not_allowed()),
    }
}

/// One object as the answer, in the form that the client wants.
pub fn object_response(ctx: &Ctx, resource: &Resource, code: StatusCode, object: &Value) -> Response<Body> {
    match ctx.accept.form {
        Form::Plain => wire::encode(code, object, ctx.accept),
        Form::Metadata => wire::encode(code, &table::partial(object), ctx.accept),
        Form::Table => {
            let options = table::Options::read(&ctx.query);
            let version = crate::object::resource_version(object).to_owned();
            let rows = vec![table::row(resource, object, &options)];
            let value =
                table::document(resource, rows, serde_json::json!({ "resourceVersion": version }), true);
            wire::encode(code, &value, ctx.accept)
        }
    }
}

/// Stored bytes as the answer where nothing has to change in them.
pub fn raw_response(ctx: &Ctx, bytes: Bytes) -> Response<Body> {
    wire::json_bytes(StatusCode::OK, bytes, ctx.accept)
}
