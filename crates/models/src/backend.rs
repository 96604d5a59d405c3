//! The seam between the model server and whatever evaluates a model.
//!
//! The server knows models only as [`Backend`]s: native evaluators here, ONNX engines, and processes of their
//! own, whose tensors lie in shared memory. What every backend promises is in the trait's docs and in
//! [`crate::contract`], which each one's tests call.
//!
//! Not here: loading (`sklearn`), queues and batches (`infer`).

use crate::tensor::{DType, Outputs, Tensor};

/// What one input or output is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its name; KServe's servers call the only ones `input-0` and `output-0`.
    pub name: String,
    /// The element type.
    pub dtype: DType,
    /// Dimensions after the rows; `None` is any.
    pub row: Vec<Option<usize>>,
}

/// What a model takes and gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// The inputs: one table of numbers, or one tensor for each column.
    pub inputs: Vec<TensorSpec>,
    /// The outputs.
    pub outputs: Vec<TensorSpec>,
    /// Names of the columns of the only input, if the model knows them.
    pub columns: Vec<String>,
}

/// Rows to evaluate together. The first dimension of every tensor is `rows`.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// How many rows.
    pub rows: usize,
    /// The inputs in the order of the signature.
    pub inputs: &'a [Tensor<'a>],
}

/// Why a batch has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// The caller's mistake: shape, type or value of an input.
    #[error("{0}")]
    Input(String),
    /// The backend's fault.
    #[error("{0}")]
    Internal(String),
    /// What evaluates is not there now: its process ended and is started again, or too many wait for it.
    #[error("{0}")]
    Unavailable(String),
    /// The evaluation took longer than it may.
    #[error("{0}")]
    Late(String),
}

/// One loaded model. Calls may block: the server makes them on its compute threads.
///
/// Row `i` of every output answers row `i` of the batch; a row's answer does not depend on the rows beside it,
/// to the bit; a batch of no rows has an answer of no rows; what does not fit the signature is refused as
/// [`BackendError::Input`] and changes nothing.
pub trait Backend: Send + Sync {
    /// What the model takes and gives; fixed for the life of the value.
    fn signature(&self) -> &Signature;

    /// Roughly how many nanoseconds a row takes, so that the server can tell small batches from large ones.
    fn row_cost_ns(&self) -> u64;

    /// Runs one batch. `outputs` comes cleared; its memory is the caller's and is reused.
    fn run(&self, batch: &Batch<'_>, outputs: &mut Outputs) -> Result<(), BackendError>;

    /// How many batches run at the same time in processes of their own, where a call waits for such a process and
    /// may do so long; the server then gives the model as many threads of its own. `None` where the thread that
    /// calls does the work.
    fn workers(&self) -> Option<usize> {
        None
    }

    /// Whether the model takes whole documents of JSON as well: see [`Backend::answer_document`].
    fn takes_documents(&self) -> bool {
        false
    }

    /// Answers a document of KServe's V1 protocol with another one, where the model is code that takes such
    /// documents. The answer is appended to `answer`, which a failure leaves as it was.
    fn answer_document(&self, _document: &[u8], _answer: &mut Vec<u8>) -> Result<(), BackendError> {
        Err(BackendError::Input("the model takes tensors, not documents".into()))
    }
}
