//! ONNX models, without a C library: read, checked and run as a [`models::Backend`].
//!
//! * [`Onnx::load`] reads a file. Graphs with operators of `ai.onnx.ml` (what exporters make of scikit-learn,
//!   XGBoost, LightGBM) and networks (convolutions, attention, recurrence) run in an executor of our own
//!   (docs/adr/0012).
//! * [`convert`] writes an estimator of `models` as a file that any ONNX runtime takes.
//! * [`quantize()`] makes the weights of matrix products and convolutions integers of 8 bits.
//! * [`is_onnx`] tells such a file from others.
//!
//! Files are hostile until proved otherwise: what they claim is checked against their bytes, what they nest is
//! bounded, and how many cells a run may make too. Nothing in them names other files or code.
//!
//! Not here: other formats (`models`), files and sockets (`infer`).

mod convert;
mod engine;
mod exec;
mod mixing;
mod proto;
mod quantize;
mod wire;
mod write;

pub use convert::convert;
pub use engine::{Onnx, Summary};
pub use exec::value::Bounds;
pub use quantize::{Mode, Quantized, quantize};

/// Whether bytes look like an ONNX model: they begin with its version and hold a graph and an opset.
pub fn is_onnx(bytes: &bytes::Bytes) -> bool {
    bytes.first() == Some(&0x08) && proto::Model::parse(bytes).is_ok()
}
