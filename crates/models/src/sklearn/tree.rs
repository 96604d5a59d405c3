//! Decision trees and what their leaves say.
//!
//! scikit-learn compares a `f32` feature with a `f64` threshold. For a threshold `t`, `x <= t` holds for a
//! `f32` exactly when `x <= t'`, with `t'` the greatest `f32` that is not above `t`: storing `t'` halves the
//! node and changes no answer.
//!
//! Not here: how trees are walked (`crate::trees`), what leaves add up to (`forest`, `boost`).

use super::attrs::Attrs;
use super::{Evaluated, Rows};
use crate::array::NdArray;
use crate::backend::BackendError;
use crate::error::{LoadError, Result};
use crate::graph::View;
use crate::sketch::{Drawn, Frame, Sketch, Unary, Wire};
use crate::trees::{self, Forest, Missing, Raw, Test};

/// Places that remember leaves that were added before; a power of two.
const RECENT: usize = 1 << 10;

/// The type of a column's values: `f32` as scikit-learn's trees compare them, `f64` as histogram boosting does.
pub(super) trait Cell: trees::Cell {
    /// Whether values are rounded to 32 bits.
    const IS_SINGLE: bool;

    /// Casts a value.
    fn of(value: f64) -> Self;

    /// The threshold that decides values of this type as `t` does.
    fn threshold(t: f64) -> Self;

    /// Whether it is neither missing nor finite.
    fn is_infinite(self) -> bool;
}

impl Cell for f32 {
    const IS_SINGLE: bool = true;

    fn of(value: f64) -> Self {
        value as f32
    }

    fn threshold(t: f64) -> Self {
        round_down(t)
    }

    fn is_infinite(self) -> bool {
        f32::is_infinite(self)
    }
}

impl Cell for f64 {
    const IS_SINGLE: bool = false;

    fn of(value: f64) -> Self {
        value
    }

    fn threshold(t: f64) -> Self {
        t
    }

