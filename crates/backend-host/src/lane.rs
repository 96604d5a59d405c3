//! The server's side of one lane: a call goes out, its answer comes in.
//!
//! What a worker says is not trusted: lengths, places and numbers are checked before anything is read, and whatever
//! makes no sense ends the lane.
//!
//! Not here: which lane a call takes (`pool`), what happens to the process of a lane that ended (`keeper`).

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use models::{DType, Outputs, Shape};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::memory;
use crate::protocol::{self, Fault, Header, Kind, PACKET_BYTES_MAX, Packet, Place, TENSORS_MAX};

/// One lane.
#[derive(Debug)]
pub(crate) struct Lane {
    socket: OwnedFd,
    file: File,
    bytes_max: u64,
    calls: u64,
    /// How far the memory was written in this call.
    used: u64,
    packet: Vec<u8>,
    /// Packets that come in: always of its full length, so that it is not filled again for each.
    inbox: Vec<u8>,
    places: Vec<Place>,
}

/// The worker's ends of a lane, which its process inherits.
#[derive(Debug)]
pub(crate) struct Ends {
    pub(crate) socket: OwnedFd,
    pub(crate) file: OwnedFd,
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask {
    pub(crate) kind: Kind,
    pub(crate) detail: u8,
    pub(crate) entry: u8,
    pub(crate) rows: u64,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The worker was gone before it had the call: another may take it.
    Unsent,
    /// The worker went away during the call.
    Gone,
    /// It did not answer in time.
    Hung,
    /// It said something that makes no sense.
    Broken(String),
    /// It refused; the lane goes on.
    Refused(Fault, String),
    /// The call is larger than the lane's memory may be; the lane goes on.
    TooLarge(String),
}

impl Failure {
    /// Whether the lane can take another call.
    pub(crate) fn spares_the_lane(&self) -> bool {
        matches!(self, Self::Refused(..) | Self::TooLarge(_))
    }
}

impl Lane {
    /// Makes a lane.
    pub(crate) fn create(bytes_max: u64) -> io::Result<(Self, Ends)> {
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let file = memory::create()?;
        let ends = Ends { socket: theirs, file: file.try_clone()?.into() };
        let lane = Self {
            socket: ours,
            file,
            bytes_max,
            calls: 0,
            used: 0,
            packet: Vec::new(),
            inbox: vec![0; PACKET_BYTES_MAX],
            places: Vec::new(),
        };
        Ok((lane, ends))
    }

    /// Sends a call and waits for its answer until `deadline`. Afterwards [`Lane::take`] and [`Lane::take_bytes`] give
    /// what was answered.
    pub(crate) fn ask<'t>(
        &mut self,
        ask: Ask,
        parts: impl ExactSizeIterator<Item = (DType, Shape, &'t [u8])>,
        deadline: Instant,
    ) -> Result<Header, Failure> {
        self.calls += 1;
        let mark = self.write(parts)?;
        let Ask { kind, detail, entry, rows } = ask;
        let header = Header { kind, detail, entry, call: self.calls, rows, mark };
        protocol::write(&mut self.packet, &header, &self.places);
        match rustix::net::send(&self.socket, &self.packet, SendFlags::NOSIGNAL) {
            Ok(_) => {}
            Err(Errno::PIPE | Errno::CONNRESET) => return Err(Failure::Unsent),
            Err(error) => return Err(Failure::Broken(format!("cannot send to it: {error}"))),
        }
        self.receive(deadline)
    }

