//! Threads, and the end of a server.
//!
//! Each worker is a thread with a single-threaded event loop; a connection that calls models lives on one worker, so
//! nothing on its path is locked or moved between CPUs. A thread in front of them accepts and gives each connection
//! to the worker that has the fewest: with a handful of long-lived connections, which is how gateways connect, the
//! kernel's hashing over `SO_REUSEPORT` sockets would leave some CPUs idle.
//!
//! The front keeps connections as long as they ask for nothing but what is known without a model: health, states,
//! metrics. However much the workers have to do, a probe waits for none of it.
//!
//! The end has an order: first readiness says no while connections are still taken, and each answer sends its client
//! away; then no more connections are taken, and those that the kernel has taken meanwhile are served; then connections
//! are told that no more requests are read; then what is under way finishes. With `SO_REUSEPORT` a second server takes
//! the port at the same time, and no client of theirs sees that one of them ended.
//!
//! Not here: listeners (`listen`), what happens on a connection (`connection`, `grpc`).

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use crate::config::Drain;
use crate::connection::{self, Rights};
use crate::grpc::{self, Legal, Loops};
use crate::listen::{Accepted, Face, Listener, Listeners, Watched};
use crate::metrics::Metrics;
use crate::observe::Observe;
use crate::repository::Repository;
use crate::shared::Shared;
use crate::stop::Stop;
use crate::stream::Stream;
use crate::tls::Certificates;
use crate::{Config, Error, compute, numa};

/// Connections on their way to a worker.
const HANDOVER: usize = 1024;
/// Connections that have begun on a port that is about to close are there after this long: what a round trip takes
/// between neighbours.
const HANDSHAKE_MAX: Duration = Duration::from_millis(5);
/// Who connects at the last moment has this long to ask, where there is a grace at all.
const LAST_MAX: Duration = Duration::from_millis(500);

