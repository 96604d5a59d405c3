//! The readers, each as a function of bytes.
//!
//! A target panics where something is wrong: a reader's own panic, or a promise of its that does not hold. What belongs
//! together is one target, because what one file teaches about a reader helps with the next.
//!
//! * `files`: models as people store them. `texts`: configurations. `wire`: what clients send. `worker`: what worker
//!   processes answer.
//!
//! Not here: making inputs (`mutate`), readers with bugs (`planted`).

mod files;
mod texts;
mod wire;
mod worker;

pub use texts::{TEXT_WORDS, texts};

/// A reader.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, and that of its folder in `corpus/`.
    pub name: &'static str,
    /// What it reads, for the table of what was searched.
    pub reads: &'static str,
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
pub const TARGETS: [Target; 11] = [
    Target {
        name: "pickle",
        reads: "pickle, joblib (plain and in each of its compressions), cloudpickle",
        run: files::model,
        seeds: files::pickles,
        words: &[b"numpy", b"c", b"R", b"."],
        len_max: 16 << 10,
    },
    Target {
        name: "skops",
        reads: "skops: the schema, the arrays, the archive",
        run: files::skops,
        seeds: files::skops_files,
        words: files::SKOPS_WORDS,
        len_max: 16 << 10,
    },
    Target {
        name: "booster",
        reads: "XGBoost JSON, UBJSON and old binary, LightGBM text, CatBoost JSON and cbm",
        run: files::model,
        seeds: files::boosters,
        words: files::BOOSTER_WORDS,
        len_max: 24 << 10,
    },
    Target {
        name: "pmml",
        reads: "PMML",
        run: files::model,
        seeds: files::documents,
        words: files::PMML_WORDS,
        len_max: 6 << 10,
    },
    Target {
        name: "onnx",
        reads: "ONNX graphs, signatures of SavedModels",
        run: files::graph,
        seeds: files::graphs,
        words: &[b"serve", b"serving_default", b"ai.onnx.ml"],
        len_max: 8 << 10,
    },
    Target {
        name: "text",
        reads: "config.pbtxt, the model, batching, monitoring and TLS files of TensorFlow Serving, \
                model-settings.json, MLmodel",
        run: texts::text,
        seeds: texts,
        words: TEXT_WORDS,
        len_max: 4 << 10,
    },
    Target {
        name: "json",
        reads: "V1, V2 and TensorFlow Serving JSON, documents beside models",
        run: wire::json,
        seeds: wire::bodies,
        words: wire::JSON_WORDS,
        len_max: 2 << 10,
    },
    Target {
        name: "binary",
        reads: "V2 with binary tensors",
        run: wire::binary,
        seeds: wire::binaries,
        words: wire::JSON_WORDS,
        len_max: 2 << 10,
    },
    Target {
        name: "grpc",
        reads: "gRPC messages of the Open Inference Protocol, TensorFlow Serving, health, reflection; frames; \
                stored warm-up requests",
        run: wire::grpc,
        seeds: wire::messages,
        words: &[b"serving_default", b"FP32", b"BYTES"],
        len_max: 2 << 10,
    },
    Target {
        name: "http",
        reads: "HTTP/1 heads and paths, chunked and compressed bodies, CloudEvents",
        run: infer::testkit::http,
        seeds: wire::requests,
        words: wire::HTTP_WORDS,
        len_max: 2 << 10,
    },
    Target {
        name: "worker",
        reads: "packets of worker processes, what they tell of their model",
        run: worker::packet,
        seeds: worker::packets,
        words: wire::JSON_WORDS,
        len_max: 2 << 10,
    },
];
