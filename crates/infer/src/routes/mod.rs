//! What a path means.
//!
//! Paths that two peers give different meanings are settled by the model's personality. A protocol's own paths
//! are in its own file.
//!
//! Not here: reading bodies and evaluating (`exchange`, `evaluate`).

pub(crate) mod classes;
pub(crate) mod models;
pub(crate) mod tfs;
pub(crate) mod v1;
pub(crate) mod v2;

use std::borrow::Cow;
use std::sync::Arc;

use codecs::json::push_text;
use codecs::v1::write_error;

use crate::control::Order;
use crate::exchange::{Kind, Reply};
use crate::http::Verb;
use crate::observe::admin::Page;
use crate::refusal::Refusal;
use crate::repository::NotServed;
use crate::served::{Personality, Served};
use crate::shared::Shared;

/// What to do.
#[derive(Debug)]
pub(crate) enum Routed {
    /// Call the model with the body.
    Call(Arc<Served>, Kind),
    /// Answer with the metrics.
    Metrics,
    /// A call of the repository API.
    Admin(Order),
    /// Have this model loaded, and ask again.
    Asleep(String),
    /// A page for the admin.
    Page(Result<Page, Refusal>),
    /// The answer was written.
    Answered,
}

/// Finds what a request asks for and answers it if no body is needed. The reply comes cleared.
pub(crate) fn route(verb: Verb, path: &str, shared: &Shared, reply: &mut Reply) -> Routed {
    if verb == Verb::Options && shared.cors {
        return preflight(reply);
    }
    if let Some(rest) = path.strip_prefix("/v1/models/") {
        return models::route(verb, rest, shared, reply);
    }
    if let Some(rest) = path.strip_prefix("/v2") {
        return v2::route(verb, rest, shared, reply);
    }
    match path {
        "/" => get(verb, reply, |out| out.extend_from_slice(b"{\"status\":\"alive\"}")),
        "/v1/models" => v1::list(verb, &shared.repository, reply),
        "/metrics" if matches!(verb, Verb::Get | Verb::Head) => Routed::Metrics,
        "/metrics" => method_not_allowed(reply),
        _ if shared.metrics_path.as_deref() == Some(path) => Routed::Metrics,
        _ if shared.personality == Personality::TfServing && path.starts_with("/v1/") => {
            tfs::malformed(verb, path, reply)
        }
        _ => no_such_path(reply),
    }
}

/// Writes the answer of a call that only reads.
fn get(verb: Verb, reply: &mut Reply, write: impl FnOnce(&mut Vec<u8>)) -> Routed {
    match verb {
        Verb::Get | Verb::Head => {
            write(&mut reply.body);
            Routed::Answered
        }
        Verb::Post | Verb::Options | Verb::Other => method_not_allowed(reply),
    }
}

/// What a browser asks before it lets a page of another site call.
fn preflight(reply: &mut Reply) -> Routed {
    reply.header("access-control-allow-methods", "GET, POST, OPTIONS");
    let headers = "content-type, content-encoding, inference-header-content-length, authorization";
    reply.header("access-control-allow-headers", headers);
    reply.header("access-control-max-age", "3600");
    Routed::Answered
}

fn method_not_allowed(reply: &mut Reply) -> Routed {
    reply.status = 405;
    reply.body.extend_from_slice(b"{\"detail\":\"Method Not Allowed\"}");
    Routed::Answered
}

/// The answer of KServe's framework to a path that it does not have.
fn no_such_path(reply: &mut Reply) -> Routed {
    reply.status = 404;
    reply.body.extend_from_slice(b"{\"detail\":\"Not Found\"}");
    Routed::Answered
}

/// What a model that does not answer is called by the peer whose manners the server has.
pub(crate) fn refusal_of(error: NotServed, personality: Personality) -> Refusal {
    let mut refusal = Refusal::from(error.clone());
    match (personality, error) {
        (Personality::Triton, NotServed::Model(name)) => {
            refusal.text = format!("Request for unknown model: '{name}' is not found");
        }
        (Personality::Triton, NotServed::Version(name, version)) => {
            refusal.text = format!("Request for unknown model: '{name}' version {version} is not found");
        }
        (Personality::MlServer, NotServed::Model(name)) => {
            refusal.text = format!("Model {name} not found");
        }
        (Personality::MlServer, NotServed::Version(name, version)) => {
            refusal.text = format!("Model {name} with version {version} not found");
        }
        _ => {}
    }
    refusal
}

/// The answer where no version answers.
fn no_such_model(error: NotServed, personality: Personality, reply: &mut Reply) -> Routed {
    let refusal = refusal_of(error, personality);
    reply.status = refusal.http();
    write_error(&mut reply.body, &refusal.text);
    Routed::Answered
}

fn ready(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b"{\"name\":");
    push_text(out, name);
    out.extend_from_slice(b",\"ready\":true}");
}

/// Reads a path as each protocol does that has one.
#[cfg(any(test, feature = "testkit"))]
pub(crate) fn read_path(path: &str) {
    let _ = models::parse(path.strip_prefix("/v1/models/").unwrap_or(path));
    let mut rest = path;
    while let Some((one, after)) = rest.split_once('/') {
        let _ = (percent_decoded(one), v2::which(one));
        rest = after;
    }
}

/// Undoes `%41`; what is no escape stays.
pub(crate) fn percent_decoded(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return text.into();
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let code = after.get(..2).filter(|_| *first == b'%').and_then(|two| std::str::from_utf8(two).ok());
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned().into()
}
