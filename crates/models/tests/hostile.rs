//! Files that end too early, in every format: each is an error, and a refused file still has a report.
//!
//! Not here: files that were made to hurt (`refused`), damage by chance (`crates/fuzz`).

use std::io::Read;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use models::{Limits, Memory, inspect, inspect_bytes, load_bytes};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// A fixture, unpacked where its name ends so.
fn fixture(name: &str) -> Vec<u8> {
    let bytes = std::fs::read(fixtures().join(name)).expect("a fixture");
    if !name.ends_with(".gz") {
        return bytes;
    }
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(bytes.as_slice()).read_to_end(&mut plain).expect("gzip");
    plain
}

fn small() -> Limits {
    Limits { bytes_max: 4 << 20, values_max: 100_000, depth_max: 64 }
}

/// Loads some 60 prefixes of a file, the longest of which is shorter than `end`.
fn check_prefixes(name: &str, whole: &[u8], end: usize) {
    for cut in (0..end).step_by((end / 60).max(1)) {
        let loaded = load_bytes("cut", Bytes::copy_from_slice(&whole[..cut]), &small());
        assert!(loaded.is_err(), "{name} cut at {cut} of {} loads", whole.len());
    }
}

#[test]
fn a_cut_pickle_or_archive_is_an_error() {
    let names = ["pickle_0", "pickle_5", "joblib_zlib", "joblib_lz4", "joblib_xz", "skops", "logistic_three"];
    for name in names {
        let whole = fixture(&format!("1.9.1/{name}.model"));
        // Behind the pickle's end lie the checksums of its packing.
        check_prefixes(name, &whole, whole.len() - 64);
    }
}

#[test]
fn a_cut_booster_is_an_error() {
    for name in [
        "xgboost-3.2.0/pruned.json",
        "xgboost-3.2.0/vectors.ubj.gz",
        "xgboost-3.2.0/categories_partition.json.gz",
        "xgboost-1.0.2/linear.model",
        "xgboost-1.0.2/dart.model.gz",
        "catboost-1.2.10/words_kinds.json.gz",
        "catboost-1.2.10/lossguide_three.cbm.gz",
    ] {
        let whole = fixture(&format!("boosted/{name}"));
        check_prefixes(name, &whole, whole.len() - 1);
    }
}

#[test]
fn a_cut_text_of_lightgbm_is_an_error_up_to_the_end_of_its_trees() {
    let folder = fixtures().join("boosted/lightgbm-4.7.0");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).expect("the fixtures") {
        let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
        if ["linear.", "categories.", "multiclass."].iter().any(|start| name.starts_with(start)) {
            let whole = fixture(&format!("boosted/lightgbm-4.7.0/{name}"));
            // After its trees the text goes on with what nobody needs.
            let end = whole.windows(12).position(|part| part == b"end of trees").expect("an end");
            check_prefixes(&name, &whole, end);
            count += 1;
        }
    }
    assert!(count >= 2, "{count} texts");
}

#[test]
fn a_cut_document_is_an_error() {
    for folder in ["hand", "jpmml"] {
        for entry in std::fs::read_dir(fixtures().join("pmml/4").join(folder)).expect("the fixtures") {
            let path = entry.expect("an entry").path();
            let whole = std::fs::read(&path).expect("a document");
            if path.extension().is_some_and(|ending| ending == "pmml") && whole.len() < 20_000 {
                check_prefixes(&path.to_string_lossy(), &whole, whole.trim_ascii_end().len());
            }
        }
    }
}

#[test]
fn a_refused_pickle_still_has_a_report() {
    let evil = b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x02id\x85R.";
    let folder = Memory(vec![("model.pkl".into(), Bytes::from_static(evil))]);
    let report = inspect(&folder, &Limits::default());
    assert!(!report.safe);
    assert!(report.problem.expect("a reason").contains("refused: posix.system"));
    assert_eq!(report.served_by, None);
}

#[test]
fn a_refused_booster_still_has_a_report() {
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
