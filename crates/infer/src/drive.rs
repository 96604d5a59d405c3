//! One call from body to reply: parse, evaluate, write, each on the thread it belongs to.
//!
//! A small body of a quick model is done where it arrives, without a pause. A large body is parsed and answered on a
//! compute thread, with the protocol's buffers taken along; its evaluation is in between where it is quick, else it
//! waits in the model's queue like any other.
//!
//! Not here: sockets (`connection`), what bodies mean (`exchange::Protocol`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use models::Outputs;

use crate::cache;
use crate::evaluate::{self, Begun, Call};
use crate::exchange::{Asked, Message, Protocol, Reply};
use crate::http::Meta;
use crate::metrics::Metrics;
use crate::observe::{Answered, Marks, Outcome, Tags, Watch};
use crate::refusal::{Reason, Refusal};
use crate::served::{Personality, Served};
use crate::shared::Shared;

/// Beyond this many bytes, even parsing leaves the event loop.
pub(crate) const INLINE_BYTES_MAX: usize = 64 << 10;

/// A call that took no longer is quick.
const QUICK: Duration = Duration::from_micros(20);

/// A body, where it lies.
#[derive(Clone)]
pub(crate) enum Body<'a> {
    /// In the connection's buffer.
    Small(&'a [u8]),
    /// In memory of its own.
    Large(Bytes),
}

impl std::ops::Deref for Body<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Small(body) => body,
            Self::Large(body) => body,
        }
    }
}

/// What a call uses besides its protocol; it goes along to a compute thread and comes back.
pub(crate) struct Desk<'a> {
    pub(crate) outputs: &'a mut Outputs,
    pub(crate) reply: &'a mut Reply,
    pub(crate) metrics: &'a Arc<Metrics>,
    pub(crate) shared: &'a Shared,
    /// What is logged with the call's payloads, where they are logged.
    pub(crate) tags: Option<Box<Tags>>,
}

/// Answers a call and says when it passed which point; the reply is complete afterwards, whatever happened.
pub(crate) async fn call<P: Protocol>(
    protocol: &mut P,
    served: &Arc<Served>,
    body: Body<'_>,
    meta: &Meta,
    desk: Desk<'_>,
) -> Marks {
    desk.reply.clear();
    let meta = &Meta { timeout: meta.timeout.or(desk.shared.timeout), ..*meta };
    let shared = desk.shared;
    let watch = Watch::begin(shared, desk.metrics, served, protocol.way(), body.len());
    let mut watch = watch.of(meta.timeout, meta.parent);
    let shadow = shared.slot(served).shadow;
    // A copy of a slice, or of a count.
    let kept = (shadow.is_some() || desk.tags.is_some()).then(|| body.clone());
    let marks = &mut watch.marks;
    let done = match body {
        Body::Small(body) => small(protocol, served, body, meta, desk.outputs, desk.reply, marks).await,
        Body::Large(body) => large(protocol, served, body, meta, desk.outputs, desk.reply, marks).await,
    };
    if let Err(refusal) = &done {
        refuse(protocol, Some(served), refusal, desk.reply);
        let upstream = shared.upstream_codes && served.personality == Personality::Kserve;
        if upstream && refusal.reason == Reason::Input {
            desk.reply.status = 500;
        }
    }
    let phases = watch.end(Outcome {
        status: desk.reply.status,
        reason: desk.reply.reason,
        text: done.as_ref().err().map_or("", |refusal| &refusal.text),
        reply_bytes: desk.reply.body.len(),
    });
    if let Some(body) = kept {
        let arrived = watch.marks.arrived;
        let (outputs, reply) = (&*desk.outputs, &*desk.reply);
        shared.observe.log(desk.tags, arrived, &body, reply);
        if let (Some(shadows), Some(at), Some(predict)) = (&shared.observe.shadows, shadow, phases.predict) {
            shadows.copy(at, &Answered { protocol, body: &body, meta, outputs, predict });
        }
    }
    shared.observe.dress(shared.slot(served), phases, desk.reply);
    watch.marks
}

/// Whether an answered call took so little that its answer can wait for others.
pub(crate) fn was_quick(marks: &Marks) -> bool {
    marks.written.is_some_and(|written| written.saturating_duration_since(marks.arrived) <= QUICK)
}

/// Writes a refusal with its code, its reason and when to come back.
pub(crate) fn refuse<P: Protocol>(
    protocol: &mut P,
    served: Option<&Served>,
    refusal: &Refusal,
    reply: &mut Reply,
) {
    reply.clear();
    reply.status = refusal.http();
    reply.reason = Some(refusal.reason);
    if !matches!(refusal.reason, Reason::Malformed | Reason::Input) {
        reply.header("slipway-reason", refusal.reason.word());
    }
    if let Some(after) = refusal.retry_after {
        reply.header("retry-after", itoa::Buffer::new().format(after.as_secs().max(1)));
    }
    protocol.refuse(served, refusal, reply);
}

/// The nearer of what the body and the headers ask for.
fn deadline(asked: &Asked, meta: &Meta, start: Instant) -> Option<Instant> {
    let nearer = match (asked.timeout, meta.timeout) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    };
    // What overflows the clock is no deadline.
    nearer.and_then(|timeout: Duration| start.checked_add(timeout))
}

