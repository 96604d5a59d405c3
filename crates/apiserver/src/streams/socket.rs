//! kubectl's WebSocket protocols: `v5.channel.k8s.io` and `v4.channel.k8s.io` for exec and attach, `v4` and
//! [`super::tunnel`] for ports.
//!
//! Every message is binary and starts with a channel number: 0 stdin, 1 stdout, 2 stderr, 3 the final Status, 4 resize,
//! 255 (v5) closes the channel whose number follows. Queues are bounded: a client that does not read slows the process.

use std::sync::Arc;

use axum::body::Body;
use bytes::{BufMut as _, Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use http::{HeaderValue, Response, StatusCode, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{mpsc, watch};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};

use super::{ExecIo, ExecOptions, PodStreams, StreamError, TerminalSize};
use crate::error::{ApiError, Result};
use crate::http::Ctx;
use crate::object;

const V5: &str = "v5.channel.k8s.io";
const V4: &str = "v4.channel.k8s.io";
/// SPDY inside the WebSocket, for port-forward.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
/// Chunks that may wait in each direction.
pub(super) const QUEUE: usize = 32;
pub(super) const READ_BYTES: usize = 32 << 10;

pub(super) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// A handshake that can be answered.
pub struct Accepted {
    upgrade: OnUpgrade,
    protocol: &'static str,
    key: String,
}

/// Checks the handshake of a request.
///
/// # Errors
/// `BadRequest` that says what is supported.
pub fn accept(ctx: &Ctx, upgrade: Option<OnUpgrade>) -> Result<Accepted> {
    let text = |name: header::HeaderName| -> String {
        let all = ctx.headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        all.collect::<Vec<_>>().join(",")
    };
    let is_websocket = text(header::UPGRADE).eq_ignore_ascii_case("websocket");
    let (true, Some(upgrade)) = (is_websocket, upgrade) else {
        return Err(ApiError::bad_request(
            "Upgrade request required: this server speaks WebSocket (v5.channel.k8s.io, v4.channel.k8s.io), not SPDY",
        ));
    };
    let offered = text(header::SEC_WEBSOCKET_PROTOCOL);
    let known: &[&'static str] =
        if ctx.info.subresource == "portforward" { &[TUNNEL, V4] } else { &[V5, V4] };
    let protocol = known.iter().copied().find(|known| offered.split(',').any(|one| one.trim() == *known));
    let Some(protocol) = protocol else {
        return Err(ApiError::bad_request(format!(
            "no known WebSocket protocol among {offered:?}; this server speaks {known:?}"
        )));
    };
    Ok(Accepted { upgrade, protocol, key: text(header::SEC_WEBSOCKET_KEY) })
}

/// Answers 101 and runs `work` on the socket once the client has switched.
fn switch<F, W>(accepted: Accepted, work: W) -> Response<Body>
where
    W: FnOnce(Socket) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let Accepted { upgrade, protocol, key } = accepted;
    tokio::spawn(async move {
        match upgrade.await {
            Ok(stream) => {
                let socket = WebSocketStream::from_raw_socket(TokioIo::new(stream), Role::Server, None).await;
                work(socket).await;
            }
            Err(error) => tracing::debug!(%error, "the client did not switch to WebSocket"),
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    if let Ok(value) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, value);
    }
    response
}

/// The normal end; kubectl takes a close without a code for a failure.
pub(super) fn closing() -> Message {
    Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() }))
}

fn framed(channel: u8, data: &[u8]) -> Message {
    let mut out = BytesMut::with_capacity(data.len() + 1);
    out.put_u8(channel);
    out.extend_from_slice(data);
    Message::Binary(out.freeze())
}

/// Opens an exec or attach.
///
/// # Errors
/// None today; the signature is that of its sibling.
pub fn exec(
    node: Arc<dyn PodStreams>,
    pod: Value,
    options: ExecOptions,
    is_attach: bool,
    accepted: Accepted,
) -> Result<Response<Body>> {
    Ok(switch(accepted, move |socket| run_exec(socket, node, pod, options, is_attach)))
}

async fn run_exec(
    socket: Socket,
    node: Arc<dyn PodStreams>,
    pod: Value,
    options: ExecOptions,
    is_attach: bool,
) {
    let (mut sink, source) = socket.split();
    let (to_process, stdin) = mpsc::channel(QUEUE);
    let (stdout, mut from_stdout) = mpsc::channel::<Bytes>(QUEUE);
    let (stderr, mut from_stderr) = mpsc::channel::<Bytes>(QUEUE);
    let (size, resize) = watch::channel(None);
    let reader = read_client(source, options.stdin.then_some(to_process), size);
    let io = ExecIo { stdin, stdout, stderr, resize };
    let work = async {
        if is_attach { node.attach(&pod, options, io).await } else { node.exec(&pod, options, io).await }
    };
    let (work, reader) = (std::pin::pin!(work), std::pin::pin!(reader));
    let (mut work, mut reader) = (work, reader);
    let mut result = None;
    let mut out_open = (true, true);
    // Ends when the process has ended and all its output is out, or when the client is gone: then `work` is dropped.
    while result.is_none() || out_open.0 || out_open.1 {
        let message = tokio::select! {
            done = &mut work, if result.is_none() => { result = Some(done); continue; }
            () = &mut reader, if result.is_none() => return,
            chunk = from_stdout.recv(), if out_open.0 => chunk.map(|chunk| framed(1, &chunk)).or_else(|| { out_open.0 = false; None }),
            chunk = from_stderr.recv(), if out_open.1 => chunk.map(|chunk| framed(2, &chunk)).or_else(|| { out_open.1 = false; None }),
        };
        if let Some(message) = message
            && sink.send(message).await.is_err()
        {
            return;
        }
    }
    finish(&mut sink, result.unwrap_or(Ok(0))).await;
}

