//! The shim's loop: one `poll` over the listener, the peers, the children and their output.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use pod_protocol::shim::{Event, Request, ShimRecord, VERSION};

use super::container::{self, Running};
use super::exec::{self, Order, Outcome, Starting};
use super::sys;
use super::wire::Connection;

/// Peers at a time: the node's control connection, its execs and attaches.
const CONNECTIONS_MAX: usize = 256;
/// Children that ended before their pid was known to us; more cannot be, as each exec has one helper.
const UNKNOWN_EXITS_MAX: usize = 1024;

/// What a descriptor in the poll set is.
#[derive(Clone, Copy)]
enum Source {
    Listener,
    Children,
    Peer(u64),
    Status(i32),
    Output(i32, usize),
    ExecStatus(u64),
}

/// All that the shim knows.
pub struct Server {
    folder: PathBuf,
    shim: ShimRecord,
    listener: UnixListener,
    signals: OwnedFd,
    peers: BTreeMap<u64, Connection>,
    next_peer: u64,
    /// By pid.
    running: BTreeMap<i32, Running>,
    /// Programs being started, by their peer.
    starting: BTreeMap<u64, Starting>,
    /// Running programs of peers, by pid.
    programs: BTreeMap<i32, u64>,
    unknown_exits: HashMap<i32, i32>,
    leaving: bool,
    buffer: Vec<u8>,
}

impl Server {
    /// Ready to serve.
    pub fn new(folder: PathBuf, shim: ShimRecord, listener: UnixListener, signals: OwnedFd) -> Self {
        Self {
            folder,
            shim,
            listener,
            signals,
            peers: BTreeMap::new(),
            next_peer: 0,
            running: BTreeMap::new(),
            starting: BTreeMap::new(),
            programs: BTreeMap::new(),
            unknown_exits: HashMap::new(),
            leaving: false,
            buffer: vec![0; 16 * 1024],
        }
    }

    /// Serves until it is told to leave and nothing runs any more.
    pub fn run(mut self) -> io::Result<()> {
        while !(self.leaving && self.running.is_empty()) {
            let (mut fds, sources) = self.poll_set();
            sys::poll(&mut fds, self.timeout_ms())?;
            let ready = fds.iter().zip(sources).filter(|(fd, _)| fd.revents != 0);
            // Backwards, because a stream that ends leaves its container's list and moves the ones after it.
            for (fd, source) in ready.rev().map(|(fd, source)| (fd.revents, source)).collect::<Vec<_>>() {
                self.handle(source, fd);
            }
            self.kill_overdue();
        }
        Ok(())
    }

