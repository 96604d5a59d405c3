//! JSON models.
//!
//! Not here: JSON (`document`), checks of what refers to what (`model`).

use super::ctr::{Ctr, Element, Kind, Table};
use super::parts::{Cat, Float, Node, Parts, Tree, error, labels_of, loss_of};
use crate::document::{self, Value};
use crate::error::{LoadError, Result};
use crate::limits::Limits;

/// Reads a document.
pub(super) fn read(document: &Value) -> Result<Parts> {
    let features = document.get("features_info").ok_or_else(|| error("features_info is missing"))?;
    for what in ["text_features", "embedding_features", "estimated_features"] {
        if features.get(what).and_then(Value::items).is_some_and(|items| !items.is_empty()) {
            return Err(LoadError::unsupported(format!("CatBoost's {what}")));
        }
    }
    let info = info(document)?;
    let mut names = Vec::new();
    let floats = list(features, "float_features").iter().map(|float| {
        let column = size(float, "flat_feature_index")?;
        names.push((column, text(float, "feature_id")));
        let treatment = text(float, "nan_value_treatment");
        let missing_right = treatment == "AsTrue";
        Ok(Float { index: size(float, "feature_index")?, column, borders: borders(float), missing_right })
    });
    let floats = floats.collect::<Result<Vec<_>>>()?;
    let (mut cats, mut one_hot) = (Vec::new(), Vec::new());
    for cat in list(features, "categorical_features") {
        let (column, index) = (size(cat, "flat_feature_index")?, size(cat, "feature_index")?);
        names.push((column, text(cat, "feature_id")));
        cats.push(Cat { index, column });
        if let Some(values) = cat.get("values").and_then(Value::numbers) {
            one_hot.push((index, values.iter().map(|value| *value as i64 as i32).collect()));
        }
    }
    let (tables, table_names) = tables(document)?;
    let ctrs = list(features, "ctrs").iter().map(|item| ctr(item, &table_names));
    let mut parts = Parts {
        dimension: 0,
        floats,
        cats,
        one_hot,
        ctrs: ctrs.collect::<Result<_>>()?,
        tables,
        trees: Vec::new(),
        values: Vec::new(),
        scale: 1.0,
        bias: Vec::new(),
        names,
        loss: info.0.as_ref().and_then(loss_of).unwrap_or_default(),
        labels: info.1.as_ref().and_then(labels_of),
        form: "JSON",
    };
    trees(document, &mut parts)?;
    (parts.scale, parts.bias) = scale_and_bias(document)?;
    Ok(parts)
}

/// The parameters of the training and of the classes, which may be documents in texts.
fn info(document: &Value) -> Result<(Option<Value>, Option<Value>)> {
    let one = |name: &str| match document.get("model_info").and_then(|info| info.get(name)) {
        Some(Value::Text(text)) => document::json(text.as_bytes(), &Limits::default()).map(Some),
        other => Ok(other.cloned()),
    };
    let classes = one("class_params")?;
    Ok((one("params")?, if classes.is_some() { classes } else { one("multiclass_params")? }))
}

fn list<'v>(value: &'v Value, name: &str) -> &'v [Value] {
    value.get(name).and_then(Value::items).unwrap_or_default()
}

fn size(value: &Value, name: &str) -> Result<usize> {
    value.get(name).and_then(Value::size).ok_or_else(|| error(format!("{name} is no index")))
}

fn number(value: &Value, name: &str) -> Result<f64> {
    value.get(name).and_then(Value::number).ok_or_else(|| error(format!("{name} is no number")))
}

fn text(value: &Value, name: &str) -> String {
    value.get(name).and_then(Value::text).unwrap_or_default().to_owned()
}

fn borders(value: &Value) -> Vec<f32> {
    let borders = value.get("borders").and_then(Value::numbers).unwrap_or_default();
    borders.iter().map(|border| *border as f32).collect()
}

fn scale_and_bias(document: &Value) -> Result<(f64, Vec<f64>)> {
    match document.get("scale_and_bias") {
        None => Ok((1.0, vec![0.0])),
        Some(Value::Numbers(both)) if both.len() == 2 => Ok((both[0], vec![both[1]])),
        Some(Value::List(items)) => match items.as_slice() {
            [Value::Number(scale), bias] if bias.numbers().is_some() => {
                Ok((*scale, bias.numbers().unwrap_or_default().to_vec()))
            }
            _ => Err(error("scale_and_bias is not a number and numbers")),
        },
        _ => Err(error("scale_and_bias is not a number and numbers")),
    }
}

