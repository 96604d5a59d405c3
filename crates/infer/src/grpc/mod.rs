//! gRPC over HTTP/2: the connection, its limits, and the way from a request to its method.
//!
//! HTTP/2 is hyper's. Above it there is little: a path names a method, messages have five bytes before them, the
//! outcome is a trailer. Messages are read and written by `codecs::grpc` in place, without generated types (decision
//! 11). Calls share everything behind their bytes with the other protocols (`drive`).
//!
//! A connection belongs to one event loop, but its calls do not: where several are under way at once they are spread
//! over all loops, because behind a proxy one connection carries all of a server's load.
//!
//! Not here: methods (`oip`, `tfs`, `small`).

mod authority;
mod body;
mod envelope;
mod oip;
mod small;
mod spread;
mod tfs;

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use models::Outputs;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use crate::drive::{self, Desk, INLINE_BYTES_MAX};
use crate::evaluate::INLINE_NS_MAX;
use crate::exchange::{Protocol, Reply};
use crate::http::{Encoding, Meta};
use crate::metrics::Metrics;
use crate::observe::Parent;
use crate::refusal::{Reason, Refusal};
use crate::served::Served;
use crate::shared::Shared;
use crate::stop::Ear;

pub(crate) use authority::Legal;
use body::{Answer, Messages};
use envelope::Envelope;
pub(crate) use spread::Loops;
pub(crate) use tfs::Tensors;

/// Calls of one connection at a time; clients queue what is more.
const STREAMS_MAX: u32 = 1024;
/// Bytes of a request's headers, at most.
const HEADERS_MAX: u32 = 16 << 10;
/// Streams that a client may open and reset before they were looked at (CVE-2023-44487).
const RESETS_MAX: usize = 32;
/// Bytes that may be under way towards one stream, and one connection, before the server asks for more.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// A connection without a call ends after this long.
const IDLE_MAX: Duration = Duration::from_secs(300);
/// A client that does not answer a ping for this long is gone.
const PING_EVERY: Duration = Duration::from_secs(60);
const PING_MAX: Duration = Duration::from_secs(20);
/// A client that has no call under way has this long to confirm the end of its connection.
const LINGER: Duration = Duration::from_millis(500);
/// Bodies of one connection that are being read, in multiples of the largest.
const BODIES_MAX: usize = 4;

/// What the calls of one connection share.
pub(crate) struct Context {
    pub(crate) shared: Arc<Shared>,
    pub(crate) metrics: Arc<Metrics>,
    /// Load, unload and reload calls are carried out here.
    pub(crate) is_open: bool,
    /// Calls under way.
    calls: Arc<AtomicUsize>,
    /// All calls so far.
    seen: AtomicUsize,
    /// Bytes of bodies that are being read or worked on.
    bytes: AtomicUsize,
}

impl Context {
    /// Waits for a model that is loaded by calls.
    async fn wake(&self, name: &str, meta: &Meta) -> Result<(), Refusal> {
        // Boxed: it is rare, and calls are to stay small.
        Box::pin(self.shared.repository.wake(name, meta.timeout.or(self.shared.timeout))).await
    }
}

/// Serves a connection until it ends.
pub(crate) async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
    mut stop: Ear,
    is_open: bool,
) {
    let calls = Arc::new(AtomicUsize::new(0));
    let context = Arc::new(Context {
        shared,
        metrics,
        is_open,
        calls: calls.clone(),
        seen: AtomicUsize::new(0),
        bytes: AtomicUsize::new(0),
    });
    let own = context.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let context = own.clone();
        context.seen.fetch_add(1, Relaxed);
        // Boxed: its future is large, and hyper and the loop move what they are given several times.
        async move { Ok::<_, Infallible>(Box::pin(answer(&context, request)).await) }
    });
    let mut builder = http2::Builder::new(context.shared.loops.of_connection(calls));
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADERS_MAX)
        .max_pending_accept_reset_streams(RESETS_MAX)
        .max_local_error_reset_streams(RESETS_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_MAX);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let end_of_life = context.shared.end_of_life();
    // One timer for all that it waits for, because a connection is polled several times for each call.
    let within_age = |after: Duration| {
        let at = Instant::now() + after;
        end_of_life.map_or(at, |end| end.min(at))
    };
    let mut timer = std::pin::pin!(tokio::time::sleep_until(within_age(IDLE_MAX)));
    let mut before = 0;
    let mut ending = false;
    loop {
        tokio::select! {
            biased;
            _ = connection.as_mut() => return,
            () = poll_fn(|poller| stop.poll(poller)), if !ending => {}
            () = timer.as_mut() => {
                let (seen, calls) = (context.seen.load(Relaxed), context.calls.load(Relaxed));
                if ending {
                    if calls == 0 {
                        return;
                    }
                    timer.as_mut().reset(Instant::now() + LINGER);
                    continue;
                }
                let is_old = end_of_life.is_some_and(|end| Instant::now() >= end);
                if !is_old && (seen != before || calls > 0) {
                    before = seen;
                    timer.as_mut().reset(within_age(IDLE_MAX));
                    continue;
                }
            }
        }
        // GOAWAY: no new calls; those under way finish.
        ending = true;
        timer.as_mut().reset(Instant::now() + LINGER);
        connection.as_mut().graceful_shutdown();
    }
}

