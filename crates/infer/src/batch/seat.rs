//! A call that waits: its tensors, and the way back to its caller.
//!
//! A call of more rows than a batch takes several seats, which run in any order and at the same time; its answer is put
//! together when the last one is done, or is the first refusal.
//!
//! Not here: when seats run (`former`), the tensors of a batch (`run`).

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};

use models::{DType, Outputs, Shape, Tensor};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::refusal::{Reason, Refusal};
use crate::served::Served;

/// What a caller gets back: its memory for outputs, and whether the answer is in it.
type Done = (Outputs, Result<(), Refusal>);

/// Calls of equal kind may share a batch: the types of their inputs, and their shapes without the rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Of(Arc<[(DType, Shape)]>),
    /// As no other call.
    Alone(u64),
}

impl Kind {
    /// `pads`: calls whose dimensions differ may share a batch, as long as they have as many.
    pub(super) fn of(served: &Served, inputs: &[Tensor<'_>], pads: bool) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        if !served.has_rows() {
            return Self::Alone(COUNT.fetch_add(1, Relaxed));
        }
        let kind = |tensor: &Tensor<'_>| {
            let row = tensor.dims().get(1..).unwrap_or_default();
            let zeros = [0; models::RANK_MAX];
            // Texts have no places of equal size, so they are never filled up.
            let dims = if pads && tensor.dtype() != DType::Text { &zeros[..row.len()] } else { row };
            (tensor.dtype(), Shape::new(dims).unwrap_or_else(|| unreachable!("a part of a legal shape")))
        };
        Self::Of(inputs.iter().map(kind).collect())
    }

    /// Whether the call is to run as it is.
    pub(super) fn is_alone(&self) -> bool {
        matches!(self, Self::Alone(_))
    }
}

/// Bytes of tensors that wait in all queues of the process, at most; a call that finds none waiting always fits.
const BYTES_MAX: usize = 1 << 30;
static BYTES: AtomicUsize = AtomicUsize::new(0);

/// A call's tensors, in memory of their own.
pub(super) struct Tensors {
    all: Vec<Tensor<'static>>,
    bytes: usize,
}

impl Tensors {
    /// Copies tensors; `None` where too much waits already.
    pub(super) fn copied(inputs: &[Tensor<'_>]) -> Option<Arc<Self>> {
        let bytes = inputs.iter().map(|tensor| tensor.bytes().len()).sum();
        let before = BYTES.fetch_add(bytes, Relaxed);
        // From here on the bytes are given back however it goes on.
        let mut own = Self { all: Vec::new(), bytes };
        if before > 0 && before.saturating_add(bytes) > BYTES_MAX {
            return None;
        }
        own.all.extend(inputs.iter().map(Tensor::to_static));
        Some(Arc::new(own))
    }
}

impl std::ops::Deref for Tensors {
    type Target = [Tensor<'static>];

    fn deref(&self) -> &Self::Target {
        &self.all
    }
}

impl Drop for Tensors {
    fn drop(&mut self) {
        BYTES.fetch_sub(self.bytes, Relaxed);
    }
}

/// A place in the queue.
pub(super) struct Seat {
    /// The call's tensors.
    pub(super) inputs: Arc<Tensors>,
    /// The first of the call's rows that run here.
    pub(super) first: usize,
    /// Where the answer goes.
    pub(super) answer: Answer,
}

impl Seat {
    /// Whether nobody waits for it any more.
    pub(super) fn is_gone(&self) -> bool {
        match &self.answer {
            Answer::Whole(sender, _) => sender.is_closed(),
            Answer::Part(gather, _) => gather.is_gone(),
        }
    }

    /// Answers; `outputs` are the answer where the result is one.
    pub(super) fn done(self, outputs: Outputs, result: Result<(), Refusal>) {
        match self.answer {
            Answer::Whole(sender, _) => drop(sender.send((outputs, result))),
            Answer::Part(gather, place) => gather.done(place, outputs, result),
        }
    }

