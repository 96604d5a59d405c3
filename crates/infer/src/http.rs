//! HTTP/1.1 messages: request heads, chunked bodies, reply heads.
//!
//! Pure functions over bytes. What proxies and servers may read differently (two lengths, a length beside
//! chunks) is refused, because such requests are how one client's bytes become another's request.
//!
//! Not here: sockets (`connection`), paths (`routes`).

use std::mem::MaybeUninit;
use std::time::Duration;

use crate::events::Mode;
use crate::observe::Parent;

/// Bytes of a request's head, at most.
pub(crate) const HEAD_BYTES_MAX: usize = 32 << 10;
const HEADERS_MAX: usize = 64;

/// How a body's end is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// By its length.
    Length(usize),
    /// By chunks.
    Chunked,
}

/// A parsed head. `path` is a range of the buffer, so that the buffer can be moved on meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) verb: Verb,
    pub(crate) path: std::ops::Range<usize>,
    /// What follows the path's question mark.
    pub(crate) query: std::ops::Range<usize>,
    /// Bytes of the head.
    pub(crate) len: usize,
    pub(crate) framing: Framing,
    pub(crate) keep_alive: bool,
    /// The client waits for `100 Continue` before it sends the body.
    pub(crate) expects_continue: bool,
    /// What a protocol may want to know.
    pub(crate) meta: Meta,
}

/// What the headers say that is none of HTTP's own business.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Meta {
    /// How the body is compressed.
    pub(crate) encoding: Encoding,
    /// The client reads gzip.
    pub(crate) takes_gzip: bool,
    /// `Inference-Header-Content-Length`: bytes of JSON at the front of a body with binary tensors.
    pub(crate) json_len: Option<usize>,
    /// The content type is `application/octet-stream`.
    pub(crate) is_octets: bool,
    /// How long an answer is of use to the client.
    pub(crate) timeout: Option<Duration>,
    /// How the request carries a CloudEvent.
    pub(crate) event: Mode,
    /// The trace that the request belongs to.
    pub(crate) parent: Option<Parent>,
}

/// The coding of a body.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Encoding {
    #[default]
    Identity,
    Gzip,
    Deflate,
    /// One that is not read.
    Unknown,
}

/// The methods that matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Get,
    Head,
    Post,
    Options,
    Other,
}

/// What a buffer begins with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// A whole head.
    Head(Head),
    /// The beginning of one.
    Partial,
    /// Something else: answer with this status and close.
    Refused(u16, &'static str),
}

/// Parses a request's head.
pub(crate) fn parse_head(buffer: &[u8]) -> Parsed {
    let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut []);
    let len = match request.parse_with_uninit_headers(buffer, &mut headers) {
        Ok(httparse::Status::Complete(len)) if len <= HEAD_BYTES_MAX => len,
        Ok(httparse::Status::Partial) if buffer.len() < HEAD_BYTES_MAX => return Parsed::Partial,
        Ok(_) | Err(httparse::Error::TooManyHeaders) => {
            return Parsed::Refused(431, "the request's head is too large");
        }
        Err(httparse::Error::Version) => {
            return Parsed::Refused(505, "only HTTP/1.0 and HTTP/1.1 are served here");
        }
        Err(_) => return Parsed::Refused(400, "malformed HTTP request"),
    };
    let target = request.path.unwrap_or_default();
    let start = target.as_ptr().addr() - buffer.as_ptr().addr();
    let path = path_of(target, start);
    // An empty range where there is no question mark.
    let query = (path.end + 1).min(start + target.len())..start + target.len();
    let mut head = Head {
        verb: match request.method {
            Some("GET") => Verb::Get,
            Some("POST") => Verb::Post,
            Some("HEAD") => Verb::Head,
            Some("OPTIONS") => Verb::Options,
            _ => Verb::Other,
        },
        path,
        query,
        len,
        framing: Framing::Length(0),
        keep_alive: request.version == Some(1),
        expects_continue: false,
        meta: Meta::default(),
    };
    match apply_headers(&mut head, request.headers) {
        Ok(()) => Parsed::Head(head),
        Err((status, why)) => Parsed::Refused(status, why),
    }
}

/// The path within the target: without the query, and without scheme and host of the absolute form.
fn path_of(target: &str, start: usize) -> std::ops::Range<usize> {
    let absolute = target.strip_prefix("http://").or_else(|| target.strip_prefix("https://"));
    let skipped = match absolute {
        Some(rest) => target.len() - rest.len() + rest.find('/').unwrap_or(rest.len()),
        None => 0,
    };
    let path = &target[skipped..];
    let end = path.find(['?', '#']).unwrap_or(path.len());
    start + skipped..start + skipped + end
}

