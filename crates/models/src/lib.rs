//! Model formats and evaluators: from bytes to answers, without Python and without IO.
//!
//! * [`load`] reads the model of a [`Folder`]; [`inspect()`] reports on it.
//! * [`sketch::draw`] says what an estimator computes, for writers of other formats.
//! * [`table::Table`] is data to try a model on.
//! * [`Native`] evaluates it as a [`Backend`], the trait that the model server knows.
//!
//! Nothing in a file is executed: pickles are read by a machine that calls nothing (`pickle`), and what a file
//! can claim is bounded by [`Limits`].
//!
//! Not here: files and sockets (`infer`), wire formats (`codecs`).

mod array;
mod backend;
mod booster;
mod catboost;
mod container;
#[cfg(any(test, feature = "testkit"))]
pub mod contract;
mod document;
mod engines;
mod entry;
mod error;
pub mod explain;
mod graph;
mod inspect;
mod lightgbm;
mod limits;
mod npy;
mod parameters;
mod pickle;
mod pmml;
mod product;
pub mod sketch;
mod sklearn;
mod skops;
mod source;
pub mod table;
mod tensor;
mod trees;
mod xgboost;

pub use backend::{Backend, BackendError, Batch, Dims, Signature, TensorSpec, WorkerCounts};
pub use engines::{Class, Engines, Hosted, Predictor, Wanted};
pub use entry::{CLASSIFY, DEFAULT_ENTRY, Entry, PREDICT, REGRESS, Through, default_entry};
pub use error::LoadError;
pub use inspect::{Format, Inspection, Line, Loaded, inspect, inspect_bytes, load, load_bytes};
pub use limits::Limits;
pub use parameters::parameters;
pub use sklearn::native::{Method, Native};
pub use sklearn::{Estimator, Labels, Part};
pub use source::{Chosen, Folder, Memory, choose};
pub use tensor::{Buffer, DType, Element, Outputs, RANK_MAX, Region, Shape, Storage, Tensor, f64_of_half};
