//! What is kept and what comes and goes: the response cache, worker processes, models that calls load.
//!
//! | name | unit, labels |
//! |---|---|
//! | `nv_cache_*` | the cache under Triton's names: hits, misses and their microseconds by `model`, `version` |
//! | `slipway_serve_cache_*` | the same under ours; answers that are kept, and those that made room |
//! | `slipway_serve_worker*` | processes, restarts, timeouts, crashes, lines that were not logged, by `model`, `version` |
//! | `slipway_serve_lazy_*` | loads, failures, evictions; models that are awake |
//!
//! A version that is loaded again begins anew, which Prometheus takes for a restart.
//!
//! Not here: the cache itself (`cache`), workers (the backend), lazy models (`repository::lazy`).

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use models::WorkerCounts;

use super::text::Text;
use crate::cache::{Cached, Counts};
use crate::repository::Repository;
use crate::served::Served;

/// A number about a version.
type Number<T> = fn(&T) -> u64;

/// A metric by version: its name, its kind, what it says, where it is.
type Metric<T> = (&'static str, &'static str, &'static str, Number<T>);

fn by_version<T>(text: &mut Text, rows: &[(&Arc<Served>, &T)], metrics: &[Metric<T>]) {
    for (name, kind, help, of) in metrics {
        text.family(name, kind, help);
        for (served, counts) in rows {
            let version = served.version.unwrap_or(1).to_string();
            text.sample(name, &[("model", &*served.name), ("version", version.as_str())], of(counts));
        }
    }
}

const CACHE: [Metric<Counts>; 6] = [
    ("nv_cache_num_hits_per_model", "counter", "Number of cache hits per model", |counts| {
        counts.hits.load(Relaxed)
    }),
    ("nv_cache_num_misses_per_model", "counter", "Number of cache misses per model", |counts| {
        counts.misses.load(Relaxed)
    }),
    (
        "nv_cache_hit_duration_per_model",
        "counter",
        "Total cache hit duration per model, in microseconds",
        |counts| counts.hit_ns.load(Relaxed) / 1_000,
    ),
    (
        "nv_cache_miss_duration_per_model",
        "counter",
        "Total cache miss (insert+lookup) duration per model, in microseconds",
        |counts| counts.miss_ns.load(Relaxed) / 1_000,
    ),
    (
        "slipway_serve_cache_hits_total",
        "counter",
        "Calls that were answered from the response cache.",
        |counts| counts.hits.load(Relaxed),
    ),
    (
        "slipway_serve_cache_misses_total",
        "counter",
        "Calls that the response cache had no answer to.",
        |counts| counts.misses.load(Relaxed),
    ),
];

/// The response cache, of the versions that use it.
pub(super) fn cache(text: &mut Text, all: &[Arc<Served>]) {
    let cached: Vec<(&Arc<Served>, &Cached)> =
        all.iter().filter_map(|served| Some((served, served.cached.as_ref()?))).collect();
    let Some((_, first)) = cached.first() else { return };
    // The versions of one server share one cache.
    let cache = first.cache();
    let counts: Vec<_> = cached.iter().map(|(served, cached)| (*served, cached.counts())).collect();
    by_version(text, &counts, &CACHE);
    for (name, kind, help, value) in [
        ("nv_cache_num_entries", "gauge", "Number of cached responses", cache.len() as u64),
        ("nv_cache_num_evictions", "counter", "Number of cache evictions", cache.evictions()),
        ("slipway_serve_cache_answers", "gauge", "Answers that are kept.", cache.len() as u64),
        (
            "slipway_serve_cache_evictions_total",
            "counter",
            "Answers that went because room was needed.",
            cache.evictions(),
        ),
    ] {
        text.family(name, kind, help);
        text.sample(name, &[], value);
    }
}

const WORKERS: [Metric<WorkerCounts>; 6] = [
    ("slipway_serve_workers", "gauge", "Worker processes that answer.", |counts| counts.alive),
    ("slipway_serve_worker_waiting", "gauge", "Calls that wait for a worker process.", |counts| {
        counts.waiting
    }),
    (
        "slipway_serve_worker_restarts_total",
        "counter",
        "Worker processes that ended and were started again.",
        |counts| counts.restarts,
    ),
    (
        "slipway_serve_worker_timeouts_total",
        "counter",
        "Calls that a worker did not answer in time, each of which ended it.",
        |counts| counts.timeouts,
    ),
    ("slipway_serve_worker_crashes_total", "counter", "Calls during which their worker ended.", |counts| {
        counts.crashes
    }),
    (
        "slipway_serve_worker_lines_dropped_total",
        "counter",
        "Lines that workers printed faster than they are logged.",
        |counts| counts.lines_dropped,
    ),
];

/// The worker processes of the versions that have any.
pub(super) fn workers(text: &mut Text, all: &[Arc<Served>]) {
    let counted: Vec<_> =
        all.iter().filter_map(|served| Some((served, served.backend.worker_counts()?))).collect();
    if !counted.is_empty() {
        let rows: Vec<_> = counted.iter().map(|(served, counts)| (*served, counts)).collect();
        by_version(text, &rows, &WORKERS);
    }
}

/// Models that are loaded by calls.
pub(super) fn lazy(text: &mut Text, repository: &Repository) {
    let Some(turnover) = repository.turnover() else { return };
    for (name, kind, help, value) in [
        ("loads_total", "counter", "Loads of models that a call asked for.", turnover.loads.load(Relaxed)),
        ("load_failures_total", "counter", "Such loads that failed.", turnover.failures.load(Relaxed)),
        (
            "evictions_total",
            "counter",
            "Models that went to sleep because room was needed.",
            turnover.evictions.load(Relaxed),
        ),
        (
            "awake",
            "gauge",
            "Models loaded by calls that are there, or about to be.",
            turnover.awake.load(Relaxed) as u64,
        ),
    ] {
        let name = format!("slipway_serve_lazy_{name}");
        text.family(&name, kind, help);
        text.sample(&name, &[], value);
    }
}
