//! GET of one object.

use axum::body::Body;
use http::{Response, StatusCode};

use super::{object_response, raw_response};
use crate::convert;
use crate::error::{ApiError, Result};
use crate::http::Ctx;
use crate::request::Form;
use crate::resource::{Convert, Resource};
use crate::storage;

/// Answers with the object, from memory.
///
/// # Errors
/// `NotFound`; a resourceVersion that is no number or of the future.
pub fn get(ctx: &Ctx, resource: &Resource) -> Result<Response<Body>> {
    let info = &ctx.info;
    let snapshot = ctx.server.store.snapshot();
    super::list::check_version(ctx.query.get("resourceVersion"), snapshot.revision())?;
    let namespace = if resource.namespaced { info.namespace.as_str() } else { "" };
    let record = snapshot
        .get(&resource.key(namespace, &info.name))
        .ok_or_else(|| ApiError::not_found(&resource.group, &resource.plural, &info.name))?;
    let is_untouched =
        resource.convert == Convert::Same && ctx.accept.form == Form::Plain && !ctx.accept.yaml;
    if is_untouched {
        return Ok(raw_response(ctx, record.value.clone()));
    }
    let mut object = storage::parse(&record.value)?;
    convert::from_storage(resource, &mut object);
    Ok(object_response(ctx, resource, StatusCode::OK, &object))
}
