//! The client's side of gRPC over HTTP/2, as bytes come in and go out.
//!
//! It sends the same few headers over and over, so they are written without a compression table, and the peer is told
//! to keep none either; of what comes back only the status in the trailers matters. Windows for replies are as large
//! as the protocol allows, windows for requests are obeyed.
//!
//! Not here: sockets (`drive`), messages (`body`), HTTP/2 in general (`hyper`, which brings an executor and a clock
//! of milliseconds with it).

use std::collections::HashMap;

use bytes::Bytes;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The most bytes of a frame that either side sends, the protocol's default.
const FRAME_MAX: usize = 16_384;
const WINDOW_MAX: u32 = (1 << 31) - 1;
/// What the protocol lets each side send at first.
const WINDOW_FIRST: i64 = 65_535;
/// Refill the connection's window when so much of it was used.
const REFILL: u32 = 1 << 30;
/// The longest block of headers that is read.
const BLOCK_MAX: usize = 64 << 10;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 32;

/// What a call came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// `grpc-status`.
    Status(u8),
    /// No status: the stream was reset, or its trailers have none.
    Broken(String),
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Grpc {
    headers: Vec<u8>,
    next_stream: u32,
    /// What the caller knows each call under way by.
    calls: HashMap<u32, u64>,
    streams_max: usize,
    window: i64,
    stream_window: i64,
    used: u32,
    pending: Vec<u8>,
    /// The block of headers that continues: its stream, whether it ends the stream, its bytes.
    block: Option<(u32, bool, Vec<u8>)>,
    /// The server takes no more calls on it.
    pub(crate) is_closing: bool,
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    debug_assert!(payload.len() <= FRAME_MAX);
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// An integer of HPACK below a prefix of 7 bits, before a text that is not Huffman-coded.
fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    let mut length = text.len();
    if length < 127 {
        out.push(length as u8);
    } else {
        out.push(127);
        length -= 127;
        while length >= 128 {
            out.push((length % 128) as u8 | 128);
            length /= 128;
        }
        out.push(length as u8);
    }
    out.extend_from_slice(text);
}

/// The headers of every call. Numbers are places in HPACK's static table.
fn request_headers(path: &str, authority: &str) -> Vec<u8> {
    // `:method: POST`, `:scheme: http`; then names from the table with values of ours.
    let mut out = vec![0x83, 0x86, 0x04];
    put_text(&mut out, path.as_bytes());
    out.push(0x01);
    put_text(&mut out, authority.as_bytes());
    // `content-type` is place 31: 15 and 16 more.
    out.extend_from_slice(&[0x0f, 0x10]);
    put_text(&mut out, b"application/grpc");
    out.push(0x00);
    put_text(&mut out, b"te");
    put_text(&mut out, b"trailers");
    out
}

impl Grpc {
    /// A connection that makes calls of one method; what must be sent first is put to `out`.
    pub(crate) fn new(path: &str, authority: &str, out: &mut Vec<u8>) -> Self {
        out.extend_from_slice(PREFACE);
        let settings: [(u16, u32); 3] = [(1, 0), (2, 0), (4, WINDOW_MAX)];
        let payload: Vec<u8> = settings
            .iter()
            .flat_map(|(id, value)| id.to_be_bytes().into_iter().chain(value.to_be_bytes()))
            .collect();
        frame(out, SETTINGS, 0, 0, &payload);
        frame(out, WINDOW_UPDATE, 0, 0, &(WINDOW_MAX - WINDOW_FIRST as u32).to_be_bytes());
        Self {
            headers: request_headers(path, authority),
            next_stream: 1,
            calls: HashMap::new(),
            streams_max: usize::MAX,
            window: WINDOW_FIRST,
            stream_window: WINDOW_FIRST,
            used: 0,
            pending: Vec::new(),
            block: None,
            is_closing: false,
        }
    }

    /// Calls under way.
    pub(crate) fn under_way(&self) -> usize {
        self.calls.len()
    }

    /// Starts a call, if the server lets it begin now. An error: it never will.
    pub(crate) fn start(&mut self, call: u64, message: &Bytes, out: &mut Vec<u8>) -> Result<bool, String> {
        let size = message.len() as i64;
        if size > self.stream_window {
            return Err(format!(
                "a message of {size} bytes is larger than the server's window of {} bytes",
                self.stream_window
            ));
        }
        let is_full = self.calls.len() >= self.streams_max || self.next_stream >= WINDOW_MAX;
        if self.is_closing || is_full || size > self.window {
            return Ok(false);
        }
        let stream = self.next_stream;
        self.next_stream += 2;
        self.window -= size;
        self.calls.insert(stream, call);
        frame(out, HEADERS, END_HEADERS, stream, &self.headers);
        let mut parts = message.chunks(FRAME_MAX).peekable();
        while let Some(part) = parts.next() {
            let flags = if parts.peek().is_none() { END_STREAM } else { 0 };
            frame(out, DATA, flags, stream, part);
        }
        Ok(true)
    }

