//! A model compiled for answering.
//!
//! Not here: files (`text`), the wrappers with scikit-learn's interface (`wrapper`).

use std::convert::Infallible;

use super::text::{Linear, Parts, RawTree, error};
use crate::backend::BackendError;
use crate::booster::{self, Boost, Read, shape};
use crate::error::{LoadError, Result};
use crate::sketch::{Binary, Drawn, Frame, Output, Sketch, Unary, Wire, undrawn};
use crate::sklearn::native::Method;
use crate::sklearn::{Evaluated, Rows};
use crate::tensor::{DType, Outputs};
use crate::trees::{Forest, Missing, Raw, Test};

/// Values this near zero are zero; the library has the constant in 32 bits.
const ZERO: f64 = 1e-35_f32 as f64;

/// Numbers of all leaves' lines in a sketch, which has one for each column.
const LINES_MAX: usize = 1 << 24;

/// Bits of `decision_type`.
const CATEGORICAL: u8 = 1;
const DEFAULT_LEFT: u8 = 2;

/// What scores become.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Link {
    Identity,
    /// The square with the score's sign.
    Square,
    Exp,
    /// The logistic function of a multiple.
    Logistic(f64),
    Softmax,
    /// `ln(1 + e^x)`.
    Softplus,
}

impl Link {
    fn of(objective: &str) -> Result<Self> {
        let mut words = objective.split_ascii_whitespace();
        let name = words.next().unwrap_or_default();
        let words: Vec<&str> = words.collect();
        let sigmoid = || {
            let found = words.iter().find_map(|word| word.strip_prefix("sigmoid:"));
            let number = found.map_or(Some(1.0), |number| number.parse().ok());
            number.ok_or_else(|| error(format!("objective={objective}: sigmoid is no number")))
        };
        let link = match name {
            "regression" | "regression_l2" | "l2" if words.contains(&"sqrt") => Self::Square,
            // A booster without an objective (or with a custom one, which is code) says its scores.
            "" | "custom" | "none" | "null" | "regression" | "regression_l2" | "regression_l1" | "l2"
            | "huber" | "fair" | "quantile" | "mape" | "lambdarank" | "rank_xendcg" => Self::Identity,
            "poisson" | "gamma" | "tweedie" => Self::Exp,
            "binary" | "multiclassova" => Self::Logistic(sigmoid()?),
            "cross_entropy" => Self::Logistic(1.0),
            "cross_entropy_lambda" => Self::Softplus,
            "multiclass" => Self::Softmax,
            _ => return Err(LoadError::unsupported(format!("LightGBM's objective {name:?}"))),
        };
        Ok(link)
    }

    /// Turns a row's scores into its prediction.
    fn apply(self, scores: &mut [f64]) {
        match self {
            Self::Identity => {}
            Self::Square => scores.iter_mut().for_each(|score| *score = score.signum() * *score * *score),
            Self::Exp => scores.iter_mut().for_each(|score| *score = score.exp()),
            Self::Logistic(by) => {
                scores.iter_mut().for_each(|score| *score = 1.0 / (1.0 + (-by * *score).exp()));
            }
            Self::Softplus => scores.iter_mut().for_each(|score| *score = score.exp().ln_1p()),
            Self::Softmax => crate::sklearn::softmax(scores),
        }
    }

    fn draw(self, sketch: &mut Sketch, scores: Wire) -> Wire {
        match self {
            Self::Identity => scores,
            Self::Square => {
                let (sign, square) = (sketch.unary(Unary::Sign, scores), sketch.multiply(scores, scores));
                sketch.multiply(sign, square)
            }
            Self::Exp => sketch.unary(Unary::Exp, scores),
            Self::Logistic(by) => {
                let scaled = sketch.scaled(scores, by);
                sketch.unary(Unary::Sigmoid, scaled)
            }
            Self::Softplus => {
                let power = sketch.unary(Unary::Exp, scores);
                sketch.log_1p(power)
            }
            Self::Softmax => sketch.softmax(scores),
        }
    }
}

