//! Tree ensembles of ONNX-ML: `TreeEnsembleClassifier`, `TreeEnsembleRegressor` and, since version 5, `TreeEnsemble`.
//!
//! All trees lie in one array of small nodes, breadth first, children side by side; a leaf points to itself, and
//! eight trees are walked together so that their loads overlap. Every inequality becomes `<=`: `<` by the next
//! smaller threshold, `>` and `>=` by exchanging the children; which way a missing value goes is a bit of the
//! node. Sums are made in the element type and in the order of the trees, as ONNX Runtime makes them.
//!
//! Not here: reading the attributes (`ensemble`), the end of a classification (`post`).

use models::LoadError;

use super::attrs::Attrs;

/// How many trees are walked together.
const LANES: usize = 8;
/// Set in a node's feature when missing values go left.
const MISSING_LEFT: u32 = 1 << 31;
/// Set in a node's feature when it asks for equality.
const EQUAL: u32 = 1 << 30;
const FEATURE: u32 = EQUAL - 1;

/// The type of a column's values.
pub(crate) trait Cell:
    Copy + PartialOrd + Default + Send + Sync + std::ops::AddAssign + std::ops::Div<Output = Self> + 'static
{
    const INFINITY: Self;
    fn of(value: f64) -> Self;
    /// The greatest value below.
    fn below(self) -> Self;
    fn single(self) -> f32;
}

impl Cell for f32 {
    const INFINITY: Self = f32::INFINITY;

    fn of(value: f64) -> Self {
        value as f32
    }

    fn below(self) -> Self {
        self.next_down()
    }

    fn single(self) -> f32 {
        self
    }
}

impl Cell for f64 {
    const INFINITY: Self = f64::INFINITY;

    fn of(value: f64) -> Self {
        value
    }

    fn below(self) -> Self {
        self.next_down()
    }

    fn single(self) -> f32 {
        self as f32
    }
}

/// A comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Leq,
    Lt,
    Gte,
    Gt,
    Eq,
    Neq,
}

/// Where a branch leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum To {
    Node(usize),
    Leaf(usize),
}

/// A split as the file has it.
#[derive(Debug, Clone)]
pub(crate) struct Split {
    pub(crate) mode: Mode,
    pub(crate) feature: usize,
    pub(crate) threshold: f64,
    pub(crate) yes: To,
    pub(crate) no: To,
    pub(crate) missing_yes: bool,
}

/// An ensemble as the file has it.
#[derive(Debug, Default)]
pub(crate) struct Forest {
    pub(crate) splits: Vec<Split>,
    /// Target and weight of each leaf.
    pub(crate) leaves: Vec<Vec<(usize, f64)>>,
    pub(crate) roots: Vec<To>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Node<X> {
    threshold: X,
    feature: u32,
    /// The left child; the right one follows it. A leaf's own index.
    left: u32,
    leaf: u32,
}

/// How leaves come together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aggregate {
    Sum,
    Average,
    Min,
    Max,
}

/// Compiled trees.
#[derive(Debug)]
pub(crate) struct Trees<X> {
    nodes: Vec<Node<X>>,
    roots: Vec<u32>,
    /// Where each leaf's weights begin; one more at the end.
    starts: Vec<u32>,
    weights: Vec<(u32, X)>,
    /// Columns that a row must have.
    pub(crate) width: usize,
    has_equal: bool,
}

impl<X: Cell> Trees<X> {
    /// Compiles; fails where the file's nodes form no trees.
    pub(crate) fn compile(attrs: Attrs<'_>, forest: &Forest, targets: usize) -> Result<Self, LoadError> {
        let mut trees = Self {
            nodes: Vec::with_capacity(forest.splits.len() * 2 + forest.roots.len()),
            roots: Vec::with_capacity(forest.roots.len()),
            starts: vec![0],
            weights: Vec::new(),
            width: forest.splits.iter().map(|split| split.feature + 1).max().unwrap_or(0),
            has_equal: false,
        };
        if trees.width > FEATURE as usize
            || u32::try_from(forest.splits.len() * 4 + forest.roots.len()).is_err()
        {
            return Err(attrs.error("more columns or nodes than can be counted"));
        }
        for leaf in &forest.leaves {
            for (target, weight) in leaf {
                if *target >= targets {
                    return Err(attrs.error(format!("a leaf for target {target} of {targets}")));
                }
                trees.weights.push((*target as u32, X::of(*weight)));
            }
            trees.starts.push(trees.weights.len() as u32);
        }
        for root in &forest.roots {
            trees.plant(forest, *root).map_err(|what| attrs.error(what))?;
        }
        Ok(trees)
    }

