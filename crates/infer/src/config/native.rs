//! How models may run in native libraries, as the operator said.
//!
//! These are wishes: this crate opens no library. Whoever wires the server makes an engine of them.

use std::path::PathBuf;
use std::time::Duration;

/// Which engine runs ONNX graphs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnnxEngine {
    /// ONNX Runtime where it is found and the graph takes long for a row, or is one that the server's own does not evaluate;
    /// else the server's own.
    #[default]
    Auto,
    /// The server's own.
    Native,
    /// ONNX Runtime.
    OnnxRuntime,
}

impl std::str::FromStr for OnnxEngine {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "auto" => Self::Auto,
            "native" => Self::Native,
            "onnxruntime" => Self::OnnxRuntime,
            other => return Err(format!("{other:?} is none of auto, native, onnxruntime")),
        })
    }
}

/// How models may run in native libraries.
#[derive(Debug, Clone, PartialEq)]
pub struct Libraries {
    /// Which engine runs ONNX graphs.
    pub onnx_engine: OnnxEngine,
    /// ONNX Runtime's library: a file or its folder; `None` is looked for.
    pub onnx_library: Option<PathBuf>,
    /// ONNX Runtime is opened in the server's own process.
    pub onnx_in_process: bool,
    /// ONNX Runtime's execution providers with their settings.
    pub onnx_providers: String,
    /// Threads for one node; 0 is the library's choice.
    pub onnx_intra_op_threads: u32,
    /// Threads for nodes beside each other; 0 is the library's choice.
    pub onnx_inter_op_threads: u32,
    /// How much graphs are rewritten: `none`, `basic`, `extended`, or empty for all.
    pub onnx_optimization: String,
    /// TensorFlow's library: a file or its folder; `None` is looked for.
    pub tensorflow_library: Option<PathBuf>,
    /// Tags of the graph of a SavedModel; empty is `serve`.
    pub saved_model_tags: String,
    /// Threads for one operation; 0 is the library's choice.
    pub tensorflow_intra_op_threads: u32,
    /// Threads for operations beside each other; 0 is the library's choice.
    pub tensorflow_inter_op_threads: u32,
    /// Share of a GPU's memory that TensorFlow takes at once; 0 is its choice.
    pub gpu_memory_fraction: f64,
    /// The Python whose packages may have the libraries; it is not run for this.
    pub interpreter: Option<PathBuf>,
    /// How long a call may take.
    pub call_timeout: Duration,
    /// How long reading a model may take.
    pub start_timeout: Duration,
    /// Bytes that the tensors of a call may have, inputs and outputs together.
    pub memory_bytes_max: u64,
}

impl Default for Libraries {
    fn default() -> Self {
        Self {
            onnx_engine: OnnxEngine::default(),
            onnx_library: None,
            onnx_in_process: false,
            onnx_providers: String::new(),
            onnx_intra_op_threads: 0,
            onnx_inter_op_threads: 0,
            onnx_optimization: String::new(),
            tensorflow_library: None,
            saved_model_tags: String::new(),
            tensorflow_intra_op_threads: 0,
            tensorflow_inter_op_threads: 0,
            gpu_memory_fraction: 0.0,
            interpreter: on_path("python3".as_ref()),
            call_timeout: Duration::from_secs(30),
            start_timeout: Duration::from_secs(120),
            memory_bytes_max: 1 << 30,
        }
    }
}

/// The file of a program that is named as a shell would.
pub(crate) fn on_path(program: &std::path::Path) -> Option<PathBuf> {
    if program.components().count() > 1 {
        return Some(program.to_owned());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}
