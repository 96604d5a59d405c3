//! One connection: HTTP/1.1 messages in order, pipelined or not.
//!
//! This loop is the server's hot path and is written for it: bytes are read into one buffer, parsed in place,
//! evaluated on this thread, and answered with one write. Nothing is allocated for a usual request. What is
//! large (bodies, batches) goes to the blocking pool, so that one client's batch is not another's delay.
//!
//! Every wait has a deadline. A single timer serves them all: it is moved only when it fires early, so that a
//! request does not pay for arming one.
//!
//! Not here: what messages mean (`http`, `routes`), the number of connections (`server`).

use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use codecs::v1::write_error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, Sleep};

use crate::control;
use crate::date::Date;
use crate::document;
use crate::drive::{self, Desk, INLINE_BYTES_MAX};
use crate::events::{self, Mode};
use crate::exchange::{Kind, Reply};
use crate::grpc;
use crate::http::{Encoding, HEAD_BYTES_MAX, Head, Meta, Parsed, Verb, parse_head, write_head};
use crate::metrics::{self, Api, Entry, Metrics};
use crate::observe::{Marks, Outcome, Tags, Watch, admin};
use crate::routes::{Routed, route};
use crate::served::Served;
use crate::shared::Shared;
use crate::stop::Ear;
use crate::stream::{Rewound, Stream};
use crate::unpack::PACK_BYTES_MIN;
use crate::{buffers, compute, explain, unpack};

/// Replies that wait for one write, in bytes.
const REPLIES_MAX: usize = 64 << 10;
/// How a client begins that knows that the server speaks HTTP/2.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n";

mod body;
mod scratch;
mod wait;
mod wake;

use scratch::Scratch;
use wait::{others_first, read, within};

enum Body {
    /// In the input buffer.
    Inline(Range<usize>),
    /// Moved out of it.
    Own(Vec<u8>),
}

/// Why a connection ends.
enum End {
    /// The other side left, or the time is up.
    Quiet,
    /// Answer with this first.
    Refused(u16, &'static str),
    /// The client speaks HTTP/2.
    Http2,
    /// The client asks for more than the front does.
    Moves,
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Quiet
    }
}

struct Connection<S> {
    stream: S,
    input: Vec<u8>,
    /// What is in the input buffer and not yet used.
    start: usize,
    end: usize,
    replies: Vec<u8>,
    scratch: Scratch,
    date: Date,
    timer: Pin<Box<Sleep>>,
    /// When the request that is being read began, unless it came at once.
    since: Option<Instant>,
    /// The last message's, if it was a call.
    marks: Option<Marks>,
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
    stop: Ear,
    end_of_life: Option<Instant>,
    rights: Rights,
}

/// What a connection may ask for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rights {
    /// Load and unload calls are carried out here.
    pub(crate) is_open: bool,
    /// Whoever reaches this connection may look inside.
    pub(crate) is_admin: bool,
    /// Only what is known without a model.
    pub(crate) is_front: bool,
}

/// Serves a connection until it ends, or asks the front for more than it does: then gives it back, with what was read
/// and not answered. `begun` was read from it before.
pub(crate) async fn serve<S: Stream>(
    stream: S,
    begun: Bytes,
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
    stop: Ear,
    rights: Rights,
) -> Option<(S, Bytes)> {
    let end_of_life = shared.end_of_life();
    let mut connection = Connection {
        stream,
        input: begun.to_vec(),
        start: 0,
        end: begun.len(),
        replies: Vec::new(),
        scratch: Scratch::default(),
        date: Date::default(),
        timer: Box::pin(tokio::time::sleep(shared.config.patience.idle)),
        since: None,
        marks: None,
        shared,
        metrics,
        stop,
        end_of_life,
        rights,
    };
    match connection.messages().await {
        Err(End::Refused(status, why)) => connection.refuse(status, why).await,
        Err(End::Http2) => {
            let Connection { stream, input, start, end, shared, metrics, stop, .. } = connection;
            let is_open = rights.is_open;
            let is_local = stream.is_local();
            let stream = Rewound::new(Bytes::copy_from_slice(&input[start..end]), stream);
            drop(input);
            if is_local {
                let stream = grpc::Legal::new(stream);
                Box::pin(grpc::serve(stream, shared, metrics, stop, is_open)).await;
                return None;
            }
            // Boxed: it is large, and connections that speak HTTP/1.1 are to stay small.
            Box::pin(grpc::serve(stream, shared, metrics, stop, is_open)).await;
        }
        Err(End::Moves) => {
            let begun = Bytes::copy_from_slice(&connection.input[connection.start..connection.end]);
            return Some((connection.stream, begun));
        }
        Ok(()) | Err(End::Quiet) => {}
    }
    None
}

