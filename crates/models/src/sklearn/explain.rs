//! Explainers of estimators: their trees with the training rows' weights, their linear weights.
//!
//! Which output is explained is what the package `shap` explains: probabilities of trees and forests, raw scores of
//! boosted ensembles and linear models.
//!
//! Not here: the values themselves (`crate::explain`).

use super::attrs::Attrs;
use super::labels::Labels;
use super::tree::RawTree;
use super::{boost, forest, linear};
use crate::array::NdArray;
use crate::error::{LoadError, Result};
use crate::explain::Explain;
use crate::explain::tree::{Forest, LEAF, Tree};
use crate::graph::View;

/// The exact explainer of what a file holds; an error names the class that has none.
pub(crate) fn explainer(root: View<'_>) -> Result<Box<dyn Explain>> {
    let attrs = Attrs::new(root)?;
    let name =
        attrs.class.strip_prefix("sklearn.").unwrap_or_default().rsplit('.').next().unwrap_or_default();
    match name {
        "DecisionTreeClassifier" | "ExtraTreeClassifier" | "DecisionTreeRegressor" | "ExtraTreeRegressor" => {
            mean_of(&attrs, &[Attrs::new(attrs.view)?], name.ends_with("Classifier"))
        }
        "RandomForestClassifier"
        | "ExtraTreesClassifier"
        | "RandomForestRegressor"
        | "ExtraTreesRegressor" => mean_of(&attrs, &forest::members(&attrs)?, name.ends_with("Classifier")),
        "GradientBoostingClassifier" => boosted(&attrs, boost::classifier_start(&attrs)?),
        "GradientBoostingRegressor" => boosted(&attrs, vec![boost::regressor_start(&attrs)?]),
        "HistGradientBoostingClassifier" => {
            let classes = Labels::read(&attrs)?.len();
            histogram(&attrs, if classes == 2 { 1 } else { classes })
        }
        "HistGradientBoostingRegressor" => histogram(&attrs, 1),
        _ => linear::explainer(&attrs),
    }
}

fn mean_of(attrs: &Attrs<'_>, members: &[Attrs<'_>], classifies: bool) -> Result<Box<dyn Explain>> {
    let mut trees = Vec::with_capacity(members.len());
    let mut width = 0;
    for member in members {
        let mut raw = RawTree::read(member)?;
        if classifies && raw.outputs > 1 {
            return Err(attrs.unsupported("explaining several outputs"));
        }
        if classifies {
            forest::normalise(&mut raw);
        }
        width = raw.outputs * raw.classes;
        raw.values.iter_mut().for_each(|value| *value /= members.len() as f64);
        trees.push((raw, cover(member)?));
    }
    let mut forest = Forest::new(attrs.features()?, vec![0.0; width], true);
    for (raw, cover) in trees {
        let width = raw.outputs * raw.classes;
        add(attrs, &mut forest, raw, cover, width, 0)?;
    }
    Ok(Box::new(forest))
}

fn boosted(attrs: &Attrs<'_>, start: Vec<f64>) -> Result<Box<dyn Explain>> {
    let (scores, rate) = (start.len(), attrs.float("learning_rate")?);
    let mut forest = Forest::new(attrs.features()?, start, true);
    for (index, member) in attrs.estimators("estimators_")?.into_iter().enumerate() {
        let member = Attrs::new(member)?;
        let mut raw = RawTree::read(&member)?;
        raw.values.iter_mut().for_each(|value| *value *= rate);
        add(attrs, &mut forest, raw, cover(&member)?, 1, index % scores)?;
    }
    Ok(Box::new(forest))
}

fn histogram(attrs: &Attrs<'_>, scores: usize) -> Result<Box<dyn Explain>> {
    let mut start = attrs.floats("_baseline_prediction")?;
    start.resize(scores, start.first().copied().unwrap_or_default());
    let mut forest = Forest::new(attrs.features()?, start, false);
    for stage in attrs.estimators("_predictors")? {
        for (output, predictor) in stage.items().unwrap_or_default().into_iter().enumerate() {
            let raw = boost::hist_tree(attrs, predictor)?;
            if raw.sets.is_some() {
                return Err(attrs.unsupported("splits on categories, which are not explained"));
            }
            let counts =
                predictor.attr("nodes").and_then(View::array).and_then(|nodes| nodes.field_i64s("count"));
            let counts = counts.ok_or_else(|| attrs.error("a predictor: no node field count"))?;
            add(attrs, &mut forest, raw, counts.into_iter().map(|count| count as f64).collect(), 1, output)?;
        }
    }
    Ok(Box::new(forest))
}

/// The weight of training rows at each node.
fn cover(member: &Attrs<'_>) -> Result<Vec<f64>> {
    let nodes: Option<&NdArray> = member.req("tree_")?.attr("nodes").and_then(View::array);
    let weights = nodes.and_then(|nodes| nodes.field_f64s("weighted_n_node_samples"));
    weights.ok_or_else(|| member.error("tree_: no node field weighted_n_node_samples"))
}

fn add(
    attrs: &Attrs<'_>,
    forest: &mut Forest,
    raw: RawTree,
    cover: Vec<f64>,
    width: usize,
    output: usize,
) -> Result<(), LoadError> {
    let count = raw.left.len();
    // Numbers that are no index become ones that no node has, and are refused as such.
    let index = |value: &i64| u32::try_from(*value).unwrap_or(LEAF - 1);
    let tree = Tree {
        left: raw.left.iter().map(|left| if *left < 0 { LEAF } else { index(left) }).collect(),
        right: raw.right.iter().map(index).collect(),
        feature: raw.feature.iter().map(index).collect(),
        threshold: raw.threshold,
        missing_left: raw
            .missing_left
            .map_or(vec![false; count], |all| all.iter().map(|it| *it != 0).collect()),
        cover,
        values: raw.values,
        width,
        output,
    };
    forest.add(tree).map_err(|what| attrs.error(format!("a tree: {what}")))
}
