//! Native answers against those of XGBoost, LightGBM and CatBoost, for every fixture of every version.
//!
//! `fixtures/boosted/make.py` made the files and says how.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use models::contract::check_backend;
use models::{Backend, Batch, DType, Limits, Loaded, Method, Native, Outputs, Tensor, load_bytes};
use serde_json::Value;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/boosted")
}

struct Fixture {
    /// Library and version, then the name.
    label: String,
    library: String,
    is_pickle: bool,
    bytes: Bytes,
    rows: Vec<Vec<f64>>,
    /// The rows as texts, where some cells are.
    texts: Option<Vec<String>>,
    answers: Value,
}

fn rows(table: &Value) -> Vec<Vec<f64>> {
    let row =
        |row: &Value| row.as_array().expect("a row").iter().map(|v| v.as_f64().unwrap_or(f64::NAN)).collect();
    table.as_array().expect("rows").iter().map(row).collect()
}

fn library_of(folder: &str) -> &str {
    folder.split('-').next().unwrap_or_default()
}

/// The cells as texts, if one of them is a text.
fn texts(table: &Value) -> Option<Vec<String>> {
    let mut cells = Vec::new();
    flat(table, &mut cells);
    let text =
        |cell: &&Value| cell.as_str().map_or_else(|| cell.to_string().replace("null", "nan"), str::to_owned);
    cells.iter().any(|cell| cell.is_string()).then(|| cells.iter().map(text).collect())
}

fn each(library: &str, mut check: impl FnMut(&Fixture)) {
    let (mut seen, mut failed) = (0, 0);
    let only = std::env::var("ONLY").unwrap_or_default();
    for version in std::fs::read_dir(fixtures()).expect("the fixtures") {
        let folder = version.expect("an entry").path();
        let name = folder.file_name().expect("a name").to_string_lossy().into_owned();
        if !name.starts_with(library) || !folder.join("expected.json").exists() {
            continue;
        }
        let expected = std::fs::read(folder.join("expected.json")).expect("answers");
        let expected: Value = serde_json::from_slice(&expected).expect("JSON");
        for (model, answers) in expected["models"].as_object().expect("an object") {
            let label = format!("{name}/{model}");
            if !label.contains(&only) {
                continue;
            }
            let bytes =
                std::fs::read(folder.join(answers["file"].as_str().expect("a file"))).expect("a model");
            let table = &expected["tables"][answers["rows"].as_str().expect("a table")];
            let mut rows = rows(table);
            if library_of(&name) == "catboost" && answers["rows"] == "categories" {
                // Categories of the library are integers, and none is missing.
                rows.iter_mut().for_each(|row| {
                    [2, 5]
                        .into_iter()
                        .filter(|at| row[*at].is_nan())
                        .collect::<Vec<_>>()
                        .into_iter()
                        .for_each(|at| row[at] = -1.0)
                });
            }
            let fixture = Fixture {
                label,
                library: library_of(&name).into(),
                is_pickle: answers["file"].as_str().is_some_and(|file| file.contains("joblib")),
                bytes: bytes.into(),
                texts: texts(table),
                rows,
                answers: answers.clone(),
            };
            let checked = std::panic::AssertUnwindSafe(|| check(&fixture));
            failed += usize::from(std::panic::catch_unwind(checked).is_err());
            seen += 1;
        }
    }
    assert_eq!(failed, 0, "of {seen} fixtures");
    assert!(seen > 0, "no fixtures of {library}");
}

fn loaded(fixture: &Fixture) -> Loaded {
    load_bytes(&fixture.label, fixture.bytes.clone(), &Limits::default())
        .unwrap_or_else(|error| panic!("{}: {error}", fixture.label))
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

fn run_texts(backend: &dyn Backend, cells: &[String], rows: usize) -> Outputs {
    let input = Tensor::of_texts(cells, &[rows, cells.len() / rows]).expect("fits");
    let mut outputs = Outputs::new();
    backend.run(&Batch { rows, inputs: &[input] }, &mut outputs).expect("an answer");
    outputs
}

/// The dimensions of nested lists.
fn dims(value: &Value) -> Vec<usize> {
    match value {
        Value::Array(items) => {
            let inner = items.first().map(dims).unwrap_or_default();
            [items.len()].into_iter().chain(inner).collect()
        }
        _ => Vec::new(),
    }
}

fn compare(fixture: &Fixture, key: &str, output: &Tensor<'_>) {
    let label = format!("{} {key}", fixture.label);
    let want = &fixture.answers[key];
    assert_eq!(output.dims(), dims(want), "{label}");
    let mut wanted = Vec::new();
    flat(want, &mut wanted);
    if output.dtype() == DType::Text {
        let texts: Vec<&str> = output.texts().map(|text| text.expect("a text")).collect();
        let wanted: Vec<&str> = wanted.iter().map(|want| want.as_str().expect("a text")).collect();
        assert_eq!(texts, wanted, "{label}");
        return;
    }
    // XGBoost in 32 bits must agree to the bit; the others within the rounding of their exponentials.
    let tolerance = match fixture.library.as_str() {
        // Its pickles were answered by itself, which added up in another order than all later versions.
        _ if fixture.label.starts_with("xgboost-1.0") && fixture.is_pickle => 1e-6,
        "xgboost" => 0.0,
        _ => 1e-12,
    };
    for (index, (got, want)) in output.to_f64s().expect("numbers").iter().zip(wanted).enumerate() {
        let number = want.as_f64().unwrap_or(f64::NAN);
        let near = (got - number).abs() <= tolerance * number.abs() || got == &number;
        assert!(
            near,
            "{label}[{index}]: {got} instead of {number} ({:e})",
            (got - number).abs() / number.abs()
        );
    }
}

fn answers(library: &str) {
    each(library, |fixture| {
        for (key, method) in
            [("predict", Method::Predict), ("proba", Method::Probabilities), ("raw", Method::Decisions)]
        {
            if fixture.answers.get(key).is_none() {
                continue;
            }
            let model = Native::new(loaded(fixture).estimator, method);
            let model = model.unwrap_or_else(|error| panic!("{}: {error}", fixture.label));
            let outputs = match &fixture.texts {
                Some(texts) => run_texts(&model, texts, fixture.rows.len()),
                None => run(&model, &fixture.rows),
            };
            compare(fixture, key, &outputs.tensors()[0]);
        }
    });
}

#[test]
fn answers_equal_xgboosts() {
    answers("xgboost");
}

#[test]
fn answers_equal_lightgbms() {
    answers("lightgbm");
}

#[test]
fn answers_equal_catboosts() {
    answers("catboost");
}

#[test]
fn every_model_keeps_the_contract() {
    each("", |fixture| {
        // The suite's rows are numbers.
        if fixture.texts.is_some() {
            return;
        }
        for method in [Method::Predict, Method::Probabilities, Method::Decisions] {
            if let Ok(model) = Native::new(loaded(fixture).estimator, method) {
                check_backend(&model, &fixture.rows);
            }
        }
    });
}
