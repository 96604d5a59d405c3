//! Every fixture of `models` that can be written as ONNX answers the same from the file; the others are refused by name.
//!
//! The native answers are held to the libraries' own by `models`' tests. Not here: ONNX Runtime (`conformance/onnx`).

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use models::table::Table;
use models::{Backend, Batch, DType, Limits, Method, Native, Outputs, load_bytes};
use onnx::Onnx;
use serde_json::{Value, json};

/// What has no form as operations on tables, by the words of the refusal.
const REFUSED: &[&str] = &[
    "sklearn.impute.KNNImputer",
    "sklearn.impute.IterativeImputer",
    "columns of categories, which it hashes",
    "linear leaves",
    "several labels at once",
    "an encoder of a column of texts and numbers",
    "an encoder of texts some of which are missing",
    "answers whose labels are of different types",
    "texts where numbers are needed",
    "a PMML document",
];

/// Rows of a fixture that are compared: enough for every branch, few enough for a thousand models.
const ROWS: usize = 24;

/// Rows as the protocol's JSON, which tables are read from.
fn table(expected: &Value, answers: &Value) -> Option<Table> {
    let rows: Vec<Value> = if let Some(columns) = answers["columns"].as_array() {
        let count = columns[0].as_array()?.len();
        (0..count).map(|row| columns.iter().map(|column| column[row].clone()).collect()).collect()
    } else {
        let named = answers["rows"].as_str();
        let rows = named.map_or(&answers["rows"], |name| &expected["tables"][name]);
        rows.as_array()?.iter().map(|row| if row.is_array() { row.clone() } else { json!([row]) }).collect()
    };
    let table = Table::read("rows.json", &Bytes::from(json!({ "instances": rows }).to_string())).ok()?;
    Some(table.slice(0..ROWS))
}

/// One answer's cells: numbers, or texts.
#[derive(Debug, PartialEq, Clone)]
enum Cells {
    Numbers(Vec<f64>),
    Texts(Vec<String>),
}

fn ask(model: &dyn Backend, table: &Table) -> Result<Vec<(String, Cells)>, String> {
    let inputs = table.inputs(model.signature()).map_err(|error| error.to_string())?;
    let mut outputs = Outputs::new();
    model
        .run(&Batch { rows: table.rows(), inputs: &inputs }, &mut outputs)
        .map_err(|error| error.to_string())?;
    let named = model.signature().outputs.iter().zip(outputs.tensors());
    Ok(named
        .map(|(spec, tensor)| {
            let cells = if tensor.dtype() == DType::Text {
                Cells::Texts(tensor.texts().map(|text| text.expect("UTF-8").to_owned()).collect())
            } else {
                Cells::Numbers(tensor.to_f64s().expect("numbers").to_vec())
            };
            (spec.name.clone(), cells)
        })
        .collect())
}

/// How far two answers are apart, relative to the larger of one and the number; infinite for other classes.
fn apart(a: &Cells, b: &Cells) -> f64 {
    match (a, b) {
        (Cells::Texts(a), Cells::Texts(b)) if a == b => 0.0,
        (Cells::Numbers(a), Cells::Numbers(b)) if a.len() == b.len() => {
            let each = a.iter().zip(b).map(|(x, y)| match (x - y).abs() / x.abs().max(1.0) {
                _ if x == y || (x.is_nan() && y.is_nan()) => 0.0,
                off if off.is_nan() => f64::INFINITY,
                off => off,
            });
            each.fold(0.0, f64::max)
        }
        _ => f64::INFINITY,
    }
}

/// Converts one model and compares every answer; the greatest difference, or why it was refused.
fn check(name: &str, bytes: &Bytes, table: &Table) -> Result<f64, String> {
    let load = || load_bytes(name, bytes.clone(), &Limits::default()).expect(name).estimator;
    let converted = onnx::convert(&load()).map_err(|error| error.to_string())?;
    let model = Onnx::load(&converted).unwrap_or_else(|error| panic!("{name}: {error}"));
    let got = ask(&model, table).unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut most = 0.0_f64;
    let methods = [
        (&["label", "variable"][..], Method::Predict),
        (&["probabilities"], Method::Probabilities),
        (&["decisions", "scores"], Method::Decisions),
    ];
    let mut compared = 0;
    for (outputs, method) in methods {
        let Ok(native) = Native::new(load(), method) else { continue };
        let want = ask(&native, table).unwrap_or_else(|error| panic!("{name}: {error}"));
        if want.len() != 1 {
            continue;
        }
        for (output, cells) in got.iter().filter(|(output, _)| outputs.contains(&output.as_str())) {
            compared += 1;
            let off = apart(&want[0].1, cells);
            assert!(
                off <= 2e-6,
                "{name}: {output} is {off} from the native answer:\n{:?}\n{cells:?}",
                want[0].1
            );
            most = most.max(off);
        }
    }
    assert!(compared > 0, "{name}: nothing was compared");
    Ok(most)
}

#[test]
fn fixtures_answer_the_same_as_onnx_or_are_refused_by_name() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tests/fixtures");
    let (mut same, mut refused) = (0, BTreeMap::<String, Vec<String>>::new());
    let mut failures = Vec::new();
    let mut folders: Vec<_> = walk(&fixtures, 0);
    folders.sort();
    for folder in folders {
        let Ok(text) = std::fs::read(folder.join("expected.json")) else { continue };
        let expected: Value = serde_json::from_slice(&text).expect("JSON");
        let models = expected.get("models").unwrap_or(&expected).clone();
        for (name, answers) in models.as_object().expect("an object") {
            let file = answers["file"].as_str().map_or_else(|| format!("{name}.model"), str::to_owned);
            let Ok(bytes) = std::fs::read(folder.join(&file)) else { continue };
            let Some(table) = table(&expected, answers) else { continue };
            let shown = folder.join(name).strip_prefix(&fixtures).expect("inside").display().to_string();
            let checked = std::panic::catch_unwind(|| check(&shown, &bytes.into(), &table));
            match checked {
                Ok(Ok(_)) => same += 1,
                Ok(Err(why)) => refused.entry(why).or_default().push(shown),
                Err(_) => failures.push(shown),
            }
        }
    }
    println!("{same} fixtures answer the same as ONNX");
    for (why, names) in &refused {
        println!("refused, {} times: {why} ({})", names.len(), names[0]);
    }
    assert!(failures.is_empty(), "{} fixtures answer otherwise: {failures:?}", failures.len());
    let unknown: Vec<&String> =
        refused.keys().filter(|why| !REFUSED.iter().any(|known| why.contains(known))).collect();
    assert!(unknown.is_empty(), "refused for reasons that are not listed: {unknown:?}");
    let count: usize = refused.values().map(Vec::len).sum();
    assert!(same > 400 && count * 5 < same, "{same} the same, {count} refused");
}

fn walk(folder: &Path, depth: usize) -> Vec<std::path::PathBuf> {
    let mut found = vec![folder.to_path_buf()];
    if depth < 3 {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                found.extend(walk(&entry.path(), depth + 1));
            }
        }
    }
    found
}
