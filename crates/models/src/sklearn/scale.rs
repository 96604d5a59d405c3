//! Scalers and projections: column-wise or linear transforms.
//!
//! Each applies the library's own operations in the library's order (subtract, then divide), because a tree
//! behind a scaler sees every last bit.
//!
//! Not here: encoders and imputers.

use super::attrs::{Attrs, Matrix};
use super::linear::dot;
use super::{Evaluated, Read, Role, Rows, Transform, check_finite};
use crate::error::Result;
use crate::sketch::{Binary, Drawn, Frame, Sketch, Unary, Wire};

/// Which operations a column goes through, each optional, in this order.
#[derive(Default)]
struct Columns {
    subtract: Option<Vec<f64>>,
    divide: Option<Vec<f64>>,
    multiply: Option<Vec<f64>>,
    add: Option<Vec<f64>>,
    clip: Option<(f64, f64)>,
    width: usize,
}

impl Columns {
    fn read_of(self, attrs: &Attrs<'_>) -> Result<Read> {
        let width = self.width;
        if width != attrs.features()? {
            return Err(attrs.error("its columns are not those it was fitted on"));
        }
        Ok(Read::new(Role::Transformer(Box::new(self)), format!("{width} columns"), width as u64))
    }
}

fn apply(out: &mut [f64], operands: Option<&Vec<f64>>, operation: impl Fn(&mut f64, f64)) {
    if let Some(operands) = operands {
        for (value, operand) in out.iter_mut().zip(operands) {
            operation(value, *operand);
        }
    }
}

impl Transform for Columns {
    fn width_out(&self) -> usize {
        self.width
    }

    fn transform(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        check_finite(rows, true)?;
        out.copy_from_slice(rows.data);
        if self.width == 0 {
            return Ok(());
        }
        for row in out.chunks_exact_mut(self.width) {
            apply(row, self.subtract.as_ref(), |value, by| *value -= by);
            apply(row, self.divide.as_ref(), |value, by| *value /= by);
            apply(row, self.multiply.as_ref(), |value, by| *value *= by);
            apply(row, self.add.as_ref(), |value, by| *value += by);
            if let Some((low, high)) = self.clip {
                row.iter_mut()
                    .filter(|value| !value.is_nan())
                    .for_each(|value| *value = value.clamp(low, high));
            }
        }
        Ok(())
    }

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Frame> {
        let mut table = rows.table(sketch)?;
        for (op, operands) in [
            (Binary::Subtract, &self.subtract),
            (Binary::Divide, &self.divide),
            (Binary::Multiply, &self.multiply),
            (Binary::Add, &self.add),
        ] {
            if let Some(operands) = operands {
                let row = sketch.row(operands);
                table = sketch.binary(op, table, row);
            }
        }
        if let Some((low, high)) = self.clip {
            let above = sketch.at_least(table, low);
            table = sketch.at_most(above, high);
        }
        Ok(Frame::Numbers(table, self.width))
    }
}

pub(super) fn standard(attrs: &Attrs<'_>) -> Result<Read> {
    let width = attrs.features()?;
    let given = |flag: &str, name: &str| match attrs.truth_or(flag, true) {
        true => attrs.column_floats(name, width).map(Some),
        false => Ok(None),
    };
    let columns = Columns {
        subtract: given("with_mean", "mean_")?,
        divide: given("with_std", "scale_")?,
        width,
        ..Columns::default()
    };
    columns.read_of(attrs)
}

pub(super) fn min_max(attrs: &Attrs<'_>) -> Result<Read> {
    let width = attrs.features()?;
    let range = attrs.floats("feature_range")?;
    let clip = match (attrs.truth_or("clip", false), range.as_slice()) {
        (false, _) => None,
        (true, [low, high]) if low <= high => Some((*low, *high)),
        (true, _) => return Err(attrs.error("feature_range is no range")),
    };
    let multiply = Some(attrs.column_floats("scale_", width)?);
    let add = Some(attrs.column_floats("min_", width)?);
    Columns { multiply, add, clip, width, ..Columns::default() }.read_of(attrs)
}

pub(super) fn max_abs(attrs: &Attrs<'_>) -> Result<Read> {
    let width = attrs.features()?;
    let clip = attrs.truth_or("clip", false).then_some((-1.0, 1.0));
    Columns { divide: Some(attrs.column_floats("scale_", width)?), clip, width, ..Columns::default() }
        .read_of(attrs)
}

pub(super) fn robust(attrs: &Attrs<'_>) -> Result<Read> {
    let width = attrs.features()?;
    let given = |flag: &str, name: &str| match attrs.truth_or(flag, true) {
        true => attrs.column_floats(name, width).map(Some),
        false => Ok(None),
    };
    let columns = Columns {
        subtract: given("with_centering", "center_")?,
        divide: given("with_scaling", "scale_")?,
        width,
        ..Columns::default()
    };
    columns.read_of(attrs)
}

