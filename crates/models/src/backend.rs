//! The seam between the model server and whatever evaluates a model.
//!
//! The server knows models only as [`Backend`]s: native evaluators here, ONNX engines, and processes of their
//! own, whose tensors lie in shared memory. What every backend promises is in the trait's docs and in
//! [`crate::contract`], which each one's tests call.
//!
//! Not here: loading (`sklearn`), queues and batches (`infer`).

use crate::entry::Entry;
use crate::tensor::{DType, Outputs, Tensor};

/// What is known of a tensor's dimensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dims {
    /// The rows, then [`TensorSpec::row`].
    #[default]
    Rows,
    /// [`TensorSpec::row`] are all: the tensor has no rows.
    Whole,
    /// Nothing: any number of dimensions of any size.
    Any,
}

/// What one input or output is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its name; KServe's servers call the only ones `input-0` and `output-0`.
    pub name: String,
    /// The element type.
    pub dtype: DType,
    /// Dimensions after the rows; `None` is any.
    pub row: Vec<Option<usize>>,
    /// Whether there are rows at all.
    pub dims: Dims,
}

impl TensorSpec {
    /// A tensor of rows.
    pub fn new(name: impl Into<String>, dtype: DType, row: impl Into<Vec<Option<usize>>>) -> Self {
        Self { name: name.into(), dtype, row: row.into(), dims: Dims::Rows }
    }

    /// All dimensions as metadata shows them: the rows and what may vary are -1. A tensor of any dimensions has none
    /// to show.
    pub fn shape(&self) -> impl Iterator<Item = i64> + Clone {
        let known = self.row.iter().map(|dim| dim.and_then(|dim| i64::try_from(dim).ok()).unwrap_or(-1));
        (self.dims == Dims::Rows).then_some(-1).into_iter().chain(known)
    }

    /// Whether a tensor may have these dimensions.
    pub fn fits(&self, dims: &[usize]) -> bool {
        let known = match (self.dims, dims) {
            (Dims::Any, _) => return true,
            (Dims::Whole, all) => all,
            (Dims::Rows, [_, rest @ ..]) => rest,
            (Dims::Rows, []) => return false,
        };
        known.len() == self.row.len()
            && known.iter().zip(&self.row).all(|(dim, own)| own.is_none_or(|own| own == *dim))
    }
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

impl Signature {
    /// Whether every tensor has rows, so that calls may be put together and cut apart. Where one has none, a call is
    /// evaluated as it came and counts as one row.
    pub fn is_batched(&self) -> bool {
        self.inputs.iter().chain(&self.outputs).all(|spec| spec.dims == Dims::Rows)
    }
}

/// Rows to evaluate together. The first dimension of every tensor is `rows`, where the signature is batched; else
/// `rows` is 1 and each tensor has its own dimensions.
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

/// What became of the processes that a model runs in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WorkerCounts {
    /// Processes that answer now.
    pub alive: u64,
    /// Calls that wait for one now.
    pub waiting: u64,
    /// Times that one ended and was started again.
    pub restarts: u64,
    /// Calls that were not answered in time, each of which ended a process.
    pub timeouts: u64,
    /// Calls whose process ended during them.
    pub crashes: u64,
    /// Lines that a process printed and nobody logged, because there were too many.
    pub lines_dropped: u64,
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

    /// Whether a row's answer does not depend on the other rows of its batch, so that rows of different calls may share one;
    /// else the server runs each call whole and alone.
    fn keeps_rows_apart(&self) -> bool {
        true
    }

    /// How many batches run at the same time in processes of their own, where a call waits for such a process and
    /// may do so long; the server then gives the model as many threads of its own. `None` where the thread that
    /// calls does the work.
    fn workers(&self) -> Option<usize> {
        None
    }

    /// What became of these processes so far, where there are any.
    fn worker_counts(&self) -> Option<WorkerCounts> {
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

    /// All signatures of a model that has them by name, the default one among them, sorted by name; fixed for the life
    /// of the value. Others have none, and [`Backend::signature`] is all there is.
    fn entries(&self) -> &[Entry] {
        &[]
    }

    /// Runs one batch of the signature at this place in [`Backend::entries`], by the rules of [`Backend::run`].
    fn run_entry(&self, entry: usize, batch: &Batch<'_>, outputs: &mut Outputs) -> Result<(), BackendError> {
        let _ = (batch, outputs);
        Err(BackendError::Internal(format!("the model has no signature {entry}")))
    }
}
