//! Trees of predicates.
//!
//! A node's children are asked in order. Trees whose predicates compare numbers become trees of two-way splits, each
//! child one split of a chain, in the common table; all others, and rows whose missing values the table cannot follow,
//! are walked node by node.
//!
//! Not here: what several trees say together (`mining`).

use std::collections::HashMap;
use std::convert::Infallible;

use super::fields::Scope;
use super::mining::Cells;
use super::predicate::{Op, Predicate};
use super::xml::El;
use crate::error::{LoadError, Result};
use crate::trees::{COLUMNS_MAX, Forest, Missing, Raw, Test};

/// No class.
pub(super) const NONE: u32 = u32::MAX;
/// Nodes of all trees together, below the number of leaves that the table can tell apart.
const NODES_MAX: usize = 1 << 29;

/// What a node says.
pub(super) struct Answer {
    /// The number of a regression; NaN where the node has none.
    pub(super) number: f64,
    /// The class.
    pub(super) pick: u32,
    /// Classes and their probabilities.
    pub(super) shares: Box<[(u32, f64)]>,
}

struct Node {
    predicate: Predicate,
    children: Vec<u32>,
    default: Option<u32>,
    /// Its place among all answers.
    answer: u32,
}

/// What happens where a child's predicate is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unknown {
    /// The child is passed over.
    Pass,
    /// The node answers.
    Last,
    /// There is no answer.
    Null,
    /// The node's default child is next.
    Default,
}

struct Tree {
    nodes: Vec<Node>,
    unknown: Unknown,
    /// Whether a node answers where no child's predicate is true.
    answers_itself: bool,
}

/// Trees side by side.
#[derive(Default)]
pub(super) struct Grove {
    trees: Vec<Tree>,
    answers: Vec<Answer>,
    fast: Option<Fast>,
}

/// The trees in the common table.
struct Fast {
    forest: Forest<f64>,
    /// The cell that each column of the table is.
    columns: Vec<usize>,
    /// Whether it follows missing values too.
    is_exact: bool,
}

impl Grove {
    /// Adds a `TreeModel`.
    pub(super) fn add(&mut self, el: El<'_>, scope: &mut Scope<'_>, is_classes: bool) -> Result<()> {
        let unknown = match el.attr("missingValueStrategy") {
            None | Some("none") => Unknown::Pass,
            Some("lastPrediction") => Unknown::Last,
            Some("nullPrediction") => Unknown::Null,
            Some("defaultChild") => Unknown::Default,
            Some(other) => return Err(el.refuse_value("missingValueStrategy", other)),
        };
        let answers_itself = match el.attr("noTrueChildStrategy") {
            None | Some("returnNullPrediction") => false,
            Some("returnLastPrediction") => true,
            Some(other) => return Err(el.refuse_value("noTrueChildStrategy", other)),
        };
        let root = el.child("Node").ok_or_else(|| el.error("it has no Node"))?;
        let mut tree = Tree { nodes: Vec::new(), unknown, answers_itself };
        self.node(root, scope, is_classes, &mut tree)?;
        self.trees.push(tree);
        Ok(())
    }

    /// Adds a node and those below it. The depth of documents bounds the recursion.
    fn node(&mut self, el: El<'_>, scope: &mut Scope<'_>, is_classes: bool, tree: &mut Tree) -> Result<u32> {
        if self.answers.len() >= NODES_MAX {
            return Err(LoadError::TooLarge { what: "number of nodes", limit: NODES_MAX });
        }
        let at = tree.nodes.len() as u32;
        let predicate = el.children().find(|child| Predicate::is(*child));
        let predicate = predicate.ok_or_else(|| el.error("it has no predicate"))?;
        let node = Node {
            predicate: Predicate::read(predicate, scope)?,
            children: Vec::new(),
            default: None,
            answer: self.answers.len() as u32,
        };
        tree.nodes.push(node);
        self.answers.push(answer(el, scope, is_classes)?);
        let (mut children, mut default) = (Vec::new(), None);
        for child in el.children() {
            match child.name() {
                "Node" => {
                    let place = self.node(child, scope, is_classes, tree)?;
                    if child.attr("id").is_some() && child.attr("id") == el.attr("defaultChild") {
                        default = Some(place);
                    }
                    children.push(place);
                }
                "ScoreDistribution" | "Partition" => {}
                _ if Predicate::is(child) => {}
                _ => return Err(child.refuse()),
            }
        }
        if let (Some(name), None) = (el.attr("defaultChild"), default) {
            return Err(
                el.error(format!("its defaultChild {:?} is none of its nodes", super::xml::short(name)))
            );
        }
        let node = &mut tree.nodes[at as usize];
        (node.children, node.default) = (children, default);
        Ok(at)
    }

