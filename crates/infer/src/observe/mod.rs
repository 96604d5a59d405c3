//! Seeing inside: what becomes of a call besides its answer.
//!
//! Counting is done for every call (`metrics`). What is here looks at some: slow and failed ones (`flight`), a sample of
//! all (`access`, `trace` and `otlp`, `payload`), or asks another model the same (`shadow`). Nothing on a call's way
//! waits for any of it: each sink has a bounded queue (`queue`), drops what does not fit, counts that, and is emptied by a
//! thread of the lowest priority (`ship`).
//!
//! * `watch` is one call from its beginning to its end, `record` what is known of it then.
//! * `admin` are the pages of the admin's port; `profile`, `allocations`, `heap` and `logs` what they show of the
//!   process.
//!
//! Not here: counts (`metrics`), flags (`cli::observing`), settings (`config::observing`).

mod access;
pub(crate) mod admin;
mod allocations;
mod answer;
mod event;
mod flight;
mod heap;
pub mod logs;
mod otlp;
mod payload;
mod post;
mod profile;
mod queue;
mod random;
mod record;
mod shadow;
mod ship;
mod symbols;
mod trace;
mod watch;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime};

use tokio_util::sync::CancellationToken;

pub use access::Target;
pub use allocations::Allocator;
pub use otlp::Settings as Traces;
pub use payload::{Mode as PayloadMode, Settings as Payloads};
pub use shadow::Rule as Shadow;
pub use trace::Sampler;

use access::Access;
pub(crate) use event::{Letter, Tags};
use flight::Flight;
use payload::Payload;
use record::{Called, Record, shortened};
pub(crate) use shadow::{Answered, Pair, Seen};
pub(crate) use ship::check_url;
use ship::{Ship, Work};
use trace::Drawn;
pub(crate) use trace::Parent;
pub(crate) use watch::{Marks, Watch, nanos};

use crate::Error;
use crate::config::Observing;
use crate::exchange::Reply;
use crate::metrics::{Api, Entry, Phases, Slot};
use crate::refusal::{Reason, Refusal};
use crate::repository::Repository;
use crate::served::Served;

/// A URL without the name and password that it may hold.
pub(crate) fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let host = rest.find('/').unwrap_or(rest.len());
    match rest[..host].rfind('@') {
        Some(at) => format!("{scheme}://(redacted){}", &rest[at..]),
        None => url.to_owned(),
    }
}

/// Where spans go.
#[derive(Debug)]
struct Spans {
    drawn: Drawn,
    sender: queue::Sender<Record>,
}

/// Everything that a server tells besides its answers.
#[derive(Debug)]
pub(crate) struct Observe {
    slow: Duration,
    /// Answers say how long their phases took.
    server_timing: bool,
    /// Answers say which version gave them.
    model_headers: bool,
    flight: Flight,
    access: Option<Access>,
    spans: Option<Spans>,
    pub(crate) payloads: Option<payload::Payloads>,
    pub(crate) shadows: Option<shadow::Shadows>,
    ship: Option<Ship>,
}

/// A call that ended, for those who look at some.
pub(crate) struct Ended<'a> {
    pub(crate) served: &'a Served,
    pub(crate) way: (Api, Entry),
    pub(crate) whole: Duration,
    pub(crate) waited: u64,
    pub(crate) phases: Phases,
    pub(crate) rows: usize,
    pub(crate) request_bytes: usize,
    pub(crate) parent: Option<Parent>,
    pub(crate) outcome: Outcome<'a>,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Outcome<'a> {
    pub(crate) status: u16,
    pub(crate) reason: Option<Reason>,
    /// Of the refusal.
    pub(crate) text: &'a str,
    pub(crate) reply_bytes: usize,
}

impl Observe {
    /// Opens files and starts threads, as far as the settings need any.
    pub(crate) fn start(
        settings: &Observing,
        repository: &Repository,
        workers: usize,
    ) -> Result<Self, Error> {
        let failed = |what: &str, error: std::io::Error| Error::Config(format!("cannot {what}: {error}"));
        let access = match &settings.access {
            Some((target, share)) => {
                let access = Access::start(target, *share);
                Some(access.map_err(|error| failed(&format!("open the access log {target:?}"), error))?)
            }
            None => None,
        };
        let stop = CancellationToken::new();
        let mut work: Vec<Work> = Vec::new();
        let spans = match &settings.traces {
            Some(traces) => {
                let (sender, receiver) = queue::queue(traces.bounds(), stop.clone());
                let client = ship::client().map_err(Error::Config)?;
                work.push(Box::pin(otlp::run(receiver, client, traces.clone())));
                Some(Spans { drawn: Drawn::new(settings.sampler), sender })
            }
            None => None,
        };
        let payloads = match &settings.payloads {
            Some(payloads) => {
                let client = ship::client().map_err(Error::Config)?;
                let (payloads, run) = payload::Payloads::new(payloads, client, stop.clone());
                work.push(Box::pin(run));
                Some(payloads)
            }
            None => None,
        };
        let shadows = shadow::Shadows::start(&settings.shadows, repository.clone());
        Ok(Self {
            slow: settings.slow,
            server_timing: settings.server_timing,
            model_headers: settings.model_headers,
            flight: Flight::new(workers),
            access,
            spans,
            payloads,
            shadows: shadows.map_err(|error| failed("start the thread of shadows", error))?,
            ship: Ship::start("observe", stop, work)
                .map_err(|error| failed("start the thread that observes", error))?,
        })
    }

    /// Writes and sends what waits, for a few seconds at most. Blocks.
    pub(crate) fn end(&self) {
        self.access.iter().for_each(Access::end);
        self.ship.iter().for_each(Ship::end);
    }

