//! One call of a model: tensors in, tensors out, on whichever thread it belongs.
//!
//! Short work runs where it is asked, on the event loop; longer work waits in its model's queue for the compute
//! threads, so that no client delays another. Dropping the future of [`run`] cancels the call: what has not begun
//! never begins.
//!
//! Not here: bytes (`exchange`), which version (`repository`), what runs together (`batch`).

use std::ops::Deref;
use std::sync::Arc;
use std::time::Instant;

use models::{Batch, Outputs, Tensor};

use crate::batch::{self, Ticket};
use crate::refusal::{Reason, Refusal};
use crate::served::Served;

/// Beyond this many nanoseconds, a batch leaves the event loop so that other connections go on.
pub(crate) const INLINE_NS_MAX: u64 = 300_000;

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
        self.served.pool.is_none()
            && self.served.backend.row_cost_ns().saturating_mul(self.rows as u64) <= INLINE_NS_MAX
    }

    /// Refuses a call whose deadline has passed.
    pub(crate) fn in_time(&self, now: Instant) -> Result<(), Refusal> {
        match self.deadline {
            Some(deadline) if now >= deadline => {
                Err(Refusal::new(Reason::Deadline, "the deadline passed before the evaluation began"))
            }
            _ => Ok(()),
        }
    }
}

/// Evaluates a call; `outputs` is cleared first. At once where it is short, else in its turn on the compute threads.
pub async fn run(call: Call<'_>, outputs: &mut Outputs) -> Result<(), Refusal> {
    match begin(call, outputs) {
        Begun::Done(result) => result,
        Begun::Waits(ticket) => {
            let (own, result) = ticket.await;
            *outputs = own;
            result
        }
    }
}

/// How far [`begin`] came.
pub(crate) enum Begun {
    /// To the end.
    Done(Result<(), Refusal>),
    /// Into the queue; the outputs come with the answer.
    Waits(Ticket),
}

/// Evaluates a short call on this thread; lets a long one wait for the compute threads. Never blocks.
pub(crate) fn begin(call: Call<'_>, outputs: &mut Outputs) -> Begun {
    if call.is_short()
        && let Some(_turn) = batch::turn(&call)
    {
        return Begun::Done(run_here(call, outputs));
    }
    match batch::enter(call, outputs) {
        Ok(ticket) => Begun::Waits(ticket),
        Err(refusal) => Begun::Done(Err(refusal)),
    }
}

/// Evaluates a call on this thread, however long that takes, and past its model's queue.
pub fn run_here(call: Call<'_>, outputs: &mut Outputs) -> Result<(), Refusal> {
    if call.deadline.is_some() {
        call.in_time(Instant::now())?;
    }
    outputs.clear();
    call.served.backend.run(&Batch { rows: call.rows, inputs: call.inputs }, outputs)?;
    Ok(())
}
