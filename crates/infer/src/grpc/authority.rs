//! What gRPC's C core calls a server behind a unix socket, made legal.
//!
//! Its clients (Python's and C++'s) put the socket's path, percent-coded, into `:authority`. No host has a name with a
//! percent sign, and HTTP libraries end the stream with a protocol error. Here each percent sign becomes a dash on the
//! way in: the length stays, so neither frames nor the compression of headers notice. Only that one value is looked
//! at, and only on unix sockets.
//!
//! Header blocks are walked, not decoded: a value's place follows from lengths alone (RFC 7541, section 6).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How every HTTP/2 connection begins.
const PREFACE: usize = 24;
const FRAME_HEAD: usize = 9;
const HEADERS: u8 = 1;
const PADDED: u8 = 0x08;
const PRIORITY: u8 = 0x20;
/// Larger frames than this are refused by the server before their headers are read.
const PAYLOAD_MAX: usize = 1 << 14;

/// A stream whose `:authority` is legal.
pub(crate) struct Legal<S> {
    stream: S,
    /// What was read and is not handed on yet.
    held: Vec<u8>,
    /// Bytes at the front of it that may go.
    free: usize,
    /// Bytes of the frame that is passing by, besides those.
    passing: usize,
}

impl<S> Legal<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, held: Vec::new(), free: 0, passing: PREFACE }
    }

    /// Frees what needs no look or was looked at.
    fn look(&mut self) {
        loop {
            let rest = self.held.len() - self.free;
            if self.passing > 0 {
                let count = self.passing.min(rest);
                self.free += count;
                self.passing -= count;
                if self.passing > 0 {
                    return;
                }
                continue;
            }
            let frame = &mut self.held[self.free..];
            let [a, b, c, kind, flags, ..] = *frame else { return };
            if frame.len() < FRAME_HEAD {
                return;
            }
            let len = u32::from_be_bytes([0, a, b, c]) as usize;
            if kind == HEADERS && len <= PAYLOAD_MAX {
                if frame.len() < FRAME_HEAD + len {
                    return;
                }
                let payload = &mut frame[FRAME_HEAD..FRAME_HEAD + len];
                let skipped = usize::from(flags & PADDED != 0) + if flags & PRIORITY != 0 { 5 } else { 0 };
                if let Some(block) = payload.get_mut(skipped..) {
                    legalise(block);
                }
            }
            self.passing = FRAME_HEAD + len;
        }
    }
}

/// An integer with a prefix of so many bits, and the bytes it has.
fn integer(block: &[u8], bits: u32) -> Option<(usize, usize)> {
    let max = (1_usize << bits) - 1;
    let first = usize::from(*block.first()?) & max;
    if first < max {
        return Some((first, 1));
    }
    let mut number = max;
    for (index, byte) in block.iter().skip(1).enumerate().take(4) {
        number += usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((number, index + 2));
        }
    }
    None
}

/// Walks a header block. What it does not understand it leaves to the server.
fn legalise(block: &mut [u8]) {
    let mut at = 0;
    while let Some(first) = block.get(at).copied() {
        // Indexed field; literal with indexing; change of the table's size; literal without indexing.
        let bits = match first {
            0x80.. => 7,
            0x40.. => 6,
            0x20.. => 5,
            _ => 4,
        };
        let Some((index, used)) = integer(&block[at..], bits) else { return };
        at += used;
        if matches!(bits, 7 | 5) {
            continue;
        }
        // 1 is `:authority` in every connection's table; the C core writes the name out all the same.
        let mut is_authority = index == 1;
        let names = usize::from(index == 0);
        for text in 0..=names {
            let is_coded = block.get(at).is_some_and(|byte| byte & 0x80 != 0);
            let Some((len, used)) = block.get(at..).and_then(|rest| integer(rest, 7)) else { return };
            at += used;
            let Some(value) = block.get_mut(at..at + len) else { return };
            if text < names {
                is_authority = !is_coded && value == b":authority";
            } else if is_authority && !is_coded {
                value.iter_mut().filter(|byte| **byte == b'%').for_each(|byte| *byte = b'-');
            }
            at += len;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Legal<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        poller: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let own = &mut *self;
        while own.free == 0 {
            let mut room = [0; 4096];
            let mut read = ReadBuf::new(&mut room);
            match Pin::new(&mut own.stream).poll_read(poller, &mut read) {
                Poll::Ready(Ok(())) => {}
                other => return other,
            }
            if read.filled().is_empty() {
                // A frame that was cut off is the server's to complain about.
                own.free = own.held.len();
                break;
            }
            own.held.extend_from_slice(read.filled());
            own.look();
        }
        let count = own.free.min(out.remaining());
        out.put_slice(&own.held[..count]);
        own.held.drain(..count);
        own.free -= count;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Legal<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        poller: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(poller, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        poller: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(poller, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, poller: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(poller)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, poller: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(poller)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        out.extend_from_slice(&[kind, flags, 0, 0, 0, 1]);
        out.extend_from_slice(payload);
        out
    }

    /// A block with `:authority`, by its number or by its name, between other fields, whose values keep their percent
    /// signs.
    fn block(authority: &[u8], by_name: bool) -> Vec<u8> {
        let mut block = vec![0x83, 0x86, 0x20, 0x04, 3];
        block.extend_from_slice(b"/%a");
        match by_name {
            true => block.extend_from_slice(b"\x40\x0a:authority"),
            false => block.push(0x41),
        }
        block.push(authority.len() as u8);
        block.extend_from_slice(authority);
        block.extend_from_slice(&[0x40, 1, b'x', 2]);
        block.extend_from_slice(b"%%");
        block
    }

    #[test]
    fn only_the_authority_changes_however_the_bytes_come() {
        let build = |authority: &[u8]| {
            let mut wire = vec![b'p'; PREFACE];
            wire.extend(frame(4, 0, &[]));
            wire.extend(frame(HEADERS, 4, &block(authority, false)));
            wire.extend(frame(0, 1, b"%41 %"));
            wire.extend(frame(HEADERS, 4 | PRIORITY, &[&[0; 5], &block(authority, true)[..]].concat()));
            // A block that ends within a value.
            wire.extend(frame(HEADERS, 4, &[0x41, 90, b'%']));
            wire
        };
        let (wire, want) = (build(b"%2Ftmp%2Fx"), build(b"-2Ftmp-2Fx"));
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        for piece in [1, 7, 64, wire.len()] {
            let mut mock = tokio_util::io::StreamReader::new(futures::stream::iter(
                wire.chunks(piece).map(|part| Ok::<_, io::Error>(bytes::Bytes::copy_from_slice(part))),
            ));
            let mut legal = Legal::new(&mut mock);
            let mut got = Vec::new();
            runtime.block_on(legal.read_to_end(&mut got)).expect("read");
            assert_eq!(got, want, "pieces of {piece}");
        }
    }
}
