//! `LabelEncoder`: labels become their places among the classes.
//!
//! Not here: columns of categories (`encode`), the labels of a classifier's answers (`labels`).

use super::attrs::Attrs;
use super::encode::{Categories, flow_of, shown};
use super::{Evaluated, Read, Regress, Role, Rows};
use crate::backend::BackendError;
use crate::error::Result;
use crate::sketch::{Drawn, Frame, Sketch, Unary, Wire};

struct Codes(Categories);

impl Regress for Codes {
    fn targets(&self) -> usize {
        1
    }

    fn predict(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        for (cell, slot) in rows.data.iter().zip(out) {
            let code = self.0.find(rows, *cell);
            let unseen = || {
                BackendError::Input(format!("y contains previously unseen labels: {}", shown(rows, *cell)))
            };
            *slot = code.ok_or_else(unseen)? as f64;
        }
        Ok(())
    }

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Wire> {
        let column = rows.column(sketch, 0);
        let code = self.0.draw(sketch, column)?;
        Ok(sketch.unary(Unary::Number, code))
    }
}

pub(super) fn read(attrs: &Attrs<'_>) -> Result<Read> {
    let classes = Categories::read(attrs.req("classes_")?);
    let classes = classes.ok_or_else(|| attrs.unsupported("classes that are neither numbers nor texts"))?;
    let detail = format!("{} classes", classes.count);
    let flow = flow_of(std::slice::from_ref(&classes), 0);
    let mut made = Read::new(Role::Assigner(Box::new(Codes(classes))), detail, 20);
    (made.features, made.flow) = (Some(1), flow.filter(|flow| !flow.is_numbers()));
    Ok(made)
}
