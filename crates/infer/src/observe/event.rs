//! A payload as a CloudEvent in binary mode: attributes are headers, the body is the payload as it came.
//!
//! What a call's headers say is read here, when the event is sent, and not while the call is answered.
//!
//! Not here: which calls are logged, and how events get to their receiver (`payload`, `post`).

use std::sync::Arc;
use std::time::SystemTime;

use codecs::grpc::frame::PREFIX;
use http::HeaderMap;

use super::payload::Settings;
use super::queue::Held;
use crate::date::put_timestamp;
use crate::routes::v2;

const TYPE: &str = "org.kubeflow.serving.inference.";

/// What the messages of a call over gRPC are called in their protocol.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Letter {
    pub(crate) request: &'static str,
    pub(crate) response: &'static str,
}

/// A drawn call's headers, as they came.
#[derive(Debug, Clone)]
pub(crate) enum Tags {
    /// The head of a request.
    Head(Box<[u8]>),
    /// Of a call over gRPC.
    Letter(Letter, Arc<HeaderMap>),
}

impl Tags {
    /// Bytes before an answer's payload that are its transport's.
    pub(super) fn prefix(&self) -> usize {
        match self {
            Self::Head(_) => 0,
            Self::Letter(..) => PREFIX,
        }
    }

    /// Memory that it keeps for the event alone.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Head(head) => head.len(),
            Self::Letter(..) => 0,
        }
    }
}

/// A call on its way to be logged.
pub(super) struct Call {
    tags: Box<Tags>,
    arrived: SystemTime,
    ended: SystemTime,
    /// Behind each other.
    bodies: Vec<u8>,
    /// How long the request's and the answer's body is, where they are logged.
    lengths: [Option<usize>; 2],
}

impl Call {
    pub(super) fn new(
        tags: Box<Tags>,
        arrived: SystemTime,
        ended: SystemTime,
        bodies: [Option<&[u8]>; 2],
    ) -> Self {
        let lengths = bodies.map(|body| body.map(<[u8]>::len));
        Self { tags, arrived, ended, bodies: bodies.map(Option::unwrap_or_default).concat(), lengths }
    }
}

/// A call with what its headers say.
pub(super) struct Told {
    call: Held<Call>,
    id: String,
    /// The content type, where the headers have one.
    kind: String,
    metadata: String,
}

impl Told {
    /// Reads the headers; those that are `wanted` go along.
    pub(super) fn of(call: Held<Call>, wanted: &[String], ids: &mut v2::Ids) -> Arc<Self> {
        let mut told = Self { call, id: String::new(), kind: String::new(), metadata: "{}".to_owned() };
        let mut metadata = serde_json::Map::new();
        let mut read = |name: &str, value: &[u8]| {
            let Ok(value) = std::str::from_utf8(value) else { return };
            if name.eq_ignore_ascii_case("ce-id") {
                value.trim().clone_into(&mut told.id);
            } else if name.eq_ignore_ascii_case("content-type") {
                value.trim().clone_into(&mut told.kind);
            }
            if let Some(name) = wanted.iter().find(|own| own.eq_ignore_ascii_case(name)) {
                // Upstream gives a list for each header, and a header may come several times.
                let all = metadata.entry(name.as_str()).or_insert_with(|| serde_json::json!([]));
                all.as_array_mut().into_iter().for_each(|all| all.push(value.trim().into()));
            }
        };
        match &*told.call.item.tags {
            Tags::Head(head) => {
                let mut headers = [httparse::EMPTY_HEADER; 64];
                let mut request = httparse::Request::new(&mut headers);
                let _ = request.parse(head);
                request.headers.iter().for_each(|header| read(header.name, header.value));
            }
            Tags::Letter(_, headers) => {
                headers.iter().for_each(|(name, value)| read(name.as_str(), value.as_bytes()));
            }
        }
        if !metadata.is_empty() {
            told.metadata = serde_json::Value::Object(metadata).to_string();
        }
        if told.id.is_empty() {
            ids.next().clone_into(&mut told.id);
        }
        Arc::new(told)
    }
}

/// One event of a call. It keeps the call's place in the queue.
pub(super) struct Event {
    told: Arc<Told>,
    is_response: bool,
}

impl Event {
    /// The events of a call.
    pub(super) fn all_of(told: &Arc<Told>) -> impl Iterator<Item = Self> {
        let both = [false, true].into_iter();
        let logged = both.filter(|is_response| told.call.item.lengths[usize::from(*is_response)].is_some());
        logged.map(|is_response| Self { told: told.clone(), is_response })
    }

    /// The payload.
    pub(super) fn body(&self) -> &[u8] {
        let call = &self.told.call.item;
        let (request, response) = call.bodies.split_at(call.lengths[0].unwrap_or(0));
        if self.is_response { response } else { request }
    }

    /// Appends its attributes as headers.
    pub(super) fn put_headers(&self, settings: &Settings, out: &mut Vec<u8>) {
        let call = &self.told.call.item;
        put(out, "content-type", &[]);
        match (&*call.tags, self.is_response) {
            (Tags::Head(_), _) if self.told.kind.is_empty() => extend(out, "application/json"),
            (Tags::Head(_), _) => extend(out, &self.told.kind),
            (Tags::Letter(letter, _), is_response) => {
                extend(out, "application/protobuf; proto=");
                extend(out, if is_response { letter.response } else { letter.request });
            }
        }
        put(out, "\r\nce-specversion", &["1.0"]);
        put(out, "\r\nce-id", &[&self.told.id]);
        put(out, "\r\nce-type", &[TYPE, if self.is_response { "response" } else { "request" }]);
        put(out, "\r\nce-source", &[&settings.source]);
        put(out, "\r\nce-time", &[]);
        put_timestamp(out, if self.is_response { call.ended } else { call.arrived });
        put(out, "\r\nce-recordedtime", &[]);
        put_timestamp(out, call.ended);
        put(out, "\r\nce-inferenceservicename", &[&settings.inference_service]);
        put(out, "\r\nce-namespace", &[&settings.namespace]);
        put(out, "\r\nce-component", &[&settings.component]);
        put(out, "\r\nce-endpoint", &[&settings.endpoint]);
        put(out, "\r\nce-metadata", &[&self.told.metadata]);
        out.extend_from_slice(b"\r\n");
    }
}

/// Appends a header's name and the pieces of its value.
fn put(out: &mut Vec<u8>, name: &str, pieces: &[&str]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    pieces.iter().for_each(|piece| extend(out, piece));
}

/// Appends to a header's value. What would end it becomes spaces.
fn extend(out: &mut Vec<u8>, value: &str) {
    let begin = out.len();
    out.extend_from_slice(value.as_bytes());
    for byte in &mut out[begin..] {
        if *byte < 0x20 || *byte == 0x7f {
            *byte = b' ';
        }
    }
}
