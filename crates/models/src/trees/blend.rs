//! Batches through trees of few leaves, without walking: every split decides all rows of a block.
//!
//! A value is replaced by its rank: how many of the thresholds that the forest has for its column are below it.
//! Then a test of a split is a comparison of two bytes, for any type of value, and what is missing is a rank
//! below or above all thresholds. From the leaves up, each split blends what its left and its right side say by
//! the outcome of its test; what the root says is the leaf, by row. A tree of n leaves so takes n - 1 steps over
//! 64 bytes, of which each is a comparison, a blend and three loads. There is no branch and no gather.
//!
//! A column with more than 255 thresholds becomes several, each for a range of them. The loops are plain Rust
//! over arrays of bytes; they are compiled for each kind of vector instructions that is worth it and chosen at
//! run time. Bytes are compared, so that the kinds cannot differ in what they answer.
//!
//! Not here: few rows, trees of more leaves (`nodes`).
#![allow(unsafe_code)] // Instructions that are found at run time: loads and stores of vectors, calls (see `Level`).

use super::cell::Cell;
use super::nodes::{CATEGORIES, COLUMN, MISSING_LEFT, Wide, ZERO_MISSING};
use super::{Forest, Found};

/// The most leaves of a tree: leaves and splits together have numbers of one byte.
const LEAVES_MAX: usize = 128;
/// Rows of a block.
const WIDE: usize = 64;
/// Rows of a small block.
const SMALL: usize = 16;
/// Thresholds of a column of ranks.
const RANKS_MAX: usize = 255;
/// Values ranked together, so that their searches overlap.
const LANES: usize = 8;

/// What may be different between splits on one column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Source {
    column: u32,
    /// `MISSING_LEFT`, `ZERO_MISSING`.
    flags: u32,
}

/// A column's thresholds.
#[derive(Debug)]
struct Ranked<X> {
    source: Source,
    /// As a binary tree, the children of `i` at `2i + 1` and `2i + 2`; filled up with infinity.
    thresholds: Vec<X>,
    /// How many columns of ranks it becomes.
    parts: u16,
}

/// Where a source's columns of ranks start, and its thresholds in order.
struct Place<'s, X> {
    source: Source,
    column: usize,
    thresholds: &'s [(Source, X)],
}

/// A split: blends two earlier results into the next one.
#[derive(Debug, Clone, Copy)]
struct Step {
    /// The column of ranks.
    column: u16,
    /// Greater ranks go right.
    rank: u8,
    left: u8,
    right: u8,
}

/// A tree's steps, children first, and its leaves' numbers, from the left.
#[derive(Debug, Clone, Copy)]
struct Span {
    steps: u32,
    leaves: u32,
}

/// A forest for batches.
#[derive(Debug)]
pub(super) struct Blend<X> {
    columns: Vec<Ranked<X>>,
    /// All columns of ranks.
    width: usize,
    steps: Vec<Step>,
    leaves: Vec<u32>,
    /// One more than there are trees.
    trees: Vec<Span>,
}

/// What every split says for the rows of a block: first the leaves, then the splits in order. Aligned, so that no
/// vector lies in two lines of the cache.
#[repr(C, align(64))]
struct Said<const W: usize>([[u8; W]; 2 * LEAVES_MAX]);