/// A leaf's linear function: where its columns start and how many they are.
struct Lines {
    constant: Vec<f64>,
    spans: Vec<(usize, usize)>,
    columns: Vec<u32>,
    weights: Vec<f64>,
}

/// A model.
pub(super) struct Model {
    forest: Forest<f64>,
    leaves: Vec<f64>,
    lines: Option<Lines>,
    groups: usize,
    link: Link,
    is_average: bool,
    pub(super) classes: usize,
    pub(super) features: usize,
    pub(super) feature_names: Vec<String>,
    detail: String,
}

/// A value as the library sees it: what is not far enough from zero is zero; what is missing stays.
fn cleaned(value: f64) -> f64 {
    if value.abs() <= ZERO { 0.0 } else { value }
}

impl Model {
    pub(super) fn new(parts: Parts) -> Result<Self> {
        let link = Link::of(&parts.objective)?;
        if !parts.trees.len().is_multiple_of(parts.groups) {
            return Err(error(format!("{} trees in rounds of {}", parts.trees.len(), parts.groups)));
        }
        let objective = if parts.objective.is_empty() { "no objective" } else { &parts.objective };
        let mut detail = format!("{objective}, {} trees", parts.trees.len());
        let mut forest = Forest::new(parts.features);
        let mut leaves = Vec::new();
        let is_linear = parts.trees.iter().any(|tree| tree.linear.is_some());
        let mut lines = is_linear.then(|| Lines {
            constant: Vec::new(),
            spans: Vec::new(),
            columns: Vec::new(),
            weights: Vec::new(),
        });
        for (index, tree) in parts.trees.iter().enumerate() {
            let named = |what: String| error(format!("tree {index}: {what}"));
            add(&mut forest, tree, leaves.len()).map_err(named)?;
            leaves.extend(&tree.value);
            if let Some(lines) = &mut lines {
                lines.add(tree, parts.features).map_err(named)?;
            }
        }
        forest.finish();
        detail += &format!(", {} nodes", forest.nodes());
        for (is, what) in [(parts.is_average, "mean of rounds"), (is_linear, "linear leaves")] {
            if is {
                detail += &format!(", {what}");
            }
        }
        if parts.pandas_columns > 0 {
            detail += &format!(", {} columns of codes of pandas' categories", parts.pandas_columns);
        }
        detail += &format!(", text {}", parts.version);
        Ok(Self {
            forest,
            leaves,
            lines,
            groups: parts.groups,
            link,
            is_average: parts.is_average,
            classes: if parts.objective.starts_with("binary") { 2 } else { parts.classes },
            features: parts.features,
            feature_names: parts.feature_names,
            detail,
        })
    }

