//! Linear models: a weighted sum of the columns, and what each family makes of it.
//!
//! Not here: support vector machines with kernels.

use super::attrs::{Attrs, Matrix};
use super::labels::Labels;
use super::{Classify, Evaluated, Read, Regress, Role, Rows, argmax, check_finite, expit, softmax};
use crate::error::Result;
use crate::explain::Explain;
use crate::explain::linear::Linear;
use crate::sketch::{Classes, Drawn, Frame, Sketch, Unary, Wire};

/// `X @ coef.T + intercept`.
struct Affine {
    coef: Matrix,
    intercept: Vec<f64>,
}

impl Affine {
    fn read(attrs: &Attrs<'_>) -> Result<Self> {
        let coef = attrs.matrix("coef_")?;
        let features = attrs.features()?;
        if coef.cols != features {
            return Err(attrs.error(format!("coef_ has {} columns, expected {features}", coef.cols)));
        }
        let mut intercept = match attrs.opt("intercept_") {
            Some(_) => attrs.floats("intercept_")?,
            None => vec![0.0],
        };
        if intercept.len() == 1 {
            intercept = vec![intercept[0]; coef.rows];
        }
        if intercept.len() != coef.rows {
            return Err(attrs.error(format!(
                "{} intercepts for {} rows of coef_",
                intercept.len(),
                coef.rows
            )));
        }
        Ok(Self { coef, intercept })
    }

    fn scores(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        check_finite(rows, false)?;
        if self.coef.rows == 0 {
            return Ok(());
        }
        for (row, out) in rows.iter().zip(out.chunks_exact_mut(self.coef.rows)) {
            for (index, slot) in out.iter_mut().enumerate() {
                *slot = dot(row, self.coef.row(index)) + self.intercept[index];
            }
        }
        Ok(())
    }

    fn draw_scores(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Wire> {
        let table = rows.table(sketch)?;
        let sums = sketch.product_with_rows(table, &self.coef.data, self.coef.rows);
        let intercept = sketch.row(&self.intercept);
        Ok(sketch.add(sums, intercept))
    }

    fn detail(&self) -> String {
        format!("{} x {} coefficients", self.coef.rows, self.coef.cols)
    }

    fn cost_ns(&self) -> u64 {
        self.coef.data.len() as u64
    }
}

/// Four sums side by side: short dependency chains, and the same order for every batch.
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; 4];
    let (a4, b4) = (a.chunks_exact(4), b.chunks_exact(4));
    let rest: f64 = a4.remainder().iter().zip(b4.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in a4.zip(b4) {
        for lane in 0..4 {
            sums[lane] += x[lane] * y[lane];
        }
    }
    (sums[0] + sums[1]) + (sums[2] + sums[3]) + rest
}

impl Regress for Affine {
    fn targets(&self) -> usize {
        self.coef.rows
    }

    fn predict(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        self.scores(rows, out)
    }

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Wire> {
        self.draw_scores(sketch, rows)
    }
}

/// The exponential of the sum: regressions with a log link.
struct LogLink(Affine);

impl Regress for LogLink {
    fn targets(&self) -> usize {
        self.0.targets()
    }

