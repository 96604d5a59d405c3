//! `golden.json`: requests with the answers that a version must give.
//!
//! The document is one case or has several in `cases`; a case is a request of V1 or V2 and its response, as a client
//! would see them, and `tolerance` says how far numbers may be off: by `absolute` plus `relative` times what is
//! expected, both 0 where nothing is said. Texts and truths must be the same. The version answers only if every row
//! does; the error names the first that does not.
//!
//! Not here: running a request (`request`).

use std::borrow::Cow;
use std::path::Path;

use models::{Outputs, Tensor};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::read;
use super::request::{Form, Request};
use crate::served::Served;

const DOCUMENT: &str = "golden.json";
/// Cases of a document, at most.
const CASES_MAX: usize = 10_000;

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Tolerance {
    relative: f64,
    absolute: f64,
}

impl Tolerance {
    fn check(self) -> Result<Self, String> {
        let is_legal = |number: f64| number.is_finite() && number >= 0.0;
        if is_legal(self.relative) && is_legal(self.absolute) {
            return Ok(self);
        }
        let Self { relative, absolute } = self;
        Err(format!("tolerance relative {relative}, absolute {absolute}: expected numbers of at least 0"))
    }

    fn allows(self, got: f64, want: f64) -> bool {
        // Infinities are only equal to themselves; a number that is none stands for any such.
        got == want
            || (got.is_nan() && want.is_nan())
            || (want.is_finite() && (got - want).abs() <= self.absolute + self.relative * want.abs())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    #[serde(default)]
    tolerance: Tolerance,
    cases: Option<Vec<Case>>,
    request: Option<Box<RawValue>>,
    response: Option<Response>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Case {
    request: Box<RawValue>,
    response: Response,
}

/// What of a response is compared; the rest (ids, names, versions) may differ.
#[derive(Deserialize)]
struct Response {
    predictions: Option<Vec<Value>>,
    outputs: Option<Vec<Output>>,
}

#[derive(Deserialize)]
struct Output {
    name: String,
    data: Value,
}

/// Holds a version against its document, if it has one.
pub(super) fn hold(served: &Served, folder: &Path) -> Result<(), String> {
    match read(&folder.join(DOCUMENT))? {
        Some(text) => cases(served, &text).map_err(|why| format!("{DOCUMENT}: {why}")),
        None => Ok(()),
    }
}

impl Document {
    pub(super) fn read(text: &[u8]) -> Result<(Tolerance, Vec<Case>), String> {
        let document: Self = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        let tolerance = document.tolerance.check()?;
        let cases = match (document.cases, document.request, document.response) {
            (Some(cases), None, None) if !cases.is_empty() => cases,
            (None, Some(request), Some(response)) => vec![Case { request, response }],
            _ => return Err("expected \"request\" and \"response\", or \"cases\" of them".to_owned()),
        };
        if cases.len() > CASES_MAX {
            return Err(format!("{} cases, at most {CASES_MAX}", cases.len()));
        }
        Ok((tolerance, cases))
    }
}

fn cases(served: &Served, text: &[u8]) -> Result<(), String> {
    let (tolerance, cases) = Document::read(text)?;
    let mut outputs = Outputs::new();
    for (place, case) in cases.iter().enumerate() {
        let done = one(served, case, tolerance, &mut outputs);
        done.map_err(|why| format!("case {}: {why}", place + 1))?;
    }
    Ok(())
}

fn one(served: &Served, case: &Case, tolerance: Tolerance, outputs: &mut Outputs) -> Result<(), String> {
    let request = Request::of_json(case.request.get())?;
    let rows = request.run(served, outputs).map_err(|refusal| refusal.to_string())?;
    let all: Vec<Column<'_>> = Column::of_all(served, outputs, rows)?;
    match (request.form, &case.response.predictions, &case.response.outputs) {
        (Form::V1, Some(predictions), _) => of_rows(&all, predictions, rows, tolerance),
        (Form::V2(_), _, Some(outputs)) => of_tensors(&all, outputs, tolerance),
        (Form::V1, None, _) => Err("the response to a V1 request has \"predictions\"".to_owned()),
        _ => Err("the response to a V2 request has \"outputs\"".to_owned()),
    }
}

/// V1: for each row a value, or an object of all outputs.
fn of_rows(
    all: &[Column<'_>],
    predictions: &[Value],
    rows: usize,
    tolerance: Tolerance,
) -> Result<(), String> {
    if predictions.len() != rows {
        return Err(format!("{rows} rows were asked and {} predictions are stored", predictions.len()));
    }
    for (row, want) in predictions.iter().enumerate() {
        match (all, want) {
            ([only], want) => only.hold(row, &leaves(want), tolerance)?,
            (all, Value::Object(named)) => {
                for (name, want) in named {
                    find(all, name)?.hold(row, &leaves(want), tolerance)?;
                }
            }
            _ => return Err(format!("row {}: expected an object of {} outputs", row + 1, all.len())),
        }
    }
    Ok(())
}

/// V2: for each named output all rows.
fn of_tensors(all: &[Column<'_>], outputs: &[Output], tolerance: Tolerance) -> Result<(), String> {
    if outputs.is_empty() {
        return Err("no outputs are stored".to_owned());
    }
    for output in outputs {
        let column = find(all, &output.name)?;
        let want = leaves(&output.data);
        if want.len() != column.rows * column.width {
            let (name, got) = (column.name, column.rows * column.width);
            return Err(format!("output {name:?} has {got} elements, {} are stored", want.len()));
        }
        for row in 0..column.rows {
            column.hold(row, &want[row * column.width..(row + 1) * column.width], tolerance)?;
        }
    }
    Ok(())
}

fn find<'c, 't>(all: &'c [Column<'t>], name: &str) -> Result<&'c Column<'t>, String> {
    all.iter().find(|column| column.name == name).ok_or_else(|| {
        let has: Vec<&str> = all.iter().map(|column| column.name).collect();
        format!("no output {name:?}, the model has {has:?}")
    })
}

/// The values in nested lists, from the first to the last.
fn leaves(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(inner) => inner.iter().flat_map(leaves).collect(),
        other => vec![other],
    }
}

/// One output of the model.
struct Column<'t> {
    name: &'t str,
    rows: usize,
    /// Elements of a row.
    width: usize,
    values: Values<'t>,
}

enum Values<'t> {
    Numbers(Cow<'t, [f64]>),
    Texts(Vec<Cow<'t, str>>),
}

impl<'t> Column<'t> {
    fn of_all(served: &'t Served, outputs: &'t Outputs, rows: usize) -> Result<Vec<Self>, String> {
        let specs = &served.backend.signature().outputs;
        let tensors = outputs.tensors();
        if tensors.len() != specs.len() {
            return Err(format!("the model gave {} outputs, it has {}", tensors.len(), specs.len()));
        }
        Ok(specs.iter().zip(tensors).map(|(spec, tensor)| Self::of(&spec.name, tensor, rows)).collect())
    }

    fn of(name: &'t str, tensor: &'t Tensor<'static>, rows: usize) -> Self {
        let count: usize = tensor.dims().iter().product();
        let values = match tensor.to_f64s() {
            Some(numbers) => Values::Numbers(numbers),
            None => Values::Texts(tensor.elements().flatten().map(String::from_utf8_lossy).collect()),
        };
        Self { name, rows, width: count.checked_div(rows).unwrap_or(0), values }
    }

    fn hold(&self, row: usize, want: &[&Value], tolerance: Tolerance) -> Result<(), String> {
        let Self { name, width, .. } = self;
        let row_name = row + 1;
        if want.len() != *width {
            let stored = want.len();
            return Err(format!("row {row_name}, output {name:?}: {width} values, {stored} are stored"));
        }
        for (place, want) in want.iter().enumerate() {
            let index = row * width + place;
            let (is_same, got) = match &self.values {
                Values::Numbers(numbers) => {
                    let got = numbers.get(index).copied().unwrap_or(f64::NAN);
                    (number(want).is_some_and(|want| tolerance.allows(got, want)), got.to_string())
                }
                Values::Texts(texts) => {
                    let got = texts.get(index).map_or("", |text| text);
                    (want.as_str() == Some(got), format!("{got:?}"))
                }
            };
            if !is_same {
                let at = if *width > 1 { format!(", value {}", place + 1) } else { String::new() };
                let Tolerance { relative, absolute } = tolerance;
                return Err(format!(
                    "row {row_name}, output {name:?}{at}: got {got}, {want} is stored (tolerance: relative {relative}, absolute {absolute})"
                ));
            }
        }
        Ok(())
    }
}

/// What JSON says a number is; what is none there is written as null or by its name.
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::Bool(truth) => Some(f64::from(u8::from(*truth))),
        Value::Null => Some(f64::NAN),
        Value::String(name) => match name.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_may_be_off_by_what_is_stated() {
        let allows = |relative, absolute, got, want| Tolerance { relative, absolute }.allows(got, want);
        assert!(allows(0.0, 0.0, 1.0, 1.0));
        assert!(!allows(0.0, 0.0, 1.0, 1.0 + f64::EPSILON));
        assert!(allows(1e-6, 0.0, 1000.0005, 1000.0));
        assert!(!allows(1e-6, 0.0, 0.0005, 0.0));
        assert!(allows(0.0, 1e-3, 0.0005, 0.0));
        assert!(allows(0.0, 0.0, f64::NAN, f64::NAN));
        assert!(allows(0.0, 0.0, f64::INFINITY, f64::INFINITY));
        assert!(!allows(1.0, 1.0, f64::INFINITY, 1.0) && !allows(1.0, 1.0, 1.0, f64::INFINITY));
        assert!(!allows(1.0, 1.0, f64::NAN, 1.0));
        assert!(Tolerance { relative: -1.0, absolute: 0.0 }.check().is_err());
    }
}
