//! `slipway model bench`, `validate` and `diff` as programs: exit codes and what scripts read.
//!
//! Not here: the load generator (`crates/loadgen`), comparing (`crates/infer`), formats (`crates/models`).

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

fn slipway(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_slipway")).args(arguments).output().expect("it starts")
}

fn document(arguments: &[&str]) -> Value {
    let output = slipway(arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

const IRIS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../bench/serving/iris.joblib");

fn fixture(name: &str) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../crates/models/tests/fixtures/1.9.1");
    format!("{folder}/{name}.model")
}

/// A file of rows that goes with the folder.
fn rows(text: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let path: PathBuf = folder.path().join("rows.csv");
    std::fs::write(&path, text).expect("written");
    (folder, path.to_string_lossy().into_owned())
}

#[test]
fn a_model_is_measured_over_every_protocol() {
    let (_folder, data) = rows("a,b,c,d,species\n5.1,3.5,1.4,0.2,0\n6.7,3.0,5.2,2.3,2\n");
    for protocol in ["v1", "v2", "v2-binary", "grpc", "tfs"] {
        let seen = document(&[
            "model",
            "bench",
            IRIS,
            "--rate=100",
            "--duration=300ms",
            "--warmup=0s",
            "--protocol",
            protocol,
            "--data",
            &data,
            "--drop=species",
            "--output=json",
        ]);
        assert!(seen["answered"].as_u64() > Some(0) && seen["answered"] == seen["due"], "{protocol}: {seen}");
        assert!(seen["latency_us"]["p99"].as_f64() > Some(0.0), "{protocol}: {seen}");
        assert!(seen["server"]["resident_bytes"].as_u64() > Some(0), "{protocol}: {seen}");
    }
}

#[test]
fn what_cannot_be_measured_is_told_apart() {
    for (target, word) in [
        ("https://127.0.0.1:1", "TLS"),
        ("/no/such/model", "neither a URL"),
        ("http://127.0.0.1:1", "cannot reach"),
    ] {
        let output = slipway(&["model", "bench", target, "--rate=10", "--duration=100ms"]);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && errors.contains(word), "{target}: {errors}");
    }
}

#[test]
fn models_agree_with_themselves_and_not_with_others() {
    let (_folder, data) = rows("1,0,2,3,1\n0.5,1,-1,2,0\n-2,0.25,1,0,2\n3,3,3,3,3\n-1,-1,-1,-1,0\n");
    let (forest, linear) = (fixture("forest_regressor"), fixture("linear_regression"));
    let width = |name: &str| {
        let report = document(&["model", "inspect", name, "--output=json"]);
        report["features"].as_u64()
    };
    assert_eq!((width(&forest), width(&linear)), (Some(5), Some(5)), "the rows are for both");
    let same = document(&["model", "validate", &forest, &forest, "--data", &data, "--output=json"]);
    assert_eq!((same["numbers"]["max"].as_f64(), same["numbers"]["count"].as_u64()), (Some(0.0), Some(5)));
    let other = slipway(&["model", "validate", &forest, &linear, "--data", &data]);
    let errors = String::from_utf8_lossy(&other.stderr);
    assert!(!other.status.success() && errors.contains("differ by more than"), "{errors}");
    let allowed = slipway(&["model", "validate", &forest, &linear, "--data", &data, "--tolerance=1e9"]);
    assert!(allowed.status.success());
}

#[test]
fn what_changed_is_named() {
    let (relu, tanh) = (fixture("mlp_relu"), fixture("mlp_tanh"));
    let output = slipway(&["model", "diff", &relu, &tanh]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("~ setting activation: \"relu\" -> \"tanh\""), "{text}");
    assert!(!slipway(&["model", "diff", &relu, &tanh, "--exit-code"]).status.success());
    assert!(slipway(&["model", "diff", &relu, &relu, "--exit-code"]).status.success());
    let pipeline = fixture("column_pipeline");
    let all = slipway(&["model", "diff", &pipeline, &pipeline, "--all"]);
    let text = String::from_utf8_lossy(&all.stdout);
    assert!(text.contains("__") && text.contains("0 of "), "settings of inner steps are listed: {text}");
}

#[test]
fn a_converted_model_agrees_and_a_quantized_one_nearly() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (_data_folder, data) = rows("1,0,2,3\n0.5,1,-1,2\n-2,0.25,1,0\n5.1,3.5,1.4,0.2\n6.7,3.0,5.2,2.3\n");
    let (native, converted, small) = (fixture("mlp_relu"), file("mlp.onnx"), file("mlp8.onnx"));
    let made = slipway(&["model", "convert", &native, "--to", "onnx", "-o", &converted]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let same = slipway(&["model", "validate", &native, &converted, "--data", &data, "--tolerance=1e-12"]);
    assert!(same.status.success(), "{}", String::from_utf8_lossy(&same.stdout));
    let made = slipway(&["model", "quantize", &converted, "-o", &small, "--data", &data]);
    let text = String::from_utf8_lossy(&made.stdout);
    assert!(made.status.success() && text.contains("rewritten") && text.contains("rows/s"), "{text}");
    let near = slipway(&["model", "validate", &native, &small, "--data", &data, "--tolerance=0.1"]);
    assert!(near.status.success(), "{}", String::from_utf8_lossy(&near.stdout));
    // A file that is there stays, and what has no form is named.
    assert!(!slipway(&["model", "convert", &native, "-o", &converted]).status.success());
    let refused = slipway(&["model", "quantize", &native, "-o", &file("x.onnx")]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("no ONNX model"));
}

#[test]
fn a_net_of_images_is_quantized_by_an_array_of_images() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (small, images) = (file("small.onnx"), file("images.npy"));
    let net = concat!(env!("CARGO_MANIFEST_DIR"), "/../../crates/onnx/tests/fixtures/net_images.onnx");
    let header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (20, 3, 8, 9), }\n";
    let cells = (0..20 * 3 * 8 * 9).flat_map(|at| ((at * 37 % 101) as f32 / 50.0 - 1.0).to_le_bytes());
    let start = [&b"\x93NUMPY\x01\x00"[..], &[header.len() as u8, 0], header].concat();
    std::fs::write(&images, start.into_iter().chain(cells).collect::<Vec<u8>>()).expect("written");
    let made = slipway(&["model", "quantize", net, "-o", &small, "--mode", "static", "--data", &images]);
    let text = String::from_utf8_lossy(&made.stdout);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    for part in
        ["rewritten  Conv \"first\" [12, 3, 3, 3]", "Conv \"depthwise\"", "Gemm \"last\" [12, 5]", "rows/s"]
    {
        assert!(text.contains(part), "{part} in {text}");
    }
    let near = slipway(&["model", "validate", net, &small, "--data", &images, "--tolerance=0.2"]);
    assert!(near.status.success(), "{}", String::from_utf8_lossy(&near.stdout));
}