/// A running server.
pub struct Server {
    http: Option<SocketAddr>,
    grpc: Option<SocketAddr>,
    admin: Option<SocketAddr>,
    sockets: Vec<PathBuf>,
    draining: Stop,
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
        // Before any thread is bound, whose CPUs it would count.
        let cpus = compute::threads();
        numa::look();
        let workers = config.workers.unwrap_or(cpus).clamp(1, 512);
        let mut runtimes = Vec::new();
        // The last is the front's.
        for _ in 0..=workers {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtimes.push(runtime.map_err(Error::Worker)?);
        }
        let metrics: Vec<Arc<Metrics>> =
            (0..=workers).map(|_| Arc::new(Metrics::new(config.observing.models_max))).collect();
        let (draining, stop) = (Stop::default(), Stop::default());
        let loops =
            Loops::new(runtimes.iter().take(workers).map(|runtime| runtime.handle().clone()).collect());
        let observe = Observe::start(&config.observing, &repository, workers)?;
        let shared = Shared::new(&config, repository, metrics.clone(), observe, loops, draining.clone());
        let shared = Arc::new(shared);
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..workers).map(|_| mpsc::channel(HANDOVER)).unzip();
        let receivers = receivers.into_iter().map(Some).chain([None]);
        let mut front = Some(Front {
            listeners: listeners.all,
            workers: Workers { senders, metrics: metrics.clone(), connections_max: config.connections_max },
            draining: draining.clone(),
            drain: config.drain,
            stop: stop.clone(),
        });
        let mut threads = Vec::new();
        for (index, ((receiver, metrics), runtime)) in receivers.zip(metrics).zip(runtimes).enumerate() {
            let worker = Worker {
                shared: shared.clone(),
                metrics,
                // Its own: idle connections register on it, and workers must not meet on one lock.
                stop: stop.elsewhere(),
                finish: config.drain.finish,
                tls: tls.clone(),
            };
            let thread = std::thread::Builder::new();
            let thread = match (receiver, front.take_if(|_| index == workers)) {
                (Some(receiver), _) => thread.name(format!("serve-{index}")).spawn(move || {
                    numa::bind(index, workers);
                    runtime.block_on(worker.run(receiver));
                }),
                (None, front) => {
                    thread.name("serve-front".to_owned()).spawn(move || runtime.block_on(worker.front(front)))
                }
            };
            threads.push(thread.map_err(Error::Worker)?);
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
        self.draining.say();
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

/// A connection on its way to a worker, with what was read from it.
type Arrived = (Face, Accepted, Bytes);

/// What the front does.
struct Front {
    listeners: Vec<(Face, Listener)>,
    workers: Workers,
    draining: Stop,
    drain: Drain,
    stop: Stop,
}

/// The workers, as the front sees them.
#[derive(Clone)]
struct Workers {
    senders: Vec<mpsc::Sender<Arrived>>,
    /// Of the workers and, last, of the front.
    metrics: Vec<Arc<Metrics>>,
    connections_max: u64,
}

impl Workers {
    fn is_full(&self) -> bool {
        let open: u64 = self.metrics.iter().map(|metrics| metrics.connections.load(Relaxed)).sum();
        open >= self.connections_max
    }

    /// Gives a connection to the worker that has the fewest.
    async fn give(&self, arrived: Arrived) {
        let all = self.senders.iter().zip(&self.metrics);
        let fewest = all.min_by_key(|(_, metrics)| metrics.connections.load(Relaxed));
        if let Some((sender, metrics)) = fewest {
            metrics.connections.fetch_add(1, Relaxed);
            // It fails only once the worker has ended, and then nobody counts.
            let _ = sender.send(arrived).await;
        }
    }
}

impl Front {
    /// Accepts until the end, which is told by `stop`.
    fn spawn(self, own: &Worker, tasks: &TaskTracker) {
        let Self { listeners, workers, draining, drain, stop } = self;
        let (closing, accepting) = (Stop::default(), TaskTracker::new());
        for (face, listener) in listeners {
            let (own, workers, closing) = (own.clone(), workers.clone(), closing.clone());
            accepting.spawn(accept(face, listener, own, workers, tasks.clone(), closing));
        }
        tokio::spawn(async move {
            draining.said().await;
            tokio::time::sleep(drain.grace).await;
            closing.say();
            accepting.close();
            accepting.wait().await;
            // Who connected last has not asked yet.
            tokio::time::sleep(drain.grace.min(LAST_MAX)).await;
            stop.say();
        });
    }
}

/// Accepts until it is to close, and then what the kernel has accepted before: what is still in the listener's queue when
/// it closes is reset.
async fn accept(
    face: Face,
    listener: Listener,
    own: Worker,
    workers: Workers,
    tasks: TaskTracker,
    closing: Stop,
) {
    let listener = match Watched::new(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "cannot watch the listener");
            return;
        }
    };
    let door = Door { face, own, workers, tasks };
    let end = async {
        closing.said().await;
        if door.own.shared.config.reuse_port {
            if let Err(error) = listener.begin_no_more() {
                tracing::warn!(%error, "connections that begin while the port closes are reset");
            }
            tokio::time::sleep(HANDSHAKE_MAX).await;
        }
    };
    tokio::select! {
        () = door.accept(&listener) => {}
        () = end => {}
    }
    listener.rest().into_iter().for_each(|accepted| door.let_in(accepted));
}

/// Who comes in by a listener, and where to.
struct Door {
    face: Face,
    own: Worker,
    workers: Workers,
    tasks: TaskTracker,
}

