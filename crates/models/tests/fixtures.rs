//! Native answers against the library's own, for every fixture of every version.
//!
//! `make_fixtures.py` and `make_more_fixtures.py` made the files and says how. Classes must be the same; numbers agree within 1e-12.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use models::contract::check_backend;
use models::{Backend, Batch, DType, Limits, Loaded, Method, Native, Outputs, Tensor, load_bytes};
use serde_json::Value;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn each(mut check: impl FnMut(&str, Bytes, &Value)) {
    let (mut seen, mut failed) = (0, 0);
    let folders = [fixtures(), fixtures().join("more")];
    let versions = folders.iter().flat_map(|folder| std::fs::read_dir(folder).expect("the fixtures"));
    for version in versions {
        let folder = version.expect("an entry").path();
        if !folder.join("expected.json").exists() {
            continue;
        }
        let expected = std::fs::read(folder.join("expected.json")).expect("answers");
        let expected: Value = serde_json::from_slice(&expected).expect("JSON");
        for (name, answers) in expected.as_object().expect("an object") {
            let bytes = std::fs::read(folder.join(format!("{name}.model"))).expect("a model");
            let label = format!("{}/{name}", folder.file_name().expect("a name").to_string_lossy());
            let checked = std::panic::AssertUnwindSafe(|| check(&label, Bytes::from(bytes), answers));
            failed += usize::from(std::panic::catch_unwind(checked).is_err());
            seen += 1;
        }
    }
    assert_eq!(failed, 0, "of {seen} fixtures");
    assert!(seen > 200, "only {seen} fixtures");
}

fn loaded(label: &str, bytes: Bytes) -> Loaded {
    load_bytes(label, bytes, &Limits::default()).unwrap_or_else(|error| panic!("{label}: {error}"))
}

fn rows(answers: &Value) -> Vec<Vec<f64>> {
    let row =
        |row: &Value| row.as_array().expect("a row").iter().map(|v| v.as_f64().unwrap_or(f64::NAN)).collect();
    answers["rows"].as_array().expect("rows").iter().map(row).collect()
}

fn flat<'v>(value: &'v Value, out: &mut Vec<&'v Value>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| flat(item, out)),
        other => out.push(other),
    }
}

fn run(backend: &dyn Backend, rows: &[Vec<f64>]) -> Outputs {
    let numbers: Vec<f64> = rows.iter().flatten().copied().collect();
    let input = Tensor::borrowed(&numbers, &[rows.len(), rows[0].len()]).expect("fits");
    let mut outputs = Outputs::new();
    backend.run(&Batch { rows: rows.len(), inputs: &[input] }, &mut outputs).expect("an answer");
    outputs
}

/// The library computes distances between rows from their products, which loses digits where rows are near.
fn tolerance(label: &str) -> f64 {
    if label.contains("knn_imputer_distance") { 1e-8 } else { 1e-12 }
}

fn compare(label: &str, output: &Tensor<'_>, want: &Value) {
    let mut wanted = Vec::new();
    flat(want, &mut wanted);
    match output.dtype() {
        DType::Text => {
            let texts: Vec<&str> = output.texts().map(|text| text.expect("a text")).collect();
            assert_eq!(
                texts,
                wanted.iter().map(|want| want.as_str().expect("a text")).collect::<Vec<_>>(),
                "{label}"
            );
        }
        dtype => {
            let numbers = output.to_f64s().expect("numbers");
            assert_eq!(numbers.len(), wanted.len(), "{label}");
            for (got, want) in numbers.iter().zip(wanted) {
                let number = want
                    .as_f64()
                    .or(want.as_bool().map(|truth| f64::from(u8::from(truth))))
                    .unwrap_or(f64::NAN);
                let near = (got - number).abs() <= tolerance(label) * number.abs().max(1.0);
                assert!(near || (got.is_nan() && number.is_nan()), "{label}: {got} instead of {number}");
                assert!(dtype != DType::I64 || want.is_i64(), "{label}: integers stay integers");
                assert!(dtype != DType::Bool || want.is_boolean(), "{label}: truth values stay truth values");
            }
        }
    }
}

#[test]
fn answers_equal_the_librarys() {
    each(|label, bytes, answers| {
        let rows = rows(answers);
        for (key, method) in [
            ("predict", Method::Predict),
            ("predict_proba", Method::Probabilities),
            ("decision_function", Method::Decisions),
            ("transform", Method::Predict),
        ] {
            let Some(want) = answers.get(key) else { continue };
            let model = Native::new(loaded(label, bytes.clone()).estimator, method);
            let model = model.unwrap_or_else(|error| panic!("{label}: {error}"));
            compare(&format!("{label} {key}"), &run(&model, &rows).tensors()[0], want);
        }
    });
}

#[test]
fn every_model_keeps_the_contract() {
    each(|label, bytes, answers| {
        for method in [Method::Predict, Method::Probabilities, Method::Decisions] {
            if let Ok(model) = Native::new(loaded(label, bytes.clone()).estimator, method) {
                check_backend(&model, &rows(answers));
            }
        }
    });
}

#[test]
fn what_the_library_does_not_offer_is_not_offered() {
    each(|label, bytes, answers| {
        let methods = loaded(label, bytes).inspection().methods;
        for method in ["predict", "predict_proba", "decision_function", "transform"] {
            // Forests of the library have no decision function, its trees neither; what it has, we have.
            assert_eq!(
                methods.iter().any(|m| m == method),
                answers.get(method).is_some(),
                "{label}: {method}"
            );
        }
    });
}
