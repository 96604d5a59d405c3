//! Flags of models that run in native libraries: ONNX Runtime and TensorFlow.
//!
//! Not here: the libraries (`engines`), the processes that they are opened in (`backend-host`).

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::python;
use crate::config::{Config, Libraries, OnnxEngine, on_path};

/// How models may run in native libraries.
#[derive(Debug, Clone, Args)]
#[command(rename_all = "snake_case")]
#[group(id = "native_libraries")]
pub struct Flags {
    /// What runs ONNX graphs: auto is the server's own engine and, for graphs that it does not evaluate, ONNX Runtime where
    /// it is found; native or onnxruntime is that one alone.
    #[arg(long = "onnx_engine", default_value = "auto")]
    pub onnx_engine: OnnxEngine,
    /// ONNX Runtime's library, or its folder. By default it is looked for among Python's packages and in the system's folders.
    #[arg(long = "onnx_library", env = "SLIPWAY_ONNXRUNTIME_LIBRARY")]
    pub onnx_library: Option<PathBuf>,
    /// Open ONNX Runtime in the server's own process: no copy between processes, and its faults are the server's.
    #[arg(long = "onnx_in_process")]
    pub onnx_in_process: bool,
    /// ONNX Runtime's execution providers, the preferred first: NAME[:key=value;key=value],NAME…
    #[arg(long = "onnx_execution_providers", default_value = "")]
    pub onnx_execution_providers: String,
    /// Threads of ONNX Runtime for one node; 0 is one for each core.
    #[arg(long = "onnx_intra_op_threads", default_value_t = 0)]
    pub onnx_intra_op_threads: u32,
    /// Threads of ONNX Runtime for nodes that do not depend on each other; more than 1 runs them at once.
    #[arg(long = "onnx_inter_op_threads", default_value_t = 0)]
    pub onnx_inter_op_threads: u32,
    /// How much ONNX Runtime rewrites graphs: none, basic, extended or all.
    #[arg(long = "onnx_graph_optimization", default_value = "all")]
    pub onnx_graph_optimization: String,
    /// TensorFlow's library, or its folder. By default it is looked for as ONNX Runtime's is.
    #[arg(long = "tensorflow_library", env = "SLIPWAY_TENSORFLOW_LIBRARY")]
    pub tensorflow_library: Option<PathBuf>,
    /// Tags of the graph in a SavedModel, with commas between.
    #[arg(long = "saved_model_tags", default_value = "serve")]
    pub saved_model_tags: String,
    /// Threads of TensorFlow for one operation; 0 is its choice.
    #[arg(long = "tensorflow_intra_op_parallelism", default_value_t = 0)]
    pub tensorflow_intra_op_parallelism: u32,
    /// Threads of TensorFlow for operations that do not depend on each other; 0 is its choice.
    #[arg(long = "tensorflow_inter_op_parallelism", default_value_t = 0)]
    pub tensorflow_inter_op_parallelism: u32,
}

impl Flags {
    pub(super) fn apply(&self, config: &mut Config, workers: &python::Flags) -> Result<(), String> {
        if !["none", "basic", "extended", "all"].contains(&&*self.onnx_graph_optimization) {
            let got = &self.onnx_graph_optimization;
            return Err(format!("--onnx_graph_optimization {got}: expected none, basic, extended or all"));
        }
        if self.onnx_in_process && self.onnx_engine == OnnxEngine::Native {
            return Err(
                "--onnx_in_process is of ONNX Runtime, which --onnx_engine native never opens".to_owned()
            );
        }
        config.libraries = Libraries {
            onnx_engine: self.onnx_engine,
            onnx_library: self.onnx_library.clone(),
            onnx_in_process: self.onnx_in_process,
            onnx_providers: self.onnx_execution_providers.clone(),
            onnx_intra_op_threads: self.onnx_intra_op_threads,
            onnx_inter_op_threads: self.onnx_inter_op_threads,
            onnx_optimization: self.onnx_graph_optimization.clone(),
            tensorflow_library: self.tensorflow_library.clone(),
            saved_model_tags: self.saved_model_tags.clone(),
            tensorflow_intra_op_threads: self.tensorflow_intra_op_parallelism,
            tensorflow_inter_op_threads: self.tensorflow_inter_op_parallelism,
            interpreter: on_path(&workers.python),
            call_timeout: Duration::from_millis(workers.worker_timeout_ms),
            start_timeout: Duration::from_millis(workers.worker_start_timeout_ms),
            memory_bytes_max: workers.worker_max_bytes,
            ..Libraries::default()
        };
        Ok(())
    }
}
