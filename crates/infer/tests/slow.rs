//! Clients that are slow, silent, or do not read: each costs itself, and others are answered.
//!
//! The server's patience is short here. What is waited for is what the server does, for as long as that takes.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use infer::Personality;
use support::Running;
use support::grpc::{Client, INFER, ROWS, framed, infer_request};

const ROW: &str = r#"{"instances":[[5.1,3.5,1.4,0.2]]}"#;
const STALL: Duration = Duration::from_millis(150);

fn impatient() -> Running {
    Running::with("forest_classifier", |config| config.patience.stall = STALL)
}

fn predict(length: usize) -> String {
    format!("POST /v1/models/iris:predict HTTP/1.1\r\nhost: h\r\ncontent-length: {length}\r\n\r\n")
}

/// Sends a byte now and then until the server has had enough; its last words.
fn trickle(mut stream: TcpStream, bytes: &[u8]) -> String {
    for byte in bytes {
        if stream.write_all(&[*byte]).is_err() {
            break;
        }
        // The slowness itself: each byte comes well within the time of a stall.
        std::thread::sleep(STALL / 15);
    }
    let mut reply = Vec::new();
    let _ = stream.read_to_end(&mut reply);
    String::from_utf8_lossy(&reply).into_owned()
}

#[test]
fn a_byte_now_and_then_keeps_no_connection() {
    let server = impatient();
    let head = format!("GET / HTTP/1.1\r\n{}", "x: y\r\n".repeat(100));
    let reply = trickle(server.connect(), head.as_bytes());
    assert!(reply.starts_with("HTTP/1.1 408 "), "{reply}");
    let mut stream = server.connect();
    stream.write_all(predict(1000).as_bytes()).expect("sent");
    let reply = trickle(stream, &[b' '; 400]);
    assert!(reply.starts_with("HTTP/1.1 408 "), "{reply}");
    assert_eq!(server.predict(ROW).0, 200);
}

#[test]
fn a_request_that_stops_half_way_ends() {
    let server = impatient();
    for begun in ["POST /v1/mod".to_owned(), predict(100), predict(100) + "{\"inst"] {
        let mut stream = server.connect();
        stream.write_all(begun.as_bytes()).expect("sent");
        let mut reply = String::new();
        stream.read_to_string(&mut reply).expect("an end");
        assert!(reply.is_empty() || reply.starts_with("HTTP/1.1 408 "), "{begun}: {reply}");
    }
    assert_eq!(server.predict(ROW).0, 200);
}

#[test]
fn a_client_that_does_not_read_its_answers_is_sent_away() {
    let server = impatient();
    let mut stream = server.connect();
    stream.set_write_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    // Some 30 MB of answers, which no buffers of the kernel take.
    let requests = "GET /metrics HTTP/1.1\r\n\r\n".repeat(10_000);
    let mut sent = stream.write_all(requests.as_bytes());
    while sent.is_ok() {
        // Until the server has closed.
        std::thread::sleep(STALL / 15);
        sent = stream.write_all(b"G");
    }
    let error = sent.expect_err("sent away");
    assert!(!matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
    assert_eq!(server.predict(ROW).0, 200);
}

#[test]
fn a_connection_on_which_nothing_is_asked_ends() {
    let server = Running::with("forest_classifier", |config| config.patience.idle = STALL);
    let mut silent = server.connect();
    let mut asked = server.connect();
    asked.write_all((predict(ROW.len()) + ROW).as_bytes()).expect("sent");
    for (stream, want) in [(&mut silent, ""), (&mut asked, r#"{"predictions":[0]}"#)] {
        let mut reply = String::new();
        stream.read_to_string(&mut reply).expect("an end");
        assert!(reply.ends_with(want) && reply.is_empty() == want.is_empty(), "{reply}");
    }
}

#[test]
fn a_message_over_grpc_that_stops_half_way_is_refused_and_the_connection_goes_on() {
    let client = Client::new(Personality::Kserve, |config| config.patience.stall = STALL);
    let request = infer_request("iris", "", &ROWS, true);
    let half = framed(&request).slice(..20);
    let mut sender = client.sender.clone();
    let outcome = client.runtime.block_on(async move {
        let first = futures::stream::iter([Ok(Frame::data(half))]);
        let body = StreamBody::new(futures::StreamExt::chain(
            first,
            futures::stream::pending::<Result<Frame<Bytes>, std::io::Error>>(),
        ));
        let call = http::Request::post(format!("http://h{INFER}")).header("content-type", "application/grpc");
        let sent = sender.send_request(call.body(body.boxed()).expect("a request"));
        tokio::time::timeout(Duration::from_secs(60), sent).await.expect("refused").expect("headers")
    });
    assert_eq!(outcome.headers()["grpc-status"], "1");
    assert_eq!(client.call(INFER, &request).code, 0);
}
