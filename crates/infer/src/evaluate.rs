//! One call of a model: tensors in, tensors out, on whichever thread it belongs.
//!
//! Short work runs where it is asked, on the event loop; longer work on the compute threads, so that no client
//! delays another; models with a batcher go through its queue. Dropping the future of [`run`] cancels the call:
//! what has not begun never begins.
//!
//! Not here: bytes (`exchange`), which version (`repository`).

use std::ops::Deref;
use std::sync::Arc;
use std::time::Instant;

use models::{Batch, Outputs, Tensor};

use crate::compute;
use crate::refusal::{Reason, Refusal};
use crate::served::Served;

/// Beyond this many nanoseconds, a batch leaves the event loop so that other connections go on.
const INLINE_NS_MAX: u64 = 300_000;

/// The tensors of a call, without an allocation for the usual one.
#[derive(Debug)]
pub enum Inputs<'a> {
    /// One.
    One([Tensor<'a>; 1]),
    /// Any number.
    Many(Vec<Tensor<'a>>),
}

impl<'a> Deref for Inputs<'a> {
    type Target = [Tensor<'a>];

    fn deref(&self) -> &Self::Target {
        match self {
            Self::One(one) => one,
            Self::Many(many) => many,
        }
    }
}

/// What is asked of a model.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The model.
    pub served: &'a Arc<Served>,
    /// How many rows.
    pub rows: usize,
    /// The inputs in the order of the signature; the first dimension of each is `rows`.
    pub inputs: &'a [Tensor<'a>],
    /// 1 is the most urgent, as in Triton; 0 is the model's default.
    pub priority: u32,
    /// When the answer is no use any more.
    pub deadline: Option<Instant>,
}

impl Call<'_> {
    /// Whether it is short enough to run on an event loop.
    pub fn is_short(&self) -> bool {
        self.served.backend.row_cost_ns().saturating_mul(self.rows as u64) <= INLINE_NS_MAX
    }

    fn in_time(&self) -> Result<(), Refusal> {
        match self.deadline {
            Some(deadline) if Instant::now() >= deadline => {
                Err(Refusal::new(Reason::Deadline, "the deadline passed before the evaluation began"))
            }
            _ => Ok(()),
        }
    }
}

/// Evaluates a call; `outputs` is cleared first. Inline where it is short, else on the compute threads.
pub async fn run(call: Call<'_>, outputs: &mut Outputs) -> Result<(), Refusal> {
    if call.is_short() {
        return run_here(call, outputs);
    }
    call.in_time()?;
    let served = call.served.clone();
    let inputs: Vec<Tensor<'static>> = call.inputs.iter().map(Tensor::to_static).collect();
    let (rows, priority, deadline) = (call.rows, call.priority, call.deadline);
    let mut own = std::mem::take(outputs);
    let (own, result) = compute::aside(move || {
        let call = Call { served: &served, rows, inputs: &inputs, priority, deadline };
        let result = run_here(call, &mut own);
        (own, result)
    })
    .await?;
    *outputs = own;
    result
}

/// Evaluates a call on this thread, however long that takes.
pub fn run_here(call: Call<'_>, outputs: &mut Outputs) -> Result<(), Refusal> {
    call.in_time()?;
    outputs.clear();
    call.served.backend.run(&Batch { rows: call.rows, inputs: call.inputs }, outputs)?;
    Ok(())
}