impl<S: Stream> Connection<S> {
    /// Says why the connection ends.
    async fn refuse(&mut self, status: u16, why: &'static str) {
        let reply = &mut self.scratch.reply;
        reply.clear();
        reply.status = status;
        write_error(&mut reply.body, why);
        self.shared.observe.lost(status, None, why);
        self.reply(true, true);
        if self.flush().await.is_ok() {
            self.linger().await;
        }
    }

    async fn messages(&mut self) -> Result<(), End> {
        loop {
            match parse_head(&self.input[self.start..self.end]) {
                Parsed::Partial => {
                    // A quick answer can wait until all that came with its call are answered, too: the code that
                    // answers and the kernel's that sends do not fit the processor's first cache together.
                    if self.marks.take().is_some_and(|marks| drive::was_quick(&marks)) {
                        others_first().await;
                    }
                    self.flush().await?;
                    if !self.read_head().await? {
                        return Ok(());
                    }
                }
                Parsed::Refused(..) if self.input[self.start..self.end].starts_with(HTTP2) => {
                    self.flush().await?;
                    return Err(End::Http2);
                }
                Parsed::Refused(status, why) => return Err(End::Refused(status, why)),
                Parsed::Head(head) => {
                    self.since = None;
                    if self.rights.is_front && !matches!(head.verb, Verb::Get | Verb::Head) {
                        self.flush().await?;
                        return Err(End::Moves);
                    }
                    let keep = self.message(&head).await?;
                    if !keep {
                        return self.flush().await.map_err(End::from);
                    }
                    if self.replies.len() > REPLIES_MAX {
                        self.flush().await?;
                    }
                }
            }
        }
    }

