//! The table in `docs/models.md` says what the fixtures cover, no more and no less.
//!
//! It is made here from every fixture: the class, the versions that wrote it, the methods that were compared, and
//! the greatest error, which must not exceed the stated one. `UPDATE_TABLE=1` rewrites the table.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use models::{Backend, Batch, DType, Limits, Method, Native, Outputs, Tensor, load_bytes};
use serde_json::Value;

const START: &str = "<!-- made by crates/models/tests/table.rs: start -->\n";
const END: &str = "<!-- made by crates/models/tests/table.rs: end -->";
/// The errors that the table tells apart.
const STEPS: [(f64, &str); 6] = [
    (0.0, "equal"),
    (1e-15, "1e-15"),
    (1e-12, "1e-12"),
    (1e-8, "1e-8"),
    (1e-6, "1e-6"),
    (f64::MAX, "above 1e-6"),
];
const METHODS: [(&str, &str, Method); 6] = [
    ("predict", "predict", Method::Predict),
    ("predict_proba", "predict_proba", Method::Probabilities),
    ("decision_function", "decision_function", Method::Decisions),
    ("transform", "transform", Method::Predict),
    ("proba", "predict_proba", Method::Probabilities),
    ("raw", "raw scores", Method::Decisions),
];

#[derive(Default)]
struct Row {
    versions: BTreeSet<Vec<u32>>,
    methods: BTreeSet<&'static str>,
    error: f64,
    models: usize,
}

fn leaves(value: &Value) -> Vec<&Value> {
    value.as_array().map_or_else(|| vec![value], |items| items.iter().flat_map(leaves).collect())
}

fn text(cell: &Value) -> String {
    cell.as_str().map_or_else(|| cell.to_string().replace("null", "nan"), str::to_owned)
}

/// Cells by row, however a fixture has them.
fn cells<'v>(expected: &'v Value, answers: &'v Value) -> Vec<Vec<&'v Value>> {
    if let Some(columns) = answers["columns"].as_array() {
        let rows = columns[0].as_array().expect("a column").len();
        return (0..rows).map(|row| columns.iter().map(|column| &column[row]).collect()).collect();
    }
    let table = match &answers["rows"] {
        Value::String(name) => &expected["tables"][name.as_str()],
        rows => rows,
    };
    table.as_array().expect("rows").iter().map(leaves).collect()
}

fn input(is_categories: bool, cells: &[Vec<&Value>]) -> Tensor<'static> {
    let dims = [cells.len(), cells[0].len()];
    let all: Vec<&Value> = cells.iter().flatten().copied().collect();
    if all.iter().any(|cell| cell.is_string()) {
        return Tensor::of_texts(&all.into_iter().map(text).collect::<Vec<_>>(), &dims).expect("fits");
    }
    // CatBoost was given -1 for categories that are missing.
    let missing = |at: usize| if is_categories && [2, 5].contains(&(at % dims[1])) { -1.0 } else { f64::NAN };
    let numbers = all.iter().enumerate().map(|(at, cell)| cell.as_f64().unwrap_or_else(|| missing(at)));
    Tensor::owned(&numbers.collect::<Vec<_>>(), &dims).expect("fits")
}

/// The greatest error; infinite where an answer is another.
fn error(outputs: &Outputs, want: &Value) -> f64 {
    let mut wanted = leaves(want).into_iter();
    let mut most = 0.0_f64;
    for tensor in outputs.tensors() {
        if tensor.dtype() == DType::Text {
            for got in tensor.texts() {
                let same = got == wanted.next().and_then(Value::as_str);
                most = most.max(if same { 0.0 } else { f64::INFINITY });
            }
            continue;
        }
        for got in tensor.to_f64s().expect("numbers").iter() {
            let want = wanted.next();
            let truth = want.and_then(Value::as_bool).map(|truth| f64::from(u8::from(truth)));
            let want = want.and_then(Value::as_f64).or(truth).unwrap_or(f64::NAN);
            if (got.is_nan() && want.is_nan()) || *got == want {
                continue;
            }
            let off = (got - want).abs() / want.abs().max(1.0);
            most = most.max(if off.is_nan() { f64::INFINITY } else { off });
        }
    }
    if wanted.next().is_some() { f64::INFINITY } else { most }
}

fn version(text: &str) -> Vec<u32> {
    text.split('.').map(|part| part.parse().unwrap_or(0)).collect()
}