impl Door {
    /// Accepts as long as it is polled.
    async fn accept(&self, listener: &Watched) {
        loop {
            let is_full = self.workers.is_full();
            let accepted = if is_full { Err(std::io::Error::other("full")) } else { listener.accept().await };
            match accepted {
                Ok(accepted) => self.let_in(accepted),
                Err(error) => {
                    // Out of descriptors or of connections: existing ones must end first, and nothing signals that.
                    tracing::warn!(%error, "cannot accept");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    /// Never waits, so that who was accepted is not lost where the accepting ends.
    fn let_in(&self, accepted: Accepted) {
        let (face, own, workers) = (self.face, self.own.clone(), self.workers.clone());
        match accepted {
            // What TLS hides and what is gRPC is a worker's from the start.
            Accepted::Tcp(stream) if own.tls.is_none() && face != Face::Grpc => {
                own.metrics.connections.fetch_add(1, Relaxed);
                let open = Open(own.metrics.clone());
                self.tasks.spawn(async move {
                    let moved = own.look(face, stream).await;
                    drop(open);
                    if let Some((stream, begun)) = moved {
                        workers.give((face, Accepted::Tcp(stream), begun)).await;
                    }
                });
            }
            accepted => {
                self.tasks.spawn(async move { workers.give((face, accepted, Bytes::new())).await });
            }
        }
    }
}

/// One thread's share of a server.
#[derive(Clone)]
struct Worker {
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
    stop: Stop,
    finish: Duration,
    /// Of TCP ports.
    tls: Option<Arc<Certificates>>,
}

impl Worker {
    /// Accepts, and serves what needs no model.
    async fn front(self, front: Option<Front>) {
        let tasks = TaskTracker::new();
        if let Some(front) = front {
            front.spawn(&self, &tasks);
        }
        self.stop.said().await;
        self.finish(tasks).await;
    }

    /// Serves a connection until it calls a model; gives it back then.
    async fn look(self, face: Face, stream: std::net::TcpStream) -> Option<(std::net::TcpStream, Bytes)> {
        let stream = TcpStream::from_std(stream).ok()?;
        let mut first = [0; 4];
        let looked = tokio::time::timeout(self.shared.config.patience.idle, stream.peek(&mut first));
        let count = tokio::select! {
            looked = looked => looked.ok()?.ok()?,
            () = self.stop.said() => return None,
        };
        if count == 0 {
            return None;
        }
        // Whoever begins otherwise calls a model, or begins a connection on which others do.
        let asks = first[..count].starts_with(b"GET") || first[..count].starts_with(b"HEAD");
        if !asks {
            return Some((stream.into_std().ok()?, Bytes::new()));
        }
        let _ = stream.set_nodelay(true);
        let is_open = self.shared.open_repository || face == Face::Admin;
        let Self { shared, metrics, stop, .. } = self;
        let rights = Rights { is_open, is_admin: face == Face::Admin, is_front: true };
        // Boxed: a connection that says nothing is to stay small.
        let serve = Box::pin(connection::serve(stream, Bytes::new(), shared, metrics, stop.ear(), rights));
        let moved = serve.await;
        moved.and_then(|(stream, begun)| Some((stream.into_std().ok()?, begun)))
    }

    async fn finish(&self, tasks: TaskTracker) {
        tasks.close();
        if tokio::time::timeout(self.finish, tasks.wait()).await.is_err() {
            tracing::warn!(open = tasks.len(), "connections were cut off");
        }
    }

    async fn run(self, mut receiver: mpsc::Receiver<Arrived>) {
        let tasks = TaskTracker::new();
        // The front ends first, and with it the channel; whatever it accepted is served.
        let mut late = std::pin::pin!(async {
            self.stop.said().await;
            tokio::time::sleep(self.finish).await;
        });
        loop {
            let received = tokio::select! {
                biased;
                received = receiver.recv() => received,
                () = late.as_mut() => None,
            };
            let Some((face, accepted, begun)) = received else { break };
            let open = Open(self.metrics.clone());
            let worker = self.clone();
            tasks.spawn(async move {
                worker.connection(face, accepted, begun).await;
                drop(open);
            });
        }
        self.finish(tasks).await;
    }

    async fn connection(self, face: Face, accepted: Accepted, begun: Bytes) {
        match accepted {
            Accepted::Tcp(stream) => {
                let Ok(stream) = TcpStream::from_std(stream) else { return };
                let _ = stream.set_nodelay(true);
                match self.tls.clone() {
                    None => self.speak(face, stream, begun).await,
                    Some(tls) => Box::pin(self.greet(tls, face, stream)).await,
                }
            }
            Accepted::Unix(stream) => {
                let Ok(stream) = UnixStream::from_std(stream) else { return };
                Box::pin(self.speak(face, stream, begun)).await;
            }
        }
    }

    async fn greet(self, tls: Arc<Certificates>, face: Face, stream: TcpStream) {
        let greeted = tokio::select! {
            greeted = tls.greet(face, stream) => greeted,
            () = self.stop.said() => return,
        };
        match greeted {
            // The admin's port finds out by itself, as without TLS.
            Ok((stream, true)) if face != Face::Admin => self.speak(Face::Grpc, stream, Bytes::new()).await,
            Ok((stream, _)) => self.speak(face, stream, Bytes::new()).await,
            Err(error) => tracing::debug!(%error, "a TLS handshake failed"),
        }
    }

    /// What is rare or large is boxed, so that the many connections of HTTP/1.1 are small.
    async fn speak(self, face: Face, stream: impl Stream, begun: Bytes) {
        let Self { shared, metrics, stop, .. } = self;
        let is_open = shared.open_repository || face == Face::Admin;
        match face {
            Face::Http | Face::Admin => {
                let rights = Rights { is_open, is_admin: face == Face::Admin, is_front: false };
                connection::serve(stream, begun, shared, metrics, stop.ear(), rights).await;
            }
            Face::Grpc if stream.is_local() => {
                Box::pin(grpc::serve(Legal::new(stream), shared, metrics, stop.ear(), is_open)).await;
            }
            Face::Grpc => Box::pin(grpc::serve(stream, shared, metrics, stop.ear(), is_open)).await,
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
