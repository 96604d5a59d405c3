//! What is to be sent, and what came of it.
//!
//! Not here: sending (`drive`).

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use crate::histogram::Histogram;
use crate::schedule::Spacing;

/// The requests of a run, sent one after the other and then again from the first.
#[derive(Debug, Clone)]
pub enum Requests {
    /// Whole HTTP/1.1 requests.
    Http1(Vec<Bytes>),
    /// Messages for one gRPC method.
    Grpc {
        /// For example `/inference.GRPCInferenceService/ModelInfer`.
        path: String,
        /// What `:authority` says.
        authority: String,
        /// The messages, each with its five bytes of length before it.
        messages: Vec<Bytes>,
    },
}

impl Requests {
    /// How many different ones there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Http1(all) => all.len(),
            Self::Grpc { messages, .. } => messages.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What decides when the next request goes out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// The clock: so many a second, whatever the answers do.
    Open {
        /// Requests a second; positive.
        rate: f64,
        /// How they are spread.
        spacing: Spacing,
    },
    /// The answers: each connection always has its requests under way.
    Closed,
}

/// How a run goes. Every bound holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// What decides when requests go out.
    pub pace: Pace,
    /// How long requests go out and count.
    pub duration: Duration,
    /// How long they go out before and do not count.
    pub warmup: Duration,
    /// How long an answer may take before it is a failure.
    pub patience: Duration,
    /// Connections: as many as needed up to this when open, exactly this many when closed.
    pub connections: usize,
    /// Calls under way on one connection of gRPC; HTTP/1.1 has one.
    pub streams: usize,
    /// When an open loop is so far behind its schedule, the rest of it is not sent: the outcome is known.
    pub behind_max: Duration,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            pace: Pace::Closed,
            duration: Duration::from_secs(5),
            warmup: Duration::from_millis(500),
            patience: Duration::from_secs(10),
            connections: 64,
            streams: 32,
            behind_max: Duration::from_secs(5),
        }
    }
}

/// What came of a run; the warm-up is not in it.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Requests that were due.
    pub due: u64,
    /// Requests that were answered well.
    pub answered: u64,
    /// The others by what they came to: a status, a lost connection, no answer in time, never sent.
    pub failures: BTreeMap<String, u64>,
    /// From when a request was due to its whole good answer.
    pub latency: Histogram,
    /// From when a request was due until it was handed to the system: the generator's and the connections' share.
    pub lateness: Histogram,
    /// Seconds of the part that counts.
    pub seconds: f64,
    /// The most connections that were open.
    pub connections: usize,
    /// What the server answered first, for a person to look at.
    pub sample: Option<String>,
    /// The run was cut short because the schedule could not be kept.
    pub is_cut: bool,
}

impl Report {
    /// Good answers a second.
    pub fn rate(&self) -> f64 {
        if self.seconds > 0.0 { self.answered as f64 / self.seconds } else { 0.0 }
    }

    /// How many failed.
    pub fn failed(&self) -> u64 {
        self.failures.values().sum()
    }
}