    fn plant(&mut self, forest: &Forest, root: To) -> Result<(), &'static str> {
        let at = self.nodes.len();
        self.roots.push(at as u32);
        self.nodes.push(Node::default());
        let mut queue = std::collections::VecDeque::from([(root, at)]);
        while let Some((from, at)) = queue.pop_front() {
            match from {
                To::Leaf(leaf) => {
                    if leaf >= forest.leaves.len() {
                        return Err("a leaf that does not exist");
                    }
                    self.nodes[at] = Node {
                        threshold: X::INFINITY,
                        feature: MISSING_LEFT,
                        left: at as u32,
                        leaf: leaf as u32,
                    };
                }
                To::Node(index) => {
                    let split = forest.splits.get(index).ok_or("a child that does not exist")?;
                    let left = self.nodes.len();
                    // Each split is reached once, so a file with cycles or shared children stops here.
                    if left > forest.splits.len() * 2 + forest.roots.len() {
                        return Err("its nodes form no trees");
                    }
                    let (first, second, node) = self.branch(split, left);
                    self.nodes[at] = node;
                    self.nodes.extend([Node::default(), Node::default()]);
                    queue.extend([(first, left), (second, left + 1)]);
                }
            }
        }
        Ok(())
    }

    /// The split as `<=` or `==`, with its children in the order left, right.
    fn branch(&mut self, split: &Split, left: usize) -> (To, To, Node<X>) {
        let t = X::of(split.threshold);
        let (threshold, swapped, equal) = match split.mode {
            Mode::Leq => (t, false, false),
            Mode::Lt => (t.below(), false, false),
            Mode::Gt => (t, true, false),
            Mode::Gte => (t.below(), true, false),
            Mode::Eq => (t, false, true),
            Mode::Neq => (t, true, true),
        };
        self.has_equal |= equal;
        // A missing value fails every comparison but "not equal".
        let missing_yes = split.missing_yes || split.mode == Mode::Neq;
        let flags = if missing_yes != swapped { MISSING_LEFT } else { 0 } | if equal { EQUAL } else { 0 };
        let node = Node { threshold, feature: split.feature as u32 | flags, left: left as u32, leaf: 0 };
        if swapped { (split.no, split.yes, node) } else { (split.yes, split.no, node) }
    }

    pub(crate) fn count(&self) -> usize {
        self.roots.len()
    }

    pub(crate) fn nodes(&self) -> usize {
        self.nodes.len()
    }

    fn step<const EQUALS: bool>(&self, at: u32, row: &[X]) -> u32 {
        let node = &self.nodes[at as usize];
        let x = row[(node.feature & FEATURE) as usize];
        let holds =
            if EQUALS && node.feature & EQUAL != 0 { x == node.threshold } else { x <= node.threshold };
        #[allow(clippy::eq_op)]
        let missing = x != x;
        let left = holds | (missing & (node.feature & MISSING_LEFT != 0));
        // A leaf's threshold is infinity and missing values go left, so it stays where it is.
        node.left + u32::from(!left)
    }

    fn walk<const EQUALS: bool>(&self, roots: &[u32], row: &[X], at: &mut [u32; LANES]) {
        at[..roots.len()].copy_from_slice(roots);
        let lanes = &mut at[..roots.len()];
        loop {
            let mut moved = 0;
            for lane in lanes.iter_mut() {
                let next = self.step::<EQUALS>(*lane, row);
                moved |= next ^ *lane;
                *lane = next;
            }
            if moved == 0 {
                return;
            }
        }
    }

    /// What each tree's leaf says about a row, in the order of the trees.
    fn each_leaf(&self, row: &[X], mut say: impl FnMut(&[(u32, X)])) {
        // A row of no columns is legal where every tree is a leaf.
        let row = if row.is_empty() { &[X::default()][..] } else { row };
        let mut at = [0; LANES];
        for roots in self.roots.chunks(LANES) {
            if self.has_equal {
                self.walk::<true>(roots, row, &mut at);
            } else {
                self.walk::<false>(roots, row, &mut at);
            }
            for lane in &at[..roots.len()] {
                let leaf = self.nodes[*lane as usize].leaf as usize;
                say(&self.weights[self.starts[leaf] as usize..self.starts[leaf + 1] as usize]);
            }
        }
    }

    /// Adds up a row's leaves. `has` tells which targets any leaf spoke about. Both are cleared first.
    pub(crate) fn sum(&self, row: &[X], scores: &mut [X], has: &mut [bool]) {
        scores.fill(X::default());
        has.fill(false);
        self.each_leaf(row, |weights| {
            for (target, weight) in weights {
                scores[*target as usize] += *weight;
                has[*target as usize] = true;
            }
        });
    }

    /// Brings a row's leaves together by any rule.
    pub(crate) fn aggregate(&self, rule: Aggregate, row: &[X], scores: &mut [X], has: &mut [bool]) {
        match rule {
            Aggregate::Sum => self.sum(row, scores, has),
            Aggregate::Average => {
                self.sum(row, scores, has);
                let count = X::of(self.roots.len().max(1) as f64);
                scores.iter_mut().for_each(|score| *score = *score / count);
            }
            Aggregate::Min | Aggregate::Max => {
                scores.fill(X::default());
                has.fill(false);
                self.each_leaf(row, |weights| {
                    for (target, weight) in weights {
                        let target = *target as usize;
                        let better = match rule {
                            Aggregate::Min => *weight < scores[target],
                            _ => *weight > scores[target],
                        };
                        if better || !has[target] {
                            scores[target] = *weight;
                        }
                        has[target] = true;
                    }
                });
            }
        }
    }
}
