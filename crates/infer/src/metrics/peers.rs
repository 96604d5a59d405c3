//! The names and labels of each peer's metrics, for the models that have its manners.
//!
//! What a peer counts and we have no counterpart of (GPUs, its internal queues) is left out rather than shown as 0.
//!
//! * KServe's Python servers: `request_{preprocess,predict,explain,postprocess}_seconds` by `model_name`.
//! * TensorFlow Serving: `:tensorflow:serving:*` by `model_name`, times in microseconds.
//! * Triton: `nv_inference_*` by `model` and `version`, times in microseconds.
//! * MLServer: `model_infer_request_*` by `model` and `version`, and what its HTTP and gRPC servers count.
//!
//! Not here: this server's own (`own`).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::counts::{Api, Entry, PHASE, ROWS, Tally, Totals, WHOLE, way, ways};
use super::page::{Row, by_name};
use super::text::Text;
use crate::refusal::Reason;
use crate::served::Personality;

const SECOND: f64 = 1e9;
const MICROSECOND: f64 = 1e3;

type Models = BTreeMap<Arc<str>, Totals>;

/// Appends what the peers of these models show.
pub(super) fn write(text: &mut Text, rows: &[Row]) {
    kserve(text, &by_name(rows, Personality::Kserve));
    tensorflow(text, &by_name(rows, Personality::TfServing));
    let of = |personality| rows.iter().filter(|row| row.personality == personality).collect::<Vec<_>>();
    triton(text, &of(Personality::Triton));
    mlserver(text, &of(Personality::MlServer));
}

/// A phase of a call in the totals.
type Phase = fn(&Totals) -> &Tally<{ PHASE.len() + 1 }>;

fn kserve(text: &mut Text, models: &Models) {
    let phases: [(&str, Phase); 4] = [
        ("preprocess", |totals| &totals.parse),
        ("predict", |totals| &totals.predict),
        ("explain", |totals| &totals.explain),
        ("postprocess", |totals| &totals.write),
    ];
    for (phase, of) in phases {
        if models.is_empty() {
            return;
        }
        let name = format!("request_{phase}_seconds");
        text.family(&name, "histogram", &format!("{phase} request latency"));
        for (model, totals) in models {
            text.histogram(&name, &[("model_name", model)], &PHASE, of(totals), SECOND);
        }
    }
}

/// The canonical code that TensorFlow Serving names a refusal's status by.
fn code(reason: Reason) -> &'static str {
    match reason {
        Reason::Malformed | Reason::Input => "INVALID_ARGUMENT",
        Reason::TooLarge => "RESOURCE_EXHAUSTED",
        Reason::NotFound => "NOT_FOUND",
        Reason::NotReady | Reason::QueueFull | Reason::Shed | Reason::Draining => "UNAVAILABLE",
        Reason::Deadline => "DEADLINE_EXCEEDED",
        Reason::Cancelled => "CANCELLED",
        Reason::Unsupported => "UNIMPLEMENTED",
        Reason::Forbidden => "PERMISSION_DENIED",
        Reason::Internal => "INTERNAL",
    }
}

/// Refusals by what a peer calls them, without those that never happened.
fn refusals(totals: &Totals, word: fn(Reason) -> &'static str) -> BTreeMap<&'static str, u64> {
    let mut all = BTreeMap::new();
    for reason in Reason::ALL {
        let count = totals.failed_for(reason);
        if count > 0 {
            *all.entry(word(reason)).or_default() += count;
        }
    }
    all
}

fn tensorflow(text: &mut Text, models: &Models) {
    if models.is_empty() {
        return;
    }
    let name = ":tensorflow:serving:request_count";
    text.family(name, "counter", "");
    for (model, totals) in models {
        text.sample(name, &[("model_name", model), ("status", "OK")], totals.succeeded());
        for (status, count) in refusals(totals, code) {
            text.sample(name, &[("model_name", model), ("status", status)], count);
        }
    }
    let name = ":tensorflow:serving:request_latency";
    text.family(name, "histogram", "");
    for (model, totals) in models {
        for (api, entry) in ways() {
            let tally = &totals.whole[way(api, entry)];
            if tally.count() > 0 {
                let labels = [("model_name", &**model), ("API", api.word()), ("entrypoint", entry.word())];
                text.histogram(name, &labels, &WHOLE, tally, MICROSECOND);
            }
        }
    }
    let name = ":tensorflow:serving:runtime_latency";
    text.family(name, "histogram", "");
    for (model, totals) in models {
        for api in Api::ALL {
            let tally = &totals.runtime[api as usize];
            if tally.count() > 0 {
                let labels = [("model_name", &**model), ("API", api.word()), ("runtime", "slipway")];
                text.histogram(name, &labels, &WHOLE, tally, MICROSECOND);
            }
        }
    }
    let name = ":tensorflow:serving:request_example_counts";
    text.family(name, "histogram", "");
    for (model, totals) in models {
        text.histogram(name, &[("model", model)], &ROWS, &totals.rows, 1.0);
    }
    let name = ":tensorflow:serving:request_example_count_total";
    text.family(name, "counter", "");
    for (model, totals) in models {
        text.sample(name, &[("model", model)], totals.rows.sum);
    }
}

/// Triton's word for why a request failed.
fn failure(reason: Reason) -> &'static str {
    match reason {
        Reason::QueueFull | Reason::Shed | Reason::NotReady | Reason::Draining | Reason::Deadline => {
            "REJECTED"
        }
        Reason::Cancelled => "CANCELED",
        Reason::Internal => "BACKEND",
        Reason::Malformed
        | Reason::Input
        | Reason::TooLarge
        | Reason::NotFound
        | Reason::Unsupported
        | Reason::Forbidden => "OTHER",
    }
}