fn folder(rows: &mut BTreeMap<(String, String), Row>, library: &str, folder: &Path, number: &str) {
    let Ok(expected) = std::fs::read(folder.join("expected.json")) else { return };
    let expected: Value = serde_json::from_slice(&expected).expect("JSON");
    let models = expected.get("models").unwrap_or(&expected);
    for (name, answers) in models.as_object().expect("an object") {
        let file = answers["file"].as_str().map_or_else(|| format!("{name}.model"), str::to_owned);
        let bytes = bytes::Bytes::from(std::fs::read(folder.join(&file)).expect("a model"));
        let cells = cells(&expected, answers);
        // Such columns go in one by one, as `pmml.rs` does.
        if library == "PMML" && cells.iter().flatten().any(|cell| cell.is_string() || cell.is_boolean()) {
            continue;
        }
        let input = input(library == "CatBoost" && answers["rows"] == "categories", &cells);
        let mut classes = BTreeSet::new();
        let (mut methods, mut most) = (BTreeSet::new(), 0.0_f64);
        for (key, shown, method) in METHODS {
            let Some(want) = answers.get(key) else { continue };
            let loaded = load_bytes(name, bytes.clone(), &Limits::default()).expect(name);
            classes.extend(loaded.inspection().estimators.into_iter().map(|line| line.class));
            let model = Native::new(loaded.estimator, method).expect(name);
            let mut outputs = Outputs::new();
            model
                .run(&Batch { rows: cells.len(), inputs: std::slice::from_ref(&input) }, &mut outputs)
                .expect(name);
            methods.insert(shown);
            most = most.max(error(&outputs, want));
        }
        for class in classes {
            let short = class.rsplit('.').next().unwrap_or_default().to_owned();
            let row = rows.entry((library.to_owned(), short)).or_default();
            row.versions.insert(version(number));
            row.methods.extend(&methods);
            row.error = row.error.max(most);
            row.models += 1;
        }
    }
}

fn folders(of: &Path) -> Vec<(PathBuf, String)> {
    let Ok(entries) = std::fs::read_dir(of) else { return Vec::new() };
    let one = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        (path, name)
    };
    entries.map(one).collect()
}

fn measured() -> BTreeMap<(String, String), Row> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut rows = BTreeMap::new();
    for inner in ["", "more", "texts"] {
        for (path, name) in folders(&fixtures.join(inner)) {
            folder(&mut rows, "scikit-learn", &path, &name);
        }
    }
    for (path, name) in folders(&fixtures.join("boosted")) {
        let Some((library, number)) = name.split_once('-') else { continue };
        let library = match library {
            "xgboost" => "XGBoost",
            "lightgbm" => "LightGBM",
            _ => "CatBoost",
        };
        folder(&mut rows, library, &path, number);
    }
    for (path, number) in folders(&fixtures.join("pmml")) {
        folder(&mut rows, "PMML", &path, &number);
    }
    // scikit-learn's estimators around a booster are told of in their own rows.
    rows.retain(|(library, class), _| {
        library == "scikit-learn" || !["Pipeline", "StandardScaler"].contains(&class.as_str())
    });
    rows
}

fn line((library, class): &(String, String), row: &Row, stated: &str) -> String {
    let shown = |version: &Vec<u32>| version.iter().map(u32::to_string).collect::<Vec<_>>().join(".");
    let versions: Vec<String> = row.versions.iter().map(shown).collect();
    let methods: Vec<&str> = row.methods.iter().copied().collect();
    let (versions, methods, models) = (versions.join(", "), methods.join(", "), row.models);
    format!("| {library} | {class} | {versions} | {methods} | {models} | {stated} |\n")
}

#[test]
fn the_table_in_the_documents_is_what_the_fixtures_show() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/models.md");
    let document = std::fs::read_to_string(&path).expect("docs/models.md");
    let (before, rest) = document.split_once(START).expect("the start of the table");
    let (table, after) = rest.split_once(END).expect("the end of the table");
    let stated = |line: &str| line.rsplit('|').nth(1).map(|cell| cell.trim().to_owned());
    let head =
        "\n| library | class | versions | methods | models | largest error |\n|---|---|---|---|---|---|\n";
    let mut made = String::from(head);
    let update = std::env::var("UPDATE_TABLE").is_ok();
    for (key, row) in &measured() {
        let reached = STEPS.iter().find(|(most, _)| row.error <= *most).map_or("wrong", |(_, name)| *name);
        let start = format!("| {} | {} |", key.0, key.1);
        // Another machine's exponential may round otherwise: what is stated holds, if it is not exceeded.
        let known = table.lines().find(|line| line.starts_with(&start)).and_then(stated);
        let bound = known.as_deref().and_then(|known| STEPS.iter().find(|(_, name)| *name == known));
        let holds = bound.is_some_and(|(most, _)| row.error <= most.max(1e-12));
        let shown = if holds && !update { known.as_deref().unwrap_or(reached) } else { reached };
        made += &line(key, row, shown);
    }
    made.push('\n');
    if update {
        std::fs::write(&path, format!("{before}{START}{made}{END}{after}")).expect("written");
        return;
    }
    assert!(!made.contains("wrong") && !made.contains("above"), "an answer is another than the library's");
    assert_eq!(table, made, "run again with UPDATE_TABLE=1 and look at the difference");
}
