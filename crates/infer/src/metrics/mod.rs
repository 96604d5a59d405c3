//! What the server counts, and how a scrape reads it.
//!
//! Each worker counts for itself, so that no two CPUs write to one cache line on the request path; a scrape adds the
//! workers up. A call is counted at a place that its model's version knows (`labels`), so that no name is hashed and
//! nothing is locked; what a worker counts of a model is allocated once, with the model's first call there.
//!
//! * `counts` is what is counted of one model, `labels` which models have a place of their own.
//! * `queues` shows what the queues of models count, `stores` what is kept and what comes and goes.
//! * `text` is Prometheus' format, `page` the whole of a scrape; `peers` are the names that KServe's, TensorFlow
//!   Serving's, Triton's and MLServer's dashboards look for, `own` those that only this server has.
//!
//! Not here: logs, and records of single calls (`observe`).

mod counts;
mod labels;
mod own;
mod page;
mod peers;
mod process;
mod queues;
mod stores;
mod text;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

pub(crate) use counts::{Api, Counts, Entry, Phases};
pub(crate) use labels::{Labels, Slot};
pub(crate) use page::render;
pub(crate) use text::KIND;

/// What one worker counts.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Metrics {
    /// Answers over HTTP and of unary gRPC calls by class of status: 2xx, 4xx, 5xx.
    answered: [AtomicU64; 3],
    /// Open connections.
    pub(crate) connections: AtomicU64,
    /// By the places of `labels`.
    models: Box<[OnceLock<Box<Counts>>]>,
}

impl Metrics {
    /// Counts for so many models, and for all others together.
    pub(crate) fn new(models_max: usize) -> Self {
        Self {
            answered: Default::default(),
            connections: AtomicU64::new(0),
            models: (0..=models_max).map(|_| OnceLock::new()).collect(),
        }
    }

    /// The counts at a place.
    pub(crate) fn of(&self, place: usize) -> &Counts {
        let place = place.min(self.models.len() - 1);
        self.models[place].get_or_init(Box::default)
    }

    /// The counts at a place, if anything was counted there.
    fn seen(&self, place: usize) -> Option<&Counts> {
        self.models.get(place)?.get().map(|counts| &**counts)
    }

    /// Counts an answer by its status.
    pub(crate) fn count_answer(&self, status: u16) {
        let class = match status {
            ..400 => 0,
            400..500 => 1,
            _ => 2,
        };
        self.answered[class].fetch_add(1, Relaxed);
    }
}
