//! The way from the API to a pod's processes: logs, exec, attach, ports.
//!
//! [`PodStreams`] is what the node gives; `bin` wires the two. This folder speaks kubectl's WebSocket protocols towards
//! the client. Not here: how a process is reached.

mod socket;
mod spdy;
mod tunnel;

use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use axum::body::Body;
use bytes::Bytes;
use futures::Stream;
use http::Response;
use hyper::upgrade::OnUpgrade;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};

use crate::error::Result;
use crate::http::Ctx;

/// Why a pod's streams cannot be had.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StreamError {
    /// Not in a state in which it can be done; told as 400.
    #[error("{0}")]
    NotReady(String),
    /// The container is not there; told as 404.
    #[error("{0}")]
    NotFound(String),
    /// It failed; told as 500.
    #[error("{0}")]
    Failed(String),
}

/// `PodLogOptions`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LogOptions {
    /// Always set; checked to be one of the pod's.
    pub container: String,
    /// Go on until the container ends.
    pub follow: bool,
    /// Of the attempt before the current one.
    pub previous: bool,
    /// An RFC 3339 time before each line.
    pub timestamps: bool,
    /// Only so many lines from the end.
    pub tail_lines: Option<u64>,
    /// Stop after so many bytes.
    pub limit_bytes: Option<u64>,
    /// Only lines younger than so many seconds.
    pub since_seconds: Option<u64>,
    /// Only lines after this time.
    pub since_time: Option<jiff::Timestamp>,
}

/// `PodExecOptions` and `PodAttachOptions`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecOptions {
    /// Always set.
    pub container: String,
    /// Empty for attach.
    pub command: Vec<String>,
    /// Connect standard input.
    pub stdin: bool,
    /// Connect standard output.
    pub stdout: bool,
    /// Connect standard error; never with a terminal.
    pub stderr: bool,
    /// Give it a terminal.
    pub tty: bool,
}

/// Size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// The client's end of an exec or attach. Dropping `stdout` and `stderr` ends nothing by itself; the call's return does.
pub struct ExecIo {
    /// What the client types; the channel closes at its end of input.
    pub stdin: mpsc::Receiver<Bytes>,
    /// Chunks for the client's standard output.
    pub stdout: mpsc::Sender<Bytes>,
    /// Chunks for the client's standard error.
    pub stderr: mpsc::Sender<Bytes>,
    /// Terminal size; changes as the client resizes.
    pub resize: watch::Receiver<Option<TerminalSize>>,
}

/// Bytes of a log, in order.
pub type LogStream = Pin<Box<dyn Stream<Item = std::io::Result<Bytes>> + Send>>;

/// A two-way byte stream.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// What a node offers of its pods. The pod comes as stored, with `spec.nodeName` set.
#[async_trait]
pub trait PodStreams: Send + Sync {
    /// The log of a container.
    async fn logs(&self, pod: &Value, options: LogOptions) -> Result<LogStream, StreamError>;

    /// Runs a command in a container until it ends; returns its exit code. When the call is dropped the client is gone,
    /// and the command should be ended.
    async fn exec(&self, pod: &Value, options: ExecOptions, io: ExecIo) -> Result<i32, StreamError>;

    /// Connects to a container's main process until it ends; returns its exit code.
    async fn attach(&self, pod: &Value, options: ExecOptions, io: ExecIo) -> Result<i32, StreamError>;

    /// Connects to a port inside the pod.
    async fn port_forward(&self, pod: &Value, port: u16) -> Result<Box<dyn Duplex>, StreamError>;
}

/// Answers a request for a stream by switching protocols.
///
/// # Errors
/// `BadRequest` for a request that is no WebSocket upgrade or names no known protocol.
pub fn open(
    ctx: &Ctx,
    node: Arc<dyn PodStreams>,
    pod: Value,
    container: String,
    upgrade: Option<OnUpgrade>,
) -> Result<Response<Body>> {
    let accepted = socket::accept(ctx, upgrade)?;
    match ctx.info.subresource.as_str() {
        "portforward" => socket::port_forward(ctx, node, pod, accepted),
        kind => {
            let tty = ctx.query.flag("tty");
            let options = ExecOptions {
                container,
                command: ctx.query.all("command").into_iter().map(Into::into).collect(),
                stdin: ctx.query.flag("stdin"),
                stdout: ctx.query.flag("stdout"),
                stderr: ctx.query.flag("stderr") && !tty,
                tty,
            };
            socket::exec(node, pod, options, kind == "attach", accepted)
        }
    }
}