    /// Writes the inputs into the memory and leaves their places; the result is where free memory begins.
    fn write<'t>(
        &mut self,
        parts: impl ExactSizeIterator<Item = (DType, Shape, &'t [u8])>,
    ) -> Result<u64, Failure> {
        if parts.len() > TENSORS_MAX {
            let what = format!("{} inputs, at most {TENSORS_MAX} can be passed to a worker", parts.len());
            return Err(Failure::TooLarge(what));
        }
        self.places.clear();
        let mut free = 0;
        for (dtype, shape, bytes) in parts {
            let length = bytes.len() as u64;
            let end = protocol::aligned(free + length).filter(|end| *end <= self.bytes_max);
            let Some(end) = end else {
                let max = self.bytes_max;
                return Err(Failure::TooLarge(format!(
                    "the inputs need more than the {max} bytes that a worker's memory may have"
                )));
            };
            if let Err(error) = self.file.write_all_at(bytes, free) {
                return Err(Failure::Broken(format!("cannot write its memory: {error}")));
            }
            self.places.push(Place { dtype, shape, offset: free, length });
            free = end;
        }
        self.used = free;
        Ok(free)
    }

    fn receive(&mut self, deadline: Instant) -> Result<Header, Failure> {
        self.wait(deadline)?;
        let received = loop {
            match rustix::net::recv(&self.socket, &mut self.inbox[..], RecvFlags::TRUNC) {
                Err(Errno::INTR) => {}
                other => break other,
            }
        };
        let length = match received {
            Ok((_, 0)) | Err(Errno::CONNRESET | Errno::PIPE) => return Err(Failure::Gone),
            Ok((_, length)) if length > PACKET_BYTES_MAX => {
                return Err(Failure::Broken(format!("a packet of {length} bytes")));
            }
            Ok((length, _)) => length,
            Err(error) => return Err(Failure::Broken(format!("cannot receive from it: {error}"))),
        };
        let packet = protocol::read(&self.inbox[..length], &mut self.places);
        let header = match packet.map_err(|wrong| Failure::Broken(wrong.to_string()))? {
            Packet::Refusal(header, fault, text) if header.call == self.calls => {
                return Err(Failure::Refused(fault, text.to_owned()));
            }
            Packet::Tensors(header) if header.call == self.calls => header,
            Packet::Tensors(header) | Packet::Refusal(header, ..) => {
                let (got, want) = (header.call, self.calls);
                return Err(Failure::Broken(format!("an answer to call {got}, expected {want}")));
            }
        };
        let end = self.places.iter().filter_map(Place::end).max().unwrap_or(0);
        if end > self.bytes_max {
            let max = self.bytes_max;
            return Err(Failure::Broken(format!(
                "an answer beyond the {max} bytes that its memory may have"
            )));
        }
        self.used = self.used.max(end);
        Ok(header)
    }

    fn wait(&self, deadline: Instant) -> Result<(), Failure> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = timespec(left);
            let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
            match rustix::event::poll(&mut fds, Some(&timeout)) {
                Ok(0) if left.is_zero() => return Err(Failure::Hung),
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(Failure::Broken(format!("cannot wait for it: {error}"))),
            }
        }
    }

    /// Where the answer's tensors lie.
    pub(crate) fn places(&self) -> &[Place] {
        &self.places
    }

    /// Copies the answer's tensors into outputs.
    pub(crate) fn take(&self, outputs: &mut Outputs) -> Result<(), Failure> {
        for (index, place) in self.places.iter().enumerate() {
            let read = |room: &mut [u8]| self.file.read_exact_at(room, place.offset);
            let filled = outputs.filled(place.dtype, place.shape, place.length as usize, read);
            filled.map_err(|error| Failure::Broken(format!("output {index} cannot be read: {error}")))?;
        }
        Ok(())
    }

    /// The answer's only tensor as bytes, which may be `length_max` at most.
    pub(crate) fn take_bytes(&self, length_max: u64) -> Result<Vec<u8>, Failure> {
        let [place] = self.places.as_slice() else {
            return Err(Failure::Broken(format!("{} tensors, expected one document", self.places.len())));
        };
        if place.length > length_max {
            let length = place.length;
            return Err(Failure::Broken(format!(
                "a document of {length} bytes, at most {length_max} are taken"
            )));
        }
        memory::read(&self.file, place.offset, place.length)
            .map_err(|error| Failure::Broken(format!("its document cannot be read: {error}")))
    }

    /// Gives back the memory of a large call.
    pub(crate) fn release(&mut self) {
        memory::release(&self.file, self.used);
    }
}

