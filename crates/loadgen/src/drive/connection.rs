//! One connection: a socket, what is still to be written, and the reader of its protocol.
//!
//! Not here: which request goes where (`drive`).

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::event::epoll::EventFlags;
use socket2::{Domain, Protocol, Socket, Type};

use crate::http1::Http1;
use crate::http2::{Grpc, Outcome};
use crate::plan::Requests;
use crate::target::Target;

/// Bytes of the first answer that a person gets to see.
const SAMPLE: usize = 400;

/// A request under way: when it was due and when it was sent, in nanoseconds since the start.
#[derive(Debug, Clone, Copy)]
pub(super) struct Given {
    pub(super) due: u64,
    pub(super) sent: u64,
}

/// What came of reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    Nothing,
    /// Answers lie in `done`.
    Done {
        closes: bool,
    },
}

enum Wire {
    Http1 { reader: Box<Http1>, under_way: Option<Given> },
    Grpc { calls: Box<Grpc>, under_way: HashMap<u64, Given>, next: u64 },
}

pub(super) struct Connection {
    socket: TcpStream,
    wire: Wire,
    out: Vec<u8>,
    written: usize,
    is_open: bool,
    /// What epoll looks at.
    flags: EventFlags,
    /// Whether it is among those that can take a request.
    pub(super) is_idle: bool,
    /// Requests that are over.
    pub(super) done: Vec<(Given, Outcome)>,
}

impl Connection {
    /// Connects and waits for it.
    pub(super) fn open(target: &Target, requests: &Requests, patience: Duration) -> std::io::Result<Self> {
        let socket = TcpStream::connect_timeout(&target.address, patience)?;
        socket.set_nonblocking(true)?;
        Self::of(socket, requests, true)
    }

    /// Begins to connect.
    pub(super) fn opening(target: &Target, requests: &Requests) -> std::io::Result<Self> {
        let domain = match target.address {
            SocketAddr::V4(_) => Domain::IPV4,
            SocketAddr::V6(_) => Domain::IPV6,
        };
        let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        match socket.connect(&target.address.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
            Err(error) => return Err(error),
        }
        Self::of(socket.into(), requests, false)
    }

    fn of(socket: TcpStream, requests: &Requests, is_open: bool) -> std::io::Result<Self> {
        socket.set_nodelay(true)?;
        let mut out = Vec::new();
        let wire = match requests {
            Requests::Http1(_) => {
                let reader = Http1::keeping(SAMPLE);
                Wire::Http1 { reader: Box::new(reader), under_way: None }
            }
            Requests::Grpc { path, authority, .. } => {
                let calls = Grpc::new(path, authority, &mut out);
                Wire::Grpc { calls: Box::new(calls), under_way: HashMap::new(), next: 0 }
            }
        };
        let flags = if is_open { EventFlags::IN } else { EventFlags::OUT };
        Ok(Self { socket, wire, out, written: 0, is_open, flags, is_idle: false, done: Vec::new() })
    }

    pub(super) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    pub(super) fn under_way(&self) -> usize {
        match &self.wire {
            Wire::Http1 { under_way, .. } => usize::from(under_way.is_some()),
            Wire::Grpc { calls, .. } => calls.under_way(),
        }
    }

    /// Whether it could take another request.
    pub(super) fn is_usable(&self) -> bool {
        match &self.wire {
            Wire::Http1 { under_way, .. } => under_way.is_none(),
            Wire::Grpc { calls, .. } => !calls.is_closing,
        }
    }

    pub(super) fn unanswered(&self) -> Vec<Given> {
        match &self.wire {
            Wire::Http1 { under_way, .. } => under_way.iter().copied().collect(),
            Wire::Grpc { under_way, .. } => under_way.values().copied().collect(),
        }
    }

    /// When the oldest request under way was sent.
    pub(super) fn oldest(&self) -> Option<u64> {
        match &self.wire {
            Wire::Http1 { under_way, .. } => under_way.map(|given| given.sent),
            Wire::Grpc { under_way, .. } => under_way.values().map(|given| given.sent).min(),
        }
    }

    /// The start of the first body, as text.
    pub(super) fn take_sample(&mut self) -> Option<String> {
        match &mut self.wire {
            Wire::Http1 { reader, .. } => {
                reader.sample.take().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            }
            Wire::Grpc { .. } => None,
        }
    }

    /// Puts a request into what is to be written; false when it can't begin now.
    pub(super) fn start(
        &mut self,
        requests: &Requests,
        message: usize,
        given: Given,
    ) -> Result<bool, String> {
        match (&mut self.wire, requests) {
            (Wire::Http1 { under_way, .. }, Requests::Http1(all)) => {
                if under_way.is_some() {
                    return Ok(false);
                }
                *under_way = Some(given);
                self.out.extend_from_slice(&all[message]);
                Ok(true)
            }
            (Wire::Grpc { calls, under_way, next }, Requests::Grpc { messages, .. }) => {
                let begun = calls.start(*next, &messages[message], &mut self.out)?;
                if begun {
                    under_way.insert(*next, given);
                    *next += 1;
                }
                Ok(begun)
            }
            _ => Err("requests of another protocol".into()),
        }
    }

    /// Writes what it can; the new interest of epoll, where it changes.
    pub(super) fn flush(&mut self) -> std::io::Result<Option<EventFlags>> {
        while self.is_open && self.written < self.out.len() {
            match self.socket.write(&self.out[self.written..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.written == self.out.len() {
            self.out.clear();
            self.written = 0;
        }
        let wanted = match (self.is_open, self.out.is_empty()) {
            (false, _) => EventFlags::OUT,
            (true, true) => EventFlags::IN,
            (true, false) => EventFlags::IN | EventFlags::OUT,
        };
        let changes = wanted != self.flags;
        self.flags = wanted;
        Ok(changes.then_some(wanted))
    }

    /// Takes what the socket has: epoll says it is ready. The error is a text for people.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<Event, String> {
        if !self.is_open {
            if let Some(error) = self.socket.take_error().ok().flatten() {
                return Err(format!("cannot connect: {error}"));
            }
            self.is_open = true;
            return Ok(Event::Nothing);
        }
        let count = match self.socket.read(buffer) {
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return Ok(Event::Nothing);
            }
            Err(error) => return Err(error.to_string()),
        };
        match &mut self.wire {
            Wire::Http1 { reader, under_way } => {
                let reply = if count == 0 { reader.ended() } else { reader.feed(&buffer[..count])? };
                let Some(reply) = reply else {
                    return if count == 0 {
                        Err("the server closed the connection".into())
                    } else {
                        Ok(Event::Nothing)
                    };
                };
                let outcome = match reply.status {
                    200..=299 => Outcome::Status(0),
                    status => Outcome::Broken(format!("HTTP {status}")),
                };
                let given = under_way.take().ok_or("a reply that nobody asked for")?;
                self.done.push((given, outcome));
                Ok(Event::Done { closes: reply.closes })
            }
            Wire::Grpc { calls, under_way, .. } => {
                if count == 0 {
                    return Err("the server closed the connection".into());
                }
                let done = &mut self.done;
                calls.feed(&buffer[..count], &mut self.out, |call, outcome| {
                    if let Some(given) = under_way.remove(&call) {
                        done.push((given, outcome));
                    }
                })?;
                let closes = calls.is_closing && under_way.is_empty();
                let is_over = closes || !self.done.is_empty();
                Ok(if is_over { Event::Done { closes } } else { Event::Nothing })
            }
        }
    }
}
