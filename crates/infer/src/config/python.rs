//! How models may run in Python, as the operator said.
//!
//! These are wishes: this crate starts no Python. Whoever wires the server makes an engine of them.

use std::path::PathBuf;
use std::time::Duration;

use models::Predictor;

/// How models may run in Python.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Python {
    /// The interpreter, by path or by a name on `PATH`.
    pub program: PathBuf,
    /// Processes of each model; at least 1.
    pub workers: usize,
    /// How long a call may take.
    pub call_timeout: Duration,
    /// How long reading a model may take.
    pub start_timeout: Duration,
    /// Bytes that the tensors of a call may have, inputs and outputs together.
    pub memory_bytes_max: u64,
    /// Variables that workers get besides the usual ones: `NAME` with the server's value, or `NAME=VALUE`.
    pub env: Vec<String>,
    /// Whom a class that is a transformer asks.
    pub predictor: Option<Predictor>,
}

impl Default for Python {
    fn default() -> Self {
        Self {
            program: "python3".into(),
            workers: 1,
            call_timeout: Duration::from_secs(30),
            start_timeout: Duration::from_secs(120),
            memory_bytes_max: 1 << 30,
            env: Vec::new(),
            predictor: None,
        }
    }
}
