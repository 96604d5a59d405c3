//! One listener's connections: accept, pick an endpoint, move bytes both ways.
//!
//! Endpoints take turns; a client with affinity stays with its own while it is ready. An endpoint that cannot be
//! reached costs its turn only: the next one is tried, and the client is cut off when none answers. Bytes move until both
//! sides have closed, so a client that half-closes still gets its answer.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, timeout};

use super::table::Route;

/// How long one endpoint may take to accept; refusals come at once.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// A pause after `accept` failed, typically for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// The buffer of each direction of a connection.
const BUFFER_BYTES: usize = 16 * 1024;
/// Clients whose endpoint is remembered; over it, the longest silent ones are forgotten.
const CLIENTS_MAX: usize = 10_000;

/// Chooses endpoints for one listener.
pub(super) struct Balancer {
    route: watch::Receiver<Route>,
    turn: AtomicUsize,
    clients: Mutex<HashMap<IpAddr, (SocketAddr, Instant)>>,
}

impl Balancer {
    pub(super) fn new(route: watch::Receiver<Route>) -> Self {
        Self { route, turn: AtomicUsize::new(0), clients: Mutex::new(HashMap::new()) }
    }

    /// All endpoints in the order in which this client should try them.
    fn order(&self, client: IpAddr, now: Instant) -> Vec<SocketAddr> {
        let route = self.route.borrow();
        let mut order = route.endpoints.clone();
        if order.is_empty() {
            return order;
        }
        let first = self.turn.fetch_add(1, Ordering::Relaxed) % order.len();
        order.rotate_left(first);
        let Some(limit) = route.affinity else { return order };
        let clients = self.clients.lock();
        let sticky = clients.get(&client).filter(|(_, used)| now.duration_since(*used) < limit);
        if let Some(at) = sticky.and_then(|(endpoint, _)| order.iter().position(|of| of == endpoint)) {
            order.swap(0, at);
        }
        order
    }

    /// Remembers who served the client, when the Service wants affinity.
    fn served(&self, client: IpAddr, endpoint: SocketAddr, now: Instant) {
        if self.route.borrow().affinity.is_none() {
            return;
        }
        let mut clients = self.clients.lock();
        if clients.len() >= CLIENTS_MAX && !clients.contains_key(&client) {
            let oldest = clients.iter().min_by_key(|(_, (_, used))| *used).map(|(ip, _)| *ip);
            oldest.map(|ip| clients.remove(&ip));
        }
        clients.insert(client, (endpoint, now));
    }
}

/// Accepts until the task is aborted. Connections run on in tasks of their own.
pub(super) async fn accept(listener: TcpListener, balancer: Balancer, connections: Arc<Semaphore>) {
    let balancer = Arc::new(balancer);
    loop {
        let Ok(permit) = connections.clone().acquire_owned().await else { return };
        let (stream, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "the proxy cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let balancer = balancer.clone();
        tokio::spawn(async move {
            if let Err(error) = forward(stream, client.ip(), &balancer).await {
                tracing::debug!(%client, %error, "a proxied connection ended early");
            }
            drop(permit);
        });
    }
}

async fn forward(mut client: TcpStream, client_ip: IpAddr, balancer: &Balancer) -> io::Result<()> {
    let mut endpoint = match connect(client_ip, balancer).await {
        Ok(endpoint) => endpoint,
        Err(error) => {
            // A reset rather than an orderly end: no endpoint answered.
            client.set_zero_linger()?;
            return Err(error);
        }
    };
    client.set_nodelay(true)?;
    endpoint.set_nodelay(true)?;
    copy_bidirectional_with_sizes(&mut client, &mut endpoint, BUFFER_BYTES, BUFFER_BYTES).await?;
    Ok(())
}

async fn connect(client_ip: IpAddr, balancer: &Balancer) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::ConnectionRefused);
    for endpoint in balancer.order(client_ip, Instant::now()) {
        match timeout(CONNECT_MAX, TcpStream::connect(endpoint)).await {
            Ok(Ok(stream)) => {
                balancer.served(client_ip, endpoint, Instant::now());
                return Ok(stream);
            }
            Ok(Err(error)) => last = error,
            Err(_elapsed) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn route(endpoints: &[SocketAddr], affinity: Option<Duration>) -> Route {
        Route { name: "ns/web:80".into(), endpoints: endpoints.to_vec(), affinity }
    }

    /// An endpoint that answers each connection with its name once the client has closed its half.
    async fn endpoint(name: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut asked = String::new();
                stream.read_to_string(&mut asked).await.unwrap();
                stream.write_all(format!("{name}:{asked}").as_bytes()).await.unwrap();
            }
        });
        address
    }

    async fn proxy(route: Route) -> (SocketAddr, watch::Sender<Route>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, receiver) = watch::channel(route);
        tokio::spawn(accept(listener, Balancer::new(receiver), Arc::new(Semaphore::new(8))));
        (address, sender)
    }

    async fn ask(address: SocketAddr) -> io::Result<String> {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"hi").await?;
        stream.shutdown().await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    #[tokio::test]
    async fn endpoints_take_turns_and_a_half_closed_client_gets_its_answer() {
        let (a, b) = (endpoint("a").await, endpoint("b").await);
        let (address, _route) = proxy(route(&[a, b], None)).await;
        let answers = [ask(address).await.unwrap(), ask(address).await.unwrap(), ask(address).await.unwrap()];
        assert_eq!(answers, ["a:hi", "b:hi", "a:hi"]);
    }

    #[tokio::test]
    async fn a_dead_endpoint_costs_only_its_turn() {
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let alive = endpoint("alive").await;
        let (address, _route) = proxy(route(&[gone, alive], None)).await;
        for _ in 0..4 {
            assert_eq!(ask(address).await.unwrap(), "alive:hi");
        }
    }

    #[tokio::test]
    async fn a_client_with_affinity_stays_until_its_endpoint_goes() {
        let (a, b) = (endpoint("a").await, endpoint("b").await);
        let hour = Some(Duration::from_secs(3600));
        let (address, sender) = proxy(route(&[a, b], hour)).await;
        for _ in 0..3 {
            assert_eq!(ask(address).await.unwrap(), "a:hi");
        }
        sender.send(route(&[b], hour)).unwrap();
        assert_eq!(ask(address).await.unwrap(), "b:hi");
    }

    #[tokio::test]
    async fn without_an_endpoint_that_answers_the_client_is_cut_off() {
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let (address, _route) = proxy(route(&[gone], None)).await;
        assert!(ask(address).await.is_err());
    }
}
