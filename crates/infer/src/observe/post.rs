//! Messages posted over plain HTTP/1.1, on a connection that is kept.
//!
//! A general client spends some 30 us of CPU on each message, which is more than most of the calls that are told of.
//! Here a connection writes all that waits at once and reads the answers behind each other. It does so as far as the
//! receiver has shown to be quick: a new connection carries one message at a time, and the number doubles while all are
//! answered in a tenth of a second and is halved where they are not, so that nothing waits long behind a slow one.
//!
//! A message is sent once, and once more only where the connection was closed before its answer began: while it was
//! kept (the receiver had given it up) or behind others. What still has no answer then is lost; whoever sends counts it.
//!
//! Not here: TLS, proxies, passwords in URLs and what an answer points to elsewhere, all of which a general client
//! does (`ship::client`).

use std::collections::VecDeque;
use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use hyper_util::client::proxy::matcher::Matcher;
use tokio::io::{AsyncRead, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::WriteHalf;
use tokio::time::timeout;

use super::answer::{self, Input};

/// Messages that are written before the first of their answers, at most.
const DEPTH_MAX: usize = 128;
/// That many answers are left to gather for a while, because to be woken by each costs more than to read it.
const REST_FROM: usize = 8;
const REST: Duration = Duration::from_millis(10);
/// A receiver that answers what it got at once in that time is quick.
pub(super) const QUICK: Duration = Duration::from_millis(100);
/// Bytes of a body that are copied beside its head; a larger one is written from where it lies.
const COPY_MAX: usize = 16 << 10;
/// A connection that was kept for longer may be gone without a word.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// Where messages go.
#[derive(Debug)]
pub(super) struct Target {
    host: String,
    port: u16,
    /// How each message begins.
    begin: Vec<u8>,
}

impl Target {
    /// Where this URL can be posted to without more than TCP and HTTP.
    pub(super) fn of(url: &str) -> Option<Self> {
        let url = reqwest::Url::parse(url).ok()?;
        let is_plain = url.scheme() == "http" && url.username().is_empty() && url.password().is_none();
        let is_proxied = Matcher::from_env().intercept(&url.as_str().parse().ok()?).is_some();
        if !is_plain || is_proxied {
            return None;
        }
        let host = url.host_str()?;
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
        let path = url.path();
        let begin = format!(
            "POST {path}{query} HTTP/1.1\r\nhost: {host}{port}\r\nuser-agent: slipway\r\naccept: */*\r\n"
        );
        Some(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: url.port_or_known_default()?,
            begin: begin.into_bytes(),
        })
    }
}

/// A message's own part.
pub(super) trait Message {
    /// Appends its headers, each as `name: value\r\n`.
    fn put_headers(&self, out: &mut Vec<u8>);
    /// Its body.
    fn body(&self) -> &[u8];
}

/// The status of the answer, or why there is none.
pub(super) type Outcome = Result<u16, String>;

/// How a round of messages ended.
pub(super) enum End {
    /// All were answered and the connection stays.
    Open,
    /// The receiver takes no more on this connection; what was not answered was not looked at.
    Closes,
    /// There is no answer, and no more will come.
    Lost {
        why: String,
        /// It was closed before anything of the answer came.
        is_silent: bool,
    },
}

/// A connection, its buffers, and how much it carries at once.
#[derive(Debug)]
pub(super) struct Line {
    /// How long an answer may take.
    patience: Duration,
    /// A receiver that answers a round in that time is quick.
    quick: Duration,
    kept: Option<(TcpStream, Instant)>,
    depth: usize,
    out: Vec<u8>,
    input: Input,
    answers: Vec<u16>,
}

impl Line {
    /// One that connects when there is something to send.
    pub(super) fn new(patience: Duration, quick: Duration) -> Self {
        Self {
            patience,
            quick,
            kept: None,
            depth: 1,
            out: Vec::new(),
            input: Input::default(),
            answers: Vec::new(),
        }
    }

    /// How many messages it writes at once.
    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    /// Sends all messages of a batch and says what became of each.
    pub(super) async fn send<M: Message>(
        &mut self,
        target: &Target,
        batch: &mut VecDeque<M>,
        outcomes: &mut Vec<(M, Outcome)>,
    ) {
        // So many at the front were sent before.
        let mut repeated = 0;
        while !batch.is_empty() {
            let (stream, is_kept) = match self.connection(target).await {
                Ok(connection) => connection,
                Err(why) => {
                    outcomes.extend(batch.drain(..).map(|message| (message, Err(why.clone()))));
                    return;
                }
            };
            let count = batch.len().min(self.depth);
            let begun = Instant::now();
            let (stream, end) = self.round(stream, target, batch, count).await;
            let answered = self.answers.len();
            outcomes.extend(batch.drain(..answered).zip(self.answers.drain(..).map(Ok)));
            repeated = usize::saturating_sub(repeated, answered);
            match end {
                End::Open => {
                    let now = Instant::now();
                    let is_quick = now.duration_since(begun) < self.quick;
                    self.depth =
                        if is_quick { (count * 2).clamp(self.depth, DEPTH_MAX) } else { count.div_ceil(2) };
                    self.kept = stream.map(|stream| (stream, now));
                }
                End::Closes => {}
                End::Lost { why, is_silent } => {
                    let unanswered = count - answered;
                    let first = usize::from(!(is_kept && is_silent));
                    let lost = repeated.min(unanswered).max(first);
                    repeated = repeated.max(unanswered) - lost;
                    outcomes.extend(batch.drain(..lost).map(|message| (message, Err(why.clone()))));
                }
            }
        }
    }

