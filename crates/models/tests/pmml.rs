//! PMML: answers against those of the JPMML evaluator, the contract, and documents that were made to hurt.
//!
//! `fixtures/pmml/make.py` made the files and says how.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use models::contract::check_backend;
use models::{Backend, Batch, DType, Limits, Method, Native, Outputs, Tensor, inspect_bytes, load_bytes};
use serde_json::Value;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pmml/4")
}

fn expected() -> serde_json::Map<String, Value> {
    let text = std::fs::read(fixtures().join("expected.json")).expect("the answers");
    let Ok(Value::Object(all)) = serde_json::from_slice(&text) else { panic!("answers by name") };
    all
}

fn file(of: &Value) -> Bytes {
    std::fs::read(fixtures().join(of["file"].as_str().expect("a file"))).expect("a document").into()
}

fn load(name: &str, bytes: Bytes, method: Method) -> Native {
    let loaded =
        load_bytes(name, bytes, &Limits::default()).unwrap_or_else(|error| panic!("{name}: {error}"));
    Native::new(loaded.estimator, method).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A number of a cell; truth values are 0 and 1.
fn number(cell: &Value) -> f64 {
    cell.as_f64().or(cell.as_bool().map(|is| f64::from(u8::from(is)))).unwrap_or(f64::NAN)
}

/// The columns as the model takes them: one table of numbers, or a tensor for each column. A text that is missing is
/// a column of numbers' NaN, so rows that miss one go alone.
fn inputs(model: &Native, columns: &[Value], row: usize) -> Vec<Tensor<'static>> {
    let specs = &model.signature().inputs;
    let cell = |column: usize| &columns[column][row];
    if let [only] = specs.as_slice()
        && !only.row.is_empty()
    {
        let numbers: Vec<f64> = (0..columns.len()).map(|column| number(cell(column))).collect();
        return vec![Tensor::owned(&numbers, &[1, columns.len()]).expect("fits")];
    }
    let tensor = |(column, spec): (usize, &models::TensorSpec)| match cell(column).as_str() {
        Some(text) => Tensor::of_texts(&[text], &[1]).expect("fits"),
        None => {
            assert!(spec.dtype == DType::F64 || cell(column).is_null(), "{}", spec.name);
            Tensor::owned(&[number(cell(column))], &[1]).expect("fits")
        }
    };
    specs.iter().enumerate().map(tensor).collect()
}

fn check(label: &str, got: &Tensor<'_>, want: &Value) {
    if let Some(text) = want.as_str() {
        assert_eq!(got.texts().next().flatten(), Some(text), "{label}");
        return;
    }
    let wanted: Vec<f64> = match want {
        Value::Array(items) => items.iter().map(number).collect(),
        one => vec![number(one)],
    };
    let got = got.to_f64s().expect("numbers").to_vec();
    assert_eq!(got.len(), wanted.len(), "{label}");
    for (got, want) in got.iter().zip(wanted) {
        // What the evaluator computes in 32 bits may end one step beside.
        let tolerance = if label.contains("xgboost") { 2e-7 } else { 1e-12 };
        let near = (got - want).abs() <= tolerance * want.abs().max(1.0) || (got.is_nan() && want.is_nan());
        assert!(near, "{label}: {got} instead of {want}");
    }
}

