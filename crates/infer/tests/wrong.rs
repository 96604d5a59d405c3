//! Requests that are wrong in each way that numbers and tensors can be, in every protocol, over real connections: each is
//! the caller's mistake, is told so, and the next request is answered.
//!
//! Not here: damaged messages (`hostile.rs`), slow clients (`slow.rs`), Python's workers (`backend-host`).

mod support;

use codecs::wire::{put_bytes, put_bytes_always, put_int, put_message};
use infer::Personality;
use support::Running;
use support::grpc::{Client, INFER, ROWS, framed, infer_request};

const PREDICT: &str = "/tensorflow.serving.PredictionService/Predict";

fn deep() -> String {
    format!(r#"{{"instances":{}"#, "[".repeat(60_000))
}

#[test]
fn wrong_rows_in_json_are_the_callers_mistake() {
    for personality in [Personality::Kserve, Personality::TfServing] {
        let server = Running::like("forest_classifier", personality, |_| {});
        for (what, body) in [
            ("deep nesting", deep()),
            ("deep nesting of objects", "{\"instances\":".repeat(60_000)),
            ("infinity", r#"{"instances":[[Infinity,3.5,1.4,0.2]]}"#.to_owned()),
            ("a number beyond all floats", r#"{"instances":[[1e999,3.5,1.4,0.2]]}"#.to_owned()),
            ("a number of a million digits", format!(r#"{{"instances":[[{},1,1,1]]}}"#, "9".repeat(1 << 20))),
            ("a number beyond f32", r#"{"instances":[[1e300,3.5,1.4,0.2]]}"#.to_owned()),
            ("ragged rows", r#"{"instances":[[5.1,3.5,1.4,0.2],[5.1,3.5]]}"#.to_owned()),
            ("ragged depth", r#"{"instances":[[5.1,3.5,1.4,0.2],5.1]}"#.to_owned()),
            ("text", r#"{"instances":[["a","b","c","d"]]}"#.to_owned()),
            ("b64 where numbers are", r#"{"instances":[{"b64":"AAAA"}]}"#.to_owned()),
            ("half a pair of surrogates", r#"{"instances":[["\ud800","b","c","d"]]}"#.to_owned()),
            ("no rows", r#"{"instances":[[]]}"#.to_owned()),
        ] {
            let (status, answer) = server.predict(&body);
            assert_eq!(status, 400, "{personality:?}: {what}: {}", &answer[..answer.len().min(500)]);
            assert!(answer.len() < 4096, "{what}: an answer of {} bytes", answer.len());
            let right = server.predict(r#"{"instances":[[5.1,3.5,1.4,0.2]]}"#);
            assert_eq!(right.0, 200, "{personality:?}: after {what}");
        }
    }
}

/// A `ModelInferRequest` of one tensor.
fn infer(datatype: &str, shape: &[i64], raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes(&mut out, 1, b"iris");
    put_message(&mut out, 5, |out| {
        put_bytes(out, 1, b"input-0");
        put_bytes(out, 2, datatype.as_bytes());
        shape.iter().for_each(|dim| put_int(out, 3, *dim as u64));
    });
    put_bytes_always(&mut out, 7, raw);
    out
}

/// A `PredictRequest` of one tensor, whose `content` fills the field of this number.
fn predict(dtype: u64, shape: &[i64], field: u32, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_message(&mut out, 1, |out| put_bytes(out, 1, b"iris"));
    put_message(&mut out, 2, |out| {
        put_bytes(out, 1, b"input-0");
        put_message(out, 2, |out| {
            put_int(out, 1, dtype);
            put_message(out, 2, |out| {
                shape.iter().for_each(|dim| put_message(out, 2, |out| put_int(out, 1, *dim as u64)));
            });
            put_bytes_always(out, field, content);
        });
    });
    out
}

fn floats(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

#[test]
fn wrong_tensors_over_grpc_are_the_callers_mistake() {
    const FLOAT: u64 = 1;
    const STRING: u64 = 7;
    const FLOAT_VAL: u32 = 5;
    const CONTENT: u32 = 4;
    let client = Client::new(Personality::TfServing, |_| {});
    let row = floats(&ROWS[..4]);
    let infinite = floats(&[f32::INFINITY, 3.5, 1.4, 0.2]);
    for (what, path, body) in [
        ("10 GB of rows", INFER, infer("FP32", &[625_000_000, 4], &row)),
        ("a shape that overflows", INFER, infer("FP32", &[1 << 62, 4], &row)),
        ("a shape that overflows to the right size", INFER, infer("FP32", &[1 << 62, 4, 1 << 62], &row)),
        ("a negative dimension", INFER, infer("FP32", &[-1, 4], &row)),
        ("texts", INFER, infer("BYTES", &[1, 4], &row)),
        ("10 GB of one text", INFER, infer("BYTES", &[1], &[0xff; 4])),
        ("an unknown type", INFER, infer("FP99", &[1, 4], &row)),
        ("half the bytes", INFER, infer("FP32", &[1, 4], &row[..8])),
        ("infinity", INFER, infer("FP32", &[1, 4], &infinite)),
        ("10 GB of rows", PREDICT, predict(FLOAT, &[625_000_000, 4], CONTENT, &row)),
        // One value fills a whole tensor.
        ("10 GB of one value", PREDICT, predict(FLOAT, &[625_000_000, 4], FLOAT_VAL, &row[..4])),
        ("a shape that overflows", PREDICT, predict(FLOAT, &[1 << 62, 4, 1 << 62], CONTENT, &row)),
        ("a negative dimension", PREDICT, predict(FLOAT, &[-1, 4], CONTENT, &row)),
        ("texts", PREDICT, predict(STRING, &[1, 4], 8, b"a")),
        ("an unknown type", PREDICT, predict(99, &[1, 4], CONTENT, &row)),
        ("half the bytes", PREDICT, predict(FLOAT, &[1, 4], CONTENT, &row[..8])),
        ("infinity", PREDICT, predict(FLOAT, &[1, 4], CONTENT, &infinite)),
        ("messages in messages", PREDICT, (0..20_000).fold(Vec::new(), |inner, _| nested(&inner))),
    ] {
        let outcome = client.with(path, &[], vec![framed(&body)]);
        assert_eq!(outcome.code, 3, "{what}: {path}: {outcome:?}");
        assert!(outcome.text.len() < 4096, "{what}");
        let right = client.call(INFER, &infer_request("iris", "", &ROWS, true));
        assert_eq!(right.code, 0, "after {what}");
    }
}

/// A message in field 2 of another; beyond a size the outer ones claim more than there is, which is as wrong.
fn nested(inner: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(inner.len() + 8);
    put_bytes_always(&mut out, 2, &inner[..inner.len().min(100_000)]);
    out
}