/// Buffers that go from call to call.
#[derive(Default)]
pub(crate) struct Scratch {
    oip: oip::Infer,
    tfs: tfs::Tensors,
    outputs: Outputs,
    reply: Reply,
}

thread_local! {
    #[allow(clippy::vec_box, reason = "a call holds the box for its whole life: moving it is moving a pointer")]
    static SCRATCHES: std::cell::RefCell<Vec<Box<Scratch>>> = const { std::cell::RefCell::new(Vec::new()) };
}
/// Kept on each thread, at most.
const SCRATCHES_MAX: usize = 64;

impl Scratch {
    fn take() -> Box<Self> {
        SCRATCHES.with_borrow_mut(|all| all.pop()).unwrap_or_default()
    }

    /// A call that is dropped half-way does not come here, and its buffers go with it.
    fn give_back(mut self: Box<Self>) {
        self.oip.shrink();
        self.tfs.shrink();
        if self.outputs.tensors().iter().map(|tensor| tensor.bytes().len()).sum::<usize>() > INLINE_BYTES_MAX
        {
            self.outputs = Outputs::new();
        }
        SCRATCHES.with_borrow_mut(|all| {
            if all.len() < SCRATCHES_MAX {
                all.push(self);
            }
        });
    }
}

/// A finished message with its prefix, or why there is none.
type Outcome = Result<Bytes, Refusal>;

/// Answers one request.
async fn answer(context: &Arc<Context>, request: Request<Incoming>) -> Response<Answer> {
    let headers = request.headers();
    let is_grpc = headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if !is_grpc || request.method() != http::Method::POST {
        let mut response = Response::new(Answer::empty());
        *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return response;
    }
    let timeout = match timeout(headers) {
        Ok(timeout) => timeout,
        Err(refusal) => return refused(context, &refusal, &Envelope::default()),
    };
    let encoding = match encoding(headers) {
        Ok(encoding) => encoding,
        Err(refusal) => {
            let mut response = refused(context, &refusal, &Envelope::default());
            let known = HeaderValue::from_static("identity,gzip,deflate");
            response.headers_mut().insert("grpc-accept-encoding", known);
            return response;
        }
    };
    let parent = headers.get("traceparent").and_then(|value| Parent::parse(value.as_bytes()));
    let (parts, body) = request.into_parts();
    let messages = Messages::new(body, context.clone(), encoding);
    let path = parts.uri.path();
    let meta = Meta { timeout, parent, ..Meta::default() };
    let mut envelope = Envelope::new(context, meta, parts.headers);
    match (small::stream(path), oip::is_stream(path)) {
        (Some(which), _) => streaming(small::answers(which, context.clone(), messages)),
        (None, true) => streaming(oip::answers(context.clone(), messages, envelope)),
        (None, false) => {
            let outcome = {
                let work = std::pin::pin!(unary(context, path, messages, &mut envelope));
                in_time(timeout, work).await
            };
            match outcome {
                Ok(message) => {
                    context.metrics.count_answer(200);
                    let mut response = with_head(Answer::unary(message));
                    envelope.dress(response.headers_mut());
                    response
                }
                Err(refusal) => refused(context, &refusal, &envelope),
            }
        }
    }
}

/// Takes the work by reference: its future is large, and would be there once for each way through.
async fn in_time(timeout: Option<Duration>, work: Pin<&mut impl Future<Output = Outcome>>) -> Outcome {
    match timeout {
        None => work.await,
        Some(timeout) => tokio::time::timeout(timeout, work)
            .await
            .unwrap_or_else(|_| Err(Refusal::new(Reason::Deadline, "the deadline passed"))),
    }
}

