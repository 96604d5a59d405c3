//! The door of a queue: what may run at once, what may wait, and what is turned away.
//!
//! Not here: what becomes of what waits (`batch`, `work`).

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use models::Outputs;
use tokio::sync::oneshot;

use super::former::{Turned, Waiting};
use super::seat::{Answer, Gather, Kind, Seat, Tensors, Ticket};
use super::{Inner, MARGIN, State, kick, sweep, workers_max};
use crate::config::Mode;
use crate::evaluate;
use crate::refusal::{Reason, Refusal};
use crate::served::Served;

/// Permission to run a short call at once, on the caller's thread.
pub(crate) struct Turn<'a>(Option<(&'a Arc<Served>, usize, Instant)>);

/// Whether a short call may run at once: always, except where the operator's batching is to be kept to and the model
/// is at work already.
pub(crate) fn turn<'a>(call: &evaluate::Call<'a>) -> Option<Turn<'a>> {
    let queue = &call.served.queue;
    let Mode::Fixed(batching) = &queue.rules.mode else { return Some(Turn(None)) };
    if call.rows == 0 {
        return Some(Turn(None));
    }
    let is_allowed = batching.allowed.is_empty() || batching.allowed.binary_search(&call.rows).is_ok();
    if call.rows > batching.rows_max || !is_allowed {
        return None;
    }
    let mut state = queue.inner().state.lock();
    let is_idle = state.former.is_empty() && state.busy == 0 && state.looking == 0;
    if !is_idle {
        return None;
    }
    state.busy = 1;
    Some(Turn(Some((call.served, call.rows, Instant::now()))))
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let Some((served, rows, start)) = self.0.take() else { return };
        let inner = served.queue.inner();
        let (now, time) = (Instant::now(), start.elapsed());
        inner.counts.batch(rows, rows, 1, time);
        let mut state = inner.state.lock();
        state.busy -= 1;
        state.cost.ran(rows, time);
        let refused = kick(served, inner, &mut state, now);
        drop(state);
        inner.refuse(refused);
    }
}

/// Lets a call wait for its evaluation. Its tensors are copied; `outputs` go along and come back with the answer.
pub(crate) fn enter(call: evaluate::Call<'_>, outputs: &mut Outputs) -> Result<Ticket, Refusal> {
    let inner = call.served.queue.inner();
    let now = Instant::now();
    let entered = admit(&call, inner, now).and_then(|rows_max| {
        let inputs = Tensors::copied(call.inputs).ok_or_else(|| {
            Refusal::new(Reason::QueueFull, "the calls that wait are too large in all; try again later")
        })?;
        Ok(place(&call, inputs, inner, now, rows_max, outputs))
    });
    if let Err(refusal) = &entered {
        inner.counts.refused(refusal.reason);
    }
    entered
}

/// The bounds of the queue; returns the rows of a part.
fn admit(call: &evaluate::Call<'_>, inner: &Inner, now: Instant) -> Result<usize, Refusal> {
    call.in_time(now)?;
    let served = call.served;
    let is_ragged = || call.inputs.iter().any(|tensor| tensor.dims().first() != Some(&call.rows));
    if served.has_rows() && is_ragged() {
        let text = format!("model {:?}: not every input has {} rows", &*served.name, call.rows);
        return Err(Refusal::new(Reason::Input, text));
    }
    let mut state = inner.state.lock();
    let mut admitted = state.former.admits(call.priority, call.rows);
    if admitted.is_err() && served.queue.gone.load(Relaxed) > 0 {
        // Whoever left makes room.
        sweep(served, &mut state);
        admitted = state.former.admits(call.priority, call.rows);
    }
    admitted.map_err(|why| turned(served, why, &state))?;
    let shed = |state: &State, why: &str| {
        let mut refusal = Refusal::new(Reason::Shed, format!("model {:?}: {why}", &*served.name));
        let after = drain(served, state, state.former.rows()).unwrap_or_default();
        refusal.retry_after = refusal.retry_after.map(|least| least.max(after));
        refusal
    };
    let is_limited =
        served.queue.rules.wait_max.is_some() && !matches!(served.queue.rules.mode, Mode::Fixed(_));
    let waiting = state.former.rows();
    if is_limited && !state.limiter.admits(waiting, call.rows) {
        return Err(shed(&state, "calls wait too long already; try again later"));
    }
    let together = served.queue.rows_max(&state);
    let expected = expected(served, &state, call.priority, call.rows, together);
    if let (Some(deadline), Some(expected)) = (call.deadline, expected)
        && deadline.saturating_duration_since(now) < expected.mul_f64(MARGIN)
    {
        return Err(shed(&state, "the deadline would pass before the answer is there"));
    }
    Ok(state.former.limits().rows_max)
}