#[test]
fn answers_equal_the_evaluators() {
    let mut failed = Vec::new();
    for (name, of) in expected() {
        let one = std::panic::AssertUnwindSafe(|| {
            let columns = of["columns"].as_array().expect("columns");
            for (key, method) in [("predict", Method::Predict), ("predict_proba", Method::Probabilities)] {
                let Some(answers) = of[key].as_array() else { continue };
                let model = load(&name, file(&of), method);
                let names: Vec<&str> =
                    of["names"].as_array().expect("names").iter().filter_map(Value::as_str).collect();
                assert_eq!(model.signature().columns, names, "{name}");
                for (row, want) in answers.iter().enumerate() {
                    let inputs = inputs(&model, columns, row);
                    let mut outputs = Outputs::new();
                    let told = model.run(&Batch { rows: 1, inputs: &inputs }, &mut outputs);
                    let is_class = model.signature().outputs[0].dtype != DType::F64;
                    if want.is_null() && is_class {
                        let error = told.expect_err("no class").to_string();
                        assert!(error.contains("no answer for row 0"), "{name}: {error}");
                        continue;
                    }
                    told.unwrap_or_else(|error| panic!("{name}[{row}]: {error}"));
                    check(&format!("{name}[{row}] {key}"), &outputs.tensors()[0], want);
                }
            }
        });
        if std::panic::catch_unwind(one).is_err() {
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
}

#[test]
fn every_model_of_numbers_keeps_the_contract() {
    let mut seen = 0;
    for (name, of) in expected() {
        let columns = of["columns"].as_array().expect("columns");
        for method in [Method::Predict, Method::Probabilities] {
            let loaded = load_bytes(&name, file(&of), &Limits::default()).expect(&name);
            let Ok(model) = Native::new(loaded.estimator, method) else { continue };
            if model.signature().inputs.len() > 1 || columns.len() < 2 {
                continue;
            }
            let count = columns[0].as_array().expect("cells").len();
            let row = |row: usize| columns.iter().map(|column| number(&column[row])).collect();
            check_backend(&model, &(0..count).map(row).collect::<Vec<Vec<f64>>>());
            seen += 1;
        }
    }
    assert!(seen > 20, "{seen}");
}

const HEAD: &str = "<PMML version='4.4' xmlns='http://www.dmg.org/PMML-4_4'><DataDictionary>\
    <DataField name='x' optype='continuous' dataType='double'/>\
    <DataField name='c' optype='categorical' dataType='string'><Value value='a'/><Value value='b'/></DataField>\
    <DataField name='y' optype='continuous' dataType='double'/></DataDictionary>";
const SCHEMA: &str = "<MiningSchema><MiningField name='x'/><MiningField name='c'/>\
    <MiningField name='y' usageType='target'/></MiningSchema>";

fn refusal(document: &str) -> String {
    let bytes = Bytes::copy_from_slice(document.as_bytes());
    load_bytes("model.pmml", bytes, &Limits::default()).expect_err("refused").to_string()
}

#[test]
fn what_is_not_known_is_refused_by_name_and_line() {
    let tree = |inner: &str, attrs: &str| {
        format!("{HEAD}\n<TreeModel functionName='regression'{attrs}>{SCHEMA}{inner}</TreeModel></PMML>")
    };
    let regression = |inner: &str| {
        format!("{HEAD}<RegressionModel functionName='regression'>{SCHEMA}{inner}</RegressionModel></PMML>")
    };
    for (document, words) in [
        (
            format!("{HEAD}\n<NeuralNetwork functionName='regression'/></PMML>"),
            &["NeuralNetwork", "line 2"][..],
        ),
        (
            tree("<Node><True/></Node>", " missingValueStrategy='weightedConfidence'"),
            &["weightedConfidence", "line 2"],
        ),
        (tree("<Node><Riddle/></Node>", ""), &["Node", "predicate"]),
        (tree("<Node><True/><EmbeddedModel/></Node>", ""), &["EmbeddedModel"]),
        (
            tree("<Node><SimplePredicate field='q' operator='equal' value='1'/></Node>", ""),
            &["\"q\"", "not known here"],
        ),
        (
            tree("<Node><SimplePredicate field='x' operator='near' value='1'/></Node>", ""),
            &["operator", "near"],
        ),
        (
            tree("<Node><SimplePredicate field='x' operator='equal' value='big'/></Node>", ""),
            &["big", "no number"],
        ),
        (
            tree("<Node><SimplePredicate field='c' operator='lessThan' value='b'/></Node>", ""),
            &["compares texts"],
        ),
        (tree("<Node score='1' defaultChild='7'><True/></Node>", ""), &["defaultChild", "7"]),
        (tree("", ""), &["TreeModel", "no Node"]),
        (regression("<RegressionTable/>"), &["intercept"]),
        (regression("<RegressionTable intercept='1e999999x'/>"), &["1e999999x", "no number"]),
        (
            regression(
                "<RegressionTable intercept='0'><NumericPredictor name='c' coefficient='1'/></RegressionTable>",
            ),
            &["\"c\"", "texts"],
        ),
        (
            regression(
                "<LocalTransformations><DerivedField name='d' optype='continuous' dataType='double'><TextIndex/></DerivedField></LocalTransformations>",
            ),
            &["TextIndex"],
        ),
        (HEAD.replace("4.4'", "3.1'") + "</PMML>", &["version", "3.1"]),
        (format!("{HEAD}</PMML>"), &["no model"]),
        ("<?xml version='1.0'?><html/>".to_owned(), &["root is html"]),
    ] {
        let error = refusal(&document);
        for word in words {
            assert!(error.contains(word), "{word}: {error}");
        }
    }
}

#[test]
fn a_derived_field_knows_only_those_before_it() {
    let derived = |name: &str, of: &str| {
        format!(
            "<DerivedField name='{name}' optype='continuous' dataType='double'><FieldRef field='{of}'/></DerivedField>"
        )
    };
    let circle = format!(
        "{HEAD}<TransformationDictionary>{}{}</TransformationDictionary><TreeModel functionName='regression'>{SCHEMA}\
         <Node score='1'><True/></Node></TreeModel></PMML>",
        derived("p", "q"),
        derived("q", "p")
    );
    assert!(refusal(&circle).contains("\"q\" is not known here"));
}

#[test]
fn documents_that_grow_are_refused() {
    let laughs = "<?xml version='1.0'?><!DOCTYPE PMML [<!ENTITY a 'ha'><!ENTITY b '&a;&a;'>]><PMML version='4.4'>&b;</PMML>";
    assert!(refusal(laughs).contains("DTD"), "{}", refusal(laughs));
    let outside = "<?xml version='1.0'?><!DOCTYPE PMML SYSTEM 'file:///etc/passwd'><PMML version='4.4'/>";
    assert!(refusal(outside).contains("DTD"));
    let deep = format!("<PMML version='4.4'>{}", "<Node>".repeat(1 << 20));
    assert!(refusal(&deep).contains("depth of XML"));
    let wide: String = (0..100_000).map(|at| format!(" a{at}='1'")).collect();
    assert!(refusal(&format!("<PMML{wide}/>")).contains("attributes"));
    let names: String = (0..2_000).map(|at| format!("<a xmlns:n{at}='n'>")).collect();
    assert!(refusal(&format!("<PMML>{names}")).contains("namespaces"));
    let many = Limits { values_max: 100, ..Limits::default() };
    let rows = format!("<PMML version='4.4'>{}</PMML>", "<Header/>".repeat(1_000));
    let error = load_bytes("many.pmml", rows.into(), &many).expect_err("too many").to_string();
    assert!(error.contains("number of XML elements"), "{error}");
}

#[test]
fn a_report_says_what_the_document_holds() {
    let all = expected();
    let report = inspect_bytes("golf.pmml", file(&all["golf_none_returnLastPrediction"]), &Limits::default());
    assert_eq!(report.format.expect("a format").name, "pmml");
    assert_eq!(report.feature_names, ["temperature", "humidity", "windy", "outlook"]);
    assert_eq!(report.classes, ["will play", "may play", "no play"]);
    assert_eq!(report.methods, ["predict", "predict_proba"]);
    let line = &report.estimators[0];
    assert_eq!(line.class, "pmml.TreeModel");
    assert!(line.detail.contains("classification of \"play\", 1 trees, 7 nodes"), "{}", line.detail);
}

#[test]
fn values_that_are_not_valid_are_named() {
    let all = expected();
    let model = load("golf", file(&all["golf_none_returnLastPrediction"]), Method::Predict);
    let outlook = Tensor::of_texts(&["sunny"], &[1]).expect("fits");
    let column = |value: f64| Tensor::owned(&[value], &[1]).expect("fits");
    let inputs = [column(70.0), column(70.0), column(3.0), outlook];
    let error =
        model.run(&Batch { rows: 1, inputs: &inputs }, &mut Outputs::new()).expect_err("3 is no truth");
    assert!(error.to_string().contains("3 is no valid value of the field \"windy\""), "{error}");
}