async fn small<P: Protocol>(
    protocol: &mut P,
    served: &Arc<Served>,
    body: &[u8],
    meta: &Meta,
    outputs: &mut Outputs,
    reply: &mut Reply,
    marks: &mut Marks,
) -> Result<(), Refusal> {
    let other = choose(protocol, served, body)?;
    let served = other.as_ref().unwrap_or(served);
    let asked = protocol.parse(served, Message { body, meta });
    marks.parsed = Some(Instant::now());
    let asked = asked?;
    marks.rows = asked.rows;
    evaluate_on_loop(protocol, served, body, &asked, deadline(&asked, meta, marks.arrived), outputs).await?;
    marks.evaluated = Some(Instant::now());
    protocol.write(served, body, outputs, reply)?;
    marks.written = Some(Instant::now());
    Ok(())
}

/// The signature that the body asks for, where there is a choice and it is not the default one.
pub(crate) fn choose<P: Protocol>(
    protocol: &P,
    served: &Served,
    body: &[u8],
) -> Result<Option<Arc<Served>>, Refusal> {
    if served.has_others() { protocol.choose(served, body) } else { Ok(None) }
}

async fn evaluate_on_loop<P: Protocol>(
    protocol: &P,
    served: &Arc<Served>,
    body: &[u8],
    asked: &Asked,
    deadline: Option<Instant>,
    outputs: &mut Outputs,
) -> Result<(), Refusal> {
    let inputs = protocol.inputs(served, body)?;
    let call = Call { served, rows: asked.rows, inputs: &inputs, priority: asked.priority, deadline };
    let Some(cached) = &served.cached else { return evaluate::run(call, outputs).await };
    let Some(key) = cached.answer(&call, outputs) else { return Ok(()) };
    evaluate::run(call, outputs).await?;
    cached.keep(key, outputs);
    Ok(())
}

async fn large<P: Protocol>(
    protocol: &mut P,
    served: &Arc<Served>,
    body: Bytes,
    meta: &Meta,
    outputs: &mut Outputs,
    reply: &mut Reply,
    marks: &mut Marks,
) -> Result<(), Refusal> {
    let mut job = Job {
        protocol: std::mem::take(protocol),
        outputs: std::mem::take(outputs),
        reply: std::mem::take(reply),
        served: served.clone(),
        marks: *marks,
        body,
        meta: *meta,
        key: None,
    };
    let begun = served.aside(move || {
        let begun = job.begin();
        (job, begun)
    });
    let (mut job, begun) = begun.await?;
    let result = match begun {
        Begun::Done(result) => result,
        Begun::Waits(ticket) => {
            let (outputs, result) = ticket.await;
            job.outputs = outputs;
            match result {
                Ok(()) if job.is_small() => job.finish(),
                Ok(()) => {
                    let finished = served.aside(move || {
                        let result = job.finish();
                        (job, result)
                    });
                    let (finished, result) = finished.await?;
                    job = finished;
                    result
                }
                Err(refusal) => Err(refusal),
            }
        }
    };
    (*protocol, *outputs, *reply, *marks) = (job.protocol, job.outputs, job.reply, job.marks);
    result
}

/// A large call on its way through compute threads.
struct Job<P> {
    protocol: P,
    outputs: Outputs,
    reply: Reply,
    served: Arc<Served>,
    marks: Marks,
    body: Bytes,
    meta: Meta,
    /// What its answer is kept under, where it is to be kept.
    key: Option<cache::Key>,
}

impl<P: Protocol> Job<P> {
    /// As far as it goes without waiting: to the end where the evaluation is short.
    fn begin(&mut self) -> Begun {
        match self.evaluate() {
            Ok(Begun::Done(result)) => Begun::Done(result.and_then(|()| self.finish())),
            Ok(waits) => waits,
            Err(refusal) => Begun::Done(Err(refusal)),
        }
    }

    fn evaluate(&mut self) -> Result<Begun, Refusal> {
        self.marks.began = Instant::now();
        if let Some(other) = choose(&self.protocol, &self.served, &self.body)? {
            self.served = other;
        }
        let asked = self.protocol.parse(&self.served, Message { body: &self.body, meta: &self.meta });
        self.marks.parsed = Some(Instant::now());
        let asked = asked?;
        self.marks.rows = asked.rows;
        let inputs = self.protocol.inputs(&self.served, &self.body)?;
        let deadline = deadline(&asked, &self.meta, self.marks.arrived);
        let (served, rows, priority) = (&self.served, asked.rows, asked.priority);
        let call = Call { served, rows, inputs: &inputs, priority, deadline };
        if let Some(cached) = &served.cached {
            match cached.answer(&call, &mut self.outputs) {
                None => return Ok(Begun::Done(Ok(()))),
                key => self.key = key,
            }
        }
        Ok(evaluate::begin(call, &mut self.outputs))
    }

    /// Whether writing the answer is short.
    fn is_small(&self) -> bool {
        let bytes: usize = self.outputs.tensors().iter().map(|tensor| tensor.bytes().len()).sum();
        bytes <= INLINE_BYTES_MAX / 4
    }

    fn finish(&mut self) -> Result<(), Refusal> {
        if let (Some(key), Some(cached)) = (self.key.take(), &self.served.cached) {
            cached.keep(key, &self.outputs);
        }
        self.marks.evaluated = Some(Instant::now());
        self.protocol.write(&self.served, &self.body, &self.outputs, &mut self.reply)?;
        self.marks.written = Some(Instant::now());
        Ok(())
    }
}
