//! The backend over a native estimator.
//!
//! A model of numbers takes one table. Where a column is text, it takes one tensor for each column; such a model
//! also takes one table of texts, whose columns of numbers are then read as numbers, as the library reads an array
//! of objects. A text model of one column takes its texts as they are.
//!
//! Not here: the estimators.

use std::borrow::Cow;

use super::flow::Takes;
use super::text::Texts;
use super::{Estimator, Evaluated, Role, Rows};
use crate::backend::{Backend, BackendError, Batch, Signature, TensorSpec};
use crate::tensor::{DType, Outputs, Shape, Tensor};

/// Numbers that a batch may need at once; batches whose steps are wider are cut into parts.
const CELLS_MAX: usize = 4 << 20;

/// Which of the library's methods answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Method {
    /// `predict`; `transform` for what only transforms.
    #[default]
    Predict,
    /// `predict_proba`.
    Probabilities,
    /// `decision_function`.
    Decisions,
}

/// An estimator and the method it is asked for.
#[derive(Debug)]
pub struct Native {
    estimator: Estimator,
    method: Method,
    signature: Signature,
}

impl Native {
    /// Fails if the estimator does not have the method.
    pub fn new(estimator: Estimator, method: Method) -> Result<Self, BackendError> {
        let signature = Signature {
            inputs: inputs_of(&estimator),
            outputs: outputs_of(&estimator, method)?,
            columns: estimator.feature_names.clone(),
        };
        Ok(Self { estimator, method, signature })
    }

    /// The estimator.
    pub fn estimator(&self) -> &Estimator {
        &self.estimator
    }
}

fn inputs_of(estimator: &Estimator) -> Vec<TensorSpec> {
    let Some(flow) = &estimator.flow else {
        return vec![TensorSpec::new("input-0", DType::F64, [Some(estimator.features)])];
    };
    let name = |column: usize| match estimator.feature_names.get(column) {
        Some(name) => name.clone(),
        None => format!("input-{column}"),
    };
    let spec = |(column, takes): (usize, &Takes)| {
        let dtype = if *takes == Takes::Text { DType::Text } else { DType::F64 };
        TensorSpec::new(name(column), dtype, [])
    };
    flow.takes.iter().enumerate().map(spec).collect()
}

/// Types of the answers and their dimensions after the rows.
fn outputs_of(estimator: &Estimator, method: Method) -> Result<Vec<TensorSpec>, BackendError> {
    let lacks = |name: &str| BackendError::Internal(format!("{} has no {name}", estimator.class));
    // One number a row has no dimension of its own, as numpy's one-dimensional answers.
    let flat = |width: usize| if width == 1 { Vec::new() } else { vec![Some(width)] };
    let tables =
        |widths: Vec<usize>| widths.into_iter().map(|width| (DType::F64, vec![Some(width)])).collect();
    let outputs: Vec<(DType, Vec<Option<usize>>)> = match (&estimator.role, method) {
        (Role::Classifier(_, labels), Method::Predict) => vec![(labels.dtype(), Vec::new())],
        (Role::Classifier(model, _), Method::Probabilities) if model.has_probabilities() => {
            tables(vec![model.classes()])
        }
        (Role::Classifier(model, _), Method::Decisions) if model.decisions_width() > 0 => {
            vec![(DType::F64, flat(model.decisions_width()))]
        }
        (Role::Several(_, labels), Method::Predict) => {
            vec![(super::Labels::common(labels), vec![Some(labels.len())])]
        }
        (Role::Several(model, _), Method::Probabilities) if !model.tables().is_empty() => {
            tables(model.tables())
        }
        (Role::Several(model, _), Method::Decisions) if model.decisions_width() > 0 => {
            tables(vec![model.decisions_width()])
        }
        (Role::Regressor(model), Method::Predict) => vec![(DType::F64, flat(model.targets()))],
        (Role::Assigner(_), Method::Predict) => vec![(DType::I64, Vec::new())],
        (Role::Assigner(model), Method::Decisions) if model.has_decisions() => {
            vec![(DType::F64, Vec::new())]
        }
        (Role::Assigner(model), Method::Probabilities) if model.shares() > 0 => tables(vec![model.shares()]),
        (Role::Transformer(model), Method::Predict) => tables(vec![model.width_out()]),
        (Role::Booster(model), _) => match model.output(method) {
            Some((dtype, dims)) => vec![(dtype, dims.into_iter().map(Some).collect())],
            None => return Err(lacks("probabilities of classes")),
        },
        (_, Method::Probabilities) => return Err(lacks("predict_proba")),
        (_, Method::Decisions) => return Err(lacks("decision_function")),
    };
    let named = |(index, (dtype, row)): (usize, (DType, Vec<Option<usize>>))| {
        TensorSpec::new(format!("output-{index}"), dtype, row)
    };
    Ok(outputs.into_iter().enumerate().map(named).collect())
}