    pub(super) fn read(self) -> Read {
        Read {
            features: self.features,
            feature_names: self.feature_names.clone(),
            class: "lightgbm.Booster",
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
        self.forest.row_cost_ns()
    }

    /// Keeps the first rounds, as the wrappers do after early stopping.
    pub(super) fn keep_rounds(&mut self, rounds: usize) {
        self.forest.truncate(rounds.saturating_mul(self.groups));
    }

    pub(super) fn groups(&self) -> usize {
        self.groups
    }

    pub(super) fn has_probabilities(&self) -> bool {
        match self.link {
            Link::Softmax => true,
            Link::Logistic(_) => self.classes > 1,
            _ => false,
        }
    }

    /// Probabilities of two classes lie in one number.
    pub(super) fn is_binary(&self) -> bool {
        self.groups == 1 && self.has_probabilities()
    }

    /// Each row's scores; `out` has `rows × groups` elements.
    fn scores(&self, rows: Rows<'_>, out: &mut [f64]) {
        out.fill(0.0);
        let (groups, width) = (self.groups, rows.width);
        let row_of = |row: usize| &rows.data[row * width..(row + 1) * width];
        let fill = |row: usize, cells: &mut [f64]| -> Result<(), Infallible> {
            cells.iter_mut().zip(row_of(row)).for_each(|(cell, value)| *cell = cleaned(*value));
            Ok(())
        };
        let walked = if let Some(lines) = &self.lines {
            self.forest.walk(rows.count, fill, |row, tree, leaf| {
                let said = lines.says(leaf as usize, row_of(row));
                out[row * groups + tree % groups] += said.unwrap_or(self.leaves[leaf as usize]);
            })
        } else if groups == 1 {
            self.forest.add_up::<1, _, _>(rows.count, fill, self.leaves.as_chunks().0, out.as_chunks_mut().0)
        } else {
            self.forest.walk(rows.count, fill, |row, tree, leaf| {
                out[row * groups + tree % groups] += self.leaves[leaf as usize];
            })
        };
        let Ok(()) = walked;
    }

    /// Each row's prediction.
    pub(super) fn predict(&self, rows: Rows<'_>, out: &mut [f64]) {
        self.scores(rows, out);
        if self.is_average && self.forest.count() > 0 {
            let rounds = (self.forest.count() / self.groups) as f64;
            out.iter_mut().for_each(|score| *score /= rounds);
        }
        out.chunks_exact_mut(self.groups).for_each(|row| self.link.apply(row));
    }

    /// One probability for each class.
    pub(super) fn probabilities(&self, rows: Rows<'_>, out: &mut [f64]) {
        if !self.is_binary() {
            return self.predict(rows, out);
        }
        let (count, mut ones) = (rows.count, vec![0.0; rows.count]);
        self.predict(rows, &mut ones);
        for (pair, one) in out.chunks_exact_mut(2).zip(&ones).take(count) {
            pair.copy_from_slice(&[1.0 - one, *one]);
        }
    }
}

impl Model {
    pub(super) fn draw_prediction(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Wire> {
        let table = rows.table(sketch)?;
        // What is not far enough from zero is zero; what is missing stays.
        let (size, bound) = (sketch.unary(Unary::Absolute, table), sketch.number(ZERO));
        let (is_zero, zero) = (sketch.binary(Binary::AtLeast, bound, size), sketch.number(0.0));
        let table = sketch.choose(is_zero, zero, table);
        let said = |_, leaf: u32| self.leaves[leaf as usize];
        let groups = self.groups;
        let mut scores = match &self.lines {
            Some(lines) if self.forest.count() > 0 => self.draw_lines(sketch, table, lines)?,
            _ => self.forest.plain().sums(sketch, table, groups, |tree| tree % groups, said)?,
        };
        if self.is_average && self.forest.count() > 0 {
            let rounds = sketch.number((self.forest.count() / groups) as f64);
            scores = sketch.divide(scores, rounds);
        }
        Ok(self.link.draw(sketch, scores))
    }

    /// Draws the sums of leaves that are lines: each leaf's line is looked up, and its constant where a value is missing.
    fn draw_lines(&self, sketch: &mut Sketch, table: Wire, lines: &Lines) -> Drawn<Wire> {
        let (features, groups, trees) = (self.features, self.groups, self.forest.count());
        if self.leaves.len().saturating_mul(features) > LINES_MAX {
            return undrawn(format!("lightgbm.Booster with linear leaves of more than {LINES_MAX} numbers"));
        }
        let (mut values, mut constants, mut weights, mut uses) = (vec![], vec![], vec![], vec![]);
        let places = self.forest.plain().leaves(sketch, table, |_, leaf| {
            let leaf = leaf as usize;
            values.push(self.leaves[leaf]);
            constants.push(lines.constant[leaf]);
            let (mut own, mut used) = (vec![0.0; features], vec![0.0; features]);
            let (start, count) = lines.spans[leaf];
            for (column, weight) in lines.columns[start..start + count].iter().zip(&lines.weights[start..]) {
                own[*column as usize] += weight;
                used[*column as usize] = 1.0;
            }
            weights.extend(own);
            uses.extend(used);
        })?;
        let leaves = values.len();
        let look = |sketch: &mut Sketch, dims: &[usize], cells: Vec<f64>| {
            let all = sketch.numbers(dims, cells);
            sketch.pick(all, places, 0)
        };
        let (values, constants) = (look(sketch, &[leaves], values), look(sketch, &[leaves], constants));
        let (weights, uses) =
            (look(sketch, &[leaves, features], weights), look(sketch, &[leaves, features], uses));
        // Rows as they meet each tree's line: `[rows, 1, features]`.
        let (missing, zero) = (sketch.unary(Unary::IsMissing, table), sketch.number(0.0));
        let filled = sketch.choose(missing, zero, table);
        // Infinity times the zero of a line that does not have the column would not be zero.
        let filled = sketch.at_most(filled, f64::MAX);
        let filled = sketch.at_least(filled, f64::MIN);
        let gaps = sketch.unary(Unary::Number, missing);
        let along = |sketch: &mut Sketch, cells: Wire, by: Wire| {
            let deep = sketch.shape(cells, &[-1, 1, features as i64]);
            let products = sketch.multiply(deep, by);
            let sums = sketch.sum(products, 2);
            sketch.shape(sums, &[-1, trees as i64])
        };
        let (slopes, lacking) = (along(sketch, filled, weights), along(sketch, gaps, uses));
        let lines = sketch.add(constants, slopes);
        let lacks = sketch.test(Binary::Greater, lacking, 0.5);
        let said = sketch.choose(lacks, values, lines);
        let sides = (0..trees * groups).map(|at| f64::from(u8::from(at / groups % groups == at % groups)));
        let sides = sketch.numbers(&[trees, groups], sides.collect::<Vec<f64>>());
        Ok(sketch.product(said, sides))
    }

    pub(super) fn draw_probabilities(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Wire> {
        let said = self.draw_prediction(sketch, rows)?;
        Ok(if self.is_binary() { sketch.pair(said) } else { said })
    }
}

impl Lines {
    fn add(&mut self, tree: &RawTree, features: usize) -> Result<(), String> {
        let none = Linear::default();
        let linear = tree.linear.as_ref().unwrap_or(&none);
        let leaves = tree.value.len();
        let is_whole = linear.constant.len() == leaves && linear.counts.len() == leaves;
        if tree.linear.is_some() && !is_whole {
            return Err("leaf_const and num_features are not as many as the leaves".into());
        }
        let all: usize = linear.counts.iter().fold(0, |sum, count| sum.saturating_add(*count));
        if all != linear.columns.len() || all != linear.weights.len() {
            return Err("leaf_features and leaf_coeff are not as many as num_features says".into());
        }
        if linear.columns.iter().any(|column| *column as usize >= features) {
            return Err("leaf_features names a column that does not exist".into());
        }
        let mut start = self.columns.len();
        for leaf in 0..leaves {
            // A leaf of a plain tree among linear ones is a constant.
            self.constant.push(linear.constant.get(leaf).copied().unwrap_or(tree.value[leaf]));
            let count = linear.counts.get(leaf).copied().unwrap_or(0);
            self.spans.push((start, count));
            start += count;
        }
        self.columns.extend(&linear.columns);
        self.weights.extend(&linear.weights);
        Ok(())
    }

    /// What a leaf says; `None` when a value it needs is missing.
    fn says(&self, leaf: usize, row: &[f64]) -> Option<f64> {
        let (start, count) = self.spans[leaf];
        let mut sum = self.constant[leaf];
        for (column, weight) in self.columns[start..start + count].iter().zip(&self.weights[start..]) {
            let value = cleaned(row[*column as usize]);
            if value.is_nan() {
                return None;
            }
            sum += weight * value;
        }
        Some(sum)
    }
}

/// Adds a tree whose first leaf has the number `base`.
fn add(forest: &mut Forest<f64>, tree: &RawTree, base: usize) -> Result<(), String> {
    let (leaves, splits) = (tree.value.len(), tree.value.len().saturating_sub(1));
    if tree.leaves != leaves || leaves == 0 {
        return Err(format!("num_leaves={} with {leaves} values", tree.leaves));
    }
    if u32::try_from(base + leaves).is_err() {
        return Err("more than 2^32 leaves".into());
    }
    for (name, len) in [
        ("split_feature", tree.feature.len()),
        ("threshold", tree.threshold.len()),
        ("decision_type", tree.decision.len()),
        ("left_child", tree.left.len()),
        ("right_child", tree.right.len()),
    ] {
        if len != splits && splits > 0 {
            return Err(format!("{name} has {len} entries for {splits} splits"));
        }
    }
    // The splits come first and then the leaves; a child below zero is a leaf.
    let child = |child: i32| if child < 0 { splits + !child as usize } else { child as usize };
    forest.add(splits + leaves, |node| {
        if node >= splits {
            return Ok(Raw::Leaf((base + node - splits) as u32));
        }
        let (threshold, decision) = (tree.threshold[node], tree.decision[node]);
        let kind = decision >> 2 & 3;
        let (test, missing) = if decision & CATEGORICAL != 0 {
            (Test::MembersLeft(set(tree, node)?), Missing { left: false, zero_too: false })
        } else {
            let default = decision & DEFAULT_LEFT != 0;
            let missing = match kind {
                // Nothing counts as missing: it is zero.
                0 => Missing { left: 0.0 <= threshold, zero_too: false },
                1 => Missing { left: default, zero_too: true },
                2 => Missing { left: default, zero_too: false },
                _ => return Err(format!("node {node}: decision_type {decision}")),
            };
            (Test::AtMost(threshold), missing)
        };
        let column = tree.feature[node] as usize;
        Ok(Raw::Split { column, test, missing, left: child(tree.left[node]), right: child(tree.right[node]) })
    })
}

/// The categories of which one goes left: a categorical split's threshold is the number of their set.
fn set(tree: &RawTree, node: usize) -> Result<&[u32], String> {
    let threshold = tree.threshold[node];
    let set = match tree.category_starts.windows(2).nth(threshold as usize) {
        Some(bounds) if threshold >= 0.0 => tree.category_words.get(bounds[0]..bounds[1]),
        _ => None,
    };
    set.ok_or_else(|| format!("node {node}: the set of categories {threshold} does not exist"))
}

impl Boost for Model {
    fn output(&self, method: Method) -> Option<(DType, Vec<usize>)> {
        let flat = if self.groups == 1 { Vec::new() } else { vec![self.groups] };
        match method {
            Method::Predict | Method::Decisions => Some((DType::F64, flat)),
            Method::Probabilities if !self.has_probabilities() => None,
            Method::Probabilities if self.is_binary() => Some((DType::F64, vec![2])),
            Method::Probabilities => Some((DType::F64, vec![self.groups])),
        }
    }

    fn answer(&self, rows: Rows<'_>, method: Method, outputs: &mut Outputs) -> Evaluated {
        let Some((_, dims)) = self.output(method) else {
            return Err(BackendError::Internal("this booster has no probabilities".into()));
        };
        let out = outputs.numbers::<f64>(shape(rows.count, &dims)?);
        match method {
            Method::Predict => self.predict(rows, out),
            Method::Decisions => self.scores(rows, out),
            Method::Probabilities => self.probabilities(rows, out),
        }
        Ok(())
    }

    fn classes(&self) -> Vec<String> {
        let count = if self.is_binary() { 2 } else { self.groups };
        if self.has_probabilities() { booster::counted(count).to_texts() } else { Vec::new() }
    }

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Vec<Output>> {
        let said = self.draw_prediction(sketch, rows)?;
        let probabilities = self.has_probabilities().then(|| match self.is_binary() {
            true => (sketch.pair(said), 2),
            false => (said, self.groups),
        });
        Ok(booster::drawn_outputs((said, vec![self.groups]), probabilities))
    }
}
