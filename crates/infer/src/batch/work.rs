//! What the compute threads do for a queue: form a batch, evaluate it, answer, and again.
//!
//! Not here: the rule (`former`), the tensors of a batch (`run`).

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::former::{Formed, Next};
use super::seat::{Kind, Seat};
use super::{BATCHES_WAIT_MAX, Call, Inner, MARGIN, Refused, State, kick, run, set_alarm, tidy};
use crate::refusal::{Reason, Refusal};
use crate::served::Served;

/// Takes batches and runs them as long as there are any.
pub(super) fn work(served: &Arc<Served>) {
    let inner = served.queue.inner();
    loop {
        let mut state = inner.state.lock();
        let now = Instant::now();
        state.looking -= 1;
        let mut refused = tidy(served, &mut state, now);
        let formed = form(served, &mut state, now, &mut refused);
        if let Ok(formed) = &formed {
            state.busy += 1;
            let waited = formed.calls.iter().map(|call| now.saturating_duration_since(call.arrived));
            waited.for_each(|age| inner.counts.waited(age));
        }
        refused.extend(kick(served, inner, &mut state, now));
        inner.show(&state);
        drop(state);
        inner.refuse(refused);
        let Ok(formed) = formed else { return };
        let busy = Busy(inner);
        evaluate_batch(served, inner, formed);
        drop(busy);
        // Other models' work goes first: a queue that never empties must not keep a thread for itself.
        if served.is_waited_for() {
            let own = served.clone();
            if served.submit(move || work(&own)).is_ok() {
                return;
            }
        }
    }
}

/// Counts a batch down however it ends; its thread looks for the next.
struct Busy<'a>(&'a Inner);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.busy -= 1;
        state.looking += 1;
    }
}

/// The next batch without those who would be late; the error is that there is none now.
fn form(
    served: &Arc<Served>,
    state: &mut State,
    now: Instant,
    refused: &mut Refused,
) -> Result<Formed<Kind, Seat>, ()> {
    let waiting = state.former.rows();
    let rows_max = served.queue.rows_max(state);
    let mut formed = match state.former.next(now, state.busy, rows_max) {
        Next::Run(formed) => formed,
        Next::Wait(until) => {
            set_alarm(served, state, until);
            return Err(());
        }
    };
    let waited =
        formed.calls.first().map_or(Duration::ZERO, |call| now.saturating_duration_since(call.arrived));
    let time = state.cost.time(formed.filled);
    if let Some(least) = served.queue.rules.wait_max {
        state.limiter.began(waited, least.max(time.unwrap_or_default() * BATCHES_WAIT_MAX), waiting, now);
    }
    if state.former.is_empty() {
        state.limiter.emptied();
    }
    let Some(end) = time.and_then(|time| now.checked_add(time.mul_f64(MARGIN))) else { return Ok(formed) };
    let is_late = |call: &Call| call.deadline.is_some_and(|deadline| deadline < end);
    // The last one runs even so: what is expected may be wrong, and is learnt from what runs.
    let last = formed.calls.iter().filter_map(|call| call.deadline).max();
    let mut kept = Vec::with_capacity(formed.calls.len());
    for call in formed.calls {
        let is_last = call.deadline == last && !kept.iter().any(|kept: &Call| kept.deadline == last);
        if is_late(&call) && !is_last {
            let text =
                format!("model {:?}: the deadline would pass before the answer is there", &*served.name);
            formed.rows -= call.rows;
            refused.push((call, Refusal::new(Reason::Shed, text)));
        } else {
            kept.push(call);
        }
    }
    let allowed = &state.former.limits().allowed;
    formed.filled = allowed.iter().copied().find(|size| *size >= formed.rows).unwrap_or(formed.rows);
    formed.calls = kept;
    Ok(formed)
}

fn evaluate_batch(served: &Arc<Served>, inner: &Inner, formed: Formed<Kind, Seat>) {
    let Formed { mut calls, rows, filled } = formed;
    let start = Instant::now();
    let (outcomes, more) = run::run(served, &mut calls, filled);
    let time = start.elapsed();
    inner.counts.batch(rows, filled, calls.len(), time);
    if more > 0 {
        inner.counts.divided.fetch_add(1, Relaxed);
    } else if outcomes.iter().all(|(_, result)| result.is_ok()) {
        inner.state.lock().cost.ran(filled, time);
    }
    for (call, (outputs, result)) in calls.into_iter().zip(outcomes) {
        call.payload.done(outputs, result);
    }
}
