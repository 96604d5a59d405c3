//! What clients send.
//!
//! Not here: what it asks for (`infer`).

use codecs::call::{Call, View};
use codecs::grpc::tfs::{self as grpc_tfs, EXPANDED_MAX};
use codecs::grpc::{descriptor, frame, oip, small};
use codecs::v1::Expected;
use codecs::{tfs, v1, v2};
use models::{DType, Signature, TensorSpec};

pub(super) const JSON_WORDS: &[&[u8]] = &[
    b"\"instances\":",
    b"\"inputs\":",
    b"\"name\":",
    b"\"shape\":",
    b"\"datatype\":",
    b"\"data\":",
    b"\"parameters\":",
    b"\"binary_data_size\":",
    b"\"FP32\"",
    b"\"BYTES\"",
    b"\"b64\":",
    b"[",
    b"]",
    b"{",
    b"}",
    b",",
    b"\\ud800",
];
pub(super) const HTTP_WORDS: &[&[u8]] = &[
    b"\r\n",
    b"transfer-encoding: chunked",
    b"content-length: ",
    b"inference-header-content-length: ",
    b"ce-id: ",
    b"expect: 100-continue",
    b"/v2/models/",
    b"/versions/",
    b"/labels/",
    b":predict",
    b"%2F",
];

fn signatures() -> [Signature; 2] {
    let spec = |name: &str, dtype, row: &[Option<usize>]| TensorSpec::new(name, dtype, row);
    let with = |inputs, columns: &[&str]| Signature {
        inputs,
        outputs: Vec::new(),
        columns: columns.iter().map(|name| (*name).to_owned()).collect(),
    };
    [
        with(vec![spec("a", DType::F64, &[Some(2)])], &["x", "y"]),
        with(vec![spec("a", DType::Text, &[]), spec("b", DType::I32, &[None])], &[]),
    ]
}

/// What was decoded is whole, and no larger than the message can account for.
fn check(view: View<'_>, body: usize, bonus: usize) {
    let total: usize = view.tensors().map(|(_, tensor)| tensor.bytes().len()).sum();
    assert_eq!(view.tensors().count(), view.len());
    assert!(total <= body * 8 + bonus, "{total} bytes from {body}");
}

pub(super) fn json(body: &[u8]) {
    let columns = ["a".to_owned(), "b".to_owned()];
    let mut batch = Vec::new();
    for columns in [&columns[..], &[]] {
        if let Ok(rows) = v1::parse(body, Expected { width: 2, columns }, &mut batch) {
            assert_eq!(batch.len(), rows * 2);
        }
    }
    let mut call = Call::new();
    if v2::decode(body, None, &mut call).is_ok() {
        check(call.view(body), body.len(), 0);
    }
    infer::testkit::documents(body);
    let Ok(parts) = tfs::scan(body) else { return };
    for signature in &signatures() {
        if tfs::predict(body, &parts, signature, &mut call).is_ok() {
            check(call.view(body), body.len(), 0);
        }
        if tfs::predict(body, &parts.clone().as_rows(), signature, &mut call).is_ok() {
            check(call.view(body), body.len(), 0);
        }
        if tfs::examples(body, &parts, signature, &mut call).is_ok() {
            check(call.view(body), body.len() * 2, 0);
        }
    }
}

/// V2 with binary tensors: the first two bytes say how long the JSON is.
pub(super) fn binary(bytes: &[u8]) {
    let Some((len, body)) = bytes.split_first_chunk::<2>() else { return };
    let mut call = Call::new();
    if v2::decode(body, Some(usize::from(u16::from_le_bytes(*len))), &mut call).is_ok() {
        check(call.view(body), body.len(), 0);
    }
}

pub(super) fn grpc(body: &[u8]) {
    let mut call = Call::new();
    if oip::decode_infer(body, &mut call).is_ok() {
        check(call.view(body), body.len(), 0);
    }
    if grpc_tfs::decode_predict(body, &mut call).is_ok() {
        check(call.view(body), body.len(), EXPANDED_MAX);
    }
    for signature in &signatures() {
        if let Ok(request) = grpc_tfs::decode_target(body, &mut call)
            && grpc_tfs::decode_examples(request.input, body, signature, &mut call).is_ok()
        {
            check(call.view(body), body.len(), 0);
        }
    }
    let _ = grpc_tfs::decode_multi(body);
    let _ = grpc_tfs::decode_reload(body);
    let _ = grpc_tfs::metadata_fields(body);
    let _ = (oip::decode_name(body), oip::decode_load(body), oip::decode_index(body));
    let _ = small::decode_health(body);
    if let Ok(small::Asked::Symbol(symbol)) = small::decode_reflection(body) {
        let _ = descriptor::file_of(symbol);
    }
    if let Ok(Some(prefix)) = frame::prefix(body) {
        assert!(body.len() >= frame::PREFIX, "{prefix:?}");
    }
    let _ = std::str::from_utf8(body).map(frame::timeout);
    infer::testkit::records(body);
}

