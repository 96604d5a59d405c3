//! Exact Shapley values of linear models: a column's weight times its distance from the background's mean.
//!
//! Columns count as independent (the package's *interventional* form).

use super::{Background, Explain, Explanation, check};
use crate::backend::BackendError;

/// `weights` is `outputs × features`.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    features: usize,
    weights: Vec<f64>,
    start: Vec<f64>,
}

impl Linear {
    /// A model that says `start + weights · row`.
    pub(crate) fn new(features: usize, weights: Vec<f64>, start: Vec<f64>) -> Result<Self, String> {
        if weights.len() != features * start.len() {
            return Err(format!(
                "{} weights for {} outputs of {features} columns",
                weights.len(),
                start.len()
            ));
        }
        Ok(Self { features, weights, start })
    }
}

impl Explain for Linear {
    fn features(&self) -> usize {
        self.features
    }

    fn method(&self) -> &'static str {
        "linear"
    }

    fn explain(
        &self,
        rows: &[f64],
        count: usize,
        background: Option<&Background>,
    ) -> Result<Explanation, BackendError> {
        check(rows, count, self.features, background)?;
        let Some(background) = background else {
            let what = "a linear model keeps no trace of its data: give background rows";
            return Err(BackendError::Input(what.into()));
        };
        let (means, outputs) = (background.means(), self.start.len());
        let mut values = vec![0.0; count * self.features * outputs];
        for (index, slot) in values.iter_mut().enumerate() {
            let (cell, output) = (index / outputs, index % outputs);
            let feature = cell % self.features;
            *slot = self.weights[output * self.features + feature] * (rows[cell] - means[feature]);
        }
        let dot =
            |weights: &[f64]| weights.iter().zip(&means).map(|(weight, mean)| weight * mean).sum::<f64>();
        let base = (0..outputs)
            .map(|output| {
                let weights = &self.weights[output * self.features..(output + 1) * self.features];
                self.start[output] + dot(weights)
            })
            .collect();
        Ok(Explanation { outputs, base, values })
    }
}
