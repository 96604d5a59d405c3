//! A model compiled for answering.
//!
//! Not here: files (`parts`, `binary`), the wrappers with scikit-learn's interface (`wrapper`).

use std::cell::RefCell;

use super::objective::{Link, softmax};
use super::parts::{Learner, Parts, RawTree, error};
use crate::backend::BackendError;
use crate::booster::{self, Boost, Read, shape};
use crate::error::Result;
use crate::sketch::{Binary, Drawn, Frame, Output, Sketch, Unary, Wire};
use crate::sklearn::native::Method;
use crate::sklearn::{Evaluated, Rows};
use crate::tensor::{DType, Outputs};
use crate::trees::{Forest, Missing, Raw, Test};

/// What scores add up from.
enum Core {
    Trees {
        forest: Forest<f32>,
        groups: Vec<usize>,
        weights: Option<Vec<f32>>,
        /// By leaf, `width` numbers each.
        leaves: Vec<f32>,
        /// Outputs that a leaf adds to: 1, or all of them.
        width: usize,
    },
    Linear(Vec<f32>),
}

/// A model.
pub(super) struct Model {
    core: Core,
    link: Link,
    /// The score that each output begins with.
    base: Vec<f32>,
    pub(super) features: usize,
    pub(super) classes: usize,
    pub(super) feature_names: Vec<String>,
    detail: String,
}

