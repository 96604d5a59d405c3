//! The ranges of a model's inner values on rows of data.
//!
//! A part of the rows runs at a time: all watched values of a part are held at once, so the first row, alone, says how
//! many rows fit.
//!
//! Not here: what ranges become (`making`).

use std::collections::HashMap;

use bytes::Bytes;
use models::table::Table;
use models::{Backend, LoadError};

use crate::engine::Onnx;
use crate::exec::Program;
use crate::exec::value::{Bounds, Value};
use crate::proto::{Elem, Model, Type, ValueInfo, unsupported};

/// Rows that ranges are learned from, at most.
const ROWS_MAX: usize = 1000;
/// Rows that run at a time, at most.
const PART_MAX: usize = 64;
/// The part of a run's cells that rows may be planned to hold.
const SHARE: usize = 4;

/// The least (at most 0) and the greatest (at least 0) that each value was.
pub(super) type Ranges = HashMap<String, (f32, f32)>;

/// Runs the model on the first rows and watches the named values.
pub(super) fn learn(
    bytes: &Bytes,
    model: &Model,
    mut names: Vec<String>,
    data: &Table,
) -> Result<Ranges, LoadError> {
    let failed = |what: String| unsupported(format!("learning ranges from the data: {what}"));
    names.sort();
    let mut watched = model.clone();
    let seen =
        |name: &String| ValueInfo { name: name.clone(), ty: Type::Tensor { elem: Elem::F32, dims: None } };
    watched.graph.outputs = names.iter().map(seen).collect();
    let program = match Program::compile(&watched)? {
        Ok(program) => program,
        Err(title) => return Err(failed(format!("{title} is not evaluated by this build"))),
    };
    let plain = Onnx::load(bytes)?;
    let (bounds, rows) = (Bounds::default(), data.rows().min(ROWS_MAX));
    let mut ranges = Ranges::new();
    let (mut first, mut step) = (0, 1);
    while first < rows {
        let part = data.slice(first..(first + step).min(rows));
        let inputs = part.inputs(plain.signature()).map_err(|error| failed(error.to_string()))?;
        let values = plain.values(part.rows(), &inputs).map_err(failed)?;
        let run = program.run(values, bounds).map_err(failed)?;
        for (name, value) in names.iter().zip(&run.values) {
            widen(ranges.entry(name.clone()).or_insert((0.0, 0.0)), value).map_err(failed)?;
        }
        first += step;
        if !plain.runs_row_by_row() {
            step = (bounds.cells / SHARE / (run.peak / part.rows()).max(1)).clamp(1, PART_MAX);
        }
    }
    Ok(ranges)
}

fn widen(range: &mut (f32, f32), value: &Value) -> Result<(), String> {
    for cell in value.to_f32s()?.iter().filter(|cell| cell.is_finite()) {
        *range = (range.0.min(*cell), range.1.max(*cell));
    }
    Ok(())
}