    /// Reads more of a head; false when the connection is over.
    async fn read_head(&mut self) -> Result<bool, End> {
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
            self.give_back();
            let idle = self.shared.config.patience.idle;
            let (stream, timer, stop) = (&self.stream, &mut self.timer, &mut self.stop);
            let arrived = tokio::select! {
                biased;
                arrived = within(timer, idle, |poller| stream.poll_arrived(poller)) => arrived?.is_some(),
                () = poll_fn(|poller| stop.poll(poller)) => false,
            };
            // Only who has something to say needs a buffer.
            self.input = buffers::take();
            if !arrived {
                return Ok(false);
            }
            let Self { timer, stream, input, end, stop, .. } = self;
            tokio::select! {
                biased;
                read = read(timer, stream, &mut input[*end..], idle) => Ok(self.has_read(read?)),
                () = poll_fn(|poller| stop.poll(poller)) => Ok(false),
            }
        } else {
            if self.start > 0 {
                self.input.copy_within(self.start..self.end, 0);
                self.end -= self.start;
                self.start = 0;
            }
            let room = (self.input.len() * 2).min(HEAD_BYTES_MAX + buffers::SIZE);
            if self.end == self.input.len() {
                self.input.resize(room, 0);
            }
            self.in_pace(self.end - self.start)?;
            self.read_more().await
        }
    }

    /// Reads once more of what has begun. The timer may be set for a longer wait, between requests.
    async fn read_more(&mut self) -> Result<bool, End> {
        let stall = self.shared.config.patience.stall;
        let until = Instant::now() + stall;
        if self.timer.deadline() > until {
            self.timer.as_mut().reset(until);
        }
        let read = read(&mut self.timer, &mut self.stream, &mut self.input[self.end..], stall).await?;
        Ok(self.has_read(read))
    }

    /// So many bytes were read; false for none.
    fn has_read(&mut self, count: usize) -> bool {
        self.end += count;
        count > 0
    }

    /// Serves one message and says whether another may follow.
    async fn message(&mut self, head: &Head) -> Result<bool, End> {
        let base = self.start;
        let path = base + head.path.start..base + head.path.end;
        let asked = std::str::from_utf8(&self.input[path.clone()]).unwrap_or("/\u{fffd}");
        self.scratch.reply.clear();
        self.marks = None;
        let query = base + head.query.start..base + head.query.end;
        let query = std::str::from_utf8(&self.input[query]).unwrap_or_default();
        let page = if self.rights.is_admin { admin::page(head.verb, asked, query) } else { None };
        let mut routed = match page {
            Some(page) => Routed::Page(page),
            None => route(head.verb, asked, &self.shared, &mut self.scratch.reply),
        };
        if let Routed::Asleep(model) = routed {
            // Boxed: it is rare, and connections are to stay small.
            routed = Box::pin(self.woken(&model, head.verb, path.clone(), head.meta.timeout)).await;
        }
        let refused = self.scratch.reply.status >= 400 && head.verb == Verb::Post;
        if refused && matches!(routed, Routed::Answered) {
            let asked = String::from_utf8_lossy(&self.input[path]);
            self.shared.observe.lost(self.scratch.reply.status, None, &asked);
        }
        let is_call = matches!(routed, Routed::Call(..));
        let payloads = self.shared.observe.payloads.as_ref().filter(|_| is_call);
        let tags = payloads.and_then(|payloads| payloads.draw(&self.input[base..base + head.len]));
        if head.meta.encoding == Encoding::Unknown && matches!(routed, Routed::Call(..)) {
            return Err(End::Refused(415, "bodies may be compressed by gzip or deflate only"));
        }
        let body = self.body(head).await?;
        match routed {
            Routed::Answered | Routed::Asleep(_) => {}
            // Boxed: as rare.
            Routed::Page(page) => {
                Box::pin(admin::show(page, &self.shared, &mut self.scratch.reply)).await;
            }
            Routed::Metrics => {
                let text = metrics::render(&self.shared);
                let reply = &mut self.scratch.reply;
                reply.body.extend_from_slice(text.as_bytes());
                reply.kind = metrics::KIND;
            }
            Routed::Call(served, kind) => self.call(&served, kind, body, &head.meta, tags).await?,
            Routed::Admin(order) => {
                let body = match &body {
                    Body::Inline(range) => &self.input[range.clone()],
                    Body::Own(body) => &body[..],
                };
                control::answer(&order, body, &self.shared, self.rights.is_open, &mut self.scratch.reply)
                    .await;
            }
        }
        self.dress(&head.meta).await?;
        let is_old = self.end_of_life.is_some_and(|end| Instant::now() >= end);
        // While a server drains its clients are sent away with each answer, so that at the end none is about to ask.
        let keep = head.keep_alive && !is_old && !self.shared.is_draining();
        self.reply(!keep, head.verb != Verb::Head);
        Ok(keep)
    }

    /// Adds what goes on every reply: a page's permission to read it, and packing where the client takes that.
    async fn dress(&mut self, meta: &Meta) -> Result<(), End> {
        let reply = &mut self.scratch.reply;
        if self.shared.cors {
            reply.header("access-control-allow-origin", "*");
            reply.header("access-control-expose-headers", "inference-header-content-length");
        }
        if !meta.takes_gzip || reply.body.len() < PACK_BYTES_MIN {
            return Ok(());
        }
        reply.header("content-encoding", "gzip");
        reply.header("vary", "accept-encoding");
        if reply.body.len() <= INLINE_BYTES_MAX {
            reply.body = unpack::pack(&reply.body);
        } else {
            let body = std::mem::take(&mut reply.body);
            let packed = compute::aside(move || unpack::pack(&body)).await;
            self.scratch.reply.body =
                packed.map_err(|_| End::Refused(503, "the server has too much to do"))?;
        }
        Ok(())
    }

    /// Calls a model in its protocol.
    async fn call(
        &mut self,
        served: &Arc<Served>,
        kind: Kind,
        body: Body,
        meta: &Meta,
        tags: Option<Box<Tags>>,
    ) -> Result<(), End> {
        let mut body = self.unpacked(body, meta).await?;
        if meta.event == Mode::Structured {
            body = self.data_of_event(body)?;
        }
        let body = match body {
            Body::Inline(range) if range.len() <= INLINE_BYTES_MAX => drive::Body::Small(&self.input[range]),
            Body::Inline(range) => drive::Body::Large(Bytes::copy_from_slice(&self.input[range])),
            Body::Own(body) => drive::Body::Large(body.into()),
        };
        let Scratch { v1, v2, tfs, outputs, reply, .. } = &mut self.scratch;
        let desk = Desk { outputs, reply, metrics: &self.metrics, shared: &self.shared, tags };
        match kind {
            Kind::V1 if served.backend.takes_documents() => document::call(served, body, meta, desk).await,
            Kind::V1 => self.marks = Some(drive::call(v1, served, body, meta, desk).await),
            Kind::Explain => {
                let body = match body {
                    drive::Body::Small(body) => Bytes::copy_from_slice(body),
                    drive::Body::Large(body) => body,
                };
                desk.reply.clear();
                let way = (Api::Explain, Entry::Rest);
                let watch = Watch::begin(desk.shared, desk.metrics, served, way, body.len());
                let mut watch = watch.of(None, meta.parent);
                let kept = desk.tags.is_some().then(|| body.clone());
                explain::answer(served, body, desk.reply).await;
                let kept = kept.unwrap_or_default();
                desk.shared.observe.log(desk.tags, watch.marks.arrived, &kept, desk.reply);
                let Reply { status, reason, body, .. } = &*desk.reply;
                // A refusal's body is its text and little else.
                let text = std::str::from_utf8(body).ok().filter(|_| reason.is_some()).unwrap_or_default();
                let (status, reason, reply_bytes) = (*status, *reason, body.len());
                watch.end_explaining(Outcome { status, reason, text, reply_bytes });
            }
            Kind::V2 => self.marks = Some(drive::call(v2, served, body, meta, desk).await),
            Kind::Tfs(call) => {
                tfs.begin(call);
                self.marks = Some(drive::call(tfs, served, body, meta, desk).await);
            }
        }
        if self.scratch.reply.status == 200 && meta.event != Mode::None {
            let Scratch { ids, reply, .. } = &mut self.scratch;
            events::wrap(meta.event, served, ids, reply);
        }
        Ok(())
    }

    /// Puts the answer among the replies.
    fn reply(&mut self, close: bool, with_body: bool) {
        let Reply { status, kind, body, headers, .. } = &self.scratch.reply;
        self.metrics.count_answer(*status);
        let written = self.marks.and_then(|marks| marks.written);
        let date = self.date.at(written.unwrap_or_else(std::time::Instant::now));
        write_head(&mut self.replies, *status, kind, body.len(), close, date, headers);
        if with_body {
            self.replies.extend_from_slice(body);
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        if self.replies.is_empty() {
            return Ok(());
        }
        // Nearly every reply fits the socket's buffer, and then no timer is needed.
        let written = match self.stream.try_write_now(&self.replies) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        if written < self.replies.len() {
            let rest = async {
                self.stream.write_all(&self.replies[written..]).await?;
                self.stream.flush().await
            };
            tokio::time::timeout(self.shared.config.patience.stall, rest)
                .await
                .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        }
        self.replies.clear();
        Ok(())
    }

    /// Lets the other side read the refusal before the reset that unread bytes would cause.
    async fn linger(&mut self) {
        let _ = self.stream.shutdown().await;
        let mut dropped = 0;
        let drain = async {
            while let Ok(count @ 1..) = self.stream.read(&mut self.input).await {
                dropped += count;
                if dropped > 1 << 20 {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(1), drain).await;
    }

    /// Between requests nothing large is kept.
    fn give_back(&mut self) {
        buffers::give_back(std::mem::take(&mut self.input));
        if self.replies.capacity() > REPLIES_MAX {
            self.replies = Vec::new();
        }
        self.scratch.shrink();
    }
}