    fn poll_set(&self) -> (Vec<libc::pollfd>, Vec<Source>) {
        let (mut fds, mut sources) = (Vec::new(), Vec::new());
        let mut add = |fd: BorrowedFd<'_>, events: i16, source: Source| {
            fds.push(libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 });
            sources.push(source);
        };
        // Children come first and are thus handled last: their output and status are read before they are buried.
        add(self.signals.as_fd(), libc::POLLIN, Source::Children);
        if self.peers.len() < CONNECTIONS_MAX {
            add(self.listener.as_fd(), libc::POLLIN, Source::Listener);
        }
        for (id, peer) in &self.peers {
            let events = if peer.wants_to_write() { libc::POLLIN | libc::POLLOUT } else { libc::POLLIN };
            add(peer.fd(), events, Source::Peer(*id));
        }
        for (pid, running) in &self.running {
            if let Some(status) = &running.status {
                add(status.as_fd(), libc::POLLIN, Source::Status(*pid));
            }
            for (index, output) in running.outputs.iter().enumerate() {
                add(output.fd.as_fd(), libc::POLLIN, Source::Output(*pid, index));
            }
        }
        for (peer, starting) in &self.starting {
            add(starting.status.as_fd(), libc::POLLIN, Source::ExecStatus(*peer));
        }
        (fds, sources)
    }

    fn timeout_ms(&self) -> i32 {
        let next = self.running.values().filter_map(|running| running.kill_at).min();
        next.map_or(-1, |at| {
            let left = at.saturating_duration_since(Instant::now()).as_millis() + 1;
            i32::try_from(left).unwrap_or(i32::MAX)
        })
    }

    fn kill_overdue(&mut self) {
        let now = Instant::now();
        for running in self.running.values_mut() {
            if running.kill_at.is_some_and(|at| at <= now) {
                // The first process of a pid namespace takes all others with it.
                sys::kill(running.pid, libc::SIGKILL);
                running.kill_at = None;
            }
        }
    }

    fn handle(&mut self, source: Source, revents: i16) {
        match source {
            Source::Listener => self.accept(),
            Source::Children => self.bury(),
            Source::Peer(id) => self.talk(id, revents),
            Source::Status(pid) => self.settle_start(pid),
            Source::Output(pid, index) => {
                if let Some(running) = self.running.get_mut(&pid) {
                    running.read_output(index, &mut self.buffer);
                }
            }
            Source::ExecStatus(peer) => self.settle_exec(peer),
        }
    }

    fn accept(&mut self) {
        let Ok((socket, _)) = self.listener.accept() else {
            return;
        };
        if let Ok(connection) = Connection::new(socket) {
            self.peers.insert(self.next_peer, connection);
            self.next_peer += 1;
        }
    }

    fn talk(&mut self, id: u64, revents: i16) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if revents & libc::POLLOUT != 0 && peer.flush().is_err() {
            return self.close(id);
        }
        if revents & !libc::POLLOUT == 0 {
            return;
        }
        match peer.read() {
            Ok(requests) => requests.into_iter().for_each(|request| self.answer(id, request)),
            Err(_) => self.close(id),
        }
    }

    fn close(&mut self, id: u64) {
        let Some(peer) = self.peers.remove(&id) else {
            return;
        };
        if let Some(pid) = peer.kill_on_close.filter(|pid| self.programs.contains_key(pid)) {
            sys::kill(pid, libc::SIGKILL);
        }
    }

    fn answer(&mut self, id: u64, request: Request) {
        match request {
            Request::Hello { .. } => self.hello(id),
            Request::Start { container, attempt } => self.start(id, &container, attempt),
            Request::Stop { container, signal, grace_ms } => {
                self.stop(|running| running.name == container, signal, grace_ms);
            }
            Request::Shutdown { grace_ms } => {
                self.leaving = true;
                self.stop(|_| true, None, grace_ms);
            }
            Request::Exec { container, argv, tty, kill_on_close } => {
                if let Err(message) = self.exec(id, &container, argv, tty, kill_on_close) {
                    self.send(id, &Event::ExecExited { code: 126, error: Some(message) });
                }
            }
            Request::Stdin { container } => self.stdin(id, &container),
        }
    }

    fn send(&mut self, id: u64, event: &Event) {
        if self.peers.get_mut(&id).is_some_and(|peer| peer.send(event).is_err()) {
            self.close(id);
        }
    }

    fn tell_all(&mut self, event: &Event) {
        let subscribed: Vec<u64> =
            self.peers.iter().filter(|(_, peer)| peer.subscribed).map(|(id, _)| *id).collect();
        subscribed.into_iter().for_each(|id| self.send(id, event));
    }

    fn hello(&mut self, id: u64) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.subscribed = true;
        }
        let running = self.running.values().map(|running| (running.name.clone(), running.attempt)).collect();
        self.send(id, &Event::Hello { version: VERSION, shim: self.shim.clone(), running });
    }

    fn start(&mut self, id: u64, name: &str, attempt: u32) {
        let refused = |message: String| Event::Refused { message: format!("{name}/{attempt}: {message}") };
        if self.leaving || self.running.values().any(|running| running.name == name) {
            return self.send(id, &refused("the container runs, or the pod is ending".into()));
        }
        match container::start(&self.folder, name, attempt) {
            Err(message) => self.send(id, &refused(message)),
            Ok(Err(exit)) => self.tell_all(&Event::Exited { container: name.into(), attempt, exit }),
            Ok(Ok(running)) => {
                self.running.insert(running.pid, running);
            }
        }
    }

    fn stop(&mut self, which: impl Fn(&Running) -> bool, signal: Option<i32>, grace_ms: u64) {
        // A grace of years is no different from a day, and cannot overflow.
        let kill_at = Instant::now() + Duration::from_millis(grace_ms.min(86_400_000));
        for running in self.running.values_mut().filter(|running| which(running)) {
            let signal = if grace_ms == 0 { libc::SIGKILL } else { signal.unwrap_or(libc::SIGTERM) };
            sys::kill(running.pid, signal);
            running.kill_at = Some(running.kill_at.map_or(kill_at, |before| before.min(kill_at)));
        }
    }

    fn exec(
        &mut self,
        id: u64,
        name: &str,
        argv: Vec<String>,
        tty: bool,
        kill_on_close: bool,
    ) -> Result<(), String> {
        let peer = self.peers.get_mut(&id).ok_or("the peer is gone")?;
        let mut fds = std::mem::take(&mut peer.fds);
        let running = self.running.values().find(|running| running.name == name && running.status.is_none());
        let running = running.ok_or_else(|| format!("container {name:?} is not running"))?;
        let (Some(error), Some(output), Some(input)) = (fds.pop(), fds.pop(), fds.pop()) else {
            return Err("three descriptors must come with an exec".into());
        };
        let container = (running.name.as_str(), running.attempt);
        let (pid, stdio) = (running.pid, [input, output, error]);
        let order = Order { pod_folder: &self.folder, container, pid, argv, tty, stdio };
        self.starting.insert(id, exec::start(order)?);
        if kill_on_close {
            // Filled in with the pid once it is known.
            peer.kill_on_close = Some(0);
        }
        Ok(())
    }

    fn settle_exec(&mut self, id: u64) {
        let Some(starting) = self.starting.remove(&id) else {
            return;
        };
        match starting.outcome() {
            Outcome::Runs(pid) => {
                self.programs.insert(pid, id);
                match self.peers.get_mut(&id) {
                    Some(peer) if peer.kill_on_close.is_some() => peer.kill_on_close = Some(pid),
                    Some(_) => {}
                    None => sys::kill(pid, libc::SIGKILL),
                }
                if let Some(status) = self.unknown_exits.remove(&pid) {
                    self.bury_one(pid, status);
                }
            }
            Outcome::Failed(pid, message) => {
                let missing = message.contains("not found") || message.contains("no such file");
                let code = if missing { 127 } else { 126 };
                if let Some(pid) = pid {
                    self.unknown_exits.remove(&pid);
                }
                self.send(id, &Event::ExecExited { code, error: Some(message) });
            }
        }
    }

    fn stdin(&mut self, id: u64, name: &str) {
        let input = self.running.values().find(|running| running.name == name);
        let input = input.and_then(|running| running.input.as_ref()).and_then(|fd| fd.try_clone().ok());
        let Some(input) = input else {
            let message = format!("container {name:?} has no open standard input");
            return self.send(id, &Event::Refused { message });
        };
        let sent = self.peers.get_mut(&id).map(|peer| peer.send_with_fd(&Event::Stdin, input.as_fd()));
        if sent.is_some_and(|sent| sent.is_err()) {
            self.close(id);
        }
    }

    /// The status pipe of a starting container ended or spoke.
    fn settle_start(&mut self, pid: i32) {
        let Some(running) = self.running.get_mut(&pid) else {
            return;
        };
        let Some(failure) = running.take_failure() else {
            let (container, attempt) = (running.name.clone(), running.attempt);
            let started = running.started.clone();
            return self.tell_all(&Event::Started { container, attempt, started });
        };
        // Kept for its end, which is near.
        running.failure = Some(failure);
    }

    fn bury(&mut self) {
        let mut drain = [0; 1024];
        while sys::read(self.signals.as_fd(), &mut drain).is_ok_and(|count| count > 0) {}
        while let Some((pid, status)) = sys::reap() {
            self.bury_one(pid, status);
        }
    }

    fn bury_one(&mut self, pid: i32, status: i32) {
        if self.running.get(&pid).is_some_and(|running| running.status.is_some()) {
            self.settle_start(pid);
        }
        if let Some(mut running) = self.running.remove(&pid) {
            let (container, attempt) = (running.name.clone(), running.attempt);
            let failure = running.failure.take();
            let exit = running.end(status, failure);
            return self.tell_all(&Event::Exited { container, attempt, exit });
        }
        if let Some(peer) = self.programs.remove(&pid) {
            let (code, _) = sys::exit_of(status);
            return self.send(peer, &Event::ExecExited { code, error: None });
        }
        let is_helper = self.starting.values().any(|starting| starting.helper == pid);
        if !is_helper && self.unknown_exits.len() < UNKNOWN_EXITS_MAX {
            self.unknown_exits.insert(pid, status);
        }
    }
}
