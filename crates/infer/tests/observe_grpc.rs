//! What a server tells of calls over gRPC besides its answers: the same as of all other calls.

mod support;

use codecs::wire::{put_bytes, put_bytes_always, put_int, put_message};
use infer::Personality;
use infer::config::observing::{PayloadMode, Payloads, Target};
use serde_json::Value as Json;
use support::collector::{Came, Collector};
use support::grpc::{Client, INFER, ROWS, STREAM, framed, infer_request};

const PREDICT: &str = "/tensorflow.serving.PredictionService/Predict";

/// A `PredictRequest` of two rows.
fn predict_request() -> Vec<u8> {
    let bytes: Vec<u8> = ROWS.iter().flat_map(|number| number.to_le_bytes()).collect();
    let mut out = Vec::new();
    put_message(&mut out, 1, |out| put_bytes(out, 1, b"iris"));
    put_message(&mut out, 2, |out| {
        put_bytes(out, 1, b"input-0");
        put_message(out, 2, |out| {
            put_int(out, 1, 1);
            put_message(out, 2, |out| {
                for size in [2, 4] {
                    put_message(out, 2, |out| put_int(out, 1, size));
                }
            });
            put_bytes_always(out, 4, &bytes);
        });
    });
    out
}

fn payloads(url: &str) -> Option<Payloads> {
    Some(Payloads {
        url: url.to_owned(),
        mode: PayloadMode::All,
        share: 1.0,
        workers: 5,
        metadata_headers: vec!["X-User".to_owned()],
        ..Payloads::default()
    })
}

fn pair(collector: &Collector) -> [Came; 2] {
    let mut came = [collector.next(), collector.next()];
    came.sort_by_key(|event| event.header("ce-type").to_owned());
    came
}

#[test]
fn payloads_are_the_messages_without_what_frames_them() {
    let collector = Collector::start();
    let client = Client::new(Personality::Triton, |config| {
        config.observing.payloads = payloads(&collector.url);
    });
    let headers = [("ce-id", "abc"), ("x-user", "me")];
    let infer = infer_request("iris", "1", &ROWS, true);
    let stream = "inference.ModelStreamInferResponse";
    for (path, body, request, response) in [
        (INFER, infer.clone(), "inference.ModelInferRequest", "inference.ModelInferResponse"),
        (STREAM, infer, "inference.ModelInferRequest", stream),
        (
            PREDICT,
            predict_request(),
            "tensorflow.serving.PredictRequest",
            "tensorflow.serving.PredictResponse",
        ),
    ] {
        let outcome = client.with(path, &headers, vec![framed(&body)]);
        let answer = outcome.only();
        let came = pair(&collector);
        for (event, kind, body) in [(&came[0], request, &body[..]), (&came[1], response, answer)] {
            assert_eq!(event.header("content-type"), format!("application/protobuf; proto={kind}"));
            assert_eq!((event.header("ce-id"), &event.body[..]), ("abc", body), "{path}");
            assert_eq!(event.header("ce-metadata"), r#"{"X-User":["me"]}"#);
        }
    }
    // A refusal has no response event, and what reaches no model has none at all.
    assert_eq!(client.call(INFER, &infer_request("iris", "", &ROWS[..3], true)).code, 3);
    assert_eq!(client.call(INFER, &infer_request("rose", "", &ROWS, true)).code, 5);
    drop(client);
    let kinds: Vec<String> =
        collector.rest().iter().map(|event| event.header("ce-type").to_owned()).collect();
    assert_eq!(kinds, ["org.kubeflow.serving.inference.request"]);
}

#[test]
fn calls_are_in_the_access_log_and_failed_ones_in_the_flight_recorder() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("access.log");
    let client = Client::new(Personality::TfServing, |config| {
        config.admin = Some(([127, 0, 0, 1], 0).into());
        config.observing.access = Some((Target::File(path.clone()), 1.0));
    });
    let request = predict_request();
    assert_eq!(client.call(PREDICT, &request).code, 0);
    assert_eq!(client.call(INFER, &infer_request("iris", "", &ROWS[..3], true)).code, 3);
    assert_eq!(client.call(INFER, &infer_request("rose", "", &ROWS, true)).code, 5);
    let (_, text) = client.server.ask_admin("GET", "/debug/requests");
    let page: Json = serde_json::from_str(&text).expect("JSON");
    let kept = page["requests"].as_array().expect("a list");
    assert_eq!(kept.len(), 2, "{text}");
    assert_eq!((&kept[0]["status"], &kept[0]["reason"]), (&404.into(), &"not_found".into()));
    assert_eq!((&kept[1]["model"], &kept[1]["entrypoint"]), (&"iris".into(), &"GRPC".into()), "{text}");
    drop(client);
    let text = std::fs::read_to_string(&path).expect("a log");
    let lines: Vec<Json> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert_eq!((&lines[0]["api"], &lines[0]["entrypoint"]), (&"Predict".into(), &"GRPC".into()));
    assert_eq!((&lines[0]["rows"], &lines[0]["request_bytes"]), (&2.into(), &request.len().into()));
    assert_eq!((&lines[1]["api"], &lines[1]["status"]), (&"Infer".into(), &400.into()));
}

#[test]
fn answers_say_their_times_and_their_model_where_asked() {
    let client = Client::new(Personality::Kserve, |_| {});
    let plain = client.call(INFER, &infer_request("iris", "", &ROWS, true));
    assert_eq!((plain.header("server-timing"), plain.header("slipway-model")), ("", ""));
    let client = Client::new(Personality::Kserve, |config| {
        config.observing.server_timing = true;
        config.observing.model_headers = true;
    });
    for (path, body) in [(INFER, infer_request("iris", "", &ROWS, true)), (PREDICT, predict_request())] {
        let outcome = client.call(path, &body);
        assert_eq!((outcome.code, outcome.header("slipway-model-version")), (0, "1"), "{path}");
        let timing = outcome.header("server-timing");
        assert!(timing.starts_with("parse;dur=0.") && timing.contains(", write;dur="), "{timing}");
    }
    let wrong = client.call(INFER, &infer_request("iris", "", &ROWS[..3], true));
    assert_eq!((wrong.code, wrong.header("slipway-model"), wrong.header("slipway-reason")), (3, "iris", ""));
    let missing = client.call(INFER, &infer_request("rose", "", &ROWS, true));
    assert_eq!((missing.code, missing.header("slipway-reason")), (5, "not_found"));
}
