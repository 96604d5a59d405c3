//! The seam to the tables of facts: what the shape of a kind says about an object.
//!
//! Handlers call these functions and do not care whether a kind is built in or from a CustomResourceDefinition.

use serde_json::Value;

use crate::error::{ApiError, Result};
use crate::facts::{self, Schema};
use crate::field::FieldError;
use crate::http::Ctx;
use crate::resource::{Resource, split_api_version};

/// The schema of the kind as served.
pub fn of(resource: &Resource) -> Option<&Schema> {
    match &resource.custom {
        Some(custom) => Some(&custom.schema),
        None => facts::schema_of(&resource.group, &resource.version, &resource.kind),
    }
}

/// The schema of the kind as stored.
fn stored(resource: &Resource) -> Option<&Schema> {
    match &resource.custom {
        Some(custom) => Some(&custom.schema),
        None => {
            let (group, version) = split_api_version(&resource.storage_api_version);
            facts::schema_of(group, version, &resource.kind)
        }
    }
}

/// Brings a decoded body into the kind's form; comes back with the paths of the fields that the kind does not have.
///
/// # Errors
/// The first value that is of a wrong type, in the words of Go's decoder.
pub fn decode(resource: &Resource, object: &mut Value) -> Result<Vec<String>, String> {
    let Some(schema) = of(resource) else { return Ok(Vec::new()) };
    if resource.custom.is_none() {
        if let Some(text) = facts::fields::decode_error(object, schema) {
            return Err(text);
        }
        facts::fields::drop_nulls(object, schema);
    }
    let unknown = facts::fields::unknown_fields(object, schema);
    if !unknown.is_empty() {
        facts::fields::prune(object, schema);
    }
    Ok(unknown)
}

/// Sets what the kind gives by default; on the stored form.
pub fn default(resource: &Resource, object: &mut Value) {
    if let Some(schema) = stored(resource) {
        facts::fields::apply_defaults(object, schema);
    }
    if resource.custom.is_none() {
        let (group, _) = split_api_version(&resource.storage_api_version);
        facts::defaults::apply(group, &resource.kind, object);
    }
}

/// What is wrong with the object, in the stored form; `old` is the state before, for rules about transitions.
pub fn validate(resource: &Resource, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    match &resource.custom {
        Some(custom) => facts::check::validate(object, old, &custom.schema),
        None => {
            let (group, _) = split_api_version(&resource.storage_api_version);
            facts::validate::check(group, &resource.kind, object, old)
        }
    }
}

/// Merges a strategic patch into an object of the served version.
///
/// # Errors
/// `BadRequest` when the patch cannot be applied, `UnsupportedMediaType` for custom kinds, as upstream.
pub fn strategic_merge(resource: &Resource, current: &Value, patch: &Value) -> Result<Value> {
    let schema = if resource.custom.is_some() { None } else { of(resource) };
    let Some(schema) = schema else {
        return Err(ApiError::unsupported_media_type(
            "application/strategic-merge-patch+json",
            &["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"],
        ));
    };
    facts::patch::strategic_merge(current, patch, schema)
        .map_err(|error| ApiError::bad_request(error.to_string()))
}

/// Server-side apply: the object after `applied` by `manager`, in the served version.
///
/// # Errors
/// `Conflict` with the fields that other managers own, unless forced.
pub fn apply(
    resource: &Resource,
    current: Option<&Value>,
    applied: &Value,
    manager: &str,
    subresource: &str,
    force: bool,
) -> Result<Value> {
    let (version, now) = (resource.api_version(), crate::object::now());
    let writer = crate::apply::Writer { name: manager, api_version: &version, subresource, now: &now };
    crate::apply::apply(current, applied, of(resource), writer, force).map_err(|conflicts| ApiError {
        code: http::StatusCode::CONFLICT,
        reason: "Conflict",
        message: conflicts.to_string(),
        details: Some(serde_json::json!({ "causes": conflicts.causes() })),
        metadata: None,
    })
}

/// Keeps `managedFields` right over an update; an apply has done so itself. Both objects are in the stored form.
pub fn track(ctx: &Ctx, resource: &Resource, old: &Value, new: &mut Value) {
    let media =
        ctx.headers.get(http::header::CONTENT_TYPE).map(http::HeaderValue::as_bytes).unwrap_or_default();
    if media.starts_with(b"application/apply-patch") {
        return;
    }
    let (version, now) = (resource.api_version(), crate::object::now());
    let given = ctx.query.get("fieldManager");
    let agent = ctx.headers.get(http::header::USER_AGENT).and_then(|agent| agent.to_str().ok());
    let agent = agent.and_then(|agent| agent.split('/').next()).unwrap_or("unknown");
    let name = if given.is_empty() { agent } else { given };
    let writer =
        crate::apply::Writer { name, api_version: &version, subresource: &ctx.info.subresource, now: &now };
    crate::apply::track(Some(old), new, stored(resource), writer);
}
