//! The model server: `slipway serve`.
//!
//! One process, any number of models, each with any number of versions. Models are read before the port opens, so a
//! server that accepts connections is a server that answers. What it cannot read then ends the process with the
//! reason on the last line and in `/dev/termination-log`; what it cannot read later leaves the last good version.
//!
//! * `cli` are the flags of KServe's servers and of their peers, [`config`] what they mean.
//! * `listen` opens ports and sockets, `server` spreads their connections over threads with one event loop each;
//!   `connection` is HTTP/1.1 on one of them, `grpc` HTTP/2, `tls` what may be under either.
//! * `routes` says what a path means; `drive` takes one call from its body to its reply in the protocol (`exchange`)
//!   that the path or method named; `bind` matches a request's tensors with a model's inputs.
//! * [`compare`] asks two models about the same data, and tells what changed between them.
//! * [`repository`] knows which models and versions answer and follows their folders; [`evaluate`] runs one call, [`batch`] lets what is
//!   long wait and run together; `compute` are the threads for that, `numa` where threads run; `proof` is what a version must show before it answers.
//! * `metrics` counts every call, `observe` looks at some and has the admin's pages.
//!
//! Not here: Kubernetes, and anything about a model's inside (`models`).

mod background;
pub mod batch;
mod bind;
mod buffers;
mod cache;
pub mod cli;
pub mod compare;
mod compute;
pub mod config;
mod connection;
mod control;
mod date;
mod document;
mod drive;
pub mod evaluate;
mod events;
mod exchange;
mod explain;
mod files;
mod grpc;
mod http;
mod lean;
mod listen;
mod load;
mod metrics;
mod numa;
mod observe;
mod ports;
mod proof;
mod refusal;
pub mod repository;
mod routes;
mod served;
mod server;
mod shared;
mod stop;
mod stream;
#[cfg(any(test, feature = "testkit"))]
pub mod testkit;
mod tls;
mod unpack;

use std::net::SocketAddr;
use std::path::PathBuf;

pub use config::Config;
pub use explain::Origin;
pub use files::{Disk, inspect, read_model};
pub use models::{Inspection, Method};
pub use observe::{Allocator, logs};
pub use ports::Ports;
pub use refusal::{Reason, Refusal};
pub use served::{About, Kept, Personality, Served};
pub use server::Server;

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The model cannot be read or evaluated.
    #[error("cannot load model {name:?} from {path:?}: {why}")]
    Load {
        /// The model's name.
        name: String,
        /// The folder.
        path: PathBuf,
        /// The reason.
        why: String,
    },
    /// The list of models cannot be read.
    #[error("{0}")]
    Config(String),
    /// The port cannot be opened.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// The reason.
        source: std::io::Error,
    },
    /// The unix socket cannot be opened.
    #[error("cannot listen on {path:?}")]
    Socket {
        /// Where.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// A certificate or key cannot be used.
    #[error("cannot use the certificate: {0}")]
    Certificate(String),
    /// A thread or its event loop cannot be made.
    #[error("cannot start a worker thread")]
    Worker(#[source] std::io::Error),
}

/// Loads, tells `ready` once it listens, serves until `shutdown` is done, then finishes what is in flight.
pub async fn run(
    config: Config,
    ready: impl FnOnce(&Server),
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    let started = tokio::task::spawn_blocking(move || Server::start(config)).await;
    let server = match started {
        Ok(Ok(server)) => server,
        Ok(Err(error)) => {
            leave_message(&error);
            return Err(error);
        }
        Err(join) => std::panic::resume_unwind(join.into_panic()),
    };
    ready(&server);
    let leaner = async {
        tokio::time::sleep(lean::FIRST_USE).await;
        lean::after_start();
        std::future::pending().await
    };
    tokio::select! {
        () = shutdown => {}
        () = leaner => {}
    }
    server.stop();
    let _ = tokio::task::spawn_blocking(move || server.join()).await;
    Ok(())
}

/// An error with its causes, on one line.
fn chain(error: &Error) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Kubernetes shows this file's text as the container's termination message. It exists only inside a pod.
fn leave_message(error: &Error) {
    let path = std::env::var_os("SLIPWAY_TERMINATION_LOG").map(PathBuf::from);
    let path = path.unwrap_or_else(|| PathBuf::from("/dev/termination-log"));
    if path.exists()
        && let Err(failure) = std::fs::write(&path, chain(error))
    {
        tracing::warn!(path = %path.display(), error = %failure, "cannot write the termination message");
    }
}
