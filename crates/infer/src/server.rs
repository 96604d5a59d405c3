//! Threads, and the end of a server.
//!
//! Each worker is a thread with a single-threaded event loop; a connection lives and dies on one worker, so
//! nothing on its path is locked or moved between CPUs. One task for each listener accepts and gives each connection
//! to the worker that has the fewest: with a handful of long-lived connections, which is how gateways connect, the
//! kernel's hashing over `SO_REUSEPORT` sockets would leave some CPUs idle.
//!
//! The end has an order: first readiness says no while connections are still taken, then connections are told that
//! no more requests are read, then what is under way finishes.
//!
//! Not here: listeners (`listen`), what happens on a connection (`connection`, `grpc`).

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connection;
use crate::grpc::{self, Legal, Loops};
use crate::listen::{Accepted, Face, Listener, Listeners, Watched};
use crate::metrics::Metrics;
use crate::observe::Observe;
use crate::repository::Repository;
use crate::shared::Shared;
use crate::stream::Stream;
use crate::tls::Certificates;
use crate::{Config, Error};

/// Connections on their way to a worker.
const HANDOVER: usize = 1024;

/// A running server.
pub struct Server {
    http: Option<SocketAddr>,
    grpc: Option<SocketAddr>,
    admin: Option<SocketAddr>,
    sockets: Vec<PathBuf>,
    draining: CancellationToken,
    threads: Vec<JoinHandle<()>>,
    shared: Arc<Shared>,
}

impl Server {
    /// Loads the models, opens the ports, starts the workers. Blocks while loading.
    pub fn start(config: Config) -> Result<Self, Error> {
        let repository = Repository::open(&config)?;
        let tls = config.tls.clone().map(Certificates::open).transpose().map_err(Error::Certificate)?;
        let tls = tls.map(Arc::new);
        let listeners = Listeners::open(&config)?;
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = config.workers.unwrap_or(cpus).clamp(1, 512);
        let mut runtimes = Vec::new();
        for _ in 0..workers {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtimes.push(runtime.map_err(Error::Worker)?);
        }
        let metrics: Vec<Arc<Metrics>> =
            (0..workers).map(|_| Arc::new(Metrics::new(config.observing.models_max))).collect();
        let (draining, stop) = (CancellationToken::new(), CancellationToken::new());
        let loops = Loops::new(runtimes.iter().map(|runtime| runtime.handle().clone()).collect());
        let observe = Observe::start(&config.observing, &repository, workers)?;
        let shared = Shared::new(&config, repository, metrics.clone(), observe, loops, draining.clone());
        let shared = Arc::new(shared);
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..workers).map(|_| mpsc::channel(HANDOVER)).unzip();
        let mut first = Some(First {
            listeners: listeners.all,
            workers: senders,
            connections_max: config.connections_max,
            draining: draining.clone(),
            grace: config.drain.grace,
            stop: stop.clone(),
        });
        let mut threads = Vec::new();
        for (index, ((receiver, metrics), runtime)) in
            receivers.into_iter().zip(metrics).zip(runtimes).enumerate()
        {
            let worker = Worker {
                shared: shared.clone(),
                metrics,
                // A token of its own: idle connections register on it, and workers must not meet on one lock.
                stop: stop.child_token(),
                finish: config.drain.finish,
                tls: tls.clone(),
            };
            let first = first.take();
            let thread = std::thread::Builder::new()
                .name(format!("serve-{index}"))
                .spawn(move || runtime.block_on(worker.run(receiver, first)))
                .map_err(Error::Worker)?;
            threads.push(thread);
        }
        let (http, grpc, admin) = (listeners.http, listeners.grpc, listeners.admin);
        tracing::info!(?http, ?grpc, ?admin, workers, "serving");
        Ok(Self { http, grpc, admin, sockets: listeners.sockets, draining, threads, shared })
    }

    /// Where HTTP is served; where that is nowhere, gRPC.
    pub fn address(&self) -> SocketAddr {
        self.http.or(self.grpc).unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)))
    }

    /// Where gRPC has a port of its own.
    pub fn grpc_address(&self) -> Option<SocketAddr> {
        self.grpc
    }

    /// Where load and unload calls have a port of their own.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Is not ready any more, then takes no more connections and lets requests in flight finish.
    pub fn stop(&self) {
        self.draining.cancel();
    }

    /// Waits until all workers have ended, which [`Server::stop`] makes them do. Blocks.
    pub fn join(self) {
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a worker thread panicked");
            }
        }
        self.shared.observe.end();
        for socket in &self.sockets {
            let _ = std::fs::remove_file(socket);
        }
    }
}

