//! Decision trees, compiled for walking.
//!
//! All trees of an ensemble lie in one array of 16-byte nodes with a node's two children side by side, so a
//! step is one load, one comparison and one addition, without a branch that could be mispredicted; several
//! trees are walked at once, so that their loads overlap. A leaf points to itself.
//!
//! scikit-learn compares a `f32` feature with a `f64` threshold. For a threshold `t`, `x <= t` holds for a
//! `f32` exactly when `x <= t'`, with `t'` the greatest `f32` that is not above `t`: storing `t'` halves the
//! node and changes no answer.
//!
//! Not here: what leaves add up to (`forest`, `boost`).

use super::attrs::Attrs;
use super::{Evaluated, Rows};
use crate::array::NdArray;
use crate::backend::BackendError;
use crate::error::{LoadError, Result};
use crate::graph::View;

/// Set in a node's feature when missing values go left.
const MISSING_LEFT: u32 = 1 << 31;
/// Set in a node's feature when members of a set of categories go left.
const CATEGORIES: u32 = 1 << 30;
/// A node's feature without the flags.
const FEATURE: u32 = CATEGORIES - 1;
/// How many trees are walked together.
const LANES: usize = 8;

/// The type of a column's values: `f32` as scikit-learn's trees compare them, `f64` as histogram boosting does.
pub(super) trait Cell: Copy + PartialOrd + Default + Send + Sync + 'static {
    /// Nothing is greater.
    const INFINITY: Self;

    /// Casts a value.
    fn of(value: f64) -> Self;

    /// The threshold that decides values of this type as `t` does.
    fn threshold(t: f64) -> Self;

    /// The category that a value means.
    fn category(self) -> u8;
}

impl Cell for f32 {
    const INFINITY: Self = f32::INFINITY;

    fn of(value: f64) -> Self {
        value as f32
    }

    fn threshold(t: f64) -> Self {
        round_down(t)
    }

    fn category(self) -> u8 {
        self as u8
    }
}

impl Cell for f64 {
    const INFINITY: Self = f64::INFINITY;

    fn of(value: f64) -> Self {
        value
    }

    fn threshold(t: f64) -> Self {
        t
    }

    fn category(self) -> u8 {
        self as u8
    }
}

/// Which values a model refuses.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) enum Refuses {
    /// Infinite ones, and missing ones unless a tree was made for them.
    #[default]
    Infinite,
    /// None.
    Nothing,
}

#[derive(Debug, Clone, Copy, Default)]
struct Node<X> {
    threshold: X,
    feature: u32,
    /// The left child; the right one follows it. A leaf's own index.
    left: u32,
    /// A leaf's place in the values, in units of the width; the number of a split's set.
    leaf: u32,
}

/// Trees in one array.
#[derive(Debug, Default)]
pub(super) struct Trees<X = f32> {
    nodes: Vec<Node<X>>,
    roots: Vec<u32>,
    sets: Vec<[u32; 8]>,
    /// What each leaf says: `width` numbers.
    values: Vec<f64>,
    width: usize,
    features: usize,
    missing_allowed: bool,
    refuses: Refuses,
}

/// A fitted `sklearn.tree._tree.Tree` before it is compiled.
pub(super) struct RawTree {
    pub(super) left: Vec<i64>,
    pub(super) right: Vec<i64>,
    pub(super) feature: Vec<i64>,
    pub(super) threshold: Vec<f64>,
    pub(super) missing_left: Option<Vec<i64>>,
    /// The categories that go left, for splits on categories.
    pub(super) sets: Option<Vec<Option<[u32; 8]>>>,
    /// `nodes × outputs × classes` numbers.
    pub(super) values: Vec<f64>,
    pub(super) outputs: usize,
    /// Classes, or 1 for regression.
    pub(super) classes: usize,
}

impl RawTree {
    /// Reads the attribute `tree_` of a tree estimator.
    pub(super) fn read(attrs: &Attrs<'_>) -> Result<Self> {
        let tree = attrs.req("tree_")?;
        let error = |what: &str| LoadError::attribute(attrs.class.clone(), format!("tree_: {what}"));
        let nodes = tree.attr("nodes").and_then(View::array).ok_or_else(|| error("no nodes"))?;
        let values = tree.attr("values").and_then(View::array).ok_or_else(|| error("no values"))?;
        let ints = |name: &str| nodes.field_i64s(name).ok_or_else(|| error(&format!("no node field {name}")));
        let count = nodes.len();
        let (outputs, classes) = match values.shape.as_slice() {
            [of, outputs, classes] if *of == count => (*outputs, *classes),
            shape => return Err(error(&format!("values of shape {shape:?} for {count} nodes"))),
        };
        let raw = Self {
            left: ints("left_child")?,
            right: ints("right_child")?,
            feature: ints("feature")?,
            threshold: nodes.field_f64s("threshold").ok_or_else(|| error("no node field threshold"))?,
            missing_left: nodes.field_i64s("missing_go_to_left"),
            sets: None,
            values: NdArray::to_f64s(values).ok_or_else(|| error("values that are no numbers"))?,
            outputs,
            classes,
        };
        if count == 0 || raw.values.len() != count * outputs * classes || outputs * classes == 0 {
            return Err(error("it has no nodes"));
        }
        Ok(raw)
    }

