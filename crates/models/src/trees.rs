//! Ensembles of decision trees in one table, laid out for walking.
//!
//! All trees of an ensemble lie in one array of small nodes with a node's two children side by side, so that a
//! step is two loads, a comparison and an addition, without a branch that could be mispredicted. A leaf leads to
//! itself. Several rows are walked through a tree at once (or, where there are few rows, several trees for one
//! row), so that their loads overlap; rows are taken in blocks that stay in cache while tree after tree passes.
//! The order in which leaves are visited is by tree for every row, whatever the number of rows: sums come out
//! the same to the bit.
//!
//! Not here: what the leaves add up to, and the files (`xgboost`, `lightgbm`, `catboost`).
#![allow(unsafe_code)] // Loads without bounds checks in the one inner loop; see `Forest::step`.

/// The columns a node looks at are the low bits of its word.
const COLUMN: u32 = (1 << 27) - 1;
/// Missing values go left.
const MISSING_LEFT: u32 = 1 << 31;
/// The threshold is the number of a set of categories.
const CATEGORIES: u32 = 1 << 30;
/// Members of the set go left; else right.
const MEMBERS_LEFT: u32 = 1 << 29;
/// Zero counts as missing.
const ZERO_MISSING: u32 = 1 << 28;
/// The most columns an ensemble may have.
pub(crate) const COLUMNS_MAX: usize = COLUMN as usize;
/// Words of all sets of categories: nodes of a small file can name one large set many times.
const WORDS_MAX: usize = 1 << 26;
/// How many rows, or trees, are walked together.
const LANES: usize = 8;
/// How many rows pass through one tree before the next.
pub(crate) const BLOCK: usize = 64;

/// No value of the rows is missing and no node is special.
const PLAIN: u8 = 0;
/// Some values are missing.
const MISSING: u8 = 1;
/// Some nodes are special.
const SPECIAL: u8 = 2;

/// The type of a column's values.
pub(crate) trait Cell: Copy + PartialOrd + Default + Send + Sync + 'static {
    /// Nothing is greater.
    const INFINITY: Self;

    /// A value that holds an integer.
    fn of_index(index: u32) -> Self;
    /// The integer of [`Cell::of_index`].
    fn index(self) -> u32;
    /// The category that a value means; `None` for negative, missing and huge ones.
    fn category(self) -> Option<u32>;
    /// Whether it is missing.
    fn is_missing(self) -> bool;
    /// Whether it is zero.
    fn is_zero(self) -> bool;
}

macro_rules! cell {
    ($float:ty, $bits:ty, $low:expr) => {
        impl Cell for $float {
            const INFINITY: Self = <$float>::INFINITY;

            fn of_index(index: u32) -> Self {
                <$float>::from_bits(<$bits>::from(index))
            }

            fn index(self) -> u32 {
                self.to_bits() as u32
            }

            fn category(self) -> Option<u32> {
                // Both libraries cut the fraction off; beyond 2^31 their conversion is negative.
                (self > $low && self < 2_147_483_648.0).then_some(self as u32)
            }

            fn is_missing(self) -> bool {
                self.is_nan()
            }

            fn is_zero(self) -> bool {
                self == 0.0
            }
        }
    };
}

// XGBoost (f32) takes no negative number for a category, LightGBM (f64) those above -1 for the first.
cell!(f32, u32, -f32::MIN_POSITIVE);
cell!(f64, u64, -1.0);

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

#[derive(Debug, Clone, Copy, Default)]
struct Node<X> {
    threshold: X,
    /// Flags and column.
    word: u32,
    /// The left child; the right one follows it. A leaf's own index.
    left: u32,
}

/// Trees in one table.
#[derive(Debug)]
pub(crate) struct Forest<X> {
    nodes: Vec<Node<X>>,
    /// The leaf's number for each node that is one.
    leaves: Vec<u32>,
    roots: Vec<u32>,
    /// Sets of categories: where their words start and how many they are.
    sets: Vec<(u32, u32)>,
    words: Vec<u32>,
    columns: usize,
    is_special: bool,
}

