//! The lanes of a model that wait for a call, and the calls that wait for a lane.
//!
//! A call takes any idle lane; when none is, it waits as long as it may, unless too many wait already or no worker is
//! alive, which is refused at once.
//!
//! Not here: what is done on a lane (`hosted`), starting workers (`keeper`).

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use models::BackendError;
use parking_lot::{Condvar, Mutex};

use crate::lane::Lane;
use crate::process::Process;

/// Calls that wait for a lane, at most for each lane.
const WAITING_MAX: usize = 64;

/// A lane and the process behind it.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) lane: Lane,
    pub(crate) process: Arc<Process>,
}

#[derive(Debug, Default)]
struct State {
    idle: Vec<Line>,
    /// Lanes of processes that are alive, idle or not.
    lanes: usize,
    waiting: usize,
    /// Why the last worker ended.
    end: String,
}

/// What happened to a model's workers so far.
#[derive(Debug, Default)]
pub(crate) struct Events {
    pub(crate) restarts: AtomicU64,
    pub(crate) timeouts: AtomicU64,
    pub(crate) crashes: AtomicU64,
    pub(crate) lines_dropped: AtomicU64,
}

/// The lanes of a model.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    model: String,
    pub(crate) events: Events,
    state: Mutex<State>,
    changed: Condvar,
}

impl Pool {
    pub(crate) fn new(model: &str) -> Self {
        Self { model: model.to_owned(), ..Self::default() }
    }

    /// A worker is there.
    pub(crate) fn up(&self, lanes: Vec<Lane>, process: &Arc<Process>) {
        let mut state = self.state.lock();
        state.lanes += lanes.len();
        state.idle.extend(lanes.into_iter().map(|lane| Line { lane, process: process.clone() }));
        drop(state);
        self.changed.notify_all();
    }

    /// A worker of so many lanes has ended.
    pub(crate) fn down(&self, process: &Arc<Process>, lanes: usize, end: &str) {
        let mut state = self.state.lock();
        state.lanes = state.lanes.saturating_sub(lanes);
        state.idle.retain(|line| !Arc::ptr_eq(&line.process, process));
        end.clone_into(&mut state.end);
        drop(state);
        // Whoever waits may wait for nothing now.
        self.changed.notify_all();
    }

    /// Lanes of processes that are alive, and calls that wait for one.
    pub(crate) fn lanes_and_waiting(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.lanes, state.waiting)
    }

    /// Why there is no worker, where a start failed.
    pub(crate) fn failed(&self, end: &str) {
        end.clone_into(&mut self.state.lock().end);
    }

    /// An idle lane, or the reason why there is none until `deadline`.
    pub(crate) fn take(&self, deadline: Instant) -> Result<Line, BackendError> {
        let mut state = self.state.lock();
        loop {
            while let Some(line) = state.idle.pop() {
                if line.process.is_alive() {
                    return Ok(line);
                }
            }
            let model = &self.model;
            if state.lanes == 0 {
                let end = &state.end;
                return Err(BackendError::Unavailable(format!(
                    "model {model}: its worker is being started: {end}"
                )));
            }
            let waiting_max = WAITING_MAX * state.lanes;
            if state.waiting >= waiting_max {
                let text = format!("model {model}: {waiting_max} calls wait for its workers already");
                return Err(BackendError::Unavailable(text));
            }
            state.waiting += 1;
            let timed_out = self.changed.wait_until(&mut state, deadline).timed_out();
            state.waiting -= 1;
            if timed_out && state.idle.is_empty() {
                return Err(BackendError::Late(format!("model {model}: no worker was free in time")));
            }
        }
    }

    /// A lane is free again.
    pub(crate) fn put(&self, line: Line) {
        let mut state = self.state.lock();
        if line.process.is_alive() {
            state.idle.push(line);
        }
        drop(state);
        self.changed.notify_one();
    }
}
