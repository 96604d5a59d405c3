//! Models with columns of texts, of several answers, and around other models, against the library's answers.
//!
//! `make_text_fixtures.py` made the files and says how.

use std::path::Path;

use models::{Backend, BackendError, Batch, DType, Limits, Method, Native, Outputs, Tensor, load_bytes};
use serde_json::Value;

fn leaves(value: &Value) -> Vec<&Value> {
    value.as_array().map_or_else(|| vec![value], |items| items.iter().flat_map(leaves).collect())
}

fn inputs(model: &Native, columns: &[Value]) -> Vec<Tensor<'static>> {
    let column = |column: &Value| -> Tensor<'static> {
        let cells = column.as_array().expect("a column");
        let texts: Option<Vec<&str>> = cells.iter().map(Value::as_str).collect();
        match texts {
            Some(texts) => Tensor::of_texts(&texts, &[cells.len()]).expect("fits"),
            None => {
                let numbers: Vec<f64> = cells.iter().map(|cell| cell.as_f64().expect("a number")).collect();
                Tensor::owned(&numbers, &[cells.len()]).expect("fits")
            }
        }
    };
    if model.signature().inputs.len() == columns.len() {
        return columns.iter().map(column).collect();
    }
    let rows = columns[0].as_array().expect("a column").len();
    let cell = |row: usize, column: &Value| column[row].as_f64().expect("a number");
    let table: Vec<f64> =
        (0..rows).flat_map(|row| columns.iter().map(move |column| cell(row, column))).collect();
    vec![Tensor::owned(&table, &[rows, columns.len()]).expect("fits")]
}

fn compare(label: &str, outputs: &Outputs, want: &Value) {
    let wanted = leaves(want);
    let mut seen = 0;
    for tensor in outputs.tensors() {
        if tensor.dtype() == DType::Text {
            for text in tensor.texts() {
                assert_eq!(text, wanted[seen].as_str(), "{label}");
                seen += 1;
            }
            continue;
        }
        for got in tensor.to_f64s().expect("numbers").iter() {
            let number = wanted[seen].as_f64().expect("a number");
            assert!((got - number).abs() <= 1e-12 * number.abs().max(1.0), "{label}: {got}, not {number}");
            seen += 1;
        }
    }
    assert_eq!(seen, wanted.len(), "{label}");
}

#[test]
fn answers_to_texts_equal_the_librarys() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/texts");
    let mut seen = 0;
    for version in std::fs::read_dir(folder).expect("the fixtures") {
        let version = version.expect("an entry").path();
        let expected = std::fs::read(version.join("expected.json")).expect("answers");
        let expected: Value = serde_json::from_slice(&expected).expect("JSON");
        for (name, answers) in expected.as_object().expect("an object") {
            let bytes = std::fs::read(version.join(format!("{name}.model"))).expect("a model");
            for (key, method) in [
                ("predict", Method::Predict),
                ("predict_proba", Method::Probabilities),
                ("decision_function", Method::Decisions),
                ("transform", Method::Predict),
            ] {
                let Some(want) = answers.get(key) else { continue };
                let label = format!("{}/{name} {key}", version.display());
                let loaded = load_bytes(name, bytes.clone().into(), &Limits::default())
                    .unwrap_or_else(|error| panic!("{label}: {error}"));
                let model =
                    Native::new(loaded.estimator, method).unwrap_or_else(|error| panic!("{label}: {error}"));
                let inputs = inputs(&model, answers["columns"].as_array().expect("columns"));
                let mut outputs = Outputs::new();
                model
                    .run(&Batch { rows: 12, inputs: &inputs }, &mut outputs)
                    .unwrap_or_else(|error| panic!("{label}: {error}"));
                compare(&label, &outputs, want);
                seen += 1;
            }
        }
    }
    assert!(seen > 100, "only {seen} answers");
}

#[test]
fn a_text_where_a_number_belongs_is_the_callers_mistake() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/texts/1.9.1/pipeline.model");
    let bytes = std::fs::read(path).expect("a model");
    let loaded = load_bytes("pipeline", bytes.into(), &Limits::default()).expect("loads");
    let model = Native::new(loaded.estimator, Method::Predict).expect("predicts");
    let table = Tensor::of_texts(&["red", "0.5", "Rome", "3"], &[1, 4]).expect("fits");
    let mut outputs = Outputs::new();
    model.run(&Batch { rows: 1, inputs: &[table] }, &mut outputs).expect("numbers are read from texts");
    let table = Tensor::of_texts(&["red", "small", "Rome", "3"], &[1, 4]).expect("fits");
    let refused = model.run(&Batch { rows: 1, inputs: &[table] }, &mut outputs);
    assert!(matches!(refused, Err(BackendError::Input(what)) if what.contains("'small'")));
}