    fn width(&self) -> usize {
        self.outputs * self.classes
    }
}

impl<X: Cell> Trees<X> {
    /// An empty ensemble whose leaves say `width` numbers each.
    pub(super) fn new(features: usize, width: usize) -> Self {
        Self { features, width, ..Self::default() }
    }

    /// Takes every value, as histogram boosting does.
    pub(super) fn refuse_nothing(mut self) -> Self {
        self.refuses = Refuses::Nothing;
        self.missing_allowed = true;
        self
    }

    pub(super) fn count(&self) -> usize {
        self.roots.len()
    }

    pub(super) fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// From measurements: some 2 ns a level with the tables in cache.
    pub(super) fn row_cost_ns(&self) -> u64 {
        let levels = (self.nodes.len() / self.roots.len().max(1)).max(2).ilog2() + 1;
        self.roots.len() as u64 * u64::from(levels) * 2
    }

    /// Adds a tree. `scale` multiplies every leaf.
    pub(super) fn add(&mut self, raw: &RawTree, scale: f64) -> Result<(), String> {
        if raw.width() != self.width {
            return Err(format!("a tree with {} values at a leaf, expected {}", raw.width(), self.width));
        }
        self.missing_allowed |= raw.missing_left.is_some();
        let room = u32::try_from(self.nodes.len() + raw.left.len() * 2).is_ok();
        if !room {
            return Err("more than 2^31 nodes".into());
        }
        // Breadth first: the levels near the root, which every row touches, lie together.
        let root = self.nodes.len();
        self.roots.push(root as u32);
        self.nodes.push(Node::default());
        let mut queue = std::collections::VecDeque::from([(0_usize, root)]);
        let mut placed = 1;
        while let Some((from, to)) = queue.pop_front() {
            let (left, right) = (raw.left[from], raw.right[from]);
            if left < 0 {
                self.leaf(raw, from, to, scale);
                continue;
            }
            placed += 2;
            if placed > raw.left.len() {
                return Err("its nodes form no tree".into());
            }
            let child = |index: i64| usize::try_from(index).ok().filter(|index| *index < raw.left.len());
            let (Some(left), Some(right)) = (child(left), child(right)) else {
                return Err("a child that does not exist".into());
            };
            let feature = usize::try_from(raw.feature[from]).ok().filter(|feature| *feature < self.features);
            let Some(feature) = feature else { return Err("a split on a column that does not exist".into()) };
            let missing = raw.missing_left.as_ref().is_some_and(|missing| missing[from] != 0);
            let set = raw.sets.as_ref().and_then(|sets| sets.get(from).copied().flatten());
            let (mut flags, mut number) = (if missing { MISSING_LEFT } else { 0 }, 0);
            if let Some(set) = set {
                flags |= CATEGORIES;
                number = self.sets.len() as u32;
                self.sets.push(set);
            }
            let at = self.nodes.len();
            self.nodes.extend([Node::default(); 2]);
            self.nodes[to] = Node {
                threshold: X::threshold(raw.threshold[from]),
                feature: feature as u32 | flags,
                left: at as u32,
                leaf: number,
            };
            queue.extend([(left, at), (right, at + 1)]);
        }
        Ok(())
    }

    fn leaf(&mut self, raw: &RawTree, from: usize, to: usize, scale: f64) {
        let leaf = (self.values.len() / self.width) as u32;
        let says = &raw.values[from * self.width..(from + 1) * self.width];
        self.values.extend(says.iter().map(|value| value * scale));
        // Nothing is greater than infinity, and missing values go left: a leaf always leads to itself.
        self.nodes[to] = Node { threshold: X::INFINITY, feature: MISSING_LEFT, left: to as u32, leaf };
    }

    /// Calls `visit` with each row's index, each tree's index in order, and what the tree says.
    pub(super) fn walk(&self, rows: Rows<'_>, mut visit: impl FnMut(usize, usize, &[f64])) -> Evaluated {
        // Rows of usual width are cast on the stack.
        let mut few = [X::default(); 64];
        let mut many = Vec::new();
        // A split needs a column to look at even in a model without any.
        let width = rows.width.max(1);
        let row = if width <= few.len() {
            &mut few[..width]
        } else {
            many.resize(width, X::default());
            &mut many[..]
        };
        for (index, values) in rows.iter().enumerate() {
            for (slot, value) in row.iter_mut().zip(values) {
                *slot = X::of(*value);
            }
            if self.has_missing(row, index)? || !self.sets.is_empty() {
                self.walk_row::<true>(row, |tree, says| visit(index, tree, says));
            } else {
                self.walk_row::<false>(row, |tree, says| visit(index, tree, says));
            }
        }
        Ok(())
    }