/// A call of one message.
async fn unary(
    context: &Arc<Context>,
    path: &str,
    mut messages: Messages,
    envelope: &mut Envelope,
) -> Outcome {
    let Some((service, method)) = path.strip_prefix('/').and_then(|path| path.split_once('/')) else {
        return Err(unknown(path));
    };
    let message = match messages.next().await? {
        Some(message) => message,
        None => return Err(Refusal::new(Reason::Malformed, "the call has no message")),
    };
    match service {
        "inference.GRPCInferenceService" => oip::unary(context, method, message, envelope).await,
        "tensorflow.serving.PredictionService" => tfs::predictions(context, method, message, envelope).await,
        "tensorflow.serving.ModelService" => tfs::models(context, method, message).await,
        "grpc.health.v1.Health" => small::check(context, method, &message),
        _ => Err(unknown(path)),
    }
}

fn unknown(path: &str) -> Refusal {
    let shown: String = path.chars().take(200).collect();
    Refusal::new(Reason::Unsupported, format!("unknown method {shown}"))
}

/// A message of the protocol's that `write` appends the fields of.
fn message(write: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut out = Vec::with_capacity(128);
    let at = codecs::grpc::frame::begin(&mut out);
    write(&mut out);
    codecs::grpc::frame::end(&mut out, at, false);
    out.into()
}

fn malformed(error: impl std::fmt::Display) -> Refusal {
    Refusal::new(Reason::Malformed, error.to_string())
}

/// Nanoseconds of work from which it pays to send a call to another thread.
const SPREAD_NS_MIN: u64 = 25_000;

/// Runs a call of a model through `drive`.
async fn evaluate<P: Protocol>(
    context: &Context,
    protocol: &mut P,
    outputs: &mut Outputs,
    reply: &mut Reply,
    served: &Arc<Served>,
    message: Bytes,
    envelope: &mut Envelope,
) -> Outcome {
    let tags = envelope.draw(context);
    let meta = &envelope.meta;
    let desk = Desk { outputs, reply: &mut *reply, metrics: &context.metrics, shared: &context.shared, tags };
    let rows = message.len() / (8 * served.width.max(1)) + 1;
    let cost = served.backend.row_cost_ns().saturating_mul(rows as u64);
    let several = context.calls.load(Relaxed) > 1;
    // What is long leaves this thread by the model's queue anyway.
    let is_middling = cost > SPREAD_NS_MIN && cost <= INLINE_NS_MAX;
    if message.len() > INLINE_BYTES_MAX || (several && is_middling) {
        drive::call(protocol, served, drive::Body::Large(message), meta, desk).await;
    } else {
        drive::call(protocol, served, drive::Body::Small(&message), meta, desk).await;
    }
    envelope.take(reply);
    match reply.reason {
        None => Ok(std::mem::take(&mut reply.body).into()),
        Some(reason) => Err(Refusal::new(reason, String::from_utf8_lossy(&reply.body))),
    }
}

/// What the client says how long an answer is of use.
fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Refusal> {
    let Some(value) = headers.get("grpc-timeout") else { return Ok(None) };
    let timeout = value.to_str().ok().and_then(codecs::grpc::frame::timeout);
    timeout.map(Some).ok_or_else(|| Refusal::new(Reason::Malformed, "malformed grpc-timeout"))
}

/// How the client compresses messages.
fn encoding(headers: &HeaderMap) -> Result<Encoding, Refusal> {
    match headers.get("grpc-encoding").map_or(&b"identity"[..], HeaderValue::as_bytes) {
        b"identity" => Ok(Encoding::Identity),
        b"gzip" => Ok(Encoding::Gzip),
        b"deflate" => Ok(Encoding::Deflate),
        other => {
            let shown = String::from_utf8_lossy(&other[..other.len().min(40)]);
            Err(Refusal::new(Reason::Unsupported, format!("messages compressed by {shown} are not read")))
        }
    }
}

fn with_head(answer: Answer) -> Response<Answer> {
    let mut response = Response::new(answer);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

fn streaming(answers: impl body::Stream) -> Response<Answer> {
    with_head(Answer::stream(answers))
}

/// A refusal as the only headers of an answer without messages.
fn refused(context: &Context, refusal: &Refusal, envelope: &Envelope) -> Response<Answer> {
    context.metrics.count_answer(refusal.http());
    let mut response = with_head(Answer::empty());
    envelope.dress(response.headers_mut());
    envelope::explain(refusal, response.headers_mut());
    body::put_status(response.headers_mut(), refusal.grpc(), &refusal.text);
    response
}
