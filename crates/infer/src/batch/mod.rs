//! The queue of a model: calls wait here for a thread, run in batches, and are turned away before they are late.
//!
//! Each version of a model has one. Callers leave their tensors and a way back ([`enter`]); the compute threads take
//! batches as they become free and form each one at the last moment, so that whatever has come meanwhile is in it. The
//! rule itself is pure (`former`), as are the judgement how large a batch pays (`cost`) and how much may wait
//! (`limiter`); here they get the clock, a lock and threads.
//!
//! Nobody is kept who will get no answer in time: a call whose deadline cannot be met is refused when it comes, one
//! whose deadline passed or whose client left is dropped before it is batched.
//!
//! Models whose calls take microseconds have no use for all this and do not pay for it: their calls run where they
//! arrive (`evaluate`), and their queue is a few bytes that are never touched.
//!
//! Not here: which calls are short (`evaluate`), threads (`compute`).

mod alarm;
mod cost;
pub mod counts;
mod enter;
mod former;
mod limiter;
mod run;
mod seat;
mod work;

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use parking_lot::Mutex;

pub use counts::Counts;
pub(crate) use enter::{enter, turn};
pub(crate) use seat::Ticket;

use crate::config::{Batching, Mode, QueuePolicy, Queueing};
use crate::refusal::{Reason, Refusal};
use crate::served::Served;
use cost::Cost;
use enter::turned;
use former::{Former, Waiting};
use limiter::Limiter;
use seat::{Kind, Seat};
use work::work;

type Call = Waiting<Kind, Seat>;

/// Rows of a batch where nothing is configured; larger calls are cut, and their parts use several cores.
const ROWS_MAX: usize = 1024;
/// Batches of that size that may wait.
const BATCHES_MAX: usize = 4096;
/// Calls that may wait where each runs alone.
const CALLS_MAX: usize = 4096;
/// A queue that is being cut keeps room for so many rows.
const LIMIT_MIN: usize = 64;
/// A call is kept when so many times what it is expected to take is left to its deadline. Before it came here it waited in
/// a socket, and its answer waits for an event loop; where all CPUs are busy both take a while that nobody here sees, and
/// in a queue that is full every call is served close to its deadline: without the margin half of them were late.
const MARGIN: f64 = 1.25;
/// A queue is too long when its calls wait for so many batches, or for as long as is configured if that is longer.
const BATCHES_WAIT_MAX: u32 = 20;

/// The queue of one version of a model.
#[derive(Default)]
pub struct Queue {
    rules: Queueing,
    /// Made by the first call that waits.
    inner: OnceLock<Box<Inner>>,
    /// Callers that left since somebody looked.
    gone: AtomicUsize,
}

struct Inner {
    state: Mutex<State>,
    counts: Counts,
}

struct State {
    former: Former<Kind, Seat>,
    /// Batches that run.
    busy: usize,
    /// Threads that are about to look for a batch.
    looking: usize,
    cost: Cost,
    limiter: Limiter,
    /// When the queue will be woken.
    alarm: Option<Instant>,
}

/// Calls that are answered without an evaluation, once the lock is free.
type Refused = Vec<(Call, Refusal)>;

fn limits(mode: &Mode) -> Batching {
    let auto = Batching { rows_max: ROWS_MAX, queued_batches_max: BATCHES_MAX, ..Batching::default() };
    let policy = QueuePolicy { calls_max: Some(CALLS_MAX), ..QueuePolicy::default() };
    match mode {
        Mode::Auto => auto,
        // One batch of any size: calls run whole and alone.
        Mode::Alone => Batching { rows_max: 1 << 40, queued_batches_max: 1, policy, ..auto },
        Mode::Fixed(batching) => batching.clone(),
    }
}

impl Queue {
    /// An empty queue.
    pub fn new(rules: Queueing) -> Self {
        Self { rules, ..Self::default() }
    }

    /// What it counts; `None` where no call ever waited.
    pub fn counts(&self) -> Option<&Counts> {
        self.inner.get().map(|inner| &inner.counts)
    }

    fn inner(&self) -> &Inner {
        self.inner.get_or_init(|| {
            let limits = limits(&self.rules.mode);
            let rows_max = limits.rows_max.saturating_mul(limits.queued_batches_max);
            let state = State {
                former: Former::new(limits),
                busy: 0,
                looking: 0,
                cost: Cost::default(),
                limiter: Limiter::new(LIMIT_MIN, rows_max),
                alarm: None,
            };
            Box::new(Inner { state: Mutex::new(state), counts: Counts::default() })
        })
    }

