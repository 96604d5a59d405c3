//! KServe's V1 protocol over HTTP: list and `:predict`.
//!
//! A model of one table of numbers, which is nearly every one, has a path of its own from the body to its batch.
//! Others (text columns, several inputs, other types) read their rows by the signature's types.
//!
//! Not here: the bodies (`codecs::v1`), which paths there are (`models`).

use codecs::call::Call;
use codecs::json::push_text;
use codecs::tfs;
use codecs::v1::{self, Expected, Values, write_error};
use models::{DType, Outputs, Tensor};

use super::{Routed, get};
use crate::bind::{Binder, wrong};
use crate::evaluate::Inputs;
use crate::exchange::{Asked, Message, Protocol, Reply};
use crate::http::Verb;
use crate::metrics::{Api, Entry};
use crate::refusal::{Reason, Refusal};
use crate::repository::Repository;
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

/// `:predict`.
#[derive(Debug, Default)]
pub(crate) struct V1 {
    batch: Vec<f64>,
    rows: usize,
    /// For models that are no single table of numbers.
    call: Call,
    binder: Binder,
}

/// Whether a model takes one table of numbers of a known width.
fn is_table(served: &Served) -> bool {
    served.width > 0
        && matches!(served.backend.signature().inputs.as_slice(), [only] if only.dtype == DType::F64)
}

impl V1 {
    fn table(&mut self, served: &Served, body: &[u8]) -> Result<(), Refusal> {
        let columns = &served.backend.signature().columns;
        let expected = Expected { width: served.width, columns };
        let parsed = v1::parse(body, expected, &mut self.batch);
        self.rows = parsed.map_err(|error| match error {
            v1::RequestError::Width { .. } | v1::RequestError::Column { .. } => {
                let input = served.backend.signature().inputs.first().map_or("", |input| &input.name);
                wrong(served, &format!("input {input:?}: {error}"))
            }
            error => Refusal::new(Reason::Malformed, error.to_string()),
        })?;
        Ok(())
    }
}

/// What a decoder finds wrong, as a refusal.
pub(crate) fn malformed(error: codecs::call::Wrong) -> Refusal {
    Refusal::new(Reason::Malformed, error.to_string())
}

impl Protocol for V1 {
    fn way(&self) -> (Api, Entry) {
        (Api::Predict, Entry::Rest)
    }

    fn parse(&mut self, served: &Served, message: Message<'_>) -> Result<Asked, Refusal> {
        if is_table(served) {
            self.table(served, message.body)?;
        } else {
            let unrecognized = |error: codecs::call::Wrong| {
                Refusal::new(Reason::Malformed, format!("Unrecognized request format: {error}"))
            };
            let parts = tfs::scan(message.body).map_err(unrecognized)?.as_rows();
            let signature = served.backend.signature();
            tfs::predict(message.body, &parts, signature, &mut self.call).map_err(malformed)?;
            self.rows = self.binder.bind(served, self.call.view(message.body))?;
        }
        Ok(Asked { rows: self.rows, ..Asked::default() })
    }

    fn inputs<'a>(&'a self, served: &'a Served, body: &'a [u8]) -> Result<Inputs<'a>, Refusal> {
        if !is_table(served) {
            return self.binder.inputs(served, self.call.view(body));
        }
        let tensor = Tensor::borrowed(&self.batch, &[self.rows, served.width]);
        let tensor =
            tensor.ok_or_else(|| Refusal::new(Reason::Internal, "the batch does not have its own size"))?;
        Ok(Inputs::One([tensor]))
    }

    fn write(
        &mut self,
        served: &Served,
        _body: &[u8],
        outputs: &Outputs,
        reply: &mut Reply,
    ) -> Result<(), Refusal> {
        let [output] = outputs.tensors() else { return write_several(served, outputs, reply) };
        let (dims, answer) = (output.dims(), &mut reply.body);
        match output.dtype() {
            DType::Text => v1::write_texts(answer, dims, output.texts().flatten()),
            DType::Bool => v1::write(answer, dims, Values::Bool(output.bytes())),
            DType::I64 => v1::write(answer, dims, Values::I64(output.slice().unwrap_or_default())),
            DType::I32 => v1::write(answer, dims, Values::I32(output.slice().unwrap_or_default())),
            DType::F64 => v1::write(answer, dims, Values::F64(output.slice().unwrap_or_default())),
            DType::F32 => v1::write(answer, dims, Values::F32(output.slice().unwrap_or_default())),
            _ => return write_several(served, outputs, reply),
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
        self.call.clear();
        self.binder.shrink();
    }
}

/// Several outputs: an object for each row, as TensorFlow Serving answers.
fn write_several(served: &Served, outputs: &Outputs, reply: &mut Reply) -> Result<(), Refusal> {
    let specs = &served.backend.signature().outputs;
    let named: Vec<(&str, &Tensor<'_>)> =
        specs.iter().map(|spec| spec.name.as_str()).zip(outputs.tensors()).collect();
    tfs::write_rows(&mut reply.body, &named).map_err(|text| Refusal::new(Reason::Internal, text))
}
