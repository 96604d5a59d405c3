//! The Open Inference Protocol over HTTP: health and metadata.
//!
//! Not here: `infer`.

use codecs::json::push_text;
use codecs::v1::write_error;
use models::TensorSpec;

use super::{Routed, get, no_such_model, no_such_path, percent_decoded, ready};
use crate::exchange::Reply;
use crate::http::Verb;
use crate::repository::{Repository, Which};
use crate::served::Served;

/// `/v2` and what follows.
pub(super) fn route(verb: Verb, rest: &str, repository: &Repository, reply: &mut Reply) -> Routed {
    match rest {
        "" | "/" => get(verb, reply, |out| {
            out.extend_from_slice(b"{\"name\":\"slipway\",\"version\":\"");
            out.extend_from_slice(env!("CARGO_PKG_VERSION").as_bytes());
            out.extend_from_slice(b"\",\"extensions\":[]}");
        }),
        "/health/live" => get(verb, reply, |out| out.extend_from_slice(b"{\"live\":true}")),
        "/health/ready" => {
            let is_ready = repository.is_ready();
            reply.status = if is_ready { 200 } else { 503 };
            get(verb, reply, |out| {
                let text: &[u8] = if is_ready { b"{\"ready\":true}" } else { b"{\"ready\":false}" };
                out.extend_from_slice(text);
            })
        }
        "/models" => super::v1::list(verb, repository, reply),
        _ => model(verb, rest, repository, reply),
    }
}

fn model(verb: Verb, rest: &str, repository: &Repository, reply: &mut Reply) -> Routed {
    let Some(rest) = rest.strip_prefix("/models/") else { return no_such_path(reply) };
    let (name, action) = rest.split_once('/').unwrap_or((rest, ""));
    let name = percent_decoded(name);
    let served = match repository.find(&name, Which::Default) {
        Ok(served) => served,
        Err(error) => return no_such_model(error, reply),
    };
    match action {
        "" => get(verb, reply, |out| metadata(out, &served)),
        "ready" => get(verb, reply, |out| ready(out, &served.name)),
        "infer" => {
            reply.status = 501;
            write_error(&mut reply.body, "predictions are served over the V1 protocol only");
            Routed::Answered
        }
        _ => no_such_path(reply),
    }
}

fn metadata(out: &mut Vec<u8>, served: &Served) {
    out.extend_from_slice(b"{\"name\":");
    push_text(out, &served.name);
    out.extend_from_slice(b",\"platform\":");
    push_text(out, &served.about.platform);
    out.extend_from_slice(b",\"versions\":[],\"inputs\":");
    specs(out, &served.backend.signature().inputs);
    out.extend_from_slice(b",\"outputs\":");
    specs(out, &served.backend.signature().outputs);
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