    /// Rows that are put together now.
    fn rows_max(&self, state: &State) -> usize {
        match &self.rules.mode {
            Mode::Alone => 1,
            Mode::Fixed(_) => usize::MAX,
            Mode::Auto => {
                // A call that just misses a batch waits for it and then runs in the next: each may take half.
                let asked = state.former.first();
                let asked = asked.and_then(|call| Some(call.deadline?.duration_since(call.arrived) / 2));
                state.cost.rows(state.former.limits().rows_max, asked)
            }
        }
    }
}

impl Inner {
    fn show(&self, state: &State) {
        self.counts.queued.store(state.former.calls() as u64, Relaxed);
        self.counts.queued_rows.store(state.former.rows() as u64, Relaxed);
        self.counts.running.store(state.busy as u64, Relaxed);
        self.counts.limit.store(state.limiter.limit() as u64, Relaxed);
    }

    /// Answers calls that get no evaluation.
    fn refuse(&self, refused: Refused) {
        for (mut call, refusal) in refused {
            self.counts.refused(refusal.reason);
            let outputs = call.payload.outputs();
            call.payload.done(outputs, Err(refusal));
        }
    }
}

/// Threads that may work for one queue.
fn workers_max(served: &Served, state: &State) -> usize {
    state.former.limits().threads.min(served.threads())
}

/// Sends threads to look for batches, as many as there is work for now, and sets the alarm for what is for later.
/// Returns the calls that have to be refused because no thread can be sent.
#[must_use]
fn kick(served: &Arc<Served>, inner: &Inner, state: &mut State, now: Instant) -> Refused {
    let most = workers_max(served, state);
    while !state.former.is_empty()
        && state.looking < state.former.calls()
        && state.busy + state.looking < most
    {
        let rows_max = served.queue.rows_max(state);
        if let Err(until) = state.former.ready(now, state.busy + state.looking, rows_max) {
            set_alarm(served, state, until);
            return Vec::new();
        }
        let own = served.clone();
        if let Err(refusal) = served.submit(move || work(&own)) {
            if state.busy + state.looking > 0 {
                return Vec::new();
            }
            let all = state.former.sweep(|_| true);
            inner.show(state);
            return all.into_iter().map(|call| (call, refusal.clone())).collect();
        }
        state.looking += 1;
    }
    if !state.former.is_empty() {
        // Every thread is at work; only deadlines need a look before one is free.
        let until = state.former.ready(now, usize::MAX, 0).err().flatten();
        set_alarm(served, state, until);
    }
    Vec::new()
}

fn set_alarm(served: &Arc<Served>, state: &mut State, until: Option<Instant>) {
    let Some(until) = until else { return };
    if state.alarm.is_none_or(|alarm| until < alarm) {
        state.alarm = Some(until);
        alarm::set(until, Arc::downgrade(served));
    }
}

/// The alarm of a queue has rung.
fn wake(served: &Arc<Served>) {
    let inner = served.queue.inner();
    let mut state = inner.state.lock();
    let now = Instant::now();
    if state.alarm.is_some_and(|alarm| alarm <= now) {
        state.alarm = None;
    }
    let mut refused = tidy(served, &mut state, now);
    refused.extend(kick(served, inner, &mut state, now));
    inner.show(&state);
    drop(state);
    inner.refuse(refused);
}

fn sweep(served: &Served, state: &mut State) -> Refused {
    served.queue.gone.store(0, Relaxed);
    let gone = state.former.sweep(Seat::is_gone);
    gone.into_iter().map(|call| (call, Refusal::new(Reason::Cancelled, "the client left"))).collect()
}

/// Takes out calls that nobody waits for any more, or whose time is over.
fn tidy(served: &Served, state: &mut State, now: Instant) -> Refused {
    let mut refused = match served.queue.gone.load(Relaxed) {
        0 => Vec::new(),
        _ => sweep(served, state),
    };
    let late = state.former.expire(now);
    refused.extend(late.into_iter().map(|(call, why)| {
        let refusal = turned(served, why, state);
        (call, refusal)
    }));
    refused
}