pub(crate) fn timespec(duration: Duration) -> Timespec {
    // Rounded up, so that a wait that is over has really lasted.
    let nanos = duration.subsec_nanos().saturating_add(1).min(999_999_999);
    let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    if duration.is_zero() {
        return Timespec { tv_sec: 0, tv_nsec: 0 };
    }
    Timespec { tv_sec: seconds, tv_nsec: nanos.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASK: Ask = Ask { kind: Kind::Run, detail: 0, rows: 1, entry: 0 };

    /// What a call on a lane comes to when its worker, which sees the call's packet, does this.
    fn outcome(worker: impl FnOnce(OwnedFd) + Send) -> Result<(), Failure> {
        let (mut lane, ends) = Lane::create(1 << 20).expect("a lane");
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut packet = [0; 256];
                let _ = rustix::net::recv(&ends.socket, &mut packet[..], RecvFlags::empty());
                worker(ends.socket);
            });
            let shape = Shape::new(&[3]).expect("small");
            let part = std::iter::once((DType::U8, shape, &b"abc"[..]));
            lane.ask(ASK, part, Instant::now() + Duration::from_millis(500))?;
            lane.take(&mut Outputs::new())
        })
    }

    fn send(socket: &OwnedFd, packet: &[u8]) {
        let _ = rustix::net::send(socket, packet, SendFlags::NOSIGNAL);
    }

    fn answer(call: u64, offset: u64, length: usize) -> Vec<u8> {
        let shape = Shape::new(&[length]).expect("small");
        let place = Place { dtype: DType::U8, shape, offset, length: length as u64 };
        let mut packet = Vec::new();
        protocol::write(&mut packet, &Header::new(Kind::Answer, call), &[place]);
        packet
    }

    #[test]
    fn a_worker_is_believed_only_what_makes_sense() {
        // What it echoes is the input itself, where that lies.
        outcome(|socket| send(&socket, &answer(1, 0, 3))).expect("an answer");
        for (packet, word) in [
            (b"garbage".to_vec(), "ends before"),
            (answer(2, 0, 3), "answer to call 2, expected 1"),
            (answer(1, 1 << 20, 1), "beyond the 1048576 bytes"),
            (answer(1, 1000, 3), "output 0 cannot be read"),
            (vec![1; PACKET_BYTES_MAX + 1], "a packet of 65537 bytes"),
        ] {
            let failure = outcome(move |socket| send(&socket, &packet)).expect_err(word);
            assert!(matches!(&failure, Failure::Broken(why) if why.contains(word)), "{failure:?}");
            assert!(!failure.spares_the_lane());
        }
    }

    #[test]
    fn a_worker_that_leaves_hangs_or_refuses_is_told_apart() {
        assert!(matches!(outcome(drop), Err(Failure::Gone)));
        let (held, hold) = std::sync::mpsc::channel();
        let hung = outcome(move |socket| drop(held.send(socket)));
        assert!(matches!(hung, Err(Failure::Hung)), "{hung:?}");
        drop(hold);
        let mut packet = Vec::new();
        protocol::write_refusal(&mut packet, 1, Fault::Input, "no");
        let refused = outcome(move |socket| send(&socket, &packet)).expect_err("a refusal");
        assert!(matches!(&refused, Failure::Refused(Fault::Input, why) if why == "no"), "{refused:?}");
        assert!(refused.spares_the_lane());
    }

    #[test]
    fn a_worker_that_was_gone_before_never_had_the_call() {
        let (mut lane, ends) = Lane::create(1 << 20).expect("a lane");
        drop(ends);
        let unsent = lane.ask(ASK, std::iter::empty(), Instant::now() + Duration::from_secs(5));
        assert!(matches!(unsent, Err(Failure::Unsent)), "{unsent:?}");
    }
}
