//! A client of gRPC that can be as wrong as a test wants.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use codecs::wire::{put_bytes, put_bytes_always, put_message};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use infer::{Config, Personality};

use super::Running;

pub type Sender =
    hyper::client::conn::http2::SendRequest<http_body_util::combinators::BoxBody<Bytes, std::io::Error>>;

/// What a call came to: code, text, messages, headers with trailers.
#[derive(Debug)]
pub struct Outcome {
    pub code: u32,
    pub text: String,
    pub messages: Vec<Bytes>,
    pub headers: http::HeaderMap,
}

impl Outcome {
    pub fn only(&self) -> &Bytes {
        assert_eq!((self.code, self.messages.len()), (0, 1), "{self:?}");
        &self.messages[0]
    }

    /// The text of a header, or of a trailer.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("ASCII"))
    }
}

pub struct Client {
    pub sender: Sender,
    pub runtime: tokio::runtime::Runtime,
    pub server: Running,
}

pub fn framed(message: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(0);
    out.put_u32(message.len() as u32);
    out.extend_from_slice(message);
    out.freeze()
}

impl Client {
    pub fn new(personality: Personality, change: impl FnOnce(&mut Config)) -> Self {
        let server = Running::like("forest_classifier", personality, |config| {
            config.grpc = Some(([127, 0, 0, 1], 0).into());
            change(config);
        });
        let address = server.0.as_ref().and_then(infer::Server::grpc_address).expect("a port");
        Self::at(server, address)
    }

    pub fn at(server: Running, address: std::net::SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let sender = runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(address).await.expect("a connection");
            let (sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                    .await
                    .expect("HTTP/2");
            tokio::spawn(connection);
            sender
        });
        Self { sender, runtime, server }
    }

    pub fn call(&self, path: &str, message: &[u8]) -> Outcome {
        self.runtime.block_on(raw(self.sender.clone(), path, &[], vec![framed(message)]))
    }

    pub fn with(&self, path: &str, headers: &[(&str, &str)], frames: Vec<Bytes>) -> Outcome {
        self.runtime.block_on(raw(self.sender.clone(), path, headers, frames))
    }
}

pub async fn raw(mut sender: Sender, path: &str, headers: &[(&str, &str)], frames: Vec<Bytes>) -> Outcome {
    let body = StreamBody::new(futures::stream::iter(frames.into_iter().map(|data| Ok(Frame::data(data)))));
    let mut request =
        http::Request::post(format!("http://h{path}")).header("content-type", "application/grpc");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(body.boxed()).expect("a request");
    let response = tokio::time::timeout(Duration::from_secs(20), sender.send_request(request));
    let response = response.await.expect("in time").expect("an answer");
    let (parts, body) = response.into_parts();
    let collected = body.collect().await.expect("a body");
    let mut headers = parts.headers;
    headers.extend(collected.trailers().cloned().unwrap_or_default());
    let mut rest = collected.to_bytes();
    let mut messages = Vec::new();
    while rest.len() >= 5 {
        let len = u32::from_be_bytes(rest[1..5].try_into().expect("four")) as usize;
        let _ = rest.split_to(5);
        messages.push(rest.split_to(len));
    }
    let mut outcome = Outcome { code: 0, text: String::new(), messages, headers };
    outcome.code = outcome.header("grpc-status").parse().expect("a code");
    outcome.text = outcome.header("grpc-message").to_owned();
    outcome
}

pub const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
pub const STREAM: &str = "/inference.GRPCInferenceService/ModelStreamInfer";
pub const ROWS: [f32; 8] = [5.1, 3.5, 1.4, 0.2, 6.7, 3.0, 5.2, 2.3];

/// A `ModelInferRequest` of rows of four.
pub fn infer_request(model: &str, id: &str, numbers: &[f32], raw: bool) -> Vec<u8> {
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    let mut out = Vec::new();
    put_bytes(&mut out, 1, model.as_bytes());
    put_bytes(&mut out, 3, id.as_bytes());
    put_message(&mut out, 5, |out| {
        put_bytes(out, 1, b"input-0");
        put_bytes(out, 2, b"FP32");
        put_bytes(out, 3, &[(numbers.len() / 4) as u8, 4]);
        if !raw {
            put_message(out, 5, |out| put_bytes(out, 6, &bytes));
        }
    });
    if raw {
        put_bytes_always(&mut out, 7, &bytes);
    }
    out
}