impl<X: Cell> Blend<X> {
    /// `None` where a tree has too many leaves or a split that has no rank, or ranks would cost more than walks.
    pub(super) fn new(forest: &Forest<X>) -> Option<Self> {
        let mut splits: Vec<(Source, X)> = Vec::new();
        for tree in 0..forest.count() {
            let nodes = forest.tree(tree);
            if nodes.len() > 2 * LEAVES_MAX - 1 {
                return None;
            }
            for node in nodes.iter().filter(|node| source(node).column != forest.columns as u32) {
                let is_ordered = node.threshold.partial_cmp(&node.threshold).is_some();
                if node.word & CATEGORIES != 0 || !is_ordered {
                    return None;
                }
                splits.push((source(node), node.threshold));
            }
        }
        // No threshold is missing, so that they have an order; equal ones, zeros of either sign too, are one.
        splits.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.partial_cmp(&b.1).unwrap_or(std::cmp::Ordering::Equal)));
        splits.dedup_by(|a, b| a.0 == b.0 && a.1 == b.1);
        let mut made =
            Self { columns: Vec::new(), width: 0, steps: Vec::new(), leaves: Vec::new(), trees: Vec::new() };
        let mut places: Vec<Place<'_, X>> = Vec::new();
        for group in splits.chunk_by(|a, b| a.0 == b.0) {
            let parts = group.len().div_ceil(RANKS_MAX);
            places.push(Place { source: group[0].0, column: made.width, thresholds: group });
            made.width += parts;
            made.columns.push(Ranked {
                source: group[0].0,
                thresholds: search_tree(group),
                parts: u16::try_from(parts).ok()?,
            });
        }
        u16::try_from(made.width).ok()?;
        let work: usize =
            made.columns.iter().map(|column| column.thresholds.len().ilog2() as usize + 1).sum();
        if work > forest.count() * 8 {
            return None;
        }
        for tree in 0..forest.count() {
            made.trees.push(Span { steps: made.steps.len() as u32, leaves: made.leaves.len() as u32 });
            made.add(&forest.tree(tree), &places);
        }
        made.trees.push(Span { steps: made.steps.len() as u32, leaves: made.leaves.len() as u32 });
        made.steps.shrink_to_fit();
        made.leaves.shrink_to_fit();
        Some(made)
    }

    /// Adds the steps and leaves of a tree.
    fn add(&mut self, nodes: &[Wide<X>], places: &[Place<'_, X>]) {
        let (first_step, first_leaf) = (self.steps.len(), self.leaves.len());
        // What has been said, and what is still to be blended once both its sides are said.
        let (mut said, mut todo) = (Vec::with_capacity(nodes.len()), Vec::with_capacity(nodes.len() + 1));
        todo.push((0_usize, false));
        while let Some((at, has_sides)) = todo.pop() {
            let node = &nodes[at];
            if node.left as usize == at {
                said.push((self.leaves.len() - first_leaf) as u8);
                self.leaves.push(node.threshold.index());
            } else if has_sides {
                let (right, left) = (said.pop().unwrap_or_default(), said.pop().unwrap_or_default());
                let place = &places[places.partition_point(|place| place.source < source(node))];
                let rank = place.thresholds.partition_point(|(_, threshold)| *threshold < node.threshold);
                said.push((LEAVES_MAX + self.steps.len() - first_step) as u8);
                self.steps.push(Step {
                    column: (place.column + rank / RANKS_MAX) as u16,
                    rank: (rank % RANKS_MAX) as u8,
                    left,
                    right,
                });
            } else {
                let left = node.left as usize;
                todo.extend([(at, true), (left + 1, false), (left, false)]);
            }
        }
    }

    /// Finds the leaves of rows of which the first is number `first`.
    pub(super) fn walk(&self, cells: &[X], stride: usize, first: usize, found: &mut dyn FnMut(Found<'_>)) {
        self.walk_at(Level::here(), cells, stride, first, found);
    }

    /// The same with these instructions.
    pub(super) fn walk_at(
        &self,
        level: Level,
        cells: &[X],
        stride: usize,
        first: usize,
        found: &mut dyn FnMut(Found<'_>),
    ) {
        let rows = cells.len() / stride;
        let mut done = 0;
        while done < rows {
            let left = rows - done;
            let cells = &cells[done * stride..];
            if left > SMALL {
                self.block::<WIDE>(level, cells, stride, left.min(WIDE), first + done, found);
                done += WIDE;
            } else {
                self.block::<SMALL>(level, cells, stride, left, first + done, found);
                done += SMALL;
            }
        }
    }

    fn block<const W: usize>(
        &self,
        level: Level,
        cells: &[X],
        stride: usize,
        rows: usize,
        first: usize,
        found: &mut dyn FnMut(Found<'_>),
    ) {
        let mut said = Said::<W>([[0; W]; 2 * LEAVES_MAX]);
        said.0.iter_mut().take(LEAVES_MAX).enumerate().for_each(|(leaf, said)| said.fill(leaf as u8));
        RANKS.with_borrow_mut(|ranks| {
            ranks.resize(ranks.len().max(self.width * W + WIDE), 0);
            let start = ranks.as_ptr().align_offset(WIDE).min(WIDE);
            let (ranks, _) = ranks[start..start + self.width * W].as_chunks_mut::<W>();
            self.rank(cells, stride, rows, ranks);
            for (tree, span) in self.trees.windows(2).enumerate() {
                let steps = &self.steps[span[0].steps as usize..span[1].steps as usize];
                let own = &self.leaves[span[0].leaves as usize..span[1].leaves as usize];
                level.blend(steps, ranks, &mut said);
                // A tree of one leaf has no steps: every row is at the first.
                let last = if steps.is_empty() { 0 } else { LEAVES_MAX + steps.len() - 1 };
                let mut leaves = [0; W];
                for (slot, leaf) in leaves.iter_mut().zip(&said.0[last]).take(rows) {
                    *slot = own[usize::from(*leaf)];
                }
                found(Found::Rows { first, tree, leaves: &leaves[..rows] });
            }
        });
    }

    /// Fills the columns of ranks; those of rows that are not there stay zero.
    fn rank<const W: usize>(&self, cells: &[X], stride: usize, rows: usize, ranks: &mut [[u8; W]]) {
        let mut at = 0;
        for column in &self.columns {
            let parts = usize::from(column.parts);
            let ranks = &mut ranks[at..at + parts];
            at += parts;
            for first in (0..rows).step_by(LANES) {
                let values = std::array::from_fn(|lane| {
                    let row = (first + lane).min(rows - 1);
                    cells[row * stride + column.source.column as usize]
                });
                let found = column.ranks(values);
                for (part, ranks) in ranks.iter_mut().enumerate() {
                    for (slot, rank) in ranks[first..].iter_mut().zip(found) {
                        *slot = rank.saturating_sub(part * RANKS_MAX).min(RANKS_MAX) as u8;
                    }
                }
            }
        }
    }
}

impl<X: Cell> Ranked<X> {
    /// How many thresholds are below each value.
    fn ranks(&self, values: [X; LANES]) -> [usize; LANES] {
        let mut at = [0; LANES];
        let thresholds = self.thresholds.as_slice();
        let levels = (thresholds.len() + 1).ilog2();
        for _ in 0..levels {
            for (at, value) in at.iter_mut().zip(values) {
                *at = 2 * *at + 1 + usize::from(thresholds[*at] < value);
            }
        }
        let missing = if self.source.flags & MISSING_LEFT == 0 { usize::MAX } else { 0 };
        let zero_too = self.source.flags & ZERO_MISSING != 0;
        std::array::from_fn(|lane| {
            let value = values[lane];
            let is_missing = value.is_missing() || (zero_too && value.is_zero());
            if is_missing { missing } else { at[lane] - thresholds.len() }
        })
    }
}

fn source<X>(node: &Wide<X>) -> Source {
    Source { column: node.word & COLUMN, flags: node.word & (MISSING_LEFT | ZERO_MISSING) }
}

/// Sorted thresholds as a complete binary tree, in which a search takes the same steps for every value.
fn search_tree<X: Cell>(sorted: &[(Source, X)]) -> Vec<X> {
    let len = (sorted.len() + 1).next_power_of_two() - 1;
    let mut made = vec![X::INFINITY; len];
    for (at, slot) in made.iter_mut().enumerate() {
        // The node's place in order: level by level, the places are the odd multiples of a power of two.
        let level = (at + 1).ilog2();
        let step = (len + 1) >> (level + 1);
        let place = (2 * (at + 1 - (1 << level)) + 1) * step - 1;
        if let Some((_, threshold)) = sorted.get(place) {
            *slot = *threshold;
        }
    }
    made
}

thread_local! {
    /// Ranks of a block, reused from call to call.
    static RANKS: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// All steps of a tree: `said` gets what each split says.
#[inline(always)]
fn blend<const W: usize>(steps: &[Step], ranks: &[[u8; W]], said: &mut Said<W>) {
    for (step, to) in steps.iter().zip(LEAVES_MAX..2 * LEAVES_MAX) {
        let (earlier, out) = said.0.split_at_mut(to);
        let (left, right) = (&earlier[usize::from(step.left)], &earlier[usize::from(step.right)]);
        let ranks = &ranks[usize::from(step.column)];
        for (((out, rank), left), right) in out[0].iter_mut().zip(ranks).zip(left).zip(right) {
            // All ones where the row goes right; a form that compilers know to be a comparison of vectors.
            let is_right = u8::from(*rank > step.rank).wrapping_neg();
            *out = (left & !is_right) | (right & is_right);
        }
    }
}

/// Which instructions blend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn blend_avx2<const W: usize>(steps: &[Step], ranks: &[[u8; W]], said: &mut Said<W>) {
    blend(steps, ranks, said);
}

/// Compilers make a masked load of this blend, which waits for the store before it; so it is written out.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw")]
fn blend_avx512<const W: usize>(steps: &[Step], ranks: &[[u8; W]], said: &mut Said<W>) {
    use std::arch::x86_64::{
        _mm512_cmpgt_epu8_mask, _mm512_loadu_si512, _mm512_mask_blend_epi8, _mm512_set1_epi8,
        _mm512_storeu_si512,
    };
    if W != WIDE {
        return blend(steps, ranks, said);
    }
    // SAFETY: an array of W bytes is one of 64, as was just asked; the load needs no alignment.
    let load = |bytes: &[u8; W]| unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) };
    for (step, to) in steps.iter().zip(LEAVES_MAX..2 * LEAVES_MAX) {
        let ranks = load(&ranks[usize::from(step.column)]);
        let (left, right) = (load(&said.0[usize::from(step.left)]), load(&said.0[usize::from(step.right)]));
        let is_right = _mm512_cmpgt_epu8_mask(ranks, _mm512_set1_epi8(step.rank as i8));
        let blended = _mm512_mask_blend_epi8(is_right, left, right);
        // SAFETY: as above, of a store.
        unsafe { _mm512_storeu_si512(said.0[to].as_mut_ptr().cast(), blended) };
    }
}

impl Level {
    /// The best that this processor has.
    fn here() -> Self {
        Self::all().last().copied().unwrap_or(Self::Portable)
    }

    /// All that this processor has.
    pub(super) fn all() -> &'static [Self] {
        #[cfg(target_arch = "x86_64")]
        {
            let has_avx2 = is_x86_feature_detected!("avx2");
            let has_avx512 = is_x86_feature_detected!("avx512bw");
            if has_avx2 && has_avx512 {
                return &[Self::Portable, Self::Avx2, Self::Avx512];
            }
            if has_avx2 {
                return &[Self::Portable, Self::Avx2];
            }
        }
        &[Self::Portable]
    }

    fn blend<const W: usize>(self, steps: &[Step], ranks: &[[u8; W]], said: &mut Said<W>) {
        match self {
            Self::Portable => blend(steps, ranks, said),
            // SAFETY: `Level::all` has this kind only where the processor has the instructions.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { blend_avx2(steps, ranks, said) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => unsafe { blend_avx512(steps, ranks, said) },
        }
    }
}
