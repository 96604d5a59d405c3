//! Spans over OTLP/HTTP, in protobuf or JSON.
//!
//! The messages have a handful of fields and are written as they are, without generated types. Each call is a span of
//! kind server, with one below it for each phase.
//!
//! Not here: which calls are sampled (`trace`).

use std::time::{Duration, UNIX_EPOCH};

use codecs::wire::{put_bytes, put_int, put_message, put_varint};
use serde_json::{Value, json};

use super::queue::{Bounds, Held, Receiver};
use super::random;
use super::record::Record;
use crate::background;

/// Calls in one message, at most.
const BATCH: usize = 256;
/// Calls whose spans wait, at most.
const WAITING_MAX: usize = 2048;

/// Where spans go and what they say of their server.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    /// The whole URL.
    pub url: String,
    /// JSON instead of protobuf.
    pub is_json: bool,
    /// Headers of each message, as `OTEL_EXPORTER_OTLP_HEADERS` has them; they may be secret.
    pub headers: Vec<(String, String)>,
    /// What the server is, as `OTEL_RESOURCE_ATTRIBUTES` has it, with `service.name`.
    pub resource: Vec<(String, String)>,
    /// How long spans wait for others to go along with.
    pub delay: Duration,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let headers: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Settings")
            .field("url", &super::without_password(&self.url))
            .field("is_json", &self.is_json)
            .field("headers", &headers)
            .field("resource", &self.resource)
            .field("delay", &self.delay)
            .finish()
    }
}

impl Settings {
    /// Of the queue of calls whose spans are to be sent.
    pub(super) fn bounds(&self) -> Bounds {
        let gather = self.delay.max(background::GATHER);
        Bounds { items_max: WAITING_MAX, bytes_max: usize::MAX, enough: BATCH, gather }
    }
}

/// Sends what comes, to the end.
pub(super) async fn run(mut records: Receiver<Record>, client: reqwest::Client, settings: Settings) {
    let mut handful = Vec::with_capacity(BATCH);
    let (losses, mut is_failing) = (records.losses(), false);
    while records.take(&mut handful).await {
        while !handful.is_empty() {
            let count = handful.len().min(BATCH);
            let sent = send(&client, &settings, &handful[..count]).await;
            handful.drain(..count);
            if let Err(why) = &sent {
                losses.add(count);
                if !is_failing {
                    tracing::warn!(%why, "spans cannot be sent; they are dropped and counted");
                }
            }
            is_failing = sent.is_err();
        }
    }
}

async fn send(client: &reqwest::Client, settings: &Settings, batch: &[Held<Record>]) -> Result<(), String> {
    let spans: Vec<Span> = batch.iter().flat_map(|record| spans(&record.item)).collect();
    let (kind, body) = match settings.is_json {
        true => ("application/json", json_body(settings, &spans)),
        false => ("application/x-protobuf", protobuf_body(settings, &spans)),
    };
    let mut request = client.post(&settings.url).header("content-type", kind).body(body);
    for (name, value) in &settings.headers {
        request = request.header(name, value);
    }
    // The error's text would repeat the URL, which may hold a password.
    let answer = request.send().await.map_err(|error| error.without_url().to_string())?;
    match answer.status() {
        status if status.is_success() => Ok(()),
        status => Err(format!("the collector answers {status}")),
    }
}

/// A value of an attribute.
#[derive(Debug, Clone, PartialEq)]
enum Attribute {
    Text(String),
    Number(u64),
}

