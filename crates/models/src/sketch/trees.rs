//! Trees of any library as a sketch has them: plain bounds on columns.
//!
//! Two things that libraries' trees know are not bounds: zeros that count as missing, and sets of categories. Each
//! becomes a column of its own behind the row's, made before the trees, and a bound on that column.
//!
//! Not here: how trees are walked (`crate::trees`).

use std::collections::BTreeMap;

use super::{Binary, Drawn, Sketch, TreeNode, Trees, Unary, Wire, undrawn};

/// Nodes of all trees of a sketch.
const NODES_MAX: usize = 1 << 26;
/// Cells of all sets of categories.
const SETS_MAX: usize = 1 << 26;

/// A column that a split looks at and no row has.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Derived {
    /// The column, zeros being missing.
    ZeroMissing(u32),
    /// 1 for categories of the set (bits of words), else 0; the other way round where members go left.
    Member {
        column: u32,
        words: Vec<u32>,
        members_left: bool,
        /// Values must be above it to be a category.
        low: f64,
    },
}

/// Trees and the columns they need. The nodes of a tree lie together, its first node first.
#[derive(Debug, Default)]
pub(crate) struct Plain {
    pub(crate) nodes: Vec<TreeNode>,
    pub(crate) roots: Vec<u32>,
    pub(crate) derived: Vec<Derived>,
    /// Columns of a row.
    pub(crate) columns: usize,
}

impl Plain {
    /// The column of what is derived.
    pub(crate) fn derive(&mut self, derived: Derived) -> u32 {
        let known = matches!(derived, Derived::ZeroMissing(_));
        let found = known.then(|| self.derived.iter().position(|own| *own == derived)).flatten();
        let at = found.unwrap_or_else(|| {
            self.derived.push(derived);
            self.derived.len() - 1
        });
        (self.columns + at) as u32
    }

    /// The row's columns and the derived ones.
    fn widen(&self, sketch: &mut Sketch, table: Wire) -> Drawn<Wire> {
        let mut tables = vec![table];
        let mut members: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        let mut places = vec![0; self.derived.len()];
        let mut next = 0;
        for (index, derived) in self.derived.iter().enumerate() {
            match derived {
                Derived::ZeroMissing(column) => {
                    let own = sketch.column(table, *column as usize);
                    let (is_zero, missing) = (sketch.test(Binary::Equal, own, 0.0), sketch.number(f64::NAN));
                    tables.push(sketch.choose(is_zero, missing, own));
                    places[index] = next;
                    next += 1;
                }
                Derived::Member { column, .. } => members.entry(*column).or_default().push(index),
            }
        }
        for (column, all) in members {
            tables.push(self.draw_members(sketch, table, column, &all)?);
            for index in all {
                places[index] = next;
                next += 1;
            }
        }
        let wide = sketch.join(&tables);
        if places.iter().copied().eq(0..places.len()) {
            return Ok(wide);
        }
        // Derived columns in the order in which splits number them.
        let order: Vec<usize> =
            (0..self.columns).chain(places.into_iter().map(|place| self.columns + place)).collect();
        Ok(sketch.columns(wide, &order))
    }

    /// The sets over one column: `[rows, sets]`.
    fn draw_members(&self, sketch: &mut Sketch, table: Wire, column: u32, all: &[usize]) -> Drawn<Wire> {
        let sets: Vec<(&[u32], bool, f64)> = all
            .iter()
            .filter_map(|index| match &self.derived[*index] {
                Derived::Member { words, members_left, low, .. } => {
                    Some((words.as_slice(), *members_left, *low))
                }
                Derived::ZeroMissing(_) => None,
            })
            .collect();
        let bits = sets.iter().map(|(words, ..)| words.len() * 32).max().unwrap_or(0);
        if (bits + 1).saturating_mul(sets.len()) > SETS_MAX {
            return undrawn("sets of categories that are too large");
        }
        // A row for each category, and one for what is none of them.
        let mut cells = Vec::with_capacity((bits + 1) * sets.len());
        for category in 0..=bits {
            for (words, members_left, _) in &sets {
                let word = words.get(category / 32).filter(|_| category < bits);
                let is_member = word.is_some_and(|word| word >> (category % 32) & 1 == 1);
                cells.push(f64::from(u8::from(is_member != *members_left)));
            }
        }
        let said = sketch.numbers(&[bits + 1, sets.len()], cells);
        let own = sketch.column(table, column as usize);
        let low = sets.first().map_or(-1.0, |(.., low)| *low);
        let (above, limit) = (sketch.test(Binary::Greater, own, low), sketch.number(bits as f64));
        let below = sketch.binary(Binary::Less, own, limit);
        let is_category = sketch.binary(Binary::And, above, below);
        let place = sketch.choose(is_category, own, limit);
        let place = sketch.at_least(place, 0.0);
        let place = sketch.unary(Unary::Floor, place);
        let place = sketch.unary(Unary::Whole, place);
        let picked = sketch.pick(said, place, 0);
        let picked = sketch.shape(picked, &[-1, sets.len() as i64]);
        let is_missing = sketch.unary(Unary::IsMissing, own);
        Ok(sketch.choose(is_missing, own, picked))
    }

