//! Payload logging: bodies of calls and of their answers as CloudEvents, the way KServe's agent sends them.
//!
//! Binary mode: attributes are headers, the body is the payload as it came. Upstream's queue holds 100 events and stops
//! the calls when it is full; here a full queue drops what comes and counts it, before anything is copied.
//!
//! Not here: CloudEvents that clients send to be predicted (`events`).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::SystemTime;

use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::random::Share;
use crate::background;
use crate::date::timestamp;
use crate::routes::v2;

/// Events that wait, at most.
const WAITING_MAX: usize = 1024;
/// Bytes of their bodies, at most.
const BYTES_MAX: usize = 64 << 20;
const REQUEST: &str = "org.kubeflow.serving.inference.request";
const RESPONSE: &str = "org.kubeflow.serving.inference.response";

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

/// What the messages of a call over gRPC are called in their protocol.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Letter {
    pub(crate) request: &'static str,
    pub(crate) response: &'static str,
}

/// What a call's headers say that goes along.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tags {
    id: Option<String>,
    /// Content types of the request and of the answer.
    kinds: [String; 2],
    metadata: String,
    /// Bytes before an answer's payload that are its transport's.
    prefix: usize,
}

/// An event on its way.
struct Event {
    kind: &'static str,
    tags: Arc<Tags>,
    id: Arc<str>,
    time: SystemTime,
    recorded: SystemTime,
    body: Bytes,
    _counted: Counted,
}

/// Bytes that wait.
struct Counted(Arc<AtomicUsize>, usize);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Relaxed);
    }
}

/// The queue.
#[derive(Debug)]
pub(crate) struct Payloads {
    mode: Mode,
    share: Share,
    metadata_headers: Vec<String>,
    sender: mpsc::Sender<Event>,
    bytes: Arc<AtomicUsize>,
    dropped: Arc<AtomicU64>,
}

/// One call's payloads: when, and the bodies.
pub(crate) struct Payload<'a> {
    pub(crate) arrived: SystemTime,
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
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let payloads = Self {
            mode: settings.mode,
            share: Share::new(settings.share),
            metadata_headers: settings.metadata_headers.clone(),
            sender,
            bytes: Arc::default(),
            dropped: dropped.clone(),
        };
        (payloads, run(receiver, client, settings.clone(), dropped, stop))
    }

    /// Draws whether a call is logged, and reads what goes along from the request's head.
    pub(crate) fn draw(&self, head: &[u8]) -> Option<Box<Tags>> {
        if !self.share.draw() {
            return None;
        }
        // The head was parsed before and is legal.
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut headers);
        let _ = request.parse(head);
        let headers = request.headers.iter().map(|header| (header.name, header.value));
        Some(Box::new(tags(headers, &self.metadata_headers)))
    }

    /// The same for a call over gRPC, whose payloads are its messages, without what frames them.
    pub(crate) fn draw_letter<'a>(
        &self,
        letter: Letter,
        headers: impl Iterator<Item = (&'a str, &'a [u8])>,
    ) -> Option<Box<Tags>> {
        if !self.share.draw() {
            return None;
        }
        let kinds =
            [letter.request, letter.response].map(|name| format!("application/protobuf; proto={name}"));
        let prefix = codecs::grpc::frame::PREFIX;
        Some(Box::new(Tags { kinds, prefix, ..tags(headers, &self.metadata_headers) }))
    }

    /// Events that were dropped.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Logs a call that ended. The answer of a call that failed is not logged, as upstream has it.
    pub(crate) fn log(&self, tags: Box<Tags>, payload: &Payload<'_>) {
        let tags: Arc<Tags> = tags.into();
        let id: Arc<str> = match &tags.id {
            Some(id) => id.as_str().into(),
            None => v2::Ids::default().next().into(),
        };
        if self.mode != Mode::Response {
            self.push(REQUEST, &tags, &id, payload.arrived, payload.request);
        }
        if self.mode != Mode::Request && payload.is_answered {
            let response = payload.response.get(tags.prefix..).unwrap_or_default();
            self.push(RESPONSE, &tags, &id, SystemTime::now(), response);
        }
    }

    fn push(&self, kind: &'static str, tags: &Arc<Tags>, id: &Arc<str>, time: SystemTime, body: &[u8]) {
        let before = self.bytes.fetch_add(body.len(), Relaxed);
        let counted = Counted(self.bytes.clone(), body.len());
        let permit = self.sender.try_reserve();
        let (Ok(permit), true) = (permit, before + body.len() <= BYTES_MAX) else {
            self.dropped.fetch_add(1, Relaxed);
            return;
        };
        let recorded = SystemTime::now();
        let body = Bytes::copy_from_slice(body);
        let (tags, id) = (tags.clone(), id.clone());
        permit.send(Event { kind, tags, id, time, recorded, body, _counted: counted });
    }
}

