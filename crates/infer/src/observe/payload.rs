//! Payload logging: bodies of calls and of their answers as CloudEvents, the way KServe's agent sends them.
//!
//! A call that was drawn costs a copy of its head and its bodies; all else is done by the thread that sends. Upstream's
//! queue holds 100 events and stops the calls when it is full; here a full queue drops what comes and counts it, before
//! anything is copied. Upstream sends each event for itself, and so does this: several may be on their way on one
//! connection (`post`).
//!
//! Not here: what an event says (`event`), CloudEvents that clients send to be predicted (`events`).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::SystemTime;

use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::event::{Call, Event, Letter, Tags, Told};
use super::post::{Line, Message, Outcome, QUICK, Target};
use super::queue::{Bounds, Losses, Receiver, Sender, queue};
use super::random::Share;
use super::ship::ANSWER_MAX;
use crate::background;
use crate::routes::v2;

/// Events that wait or are on their way, at most; their bytes; and calls that are enough to turn to them.
const BOUNDS: Bounds =
    Bounds { items_max: 1024, bytes_max: 64 << 20, enough: 256, gather: background::GATHER };
/// Bytes of bodies that one connection carries at once, but for one that is larger.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// What is logged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// Requests and responses.
    #[default]
    All,
    /// Requests.
    Request,
    /// Responses.
    Response,
}

impl std::str::FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "all" => Ok(Self::All),
            "request" => Ok(Self::Request),
            "response" => Ok(Self::Response),
            other => Err(format!("{other:?} is none of all, request, response")),
        }
    }
}

/// Where payloads go, and what is said of where they come from.
#[derive(Clone, Default, PartialEq)]
pub struct Settings {
    /// The log's URL.
    pub url: String,
    /// What is logged.
    pub mode: Mode,
    /// The share of calls, from 0 to 1.
    pub share: f64,
    /// Events that are sent at the same time, at most.
    pub workers: usize,
    /// `ce-source`.
    pub source: String,
    /// `ce-inferenceservicename`.
    pub inference_service: String,
    /// `ce-namespace`.
    pub namespace: String,
    /// `ce-endpoint`.
    pub endpoint: String,
    /// `ce-component`.
    pub component: String,
    /// Request headers that go along as JSON in `ce-metadata`.
    pub metadata_headers: Vec<String>,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("url", &super::without_password(&self.url))
            .field("mode", &self.mode)
            .field("share", &self.share)
            .field("workers", &self.workers)
            .field("source", &self.source)
            .field("inference_service", &self.inference_service)
            .field("namespace", &self.namespace)
            .field("endpoint", &self.endpoint)
            .field("component", &self.component)
            .field("metadata_headers", &self.metadata_headers)
            .finish()
    }
}

/// The queue.
#[derive(Debug)]
pub(crate) struct Payloads {
    mode: Mode,
    share: Share,
    sender: Sender<Call>,
}

/// One call's payloads: when, and the bodies.
pub(crate) struct Payload<'a> {
    pub(crate) arrived: SystemTime,
    pub(crate) ended: SystemTime,
    pub(crate) request: &'a [u8],
    pub(crate) response: &'a [u8],
    pub(crate) is_answered: bool,
}

impl Payloads {
    /// The queue, and the work of sending what is in it.
    pub(super) fn new(
        settings: &Settings,
        client: reqwest::Client,
        stop: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (sender, receiver) = queue(BOUNDS, stop);
        let payloads = Self { mode: settings.mode, share: Share::new(settings.share), sender };
        let target = Target::of(&settings.url);
        let desk = Desk {
            settings: settings.clone(),
            target,
            client,
            losses: receiver.losses(),
            waiting: Mutex::default(),
            ready: Notify::new(),
            is_over: AtomicBool::new(false),
            is_failing: AtomicBool::new(false),
        };
        (payloads, run(desk, receiver))
    }

    /// Draws whether a call is logged, and keeps the request's head, which was parsed before and is legal.
    pub(crate) fn draw(&self, head: &[u8]) -> Option<Box<Tags>> {
        self.share.draw().then(|| Box::new(Tags::Head(head.into())))
    }

    /// The same for a call over gRPC, whose payloads are its messages, without what frames them.
    pub(crate) fn draw_letter(&self, letter: Letter, headers: &Arc<HeaderMap>) -> Option<Box<Tags>> {
        self.share.draw().then(|| Box::new(Tags::Letter(letter, headers.clone())))
    }

    /// Events that were dropped.
    pub(crate) fn dropped(&self) -> u64 {
        self.sender.dropped()
    }

