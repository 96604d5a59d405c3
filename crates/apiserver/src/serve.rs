//! The two ways in: TLS connections, and clients in this process.
//!
//! Both end in [`crate::http::handle`], so authorisation runs for both. On a loopback listener the `Host` header must name
//! this machine: a web page that rebinds its name to 127.0.0.1 gets nothing.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use futures::future::BoxFuture;
use http::{Request, Response, header};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::authn::{ClientCertificate, UserInfo};
use crate::error::ApiError;
use crate::http::{error_response, handle};
use crate::server::ApiServer;

/// Connections at a time; one more waits in the kernel's queue.
const CONNECTIONS_MAX: usize = 1024;
/// Time for a TLS handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Time that open requests get at the end.
const DRAIN_MAX: Duration = Duration::from_secs(2);

/// A tower service for one user in this process.
#[derive(Clone)]
pub struct LocalService {
    server: Arc<ApiServer>,
    user: UserInfo,
}

impl<B> tower::Service<Request<B>> for LocalService
where
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(self.user.clone());
        Box::pin({
            let server = self.server.clone();
            async move { Ok(handle(server, request).await) }
        })
    }
}

impl ApiServer {
    /// The tower service behind [`ApiServer::client`].
    pub fn service(self: &Arc<Self>, user: UserInfo) -> LocalService {
        LocalService { server: self.clone(), user }
    }

    /// A Kubernetes client in this process that acts as the user, with no more rights than the user's roles give.
    pub fn client(self: &Arc<Self>, user: UserInfo) -> kube::Client {
        kube::Client::new(self.service(user), "default")
    }

    /// Serves TLS connections until `shutdown`; then gives open requests a moment.
    pub async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        tls: Arc<rustls::ServerConfig>,
        shutdown: CancellationToken,
    ) {
        let acceptor = TlsAcceptor::from(tls);
        let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let connections = tokio_util::task::TaskTracker::new();
        loop {
            let Ok(slot) = slots.clone().acquire_owned().await else { break };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = shutdown.cancelled() => break,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let (server, acceptor, shutdown) = (self.clone(), acceptor.clone(), shutdown.clone());
                    connections.spawn(async move {
                        connection(server, acceptor, stream, peer, shutdown).await;
                        drop(slot);
                    });
                }
                // Out of descriptors or a peer that left: the next accept may do better.
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        connections.close();
        if tokio::time::timeout(DRAIN_MAX, connections.wait()).await.is_err() {
            tracing::debug!("connections were still open at the end");
        }
    }
}

async fn connection(
    server: Arc<ApiServer>,
    acceptor: TlsAcceptor,
    stream: TcpStream,
    peer: SocketAddr,
    shutdown: CancellationToken,
) {
    drop(stream.set_nodelay(true));
    let checks_host = stream.local_addr().is_ok_and(|address| address.ip().is_loopback());
    let stream = match tokio::time::timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%peer, %error, "TLS handshake failed"),
        Err(_) => return tracing::debug!(%peer, "TLS handshake took too long"),
    };
    let certificates = stream.get_ref().1.peer_certificates();
    let subject = certificates.and_then(|all| all.first()).and_then(|first| ClientCertificate::read(first));
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        let server = server.clone();
        if let Some(subject) = &subject {
            request.extensions_mut().insert(subject.clone());
        }
        async move {
            if checks_host && !host_is_ours(&request, server.config.advertise.ip()) {
                let error = ApiError::forbidden_path("the Host header names another machine");
                return Ok(error_response(&error, crate::request::Accept::default()));
            }
            Ok::<_, Infallible>(handle(server, request.map(Body::new)).await)
        }
    });
    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        done = &mut serving => if let Err(error) = done {
            tracing::debug!(%peer, %error, "connection ended");
        },
        () = shutdown.cancelled() => {
            serving.as_mut().graceful_shutdown();
            // Watches never end by themselves, so the wait has a bound.
            drop(tokio::time::timeout(DRAIN_MAX, serving).await);
        }
    }
}

/// The names under which a loopback listener is reached honestly.
fn host_is_ours<B>(request: &Request<B>, advertised: IpAddr) -> bool {
    let header = request.headers().get(header::HOST).and_then(|value| value.to_str().ok());
    let Some(host) = request.uri().authority().map(|authority| authority.as_str()).or(header) else {
        return false;
    };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(""),
        None => host.split(':').next().unwrap_or(""),
    };
    if let Ok(address) = name.parse::<IpAddr>() {
        return address.is_loopback() || address == advertised || is_private(address);
    }
    let own = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"];
    own.contains(&name) || name == "kubernetes.default.svc.cluster.local"
}

/// Cluster addresses: pods reach this listener by the address of the `kubernetes` Service. An address cannot be rebound,
/// only names can.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_private() || address.is_link_local(),
        IpAddr::V6(address) => address.is_unique_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_host_is_not_ours_and_addresses_are() {
        let advertised = IpAddr::from([127, 97, 128, 1]);
        let cases = [
            ("localhost:6443", true),
            ("127.0.0.1:1", true),
            ("[::1]:1", true),
            ("10.96.0.1", true),
            ("kubernetes.default.svc", true),
            ("evil.example:6443", false),
            ("localhost.evil.example", false),
            ("8.8.8.8", false),
            ("", false),
        ];
        for (host, want) in cases {
            let request = Request::builder().uri("/api").header(header::HOST, host).body(()).unwrap();
            assert_eq!(host_is_ours(&request, advertised), want, "{host}");
        }
        assert!(!host_is_ours(&Request::builder().uri("/api").body(()).unwrap(), advertised));
    }
}
