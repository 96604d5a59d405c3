//! The server over real sockets: what KServe's clients and probes see, and what hostile clients cannot do.

mod support;

use std::io::{Read, Write};
use std::path::Path;

use infer::config::{Model, Source};
use infer::{Config, Method, Server};
use support::Running;

#[test]
fn the_calls_of_kserves_clients_are_answered() {
    let server = Running::start("forest_classifier");
    let row = r#"{"instances":[[5.1,3.5,1.4,0.2]]}"#;
    for (method, path, body, status, want) in [
        ("GET", "/", "", 200, r#"{"status":"alive"}"#),
        ("GET", "/v1/models", "", 200, r#"{"models":["iris"]}"#),
        ("GET", "/v1/models/iris", "", 200, r#"{"name":"iris","ready":true}"#),
        ("GET", "/v2/health/live", "", 200, r#"{"live":true}"#),
        ("GET", "/v2/health/ready", "", 200, r#"{"ready":true}"#),
        ("GET", "/v2/models/iris/ready", "", 200, r#"{"name":"iris","ready":true}"#),
        ("POST", "/v1/models/iris:predict", row, 200, r#"{"predictions":[0]}"#),
        ("POST", "/v1/models/ir%69s:predict?x=1", row, 200, r#"{"predictions":[0]}"#),
        ("POST", "/v1/models/rose:predict", row, 404, r#"{"error":"Model with name rose does not exist."}"#),
        ("GET", "/v1/models/rose", "", 404, r#"{"error":"Model with name rose does not exist."}"#),
        ("GET", "/v1/models/iris:predict", "", 405, r#"{"detail":"Method Not Allowed"}"#),
        ("GET", "/nothing", "", 404, r#"{"detail":"Not Found"}"#),
        ("HEAD", "/", "", 200, ""),
    ] {
        assert_eq!(server.ask(method, path, body), (status, want.to_owned()), "{method} {path}");
    }
}

#[test]
fn a_wrong_request_is_told_what_is_wrong() {
    let server = Running::start("forest_classifier");
    for (body, want) in [
        (
            r#"{"instances":[[5.1,3.5,1.4]]}"#,
            r#"model \"iris\": input \"input-0\": instance 0 has 3 values, expected 4"#,
        ),
        (r#"{"instances":[[1,2,3,1e300]]}"#, "too large for dtype('float32')"),
        ("", "Unrecognized request format"),
        ("{}", "Expected"),
    ] {
        let (status, answer) = server.predict(body);
        assert_eq!(status, 400, "{body}");
        assert!(answer.contains(want), "{answer}");
    }
}

#[test]
fn labels_and_probabilities_are_served() {
    let named = Running::start("forest_classifier_names");
    let two = r#"{"inputs":[[5.1,3.5,1.4,0.2],[6.7,3.0,5.2,2.3]]}"#;
    assert_eq!(named.predict(two), (200, r#"{"predictions":["setosa","virginica"]}"#.to_owned()));
    let shares = Running::with("forest_classifier", |config| config.method = Method::Probabilities);
    assert_eq!(
        shares.predict(r#"{"instances":[[5.1,3.5,1.4,0.2]]}"#),
        (200, r#"{"predictions":[[1.0,0.0,0.0]]}"#.to_owned())
    );
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Running::start("forest_classifier");
    let body = r#"{"instances":[[5.1,3.5,1.4,0.2]]}"#;
    let one =
        format!("POST /v1/models/iris:predict HTTP/1.1\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let mut wire = String::new();
    for _ in 0..50 {
        wire.push_str(&one);
        wire.push_str("GET / HTTP/1.1\r\n\r\n");
    }
    let reply = server.exchange(wire.as_bytes());
    let order: Vec<&str> =
        reply.split("HTTP/1.1 ").filter_map(|part| part.split_once("\r\n\r\n")).map(|(_, b)| b).collect();
    assert_eq!(order.len(), 100);
    assert!(
        order.chunks(2).all(|pair| pair == [r#"{"predictions":[0]}"#, r#"{"status":"alive"}"#]),
        "{order:?}"
    );
}

#[test]
fn requests_in_pieces_and_chunks_are_one_request() {
    let server = Running::start("forest_classifier");
    let wire = b"POST /v1/models/iris:predict HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n\
        10\r\n{\"instances\":[[5\r\n11\r\n.1,3.5,1.4,0.2]]}\r\n0\r\n\r\nGET / HTTP/1.1\r\nconnection: close\r\n\r\n";
    let mut stream = server.connect();
    for piece in wire.chunks(7) {
        stream.write_all(piece).expect("sent");
        stream.flush().expect("sent");
    }
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("a reply");
    assert!(reply.contains(r#"{"predictions":[0]}"#) && reply.ends_with(r#"{"status":"alive"}"#), "{reply}");
}

#[test]
fn the_body_is_invited_where_the_client_waits() {
    let server = Running::start("forest_classifier");
    let body = r#"{"instances":[[5.1,3.5,1.4,0.2]]}"#;
    let mut stream = server.connect();
    let head = format!(
        "POST /v1/models/iris:predict HTTP/1.1\r\nexpect: 100-continue\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).expect("sent");
    let mut invited = [0; 25];
    stream.read_exact(&mut invited).expect("an invitation");
    assert_eq!(&invited, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(body.as_bytes()).expect("sent");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("a reply");
    assert!(reply.ends_with(r#"{"predictions":[0]}"#), "{reply}");
}

#[test]
fn large_batches_are_answered_whole() {
    let server = Running::start("forest_classifier");
    let rows = vec!["[5.1,3.5,1.4,0.2]"; 20_000].join(",");
    let (status, answer) = server.predict(&format!("{{\"instances\":[{rows}]}}"));
    assert_eq!(status, 200);
    assert_eq!(answer.matches('0').count(), 20_000);
}

#[test]
fn hostile_messages_are_refused_and_others_go_on() {
    let server = Running::with("forest_classifier", |config| config.body_bytes_max = 1 << 20);
    let chunk = "fffff\r\n".to_owned() + &"a".repeat(0xfffff) + "\r\n";
    let flood =
        format!("POST /v1/models/iris:predict HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n{chunk}{chunk}");
    for (wire, status) in [
        (&b"POST /v1/models/iris:predict HTTP/1.1\r\ncontent-length: 10737418240\r\n\r\n"[..], "413"),
        (b"POST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n", "400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "400"),
        (b"GET / HTTP/2.0\r\n\r\n", "505"),
        (
            b"POST /v1/models/iris:predict HTTP/1.1\r\ncontent-encoding: br\r\ncontent-length: 1\r\n\r\nx",
            "415",
        ),
        (
            b"POST /v1/models/iris:predict HTTP/1.1\r\ncontent-encoding: gzip\r\ncontent-length: 1\r\n\r\nx",
            "400",
        ),
        (flood.as_bytes(), "413"),
    ] {
        let reply = server.exchange(wire);
        assert!(reply.starts_with(&format!("HTTP/1.1 {status} ")), "{status}: {reply}");
    }
    assert_eq!(server.exchange(b"POST /v1/models/iris:predict HTTP/1.1\r\ncontent-length: 9\r\n\r\n{}"), "");
    assert_eq!(server.predict(r#"{"instances":[[5.1,3.5,1.4,0.2]]}"#).0, 200);
}

#[test]
fn requests_show_in_the_metrics() {
    let server = Running::start("forest_classifier");
    server.predict(r#"{"instances":[[5.1,3.5,1.4,0.2]]}"#);
    let (status, text) = server.ask("GET", "/metrics", "");
    assert_eq!(status, 200);
    assert!(text.contains("request_predict_seconds_count{model_name=\"iris\"} 1"), "{text}");
}

#[test]
fn a_model_that_cannot_be_read_opens_no_port() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("model.pkl"), b"cposix\nsystem\n(S'touch /tmp/owned'\ntR.")
        .expect("written");
    let mut config = Config::new("iris", folder.path());
    config.http = ([127, 0, 0, 1], 0).into();
    let error = Server::start(config).err().expect("refused").to_string();
    assert!(error.contains("refused: posix.system"), "{error}");
}

#[test]
fn a_stopped_server_ends_while_clients_hold_connections() {
    let server = Running::start("forest_classifier");
    let mut idle = server.connect();
    idle.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("sent");
    let mut reply = [0; 15];
    idle.read_exact(&mut reply).expect("a reply");
    drop(server);
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).expect("closed in order");
}

#[test]
fn an_onnx_model_is_served_as_any_other() {
    let onnx = Path::new(env!("CARGO_MANIFEST_DIR")).join("../onnx/tests/fixtures/forest.onnx");
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::copy(&onnx, folder.path().join("model.onnx")).expect("a copy");
    let server = Running::with("forest_classifier", |config| {
        config.models = Source::Fixed(vec![Model::new("iris", folder.path())]);
    });
    let (status, body) = server.predict(r#"{"instances":[[5.1,3.5,1.4,0.2],[6.3,3.4,5.6,2.4]]}"#);
    assert_eq!(status, 200, "{body}");
    let (status, body) = server.predict(r#"{"instances":[[5.1,3.5,1.4]]}"#);
    assert_eq!(status, 400, "{body}");
    let report = infer::inspect(&onnx, &models::Limits::default());
    assert_eq!((report.served_by.as_deref(), report.problem), (Some("native"), None));
    assert_eq!(report.features, Some(4));
}
