//! Transforms of columns: imputers, encoders of numbers, polynomials, selections.
//!
//! Not here: columns of texts. A model that needs them is refused with its class and the reason.

use super::attrs::{Attrs, WIDTH_MAX};
use super::{Evaluated, Read, Role, Rows, Transform, check_finite};
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
