//! Transforms of single columns and of groups of them: imputers, encoders of numbers, polynomials, and the two
//! ways to put transforms side by side.
//!
//! Not here: columns of texts. A model that needs them is refused with its class and the reason.

use super::attrs::{Attrs, WIDTH_MAX};
use super::{Estimator, Evaluated, Part, Read, Role, Rows, Transform, check_finite, read_at};
use crate::array::{Elements, Kind};
use crate::backend::BackendError;
use crate::error::{LoadError, Result};
use crate::graph::View;

/// Fills what is missing with a number for each column.
struct Imputer {
    fill: Vec<f64>,
    missing: f64,
    /// Columns that were empty in training are dropped.
    kept: Vec<usize>,
}

impl Transform for Imputer {
    fn width_out(&self) -> usize {
        self.kept.len()
    }

    fn transform(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        check_finite(rows, self.missing.is_nan())?;
        let mut slots = out.iter_mut();
        for row in rows.iter() {
            for (column, slot) in self.kept.iter().zip(&mut slots) {
                let value = row[*column];
                let is_missing = value == self.missing || (value.is_nan() && self.missing.is_nan());
                *slot = if is_missing { self.fill[*column] } else { value };
            }
        }
        Ok(())
    }
}

pub(super) fn imputer(attrs: &Attrs<'_>) -> Result<Read> {
    if attrs.truth_or("add_indicator", false) {
        return Err(attrs.unsupported("add_indicator"));
    }
    let width = attrs.features()?;
    let fill = attrs
        .column_floats("statistics_", width)
        .map_err(|_| attrs.unsupported("columns that are no numbers"))?;
    let missing = attrs.opt("missing_values").and_then(View::float);
    let missing = missing.ok_or_else(|| attrs.unsupported("missing values that are no numbers"))?;
    let keeps_empty = attrs.truth_or("keep_empty_features", false) || attrs.text("strategy")? == "constant";
    let kept = (0..width).filter(|column| keeps_empty || !fill[*column].is_nan()).collect();
    let role = Role::Transformer(Box::new(Imputer { fill, missing, kept }));
    Ok(Read::new(role, format!("{width} columns"), width as u64))
}

/// 1 above the threshold, else 0.
struct Binarizer {
    threshold: f64,
    width: usize,
}

impl Transform for Binarizer {
    fn width_out(&self) -> usize {
        self.width
    }

    fn transform(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        check_finite(rows, false)?;
        out.iter_mut().zip(rows.data).for_each(|(slot, x)| *slot = f64::from(u8::from(*x > self.threshold)));
        Ok(())
    }
}

pub(super) fn binarizer(attrs: &Attrs<'_>) -> Result<Read> {
    let (threshold, width) = (attrs.float("threshold")?, attrs.features()?);
    Ok(Read::new(
        Role::Transformer(Box::new(Binarizer { threshold, width })),
        format!("{width} columns"),
        width as u64,
    ))
}

/// Some of the columns.
struct Selection {
    kept: Vec<usize>,
    allow_nan: bool,
}

impl Transform for Selection {
    fn width_out(&self) -> usize {
        self.kept.len()
    }

    fn transform(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        check_finite(rows, self.allow_nan)?;
        let mut slots = out.iter_mut();
        for row in rows.iter() {
            for (column, slot) in self.kept.iter().zip(&mut slots) {
                *slot = row[*column];
            }
        }
        Ok(())
    }
}

pub(super) fn variance_threshold(attrs: &Attrs<'_>) -> Result<Read> {
    let variances = attrs.column_floats("variances_", attrs.features()?)?;
    let threshold = attrs.float("threshold")?;
    let kept: Vec<usize> = (0..variances.len()).filter(|column| variances[*column] > threshold).collect();
    let detail = format!("{} of {} columns", kept.len(), variances.len());
    Ok(Read::new(
        Role::Transformer(Box::new(Selection { kept, allow_nan: true })),
        detail,
        variances.len() as u64,
    ))
}

