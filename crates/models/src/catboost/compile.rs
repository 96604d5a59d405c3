//! From what a file says to what a model needs: columns, combinations, labels, trees; all references are checked.
//!
//! Not here: answers (`model`).

use std::collections::HashMap;

use super::ctr::Element;
use super::hash;
use super::link::Link;
use super::parts::{Node, Parts, Split, Tree, error};
use crate::booster;
use crate::error::{LoadError, Result};
use crate::sklearn::Labels;
use crate::trees::{COLUMNS_MAX, Forest, Missing, Raw, Test};

/// The deepest oblivious tree that the library makes.
const DEPTH_MAX: usize = 16;
/// How many columns a file may leave out.
const SPARE_MAX: usize = 1 << 20;
/// Categories that are integers up to this are recognised as such.
const INTEGERS_MAX: i64 = 1 << 16;

/// A column of categories: its place in the row, and the features that are one for a value.
#[derive(Default)]
pub(super) struct Category {
    pub(super) column: usize,
    pub(super) is_text: bool,
    /// Whether any test looks at it.
    pub(super) is_used: bool,
    pub(super) ones: HashMap<i32, usize>,
}

/// What a statistic's hash is made of, in places of the model.
pub(super) enum Piece {
    Cat(usize),
    Above(usize, f32),
    Is(usize, i32),
}

/// Places of the columns that tests look at.
pub(super) struct Columns {
    pub(super) by_split: Vec<(usize, f32)>,
    pub(super) width: usize,
}

/// Refuses sizes that the file does not bear out.
pub(super) fn check(parts: &Parts) -> Result<()> {
    let columns =
        parts.floats.iter().map(|float| float.column).chain(parts.cats.iter().map(|cat| cat.column));
    // Columns that no test looks at may be absent from a file, but not millions of them.
    let limit = (parts.floats.len() + parts.cats.len()).saturating_add(SPARE_MAX).min(COLUMNS_MAX);
    if columns.max().is_some_and(|most| most >= limit) {
        return Err(LoadError::TooLarge { what: "number of columns", limit });
    }
    let limit = parts.values.len().max(1 << 16);
    match parts.dimension {
        0 => Err(error("ApproxDimension is 0")),
        dimension if dimension > limit => Err(LoadError::TooLarge { what: "ApproxDimension", limit }),
        _ => Ok(()),
    }
}

/// The columns of categories that the model uses.
pub(super) fn categories(parts: &Parts) -> Result<Vec<Category>> {
    let mut made = Vec::new();
    let mut unknown = Vec::new();
    for cat in &parts.cats {
        let mut known: Vec<u64> = Vec::new();
        for (_, values) in parts.one_hot.iter().filter(|(index, _)| *index == cat.index) {
            known.extend(values.iter().map(|value| hash::chain_category(0, *value)));
        }
        for ctr in parts.ctrs.iter().filter(|ctr| ctr.elements == [Element::Cat(cat.index)]) {
            known.extend(parts.tables.get(ctr.table).into_iter().flat_map(|table| table.places.keys()));
        }
        known.sort_unstable();
        known.dedup();
        let is_integer = |int: &i64| {
            let hash = hash::chain_category(0, hash::category(&int.to_string()));
            known.binary_search(&hash).is_ok()
        };
        // A file has hashes only. What hashes as small integers do was integers, written as JSON writes them.
        let is_among = |element: &Element| match element {
            Element::Cat(index) | Element::Is(index, _) => *index == cat.index,
            Element::Above(..) => false,
        };
        let is_used = !known.is_empty() || parts.ctrs.iter().any(|ctr| ctr.elements.iter().any(is_among));
        if known.is_empty() {
            unknown.push(made.len());
        }
        let is_text = (-1..INTEGERS_MAX).filter(is_integer).count() * 2 < known.len();
        made.push(Category { column: cat.column, is_text, is_used, ones: HashMap::new() });
    }
    // Columns that are used only with others, or never, are what the others are.
    let has_texts = made.iter().any(|category| category.is_text);
    unknown.into_iter().for_each(|place| made[place].is_text = has_texts);
    Ok(made)
}

/// A column for each number, each value of a category that is a feature, each statistic.
pub(super) fn columns(parts: &Parts, splits: &[Split], categories: &mut [Category]) -> Result<Columns> {
    let mut width = parts.floats.len();
    let mut by_split = Vec::with_capacity(splits.len());
    for split in splits {
        by_split.push(match split {
            Split::Float(place, border) => (*place, *border),
            Split::OneHot(index, value) => {
                let place = parts.cats.iter().position(|cat| cat.index == *index);
                let place = place.ok_or_else(|| error(format!("no categorical feature {index}")))?;
                let column = *categories[place].ones.entry(*value).or_insert_with(|| {
                    width += 1;
                    width - 1
                });
                (column, 0.5)
            }
            Split::Ctr(place, border) => (width + place, *border),
        });
    }
    width += parts.ctrs.len();
    if width > COLUMNS_MAX {
        return Err(LoadError::TooLarge { what: "number of columns", limit: COLUMNS_MAX });
    }
    Ok(Columns { by_split, width })
}

