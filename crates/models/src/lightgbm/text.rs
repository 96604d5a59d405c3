//! The text form: a head of `key=value` lines, then a block of them for each tree.
//!
//! Lists are as long as what they list, never as long as a count claims.
//!
//! Not here: checks of the trees' form, which building them makes (`model`).

use crate::error::{LoadError, Result};
use crate::limits::Limits;
use crate::trees::COLUMNS_MAX;

/// The most trees of a round: beyond it, a count is not a size but an attack.
const GROUPS_MAX: usize = 1 << 20;

/// A tree as files have it.
#[derive(Debug, Default)]
pub(super) struct RawTree {
    pub(super) leaves: usize,
    pub(super) feature: Vec<u32>,
    pub(super) threshold: Vec<f64>,
    pub(super) decision: Vec<u8>,
    pub(super) left: Vec<i32>,
    pub(super) right: Vec<i32>,
    pub(super) value: Vec<f64>,
    pub(super) category_starts: Vec<usize>,
    pub(super) category_words: Vec<u32>,
    /// What leaves are linear functions of, where they are.
    pub(super) linear: Option<Linear>,
}

/// Linear functions in leaves.
#[derive(Debug, Default)]
pub(super) struct Linear {
    pub(super) constant: Vec<f64>,
    /// How many columns each leaf looks at.
    pub(super) counts: Vec<usize>,
    pub(super) columns: Vec<u32>,
    pub(super) weights: Vec<f64>,
}

/// A model.
#[derive(Debug, Default)]
pub(super) struct Parts {
    pub(super) version: String,
    pub(super) features: usize,
    pub(super) feature_names: Vec<String>,
    pub(super) classes: usize,
    /// Trees of a round.
    pub(super) groups: usize,
    /// The objective and its parameters.
    pub(super) objective: String,
    /// Whether scores are means over rounds (random forests).
    pub(super) is_average: bool,
    pub(super) trees: Vec<RawTree>,
    /// How many columns were categories of pandas.
    pub(super) pandas_columns: usize,
}

pub(super) fn error(what: impl Into<String>) -> LoadError {
    LoadError::attribute("lightgbm.Booster", what)
}

fn list<T: std::str::FromStr>(key: &str, value: &str) -> Result<Vec<T>, String> {
    let parse = |word: &str| word.parse::<T>().map_err(|_| format!("{key}: {word:?} is no legal number"));
    value.split_ascii_whitespace().map(parse).collect()
}

fn size(key: &str, value: &str, max: usize) -> Result<usize> {
    let size = value.trim().parse().ok().filter(|size| *size <= max);
    size.ok_or_else(|| error(format!("{key}={value}: expected 0 to {max}")))
}

/// Reads a model.
pub(super) fn read(text: &str, limits: &Limits) -> Result<Parts> {
    let mut parts = Parts { groups: 1, classes: 1, ..Parts::default() };
    let mut lines = text.lines();
    let mut names = None;
    let mut has_end = false;
    let mut tree: Option<RawTree> = None;
    for line in &mut lines {
        let line = line.trim_end();
        if line == "end of trees" {
            has_end = true;
            break;
        }
        let Some((key, value)) = line.split_once('=') else {
            parts.is_average |= line == "average_output";
            continue;
        };
        if key == "Tree" {
            parts.trees.extend(tree.replace(RawTree::default()));
            if parts.trees.len() > limits.values_max {
                return Err(LoadError::TooLarge { what: "number of trees", limit: limits.values_max });
            }
            continue;
        }
        if let Some(tree) = &mut tree {
            let index = parts.trees.len();
            field(tree, key, value).map_err(|what| error(format!("tree {index}: {what}")))?;
            continue;
        }
        match key {
            "version" => parts.version = value.to_owned(),
            "num_class" => parts.classes = size(key, value, GROUPS_MAX)?,
            "num_tree_per_iteration" => parts.groups = size(key, value, GROUPS_MAX)?,
            "max_feature_idx" => parts.features = size(key, value, COLUMNS_MAX - 1)? + 1,
            "objective" => parts.objective = value.to_owned(),
            "feature_names" => names = Some(value),
            _ => {}
        }
    }
    parts.trees.extend(tree);
    if !has_end {
        // The end is a line of its own; without it, something is missing.
        return Err(LoadError::Truncated { what: "the trees", offset: text.len(), needed: 1, left: 0 });
    }
    let pandas = lines.rev().take(4).find_map(|line| line.strip_prefix("pandas_categorical:"));
    parts.pandas_columns = pandas.map_or(0, |list| {
        let list = serde_json::from_str::<Vec<serde_json::Value>>(list);
        list.map(|columns| columns.len()).unwrap_or(0)
    });
    if let Some(names) = names {
        let names: Vec<String> = names.split_ascii_whitespace().map(str::to_owned).collect();
        // `Column_0 Column_1 …` are no names but their absence.
        let is_counted = names.iter().enumerate().all(|(index, name)| *name == format!("Column_{index}"));
        if names.len() == parts.features && !is_counted {
            parts.feature_names = names;
        }
    }
    if parts.groups == 0 || parts.features == 0 {
        return Err(error("num_tree_per_iteration or max_feature_idx is missing or zero"));
    }
    Ok(parts)
}

fn field(tree: &mut RawTree, key: &str, value: &str) -> Result<(), String> {
    match key {
        "num_leaves" => tree.leaves = value.trim().parse().map_err(|_| format!("num_leaves={value}"))?,
        "split_feature" => tree.feature = list(key, value)?,
        "threshold" => tree.threshold = list(key, value)?,
        "decision_type" => tree.decision = list(key, value)?,
        "left_child" => tree.left = list(key, value)?,
        "right_child" => tree.right = list(key, value)?,
        "leaf_value" => tree.value = list(key, value)?,
        "cat_boundaries" => tree.category_starts = list(key, value)?,
        "cat_threshold" => tree.category_words = list(key, value)?,
        "is_linear" if value.trim() == "1" => {
            tree.linear.get_or_insert_default();
        }
        "leaf_const" => tree.linear.get_or_insert_default().constant = list(key, value)?,
        "num_features" => tree.linear.get_or_insert_default().counts = list(key, value)?,
        "leaf_features" => tree.linear.get_or_insert_default().columns = list(key, value)?,
        "leaf_coeff" => tree.linear.get_or_insert_default().weights = list(key, value)?,
        _ => {}
    }
    Ok(())
}
