//! Refusals and failures as Kubernetes' `Status`, with upstream's reasons, codes and wording.
//!
//! Clients act on `reason`, `code` and `details` and people on `message`, so each constructor here is one case of
//! upstream's `apierrors` package; handlers invent no code of their own.
//!
//! Not here: what is wrong with a field (that is [`crate::field`]).

use http::StatusCode;
use serde_json::{Value, json};

use crate::field::FieldError;

/// The answer to a request that was not carried out.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// HTTP status.
    pub code: StatusCode,
    /// Machine-readable reason, such as `NotFound`; empty when upstream gives none.
    pub reason: &'static str,
    /// The text people read.
    pub message: String,
    /// `details` of the Status: group, kind, name, causes.
    pub details: Option<Value>,
    /// `metadata` of the Status; only an expired list fills it.
    pub metadata: Option<Value>,
}

/// The result of every step of a request.
pub type Result<T, E = ApiError> = std::result::Result<T, E>;

/// `deployments.apps`, or `pods` for the core group.
pub fn qualified(group: &str, resource: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}

fn details(group: &str, kind: &str, name: &str) -> Value {
    let mut out = serde_json::Map::new();
    for (key, value) in [("name", name), ("group", group), ("kind", kind)] {
        if !value.is_empty() {
            out.insert(key.into(), value.into());
        }
    }
    Value::Object(out)
}