/// Reads the headers that go along.
fn tags<'a>(headers: impl Iterator<Item = (&'a str, &'a [u8])>, wanted: &[String]) -> Tags {
    let mut tags = Tags::default();
    let mut metadata = serde_json::Map::new();
    for (header, value) in headers {
        let Ok(value) = std::str::from_utf8(value) else { continue };
        if header.eq_ignore_ascii_case("ce-id") {
            tags.id = Some(value.trim().to_owned());
        } else if header.eq_ignore_ascii_case("content-type") {
            tags.kinds = [value.trim().to_owned(), value.trim().to_owned()];
        }
        if let Some(name) = wanted.iter().find(|name| name.eq_ignore_ascii_case(header)) {
            // Upstream gives a list for each header, and a header may come several times.
            let all = metadata.entry(name.as_str()).or_insert_with(|| serde_json::json!([]));
            all.as_array_mut().into_iter().for_each(|all| all.push(value.trim().into()));
        }
    }
    tags.metadata = serde_json::Value::Object(metadata).to_string();
    tags
}

async fn run(
    receiver: mpsc::Receiver<Event>,
    client: reqwest::Client,
    settings: Settings,
    dropped: Arc<AtomicU64>,
    stop: CancellationToken,
) {
    let begun = (receiver, stop, VecDeque::new());
    let events = futures::stream::unfold(begun, |(mut receiver, stop, mut gathered)| async move {
        if gathered.is_empty() {
            gather(&mut receiver, &stop, &mut gathered).await;
        }
        gathered.pop_front().map(|event| (event, (receiver, stop, gathered)))
    });
    let is_failing = std::sync::atomic::AtomicBool::new(false);
    let (client, settings, is_failing) = (&client, &settings, &is_failing);
    let dropped = &dropped;
    events
        .for_each_concurrent(settings.workers.max(1), |event| async move {
            let sent = send(client, settings, event).await;
            if let Err(why) = &sent {
                dropped.fetch_add(1, Relaxed);
                if !is_failing.load(Relaxed) {
                    tracing::warn!(%why, "payloads cannot be logged; they are dropped and counted");
                }
            }
            is_failing.store(sent.is_err(), Relaxed);
        })
        .await;
}

/// Waits for an event and takes what comes with it; none when there will be no more.
async fn gather(
    receiver: &mut mpsc::Receiver<Event>,
    stop: &CancellationToken,
    gathered: &mut VecDeque<Event>,
) {
    let first = tokio::select! {
        biased;
        () = stop.cancelled() => None,
        first = receiver.recv() => first,
    };
    if first.is_some() {
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(background::GATHER) => {}
        }
    }
    if stop.is_cancelled() {
        receiver.close();
    }
    gathered.extend(first);
    while let Ok(event) = receiver.try_recv() {
        gathered.push_back(event);
    }
}

async fn send(client: &reqwest::Client, settings: &Settings, event: Event) -> Result<(), String> {
    let kind = match &event.tags.kinds[usize::from(event.kind == RESPONSE)] {
        kind if kind.is_empty() => "application/json",
        kind => kind,
    };
    let request = client
        .post(&settings.url)
        .header("content-type", kind)
        .header("ce-specversion", "1.0")
        .header("ce-id", &*event.id)
        .header("ce-type", event.kind)
        .header("ce-source", &settings.source)
        .header("ce-time", timestamp(event.time))
        .header("ce-recordedtime", timestamp(event.recorded))
        .header("ce-inferenceservicename", &settings.inference_service)
        .header("ce-namespace", &settings.namespace)
        .header("ce-component", &settings.component)
        .header("ce-endpoint", &settings.endpoint)
        .header("ce-metadata", &event.tags.metadata)
        .body(event.body.clone());
    let answer = request.send().await.map_err(|error| error.without_url().to_string())?;
    match answer.status() {
        status if status.is_success() => Ok(()),
        status => Err(format!("the log answers {status}")),
    }
}
