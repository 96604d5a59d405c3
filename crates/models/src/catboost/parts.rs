//! What both forms of a file hold.
//!
//! Not here: reading (`json`, `cbm`), checks and answers (`model`).

use super::ctr::{Ctr, Table};
use crate::document::Value;
use crate::error::LoadError;
use crate::sklearn::Labels;

/// A column of numbers.
#[derive(Debug)]
pub(super) struct Float {
    /// Its number among the numbers.
    pub(super) index: usize,
    /// Its number among all columns.
    pub(super) column: usize,
    pub(super) borders: Vec<f32>,
    /// Missing values are greater than every border.
    pub(super) missing_right: bool,
}

/// A column of categories.
#[derive(Debug)]
pub(super) struct Cat {
    /// Its number among the categories.
    pub(super) index: usize,
    /// Its number among all columns.
    pub(super) column: usize,
}

/// A test, by its number in the order of float borders, one-hot values, statistics' borders.
#[derive(Debug, Clone, Copy)]
pub(super) enum Split {
    /// A place in [`Parts::floats`], and a border.
    Float(usize, f32),
    /// A category's index and its hash.
    OneHot(usize, i32),
    /// A place in [`Parts::ctrs`], and a border.
    Ctr(usize, f32),
}

/// A node of a tree that is not oblivious; children are places in the tree.
#[derive(Debug, Clone, Copy)]
pub(super) enum Node {
    /// Where the leaf's values start.
    Leaf(usize),
    /// A number of a split, what follows when it does not hold, and when it does.
    Split(usize, usize, usize),
}

#[derive(Debug)]
pub(super) enum Tree {
    /// One split for each level, and where the values of its leaves start.
    Oblivious(Vec<usize>, usize),
    Nodes(Vec<Node>),
}

/// A model as it was read.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) dimension: usize,
    pub(super) floats: Vec<Float>,
    pub(super) cats: Vec<Cat>,
    /// Values of categories that are features of their own: the category's index, hashes.
    pub(super) one_hot: Vec<(usize, Vec<i32>)>,
    pub(super) ctrs: Vec<Ctr>,
    pub(super) tables: Vec<Table>,
    pub(super) trees: Vec<Tree>,
    pub(super) values: Vec<f64>,
    pub(super) scale: f64,
    pub(super) bias: Vec<f64>,
    /// Names by column; empty where there are none.
    pub(super) names: Vec<(usize, String)>,
    pub(super) loss: String,
    pub(super) labels: Option<Labels>,
    pub(super) form: &'static str,
}

/// An error of the reader.
pub(super) fn error(what: impl Into<String>) -> LoadError {
    LoadError::attribute("catboost.CatBoost", what)
}

impl Parts {
    /// All tests in the order in which trees number them.
    pub(super) fn splits(&self) -> Vec<Split> {
        let floats = self.floats.iter().enumerate();
        let mut all: Vec<Split> = floats
            .flat_map(|(place, float)| float.borders.iter().map(move |border| Split::Float(place, *border)))
            .collect();
        for (cat, values) in &self.one_hot {
            all.extend(values.iter().map(|value| Split::OneHot(*cat, *value)));
        }
        for (place, ctr) in self.ctrs.iter().enumerate() {
            all.extend(ctr.borders.iter().map(|border| Split::Ctr(place, *border)));
        }
        all
    }
}

/// The name of the loss in the parameters of the training.
pub(super) fn loss_of(params: &Value) -> Option<String> {
    params.at("loss_function.type").and_then(Value::text).map(str::to_owned)
}

/// What classes are called, in the parameters of the classes.
pub(super) fn labels_of(params: &Value) -> Option<Labels> {
    let names = params.get("class_names")?;
    let texts = names.texts();
    if !texts.is_empty() {
        return Some(Labels::Texts(texts));
    }
    if let Some(items) = names.items()
        && !items.is_empty()
    {
        let truths: Option<Vec<bool>> = items
            .iter()
            .map(|item| if let Value::Bool(truth) = item { Some(*truth) } else { None })
            .collect();
        return truths.map(Labels::Bools);
    }
    let mut numbers = names.numbers()?;
    if numbers.is_empty() {
        numbers = params.get("class_to_label").and_then(Value::numbers).unwrap_or_default();
    }
    if numbers.is_empty() {
        return None;
    }
    match params.get("class_label_type").and_then(Value::text) {
        Some("Float") => Some(Labels::Floats(numbers.to_vec())),
        Some("Boolean") => Some(Labels::Bools(numbers.iter().map(|number| *number != 0.0).collect())),
        _ => Some(Labels::Ints(numbers.iter().map(|number| *number as i64).collect())),
    }
}
