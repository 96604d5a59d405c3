//! The threads that tell others what was observed: lines to a log, spans to a collector, payloads to a log, shadows.
//!
//! Each has an event loop of its own and the lowest priority, so that observing yields to serving: what it cannot tell
//! in time stays in a bounded queue until that is full, and is then dropped and counted.
//!
//! Not here: what is told (`access`, `otlp`, `payload`, `shadow`).

use std::pin::Pin;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use tokio_util::sync::CancellationToken;

use crate::background;

/// How long the end of the server waits for what is still to be told.
const END_MAX: Duration = Duration::from_secs(3);
/// How long another server may take for one message.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Something that tells until it is told to end, and then what it still has.
pub(super) type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A thread.
#[derive(Debug)]
pub(super) struct Ship {
    stop: CancellationToken,
    ended: Receiver<()>,
}

impl Ship {
    /// Starts it with all it will ever do; nothing is started for nothing.
    pub(super) fn start(
        name: &str,
        stop: CancellationToken,
        all: Vec<Work>,
    ) -> std::io::Result<Option<Self>> {
        if all.is_empty() {
            return Ok(None);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (alive, ended) = bounded::<()>(0);
        std::thread::Builder::new().name(name.into()).spawn(move || {
            background::lower();
            runtime.block_on(futures::future::join_all(all));
            drop(alive);
        })?;
        Ok(Some(Self { stop, ended }))
    }

    /// Tells what waits and ends. Blocks, though not for long.
    pub(super) fn end(&self) {
        self.stop.cancel();
        let _ = self.ended.recv_timeout(END_MAX);
    }
}

/// A client for one destination.
///
/// # Errors
/// Where TLS cannot be set up.
pub(super) fn client() -> Result<reqwest::Client, String> {
    // A provider that somebody else installed is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().timeout(ANSWER_MAX).user_agent("slipway");
    client.build().map_err(|error| format!("cannot make an HTTP client: {error}"))
}

/// Whether a text is an address that can be sent to.
///
/// # Errors
/// Says what is wrong; the text itself may hold a password and is not repeated.
pub(crate) fn check_url(what: &str, url: &str) -> Result<(), String> {
    let parsed = reqwest::Url::parse(url).map_err(|error| format!("{what} is no URL: {error}"))?;
    match parsed.scheme() {
        "http" | "https" => Ok(()),
        other => Err(format!("{what} begins with {other}:, expected http: or https:")),
    }
}
