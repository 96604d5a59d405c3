//! The backend over a native estimator.
//!
//! Not here: the estimators.

use super::{Estimator, Role, Rows};
use crate::backend::{Backend, BackendError, Batch, Signature, TensorSpec};
use crate::tensor::{DType, Outputs, Shape};

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
        let (dtype, row) = output_of(&estimator, method)?;
        let signature = Signature {
            inputs: vec![TensorSpec {
                name: "input-0".into(),
                dtype: DType::F64,
                row: vec![Some(estimator.features)],
            }],
            outputs: vec![TensorSpec { name: "output-0".into(), dtype, row }],
            columns: estimator.feature_names.clone(),
        };
        Ok(Self { estimator, method, signature })
    }

    /// The estimator.
    pub fn estimator(&self) -> &Estimator {
        &self.estimator
    }
}

/// Type of an answer and its dimensions after the rows.
fn output_of(estimator: &Estimator, method: Method) -> Result<(DType, Vec<Option<usize>>), BackendError> {
    let lacks = |name: &str| BackendError::Internal(format!("{} has no {name}", estimator.class));
    // One number a row has no dimension of its own, as numpy's one-dimensional answers.
    let flat = |width: usize| if width == 1 { Vec::new() } else { vec![Some(width)] };
    match (&estimator.role, method) {
        (Role::Classifier(_, labels), Method::Predict) => Ok((labels.dtype(), Vec::new())),
        (Role::Classifier(model, _), Method::Probabilities) if model.has_probabilities() => {
            Ok((DType::F64, vec![Some(model.classes())]))
        }
        (Role::Classifier(model, _), Method::Decisions) if model.decisions_width() > 0 => {
            Ok((DType::F64, flat(model.decisions_width())))
        }
        (Role::Regressor(model), Method::Predict) => Ok((DType::F64, flat(model.targets()))),
        (Role::Assigner(_), Method::Predict) => Ok((DType::I64, Vec::new())),
        (Role::Assigner(model), Method::Decisions) if model.has_decisions() => Ok((DType::F64, Vec::new())),
        (Role::Transformer(model), Method::Predict) => Ok((DType::F64, vec![Some(model.width_out())])),
        (_, Method::Probabilities) => Err(lacks("predict_proba")),
        (_, Method::Decisions) => Err(lacks("decision_function")),
    }
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
        let [input] = batch.inputs else {
            return Err(BackendError::Input(format!("expected one input, got {}", batch.inputs.len())));
        };
        let features = self.estimator.features;
        match input.dims() {
            [rows, width] if *rows == batch.rows && *width == features => {}
            dims => {
                return Err(BackendError::Input(format!(
                    "expected rows of {features} columns, got the shape {dims:?}"
                )));
            }
        }
        let Some(numbers) = input.to_f64s() else {
            return Err(BackendError::Input("the model takes numbers, not texts".into()));
        };
        self.evaluate(Rows::new(&numbers, features, batch.rows), outputs)
    }
}

impl Native {
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
                model.pick(rows, picks)?;
                labels.write(picks, shape(&[count])?, outputs);
                Ok(())
            }
            (Role::Classifier(model, _), Method::Probabilities) => {
                model.probabilities(rows, outputs.numbers(shape(&[count, model.classes()])?))
            }
            (Role::Classifier(model, _), Method::Decisions) => {
                let out = outputs.numbers(columns(count, model.decisions_width())?);
                model.decisions(rows, out)
            }
            (Role::Assigner(model), Method::Decisions) => {
                model.decisions(rows, outputs.numbers(shape(&[count])?))
            }
            (Role::Assigner(model), _) => {
                let mut picks = vec![0.0; count];
                model.predict(rows, &mut picks)?;
                let out = outputs.numbers::<i64>(shape(&[count])?);
                out.iter_mut().zip(picks).for_each(|(slot, pick)| *slot = pick as i64);
                Ok(())
            }
            (Role::Regressor(model), _) => {
                model.predict(rows, outputs.numbers(columns(count, model.targets())?))
            }
            (Role::Transformer(model), _) => {
                model.transform(rows, outputs.numbers(shape(&[count, model.width_out()])?))
            }
        }
    }
}

/// One number a row has no second dimension, as numpy's one-dimensional answers.
fn columns(count: usize, width: usize) -> Result<Shape, BackendError> {
    if width == 1 { shape(&[count]) } else { shape(&[count, width]) }
}
