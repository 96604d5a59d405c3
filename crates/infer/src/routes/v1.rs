//! KServe's V1 protocol over HTTP: list, status and `:predict`.
//!
//! Not here: the bodies (`codecs::v1`).

use codecs::json::push_text;
use codecs::v1::{self, Expected, Values, write_error};
use models::{DType, Outputs, Tensor};

use super::{Routed, get, method_not_allowed, no_such_model, no_such_path, percent_decoded};
use crate::evaluate::Inputs;
use crate::exchange::{Asked, Kind, Message, Protocol, Reply};
use crate::http::Verb;
use crate::refusal::{Reason, Refusal};
use crate::repository::{NotServed, Repository, Which};
use crate::served::Served;

/// `/v1/models`.
pub(super) fn list(verb: Verb, repository: &Repository, reply: &mut Reply) -> Routed {
    get(verb, reply, |out| {
        out.extend_from_slice(b"{\"models\":[");
        for (index, model) in repository.snapshot().models.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            push_text(out, &model.name);
        }
        out.extend_from_slice(b"]}");
    })
}

/// `/v1/models/` and what follows.
pub(super) fn route(verb: Verb, rest: &str, repository: &Repository, reply: &mut Reply) -> Routed {
    let (name, action) = rest.split_once(':').unwrap_or((rest, ""));
    let name = percent_decoded(name);
    if name.contains('/') {
        return no_such_path(reply);
    }
    let served = match (repository.find(&name, Which::Default), action) {
        (Ok(served), _) => served,
        (Err(error @ NotServed::NotReady { .. }), "") if matches!(verb, Verb::Get | Verb::Head) => {
            reply.status = 503;
            write_error(&mut reply.body, &error.to_string());
            return Routed::Answered;
        }
        (Err(error), _) => return no_such_model(error, reply),
    };
    match (action, verb) {
        ("predict", Verb::Post) => Routed::Call(served, Kind::V1),
        ("explain", Verb::Post) => {
            reply.status = 501;
            write_error(&mut reply.body, "this model has no explainer");
            Routed::Answered
        }
        ("predict" | "explain", _) => method_not_allowed(reply),
        ("", _) => get(verb, reply, |out| super::ready(out, &served.name)),
        _ => no_such_path(reply),
    }
}

/// `:predict`.
#[derive(Debug, Default)]
pub(crate) struct V1 {
    batch: Vec<f64>,
    rows: usize,
}

impl Protocol for V1 {
    fn parse(&mut self, served: &Served, message: Message<'_>) -> Result<Asked, Refusal> {
        let columns = &served.backend.signature().columns;
        let expected = Expected { width: served.width, columns };
        let parsed = v1::parse(message.body, expected, &mut self.batch);
        self.rows = parsed.map_err(|error| Refusal::new(Reason::Malformed, error.to_string()))?;
        Ok(Asked { rows: self.rows, ..Asked::default() })
    }

    fn inputs<'a>(&'a self, served: &'a Served, _body: &'a [u8]) -> Result<Inputs<'a>, Refusal> {
        let tensor = Tensor::borrowed(&self.batch, &[self.rows, served.width]);
        let tensor =
            tensor.ok_or_else(|| Refusal::new(Reason::Internal, "the batch does not have its own size"))?;
        Ok(Inputs::One([tensor]))
    }

    fn write(&mut self, _served: &Served, outputs: &Outputs, reply: &mut Reply) -> Result<(), Refusal> {
        let Some(output) = outputs.tensors().first() else {
            return Err(Refusal::new(Reason::Internal, "the model gave no output"));
        };
        let (dims, answer) = (output.dims(), &mut reply.body);
        match output.dtype() {
            DType::Text => v1::write_texts(answer, dims, output.texts().flatten()),
            DType::Bool => v1::write(answer, dims, Values::Bool(output.bytes())),
            DType::I64 => v1::write(answer, dims, Values::I64(output.slice().unwrap_or_default())),
            DType::I32 => v1::write(answer, dims, Values::I32(output.slice().unwrap_or_default())),
            DType::F64 => v1::write(answer, dims, Values::F64(output.slice().unwrap_or_default())),
            DType::F32 => v1::write(answer, dims, Values::F32(output.slice().unwrap_or_default())),
            other => {
                let text = format!("V1 has no form for {}", other.v2_name());
                return Err(Refusal::new(Reason::Unsupported, text));
            }
        }
        Ok(())
    }

    fn refuse(&mut self, _served: Option<&Served>, refusal: &Refusal, reply: &mut Reply) {
        write_error(&mut reply.body, &refusal.text);
    }

    fn shrink(&mut self) {
        if self.batch.capacity() > 8 << 10 {
            self.batch = Vec::new();
        }
    }
}