    /// The memory that the caller lent for its outputs.
    pub(super) fn outputs(&mut self) -> Outputs {
        match &mut self.answer {
            Answer::Whole(_, outputs) => std::mem::take(outputs),
            Answer::Part(..) => Outputs::new(),
        }
    }
}

/// The way back.
pub(super) enum Answer {
    /// The only seat of a call.
    Whole(oneshot::Sender<Done>, Outputs),
    /// One of several.
    Part(Arc<Gather>, usize),
}

/// The parts of a call.
pub(super) struct Gather(Mutex<Parts>);

struct Parts {
    done: Vec<Option<Outputs>>,
    left: usize,
    /// Gone with the first refusal.
    sender: Option<oneshot::Sender<Done>>,
    rows: usize,
    outputs: Outputs,
}

impl Gather {
    pub(super) fn new(
        parts: usize,
        rows: usize,
        sender: oneshot::Sender<Done>,
        outputs: Outputs,
    ) -> Arc<Self> {
        let done = (0..parts).map(|_| None).collect();
        Arc::new(Self(Mutex::new(Parts { done, left: parts, sender: Some(sender), rows, outputs })))
    }

    fn is_gone(&self) -> bool {
        self.0.lock().sender.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    fn done(&self, place: usize, outputs: Outputs, result: Result<(), Refusal>) {
        let mut parts = self.0.lock();
        let Some(sender) = parts.sender.take() else { return };
        if let Err(refusal) = result {
            let outputs = std::mem::take(&mut parts.outputs);
            drop(sender.send((outputs, Err(refusal))));
            return;
        }
        parts.done[place] = Some(outputs);
        parts.left -= 1;
        if parts.left > 0 {
            parts.sender = Some(sender);
            return;
        }
        let done: Vec<Outputs> = parts.done.iter_mut().filter_map(Option::take).collect();
        let (rows, mut outputs) = (parts.rows, std::mem::take(&mut parts.outputs));
        drop(parts);
        let result = join(&done, rows, &mut outputs);
        drop(sender.send((outputs, result)));
    }
}

/// Puts the parts' outputs one after the other.
fn join(parts: &[Outputs], rows: usize, all: &mut Outputs) -> Result<(), Refusal> {
    let differ =
        || Refusal::new(Reason::Internal, "the parts of a large call have answers that differ in shape");
    all.clear();
    let count = parts.first().map_or(0, |part| part.tensors().len());
    for index in 0..count {
        let mut bytes = Vec::new();
        let mut like: Option<&Tensor<'_>> = None;
        for part in parts {
            let tensor = part.tensors().get(index).ok_or_else(differ)?;
            let first = *like.get_or_insert(tensor);
            let is_same = first.dtype() == tensor.dtype() && first.dims().get(1..) == tensor.dims().get(1..);
            if !is_same {
                return Err(differ());
            }
            bytes.extend_from_slice(tensor.bytes());
        }
        let like = like.ok_or_else(differ)?;
        let dims: Vec<usize> = std::iter::once(rows).chain(like.dims().iter().skip(1).copied()).collect();
        let shape = Shape::new(&dims).ok_or_else(differ)?;
        if !all.bytes(like.dtype(), shape, &bytes) {
            return Err(differ());
        }
    }
    Ok(())
}

/// A caller's end: a future of the outputs. Dropping it gives the call up.
pub(crate) struct Ticket {
    served: Arc<Served>,
    receiver: oneshot::Receiver<Done>,
    is_done: bool,
}

impl Ticket {
    pub(super) fn new(served: Arc<Served>, receiver: oneshot::Receiver<Done>) -> Self {
        Self { served, receiver, is_done: false }
    }
}

impl Future for Ticket {
    type Output = Done;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Done> {
        let polled = Pin::new(&mut self.receiver).poll(context);
        polled.map(|done| {
            self.is_done = true;
            // The sender is dropped without a word only when the work panicked.
            let failed = |_| (Outputs::new(), Err(Refusal::new(Reason::Internal, "the evaluation failed")));
            done.unwrap_or_else(failed)
        })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.is_done {
            self.served.queue.gone.fetch_add(1, Relaxed);
        }
    }
}
