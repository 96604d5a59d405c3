//! The operators over tree ensembles: attributes in, rows of scores out.
//!
//! Not here: the walking (`trees`).

use std::collections::HashMap;

use models::LoadError;

use super::attrs::{Attrs, Labels};
use super::post::{Post, Single, pair};
use super::trees::{Aggregate, Cell, Forest, Mode, Split, To, Trees};
use super::value::{Budget, Cells, Failed, Value};
use super::{Op, Operator};
use crate::proto::Elem;

type Result<T> = std::result::Result<T, LoadError>;

/// The trees for `float` rows and for `double` rows; the second is made when a graph has such.
struct Ensemble {
    single: Trees<f32>,
    double: Trees<f64>,
}

impl Ensemble {
    fn new(attrs: Attrs<'_>, forest: &Forest, targets: usize) -> Result<Self> {
        Ok(Self {
            single: Trees::compile(attrs, forest, targets)?,
            double: Trees::compile(attrs, forest, targets)?,
        })
    }

    /// Calls `each` for every row with its index; the scores are of the row's own element type.
    fn rows(
        &self,
        input: &Value,
        budget: &mut Budget,
        single: impl FnMut(usize, &[f32]),
        double: impl FnMut(usize, &[f64]),
    ) -> std::result::Result<(), Failed> {
        let (rows, width) = input.table()?;
        if width < self.single.width {
            return Err(format!("rows of {width} columns, the trees ask for {}", self.single.width));
        }
        budget.claim(&[rows, width])?;
        let each = |count: usize| (0..count).map(move |row| row * width..(row + 1) * width);
        match &input.cells {
            Cells::F64(cells) => each(rows).map(|at| &cells[at]).enumerate().for_each(of_pair(double)),
            _ => {
                let cells = input.to_f32s()?;
                each(rows).map(|at| &cells[at]).enumerate().for_each(of_pair(single));
            }
        }
        Ok(())
    }
}

