//! What is around a call's message: what its headers said, and what its answer's are to say.
//!
//! Nothing is copied where nobody asked for it: headers are kept only where payloads are logged, and an answer has
//! headers of its own only where the operator wants times or versions in them, or where it is a refusal.
//!
//! Not here: messages (`body`), the call (`drive`).

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::Context;
use crate::exchange::Reply;
use crate::http::Meta;
use crate::observe::{Letter, Tags};
use crate::refusal::{Reason, Refusal};

/// One call besides its message. The messages of a stream have one each.
#[derive(Clone, Default)]
pub(crate) struct Envelope {
    pub(crate) meta: Meta,
    /// What the messages are called in their protocol.
    pub(super) letter: Letter,
    /// The request's headers, where payloads are logged.
    headers: Option<Arc<HeaderMap>>,
    /// Headers for the answer, each as `\r\nname: value`.
    answer: Vec<u8>,
}

impl Envelope {
    pub(super) fn new(context: &Context, meta: Meta, headers: HeaderMap) -> Self {
        let is_logged = context.shared.observe.payloads.is_some();
        Self { meta, headers: is_logged.then(|| headers.into()), ..Self::default() }
    }

    /// Draws whether the call's payloads are logged.
    pub(super) fn draw(&self, context: &Context) -> Option<Box<Tags>> {
        let (payloads, headers) = (context.shared.observe.payloads.as_ref()?, self.headers.as_ref()?);
        payloads.draw_letter(self.letter, headers)
    }

    /// Takes the headers of a reply; those of the call before, if it was one of several, are forgotten.
    pub(super) fn take(&mut self, reply: &mut Reply) {
        self.answer.clear();
        if !reply.headers.is_empty() {
            std::mem::swap(&mut self.answer, &mut reply.headers);
        }
    }

    /// Adds what was taken to the headers of the answer.
    pub(super) fn dress(&self, headers: &mut HeaderMap) {
        for line in self.answer.split(|byte| *byte == b'\n') {
            let Some(at) = line.iter().position(|byte| *byte == b':') else { continue };
            let value = HeaderValue::from_bytes(line[at + 1..].trim_ascii());
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(&line[..at]), value) {
                headers.insert(name, value);
            }
        }
    }
}

/// Says why, and when to come back, as over HTTP; gRPC's own word for the latter is a number of milliseconds.
pub(super) fn explain(refusal: &Refusal, headers: &mut HeaderMap) {
    if !matches!(refusal.reason, Reason::Malformed | Reason::Input) {
        headers.insert("slipway-reason", HeaderValue::from_static(refusal.reason.word()));
    }
    if let Some(after) = refusal.retry_after {
        let millis = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        headers.insert("grpc-retry-pushback-ms", HeaderValue::from(millis));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replys_headers_become_those_of_the_answer_and_the_last_call_counts() {
        let mut envelope = Envelope::default();
        for version in ["1", "2"] {
            let mut reply = Reply::default();
            reply.header("slipway-model", "a\r\nb");
            reply.header("slipway-model-version", version);
            envelope.take(&mut reply);
        }
        let mut headers = HeaderMap::new();
        envelope.dress(&mut headers);
        assert_eq!(headers.len(), 2);
        assert_eq!(
            (&headers["slipway-model"], &headers["slipway-model-version"]),
            (&"a  b".parse().expect("a value"), &"2".parse().expect("a value"))
        );
    }
}
