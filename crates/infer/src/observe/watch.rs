//! One call, watched from its body to its answer.
//!
//! Not here: what is done with what was seen (`observe`), what is counted (`metrics`).

use std::time::{Duration, Instant};

use super::trace::Parent;
use super::{Ended, Outcome};
use crate::metrics::{Api, Counts, Entry, Metrics, Phases};
use crate::refusal::Reason;
use crate::served::{Personality, Served};
use crate::shared::Shared;

/// When a call passed which point; what it did not pass is `None`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Marks {
    /// Its body was there.
    pub(crate) arrived: Instant,
    /// Its thread took it up.
    pub(crate) began: Instant,
    /// Its body was read.
    pub(crate) parsed: Option<Instant>,
    /// It was evaluated.
    pub(crate) evaluated: Option<Instant>,
    /// Its answer was written.
    pub(crate) written: Option<Instant>,
    /// Its rows, once its body was read.
    pub(crate) rows: usize,
}

impl Marks {
    fn at(now: Instant) -> Self {
        Self { arrived: now, began: now, parsed: None, evaluated: None, written: None, rows: 0 }
    }

    /// The times between.
    pub(crate) fn phases(&self) -> Phases {
        let between =
            |from: Option<Instant>, to: Option<Instant>| Some(nanos(to?.saturating_duration_since(from?)));
        Phases {
            parse: between(Some(self.began), self.parsed),
            predict: between(self.parsed, self.evaluated),
            write: between(self.evaluated, self.written),
            explain: None,
        }
    }
}

/// As many nanoseconds as fit.
pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Counts a call however it ends, and shows it to those who look. What is dropped before its end was cancelled, or its
/// deadline passed.
pub(crate) struct Watch<'a> {
    shared: &'a Shared,
    served: &'a Served,
    counts: &'a Counts,
    way: (Api, Entry),
    request_bytes: usize,
    timeout: Option<Duration>,
    parent: Option<Parent>,
    pub(crate) marks: Marks,
    is_over: bool,
}

impl<'a> Watch<'a> {
    /// A call begins.
    pub(crate) fn begin(
        shared: &'a Shared,
        metrics: &'a Metrics,
        served: &'a Served,
        way: (Api, Entry),
        request_bytes: usize,
    ) -> Self {
        let counts = metrics.of(shared.slot(served).place);
        counts.begin();
        let marks = Marks::at(Instant::now());
        Self {
            shared,
            served,
            counts,
            way,
            request_bytes,
            timeout: None,
            parent: None,
            marks,
            is_over: false,
        }
    }

    /// After `timeout` its answer is of no use; it belongs to the trace of `parent`.
    pub(crate) fn of(mut self, timeout: Option<Duration>, parent: Option<Parent>) -> Self {
        // Not `..self`, which would copy and then drop, and so end, what was begun.
        (self.timeout, self.parent) = (timeout, parent);
        self
    }

    /// The call ends; returns its phases.
    pub(crate) fn end(&mut self, outcome: Outcome<'_>) -> Phases {
        let whole = match self.marks.written {
            Some(written) => written.saturating_duration_since(self.marks.arrived),
            None => self.marks.arrived.elapsed(),
        };
        let phases = self.marks.phases();
        self.finish(outcome, whole, phases);
        phases
    }

    /// The same for an explanation, which has one phase.
    pub(crate) fn end_explaining(&mut self, outcome: Outcome<'_>) {
        let whole = self.marks.arrived.elapsed();
        let phases = Phases { explain: Some(nanos(whole)), ..Phases::default() };
        self.finish(outcome, whole, phases);
    }

    fn finish(&mut self, outcome: Outcome<'_>, whole: Duration, phases: Phases) {
        self.is_over = true;
        self.counts.end(self.way, outcome.reason, nanos(whole), phases);
        if let Some(time) = phases.predict {
            self.counts.rows(self.marks.rows);
            // Only TensorFlow Serving's dashboards ask for it.
            if self.served.personality == Personality::TfServing {
                self.counts.runtime(self.way.0, time);
            }
        }
        self.shared.observe.ended(&Ended {
            served: self.served,
            way: self.way,
            whole,
            waited: nanos(self.marks.began.saturating_duration_since(self.marks.arrived)),
            phases,
            rows: self.marks.rows,
            request_bytes: self.request_bytes,
            parent: self.parent,
            outcome,
        });
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let whole = self.marks.arrived.elapsed();
        let is_late = self.timeout.is_some_and(|timeout| whole >= timeout);
        let (reason, text) = match is_late {
            true => (Reason::Deadline, "the deadline passed"),
            false => (Reason::Cancelled, "the client left"),
        };
        let outcome = Outcome { status: reason.http(), reason: Some(reason), text, reply_bytes: 0 };
        self.finish(outcome, whole, Phases::default());
    }
}