    /// Logs a call that ended. The answer of a call that failed is not logged, as upstream has it.
    pub(crate) fn log(&self, tags: Box<Tags>, payload: &Payload<'_>) {
        let response = payload.response.get(tags.prefix()..).unwrap_or_default();
        let request = (self.mode != Mode::Response).then_some(payload.request);
        let response = (self.mode != Mode::Request && payload.is_answered).then_some(response);
        let bodies = [request, response];
        let bytes = bodies.iter().flatten().map(|body| body.len()).sum::<usize>() + tags.bytes();
        let events = bodies.iter().flatten().count();
        if events == 0 {
            return;
        }
        if let Some(place) = self.sender.place(events, bytes) {
            self.sender.send(place, Call::new(tags, payload.arrived, payload.ended, bodies));
        }
    }
}

/// What those who send share.
struct Desk {
    settings: Settings,
    /// Where lean connections will do.
    target: Option<Target>,
    client: reqwest::Client,
    losses: Losses,
    /// Gathered, and bounded by the queue that they came from.
    waiting: Mutex<VecDeque<Event>>,
    ready: Notify,
    is_over: AtomicBool,
    is_failing: AtomicBool,
}

async fn run(desk: Desk, calls: Receiver<Call>) {
    let workers = (0..desk.settings.workers.max(1)).map(|_| desk.work());
    futures::join!(desk.gather(calls), futures::future::join_all(workers));
}

impl Desk {
    /// Makes events of calls, to the end.
    async fn gather(&self, mut calls: Receiver<Call>) {
        let (mut handful, mut ids) = (Vec::new(), v2::Ids::default());
        while calls.take(&mut handful).await {
            let mut waiting = self.waiting.lock();
            for call in handful.drain(..) {
                let told = Told::of(call, &self.settings.metadata_headers, &mut ids);
                waiting.extend(Event::all_of(&told));
            }
            drop(waiting);
            self.ready.notify_last();
        }
        self.is_over.store(true, Relaxed);
        self.ready.notify_waiters();
    }

    /// Sends events over one connection, to the end.
    async fn work(&self) {
        let mut line = Line::new(ANSWER_MAX, QUICK);
        let (mut batch, mut outcomes) = (VecDeque::new(), Vec::new());
        loop {
            let ready = self.ready.notified();
            self.pick(line.depth(), &mut batch);
            if batch.is_empty() {
                if self.is_over.load(Relaxed) {
                    return;
                }
                ready.await;
                continue;
            }
            match &self.target {
                Some(target) => line.send(target, &mut batch, &mut outcomes).await,
                None => {
                    for post in batch.drain(..) {
                        let outcome = self.send_generally(&post).await;
                        outcomes.push((post, outcome));
                    }
                }
            }
            for (post, outcome) in outcomes.drain(..) {
                self.settle(&post, outcome).await;
            }
        }
    }

    /// Takes as many events as fit; the next worker may take the rest.
    fn pick<'a>(&'a self, count: usize, batch: &mut VecDeque<Post<'a>>) {
        let mut waiting = self.waiting.lock();
        let mut bytes = 0;
        while batch.len() < count
            && let Some(event) = waiting.front()
            && (bytes == 0 || bytes + event.body().len() <= BATCH_BYTES_MAX)
        {
            bytes += event.body().len();
            batch.extend(waiting.pop_front().map(|event| Post { event, settings: &self.settings }));
        }
        if !waiting.is_empty() {
            self.ready.notify_last();
        }
    }

    /// Counts an event that did not get there, and sends one again whose receiver is elsewhere.
    async fn settle(&self, post: &Post<'_>, outcome: Outcome) {
        let outcome = match outcome {
            Ok(300..=399) if self.target.is_some() => self.send_generally(post).await,
            outcome => outcome,
        };
        let why = match outcome {
            Ok(200..=299) => None,
            Ok(status) => {
                let known = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
                Some(format!("the log answers {status} {}", known.unwrap_or_default()))
            }
            Err(why) => Some(why),
        };
        let is_failing = why.is_some();
        if let Some(why) = why {
            self.losses.add(1);
            if !self.is_failing.load(Relaxed) {
                tracing::warn!(%why, "payloads cannot be logged; they are dropped and counted");
            }
        }
        self.is_failing.store(is_failing, Relaxed);
    }

    /// Sends an event by a client that knows TLS, proxies and redirections.
    async fn send_generally(&self, post: &Post<'_>) -> Outcome {
        let mut headers = Vec::with_capacity(512);
        post.put_headers(&mut headers);
        let mut request = self.client.post(&self.settings.url).body(post.body().to_vec());
        for line in headers.split(|byte| *byte == b'\n') {
            let Some(at) = line.iter().position(|byte| *byte == b':') else { continue };
            request = request.header(&line[..at], line[at + 1..].trim_ascii());
        }
        // The error's text would repeat the URL, which may hold a password.
        let answer = request.send().await.map_err(|error| error.without_url().to_string())?;
        Ok(answer.status().as_u16())
    }
}

/// An event with all that it says.
struct Post<'a> {
    event: Event,
    settings: &'a Settings,
}

impl Message for Post<'_> {
    fn put_headers(&self, out: &mut Vec<u8>) {
        self.event.put_headers(self.settings, out);
    }

    fn body(&self) -> &[u8] {
        self.event.body()
    }
}