fn of_pair<'a, X: 'a>(mut each: impl FnMut(usize, &[X])) -> impl FnMut((usize, &'a [X])) {
    move |(index, row)| each(index, row)
}

fn mode_of(attrs: Attrs<'_>, name: &str) -> Result<Option<Mode>> {
    Ok(Some(match name {
        "BRANCH_LEQ" => Mode::Leq,
        "BRANCH_LT" => Mode::Lt,
        "BRANCH_GTE" => Mode::Gte,
        "BRANCH_GT" => Mode::Gt,
        "BRANCH_EQ" => Mode::Eq,
        "BRANCH_NEQ" => Mode::Neq,
        "LEAF" => return Ok(None),
        other => return Err(attrs.unsupported(format!("the node mode {other:?}"))),
    }))
}

/// Reads the attributes of the two older operators; `prefix` is `class` or `target`.
fn read(attrs: Attrs<'_>, prefix: &str) -> Result<Forest> {
    let trees = attrs.ints("nodes_treeids")?;
    let ids = attrs.ints("nodes_nodeids")?;
    let features = attrs.ints("nodes_featureids")?;
    let yes = attrs.ints("nodes_truenodeids")?;
    let no = attrs.ints("nodes_falsenodeids")?;
    let modes = attrs.texts("nodes_modes")?;
    let values = attrs.numbers("nodes_values")?;
    let missing = attrs.ints("nodes_missing_value_tracks_true")?;
    let count = trees.len();
    let same = [ids.len(), features.len(), yes.len(), no.len(), modes.len(), values.len()];
    if count == 0 || same.iter().any(|len| *len != count) || !(missing.is_empty() || missing.len() == count) {
        return Err(attrs.error("its lists of nodes are empty or differ in length"));
    }
    let modes = modes.iter().map(|mode| mode_of(attrs, mode)).collect::<Result<Vec<_>>>()?;
    // The place of each node among the splits or among the leaves.
    let mut places = HashMap::with_capacity(count);
    let (mut splits, mut leaves) = (0, 0);
    for index in 0..count {
        let next = if modes[index].is_some() { &mut splits } else { &mut leaves };
        let to = if modes[index].is_some() { To::Node(*next) } else { To::Leaf(*next) };
        *next += 1;
        if places.insert((trees[index], ids[index]), to).is_some() {
            return Err(
                attrs.error(format!("the node {} of tree {} is there twice", ids[index], trees[index]))
            );
        }
    }
    let mut forest =
        Forest { splits: Vec::with_capacity(splits), leaves: vec![Vec::new(); leaves], roots: Vec::new() };
    let mut with_parent = std::collections::HashSet::with_capacity(count);
    for index in 0..count {
        let Some(mode) = modes[index] else { continue };
        let mut child = |id: i64| {
            with_parent.insert((trees[index], id));
            let found = places.get(&(trees[index], id)).copied();
            found.ok_or_else(|| attrs.error(format!("tree {} has no node {id}", trees[index])))
        };
        forest.splits.push(Split {
            mode,
            feature: usize::try_from(features[index]).map_err(|_| attrs.error("a negative column"))?,
            threshold: values[index],
            yes: child(yes[index])?,
            no: child(no[index])?,
            missing_yes: missing.get(index) == Some(&1),
        });
    }
    let mut last = None;
    for index in 0..count {
        if !with_parent.contains(&(trees[index], ids[index])) {
            if last == Some(trees[index]) {
                return Err(attrs.error(format!("tree {} has two roots", trees[index])));
            }
            last = Some(trees[index]);
            forest.roots.push(places[&(trees[index], ids[index])]);
        }
    }
    let leaf_trees = attrs.ints(&format!("{prefix}_treeids"))?;
    let leaf_nodes = attrs.ints(&format!("{prefix}_nodeids"))?;
    let targets = attrs.ints(&format!("{prefix}_ids"))?;
    let weights = attrs.numbers(&format!("{prefix}_weights"))?;
    if [leaf_nodes.len(), targets.len(), weights.len()].iter().any(|len| *len != leaf_trees.len()) {
        return Err(attrs.error("its lists of leaves differ in length"));
    }
    for index in 0..leaf_trees.len() {
        let target = usize::try_from(targets[index]).map_err(|_| attrs.error("a negative target"))?;
        match places.get(&(leaf_trees[index], leaf_nodes[index])) {
            Some(To::Leaf(leaf)) => forest.leaves[*leaf].push((target, weights[index])),
            // Weights at inner nodes are never reached.
            Some(To::Node(_)) => {}
            None => {
                return Err(
                    attrs.error(format!("weights for a node {} that does not exist", leaf_nodes[index]))
                );
            }
        }
    }
    Ok(forest)
}

struct Classifier {
    trees: Ensemble,
    labels: Labels,
    post: Post,
    base: Vec<f64>,
    /// Two classes with weights for one: the other's score follows from it.
    binary: bool,
    single: Single,
}

/// `TreeEnsembleClassifier`.
pub(crate) fn classifier(attrs: Attrs<'_>) -> Result<Op> {
    let forest = read(attrs, "class")?;
    let labels = Labels::read(attrs)?;
    let targets = labels.len().max(2);
    let spoken: std::collections::HashSet<usize> =
        forest.leaves.iter().flatten().map(|(target, _)| *target).collect();
    let weights = attrs.numbers("class_weights")?;
    let single = if weights.iter().all(|weight| *weight >= 0.0) { Single::Share } else { Single::Margin };
    let trees = Ensemble::new(attrs, &forest, targets)?;
    let binary = labels.len() == 2 && spoken.len() == 1;
    let base = attrs.numbers("base_values")?;
    if base.len() > targets {
        return Err(attrs.error("more base values than classes"));
    }
    Ok(Box::new(Classifier { trees, labels, post: Post::read(attrs)?, base, binary, single }))
}

impl Classifier {
    /// The row's class; its scores are left in `scores`, one or two of two.
    fn finish<X: Cell>(&self, scores: &mut [X], has: &[bool], out: &mut [f32]) -> usize {
        let base = |at: usize| X::of(self.base.get(at).copied().unwrap_or(0.0));
        if self.labels.len() > 2 {
            for (at, score) in scores.iter_mut().enumerate().take(self.base.len()) {
                *score += base(at);
            }
            let has = |at: usize| has[at] || at < self.base.len();
            let mut best = None;
            for (at, score) in scores.iter().enumerate() {
                if has(at) && best.is_none_or(|best: usize| *score > scores[best]) {
                    best = Some(at);
                }
            }
            out.iter_mut().zip(&*scores).for_each(|(slot, score)| *slot = score.single());
            self.post.apply(out);
            return best.unwrap_or(0);
        }
        self.finish_two(scores, has, base, out)
    }

    fn finish_two<X: Cell>(
        &self,
        scores: &mut [X],
        has: &[bool],
        base: impl Fn(usize) -> X,
        out: &mut [f32],
    ) -> usize {
        let mut both = has[1];
        match self.base.len() {
            2 if has[1] && !has[0] => {
                scores[1] += base(1);
                out[0] = -scores[1].single();
                out[1] = scores[1].single();
                self.post.apply(out);
                return usize::from(self.is_positive(scores[1]));
            }
            2 => {
                scores[0] += base(0);
                scores[1] += base(1);
                both = true;
            }
            1 => scores[0] += base(0),
            _ => {}
        }
        if !both {
            let positive = self.is_positive(scores[0]);
            let single = if self.binary { self.single } else { Single::Margin };
            out.copy_from_slice(&pair(self.post, single, scores[0].single()));
            return usize::from(positive && self.labels.len() == 2);
        }
        let positive = self.is_positive(scores[1]);
        let picked = if self.binary || self.labels.len() < 2 {
            usize::from(positive)
        } else {
            usize::from(scores[1] > scores[0])
        };
        out[0] = scores[0].single();
        out[1] = scores[1].single();
        self.post.apply(out);
        picked.min(self.labels.len() - 1)
    }

    fn is_positive<X: Cell>(&self, score: X) -> bool {
        let bound = if self.binary && self.single == Single::Share { 0.5 } else { 0.0 };
        score > X::of(bound)
    }
}

impl Operator for Classifier {
    fn run(&self, inputs: &[Option<&Value>], budget: &mut Budget) -> std::result::Result<Vec<Value>, Failed> {
        let input = inputs.first().copied().flatten().ok_or("an input is missing")?;
        let (rows, _) = input.table()?;
        let width = self.labels.len().max(2);
        let mut out = vec![0_f32; budget.claim(&[rows, width])?];
        let mut picks = vec![0_usize; budget.claim(&[rows])?];
        let shared = std::cell::RefCell::new((&mut out, &mut picks));
        let (mut scores, mut has) = (vec![0_f32; width], vec![false; width]);
        let (mut scores64, mut has64) = (vec![0_f64; width], vec![false; width]);
        self.trees.rows(
            input,
            budget,
            |at, row| {
                self.trees.single.sum(row, &mut scores, &mut has);
                let (out, picks) = &mut *shared.borrow_mut();
                picks[at] = self.finish(&mut scores, &has, &mut out[at * width..(at + 1) * width]);
            },
            |at, row| {
                self.trees.double.sum(row, &mut scores64, &mut has64);
                let (out, picks) = &mut *shared.borrow_mut();
                picks[at] = self.finish(&mut scores64, &has64, &mut out[at * width..(at + 1) * width]);
            },
        )?;
        Ok(vec![self.labels.pick(&picks), Value::f32s(&[rows, width], out)])
    }

    fn cost_ns(&self) -> u64 {
        self.trees.single.count() as u64 * 20
    }

    fn classes(&self) -> Vec<String> {
        self.labels.shown()
    }

    fn detail(&self) -> String {
        format!(
            "{} trees, {} nodes, {} classes",
            self.trees.single.count(),
            self.trees.single.nodes(),
            self.labels.len()
        )
    }
}

struct Regressor {
    trees: Ensemble,
    targets: usize,
    aggregate: Aggregate,
    post: Post,
    base: Vec<f64>,
    /// `TreeEnsemble` answers in the type of its input, the older operator in `float`.
    keeps_type: bool,
}

/// `TreeEnsembleRegressor`.
pub(crate) fn regressor(attrs: Attrs<'_>) -> Result<Op> {
    let forest = read(attrs, "target")?;
    let aggregate = match attrs.text_or("aggregate_function", "SUM")? {
        "SUM" => Aggregate::Sum,
        "AVERAGE" => Aggregate::Average,
        "MIN" => Aggregate::Min,
        "MAX" => Aggregate::Max,
        other => return Err(attrs.unsupported(format!("aggregate_function {other:?}"))),
    };
    let spoken = forest.leaves.iter().flatten().map(|(target, _)| target + 1).max().unwrap_or(1);
    let targets = attrs.int_or("n_targets", spoken as i64)?;
    regressor_of(attrs, &forest, targets, aggregate, Post::read(attrs)?, attrs.numbers("base_values")?, false)
}

fn regressor_of(
    attrs: Attrs<'_>,
    forest: &Forest,
    targets: i64,
    aggregate: Aggregate,
    post: Post,
    base: Vec<f64>,
    keeps_type: bool,
) -> Result<Op> {
    let targets = usize::try_from(targets).ok().filter(|count| (1..1 << 20).contains(count));
    let targets = targets.ok_or_else(|| attrs.error("n_targets out of range"))?;
    let trees = Ensemble::new(attrs, forest, targets)?;
    if !base.is_empty() && base.len() != targets {
        return Err(attrs.error(format!("{} base values for {targets} targets", base.len())));
    }
    Ok(Box::new(Regressor { trees, targets, aggregate, post, base, keeps_type }))
}

impl Regressor {
    fn finish<X: Cell>(&self, scores: &mut [X]) {
        for (score, base) in scores.iter_mut().zip(&self.base) {
            *score += X::of(*base);
        }
        // With one target the runtime knows only the probit.
        if self.targets > 1 || self.post == Post::Probit {
            let mut single: Vec<f32> = scores.iter().map(|score| score.single()).collect();
            if self.post != Post::None {
                self.post.apply(&mut single);
                scores.iter_mut().zip(single).for_each(|(slot, score)| *slot = X::of(f64::from(score)));
            }
        }
    }
}

impl Operator for Regressor {
    fn run(&self, inputs: &[Option<&Value>], budget: &mut Budget) -> std::result::Result<Vec<Value>, Failed> {
        let input = inputs.first().copied().flatten().ok_or("an input is missing")?;
        let (rows, _) = input.table()?;
        let width = self.targets;
        let is_double = input.elem == Elem::F64;
        let count = budget.claim(&[rows, width])?;
        let mut out = vec![0_f32; if is_double { 0 } else { count }];
        let mut out64 = vec![0_f64; if is_double { count } else { 0 }];
        let (mut has, mut has64) = (vec![false; width], vec![false; width]);
        self.trees.rows(
            input,
            budget,
            |at, row| {
                let scores = &mut out[at * width..(at + 1) * width];
                self.trees.single.aggregate(self.aggregate, row, scores, &mut has);
                self.finish(scores);
            },
            |at, row| {
                let scores = &mut out64[at * width..(at + 1) * width];
                self.trees.double.aggregate(self.aggregate, row, scores, &mut has64);
                self.finish(scores);
            },
        )?;
        let dims = [rows, width];
        Ok(vec![match (is_double, self.keeps_type) {
            (false, _) => Value::f32s(&dims, out),
            (true, true) => Value::f64s(&dims, out64),
            (true, false) => Value::f32s(&dims, out64.into_iter().map(|x| x as f32).collect()),
        }])
    }

    fn cost_ns(&self) -> u64 {
        self.trees.single.count() as u64 * 20
    }

    fn detail(&self) -> String {
        format!(
            "{} trees, {} nodes, {} targets",
            self.trees.single.count(),
            self.trees.single.nodes(),
            self.targets
        )
    }
}

/// `TreeEnsemble`, of ONNX-ML 5.
pub(crate) fn unified(attrs: Attrs<'_>) -> Result<Op> {
    let tensor = |name: &str| -> Result<Value> {
        attrs.tensor(name)?.ok_or_else(|| attrs.error(format!("the attribute {name} is missing")))
    };
    let failed = |what: Failed| attrs.error(what);
    let features = attrs.ints("nodes_featureids")?;
    let modes = tensor("nodes_modes")?;
    let modes = modes.to_ints().map_err(failed)?;
    let splits = tensor("nodes_splits")?;
    let splits = splits.to_f64s().map_err(failed)?;
    let (yes, no) = (attrs.ints("nodes_truenodeids")?, attrs.ints("nodes_falsenodeids")?);
    let (yes_leaf, no_leaf) = (attrs.ints("nodes_trueleafs")?, attrs.ints("nodes_falseleafs")?);
    let missing = attrs.ints("nodes_missing_value_tracks_true")?;
    let count = features.len();
    let lengths = [modes.len(), splits.len(), yes.len(), no.len(), yes_leaf.len(), no_leaf.len()];
    if count == 0
        || lengths.iter().any(|len| *len != count)
        || !(missing.is_empty() || missing.len() == count)
    {
        return Err(attrs.error("its lists of nodes are empty or differ in length"));
    }
    let to = |id: i64, leaf: i64| {
        let id = usize::try_from(id).map_err(|_| attrs.error("a negative child"))?;
        Ok::<_, LoadError>(if leaf == 1 { To::Leaf(id) } else { To::Node(id) })
    };
    let mut forest = Forest::default();
    for index in 0..count {
        let mode = match modes[index] {
            0 => Mode::Leq,
            1 => Mode::Lt,
            2 => Mode::Gte,
            3 => Mode::Gt,
            4 => Mode::Eq,
            5 => Mode::Neq,
            other => return Err(attrs.unsupported(format!("the node mode {other}"))),
        };
        forest.splits.push(Split {
            mode,
            feature: usize::try_from(features[index]).map_err(|_| attrs.error("a negative column"))?,
            threshold: splits[index],
            yes: to(yes[index], yes_leaf[index])?,
            no: to(no[index], no_leaf[index])?,
            missing_yes: missing.get(index) == Some(&1),
        });
    }
    let weights = tensor("leaf_weights")?;
    let weights = weights.to_f64s().map_err(failed)?;
    let targets = attrs.ints("leaf_targetids")?;
    if targets.len() != weights.len() {
        return Err(attrs.error("its lists of leaves differ in length"));
    }
    for (target, weight) in targets.iter().zip(weights.iter()) {
        let target = usize::try_from(*target).map_err(|_| attrs.error("a negative target"))?;
        forest.leaves.push(vec![(target, *weight)]);
    }
    for root in attrs.ints("tree_roots")? {
        forest.roots.push(to(*root, 0)?);
    }
    let aggregate = match attrs.int_or("aggregate_function", 1)? {
        0 => Aggregate::Average,
        1 => Aggregate::Sum,
        2 => Aggregate::Min,
        3 => Aggregate::Max,
        other => return Err(attrs.unsupported(format!("aggregate_function {other}"))),
    };
    let post = Post::of_number(attrs, attrs.int_or("post_transform", 0)?)?;
    regressor_of(attrs, &forest, attrs.int_or("n_targets", 1)?, aggregate, post, Vec::new(), true)
}
