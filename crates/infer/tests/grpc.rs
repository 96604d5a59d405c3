//! gRPC over real sockets, with a client that can be as wrong as a test wants.

mod support;

use std::time::Duration;

use bytes::Bytes;
use codecs::wire::{Fields, put_bytes, put_bytes_always, put_int, put_message};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use infer::Personality;
use infer::config::observing::{Sampler, Traces};
use support::Running;
use support::grpc::{Client, INFER, ROWS, STREAM, framed, infer_request, raw};

/// The bytes of a field, through messages within.
fn field(message: &[u8], path: &[u32]) -> Vec<u8> {
    let [first, rest @ ..] = path else { return message.to_vec() };
    let found = Fields::of(message).flatten().find(|field| field.number == *first);
    let found = found.unwrap_or_else(|| panic!("field {first} in {message:?}"));
    field(found.bytes().expect("bytes"), rest)
}

#[test]
fn the_open_inference_protocol_answers() {
    let client = Client::new(Personality::Kserve, |_| {});
    for raw in [true, false] {
        let outcome = client.call(INFER, &infer_request("iris", "x", &ROWS, raw));
        let answer = outcome.only();
        assert_eq!((field(answer, &[1]), field(answer, &[3])), (b"iris".to_vec(), b"x".to_vec()));
        if raw {
            let classes: Vec<u8> = [0_i64, 2].iter().flat_map(|class| class.to_le_bytes()).collect();
            assert_eq!(field(answer, &[6]), classes);
        } else {
            assert_eq!(field(answer, &[5, 5, 3]), [0, 2]);
        }
    }
    let service = |method: &str| format!("/inference.GRPCInferenceService/{method}");
    let mut name = Vec::new();
    put_bytes(&mut name, 1, b"iris");
    for (method, body, want) in [
        ("ServerLive", &b""[..], vec![8, 1]),
        ("ServerReady", b"", vec![8, 1]),
        ("ModelReady", &name, vec![8, 1]),
    ] {
        assert_eq!(*client.call(&service(method), body).only(), want, "{method}");
    }
    let metadata = client.call(&service("ModelMetadata"), &name);
    assert_eq!(field(metadata.only(), &[3]), b"sklearn");
    assert_eq!(field(metadata.only(), &[4, 1]), b"input-0");
    assert_eq!(field(client.call(&service("ServerMetadata"), b"").only(), &[1]), b"slipway");
    assert_eq!(field(client.call(&service("RepositoryIndex"), b"").only(), &[1, 3]), b"READY");
    assert_eq!(field(client.call(&service("ModelConfig"), &name).only(), &[1, 1]), b"iris");
}

#[test]
fn a_stream_answers_each_request_and_survives_a_wrong_one() {
    for personality in [Personality::Triton, Personality::MlServer] {
        let client = Client::new(personality, |_| {});
        let requests = [("1", "iris"), ("2", "rose"), ("3", "iris")]
            .map(|(id, model)| framed(&infer_request(model, id, &ROWS, true)));
        let outcome = client.with(STREAM, &[], requests.to_vec());
        if personality == Personality::MlServer {
            assert_eq!((outcome.code, outcome.messages.len()), (5, 1));
            assert_eq!(field(&outcome.messages[0], &[3]), b"1");
            continue;
        }
        assert_eq!((outcome.code, outcome.messages.len()), (0, 3), "{outcome:?}");
        for (message, id) in outcome.messages.iter().zip([b"1", b"2", b"3"]) {
            assert_eq!(field(message, &[2, 3]), id);
        }
        let error = field(&outcome.messages[1], &[1]);
        assert_eq!(error, b"Request for unknown model: 'rose' is not found");
    }
}

