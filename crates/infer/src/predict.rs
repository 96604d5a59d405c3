//! One prediction: body in, answer out, in buffers that live as long as their connection.
//!
//! Not here: HTTP.

use std::time::Instant;

use codecs::v1::{self, Expected, Values};
use models::{BackendError, Batch, DType, Outputs, Tensor};

use crate::metrics::Metrics;
use crate::model::Model;

/// A connection's buffers, reused from request to request.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    batch: Vec<f64>,
    outputs: Outputs,
    /// The answer's body.
    pub(crate) answer: Vec<u8>,
}

/// How a prediction begins.
pub(crate) enum Begun {
    /// The body is wrong; the answer and its status are ready.
    Refused(u16),
    /// This many rows are in the batch.
    Rows(usize),
}

/// Beyond this many nanoseconds, a batch leaves the event loop so that other connections go on.
const INLINE_NS_MAX: u64 = 300_000;
/// Beyond this many bytes, even parsing leaves it.
pub(crate) const INLINE_BYTES_MAX: usize = 64 << 10;

impl Scratch {
    /// Parses a request.
    pub(crate) fn begin(&mut self, model: &Model, body: &[u8], metrics: &Metrics) -> Begun {
        self.answer.clear();
        let start = Instant::now();
        let expected = Expected { width: model.width, columns: &model.backend.signature().columns };
        let parsed = v1::parse(body, expected, &mut self.batch);
        metrics.preprocess.observe(start.elapsed());
        match parsed {
            Ok(rows) => Begun::Rows(rows),
            Err(error) => {
                v1::write_error(&mut self.answer, &error.to_string());
                Begun::Refused(400)
            }
        }
    }

    /// Whether evaluating so many rows is short enough for the event loop.
    pub(crate) fn is_short(model: &Model, rows: usize) -> bool {
        model.backend.row_cost_ns().saturating_mul(rows as u64) <= INLINE_NS_MAX
    }

    /// Evaluates what was parsed. Returns the status; the answer is ready.
    pub(crate) fn finish(&mut self, model: &Model, rows: usize, metrics: &Metrics) -> u16 {
        let start = Instant::now();
        let evaluated = self.evaluate(model, rows);
        let between = Instant::now();
        metrics.predict.observe(between - start);
        metrics.rows.fetch_add(rows as u64, std::sync::atomic::Ordering::Relaxed);
        let status = match evaluated {
            Ok(()) => match write(&self.outputs, &mut self.answer) {
                true => 200,
                false => 500,
            },
            Err(error) => {
                self.answer.clear();
                v1::write_error(&mut self.answer, &error.to_string());
                if matches!(error, BackendError::Input(_)) { 400 } else { 500 }
            }
        };
        metrics.postprocess.observe(between.elapsed());
        status
    }

    fn evaluate(&mut self, model: &Model, rows: usize) -> Result<(), BackendError> {
        self.outputs.clear();
        let Some(input) = Tensor::borrowed(&self.batch, &[rows, model.width]) else {
            return Err(BackendError::Internal("the batch does not have its own size".into()));
        };
        model.backend.run(&Batch { rows, inputs: &[input] }, &mut self.outputs)
    }

    /// Gives back what a large request left, so that idle connections stay small.
    pub(crate) fn shrink(&mut self) {
        const KEEP: usize = 64 << 10;
        if self.answer.capacity() > KEEP {
            self.answer = Vec::new();
        }
        if self.batch.capacity() > KEEP / size_of::<f64>() {
            self.batch = Vec::new();
            self.outputs = Outputs::new();
        }
    }
}

/// Writes the first output as V1 predictions; false (with an error as the answer) for what V1 has no form for.
fn write(outputs: &Outputs, answer: &mut Vec<u8>) -> bool {
    let Some(output) = outputs.tensors().first() else {
        v1::write_error(answer, "the model gave no output");
        return false;
    };
    let dims = output.dims();
    match output.dtype() {
        DType::Text => v1::write_texts(answer, dims, output.texts().flatten()),
        DType::Bool => v1::write(answer, dims, Values::Bool(output.bytes())),
        DType::I64 => v1::write(answer, dims, Values::I64(output.slice().unwrap_or_default())),
        DType::I32 => v1::write(answer, dims, Values::I32(output.slice().unwrap_or_default())),
        DType::F64 => v1::write(answer, dims, Values::F64(output.slice().unwrap_or_default())),
        DType::F32 => v1::write(answer, dims, Values::F32(output.slice().unwrap_or_default())),
        other => {
            v1::write_error(answer, &format!("V1 has no form for {}", other.v2_name()));
            return false;
        }
    }
    true
}