fn apply_headers(head: &mut Head, headers: &[httparse::Header<'_>]) -> Result<(), (u16, &'static str)> {
    let mut length: Option<usize> = None;
    let mut chunked = false;
    for header in headers {
        let value = header.value.trim_ascii();
        if header.name.eq_ignore_ascii_case("content-length") {
            match (number(value), length) {
                (Some(number), None) => length = Some(number),
                (Some(number), Some(before)) if number == before => {}
                _ => return Err((400, "malformed content-length")),
            }
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            if chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err((501, "only the transfer coding chunked is known"));
            }
            chunked = true;
        } else if header.name.eq_ignore_ascii_case("connection") {
            for token in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                if token.eq_ignore_ascii_case(b"close") {
                    head.keep_alive = false;
                } else if token.eq_ignore_ascii_case(b"keep-alive") {
                    head.keep_alive = true;
                }
            }
        } else if header.name.eq_ignore_ascii_case("expect") {
            head.expects_continue = value.eq_ignore_ascii_case(b"100-continue");
        } else {
            apply_meta(&mut head.meta, header.name, value)?;
        }
    }
    head.framing = match (length, chunked) {
        (Some(_), true) => return Err((400, "content-length beside chunks")),
        (None, true) => Framing::Chunked,
        (length, false) => Framing::Length(length.unwrap_or(0)),
    };
    Ok(())
}

/// The headers that protocols know. Names are told apart by their length first: most headers are none of them.
fn apply_meta(meta: &mut Meta, name: &str, value: &[u8]) -> Result<(), (u16, &'static str)> {
    let is = |known: &str| name.eq_ignore_ascii_case(known);
    match name.len() {
        11 if is("traceparent") => meta.parent = Parent::parse(value),
        12 if is("content-type") => {
            let kind = value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
            meta.is_octets = kind.eq_ignore_ascii_case(b"application/octet-stream");
            if kind.eq_ignore_ascii_case(b"application/cloudevents+json") {
                meta.event = Mode::Structured;
            }
        }
        12 if is("grpc-timeout") => {
            meta.timeout = std::str::from_utf8(value).ok().and_then(codecs::grpc::frame::timeout);
        }
        14 if is("ce-specversion") && meta.event == Mode::None => meta.event = Mode::Binary,
        15 if is("accept-encoding") => {
            let mut codings = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
            meta.takes_gzip = codings.any(|coding| {
                coding.get(..4).is_some_and(|name| name.eq_ignore_ascii_case(b"gzip"))
                    && !coding.ends_with(b"q=0")
            });
        }
        16 if is("content-encoding") => {
            meta.encoding = match value {
                _ if value.eq_ignore_ascii_case(b"gzip") || value.eq_ignore_ascii_case(b"x-gzip") => {
                    Encoding::Gzip
                }
                _ if value.eq_ignore_ascii_case(b"deflate") => Encoding::Deflate,
                _ if value.eq_ignore_ascii_case(b"identity") => Encoding::Identity,
                _ => Encoding::Unknown,
            };
        }
        30 if is("x-envoy-expected-rq-timeout-ms") => {
            meta.timeout = number(value).map(|ms| Duration::from_millis(ms as u64));
        }
        31 if is("inference-header-content-length") => {
            let len = number(value).ok_or((400, "malformed inference-header-content-length"))?;
            meta.json_len = Some(len);
        }
        _ => {}
    }
    Ok(())
}

fn number(digits: &[u8]) -> Option<usize> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| is_number)?.parse().ok()
}

/// The state of a body that comes in chunks: it is moved to the front of its own buffer as it arrives.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    /// Bytes of the body so far.
    pub(crate) body: Vec<u8>,
    state: ChunkState,
}

#[derive(Debug, Default, Clone, Copy, PartialEq)]
enum ChunkState {
    #[default]
    Size,
    Data(usize),
    DataEnd,
    Trailer,
    Done,
}

impl Chunks {
    /// Takes from `input` what it can and returns how much, and whether the body is whole.
    pub(crate) fn feed(
        &mut self,
        input: &[u8],
        bytes_max: usize,
    ) -> Result<(usize, bool), (u16, &'static str)> {
        let mut at = 0;
        loop {
            let rest = &input[at..];
            match self.state {
                ChunkState::Done => return Ok((at, true)),
                ChunkState::Data(left) => {
                    let count = left.min(rest.len());
                    if self.body.len() + count > bytes_max {
                        return Err((413, "the request's body is too large"));
                    }
                    self.body.extend_from_slice(&rest[..count]);
                    at += count;
                    if count < left {
                        self.state = ChunkState::Data(left - count);
                        return Ok((at, false));
                    }
                    self.state = ChunkState::DataEnd;
                }
                ChunkState::Size | ChunkState::DataEnd | ChunkState::Trailer => {
                    let Some(end) = memchr::memchr(b'\n', rest) else {
                        if rest.len() > 4096 {
                            return Err((400, "malformed chunk"));
                        }
                        return Ok((at, false));
                    };
                    let line = rest[..end].strip_suffix(b"\r").ok_or((400, "malformed chunk"))?;
                    self.state = after_line(self.state, line)?;
                    at += end + 1;
                }
            }
        }
    }
}