#[test]
fn tensorflow_serving_answers() {
    let client = Client::new(Personality::TfServing, |_| {});
    let spec =
        |out: &mut Vec<u8>, model: &str| put_message(out, 1, |out| put_bytes(out, 1, model.as_bytes()));
    let mut predict = Vec::new();
    spec(&mut predict, "iris");
    put_message(&mut predict, 2, |out| {
        put_bytes(out, 1, b"input-0");
        put_message(out, 2, |out| {
            put_int(out, 1, 1);
            put_message(out, 2, |out| {
                put_message(out, 2, |out| put_int(out, 1, 2));
                put_message(out, 2, |out| put_int(out, 1, 4));
            });
            let bytes: Vec<u8> = ROWS.iter().flat_map(|number| number.to_le_bytes()).collect();
            put_bytes(out, 4, &bytes);
        });
    });
    let outcome = client.call("/tensorflow.serving.PredictionService/Predict", &predict);
    // The output's name and its int64_val.
    assert_eq!(field(outcome.only(), &[1, 1]), b"output-0");
    assert_eq!(field(outcome.only(), &[1, 2, 10]), [0, 2]);
    assert_eq!(field(outcome.only(), &[2, 1]), b"iris");
    let mut classify = Vec::new();
    spec(&mut classify, "iris");
    put_message(&mut classify, 2, |out| {
        put_message(out, 1, |out| {
            put_message(out, 1, |out| {
                put_message(out, 1, |out| {
                    put_message(out, 1, |out| {
                        put_bytes(out, 1, b"input-0");
                        let floats: Vec<u8> = ROWS[4..].iter().flat_map(|n| n.to_le_bytes()).collect();
                        put_message(out, 2, |out| put_message(out, 2, |out| put_bytes(out, 1, &floats)));
                    });
                });
            });
        });
    });
    let outcome = client.call("/tensorflow.serving.PredictionService/Classify", &classify);
    assert_eq!(field(outcome.only(), &[1, 1, 1, 1]), b"2");
    let mut status = Vec::new();
    spec(&mut status, "iris");
    let outcome = client.call("/tensorflow.serving.ModelService/GetModelStatus", &status);
    let version = field(outcome.only(), &[1]);
    assert_eq!(&version[..4], [8, 1, 16, 30]);
    put_bytes(&mut status, 2, b"signature_def");
    let outcome = client.call("/tensorflow.serving.PredictionService/GetModelMetadata", &status);
    assert_eq!(field(outcome.only(), &[2, 1]), b"signature_def");
    let outcome = client.call("/tensorflow.serving.ModelService/HandleReloadConfigRequest", b"");
    assert_eq!(outcome.code, 7, "{outcome:?}");
    let mut rose = Vec::new();
    spec(&mut rose, "rose");
    let outcome = client.call("/tensorflow.serving.PredictionService/Predict", &rose);
    assert_eq!((outcome.code, &*outcome.text), (5, "Servable not found for request: Latest(rose)"));
}

#[test]
fn health_and_reflection_answer() {
    let client = Client::new(Personality::Kserve, |_| {});
    for (service, want) in
        [("", Some(1)), ("inference.GRPCInferenceService", Some(1)), ("iris", Some(1)), ("x", None)]
    {
        let mut body = Vec::new();
        put_bytes(&mut body, 1, service.as_bytes());
        let outcome = client.call("/grpc.health.v1.Health/Check", &body);
        match want {
            Some(state) => assert_eq!(*outcome.only(), vec![8, state]),
            None => assert_eq!(outcome.code, 5),
        }
    }
    for version in ["v1", "v1alpha"] {
        let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
        let (mut list, mut symbol) = (Vec::new(), Vec::new());
        put_bytes(&mut list, 7, b"*");
        put_bytes(&mut symbol, 4, b"tensorflow.serving.PredictionService");
        let outcome = client.with(&path, &[], vec![framed(&list), framed(&symbol)]);
        assert_eq!((outcome.code, outcome.messages.len()), (0, 2));
        assert_eq!(field(&outcome.messages[0], &[6, 1, 1]), b"inference.GRPCInferenceService");
        assert_eq!(field(&outcome.messages[1], &[4, 1, 2]), b"tensorflow.serving");
    }
}

#[test]
fn what_is_wrong_has_its_code() {
    let client = Client::new(Personality::Kserve, |config| config.body_bytes_max = 1 << 20);
    let right = infer_request("iris", "", &ROWS, true);
    let mut huge = vec![0];
    huge.extend_from_slice(&[0xff; 4]);
    let mut both = infer_request("iris", "", &ROWS, false);
    put_bytes_always(&mut both, 7, &[0; 32]);
    for (path, headers, frames, code, text) in [
        (INFER, &[][..], vec![framed(&infer_request("rose", "", &ROWS, true))], 5, "does not exist"),
        (
            INFER,
            &[],
            vec![framed(&infer_request("iris", "", &ROWS[..3], true))],
            3,
            "FP32[0, 4] takes 0 bytes, got 12",
        ),
        (INFER, &[], vec![framed(&both)], 3, "both set"),
        (INFER, &[], vec![framed(b"\xff\xff\xff")], 3, "ends within a field"),
        (INFER, &[], vec![Bytes::from(huge)], 8, "at most 1048576"),
        (INFER, &[], vec![Bytes::from_static(&[7, 0, 0, 0, 0])], 3, "unknown flag"),
        (INFER, &[], vec![framed(&right).slice(..20)], 3, "ends within a message"),
        (INFER, &[], vec![], 3, "no message"),
        (INFER, &[("grpc-timeout", "soon")], vec![framed(&right)], 3, "grpc-timeout"),
        (INFER, &[("grpc-timeout", "0n")], vec![framed(&right)], 4, "deadline"),
        (INFER, &[("grpc-encoding", "br")], vec![framed(&right)], 12, "br"),
        ("/inference.GRPCInferenceService/Nothing", &[], vec![framed(b"")], 12, "Nothing"),
        ("/nothing", &[], vec![framed(b"")], 12, "nothing"),
        (
            "/inference.GRPCInferenceService/RepositoryModelUnload",
            &[],
            vec![framed(&right)],
            7,
            "--open_repository_api",
        ),
    ] {
        let outcome = client.with(path, headers, frames);
        assert_eq!(outcome.code, code, "{path} {outcome:?}");
        assert!(outcome.text.contains(text), "{path} {outcome:?}");
    }
    assert_eq!(client.call(INFER, &right).code, 0);
}