    /// Whether values of the row are missing; an error if the model refuses some.
    fn has_missing(&self, row: &[X], index: usize) -> Evaluated<bool> {
        let (mut missing, mut infinite) = (false, false);
        for value in row {
            missing |= is_nan(*value);
            infinite |= *value == X::INFINITY || *value == X::of(f64::NEG_INFINITY);
        }
        if infinite && self.refuses == Refuses::Infinite {
            let what = "Input X contains infinity or a value too large for dtype('float32')";
            return Err(BackendError::Input(format!("{what} (row {index})")));
        }
        if missing && !self.missing_allowed {
            return Err(BackendError::Input(format!("Input X contains NaN (row {index})")));
        }
        Ok(missing)
    }

    fn walk_row<const MISSING: bool>(&self, row: &[X], mut visit: impl FnMut(usize, &[f64])) {
        let mut groups = self.roots.chunks_exact(LANES);
        let mut tree = 0;
        for roots in &mut groups {
            let mut at = [0_u32; LANES];
            at.copy_from_slice(roots);
            loop {
                let mut moved = 0;
                for lane in &mut at {
                    let next = self.step::<MISSING>(*lane, row);
                    moved |= next ^ *lane;
                    *lane = next;
                }
                if moved == 0 {
                    break;
                }
            }
            for lane in at {
                visit(tree, self.says(lane));
                tree += 1;
            }
        }
        for root in groups.remainder() {
            let mut at = *root;
            loop {
                let next = self.step::<MISSING>(at, row);
                if next == at {
                    break;
                }
                at = next;
            }
            visit(tree, self.says(at));
            tree += 1;
        }
    }

    #[inline(always)]
    fn step<const MISSING: bool>(&self, at: u32, row: &[X]) -> u32 {
        let node = &self.nodes[at as usize];
        let value = row[(node.feature & FEATURE) as usize];
        let mut right = value > node.threshold;
        if MISSING && is_nan(value) {
            right = node.feature & MISSING_LEFT == 0;
        } else if MISSING && node.feature & CATEGORIES != 0 {
            let (set, category) = (&self.sets[node.leaf as usize], value.category());
            right = set[usize::from(category / 32)] >> (category % 32) & 1 == 0;
        }
        node.left + u32::from(right)
    }

    #[inline(always)]
    fn says(&self, at: u32) -> &[f64] {
        let start = self.nodes[at as usize].leaf as usize * self.width;
        &self.values[start..start + self.width]
    }
}

/// Only what is missing differs from itself.
#[allow(clippy::eq_op)]
fn is_nan<X: Cell>(value: X) -> bool {
    value != value
}

/// The greatest `f32` that is not above `t`.
fn round_down(t: f64) -> f32 {
    let near = t as f32;
    if f64::from(near) > t { near.next_down() } else { near }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounded_thresholds_decide_like_exact_ones() {
        let thresholds =
            [0.8, 1.75, 4.950000047683716, 1e-46, -1e-46, 0.1, -0.1, 1e39, -1e39, 0.0, f64::INFINITY];
        for t in thresholds {
            let down = round_down(t);
            let near = t as f32;
            for x in [
                near.next_down(),
                near,
                near.next_up(),
                0.0,
                -0.0,
                1.0,
                f32::MAX,
                f32::MIN,
                f32::MIN_POSITIVE,
            ] {
                assert_eq!(x > down, f64::from(x) > t, "{x} against {t}");
            }
        }
    }

    fn raw(left: Vec<i64>, right: Vec<i64>, feature: Vec<i64>) -> RawTree {
        let count = left.len();
        let values = vec![1.0; count];
        RawTree {
            left,
            right,
            feature,
            threshold: vec![0.5; count],
            missing_left: None,
            sets: None,
            values,
            outputs: 1,
            classes: 1,
        }
    }

    #[test]
    fn nodes_that_form_no_tree_are_refused() {
        let cases = [
            ("a loop", raw(vec![0], vec![0], vec![0])),
            ("a child too far", raw(vec![1, -1, -1], vec![9, -1, -1], vec![0, 0, 0])),
            ("a negative child", raw(vec![1, -1, -1], vec![-5, -1, -1], vec![0, 0, 0])),
            ("a column too far", raw(vec![1, -1, -1], vec![2, -1, -1], vec![3, 0, 0])),
            ("shared children", raw(vec![1, 1, -1], vec![1, 1, -1], vec![0, 0, 0])),
        ];
        for (name, tree) in cases {
            assert!(Trees::<f32>::new(2, 1).add(&tree, 1.0).is_err(), "{name}");
        }
    }
}
