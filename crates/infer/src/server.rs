//! Threads, listeners and the end of a server.
//!
//! Each worker is a thread with a single-threaded event loop; a connection lives and dies on one worker, so
//! nothing on its path is locked or moved between CPUs. One task accepts and gives each connection to the
//! worker that has the fewest: with a handful of long-lived connections, which is how gateways connect, the
//! kernel's hashing over `SO_REUSEPORT` sockets would leave some CPUs idle.
//!
//! Not here: what happens on a connection (`connection`).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connection::{Shared, serve};
use crate::metrics::Metrics;
use crate::repository::Repository;
use crate::{Config, Error};

/// Open connections, at most; beyond it new ones wait in the backlog.
const CONNECTIONS_MAX: u64 = 50_000;
const BACKLOG: i32 = 4096;
/// Connections on their way to a worker.
const HANDOVER: usize = 1024;
/// How long requests in flight may take after the server was told to stop.
const DRAIN_MAX: Duration = Duration::from_secs(20);

/// A running server.
pub struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Loads the models, opens the port, starts the workers. Blocks while loading.
    pub fn start(config: Config) -> Result<Self, Error> {
        let repository = Repository::open(&config)?;
        let failed = |source| Error::Listen { address: config.http, source };
        let listener = listen(config.http).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = config.workers.unwrap_or(cpus).clamp(1, 512);
        let metrics: Vec<Arc<Metrics>> = (0..workers).map(|_| Arc::default()).collect();
        let stop = CancellationToken::new();
        let (metrics_of_all, body_bytes_max) = (metrics.clone(), config.body_bytes_max);
        let shared = Arc::new(Shared {
            repository,
            metrics: metrics_of_all,
            body_bytes_max,
            personality: config.personality,
            open_repository: config.open_repository,
        });
        let mut listener = Some(listener);
        let mut receivers = Vec::new();
        let mut senders = Vec::new();
        for _ in 0..workers {
            let (sender, receiver) = mpsc::channel(HANDOVER);
            senders.push(sender);
            receivers.push(receiver);
        }
        let mut threads = Vec::new();
        for (index, (receiver, metrics)) in receivers.into_iter().zip(metrics).enumerate() {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Worker)?;
            let accepts = listener.take().map(|listener| (listener, senders.clone()));
            // A token of its own: idle connections register on it, and workers must not meet on one lock.
            let (shared, stop) = (shared.clone(), stop.child_token());
            let body = move || runtime.block_on(worker(receiver, accepts, shared, metrics, stop));
            let thread = std::thread::Builder::new()
                .name(format!("serve-{index}"))
                .spawn(body)
                .map_err(Error::Worker)?;
            threads.push(thread);
        }
        tracing::info!(%address, workers, "serving");
        Ok(Self { address, stop, threads })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more connections and lets requests in flight finish.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits until all workers have ended, which [`Server::stop`] makes them do. Blocks.
    pub fn join(self) {
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a worker thread panicked");
            }
        }
    }
}

fn listen(address: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restarted server takes its port back while old connections are still in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

type Accepts = (std::net::TcpListener, Vec<mpsc::Sender<std::net::TcpStream>>);

async fn worker(
    mut receiver: mpsc::Receiver<std::net::TcpStream>,
    accepts: Option<Accepts>,
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    let tasks = TaskTracker::new();
    if let Some((listener, senders)) = accepts {
        let (all, stop) = (shared.metrics.clone(), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = accept(listener, senders, all) => {}
            }
        });
    }
    loop {
        let received = tokio::select! {
            received = receiver.recv() => received,
            () = stop.cancelled() => None,
        };
        let Some(stream) = received else { break };
        let Ok(stream) = TcpStream::from_std(stream) else {
            metrics.connections.fetch_sub(1, Relaxed);
            continue;
        };
        let open = Open(metrics.clone());
        let (shared, metrics, stop) = (shared.clone(), metrics.clone(), stop.clone());
        tasks.spawn(async move {
            serve(stream, shared, metrics, stop).await;
            drop(open);
        });
    }
    tasks.close();
    if tokio::time::timeout(DRAIN_MAX, tasks.wait()).await.is_err() {
        tracing::warn!(open = tasks.len(), "connections were cut off");
    }
}

/// Counts a connection down however its task ends.
struct Open(Arc<Metrics>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}

async fn accept(
    listener: std::net::TcpListener,
    workers: Vec<mpsc::Sender<std::net::TcpStream>>,
    all: Vec<Arc<Metrics>>,
) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "cannot watch the listener");
            return;
        }
    };
    loop {
        let open: u64 = all.iter().map(|metrics| metrics.connections.load(Relaxed)).sum();
        let accepted =
            if open < CONNECTIONS_MAX { listener.accept().await } else { Err(std::io::Error::other("full")) };
        let stream = match accepted.and_then(|(stream, _)| stream.into_std()) {
            Ok(stream) => stream,
            Err(error) => {
                // Out of descriptors or of connections: existing ones must end first, and nothing signals that.
                tracing::warn!(%error, open, "cannot accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let fewest = all.iter().enumerate().min_by_key(|(_, metrics)| metrics.connections.load(Relaxed));
        let index = fewest.map_or(0, |(index, _)| index);
        all[index].connections.fetch_add(1, Relaxed);
        if workers[index].send(stream).await.is_err() {
            return;
        }
    }
}
