//! Nodes of trees and the walk along them: one step is two loads, a comparison and an addition, without a branch
//! that could be mispredicted.
//!
//! A node's two children lie side by side. A leaf leads to itself: it looks at the column behind the last one,
//! which is missing in every row, and no comparison with what is missing holds. So a leaf's threshold is free to
//! hold its number. Several walks take their steps in turn, so that their loads overlap.
//!
//! Most ensembles fit nodes of 8 bytes (12 with 64-bit thresholds), eight of them in a line of the cache; splits
//! on categories, very large trees and very many columns take 12 (16).
//!
//! Not here: what makes trees of files' nodes (`mod`), walks of many rows through small trees (`blend`).
#![allow(unsafe_code)] // Loads without bounds checks in the one inner loop; see `step`.

use super::Tree;
use super::cell::Cell;

/// The columns a node looks at are the low bits of its word.
pub(super) const COLUMN: u32 = (1 << 27) - 1;
/// Missing values go left.
pub(super) const MISSING_LEFT: u32 = 1 << 31;
/// The threshold is the number of a set of categories.
pub(super) const CATEGORIES: u32 = 1 << 30;
/// Members of the set go left; else right.
pub(super) const MEMBERS_LEFT: u32 = 1 << 29;
/// Zero counts as missing.
pub(super) const ZERO_MISSING: u32 = 1 << 28;
/// The same flag in a narrow node.
const NARROW_LEFT: u16 = 1 << 15;

/// No value of the rows is missing and no node is special.
pub(super) const PLAIN: u8 = 0;
/// Some values are missing.
pub(super) const MISSING: u8 = 1;
/// Some nodes are special.
pub(super) const SPECIAL: u8 = 2;

/// A node of any kind. Indices count from the tree's first node.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Wide<X> {
    pub(super) threshold: X,
    /// Flags and column.
    pub(super) word: u32,
    /// The left child; the right one follows it. A leaf's own index.
    pub(super) left: u32,
}

/// A node that is not special, in a tree of at most 2^16 nodes over fewer than 2^15 columns.
#[derive(Clone, Copy)]
#[repr(C, packed(4))]
pub(super) struct Narrow<X> {
    threshold: X,
    /// Flag and column.
    word: u16,
    left: u16,
}

impl<X: Cell> Narrow<X> {
    fn of(node: &Wide<X>) -> Option<Self> {
        let column = u16::try_from(node.word & COLUMN).ok().filter(|column| *column < NARROW_LEFT)?;
        let is_special = node.word & (CATEGORIES | ZERO_MISSING) != 0;
        let flag = if node.word & MISSING_LEFT == 0 { 0 } else { NARROW_LEFT };
        let left = u16::try_from(node.left).ok()?;
        (!is_special).then_some(Self { threshold: node.threshold, word: column | flag, left })
    }

    fn widened(self) -> Wide<X> {
        let flag = if self.word & NARROW_LEFT == 0 { 0 } else { MISSING_LEFT };
        let word = u32::from(self.word & !NARROW_LEFT) | flag;
        Wide { threshold: self.threshold, word, left: u32::from(self.left) }
    }
}

/// What the walk asks of a node.
pub(super) trait Node<X>: Copy {
    fn threshold(&self) -> X;
    fn column(&self) -> usize;
    fn left(&self) -> u32;
    fn is_missing_left(&self) -> bool;
    /// Flags beyond those of a narrow node.
    fn flags(&self) -> u32;
}

impl<X: Cell> Node<X> for Narrow<X> {
    #[inline(always)]
    fn threshold(&self) -> X {
        self.threshold
    }

    #[inline(always)]
    fn column(&self) -> usize {
        usize::from(self.word & !NARROW_LEFT)
    }

    #[inline(always)]
    fn left(&self) -> u32 {
        u32::from(self.left)
    }

    #[inline(always)]
    fn is_missing_left(&self) -> bool {
        self.word & NARROW_LEFT != 0
    }

    #[inline(always)]
    fn flags(&self) -> u32 {
        0
    }
}

impl<X: Cell> Node<X> for Wide<X> {
    #[inline(always)]
    fn threshold(&self) -> X {
        self.threshold
    }

    #[inline(always)]
    fn column(&self) -> usize {
        (self.word & COLUMN) as usize
    }

    #[inline(always)]
    fn left(&self) -> u32 {
        self.left
    }

    #[inline(always)]
    fn is_missing_left(&self) -> bool {
        self.word & MISSING_LEFT != 0
    }

    #[inline(always)]
    fn flags(&self) -> u32 {
        self.word & (CATEGORIES | ZERO_MISSING | MEMBERS_LEFT)
    }
}