/// A number of Triton's about one version.
type Number = fn(&Row) -> u64;

fn micros<const N: usize>(tally: &Tally<N>) -> u64 {
    tally.sum / 1_000
}

fn triton(text: &mut Text, rows: &[&Row]) {
    if rows.is_empty() {
        return;
    }
    let name = "nv_inference_request_failure";
    text.family(name, "counter", "Number of failed inference requests, all batch sizes");
    for row in rows {
        let failed = refusals(&row.totals, failure);
        for reason in ["REJECTED", "CANCELED", "BACKEND", "OTHER"] {
            let labels = [("model", &*row.name), ("version", &row.version()), ("reason", reason)];
            text.sample(name, &labels, failed.get(reason).copied().unwrap_or(0));
        }
    }
    let counters: [(&str, &str, Number); 8] = [
        ("request_success", "Number of successful inference requests, all batch sizes", |row| {
            row.totals.succeeded()
        }),
        ("count", "Number of inferences performed (does not include cached requests)", |row| {
            row.totals.rows.sum
        }),
        ("exec_count", "Number of model executions performed (does not include cached requests)", |row| {
            // A batch is one execution of several calls.
            row.totals.predict.count().saturating_sub(row.queued.calls) + row.queued.batches
        }),
        ("request_duration_us", "Cumulative inference request duration in microseconds", |row| {
            row.totals.whole.iter().map(micros).sum()
        }),
        ("queue_duration_us", "Cumulative inference queuing duration in microseconds", |row| {
            row.queued.age_ns / 1_000
        }),
        ("compute_input_duration_us", "Cumulative compute input duration in microseconds", |row| {
            micros(&row.totals.parse)
        }),
        ("compute_infer_duration_us", "Cumulative compute inference duration in microseconds", |row| {
            row.totals.predict.sum.saturating_sub(row.queued.age_ns) / 1_000
        }),
        (
            "compute_output_duration_us",
            "Cumulative inference compute output duration in microseconds",
            |row| micros(&row.totals.write),
        ),
    ];
    for (name, help, of) in counters {
        numbers(text, &format!("nv_inference_{name}"), "counter", help, rows, of);
    }
    let help = "Instantaneous number of pending requests awaiting execution per-model.";
    let pending: Number = |row| row.totals.under_way();
    numbers(text, "nv_inference_pending_request_count", "gauge", help, rows, pending);
}

fn numbers(text: &mut Text, name: &str, kind: &str, help: &str, rows: &[&Row], of: Number) {
    text.family(name, kind, help);
    for row in rows {
        text.sample(name, &[("model", &*row.name), ("version", &row.version())], of(row));
    }
}

fn mlserver(text: &mut Text, rows: &[&Row]) {
    if rows.is_empty() {
        return;
    }
    let success = "model_infer_request_success_total";
    numbers(text, success, "counter", "Model infer request success count", rows, |row| {
        row.totals.succeeded()
    });
    let failure = "model_infer_request_failure_total";
    numbers(text, failure, "counter", "Model infer request failure count", rows, |row| row.totals.failed());
    let name = "model_infer_request_duration";
    text.family(name, "summary", "Model infer request duration");
    for row in rows {
        let version = row.version();
        let labels = [("model", &*row.name), ("version", version.as_str())];
        let whole = |of: fn(&Tally<{ WHOLE.len() + 1 }>) -> u64| row.totals.whole.iter().map(of).sum::<u64>();
        text.sample(&format!("{name}_count"), &labels, whole(Tally::count));
        text.sample(&format!("{name}_sum"), &labels, whole(|tally| tally.sum) as f64 / SECOND);
    }
    let mut all = Totals::default();
    rows.iter().for_each(|row| all.merge(&row.totals));
    mlserver_servers(text, &all);
}

/// What MLServer's HTTP and gRPC servers count, of calls of models.
fn mlserver_servers(text: &mut Text, all: &Totals) {
    let of = |entry: Entry| (all.answered[entry as usize], &all.refused[entry as usize]);
    let path = ("path", "/v2/models/{model_name}/infer");
    let (app, method) = (("app_name", "mlserver"), ("method", "POST"));
    let name = "rest_server_requests_total";
    text.family(name, "counter", "Total HTTP requests");
    let (answered, refused) = of(Entry::Rest);
    let mut statuses = BTreeMap::from([(200, answered)]);
    for reason in Reason::ALL {
        *statuses.entry(reason.http()).or_default() += refused[reason.index()];
    }
    for (status, count) in statuses {
        if count > 0 || status == 200 {
            text.sample(name, &[method, path, ("status_code", &status.to_string()), app], count);
        }
    }
    let name = "rest_server_request_duration_seconds";
    text.family(name, "histogram", "HTTP request duration, in seconds");
    text.histogram(name, &[method, path, app], &WHOLE, &all.whole[way(Api::Infer, Entry::Rest)], SECOND);
    let name = "rest_server_requests_in_progress";
    text.family(name, "gauge", "Total HTTP requests currently in progress");
    text.sample(name, &[method, app], all.under_way());
    let name = "grpc_server_handled_total";
    text.family(
        name,
        "counter",
        "Total number of RPCs completed on the server, regardless of success or failure.",
    );
    let (answered, refused) = of(Entry::Grpc);
    let mut codes = BTreeMap::from([("OK", answered)]);
    for reason in Reason::ALL {
        *codes.entry(code(reason)).or_default() += refused[reason.index()];
    }
    for (code, count) in codes {
        if count > 0 || code == "OK" {
            let service = ("grpc_service", "inference.GRPCInferenceService");
            let labels =
                [("grpc_type", "UNARY"), service, ("grpc_method", "ModelInfer"), ("grpc_code", code)];
            text.sample(name, &labels, count);
        }
    }
}
