//! Calls that change which models are served: Triton's repository API over both transports, and TensorFlow Serving's
//! reload.
//!
//! They are refused unless the operator opened them: whoever reaches the data port could otherwise take models away.
//!
//! Not here: how models are loaded (`repository`).

use codecs::json::{Cursor, push_text};
use codecs::v1::write_error;

use crate::exchange::Reply;
use crate::refusal::{Reason, Refusal};
use crate::repository::{Repository, State};
use crate::served::Personality;
use crate::shared::Shared;

/// What a path of the repository API asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Order {
    /// The list of models.
    Index,
    /// Load this one.
    Load(String),
    /// Unload this one.
    Unload(String),
}

/// What the index says about one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) name: String,
    /// Empty where the model's folder has no versions.
    pub(crate) version: String,
    pub(crate) state: &'static str,
    pub(crate) reason: String,
}

/// All versions of all models, or only those that answer.
pub(crate) fn index(repository: &Repository, only_ready: bool) -> Vec<Line> {
    let mut lines = Vec::new();
    for model in repository.snapshot().models {
        for version in model.versions {
            let state = match version.state {
                State::Available => "READY",
                State::Start if model.is_asleep => "UNAVAILABLE",
                State::Start | State::Loading => "LOADING",
                State::Unloading => "UNLOADING",
                State::End => "UNAVAILABLE",
            };
            if only_ready && version.state != State::Available {
                continue;
            }
            let ended = match version.state {
                State::End => "unloaded",
                State::Start if model.is_asleep => "not loaded: the first call loads it",
                _ => "",
            };
            lines.push(Line {
                name: model.name.to_string(),
                version: version.version.map(|number| number.to_string()).unwrap_or_default(),
                state,
                reason: version.error.unwrap_or_else(|| ended.to_owned()),
            });
        }
    }
    lines
}

/// Carries out a load or unload; refused where that is not allowed.
pub(crate) async fn carry_out(order: &Order, shared: &Shared, is_open: bool) -> Result<(), Refusal> {
    if !is_open {
        return Err(not_open());
    }
    match order {
        Order::Load(model) => shared.repository.load(model).await,
        Order::Unload(model) => shared.repository.unload(model).await,
        Order::Index => Ok(()),
    }
}

/// The refusal of a server that changes nothing on request.
pub(crate) fn not_open() -> Refusal {
    let text = "explicit model load / unload is not allowed here: use the port or socket of --admin_port or --admin_socket, or start the server with --open_repository_api";
    Refusal::new(Reason::Forbidden, text)
}

/// Answers a call of the repository API over HTTP. The reply comes cleared.
pub(crate) async fn answer(order: &Order, body: &[u8], shared: &Shared, is_open: bool, reply: &mut Reply) {
    if let Err(refusal) = answer_or(order, body, shared, is_open, reply).await {
        reply.clear();
        reply.status = refusal.http();
        write_error(&mut reply.body, &refusal.text);
    }
}

async fn answer_or(
    order: &Order,
    body: &[u8],
    shared: &Shared,
    is_open: bool,
    reply: &mut Reply,
) -> Result<(), Refusal> {
    if *order == Order::Index {
        write_index(&mut reply.body, &index(&shared.repository, only_ready(body)?));
        return Ok(());
    }
    if carries_files(body)? {
        let text = "a load request with a configuration or files of its own is not served";
        return Err(Refusal::new(Reason::Unsupported, text));
    }
    carry_out(order, shared, is_open).await?;
    let (name, done) = match order {
        Order::Load(name) => (name, "load"),
        Order::Unload(name) => (name, "unload"),
        Order::Index => return Ok(()),
    };
    // Triton and MLServer answer with nothing; KServe's client reads the name.
    if shared.personality == Personality::Kserve {
        reply.body.extend_from_slice(b"{\"name\":");
        push_text(&mut reply.body, name);
        reply.body.extend_from_slice(format!(",\"{done}\":true}}").as_bytes());
    }
    Ok(())
}

fn write_index(out: &mut Vec<u8>, lines: &[Line]) {
    out.push(b'[');
    for (index, line) in lines.iter().enumerate() {
        out.extend_from_slice(if index == 0 { b"{\"name\":" } else { b",{\"name\":" });
        push_text(out, &line.name);
        if !line.version.is_empty() {
            out.extend_from_slice(b",\"version\":");
            push_text(out, &line.version);
        }
        out.extend_from_slice(b",\"state\":");
        push_text(out, line.state);
        out.extend_from_slice(b",\"reason\":");
        push_text(out, &line.reason);
        out.push(b'}');
    }
    out.push(b']');
}

fn malformed(error: &codecs::json::JsonError) -> Refusal {
    Refusal::new(Reason::Malformed, error.to_string())
}

/// `{"ready": true}`; no body is false.
fn only_ready(body: &[u8]) -> Result<bool, Refusal> {
    let mut ready = false;
    let mut cursor = Cursor::new(body);
    if cursor.peek().is_some() {
        cursor
            .object(|cursor, key| {
                if key == "ready" {
                    ready = cursor.truth()?;
                    return Ok(());
                }
                cursor.skip().map(drop)
            })
            .map_err(|error| malformed(&error))?;
    }
    Ok(ready)
}

/// Whether `parameters` has a configuration or files, which Triton would load instead of the repository's.
fn carries_files(body: &[u8]) -> Result<bool, Refusal> {
    let mut carries = false;
    let mut cursor = Cursor::new(body);
    if cursor.peek().is_some() {
        cursor
            .object(|cursor, key| {
                if key != "parameters" || cursor.null() {
                    return cursor.skip().map(drop);
                }
                cursor.object(|cursor, key| {
                    carries |= key == "config" || key.starts_with("file:");
                    cursor.skip().map(drop)
                })
            })
            .map_err(|error| malformed(&error))?;
    }
    Ok(carries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_of_the_repository_api_are_read() {
        assert_eq!(only_ready(b""), Ok(false));
        assert_eq!(only_ready(br#"{"x":[1],"ready":true}"#), Ok(true));
        assert!(only_ready(b"[").is_err());
        assert_eq!(carries_files(br#"{"parameters":{"unload_dependents":true}}"#), Ok(false));
        assert_eq!(carries_files(br#"{"parameters":{"config":"{}"}}"#), Ok(true));
        assert_eq!(carries_files(br#"{"parameters":{"file:1/model.onnx":"AA=="}}"#), Ok(true));
    }
}
