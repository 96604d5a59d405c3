//! A model's answers about a table of data, in a form that two models of different formats share.
//!
//! Classes are texts, so that an integer of one library meets the integer of another; scores are one table of numbers.
//! A classifier is asked for its classes and for its probabilities (where it has none, for its decisions).
//!
//! Not here: comparing (`agree`).

use std::path::Path;

use models::table::Table;
use models::{Backend, Batch, DType, Limits, Method, Native, Outputs, Tensor};

use crate::load::read_chosen;

/// Rows that are asked together.
const BATCH: usize = 1024;

/// Numbers of all rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Numbers {
    /// What they are: the name of the method or of the output.
    pub name: String,
    /// Numbers of one row.
    pub width: usize,
    /// Row by row.
    pub cells: Vec<f64>,
}

/// What a model answered.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Answers {
    /// The class of each row (several, for several questions), where the model tells classes apart.
    pub classes: Option<Vec<String>>,
    /// Probabilities, decisions, or predictions.
    pub numbers: Option<Numbers>,
}

/// Reads the model of a file or folder for one method. ONNX models have no methods: they answer all they have.
pub fn open(path: &Path, method: Method, limits: &Limits) -> Result<Box<dyn Backend>, String> {
    let (chosen, bytes) = read_chosen(path, limits).map_err(|error| error.to_string())?;
    if onnx::is_onnx(&bytes) {
        return Ok(Box::new(onnx::Onnx::load(&bytes).map_err(|error| error.to_string())?));
    }
    let loaded = models::load_bytes(&chosen.path, bytes, limits).map_err(|error| error.to_string())?;
    Ok(Box::new(Native::new(loaded.estimator, method).map_err(|error| error.to_string())?))
}

/// Asks the model of a file or folder about every row.
pub fn answers(path: &Path, table: &Table, limits: &Limits) -> Result<Answers, String> {
    let (_, bytes) = read_chosen(path, limits).map_err(|error| error.to_string())?;
    let model = open(path, Method::Predict, limits)?;
    let mut made = Answers::default();
    ask(&*model, table, "predict", &mut made)?;
    let is_classifier = made.classes.is_some() && !onnx::is_onnx(&bytes);
    if !is_classifier {
        return Ok(made);
    }
    for (method, name) in [(Method::Probabilities, "predict_proba"), (Method::Decisions, "decision_function")]
    {
        if let Ok(model) = open(path, method, limits) {
            let mut scores = Answers::default();
            ask(&*model, table, name, &mut scores)?;
            made.numbers = scores.numbers;
            break;
        }
    }
    Ok(made)
}

/// Asks a loaded model about every row; what it gives more than once is kept once.
pub(crate) fn ask(
    model: &dyn Backend,
    table: &Table,
    method: &str,
    answers: &mut Answers,
) -> Result<(), String> {
    let mut outputs = Outputs::new();
    for first in (0..table.rows()).step_by(BATCH) {
        let part = table.slice(first..first + BATCH);
        let inputs = part.inputs(model.signature()).map_err(|error| error.to_string())?;
        outputs.clear();
        let batch = Batch { rows: part.rows(), inputs: &inputs };
        let run = model.run(&batch, &mut outputs);
        run.map_err(|error| format!("rows {first} to {}: {error}", first + part.rows() - 1))?;
        let specs = &model.signature().outputs;
        let (mut has_classes, mut has_numbers) = (false, false);
        for (spec, tensor) in specs.iter().zip(outputs.tensors()) {
            let is_class = !matches!(tensor.dtype(), DType::F64 | DType::F32);
            if is_class && !has_classes {
                has_classes = true;
                answers.classes.get_or_insert_default().extend(texts(tensor));
            } else if !is_class && !has_numbers {
                has_numbers = true;
                let width = tensor.dims()[1..].iter().product();
                let name = if specs.len() > 1 { spec.name.clone() } else { method.to_owned() };
                let empty = || Numbers { name, width, cells: Vec::new() };
                let numbers = answers.numbers.get_or_insert_with(empty);
                numbers.cells.extend(tensor.to_f64s().unwrap_or_default().iter());
            }
        }
    }
    Ok(())
}

fn texts(tensor: &Tensor<'_>) -> Vec<String> {
    match tensor.to_f64s() {
        Some(numbers) => numbers.iter().map(f64::to_string).collect(),
        None => tensor.texts().map(|text| text.unwrap_or_default().to_owned()).collect(),
    }
}
