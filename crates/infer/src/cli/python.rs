//! Flags of models that run in Python, in processes of their own.
//!
//! Without `--allow_python` nothing of a model is ever executed. Not here: the processes (`backend-host`).

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args};

use crate::config::{Config, Python, Source};

/// Whether and how models may run in Python.
#[derive(Debug, Clone, Args)]
#[command(rename_all = "snake_case")]
pub struct Flags {
    /// Serve what is not read natively (unknown estimators, MLflow's pyfunc, TorchScript, classes of your own) by workers
    /// of Python, which execute the code in and beside the model.
    #[arg(long = "allow_python")]
    pub allow_python: bool,
    /// The interpreter, for example of a virtual environment.
    #[arg(long, default_value = "python3", requires = "allow_python")]
    pub python: PathBuf,
    /// The class that is the model, `module:Class` in the model's folder, in the shape of KServe's `Model` or MLServer's
    /// `MLModel`.
    #[arg(long = "python_class", requires = "allow_python")]
    pub python_class: Option<String>,
    /// Worker processes of each such model.
    #[arg(long = "python_workers", default_value_t = 1)]
    pub python_workers: usize,
    /// Milliseconds that a call to a worker may take; then it is ended and started again.
    #[arg(long = "worker_timeout_ms", default_value_t = 30_000)]
    pub worker_timeout_ms: u64,
    /// Milliseconds that a worker may take to read its model.
    #[arg(long = "worker_start_timeout_ms", default_value_t = 120_000)]
    pub worker_start_timeout_ms: u64,
    /// Bytes of a call's tensors, inputs and outputs together, at most.
    #[arg(long = "worker_max_bytes", default_value_t = 1 << 30)]
    pub worker_max_bytes: u64,
    /// A variable of the environment that workers get besides the usual ones: NAME or NAME=VALUE; may be repeated.
    #[arg(long = "worker_env", action = ArgAction::Append)]
    pub worker_env: Vec<String>,
}

impl Flags {
    pub(super) fn apply(&self, config: &mut Config) -> Result<(), String> {
        if !self.allow_python {
            return Ok(());
        }
        for (flag, value) in [
            ("python_workers", self.python_workers as u64),
            ("worker_timeout_ms", self.worker_timeout_ms),
            ("worker_start_timeout_ms", self.worker_start_timeout_ms),
            ("worker_max_bytes", self.worker_max_bytes),
        ] {
            if value == 0 {
                return Err(format!("--{flag} 0: expected 1 or more"));
            }
        }
        if self.python_workers > 256 {
            return Err(format!("--python_workers {}: expected at most 256", self.python_workers));
        }
        config.python = Some(Python {
            program: self.python.clone(),
            workers: self.python_workers,
            call_timeout: Duration::from_millis(self.worker_timeout_ms),
            start_timeout: Duration::from_millis(self.worker_start_timeout_ms),
            memory_bytes_max: self.worker_max_bytes,
            env: self.worker_env.clone(),
            predictor: None,
        });
        if let Some(class) = &self.python_class {
            let Source::Fixed(models) = &mut config.models else {
                return Err(format!("--python_class {class}: it is a class for --model_dir, not for a list"));
            };
            if !class.contains([':', '.']) {
                return Err(format!("--python_class {class}: expected module:Class"));
            }
            let class = models::Class { name: class.clone(), code: None, settings: None };
            models.iter_mut().for_each(|model| model.class = Some(class.clone()));
        }
        Ok(())
    }
}
