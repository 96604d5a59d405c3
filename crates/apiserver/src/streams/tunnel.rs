//! Port-forward as kubectl does it since 1.31: SPDY streams inside one WebSocket.
//!
//! Each connection to a local port of the client becomes an error stream and a data stream with the same request id. The
//! data stream is a connection to the pod; the error stream carries a text when that fails and otherwise only its end.

use std::collections::HashMap;
use std::sync::Arc;

use futures::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio_tungstenite::tungstenite::Message;

use super::PodStreams;
use super::socket::{QUEUE, READ_BYTES, Socket, closing};
use super::spdy::{self, Damaged, Frame, Reader};

/// Streams of one tunnel at a time.
const STREAMS_MAX: usize = 512;

/// An open data stream.
struct Open {
    input: Option<mpsc::Sender<Vec<u8>>>,
    task: AbortHandle,
}

struct Tunnel {
    node: Arc<dyn PodStreams>,
    pod: Arc<Value>,
    to_client: mpsc::Sender<Vec<u8>>,
    /// Error streams that wait for their data stream, by request id.
    errors: HashMap<String, u32>,
    open: HashMap<u32, Open>,
    has_replied: bool,
    tasks: tokio::task::JoinSet<()>,
}

/// Serves a tunnel until the client goes.
pub async fn run(socket: Socket, node: Arc<dyn PodStreams>, pod: Value) {
    let (mut sink, mut source) = socket.split();
    let (to_client, mut outgoing) = mpsc::channel::<Vec<u8>>(QUEUE);
    let mut reader = Reader::default();
    let mut tunnel = Tunnel {
        node,
        pod: Arc::new(pod),
        to_client,
        errors: HashMap::new(),
        open: HashMap::new(),
        has_replied: false,
        tasks: tokio::task::JoinSet::new(),
    };
    loop {
        let message = tokio::select! {
            Some(bytes) = outgoing.recv() => {
                if sink.send(Message::Binary(bytes.into())).await.is_err() {
                    return;
                }
                continue;
            }
            message = source.next() => message,
        };
        let data = match message {
            Some(Ok(Message::Binary(data))) => data,
            Some(Ok(Message::Close(_)) | Err(_)) | None => break,
            Some(Ok(_)) => continue,
        };
        reader.push(&data);
        match tunnel.take_all(&mut reader).await {
            Ok(answers) => {
                for answer in answers {
                    if sink.send(Message::Binary(answer.into())).await.is_err() {
                        return;
                    }
                }
            }
            Err(error) => {
                tracing::debug!(%error, "port-forward ended");
                break;
            }
        }
    }
    // The client is told the end; when it is gone there is nobody to tell.
    drop(sink.send(closing()).await);
}

fn header<'a>(headers: &'a [(String, String)], name: &str) -> &'a str {
    headers.iter().find(|(own, _)| own == name).map_or("", |(_, value)| value)
}

impl Tunnel {
    async fn take_all(&mut self, reader: &mut Reader) -> Result<Vec<Vec<u8>>, Damaged> {
        let mut answers = Vec::new();
        while let Some(frame) = reader.next()? {
            self.take(frame, &mut answers).await;
        }
        self.open.retain(|_, one| !one.task.is_finished());
        Ok(answers)
    }

    async fn take(&mut self, frame: Frame, answers: &mut Vec<Vec<u8>>) {
        match frame {
            Frame::Open { id, headers } => {
                answers.push(spdy::reply(id, !std::mem::replace(&mut self.has_replied, true)));
                self.opened(id, &headers, answers);
            }
            Frame::Data { id, data, is_last } => {
                let Some(open) = self.open.get_mut(&id) else { return };
                if let (Some(input), false) = (&open.input, data.is_empty()) {
                    // A pod that stopped reading loses the rest, as with a closed socket.
                    drop(input.send(data).await);
                }
                if is_last {
                    open.input = None;
                }
            }
            Frame::Reset { id } => {
                if let Some(open) = self.open.remove(&id) {
                    open.task.abort();
                }
            }
            Frame::Ping(frame) => answers.push(frame),
            Frame::GoAway | Frame::Other => {}
        }
    }

    fn opened(&mut self, id: u32, headers: &[(String, String)], answers: &mut Vec<Vec<u8>>) {
        let request = header(headers, "requestid").to_owned();
        if header(headers, "streamtype") == "error" {
            if self.errors.len() < STREAMS_MAX {
                self.errors.insert(request, id);
            }
            return;
        }
        let error_id = self.errors.remove(&request);
        let port = header(headers, "port").parse::<u16>().ok().filter(|port| *port > 0);
        let (Some(error_id), Some(port), true) = (error_id, port, self.open.len() < STREAMS_MAX) else {
            answers.push(spdy::data(id, &[], true));
            answers.extend(
                error_id.map(|error_id| {
                    spdy::data(error_id, b"a stream without a port or too many streams", true)
                }),
            );
            return;
        };
        let (input, output) = mpsc::channel(QUEUE);
        let (node, pod, to_client) = (self.node.clone(), self.pod.clone(), self.to_client.clone());
        let task = self.tasks.spawn(async move {
            let failure = pump(node, pod, port, id, output, &to_client).await.unwrap_or_default();
            for frame in [spdy::data(id, &[], true), spdy::data(error_id, failure.as_bytes(), true)] {
                if to_client.send(frame).await.is_err() {
                    return;
                }
            }
        });
        self.open.insert(id, Open { input: Some(input), task });
    }
}

/// Moves bytes between a stream and a port of the pod; what went wrong, if anything.
async fn pump(
    node: Arc<dyn PodStreams>,
    pod: Arc<Value>,
    port: u16,
    id: u32,
    mut input: mpsc::Receiver<Vec<u8>>,
    to_client: &mpsc::Sender<Vec<u8>>,
) -> Option<String> {
    let stream = match node.port_forward(&pod, port).await {
        Ok(stream) => stream,
        Err(error) => return Some(format!("error forwarding port {port} to pod: {error}")),
    };
    let (mut reader, mut writer) = tokio::io::split(stream);
    let upward = async {
        while let Some(data) = input.recv().await {
            if writer.write_all(&data).await.is_err() {
                break;
            }
        }
        drop(writer.shutdown().await);
        // The pod may still answer.
        std::future::pending::<()>().await;
    };
    let downward = async {
        let mut buffer = vec![0; READ_BYTES];
        while let Ok(count) = reader.read(&mut buffer).await {
            if count == 0 || to_client.send(spdy::data(id, &buffer[..count], false)).await.is_err() {
                return;
            }
        }
    };
    tokio::select! { () = upward => {}, () = downward => {} }
    None
}
