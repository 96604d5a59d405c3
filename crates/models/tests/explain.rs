//! Explanations against the package `shap`, within 1e-6 of the largest value. `make_shap_fixtures.py` made the files.

use std::path::{Path, PathBuf};

use models::explain::sampled::{Sampled, Sampling};
use models::explain::{Asked, Background, Explain, Explanation, explainer};
use models::{Backend, Limits, Memory, Method, Native, load_bytes};
use serde_json::Value;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/explain/shap")
}

fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(items) => items.iter().flat_map(numbers).collect(),
        other => vec![other.as_f64().expect("a number")],
    }
}

fn compare(label: &str, got: &Explanation, want: &Value) {
    for (what, got, want) in [("base", &got.base, &want["base"]), ("values", &got.values, &want["values"])] {
        let want = numbers(want);
        assert_eq!(got.len(), want.len(), "{label}: {what}");
        let scale = want.iter().fold(1.0_f64, |max, value| max.max(value.abs()));
        for (got, want) in got.iter().zip(&want) {
            assert!((got - want).abs() <= 1e-6 * scale, "{label}: {what}: {got} for {want}");
        }
    }
}

#[test]
fn values_are_those_of_the_package() {
    let expected = std::fs::read(folder().join("expected.json")).expect("answers");
    let expected: Value = serde_json::from_slice(&expected).expect("JSON");
    let mut seen = 0;
    for (name, entry) in expected.as_object().expect("an object") {
        let bytes = std::fs::read(folder().join(format!("{name}.model"))).expect("a model");
        let (rows, background) = (numbers(&entry["rows"]), numbers(&entry["background"]));
        let count = entry["rows"].as_array().expect("rows").len();
        let width = rows.len() / count;
        let background = Background::new(background, width).expect("a background");
        if let Some(want) = entry.get("asked") {
            let loaded = load_bytes(name, bytes.into(), &Limits::default()).expect("a model");
            let method = if name == "kernel_forest" { Method::Probabilities } else { Method::Predict };
            let backend: Box<dyn Backend> =
                Box::new(Native::new(loaded.estimator, method).expect("the method"));
            let asked = Asked::new(backend).expect("numbers");
            let kernel = Sampled::new(asked, Sampling::Kernel(None)).expect("few columns");
            compare(name, &kernel.explain(&rows, count, Some(&background)).expect("values"), want);
        } else {
            let folder = Memory(vec![("model.joblib".into(), bytes.into())]);
            let model = explainer(&folder, &Limits::default()).expect("an explainer");
            if let Some(want) = entry.get("path") {
                compare(name, &model.explain(&rows, count, None).expect("values"), want);
            }
            compare(
                name,
                &model.explain(&rows, count, Some(&background)).expect("values"),
                &entry["against"],
            );
        }
        seen += 1;
    }
    assert!(seen >= 15, "only {seen} models");
}
