//! Multi-layer perceptrons.
//!
//! A batch passes through a layer as a whole, so that the weights come from memory once for all its rows; a row's
//! answer is the same to the bit in any batch (`product`).
//!
//! Not here: any network that scikit-learn does not train.

use super::attrs::Attrs;
use super::labels::Labels;
use super::{Classify, Evaluated, Read, Regress, Role, Rows, argmax, check_finite, expit, softmax};
use crate::error::Result;
use crate::product::Panels;
use crate::sketch::{Classes, Drawn, Frame, Sketch, Unary, Wire};

#[derive(Clone, Copy, PartialEq)]
enum Activation {
    Identity,
    Logistic,
    Tanh,
    Relu,
    Softmax,
}

impl Activation {
    fn apply(self, values: &mut [f64]) {
        match self {
            Self::Identity => {}
            Self::Logistic => values.iter_mut().for_each(|value| *value = expit(*value)),
            Self::Tanh => values.iter_mut().for_each(|value| *value = value.tanh()),
            Self::Relu => values.iter_mut().for_each(|value| *value = value.max(0.0)),
            Self::Softmax => softmax(values),
        }
    }

    fn draw(self, sketch: &mut Sketch, value: Wire) -> Wire {
        match self {
            Self::Identity => value,
            Self::Logistic => sketch.unary(Unary::Sigmoid, value),
            Self::Tanh => sketch.unary(Unary::Tanh, value),
            Self::Relu => sketch.at_least(value, 0.0),
            Self::Softmax => sketch.softmax(value),
        }
    }
}

/// Rows that pass through all layers before the next, so that memory does not grow with the batch.
const BLOCK: usize = 256;

struct Network {
    /// Weights (inputs × outputs) and biases of each layer.
    layers: Vec<(Panels, Vec<f64>)>,
    hidden: Activation,
    last: Activation,
}

impl Network {
    fn outputs(&self) -> usize {
        self.layers.last().map_or(0, |(_, bias)| bias.len())
    }

    fn run(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        check_finite(rows, false)?;
        let outputs = self.outputs().max(1);
        let (mut now, mut next) = (Vec::new(), Vec::new());
        for (rows, out) in rows.data.chunks(BLOCK * rows.width.max(1)).zip(out.chunks_mut(BLOCK * outputs)) {
            let count = out.len() / outputs;
            now.clear();
            now.extend_from_slice(rows);
            for (index, (weights, bias)) in self.layers.iter().enumerate() {
                next.clear();
                next.resize(count * bias.len(), 0.0);
                weights.times(&now, count, &mut next);
                let is_last = index + 1 == self.layers.len();
                let activation = if is_last { self.last } else { self.hidden };
                for row in next.chunks_exact_mut(bias.len()) {
                    row.iter_mut().zip(bias).for_each(|(slot, bias)| *slot += bias);
                    activation.apply(row);
                }
                std::mem::swap(&mut now, &mut next);
            }
            out.copy_from_slice(&now);
        }
        Ok(())
    }

    fn draw_outputs(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Wire> {
        let mut now = rows.table(sketch)?;
        for (index, (weights, bias)) in self.layers.iter().enumerate() {
            let dims = [weights.rows(), weights.cols()];
            let weights = sketch.numbers(&dims, weights.to_rows());
            let (sums, bias) = (sketch.product(now, weights), sketch.row(bias));
            let sums = sketch.add(sums, bias);
            let is_last = index + 1 == self.layers.len();
            now = if is_last { self.last } else { self.hidden }.draw(sketch, sums);
        }
        Ok(now)
    }
}

impl Regress for Network {
    fn targets(&self) -> usize {
        self.outputs()
    }

    fn predict(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        self.run(rows, out)
    }

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Wire> {
        self.draw_outputs(sketch, rows)
    }
}

impl Classify for Network {
    fn classes(&self) -> usize {
        self.outputs().max(2)
    }

    fn pick(&self, rows: Rows<'_>, picks: &mut [u32]) -> Evaluated {
        let width = self.outputs();
        let mut scores = vec![0.0; rows.count * width];
        self.run(rows, &mut scores)?;
        for (pick, scores) in picks.iter_mut().zip(scores.chunks_exact(width)) {
            *pick = if width == 1 { u32::from(scores[0] > 0.5) } else { argmax(scores) };
        }
        Ok(())
    }

    fn has_probabilities(&self) -> bool {
        true
    }

    fn probabilities(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        if self.outputs() > 1 {
            return self.run(rows, out);
        }
        let mut scores = vec![0.0; rows.count];
        self.run(rows, &mut scores)?;
        for (pair, score) in out.chunks_exact_mut(2).zip(scores) {
            (pair[0], pair[1]) = (1.0 - score, score);
        }
        Ok(())
    }

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Classes> {
        let scores = self.draw_outputs(sketch, rows)?;
        let (picks, shares) = match self.outputs() {
            1 => (sketch.second_above(scores, 0.5), sketch.pair(scores)),
            _ => (sketch.argmax(scores), scores),
        };
        Ok(Classes { picks, shares: Some(shares), decisions: None })
    }
}

fn activation(attrs: &Attrs<'_>, name: &str) -> Result<Activation> {
    match attrs.text(name)? {
        "identity" => Ok(Activation::Identity),
        "logistic" => Ok(Activation::Logistic),
        "tanh" => Ok(Activation::Tanh),
        "relu" => Ok(Activation::Relu),
        "softmax" => Ok(Activation::Softmax),
        other => Err(attrs.unsupported(&format!("{name}={other:?}"))),
    }
}

fn network(attrs: &Attrs<'_>) -> Result<(Network, String, u64)> {
    let wrong = || attrs.error("coefs_ and intercepts_ do not fit together");
    let coefs = attrs.estimators("coefs_")?;
    let biases = attrs.estimators("intercepts_")?;
    if coefs.len() != biases.len() || coefs.is_empty() {
        return Err(wrong());
    }
    let mut layers = Vec::new();
    let mut width = attrs.features()?;
    for (coef, bias) in coefs.into_iter().zip(biases) {
        let array = coef.array().ok_or_else(wrong)?;
        let (Some(data), Some(bias), [rows, cols]) = (array.to_f64s(), bias.floats(), array.shape.as_slice())
        else {
            return Err(wrong());
        };
        if *rows == 0 || *rows != width || *cols != bias.len() || bias.is_empty() || data.len() != rows * cols
        {
            return Err(wrong());
        }
        width = *cols;
        layers.push((Panels::new(*rows, *cols, &data), bias));
    }
    let sizes: Vec<String> = layers.iter().map(|(weights, _)| weights.cols().to_string()).collect();
    let cost: usize = layers.iter().map(|(weights, _)| weights.len()).sum();
    let model = Network {
        layers,
        hidden: activation(attrs, "activation")?,
        last: activation(attrs, "out_activation_")?,
    };
    Ok((model, format!("layers of {}", sizes.join(", ")), cost as u64))
}

pub(super) fn classifier(attrs: &Attrs<'_>) -> Result<Read> {
    let labels = Labels::read(attrs)?;
    let (model, detail, cost) = network(attrs)?;
    let is_multilabel = model.last == Activation::Logistic && model.outputs() > 1;
    if is_multilabel || labels.len() != model.classes() {
        return Err(attrs.unsupported("several labels at once"));
    }
    Ok(Read::new(Role::Classifier(Box::new(model), labels), detail, cost))
}

pub(super) fn regressor(attrs: &Attrs<'_>) -> Result<Read> {
    let (model, detail, cost) = network(attrs)?;
    Ok(Read::new(Role::Regressor(Box::new(model)), detail, cost))
}