#[test]
fn messages_come_in_pieces_and_compressed() {
    let client = Client::new(Personality::Kserve, |_| {});
    let whole = framed(&infer_request("iris", "", &ROWS, true));
    let pieces = whole.chunks(3).map(Bytes::copy_from_slice).collect();
    assert_eq!(client.with(INFER, &[], pieces).code, 0);
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packer, &whole[5..]).expect("memory");
    let mut packed = framed(&packer.finish().expect("memory")).to_vec();
    packed[0] = 1;
    let outcome = client.with(INFER, &[("grpc-encoding", "gzip")], vec![packed.clone().into()]);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert_eq!(client.with(INFER, &[], vec![packed.into()]).code, 3);
}

#[test]
fn calls_are_counted_and_belong_to_their_trace() {
    let collector = support::collector::Collector::start();
    let client = Client::new(Personality::Kserve, |config| {
        config.observing.sampler = Sampler { parent_based: true, ratio: 0.0 };
        config.observing.traces = Some(Traces {
            url: collector.url.clone(),
            is_json: false,
            headers: Vec::new(),
            resource: Vec::new(),
            delay: Duration::ZERO,
        });
    });
    let parent = ("traceparent", "00-0102030405060708090a0b0c0d0e0f10-00f067aa0ba902b7-01");
    client.with(INFER, &[parent], vec![framed(&infer_request("iris", "1", &ROWS, true))]).only();
    assert_eq!(client.call(INFER, &infer_request("iris", "2", &ROWS[..3], true)).code, 3);
    let body = collector.next().body;
    let trace: Vec<u8> = (1..=16).collect();
    assert!(body.windows(16).any(|bytes| bytes == trace), "{body:?}");
    let (_, text) = client.server.ask("GET", "/metrics", "");
    for line in [
        "slipway_serve_calls_total{model=\"iris\",version=\"1\",result=\"ok\"} 1",
        "slipway_serve_call_seconds_count{model=\"iris\",version=\"1\",api=\"Infer\",entrypoint=\"GRPC\"} 2",
        "request_predict_seconds_count{model_name=\"iris\"} 1",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
}

#[test]
fn many_calls_of_one_connection_are_all_answered() {
    let client = Client::new(Personality::Kserve, |_| {});
    let message = framed(&infer_request("iris", "", &ROWS, true));
    let codes = client.runtime.block_on(async {
        let calls = (0..300).map(|_| raw(client.sender.clone(), INFER, &[], vec![message.clone()]));
        futures::future::join_all(calls).await
    });
    assert!(codes.iter().all(|outcome| outcome.code == 0 && outcome.messages.len() == 1));
}

#[test]
fn the_port_of_http_takes_grpc_too() {
    let server = Running::start("forest_classifier");
    let address = server.0.as_ref().expect("running").address();
    let client = Client::at(server, address);
    assert_eq!(client.call(INFER, &infer_request("iris", "", &ROWS, true)).code, 0);
}

#[test]
fn a_stopped_server_ends_while_clients_hold_streams() {
    let mut client = Client::new(Personality::Kserve, |_| {});
    let body = StreamBody::new(futures::stream::pending::<Result<Frame<Bytes>, std::io::Error>>());
    let request = http::Request::post(format!("http://h{STREAM}"))
        .header("content-type", "application/grpc")
        .body(body.boxed())
        .expect("a request");
    let response = client.runtime.block_on(client.sender.send_request(request)).expect("headers");
    assert_eq!(response.status(), 200);
    let server = client.server.0.take().expect("running");
    server.stop();
    drop(response);
    client.runtime.shutdown_background();
    server.join();
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
    out
}

#[test]
fn streams_that_are_reset_at_once_cost_their_client_the_connection() {
    use std::io::{Read, Write};
    let client = Client::new(Personality::Kserve, |_| {});
    let address = client.server.0.as_ref().and_then(infer::Server::grpc_address).expect("a port");
    let mut stream = std::net::TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    let mut wire = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    wire.extend(frame(4, 0, 0, &[]));
    // POST, http, a path and a content type as literals that are not indexed.
    let mut headers = vec![0x83, 0x86, 0x04, INFER.len() as u8];
    headers.extend_from_slice(INFER.as_bytes());
    headers.extend_from_slice(b"\x0f\x10\x10application/grpc");
    for index in 0..20_000 {
        wire.extend(frame(1, 4, 1 + 2 * index, &headers));
        wire.extend(frame(3, 0, 1 + 2 * index, &8_u32.to_be_bytes()));
    }
    // The server may close before it has read all.
    let _ = stream.write_all(&wire);
    let mut reply = Vec::new();
    let _ = stream.read_to_end(&mut reply);
    let mut rest = &reply[..];
    let mut calm = false;
    while let [a, b, c, kind, _, _, _, _, _, after @ ..] = rest {
        let len = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        calm |= *kind == 7 && after.get(4..8) == Some(&11_u32.to_be_bytes());
        rest = after.get(len..).unwrap_or_default();
    }
    assert!(calm, "GOAWAY with ENHANCE_YOUR_CALM in {} bytes", reply.len());
    assert_eq!(client.call(INFER, &infer_request("iris", "", &ROWS, true)).code, 0);
}

#[test]
fn a_watcher_of_health_is_told_of_every_change() {
    let mut client = Client::new(Personality::Kserve, |config| config.open_repository = true);
    let mut watched = Vec::new();
    put_bytes(&mut watched, 1, b"iris");
    let body = StreamBody::new(futures::stream::iter([Ok(Frame::data(framed(&watched)))]));
    let request = http::Request::post("http://h/grpc.health.v1.Health/Watch")
        .header("content-type", "application/grpc")
        .body(body.boxed())
        .expect("a request");
    let mut answers =
        client.runtime.block_on(client.sender.send_request(request)).expect("headers").into_body();
    let mut load = Vec::new();
    put_bytes(&mut load, 1, b"iris");
    for (method, state) in [(None, 1), (Some("Unload"), 2), (Some("Load"), 1)] {
        if let Some(method) = method {
            let path = format!("/inference.GRPCInferenceService/RepositoryModel{method}");
            assert_eq!(client.call(&path, &load).code, 0);
        }
        let frame = client
            .runtime
            .block_on(async { tokio::time::timeout(Duration::from_secs(10), answers.frame()).await });
        let data = frame.expect("in time").expect("an answer").expect("a frame").into_data().expect("data");
        assert_eq!(&data[5..], [8, state], "{method:?}");
    }
    client.server.0.as_ref().expect("running").stop();
    let frame = client
        .runtime
        .block_on(async { tokio::time::timeout(Duration::from_secs(10), answers.frame()).await });
    let data = frame.expect("in time").expect("an answer").expect("a frame").into_data().expect("data");
    assert_eq!(&data[5..], [8, 2], "the server ends");
}

#[test]
fn headers_without_end_are_cut_off() {
    use std::io::Write;
    let client = Client::new(Personality::Kserve, |_| {});
    let address = client.server.0.as_ref().and_then(infer::Server::grpc_address).expect("a port");
    let mut stream = std::net::TcpStream::connect(address).expect("a connection");
    stream.set_write_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    let mut wire = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    wire.extend(frame(4, 0, 0, &[]));
    wire.extend(frame(1, 0, 1, &[0x83, 0x86]));
    stream.write_all(&wire).expect("sent");
    // A header that is large and ever new, without indexing.
    let mut headers = vec![0x00, 1, b'x', 0x7f, 0x80, 0x7c];
    headers.resize(16_000, b'y');
    let more = frame(9, 0, 1, &headers);
    let sent = (0..10_000).take_while(|_| stream.write_all(&more).is_ok()).count();
    assert!(sent < 10_000, "160 MB of headers were taken");
    assert_eq!(client.call(INFER, &infer_request("iris", "", &ROWS, true)).code, 0);
}
