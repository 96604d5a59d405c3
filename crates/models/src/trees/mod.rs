//! Ensembles of decision trees, compiled at load and laid out for walking.
//!
//! A forest is compiled twice. `nodes` is for few rows and for large trees: one array of small nodes, walked for
//! several rows (or, where there are few rows, through several trees) at once. `blend` is for batches and trees of
//! some hundred leaves: values become ranks of one byte, and a tree decides 64 rows in as many steps as it has
//! splits, with whatever vector instructions the processor has. Both find the same leaves, and a caller adds up
//! what they say tree by tree for every row, whatever the number of rows and the kind of walk: sums come out the
//! same to the bit. Rows are taken in blocks that stay in cache while tree after tree passes.
//!
//! Measurements and what else was tried: docs/adr/0017.
//!
//! Not here: what the leaves add up to, and the files (`sklearn`, `xgboost`, `lightgbm`, `catboost`).

mod blend;
mod cell;
mod nodes;
#[cfg(test)]
mod tests;

use std::ops::AddAssign;

pub(crate) use cell::Cell;

use crate::sketch::{Derived, Plain, TreeNode};
use blend::Blend;
use cell::INDEX_MAX;
use nodes::{
    Ahead, CATEGORIES, COLUMN, MEMBERS_LEFT, MISSING, MISSING_LEFT, Node, Nodes, PLAIN, SPECIAL, Sets, Wide,
    ZERO_MISSING, by_size, of_row, of_tree, slice,
};

/// The most columns an ensemble may have; one more is the leaves'.
pub(crate) const COLUMNS_MAX: usize = COLUMN as usize;
/// Words of all sets of categories: nodes of a small file can name one large set many times.
const WORDS_MAX: usize = 1 << 26;
/// How many rows are walked together.
const LANES: usize = 16;
/// How many trees are walked together.
const TREES: usize = 10;
/// Fewer rows are walked one by one, several trees at once.
const ROWS_MIN: usize = 12;
/// From how many rows on ranks pay for being made.
const BLEND_MIN: usize = 8;
/// Bytes of a block of rows: a block and a tree stay in the second cache.
const BLOCK_BYTES: usize = 1 << 19;
/// Cells that a thread keeps between calls.
const CELLS_KEPT_MAX: usize = 1 << 20;

/// A node as a file has it.
pub(crate) enum Raw<'a, X> {
    /// A leaf and its number, which the visitor gets.
    Leaf(u32),
    /// A split; children are indices in the file's order.
    Split { column: usize, test: Test<'a, X>, missing: Missing, left: usize, right: usize },
}

/// What decides a split.
pub(crate) enum Test<'a, X> {
    /// Values up to it go left.
    AtMost(X),
    /// Categories whose bit is set go right.
    MembersRight(&'a [u32]),
    /// Categories whose bit is set go left.
    MembersLeft(&'a [u32]),
}

/// Where missing values go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Missing {
    pub(crate) left: bool,
    /// Whether zero is missing too.
    pub(crate) zero_too: bool,
}

/// Where a tree's nodes start, and how many splits are on its longest way.
#[derive(Debug, Clone, Copy)]
struct Tree {
    start: u32,
    depth: u32,
}