/// Sets of categories.
#[derive(Debug, Default)]
pub(super) struct Sets {
    /// Where a set's words start and how many they are.
    spans: Vec<(u32, u32)>,
    words: Vec<u32>,
}

impl Sets {
    pub(super) fn words(&self) -> usize {
        self.words.len()
    }

    /// Adds a set and returns its number.
    pub(super) fn add(&mut self, members: &[u32]) -> u32 {
        self.spans.push((self.words.len() as u32, members.len() as u32));
        self.words.extend_from_slice(members);
        self.spans.len() as u32 - 1
    }

    /// A set's words.
    pub(super) fn of(&self, set: u32) -> &[u32] {
        let (start, len) = self.spans[set as usize];
        &self.words[start as usize..(start + len) as usize]
    }

    fn has(&self, set: u32, category: u32) -> bool {
        let (start, len) = self.spans[set as usize];
        let set = &self.words[start as usize..(start + len) as usize];
        set.get(category as usize / 32).is_some_and(|word| word >> (category % 32) & 1 == 1)
    }

    /// Whether a row goes right at a node that may be special.
    #[inline(never)]
    pub(super) fn is_right<X: Cell>(&self, node: Wide<X>, value: X) -> bool {
        if value.is_missing() || (node.word & ZERO_MISSING != 0 && value.is_zero()) {
            return node.word & MISSING_LEFT == 0;
        }
        if node.word & CATEGORIES == 0 {
            return value > node.threshold;
        }
        let is_member = value.category().is_some_and(|category| self.has(node.threshold.index(), category));
        is_member != (node.word & MEMBERS_LEFT != 0)
    }
}

/// The nodes of all trees.
pub(super) enum Nodes<X> {
    Narrow(Vec<Narrow<X>>),
    Wide(Vec<Wide<X>>),
}

impl<X: Cell> Nodes<X> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Narrow(nodes) => nodes.len(),
            Self::Wide(nodes) => nodes.len(),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Narrow(nodes) => size_of_val(nodes.as_slice()),
            Self::Wide(nodes) => size_of_val(nodes.as_slice()),
        }
    }

    pub(super) fn truncate(&mut self, len: usize) {
        match self {
            Self::Narrow(nodes) => nodes.truncate(len),
            Self::Wide(nodes) => nodes.truncate(len),
        }
    }

    pub(super) fn shrink_to_fit(&mut self) {
        match self {
            Self::Narrow(nodes) => nodes.shrink_to_fit(),
            Self::Wide(nodes) => nodes.shrink_to_fit(),
        }
    }

    /// Adds a tree; one that does not fit narrow nodes widens all.
    pub(super) fn extend(&mut self, tree: &[Wide<X>]) {
        if let Self::Narrow(nodes) = self {
            let before = nodes.len();
            nodes.extend(tree.iter().map_while(Narrow::of));
            if nodes.len() == before + tree.len() {
                return;
            }
            nodes.truncate(before);
            *self = Self::Wide(nodes.iter().map(|node| node.widened()).collect());
        }
        if let Self::Wide(nodes) = self {
            nodes.extend_from_slice(tree);
        }
    }

    /// A tree's nodes.
    pub(super) fn tree(&self, nodes: std::ops::Range<usize>) -> Vec<Wide<X>> {
        match self {
            Self::Narrow(all) => all[nodes].iter().map(|node| node.widened()).collect(),
            Self::Wide(all) => all[nodes].to_vec(),
        }
    }
}

/// Where one row ends up in several trees, each given by its first node, of which none is deeper than `depth`.
#[inline(never)]
pub(super) fn of_row<const MODE: u8, const LANES: usize, X: Cell, N: Node<X>>(
    nodes: &[N],
    roots: [u32; LANES],
    row: &[X],
    depth: u32,
    sets: &Sets,
) -> [u32; LANES] {
    lockstep::<MODE, LANES, X, N>(nodes, |lane| roots[lane], |_| row, depth, sets)
}

/// Where several rows end up in one tree.
#[inline(never)]
pub(super) fn of_tree<const MODE: u8, const LANES: usize, X: Cell, N: Node<X>>(
    tree: &[N],
    rows: [&[X]; LANES],
    depth: u32,
    sets: &Sets,
) -> [u32; LANES] {
    lockstep::<MODE, LANES, X, N>(tree, |_| 0, |lane| rows[lane], depth, sets)
}

