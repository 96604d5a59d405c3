//! A blocking HTTP/1.1 client, as large as the artifact face needs.
//!
//! One connection a request (`Connection: close`): on the cluster's own network that costs 0.1 ms, and leaves no
//! connection state to get wrong. Bodies stream both ways. A server that is away (it may be starting
//! again while the step runs on) is asked again for [`RETRY_FOR`]; an answer that says no is final.
//! No TLS, no proxies, no redirects.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use pod_protocol::launch;

use super::names;

/// How long a request is repeated while the server is away.
const RETRY_FOR: Duration = Duration::from_secs(300);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const IO_TIMEOUT: Duration = Duration::from_secs(60);
const HEAD_BYTES_MAX: u64 = 64 * 1024;
const TOKEN_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// The artifact face.
pub struct Client {
    host: String,
    port: u16,
    prefix: String,
    /// A setting that cannot work, told when it is first needed.
    broken: Option<String>,
}

/// What is sent.
pub enum Body<'a> {
    Empty,
    Bytes(&'a [u8]),
    /// Written by the function, anew for each attempt; chunked when the length is not known.
    Stream(Option<u64>, &'a dyn Fn(&mut dyn Write) -> io::Result<()>),
}

/// A failed request.
#[derive(Debug)]
pub struct Error {
    /// HTTP status when the server answered.
    pub status: Option<u16>,
    pub text: String,
    retry: bool,
}

impl Error {
    fn final_(text: impl Into<String>) -> Self {
        Self { status: None, text: text.into(), retry: false }
    }
}

/// An answer with a status of 2xx.
pub struct Response {
    pub body: Box<dyn Read>,
}

impl Client {
    /// From `SLIPWAY_ARTIFACTS_URL`; none when it is not set.
    pub fn from_env() -> Option<Self> {
        let url = std::env::var(launch::ARTIFACTS_URL_ENV).ok().filter(|url| !url.is_empty())?;
        Some(Self::parse(&url))
    }

    fn parse(url: &str) -> Self {
        let broken =
            |text: String| Self { host: String::new(), port: 0, prefix: String::new(), broken: Some(text) };
        let Some(rest) = url.strip_prefix("http://") else {
            return broken(format!("{}=`{url}`: expected http://HOST:PORT", launch::ARTIFACTS_URL_ENV));
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse::<u16>()),
            _ => (authority, Ok(80)),
        };
        let Ok(port) = port else {
            return broken(format!("{}=`{url}`: the port is no number", launch::ARTIFACTS_URL_ENV));
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let path = path.trim_end_matches('/');
        let prefix = if path.is_empty() { String::new() } else { format!("/{path}") };
        Self { host, port, prefix, broken: None }
    }

    /// Sends a request and hands the answer to `take`; both again when the connection breaks on the way.
    pub fn call<T>(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &Body<'_>,
        take: &mut dyn FnMut(Response) -> io::Result<T>,
    ) -> Result<T, Error> {
        if let Some(text) = &self.broken {
            return Err(Error::final_(text.clone()));
        }
        let give_up_at = Instant::now() + RETRY_FOR;
        let mut pause = Duration::from_millis(25);
        loop {
            let error = match self.once(method, path, headers, body) {
                Ok(response) => match take(response) {
                    Ok(value) => return Ok(value),
                    Err(error) => broken_off(method, path, &error),
                },
                Err(error) => error,
            };
            if !error.retry || Instant::now() + pause > give_up_at {
                return Err(error);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }

    fn once(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &Body<'_>,
    ) -> Result<Response, Error> {
        let told = |e: &io::Error| broken_off(method, path, e);
        let stream = self.connect().map_err(|e| told(&e))?;
        let sent = self.write_request(&stream, method, path, headers, body);
        if let Err(error) = &sent
            && !is_connection(error)
        {
            // Reading what was to be sent failed: asking again does not help.
            return Err(Error::final_(format!("{method} {path}: {error}")));
        }
        // A server that refuses answers before it has read all; its word counts more than the broken pipe.
        let response = read_response(stream, method);
        let (status, response) = match (response, sent) {
            (Ok(response), _) => response,
            (Err(_), Err(error)) | (Err(error), Ok(())) => return Err(told(&error)),
        };
        if (200..300).contains(&status) {
            return Ok(response);
        }
        let mut text = String::new();
        let _ = response.body.take(500).read_to_string(&mut text);
        // 507: the store is full; 501: never. The rest of 5xx is a server on its way up or down.
        let retry = matches!(status, 429 | 500 | 502 | 503 | 504);
        Err(Error {
            status: Some(status),
            text: format!("{method} {path} was answered {status}: {}", text.trim()),
            retry,
        })
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let mut last = None;
        for address in names::resolve(&self.host)? {
            match TcpStream::connect_timeout(&(address, self.port).into(), CONNECT_TIMEOUT) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(IO_TIMEOUT))?;
                    stream.set_write_timeout(Some(IO_TIMEOUT))?;
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the host has no address")))
    }

    fn write_request(
        &self,
        stream: &TcpStream,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &Body<'_>,
    ) -> io::Result<()> {
        let mut out = io::BufWriter::with_capacity(256 * 1024, stream);
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        write!(
            out,
            "{method} {}{path} HTTP/1.1\r\nhost: {host}:{}\r\nconnection: close\r\n",
            self.prefix, self.port
        )?;
        // Read for each request: the token is renewed while long steps run.
        if let Ok(token) = std::fs::read_to_string(TOKEN_FILE) {
            write!(out, "authorization: Bearer {}\r\n", token.trim())?;
        }
        for (name, value) in headers {
            write!(out, "{name}: {value}\r\n")?;
        }
        match body {
            Body::Empty => out.write_all(b"content-length: 0\r\n\r\n")?,
            Body::Bytes(bytes) => {
                write!(out, "content-length: {}\r\n\r\n", bytes.len())?;
                out.write_all(bytes)?;
            }
            Body::Stream(Some(length), write) => {
                write!(out, "content-length: {length}\r\n\r\n")?;
                write(&mut out)?;
            }
            Body::Stream(None, write) => {
                out.write_all(b"transfer-encoding: chunked\r\n\r\n")?;
                let mut chunks = io::BufWriter::with_capacity(64 * 1024, Chunks(&mut out));
                write(&mut chunks)?;
                chunks.flush()?;
                drop(chunks);
                out.write_all(b"0\r\n\r\n")?;
            }
        }
        out.flush()
    }
}

fn broken_off(method: &str, path: &str, error: &io::Error) -> Error {
    Error { status: None, text: format!("{method} {path}: {error}"), retry: is_connection(error) }
}

/// Whether an error is the connection's, not a local file's.
fn is_connection(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(
        error.kind(),
        K::ConnectionRefused
            | K::ConnectionReset
            | K::ConnectionAborted
            | K::BrokenPipe
            | K::NotConnected
            | K::TimedOut
            | K::WouldBlock
            | K::UnexpectedEof
            | K::HostUnreachable
            | K::NetworkUnreachable
            | K::AddrNotAvailable
    )
}

struct Chunks<'a, W: Write>(&'a mut W);

impl<W: Write> Write for Chunks<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !bytes.is_empty() {
            write!(self.0, "{:x}\r\n", bytes.len())?;
            self.0.write_all(bytes)?;
            self.0.write_all(b"\r\n")?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn bad(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

fn read_response(stream: TcpStream, method: &str) -> io::Result<(u16, Response)> {
    let mut reader = BufReader::with_capacity(256 * 1024, stream);
    loop {
        let (status, headers) = read_head(&mut reader)?;
        if (100..200).contains(&status) {
            continue;
        }
        let header =
            |name: &str| headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let chunked =
            header("transfer-encoding").is_some_and(|value| value.to_ascii_lowercase().contains("chunked"));
        let length = header("content-length").and_then(|value| value.parse::<u64>().ok());
        let body: Box<dyn Read> = match length {
            _ if method == "HEAD" || status == 204 => Box::new(io::empty()),
            _ if chunked => Box::new(Dechunk { reader, left: 0, done: false, first: true }),
            Some(length) => Box::new(Exactly { reader, left: length }),
            None => Box::new(reader),
        };
        return Ok((status, Response { body }));
    }
}

type Head = (u16, Vec<(String, String)>);

fn read_head(reader: &mut BufReader<TcpStream>) -> io::Result<Head> {
    let mut head = reader.take(HEAD_BYTES_MAX);
    let mut line = String::new();
    head.read_line(&mut line)?;
    if line.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection"));
    }
    let status =
        line.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(|| bad("no HTTP answer"))?;
    let mut headers = Vec::new();
    loop {
        line.clear();
        if head.read_line(&mut line)? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the answer's head is cut"));
        }
        let text = line.trim_end();
        if text.is_empty() {
            return Ok((status, headers));
        }
        let (name, value) = text.split_once(':').ok_or_else(|| bad("a header without `:`"))?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

/// A body of known length: an early end is an error, not a short file.
struct Exactly {
    reader: BufReader<TcpStream>,
    left: u64,
}

impl Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 || buffer.is_empty() {
            return Ok(0);
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.reader.read(&mut buffer[..most])?;
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the body is cut"));
        }
        self.left -= count as u64;
        Ok(count)
    }
}

struct Dechunk {
    reader: BufReader<TcpStream>,
    left: u64,
    done: bool,
    first: bool,
}

impl Dechunk {
    fn next_chunk(&mut self) -> io::Result<()> {
        let mut line = String::new();
        if !self.first {
            (&mut self.reader).take(16).read_line(&mut line)?;
            line.clear();
        }
        self.first = false;
        if (&mut self.reader).take(1024).read_line(&mut line)? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the body is cut"));
        }
        let size = line.trim_end().split(';').next().unwrap_or("");
        self.left = u64::from_str_radix(size.trim(), 16).map_err(|_| bad("a chunk without size"))?;
        self.done = self.left == 0;
        Ok(())
    }
}

impl Read for Dechunk {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && !self.done {
            self.next_chunk()?;
        }
        if self.done || buffer.is_empty() {
            return Ok(0);
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.reader.read(&mut buffer[..most])?;
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the body is cut"));
        }
        self.left -= count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_http_addresses_are_taken() {
        let client = Client::parse("http://127.42.0.1:7889/base/");
        assert_eq!(
            (client.host.as_str(), client.port, client.prefix.as_str()),
            ("127.42.0.1", 7889, "/base")
        );
        let client = Client::parse("http://[::1]:80");
        assert_eq!((client.host.as_str(), client.port), ("::1", 80));
        assert!(Client::parse("https://x").broken.is_some());
        assert!(Client::parse("http://x:y").broken.is_some());
    }
}