/// Numbers of leaves that were found.
enum Found<'a> {
    /// By rows from the first one on, of one tree.
    Rows { first: usize, tree: usize, leaves: &'a [u32] },
    /// By trees from the first one on, of one row.
    Trees { row: usize, first: usize, leaves: &'a [u32] },
}

/// Trees in one table.
pub(crate) struct Forest<X> {
    nodes: Nodes<X>,
    trees: Vec<Tree>,
    sets: Sets,
    columns: usize,
    is_special: bool,
    blend: Option<Box<Blend<X>>>,
}

impl<X: Cell> Forest<X> {
    /// No trees yet, over so many columns.
    pub(crate) fn new(columns: usize) -> Self {
        Self {
            nodes: Nodes::Narrow(Vec::new()),
            trees: Vec::new(),
            sets: Sets::default(),
            columns: columns.min(COLUMNS_MAX),
            is_special: false,
            blend: None,
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.trees.len()
    }

    pub(crate) fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// Keeps the first trees only.
    pub(crate) fn truncate(&mut self, trees: usize) {
        if trees < self.trees.len() {
            self.nodes.truncate(self.trees[trees].start as usize);
            self.trees.truncate(trees);
            self.finish();
        }
    }

    /// Compiles what is walked in batches. Without it all answers are the same, but slower.
    pub(crate) fn finish(&mut self) {
        self.nodes.shrink_to_fit();
        self.trees.shrink_to_fit();
        self.blend = Blend::new(self).map(Box::new);
    }

    /// For one row alone, from measurements: a level takes 3 ns where the nodes lie in the second cache, more where
    /// they do not. Rows in batches take a third of it or less.
    pub(crate) fn row_cost_ns(&self) -> u64 {
        let levels = (self.nodes.len() / self.trees.len().max(1)).max(2).ilog2() + 1;
        let level_ns = match self.nodes.bytes() {
            0..=0xf_ffff => 3,
            0x10_0000..=0x3f_ffff => 6,
            _ => 11,
        };
        self.trees.len() as u64 * u64::from(levels) * level_ns + 100
    }

    /// Adds a tree of `count` nodes whose root is node 0. What forms no tree is an error that names the node.
    pub(crate) fn add<'a>(
        &mut self,
        count: usize,
        mut node: impl FnMut(usize) -> Result<Raw<'a, X>, String>,
    ) -> Result<(), String> {
        if count == 0 {
            return Err("it has no nodes".into());
        }
        let Some(start) = self.nodes.len().checked_add(count).and_then(|end| u32::try_from(end).ok()) else {
            return Err("more than 2^32 nodes".into());
        };
        let mut tree = Tree { start: start - count as u32, depth: 0 };
        // Breadth first, so that children come after their parents.
        // What a file only claims costs little.
        let room = count.min(1 << 16);
        let (mut placed, mut order) = (Vec::with_capacity(room), Vec::with_capacity(room));
        placed.push(Wide::default());
        order.push(0_usize);
        let mut level_end = 1;
        for to in 0.. {
            let Some(from) = order.get(to).copied() else { break };
            if to == level_end {
                tree.depth += 1;
                level_end = placed.len();
            }
            let left = placed.len() as u32;
            placed[to] = match node(from)? {
                Raw::Leaf(number) if number > INDEX_MAX => return Err("more than 2^30 leaves".into()),
                Raw::Leaf(number) => Wide {
                    threshold: X::of_index(number),
                    word: MISSING_LEFT | self.columns as u32,
                    left: to as u32,
                },
                Raw::Split { column, test, missing, left: first, right: second } => {
                    if placed.len() + 2 > count {
                        return Err(format!("node {from}: its nodes form no tree"));
                    }
                    if first >= count || second >= count {
                        return Err(format!("node {from}: a child that does not exist"));
                    }
                    if column >= self.columns {
                        return Err(format!("node {from}: a split on column {column} of {}", self.columns));
                    }
                    placed.extend([Wide::default(); 2]);
                    order.extend([first, second]);
                    let mut word = column as u32;
                    if missing.left {
                        word |= MISSING_LEFT;
                    }
                    if missing.zero_too {
                        word |= ZERO_MISSING;
                        self.is_special = true;
                    }
                    let threshold =
                        self.threshold(test, &mut word).map_err(|what| format!("node {from}: {what}"))?;
                    Wide { threshold, word, left }
                }
            };
        }
        self.trees.push(tree);
        self.nodes.extend(&by_size(&placed));
        Ok(())
    }

    /// The nodes of a tree, whatever their kind.
    fn tree(&self, tree: usize) -> Vec<Wide<X>> {
        let end = self.trees.get(tree + 1).map_or(self.nodes.len(), |next| next.start as usize);
        self.nodes.tree(self.trees[tree].start as usize..end)
    }

    /// The trees as a sketch has them.
    pub(crate) fn plain(&self) -> Plain {
        let mut plain = Plain { columns: self.columns, ..Plain::default() };
        for tree in 0..self.trees.len() {
            let base = plain.nodes.len() as u32;
            plain.roots.push(base);
            for (at, node) in self.tree(tree).into_iter().enumerate() {
                if node.left as usize == at {
                    plain.nodes.push(TreeNode::Leaf(node.threshold.index()));
                    continue;
                }
                let mut column = node.word & COLUMN;
                let mut threshold = node.threshold.wide();
                if node.word & CATEGORIES != 0 {
                    let words = self.sets.of(node.threshold.index()).to_vec();
                    let members_left = node.word & MEMBERS_LEFT != 0;
                    column = plain.derive(Derived::Member { column, words, members_left, low: X::LOW });
                    threshold = 0.5;
                } else if node.word & ZERO_MISSING != 0 {
                    column = plain.derive(Derived::ZeroMissing(column));
                }
                let missing_left = node.word & MISSING_LEFT != 0;
                let (left, right) = (base + node.left, base + node.left + 1);
                plain.nodes.push(TreeNode::Split { column, threshold, missing_left, left, right });
            }
        }
        plain
    }

    fn threshold(&mut self, test: Test<'_, X>, word: &mut u32) -> Result<X, String> {
        let members = match test {
            Test::AtMost(threshold) => return Ok(threshold),
            Test::MembersRight(members) => members,
            Test::MembersLeft(members) => {
                *word |= MEMBERS_LEFT;
                members
            }
        };
        if self.sets.words() + members.len() > WORDS_MAX {
            return Err("the sets of categories are too large".into());
        }
        *word |= CATEGORIES;
        self.is_special = true;
        Ok(X::of_index(self.sets.add(members)))
    }

    /// Calls `visit` with the row, the tree and the leaf's number, for each row in the order of the trees. `fill`
    /// writes a row's columns; where it fails, the walk ends, and some rows may have been visited.
    pub(crate) fn walk<E>(
        &self,
        count: usize,
        fill: impl FnMut(usize, &mut [X]) -> Result<(), E>,
        mut visit: impl FnMut(usize, usize, u32),
    ) -> Result<(), E> {
        self.walk_groups(count, fill, |found| match found {
            Found::Rows { first, tree, leaves } => {
                leaves.iter().enumerate().for_each(|(row, leaf)| visit(first + row, tree, *leaf));
            }
            Found::Trees { row, first, leaves } => {
                leaves.iter().enumerate().for_each(|(tree, leaf)| visit(row, first + tree, *leaf));
            }
        })
    }

    /// Adds to each row's sums what its leaves say, in the order of the trees. A leaf's number is its place in `says`.
    pub(crate) fn add_up<const WIDTH: usize, V: Copy + AddAssign, E>(
        &self,
        count: usize,
        fill: impl FnMut(usize, &mut [X]) -> Result<(), E>,
        says: &[[V; WIDTH]],
        sums: &mut [[V; WIDTH]],
    ) -> Result<(), E> {
        let add = |sum: &mut [V; WIDTH], leaf: u32| {
            sum.iter_mut().zip(says[leaf as usize]).for_each(|(slot, value)| *slot += value);
        };
        self.walk_groups(count, fill, |found| match found {
            Found::Rows { first, leaves, .. } => {
                leaves.iter().zip(&mut sums[first..]).for_each(|(leaf, sum)| add(sum, *leaf));
            }
            Found::Trees { row, leaves, .. } => {
                // In registers: through memory each addition would wait longer for the one before it.
                let mut sum = sums[row];
                leaves.iter().for_each(|leaf| add(&mut sum, *leaf));
                sums[row] = sum;
            }
        })
    }

    fn walk_groups<E>(
        &self,
        count: usize,
        mut fill: impl FnMut(usize, &mut [X]) -> Result<(), E>,
        mut visit: impl FnMut(Found<'_>),
    ) -> Result<(), E> {
        let mut outcome = Ok(());
        let mut fill = |row: usize, cells: &mut [X]| {
            outcome = fill(row, cells);
            outcome.is_ok()
        };
        self.walk_blocks(count, &mut fill, &mut visit);
        outcome
    }

    /// All of a walk that need not be compiled for each model's way of adding up.
    fn walk_blocks(
        &self,
        count: usize,
        fill: &mut dyn FnMut(usize, &mut [X]) -> bool,
        found: &mut dyn FnMut(Found<'_>),
    ) {
        // Behind the last column is the one that leaves look at.
        let stride = self.columns + 1;
        let block = (BLOCK_BYTES / size_of::<X>() / stride).max(LANES).min(count);
        X::with_scratch(|cells| {
            if cells.len() < block * stride {
                cells.resize(block * stride, X::MISSING);
            }
            for first in (0..count).step_by(block.max(1)) {
                let rows = block.min(count - first);
                let cells = &mut cells[..rows * stride];
                let mut has_missing = false;
                for (row, cells) in cells.chunks_exact_mut(stride).enumerate() {
                    let (columns, last) = cells.split_at_mut(stride - 1);
                    if !fill(first + row, columns) {
                        return;
                    }
                    has_missing |= columns.iter().fold(false, |is, value| is | value.is_missing());
                    last[0] = X::MISSING;
                }
                match &self.blend {
                    Some(blend) if rows >= BLEND_MIN => blend.walk(cells, stride, first, found),
                    _ => self.walk_block(cells, has_missing, first, found),
                }
            }
        });
    }

    fn walk_block(&self, cells: &[X], has_missing: bool, first: usize, found: &mut dyn FnMut(Found<'_>)) {
        match (&self.nodes, self.is_special, has_missing) {
            (Nodes::Narrow(nodes), false, false) => self.walk_nodes::<PLAIN, _>(nodes, cells, first, found),
            (Nodes::Narrow(nodes), ..) => self.walk_nodes::<MISSING, _>(nodes, cells, first, found),
            (Nodes::Wide(nodes), false, false) => self.walk_nodes::<PLAIN, _>(nodes, cells, first, found),
            (Nodes::Wide(nodes), false, true) => self.walk_nodes::<MISSING, _>(nodes, cells, first, found),
            (Nodes::Wide(nodes), true, _) => self.walk_nodes::<SPECIAL, _>(nodes, cells, first, found),
        }
    }

    /// Walks rows of which the first is number `first`.
    fn walk_nodes<const MODE: u8, N: Node<X>>(
        &self,
        nodes: &[N],
        cells: &[X],
        first: usize,
        found: &mut dyn FnMut(Found<'_>),
    ) {
        let stride = self.columns + 1;
        let count = cells.len() / stride;
        let row = |index: usize| &cells[index * stride..(index + 1) * stride];
        if count < ROWS_MIN {
            for index in 0..count {
                self.walk_row::<MODE, N>(nodes, row(index), first + index, found);
            }
            return;
        }
        for tree in 0..self.trees.len() {
            let (own, depth) = (slice(nodes, &self.trees, tree), self.trees[tree].depth);
            // While this tree is walked, the next one comes into the cache.
            let next = slice(nodes, &self.trees, (tree + 1).min(self.trees.len() - 1));
            let mut ahead = Ahead::new(next, count.div_ceil(LANES));
            for start in (0..count).step_by(LANES) {
                ahead.fetch();
                // Behind the last row it is walked again, for nobody.
                let rows = std::array::from_fn(|lane| row((start + lane).min(count - 1)));
                let leaves: [u32; LANES] = of_tree::<MODE, LANES, X, N>(own, rows, depth, &self.sets);
                let leaves = &leaves[..LANES.min(count - start)];
                found(Found::Rows { first: first + start, tree, leaves });
            }
        }
    }

    /// One row through several trees at a time.
    fn walk_row<const MODE: u8, N: Node<X>>(
        &self,
        nodes: &[N],
        cells: &[X],
        row: usize,
        found: &mut dyn FnMut(Found<'_>),
    ) {
        for (first, trees) in (0..).step_by(TREES).zip(self.trees.chunks(TREES)) {
            // Behind the last tree it is walked again, for nobody.
            let last = trees.len() - 1;
            let roots = std::array::from_fn(|lane| trees[lane.min(last)].start);
            let depth = trees.iter().map(|tree| tree.depth).max().unwrap_or(0);
            let leaves = of_row::<MODE, TREES, X, N>(nodes, roots, cells, depth, &self.sets);
            found(Found::Trees { row, first, leaves: &leaves[..trees.len()] });
        }
    }
}