    fn is_infinite(self) -> bool {
        f64::is_infinite(self)
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

/// Trees and what their leaves say.
pub(super) struct Trees<X = f32> {
    forest: Forest<X>,
    /// What each leaf says: `width` numbers.
    values: Vec<f64>,
    width: usize,
    missing_allowed: bool,
    refuses: Refuses,
    /// Numbers of leaves that were added lately, by the hash of what they say; empty when all trees are there.
    recent: Vec<u32>,
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
        Self {
            forest: Forest::new(features),
            values: Vec::new(),
            width,
            missing_allowed: false,
            refuses: Refuses::default(),
            recent: Vec::new(),
        }
    }

    /// Takes every value, as histogram boosting does.
    pub(super) fn refuse_nothing(mut self) -> Self {
        self.refuses = Refuses::Nothing;
        self.missing_allowed = true;
        self
    }

    pub(super) fn count(&self) -> usize {
        self.forest.count()
    }

    pub(super) fn nodes(&self) -> usize {
        self.forest.nodes()
    }

    pub(super) fn row_cost_ns(&self) -> u64 {
        self.forest.row_cost_ns()
    }

    /// Adds a tree. `scale` multiplies every leaf.
    pub(super) fn add(&mut self, raw: &RawTree, scale: f64) -> Result<(), String> {
        if raw.width() != self.width {
            return Err(format!("a tree with {} values at a leaf, expected {}", raw.width(), self.width));
        }
        self.missing_allowed |= raw.missing_left.is_some();
        let Self { forest, values, width, recent, .. } = self;
        recent.resize(RECENT, u32::MAX);
        forest.add(raw.left.len(), |node| {
            if raw.left[node] < 0 {
                let says = raw.values[node * *width..(node + 1) * *width].iter().map(|value| value * scale);
                return Ok(Raw::Leaf(leaf(values, recent, *width, says)));
            }
            // A number that is no index is one that no node and no column has.
            let index = |value: i64| usize::try_from(value).unwrap_or(usize::MAX);
            let set = raw.sets.as_ref().and_then(|sets| sets.get(node)?.as_ref());
            Ok(Raw::Split {
                column: index(raw.feature[node]),
                test: match set {
                    Some(set) => Test::MembersLeft(set),
                    None => Test::AtMost(X::threshold(raw.threshold[node])),
                },
                missing: Missing {
                    left: raw.missing_left.as_ref().is_some_and(|missing| missing[node] != 0),
                    zero_too: false,
                },
                left: index(raw.left[node]),
                right: index(raw.right[node]),
            })
        })
    }

    /// All trees are there.
    pub(super) fn finish(mut self) -> Self {
        self.forest.finish();
        self.values.shrink_to_fit();
        self.recent = Vec::new();
        self
    }

    /// Calls `visit` with each row's index, each tree's index in order, and what the tree says.
    pub(super) fn walk(&self, rows: Rows<'_>, mut visit: impl FnMut(usize, usize, &[f64])) -> Evaluated {
        let width = self.width;
        self.forest.walk(rows.count, self.filler(rows), |row, tree, leaf| {
            visit(row, tree, &self.values[leaf as usize * width..][..width]);
        })
    }

    /// Adds what all trees say, `WIDTH` numbers each, to each row's numbers, in the order of the trees.
    pub(super) fn add_up<const WIDTH: usize>(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        debug_assert_eq!(self.width, WIDTH);
        let (says, sums) = (self.values.as_chunks().0, out.as_chunks_mut::<WIDTH>().0);
        self.forest.add_up(rows.count, self.filler(rows), says, sums)
    }

    /// Writes a row's cells, or says why the model refuses it.
    fn filler<'a>(&'a self, rows: Rows<'a>) -> impl FnMut(usize, &mut [X]) -> Evaluated + 'a {
        debug_assert!(self.recent.is_empty(), "a forest that is not finished");
        move |index, cells| {
            let row = &rows.data[index * rows.width..(index + 1) * rows.width];
            let (mut missing, mut infinite) = (false, false);
            for (slot, value) in cells.iter_mut().zip(row) {
                *slot = X::of(*value);
                missing |= slot.is_missing();
                infinite |= slot.is_infinite();
            }
            self.check(missing, infinite, index)
        }
    }

    /// An error if the model refuses such a row.
    fn check(&self, missing: bool, infinite: bool, row: usize) -> Evaluated {
        if infinite && self.refuses == Refuses::Infinite {
            let what = "Input X contains infinity or a value too large for dtype('float32')";
            return Err(BackendError::Input(format!("{what} (row {row})")));
        }
        if missing && !self.missing_allowed {
            return Err(BackendError::Input(format!("Input X contains NaN (row {row})")));
        }
        Ok(())
    }

    fn draw_table(sketch: &mut Sketch, rows: &Frame) -> Drawn<Wire> {
        let table = rows.table(sketch)?;
        Ok(if X::IS_SINGLE { sketch.unary(Unary::Single, table) } else { table })
    }

    /// Draws the sum of what the trees say: `[rows, width]`.
    pub(super) fn draw_sums(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Wire> {
        let table = Self::draw_table(sketch, rows)?;
        let width = self.width;
        if width == 1 {
            return self.forest.plain().sums(sketch, table, 1, |_| 0, |_, leaf| self.values[leaf as usize]);
        }
        self.forest.plain().vectors(sketch, table, width, |_, leaf, out| {
            out.extend_from_slice(&self.values[leaf as usize * width..][..width]);
        })
    }

    /// Draws sums of one number a tree, the trees taking turns among `groups` scores.
    pub(super) fn draw_groups(&self, sketch: &mut Sketch, rows: &Frame, groups: usize) -> Drawn<Wire> {
        let table = Self::draw_table(sketch, rows)?;
        let weight = |_, leaf: u32| self.values[leaf as usize * self.width];
        self.forest.plain().sums(sketch, table, groups, |tree| tree % groups, weight)
    }
}

/// The number of a leaf that says this. Many leaves of a forest say the same (that all is of one class): those
/// that were added lately are found again, which saves memory and, at run time, cache.
fn leaf(values: &mut Vec<f64>, recent: &mut [u32], width: usize, says: impl Iterator<Item = f64>) -> u32 {
    let start = values.len();
    values.extend(says);
    let (before, own) = values.split_at(start);
    let hash = own.iter().fold(0_u64, |hash, value| {
        (hash ^ value.to_bits()).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
    });
    let number = (start / width.max(1)) as u32;
    let slot = &mut recent[hash as usize % RECENT];
    let known = before.get(*slot as usize * width..(*slot as usize + 1) * width);
    let same = |known: &[f64]| known.iter().zip(own).all(|(a, b)| a.to_bits() == b.to_bits());
    if known.is_some_and(same) {
        values.truncate(start);
        return *slot;
    }
    *slot = number;
    number
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
