//! Bodies: messages out of a request, an answer's messages and trailers.
//!
//! A message that lies in one frame, as nearly all do, is a slice of that frame. What is longer grows with what
//! arrives, never with what its prefix claims.
//!
//! Not here: what messages mean.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context as Poller, Poll};

use bytes::{Buf, Bytes, BytesMut};
use codecs::grpc::frame;
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::{BODIES_MAX, Context};
use crate::http::Encoding;
use crate::refusal::{Reason, Refusal};
use crate::{compute, unpack};

/// The messages of a request.
pub(crate) struct Messages {
    body: Incoming,
    context: Arc<Context>,
    encoding: Encoding,
    held: Bytes,
    /// What this request counts among the connection's bytes.
    counted: usize,
}

impl Messages {
    pub(super) fn new(body: Incoming, context: Arc<Context>, encoding: Encoding) -> Self {
        Self { body, context, encoding, held: Bytes::new(), counted: 0 }
    }

    /// The next message; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        let max = self.context.shared.body_bytes_max;
        self.count_down();
        loop {
            let prefix = frame::prefix(&self.held).map_err(|text| Refusal::new(Reason::Malformed, text))?;
            if let Some(prefix) = prefix {
                if prefix.len > max {
                    let text = format!("the message has {} bytes, at most {max} are taken", prefix.len);
                    return Err(Refusal::new(Reason::TooLarge, text));
                }
                let whole = frame::PREFIX + prefix.len;
                if self.held.len() >= whole {
                    let mut message = self.held.split_to(whole);
                    message.advance(frame::PREFIX);
                    return match prefix.compressed {
                        true => self.unpacked(message, max).await.map(Some),
                        false => Ok(Some(message)),
                    };
                }
            }
            if !self.more().await? {
                return match self.held.is_empty() {
                    true => Ok(None),
                    false => Err(Refusal::new(Reason::Malformed, "the request ends within a message")),
                };
            }
        }
    }

    /// Takes one more frame; false at the end.
    async fn more(&mut self) -> Result<bool, Refusal> {
        let frame = if self.held.is_empty() {
            // Between messages a stream may be quiet for as long as its connection lives.
            self.body.frame().await
        } else {
            tokio::time::timeout(self.context.shared.config.patience.stall, self.body.frame())
                .await
                .map_err(|_| Refusal::new(Reason::Cancelled, "the message stopped half-way"))?
        };
        let data = match frame {
            None => return Ok(false),
            Some(Err(_)) => return Err(Refusal::new(Reason::Cancelled, "the client left")),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => data,
                Err(_) => return Ok(true),
            },
        };
        let limit = self.context.shared.body_bytes_max.saturating_mul(BODIES_MAX);
        self.counted += data.len();
        if self.context.bytes.fetch_add(data.len(), Relaxed) > limit {
            let text = "this connection's requests are too large together";
            return Err(Refusal::new(Reason::TooLarge, text));
        }
        if self.held.is_empty() {
            self.held = data;
        } else {
            let mut held = match std::mem::take(&mut self.held).try_into_mut() {
                Ok(held) => held,
                Err(shared) => BytesMut::from(&shared[..]),
            };
            held.extend_from_slice(&data);
            self.held = held.freeze();
        }
        Ok(true)
    }

    async fn unpacked(&self, message: Bytes, max: usize) -> Result<Bytes, Refusal> {
        let encoding = self.encoding;
        if encoding == Encoding::Identity {
            let text = "a compressed message without grpc-encoding";
            return Err(Refusal::new(Reason::Malformed, text));
        }
        let unpacked = compute::aside(move || unpack::unpack(encoding, &message, max)).await?;
        unpacked.map(Bytes::from).map_err(|(status, text)| {
            let reason = if status == 413 { Reason::TooLarge } else { Reason::Malformed };
            Refusal::new(reason, text)
        })
    }

    /// The next message with what it counts, which it gives back when it was worked on: for streams that work on
    /// several at once.
    pub(crate) async fn next_counted(&mut self) -> Result<Option<(Bytes, Counted)>, Refusal> {
        let message = self.next().await?;
        let count = self.counted.saturating_sub(self.held.len());
        self.counted -= count;
        Ok(message.map(|message| (message, Counted(self.context.clone(), count))))
    }

    /// The message before was worked on.
    fn count_down(&mut self) {
        let done = self.counted.saturating_sub(self.held.len());
        self.counted -= done;
        self.context.bytes.fetch_sub(done, Relaxed);
    }
}

/// Bytes of a message that is worked on.
pub(crate) struct Counted(Arc<Context>, usize);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.bytes.fetch_sub(self.1, Relaxed);
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        self.context.bytes.fetch_sub(self.counted, Relaxed);
    }
}

/// Messages with their prefixes, the last of which may be a refusal.
pub(super) trait Stream: futures::Stream<Item = Result<Bytes, Refusal>> + Send + 'static {}

impl<S: futures::Stream<Item = Result<Bytes, Refusal>> + Send + 'static> Stream for S {}

/// The body of an answer.
pub(crate) struct Answer(State);

enum State {
    /// Headers only.
    Empty,
    Unary(Option<Bytes>),
    Stream(Pin<Box<dyn Stream>>),
    /// Trailers were sent.
    Ended,
}

impl Answer {
    pub(super) fn empty() -> Self {
        Self(State::Empty)
    }

    pub(super) fn unary(message: Bytes) -> Self {
        Self(State::Unary(Some(message)))
    }

    pub(super) fn stream(messages: impl Stream) -> Self {
        Self(State::Stream(Box::pin(messages)))
    }

    fn end(&mut self, code: u32, text: &str) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0 = State::Ended;
        let mut trailers = HeaderMap::with_capacity(2);
        put_status(&mut trailers, code, text);
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }
}

/// The outcome of a call.
pub(super) fn put_status(headers: &mut HeaderMap, code: u32, text: &str) {
    headers.insert("grpc-status", HeaderValue::from(code));
    if !text.is_empty()
        && let Ok(value) = HeaderValue::from_str(&frame::message_value(text))
    {
        headers.insert("grpc-message", value);
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        poller: &mut Poller<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut self.0 {
            State::Empty | State::Ended => Poll::Ready(None),
            State::Unary(message) => match message.take() {
                Some(message) => Poll::Ready(Some(Ok(Frame::data(message)))),
                None => self.end(0, ""),
            },
            State::Stream(messages) => match messages.as_mut().poll_next(poller) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Some(Ok(message))) => Poll::Ready(Some(Ok(Frame::data(message)))),
                Poll::Ready(Some(Err(refusal))) => self.end(refusal.grpc(), &refusal.text),
                Poll::Ready(None) => self.end(0, ""),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.0, State::Empty | State::Ended)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
