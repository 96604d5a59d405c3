//! Exact Shapley values of tree ensembles.
//!
//! A leaf with value `v` is a product game: when a set of columns is known, it counts `v` times a factor for each
//! column on its path, `one` for a known column (1 if the row goes this way, else 0) and `zero` for an unknown one
//! (path-dependent: the share of training rows that went this way; interventional: 1 if the background row does).
//! The Shapley value of column `i` in such a game is
//! `v (one_i - zero_i) ∫₀¹ Π_{j≠i} (t one_j + (1-t) zero_j) dt`, a polynomial that a Gauss–Legendre rule with half
//! as many points as columns integrates exactly. Walking down, each point keeps the product of factors; walking up,
//! it keeps the sum of the leaves' products below, so that a tree costs `nodes × points`, whatever its depth
//! (the idea of Linear TreeSHAP, Yu et al. 2022, in the form of an integral).
//!
//! Not here: which trees, scales and outputs a model has (`sklearn`, `xgboost`, `lightgbm`).

use super::quadrature::Quadrature;
use super::{Background, Explain, Explanation, check};
use crate::backend::BackendError;

/// Deeper trees are not explained: the walk's memory and stack grow with the depth.
const DEPTH_MAX: usize = 512;
/// In `left`: no children.
pub(crate) const LEAF: u32 = u32::MAX;

/// One tree as a model's file tells it. All per-node lists have the same length.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tree {
    pub(crate) left: Vec<u32>,
    pub(crate) right: Vec<u32>,
    pub(crate) feature: Vec<u32>,
    /// A value goes left if it is not greater.
    pub(crate) threshold: Vec<f64>,
    /// Whether missing values go left.
    pub(crate) missing_left: Vec<bool>,
    /// The weight of training rows that came by.
    pub(crate) cover: Vec<f64>,
    /// `nodes × width` numbers, of which those of leaves count.
    pub(crate) values: Vec<f64>,
    /// Numbers at a leaf.
    pub(crate) width: usize,
    /// The first output that they belong to.
    pub(crate) output: usize,
}

/// Trees whose answers are added.
#[derive(Debug, Clone)]
pub(crate) struct Forest {
    trees: Vec<(Tree, usize)>,
    features: usize,
    outputs: usize,
    start: Vec<f64>,
    /// Values are rounded to `f32` before they are compared.
    single: bool,
    rules: Vec<Quadrature>,
}

impl Forest {
    /// An empty sum that begins with `start`, one number for each output.
    pub(crate) fn new(features: usize, start: Vec<f64>, single: bool) -> Self {
        Self { trees: Vec::new(), features, outputs: start.len(), start, single, rules: Vec::new() }
    }

    /// Adds a tree after checking that it is one.
    pub(crate) fn add(&mut self, tree: Tree) -> Result<(), String> {
        let depth = self.checked_depth(&tree)?;
        // A path has at most `depth` different columns, and one of them is the one asked for.
        let points = depth.min(self.features).div_ceil(2).max(1);
        while self.rules.len() < points {
            self.rules.push(Quadrature::new(self.rules.len() + 1));
        }
        self.trees.push((tree, points));
        Ok(())
    }

    fn checked_depth(&self, tree: &Tree) -> Result<usize, String> {
        let count = tree.left.len();
        let same = [tree.right.len(), tree.feature.len(), tree.threshold.len(), tree.cover.len()];
        if count == 0
            || same.iter().any(|len| *len != count)
            || tree.missing_left.len() != count
            || tree.width == 0
            || tree.values.len() != count * tree.width
            || tree.output + tree.width > self.outputs
        {
            return Err("lists of different lengths".into());
        }
        let (mut deepest, mut seen) = (0, 0);
        let mut open = vec![(0_usize, 0_usize)];
        while let Some((node, depth)) = open.pop() {
            seen += 1;
            if seen > count {
                return Err("its nodes form no tree".into());
            }
            if depth > DEPTH_MAX {
                return Err(format!("deeper than {DEPTH_MAX} levels"));
            }
            deepest = deepest.max(depth);
            if tree.left[node] == LEAF {
                continue;
            }
            for child in [tree.left[node] as usize, tree.right[node] as usize] {
                if child >= count {
                    return Err("a child that does not exist".into());
                }
                open.push((child, depth + 1));
            }
            if tree.feature[node] as usize >= self.features {
                return Err("a split on a column that does not exist".into());
            }
        }
        Ok(deepest)
    }

