//! Naive Bayes: joint log likelihoods and their softmax.
//!
//! Not here: `CategoricalNB`.

use super::attrs::{Attrs, Matrix};
use super::labels::Labels;
use super::linear::dot;
use super::{Classify, Evaluated, Read, Role, Rows, argmax, check_finite, softmax};
use crate::error::Result;
use crate::sketch::{Binary, Classes, Drawn, Frame, Sketch};

enum Likelihood {
    /// Means and variances; the constant of each class is in `start`.
    Gaussian { mean: Matrix, variance: Matrix },
    /// Weights of the columns.
    Linear { weights: Matrix, binarize: Option<f64> },
}

struct Bayes {
    likelihood: Likelihood,
    /// What each class begins with.
    start: Vec<f64>,
}

impl Bayes {
    fn joint(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        check_finite(rows, false)?;
        let mut binary = Vec::new();
        for (row, out) in rows.iter().zip(out.chunks_exact_mut(self.start.len())) {
            out.copy_from_slice(&self.start);
            match &self.likelihood {
                Likelihood::Gaussian { mean, variance } => {
                    for (class, slot) in out.iter_mut().enumerate() {
                        let parts = row.iter().zip(mean.row(class)).zip(variance.row(class));
                        let sum: f64 =
                            parts.map(|((x, mean), variance)| (x - mean) * (x - mean) / variance).sum();
                        *slot -= 0.5 * sum;
                    }
                }
                Likelihood::Linear { weights, binarize } => {
                    let row = match binarize {
                        Some(threshold) => {
                            binary.clear();
                            binary.extend(row.iter().map(|x| f64::from(u8::from(x > threshold))));
                            &binary[..]
                        }
                        None => row,
                    };
                    for (class, slot) in out.iter_mut().enumerate() {
                        *slot += dot(row, weights.row(class));
                    }
                }
            }
        }
        Ok(())
    }
}

impl Classify for Bayes {
    fn classes(&self) -> usize {
        self.start.len()
    }

    fn pick(&self, rows: Rows<'_>, picks: &mut [u32]) -> Evaluated {
        let mut scores = vec![0.0; rows.count * self.start.len()];
        self.joint(rows, &mut scores)?;
        for (pick, scores) in picks.iter_mut().zip(scores.chunks_exact(self.start.len())) {
            *pick = argmax(scores);
        }
        Ok(())
    }

    fn has_probabilities(&self) -> bool {
        true
    }

    fn probabilities(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        self.joint(rows, out)?;
        out.chunks_exact_mut(self.start.len()).for_each(softmax);
        Ok(())
    }

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Classes> {
        let mut table = rows.table(sketch)?;
        let start = sketch.row(&self.start);
        let joint = match &self.likelihood {
            Likelihood::Gaussian { mean, variance } => {
                // Squares of differences and not differences of squares, which would lose digits.
                let deep = sketch.shape(table, &[-1, 1, mean.cols as i64]);
                let means = sketch.numbers(&[mean.rows, mean.cols], mean.data.clone());
                let variances = sketch.numbers(&[mean.rows, mean.cols], variance.data.clone());
                let off = sketch.subtract(deep, means);
                let squares = sketch.multiply(off, off);
                let shares = sketch.divide(squares, variances);
                let sums = sketch.sum(shares, 2);
                let sums = sketch.shape(sums, &[-1, mean.rows as i64]);
                let half = sketch.scaled(sums, 0.5);
                sketch.subtract(start, half)
            }
            Likelihood::Linear { weights, binarize } => {
                if let Some(threshold) = binarize {
                    table = sketch.flags(Binary::Greater, table, *threshold);
                }
                let sums = sketch.product_with_rows(table, &weights.data, weights.rows);
                sketch.add(sums, start)
            }
        };
        Ok(Classes { picks: sketch.argmax(joint), shares: Some(sketch.softmax(joint)), decisions: None })
    }
}

fn finish(attrs: &Attrs<'_>, labels: Labels, likelihood: Likelihood, start: Vec<f64>) -> Result<Read> {
    let features = attrs.features()?;
    let (weights, name) = match &likelihood {
        Likelihood::Gaussian { mean, .. } => (mean, "theta_"),
        Likelihood::Linear { weights, .. } => (weights, "feature_log_prob_"),
    };
    if weights.cols != features
        || weights.rows != labels.len()
        || start.len() != labels.len()
        || start.is_empty()
    {
        return Err(attrs.error(format!("{name} is {} x {}", weights.rows, weights.cols)));
    }
    let cost = (weights.data.len() * 2) as u64;
    let detail = format!("{} classes, {features} columns", labels.len());
    Ok(Read::new(Role::Classifier(Box::new(Bayes { likelihood, start }), labels), detail, cost))
}

pub(super) fn gaussian(attrs: &Attrs<'_>) -> Result<Read> {
    let labels = Labels::read(attrs)?;
    let mean = attrs.matrix("theta_")?;
    // Before 1.0 the variances were called `sigma_`.
    let variance = attrs.matrix("var_").or_else(|_| attrs.matrix("sigma_"))?;
    let prior = attrs.column_floats("class_prior_", labels.len())?;
    if (variance.rows, variance.cols) != (mean.rows, mean.cols) || mean.rows != prior.len() {
        return Err(attrs.error("means, variances and priors differ in size"));
    }
    let constant = |(class, prior): (usize, &f64)| {
        let logs: f64 = variance.row(class).iter().map(|v| (2.0 * std::f64::consts::PI * v).ln()).sum();
        prior.ln() - 0.5 * logs
    };
    let start = prior.iter().enumerate().map(constant).collect();
    finish(attrs, labels, Likelihood::Gaussian { mean, variance }, start)
}

pub(super) fn multinomial(attrs: &Attrs<'_>) -> Result<Read> {
    let labels = Labels::read(attrs)?;
    let weights = attrs.matrix("feature_log_prob_")?;
    let start = attrs.column_floats("class_log_prior_", labels.len())?;
    finish(attrs, labels, Likelihood::Linear { weights, binarize: None }, start)
}

pub(super) fn complement(attrs: &Attrs<'_>) -> Result<Read> {
    let labels = Labels::read(attrs)?;
    let weights = attrs.matrix("feature_log_prob_")?;
    let start = match labels.len() {
        1 => attrs.column_floats("class_log_prior_", 1)?,
        count => vec![0.0; count],
    };
    finish(attrs, labels, Likelihood::Linear { weights, binarize: None }, start)
}

pub(super) fn bernoulli(attrs: &Attrs<'_>) -> Result<Read> {
    let labels = Labels::read(attrs)?;
    let mut weights = attrs.matrix("feature_log_prob_")?;
    let mut start = attrs.column_floats("class_log_prior_", labels.len())?;
    if weights.rows != start.len() || weights.cols == 0 {
        return Err(attrs.error("feature_log_prob_ has another size than the classes"));
    }
    for (class, row) in weights.data.chunks_exact_mut(weights.cols).enumerate() {
        for weight in row {
            let absent = (1.0 - weight.exp()).ln();
            *weight -= absent;
            start[class] += absent;
        }
    }
    let binarize = attrs.opt("binarize").and_then(|value| value.float());
    finish(attrs, labels, Likelihood::Linear { weights, binarize }, start)
}
