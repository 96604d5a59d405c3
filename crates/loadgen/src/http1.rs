//! HTTP/1.1 replies, as bytes come in.
//!
//! One request is under way on a connection, so every byte belongs to its reply. Bodies are counted and dropped,
//! but for the start of the first one. Not here: sockets (`drive`).

/// The longest head that is read.
const HEAD_MAX: usize = 64 << 10;
const HEADERS_MAX: usize = 100;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Body {
    Known(u64),
    /// Within a chunk's line of size: what was read of it, and whether its digits are over.
    Size(u64, bool),
    Chunk(u64),
    /// The line end after a chunk.
    After,
    /// In a line of the trailer that has so many bytes.
    Trailer(usize),
    UntilClose,
}

/// The reply that is being read.
#[derive(Debug, Default)]
pub(crate) struct Http1 {
    head: Vec<u8>,
    body: Option<Body>,
    status: u16,
    closes: bool,
    /// The first bytes of the body, while they are wanted.
    pub(crate) sample: Option<Vec<u8>>,
    /// How many of them.
    sample_max: usize,
}

/// A whole reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// The server will close the connection.
    pub(crate) closes: bool,
}

impl Http1 {
    /// Keeps the first bytes of the next body.
    pub(crate) fn keeping(sample_max: usize) -> Self {
        Self { sample: Some(Vec::new()), sample_max, ..Self::default() }
    }

    /// Takes bytes; the reply once it is whole.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<Option<Reply>, String> {
        if self.body.is_some() {
            return self.feed_body(bytes);
        }
        // Nearly always the head comes whole: it is then not copied.
        if self.head.is_empty()
            && let Some(end) = self.parse_head(bytes)?
        {
            return self.feed_body(&bytes[end..]);
        }
        self.head.extend_from_slice(bytes);
        if self.head.len() > HEAD_MAX {
            return Err("a reply's head is too long".into());
        }
        let head = std::mem::take(&mut self.head);
        if let Some(end) = self.parse_head(&head)? {
            return self.feed_body(&head[end..]);
        }
        self.head = head;
        Ok(None)
    }

    fn parse_head(&mut self, bytes: &[u8]) -> Result<Option<usize>, String> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut reply = httparse::Response::new(&mut headers);
        let end = match reply.parse(bytes).map_err(|error| format!("no HTTP/1.1 reply: {error}"))? {
            httparse::Status::Complete(end) => end,
            httparse::Status::Partial => return Ok(None),
        };
        self.status = reply.code.unwrap_or(0);
        self.closes = false;
        let mut body = Body::UntilClose;
        for header in reply.headers.iter() {
            let value = std::str::from_utf8(header.value).unwrap_or_default().trim();
            if header.name.eq_ignore_ascii_case("content-length") {
                body = Body::Known(value.parse().map_err(|_| format!("content-length {value:?}"))?);
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                body = Body::Size(0, false);
            } else if header.name.eq_ignore_ascii_case("connection") {
                self.closes = value.eq_ignore_ascii_case("close");
            }
        }
        if matches!(self.status, 204 | 304) {
            body = Body::Known(0);
        }
        self.closes |= body == Body::UntilClose;
        self.body = Some(body);
        Ok(Some(end))
    }

    fn feed_body(&mut self, bytes: &[u8]) -> Result<Option<Reply>, String> {
        let Some(mut body) = self.body else { return Ok(None) };
        if let Some(sample) = &mut self.sample {
            let room = self.sample_max.saturating_sub(sample.len());
            sample.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
        let mut rest = bytes;
        let done = loop {
            body = match body {
                Body::Known(left) => {
                    let taken = left.min(rest.len() as u64);
                    rest = &rest[taken as usize..];
                    if left == taken {
                        break true;
                    }
                    body = Body::Known(left - taken);
                    break false;
                }
                Body::UntilClose => break false,
                Body::Chunk(left) => {
                    let taken = left.min(rest.len() as u64);
                    rest = &rest[taken as usize..];
                    if left == taken { Body::After } else { Body::Chunk(left - taken) }
                }
                line => match rest.split_first() {
                    Some((byte, after)) => {
                        rest = after;
                        match line_byte(line, *byte)? {
                            Some(next) => next,
                            None => break true,
                        }
                    }
                    None => line,
                },
            };
            if rest.is_empty() && !matches!(body, Body::Known(0)) {
                break false;
            }
        };
        self.body = Some(body);
        if !done {
            return Ok(None);
        }
        self.body = None;
        if !rest.is_empty() {
            return Err("bytes after a reply that nobody asked for".into());
        }
        Ok(Some(Reply { status: self.status, closes: self.closes }))
    }

    /// The reply that ends because the connection does.
    pub(crate) fn ended(&mut self) -> Option<Reply> {
        let whole = self.body == Some(Body::UntilClose);
        self.body = None;
        whole.then_some(Reply { status: self.status, closes: true })
    }
}

/// One byte of the lines around chunks; `None` at the end of the body.
fn line_byte(line: Body, byte: u8) -> Result<Option<Body>, String> {
    Ok(Some(match (line, byte) {
        (Body::Size(0, true), b'\n') => Body::Trailer(0),
        (Body::Size(size, true), b'\n') => Body::Chunk(size),
        (Body::Size(size, _), b'\r' | b';' | b' ') => Body::Size(size, true),
        (Body::Size(size, true), _) => Body::Size(size, true),
        (Body::Size(size, false), digit) => {
            let digit = char::from(digit).to_digit(16).ok_or("a chunk without a size")?;
            let size = size.checked_mul(16).and_then(|size| size.checked_add(u64::from(digit)));
            Body::Size(size.ok_or("a chunk's size is too large")?, false)
        }
        (Body::After, b'\n') => Body::Size(0, false),
        (Body::After, _) => Body::After,
        (Body::Trailer(0), b'\n') => return Ok(None),
        (Body::Trailer(_), b'\n') => Body::Trailer(0),
        (Body::Trailer(length), b'\r') => Body::Trailer(length),
        (Body::Trailer(length), _) if length < HEAD_MAX => Body::Trailer(length + 1),
        _ => return Err("a trailer is too long".into()),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(whole: &str, piece: usize) -> Result<Option<Reply>, String> {
        let mut reader = Http1::default();
        let mut last = None;
        for bytes in whole.as_bytes().chunks(piece) {
            assert!(last.is_none(), "a reply before its end");
            last = reader.feed(bytes)?;
        }
        Ok(last)
    }

    #[test]
    fn replies_end_where_they_end_in_any_pieces() {
        let replies = [
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", 200, false),
            ("HTTP/1.1 503 Busy\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", 503, true),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3;x=1\r\nabc\r\n1f\r\n0123456789012345678901234567890\r\n0\r\n\r\n",
                200,
                false,
            ),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: y\r\n\r\n", 200, false),
            ("HTTP/1.1 204 No Content\r\n\r\n", 204, false),
        ];
        for (text, status, closes) in replies {
            for piece in [1, 2, 7, 30, 1000] {
                assert_eq!(read(text, piece), Ok(Some(Reply { status, closes })), "{text:?} by {piece}");
            }
        }
    }

    #[test]
    fn what_is_no_reply_is_an_error() {
        for text in [
            "HTTP/2 what\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nab",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        ] {
            assert!(read(text, 1000).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_reply_without_a_length_ends_with_the_connection() {
        let mut reader = Http1::default();
        assert_eq!(reader.feed(b"HTTP/1.0 200 OK\r\n\r\nabc"), Ok(None));
        assert_eq!(reader.ended(), Some(Reply { status: 200, closes: true }));
    }
}