    /// Adds the values of one row to `values` (`features × outputs`), against the share of rows (`None`) or a row.
    fn explain_row(&self, row: &[f64], against: Option<&[f64]>, work: &mut Work, values: &mut [f64]) {
        for (tree, points) in &self.trees {
            let rule = &self.rules[points - 1];
            work.reset(self.features, *points, tree.width);
            let mut walk = Walk { tree, rule, row, against, outputs: self.outputs, values, work };
            walk.down(0, 0);
        }
    }

    /// Adds what the trees say of one row to `out`.
    fn predict(&self, row: &[f64], out: &mut [f64]) {
        for (tree, _) in &self.trees {
            let mut node = 0;
            while tree.left[node] != LEAF {
                node = if tree.goes_left(node, row) { tree.left[node] } else { tree.right[node] } as usize;
            }
            tree.add_leaf(node, 1.0, out);
        }
    }

    /// What the trees say when nothing is known, by the training rows' shares.
    fn expected(&self) -> Vec<f64> {
        let mut base = self.start.clone();
        for (tree, _) in &self.trees {
            let mut open = vec![(0_usize, 1.0)];
            while let Some((node, share)) = open.pop() {
                if tree.left[node] == LEAF {
                    tree.add_leaf(node, share, &mut base);
                    continue;
                }
                for child in [tree.left[node], tree.right[node]] {
                    open.push((child as usize, share * tree.share(node, child as usize)));
                }
            }
        }
        base
    }

    fn cast(&self, row: &[f64]) -> Vec<f64> {
        row.iter().map(|value| if self.single { f64::from(*value as f32) } else { *value }).collect()
    }
}

impl Explain for Forest {
    fn features(&self) -> usize {
        self.features
    }

    fn method(&self) -> &'static str {
        "tree"
    }

    fn explain(
        &self,
        rows: &[f64],
        count: usize,
        background: Option<&Background>,
    ) -> Result<Explanation, BackendError> {
        check(rows, count, self.features, background)?;
        let size = self.features * self.outputs;
        let mut values = vec![0.0; count * size];
        let mut work = Work::default();
        let against: Option<Vec<Vec<f64>>> =
            background.map(|background| background.iter().map(|row| self.cast(row)).collect());
        for index in 0..count {
            let row = self.cast(&rows[index * self.features..(index + 1) * self.features]);
            let values = &mut values[index * size..(index + 1) * size];
            match &against {
                None => self.explain_row(&row, None, &mut work, values),
                Some(against) => {
                    for other in against {
                        self.explain_row(&row, Some(other), &mut work, values);
                    }
                    values.iter_mut().for_each(|value| *value /= against.len() as f64);
                }
            }
        }
        let base = match &against {
            None => self.expected(),
            Some(against) => {
                let mut base = vec![0.0; self.outputs];
                against.iter().for_each(|row| self.predict(row, &mut base));
                let mean = |(sum, start): (&f64, &f64)| sum / against.len() as f64 + start;
                base.iter().zip(&self.start).map(mean).collect()
            }
        };
        Ok(Explanation { outputs: self.outputs, base, values })
    }
}

impl Tree {
    fn goes_left(&self, node: usize, row: &[f64]) -> bool {
        let value = row[self.feature[node] as usize];
        if value.is_nan() { self.missing_left[node] } else { value <= self.threshold[node] }
    }

    /// The share of a node's training rows that went to a child.
    fn share(&self, node: usize, child: usize) -> f64 {
        if self.cover[node] > 0.0 { self.cover[child] / self.cover[node] } else { 0.5 }
    }

    fn add_leaf(&self, node: usize, share: f64, out: &mut [f64]) {
        let says = &self.values[node * self.width..(node + 1) * self.width];
        out[self.output..].iter_mut().zip(says).for_each(|(slot, value)| *slot += share * value);
    }
}

/// Memory of a walk, reused from tree to tree.
#[derive(Debug, Default)]
struct Work {
    /// For each column, the factors of the path so far: known, unknown.
    factors: Vec<(f64, f64)>,
    /// By depth and point: the product of all columns' factors.
    products: Vec<f64>,
    /// By depth, point and output: the sum of the leaves' products below.
    sums: Vec<f64>,
}

