//! From a request's body to an object of the resource's kind.

use bytes::Bytes;
use serde_json::Value;

use crate::error::{ApiError, Result};
use crate::http::{self as wire, Ctx};
use crate::object;
use crate::resource::Resource;
use crate::schema;

/// What to do about fields that a kind does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldValidation {
    /// Drop them silently.
    Ignore,
    /// Drop them and say so.
    Warn,
    /// Refuse the object.
    Strict,
}

impl FieldValidation {
    /// Reads the `fieldValidation` parameter; upstream's default is `Warn`.
    ///
    /// # Errors
    /// `Invalid` for an unknown word.
    pub fn read(ctx: &Ctx) -> Result<Self> {
        match ctx.query.get("fieldValidation") {
            "" | "Warn" => Ok(Self::Warn),
            "Ignore" => Ok(Self::Ignore),
            "Strict" => Ok(Self::Strict),
            other => {
                let known = ["Ignore", "Strict", "Warn"];
                let error = crate::field::FieldError::not_supported("fieldValidation", other, &known);
                Err(ApiError::invalid("meta.k8s.io", "CreateOptions", "", vec![error]))
            }
        }
    }
}

/// Parses and checks a body of a create or update.
///
/// # Errors
/// `BadRequest` in upstream's words for a wrong type, kind or (under `Strict`) field.
pub fn object(ctx: &Ctx, resource: &Resource, body: &Bytes) -> Result<Value> {
    let mut object = wire::parse_object(&ctx.headers, body)?;
    if !object.is_object() {
        return Err(ApiError::bad_request("the object provided is unrecognized (must be of type Object)"));
    }
    check_type(resource, &mut object)?;
    if let Some(problem) = take_unknown(ctx, resource, &mut object)? {
        return Err(ApiError::bad_request(cannot_be_handled(resource, &problem)));
    }
    Ok(object)
}

fn cannot_be_handled(resource: &Resource, problem: &str) -> String {
    let Resource { kind, version, .. } = resource;
    format!("{kind} in version {version:?} cannot be handled as a {kind}: {problem}")
}

/// Brings the object into its kind's form. `Some` is the text of what `Strict` refuses.
///
/// # Errors
/// `BadRequest` for a value of a wrong type.
pub fn take_unknown(ctx: &Ctx, resource: &Resource, object: &mut Value) -> Result<Option<String>> {
    let mode = FieldValidation::read(ctx)?;
    let unknown = schema::decode(resource, object)
        .map_err(|text| ApiError::bad_request(cannot_be_handled(resource, &text)))?;
    let lines: Vec<String> = unknown.iter().map(|path| format!("unknown field {path:?}")).collect();
    match mode {
        FieldValidation::Ignore => {}
        FieldValidation::Warn => lines.iter().for_each(|line| ctx.warn(line.clone())),
        FieldValidation::Strict if lines.is_empty() => {}
        FieldValidation::Strict => return Ok(Some(format!("strict decoding error: {}", lines.join(", ")))),
    }
    Ok(None)
}

fn check_type(resource: &Resource, object: &mut Value) -> Result<()> {
    let api_version = object::text(object, "/apiVersion").to_owned();
    let kind = object::text(object, "/kind").to_owned();
    let want = resource.api_version();
    if !api_version.is_empty() && api_version != want {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({api_version}) does not match the expected API version ({want})"
        )));
    }
    if !kind.is_empty() && kind != resource.kind {
        let (group, version) = crate::resource::split_api_version(&want);
        return Err(ApiError::bad_request(format!(
            "{kind} in version {version:?} cannot be handled as a {}: no kind \"{kind}\" is registered for group \
             {group:?} under this path",
            resource.kind
        )));
    }
    object::set_type(object, &want, &resource.kind);
    Ok(())
}