fn ctr(item: &Value, tables: &[&str]) -> Result<Ctr> {
    let identifier = text(item, "identifier");
    let table = tables.iter().position(|name| *name == identifier);
    let kind = text(item, "ctr_type");
    let mut elements = Vec::new();
    for element in list(item, "elements") {
        elements.push(match text(element, "combination_element").as_str() {
            "cat_feature_value" => Element::Cat(size(element, "cat_feature_index")?),
            "float_feature" => {
                Element::Above(size(element, "float_feature_index")?, number(element, "border")? as f32)
            }
            "cat_feature_exact_value" => {
                let value = element.get("value").or(element.get("exact_value")).and_then(Value::number);
                let value = value.ok_or_else(|| error("a category's value is no number"))?;
                Element::Is(size(element, "cat_feature_index")?, value as i64 as i32)
            }
            other => return Err(error(format!("the unknown combination_element {other:?}"))),
        });
    }
    Ok(Ctr {
        elements,
        kind: Kind::of(&kind).ok_or_else(|| error(format!("the unknown ctr_type {kind:?}")))?,
        table: table.ok_or_else(|| error(format!("ctr_data has no {identifier}")))?,
        target_border: size(item, "target_border_idx")?,
        prior: (number(item, "prior_numerator")? as f32, number(item, "prior_denomerator")? as f32),
        shift: number(item, "shift")? as f32,
        scale: number(item, "scale")? as f32,
        borders: borders(item),
    })
}

fn tables(document: &Value) -> Result<(Vec<Table>, Vec<&str>)> {
    let (mut tables, mut names) = (Vec::new(), Vec::new());
    let Some(Value::Map(entries)) = document.get("ctr_data") else { return Ok((tables, names)) };
    for (name, value) in entries {
        let stride = size(value, "hash_stride")?;
        let items = list(value, "hash_map");
        if stride < 2 || !items.len().is_multiple_of(stride) {
            return Err(error(format!("ctr_data {name}: hash_map is not rows of {stride}")));
        }
        let is_mean = name.contains("MeanValue");
        let mut table = Table { classes: stride - 1, ..Table::default() };
        table.denominator = value.get("counter_denominator").and_then(Value::number).unwrap_or(0.0) as i32;
        for (row, items) in items.chunks_exact(stride).enumerate() {
            let hash = match &items[0] {
                Value::Text(text) => text.parse::<u64>().ok(),
                _ => None,
            };
            let hash = hash.ok_or_else(|| error(format!("ctr_data {name}: row {row} has no hash")))?;
            let numbers: Option<Vec<f64>> = items[1..].iter().map(Value::number).collect();
            let numbers =
                numbers.ok_or_else(|| error(format!("ctr_data {name}: row {row} holds no counts")))?;
            if hash != u64::MAX {
                table.places.insert(hash, row as u32);
            }
            match numbers.as_slice() {
                [sum, count] if is_mean => table.means.push((*sum as f32, *count as i32)),
                _ => table.counts.extend(numbers.iter().map(|number| *number as i32)),
            }
        }
        tables.push(table);
        names.push(name.as_str());
    }
    Ok((tables, names))
}

fn trees(document: &Value, parts: &mut Parts) -> Result<()> {
    let dimension = scale_and_bias(document)?.1.len();
    for (index, tree) in list(document, "oblivious_trees").iter().enumerate() {
        let splits: Result<Vec<usize>> =
            list(tree, "splits").iter().map(|split| size(split, "split_index")).collect();
        let splits = splits?;
        let values = tree.get("leaf_values").and_then(Value::numbers).unwrap_or_default();
        let leaves = 1_usize.checked_shl(splits.len() as u32).unwrap_or(0);
        if leaves == 0 || values.is_empty() || !values.len().is_multiple_of(leaves) {
            return Err(error(format!(
                "tree {index}: {} leaf_values for {} splits",
                values.len(),
                splits.len()
            )));
        }
        let width = values.len() / leaves;
        if parts.dimension != 0 && parts.dimension != width {
            return Err(error(format!("tree {index}: {width} values a leaf instead of {}", parts.dimension)));
        }
        parts.dimension = width;
        parts.trees.push(Tree::Oblivious(splits, parts.values.len()));
        parts.values.extend(values);
    }
    for (index, tree) in list(document, "trees").iter().enumerate() {
        let mut nodes = Vec::new();
        nest(tree, &mut nodes, parts).map_err(|what| error(format!("tree {index}: {what}")))?;
        parts.trees.push(Tree::Nodes(nodes));
    }
    if parts.dimension == 0 {
        parts.dimension = dimension.max(1);
    }
    Ok(())
}

/// Adds a node and what is below it; returns its place. Depth is bounded by the document's.
fn nest(value: &Value, nodes: &mut Vec<Node>, parts: &mut Parts) -> Result<usize, String> {
    let at = nodes.len();
    nodes.push(Node::Leaf(parts.values.len()));
    if let (Some(left), Some(right)) = (value.get("left"), value.get("right")) {
        let split = value.get("split").and_then(|split| split.get("split_index")).and_then(Value::size);
        let split = split.ok_or("a node without split_index")?;
        let left = nest(left, nodes, parts)?;
        let right = nest(right, nodes, parts)?;
        nodes[at] = Node::Split(split, left, right);
        return Ok(at);
    }
    let values = match value.get("value") {
        Some(Value::Number(number)) => vec![*number],
        Some(Value::Numbers(numbers)) => numbers.clone(),
        _ => return Err("a leaf without value".into()),
    };
    if parts.dimension == 0 {
        parts.dimension = values.len();
    }
    if values.len() != parts.dimension {
        return Err(format!("a leaf of {} values instead of {}", values.len(), parts.dimension));
    }
    parts.values.extend(values);
    Ok(at)
}