thread_local! {
    /// Scores, reused from call to call.
    static SCORES: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Writes a row in 32 bits; infinite values are refused.
fn fill(row: &[f64], cells: &mut [f32], index: usize) -> Evaluated {
    let mut infinite = false;
    for (cell, value) in cells.iter_mut().zip(row) {
        *cell = *value as f32;
        infinite |= cell.is_infinite();
    }
    if infinite {
        let what = "Input data contains infinity or a value too large for 32 bits";
        return Err(BackendError::Input(format!("{what} (row {index})")));
    }
    Ok(())
}

impl Model {
    pub(super) fn new(parts: Parts) -> Result<Self> {
        let link = Link::of(&parts.objective)?;
        let groups = parts.groups();
        // Since 3.1 the base score of a model without trees counts as not yet known and stays as it is.
        let is_known =
            !parts.is_vector || !matches!(&parts.learner, Learner::Trees { trees, .. } if trees.is_empty());
        // Linear models know one base score only.
        let last = if matches!(parts.learner, Learner::Linear(_)) { 0 } else { parts.base_score.len() - 1 };
        let base: Vec<f32> = (0..groups)
            .map(|group| parts.base_score[group.min(last)])
            .map(|base| if is_known { link.margin(base) } else { base })
            .collect();
        let mut detail = format!("{}, {}", parts.booster, parts.objective);
        let core = match parts.learner {
            Learner::Linear(weights) => {
                if weights.len() != (parts.features + 1) * groups {
                    let what = format!("{} weights for {} columns", weights.len(), parts.features);
                    return Err(error(what));
                }
                Core::Linear(weights)
            }
            Learner::Trees { trees, groups: of, weights, parallel } => {
                detail += &format!(", {} trees", trees.len());
                if parallel > 1 {
                    detail += &format!(" ({parallel} in parallel)");
                }
                compile(&trees, of, weights, parts.features, groups)?
            }
        };
        if let Core::Trees { forest, .. } = &core {
            detail += &format!(", {} nodes", forest.nodes());
        }
        if groups > 1 {
            detail += &format!(", {groups} outputs");
        }
        detail += &format!(", {} of {}", parts.format, parts.version);
        let (classes, feature_names) = (parts.classes, parts.feature_names);
        Ok(Self { core, link, base, features: parts.features, classes, feature_names, detail })
    }

    pub(super) fn read(self) -> Read {
        Read {
            features: self.features,
            feature_names: self.feature_names.clone(),
            class: "xgboost.Booster",
            detail: self.detail.clone(),
            row_cost_ns: self.row_cost_ns(),
            flow: None,
            model: Box::new(self),
        }
    }

    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    pub(super) fn row_cost_ns(&self) -> u64 {
        match &self.core {
            Core::Trees { forest, .. } => forest.row_cost_ns(),
            Core::Linear(weights) => weights.len() as u64 + 50,
        }
    }

    /// Outputs of a row before the objective.
    pub(super) fn groups(&self) -> usize {
        self.base.len()
    }

    /// Keeps the first rounds, as the wrappers do after early stopping.
    pub(super) fn keep_rounds(&mut self, rounds: usize, parallel: usize) {
        let outputs = self.groups();
        if let Core::Trees { forest, width, .. } = &mut self.core {
            let each = if *width > 1 { 1 } else { outputs };
            forest.truncate(rounds.saturating_mul(parallel).saturating_mul(each));
        }
    }

    /// Numbers of a prediction.
    pub(super) fn width(&self) -> usize {
        if self.link == Link::Argmax { 1 } else { self.groups() }
    }

    pub(super) fn has_probabilities(&self) -> bool {
        self.link.has_probabilities()
    }

    /// Probabilities of two classes lie in one number.
    pub(super) fn is_binary(&self) -> bool {
        self.link == Link::Logistic && self.groups() == 1
    }

    /// Each row's scores; `out` has `rows × groups` elements.
    pub(super) fn scores(&self, rows: Rows<'_>, out: &mut [f32]) -> Evaluated {
        let outputs = self.groups();
        let fill =
            |row: usize, cells: &mut [f32]| fill(&rows.data[row * rows.width..][..rows.width], cells, row);
        match &self.core {
            Core::Linear(weights) => self.add_lines(weights, rows, out),
            Core::Trees { forest, groups, weights, leaves, width } => {
                out.chunks_exact_mut(outputs).for_each(|row| row.copy_from_slice(&self.base));
                match (weights, *width) {
                    (None, 1) if outputs == 1 => forest.add_up::<1, _, _>(
                        rows.count,
                        fill,
                        leaves.as_chunks().0,
                        out.as_chunks_mut().0,
                    ),
                    (None, 1) => forest.walk(rows.count, fill, |row, tree, leaf| {
                        out[row * outputs + groups[tree]] += leaves[leaf as usize];
                    }),
                    (Some(weights), 1) => forest.walk(rows.count, fill, |row, tree, leaf| {
                        out[row * outputs + groups[tree]] += leaves[leaf as usize] * weights[tree];
                    }),
                    (weights, width) => forest.walk(rows.count, fill, |row, tree, leaf| {
                        let weight = weights.as_ref().map_or(1.0, |weights| weights[tree]);
                        let says = &leaves[leaf as usize * width..][..width];
                        for (slot, value) in out[row * outputs..][..outputs].iter_mut().zip(says) {
                            *slot += value * weight;
                        }
                    }),
                }
            }
        }
    }

    fn add_lines(&self, weights: &[f32], rows: Rows<'_>, out: &mut [f32]) -> Evaluated {
        let outputs = self.groups();
        let (weights, bias) = weights.split_at(self.features * outputs);
        let mut cells = vec![0.0; self.features];
        for (index, (row, out)) in rows.iter().zip(out.chunks_exact_mut(outputs)).enumerate() {
            fill(row, &mut cells, index)?;
            for (group, slot) in out.iter_mut().enumerate() {
                *slot = bias[group] + self.base[group];
                for (value, weights) in cells.iter().zip(weights.chunks_exact(outputs)) {
                    if !value.is_nan() {
                        *slot += value * weights[group];
                    }
                }
            }
        }
        Ok(())
    }

    /// Each row's prediction; `out` has `rows × width` elements.
    pub(super) fn predict(&self, rows: Rows<'_>, out: &mut [f32]) -> Evaluated {
        if self.link != Link::Argmax {
            self.scores(rows, out)?;
            out.chunks_exact_mut(self.groups()).for_each(|row| self.link.apply(row));
            return Ok(());
        }
        let groups = self.groups();
        self.with_scores(rows, |scores| {
            for (slot, scores) in out.iter_mut().zip(scores.chunks_exact_mut(groups)) {
                self.link.apply(scores);
                *slot = scores[0];
            }
        })
    }

    fn with_scores(&self, rows: Rows<'_>, then: impl FnOnce(&mut [f32])) -> Evaluated {
        let mut scores = SCORES.take();
        scores.clear();
        scores.resize(rows.count * self.groups(), 0.0);
        let done = self.scores(rows, &mut scores);
        if done.is_ok() {
            then(&mut scores);
        }
        SCORES.set(scores);
        done
    }

    /// One probability for each class.
    pub(super) fn probabilities(&self, rows: Rows<'_>, mut put: impl FnMut(usize, f32)) -> Evaluated {
        let groups = self.groups();
        self.with_scores(rows, |scores| {
            if self.is_binary() {
                self.link.apply(scores);
                for (row, score) in scores.iter().enumerate() {
                    put(row * 2, 1.0 - score);
                    put(row * 2 + 1, *score);
                }
                return;
            }
            for row in scores.chunks_exact_mut(groups) {
                if self.link == Link::Logistic { self.link.apply(row) } else { softmax(row) }
            }
            scores.iter().enumerate().for_each(|(index, score)| put(index, *score));
        })
    }
}

impl Model {
    fn draw_scores(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Wire> {
        let outputs = self.groups();
        let table = rows.table(sketch)?;
        let table = sketch.unary(Unary::Single, table);
        let base: Vec<f64> = self.base.iter().map(|base| f64::from(*base)).collect();
        let base = sketch.row(&base);
        let sums = match &self.core {
            Core::Linear(weights) => {
                let (weights, bias) = weights.split_at(self.features * outputs);
                // What is missing adds nothing.
                let (missing, zero) = (sketch.unary(Unary::IsMissing, table), sketch.number(0.0));
                let table = sketch.choose(missing, zero, table);
                let weights: Vec<f64> = weights.iter().map(|weight| f64::from(*weight)).collect();
                let weights = sketch.numbers(&[self.features, outputs], weights);
                let bias: Vec<f64> = bias.iter().map(|bias| f64::from(*bias)).collect();
                let (sums, bias) = (sketch.product(table, weights), sketch.row(&bias));
                sketch.add(sums, bias)
            }
            Core::Trees { forest, groups, weights, leaves, width } => {
                let factor = |tree: usize| weights.as_ref().map_or(1.0, |all| f64::from(all[tree]));
                if *width == 1 {
                    let said = |tree, leaf: u32| f64::from(leaves[leaf as usize]) * factor(tree);
                    forest.plain().sums(sketch, table, outputs, |tree| groups[tree], said)?
                } else {
                    forest.plain().vectors(sketch, table, *width, |tree, leaf, out| {
                        let own = &leaves[leaf as usize * width..][..*width];
                        out.extend(own.iter().map(|value| f64::from(*value) * factor(tree)));
                    })?
                }
            }
        };
        Ok(sketch.add(sums, base))
    }

    fn draw_linked(&self, sketch: &mut Sketch, scores: Wire) -> Wire {
        match self.link {
            Link::Identity | Link::LogisticRaw => scores,
            Link::Logistic => sketch.unary(Unary::Sigmoid, scores),
            Link::Hinge => sketch.flags(Binary::Greater, scores, 0.0),
            Link::Exp => sketch.unary(Unary::Exp, scores),
            Link::Argmax => {
                let places = sketch.argmax(scores);
                let places = sketch.unary(Unary::Number, places);
                sketch.shape(places, &[-1, 1])
            }
            Link::Softmax => sketch.softmax(scores),
        }
    }

    pub(super) fn draw_prediction(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Wire> {
        let scores = self.draw_scores(sketch, rows)?;
        Ok(self.draw_linked(sketch, scores))
    }

    pub(super) fn draw_probabilities(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Wire> {
        let scores = self.draw_scores(sketch, rows)?;
        Ok(self.draw_shares(sketch, scores))
    }

    fn draw_shares(&self, sketch: &mut Sketch, scores: Wire) -> Wire {
        match (self.is_binary(), self.link) {
            (true, _) => {
                let share = sketch.unary(Unary::Sigmoid, scores);
                sketch.pair(share)
            }
            (false, Link::Logistic) => sketch.unary(Unary::Sigmoid, scores),
            (false, _) => sketch.softmax(scores),
        }
    }
}

/// The compiled trees; `leaves` gets what they say.
fn compile(
    trees: &[RawTree],
    groups: Vec<usize>,
    weights: Option<Vec<f32>>,
    features: usize,
    outputs: usize,
) -> Result<Core> {
    if weights.as_ref().is_some_and(|weights| weights.len() != trees.len()) {
        return Err(error("weight_drop has another length than the trees"));
    }
    if groups.len() != trees.len() || groups.iter().any(|group| *group >= outputs) {
        return Err(error("tree_info names an output that does not exist"));
    }
    let width = if trees.iter().any(|tree| tree.vectors.is_some()) { outputs } else { 1 };
    let mut forest = Forest::new(features);
    let mut leaves: Vec<f32> = Vec::new();
    for (index, tree) in trees.iter().enumerate() {
        let base = leaves.len() / width;
        let count = tree.left.len();
        let named = |what: String| error(format!("tree {index}: {what}"));
        match &tree.vectors {
            Some(vectors) if vectors.values.len() % width == 0 => leaves.extend(&vectors.values),
            None if width == 1 => leaves.extend(&tree.condition),
            _ => return Err(named(format!("leaves that are not {width} numbers each"))),
        }
        let said = leaves.len() / width - base;
        if u32::try_from(leaves.len()).is_err() {
            return Err(named("more than 2^32 leaves".into()));
        }
        forest
            .add(count, |node| {
                let (left, right) = (tree.left[node], tree.right[node]);
                if left < 0 {
                    let by_leaf = tree.vectors.as_ref().is_some_and(|vectors| vectors.by_leaf);
                    let number = if by_leaf { usize::try_from(right).unwrap_or(usize::MAX) } else { node };
                    if number >= said {
                        return Err(format!("node {node}: leaf {number} of {said}"));
                    }
                    return Ok(Raw::Leaf((base + number) as u32));
                }
                let test = match &tree.categories[node] {
                    Some(set) => Test::MembersRight(set),
                    // The library asks for less than the threshold: for floats, up to the one before it.
                    None => Test::AtMost(tree.condition[node].next_down()),
                };
                Ok(Raw::Split {
                    column: tree.column[node] as usize,
                    test,
                    missing: Missing { left: tree.default_left[node], zero_too: false },
                    left: left as usize,
                    right: usize::try_from(right).unwrap_or(usize::MAX),
                })
            })
            .map_err(named)?;
    }
    forest.finish();
    Ok(Core::Trees { forest, groups, weights, leaves, width })
}

impl Boost for Model {
    fn output(&self, method: Method) -> Option<(DType, Vec<usize>)> {
        let flat = |width: usize| if width == 1 { Vec::new() } else { vec![width] };
        match method {
            Method::Predict => Some((DType::F32, flat(self.width()))),
            Method::Decisions => Some((DType::F32, flat(self.groups()))),
            Method::Probabilities if !self.has_probabilities() => None,
            Method::Probabilities if self.is_binary() => Some((DType::F32, vec![2])),
            Method::Probabilities => Some((DType::F32, vec![self.groups()])),
        }
    }

    fn answer(&self, rows: Rows<'_>, method: Method, outputs: &mut Outputs) -> Evaluated {
        let Some((_, dims)) = self.output(method) else {
            return Err(BackendError::Internal("this booster has no probabilities".into()));
        };
        let out = outputs.numbers::<f32>(shape(rows.count, &dims)?);
        match method {
            Method::Predict => self.predict(rows, out),
            Method::Decisions => self.scores(rows, out),
            Method::Probabilities => self.probabilities(rows, |index, value| out[index] = value),
        }
    }

    fn classes(&self) -> Vec<String> {
        match self.link {
            Link::Softmax | Link::Argmax => booster::counted(self.groups()).to_texts(),
            Link::Logistic if self.is_binary() => booster::counted(2).to_texts(),
            _ => Vec::new(),
        }
    }

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Vec<Output>> {
        let scores = self.draw_scores(sketch, rows)?;
        let prediction = self.draw_linked(sketch, scores);
        let probabilities = self.has_probabilities().then(|| {
            let width = if self.is_binary() { 2 } else { self.groups() };
            (self.draw_shares(sketch, scores), width)
        });
        Ok(booster::drawn_outputs((prediction, vec![self.width()]), probabilities))
    }
}
