//! One batch: the tensors of its calls side by side, one evaluation, and each call's rows of the answer.
//!
//! A call alone runs on its own tensors without a copy. A batch that the model refuses as its callers' mistake is
//! divided until the wrong call stands alone, so that no call fails for what is beside it.
//!
//! Not here: which calls (`former`), waiting and answering (`batch`).

use std::cell::RefCell;
use std::panic::AssertUnwindSafe;

use models::{BackendError, Batch, DType, Outputs, RANK_MAX, Shape, Storage, Tensor};

use super::Call;
use super::seat::Answer;
use crate::refusal::Refusal;
use crate::served::Served;

/// Bytes of a thread's buffers that are kept from batch to batch.
const KEPT_MAX: usize = 4 << 20;

/// Bytes that lie as every type of element needs.
#[derive(Default)]
struct Joined {
    words: Vec<u64>,
    len: usize,
}

impl Joined {
    fn clear(&mut self, bytes: usize) {
        self.words.clear();
        self.words.resize(bytes.div_ceil(8), 0);
        self.len = 0;
    }

    fn push(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        if end > self.words.len() * 8 {
            self.words.resize(end.div_ceil(8), 0);
        }
        bytemuck::cast_slice_mut::<u64, u8>(&mut self.words)[self.len..end].copy_from_slice(bytes);
        self.len = end;
    }

    fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.len]
    }
}

/// A thread's buffers: the joined inputs and the outputs of a batch.
#[derive(Default)]
struct Bench {
    joined: Vec<Joined>,
    outputs: Outputs,
}

thread_local! {
    static BENCH: RefCell<Bench> = RefCell::default();
}

/// What became of a call.
pub(super) type Outcome = (Outputs, Result<(), Refusal>);

/// Runs calls that stand together. Row counts and kinds are those that `former` put together. Each call's outcome, in
/// order, and into how many more evaluations the batch was divided.
pub(super) fn run(served: &Served, calls: &mut [Call], filled: usize) -> (Vec<Outcome>, usize) {
    let mut outcomes: Vec<Outcome> = calls.iter_mut().map(|call| (call.payload.outputs(), Ok(()))).collect();
    let more = BENCH.with_borrow_mut(|bench| {
        let more = part(served, calls, &mut outcomes, filled, bench);
        if bench.joined.iter().map(|joined| joined.words.capacity() * 8).sum::<usize>() > KEPT_MAX {
            *bench = Bench::default();
        }
        more
    });
    (outcomes, more)
}

fn part(
    served: &Served,
    calls: &[Call],
    outcomes: &mut [Outcome],
    filled: usize,
    bench: &mut Bench,
) -> usize {
    let rows: usize = calls.iter().map(|call| call.rows).sum();
    let tried = match (calls, &mut *outcomes) {
        ([only], [outcome]) if filled <= rows || only.kind.is_alone() => {
            guarded(|| alone(served, only, &mut outcome.0))
        }
        _ => guarded(|| together(served, calls, outcomes, filled.max(rows), bench)),
    };
    match tried {
        Ok(()) => 0,
        Err(BackendError::Input(_)) if calls.len() > 1 => {
            let middle = calls.len() / 2;
            let (calls, others) = calls.split_at(middle);
            let (first, second) = outcomes.split_at_mut(middle);
            // The halves are not filled up: that they are answered at all is what counts now.
            2 + part(served, calls, first, 0, bench) + part(served, others, second, 0, bench)
        }
        Err(error) => {
            let refusal = Refusal::from(error);
            outcomes.iter_mut().for_each(|outcome| outcome.1 = Err(refusal.clone()));
            0
        }
    }
}

/// A backend that panics fails its batch, not its thread.
fn guarded(work: impl FnOnce() -> Result<(), BackendError>) -> Result<(), BackendError> {
    std::panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        tracing::error!("an evaluation panicked");
        Err(BackendError::Internal("the evaluation failed".to_owned()))
    })
}

fn alone(served: &Served, call: &Call, outputs: &mut Outputs) -> Result<(), BackendError> {
    outputs.clear();
    let inputs = &call.payload.inputs;
    if matches!(call.payload.answer, Answer::Whole(..)) {
        return served.backend.run(&Batch { rows: call.rows, inputs }, outputs);
    }
    let parts: Option<Vec<Tensor<'_>>> =
        inputs.iter().map(|tensor| cut(tensor, call.payload.first, call.rows)).collect();
    let parts = parts.ok_or_else(|| BackendError::Internal("a call cannot be cut".to_owned()))?;
    served.backend.run(&Batch { rows: call.rows, inputs: &parts }, outputs)
}

fn cut<'t>(tensor: &'t Tensor<'static>, first: usize, rows: usize) -> Option<Tensor<'t>> {
    let bytes = rows_of(tensor, first, rows)?;
    Tensor::new(tensor.dtype(), with_rows(tensor.dims(), rows)?, Storage::Borrowed(bytes))
}

fn together(
    served: &Served,
    calls: &[Call],
    outcomes: &mut [Outcome],
    rows: usize,
    bench: &mut Bench,
) -> Result<(), BackendError> {
    let unjoined = || BackendError::Internal("the calls of a batch do not fit together".to_owned());
    let count = calls.first().map_or(0, |call| call.payload.inputs.len());
    bench.joined.resize_with(count.max(bench.joined.len()), Joined::default);
    let mut shapes = Vec::with_capacity(count);
    for (index, joined) in bench.joined.iter_mut().take(count).enumerate() {
        shapes.push(join(calls, index, rows, joined).ok_or_else(unjoined)?);
    }
    let inputs: Option<Vec<Tensor<'_>>> = shapes
        .iter()
        .zip(&bench.joined)
        .map(|((dtype, shape), joined)| Tensor::new(*dtype, *shape, Storage::Borrowed(joined.bytes())))
        .collect();
    bench.outputs.clear();
    served.backend.run(&Batch { rows, inputs: &inputs.ok_or_else(unjoined)? }, &mut bench.outputs)?;
    divide(calls, rows, &bench.outputs, outcomes)
}