    /// Compiles the trees once all are there.
    pub(super) fn finish(&mut self) {
        self.fast = Fast::new(self);
        if self.fast.as_ref().is_some_and(|fast| fast.is_exact) {
            // Nobody walks them any more.
            self.trees.iter_mut().for_each(|tree| tree.nodes = Vec::new());
        }
    }

    pub(super) fn count(&self) -> usize {
        self.trees.len()
    }

    pub(super) fn nodes(&self) -> usize {
        self.answers.len()
    }

    pub(super) fn row_cost_ns(&self) -> u64 {
        match &self.fast {
            Some(fast) => fast.forest.row_cost_ns(),
            None => {
                let levels = (self.answers.len() / self.trees.len().max(1)).max(2).ilog2() + 1;
                self.trees.len() as u64 * u64::from(levels) * 20
            }
        }
    }

    /// Calls `visit` with row, tree and answer, for each row in the order of the trees.
    pub(super) fn visit(&self, cells: &Cells, mut visit: impl FnMut(usize, usize, Option<&Answer>)) {
        let row_of = |row: usize| &cells.data[row * cells.width..(row + 1) * cells.width];
        let Some(fast) = &self.fast else {
            return (0..cells.count).for_each(|row| self.walk(row, row_of(row), &mut visit));
        };
        let follows =
            |row: &usize| fast.is_exact || !fast.columns.iter().any(|slot| row_of(*row)[*slot].is_nan());
        let (whole, others): (Vec<usize>, Vec<usize>) = (0..cells.count).partition(follows);
        let fill = |row: usize, out: &mut [f64]| -> std::result::Result<(), Infallible> {
            let own = row_of(whole[row]);
            out.iter_mut().zip(&fast.columns).for_each(|(cell, slot)| *cell = own[*slot]);
            Ok(())
        };
        let Ok(()) = fast.forest.walk(whole.len(), fill, |row, tree, leaf| {
            visit(whole[row], tree, self.answers.get(leaf as usize));
        });
        others.into_iter().for_each(|row| self.walk(row, row_of(row), &mut visit));
    }

    fn walk(&self, row: usize, cells: &[f64], visit: &mut impl FnMut(usize, usize, Option<&Answer>)) {
        for (index, tree) in self.trees.iter().enumerate() {
            visit(row, index, tree.walk(cells).map(|answer| &self.answers[answer as usize]));
        }
    }
}

impl Tree {
    /// The answer that a row reaches.
    fn walk(&self, cells: &[f64]) -> Option<u32> {
        let mut node = self.nodes.first()?;
        if node.predicate.holds(cells) != Some(true) {
            return None;
        }
        while !node.children.is_empty() {
            let mut next = None;
            for child in &node.children {
                match self.nodes[*child as usize].predicate.holds(cells) {
                    Some(true) => next = Some(*child),
                    Some(false) => continue,
                    None => match self.unknown {
                        Unknown::Pass => continue,
                        Unknown::Last => return Some(node.answer),
                        Unknown::Null => return None,
                        Unknown::Default => next = Some(node.default?),
                    },
                }
                break;
            }
            match next {
                Some(next) => node = &self.nodes[next as usize],
                None => return self.answers_itself.then_some(node.answer),
            }
        }
        Some(node.answer)
    }
}

/// What a node says, as the document has it.
fn answer(el: El<'_>, scope: &mut Scope<'_>, is_classes: bool) -> Result<Answer> {
    let mut answer = Answer { number: f64::NAN, pick: NONE, shares: Box::default() };
    let score = el.attr("score");
    if !is_classes {
        answer.number = score.map_or(Ok(f64::NAN), |text| el.number(text))?;
        return Ok(answer);
    }
    let (mut shares, mut given, mut count, mut best) = (Vec::new(), Vec::new(), 0.0, NONE);
    let mut most = f64::NEG_INFINITY;
    for part in el.children().filter(|part| part.name() == "ScoreDistribution") {
        let class = scope.class(part.need("value")?);
        let own = part.float("recordCount")?.ok_or_else(|| part.error("it has no recordCount"))?;
        if own < 0.0 {
            return Err(part.error("recordCount is negative"));
        }
        if own > most {
            (most, best) = (own, class);
        }
        count += own;
        shares.push((class, own));
        given.extend(part.float("probability")?.map(|share| (class, share)));
    }
    if given.len() == shares.len() && !given.is_empty() {
        shares = given;
    } else if !given.is_empty() {
        return Err(el.error("some of its ScoreDistribution have a probability, others have none"));
    } else if count > 0.0 {
        shares.iter_mut().for_each(|(_, share)| *share /= count);
    }
    answer.pick = score.map_or(best, |score| scope.class(score));
    if shares.is_empty() && answer.pick != NONE {
        shares.push((answer.pick, 1.0));
    }
    answer.shares = shares.into();
    Ok(answer)
}