    /// Numbers leaves one after the other; `said` hears of each, by tree and its own number.
    fn renumbered(&self, mut said: impl FnMut(usize, u32)) -> Vec<TreeNode> {
        let mut nodes = self.nodes.clone();
        let mut count = 0;
        for (tree, root) in self.roots.iter().enumerate() {
            let end = self.roots.get(tree + 1).map_or(nodes.len(), |next| *next as usize);
            for node in &mut nodes[*root as usize..end] {
                if let TreeNode::Leaf(number) = node {
                    said(tree, *number);
                    *number = count;
                    count += 1;
                }
            }
        }
        nodes
    }

    fn check(&self) -> Drawn<()> {
        if self.nodes.len() > NODES_MAX {
            return undrawn(format!("trees of more than {NODES_MAX} nodes"));
        }
        Ok(())
    }

    /// The sum of one number from each tree, by the tree's target: `[rows, width]`.
    pub(crate) fn sums(
        &self,
        sketch: &mut Sketch,
        table: Wire,
        width: usize,
        target: impl Fn(usize) -> usize,
        weight: impl Fn(usize, u32) -> f64,
    ) -> Drawn<Wire> {
        self.check()?;
        if self.roots.is_empty() {
            return self.nothing(sketch, table, width);
        }
        let wide = self.widen(sketch, table)?;
        let mut weights = Vec::new();
        let nodes = self.renumbered(|tree, number| weights.push(weight(tree, number)));
        let targets = (0..self.roots.len()).map(|tree| target(tree) as u32).collect();
        Ok(sketch.trees(wide, Trees { nodes, roots: self.roots.clone(), targets, weights, width }))
    }

    /// The sum of `width` numbers from each tree: `[rows, width]`.
    pub(crate) fn vectors(
        &self,
        sketch: &mut Sketch,
        table: Wire,
        width: usize,
        mut says: impl FnMut(usize, u32, &mut Vec<f64>),
    ) -> Drawn<Wire> {
        self.check()?;
        if self.roots.is_empty() {
            return self.nothing(sketch, table, width);
        }
        let mut values = Vec::new();
        // What leaves say is looked up and added.
        let places = self.leaves(sketch, table, |tree, number| says(tree, number, &mut values))?;
        let leaves = values.len() / width.max(1);
        let values = sketch.numbers(&[leaves, width], values);
        let said = sketch.pick(values, places, 0);
        let sums = sketch.sum(said, 1);
        Ok(sketch.shape(sums, &[-1, width as i64]))
    }

    /// The leaf of each tree that a row is in, `[rows, trees]`, in the order in which `said` hears of all leaves.
    pub(crate) fn leaves(
        &self,
        sketch: &mut Sketch,
        table: Wire,
        mut said: impl FnMut(usize, u32),
    ) -> Drawn<Wire> {
        self.check()?;
        let wide = self.widen(sketch, table)?;
        let mut leaves = 0_u32;
        let nodes = self.renumbered(|tree, number| {
            leaves += 1;
            said(tree, number);
        });
        let count = self.roots.len();
        // Each tree tells which leaf a row is in.
        let trees = Trees {
            nodes,
            roots: self.roots.clone(),
            targets: (0..count as u32).collect(),
            weights: (0..leaves).map(f64::from).collect(),
            width: count,
        };
        let places = sketch.trees(wide, trees);
        Ok(sketch.unary(Unary::Whole, places))
    }

    /// Zeros, for no trees at all.
    fn nothing(&self, sketch: &mut Sketch, table: Wire, width: usize) -> Drawn<Wire> {
        let first = sketch.column(table, 0);
        let (missing, zeros) = (sketch.unary(Unary::IsMissing, first), sketch.row(&vec![0.0; width]));
        Ok(sketch.choose(missing, zeros, zeros))
    }
}