fn shape(dims: &[usize]) -> Result<Shape, BackendError> {
    Shape::new(dims).ok_or_else(|| BackendError::Input("the batch is too large".into()))
}

impl Backend for Native {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn row_cost_ns(&self) -> u64 {
        self.estimator.row_cost_ns
    }

    fn run(&self, batch: &Batch<'_>, outputs: &mut Outputs) -> Result<(), BackendError> {
        let features = self.estimator.features;
        if let Some(flow) = &self.estimator.flow {
            let texts = Texts::default();
            let data = cells(batch, &flow.takes, &texts)?;
            let rows = Rows { data: &data, width: features, count: batch.rows, texts: Some(&texts) };
            return self.evaluate(rows, outputs);
        }
        let [input] = batch.inputs else {
            return Err(BackendError::Input(format!("expected one input, got {}", batch.inputs.len())));
        };
        match input.dims() {
            [rows, width] if *rows == batch.rows && *width == features => {}
            dims => return Err(wrong_shape(features, dims)),
        }
        let Some(numbers) = input.to_f64s() else {
            return Err(BackendError::Input("the model takes numbers, not texts".into()));
        };
        self.evaluate(Rows::new(&numbers, features, batch.rows), outputs)
    }
}

fn wrong_shape(features: usize, dims: &[usize]) -> BackendError {
    BackendError::Input(format!("expected rows of {features} columns, got the shape {dims:?}"))
}

/// The table of a model that takes texts.
fn cells(batch: &Batch<'_>, takes: &[Takes], texts: &Texts) -> Evaluated<Vec<f64>> {
    let (rows, width) = (batch.rows, takes.len());
    let mut data = vec![0.0; rows * width];
    match batch.inputs {
        // One table, or the only column.
        [table] if table.dims() == [rows, width] || (width == 1 && table.dims() == [rows]) => {
            let all = column(table, texts)?;
            for (index, (slot, cell)) in data.iter_mut().zip(all.iter()).enumerate() {
                *slot = fit(*cell, takes[index % width], index % width, texts)?;
            }
        }
        columns if columns.len() == width => {
            for (index, tensor) in columns.iter().enumerate() {
                if !(tensor.dims() == [rows] || tensor.dims() == [rows, 1]) {
                    let dims = tensor.dims();
                    let what = format!("expected {rows} values in column {index}, got the shape {dims:?}");
                    return Err(BackendError::Input(what));
                }
                for (row, cell) in column(tensor, texts)?.iter().enumerate() {
                    data[row * width + index] = fit(*cell, takes[index], index, texts)?;
                }
            }
        }
        [table] => return Err(wrong_shape(width, table.dims())),
        columns => {
            let what = format!("expected {width} columns, got {}", columns.len());
            return Err(BackendError::Input(what));
        }
    }
    Ok(data)
}

fn column<'t>(tensor: &'t Tensor<'_>, texts: &Texts) -> Evaluated<Cow<'t, [f64]>> {
    if let Some(numbers) = tensor.to_f64s() {
        return Ok(numbers);
    }
    let cell = |text: Option<&str>| text.map(|text| texts.add(text));
    let cells: Option<Vec<f64>> = tensor.texts().map(cell).collect();
    cells.map(Cow::Owned).ok_or_else(|| BackendError::Input("a text that is not UTF-8".into()))
}

/// The cell as its column takes it.
fn fit(cell: f64, takes: Takes, column: usize, texts: &Texts) -> Evaluated<f64> {
    match (
        texts.read(cell, |text| text.trim().parse::<f64>().map_err(|_| text.chars().take(80).collect())),
        takes,
    ) {
        (Some(Ok(number)), Takes::Number) => Ok(number),
        (Some(Err::<_, String>(text)), Takes::Number) => {
            Err(BackendError::Input(format!("could not convert string to float: '{text}' (column {column})")))
        }
        (Some(_), Takes::Text | Takes::Any) => Ok(cell),
        // Missing, and with no marks of the sender's in it.
        (None, _) if cell.is_nan() => Ok(f64::NAN),
        (None, Takes::Text) => {
            Err(BackendError::Input(format!("column {column} takes texts, got the number {cell}")))
        }
        (None, _) => Ok(cell),
    }
}