pub(super) fn bodies() -> Vec<Vec<u8>> {
    let all = [
        r#"{"id":"7","parameters":{"priority":1},"inputs":[{"name":"a","shape":[2,2],"datatype":"FP64","data":[1,2.5,-3e3,4]},{"name":"b","shape":[1],"datatype":"BYTES","data":["x\n"]}],"outputs":[{"name":"o"}]}"#,
        r#"{"signature_name":"s","instances":[[1,2],[3,4]]}"#,
        r#"{"instances":[{"a":{"b64":"aGk="},"b":[1,2]},{"a":"t","b":[3,4]}]}"#,
        r#"{"inputs":{"a":["x"],"b":[[1]]}}"#,
        r#"{"context":{"b":1},"examples":[{"x":1.5,"y":[2],"a":"t"}]}"#,
        r#"{"tolerance":{"relative":1e-6},"request":{"instances":[[1]]},"response":{"predictions":[0]}}"#,
        r#"{"sha256":{"m":"00"}}"#,
    ];
    all.iter().map(|text| text.as_bytes().to_vec()).collect()
}

pub(super) fn binaries() -> Vec<Vec<u8>> {
    let head = br#"{"inputs":[{"name":"a","shape":[1],"datatype":"FP32","parameters":{"binary_data_size":4}}],"outputs":[{"name":"o","parameters":{"binary_data":true}}]}"#;
    vec![[&(head.len() as u16).to_le_bytes()[..], head, b"abcd"].concat()]
}

pub(super) fn messages() -> Vec<Vec<u8>> {
    use codecs::wire::{put_bytes, put_bytes_always, put_int, put_message};
    let mut infer = Vec::new();
    put_bytes(&mut infer, 1, b"m");
    put_message(&mut infer, 4, |out| {
        put_bytes(out, 1, b"priority");
        put_message(out, 2, |out| put_int(out, 2, 3));
    });
    put_message(&mut infer, 5, |out| {
        put_bytes(out, 1, b"a");
        put_bytes(out, 2, b"FP32");
        put_bytes(out, 3, &[1, 2]);
        put_message(out, 5, |out| put_bytes(out, 6, &[0; 8]));
    });
    let mut raw = Vec::new();
    put_message(&mut raw, 5, |out| {
        put_bytes(out, 1, b"a");
        put_bytes(out, 2, b"BYTES");
        put_bytes(out, 3, &[1]);
    });
    put_bytes_always(&mut raw, 7, &[1, 0, 0, 0, b'x']);
    let mut predict = Vec::new();
    put_message(&mut predict, 1, |out| put_bytes(out, 1, b"m"));
    put_message(&mut predict, 2, |out| {
        put_bytes(out, 1, b"a");
        put_message(out, 2, |out| {
            put_int(out, 1, 1);
            put_message(out, 2, |out| put_message(out, 2, |out| put_int(out, 1, 2)));
            put_bytes(out, 5, &[0, 0, 128, 63, 0, 0, 0, 64]);
        });
    });
    let feature = |out: &mut Vec<u8>, name: &[u8]| {
        put_message(out, 1, |out| {
            put_bytes(out, 1, name);
            put_message(out, 2, |out| put_message(out, 2, |out| put_bytes(out, 1, &[0; 4])));
        });
    };
    let mut classify = Vec::new();
    put_message(&mut classify, 1, |out| put_bytes(out, 1, b"m"));
    put_message(&mut classify, 2, |out| {
        put_message(out, 1, |out| {
            put_message(out, 1, |out| {
                put_message(out, 1, |out| [b"x", b"y"].iter().for_each(|name| feature(out, &name[..])));
            });
        });
    });
    let mut reload = Vec::new();
    put_message(&mut reload, 1, |out| {
        put_message(out, 1, |out| {
            put_message(out, 1, |out| {
                put_bytes(out, 1, b"m");
                put_message(out, 7, |out| put_message(out, 102, |out| put_bytes(out, 1, &[1, 2])));
            });
        });
    });
    vec![infer, raw, predict, classify, reload]
}

pub(super) fn requests() -> Vec<Vec<u8>> {
    let all = [
        "POST /v1/models/m:predict HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\n{}",
        "POST /v2/models/m/versions/1/infer HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        "GET /v1/models/a%2Fb/labels/stable/metadata HTTP/1.0\r\nconnection: keep-alive\r\n\r\n",
        "POST /v1/models/m:predict HTTP/1.1\r\nhost: h\r\nce-id: 1\r\nce-source: s\r\nce-type: t\r\nce-specversion: 1.0\r\ncontent-encoding: gzip\r\naccept-encoding: gzip\r\ncontent-length: 0\r\n\r\n",
    ];
    all.iter().map(|text| text.as_bytes().to_vec()).collect()
}
