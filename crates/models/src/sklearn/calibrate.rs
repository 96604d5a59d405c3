//! `CalibratedClassifierCV`: a classifier's scores, turned into probabilities by small curves, mean over the folds.
//!
//! Not here: the classifiers.

use super::attrs::Attrs;
use super::labels::Labels;
use super::quantile::interpolate;
use super::{Classify, Evaluated, Read, Role, Rows, argmax, expit, read_at};
use crate::error::Result;
use crate::graph::View;
use crate::sketch::{Binary, Classes, Drawn, Frame, Sketch, Unary, Wire, undrawn};

/// From a score to a probability.
enum Curve {
    /// `a` and `b` of `1 / (1 + e^(a x + b))`.
    Sigmoid(f64, f64),
    /// Places and values of a line.
    Isotonic(Vec<f64>, Vec<f64>),
}

impl Curve {
    fn read(view: View<'_>) -> Result<Self> {
        let attrs = Attrs::new(view)?;
        match attrs.class.rsplit('.').next().unwrap_or_default() {
            "_SigmoidCalibration" => Ok(Self::Sigmoid(attrs.float("a_")?, attrs.float("b_")?)),
            "IsotonicRegression" => {
                let (places, values) = (attrs.floats("X_thresholds_")?, attrs.floats("y_thresholds_")?);
                if places.is_empty() || places.len() != values.len() {
                    return Err(attrs.error("X_thresholds_ and y_thresholds_ do not fit"));
                }
                if attrs.text("out_of_bounds")? != "clip" {
                    return Err(attrs.unsupported("out_of_bounds other than clip"));
                }
                Ok(Self::Isotonic(places, values))
            }
            _ => Err(attrs.unsupported("calibration")),
        }
    }

    fn at(&self, x: f64) -> f64 {
        match self {
            Self::Sigmoid(a, b) => expit(-(a * x + b)),
            Self::Isotonic(places, values) => interpolate(x, places, values),
        }
    }

    fn draw(&self, sketch: &mut Sketch, x: Wire) -> Wire {
        match self {
            Self::Sigmoid(a, b) => {
                let scaled = sketch.scaled(x, -a);
                let moved = sketch.plus(scaled, -b);
                sketch.unary(Unary::Sigmoid, moved)
            }
            Self::Isotonic(places, values) => sketch.interpolate(x, places, values),
        }
    }
}

/// One fold's classifier and its curves.
struct Fold {
    model: Box<dyn Classify>,
    curves: Vec<Curve>,
    /// The class of each curve.
    classes: Vec<usize>,
    by_decisions: bool,
}

struct Calibrated {
    folds: Vec<Fold>,
    classes: usize,
}

impl Fold {
    /// One score for each curve and row.
    fn scores(&self, rows: Rows<'_>) -> Evaluated<Vec<f64>> {
        if self.by_decisions {
            let mut scores = vec![0.0; rows.count * self.model.decisions_width()];
            self.model.decisions(rows, &mut scores)?;
            return Ok(scores);
        }
        let width = self.model.classes();
        let mut scores = vec![0.0; rows.count * width];
        self.model.probabilities(rows, &mut scores)?;
        if self.curves.len() == 1 {
            scores = scores.chunks_exact(width).map(|row| row[1]).collect();
        }
        Ok(scores)
    }

    /// Adds the fold's probabilities.
    fn add(&self, rows: Rows<'_>, classes: usize, out: &mut [f64]) -> Evaluated {
        let scores = self.scores(rows)?;
        let mut own = vec![0.0; classes];
        for (scores, out) in scores.chunks_exact(self.curves.len()).zip(out.chunks_exact_mut(classes)) {
            own.fill(0.0);
            for ((curve, class), score) in self.curves.iter().zip(&self.classes).zip(scores) {
                own[*class] = curve.at(*score);
            }
            if classes == 2 {
                own[0] = 1.0 - own[1];
            } else {
                let sum: f64 = own.iter().sum();
                let uniform = 1.0 / classes as f64;
                own.iter_mut().for_each(|one| *one = if sum == 0.0 { uniform } else { *one / sum });
            }
            for (slot, one) in out.iter_mut().zip(&own) {
                *slot += if *one > 1.0 && *one <= 1.0 + 1e-5 { 1.0 } else { *one };
            }
        }
        Ok(())
    }