/// The combinations that statistics are about, each once, and which each statistic has.
pub(super) fn combinations(parts: &Parts) -> Result<(Vec<Vec<Piece>>, Vec<usize>)> {
    let (mut made, mut places): (Vec<Vec<Piece>>, Vec<usize>) = (Vec::new(), Vec::new());
    let cat = |index: usize| {
        let place = parts.cats.iter().position(|cat| cat.index == index);
        place.ok_or_else(|| error(format!("no categorical feature {index}")))
    };
    for (index, ctr) in parts.ctrs.iter().enumerate() {
        let table = parts.tables.get(ctr.table).ok_or_else(|| error("a statistic without its table"))?;
        table.check(ctr).map_err(|what| error(format!("statistic {index}: {what}")))?;
        if index > 0 && parts.ctrs[index - 1].elements == ctr.elements {
            places.push(made.len() - 1);
            continue;
        }
        let link = |element: &Element| {
            Ok(match element {
                Element::Cat(index) => Piece::Cat(cat(*index)?),
                Element::Is(index, value) => Piece::Is(cat(*index)?, *value),
                Element::Above(index, border) => {
                    let place = parts.floats.iter().position(|float| float.index == *index);
                    Piece::Above(place.ok_or_else(|| error(format!("no float feature {index}")))?, *border)
                }
            })
        };
        places.push(made.len());
        made.push(ctr.elements.iter().map(link).collect::<Result<_>>()?);
    }
    Ok((made, places))
}

/// What classes are called; `None` for what has none.
pub(super) fn labels(parts: &Parts, link: Link) -> Result<Option<Labels>> {
    if !link.is_classifier() {
        return Ok(None);
    }
    if link == Link::Binary && parts.dimension != 1 {
        return Err(error(format!("{} with {} scores", parts.loss, parts.dimension)));
    }
    let count = if link == Link::Binary { 2 } else { parts.dimension };
    match &parts.labels {
        Some(labels) if labels.len() == count => Ok(Some(labels.clone())),
        // Targets that were probabilities have no labels, or one.
        _ if link == Link::Binary => Ok(Some(booster::counted(2))),
        None => Ok(Some(booster::counted(count))),
        Some(labels) => Err(error(format!("{} class names for {count} classes", labels.len()))),
    }
}

pub(super) fn names(known: &[(usize, String)], features: usize) -> Vec<String> {
    if known.iter().all(|(_, name)| name.is_empty()) {
        return Vec::new();
    }
    let mut names: Vec<String> = (0..features).map(|column| column.to_string()).collect();
    for (column, name) in known.iter().filter(|(_, name)| !name.is_empty()) {
        names[*column].clone_from(name);
    }
    names
}

pub(super) fn add(
    forest: &mut Forest<f32>,
    tree: &Tree,
    parts: &Parts,
    columns: &Columns,
) -> Result<(), String> {
    let missing = Missing { left: true, zero_too: false };
    let leaf = |first: usize| match first.checked_add(parts.dimension) {
        Some(end) if parts.dimension > 0 && end <= parts.values.len() && u32::try_from(end).is_ok() => {
            Ok(Raw::Leaf(first as u32))
        }
        _ => Err(format!("a leaf's values at {first} of {}", parts.values.len())),
    };
    let split = |split: usize, left: usize, right: usize| {
        let (column, border) = columns.by_split.get(split).ok_or(format!("no split {split}"))?;
        Ok(Raw::Split { column: *column, test: Test::AtMost(*border), missing, left, right })
    };
    match tree {
        Tree::Nodes(nodes) => forest.add(nodes.len(), |node| match nodes[node] {
            Node::Leaf(first) => leaf(first),
            Node::Split(number, left, right) => split(number, left, right),
        }),
        Tree::Oblivious(splits, first) => {
            let depth = splits.len();
            if depth > DEPTH_MAX {
                return Err(format!("{depth} levels, more than {DEPTH_MAX}"));
            }
            leaf(first.saturating_add(((1 << depth) - 1) * parts.dimension))?;
            forest.add((2 << depth) - 1, |node| {
                let level = (node + 1).ilog2() as usize;
                if level < depth {
                    return split(splits[level], 2 * node + 1, 2 * node + 2);
                }
                // The first level decides the lowest bit.
                let path = (node + 1) - (1 << depth);
                let place = (0..depth).fold(0, |place, bit| place | (path >> bit & 1) << (depth - 1 - bit));
                leaf(first + place * parts.dimension)
            })
        }
    }
}
