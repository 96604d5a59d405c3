//! The way from the API server to the node's pods, and to the logs of the platform's own parts.
//!
//! The two crates do not know each other: the API server says what it needs (`apiserver::PodStreams`), the node what it
//! has. Mirror pods have no processes; their log is their part's log file.

use std::path::{Path, PathBuf};

use apiserver::streams::{Duplex, ExecIo, ExecOptions, LogOptions, LogStream, PodStreams, StreamError};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use node::{Node, logs};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
};

use super::mirror;

/// Bytes read from a program at once.
const CHUNK_BYTES: usize = 16 * 1024;
/// What is shown of a part's log file.
const PART_LOG_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The one node's pods.
pub struct NodeStreams {
    node: Node,
    logs: PathBuf,
}

impl NodeStreams {
    /// Over the node, with the folder of the parts' logs.
    pub fn new(node: Node, logs: PathBuf) -> Self {
        Self { node, logs }
    }
}

#[async_trait]
impl PodStreams for NodeStreams {
    async fn logs(&self, pod: &Value, options: LogOptions) -> Result<LogStream, StreamError> {
        if let Some(part) = pod["metadata"]["annotations"][mirror::PART].as_str() {
            return part_log(&self.logs, part, &options);
        }
        let since_seconds = options.since_seconds.and_then(|seconds| i64::try_from(seconds).ok());
        let since =
            since_seconds.map(|seconds| jiff::Timestamp::now() - jiff::SignedDuration::from_secs(seconds));
        let wanted = logs::Options {
            follow: options.follow,
            previous: options.previous,
            timestamps: options.timestamps,
            since: options.since_time.or(since),
            tail_lines: options.tail_lines,
            limit_bytes: options.limit_bytes,
        };
        let (namespace, name) = names(pod);
        let stream = self.node.logs(namespace, name, Some(&options.container), wanted).map_err(told)?;
        Ok(stream.boxed())
    }

    async fn exec(&self, pod: &Value, options: ExecOptions, io: ExecIo) -> Result<i32, StreamError> {
        let (namespace, name) = names(pod);
        let container = Some(options.container.as_str());
        let program = self.node.exec(namespace, name, container, options.command, options.stdin, options.tty);
        run(program.map_err(told)?, io).await.map_err(|error| StreamError::Failed(error.to_string()))
    }

    async fn attach(&self, pod: &Value, _options: ExecOptions, _io: ExecIo) -> Result<i32, StreamError> {
        let name = names(pod).1;
        Err(StreamError::NotReady(format!(
            "attach to pod \"{name}\" is not offered by this node: its output goes to its log (`kubectl logs -f {name}`), \
             and `kubectl exec` runs a program beside it"
        )))
    }

    async fn port_forward(&self, pod: &Value, port: u16) -> Result<Box<dyn Duplex>, StreamError> {
        let (namespace, name) = names(pod);
        let stream = self.node.port_forward(namespace, name, port).await.map_err(told)?;
        Ok(Box::new(stream))
    }
}

fn names(pod: &Value) -> (&str, &str) {
    let text = |field: &str| pod["metadata"][field].as_str().unwrap_or_default();
    (text("namespace"), text("name"))
}

fn told(error: node::Error) -> StreamError {
    let text = error.to_string();
    match error {
        node::Error::NoSuchPod { .. } => StreamError::NotFound(text),
        node::Error::NoSuchContainer { .. }
        | node::Error::NotStarted { .. }
        | node::Error::NoPrevious { .. } => StreamError::NotReady(text),
        other => StreamError::Failed(format!("{:#}", anyhow::Error::from(other))),
    }
}

/// Connects the program with the client until it ends; its exit code.
async fn run(mut program: node::streams::Exec, mut io: ExecIo) -> std::io::Result<i32> {
    if let Some(terminal) = program.terminal.take() {
        return run_on_terminal(program, terminal, io).await;
    }
    let stdin = program.stdin.take();
    let typed = async move {
        let Some(mut stdin) = stdin else { return };
        while let Some(bytes) = io.stdin.recv().await {
            if stdin.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    let outputs = async {
        tokio::join!(copy(program.stdout.take(), &io.stdout), copy(program.stderr.take(), &io.stderr));
    };
    // The program may end before its standard input is read to the end, and its output may outlive it.
    let typed = tokio::spawn(typed);
    outputs.await;
    let (code, failure) = program.wait().await?;
    typed.abort();
    if let Some(failure) = failure {
        let _ = io.stderr.send(Bytes::from(format!("{failure}\n"))).await;
    }
    Ok(code)
}

async fn copy(from: Option<impl tokio::io::AsyncRead + Unpin>, to: &mpsc::Sender<Bytes>) {
    let Some(mut from) = from else { return };
    let mut buffer = vec![0; CHUNK_BYTES];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if to.send(Bytes::copy_from_slice(&buffer[..length])).await.is_err() {
            return;
        }
    }
}

async fn run_on_terminal(
    mut program: node::streams::Exec,
    terminal: node::streams::Terminal,
    mut io: ExecIo,
) -> std::io::Result<i32> {
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut typing = true;
    loop {
        tokio::select! {
            read = terminal.read(&mut buffer) => match read {
                Ok(length @ 1..) => {
                    if io.stdout.send(Bytes::copy_from_slice(&buffer[..length])).await.is_err() {
                        break;
                    }
                }
                _ => break,
            },
            typed = io.stdin.recv(), if typing => match typed {
                Some(bytes) => terminal.write_all(&bytes).await?,
                None => typing = false,
            },
            Ok(()) = io.resize.changed() => {
                let size = *io.resize.borrow_and_update();
                if let Some(size) = size {
                    terminal.resize(size.width, size.height)?;
                }
            }
        }
    }
    drop(terminal);
    Ok(program.wait().await?.0)
}

/// The end of a part's log file. Following is not offered: the file may be cut over under the reader.
fn part_log(folder: &Path, part: &str, options: &LogOptions) -> Result<LogStream, StreamError> {
    let failed =
        |error: std::io::Error| StreamError::Failed(format!("cannot read the log of {part}: {error}"));
    let text = match std::fs::read(telemetry::part_log(folder, part)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        other => other.map_err(failed)?,
    };
    let text = &text[text.len().saturating_sub(PART_LOG_BYTES_MAX)..];
    let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    let wanted = options.tail_lines.and_then(|lines| usize::try_from(lines).ok()).unwrap_or(usize::MAX);
    let mut tail = lines[lines.len().saturating_sub(wanted)..].concat();
    if let Some(limit) = options.limit_bytes.and_then(|limit| usize::try_from(limit).ok()) {
        tail.truncate(limit);
    }
    Ok(futures::stream::once(async move { Ok(Bytes::from(tail)) }).boxed())
}