    fn draw(&self, sketch: &mut Sketch, rows: &Frame, classes: usize) -> Drawn<Wire> {
        let drawn = self.model.draw(sketch, rows)?;
        let scores = if self.by_decisions {
            drawn.decisions.map(|(decisions, width)| sketch.shape(decisions, &[-1, width as i64]))
        } else {
            drawn.shares
        };
        let Some(scores) = scores else { return undrawn("scores of the classifier that is calibrated") };
        let zero = {
            let first = sketch.column(scores, 0);
            sketch.scaled(first, 0.0)
        };
        let mut columns = vec![zero; classes];
        for (index, (curve, class)) in self.curves.iter().zip(&self.classes).enumerate() {
            let place = if self.curves.len() == 1 && !self.by_decisions { 1 } else { index };
            let score = sketch.column(scores, place);
            columns[*class] = curve.draw(sketch, score);
        }
        let made = if classes == 2 {
            sketch.pair(columns[1])
        } else {
            let all = sketch.join(&columns);
            sketch.shares(all, classes)
        };
        // What rounding puts a little above one is one.
        let one = sketch.number(1.0);
        let above = sketch.test(Binary::Greater, made, 1.0);
        let near = sketch.test(Binary::Less, made, 1.0 + 1e-5);
        let is_one = sketch.binary(Binary::And, above, near);
        Ok(sketch.choose(is_one, one, made))
    }
}

impl Classify for Calibrated {
    fn classes(&self) -> usize {
        self.classes
    }

    fn pick(&self, rows: Rows<'_>, picks: &mut [u32]) -> Evaluated {
        let mut all = vec![0.0; rows.count * self.classes];
        self.probabilities(rows, &mut all)?;
        picks.iter_mut().zip(all.chunks_exact(self.classes)).for_each(|(pick, row)| *pick = argmax(row));
        Ok(())
    }

    fn has_probabilities(&self) -> bool {
        true
    }

    fn probabilities(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        for fold in &self.folds {
            fold.add(rows, self.classes, out)?;
        }
        out.iter_mut().for_each(|slot| *slot /= self.folds.len() as f64);
        Ok(())
    }

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Classes> {
        let mut sum: Option<Wire> = None;
        for fold in &self.folds {
            let own = fold.draw(sketch, rows, self.classes)?;
            sum = Some(sum.map_or(own, |sum| sketch.add(sum, own)));
        }
        let Some(sum) = sum else { return undrawn("a calibration without folds") };
        let count = sketch.number(self.folds.len() as f64);
        let shares = sketch.divide(sum, count);
        Ok(Classes { picks: sketch.argmax(shares), shares: Some(shares), decisions: None })
    }
}

pub(super) fn read(attrs: &Attrs<'_>, depth: usize) -> Result<Read> {
    let labels = Labels::read(attrs)?;
    let classes = labels.len();
    let (mut folds, mut parts, mut cost, mut features) = (Vec::new(), Vec::new(), 0, 0);
    let (mut flow, mut names) = (None, Vec::new());
    for view in attrs.estimators("calibrated_classifiers_")? {
        let fold = Attrs::new(view)?;
        let inner = fold.opt("estimator").or(fold.opt("base_estimator"));
        let inner = inner.ok_or_else(|| fold.error("the attribute estimator is missing"))?;
        let mut estimator = read_at(inner, depth + 1)?;
        let class = estimator.class.clone();
        let Role::Classifier(model, own) = estimator.role else {
            return Err(attrs.unsupported(&format!("{class} as its estimator")));
        };
        let curves = fold.opt("calibrators").or(fold.opt("calibrators_")).and_then(View::items);
        let curves = curves.ok_or_else(|| fold.error("the attribute calibrators is missing"))?;
        let curves = curves.into_iter().map(Curve::read).collect::<Result<Vec<_>>>()?;
        let place = |text: String| labels.to_texts().iter().position(|one| *one == text);
        let places: Option<Vec<usize>> = own.to_texts().into_iter().map(place).collect();
        let mut places = places.ok_or_else(|| fold.error("a fold has classes that the whole has not"))?;
        if classes == 2 && curves.len() == 1 {
            places = vec![1];
        }
        let by_decisions = model.decisions_width() > 0;
        let width = if by_decisions { model.decisions_width() } else { model.classes() };
        let fits = width == curves.len() || (!by_decisions && curves.len() == 1 && width == 2);
        if !fits || places.len() != curves.len() || (!by_decisions && !model.has_probabilities()) {
            return Err(fold.error("calibrators do not fit the classes"));
        }
        if folds.is_empty() {
            features = estimator.features;
            parts.append(&mut estimator.parts);
            (flow, names) = (estimator.flow, estimator.feature_names);
        } else if features != estimator.features {
            return Err(fold.error("folds take different numbers of columns"));
        }
        cost += estimator.row_cost_ns;
        folds.push(Fold { model, curves, classes: places, by_decisions });
    }
    if folds.is_empty() {
        return Err(attrs.error("it has no folds"));
    }
    let detail = format!("{} folds, {classes} classes", folds.len());
    let mut made = Read::new(Role::Classifier(Box::new(Calibrated { folds, classes }), labels), detail, cost);
    (made.inner, made.features, made.flow, made.feature_names) = (parts, Some(features), flow, names);
    Ok(made)
}
