//! What scores become, by the name of the objective.
//!
//! Not here: losses and gradients, which only training needs.

use crate::error::{LoadError, Result};

/// How a score becomes a prediction, and a base score becomes a score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    /// The score is the prediction.
    Identity,
    /// The logistic function.
    Logistic,
    /// Scores, though the base score is a probability.
    LogisticRaw,
    /// 1 above zero, else 0.
    Hinge,
    /// The exponential.
    Exp,
    /// The class of the highest score.
    Argmax,
    /// Probabilities of classes.
    Softmax,
}

impl Link {
    pub(super) fn of(objective: &str) -> Result<Self> {
        let link = match objective {
            "reg:squarederror"
            | "reg:linear"
            | "reg:squaredlogerror"
            | "reg:pseudohubererror"
            | "reg:absoluteerror"
            | "reg:quantileerror"
            | "reg:expectileerror"
            | "rank:pairwise"
            | "rank:ndcg"
            | "rank:map" => Self::Identity,
            "reg:logistic" | "binary:logistic" => Self::Logistic,
            "binary:logitraw" => Self::LogisticRaw,
            "binary:hinge" => Self::Hinge,
            "count:poisson" | "reg:gamma" | "reg:tweedie" | "survival:cox" | "survival:aft" => Self::Exp,
            "multi:softmax" => Self::Argmax,
            "multi:softprob" => Self::Softmax,
            // Objectives on a GPU were other names once.
            _ => match objective.strip_prefix("gpu:") {
                Some(rest) => return Self::of(rest),
                None => {
                    return Err(LoadError::unsupported(format!(
                        "XGBoost's objective {objective:?} (a custom one is code that the file does not hold)"
                    )));
                }
            },
        };
        Ok(link)
    }

    /// The score that a base score means.
    pub(super) fn margin(self, base: f32) -> f32 {
        match self {
            Self::Logistic => -(1.0 / base - 1.0).ln(),
            Self::Exp => base.ln(),
            _ => base,
        }
    }

    /// Turns a row's scores into its prediction; what has one number fewer is in front.
    pub(super) fn apply(self, scores: &mut [f32]) {
        match self {
            Self::Identity | Self::LogisticRaw => {}
            Self::Logistic => scores.iter_mut().for_each(|score| *score = sigmoid(*score)),
            Self::Hinge => scores.iter_mut().for_each(|score| *score = f32::from(u8::from(*score > 0.0))),
            Self::Exp => scores.iter_mut().for_each(|score| *score = score.exp()),
            Self::Argmax => {
                let mut best = 0;
                for (index, score) in scores.iter().enumerate() {
                    if *score > scores[best] {
                        best = index;
                    }
                }
                scores[0] = best as f32;
            }
            Self::Softmax => softmax(scores),
        }
    }

    /// Whether predictions are probabilities of classes.
    pub(super) fn has_probabilities(self) -> bool {
        matches!(self, Self::Logistic | Self::Softmax | Self::Argmax)
    }
}

/// As the library computes it: no overflow, and never a division by zero.
fn sigmoid(score: f32) -> f32 {
    let power = (-score).min(88.7);
    1.0 / (power.exp() + 1.0 + 1e-16)
}

/// As the library computes it: the sum in 64 bits, all else in 32.
pub(super) fn softmax(scores: &mut [f32]) {
    let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0_f64;
    for score in &mut *scores {
        *score = (*score - max).exp();
        sum += f64::from(*score);
    }
    for score in scores {
        *score /= sum as f32;
    }
}