#[derive(Clone, Copy)]
enum Norm {
    L1,
    L2,
    Max,
}

struct Normalizer {
    norm: Norm,
    width: usize,
}

impl Transform for Normalizer {
    fn width_out(&self) -> usize {
        self.width
    }

    fn transform(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        check_finite(rows, false)?;
        for (index, row) in rows.iter().enumerate() {
            let size = match self.norm {
                Norm::L1 => row.iter().map(|value| value.abs()).sum::<f64>(),
                Norm::L2 => dot(row, row).sqrt(),
                Norm::Max => row.iter().map(|value| value.abs()).fold(0.0, f64::max),
            };
            let size = if size == 0.0 { 1.0 } else { size };
            for (slot, value) in out[index * self.width..].iter_mut().zip(row) {
                *slot = value / size;
            }
        }
        Ok(())
    }

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Frame> {
        let table = rows.table(sketch)?;
        let sizes = sketch.unary(Unary::Absolute, table);
        let size: Wire = match self.norm {
            Norm::L1 => sketch.sum(sizes, 1),
            Norm::L2 => {
                let squares = sketch.multiply(table, table);
                let sum = sketch.sum(squares, 1);
                sketch.unary(Unary::Root, sum)
            }
            Norm::Max => sketch.greatest(sizes, 1),
        };
        let (is_zero, one) = (sketch.test(Binary::Equal, size, 0.0), sketch.number(1.0));
        let size = sketch.choose(is_zero, one, size);
        Ok(Frame::Numbers(sketch.divide(table, size), self.width))
    }
}

pub(super) fn normalizer(attrs: &Attrs<'_>) -> Result<Read> {
    let norm = match attrs.text("norm")? {
        "l1" => Norm::L1,
        "l2" => Norm::L2,
        "max" => Norm::Max,
        other => return Err(attrs.unsupported(&format!("norm={other:?}"))),
    };
    let width = attrs.features()?;
    Ok(Read::new(
        Role::Transformer(Box::new(Normalizer { norm, width })),
        format!("{width} columns"),
        width as u64,
    ))
}

/// `(X - mean) @ components.T`, and whitening.
struct Projection {
    mean: Vec<f64>,
    components: Matrix,
    /// What each component is divided by.
    scale: Option<Vec<f64>>,
}

impl Transform for Projection {
    fn width_out(&self) -> usize {
        self.components.rows
    }

    fn transform(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        check_finite(rows, false)?;
        let mut centred = vec![0.0; self.mean.len()];
        for (index, row) in rows.iter().enumerate() {
            for ((slot, value), mean) in centred.iter_mut().zip(row).zip(&self.mean) {
                *slot = value - mean;
            }
            for component in 0..self.components.rows {
                let mut value = dot(&centred, self.components.row(component));
                if let Some(scale) = &self.scale {
                    value /= scale[component];
                }
                out[index * self.components.rows + component] = value;
            }
        }
        Ok(())
    }

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Frame> {
        let (table, mean) = (rows.table(sketch)?, sketch.row(&self.mean));
        let centred = sketch.subtract(table, mean);
        let mut made = sketch.product_with_rows(centred, &self.components.data, self.components.rows);
        if let Some(scale) = &self.scale {
            let scale = sketch.row(scale);
            made = sketch.divide(made, scale);
        }
        Ok(Frame::Numbers(made, self.components.rows))
    }
}

pub(super) fn pca(attrs: &Attrs<'_>) -> Result<Read> {
    let components = attrs.matrix("components_")?;
    let mean = attrs.column_floats("mean_", attrs.features()?)?;
    if components.cols != mean.len() {
        return Err(attrs.error("components_ and mean_ differ in width"));
    }
    let scale = match attrs.truth_or("whiten", false) {
        true => {
            let variance = attrs.column_floats("explained_variance_", components.rows)?;
            // Components without variance would divide by zero; the library puts the smallest step there.
            Some(variance.iter().map(|value| value.sqrt().max(f64::EPSILON)).collect())
        }
        false => None,
    };
    let detail = format!("{} components of {} columns", components.rows, components.cols);
    let cost = components.data.len() as u64;
    Ok(Read::new(Role::Transformer(Box::new(Projection { mean, components, scale })), detail, cost))
}

pub(super) fn truncated_svd(attrs: &Attrs<'_>) -> Result<Read> {
    let components = attrs.matrix("components_")?;
    if components.cols != attrs.features()? {
        return Err(attrs.error("components_ have another width than the columns"));
    }
    let detail = format!("{} components of {} columns", components.rows, components.cols);
    let cost = components.data.len() as u64;
    let mean = vec![0.0; components.cols];
    Ok(Read::new(Role::Transformer(Box::new(Projection { mean, components, scale: None })), detail, cost))
}
