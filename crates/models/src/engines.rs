//! The seam between the model server and engines that live in other processes.
//!
//! The server reads what it can by itself. What it cannot (another library's format, a class that nobody knows, code of
//! the operator's own) it offers to the engines that it was given, one after the other. It knows none of them, and an
//! engine knows nothing of the server: `bin/slipway` brings the two together.
//!
//! Not here: an engine (`backend-host`).

use std::fmt::Debug;
use std::path::Path;
use std::time::Duration;

use crate::backend::Backend;
use crate::error::LoadError;
use crate::sklearn::native::Method;

/// A model that wants an engine.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The model's name.
    pub name: &'a str,
    /// Its folder, or its file.
    pub path: &'a Path,
    /// Its file in that folder, where one is known.
    pub file: Option<&'a str>,
    /// Which of its methods answers.
    pub method: Method,
    /// The operator's own class that is the model. It is asked for by name, so no native reader was tried.
    pub class: Option<&'a Class>,
    /// Why the model was not read natively, where that was tried.
    pub refusal: Option<&'a LoadError>,
}

/// A class of the operator's own that is a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class {
    /// `module:Class` or `module.Class`.
    pub name: String,
    /// The folder that its module lies in; `None` is the model's.
    pub code: Option<std::path::PathBuf>,
    /// The document that names it, JSON as in MLServer's `model-settings.json`.
    pub settings: Option<String>,
}

/// A server that a class which is a transformer asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Predictor {
    /// Its host, and its port where that is not the usual one.
    pub host: String,
    /// `v1` or `v2`.
    pub protocol: String,
    /// Whether it is asked over TLS.
    pub use_ssl: bool,
    /// How long it may take.
    pub timeout: Duration,
    /// How often it is asked again where it cannot be reached.
    pub retries: u32,
}

/// A model that an engine evaluates.
pub struct Hosted {
    /// What evaluates it.
    pub backend: Box<dyn Backend>,
    /// What wrote it, in the words of the Open Inference Protocol: `sklearn`, `tensorflow_savedmodel`, `onnxruntime_onnx`.
    pub platform: String,
    /// The format that was read, for people.
    pub format: String,
}

/// An engine that the operator allowed.
pub trait Engines: Send + Sync + Debug {
    /// Reads the model and waits until it answers. `None` when this is nothing for this engine; an error, a text for
    /// people, when it is and could not be read.
    fn load(&self, wanted: &Wanted<'_>) -> Option<Result<Hosted, String>>;

    /// Whether the model is for this engine before any native reader is tried.
    fn comes_first(&self, _wanted: &Wanted<'_>) -> bool {
        false
    }

    /// Whether it is there and would evaluate the model in less time than the native reader, where that takes long.
    fn outruns(&self, _wanted: &Wanted<'_>) -> bool {
        false
    }
}