/// A connection on its way to a worker.
type Arrived = (Face, Accepted);

/// What the first worker does besides.
struct First {
    listeners: Vec<(Face, Listener)>,
    workers: Vec<mpsc::Sender<Arrived>>,
    connections_max: u64,
    draining: CancellationToken,
    grace: Duration,
    stop: CancellationToken,
}

impl First {
    fn spawn(self, shared: &Arc<Shared>) {
        let (draining, grace, stop) = (self.draining, self.grace, self.stop.clone());
        tokio::spawn(async move {
            draining.cancelled().await;
            tokio::time::sleep(grace).await;
            stop.cancel();
        });
        for (face, listener) in self.listeners {
            let (workers, all, stop) = (self.workers.clone(), shared.metrics.clone(), self.stop.clone());
            let max = self.connections_max;
            tokio::spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = accept(face, listener, workers, all, max) => {}
                }
            });
        }
    }
}

async fn accept(
    face: Face,
    listener: Listener,
    workers: Vec<mpsc::Sender<Arrived>>,
    all: Vec<Arc<Metrics>>,
    max: u64,
) {
    let listener = match Watched::new(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "cannot watch the listener");
            return;
        }
    };
    loop {
        let open: u64 = all.iter().map(|metrics| metrics.connections.load(Relaxed)).sum();
        let accepted = if open < max { listener.accept().await } else { Err(std::io::Error::other("full")) };
        let stream = match accepted {
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
        if workers[index].send((face, stream)).await.is_err() {
            return;
        }
    }
}

/// One thread's share of a server.
#[derive(Clone)]
struct Worker {
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    finish: Duration,
    /// Of TCP ports.
    tls: Option<Arc<Certificates>>,
}

impl Worker {
    async fn run(self, mut receiver: mpsc::Receiver<Arrived>, first: Option<First>) {
        let tasks = TaskTracker::new();
        if let Some(first) = first {
            first.spawn(&self.shared);
        }
        loop {
            let received = tokio::select! {
                received = receiver.recv() => received,
                () = self.stop.cancelled() => None,
            };
            let Some((face, accepted)) = received else { break };
            let open = Open(self.metrics.clone());
            let worker = self.clone();
            tasks.spawn(async move {
                worker.connection(face, accepted).await;
                drop(open);
            });
        }
        tasks.close();
        if tokio::time::timeout(self.finish, tasks.wait()).await.is_err() {
            tracing::warn!(open = tasks.len(), "connections were cut off");
        }
    }

    async fn connection(self, face: Face, accepted: Accepted) {
        match accepted {
            Accepted::Tcp(stream) => {
                let Ok(stream) = TcpStream::from_std(stream) else { return };
                let _ = stream.set_nodelay(true);
                match self.tls.clone() {
                    None => self.speak(face, stream).await,
                    Some(tls) => Box::pin(self.greet(tls, face, stream)).await,
                }
            }
            Accepted::Unix(stream) => {
                let Ok(stream) = UnixStream::from_std(stream) else { return };
                Box::pin(self.speak(face, stream)).await;
            }
        }
    }

    async fn greet(self, tls: Arc<Certificates>, face: Face, stream: TcpStream) {
        let greeted = tokio::select! {
            greeted = tls.greet(face, stream) => greeted,
            () = self.stop.cancelled() => return,
        };
        match greeted {
            // The admin's port finds out by itself, as without TLS.
            Ok((stream, true)) if face != Face::Admin => self.speak(Face::Grpc, stream).await,
            Ok((stream, _)) => self.speak(face, stream).await,
            Err(error) => tracing::debug!(%error, "a TLS handshake failed"),
        }
    }

    /// What is rare or large is boxed, so that the many connections of HTTP/1.1 are small.
    async fn speak(self, face: Face, stream: impl Stream) {
        let Self { shared, metrics, stop, .. } = self;
        let is_open = shared.open_repository || face == Face::Admin;
        match face {
            Face::Http | Face::Admin => {
                let rights = (is_open, face == Face::Admin);
                connection::serve(stream, shared, metrics, stop, rights).await;
            }
            Face::Grpc if stream.is_local() => {
                Box::pin(grpc::serve(Legal::new(stream), shared, metrics, stop, is_open)).await;
            }
            Face::Grpc => Box::pin(grpc::serve(stream, shared, metrics, stop, is_open)).await,
        }
    }
}

/// Counts a connection down however its task ends.
struct Open(Arc<Metrics>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}