impl Work {
    fn reset(&mut self, features: usize, points: usize, width: usize) {
        self.factors.resize(features, (1.0, 1.0));
        self.products.clear();
        self.products.resize(points, 1.0);
        self.sums.clear();
        self.sums.resize(points * width, 0.0);
    }
}

struct Walk<'a> {
    tree: &'a Tree,
    rule: &'a Quadrature,
    row: &'a [f64],
    against: Option<&'a [f64]>,
    outputs: usize,
    values: &'a mut [f64],
    work: &'a mut Work,
}

impl Walk<'_> {
    /// Fills the sums of this depth with those of the node.
    fn down(&mut self, node: usize, depth: usize) {
        let (points, width) = (self.rule.points.len(), self.tree.width);
        let block = points * width;
        if self.tree.left[node] == LEAF {
            let says = &self.tree.values[node * width..(node + 1) * width];
            let products = &self.work.products[depth * points..(depth + 1) * points];
            let sums = &mut self.work.sums[depth * block..(depth + 1) * block];
            for (sums, product) in sums.chunks_exact_mut(width).zip(products) {
                sums.iter_mut().zip(says).for_each(|(sum, value)| *sum = product * value);
            }
            return;
        }
        self.work.products.resize(self.work.products.len().max((depth + 2) * points), 0.0);
        self.work.sums.resize(self.work.sums.len().max((depth + 2) * block), 0.0);
        self.work.sums[depth * block..(depth + 1) * block].fill(0.0);
        let left = self.tree.goes_left(node, self.row);
        let other_left = self.against.map(|other| self.tree.goes_left(node, other));
        let children = [(self.tree.left[node] as usize, true), (self.tree.right[node] as usize, false)];
        for (child, is_left) in children {
            let known = f64::from(u8::from(left == is_left));
            let unknown = match other_left {
                Some(other) => f64::from(u8::from(other == is_left)),
                None => self.tree.share(node, child),
            };
            self.edge(node, child, depth, (known, unknown));
        }
    }

    /// Goes to a child and credits the column of the split for what is below.
    fn edge(&mut self, node: usize, child: usize, depth: usize, step: (f64, f64)) {
        let feature = self.tree.feature[node] as usize;
        let before = self.work.factors[feature];
        let now = (before.0 * step.0, before.1 * step.1);
        if now == (0.0, 0.0) {
            return;
        }
        let (points, width) = (self.rule.points.len(), self.tree.width);
        let block = points * width;
        let factor = |t: f64, (one, zero): (f64, f64)| t * one + (1.0 - t) * zero;
        for (point, t) in self.rule.points.iter().enumerate() {
            let product = self.work.products[depth * points + point];
            self.work.products[(depth + 1) * points + point] = product * factor(*t, now) / factor(*t, before);
        }
        self.work.factors[feature] = now;
        self.down(child, depth + 1);
        self.work.factors[feature] = before;

        let (above, below) = self.work.sums.split_at_mut((depth + 1) * block);
        let above = &mut above[depth * block..];
        above.iter_mut().zip(&below[..block]).for_each(|(sum, add)| *sum += add);
        let start = feature * self.outputs + self.tree.output;
        let values = &mut self.values[start..start + width];
        for (point, below) in below[..block].chunks_exact(width).enumerate() {
            let t = self.rule.points[point];
            let gain = |it: (f64, f64)| (it.0 - it.1) / factor(t, it);
            let weight = self.rule.weights[point] * (gain(now) - gain(before));
            values.iter_mut().zip(below).for_each(|(value, sum)| *value += weight * sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every column is asked in every order, with the definition's own expectations.
    fn brute(forest: &Forest, row: &[f64], against: Option<&[f64]>) -> Vec<f64> {
        let features = forest.features;
        let game = |known: usize| -> f64 {
            let tree = |tree: &Tree| {
                let (mut sum, mut open) = (0.0, vec![(0_usize, 1.0)]);
                while let Some((node, share)) = open.pop() {
                    if tree.left[node] == LEAF {
                        sum += share * tree.values[node];
                        continue;
                    }
                    let (left, right) = (tree.left[node] as usize, tree.right[node] as usize);
                    let way = |row: &[f64]| if tree.goes_left(node, row) { left } else { right };
                    if known >> tree.feature[node] & 1 == 1 {
                        open.push((way(row), share));
                    } else if let Some(other) = against {
                        open.push((way(other), share));
                    } else {
                        open.extend([left, right].map(|child| (child, share * tree.share(node, child))));
                    }
                }
                sum
            };
            forest.trees.iter().map(|(it, _)| tree(it)).sum()
        };
        let factorial = |n: usize| (1..=n).map(|k| k as f64).product::<f64>();
        let mut values = vec![0.0; features];
        for (feature, value) in values.iter_mut().enumerate() {
            for set in (0..1_usize << features).filter(|set| set >> feature & 1 == 0) {
                let size = set.count_ones() as usize;
                let weight = factorial(size) * factorial(features - size - 1) / factorial(features);
                *value += weight * (game(set | 1 << feature) - game(set));
            }
        }
        values
    }

    /// A complete tree over few columns, so that columns come back on a path; numbers from a fixed sequence.
    fn grown(depth: u32, features: u32, mut seed: u64) -> Tree {
        let mut next = move || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 40) as f64 / f64::from(1 << 24)
        };
        let count = (1_usize << (depth + 1)) - 1;
        let inner = (1_usize << depth) - 1;
        let mut tree = Tree { width: 1, ..Tree::default() };
        for node in 0..count {
            let is_leaf = node >= inner;
            tree.left.push(if is_leaf { LEAF } else { 2 * node as u32 + 1 });
            tree.right.push(if is_leaf { LEAF } else { 2 * node as u32 + 2 });
            tree.feature.push((next() * f64::from(features)) as u32);
            tree.threshold.push(next());
            tree.missing_left.push(next() < 0.5);
            tree.values.push(next() - 0.5);
            tree.cover.push(0.0);
        }
        tree.cover[0] = 100.0;
        for node in 0..inner {
            let share = if next() < 0.1 { 0.0 } else { next() };
            tree.cover[2 * node + 1] = tree.cover[node] * share;
            tree.cover[2 * node + 2] = tree.cover[node] * (1.0 - share);
        }
        tree
    }

    #[test]
    fn values_are_those_of_the_definition() {
        for seed in 0..60 {
            let features = 1 + (seed % 6) as usize;
            let mut forest = Forest::new(features, vec![0.25], false);
            for tree in 0..3 {
                forest.add(grown((seed % 7) as u32, features as u32, seed * 3 + tree)).unwrap();
            }
            let row: Vec<f64> =
                (0..features as u64).map(|i| ((seed * 7 + i * 5) % 11) as f64 / 11.0).collect();
            let mut other: Vec<f64> =
                (0..features as u64).map(|i| ((seed + i * 3) % 13) as f64 / 13.0).collect();
            other[0] = f64::NAN;
            let background = Background::new(other.clone(), features).unwrap();
            for background in [None, Some(&background)] {
                let got = forest.explain(&row, 1, background).unwrap();
                let want = brute(&forest, &row, background.map(|_| other.as_slice()));
                for (got, want) in got.values.iter().zip(&want) {
                    assert!((got - want).abs() < 1e-12, "seed {seed}: {got} for {want}");
                }
                let mut says = vec![0.25];
                forest.predict(&row, &mut says);
                let sum = got.base[0] + got.values.iter().sum::<f64>();
                assert!((sum - says[0]).abs() < 1e-12, "seed {seed}: {sum} for {says:?}");
            }
        }
    }

    #[test]
    fn nodes_that_form_no_tree_are_refused() {
        let sound = grown(2, 2, 1);
        let mut cases: Vec<Tree> = vec![sound.clone(); 5];
        cases[0].left[1] = 0;
        cases[1].right[0] = 99;
        cases[2].feature[0] = 2;
        cases[3].values.pop();
        cases[4].output = 1;
        for (index, tree) in cases.into_iter().enumerate() {
            assert!(Forest::new(2, vec![0.0], true).add(tree).is_err(), "case {index}");
        }
        assert!(Forest::new(2, vec![0.0], true).add(sound).is_ok());
    }
}