    fn predict(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        self.0.scores(rows, out)?;
        out.iter_mut().for_each(|value| *value = value.exp());
        Ok(())
    }

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Wire> {
        let sums = self.0.draw_scores(sketch, rows)?;
        Ok(sketch.unary(Unary::Exp, sums))
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Link {
    /// No probabilities.
    None,
    /// One logistic function for each class, divided by their sum.
    OneVsRest,
    /// Softmax over the classes (of two: over the score and its negative).
    Multinomial,
    /// `modified_huber`: the score clipped to -1..1, moved to 0..1.
    Clipped,
    /// Softmax of the scores, logistic function of one score.
    Discriminant,
}

struct LinearClassifier {
    affine: Affine,
    classes: usize,
    link: Link,
}

impl LinearClassifier {
    fn link_row(&self, scores: &[f64], out: &mut [f64]) {
        if let ([score], [first, second]) = (scores, &mut *out) {
            match self.link {
                Link::Multinomial => {
                    (*first, *second) = (-score, *score);
                    softmax(out);
                }
                Link::Clipped => {
                    *second = (score.clamp(-1.0, 1.0) + 1.0) / 2.0;
                    *first = 1.0 - *second;
                }
                Link::None | Link::OneVsRest | Link::Discriminant => {
                    *second = expit(*score);
                    *first = 1.0 - *second;
                }
            }
            return;
        }
        out.copy_from_slice(scores);
        match self.link {
            Link::Multinomial | Link::Discriminant => softmax(out),
            Link::Clipped => {
                out.iter_mut().for_each(|score| *score = (score.clamp(-1.0, 1.0) + 1.0) / 2.0);
                divide_by_sum(out);
            }
            Link::None | Link::OneVsRest => {
                out.iter_mut().for_each(|score| *score = expit(*score));
                divide_by_sum(out);
            }
        }
    }

    fn draw_shares(&self, sketch: &mut Sketch, scores: Wire) -> Wire {
        let clipped = |sketch: &mut Sketch| {
            let low = sketch.at_least(scores, -1.0);
            let both = sketch.at_most(low, 1.0);
            let moved = sketch.plus(both, 1.0);
            sketch.scaled(moved, 0.5)
        };
        let is_one = self.affine.coef.rows == 1;
        match (self.link, is_one) {
            (Link::Multinomial, true) => {
                let negative = sketch.unary(Unary::Negative, scores);
                let both = sketch.join(&[negative, scores]);
                sketch.softmax(both)
            }
            (Link::Clipped, true) => {
                let share = clipped(sketch);
                sketch.pair(share)
            }
            (Link::None | Link::OneVsRest | Link::Discriminant, true) => {
                let share = sketch.unary(Unary::Sigmoid, scores);
                sketch.pair(share)
            }
            (Link::Multinomial | Link::Discriminant, false) => sketch.softmax(scores),
            (Link::Clipped, false) => {
                let shares = clipped(sketch);
                sketch.shares(shares, self.classes)
            }
            (Link::None | Link::OneVsRest, false) => {
                let shares = sketch.unary(Unary::Sigmoid, scores);
                sketch.shares(shares, self.classes)
            }
        }
    }
}

/// All equal where every share is zero, as the library does.
fn divide_by_sum(shares: &mut [f64]) {
    let sum: f64 = shares.iter().sum();
    let count = shares.len() as f64;
    for share in shares {
        *share = if sum == 0.0 { 1.0 / count } else { *share / sum };
    }
}

impl Classify for LinearClassifier {
    fn classes(&self) -> usize {
        self.classes
    }

    fn pick(&self, rows: Rows<'_>, picks: &mut [u32]) -> Evaluated {
        let width = self.affine.coef.rows;
        let mut scores = vec![0.0; rows.count * width];
        self.affine.scores(rows, &mut scores)?;
        for (pick, scores) in picks.iter_mut().zip(scores.chunks_exact(width)) {
            *pick = if width == 1 { u32::from(scores[0] > 0.0) } else { argmax(scores) };
        }
        Ok(())
    }

    fn has_probabilities(&self) -> bool {
        self.link != Link::None
    }

    fn probabilities(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        let width = self.affine.coef.rows;
        let mut scores = vec![0.0; rows.count * width];
        self.affine.scores(rows, &mut scores)?;
        for (scores, out) in scores.chunks_exact(width).zip(out.chunks_exact_mut(self.classes)) {
            self.link_row(scores, out);
        }
        Ok(())
    }

    fn decisions_width(&self) -> usize {
        self.affine.coef.rows
    }

    fn decisions(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        self.affine.scores(rows, out)
    }

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Classes> {
        let scores = self.affine.draw_scores(sketch, rows)?;
        let width = self.affine.coef.rows;
        let picks = if width == 1 { sketch.second_above(scores, 0.0) } else { sketch.argmax(scores) };
        let shares = (self.link != Link::None).then(|| self.draw_shares(sketch, scores));
        Ok(Classes { picks, shares, decisions: Some((scores, width)) })
    }
}

fn classifier_with(attrs: &Attrs<'_>, link: Link) -> Result<Read> {
    let labels = Labels::read(attrs)?;
    let affine = Affine::read(attrs)?;
    let classes = labels.len();
    let expected = if classes == 2 { 1 } else { classes };
    if affine.coef.rows != expected || classes < 2 {
        return Err(attrs.error(format!("coef_ has {} rows for {classes} classes", affine.coef.rows)));
    }
    let (detail, cost) = (affine.detail(), affine.cost_ns());
    Ok(Read::new(
        Role::Classifier(Box::new(LinearClassifier { affine, classes, link }), labels),
        detail,
        cost,
    ))
}

pub(super) fn regressor(attrs: &Attrs<'_>) -> Result<Read> {
    let affine = Affine::read(attrs)?;
    let (detail, cost) = (affine.detail(), affine.cost_ns());
    Ok(Read::new(Role::Regressor(Box::new(affine)), detail, cost))
}

pub(super) fn log_regressor(attrs: &Attrs<'_>) -> Result<Read> {
    let affine = Affine::read(attrs)?;
    let (detail, cost) = (affine.detail(), affine.cost_ns());
    Ok(Read::new(Role::Regressor(Box::new(LogLink(affine))), detail, cost))
}

/// `multi_class` was deprecated in 1.5 and is gone since; what it meant by default is kept.
pub(super) fn logistic(attrs: &Attrs<'_>) -> Result<Read> {
    let labels = Labels::read(attrs)?;
    let solver = attrs.opt("solver").and_then(|solver| solver.text()).unwrap_or("lbfgs");
    let asked = attrs.opt("multi_class").and_then(|value| value.text()).unwrap_or("auto");
    let link = match asked {
        "ovr" | "warn" => Link::OneVsRest,
        "multinomial" => Link::Multinomial,
        "auto" | "deprecated" if labels.len() <= 2 || solver == "liblinear" => Link::OneVsRest,
        "auto" | "deprecated" => Link::Multinomial,
        other => return Err(attrs.unsupported(&format!("multi_class={other:?}"))),
    };
    classifier_with(attrs, link)
}

pub(super) fn sgd_classifier(attrs: &Attrs<'_>) -> Result<Read> {
    let link = match attrs.text("loss")? {
        "log_loss" | "log" => Link::OneVsRest,
        "modified_huber" => Link::Clipped,
        _ => Link::None,
    };
    classifier_with(attrs, link)
}

pub(super) fn margin_classifier(attrs: &Attrs<'_>) -> Result<Read> {
    classifier_with(attrs, Link::None)
}

pub(super) fn discriminant(attrs: &Attrs<'_>) -> Result<Read> {
    classifier_with(attrs, Link::Discriminant)
}

/// The weights of a linear model, for explanations of its scores; an error names what is not linear.
pub(super) fn explainer(attrs: &Attrs<'_>) -> Result<Box<dyn Explain>> {
    // Support vector machines keep their linear weights under the same name, but only some of them.
    if !attrs.class.starts_with("sklearn.linear_model.") || attrs.opt("coef_").is_none() {
        return Err(attrs.unsupported("exact explanations"));
    }
    let affine = Affine::read(attrs)?;
    let linear = Linear::new(affine.coef.cols, affine.coef.data, affine.intercept);
    Ok(Box::new(linear.map_err(|what| attrs.error(what))?))
}