    /// The kept connection, where it is still good, or a new one; and which of the two.
    async fn connection(&mut self, target: &Target) -> Result<(TcpStream, bool), String> {
        if let Some((stream, since)) = self.kept.take()
            && since.elapsed() < IDLE_MAX
            && is_quiet(&stream)
        {
            return Ok((stream, true));
        }
        self.depth = 1;
        self.input.clear();
        let stream = timeout(self.patience, TcpStream::connect((target.host.as_str(), target.port))).await;
        let stream = stream.map_err(|_| format!("no connection after {:?}", self.patience))?;
        let stream = stream.map_err(|error| format!("cannot connect: {error}"))?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        Ok((stream, false))
    }

    /// Writes the first `count` messages and reads their answers.
    async fn round<M: Message>(
        &mut self,
        mut stream: TcpStream,
        target: &Target,
        batch: &VecDeque<M>,
        count: usize,
    ) -> (Option<TcpStream>, End) {
        let mut end = self.write_and_read(&mut stream, target, batch, count).await;
        if end.is_none() && count >= REST_FROM {
            match rested(stream).await {
                Ok(same) => stream = same,
                Err(error) => return (None, End::Lost { why: error.to_string(), is_silent: false }),
            }
        }
        if end.is_none() {
            let answers = &mut self.answers;
            end = Some(read_answers(&mut stream, &mut self.input, count, self.patience, answers).await);
        }
        (Some(stream), end.unwrap_or(End::Closes))
    }

    /// Writes, and reads where the receiver does not take all at once, so that neither waits for the other. `None`: all
    /// is written and nothing was read.
    async fn write_and_read<M: Message>(
        &mut self,
        stream: &mut TcpStream,
        target: &Target,
        batch: &VecDeque<M>,
        count: usize,
    ) -> Option<End> {
        let (mut read, mut write) = stream.split();
        let mut writing = pin!(write_all(&mut write, &mut self.out, target, batch.iter().take(count)));
        let at_once = futures::poll!(writing.as_mut());
        if matches!(at_once, Poll::Ready(Ok(()))) {
            return None;
        }
        let (patience, answers) = (self.patience, &mut self.answers);
        let mut reading = pin!(read_answers(&mut read, &mut self.input, count, patience, answers));
        let is_written = match at_once {
            Poll::Ready(_) => false,
            Poll::Pending => tokio::select! {
                biased;
                written = writing => written.is_ok(),
                // Answered before it was heard to the end: what comes next would be taken for the rest.
                end = &mut reading => return Some(end.closing()),
            },
        };
        // From here on it is read to its end: half an answer may be behind it. Where not all is written, the receiver
        // may have said why it closes.
        let end = reading.await;
        Some(if is_written { end } else { end.closing() })
    }
}

/// Lets answers gather. Meanwhile the event loop does not look at the connection: it would be woken by each.
async fn rested(stream: TcpStream) -> io::Result<TcpStream> {
    let stream = stream.into_std()?;
    tokio::time::sleep(REST).await;
    TcpStream::from_std(stream)
}

impl End {
    fn closing(self) -> Self {
        match self {
            Self::Open => Self::Closes,
            other => other,
        }
    }
}

/// Whether the receiver has neither closed the connection nor said anything that nobody asked for.
fn is_quiet(stream: &TcpStream) -> bool {
    matches!(stream.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

async fn write_all<'m, M: Message + 'm>(
    write: &mut WriteHalf<'_>,
    out: &mut Vec<u8>,
    target: &Target,
    messages: impl Iterator<Item = &'m M>,
) -> io::Result<()> {
    out.clear();
    for message in messages {
        let body = message.body();
        out.extend_from_slice(&target.begin);
        message.put_headers(out);
        out.extend_from_slice(b"content-length: ");
        out.extend_from_slice(itoa::Buffer::new().format(body.len()).as_bytes());
        out.extend_from_slice(b"\r\n\r\n");
        if body.len() <= COPY_MAX {
            out.extend_from_slice(body);
        } else {
            write.write_all(out).await?;
            out.clear();
            write.write_all(body).await?;
        }
    }
    write.write_all(out).await
}

async fn read_answers(
    read: &mut (impl AsyncRead + Unpin),
    input: &mut Input,
    count: usize,
    patience: Duration,
    answers: &mut Vec<u16>,
) -> End {
    while answers.len() < count {
        match timeout(patience, answer::read(read, input)).await {
            Ok(Ok((status, keeps))) => {
                answers.push(status);
                if !keeps {
                    return End::Closes;
                }
            }
            Ok(Err(end)) => return end,
            Err(_) => return End::Lost { why: format!("no answer after {patience:?}"), is_silent: false },
        }
    }
    // What nobody asked for would be taken for the next answer.
    if input.is_empty() { End::Open } else { End::Closes }
}

#[cfg(test)]
mod tests;
