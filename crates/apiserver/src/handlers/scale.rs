//! The `scale` subresource: replicas of anything that has them, in one shape.

use axum::body::Body;
use bytes::Bytes;
use http::{Response, StatusCode, header};
use serde_json::{Value, json};

use super::write::{self, Part, Target};
use super::{object_response, update};
use crate::error::{ApiError, Result};
use crate::http::{self as wire, Ctx};
use crate::resource::Resource;
use crate::{convert, object};

/// Where a kind keeps its replicas, as JSON pointers.
#[derive(Debug, Clone)]
pub struct Paths {
    /// Wanted, such as `/spec/replicas`.
    pub spec: String,
    /// Observed.
    pub status: String,
    /// The selector's text in status, for custom kinds.
    pub selector: Option<String>,
}

fn paths(resource: &Resource) -> Paths {
    let custom = resource.custom.as_ref().and_then(|custom| custom.scale.clone());
    custom.unwrap_or_else(|| Paths {
        spec: "/spec/replicas".into(),
        status: "/status/replicas".into(),
        selector: None,
    })
}

/// Reads or writes replicas.
///
/// # Errors
/// As an update of the object itself.
pub async fn scale(ctx: &Ctx, resource: &Resource, body: Bytes) -> Result<Response<Body>> {
    let paths = paths(resource);
    let target = Target { part: Part::Main, ..update::target(ctx, resource) };
    let updated = match ctx.info.verb.as_str() {
        "get" => {
            let (mut current, _) = write::read(ctx, target)?;
            convert::from_storage(resource, &mut current);
            current
        }
        "update" => {
            let wanted = wire::parse_object(&ctx.headers, &body)?;
            write::update(ctx, target, |current| with_replicas(resource, &paths, current, &wanted)).await?
        }
        _ => {
            let media =
                ctx.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
            let is_json_patch = media.starts_with("application/json-patch+json");
            write::update(ctx, target, |current| {
                let mut scale = of(&paths, current);
                if is_json_patch {
                    let patch: json_patch::Patch = serde_json::from_slice(&body)
                        .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))?;
                    super::patch::json(&mut scale, &patch, "autoscaling", "Scale")?;
                } else {
                    let patch: Value = wire::parse_yaml(&body)?;
                    json_patch::merge(&mut scale, &patch);
                }
                with_replicas(resource, &paths, current, &scale)
            })
            .await?
        }
    };
    Ok(object_response(ctx, resource, StatusCode::OK, &of(&paths, &updated)))
}

fn with_replicas(resource: &Resource, paths: &Paths, current: &Value, scale: &Value) -> Result<Value> {
    let replicas = object::int(scale, "/spec/replicas").unwrap_or(0);
    if replicas < 0 {
        let detail = "must be greater than or equal to 0";
        let error = crate::field::FieldError::invalid("spec.replicas", replicas, detail);
        return Err(ApiError::invalid("autoscaling", "Scale", object::name(current), vec![error]));
    }
    let version = object::resource_version(scale);
    if !version.is_empty() && version != object::resource_version(current) {
        return Err(ApiError::modified(&resource.group, &resource.plural, object::name(current)));
    }
    let mut out = current.clone();
    set(&mut out, &paths.spec, replicas.into());
    Ok(out)
}

fn set(object: &mut Value, pointer: &str, value: Value) {
    let mut at = object;
    for part in pointer.trim_start_matches('/').split('/') {
        if !at.is_object() {
            *at = json!({});
        }
        at = &mut at[part];
    }
    *at = value;
}

fn of(paths: &Paths, object: &Value) -> Value {
    let mut status = json!({ "replicas": object::int(object, &paths.status).unwrap_or(0) });
    let selector = match &paths.selector {
        Some(pointer) => object::text(object, pointer).to_owned(),
        None => selector_text(object.pointer("/spec/selector")),
    };
    if !selector.is_empty() {
        status["selector"] = selector.into();
    }
    let mut meta = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object.pointer(&format!("/metadata/{field}")) {
            meta[field] = value.clone();
        }
    }
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": meta,
        "spec": { "replicas": object::int(object, &paths.spec).unwrap_or(0) }, "status": status,
    })
}

/// A selector object in the form that people write, as `kubectl` shows it too.
pub fn selector_text(selector: Option<&Value>) -> String {
    let Some(selector) = selector else { return String::new() };
    let is_plain = selector.get("matchLabels").is_none() && selector.get("matchExpressions").is_none();
    let labels = if is_plain { Some(selector) } else { selector.get("matchLabels") };
    let mut out: Vec<String> = labels
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or("")))
        .collect();
    out.sort();
    for expression in object::items(selector, "/matchExpressions") {
        let key = object::text(expression, "/key");
        let values: Vec<&str> =
            object::items(expression, "/values").iter().filter_map(Value::as_str).collect();
        out.push(match object::text(expression, "/operator") {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        });
    }
    out.join(",")
}
