//! Transforms side by side: `FeatureUnion` and `ColumnTransformer`.
//!
//! Not here: columns of texts. A model that needs them is refused with its class and the reason.

use super::attrs::Attrs;
use super::{Estimator, Evaluated, Part, Read, Role, Rows, Transform, read_at};
use crate::array::Kind;
use crate::error::Result;
use crate::graph::View;

/// A transform (none: the columns as they are), its columns, and what its outputs are multiplied by.
type Beside = (Option<Box<dyn Transform>>, Vec<usize>, f64);

/// Transforms side by side, each on its columns.
struct SideBySide {
    parts: Vec<Beside>,
    width: usize,
}

impl Transform for SideBySide {
    fn width_out(&self) -> usize {
        self.width
    }

    fn transform(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        let mut start = 0;
        for (transform, columns, weight) in &self.parts {
            let picked: Vec<f64> =
                rows.iter().flat_map(|row| columns.iter().map(|column| row[*column])).collect();
            let part = match transform {
                None => picked,
                Some(transform) => {
                    let mut part = vec![0.0; rows.count * transform.width_out()];
                    transform.transform(Rows::new(&picked, columns.len(), rows.count), &mut part)?;
                    part
                }
            };
            let width = transform.as_ref().map_or(columns.len(), |transform| transform.width_out());
            for row in 0..rows.count {
                for (slot, value) in
                    out[row * self.width + start..].iter_mut().zip(&part[row * width..(row + 1) * width])
                {
                    *slot = value * weight;
                }
            }
            start += width;
        }
        Ok(())
    }
}

/// Adds one part and returns its lines of the report.
fn push(
    attrs: &Attrs<'_>,
    all: &mut SideBySide,
    name: &str,
    estimator: Estimator,
    columns: Vec<usize>,
    weight: f64,
) -> Result<Vec<Part>> {
    let Role::Transformer(transform) = estimator.role else {
        return Err(attrs.error(format!("{} among transformers", estimator.class)));
    };
    if estimator.features != columns.len() {
        return Err(attrs.error(format!(
            "{name} takes {} columns and gets {}",
            estimator.features,
            columns.len()
        )));
    }
    all.width += transform.width_out();
    all.parts.push((Some(transform), columns, weight));
    let mut parts = estimator.parts;
    if let Some(part) = parts.first_mut() {
        part.step = Some(name.to_owned());
    }
    Ok(parts)
}

fn finish(all: SideBySide, inner: Vec<Part>, features: usize, cost: u64) -> Read {
    let detail = format!("{} parts, {features} columns to {}", all.parts.len(), all.width);
    let mut made = Read::new(Role::Transformer(Box::new(all)), detail, cost);
    made.inner = inner;
    made.features = Some(features);
    made
}

pub(super) fn union(attrs: &Attrs<'_>, depth: usize) -> Result<Read> {
    let mut all = SideBySide { parts: Vec::new(), width: 0 };
    let (mut inner, mut cost, mut features) = (Vec::new(), 0, None);
    for step in attrs.estimators("transformer_list")? {
        let pair = step.items().unwrap_or_default();
        let [name, member, ..] = pair.as_slice() else { return Err(attrs.error("a part is not a pair")) };
        let name = name.text().unwrap_or_default();
        if member.text().is_some() || member.is_none() {
            return Err(attrs.unsupported("parts that are dropped or passed through"));
        }
        let weights = attrs.opt("transformer_weights");
        let weight = weights.and_then(|weights| weights.entry(name)).and_then(View::float).unwrap_or(1.0);
        let estimator = read_at(*member, depth + 1)?;
        let width = *features.get_or_insert(estimator.features);
        cost += estimator.row_cost_ns;
        inner.extend(push(attrs, &mut all, name, estimator, (0..width).collect(), weight)?);
    }
    let features = features.ok_or_else(|| attrs.error("it has no parts"))?;
    Ok(finish(all, inner, features, cost))
}

/// The indices that a column specification means.
fn indices(attrs: &Attrs<'_>, spec: View<'_>, names: &[String], features: usize) -> Result<Vec<usize>> {
    let by_name = |name: &str| names.iter().position(|one| one == name);
    let unknown = || attrs.unsupported(&format!("columns given as {}", spec.class_name()));
    let found: Option<Vec<usize>> = if let Some(name) = spec.text() {
        by_name(name).map(|index| vec![index])
    } else if let Some(texts) = spec.texts().filter(|texts| !texts.is_empty()) {
        texts.iter().map(|name| by_name(name)).collect()
    } else if let Some(items) = spec.items().filter(|items| items.iter().any(|item| item.int().is_none())) {
        return Err(attrs.unsupported(&format!("columns given as a list of {}", items[0].class_name())));
    } else if spec.array().is_some_and(|array| array.dtype.kind == Kind::Bool) {
        let mask = spec.floats().ok_or_else(unknown)?;
        Some((0..mask.len()).filter(|index| mask[*index] != 0.0).collect())
    } else if spec.object().is_some_and(|object| &*object.class.name == "slice") {
        return Err(unknown());
    } else {
        let floats = spec.floats().ok_or_else(unknown)?;
        let count = features as f64;
        Some(
            floats
                .into_iter()
                .map(|index| (if index < 0.0 { index + count } else { index }) as usize)
                .collect(),
        )
    };
    let found = found.ok_or_else(|| attrs.error("a column's name is not among feature_names_in_"))?;
    match found.iter().find(|index| **index >= features) {
        Some(index) => Err(attrs.error(format!("the column {index} does not exist"))),
        None => Ok(found),
    }
}

pub(super) fn transformer(attrs: &Attrs<'_>, depth: usize) -> Result<Read> {
    let features = attrs.features()?;
    let names = attrs.opt("feature_names_in_").and_then(View::texts).unwrap_or_default();
    let mut all = SideBySide { parts: Vec::new(), width: 0 };
    let (mut inner, mut cost) = (Vec::new(), 0);
    for step in attrs.estimators("transformers_")? {
        let triple = step.items().unwrap_or_default();
        let [name, member, spec, ..] = triple.as_slice() else {
            return Err(attrs.error("a part is not a triple"));
        };
        let name = name.text().unwrap_or_default();
        if member.text() == Some("drop") {
            continue;
        }
        let columns = indices(attrs, *spec, &names, features)?;
        if columns.is_empty() {
            continue;
        }
        let is_identity = member.object().is_some_and(|object| &*object.class.name == "FunctionTransformer")
            && member.attr("func").is_some_and(View::is_none);
        if member.text() == Some("passthrough") || is_identity {
            all.width += columns.len();
            all.parts.push((None, columns, 1.0));
            continue;
        }
        let weights = attrs.opt("transformer_weights");
        let weight = weights.and_then(|weights| weights.entry(name)).and_then(View::float).unwrap_or(1.0);
        let estimator = read_at(*member, depth + 1)?;
        cost += estimator.row_cost_ns;
        inner.extend(push(attrs, &mut all, name, estimator, columns, weight)?);
    }
    Ok(finish(all, inner, features, cost))
}
