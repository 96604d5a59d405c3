//! The Services' addresses: layer-4 listeners of the node that hand connections to ready endpoints.
//!
//! * `table` turns Services and EndpointSlices into what must listen where, and for whom: pure.
//! * `forward` picks an endpoint for each connection and moves the bytes.
//! * This file watches, and opens and closes listeners so that they are what the table says.
//!
//! A port without a ready endpoint has no listener, so the kernel refuses at once, as upstream's reject rule does. It also
//! leaves the port free for a program that binds 0.0.0.0 on the loopback network while it starts.
//! A listener that closes leaves its connections alone: they end when one of their ends does.
//!
//! TCP only. UDP and SCTP ports get a warning; ExternalName and headless Services have no address to listen at.

mod forward;
mod table;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use kube::api::Api;
use kube::runtime::watcher;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use super::Network;
use super::seen::{Seen, changes};
use forward::Balancer;
use table::{Route, Table};

/// Connections that the proxy carries at once; over it, new ones wait in the listeners' backlogs.
const CONNECTIONS_MAX: usize = 4096;
/// Added to a port below 1024 that the process may not bind.
const UNPRIVILEGED_OFFSET: u16 = 10_000;
/// Connections that the kernel queues for a listener.
const BACKLOG: u32 = 1024;
/// Changes taken in before the listeners are brought in line.
const BATCH_MAX: usize = 256;

/// Serves the Services of the cluster until it is dropped. Failed watches are retried with backoff.
pub async fn run(client: Client, network: Arc<dyn Network>) {
    let services = changes(Api::<Service>::all(client.clone())).map(|event| Change::Service(Box::new(event)));
    let slices = changes(Api::<EndpointSlice>::all(client)).map(Change::Slice);
    let mut batches = futures::stream::select(services, slices).boxed().ready_chunks(BATCH_MAX);
    let mut proxy = Proxy::new(network);
    while let Some(batch) = batches.next().await {
        for change in batch {
            proxy.observe(change);
        }
        // Until both lists are in, a missing endpoint means nothing.
        if proxy.services.complete && proxy.slices.complete {
            proxy.bring_in_line().await;
        }
    }
}

#[allow(clippy::large_enum_variant, reason = "one at a time, moved once")]
enum Change {
    Service(Box<watcher::Event<Service>>),
    Slice(watcher::Event<EndpointSlice>),
}

/// A port that is open, and the task that accepts on it.
struct Open {
    route: watch::Sender<Route>,
    task: JoinHandle<()>,
}

struct Proxy {
    network: Arc<dyn Network>,
    services: Seen<Service>,
    slices: Seen<EndpointSlice>,
    open: HashMap<SocketAddr, Open>,
    connections: Arc<Semaphore>,
}

impl Proxy {
    fn new(network: Arc<dyn Network>) -> Self {
        let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        Self { network, services: Seen::new(), slices: Seen::new(), open: HashMap::new(), connections }
    }

    fn observe(&mut self, change: Change) {
        match change {
            Change::Service(event) => self.services.observe(*event),
            Change::Slice(event) => self.slices.observe(event),
        }
    }

    async fn bring_in_line(&mut self) {
        let mut wanted = table::table(
            self.services.all(),
            self.slices.all(),
            self.network.service_range(),
            self.network.host_ip(),
        );
        self.close_unwanted(&wanted).await;
        for (address, open) in &self.open {
            let Some(route) = wanted.remove(address) else { continue };
            open.route.send_if_modified(|current| {
                let changed = *current != route;
                *current = route;
                changed
            });
        }
        for (address, route) in wanted {
            match listen(address) {
                Ok(listener) => drop(self.open.insert(address, self.serve(listener, route))),
                Err(error) => {
                    tracing::warn!(%address, service = %route.name, %error, "cannot listen for the service")
                }
            }
        }
    }

    async fn close_unwanted(&mut self, wanted: &Table) {
        let gone: Vec<SocketAddr> =
            self.open.keys().filter(|at| !wanted.contains_key(*at)).copied().collect();
        for address in gone {
            let Some(open) = self.open.remove(&address) else { continue };
            open.task.abort();
            // Waited for, so that the port is free again when a later change wants it.
            let _cancelled = open.task.await;
        }
    }

    fn serve(&self, listener: TcpListener, route: Route) -> Open {
        let (sender, receiver) = watch::channel(route);
        let task = tokio::spawn(forward::accept(listener, Balancer::new(receiver), self.connections.clone()));
        Open { route: sender, task }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        for open in self.open.values() {
            open.task.abort();
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    match listen_exactly(address) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && address.port() < 1024 => {
            let moved = SocketAddr::new(address.ip(), address.port() + UNPRIVILEGED_OFFSET);
            let listener = listen_exactly(moved)?;
            tracing::info!(%address, %moved, "ports below 1024 need rights that this process has not; listening above");
            Ok(listener)
        }
        other => other,
    }
}

fn listen_exactly(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
