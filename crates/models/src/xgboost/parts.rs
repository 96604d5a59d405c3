//! The parts of a model that predictions need, and how JSON and UBJSON hold them.
//!
//! Not here: checks of the trees' form, which building them makes (`model`).

use crate::document::Value;
use crate::error::{LoadError, Result};
use crate::trees::COLUMNS_MAX;

/// The most outputs of a model: beyond it, a count is not a size but an attack.
const GROUPS_MAX: usize = 1 << 20;

/// Words that all sets of categories of a model may take: lists in a file are short, their bits need not be.
const WORDS_MAX: usize = 1 << 25;

/// A tree as files have it: one entry for each node.
#[derive(Debug, Default)]
pub(super) struct RawTree {
    pub(super) left: Vec<i32>,
    pub(super) right: Vec<i32>,
    pub(super) column: Vec<u32>,
    /// A leaf's value, or the split's threshold.
    pub(super) condition: Vec<f32>,
    pub(super) default_left: Vec<bool>,
    /// For each node that splits on categories, those that go right, as bits.
    pub(super) categories: Vec<Option<Vec<u32>>>,
    /// Vectors of leaves, where a leaf is one.
    pub(super) vectors: Option<Vectors>,
}

/// Leaves that are vectors.
#[derive(Debug)]
pub(super) struct Vectors {
    pub(super) values: Vec<f32>,
    /// Whether a leaf's number is its entry of `right`, else it is the node's index.
    pub(super) by_leaf: bool,
}

/// What is boosted.
#[derive(Debug)]
pub(super) enum Learner {
    Trees {
        trees: Vec<RawTree>,
        /// The output that each tree adds to.
        groups: Vec<usize>,
        /// What each tree's leaves are multiplied by (`dart`).
        weights: Option<Vec<f32>>,
        /// Trees of a round for each output (random forests).
        parallel: usize,
    },
    /// Weights by column and output; the last row is the bias.
    Linear(Vec<f32>),
}

/// A model.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) booster: String,
    pub(super) learner: Learner,
    pub(super) objective: String,
    /// One, or one for each output.
    pub(super) base_score: Vec<f32>,
    /// Whether the base score is written as a list, as since 3.1.
    pub(super) is_vector: bool,
    pub(super) features: usize,
    pub(super) classes: usize,
    pub(super) targets: usize,
    pub(super) feature_names: Vec<String>,
    /// For example `3.2.0`.
    pub(super) version: String,
    pub(super) best_iteration: Option<usize>,
    /// How it was stored.
    pub(super) format: &'static str,
}

impl Parts {
    /// Outputs of a row before the objective.
    pub(super) fn groups(&self) -> usize {
        self.classes.max(self.targets).max(1)
    }

    /// Refuses sizes that no model has.
    pub(super) fn checked(self) -> Result<Self> {
        if self.features > COLUMNS_MAX || self.groups() > GROUPS_MAX {
            return Err(LoadError::TooLarge { what: "number of columns or outputs", limit: GROUPS_MAX });
        }
        if self.base_score.is_empty() || ![1, self.groups()].contains(&self.base_score.len()) {
            return Err(error(format!(
                "learner_model_param.base_score has {} numbers",
                self.base_score.len()
            )));
        }
        Ok(self)
    }
}

pub(super) fn error(what: impl Into<String>) -> LoadError {
    LoadError::attribute("xgboost.Booster", what)
}

fn req<'v>(value: &'v Value, path: &str) -> Result<&'v Value> {
    value.at(path).ok_or_else(|| error(format!("the field {path} is missing")))
}

fn text<'v>(value: &'v Value, path: &str) -> Result<&'v str> {
    req(value, path)?.text().ok_or_else(|| error(format!("the field {path} is no text")))
}

fn size_or(value: &Value, path: &str, default: usize) -> Result<usize> {
    match value.at(path) {
        None => Ok(default),
        Some(value) => value.size().ok_or_else(|| error(format!("the field {path} is no size"))),
    }
}

/// Reads a document.
pub(super) fn of_document(document: &Value) -> Result<Parts> {
    let document = document.get("Model").unwrap_or(document);
    let learner = req(document, "learner")?;
    let booster = text(learner, "gradient_booster.name")?.to_owned();
    let gradient = req(learner, "gradient_booster")?;
    let trees = match booster.as_str() {
        "gbtree" => trees_of(req(gradient, "model")?, None)?,
        "dart" => {
            let weights = req(gradient, "weight_drop")?.numbers();
            let weights = weights.ok_or_else(|| error("the field weight_drop has no numbers"))?;
            let weights = weights.iter().map(|weight| *weight as f32).collect();
            trees_of(req(gradient, "gbtree.model")?, Some(weights))?
        }
        "gblinear" => {
            let weights = req(gradient, "model.weights")?.numbers();
            let weights = weights.ok_or_else(|| error("the field model.weights has no numbers"))?;
            Learner::Linear(weights.iter().map(|weight| *weight as f32).collect())
        }
        other => return Err(LoadError::unsupported(format!("XGBoost's booster {other:?}"))),
    };
    let version: Vec<String> = document
        .get("version")
        .and_then(Value::numbers)
        .unwrap_or_default()
        .iter()
        .take(3)
        .map(f64::to_string)
        .collect();
    let best = learner.at("attributes.best_iteration").and_then(Value::size);
    let base = text(learner, "learner_model_param.base_score")?;
    Parts {
        booster,
        learner: trees,
        objective: text(learner, "objective.name")?.to_owned(),
        base_score: base_score(base)?,
        is_vector: base.starts_with('['),
        features: size_or(learner, "learner_model_param.num_feature", 0)?,
        classes: size_or(learner, "learner_model_param.num_class", 0)?,
        targets: size_or(learner, "learner_model_param.num_target", 1)?,
        feature_names: learner.get("feature_names").map(Value::texts).unwrap_or_default(),
        version: version.join("."),
        best_iteration: best,
        format: "JSON",
    }
    .checked()
}

