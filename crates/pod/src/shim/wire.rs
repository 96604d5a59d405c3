//! A connection to the shim: frames in, frames out, descriptors beside them. Nothing here ever waits.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use pod_protocol::shim::{Event, FRAME_BYTES_MAX, Request};

/// What a connection holds back for a peer that does not read; above it the peer is cut off and may ask anew.
const OUT_BYTES_MAX: usize = FRAME_BYTES_MAX;
/// Descriptors a peer may send ahead of the request that takes them.
const FDS_MAX: usize = 6;

/// One peer.
pub struct Connection {
    socket: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
    /// Descriptors that came and no request has taken yet.
    pub fds: Vec<OwnedFd>,
    /// The peer said hello and gets events.
    pub subscribed: bool,
    /// The program (by pid) to kill when the peer goes away.
    pub kill_on_close: Option<i32>,
}

impl Connection {
    /// Takes an accepted socket.
    pub fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let (input, output, fds) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { socket, input, output, fds, subscribed: false, kill_on_close: None })
    }

    /// For polling.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Something waits to be written.
    pub fn wants_to_write(&self) -> bool {
        !self.output.is_empty()
    }

    /// Reads what is there and returns the complete requests. An error means: close.
    pub fn read(&mut self) -> io::Result<Vec<Request>> {
        let mut buffer = [0; 4096];
        match sys_receive(&self.socket, &mut buffer, &mut self.fds) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => self.input.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Vec::new()),
            Err(error) => return Err(error),
        }
        if self.fds.len() > FDS_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut requests = Vec::new();
        while let Some(frame) = take_frame(&mut self.input)? {
            requests.push(serde_json::from_slice(&frame)?);
        }
        Ok(requests)
    }

    /// Queues an event and writes as much as the peer takes.
    pub fn send(&mut self, event: &Event) -> io::Result<()> {
        self.output.extend_from_slice(&frame(event)?);
        self.flush()
    }

    /// Sends an event with a descriptor. The queue must be empty, so that the two stay together.
    pub fn send_with_fd(&mut self, event: &Event, fd: BorrowedFd<'_>) -> io::Result<()> {
        if !self.output.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let bytes = frame(event)?;
        let count = super::sys::send(self.socket.as_fd(), &bytes, Some(fd))?;
        self.output.extend_from_slice(&bytes[count..]);
        self.flush()
    }

    /// Writes what is queued, as far as it goes.
    pub fn flush(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            match super::sys::send(self.socket.as_fd(), &self.output, None) {
                Ok(count) => drop(self.output.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        if self.output.len() > OUT_BYTES_MAX {
            return Err(io::ErrorKind::WriteZero.into());
        }
        Ok(())
    }
}

fn sys_receive(socket: &UnixStream, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
    super::sys::receive(socket.as_fd(), buffer, fds)
}

fn frame(event: &Event) -> io::Result<Vec<u8>> {
    let body = serde_json::to_vec(event)?;
    let mut bytes = Vec::with_capacity(body.len() + 4);
    bytes.extend_from_slice(&(body.len() as u32).to_be_bytes());
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

/// Cuts the first complete frame off.
fn take_frame(input: &mut Vec<u8>) -> io::Result<Option<Vec<u8>>> {
    let Some(head) = input.first_chunk::<4>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*head) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    if input.len() < 4 + length {
        return Ok(None);
    }
    let rest = input.split_off(4 + length);
    let whole = std::mem::replace(input, rest);
    Ok(Some(whole[4..].to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_cut_wherever_reads_end() {
        let mut input = vec![0, 0, 0, 2, b'a'];
        assert_eq!(take_frame(&mut input).unwrap(), None);
        input.extend_from_slice(&[b'b', 0, 0]);
        assert_eq!(take_frame(&mut input).unwrap(), Some(b"ab".to_vec()));
        assert_eq!(input, [0, 0]);
    }

    #[test]
    fn a_frame_above_the_bound_is_refused() {
        assert!(take_frame(&mut vec![0xff, 0, 0, 0]).is_err());
    }
}
