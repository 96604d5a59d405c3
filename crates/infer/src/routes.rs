//! What a path means.
//!
//! The paths are those of KServe's Python server: V1, and of V2 the calls about health and metadata, which its
//! clients and probes make whatever protocol they predict with.
//!
//! Not here: predicting (`predict`).

use std::borrow::Cow;

use codecs::json::push_text;
use codecs::v1::write_error;
use models::{Signature, TensorSpec};

use crate::http::Verb;
use crate::model::Model;

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// Predict with the body.
    Predict,
    /// Answer with the metrics.
    Metrics,
    /// The answer was written; its status.
    Answered(u16),
}

/// Finds what a request asks for and answers it if no body is needed.
pub(crate) fn route(verb: Verb, path: &str, model: &Model, answer: &mut Vec<u8>) -> Route {
    answer.clear();
    if path == "/metrics" {
        return get(verb, answer, |_| {}).map_or(Route::Metrics, Route::Answered);
    }
    if let Some(rest) = path.strip_prefix("/v1/models/") {
        return v1(verb, rest, model, answer);
    }
    if let Some(rest) = path.strip_prefix("/v2") {
        return Route::Answered(v2(verb, rest, model, answer));
    }
    let status = match path {
        "/" => get(verb, answer, |out| out.extend_from_slice(b"{\"status\":\"alive\"}")),
        "/v1/models" => get(verb, answer, |out| {
            out.extend_from_slice(b"{\"models\":[");
            push_text(out, &model.name);
            out.extend_from_slice(b"]}");
        }),
        _ => Some(not_found(answer)),
    };
    Route::Answered(status.unwrap_or(200))
}

/// Writes the answer of a call that only reads; the status if it is not a 200.
fn get(verb: Verb, answer: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) -> Option<u16> {
    match verb {
        Verb::Get | Verb::Head => {
            write(answer);
            None
        }
        Verb::Post | Verb::Other => {
            answer.extend_from_slice(b"{\"detail\":\"Method Not Allowed\"}");
            Some(405)
        }
    }
}

/// The answer of KServe's framework to a path that it does not have.
fn not_found(answer: &mut Vec<u8>) -> u16 {
    answer.extend_from_slice(b"{\"detail\":\"Not Found\"}");
    404
}

fn unknown_model(answer: &mut Vec<u8>, name: &str) -> u16 {
    write_error(answer, &format!("Model with name {name} does not exist."));
    404
}

fn v1(verb: Verb, rest: &str, model: &Model, answer: &mut Vec<u8>) -> Route {
    let (name, action) = rest.split_once(':').unwrap_or((rest, ""));
    let name = percent_decoded(name);
    if name.contains('/') {
        return Route::Answered(not_found(answer));
    }
    if name != model.name {
        return Route::Answered(unknown_model(answer, &name));
    }
    let status = match (action, verb) {
        ("predict", Verb::Post) => return Route::Predict,
        ("explain", Verb::Post) => {
            write_error(answer, "this model has no explainer");
            501
        }
        ("predict" | "explain", _) => {
            answer.extend_from_slice(b"{\"detail\":\"Method Not Allowed\"}");
            405
        }
        ("", _) => get(verb, answer, |out| ready(out, &model.name)).unwrap_or(200),
        _ => not_found(answer),
    };
    Route::Answered(status)
}

fn ready(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b"{\"name\":");
    push_text(out, name);
    out.extend_from_slice(b",\"ready\":true}");
}

fn v2(verb: Verb, rest: &str, model: &Model, answer: &mut Vec<u8>) -> u16 {
    let status = match rest {
        "" | "/" => get(verb, answer, |out| {
            out.extend_from_slice(b"{\"name\":\"slipway\",\"version\":\"");
            out.extend_from_slice(env!("CARGO_PKG_VERSION").as_bytes());
            out.extend_from_slice(b"\",\"extensions\":[]}");
        }),
        "/health/live" => get(verb, answer, |out| out.extend_from_slice(b"{\"live\":true}")),
        "/health/ready" => get(verb, answer, |out| out.extend_from_slice(b"{\"ready\":true}")),
        "/models" => get(verb, answer, |out| {
            out.extend_from_slice(b"{\"models\":[");
            push_text(out, &model.name);
            out.extend_from_slice(b"]}");
        }),
        _ => return v2_model(verb, rest, model, answer),
    };
    status.unwrap_or(200)
}

fn v2_model(verb: Verb, rest: &str, model: &Model, answer: &mut Vec<u8>) -> u16 {
    let Some(rest) = rest.strip_prefix("/models/") else { return not_found(answer) };
    let (name, action) = rest.split_once('/').unwrap_or((rest, ""));
    let name = percent_decoded(name);
    if name != model.name {
        return unknown_model(answer, &name);
    }
    let status = match action {
        "" => get(verb, answer, |out| metadata(out, &model.name, model.backend.signature())),
        "ready" => get(verb, answer, |out| ready(out, &model.name)),
        "infer" => {
            write_error(answer, "predictions are served over the V1 protocol only");
            Some(501)
        }
        _ => Some(not_found(answer)),
    };
    status.unwrap_or(200)
}

fn metadata(out: &mut Vec<u8>, name: &str, signature: &Signature) {
    out.extend_from_slice(b"{\"name\":");
    push_text(out, name);
    out.extend_from_slice(b",\"platform\":\"sklearn\",\"versions\":[],\"inputs\":");
    specs(out, &signature.inputs);
    out.extend_from_slice(b",\"outputs\":");
    specs(out, &signature.outputs);
    out.push(b'}');
}

fn specs(out: &mut Vec<u8>, specs: &[TensorSpec]) {
    for (index, spec) in specs.iter().enumerate() {
        out.extend_from_slice(if index == 0 { b"[{\"name\":" } else { b",{\"name\":" });
        push_text(out, &spec.name);
        out.extend_from_slice(b",\"datatype\":");
        push_text(out, spec.dtype.v2_name());
        out.extend_from_slice(b",\"shape\":[-1");
        for dim in &spec.row {
            let dim = dim.map_or(-1, |dim| i64::try_from(dim).unwrap_or(-1));
            out.extend_from_slice(format!(",{dim}").as_bytes());
        }
        out.extend_from_slice(b"]}");
    }
    out.push(b']');
}

/// Undoes `%41`; what is no escape stays.
fn percent_decoded(text: &str) -> Cow<'_, str> {
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
