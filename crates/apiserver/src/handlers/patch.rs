//! PATCH in its four dialects: JSON patch, merge patch, strategic merge patch, apply.

use axum::body::Body;
use bytes::Bytes;
use http::{Response, StatusCode, header};
use serde_json::Value;

use super::write::Part;
use super::{decode, object_response, update, write};
use crate::error::{ApiError, Result};
use crate::field::FieldError;
use crate::http::{self as wire, Ctx};
use crate::resource::Resource;
use crate::{object, schema};

/// Most operations of one JSON patch; upstream's limit.
const OPERATIONS_MAX: usize = 10_000;

/// A patch, parsed.
enum Patch {
    Json(json_patch::Patch),
    Merge(Value),
    Strategic(Value),
}

impl Patch {
    fn read(media: &str, body: &Bytes) -> Result<Self> {
        let bad =
            |error: &dyn std::fmt::Display| ApiError::bad_request(format!("error decoding patch: {error}"));
        Ok(match media {
            "application/json-patch+json" => {
                let patch: json_patch::Patch = serde_json::from_slice(body).map_err(|error| bad(&error))?;
                if patch.0.len() > OPERATIONS_MAX {
                    let count = patch.0.len();
                    return Err(ApiError::too_large_patch(count, OPERATIONS_MAX));
                }
                Self::Json(patch)
            }
            "application/merge-patch+json" => {
                Self::Merge(serde_json::from_slice(body).map_err(|error| bad(&error))?)
            }
            "application/strategic-merge-patch+json" => {
                Self::Strategic(serde_json::from_slice(body).map_err(|error| bad(&error))?)
            }
            other => {
                return Err(ApiError::unsupported_media_type(
                    other,
                    &[
                        "application/json-patch+json",
                        "application/merge-patch+json",
                        "application/strategic-merge-patch+json",
                        "application/apply-patch+yaml",
                    ],
                ));
            }
        })
    }

    fn apply(&self, resource: &Resource, current: &Value) -> Result<Value> {
        match self {
            Self::Json(patch) => {
                let mut out = current.clone();
                json(&mut out, patch, &resource.group, &resource.kind)?;
                Ok(out)
            }
            Self::Merge(patch) => {
                let mut out = current.clone();
                json_patch::merge(&mut out, patch);
                Ok(out)
            }
            Self::Strategic(patch) => schema::strategic_merge(resource, current, patch),
        }
    }
}

/// Applies a JSON patch. What `copy` adds is bounded, because a few of them in a row could double a document without end.
///
/// # Errors
/// `Invalid` for an operation that fails, `RequestEntityTooLarge` for too much copied.
pub fn json(object: &mut Value, patch: &json_patch::Patch, group: &str, kind: &str) -> Result<()> {
    let mut copied = 0;
    for operation in &patch.0 {
        if let json_patch::PatchOperation::Copy(copy) = operation {
            copied += object.pointer(copy.from.as_str()).map_or(0, |source| source.to_string().len());
            if copied > wire::BODY_BYTES_MAX {
                return Err(ApiError::too_large(wire::BODY_BYTES_MAX));
            }
        }
        json_patch::patch(object, std::slice::from_ref(operation)).map_err(|error| {
            let mut refused = ApiError::invalid(group, kind, object::name(object), Vec::new());
            refused.message =
                format!("the server rejected our request due to an error in our request: {error}");
            refused
        })?;
    }
    Ok(())
}

/// Changes an object by a patch.
///
/// # Errors
/// A patch that cannot be read or applied, and everything that an update refuses.
pub async fn patch(ctx: &Ctx, resource: &Resource, body: Bytes) -> Result<Response<Body>> {
    let media = ctx.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let media = media.split(';').next().unwrap_or("").trim().to_owned();
    if media == "application/apply-patch+yaml" {
        return apply(ctx, resource, &body).await;
    }
    let patch = Patch::read(&media, &body)?;
    let target = update::target(ctx, resource);
    let updated = write::update(ctx, target, |current| {
        let patched = patch.apply(resource, current)?;
        checked(ctx, resource, current, patched, &body)
    })
    .await?;
    Ok(object_response(ctx, resource, StatusCode::OK, &updated))
}