fn after_line(state: ChunkState, line: &[u8]) -> Result<ChunkState, (u16, &'static str)> {
    const BAD: (u16, &str) = (400, "malformed chunk");
    match state {
        ChunkState::DataEnd if line.is_empty() => Ok(ChunkState::Size),
        ChunkState::Trailer if line.is_empty() => Ok(ChunkState::Done),
        ChunkState::Trailer => Ok(ChunkState::Trailer),
        ChunkState::Size => {
            let digits = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
            let is_hex = !digits.is_empty() && digits.len() <= 8 && digits.iter().all(u8::is_ascii_hexdigit);
            let text = std::str::from_utf8(digits).ok().filter(|_| is_hex).ok_or(BAD)?;
            match usize::from_str_radix(text, 16).map_err(|_| BAD)? {
                0 => Ok(ChunkState::Trailer),
                size => Ok(ChunkState::Data(size)),
            }
        }
        ChunkState::DataEnd | ChunkState::Data(_) | ChunkState::Done => Err(BAD),
    }
}

/// The words after a status code.
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        408 => "Request Timeout",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        431 => "Request Header Fields Too Large",
        429 => "Too Many Requests",
        499 => "Client Closed Request",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

/// Appends the head of a reply.
pub(crate) fn write_head(
    out: &mut Vec<u8>,
    status: u16,
    kind: &str,
    length: usize,
    close: bool,
    date: &[u8],
    more: &[u8],
) {
    if status == 200 {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\ncontent-type: ");
    } else {
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
        out.push(b' ');
        out.extend_from_slice(reason(status).as_bytes());
        out.extend_from_slice(b"\r\ncontent-type: ");
    }
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\r\ncontent-length: ");
    out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
    out.extend_from_slice(b"\r\ndate: ");
    out.extend_from_slice(date);
    if status == 405 {
        out.extend_from_slice(b"\r\nallow: GET, HEAD, POST");
    }
    out.extend_from_slice(more);
    out.extend_from_slice(if close { b"\r\nconnection: close\r\n\r\n" } else { b"\r\n\r\n" });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Result<(Head, String), (u16, &'static str)> {
        match parse_head(text.as_bytes()) {
            Parsed::Head(head) => {
                let path = text[head.path.clone()].to_owned();
                Ok((head, path))
            }
            Parsed::Partial => Err((0, "partial")),
            Parsed::Refused(status, why) => Err((status, why)),
        }
    }

    #[test]
    fn heads_are_read() {
        let (head_, path) =
            head("POST /v1/models/a:predict?x=1 HTTP/1.1\r\nHost: h\r\nContent-Length: 12\r\n\r\n")
                .expect("legal");
        assert_eq!(
            (head_.verb, path.as_str(), head_.framing),
            (Verb::Post, "/v1/models/a:predict", Framing::Length(12))
        );
        assert!(head_.keep_alive);
        let (head_, path) = head("GET http://h:1/x HTTP/1.0\r\n\r\n").expect("legal");
        assert_eq!((path.as_str(), head_.keep_alive), ("/x", false));
        let (head_, _) = head("GET / HTTP/1.1\r\nConnection: x, Close\r\n\r\n").expect("legal");
        assert!(!head_.keep_alive);
    }

    #[test]
    fn doubtful_heads_are_refused() {
        let long = format!("GET / HTTP/1.1\r\nx: {}\r\n", "y".repeat(HEAD_BYTES_MAX));
        for (text, status) in [
            ("GET / HTTP/1.1\r\nHost: h\r\n", 0),
            ("GET /\r\n\r\n", 400),
            ("\x16\x03\x01 tls hello", 400),
            ("POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
            (long.as_str(), 431),
        ] {
            assert_eq!(head(text).expect_err("refused").0, status, "{}", &text[..text.len().min(60)]);
        }
    }

    #[test]
    fn chunks_join_however_they_are_cut() {
        let wire = b"4\r\nabcd\r\n2;x=y\r\nef\r\n0\r\nTrailer: z\r\n\r\nGET /";
        for cut in 0..wire.len() {
            let mut chunks = Chunks::default();
            let (used, done) = chunks.feed(&wire[..cut], 100).expect("legal");
            if !done {
                let (more, done) = chunks.feed(&wire[used..], 100).expect("legal");
                assert!(done);
                assert_eq!(&wire[used + more..], b"GET /");
            }
            assert_eq!(chunks.body, b"abcdef", "cut at {cut}");
        }
    }

    #[test]
    fn bad_chunks_are_refused() {
        for (wire, status) in [
            (&b"x\r\n"[..], 400),
            (b"\r\n", 400),
            (b"fffffffff\r\n", 400),
            (b"1\r\nab\r\n", 400),
            (b"1\n", 400),
            (b"ffff\r\naaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 413),
        ] {
            assert_eq!(Chunks::default().feed(wire, 50).expect_err("refused").0, status);
        }
    }
}
