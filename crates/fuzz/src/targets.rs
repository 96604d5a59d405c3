//! The readers, each as a function of bytes.
//!
//! A target panics where something is wrong: a reader's own panic, or a promise of its that does not hold.
//!
//! Not here: making inputs (`mutate`).

use std::io::Read;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use codecs::call::{Call, View};
use codecs::grpc::tfs::{self as grpc_tfs, EXPANDED_MAX};
use codecs::grpc::{descriptor, oip, small};
use codecs::v1::Expected;
use codecs::{tfs, v1, v2};
use infer::config::{self, Model};
use models::{
    Backend, Batch, DType, Limits, Method, Native, Outputs, Shape, Signature, Storage, Tensor, TensorSpec,
};

/// A reader.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, and that of its folder in `corpus/`.
    pub name: &'static str,
    /// Reads an input.
    pub run: fn(&[u8]),
    /// What to begin from besides what was kept.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Words of its language.
    pub words: &'static [&'static [u8]],
    /// Bytes of an input, at most.
    pub len_max: usize,
}

/// All of them.
pub const TARGETS: [Target; 8] = [
    Target {
        name: "pickle",
        run: model,
        seeds: pickles,
        words: &[b"numpy", b"c", b"R", b"."],
        len_max: 16 << 10,
    },
    Target { name: "booster", run: model, seeds: boosters, words: BOOSTER_WORDS, len_max: 16 << 10 },
    Target { name: "onnx", run: onnx_model, seeds: onnx_models, words: &[], len_max: 8 << 10 },
    Target { name: "text", run: text, seeds: texts, words: TEXT_WORDS, len_max: 4 << 10 },
    Target { name: "json", run: json, seeds: bodies, words: JSON_WORDS, len_max: 2 << 10 },
    Target { name: "binary", run: binary, seeds: binaries, words: JSON_WORDS, len_max: 2 << 10 },
    Target {
        name: "grpc",
        run: grpc,
        seeds: messages,
        words: &[b"serving_default", b"FP32", b"BYTES"],
        len_max: 2 << 10,
    },
    Target { name: "http", run: infer::testkit::http, seeds: requests, words: HTTP_WORDS, len_max: 2 << 10 },
];

/// A reader with a bug that was put there, to see that it is found: in `planted`.
pub const PLANTED: Target =
    Target { name: "planted", run: planted, seeds: texts, words: TEXT_WORDS, len_max: 4 << 10 };

