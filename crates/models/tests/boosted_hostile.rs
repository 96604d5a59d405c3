//! Files of boosted trees that were made to hurt: each ends in an error or a model that answers, without a panic.

use std::path::Path;

use bytes::Bytes;
use models::{Backend, Batch, Limits, Method, Native, Outputs, Tensor, inspect_bytes, load_bytes};
use proptest::prelude::*;

/// Read once: each case takes one of them.
fn samples() -> &'static [(String, Vec<u8>)] {
    static SAMPLES: std::sync::OnceLock<Vec<(String, Vec<u8>)>> = std::sync::OnceLock::new();
    SAMPLES.get_or_init(read)
}

fn read() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/boosted");
    let names = [
        "xgboost-3.2.0/stumps",
        "xgboost-3.2.0/categories_partition",
        "xgboost-3.2.0/vectors",
        "xgboost-2.1.4/dart",
        "xgboost-1.7.6/linear",
        "xgboost-1.7.6/multi_softprob",
        "lightgbm-4.7.0/linear",
        "lightgbm-4.7.0/categories",
        "lightgbm-3.3.5/multiclass",
        "catboost-1.2.10/words_kinds",
        "catboost-1.2.10/lossguide_three",
        "catboost-0.26/depthwise",
    ];
    let mut all = Vec::new();
    for name in names {
        let (version, stem) = name.split_once('/').expect("a path");
        let Ok(entries) = std::fs::read_dir(folder.join(version)) else { continue };
        for entry in entries {
            let path = entry.expect("an entry").path();
            let file = path.file_name().expect("a name").to_string_lossy().into_owned();
            if file.strip_prefix(stem).is_some_and(|rest| rest.starts_with('.')) {
                let mut bytes = std::fs::read(&path).expect("a fixture");
                if file.ends_with(".gz") {
                    let mut plain = Vec::new();
                    let mut reader = flate2::read::GzDecoder::new(bytes.as_slice());
                    std::io::Read::read_to_end(&mut reader, &mut plain).expect("gzip");
                    bytes = plain;
                }
                all.push((file, bytes));
            }
        }
    }
    assert!(all.len() >= 13, "the fixtures");
    all
}

fn small() -> Limits {
    Limits { bytes_max: 4 << 20, values_max: 100_000, depth_max: 64 }
}

/// What loads must also answer or refuse.
fn exercise(bytes: Vec<u8>) {
    for method in [Method::Predict, Method::Probabilities, Method::Decisions] {
        let Ok(loaded) = load_bytes("mutated", bytes.clone().into(), &small()) else { return };
        let Ok(model) = Native::new(loaded.estimator, method) else { continue };
        let inputs = &model.signature().inputs;
        let width = inputs[0].row.first().map_or(inputs.len(), |width| width.unwrap_or(0));
        if width > 1 << 16 {
            return;
        }
        for value in [1.5, f64::NAN, -1e300, 3.0] {
            let row = vec![value; width];
            let input = Tensor::borrowed(&row, &[1, width]).expect("fits");
            let _ = model.run(&Batch { rows: 1, inputs: &[input] }, &mut Outputs::new());
        }
    }
}

#[test]
fn a_prefix_is_an_error() {
    for (name, whole) in samples() {
        // The text of LightGBM goes on after its trees with what nobody needs.
        let end = match name.ends_with(".txt") || name.ends_with(".txt.gz") {
            true => whole.windows(12).position(|part| part == b"end of trees").expect("an end"),
            false => whole.len() - 1,
        };
        for cut in (0..end).step_by((end / 150).max(1)) {
            let loaded = load_bytes("cut", Bytes::copy_from_slice(&whole[..cut]), &small());
            assert!(loaded.is_err(), "{name} cut at {cut} of {} loads", whole.len());
        }
    }
}

#[test]
fn a_refused_file_still_has_a_report() {
    let text = b"{\"learner\":{\"gradient_booster\":{\"name\":\"gbmystery\",\"model\":{}},\"objective\":{\"name\":\"x\"}}}";
    let report = inspect_bytes("model.json", Bytes::from_static(text), &Limits::default());
    assert!(report.problem.expect("a reason").contains("gbmystery"));
    assert_eq!(report.estimators[0].class, "xgboost.Booster");
    assert_eq!(report.format.expect("a format").name, "xgboost-json");
    let text =
        b"tree\nversion=v4\nnum_tree_per_iteration=1\nmax_feature_idx=0\nobjective=mystery\n\nend of trees\n";
    let report = inspect_bytes("model.txt", Bytes::from_static(text), &Limits::default());
    assert!(report.problem.expect("a reason").contains("mystery"));
}

#[test]
fn a_wrong_tree_is_named() {
    let tree = |left: &str, feature: &str| {
        format!(
            "tree\nversion=v4\nnum_tree_per_iteration=1\nmax_feature_idx=0\nobjective=regression\n\nTree=0\n\
             num_leaves=3\nsplit_feature={feature}\nthreshold=0.5 0.5\ndecision_type=2 2\nleft_child={left}\n\
             right_child=-2 -3\nleaf_value=1 2 3\n\nend of trees\n"
        )
    };
    for (name, left, feature, word) in [
        ("a loop", "0 -1", "0 0", "form no tree"),
        ("a child too far", "7 -1", "0 0", "does not exist"),
        ("a leaf too far", "1 -9", "0 0", "does not exist"),
        ("a column too far", "1 -1", "0 3", "column 3"),
        ("too few", "1", "0 0", "left_child has 1"),
    ] {
        let error = load_bytes("x", tree(left, feature).into(), &small()).expect_err(name).to_string();
        assert!(error.contains("tree 0") && error.contains(word), "{name}: {error}");
    }
    assert!(load_bytes("x", tree("1 -1", "0 0").into(), &small()).is_ok());
}

proptest! {
    // PROPTEST_CASES asks for more.
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn mutated_models_never_panic(
        sample in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut file = samples()[sample.index(samples().len())].1.clone();
        for (index, byte) in changes {
            let at = index.index(file.len());
            file[at] = byte;
        }
        exercise(file);
    }

    /// Digits for digits and signs: such files are read to their end.
    #[test]
    fn mutated_numbers_never_panic(
        sample in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(b"0123456789-e.".to_vec())), 1..12),
    ) {
        let mut file = samples()[sample.index(samples().len())].1.clone();
        let digits: Vec<usize> = (0..file.len()).filter(|at| file[*at].is_ascii_digit()).collect();
        for (index, byte) in changes {
            file[digits[index.index(digits.len())]] = byte;
        }
        exercise(file);
    }

    #[test]
    fn random_bodies_never_panic(
        head in prop::sample::select(vec![&b"{"[..], b"{L", b"CBM1", b"binf", b"tree\n", b"CONFIG-offset:"]),
        bytes in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        exercise([head, &bytes].concat());
    }
}
