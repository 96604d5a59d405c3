//! The 8-bit files that `quantize` writes are those that ONNX Runtime was asked about.
//!
//! Their answers are compared with the other fixtures' (`fixtures`). After a change of what is written,
//! `SLIPWAY_UPDATE=1 cargo test -p onnx --test quantized` writes the files, and `python make_quantized.py` in this folder
//! asks ONNX Runtime.
//!
//! Not here: how near to the floats they stay (`src/quantize/tests.rs`).

use std::path::PathBuf;

use bytes::Bytes;
use models::table::Table;
use onnx::{Mode, quantize};
use serde_json::Value;

fn path(name: &str) -> PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn read(name: &str) -> Bytes {
    std::fs::read(path(name)).unwrap_or_else(|error| panic!("{name}: {error}")).into()
}

/// The rows that the float model was asked about.
fn rows(name: &str) -> Table {
    let recorded: Value = serde_json::from_slice(&read(name)).expect("JSON");
    let side = &recorded["inputs"]["X"];
    let cells: Vec<f64> = side["cells"]
        .as_array()
        .expect("cells")
        .iter()
        .map(|cell| cell.as_f64().expect("a number"))
        .collect();
    let dims: Vec<usize> = side["dims"]
        .as_array()
        .expect("dims")
        .iter()
        .map(|size| size.as_u64().expect("a size") as usize)
        .collect();
    Table::of_rows(&cells, dims[1..].iter().product())
}

#[test]
fn what_is_written_is_what_onnx_runtime_was_asked_about() {
    for name in ["images", "signals"] {
        let plain = read(&format!("net_{name}.onnx"));
        let data = rows(&format!("net_{name}.json"));
        for (mode, word) in [(Mode::Weights, "weights"), (Mode::Dynamic, "dynamic"), (Mode::Static, "static")]
        {
            let made = quantize(&plain, mode, Some(&data)).expect("it can be");
            assert!(made.kept.is_empty(), "{name} {word}: {:?}", made.kept);
            let file = format!("net_{name}_{word}.onnx");
            if std::env::var_os("SLIPWAY_UPDATE").is_some() {
                std::fs::write(path(&file), &made.bytes).expect("written");
            }
            // Learned ranges differ in their last bits between kinds of CPU.
            let differing = made.bytes.iter().zip(&read(&file)).filter(|(one, other)| one != other).count();
            let allowed = if mode == Mode::Static { 40 } else { 0 };
            assert_eq!(made.bytes.len(), read(&file).len(), "{file}");
            assert!(differing <= allowed, "{file}: {differing} bytes differ");
        }
    }
}
