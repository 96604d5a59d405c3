//! Files that were made to hurt: each ends in an error, without a panic and without memory beyond the limits.

use std::path::Path;

use bytes::Bytes;
use models::{Backend, Batch, Limits, Memory, Method, Native, Outputs, Tensor, inspect, load_bytes};
use proptest::prelude::*;

fn fixture(name: &str) -> Vec<u8> {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/1.9.1").join(format!("{name}.model"));
    std::fs::read(path).expect("a fixture")
}

fn small() -> Limits {
    Limits { bytes_max: 4 << 20, values_max: 100_000, depth_max: 64 }
}

const SAMPLES: [&str; 8] = [
    "forest_classifier_names",
    "pickle_0",
    "pickle_5",
    "joblib_zlib",
    "joblib_lz4",
    "joblib_xz",
    "skops",
    "logistic_three",
];

#[test]
fn every_prefix_is_an_error() {
    for name in SAMPLES {
        let whole = fixture(name);
        let step = (whole.len() / 200).max(1);
        for end in (0..whole.len() - 1).step_by(step) {
            let cut = Bytes::copy_from_slice(&whole[..end]);
            // A cut after the pickle's end leaves it whole, which only happens in the packings' checksums.
            if let Ok(loaded) = load_bytes("cut", cut, &small()) {
                assert!(end > whole.len() - 64, "{name} cut at {end} of {} loads: {loaded:?}", whole.len());
            }
        }
    }
}

#[test]
fn a_refused_file_still_has_a_report() {
    let evil = b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x02id\x85R.";
    let folder = Memory(vec![("model.pkl".into(), Bytes::from_static(evil))]);
    let report = inspect(&folder, &Limits::default());
    assert!(!report.safe);
    assert!(report.problem.expect("a reason").contains("refused: posix.system"));
    assert_eq!(report.served_by, None);
}

#[test]
fn an_unknown_class_is_named() {
    let file = b"\x80\x04\x8c\x14sklearn.neighbors._x\x8c\x05Thing\x93)\x81}b.";
    let error = load_bytes("x", Bytes::from_static(file), &small()).expect_err("unsupported").to_string();
    assert!(error.contains("sklearn.neighbors._x.Thing"), "{error}");
}

proptest! {
    // PROPTEST_CASES asks for more.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600), protocol in 0_u8..6) {
        let _ = load_bytes("random", bytes.clone().into(), &small());
        let headed: Vec<u8> = [0x80, protocol].into_iter().chain(bytes).collect();
        let _ = load_bytes("random", headed.into(), &small());
    }

    #[test]
    fn opcodes_in_any_order_never_panic(
        picks in prop::collection::vec(prop::sample::select(
            b"(.0120NIJKM]){}lteasudpqghbRc\x80\x81\x85\x86\x87\x88\x89\x8a\x8c\x8f\x90\x91\x93\x94\x95".to_vec()), 0..80),
    ) {
        let file: Vec<u8> = [0x80, 4].into_iter().chain(picks).chain([b'.']).collect();
        let _ = load_bytes("opcodes", file.into(), &small());
    }

    #[test]
    fn mutated_models_never_panic(
        sample in 0..SAMPLES.len(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut file = fixture(SAMPLES[sample]);
        for (index, byte) in changes {
            let at = index.index(file.len());
            file[at] = byte;
        }
        // What still loads must also answer or refuse.
        if let Ok(loaded) = load_bytes("mutated", file.into(), &small())
            && let Ok(model) = Native::new(loaded.estimator, Method::Probabilities)
        {
            let width = model.signature().inputs[0].row[0].unwrap_or(0);
            let row = vec![1.5; width];
            let input = Tensor::borrowed(&row, &[1, width]).expect("fits");
            let _ = model.run(&Batch { rows: 1, inputs: &[input] }, &mut Outputs::new());
        }
    }
}
