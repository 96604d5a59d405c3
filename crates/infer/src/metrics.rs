//! The server's metrics, under the names of KServe's Python servers.
//!
//! Each worker counts for itself, so that no two CPUs write to one cache line on the request path; a scrape
//! adds them up. Buckets are upstream's, with finer ones below its first (5 ms), where this server lives.
//!
//! Not here: logs.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::repository::Repository;

/// Upper bounds in seconds; the last bucket is unbounded.
const BOUNDS: [f64; 22] = [
    0.000_005, 0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.005, 0.01, 0.025, 0.05,
    0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];

#[derive(Debug, Default)]
pub(crate) struct Histogram {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    sum_ns: AtomicU64,
}

impl Histogram {
    pub(crate) fn observe(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let bucket = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.sum_ns.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }
}

/// What one worker counts.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Metrics {
    /// `request_preprocess_seconds`: parsing the body.
    pub(crate) preprocess: Histogram,
    /// `request_predict_seconds`: evaluating.
    pub(crate) predict: Histogram,
    /// `request_postprocess_seconds`: writing the answer.
    pub(crate) postprocess: Histogram,
    /// `slipway_serve_requests_total` by class of status: 2xx, 4xx, 5xx.
    pub(crate) answered: [AtomicU64; 3],
    /// `slipway_serve_rows_total`.
    pub(crate) rows: AtomicU64,
    /// `slipway_serve_connections`.
    pub(crate) connections: AtomicU64,
}

impl Metrics {
    pub(crate) fn predicted(&self, time: Duration, rows: usize) {
        self.predict.observe(time);
        self.rows.fetch_add(rows as u64, Relaxed);
    }

    pub(crate) fn count_answer(&self, status: u16) {
        let class = match status {
            ..400 => 0,
            400..500 => 1,
            _ => 2,
        };
        self.answered[class].fetch_add(1, Relaxed);
    }
}

/// Picks one of a worker's histograms.
type Of = fn(&Metrics) -> &Histogram;

/// Prometheus text of all workers' counts.
pub(crate) fn render(all: &[Arc<Metrics>], repository: &Repository) -> String {
    let models = repository.snapshot().models;
    let model = models.first().map_or("", |model| &model.name);
    let mut text = String::new();
    let histograms: [(&str, Of); 3] = [
        ("preprocess", |metrics| &metrics.preprocess),
        ("predict", |metrics| &metrics.predict),
        ("postprocess", |metrics| &metrics.postprocess),
    ];
    for (name, of) in histograms {
        histogram(&mut text, name, model, all, of);
    }
    let sum = |of: &dyn Fn(&Metrics) -> u64| all.iter().map(|metrics| of(metrics)).sum::<u64>();
    let _ = writeln!(text, "# HELP slipway_serve_requests_total Answered requests by class of status.");
    let _ = writeln!(text, "# TYPE slipway_serve_requests_total counter");
    for (index, class) in ["2xx", "4xx", "5xx"].into_iter().enumerate() {
        let count = sum(&|metrics| metrics.answered[index].load(Relaxed));
        let _ = writeln!(text, "slipway_serve_requests_total{{code=\"{class}\"}} {count}");
    }
    let rows = sum(&|metrics| metrics.rows.load(Relaxed));
    let _ = writeln!(text, "# HELP slipway_serve_rows_total Rows that were evaluated.");
    let _ = writeln!(text, "# TYPE slipway_serve_rows_total counter\nslipway_serve_rows_total {rows}");
    let open = sum(&|metrics| metrics.connections.load(Relaxed));
    let _ = writeln!(text, "# HELP slipway_serve_connections Open connections.");
    let _ = writeln!(text, "# TYPE slipway_serve_connections gauge\nslipway_serve_connections {open}");
    text
}

fn histogram(
    text: &mut String,
    name: &str,
    model: &str,
    all: &[Arc<Metrics>],
    of: fn(&Metrics) -> &Histogram,
) {
    let full = format!("request_{name}_seconds");
    let _ = writeln!(text, "# HELP {full} {name} request latency");
    let _ = writeln!(text, "# TYPE {full} histogram");
    let mut count = 0;
    for bucket in 0..=BOUNDS.len() {
        count += all.iter().map(|metrics| of(metrics).buckets[bucket].load(Relaxed)).sum::<u64>();
        let bound = BOUNDS.get(bucket).map_or_else(|| "+Inf".to_owned(), f64::to_string);
        let _ = writeln!(text, "{full}_bucket{{model_name=\"{model}\",le=\"{bound}\"}} {count}");
    }
    let sum = all.iter().map(|metrics| of(metrics).sum_ns.load(Relaxed)).sum::<u64>();
    let _ = writeln!(text, "{full}_count{{model_name=\"{model}\"}} {count}");
    let _ =
        writeln!(text, "{full}_sum{{model_name=\"{model}\"}} {}", Duration::from_nanos(sum).as_secs_f64());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_added_up_under_upstreams_names() {
        let all = [Arc::new(Metrics::default()), Arc::new(Metrics::default())];
        all[0].predict.observe(Duration::from_micros(30));
        all[1].predict.observe(Duration::from_secs(60));
        let text = render(&all, &Repository::of(Vec::new()));
        for line in [
            "request_predict_seconds_bucket{model_name=\"\",le=\"0.00005\"} 1",
            "request_predict_seconds_bucket{model_name=\"\",le=\"+Inf\"} 2",
            "request_predict_seconds_count{model_name=\"\"} 2",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