/// What a patch made must still be an object of this kind and name.
fn checked(
    ctx: &Ctx,
    resource: &Resource,
    current: &Value,
    mut patched: Value,
    body: &Bytes,
) -> Result<Value> {
    let field = |object: &Value, pointer: &str| object::text(object, pointer).to_owned();
    for pointer in ["/apiVersion", "/kind", "/metadata/name", "/metadata/namespace"] {
        let (had, has) = (field(current, pointer), field(&patched, pointer));
        if has != had && !(has.is_empty() && pointer != "/metadata/name") {
            let path = pointer.trim_start_matches('/').replace('/', ".");
            return Err(ApiError::bad_request(format!(
                "the patch changes {path} from {had:?} to {has:?}, which cannot be changed"
            )));
        }
    }
    object::set_type(&mut patched, &resource.api_version(), &resource.kind);
    if let Some(problem) = decode::take_unknown(ctx, resource, &mut patched)? {
        let text = String::from_utf8_lossy(body).into_owned();
        let error = FieldError::invalid("patch", text, problem);
        return Err(ApiError::invalid("", "", "", vec![error]));
    }
    Ok(patched)
}

/// Server-side apply: creates the object when there is none.
async fn apply(ctx: &Ctx, resource: &Resource, body: &Bytes) -> Result<Response<Body>> {
    let mut applied = wire::parse_yaml(body)?;
    let manager = ctx.query.get("fieldManager").to_owned();
    if manager.is_empty() {
        let error = FieldError::required("fieldManager", "is required for apply patch");
        return Err(ApiError::invalid("meta.k8s.io", "PatchOptions", "", vec![error]));
    }
    let want = resource.api_version();
    let (api_version, kind) = (object::text(&applied, "/apiVersion"), object::text(&applied, "/kind"));
    if api_version != want || kind != resource.kind {
        return Err(ApiError::bad_request(format!(
            "invalid object type: {api_version}, Kind={kind}; this path takes {want}, Kind={}",
            resource.kind
        )));
    }
    if let Some(problem) = decode::take_unknown(ctx, resource, &mut applied)? {
        let error = FieldError::invalid("patch", String::from_utf8_lossy(body).into_owned(), problem);
        return Err(ApiError::invalid("", "", "", vec![error]));
    }
    let meta = object::meta_mut(&mut applied);
    meta.entry("name").or_insert_with(|| ctx.info.name.clone().into());
    let force = ctx.query.flag("force");
    let target = update::target(ctx, resource);
    let exists = ctx.server.store.snapshot().get(&target.key()).is_some();
    if !exists && target.part == Part::Main {
        let created = schema::apply(resource, None, &applied, &manager, &ctx.info.subresource, force)?;
        crate::authz::require_create(ctx)?;
        match write::create(ctx, resource, target.namespace, created).await {
            Err(error) if error.reason == "AlreadyExists" => {}
            Err(error) => return Err(error),
            Ok(object) => return Ok(object_response(ctx, resource, StatusCode::CREATED, &object)),
        }
    }
    let updated = write::update(ctx, target, |current| {
        schema::apply(resource, Some(current), &applied, &manager, &ctx.info.subresource, force)
    })
    .await?;
    Ok(object_response(ctx, resource, StatusCode::OK, &updated))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn copies_that_double_a_document_are_stopped() {
        let mut operations = vec![json!({"op": "add", "path": "/a", "value": ["0123456789"]})];
        for _ in 0..64 {
            operations.push(json!({"op": "copy", "from": "/a", "path": "/a/-"}));
        }
        let patch: json_patch::Patch = serde_json::from_value(operations.into()).unwrap();
        assert_eq!(super::json(&mut json!({}), &patch, "", "X").unwrap_err().code, 413);
        let patch = serde_json::from_value(json!([{"op": "test", "path": "/a", "value": 1}])).unwrap();
        assert_eq!(super::json(&mut json!({"a": 2}), &patch, "", "X").unwrap_err().code, 422);
    }
}
