//! Transforms of columns: thresholds, selections, polynomials.
//!
//! Not here: encoders of categories (`encode`), imputers (`impute`).

use super::attrs::{Attrs, WIDTH_MAX};
use super::{Evaluated, Read, Role, Rows, Transform, check_finite};
use crate::error::{LoadError, Result};
use crate::graph::View;
use crate::sketch::{Binary, Drawn, Frame, Sketch, Unary};

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

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Frame> {
        let table = rows.table(sketch)?;
        Ok(Frame::Numbers(sketch.flags(Binary::Greater, table, self.threshold), self.width))
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

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Frame> {
        Ok(rows.select(sketch, &self.kept))
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

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Frame> {
        let table = rows.table(sketch)?;
        // A column of ones stands in for factors that a product does not have.
        let first = sketch.column(table, 0);
        let (missing, one) = (sketch.unary(Unary::IsMissing, first), sketch.number(1.0));
        let ones = sketch.choose(missing, one, one);
        let wide = sketch.join(&[table, ones]);
        let degree = self.products.iter().map(Vec::len).max().unwrap_or(0).max(1);
        let mut made = None;
        for factor in 0..degree {
            let places = self.products.iter().map(|product| product.get(factor).copied());
            let places: Vec<usize> = places.map(|place| place.unwrap_or(rows.width())).collect();
            let factors = sketch.columns(wide, &places);
            made = Some(match made {
                None => factors,
                Some(before) => sketch.multiply(before, factors),
            });
        }
        Ok(Frame::Numbers(made.unwrap_or(wide), self.products.len()))
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