/// A node of the common table.
enum Flat {
    Leaf(u32),
    Split { column: usize, at: f64, missing_left: bool, left: usize, right: usize },
}

/// A tree on its way into the common table.
struct Flattening<'g> {
    tree: &'g Tree,
    columns: &'g mut HashMap<usize, usize>,
    flats: Vec<Flat>,
    /// The leaf of rows without an answer.
    lost: u32,
    is_exact: bool,
}

impl Fast {
    /// `None` where a predicate is no comparison of numbers.
    fn new(grove: &Grove) -> Option<Self> {
        let mut columns = HashMap::new();
        let (mut all, mut is_exact) = (Vec::new(), true);
        for tree in &grove.trees {
            let flats = vec![Flat::Leaf(0)];
            let lost = grove.answers.len() as u32;
            let mut flattening = Flattening { tree, columns: &mut columns, flats, lost, is_exact };
            matches!(tree.nodes.first()?.predicate, Predicate::True).then_some(())?;
            flattening.fill(0, 0)?;
            is_exact = flattening.is_exact;
            all.push(flattening.flats);
        }
        if columns.len() > COLUMNS_MAX {
            return None;
        }
        let mut forest = Forest::new(columns.len());
        for flats in &all {
            let node = |at: usize| {
                Ok(match flats[at] {
                    Flat::Leaf(answer) => Raw::Leaf(answer),
                    Flat::Split { column, at, missing_left, left, right } => {
                        let missing = Missing { left: missing_left, zero_too: false };
                        Raw::Split { column, test: Test::AtMost(at), missing, left, right }
                    }
                })
            };
            forest.add(flats.len(), node).ok()?;
        }
        forest.finish();
        let mut slots = vec![0; columns.len()];
        columns.into_iter().for_each(|(slot, column)| slots[column] = slot);
        Some(Self { forest, columns: slots, is_exact })
    }
}

impl Flattening<'_> {
    /// Makes the place `at` decide as the node does: a chain of its children's predicates.
    fn fill(&mut self, mut at: usize, mut place: u32) -> Option<()> {
        let mut asked = 0;
        loop {
            let node = &self.tree.nodes[place as usize];
            let Some(child) = node.children.get(asked) else {
                let answers = node.children.is_empty() || self.tree.answers_itself;
                self.flats[at] = Flat::Leaf(if answers { node.answer } else { self.lost });
                return Some(());
            };
            let predicate = &self.tree.nodes[*child as usize].predicate;
            match predicate {
                Predicate::False => asked += 1,
                Predicate::True => (place, asked) = (*child, 0),
                _ => {
                    let (slot, border, is_left) = split(predicate)?;
                    let rest = node.children.get(asked + 1);
                    // Of two opposites, the second needs no question where the first was answered.
                    let other = rest.filter(|_| node.children.len() == 2 && asked == 0).filter(|other| {
                        let next = split(&self.tree.nodes[**other as usize].predicate);
                        next == Some((slot, border, !is_left))
                    });
                    let (mut skips, mut missing_yes) = (None, false);
                    match (self.tree.unknown, other) {
                        (Unknown::Pass, _) => {}
                        (Unknown::Default, Some(other)) if node.default.is_some() => {
                            (skips, missing_yes) = (Some(*other), node.default == Some(*child));
                        }
                        (_, other) => {
                            skips = other.copied();
                            self.is_exact = false;
                        }
                    }
                    let (yes, no) = (self.flats.len(), self.flats.len() + 1);
                    self.flats.extend([Flat::Leaf(0), Flat::Leaf(0)]);
                    let next = self.columns.len();
                    let column = *self.columns.entry(slot).or_insert(next);
                    let (left, right) = if is_left { (yes, no) } else { (no, yes) };
                    let missing_left = missing_yes == is_left;
                    self.flats[at] = Flat::Split { column, at: border, missing_left, left, right };
                    self.fill(yes, *child)?;
                    at = no;
                    match skips {
                        Some(other) => (place, asked) = (other, 0),
                        None => asked += 1,
                    }
                }
            }
        }
    }
}

/// Cell, border, and whether values up to the border fulfil it.
fn split(predicate: &Predicate) -> Option<(usize, f64, bool)> {
    let Predicate::Compare { slot, op, value } = predicate else { return None };
    value.is_finite().then_some(())?;
    match op {
        Op::LessOrEqual => Some((*slot, *value, true)),
        Op::Less => Some((*slot, value.next_down(), true)),
        Op::Greater => Some((*slot, *value, false)),
        Op::GreaterOrEqual => Some((*slot, value.next_down(), false)),
        Op::Equal | Op::NotEqual => None,
    }
}
