//! A load generator for model servers: one thread that sends by the clock and counts what comes back.
//!
//! Arrivals follow a schedule made beforehand, and a latency begins when the request was due, not when it could be
//! sent: a server that stalls is charged for everyone who would have waited (no coordinated omission). With a number
//! of connections instead of a rate the loop is closed, which finds the rate that a server can take.
//!
//! * [`ask`] learns what a server's model takes, [`requests`] makes its requests in a protocol.
//! * [`run`] sends them as a [`Plan`] says: `schedule` says when, `http1` and `http2` read the replies without
//!   touching a socket, `drive` owns the sockets.
//! * [`Histogram`] keeps latencies, [`slo::search`] finds the highest rate that keeps an objective.
//!
//! Not here: starting servers and printing (`bin/slipway`), answers' values (`infer`).

pub mod ask;
mod body;
mod drive;
mod histogram;
mod http1;
mod http2;
mod plan;
mod schedule;
pub mod slo;
mod target;

pub use body::requests;
pub use drive::run;
pub use histogram::Histogram;
pub use plan::{Pace, Plan, Report, Requests};
pub use schedule::Spacing;
pub use target::{Protocol, Target};

/// Why there is no measurement.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address, the protocol or the data cannot be used.
    #[error("{0}")]
    Target(String),
    /// Nobody answers there.
    #[error("cannot reach {address}")]
    Reach {
        /// Where.
        address: std::net::SocketAddr,
        /// The reason.
        source: std::io::Error,
    },
    /// The server was reached and never gave an answer.
    #[error("no request was answered; the last failure: {0}")]
    Nothing(String),
    /// The system refuses a clock or a poll.
    #[error("cannot make the event loop")]
    Loop(#[source] std::io::Error),
}

/// The result of everything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;
