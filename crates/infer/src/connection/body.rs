//! The body of a request: by its length or in chunks, packed or not, and not too slowly.
//!
//! Memory grows with what arrives, never with what is announced. Not here: heads (`connection`).

use std::time::Duration;

use tokio::time::Instant;

use super::{Body, Connection, End};
use crate::http::{Chunks, Encoding, Framing, Head, Meta};
use crate::stream::Stream;
use crate::{compute, events, unpack};

/// After the time of one stall, a request must have come at this many bytes a second on average.
const BYTES_A_SECOND_MIN: usize = 1 << 10;

impl<S: Stream> Connection<S> {
    /// Refuses a client that sends a byte now and then to keep a connection busy.
    pub(super) fn in_pace(&mut self, arrived: usize) -> Result<(), End> {
        let now = Instant::now();
        let since = *self.since.get_or_insert(now);
        let allowed =
            self.shared.config.patience.stall + Duration::from_secs((arrived / BYTES_A_SECOND_MIN) as u64);
        if now.duration_since(since) > allowed {
            return Err(End::Refused(408, "the request comes too slowly"));
        }
        Ok(())
    }

    /// Undoes the body's compression.
    pub(super) async fn unpacked(&mut self, body: Body, meta: &Meta) -> Result<Body, End> {
        if meta.encoding == Encoding::Identity {
            return Ok(body);
        }
        let packed = match body {
            Body::Inline(range) => self.input[range].to_vec(),
            Body::Own(packed) => packed,
        };
        let (encoding, max) = (meta.encoding, self.shared.body_bytes_max);
        let unpacked = compute::aside(move || unpack::unpack(encoding, &packed, max)).await;
        let unpacked = unpacked.map_err(|_| End::Refused(503, "the server has too much to do"))?;
        unpacked.map(Body::Own).map_err(|(status, why)| End::Refused(status, why))
    }

    /// The data of a structured event instead of the event.
    pub(super) fn data_of_event(&self, body: Body) -> Result<Body, End> {
        let refused = |why| End::Refused(400, why);
        match body {
            Body::Inline(range) => {
                let data = events::data(&self.input[range.clone()]).map_err(refused)?;
                Ok(Body::Inline(range.start + data.start..range.start + data.end))
            }
            Body::Own(mut text) => {
                let data = events::data(&text).map_err(refused)?;
                text.truncate(data.end);
                text.drain(..data.start);
                Ok(Body::Own(text))
            }
        }
    }

    /// Waits for the whole body and takes head and body off the buffer.
    pub(super) async fn body(&mut self, head: &Head) -> Result<Body, End> {
        let max = self.shared.body_bytes_max;
        match head.framing {
            Framing::Length(length) if length > max => {
                Err(End::Refused(413, "the request's body is too large"))
            }
            Framing::Length(length) => {
                let mut needed = self.start + head.len + length;
                if needed > self.end {
                    self.invite(head).await?;
                }
                if needed > self.input.len() && self.start > 0 {
                    self.input.copy_within(self.start..self.end, 0);
                    needed -= self.start;
                    self.end -= self.start;
                    self.start = 0;
                }
                while self.end < needed {
                    // The buffer grows with what arrives, not with what is announced.
                    if self.end == self.input.len() {
                        let room = needed.min(self.input.len() * 2);
                        self.input.resize(room, 0);
                    }
                    self.in_pace(self.end - self.start)?;
                    if !self.read_more().await? {
                        return Err(End::Quiet);
                    }
                }
                self.since = None;
                let range = self.start + head.len..needed;
                self.start = needed;
                Ok(Body::Inline(range))
            }
            Framing::Chunked => {
                self.start += head.len;
                self.invite(head).await?;
                self.chunks(max).await.map(Body::Own)
            }
        }
    }

    async fn chunks(&mut self, max: usize) -> Result<Vec<u8>, End> {
        let mut chunks = Chunks::default();
        loop {
            let fed = chunks.feed(&self.input[self.start..self.end], max);
            let (used, done) = fed.map_err(|(status, why)| End::Refused(status, why))?;
            self.start += used;
            if done {
                self.since = None;
                return Ok(chunks.body);
            }
            self.in_pace(chunks.body.len())?;
            self.input.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            if self.end == self.input.len() {
                let room = self.input.len() * 2;
                self.input.resize(room, 0);
            }
            if !self.read_more().await? {
                return Err(End::Quiet);
            }
        }
    }

    /// Answers `Expect: 100-continue`, after the replies to what came before.
    async fn invite(&mut self, head: &Head) -> Result<(), End> {
        if head.expects_continue {
            self.replies.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            self.flush().await?;
        }
        Ok(())
    }
}
