//! Gradient boosting: `GradientBoosting…` and `HistGradientBoosting…`.
//!
//! Raw scores start at what `init_` (or the baseline) says and grow by each stage's trees; a class's probability
//! is the inverse link of its score. The histogram kind compares in `f64` and takes missing and infinite values.
//!
//! Not here: what columns of categories become before the trees (`hist`).

use super::attrs::Attrs;
use super::labels::Labels;
use super::tree::{Cell, RawTree, Trees};
use super::{Classify, Evaluated, Read, Regress, Role, Rows, argmax, expit, hist, pipeline, softmax};
use crate::error::Result;
use crate::graph::View;
use crate::sketch::{Binary, Classes, Drawn, Frame, Sketch, Unary, Wire};

#[derive(Clone, Copy, PartialEq)]
enum Loss {
    Log,
    Exponential,
    /// Regressions with a log link.
    LogLink,
}

struct Boosted<X = f32> {
    trees: Trees<X>,
    /// Scores of a row: 1 for regression and two classes, else one for each class.
    scores: usize,
    start: Vec<f64>,
    loss: Loss,
    /// Whether a score of zero is the second class.
    zero_is_second: bool,
}

impl<X: Cell> Boosted<X> {
    fn raw(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        for row in out.chunks_exact_mut(self.scores) {
            row.copy_from_slice(&self.start);
        }
        let scores = self.scores;
        match scores {
            1 => self.trees.add_up::<1>(rows, out),
            _ => self.trees.walk(rows, |row, tree, says| out[row * scores + tree % scores] += says[0]),
        }
    }

    fn draw_raw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Wire> {
        let sums = self.trees.draw_groups(sketch, rows, self.scores)?;
        let start = sketch.row(&self.start);
        Ok(sketch.add(sums, start))
    }
}

impl<X: Cell> Regress for Boosted<X> {
    fn targets(&self) -> usize {
        1
    }

    fn predict(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        self.raw(rows, out)?;
        if self.loss == Loss::LogLink {
            out.iter_mut().for_each(|score| *score = score.exp());
        }
        Ok(())
    }

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Wire> {
        let raw = self.draw_raw(sketch, rows)?;
        Ok(if self.loss == Loss::LogLink { sketch.unary(Unary::Exp, raw) } else { raw })
    }
}

impl<X: Cell> Classify for Boosted<X> {
    fn classes(&self) -> usize {
        self.scores.max(2)
    }

    fn pick(&self, rows: Rows<'_>, picks: &mut [u32]) -> Evaluated {
        let mut raw = vec![0.0; rows.count * self.scores];
        self.raw(rows, &mut raw)?;
        for (pick, scores) in picks.iter_mut().zip(raw.chunks_exact(self.scores)) {
            let is_second = scores[0] > 0.0 || (scores[0] == 0.0 && self.zero_is_second);
            *pick = if self.scores == 1 { u32::from(is_second) } else { argmax(scores) };
        }
        Ok(())
    }

    fn has_probabilities(&self) -> bool {
        true
    }

    fn probabilities(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        if self.scores > 1 {
            self.raw(rows, out)?;
            out.chunks_exact_mut(self.scores).for_each(softmax);
            return Ok(());
        }
        let mut raw = vec![0.0; rows.count];
        self.raw(rows, &mut raw)?;
        let factor = if self.loss == Loss::Exponential { 2.0 } else { 1.0 };
        for (pair, score) in out.chunks_exact_mut(2).zip(raw) {
            pair[1] = expit(factor * score);
            pair[0] = 1.0 - pair[1];
        }
        Ok(())
    }

    fn decisions_width(&self) -> usize {
        self.scores
    }

    fn decisions(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        self.raw(rows, out)
    }

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Classes> {
        let raw = self.draw_raw(sketch, rows)?;
        let decisions = Some((raw, self.scores));
        if self.scores > 1 {
            return Ok(Classes { picks: sketch.argmax(raw), shares: Some(sketch.softmax(raw)), decisions });
        }
        let op = if self.zero_is_second { Binary::AtLeast } else { Binary::Greater };
        let second = sketch.test(op, raw, 0.0);
        let second = sketch.unary(Unary::Whole, second);
        let picks = sketch.shape(second, &[-1]);
        let factor = if self.loss == Loss::Exponential { 2.0 } else { 1.0 };
        let scaled = sketch.scaled(raw, factor);
        let share = sketch.unary(Unary::Sigmoid, scaled);
        Ok(Classes { picks, shares: Some(sketch.pair(share)), decisions })
    }
}