    /// A call ended. Nearly all calls are of no interest to anybody, which is found out first.
    pub(crate) fn ended(&self, ended: &Ended<'_>) {
        let is_kept = ended.outcome.reason.is_some() || ended.whole >= self.slow;
        let is_logged = self.access.as_ref().is_some_and(Access::draw);
        let ids = self.spans.as_ref().and_then(|spans| spans.drawn.ids(ended.parent));
        if is_kept || is_logged || ids.is_some() {
            self.record(ended, ids, is_kept, is_logged);
        }
    }

    #[cold]
    fn record(&self, ended: &Ended<'_>, ids: Option<trace::Ids>, is_kept: bool, is_logged: bool) {
        let (api, entry) = ended.way;
        let now = SystemTime::now();
        let outcome = ended.outcome;
        let record = Record {
            called: Some(Called {
                model: ended.served.name.clone(),
                version: ended.served.version,
                api,
                entry,
            }),
            arrived: now.checked_sub(ended.whole).unwrap_or(now),
            whole: ended.whole,
            waited: ended.waited,
            phases: ended.phases,
            rows: ended.rows,
            request_bytes: ended.request_bytes,
            reply_bytes: outcome.reply_bytes,
            status: outcome.status,
            reason: outcome.reason,
            text: outcome.reason.map(|_| shortened(outcome.text)),
            trace: ids,
        };
        if is_logged && let Some(access) = &self.access {
            access.log(record.clone());
        }
        if ids.is_some()
            && let Some(spans) = &self.spans
        {
            spans.sender.offer(record.clone());
        }
        if is_kept {
            self.flight.keep(record);
        }
    }

    /// A request was refused before a model was found.
    pub(crate) fn lost(&self, status: u16, reason: Option<Reason>, text: &str) {
        self.flight.keep(Record {
            called: None,
            arrived: SystemTime::now(),
            whole: Duration::ZERO,
            waited: 0,
            phases: Phases::default(),
            rows: 0,
            request_bytes: 0,
            reply_bytes: 0,
            status,
            reason,
            text: Some(shortened(text)),
            trace: None,
        });
    }

    /// The same for a refusal; gives it back.
    pub(crate) fn lost_to(&self, refusal: Refusal) -> Refusal {
        self.lost(refusal.http(), Some(refusal.reason), &refusal.text);
        refusal
    }

    /// Logs a call's payloads, where it was drawn.
    pub(crate) fn log(&self, tags: Option<Box<Tags>>, arrived: Instant, request: &[u8], reply: &Reply) {
        let (Some(payloads), Some(tags)) = (&self.payloads, tags) else { return };
        let ended = SystemTime::now();
        let arrived = ended.checked_sub(arrived.elapsed()).unwrap_or(SystemTime::UNIX_EPOCH);
        let is_answered = reply.status == 200;
        payloads.log(tags, &Payload { arrived, ended, request, response: &reply.body, is_answered });
    }

    /// The headers of a version's answers that are always the same.
    pub(crate) fn headers(&self, served: &Served) -> Box<[u8]> {
        let mut reply = Reply::default();
        if self.model_headers {
            reply.header("slipway-model", &served.name);
            reply.header("slipway-model-version", itoa::Buffer::new().format(served.version.unwrap_or(1)));
        }
        reply.headers.into()
    }

    /// Adds the headers that were asked for.
    pub(crate) fn dress(&self, slot: &Slot, phases: Phases, reply: &mut Reply) {
        reply.headers.extend_from_slice(&slot.headers);
        if self.server_timing {
            timing(phases, &mut reply.headers);
        }
    }

    /// Records that found no room, by sink.
    pub(crate) fn dropped(&self) -> Vec<(&'static str, u64)> {
        let access = self.access.as_ref().map(|access| ("access_log", access.dropped()));
        let spans = self.spans.as_ref().map(|spans| ("spans", spans.sender.dropped()));
        let payloads = self.payloads.as_ref().map(|payloads| ("payloads", payloads.dropped()));
        let shadows = self.shadows.as_ref().map(|shadows| {
            let dropped = |pair: &Arc<shadow::Pair>| pair.seen.dropped.load(Relaxed);
            ("shadow", shadows.pairs.iter().map(dropped).sum())
        });
        [access, spans, payloads, shadows].into_iter().flatten().collect()
    }
}

/// `Server-Timing`, in milliseconds with three decimals.
fn timing(phases: Phases, out: &mut Vec<u8>) {
    let mut before: &[u8] = b"\r\nserver-timing: ";
    for (name, time) in [("parse", phases.parse), ("predict", phases.predict), ("write", phases.write)] {
        let Some(time) = time else { continue };
        let micros = time / 1_000;
        out.extend_from_slice(before);
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b";dur=");
        out.extend_from_slice(itoa::Buffer::new().format(micros / 1_000).as_bytes());
        let rest = micros % 1_000;
        out.extend([
            b'.',
            b'0' + (rest / 100) as u8,
            b'0' + (rest / 10 % 10) as u8,
            b'0' + (rest % 10) as u8,
        ]);
        before = b", ";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_in_urls_are_not_shown() {
        for (url, shown) in [
            ("http://h/x", "http://h/x"),
            ("http://u:p@h:1/x@y", "http://(redacted)@h:1/x@y"),
            ("https://token@h", "https://(redacted)@h"),
            ("nothing", "nothing"),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }

    #[test]
    fn timings_are_milliseconds() {
        let mut out = Vec::new();
        let phases = Phases { parse: Some(7_999), predict: Some(12_345_678), write: None, explain: None };
        timing(phases, &mut out);
        assert_eq!(out, b"\r\nserver-timing: parse;dur=0.007, predict;dur=12.345");
    }
}