impl ApiError {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        let code = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { code, reason, message: message.into(), details: None, metadata: None }
    }

    fn about(mut self, group: &str, resource: &str, name: &str) -> Self {
        self.details = Some(details(group, resource, name));
        self
    }

    /// No object of that name.
    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        let text = format!("{} {name:?} not found", qualified(group, resource));
        Self::new(404, "NotFound", text).about(group, resource, name)
    }

    /// Something that is not there, in words of its own.
    pub fn not_found_text(text: impl Into<String>) -> Self {
        Self::new(404, "NotFound", text)
    }

    /// No such path at all.
    pub fn no_such_path() -> Self {
        let mut error = Self::new(404, "NotFound", "the server could not find the requested resource");
        error.details = Some(json!({}));
        error
    }

    /// Plain 404 with upstream's generic text and the resource in the details.
    pub fn no_such_resource(group: &str, resource: &str) -> Self {
        Self::no_such_path().about(group, resource, "")
    }

    /// A create of a name that is taken.
    pub fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        let text = format!("{} {name:?} already exists", qualified(group, resource));
        Self::new(409, "AlreadyExists", text).about(group, resource, name)
    }

    /// A `generateName` that met only taken names.
    pub fn generate_name_conflict(group: &str, resource: &str, name: &str) -> Self {
        let text = format!(
            "{} {name:?} already exists, the server was not able to generate a unique name for the object",
            qualified(group, resource)
        );
        Self::new(409, "AlreadyExists", text).about(group, resource, name)
    }

    /// A write against an older version, or a precondition that does not hold.
    pub fn conflict(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let text = format!("Operation cannot be fulfilled on {} {name:?}: {why}", qualified(group, resource));
        Self::new(409, "Conflict", text).about(group, resource, name)
    }

    /// The usual conflict of an update with an old resourceVersion.
    pub fn modified(group: &str, resource: &str, name: &str) -> Self {
        let why =
            "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(group, resource, name, why)
    }

    /// An object whose fields are not valid.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: Vec<FieldError>) -> Self {
        let mut lines: Vec<String> = Vec::new();
        for error in &errors {
            let line = error.to_string();
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
        let all = match lines.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let text = format!("{} {name:?} is invalid: {all}", qualified(group, kind));
        let mut out = Self::new(422, "Invalid", text).about(group, kind, name);
        let causes: Vec<Value> = errors.iter().map(FieldError::cause).collect();
        if let Some(Value::Object(map)) = &mut out.details {
            map.insert("causes".into(), causes.into());
        }
        out
    }

    /// A request that cannot be understood.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// A user without the right.
    pub fn forbidden(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let text = if name.is_empty() {
            format!("{} is forbidden: {why}", qualified(group, resource))
        } else {
            format!("{} {name:?} is forbidden: {why}", qualified(group, resource))
        };
        Self::new(403, "Forbidden", text).about(group, resource, name)
    }

    /// A path that is not a resource and that the user may not reach.
    pub fn forbidden_path(message: impl Into<String>) -> Self {
        let mut error = Self::new(403, "Forbidden", message);
        error.details = Some(json!({}));
        error
    }

    /// No or bad credentials.
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// A verb that the resource does not have.
    pub fn method_not_allowed() -> Self {
        let mut error = Self::new(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        );
        error.details = Some(json!({}));
        error
    }

    /// A resourceVersion or continue token older than the history kept.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// A body whose media type is not read here.
    pub fn unsupported_media_type(given: &str, supported: &[&str]) -> Self {
        let text = format!(
            "the body of the request was in an unknown format - accepted media types include: {} (got {given:?})",
            supported.join(", ")
        );
        Self::new(415, "UnsupportedMediaType", text)
    }

    /// An `Accept` that nothing here can satisfy.
    pub fn not_acceptable(supported: &[&str]) -> Self {
        let text = format!("only the following media types are accepted: {}", supported.join(", "));
        Self::new(406, "NotAcceptable", text)
    }

    /// A body over the size limit.
    pub fn too_large(limit: usize) -> Self {
        let text = format!("Request entity too large: limit is {limit}");
        Self::new(413, "RequestEntityTooLarge", text)
    }

    /// A JSON patch of too many operations.
    pub fn too_large_patch(count: usize, limit: usize) -> Self {
        let text = format!("The allowed maximum operations in a JSON patch is {limit}, got {count}");
        Self::new(413, "RequestEntityTooLarge", text)
    }

    /// Something that the eviction or a queue says to retry.
    pub fn too_many(message: impl Into<String>, retry_seconds: u32) -> Self {
        let mut error = Self::new(429, "TooManyRequests", message);
        error.details = Some(json!({ "retryAfterSeconds": retry_seconds }));
        error
    }

    /// A resourceVersion of the future.
    pub fn too_large_resource_version(asked: u64, current: u64) -> Self {
        let text = format!("Timeout: Too large resource version: {asked}, current: {current}");
        let mut error = Self::new(504, "Timeout", text);
        error.details = Some(json!({
            "causes": [{ "reason": "ResourceVersionTooLarge", "message": "Too large resource version" }],
            "retryAfterSeconds": 1
        }));
        error
    }

    /// A failure of ours.
    pub fn internal(message: impl std::fmt::Display) -> Self {
        let message = message.to_string();
        let mut error = Self::new(500, "InternalError", format!("Internal error occurred: {message}"));
        error.details = Some(json!({ "causes": [{ "message": message }] }));
        error
    }

    /// A part that is not there or not ready, with a name.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message)
    }

    /// A feature that this server does not have.
    pub fn not_implemented(message: impl Into<String>) -> Self {
        Self::new(501, "NotImplemented", message)
    }

    /// A create in a namespace that is going away.
    pub fn namespace_terminating(group: &str, resource: &str, name: &str, namespace: &str) -> Self {
        let why =
            format!("unable to create new content in namespace {namespace} because it is being terminated");
        let mut error = Self::forbidden(group, resource, name, &why);
        if let Some(Value::Object(map)) = &mut error.details {
            map.insert(
                "causes".into(),
                json!([{
                    "reason": "NamespaceTerminating",
                    "message": format!("namespace {namespace} is being terminated"),
                    "field": "metadata.namespace"
                }]),
            );
        }
        error
    }

    /// The `Status` object for the wire.
    pub fn to_status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": self.metadata.clone().unwrap_or_else(|| json!({})), "status": "Failure",
            "message": self.message,
        });
        if let Value::Object(map) = &mut status {
            if !self.reason.is_empty() {
                map.insert("reason".into(), self.reason.into());
            }
            if let Some(details) = &self.details {
                map.insert("details".into(), details.clone());
            }
            map.insert("code".into(), self.code.as_u16().into());
        }
        status
    }
}

impl From<store::Error> for ApiError {
    fn from(error: store::Error) -> Self {
        Self::internal(error)
    }
}