fn gather(attrs: &Attrs<'_>, scores: usize) -> Result<Trees> {
    let mut trees = Trees::new(attrs.features()?, 1);
    let rate = attrs.float("learning_rate")?;
    let members = attrs.estimators("estimators_")?;
    if scores == 0 || !members.len().is_multiple_of(scores) {
        return Err(attrs.error(format!("{} trees for {scores} scores", members.len())));
    }
    for (index, member) in members.into_iter().enumerate() {
        let raw = RawTree::read(&Attrs::new(member)?)?;
        trees.add(&raw, rate).map_err(|what| attrs.error(format!("tree {index}: {what}")))?;
    }
    Ok(trees)
}

fn finish<X: Cell>(trees: Trees<X>, scores: usize, start: Vec<f64>, loss: Loss) -> (Boosted<X>, String, u64) {
    let detail = format!("{} trees, {} nodes", trees.count(), trees.nodes());
    let cost = trees.row_cost_ns();
    let trees = trees.finish();
    (Boosted { trees, scores, start, loss, zero_is_second: true }, detail, cost)
}

/// The name of the class of `init_`, without its module; empty where it is the text `zero`.
fn init_class(attrs: &Attrs<'_>) -> String {
    let init = attrs.opt("init_").map(|init| init.class_name()).unwrap_or_default();
    let is_zero = attrs.opt("init").and_then(|init| init.text()) == Some("zero") || init == "str";
    if is_zero { String::new() } else { init.rsplit('.').next().unwrap_or_default().to_owned() }
}

/// What a regressor says before its first tree.
pub(super) fn regressor_start(attrs: &Attrs<'_>) -> Result<f64> {
    match init_class(attrs).as_str() {
        "" => Ok(0.0),
        "DummyRegressor" => {
            let init = Attrs::new(attrs.req("init_")?)?;
            init.floats("constant_")?.first().copied().ok_or_else(|| init.error("constant_ is empty"))
        }
        other => Err(attrs.unsupported(&format!("init={other}"))),
    }
}

pub(super) fn regressor(attrs: &Attrs<'_>) -> Result<Read> {
    let start = regressor_start(attrs)?;
    let (model, detail, cost) = finish(gather(attrs, 1)?, 1, vec![start], Loss::Log);
    Ok(Read::new(Role::Regressor(Box::new(model)), detail, cost))
}

fn classifier_loss(attrs: &Attrs<'_>) -> Result<Loss> {
    match attrs.text("loss")? {
        "log_loss" | "deviance" => Ok(Loss::Log),
        "exponential" => Ok(Loss::Exponential),
        other => Err(attrs.unsupported(&format!("loss={other:?}"))),
    }
}

/// The scores of a classifier before its first tree.
pub(super) fn classifier_start(attrs: &Attrs<'_>) -> Result<Vec<f64>> {
    let classes = Labels::read(attrs)?.len();
    match init_class(attrs).as_str() {
        "" => Ok(vec![0.0; if classes == 2 { 1 } else { classes }]),
        "DummyClassifier" => {
            let init = Attrs::new(attrs.req("init_")?)?;
            if init.text("strategy")? != "prior" {
                return Err(attrs.unsupported("an init that is not the prior"));
            }
            let prior = init.column_floats("class_prior_", classes)?;
            Ok(prior_scores(&prior, classifier_loss(attrs)?, attrs.is_at_least(1, 4)))
        }
        other => Err(attrs.unsupported(&format!("init={other}"))),
    }
}

pub(super) fn classifier(attrs: &Attrs<'_>) -> Result<Read> {
    let labels = Labels::read(attrs)?;
    let (loss, start) = (classifier_loss(attrs)?, classifier_start(attrs)?);
    let scores = start.len();
    let (model, detail, cost) = finish(gather(attrs, scores)?, scores, start, loss);
    Ok(Read::new(Role::Classifier(Box::new(model), labels), detail, cost))
}

/// The link of the classes' shares, kept away from 0 and 1 by the precision of `f32` as the library does.
fn prior_scores(prior: &[f64], loss: Loss, is_symmetric: bool) -> Vec<f64> {
    let eps = f64::from(f32::EPSILON);
    let shares: Vec<f64> = prior.iter().map(|share| share.clamp(eps, 1.0 - eps)).collect();
    if let [_, positive] = shares.as_slice() {
        let logit = (positive / (1.0 - positive)).ln();
        return vec![if loss == Loss::Exponential { 0.5 * logit } else { logit }];
    }
    // The symmetric link: logarithms around their mean, which versions before 1.4 leave in.
    let logs: Vec<f64> = shares.iter().map(|share| share.ln()).collect();
    let mean = if is_symmetric { logs.iter().sum::<f64>() / logs.len() as f64 } else { 0.0 };
    logs.into_iter().map(|log| log - mean).collect()
}