/// Products of columns; each output lists its factors, so that repeated ones are powers.
struct Polynomial {
    products: Vec<Vec<usize>>,
}

impl Transform for Polynomial {
    fn width_out(&self) -> usize {
        self.products.len()
    }

    fn transform(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        check_finite(rows, false)?;
        let mut slots = out.iter_mut();
        for row in rows.iter() {
            for (product, slot) in self.products.iter().zip(&mut slots) {
                *slot = product.iter().fold(1.0, |value, column| value * row[*column]);
            }
        }
        Ok(())
    }
}

pub(super) fn polynomial(attrs: &Attrs<'_>) -> Result<Read> {
    let width = attrs.features()?;
    let degree = attrs.req("degree")?;
    let (low, high) = match (degree.int(), degree.floats().as_deref()) {
        (Some(high), _) => (0, high as usize),
        (None, Some([low, high])) => (*low as usize, *high as usize),
        _ => return Err(attrs.error("degree is neither a number nor a pair")),
    };
    let (single, bias) = (attrs.truth_or("interaction_only", false), attrs.truth_or("include_bias", true));
    let mut products = Vec::new();
    if bias {
        products.push(Vec::new());
    }
    // Breadth first: each degree's products extend those of the degree below, in the library's order.
    let mut level: Vec<Vec<usize>> = vec![Vec::new()];
    for size in 1..=high.min(16) {
        let mut next = Vec::new();
        for product in &level {
            let first = product.last().map_or(0, |last| last + usize::from(single));
            for column in first..width {
                let mut longer = product.clone();
                longer.push(column);
                next.push(longer);
                if products.len() + next.len() > WIDTH_MAX / 16 {
                    return Err(LoadError::TooLarge { what: "number of products", limit: WIDTH_MAX / 16 });
                }
            }
        }
        if size >= low.max(1) {
            products.extend(next.iter().cloned());
        }
        level = next;
    }
    let declared = attrs.opt("n_output_features_").and_then(View::int);
    if high > 16 || declared.is_some_and(|declared| declared != products.len() as i64) {
        return Err(attrs.error("n_output_features_ does not fit degree and columns"));
    }
    let detail = format!("{width} columns to {}", products.len());
    let cost = products.len() as u64 * 2;
    Ok(Read::new(Role::Transformer(Box::new(Polynomial { products })), detail, cost))
}

/// What an encoder makes of one column.
struct Categories {
    values: Vec<f64>,
    /// The output of each category; `None` is dropped.
    slots: Vec<Option<usize>>,
}

/// One-hot or ordinal codes of numeric categories.
struct Encoder {
    columns: Vec<Categories>,
    width: usize,
    one_hot: bool,
    /// What an unknown category becomes; an error if `None`. Ordinal codes only.
    unknown: Option<f64>,
    ignores_unknown: bool,
}

impl Transform for Encoder {
    fn width_out(&self) -> usize {
        self.width
    }

    fn transform(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        check_finite(rows, true)?;
        for (row, out) in rows.iter().zip(out.chunks_exact_mut(self.width.max(1))) {
            for (index, (value, column)) in row.iter().zip(&self.columns).enumerate() {
                let same = |category: &f64| category == value || (category.is_nan() && value.is_nan());
                let found = column.values.iter().position(same);
                match (found, self.one_hot) {
                    (Some(code), true) => {
                        if let Some(slot) = column.slots[code] {
                            out[slot] = 1.0;
                        }
                    }
                    (Some(code), false) if value.is_nan() => {
                        out[index] = if self.ignores_unknown { f64::NAN } else { code as f64 }
                    }
                    (Some(code), false) => out[index] = code as f64,
                    (None, true) if self.ignores_unknown => {}
                    (None, false) if self.unknown.is_some() => out[index] = self.unknown.unwrap_or_default(),
                    (None, _) => {
                        let what =
                            format!("Found unknown category {value} in column {index} during transform");
                        return Err(BackendError::Input(what));
                    }
                }
            }
        }
        Ok(())
    }
}

