//! What ONNX-ML's classifiers and regressors do with their scores at the end.
//!
//! The operators' text is vague about one score for two classes; these are ONNX Runtime's answers, because
//! models are made and tested with it.
//!
//! Not here: the scores.

use models::LoadError;

use super::attrs::Attrs;

/// `post_transform`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Post {
    None,
    Softmax,
    Logistic,
    SoftmaxZero,
    Probit,
}

impl Post {
    pub(crate) fn read(attrs: Attrs<'_>) -> Result<Self, LoadError> {
        Ok(match attrs.text_or("post_transform", "NONE")? {
            "NONE" => Self::None,
            "SOFTMAX" => Self::Softmax,
            "LOGISTIC" => Self::Logistic,
            "SOFTMAX_ZERO" => Self::SoftmaxZero,
            "PROBIT" => Self::Probit,
            other => return Err(attrs.unsupported(format!("post_transform {other:?}"))),
        })
    }

    /// The same by the numbers of `TreeEnsemble`.
    pub(crate) fn of_number(attrs: Attrs<'_>, number: i64) -> Result<Self, LoadError> {
        let all = [Self::None, Self::Softmax, Self::Logistic, Self::SoftmaxZero, Self::Probit];
        let found = usize::try_from(number).ok().and_then(|at| all.get(at).copied());
        found.ok_or_else(|| attrs.unsupported(format!("post_transform {number}")))
    }

    /// Turns the scores of one row, two or more, in place.
    pub(crate) fn apply(self, scores: &mut [f32]) {
        match self {
            Self::None => {}
            Self::Logistic => scores.iter_mut().for_each(|score| *score = logistic(*score)),
            Self::Probit => scores.iter_mut().for_each(|score| *score = probit(*score)),
            Self::Softmax => softmax(scores),
            Self::SoftmaxZero => softmax_zero(scores),
        }
    }
}

/// What the single score of a two-class model means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Single {
    /// A probability: all weights are positive.
    Share,
    /// A margin.
    Margin,
}

/// The two scores of a row whose model gives one.
pub(crate) fn pair(post: Post, single: Single, score: f32) -> [f32; 2] {
    match (post, single) {
        (Post::Probit, _) => [probit(score), 0.0],
        (_, Single::Share) => [1.0 - score, score],
        (Post::Logistic, Single::Margin) => [logistic(-score), logistic(score)],
        (_, Single::Margin) => [-score, score],
    }
}

pub(crate) fn logistic(x: f32) -> f32 {
    let v = 1.0 / (1.0 + (-x.abs()).exp());
    if x < 0.0 { 1.0 - v } else { v }
}

pub(crate) fn probit(x: f32) -> f32 {
    // The approximation of the inverse error function by Winitzki.
    let y = 2.0 * x - 1.0;
    let sign = if y < 0.0 { -1.0 } else { 1.0 };
    let log = ((1.0 - y) * (1.0 + y)).ln();
    let v = 2.0 / (std::f32::consts::PI * 0.147) + 0.5 * log;
    let inner = (v * v - log / 0.147).sqrt() - v;
    std::f32::consts::SQRT_2 * sign * inner.sqrt()
}

pub(crate) fn softmax(scores: &mut [f32]) {
    let max = scores.iter().copied().fold(f32::MIN, f32::max);
    let mut sum = 0.0;
    for score in &mut *scores {
        *score = (*score - max).exp();
        sum += *score;
    }
    scores.iter_mut().for_each(|score| *score /= sum);
}

fn softmax_zero(scores: &mut [f32]) {
    let max = scores.iter().copied().fold(f32::MIN, f32::max);
    let at_zero = (-max).exp();
    let mut sum = 0.0;
    for score in &mut *scores {
        if score.abs() > 1e-7 {
            *score = (*score - max).exp();
            sum += *score;
        } else {
            *score *= at_zero;
        }
    }
    scores.iter_mut().for_each(|score| *score /= sum);
}

/// The first of the greatest.
pub(crate) fn argmax(scores: &[f32]) -> usize {
    let mut best = 0;
    for (index, score) in scores.iter().enumerate() {
        if *score > scores[best] {
            best = index;
        }
    }
    best
}