/// Puts one input of all calls into a buffer; the last row is repeated up to `rows`.
fn join(calls: &[Call], index: usize, rows: usize, joined: &mut Joined) -> Option<(DType, Shape)> {
    let first = calls.first()?.payload.inputs.get(index)?;
    let mut row = [0; RANK_MAX];
    let rank = first.dims().len();
    let mut is_padded = false;
    for call in calls {
        let dims = call.payload.inputs.get(index)?.dims();
        is_padded |= dims.get(1..) != first.dims().get(1..);
        dims.iter().enumerate().for_each(|(axis, dim)| row[axis] = row[axis].max(*dim));
    }
    let shape = with_rows(&row[..rank], rows)?;
    joined.clear(shape.count().checked_mul(first.dtype().size())?);
    let mut last = 0..0;
    for call in calls {
        let tensor = call.payload.inputs.get(index)?;
        let bytes = rows_of(tensor, call.payload.first, call.rows)?;
        let start = joined.len;
        if is_padded {
            let dims = with_rows(tensor.dims(), call.rows)?;
            let fill = bytes.get(..tensor.dtype().size())?;
            pad(bytes, dims.dims(), &with_rows(&row[..rank], call.rows)?, fill, joined);
        } else {
            joined.push(bytes);
        }
        last = match tensor.dtype() {
            DType::Text => {
                let len = rows_of(tensor, call.payload.first + call.rows - 1, 1)?.len();
                joined.len - len..joined.len
            }
            _ => joined.len - (joined.len - start) / call.rows..joined.len,
        };
    }
    let have: usize = calls.iter().map(|call| call.rows).sum();
    if rows > have {
        let row = joined.bytes().get(last)?.to_vec();
        (have..rows).for_each(|_| joined.push(&row));
    }
    Some((first.dtype(), shape))
}

/// Copies a tensor into a larger shape; what is new is the tensor's first element, as in TensorFlow Serving.
fn pad(bytes: &[u8], from: &[usize], to: &Shape, fill: &[u8], out: &mut Joined) {
    fn axis(bytes: &[u8], from: &[usize], to: &[usize], fill: &[u8], out: &mut Joined) {
        let ([have, from @ ..], [want, to @ ..]) = (from, to) else { return out.push(bytes) };
        let step = bytes.len().checked_div(*have).unwrap_or(0);
        for index in 0..*have {
            axis(&bytes[index * step..(index + 1) * step], from, to, fill, out);
        }
        let new = want.saturating_sub(*have) * to.iter().product::<usize>();
        (0..new).for_each(|_| out.push(fill));
    }
    axis(bytes, from, to.dims(), fill, out);
}

/// Gives each call its rows.
fn divide(
    calls: &[Call],
    rows: usize,
    outputs: &Outputs,
    outcomes: &mut [Outcome],
) -> Result<(), BackendError> {
    let wrong = || BackendError::Internal("the answer does not have a row for each of the batch".to_owned());
    outcomes.iter_mut().for_each(|outcome| outcome.0.clear());
    for tensor in outputs.tensors() {
        if tensor.dims().first() != Some(&rows) {
            return Err(wrong());
        }
        let mut rest = tensor.bytes();
        let texts_of_row: usize = tensor.dims().iter().skip(1).product();
        for (call, (own, _)) in calls.iter().zip(outcomes.iter_mut()) {
            let len = match tensor.dtype() {
                DType::Text => texts_len(rest, call.rows * texts_of_row).ok_or_else(wrong)?,
                _ => tensor.bytes().len() / rows.max(1) * call.rows,
            };
            let (bytes, after) = rest.split_at_checked(len).ok_or_else(wrong)?;
            rest = after;
            let shape = with_rows(tensor.dims(), call.rows).ok_or_else(wrong)?;
            if !own.bytes(tensor.dtype(), shape, bytes) {
                return Err(wrong());
            }
        }
    }
    Ok(())
}

fn with_rows(dims: &[usize], rows: usize) -> Option<Shape> {
    let mut all = [0; RANK_MAX];
    let own = all.get_mut(..dims.len())?;
    own.copy_from_slice(dims);
    *own.first_mut()? = rows;
    Shape::new(own)
}

/// The bytes of some rows of a tensor.
fn rows_of<'t>(tensor: &'t Tensor<'_>, first: usize, rows: usize) -> Option<&'t [u8]> {
    let bytes = tensor.bytes();
    let all = *tensor.dims().first()?;
    if first == 0 && rows == all {
        return Some(bytes);
    }
    if tensor.dtype() == DType::Text {
        let texts: usize = tensor.dims().iter().skip(1).product();
        let start = texts_len(bytes, first * texts)?;
        let len = texts_len(&bytes[start..], rows * texts)?;
        return bytes.get(start..start + len);
    }
    let row = bytes.len() / all.max(1);
    bytes.get(first * row..(first + rows) * row)
}

/// Bytes of so many texts.
fn texts_len(bytes: &[u8], texts: usize) -> Option<usize> {
    let mut end = 0_usize;
    for _ in 0..texts {
        let head = bytes.get(end..)?.first_chunk::<4>()?;
        end = end.checked_add(4)?.checked_add(u32::from_le_bytes(*head) as usize)?;
    }
    (end <= bytes.len()).then_some(end)
}
