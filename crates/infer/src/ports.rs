//! Flags of ports, sockets, certificates and connections.
//!
//! They are ours: KServe's servers leave such things to a proxy before them. Not here: which models (`cli`).

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::Config;
use crate::config::{Patience, Tls};

/// How clients reach the server.
#[derive(Debug, Clone, Args)]
#[command(rename_all = "snake_case")]
pub struct Ports {
    /// Certificate chain of the ports, PEM; read again when it changes.
    #[arg(long = "tls_certificate", requires = "tls_key")]
    pub tls_certificate: Option<PathBuf>,
    /// Private key of the certificate, PEM.
    #[arg(long = "tls_key", requires = "tls_certificate")]
    pub tls_key: Option<PathBuf>,
    /// Authorities of client certificates, PEM; with them every client must show one.
    #[arg(long = "tls_client_authorities", requires = "tls_certificate")]
    pub tls_client_authorities: Option<PathBuf>,
    /// A unix socket that HTTP is served on as well.
    #[arg(long = "http_socket")]
    pub http_socket: Option<PathBuf>,
    /// A unix socket that gRPC is served on as well.
    #[arg(long = "grpc_socket")]
    pub grpc_socket: Option<PathBuf>,
    /// A port that takes load, unload and reload calls, besides everything that the others take.
    #[arg(long = "admin_port")]
    pub admin_port: Option<u16>,
    /// A unix socket that takes them.
    #[arg(long = "admin_socket")]
    pub admin_socket: Option<PathBuf>,
    /// Share the ports with servers that say so too: start the new one, then end the old one, and no client notices.
    #[arg(long = "reuse_port")]
    pub reuse_port: bool,
    /// Let pages of other sites call.
    #[arg(long = "enable_cors")]
    pub enable_cors: bool,
    /// Open connections, at most.
    #[arg(long = "max_connections", default_value_t = 50_000)]
    pub max_connections: u64,
    /// Seconds that a connection lives, give or take a tenth; unlimited by default.
    #[arg(long = "max_connection_age_seconds")]
    pub max_connection_age_seconds: Option<u64>,
    /// Milliseconds that a connection may be idle between two requests.
    #[arg(long = "connection_idle_ms", default_value_t = 120_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub connection_idle_ms: u64,
    /// Milliseconds between two pieces of a request, and for a reply to be taken; slower clients are sent away.
    #[arg(long = "connection_stall_ms", default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub connection_stall_ms: u64,
    /// Milliseconds that a request without a deadline of its own may wait for its evaluation; unlimited by default.
    #[arg(long = "request_timeout_ms")]
    pub request_timeout_ms: Option<u64>,
    /// Seconds that a server which was told to end still takes connections while it says that it is not ready.
    #[arg(long = "drain_grace_seconds", default_value_t = 0)]
    pub drain_grace_seconds: u64,
    /// Answer 500 instead of 400 to inputs that do not fit the model, as KServe's Python servers do.
    #[arg(long = "upstream_error_codes")]
    pub upstream_error_codes: bool,
}

impl Ports {
    pub(crate) fn apply(&self, config: &mut Config) {
        if let (Some(certificate), Some(key)) = (&self.tls_certificate, &self.tls_key) {
            config.tls = Some(Tls {
                certificate: certificate.clone().into(),
                key: key.clone().into(),
                client_authorities: self.tls_client_authorities.clone().map(Into::into),
            });
        }
        config.http_socket.clone_from(&self.http_socket);
        config.grpc_socket.clone_from(&self.grpc_socket);
        // Loopback: who may load models is decided by who reaches the port.
        config.admin = self.admin_port.map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        config.admin_socket.clone_from(&self.admin_socket);
        config.reuse_port = self.reuse_port;
        config.cors = self.enable_cors;
        config.connections_max = self.max_connections.max(1);
        config.connection_age = self.max_connection_age_seconds.map(Duration::from_secs);
        config.patience = Patience {
            idle: Duration::from_millis(self.connection_idle_ms),
            stall: Duration::from_millis(self.connection_stall_ms),
        };
        config.timeout = self.request_timeout_ms.map(Duration::from_millis);
        config.drain.grace = Duration::from_secs(self.drain_grace_seconds);
        config.upstream_codes = self.upstream_error_codes;
    }
}