async fn finish(sink: &mut SplitSink<Socket, Message>, result: Result<i32, StreamError>) {
    let status = exit_status(result).to_string();
    for message in [framed(3, status.as_bytes()), closing()] {
        if sink.send(message).await.is_err() {
            return;
        }
    }
}

/// The Status by which kubectl learns how a command ended.
fn exit_status(result: Result<i32, StreamError>) -> Value {
    match result {
        Ok(0) => json!({ "metadata": {}, "status": "Success" }),
        Ok(code) => json!({
            "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
            "message": format!("command terminated with non-zero exit code: exit status {code}"),
            "details": { "causes": [{ "reason": "ExitCode", "message": code.to_string() }] },
        }),
        Err(error) => json!({
            "metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
            "message": format!("Internal error occurred: {error}"),
        }),
    }
}

/// Sorts the client's messages until it goes.
async fn read_client(
    mut source: SplitStream<Socket>,
    mut stdin: Option<mpsc::Sender<Bytes>>,
    size: watch::Sender<Option<TerminalSize>>,
) {
    while let Some(Ok(message)) = source.next().await {
        let data = match message {
            Message::Binary(data) => data,
            Message::Text(text) => Bytes::copy_from_slice(text.as_bytes()),
            Message::Close(_) => return,
            _ => continue,
        };
        match data.first() {
            Some(0) => {
                // A process that reads no more loses its input, as with a closed pipe.
                if let Some(stdin) = &stdin
                    && data.len() > 1
                {
                    drop(stdin.send(data.slice(1..)).await);
                }
            }
            Some(4) => {
                let value: Value = serde_json::from_slice(&data[1..]).unwrap_or_default();
                let side = |name: &str| u16::try_from(object::int(&value, name).unwrap_or(0)).unwrap_or(0);
                size.send_replace(Some(TerminalSize { width: side("/Width"), height: side("/Height") }));
            }
            Some(255) if data.get(1) == Some(&0) => stdin = None,
            _ => {}
        }
    }
}

/// Opens port-forward in the channel protocol: for each port a data and an error channel, each told its port first.
///
/// # Errors
/// `BadRequest` without ports.
pub fn port_forward(
    ctx: &Ctx,
    node: Arc<dyn PodStreams>,
    pod: Value,
    accepted: Accepted,
) -> Result<Response<Body>> {
    if accepted.protocol == TUNNEL {
        return Ok(switch(accepted, move |socket| super::tunnel::run(socket, node, pod)));
    }
    let texts = ctx.query.all("ports");
    let ports: Vec<u16> =
        texts.iter().flat_map(|text| text.split(',')).filter_map(|text| text.parse().ok()).collect();
    if ports.is_empty() || ports.len() > 100 {
        return Err(ApiError::bad_request("query parameter \"ports\" is required: one to 100 port numbers"));
    }
    Ok(switch(accepted, move |socket| run_ports(socket, node, pod, ports)))
}

async fn run_ports(socket: Socket, node: Arc<dyn PodStreams>, pod: Value, ports: Vec<u16>) {
    let (mut sink, mut source) = socket.split();
    let (to_client, mut from_ports) = mpsc::channel::<Message>(QUEUE);
    let mut writers = Vec::new();
    let mut tasks = tokio::task::JoinSet::new();
    let pod = Arc::new(pod);
    for (index, port) in ports.into_iter().enumerate() {
        let channel = u8::try_from(index * 2).unwrap_or(u8::MAX);
        for number in [channel, channel + 1] {
            if sink.send(framed(number, &port.to_le_bytes())).await.is_err() {
                return;
            }
        }
        let (writer, input) = mpsc::channel::<Bytes>(QUEUE);
        writers.push(writer);
        tasks.spawn(pump_port(node.clone(), pod.clone(), port, channel, input, to_client.clone()));
    }
    drop(to_client);
    loop {
        tokio::select! {
            message = from_ports.recv() => match message {
                Some(message) => if sink.send(message).await.is_err() { return },
                None => break,
            },
            message = source.next() => match message {
                Some(Ok(Message::Binary(data))) if data.len() > 1 => {
                    if let Some(writer) = writers.get(usize::from(data[0]) / 2) {
                        drop(writer.send(data.slice(1..)).await);
                    }
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => {}
            },
        }
    }
    // The client is told the end; when it is gone there is nobody to tell.
    drop(sink.send(closing()).await);
}

async fn pump_port(
    node: Arc<dyn PodStreams>,
    pod: Arc<Value>,
    port: u16,
    channel: u8,
    mut input: mpsc::Receiver<Bytes>,
    to_client: mpsc::Sender<Message>,
) {
    let stream = match node.port_forward(&pod, port).await {
        Ok(stream) => stream,
        Err(error) => return drop(to_client.send(framed(channel + 1, error.to_string().as_bytes())).await),
    };
    let (mut reader, mut writer) = tokio::io::split(stream);
    let upward = async {
        while let Some(data) = input.recv().await {
            if writer.write_all(&data).await.is_err() {
                return;
            }
        }
        drop(writer.shutdown().await);
        // The pod may still answer.
        std::future::pending::<()>().await;
    };
    let downward = async {
        let mut buffer = vec![0; READ_BYTES];
        while let Ok(count) = reader.read(&mut buffer).await {
            if count == 0 || to_client.send(framed(channel, &buffer[..count])).await.is_err() {
                return;
            }
        }
    };
    tokio::select! { () = upward => {}, () = downward => {} }
}