    /// Takes bytes, calls `done` for each call that is over, puts what must be answered to `out`.
    pub(crate) fn feed(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        mut done: impl FnMut(u64, Outcome),
    ) -> Result<(), String> {
        let held = std::mem::take(&mut self.pending);
        let joined = if held.is_empty() { None } else { Some([&held, bytes].concat()) };
        let mut rest = joined.as_deref().unwrap_or(bytes);
        while let Some((head, after)) = rest.split_first_chunk::<9>() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            if length > FRAME_MAX {
                return Err(format!("a frame of {length} bytes; the server speaks no HTTP/2"));
            }
            let Some((payload, after)) = after.split_at_checked(length) else { break };
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & WINDOW_MAX;
            self.frame(head[3], head[4], stream, payload, out, &mut done)?;
            rest = after;
        }
        self.pending = rest.to_vec();
        Ok(())
    }

    fn frame(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        payload: &[u8],
        out: &mut Vec<u8>,
        done: &mut impl FnMut(u64, Outcome),
    ) -> Result<(), String> {
        if self.block.is_some() && kind != CONTINUATION {
            return Err("a block of headers is interrupted".into());
        }
        match kind {
            DATA => {
                self.used += payload.len() as u32;
                if self.used >= REFILL {
                    frame(out, WINDOW_UPDATE, 0, 0, &self.used.to_be_bytes());
                    self.used = 0;
                }
                if flags & END_STREAM != 0 {
                    self.end(stream, Outcome::Broken("no trailers".into()), done);
                }
            }
            HEADERS => {
                let block = unpadded(flags, payload)?;
                self.block = Some((stream, flags & END_STREAM != 0, block.to_vec()));
                self.block_ends(flags, done);
            }
            CONTINUATION => {
                let Some((_, _, block)) = &mut self.block else {
                    return Err("a continuation of nothing".into());
                };
                if block.len() + payload.len() > BLOCK_MAX {
                    return Err("a block of headers is too long".into());
                }
                block.extend_from_slice(payload);
                self.block_ends(flags, done);
            }
            RST_STREAM => {
                let code = word(payload, 0).unwrap_or(0);
                self.end(stream, Outcome::Broken(format!("stream reset with code {code}")), done);
            }
            SETTINGS if flags & ACK == 0 => {
                self.settings(payload);
                frame(out, SETTINGS, ACK, 0, &[]);
            }
            PING if flags & ACK == 0 => frame(out, PING, ACK, 0, payload),
            GOAWAY => self.is_closing = true,
            WINDOW_UPDATE if stream == 0 => {
                self.window += i64::from(word(payload, 0).unwrap_or(0) & WINDOW_MAX);
            }
            PUSH_PROMISE => return Err("a push that was not asked for".into()),
            _ => {}
        }
        Ok(())
    }

    fn settings(&mut self, payload: &[u8]) {
        for entry in payload.chunks_exact(6) {
            let value = word(entry, 2).unwrap_or(0);
            match u16::from_be_bytes([entry[0], entry[1]]) {
                3 => self.streams_max = value as usize,
                4 => self.stream_window = i64::from(value),
                _ => {}
            }
        }
    }

    fn block_ends(&mut self, flags: u8, done: &mut impl FnMut(u64, Outcome)) {
        if flags & END_HEADERS == 0 {
            return;
        }
        let Some((stream, ends, block)) = self.block.take() else { return };
        if ends {
            let outcome = match status(&block) {
                Some(status) => Outcome::Status(status),
                None => Outcome::Broken("trailers without grpc-status".into()),
            };
            self.end(stream, outcome, done);
        }
    }

    fn end(&mut self, stream: u32, outcome: Outcome, done: &mut impl FnMut(u64, Outcome)) {
        if let Some(call) = self.calls.remove(&stream) {
            done(call, outcome);
        }
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn unpadded(flags: u8, payload: &[u8]) -> Result<&[u8], String> {
    let short = || "a frame is too short for its padding".to_owned();
    let (mut start, mut end) = (0, payload.len());
    if flags & PADDED != 0 {
        end = end.checked_sub(usize::from(*payload.first().ok_or_else(short)?)).ok_or_else(short)?;
        start = 1;
    }
    if flags & PRIORITY != 0 {
        start += 5;
    }
    payload.get(start..end).ok_or_else(short)
}

/// The number in the header `grpc-status`. Its name comes plain or Huffman-coded, always as a literal: it is not in
/// the static table, and no other table is allowed.
fn status(block: &[u8]) -> Option<u8> {
    const PLAIN: &[u8] = b"\x0bgrpc-status";
    const CODED: &[u8] = b"\x88\x9a\xca\xc8\xb2\x12\x34\xda\x8f";
    let after = |name: &[u8]| {
        let at = block.windows(name.len()).position(|window| window == name)?;
        block.get(at + name.len()..)
    };
    let value = after(PLAIN).or_else(|| after(CODED))?;
    let (length, value) = value.split_first()?;
    let bytes = value.get(..usize::from(length & 0x7f))?;
    let digits = if length & 0x80 == 0 { bytes.to_vec() } else { digits_of_huffman(bytes)? };
    std::str::from_utf8(&digits).ok()?.parse().ok()
}

/// Digits in HPACK's Huffman code: `0` to `2` have five bits, `3` to `9` six; ones fill the last byte.
fn digits_of_huffman(bytes: &[u8]) -> Option<Vec<u8>> {
    let bits: Vec<u32> =
        bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| u32::from(byte >> bit & 1))).collect();
    let number = |bits: &[u32]| bits.iter().fold(0, |number, bit| number << 1 | bit);
    let mut rest = bits.as_slice();
    let mut digits = Vec::new();
    while !(rest.len() < 8 && rest.iter().all(|bit| *bit == 1)) {
        let five = number(rest.get(..5)?);
        if five <= 2 {
            digits.push(b'0' + five as u8);
            rest = &rest[5..];
            continue;
        }
        let six = number(rest.get(..6)?);
        if !(0x19..=0x1f).contains(&six) {
            return None;
        }
        digits.push(b'3' + (six - 0x19) as u8);
        rest = &rest[6..];
    }
    Some(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection() -> (Grpc, Vec<u8>) {
        let mut out = Vec::new();
        let grpc = Grpc::new("/a.B/C", "127.0.0.1:1", &mut out);
        (grpc, out)
    }

    fn ending(stream: u32, block: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        frame(&mut bytes, HEADERS, END_HEADERS | END_STREAM, stream, block);
        bytes
    }

    #[test]
    fn statuses_are_read_plain_and_coded() {
        let cases: [(&[u8], Option<u8>); 6] = [
            (b"\x40\x0bgrpc-status\x010", Some(0)),
            (b"\x00\x0bgrpc-status\x0213", Some(13)),
            (b"\x88\x5f\x40\x88\x9a\xca\xc8\xb2\x12\x34\xda\x8f\x01\x38", Some(8)),
            // 00000 and three ones; 00001 011101 and five ones.
            (b"\x40\x88\x9a\xca\xc8\xb2\x12\x34\xda\x8f\x81\x07", Some(0)),
            (b"\x40\x88\x9a\xca\xc8\xb2\x12\x34\xda\x8f\x82\x0b\xbf", Some(17)),
            (b"\x88\x5f", None),
        ];
        for (block, want) in cases {
            assert_eq!(status(block), want, "{block:x?}");
        }
    }

    #[test]
    fn calls_end_in_any_pieces_and_any_order() {
        for piece in [1, 3, 9, 1000] {
            let (mut grpc, mut out) = connection();
            let message = Bytes::from_static(b"\0\0\0\0\x01x");
            assert_eq!(grpc.start(7, &message, &mut out), Ok(true));
            assert_eq!(grpc.start(8, &message, &mut out), Ok(true));
            let mut bytes = Vec::new();
            frame(&mut bytes, SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 2]);
            frame(&mut bytes, HEADERS, END_HEADERS, 3, b"\x88");
            frame(&mut bytes, DATA, 0, 3, b"\0\0\0\0\0");
            bytes.extend(ending(3, b"\x40\x0bgrpc-status\x010"));
            frame(&mut bytes, RST_STREAM, 0, 1, &[0, 0, 0, 8]);
            let mut done = Vec::new();
            for part in bytes.chunks(piece) {
                grpc.feed(part, &mut out, |call, outcome| done.push((call, outcome))).expect("legal");
            }
            let reset = Outcome::Broken("stream reset with code 8".into());
            assert_eq!(done, [(8, Outcome::Status(0)), (7, reset)]);
            assert_eq!((grpc.under_way(), grpc.streams_max), (0, 2));
        }
    }

    #[test]
    fn windows_and_the_number_of_streams_are_obeyed() {
        let (mut grpc, mut out) = connection();
        let large = Bytes::from(vec![0; 40_000]);
        assert_eq!(grpc.start(1, &large, &mut out), Ok(true));
        assert_eq!(grpc.start(2, &large, &mut out), Ok(false), "the window is used up");
        let mut bytes = Vec::new();
        frame(&mut bytes, WINDOW_UPDATE, 0, 0, &40_000_u32.to_be_bytes());
        frame(&mut bytes, SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 1]);
        grpc.feed(&bytes, &mut out, |_, _| ()).expect("legal");
        assert_eq!(grpc.start(2, &large, &mut out), Ok(false), "one stream at a time");
        assert!(grpc.start(3, &Bytes::from(vec![0; 70_000]), &mut out).is_err());
        assert!(grpc.feed(b"HTTP/1.1 400 Bad Request\r\n\r\n", &mut out, |_, _| ()).is_err());
    }
}
