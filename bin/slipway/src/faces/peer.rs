//! Which user a loopback connection belongs to: asked of the kernel (`sock_diag`), once a connection.

use std::{
    io,
    net::{SocketAddr, SocketAddrV4},
};

use axum::{extract::connect_info::Connected, serve::IncomingStream, serve::Listener};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};
use tokio::net::{TcpListener, TcpStream};

/// The other end of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// Owner of the peer's socket; none when the kernel does not know it (not of this machine, or closed already).
    pub uid: Option<u32>,
}

/// Accepts connections and asks for their owners.
pub struct PeerListener(pub TcpListener);

impl Listener for PeerListener {
    type Io = TcpStream;
    type Addr = Peer;

    async fn accept(&mut self) -> (TcpStream, Peer) {
        loop {
            match self.0.accept().await {
                Ok((stream, address)) => {
                    let uid = owner(&stream, address).unwrap_or_else(|error| {
                        tracing::warn!(%address, %error, "cannot ask for the owner of a connection");
                        None
                    });
                    // Answers are small; waiting for more to send only adds latency.
                    let _ = stream.set_nodelay(true);
                    return (stream, Peer { uid });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    // Out of file descriptors: wait until some are given back instead of spinning.
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Peer> {
        Ok(Peer { uid: None })
    }
}

impl Connected<IncomingStream<'_, PeerListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, PeerListener>) -> Self {
        *stream.remote_addr()
    }
}

fn owner(stream: &TcpStream, peer: SocketAddr) -> io::Result<Option<u32>> {
    match (peer, stream.local_addr()?) {
        (SocketAddr::V4(peer), SocketAddr::V4(local)) => socket_owner(peer, local),
        _ => Ok(None),
    }
}

const NLMSG_ERROR: u16 = 2;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const IPPROTO_TCP: u8 = 6;
const AF_INET: u8 = 2;
/// `nlmsghdr` and `inet_diag_req_v2` (linux/inet_diag.h).
const HEADER_BYTES: usize = 16;
const REQUEST_BYTES: usize = HEADER_BYTES + 56;
/// Where `idiag_uid` stands in the answer's `inet_diag_msg`.
const UID_OFFSET: usize = HEADER_BYTES + 64;

/// The uid that owns the TCP socket whose own end is `own` and whose other end is `other`.
fn socket_owner(own: SocketAddrV4, other: SocketAddrV4) -> io::Result<Option<u32>> {
    let netlink = socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        Some(netlink::SOCK_DIAG),
    )?;
    send(&netlink, &request(own, other), SendFlags::empty())?;
    let mut answer = [0_u8; 512];
    let (_, length) = recv(&netlink, &mut answer[..], RecvFlags::empty())?;
    Ok(uid_of(&answer[..length]))
}

fn request(own: SocketAddrV4, other: SocketAddrV4) -> [u8; REQUEST_BYTES] {
    let mut message = [0_u8; REQUEST_BYTES];
    message[0..4].copy_from_slice(&(REQUEST_BYTES as u32).to_ne_bytes());
    message[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    message[6..8].copy_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    message[16] = AF_INET;
    message[17] = IPPROTO_TCP;
    message[20..24].copy_from_slice(&u32::MAX.to_ne_bytes());
    message[24..26].copy_from_slice(&own.port().to_be_bytes());
    message[26..28].copy_from_slice(&other.port().to_be_bytes());
    message[28..32].copy_from_slice(&own.ip().octets());
    message[44..48].copy_from_slice(&other.ip().octets());
    // No cookie: any socket with these ends.
    message[64..72].copy_from_slice(&[0xff; 8]);
    message
}

fn uid_of(answer: &[u8]) -> Option<u32> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    if kind == NLMSG_ERROR {
        return None;
    }
    Some(u32::from_ne_bytes(answer.get(UID_OFFSET..UID_OFFSET + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_kernel_names_the_owner_of_the_other_end() {
        let mut listener = PeerListener(TcpListener::bind("127.0.0.1:0").await.unwrap());
        let address = listener.0.local_addr().unwrap();
        let _client = TcpStream::connect(address).await.unwrap();
        let (_stream, peer) = listener.accept().await;
        assert_eq!(peer.uid, Some(rustix::process::geteuid().as_raw()));
    }

    #[test]
    fn a_connection_that_does_not_exist_has_no_owner() {
        let nobody = "127.0.0.1:1".parse().unwrap();
        assert_eq!(socket_owner(nobody, "127.0.0.1:2".parse().unwrap()).unwrap(), None);
    }
}