impl Native {
    /// Calls `part` for each part of the rows that is small enough, with the indices of its rows.
    fn parts(
        &self,
        rows: Rows<'_>,
        mut part: impl FnMut(Rows<'_>, std::ops::Range<usize>) -> Evaluated,
    ) -> Evaluated {
        let step = (CELLS_MAX / self.estimator.width_max.max(1)).max(1);
        if rows.count <= step {
            return part(rows, 0..rows.count);
        }
        for start in (0..rows.count).step_by(step) {
            let range = start..(start + step).min(rows.count);
            part(rows.range(range.clone()), range)?;
        }
        Ok(())
    }

    /// Numbers, `width` for each row.
    fn numbers(
        &self,
        rows: Rows<'_>,
        width: usize,
        out: &mut [f64],
        run: impl Fn(Rows<'_>, &mut [f64]) -> Evaluated,
    ) -> Evaluated {
        self.parts(rows, |rows, range| run(rows, &mut out[range.start * width..range.end * width]))
    }

    fn evaluate(&self, rows: Rows<'_>, outputs: &mut Outputs) -> Result<(), BackendError> {
        let count = rows.count;
        match (&self.estimator.role, self.method) {
            (Role::Classifier(model, labels), Method::Predict) => {
                let mut few = [0_u32; 32];
                let mut many = Vec::new();
                let picks = if count <= few.len() {
                    &mut few[..count]
                } else {
                    many.resize(count, 0);
                    &mut many[..]
                };
                self.parts(rows, |rows, range| model.pick(rows, &mut picks[range]))?;
                labels.write(picks, shape(&[count])?, outputs);
                Ok(())
            }
            (Role::Classifier(model, _), Method::Probabilities) => {
                let out = outputs.numbers(shape(&[count, model.classes()])?);
                self.numbers(rows, model.classes(), out, |rows, out| model.probabilities(rows, out))
            }
            (Role::Classifier(model, _), Method::Decisions) => {
                let width = model.decisions_width();
                let out = outputs.numbers(columns(count, width)?);
                self.numbers(rows, width, out, |rows, out| model.decisions(rows, out))
            }
            (Role::Booster(model), method) => model.answer(rows, method, outputs),
            (Role::Several(..), _) => self.evaluate_several(rows, outputs),
            (Role::Assigner(model), Method::Decisions) => {
                let out = outputs.numbers(shape(&[count])?);
                self.numbers(rows, 1, out, |rows, out| model.decisions(rows, out))
            }
            (Role::Assigner(model), Method::Probabilities) => {
                let out = outputs.numbers(shape(&[count, model.shares()])?);
                self.numbers(rows, model.shares(), out, |rows, out| model.probabilities(rows, out))
            }
            (Role::Assigner(model), Method::Predict) => {
                let mut picks = vec![0.0; count];
                self.numbers(rows, 1, &mut picks, |rows, out| model.predict(rows, out))?;
                let out = outputs.numbers::<i64>(shape(&[count])?);
                out.iter_mut().zip(picks).for_each(|(slot, pick)| *slot = pick as i64);
                Ok(())
            }
            (Role::Regressor(model), _) => {
                let width = model.targets();
                let out = outputs.numbers(columns(count, width)?);
                self.numbers(rows, width, out, |rows, out| model.predict(rows, out))
            }
            (Role::Transformer(model), _) => {
                let width = model.width_out();
                let out = outputs.numbers(shape(&[count, width])?);
                self.numbers(rows, width, out, |rows, out| model.transform(rows, out))
            }
        }
    }

    fn evaluate_several(&self, rows: Rows<'_>, outputs: &mut Outputs) -> Result<(), BackendError> {
        let Role::Several(model, labels) = &self.estimator.role else { return Ok(()) };
        let count = rows.count;
        match self.method {
            Method::Predict => {
                let width = labels.len();
                let mut picks = vec![0; count * width];
                self.parts(rows, |rows, range| {
                    model.pick(rows, &mut picks[range.start * width..range.end * width])
                })?;
                super::Labels::write_all(labels, &picks, shape(&[count, width])?, outputs);
            }
            Method::Probabilities => {
                let widths = model.tables();
                let all: usize = widths.iter().sum();
                let mut side_by_side = vec![0.0; count * all];
                self.numbers(rows, all, &mut side_by_side, |rows, out| model.probabilities(rows, out))?;
                let mut start = 0;
                for width in widths {
                    let out = outputs.numbers::<f64>(shape(&[count, width])?);
                    for (row, out) in out.chunks_exact_mut(width.max(1)).enumerate() {
                        out.copy_from_slice(&side_by_side[row * all + start..][..width]);
                    }
                    start += width;
                }
            }
            Method::Decisions => {
                let width = model.decisions_width();
                let out = outputs.numbers(shape(&[count, width])?);
                self.numbers(rows, width, out, |rows, out| model.decisions(rows, out))?;
            }
        }
        Ok(())
    }
}

/// One number a row has no second dimension, as numpy's one-dimensional answers.
fn columns(count: usize, width: usize) -> Result<Shape, BackendError> {
    if width == 1 { shape(&[count]) } else { shape(&[count, width]) }
}