/// A span, ready to be written.
#[derive(Debug, Clone)]
struct Span {
    trace: u128,
    id: u64,
    parent: Option<u64>,
    name: String,
    is_server: bool,
    start_ns: u64,
    end_ns: u64,
    attributes: Vec<(&'static str, Attribute)>,
    error: Option<String>,
}

const SERVER: u64 = 2;
const INTERNAL: u64 = 1;
const ERROR: u64 = 2;

impl Span {
    fn kind(&self) -> u64 {
        if self.is_server { SERVER } else { INTERNAL }
    }
}

/// The spans of a call: itself and its phases.
fn spans(record: &Record) -> Vec<Span> {
    let Some(ids) = record.trace else { return Vec::new() };
    let since = record.arrived.duration_since(UNIX_EPOCH).unwrap_or_default();
    let start = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
    let end = start + u64::try_from(record.whole.as_nanos()).unwrap_or(0);
    let mut attributes = vec![
        ("http.response.status_code", Attribute::Number(u64::from(record.status))),
        ("slipway.rows", Attribute::Number(record.rows as u64)),
        ("slipway.request.bytes", Attribute::Number(record.request_bytes as u64)),
        ("slipway.response.bytes", Attribute::Number(record.reply_bytes as u64)),
    ];
    let mut name = "call".to_owned();
    if let Some(called) = &record.called {
        name = format!("{} {}", called.api.word(), called.model);
        attributes.push(("slipway.model", Attribute::Text(called.model.to_string())));
        attributes.push(("slipway.model.version", Attribute::Number(called.version.unwrap_or(1))));
        attributes.push(("slipway.entrypoint", Attribute::Text(called.entry.word().to_owned())));
    }
    if let Some(reason) = record.reason {
        attributes.push(("error.type", Attribute::Text(reason.word().to_owned())));
    }
    let error = record.reason.map(|_| record.text.as_deref().unwrap_or_default().to_owned());
    let (trace, id) = (ids.trace, ids.span);
    let mut all = vec![Span {
        trace,
        id,
        parent: ids.parent,
        name,
        is_server: true,
        start_ns: start,
        end_ns: end,
        attributes,
        error,
    }];
    let mut at = start + record.waited;
    let phases = record.phases;
    for (name, time) in [
        ("parse", phases.parse),
        ("predict", phases.predict),
        ("write", phases.write),
        ("explain", phases.explain),
    ] {
        let Some(time) = time else { continue };
        all.push(Span {
            trace,
            id: random::word() | 1,
            parent: Some(id),
            name: name.to_owned(),
            is_server: false,
            start_ns: at,
            end_ns: at + time,
            attributes: Vec::new(),
            error: None,
        });
        at += time;
    }
    all
}

fn put_fixed64(out: &mut Vec<u8>, field: u32, number: u64) {
    put_varint(out, u64::from(field) << 3 | 1);
    out.extend_from_slice(&number.to_le_bytes());
}

fn put_attribute(out: &mut Vec<u8>, field: u32, name: &str, value: &Attribute) {
    put_message(out, field, |out| {
        put_bytes(out, 1, name.as_bytes());
        put_message(out, 2, |out| match value {
            Attribute::Text(text) => put_bytes(out, 1, text.as_bytes()),
            Attribute::Number(number) => put_int(out, 3, *number),
        });
    });
}

/// An `ExportTraceServiceRequest`.
fn protobuf_body(settings: &Settings, spans: &[Span]) -> Vec<u8> {
    let mut out = Vec::with_capacity(256 * spans.len());
    put_message(&mut out, 1, |out| {
        put_message(out, 1, |out| {
            for (name, value) in &settings.resource {
                put_attribute(out, 1, name, &Attribute::Text(value.clone()));
            }
        });
        put_message(out, 2, |out| {
            put_message(out, 1, |out| put_bytes(out, 1, b"slipway"));
            for span in spans {
                put_message(out, 2, |out| put_span(out, span));
            }
        });
    });
    out
}

fn put_span(out: &mut Vec<u8>, span: &Span) {
    put_bytes(out, 1, &span.trace.to_be_bytes());
    put_bytes(out, 2, &span.id.to_be_bytes());
    if let Some(parent) = span.parent {
        put_bytes(out, 4, &parent.to_be_bytes());
    }
    put_bytes(out, 5, span.name.as_bytes());
    put_int(out, 6, span.kind());
    put_fixed64(out, 7, span.start_ns);
    put_fixed64(out, 8, span.end_ns);
    for (name, value) in &span.attributes {
        put_attribute(out, 9, name, value);
    }
    if let Some(error) = &span.error {
        put_message(out, 15, |out| {
            put_bytes(out, 2, error.as_bytes());
            put_int(out, 3, ERROR);
        });
    }
}

/// The same in JSON, where ids are hexadecimal and times are texts.
fn json_body(settings: &Settings, spans: &[Span]) -> Vec<u8> {
    let attribute = |name: &str, value: &Attribute| match value {
        Attribute::Text(text) => json!({"key": name, "value": {"stringValue": text}}),
        Attribute::Number(number) => json!({"key": name, "value": {"intValue": number.to_string()}}),
    };
    let span = |span: &Span| {
        let attributes: Vec<Value> =
            span.attributes.iter().map(|(name, value)| attribute(name, value)).collect();
        let mut written = json!({
            "traceId": format!("{:032x}", span.trace),
            "spanId": format!("{:016x}", span.id),
            "name": span.name,
            "kind": span.kind(),
            "startTimeUnixNano": span.start_ns.to_string(),
            "endTimeUnixNano": span.end_ns.to_string(),
            "attributes": attributes,
        });
        if let Some(parent) = span.parent {
            written["parentSpanId"] = format!("{parent:016x}").into();
        }
        if let Some(error) = &span.error {
            written["status"] = json!({"code": ERROR, "message": error});
        }
        written
    };
    let resource = settings.resource.iter();
    let resource: Vec<Value> =
        resource.map(|(name, value)| attribute(name, &Attribute::Text(value.clone()))).collect();
    let spans: Vec<Value> = spans.iter().map(span).collect();
    let body = json!({"resourceSpans": [{
        "resource": {"attributes": resource},
        "scopeSpans": [{"scope": {"name": "slipway"}, "spans": spans}],
    }]});
    body.to_string().into_bytes()
}