/// The categories that go left, by node.
fn sets(attrs: &Attrs<'_>, predictor: View<'_>, is: &[i64], places: &[i64]) -> Result<Vec<Option<[u32; 8]>>> {
    let wrong = || attrs.error("a predictor: no raw_left_cat_bitsets");
    let words =
        predictor.attr("raw_left_cat_bitsets").and_then(View::array).and_then(|array| array.to_i64s());
    let words: Vec<u32> = words.ok_or_else(wrong)?.into_iter().map(|word| word as u32).collect();
    let (sets, _) = words.as_chunks::<8>();
    let one = |(is, place): (&i64, &i64)| match is {
        0 => Ok(None),
        _ => usize::try_from(*place)
            .ok()
            .and_then(|place| sets.get(place))
            .copied()
            .map(Some)
            .ok_or_else(wrong),
    };
    is.iter().zip(places).map(one).collect()
}

/// One `TreePredictor`.
pub(super) fn hist_tree(attrs: &Attrs<'_>, predictor: View<'_>) -> Result<RawTree> {
    let error = |what: &str| attrs.error(format!("a predictor: {what}"));
    let nodes = predictor.attr("nodes").and_then(View::array).ok_or_else(|| error("no nodes"))?;
    let ints = |name: &str| nodes.field_i64s(name).ok_or_else(|| error(&format!("no node field {name}")));
    let floats = |name: &str| nodes.field_f64s(name).ok_or_else(|| error(&format!("no node field {name}")));
    let sets = match ints("is_categorical") {
        Ok(all) if all.contains(&1) => Some(sets(attrs, predictor, &all, &ints("bitset_idx")?)?),
        _ => None,
    };
    let leaves = ints("is_leaf")?;
    let mut left = ints("left")?;
    for (child, leaf) in left.iter_mut().zip(&leaves) {
        if *leaf != 0 {
            *child = -1;
        }
    }
    // The field was called `threshold` before 1.0.
    let threshold = floats("num_threshold").or_else(|_| floats("threshold"))?;
    if left.is_empty() {
        return Err(error("it has no nodes"));
    }
    Ok(RawTree {
        right: ints("right")?,
        feature: ints("feature_idx")?,
        missing_left: Some(ints("missing_go_to_left")?),
        sets,
        values: floats("value")?,
        left,
        threshold,
        outputs: 1,
        classes: 1,
    })
}

fn boosted(attrs: &Attrs<'_>, scores: usize, loss: Loss) -> Result<(Boosted<f64>, String, u64)> {
    if scores == 0 {
        return Err(attrs.error("it has no classes"));
    }
    let mut trees: Trees<f64> = Trees::new(attrs.features()?, 1).refuse_nothing();
    for stage in attrs.estimators("_predictors")? {
        let members = stage.items().unwrap_or_default();
        if members.len() != scores {
            return Err(attrs.error(format!("{} trees in a stage for {scores} scores", members.len())));
        }
        for member in members {
            let raw = hist_tree(attrs, member)?;
            trees.add(&raw, 1.0).map_err(|what| attrs.error(format!("a predictor: {what}")))?;
        }
    }
    let mut start = attrs.floats("_baseline_prediction")?;
    if start.len() == 1 {
        start = vec![start[0]; scores];
    }
    if start.len() != scores {
        return Err(attrs.error("_baseline_prediction has another width than the scores"));
    }
    let (mut model, detail, cost) = finish(trees, scores, start, loss);
    model.zero_is_second = false;
    Ok((model, detail, cost))
}

/// Puts what encodes categories before the trees.
fn encoded(attrs: &Attrs<'_>, role: Role, detail: String, cost: u64) -> Result<Read> {
    let Some((encoder, flow)) = hist::encoder(attrs)? else { return Ok(Read::new(role, detail, cost)) };
    let mut made = Read::new(pipeline::before(vec![Box::new(encoder)], role), detail, cost);
    made.flow = (!flow.is_numbers()).then_some(flow);
    Ok(made)
}

pub(super) fn hist_classifier(attrs: &Attrs<'_>) -> Result<Read> {
    let labels = Labels::read(attrs)?;
    let scores = if labels.len() == 2 { 1 } else { labels.len() };
    let (model, detail, cost) = boosted(attrs, scores, Loss::Log)?;
    encoded(attrs, Role::Classifier(Box::new(model), labels), detail, cost)
}

pub(super) fn hist_regressor(attrs: &Attrs<'_>) -> Result<Read> {
    let loss = match attrs.opt("loss").and_then(View::text) {
        Some("poisson" | "gamma") => Loss::LogLink,
        Some(
            "squared_error" | "least_squares" | "absolute_error" | "least_absolute_deviation" | "quantile",
        ) => Loss::Log,
        _ => return Err(attrs.unsupported("this loss")),
    };
    let (model, detail, cost) = boosted(attrs, 1, loss)?;
    encoded(attrs, Role::Regressor(Box::new(model)), detail, cost)
}
