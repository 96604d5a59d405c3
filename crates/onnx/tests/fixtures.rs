//! Every fixture answers as ONNX Runtime does: same labels, scores within a few last bits of `float`.
//!
//! Not here: files that are no models (`hostile`).

use bytes::Bytes;
use models::{Backend, Batch, DType, Outputs, Tensor};
use onnx::Onnx;
use serde_json::Value;

fn fixtures() -> Vec<(String, Bytes, Value)> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut all = Vec::new();
    for entry in std::fs::read_dir(&folder).expect("the fixtures are there") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|ending| ending == "onnx") {
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            let bytes = std::fs::read(&path).expect("readable").into();
            let text = std::fs::read(path.with_extension("json")).expect("its answers");
            all.push((name, bytes, serde_json::from_slice(&text).expect("JSON")));
        }
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(all.len() > 30, "the fixtures are there");
    all
}

fn number(value: &Value) -> f64 {
    value.as_f64().or_else(|| value.as_bool().map(|x| f64::from(u8::from(x)))).unwrap_or(f64::NAN)
}

fn dims(side: &Value) -> Vec<usize> {
    side["dims"]
        .as_array()
        .expect("dims")
        .iter()
        .map(|size| size.as_u64().expect("a size") as usize)
        .collect()
}

/// The recorded input as a tensor of numbers in `double`, or of texts.
fn tensor(side: &Value) -> Tensor<'static> {
    let cells = side["cells"].as_array().expect("cells");
    let is_text = side["dtype"] == "object";
    if is_text {
        let texts: Vec<&str> = cells.iter().map(|cell| cell.as_str().expect("a text")).collect();
        return Tensor::of_texts(&texts, &dims(side)).expect("it fits");
    }
    Tensor::owned(&cells.iter().map(number).collect::<Vec<f64>>(), &dims(side)).expect("it fits")
}

fn ask(model: &Onnx, recorded: &Value) -> Outputs {
    let inputs: Vec<Tensor<'_>> =
        model.signature().inputs.iter().map(|spec| tensor(&recorded["inputs"][&spec.name])).collect();
    let mut outputs = Outputs::new();
    let rows = inputs[0].dims()[0];
    model.run(&Batch { rows, inputs: &inputs }, &mut outputs).expect("it answers");
    outputs
}

#[test]
fn answers_are_those_of_onnx_runtime() {
    for (name, bytes, recorded) in fixtures() {
        let model = Onnx::load(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        let outputs = ask(&model, &recorded);
        for (spec, got) in model.signature().outputs.iter().zip(outputs.tensors()) {
            let want = &recorded["outputs"][&spec.name];
            assert_eq!(got.dims(), dims(want), "{name}: shape of {}", spec.name);
            let cells = want["cells"].as_array().expect("cells");
            if got.dtype() == DType::Text {
                let texts: Vec<_> = got.texts().map(|text| text.expect("a text").to_owned()).collect();
                assert_eq!(
                    texts,
                    cells.iter().map(|cell| cell.as_str().expect("a text")).collect::<Vec<_>>(),
                    "{name}"
                );
                continue;
            }
            let is_whole = want["dtype"].as_str().is_some_and(|name| name.contains("int"));
            let tolerance = match name.as_str() {
                // ONNX Runtime rounds sums of integers, we sums of `float`: one near a tie may go the other way.
                name if name.ends_with("_static") => 1e-3,
                // Networks sum in other orders.
                name if name.starts_with("net_") => 1e-5,
                _ => 2e-6,
            };
            let scale = cells.iter().map(|cell| number(cell).abs()).fold(1e-3, f64::max);
            for (at, (x, cell)) in got.to_f64s().expect("numbers").iter().zip(cells).enumerate() {
                let y = number(cell);
                let near = if is_whole {
                    *x == y
                } else {
                    (x - y).abs() <= tolerance * scale || (x.is_nan() && y.is_nan())
                };
                assert!(near, "{name}: {}[{at}] is {x}, ONNX Runtime says {y}", spec.name);
            }
        }
    }
}

#[test]
fn every_fixture_of_one_table_keeps_the_contract() {
    for (name, bytes, recorded) in fixtures() {
        let model = Onnx::load(&bytes).expect("it loads");
        let [spec] = model.signature().inputs.as_slice() else { continue };
        let side = &recorded["inputs"][&spec.name];
        let &[rows, width] = dims(side).as_slice() else { continue };
        if rows < 2 || spec.dtype == DType::Text {
            continue;
        }
        let cells: Vec<f64> = side["cells"].as_array().expect("cells").iter().map(number).collect();
        let rows: Vec<Vec<f64>> = cells.chunks(width).map(<[f64]>::to_vec).collect();
        println!("{name}");
        models::contract::check_backend(&model, &rows);
    }
}

#[test]
fn a_batch_fixed_at_one_row_is_run_row_by_row() {
    let (_, bytes, recorded) =
        fixtures().into_iter().find(|fixture| fixture.0 == "one_row").expect("it is there");
    let model = Onnx::load(&bytes).expect("it loads");
    let row: Vec<f64> =
        recorded["inputs"]["X"]["cells"].as_array().expect("cells").iter().map(number).collect();
    let three = [row.clone(), row.clone(), row].concat();
    let input = Tensor::owned(&three, &[3, 4]).expect("it fits");
    let mut outputs = Outputs::new();
    model.run(&Batch { rows: 3, inputs: &[input] }, &mut outputs).expect("it answers");
    let answers = outputs.tensors()[0].to_f64s().expect("numbers");
    assert_eq!(answers[..3], answers[6..]);
    assert_eq!(outputs.tensors()[0].dims(), [3, 3]);
}

#[test]
fn an_operator_that_the_engine_lacks_is_refused_by_the_name_of_its_node() {
    let (_, bytes, _) =
        fixtures().into_iter().find(|fixture| fixture.0 == "net_conv_pointwise").expect("it is there");
    let mut bytes = bytes.to_vec();
    let at = bytes.windows(4).position(|part| part == b"Conv").expect("it has one");
    bytes[at..at + 4].copy_from_slice(b"Scan");
    let error = Onnx::load(&bytes.into()).expect_err("no such operator here").to_string();
    assert!(error.contains("Scan (for \"Y\")") && error.contains("ONNX Runtime"), "{error}");
}