/// A number, or since 3.1 a list of them, in a text.
fn base_score(text: &str) -> Result<Vec<f32>> {
    let inner = text.trim().trim_start_matches('[').trim_end_matches(']');
    let numbers: Option<Vec<f32>> = inner.split(',').map(|number| number.trim().parse().ok()).collect();
    numbers.ok_or_else(|| error(format!("learner_model_param.base_score is {text:?}")))
}

fn trees_of(model: &Value, weights: Option<Vec<f32>>) -> Result<Learner> {
    let trees = req(model, "trees")?.items().ok_or_else(|| error("the field trees is no list"))?;
    let groups =
        req(model, "tree_info")?.numbers().ok_or_else(|| error("the field tree_info has no numbers"))?;
    if groups.len() != trees.len() {
        return Err(error(format!("tree_info has {} entries for {} trees", groups.len(), trees.len())));
    }
    let mut words = WORDS_MAX;
    let read =
        |(index, tree)| tree_of(tree, &mut words).map_err(|what| error(format!("tree {index}: {what}")));
    Ok(Learner::Trees {
        trees: trees.iter().enumerate().map(read).collect::<Result<_>>()?,
        groups: groups.iter().map(|group| *group as usize).collect(),
        weights,
        parallel: size_or(model, "gbtree_model_param.num_parallel_tree", 1)?.max(1),
    })
}

/// Numbers or truth values of a tree's field.
fn column(tree: &Value, name: &str) -> Result<Vec<f64>, String> {
    let value = tree.get(name).ok_or_else(|| format!("the field {name} is missing"))?;
    match value {
        Value::List(items) => items.iter().map(Value::number).collect(),
        other => other.numbers().map(<[f64]>::to_vec),
    }
    .ok_or_else(|| format!("the field {name} has no numbers"))
}

fn tree_of(tree: &Value, words: &mut usize) -> Result<RawTree, String> {
    let left: Vec<i32> = column(tree, "left_children")?.into_iter().map(|n| n as i32).collect();
    let count = left.len();
    let same = |name: &str| {
        let found = column(tree, name)?;
        if found.len() == count {
            Ok(found)
        } else {
            Err(format!("{name} has {} of {count} entries", found.len()))
        }
    };
    let types = if tree.get("split_type").is_some() { same("split_type")? } else { vec![0.0; count] };
    let width = tree.at("tree_param.size_leaf_vector").and_then(Value::size).unwrap_or(0);
    let vectors = match width {
        0 | 1 => None,
        _ => {
            let by_leaf = tree.get("leaf_weights").is_some();
            let values = column(tree, if by_leaf { "leaf_weights" } else { "base_weights" })?;
            Some(Vectors { values: values.into_iter().map(|v| v as f32).collect(), by_leaf })
        }
    };
    Ok(RawTree {
        right: same("right_children")?.into_iter().map(|n| n as i32).collect(),
        column: same("split_indices")?.into_iter().map(|n| n as u32).collect(),
        condition: same("split_conditions")?.into_iter().map(|n| n as f32).collect(),
        default_left: same("default_left")?.into_iter().map(|n| n != 0.0).collect(),
        categories: categories(tree, &types, words)?,
        vectors,
        left,
    })
}

fn categories(tree: &Value, types: &[f64], words: &mut usize) -> Result<Vec<Option<Vec<u32>>>, String> {
    let mut sets = vec![None; types.len()];
    if types.iter().all(|kind| *kind == 0.0) {
        return Ok(sets);
    }
    let all = column(tree, "categories")?;
    let nodes = column(tree, "categories_nodes")?;
    let starts = column(tree, "categories_segments")?;
    let sizes = column(tree, "categories_sizes")?;
    if nodes.len() != starts.len() || nodes.len() != sizes.len() {
        return Err("the fields categories_… differ in length".into());
    }
    for ((node, start), size) in nodes.into_iter().zip(starts).zip(sizes) {
        let (start, size) = (start as usize, size as usize);
        let members = start.checked_add(size).and_then(|end| all.get(start..end));
        let members = members.ok_or_else(|| format!("categories_segments: {start} + {size} is too far"))?;
        let set =
            sets.get_mut(node as usize).ok_or_else(|| format!("categories_nodes: {node} is too far"))?;
        // A category is at most 2^24, as the library has it: it must be exact in 32 bits of float.
        let mut bits = Vec::new();
        for member in members {
            let member = *member as usize;
            if member > 1 << 24 {
                return Err(format!("categories: {member} is too large"));
            }
            if bits.len() <= member / 32 {
                bits.resize(member / 32 + 1, 0_u32);
            }
            bits[member / 32] |= 1 << (member % 32);
        }
        *words = words.checked_sub(bits.len()).ok_or("categories: their sets are too large")?;
        *set = Some(bits);
    }
    for (set, kind) in sets.iter_mut().zip(types) {
        if *kind == 0.0 {
            *set = None;
        } else if set.is_none() {
            return Err("a split on categories without any".into());
        }
    }
    Ok(sets)
}
