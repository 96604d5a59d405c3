//! Why a model says what it says: Shapley values of a row's columns.
//!
//! For each row and each output, `base + sum(values)` is the model's raw answer for the row; a column's value is its
//! mean contribution over all orders in which columns could become known (Shapley 1953; Lundberg & Lee 2017).
//!
//! * `tree`: exact for tree ensembles, against the training data's way through the trees (*path-dependent*) or
//!   against given background rows (*interventional*).
//! * `linear`: exact for linear models against background means.
//! * `sampled`: KernelSHAP and permutations for anything that predicts.
//!
//! Which output is explained follows the package `shap`: a forest's probabilities, a boosted ensemble's raw scores,
//! a linear model's decision.
//!
//! Not here: reading files (`sklearn`), and the wire (`infer`).

pub(crate) mod linear;
mod quadrature;
pub mod sampled;
pub(crate) mod tree;

use crate::backend::{Backend, BackendError, Batch};
use crate::error::Result as Read;
use crate::limits::Limits;
use crate::source::Folder;
use crate::tensor::{Outputs, Tensor};

/// Shapley values of some rows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Explanation {
    /// Outputs of the model for each row.
    pub outputs: usize,
    /// What the model says when no column is known: one number for each output.
    pub base: Vec<f64>,
    /// `rows × features × outputs` numbers.
    pub values: Vec<f64>,
}

/// Rows that stand for "column not known": a small sample of the data the model was made with.
#[derive(Debug, Clone, PartialEq)]
pub struct Background {
    data: Vec<f64>,
    width: usize,
}

/// Background rows, at most: each one costs as much as a prediction of all rows.
pub const BACKGROUND_ROWS_MAX: usize = 10_000;

impl Background {
    /// Rows of `width` numbers, one after the other; an error says which expectation is not met.
    pub fn new(data: Vec<f64>, width: usize) -> Result<Self, BackendError> {
        let wrong = |what: String| Err(BackendError::Input(format!("background: {what}")));
        if width == 0 || data.is_empty() || !data.len().is_multiple_of(width) {
            return wrong(format!("{} numbers are no rows of {width} columns", data.len()));
        }
        if data.len() / width > BACKGROUND_ROWS_MAX {
            return wrong(format!("{} rows, at most {BACKGROUND_ROWS_MAX}", data.len() / width));
        }
        Ok(Self { data, width })
    }

    /// How many rows.
    pub fn rows(&self) -> usize {
        self.data.len() / self.width
    }

    fn iter(&self) -> impl Iterator<Item = &[f64]> {
        self.data.chunks_exact(self.width)
    }

    fn means(&self) -> Vec<f64> {
        let mut means = vec![0.0; self.width];
        for row in self.iter() {
            means.iter_mut().zip(row).for_each(|(mean, value)| *mean += value);
        }
        let count = self.rows() as f64;
        means.iter_mut().for_each(|mean| *mean /= count);
        means
    }
}

/// A model that can say why.
pub trait Explain: Send + Sync {
    /// Columns of a row.
    fn features(&self) -> usize;

    /// Which method it is: `tree`, `linear`.
    fn method(&self) -> &'static str;

    /// Explains `rows` (`count × features` numbers). Without a background the training data's traces in the model
    /// stand for it; a model that keeps none asks for a background.
    fn explain(
        &self,
        rows: &[f64],
        count: usize,
        background: Option<&Background>,
    ) -> Result<Explanation, BackendError>;
}

/// The exact explainer of a folder's model. A model that has none is an error; `sampled` explains any backend.
pub fn explainer(folder: &dyn Folder, limits: &Limits) -> Read<Box<dyn Explain>> {
    let (_, graph) = crate::inspect::open_chosen(folder, limits)?;
    crate::sklearn::explain::explainer(graph.root())
}

/// A backend with one input of numbers and one output of numbers, as a function for [`sampled::Sampled`].
pub struct Asked<B> {
    backend: B,
    features: usize,
    outputs: usize,
}

impl<B: std::ops::Deref<Target = dyn Backend> + Send + Sync> Asked<B> {
    /// Fails for what is not numbers to numbers of known widths.
    pub fn new(backend: B) -> Result<Self, BackendError> {
        let signature = backend.signature();
        let wrong =
            || BackendError::Input("only models from one table of numbers to numbers are explained".into());
        let ([input], [output]) = (signature.inputs.as_slice(), signature.outputs.as_slice()) else {
            return Err(wrong());
        };
        let [Some(features)] = input.row[..] else { return Err(wrong()) };
        let outputs =
            output.row.iter().try_fold(1, |product, dim| dim.map(|dim| dim * product)).ok_or_else(wrong)?;
        Ok(Self { features, outputs, backend })
    }
}

impl<B: std::ops::Deref<Target = dyn Backend> + Send + Sync> sampled::Predict for Asked<B> {
    fn features(&self) -> usize {
        self.features
    }

    fn outputs(&self) -> usize {
        self.outputs
    }

    fn predict(&self, rows: &[f64], count: usize, out: &mut Vec<f64>) -> Result<(), BackendError> {
        let input = Tensor::borrowed(rows, &[count, self.features]);
        let input = input.ok_or_else(|| BackendError::Internal("rows of another size".into()))?;
        let mut outputs = Outputs::new();
        self.backend.run(&Batch { rows: count, inputs: &[input] }, &mut outputs)?;
        let numbers = outputs.tensors().first().and_then(Tensor::to_f64s);
        let text = || BackendError::Input("only answers that are numbers are explained".into());
        out.extend_from_slice(&numbers.ok_or_else(text)?);
        Ok(())
    }
}

/// Checks what all explainers are given.
fn check(
    rows: &[f64],
    count: usize,
    features: usize,
    background: Option<&Background>,
) -> Result<(), BackendError> {
    if features.checked_mul(count) != Some(rows.len()) {
        return Err(BackendError::Input(format!("expected rows of {features} columns")));
    }
    match background {
        Some(background) if background.width != features => Err(BackendError::Input(format!(
            "background: rows of {} columns, the model takes {features}",
            background.width
        ))),
        _ => Ok(()),
    }
}
