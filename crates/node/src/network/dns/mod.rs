//! The cluster's name server: `SVC.NS.svc.cluster.local` over UDP and TCP at the network's `dns_ip`.
//!
//! * `zone` says what a name means, `wire` reads and writes messages: pure.
//! * This file watches Services and EndpointSlices, and serves.
//!
//! It answers for the cluster's domain only and refuses all else, so a pod's resolver goes on to the next server of its
//! `resolv.conf`: list this one first, the host's after it. Port 53 needs rights; without them it listens at 10053, which
//! resolvers cannot be told of: `Server::address` says which, so that whoever writes `resolv.conf` can leave it out.
//!
//! Not here: forwarding, AAAA (there is no IPv6), SRV and PTR records.

mod wire;
mod zone;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use kube::api::Api;
use kube::runtime::watcher;
use parking_lot::RwLock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::seen::{Seen, changes};
use super::{Error, Network};
use wire::respond;
use zone::Zone;

const PORT: u16 = 53;
/// Where it listens without the right to port 53.
const UNPRIVILEGED_PORT: u16 = 10_053;
/// Connections at a time.
const CONNECTIONS_MAX: usize = 64;
/// How long a connection may be silent.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// The largest question over UDP that is looked at.
const QUESTION_BYTES_MAX: usize = 4096;
const BATCH_MAX: usize = 256;

/// A bound name server; `run` serves.
pub struct Server {
    udp: UdpSocket,
    tcp: TcpListener,
    address: SocketAddr,
    domain: String,
}

type Shared = Arc<RwLock<Zone>>;

impl Server {
    /// Binds both sockets at the network's `dns_ip`. `domain` is the cluster's, usually `cluster.local`.
    pub async fn bind(network: &dyn Network, domain: &str) -> Result<Self, Error> {
        let at = |port| SocketAddr::new(network.dns_ip().into(), port);
        let bound = match bind(at(PORT)).await {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                bind(at(UNPRIVILEGED_PORT)).await
            }
            other => other,
        };
        let doing = || format!("listen for names at {}", network.dns_ip());
        let (udp, tcp) = bound.map_err(|source| Error::Kernel { doing: doing(), source })?;
        let address = udp.local_addr().map_err(|source| Error::Kernel { doing: doing(), source })?;
        Ok(Self { udp, tcp, address, domain: domain.to_owned() })
    }

    /// Where it listens. Resolvers reach it only at port 53.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until it is dropped.
    pub async fn run(self, client: Client) {
        let empty = Zone::new(&self.domain, std::iter::empty(), std::iter::empty());
        let zone: Shared = Arc::new(RwLock::new(empty));
        let follow = follow(client, self.domain, zone.clone());
        futures::join!(follow, serve_udp(self.udp, zone.clone()), serve_tcp(self.tcp, zone));
    }
}

async fn bind(address: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let udp = UdpSocket::bind(address).await?;
    Ok((udp, TcpListener::bind(address).await?))
}

#[allow(clippy::large_enum_variant, reason = "one at a time, moved once")]
enum Change {
    Service(Box<watcher::Event<Service>>),
    Slice(watcher::Event<EndpointSlice>),
}

async fn follow(client: Client, domain: String, zone: Shared) {
    let services = changes(Api::<Service>::all(client.clone())).map(|event| Change::Service(Box::new(event)));
    let slices = changes(Api::<EndpointSlice>::all(client)).map(Change::Slice);
    let mut batches = futures::stream::select(services, slices).boxed().ready_chunks(BATCH_MAX);
    let (mut services, mut slices) = (Seen::new(), Seen::new());
    while let Some(batch) = batches.next().await {
        for change in batch {
            match change {
                Change::Service(event) => services.observe(*event),
                Change::Slice(event) => slices.observe(event),
            }
        }
        if services.complete && slices.complete {
            *zone.write() = Zone::new(&domain, services.all(), slices.all());
        }
    }
}

async fn serve_udp(socket: UdpSocket, zone: Shared) {
    let mut buffer = vec![0; QUESTION_BYTES_MAX];
    loop {
        // An error here is one client's (it closed its port); the next question is another's.
        let Ok((len, from)) = socket.recv_from(&mut buffer).await else { continue };
        let answer = respond(&buffer[..len], false, |name| zone.read().answer(name));
        if let Some(answer) = answer
            && let Err(error) = socket.send_to(&answer, from).await
        {
            tracing::debug!(%from, %error, "a name answer was not sent");
        }
    }
}

async fn serve_tcp(listener: TcpListener, zone: Shared) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Most likely out of descriptors; the next attempt may do better.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let zone = zone.clone();
        tokio::spawn(async move {
            // A connection that breaks is its client's affair.
            let _broken = converse(stream, &zone).await;
            drop(slot);
        });
    }
}

async fn converse(mut stream: TcpStream, zone: &Shared) -> io::Result<()> {
    loop {
        let len = timeout(SILENCE_MAX, stream.read_u16()).await??;
        let mut question = vec![0; usize::from(len)];
        timeout(SILENCE_MAX, stream.read_exact(&mut question)).await??;
        let answer = respond(&question, true, |name| zone.read().answer(name));
        let Some(answer) = answer else { return Ok(()) };
        let len = u16::try_from(answer.len()).map_err(io::Error::other)?;
        let mut framed = len.to_be_bytes().to_vec();
        framed.extend_from_slice(&answer);
        stream.write_all(&framed).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_transports_answer_for_the_cluster() {
        let service =
            serde_json::from_value(serde_json::json!({"metadata": {"namespace": "ns", "name": "web"},
            "spec": {"clusterIP": "10.0.0.7"}}));
        let service: Service = service.unwrap();
        let zone: Shared = Arc::new(RwLock::new(Zone::new("c.l", [service].iter(), std::iter::empty())));
        let (udp, tcp) = bind("127.0.0.1:0".parse().unwrap()).await.unwrap_or_else(|error| panic!("{error}"));
        let (udp_at, tcp_at) = (udp.local_addr().unwrap(), tcp.local_addr().unwrap());
        let serve = tokio::spawn(serve_udp(udp, zone.clone()));
        let serve_too = tokio::spawn(serve_tcp(tcp, zone));
        let question = b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x03web\x02ns\x03svc\x01c\x01l\0\0\x01\0\x01";
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.send_to(question, udp_at).await.unwrap();
        let mut buffer = [0; 512];
        let len = client.recv(&mut buffer).await.unwrap();
        assert!(buffer[..len].ends_with(&[10, 0, 0, 7]));
        let mut stream = TcpStream::connect(tcp_at).await.unwrap();
        stream.write_u16(question.len() as u16).await.unwrap();
        stream.write_all(question).await.unwrap();
        let len = stream.read_u16().await.unwrap();
        let mut answer = vec![0; usize::from(len)];
        stream.read_exact(&mut answer).await.unwrap();
        assert!(answer.ends_with(&[10, 0, 0, 7]));
        serve.abort();
        serve_too.abort();
    }
}
