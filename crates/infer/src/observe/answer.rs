//! Answers to messages, as far as the sender of messages looks at them: the status, where the answer ends, and whether
//! the connection stays.
//!
//! Bodies are passed over. One that is very long, or ends with the connection, is not waited for: its status is known.
//!
//! Not here: requests (`http`, `connection`), sending (`post`).

use tokio::io::{AsyncRead, AsyncReadExt};

use super::post::End;
use crate::http::Chunks;

/// Bytes of an answer's head, at most.
const HEAD_MAX: usize = 16 << 10;
/// Bytes of an answer's body that are passed over for the connection's sake.
const BODY_MAX: usize = 1 << 20;
const HEADERS_MAX: usize = 64;

/// What came and was not looked at.
#[derive(Debug, Default)]
pub(super) struct Input {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Input {
    pub(super) fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    fn rest(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Reads more; false where nothing more will come.
    async fn fill(&mut self, read: &mut (impl AsyncRead + Unpin)) -> std::io::Result<bool> {
        if self.bytes.is_empty() {
            self.bytes.resize(HEAD_MAX, 0);
        }
        if self.is_empty() || self.end == self.bytes.len() {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let count = read.read(&mut self.bytes[self.end..]).await?;
        self.end += count;
        Ok(count > 0)
    }

    fn is_full(&self) -> bool {
        self.end - self.start == HEAD_MAX
    }
}

/// How an answer's body is told from what follows.
#[derive(Debug, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunked,
    /// By the connection's end.
    Open,
}

/// An answer's head.
#[derive(Debug)]
struct Head {
    status: u16,
    keeps: bool,
    framing: Framing,
    len: usize,
}

/// The status of the next answer, and whether the connection stays open behind it.
///
/// # Errors
/// How it ended instead.
pub(super) async fn read(read: &mut (impl AsyncRead + Unpin), input: &mut Input) -> Result<(u16, bool), End> {
    let mut has_begun = false;
    loop {
        let lost = |why: &str| End::Lost { why: why.to_owned(), is_silent: false };
        let parsed = parse(input.rest()).map_err(|error| lost(&format!("no legal HTTP answer: {error}")))?;
        let Some(head) = parsed else {
            if input.is_full() {
                return Err(lost("the answer's head is too long"));
            }
            let is_silent = !has_begun && input.is_empty();
            match input.fill(read).await {
                Ok(true) => continue,
                Ok(false) => {
                    return Err(End::Lost { why: "closed before an answer".into(), is_silent });
                }
                Err(error) => return Err(End::Lost { why: error.to_string(), is_silent }),
            }
        };
        input.start += head.len;
        has_begun = true;
        match head.status {
            101 => return Err(lost("the receiver wants another protocol")),
            100..200 => {}
            status => return Ok((status, head.keeps && pass(read, input, &head.framing).await)),
        }
    }
}

/// The head, where it is whole.
fn parse(bytes: &[u8]) -> Result<Option<Head>, httparse::Error> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(len) = response.parse(bytes)? else { return Ok(None) };
    let status = response.code.unwrap_or_default();
    let (mut keeps, mut is_clear) = (response.version == Some(1), true);
    let mut framing = if matches!(status, 204 | 304) { Framing::Length(0) } else { Framing::Open };
    let has_body = framing == Framing::Open;
    for header in response.headers.iter() {
        let has = |word: &str| {
            let mut words = header.value.split(|byte| *byte == b',');
            words.any(|own| own.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
        };
        if header.name.eq_ignore_ascii_case("connection") {
            keeps = (keeps || has("keep-alive")) && !has("close");
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") && has_body {
            // It outweighs a length, and what is coded otherwise ends with the connection.
            framing = if has("chunked") { Framing::Chunked } else { Framing::Open };
            is_clear &= framing == Framing::Chunked;
        } else if header.name.eq_ignore_ascii_case("content-length") && has_body {
            let length = std::str::from_utf8(header.value).ok().and_then(|text| text.trim().parse().ok());
            let length = length.map(Framing::Length).ok_or(httparse::Error::HeaderValue)?;
            let is_other = framing != Framing::Open && framing != length;
            is_clear &= !is_other;
            framing = if is_other { framing } else { length };
        }
    }
    Ok(Some(Head { status, keeps: keeps && is_clear, framing, len }))
}

/// Passes over a body; whether its end was found.
async fn pass(read: &mut (impl AsyncRead + Unpin), input: &mut Input, framing: &Framing) -> bool {
    let mut left = match framing {
        Framing::Open => return false,
        Framing::Chunked => return pass_chunks(read, input).await,
        Framing::Length(length) if *length > BODY_MAX as u64 => return false,
        Framing::Length(length) => *length as usize,
    };
    loop {
        let count = left.min(input.end - input.start);
        input.start += count;
        left -= count;
        if left == 0 {
            return true;
        }
        if !matches!(input.fill(read).await, Ok(true)) {
            return false;
        }
    }
}

async fn pass_chunks(read: &mut (impl AsyncRead + Unpin), input: &mut Input) -> bool {
    let mut chunks = Chunks::default();
    loop {
        let Ok((used, is_whole)) = chunks.feed(input.rest(), BODY_MAX) else { return false };
        input.start += used;
        if is_whole {
            return true;
        }
        if input.is_full() || !matches!(input.fill(read).await, Ok(true)) {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_say_where_the_answer_ends_and_whether_the_connection_stays() {
        let check = |head: &str, framing: Framing, keeps: bool| {
            let text = format!("HTTP/1.{head}\r\n\r\n");
            let head = parse(text.as_bytes()).expect(&text).expect("whole");
            assert_eq!((head.framing, head.keeps, head.len), (framing, keeps, text.len()), "{text}");
        };
        check("1 200 OK\r\ncontent-length: 3", Framing::Length(3), true);
        check("1 200 OK\r\nContent-Length: 3\r\nConnection: Close", Framing::Length(3), false);
        check("1 200 OK\r\nconnection: x, close\r\ncontent-length: 0", Framing::Length(0), false);
        check("0 200 OK\r\ncontent-length: 3", Framing::Length(3), false);
        check("0 200 OK\r\ncontent-length: 3\r\nconnection: keep-alive", Framing::Length(3), true);
        check("1 200 OK\r\ntransfer-encoding: chunked", Framing::Chunked, true);
        check("1 200 OK\r\ntransfer-encoding: gzip\r\nconnection: keep-alive", Framing::Open, false);
        check("1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4", Framing::Length(3), false);
        check("1 204 No Content\r\ncontent-length: 9", Framing::Length(0), true);
        check("1 200 OK", Framing::Open, true);
        assert!(parse(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n").expect("legal").is_none());
        assert!(parse(b"HTTP/1.1 200 OK\r\ncontent-length: -3\r\n\r\n").is_err());
        assert!(parse(b"SSH-2.0-x\r\n\r\n").is_err());
    }
}
