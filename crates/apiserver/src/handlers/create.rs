//! POST of an object.

use axum::body::Body;
use bytes::Bytes;
use http::{Response, StatusCode};

use super::{decode, object_response, write};
use crate::error::{ApiError, Result};
use crate::http::Ctx;
use crate::resource::Resource;

/// Creates the object in the body.
///
/// # Errors
/// See [`write::create`].
pub async fn create(ctx: &Ctx, resource: &Resource, body: Bytes) -> Result<Response<Body>> {
    let object = decode::object(ctx, resource, &body)?;
    let namespace = namespace_of(ctx, resource)?;
    let created = write::create(ctx, resource, &namespace, object).await?;
    Ok(object_response(ctx, resource, StatusCode::CREATED, &created))
}

fn namespace_of(ctx: &Ctx, resource: &Resource) -> Result<String> {
    if !resource.namespaced {
        return Ok(String::new());
    }
    if ctx.info.namespace.is_empty() {
        return Err(ApiError::method_not_allowed());
    }
    Ok(ctx.info.namespace.clone())
}
