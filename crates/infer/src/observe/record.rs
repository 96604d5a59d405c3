//! What is known of a call after its end: a line of the access log, an entry of the flight recorder, a span.
//!
//! Not here: where records go (`access`, `flight`, `trace`).

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use codecs::json::push_text;

use super::trace::Ids;
use super::watch::nanos;
use crate::date::put_timestamp;
use crate::metrics::{Api, Entry, Phases};
use crate::refusal::Reason;

/// Bytes of a refusal's text that are kept.
const TEXT_MAX: usize = 240;

/// Which version was called, and how.
#[derive(Debug, Clone)]
pub(crate) struct Called {
    pub(crate) model: Arc<str>,
    pub(crate) version: Option<u64>,
    pub(crate) api: Api,
    pub(crate) entry: Entry,
}

/// A call that ended.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    /// Absent where no model was found.
    pub(crate) called: Option<Called>,
    /// When its body was there.
    pub(crate) arrived: SystemTime,
    pub(crate) whole: Duration,
    /// How long it waited for a thread before its body was read, in nanoseconds.
    pub(crate) waited: u64,
    pub(crate) phases: Phases,
    pub(crate) rows: usize,
    pub(crate) request_bytes: usize,
    pub(crate) reply_bytes: usize,
    /// HTTP's status, also of gRPC calls.
    pub(crate) status: u16,
    pub(crate) reason: Option<Reason>,
    /// Of the refusal; or the path, where no model was found.
    pub(crate) text: Option<Box<str>>,
    pub(crate) trace: Option<Ids>,
}

/// The beginning of a text.
pub(crate) fn shortened(text: &str) -> Box<str> {
    let mut end = text.len().min(TEXT_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].into()
}

impl Record {
    /// Appends a JSON object.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"time\":\"");
        put_timestamp(out, self.arrived);
        out.push(b'"');
        if let Some(called) = &self.called {
            put_text(out, "model", &called.model);
            if let Some(version) = called.version {
                put_text(out, "version", itoa::Buffer::new().format(version));
            }
            put_text(out, "api", called.api.word());
            put_text(out, "entrypoint", called.entry.word());
        }
        if let Some(reason) = self.reason {
            put_text(out, "reason", reason.word());
        }
        if let Some(why) = &self.text {
            put_text(out, "text", why);
        }
        if let Some(trace) = &self.trace {
            put_text(out, "trace_id", &trace.trace_text());
        }
        put_count(out, "status", u64::from(self.status));
        put_count(out, "rows", self.rows as u64);
        put_count(out, "request_bytes", self.request_bytes as u64);
        put_count(out, "reply_bytes", self.reply_bytes as u64);
        put_millis(out, "ms", nanos(self.whole));
        if self.waited > 0 {
            put_millis(out, "wait_ms", self.waited);
        }
        let Phases { parse, predict, write, explain } = self.phases;
        let phases =
            [("parse_ms", parse), ("predict_ms", predict), ("write_ms", write), ("explain_ms", explain)];
        for (name, time) in phases {
            if let Some(time) = time {
                put_millis(out, name, time);
            }
        }
        out.push(b'}');
    }
}

fn put_name(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn put_text(out: &mut Vec<u8>, name: &str, value: &str) {
    put_name(out, name);
    push_text(out, value);
}

fn put_count(out: &mut Vec<u8>, name: &str, value: u64) {
    put_name(out, name);
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Nanoseconds as milliseconds, exactly.
fn put_millis(out: &mut Vec<u8>, name: &str, value: u64) {
    put_count(out, name, value / 1_000_000);
    let mut rest = value % 1_000_000;
    if rest > 0 {
        out.push(b'.');
    }
    while rest > 0 {
        out.push(b'0' + (rest / 100_000) as u8);
        rest = rest % 100_000 * 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_json() {
        let record = Record {
            called: Some(Called {
                model: "a\"b".into(),
                version: Some(3),
                api: Api::Infer,
                entry: Entry::Grpc,
            }),
            arrived: SystemTime::UNIX_EPOCH,
            whole: Duration::from_micros(1500),
            waited: 0,
            phases: Phases { parse: Some(250_000), ..Phases::default() },
            rows: 2,
            request_bytes: 10,
            reply_bytes: 20,
            status: 400,
            reason: Some(Reason::Input),
            text: Some(shortened(&"ä".repeat(TEXT_MAX))),
            trace: None,
        };
        let mut out = Vec::new();
        record.write(&mut out);
        let read: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
        assert_eq!((&read["model"], &read["version"]), (&"a\"b".into(), &"3".into()));
        assert_eq!((read["ms"].as_f64(), read["parse_ms"].as_f64()), (Some(1.5), Some(0.25)));
        assert_eq!(read["text"].as_str().map(str::len), Some(TEXT_MAX));
        for (nanos, text) in
            [(0, "0"), (7, "0.000007"), (1_000_000, "1"), (1_500_000, "1.5"), (12_000_340, "12.00034")]
        {
            out.clear();
            put_millis(&mut out, "ms", nanos);
            assert_eq!(String::from_utf8_lossy(&out), format!(",\"ms\":{text}"));
        }
    }
}