/// Walks until every lane is at a leaf and returns the leaves' numbers. Each lane begins at the first node of a tree,
/// whose indices count from there, and sees its row, which has every column that the tree looks at.
#[inline(always)]
fn lockstep<'a, const MODE: u8, const LANES: usize, X: Cell + 'a, N: Node<X>>(
    nodes: &[N],
    root: impl Fn(usize) -> u32,
    row: impl Fn(usize) -> &'a [X],
    depth: u32,
    sets: &Sets,
) -> [u32; LANES] {
    let mut at = std::array::from_fn(&root);
    for _ in 0..depth.div_ceil(2) {
        for (lane, at) in at.iter_mut().enumerate() {
            *at = root(lane) + step::<MODE, X, N>(nodes, *at, row(lane), sets);
        }
        // Asking whether all have arrived costs; every second step is often enough.
        let mut moved = 0;
        for (lane, at) in at.iter_mut().enumerate() {
            let next = root(lane) + step::<MODE, X, N>(nodes, *at, row(lane), sets);
            moved |= next ^ *at;
            *at = next;
        }
        if moved == 0 {
            break;
        }
    }
    // SAFETY: as in `step`.
    at.map(|at| unsafe { nodes.get_unchecked(at as usize) }.threshold().index())
}

/// Where a row goes from a node, as an index in the tree.
#[inline(always)]
fn step<const MODE: u8, X: Cell, N: Node<X>>(nodes: &[N], at: u32, row: &[X], sets: &Sets) -> u32 {
    debug_assert!((at as usize) < nodes.len());
    // SAFETY: `at` is a tree's first node, or that and a node's `left`, plus one at most. `Forest::add` makes a tree of at
    // least one node, pushes both children (or the leaf itself) before it stores their index, and hands over whole
    // trees; a leaf is never left for the node behind it, since what is missing is not greater and goes left.
    let node = unsafe { nodes.get_unchecked(at as usize) };
    debug_assert!(node.column() < row.len());
    // SAFETY: `Forest::add` refuses columns beyond the forest's, a leaf's is the one behind them, and the rows that
    // `Forest::walk` makes have that one too.
    let value = unsafe { *row.get_unchecked(node.column()) };
    let mut right = value > node.threshold();
    if MODE == SPECIAL && node.flags() != 0 {
        let missing = if node.is_missing_left() { MISSING_LEFT } else { 0 };
        let wide = Wide { threshold: node.threshold(), word: node.flags() | missing, left: 0 };
        right = sets.is_right(wide, value);
    } else if MODE != PLAIN && value.is_missing() {
        right = !node.is_missing_left();
    }
    node.left() + u32::from(right)
}

/// The nodes of each tree of an ensemble.
pub(super) fn slice<'n, N>(nodes: &'n [N], trees: &[Tree], tree: usize) -> &'n [N] {
    let end = trees.get(tree + 1).map_or(nodes.len(), |next| next.start as usize);
    &nodes[trees[tree].start as usize..end]
}

/// The nodes of a tree in the order in which they are walked most: behind a pair of children come the children of
/// the one with more nodes below it, which more rows of the training set have reached. So most steps stay in a
/// line of the cache. In `nodes`, children come after their parents.
pub(super) fn by_size<X: Copy>(nodes: &[Wide<X>]) -> Vec<Wide<X>> {
    let is_leaf = |at: usize| nodes[at].left as usize == at;
    let mut sizes = vec![1_u32; nodes.len()];
    for at in (0..nodes.len()).rev().filter(|at| !is_leaf(*at)) {
        let left = nodes[at].left as usize;
        sizes[at] += sizes[left] + sizes[left + 1];
    }
    let mut made = Vec::with_capacity(nodes.len());
    made.push(nodes[0]);
    // Where a node was and where it is.
    let mut todo = vec![(0_usize, 0_usize)];
    while let Some((from, to)) = todo.pop() {
        if is_leaf(from) {
            made[to].left = to as u32;
            continue;
        }
        let (left, at) = (nodes[from].left as usize, made.len());
        made[to].left = at as u32;
        made.extend_from_slice(&nodes[left..left + 2]);
        let mut sides = [(left, at), (left + 1, at + 1)];
        // The last one is taken first.
        sides.sort_by_key(|(side, _)| sizes[*side]);
        todo.extend(sides);
    }
    made
}

/// Brings a tree into the cache in parts. A processor that cannot is asked nothing.
pub(super) struct Ahead {
    at: *const u8,
    lines: usize,
}

/// A line of the cache.
const LINE: usize = 64;

impl Ahead {
    /// In so many parts.
    pub(super) fn new<N>(nodes: &[N], parts: usize) -> Self {
        let lines = size_of_val(nodes).div_ceil(LINE);
        Self { at: nodes.as_ptr().cast(), lines: lines.div_ceil(parts) }
    }

    /// The next part.
    pub(super) fn fetch(&mut self) {
        for _ in 0..self.lines {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the instruction is a hint that reads and faults nowhere, whatever the address.
            unsafe {
                use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
                _mm_prefetch::<_MM_HINT_T1>(self.at.cast());
            }
            self.at = self.at.wrapping_add(LINE);
        }
    }
}