const BOOSTER_WORDS: &[&[u8]] = &[
    b"\"learner\"",
    b"gbtree",
    b"dart",
    b"gblinear",
    b"tree\n",
    b"Tree=",
    b"num_leaves=",
    b"end of trees",
    b"CBM1",
];
/// Whole fields, because half of one makes a text that nobody reads on.
const TEXT_WORDS: &[&[u8]] = &[
    b"dynamic_batching { }",
    b"max_batch_size: 8",
    b"preferred_batch_size: 4",
    b"preferred_batch_size: [ 4, 8 ]",
    b"max_queue_delay_microseconds: 1",
    b"preserve_ordering: true",
    b"priority_levels: 3",
    b"default_priority_level: 1",
    b"priority_queue_policy { key: 1 value { max_queue_size: 4 } }",
    b"model_warmup { name: 'w' count: 2 }",
    b"inputs { key: 'x' value { data_type: TYPE_FP32 dims: 4 zero_data: true } }",
    b"version_policy { specific { versions: 1 } }",
    b"instance_group { count: 2 kind: KIND_CPU }",
    b"config { name: 'm' base_path: '/m' }",
    b"model_version_policy { all { } }",
    b"version_labels { key: 'a' value: 1 }",
    b"parameters { key: 'sha256' value { string_value: '00' } }",
    b"response_cache { enable: true }",
    b"}",
    b"{",
];
const JSON_WORDS: &[&[u8]] = &[
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
const HTTP_WORDS: &[&[u8]] = &[
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

fn limits() -> Limits {
    Limits { bytes_max: 4 << 20, values_max: 100_000, depth_max: 64 }
}

/// Whatever evaluates answers a row or refuses it.
fn exercise(model: &dyn Backend) {
    let inputs = &model.signature().inputs;
    let made = inputs.iter().map(|spec| {
        let row: Vec<usize> = [1].into_iter().chain(spec.row.iter().map(|dim| dim.unwrap_or(2))).collect();
        let shape = Shape::new(&row).filter(|shape| shape.count() < 1 << 16)?;
        let bytes = match spec.dtype {
            DType::Text => vec![0; shape.count() * 4],
            other => vec![0x3f; shape.count() * other.size()],
        };
        Tensor::new(spec.dtype, shape, Storage::Owned(models::Buffer::of(&bytes)))
    });
    let Some(tensors) = made.collect::<Option<Vec<_>>>() else { return };
    let _ = model.run(&Batch { rows: 1, inputs: &tensors }, &mut Outputs::new());
}

fn model(bytes: &[u8]) {
    let Ok(loaded) = models::load_bytes("model", Bytes::copy_from_slice(bytes), &limits()) else { return };
    if let Ok(model) = Native::new(loaded.estimator, Method::Probabilities) {
        exercise(&model);
    }
}

fn onnx_model(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    if onnx::is_onnx(&bytes)
        && let Ok(model) = onnx::Onnx::load(&bytes)
    {
        exercise(&model);
    }
}

fn text(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut model = Model::new("m", "/m");
    if config::triton::read(text, &mut model).is_ok() {
        assert!(model.batching.is_none_or(|batching| batching.rows_max > 0));
    }
    if let Ok(models) = config::tfs::models(text) {
        models.iter().for_each(|model| drop(model.check()));
    }
    let _ = config::tfs::batching(text);
    let _ = config::tfs::monitoring(text);
    let _ = config::mlserver::read(text, Path::new("/m"), &mut Model::new("m", "/m"));
}

/// The same text reader, and a mistake of the kind that people make: it needs four things to be so at once.
fn planted(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(all) = codecs::textproto::parse(text) else { return };
    let Some(Ok(batching)) = all.get("dynamic_batching").map(|field| field.message()) else { return };
    let sizes: Vec<u64> = batching.all("preferred_batch_size").flat_map(|field| field.count()).collect();
    if sizes.len() < 3 {
        return;
    }
    let Some(largest) = sizes.iter().max().filter(|largest| **largest > 1000) else { return };
    if batching.get("preserve_ordering").is_some_and(|field| field.truth() == Ok(true)) {
        assert!(largest % 2 == 0, "planted");
    }
}

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

fn json(body: &[u8]) {
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
fn binary(bytes: &[u8]) {
    let Some((len, body)) = bytes.split_first_chunk::<2>() else { return };
    let mut call = Call::new();
    if v2::decode(body, Some(usize::from(u16::from_le_bytes(*len))), &mut call).is_ok() {
        check(call.view(body), body.len(), 0);
    }
}

fn grpc(body: &[u8]) {
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
    infer::testkit::records(body);
}

fn crates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The files of a folder that are no larger than `len_max` once they are unpacked.
fn files(folder: &str, len_max: usize, takes: fn(&str) -> bool) -> Vec<Vec<u8>> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(crates().join(folder))
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    paths.sort();
    let read = |path: PathBuf| {
        let name = path.file_name()?.to_string_lossy().into_owned();
        let bytes = std::fs::read(&path).ok().filter(|_| takes(&name))?;
        if !name.ends_with(".gz") {
            return Some(bytes);
        }
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(bytes.as_slice()).take(1 << 20).read_to_end(&mut plain).ok()?;
        Some(plain)
    };
    paths.into_iter().filter_map(read).filter(|bytes| bytes.len() <= len_max).collect()
}

fn pickles() -> Vec<Vec<u8>> {
    files("models/tests/fixtures/1.9.1", 16 << 10, |name| name.ends_with(".model"))
}

fn boosters() -> Vec<Vec<u8>> {
    let folders = [
        "xgboost-3.2.0",
        "xgboost-1.0.2",
        "lightgbm-4.3.0",
        "lightgbm-2.3.1",
        "catboost-1.2.10",
        "catboost-0.26",
    ];
    let of = |folder: &&str| {
        let folder = format!("models/tests/fixtures/boosted/{folder}");
        files(&folder, 16 << 10, |name| !name.contains("expected") && !name.contains("joblib"))
    };
    folders.iter().flat_map(of).collect()
}

fn onnx_models() -> Vec<Vec<u8>> {
    files("onnx/tests/fixtures", 8 << 10, |name| name.ends_with(".onnx"))
}

fn texts() -> Vec<Vec<u8>> {
    let all = [
        r#"name: "m" backend: "onnxruntime" max_batch_size: 8 version_policy: { specific { versions: [1,3] } }
        dynamic_batching { preferred_batch_size: [ 4, 8 ] max_queue_delay_microseconds: 100 priority_levels: 2
        default_priority_level: 2 default_queue_policy { timeout_action: DELAY } }"#,
        "max_batch_size: 4 response_cache { enable: true } model_warmup { name: 'w' batch_size: 2
        inputs { key: 'x' value { data_type: TYPE_FP32 dims: [ 4 ] random_data: true } } }",
        "model_config_list { config { name: 'm' base_path: '/m' model_platform: 'tensorflow'
        model_version_policy { latest { num_versions: 2 } } version_labels { key: 'a' value: 1 } } }",
        "max_batch_size { value: 32 } batch_timeout_micros { value: 1000 } num_batch_threads { value: 4 }",
        "prometheus_config { enable: true, path: '/m' }",
        r#"{"name":"iris","implementation":"mlserver_sklearn.SKLearnModel","parameters":{"uri":"./m"}}"#,
    ];
    all.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn bodies() -> Vec<Vec<u8>> {
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

fn binaries() -> Vec<Vec<u8>> {
    let head = br#"{"inputs":[{"name":"a","shape":[1],"datatype":"FP32","parameters":{"binary_data_size":4}}],"outputs":[{"name":"o","parameters":{"binary_data":true}}]}"#;
    vec![[&(head.len() as u16).to_le_bytes()[..], head, b"abcd"].concat()]
}

fn messages() -> Vec<Vec<u8>> {
    use codecs::wire::{put_bytes, put_bytes_always, put_int, put_message};
    let mut infer = Vec::new();
    put_bytes(&mut infer, 1, b"m");
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
    let mut reload = Vec::new();
    put_message(&mut reload, 1, |out| {
        put_message(out, 1, |out| {
            put_message(out, 1, |out| {
                put_bytes(out, 1, b"m");
                put_message(out, 7, |out| put_message(out, 102, |out| put_bytes(out, 1, &[1, 2])));
            });
        });
    });
    vec![infer, raw, predict, reload]
}

fn requests() -> Vec<Vec<u8>> {
    let all = [
        "POST /v1/models/m:predict HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\n{}",
        "POST /v2/models/m/versions/1/infer HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        "GET /v1/models/a%2Fb/labels/stable/metadata HTTP/1.0\r\nconnection: keep-alive\r\n\r\n",
        "POST /v1/models/m:predict HTTP/1.1\r\nhost: h\r\nce-id: 1\r\nce-source: s\r\nce-type: t\r\nce-specversion: 1.0\r\ncontent-encoding: gzip\r\naccept-encoding: gzip\r\ncontent-length: 0\r\n\r\n",
    ];
    all.iter().map(|text| text.as_bytes().to_vec()).collect()
}