impl<X: Cell> Forest<X> {
    /// No trees yet, over so many columns.
    pub(crate) fn new(columns: usize) -> Self {
        Self {
            nodes: Vec::new(),
            leaves: Vec::new(),
            roots: Vec::new(),
            sets: Vec::new(),
            words: Vec::new(),
            columns: columns.min(COLUMNS_MAX),
            is_special: false,
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.roots.len()
    }

    pub(crate) fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// Keeps the first trees only.
    pub(crate) fn truncate(&mut self, trees: usize) {
        if trees < self.roots.len() {
            self.nodes.truncate(self.roots[trees] as usize);
            self.leaves.truncate(self.nodes.len());
            self.roots.truncate(trees);
        }
    }

    /// From measurements: some 1.5 ns a level with the tables in cache.
    pub(crate) fn row_cost_ns(&self) -> u64 {
        let levels = (self.nodes.len() / self.roots.len().max(1)).max(2).ilog2() + 1;
        self.roots.len() as u64 * u64::from(levels) * 3 / 2 + 100
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
        if u32::try_from(self.nodes.len() + count + 1).is_err() {
            return Err("more than 2^32 nodes".into());
        }
        // Breadth first: the levels near the root, which every row touches, lie together.
        let root = self.nodes.len();
        self.roots.push(root as u32);
        self.push();
        let mut queue = std::collections::VecDeque::from([(0_usize, root)]);
        let mut placed = 1;
        while let Some((from, to)) = queue.pop_front() {
            match node(from)? {
                Raw::Leaf(number) => {
                    // Nothing is greater than infinity, and missing values go left: a leaf leads to itself.
                    self.nodes[to] = Node { threshold: X::INFINITY, word: MISSING_LEFT, left: to as u32 };
                    self.leaves[to] = number;
                }
                Raw::Split { column, test, missing, left, right } => {
                    placed += 2;
                    if placed > count {
                        return Err(format!("node {from}: its nodes form no tree"));
                    }
                    if left >= count || right >= count {
                        return Err(format!("node {from}: a child that does not exist"));
                    }
                    if column >= self.columns {
                        return Err(format!("node {from}: a split on column {column} of {}", self.columns));
                    }
                    let at = self.nodes.len();
                    self.push();
                    self.push();
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
                    self.nodes[to] = Node { threshold, word, left: at as u32 };
                    queue.extend([(left, at), (right, at + 1)]);
                }
            }
        }
        Ok(())
    }

    fn push(&mut self) {
        self.nodes.push(Node::default());
        self.leaves.push(0);
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
        if self.words.len() + members.len() > WORDS_MAX {
            return Err("the sets of categories are too large".into());
        }
        *word |= CATEGORIES;
        self.is_special = true;
        self.sets.push((self.words.len() as u32, members.len() as u32));
        self.words.extend_from_slice(members);
        Ok(X::of_index(self.sets.len() as u32 - 1))
    }

    /// Calls `visit` with the row, the tree and the leaf's number, for each row in the order of the trees.
    /// `rows` has `count × stride` values; a stride is at least the number of columns, and at least one.
    pub(crate) fn walk(&self, rows: &[X], stride: usize, mut visit: impl FnMut(usize, usize, u32)) {
        assert!(stride >= self.columns.max(1), "rows as wide as the model");
        for (index, block) in rows.chunks(stride * BLOCK).enumerate() {
            let first = index * BLOCK;
            let visit = |row: usize, tree, leaf| visit(first + row, tree, leaf);
            if self.is_special {
                self.walk_block::<SPECIAL>(block, stride, visit);
            } else if block.iter().any(|value| value.is_missing()) {
                self.walk_block::<MISSING>(block, stride, visit);
            } else {
                self.walk_block::<PLAIN>(block, stride, visit);
            }
        }
    }

    fn walk_block<const MODE: u8>(
        &self,
        block: &[X],
        stride: usize,
        mut visit: impl FnMut(usize, usize, u32),
    ) {
        let count = block.len() / stride;
        let together = count / LANES * LANES;
        for (tree, root) in self.roots.iter().enumerate() {
            for first in (0..together).step_by(LANES) {
                let rows: [&[X]; LANES] =
                    std::array::from_fn(|lane| &block[(first + lane) * stride..(first + lane + 1) * stride]);
                let at = self.lockstep::<MODE, _>([*root; LANES], rows);
                for (lane, at) in at.into_iter().enumerate() {
                    visit(first + lane, tree, self.leaves[at as usize]);
                }
            }
        }
        for (row, values) in block.chunks_exact(stride).enumerate().skip(together) {
            let mut groups = self.roots.chunks_exact(LANES);
            let mut tree = 0;
            for roots in &mut groups {
                let mut at = [0; LANES];
                at.copy_from_slice(roots);
                for at in self.lockstep::<MODE, _>(at, [values; LANES]) {
                    visit(row, tree, self.leaves[at as usize]);
                    tree += 1;
                }
            }
            for root in groups.remainder() {
                let [at] = self.lockstep::<MODE, _>([*root], [values]);
                visit(row, tree, self.leaves[at as usize]);
                tree += 1;
            }
        }
    }

    /// Walks until every lane is at a leaf.
    #[inline(always)]
    fn lockstep<const MODE: u8, const N: usize>(&self, mut at: [u32; N], rows: [&[X]; N]) -> [u32; N] {
        loop {
            let mut moved = 0;
            for (at, row) in at.iter_mut().zip(rows) {
                let next = self.step::<MODE>(*at, row);
                moved |= next ^ *at;
                *at = next;
            }
            if moved == 0 {
                return at;
            }
        }
    }

    #[inline(always)]
    fn step<const MODE: u8>(&self, at: u32, row: &[X]) -> u32 {
        debug_assert!((at as usize) < self.nodes.len());
        // SAFETY: `at` is a root or comes from a node's `left`; `add` pushes both children (or the leaf itself)
        // before it stores their index, and nothing removes nodes but whole trees.
        let node = unsafe { self.nodes.get_unchecked(at as usize) };
        let column = (node.word & COLUMN) as usize;
        debug_assert!(column < row.len());
        // SAFETY: `add` refuses columns beyond `self.columns` (a leaf's is 0), and `walk` asserts that a row has
        // at least as many and at least one.
        let value = unsafe { *row.get_unchecked(column) };
        let mut right = value > node.threshold;
        if MODE == SPECIAL && node.word & (CATEGORIES | ZERO_MISSING) != 0 {
            right = self.special(node, value);
        } else if MODE != PLAIN && value.is_missing() {
            right = node.word & MISSING_LEFT == 0;
        }
        node.left + u32::from(right)
    }

    #[inline(never)]
    fn special(&self, node: &Node<X>, value: X) -> bool {
        let missing_right = node.word & MISSING_LEFT == 0;
        if value.is_missing() || (node.word & ZERO_MISSING != 0 && value.is_zero()) {
            return missing_right;
        }
        if node.word & CATEGORIES == 0 {
            return value > node.threshold;
        }
        let (start, len) = self.sets[node.threshold.index() as usize];
        let set = &self.words[start as usize..(start + len) as usize];
        let is_member = value.category().is_some_and(|category| {
            set.get(category as usize / 32).is_some_and(|word| word >> (category % 32) & 1 == 1)
        });
        is_member != (node.word & MEMBERS_LEFT != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forest(left: &[usize], right: &[usize], column: usize) -> Result<Forest<f32>, String> {
        let mut forest = Forest::new(2);
        let missing = Missing { left: false, zero_too: false };
        forest.add(left.len(), |index| {
            Ok(match left[index] {
                0 => Raw::Leaf(index as u32),
                to => Raw::Split { column, test: Test::AtMost(0.5), missing, left: to, right: right[index] },
            })
        })?;
        Ok(forest)
    }

    #[test]
    fn nodes_that_form_no_tree_are_refused() {
        let cases = [
            ("a loop", forest(&[1, 1, 0], &[2, 1, 0], 0)),
            ("a child too far", forest(&[1, 0, 0], &[9, 0, 0], 0)),
            ("a column too far", forest(&[1, 0, 0], &[2, 0, 0], 2)),
            ("shared children", forest(&[1, 2, 0], &[1, 2, 0], 0)),
            ("no nodes", forest(&[], &[], 0)),
        ];
        for (name, tree) in cases {
            assert!(tree.is_err(), "{name}");
        }
    }

    #[test]
    fn every_number_of_rows_walks_alike() {
        let forest = forest(&[1, 0, 3, 0, 0], &[2, 0, 4, 0, 0], 1).expect("a tree");
        let rows: Vec<f32> =
            (0..400).map(|i| if i % 7 == 0 { f32::NAN } else { (i % 5) as f32 / 4.0 }).collect();
        let mut all = Vec::new();
        forest.walk(&rows, 2, |row, tree, leaf| all.push((row, tree, leaf)));
        assert_eq!(all.len(), 200);
        for (row, values) in rows.chunks(2).enumerate() {
            forest.walk(values, 2, |_, tree, leaf| assert!(all.contains(&(row, tree, leaf))));
        }
    }
}