fn place(
    call: &evaluate::Call<'_>,
    inputs: Arc<Tensors>,
    inner: &Inner,
    now: Instant,
    rows_max: usize,
    outputs: &mut Outputs,
) -> Ticket {
    let (served, pads) =
        (call.served, matches!(&call.served.queue.rules.mode, Mode::Fixed(batching) if batching.pads));
    let kind = Kind::of(served, call.inputs, pads);
    let (sender, receiver) = oneshot::channel();
    let lent = std::mem::take(outputs);
    let parts = call.rows.div_ceil(rows_max);
    let waiting = |first: usize, rows: usize, answer: Answer| Waiting {
        rows,
        kind: kind.clone(),
        level: call.priority,
        arrived: now,
        deadline: call.deadline,
        payload: Seat { inputs: inputs.clone(), first, answer },
    };
    let mut state = inner.state.lock();
    if parts <= 1 {
        state.former.push(waiting(0, call.rows, Answer::Whole(sender, lent)));
    } else {
        let gather = Gather::new(parts, call.rows, sender, lent);
        // Parts of equal size end together.
        let size = call.rows.div_ceil(parts);
        for (place, first) in (0..call.rows).step_by(size).enumerate() {
            let rows = size.min(call.rows - first);
            state.former.push(waiting(first, rows, Answer::Part(gather.clone(), place)));
        }
    }
    let refused = kick(served, inner, &mut state, now);
    inner.show(&state);
    drop(state);
    inner.refuse(refused);
    Ticket::new(served.clone(), receiver)
}

/// The refusal of a call that may not wait, or not any longer.
pub(super) fn turned(served: &Served, why: Turned, state: &State) -> Refusal {
    let name = &*served.name;
    let rows = state.former.rows();
    let (reason, text) = match why {
        Turned::Full | Turned::LevelFull => (
            Reason::QueueFull,
            format!("model {name:?}: its queue is full, {rows} rows wait; try again later"),
        ),
        Turned::TooLarge => {
            let max = state.former.limits().rows_max;
            (Reason::Input, format!("model {name:?}: a call has at most {max} rows"))
        }
        Turned::Late => {
            (Reason::Deadline, format!("model {name:?}: the deadline passed before the evaluation began"))
        }
        Turned::Overdue => (
            Reason::Deadline,
            format!("model {name:?}: the call waited longer than its queue's policy allows"),
        ),
    };
    let mut refusal = Refusal::new(reason, text);
    if let Some(after) = &mut refusal.retry_after {
        // Once what waits has run there is room.
        *after = (*after).max(drain(served, state, rows).unwrap_or_default());
    }
    refusal
}

/// How long so many rows take on all threads.
fn drain(served: &Served, state: &State, rows: usize) -> Option<Duration> {
    let limits = state.former.limits();
    let batch = state.cost.rows(limits.rows_max, None);
    let time = state.cost.time(batch)?;
    Some(time.mul_f64(rows as f64 / batch as f64 / workers_max(served, state).max(1) as f64))
}

/// How long a call that comes now takes to its answer; `None` where that is not known, or nothing is before it.
fn expected(served: &Served, state: &State, level: u32, rows: usize, together: usize) -> Option<Duration> {
    let before = state.former.rows_before(level);
    if before == 0 && state.busy == 0 {
        return None;
    }
    let batch = together.min(state.former.limits().rows_max).min((before + rows).next_power_of_two());
    let time = state.cost.time(batch)?;
    let waves = (before / batch) as f64 / workers_max(served, state).max(1) as f64;
    // What runs now is half done on average.
    let running = if state.busy >= workers_max(served, state) { 0.5 } else { 0.0 };
    Some(time.mul_f64(waves + running) + state.cost.time(batch.max(rows))?)
}
