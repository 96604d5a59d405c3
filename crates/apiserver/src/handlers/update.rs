//! PUT of an object or of a part of one.

use axum::body::Body;
use bytes::Bytes;
use http::{Response, StatusCode};

use super::write::{Part, Target};
use super::{decode, object_response, write};
use crate::error::{ApiError, Result};
use crate::field::FieldError;
use crate::http::Ctx;
use crate::object;
use crate::resource::Resource;

/// Which part a path's subresource changes.
pub fn part(ctx: &Ctx) -> Part {
    match ctx.info.subresource.as_str() {
        "status" => Part::Status,
        "finalize" | "ephemeralcontainers" => Part::Internal,
        _ => Part::Main,
    }
}

/// The object that the path names.
pub fn target<'a>(ctx: &'a Ctx, resource: &'a Resource) -> Target<'a> {
    let namespace = if resource.namespaced { ctx.info.namespace.as_str() } else { "" };
    Target { resource, namespace, name: &ctx.info.name, part: part(ctx) }
}

/// Replaces the object with the body.
///
/// # Errors
/// See [`write::update`].
pub async fn replace(ctx: &Ctx, resource: &Resource, body: Bytes) -> Result<Response<Body>> {
    let wanted = decode::object(ctx, resource, &body)?;
    check_identity(ctx, resource, &wanted)?;
    let target = target(ctx, resource);
    let is_finalize = ctx.info.subresource == "finalize";
    let updated = write::update(ctx, target, |current| {
        if !is_finalize {
            return Ok(wanted.clone());
        }
        // Only the namespace's own finalizers go this way.
        let mut out = current.clone();
        let finalizers = wanted.pointer("/spec/finalizers").cloned().unwrap_or_else(|| serde_json::json!([]));
        object::section(&mut out, "spec").insert("finalizers".into(), finalizers);
        Ok(out)
    })
    .await?;
    Ok(object_response(ctx, resource, StatusCode::OK, &updated))
}

fn check_identity(ctx: &Ctx, resource: &Resource, wanted: &serde_json::Value) -> Result<()> {
    let (name, namespace) = (object::name(wanted), object::namespace(wanted));
    if name.is_empty() {
        return Err(ApiError::bad_request("name must be provided"));
    }
    if name != ctx.info.name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            ctx.info.name
        )));
    }
    if resource.namespaced && !namespace.is_empty() && namespace != ctx.info.namespace {
        return Err(ApiError::bad_request(format!(
            "the namespace of the object ({namespace}) does not match the namespace on the request ({})",
            ctx.info.namespace
        )));
    }
    let needs_version = resource.custom.is_some()
        || matches!(resource.kind.as_str(), "CustomResourceDefinition" | "Lease" | "PodDisruptionBudget");
    if needs_version && object::resource_version(wanted).is_empty() {
        let error = FieldError::invalid("metadata.resourceVersion", 0, "must be specified for an update");
        let shown = error.to_string().replacen("Invalid value: 0", "Invalid value: 0x0", 1);
        let mut refused = ApiError::invalid(&resource.group, &resource.kind, name, vec![error]);
        refused.message = format!(
            "{} {name:?} is invalid: {shown}",
            crate::error::qualified(&resource.group, &resource.plural)
        );
        return Err(refused);
    }
    Ok(())
}
