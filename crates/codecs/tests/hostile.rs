//! Legal messages with damage: each decoder gives tensors or an error, in bounded memory, and never panics.
//!
//! `PROPTEST_CASES` and `PROPTEST_RNG_SEED` choose; `make fuzz` sets both.

use codecs::call::{Call, View};
use codecs::grpc::tfs::{self as grpc_tfs, EXPANDED_MAX};
use codecs::grpc::{descriptor, oip, small};
use codecs::wire::{put_bytes, put_bytes_always, put_int, put_message};
use codecs::{tfs, v2};
use models::{DType, Signature, TensorSpec};
use proptest::prelude::*;

fn signatures() -> Vec<Signature> {
    let spec = |name: &str, dtype, row: &[Option<usize>]| TensorSpec::new(name, dtype, row);
    let with = |inputs, columns: &[&str]| Signature {
        inputs,
        outputs: Vec::new(),
        columns: columns.iter().map(|name| (*name).to_owned()).collect(),
    };
    vec![
        with(vec![spec("a", DType::F64, &[Some(2)])], &["x", "y"]),
        with(vec![spec("a", DType::Text, &[]), spec("b", DType::I32, &[None])], &[]),
    ]
}

fn json_seeds() -> Vec<Vec<u8>> {
    let texts = [
        r#"{"id":"7","parameters":{"priority":1,"timeout":5},"inputs":[{"name":"a","shape":[2,2],"datatype":"FP64","data":[1,2.5,-3e3,4]},{"name":"b","shape":[1],"datatype":"BYTES","data":["x\n"]}],"outputs":[{"name":"o","parameters":{"binary_data":true}}]}"#,
        r#"{"inputs":[{"name":"a","shape":[1],"datatype":"FP32","parameters":{"binary_data_size":4}}]}abcd"#,
        r#"{"signature_name":"s","instances":[[1,2],[3,4]]}"#,
        r#"{"instances":[{"a":{"b64":"aGk="},"b":[1,2]},{"a":"t","b":[3,4]}]}"#,
        r#"{"inputs":{"a":["x"],"b":[[1]]}}"#,
        r#"{"context":{"b":1},"examples":[{"x":1.5,"y":[2],"a":"t"}]}"#,
    ];
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn tensor_proto(out: &mut Vec<u8>) {
    put_int(out, 1, 1);
    put_message(out, 2, |out| put_message(out, 2, |out| put_int(out, 1, 2)));
    put_bytes(out, 5, &[0, 0, 128, 63, 0, 0, 0, 64]);
}

fn wire_seeds() -> Vec<Vec<u8>> {
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
        put_message(out, 2, tensor_proto);
    });
    let mut classify = Vec::new();
    put_message(&mut classify, 1, |out| put_bytes(out, 1, b"m"));
    put_message(&mut classify, 2, |out| {
        put_message(out, 1, |out| {
            put_message(out, 1, |out| {
                put_message(out, 1, |out| {
                    for name in [b"x", b"y"] {
                        put_message(out, 1, |out| {
                            put_bytes(out, 1, name);
                            put_message(out, 2, |out| put_message(out, 2, |out| put_bytes(out, 1, &[0; 4])));
                        });
                    }
                });
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

/// One damage.
#[derive(Debug, Clone)]
enum Damage {
    Flip(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Double(prop::sample::Index, prop::sample::Index),
    Insert(prop::sample::Index, Vec<u8>),
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<prop::sample::Index>;
    let words = prop::sample::select(vec![
        b"[[[[[[[[[[".to_vec(),
        b"99999999999999999999".to_vec(),
        b"-1".to_vec(),
        b"NaN".to_vec(),
        b"\"\\ud800\"".to_vec(),
        vec![0xff; 9],
        vec![0xff, 0xff, 0xff, 0xff, 0x0f],
        vec![0x80],
    ]);
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, byte)| Damage::Flip(at, byte)),
        at().prop_map(Damage::Cut),
        (at(), at()).prop_map(|(from, to)| Damage::Double(from, to)),
        (at(), words).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
    ]
}

fn damaged(mut bytes: Vec<u8>, all: &[Damage]) -> Vec<u8> {
    for damage in all {
        if bytes.is_empty() {
            break;
        }
        match damage {
            Damage::Flip(at, byte) => {
                let at = at.index(bytes.len());
                bytes[at] ^= *byte;
            }
            Damage::Cut(at) => bytes.truncate(at.index(bytes.len())),
            Damage::Double(from, to) => {
                let (from, to) = (from.index(bytes.len()), to.index(bytes.len()));
                let part = bytes[from.min(to)..from.max(to)].to_vec();
                bytes.splice(from..from, part);
            }
            Damage::Insert(at, word) => {
                let at = at.index(bytes.len());
                bytes.splice(at..at, word.iter().copied());
            }
        }
    }
    bytes
}

/// What was decoded is whole, and no larger than the message can account for.
fn check(view: View<'_>, body: usize, bonus: usize) {
    let total: usize = view.tensors().map(|(_, tensor)| tensor.bytes().len()).sum();
    assert_eq!(view.tensors().count(), view.len());
    assert!(total <= body * 8 + bonus, "{total} bytes from {body}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_json_is_tensors_or_an_error(
        seed in any::<prop::sample::Index>(),
        damage in prop::collection::vec(damage(), 0..5),
        split in any::<prop::sample::Index>(),
    ) {
        let seeds = json_seeds();
        let body = damaged(seed.get(&seeds).clone(), &damage);
        let mut call = Call::new();
        for json_len in [None, Some(split.index(body.len() + 2))] {
            if v2::decode(&body, json_len, &mut call).is_ok() {
                check(call.view(&body), body.len(), 0);
            }
        }
        let Ok(parts) = tfs::scan(&body) else { return Ok(()) };
        for signature in signatures() {
            if tfs::predict(&body, &parts, &signature, &mut call).is_ok() {
                check(call.view(&body), body.len(), 0);
            }
            if tfs::predict(&body, &parts.clone().as_rows(), &signature, &mut call).is_ok() {
                check(call.view(&body), body.len(), 0);
            }
            if tfs::examples(&body, &parts, &signature, &mut call).is_ok() {
                check(call.view(&body), body.len() * 2, 0);
            }
        }
    }

    #[test]
    fn damaged_messages_are_tensors_or_an_error(
        seed in any::<prop::sample::Index>(),
        damage in prop::collection::vec(damage(), 0..5),
    ) {
        let seeds = wire_seeds();
        let body = damaged(seed.get(&seeds).clone(), &damage);
        let mut call = Call::new();
        if oip::decode_infer(&body, &mut call).is_ok() {
            check(call.view(&body), body.len(), 0);
        }
        if grpc_tfs::decode_predict(&body, &mut call).is_ok() {
            check(call.view(&body), body.len(), EXPANDED_MAX);
        }
        for signature in signatures() {
            if let Ok(request) = grpc_tfs::decode_target(&body, &mut call)
                && grpc_tfs::decode_examples(request.input, &body, &signature, &mut call).is_ok()
            {
                check(call.view(&body), body.len(), 0);
            }
        }
        let _ = grpc_tfs::decode_multi(&body);
        let _ = grpc_tfs::decode_reload(&body);
        let _ = grpc_tfs::metadata_fields(&body);
        let _ = oip::decode_name(&body);
        let _ = oip::decode_load(&body);
        let _ = oip::decode_index(&body);
        let _ = small::decode_health(&body);
        if let Ok(small::Asked::Symbol(symbol)) = small::decode_reflection(&body) {
            let _ = descriptor::file_of(symbol);
        }
    }

    #[test]
    fn bytes_of_nobody_are_refused_or_read(body in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut call = Call::new();
        let _ = v2::decode(&body, None, &mut call);
        let _ = tfs::scan(&body);
        let _ = oip::decode_infer(&body, &mut call);
        let _ = grpc_tfs::decode_predict(&body, &mut call);
        let _ = codecs::grpc::frame::prefix(&body);
        let _ = codecs::grpc::frame::timeout(&String::from_utf8_lossy(&body));
    }
}
