//! The metrics that only this server has, for models of every manner: `slipway_serve_*`.
//!
//! | name | unit, labels |
//! |---|---|
//! | `requests_total` | answers by `code`: 2xx, 4xx, 5xx |
//! | `calls_total` | calls of models by `model`, `version`, `result`: `ok`, or why not |
//! | `calls_under_way` | calls by `model`, `version` |
//! | `call_seconds` | histogram by `model`, `version`, `api`, `entrypoint` |
//! | `request_rows` | histogram of rows in a request by `model`, `version` |
//! | `rows_total` | rows that were evaluated |
//! | `model_load_seconds`, `model_bytes` | by `model`, `version`: of the versions that answer, the first so many |
//! | `models` | versions by `state` |
//! | `connections` | open ones |
//! | `observations_dropped_total` | records that a full queue had no room for, by `sink` |
//!
//! Not here: the names of peers (`peers`), the process (`process`).

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use super::counts::{ROWS, WHOLE, way, ways};
use super::page::{Row, answered, over_workers};
use super::text::Text;
use crate::observe::{Pair, Seen};
use crate::refusal::Reason;
use crate::shared::Shared;

/// Appends them.
pub(super) fn write(text: &mut Text, shared: &Shared, rows: &[Row]) {
    let name = "slipway_serve_requests_total";
    text.family(name, "counter", "Answered requests by class of status.");
    for (class, count) in answered(shared) {
        text.sample(name, &[("code", class)], count);
    }
    calls(text, rows);
    let name = "slipway_serve_rows_total";
    text.family(name, "counter", "Rows that were evaluated.");
    text.sample(name, &[], rows.iter().map(|row| row.totals.rows.sum).sum::<u64>());
    models(text, shared);
    let name = "slipway_serve_observations_dropped_total";
    let dropped = shared.observe.dropped();
    if !dropped.is_empty() {
        text.family(name, "counter", "Records that a full queue had no room for, or that could not be sent.");
    }
    for (sink, count) in dropped {
        text.sample(name, &[("sink", sink)], count);
    }
    shadows(text, shared);
    let name = "slipway_serve_connections";
    text.family(name, "gauge", "Open connections.");
    text.sample(name, &[], over_workers(shared, |metrics| metrics.connections.load(Relaxed)));
}

fn calls(text: &mut Text, rows: &[Row]) {
    if rows.is_empty() {
        return;
    }
    let name = "slipway_serve_calls_total";
    text.family(name, "counter", "Calls of models by result: ok, or why there was no answer.");
    for row in rows {
        let version = row.version();
        let labels = |result| [("model", &*row.name), ("version", version.as_str()), ("result", result)];
        text.sample(name, &labels("ok"), row.totals.succeeded());
        for reason in Reason::ALL {
            let count = row.totals.failed_for(reason);
            if count > 0 {
                text.sample(name, &labels(reason.word()), count);
            }
        }
    }
    let name = "slipway_serve_calls_under_way";
    text.family(name, "gauge", "Calls of models that have begun and not ended.");
    for row in rows {
        text.sample(name, &[("model", &row.name), ("version", &row.version())], row.totals.under_way());
    }
    let name = "slipway_serve_call_seconds";
    text.family(name, "histogram", "Calls of models from body to answer.");
    for row in rows {
        for (api, entry) in ways() {
            let tally = &row.totals.whole[way(api, entry)];
            if tally.count() > 0 {
                let version = row.version();
                let (model, version) = (("model", &*row.name), ("version", version.as_str()));
                let labels = [model, version, ("api", api.word()), ("entrypoint", entry.word())];
                text.histogram(name, &labels, &WHOLE, tally, 1e9);
            }
        }
    }
    let name = "slipway_serve_request_rows";
    text.family(name, "histogram", "Rows in a request.");
    for row in rows.iter().filter(|row| row.totals.rows.count() > 0) {
        let labels = [("model", &*row.name), ("version", &row.version())];
        text.histogram(name, &labels, &ROWS, &row.totals.rows, 1.0);
    }
}

/// A number about one pair.
type Gauge = fn(&Seen) -> f64;

fn shadows(text: &mut Text, shared: &Shared) {
    let Some(shadows) = &shared.observe.shadows else { return };
    let name = "slipway_serve_shadow_calls_total";
    text.family(name, "counter", "Calls that a shadow was asked too, by what the comparison found.");
    let labels = |pair: &Pair| {
        let version = pair.rule.version.map_or_else(|| "newest".to_owned(), |version| version.to_string());
        (pair.rule.model.clone(), pair.rule.target.clone(), version)
    };
    for pair in &shadows.pairs {
        let (model, shadow, version) = labels(pair);
        let seen = &pair.seen;
        let results = [
            ("same", &seen.same),
            ("different", &seen.different),
            ("failed", &seen.failed),
            ("dropped", &seen.dropped),
        ];
        for (result, count) in results {
            let labels = [("model", &*model), ("shadow", &shadow), ("version", &version), ("result", result)];
            text.sample(name, &labels, count.load(Relaxed));
        }
    }
    let gauges: [(&str, &str, Gauge); 2] = [
        ("largest_difference", "The largest difference of two numbers so far.", Seen::largest),
        ("latency_ratio", "Time of the shadow's evaluations over that of the model's.", |seen| {
            seen.latency_ratio().unwrap_or(f64::NAN)
        }),
    ];
    for (name, help, of) in gauges {
        let name = format!("slipway_serve_shadow_{name}");
        text.family(&name, "gauge", help);
        for pair in &shadows.pairs {
            let (model, shadow, version) = labels(pair);
            let labels = [("model", &*model), ("shadow", &*shadow), ("version", &*version)];
            text.sample(&name, &labels, of(&pair.seen));
        }
    }
}

fn models(text: &mut Text, shared: &Shared) {
    let all = shared.repository.snapshot().models;
    let mut states: BTreeMap<&str, u64> = BTreeMap::new();
    let versions =
        || all.iter().flat_map(|model| model.versions.iter().map(move |version| (&model.name, version)));
    for (_, version) in versions() {
        *states.entry(version.state.word()).or_default() += 1;
    }
    let name = "slipway_serve_models";
    text.family(name, "gauge", "Versions of models by state.");
    for (state, count) in states {
        text.sample(name, &[("state", state)], count);
    }
    let answering: Vec<_> = versions()
        .filter_map(|(name, version)| Some((name, version.served.as_ref()?)))
        .take(shared.labels.max())
        .collect();
    if answering.is_empty() {
        return;
    }
    for (name, help, of) in [
        ("load_seconds", "How long loading took.", true),
        ("bytes", "Bytes of the model's files, the estimate of what it takes in memory.", false),
    ] {
        let name = format!("slipway_serve_model_{name}");
        text.family(&name, "gauge", help);
        for (model, served) in &answering {
            let version = served.version.unwrap_or(1).to_string();
            let labels = [("model", &***model), ("version", version.as_str())];
            match of {
                true => text.sample(&name, &labels, served.about.load_time.as_secs_f64()),
                false => text.sample(&name, &labels, served.about.bytes),
            }
        }
    }
}
