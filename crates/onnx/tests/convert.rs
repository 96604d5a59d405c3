//! Every fixture of `models` that can be written as ONNX answers the same from the file; the others are refused by name.
//!
//! The native answers are held to the libraries' own by `models`' tests. Not here: ONNX Runtime (`conformance/onnx`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use models::table::Table;
use models::{Backend, Batch, DType, Estimator, Limits, Method, Native, Outputs, load_bytes};
use onnx::Onnx;
use serde_json::{Value, json};

/// What has no form as operations on tables, by the words of the refusal.
const REFUSED: &[&str] = &[
    "columns of categories, which it hashes",
    "an encoder of a column of texts and numbers",
    "texts where numbers are needed",
    "a PMML document",
];

/// Rows of a fixture that are compared: enough for every branch, few enough for a thousand models.
const ROWS: usize = 24;

/// Rows as the protocol's JSON, which tables are read from.
fn table(expected: &Value, answers: &Value) -> Option<Table> {
    let rows: Vec<Value> = if let Some(columns) = answers["columns"].as_array() {
        let count = columns[0].as_array()?.len().min(ROWS);
        (0..count).map(|row| columns.iter().map(|column| column[row].clone()).collect()).collect()
    } else {
        let named = answers["rows"].as_str();
        let rows = named.map_or(&answers["rows"], |name| &expected["tables"][name]).as_array()?;
        let each = rows.iter().take(ROWS);
        each.map(|row| if row.is_array() { row.clone() } else { json!([row]) }).collect()
    };
    Table::read("rows.json", &Bytes::from(json!({ "instances": rows }).to_string())).ok()
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

/// What a model answers natively, table by table; nothing where it has no such method.
fn native(name: &str, estimator: Estimator, method: Method, table: &Table) -> Vec<Cells> {
    let Ok(model) = Native::new(estimator, method) else { return Vec::new() };
    let answers = ask(&model, table).unwrap_or_else(|error| panic!("{name}: {error}"));
    answers.into_iter().map(|(_, cells)| cells).collect()
}

/// The native method that an output is of, and which of its tables.
fn origin(output: &str) -> Option<(Method, usize)> {
    Some(match output {
        "label" | "variable" => (Method::Predict, 0),
        "probabilities" => (Method::Probabilities, 0),
        "decisions" | "scores" => (Method::Decisions, 0),
        several => (Method::Probabilities, several.strip_prefix("probabilities_")?.parse().ok()?),
    })
}

/// Converts one model and compares every answer, or tells why it was refused.
fn check(name: &str, bytes: &Bytes, table: &Table) -> Result<(), String> {
    let load = || load_bytes(name, bytes.clone(), &Limits::default()).expect(name).estimator;
    let estimator = load();
    let converted = onnx::convert(&estimator).map_err(|error| error.to_string())?;
    let mut first = Some(estimator);
    let model = Onnx::load(&converted).unwrap_or_else(|error| panic!("{name}: {error}"));
    let got = ask(&model, table).unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut compared = 0;
    for (output, cells) in &got {
        let Some((method, at)) = origin(output) else { continue };
        let all = native(name, first.take().unwrap_or_else(load), method, table);
        // Chains give one table of all links' second classes.
        let tables = got.iter().filter(|(own, _)| origin(own).is_some_and(|(own, _)| own == method)).count();
        let Some(want) = all.get(at).filter(|_| all.len() == tables) else { continue };
        compared += 1;
        let off = apart(want, cells);
        assert!(off <= 2e-6, "{name}: {output} is {off} from the native answer:\n{want:?}\n{cells:?}");
    }
    assert!(compared > 0, "{name}: nothing was compared");
    let has = |output: &str| got.iter().any(|(own, _)| own.starts_with(output));
    if has("label") && !has("probabilities") {
        assert!(Native::new(load(), Method::Probabilities).is_err(), "{name}: its probabilities are lost");
    }
    Ok(())
}

/// A model of a fixture folder.
struct Case {
    shown: String,
    file: PathBuf,
    expected: Arc<Value>,
    answers: Value,
}

fn cases(fixtures: &Path) -> Vec<Case> {
    let mut folders = walk(fixtures, 0);
    folders.sort();
    let mut cases = Vec::new();
    for folder in folders {
        let Ok(text) = std::fs::read(folder.join("expected.json")) else { continue };
        let expected: Arc<Value> = Arc::new(serde_json::from_slice(&text).expect("JSON"));
        let models = expected.get("models").unwrap_or(&expected);
        for (name, answers) in models.as_object().expect("an object") {
            let file = answers["file"].as_str().map_or_else(|| format!("{name}.model"), str::to_owned);
            let shown = folder.join(name).strip_prefix(fixtures).expect("inside").display().to_string();
            let (expected, answers) = (expected.clone(), answers.clone());
            cases.push(Case { shown, file: folder.join(file), expected, answers });
        }
    }
    cases
}

/// What came of the cases.
#[derive(Default)]
struct Told {
    same: usize,
    refused: BTreeMap<String, Vec<String>>,
    failures: Vec<String>,
}

/// Checks cases until none is left.
fn work(cases: &[Case], next: &AtomicUsize, told: &Mutex<Told>) {
    while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
        let Ok(bytes) = std::fs::read(&case.file) else { continue };
        let Some(table) = table(&case.expected, &case.answers) else { continue };
        let checked = std::panic::catch_unwind(|| check(&case.shown, &bytes.into(), &table));
        let mut told = told.lock().expect("nobody panics with it");
        match checked {
            Ok(Ok(())) => told.same += 1,
            Ok(Err(why)) => told.refused.entry(why).or_default().push(case.shown.clone()),
            Err(_) => told.failures.push(case.shown.clone()),
        }
    }
}

#[test]
fn fixtures_answer_the_same_as_onnx_or_are_refused_by_name() {
    let cases = cases(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tests/fixtures"));
    let (next, told) = (AtomicUsize::new(0), Mutex::new(Told::default()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| work(&cases, &next, &told));
        }
    });
    let Told { same, refused, failures } = told.into_inner().expect("nobody panicked with it");
    println!("{same} fixtures answer the same as ONNX");
    for (why, names) in &refused {
        println!("refused, {} times: {why} ({})", names.len(), names[0]);
    }
    assert!(failures.is_empty(), "{} fixtures answer otherwise: {failures:?}", failures.len());
    let unknown: Vec<&String> =
        refused.keys().filter(|why| !REFUSED.iter().any(|known| why.contains(known))).collect();
    assert!(unknown.is_empty(), "refused for reasons that are not listed: {unknown:?}");
    let count: usize = refused.values().map(Vec::len).sum();
    assert!(same > 1_400 && count * 10 < same, "{same} the same, {count} refused");
}

fn walk(folder: &Path, depth: usize) -> Vec<PathBuf> {
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
