//! Native engines that are opened at run time: ONNX Runtime and TensorFlow, through their C interfaces.
//!
//! Nothing of theirs is linked, built or downloaded: where the machine has the library (`discover`), it is opened, its
//! version is checked, and a model becomes a [`models::Backend`].
//!
//! * [`onnx::Model`] is a session of ONNX Runtime, [`tensorflow::Model`] one of TensorFlow with all signatures of a
//!   SavedModel.
//! * `library`, `onnx::api` and `tensorflow::api` are the only files that call foreign code. A fault in it takes the
//!   process along, which is why the server opens these engines in processes of their own.
//!
//! This crate reads files and libraries, as its job is. Not here: those processes (`backend-host`), the server (`infer`).

mod cost;
mod discover;
mod error;
mod inputs;
mod library;
pub mod onnx;
pub mod tensorflow;

pub use discover::{Kind, Places, candidates};
pub use error::Error;
use inputs::{check_inputs, no_rows};