fn categories(attrs: &Attrs<'_>) -> Result<Vec<Vec<f64>>> {
    let numeric = |column: View<'_>| match column.array().map(|array| (&array.elements, array.dtype.kind)) {
        Some((Elements::Raw(_), Kind::Int | Kind::Uint | Kind::Float | Kind::Bool)) => column.floats(),
        _ => None,
    };
    let all: Option<Vec<Vec<f64>>> = attrs.estimators("categories_")?.into_iter().map(numeric).collect();
    let all = all.ok_or_else(|| attrs.unsupported("categories that are texts"))?;
    if all.len() != attrs.features()? {
        return Err(attrs.error("categories_ has another width than the columns"));
    }
    Ok(all)
}

pub(super) fn one_hot(attrs: &Attrs<'_>) -> Result<Read> {
    let infrequent = ["min_frequency", "max_categories"].iter().any(|name| attrs.opt(name).is_some());
    if infrequent {
        return Err(attrs.unsupported("infrequent categories"));
    }
    let ignores_unknown = match attrs.text("handle_unknown")? {
        "error" => false,
        "ignore" => true,
        other => return Err(attrs.unsupported(&format!("handle_unknown={other:?}"))),
    };
    let drop = attrs.opt("drop_idx_");
    let dropped: Vec<Option<usize>> = match drop {
        None => Vec::new(),
        Some(drop) => match (drop.items(), drop.floats()) {
            (Some(items), _) => {
                items.iter().map(|item| item.int().and_then(|int| usize::try_from(int).ok())).collect()
            }
            (None, Some(floats)) => floats.iter().map(|float| Some(*float as usize)).collect(),
            (None, None) => return Err(attrs.error("drop_idx_ holds no indices")),
        },
    };
    let mut width = 0;
    let mut columns = Vec::new();
    for (index, values) in categories(attrs)?.into_iter().enumerate() {
        let left_out = dropped.get(index).copied().flatten();
        let slots = (0..values.len()).map(|code| {
            let slot = (left_out != Some(code)).then_some(width);
            width += usize::from(slot.is_some());
            slot
        });
        let slots = slots.collect();
        columns.push(Categories { values, slots });
    }
    let detail = format!("{} columns to {width}", columns.len());
    let cost = width as u64;
    let encoder = Encoder { columns, width, one_hot: true, unknown: None, ignores_unknown };
    Ok(Read::new(Role::Transformer(Box::new(encoder)), detail, cost))
}

pub(super) fn ordinal(attrs: &Attrs<'_>) -> Result<Read> {
    let infrequent = ["min_frequency", "max_categories"].iter().any(|name| attrs.opt(name).is_some());
    if infrequent {
        return Err(attrs.unsupported("infrequent categories"));
    }
    let unknown = match attrs.text("handle_unknown")? {
        "use_encoded_value" => Some(attrs.float("unknown_value")?),
        _ => None,
    };
    let columns: Vec<Categories> =
        categories(attrs)?.into_iter().map(|values| Categories { values, slots: Vec::new() }).collect();
    let width = columns.len();
    let encoded_missing = attrs.opt("encoded_missing_value").and_then(View::float);
    if encoded_missing.is_some_and(|value| !value.is_nan()) {
        return Err(attrs.unsupported("encoded_missing_value"));
    }
    let encoder = Encoder { columns, width, one_hot: false, unknown, ignores_unknown: true };
    Ok(Read::new(Role::Transformer(Box::new(encoder)), format!("{width} columns"), width as u64 * 4))
}

/// Transforms side by side, each on its columns.
struct SideBySide {
    parts: Vec<(Option<Box<dyn Transform>>, Vec<usize>, f64)>,
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
