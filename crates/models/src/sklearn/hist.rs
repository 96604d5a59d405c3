//! Columns of categories before histogram boosting: what is not known counts as missing.
//!
//! Up to 1.3 the categories are small integers in the columns themselves; since 1.4 an encoder in the estimator
//! turns whatever they are into codes and puts their columns first.
//!
//! Not here: the trees (`boost`, `tree`).

use super::attrs::Attrs;
use super::encode::Categories;
use super::flow::{Flow, Takes};
use super::{Evaluated, Rows, Transform, read_at};
use crate::error::Result;
use crate::graph::View;
use crate::sketch::{Drawn, Frame, Sketch};

/// Where a column of the trees comes from.
enum Column {
    Number(usize),
    /// The code of a category.
    Code(usize, Categories),
    /// A category that is its own code.
    Known(usize, Categories),
}

/// The columns as the trees look at them.
pub(super) struct Encoder {
    columns: Vec<Column>,
}

impl Transform for Encoder {
    fn width_out(&self) -> usize {
        self.columns.len()
    }

    fn transform(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        for (row, out) in rows.iter().zip(out.chunks_exact_mut(self.columns.len().max(1))) {
            for (slot, column) in out.iter_mut().zip(&self.columns) {
                *slot = match column {
                    Column::Number(at) => row[*at],
                    Column::Code(at, categories) => {
                        let code =
                            categories.find(rows, row[*at]).filter(|code| Some(*code) != categories.missing);
                        code.map_or(f64::NAN, |code| code as f64)
                    }
                    Column::Known(at, categories) => match categories.find(rows, row[*at]) {
                        Some(_) => row[*at],
                        None => f64::NAN,
                    },
                };
            }
        }
        Ok(())
    }

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Frame> {
        let mut tables = Vec::new();
        for column in &self.columns {
            tables.push(match column {
                Column::Number(at) => rows.column(sketch, *at).0,
                Column::Code(at, categories) => {
                    let said = |code: usize| {
                        if categories.missing == Some(code) { f64::NAN } else { code as f64 }
                    };
                    let said: Vec<f64> = (0..categories.count).map(said).collect();
                    let column = rows.column(sketch, *at);
                    categories.draw_said(sketch, column, &said, f64::NAN)?
                }
                Column::Known(at, categories) => {
                    let column = rows.column(sketch, *at);
                    let zeros = vec![0.0; categories.count];
                    // Nothing is added to what is known, and what is not known to nothing.
                    let none = categories.draw_said(sketch, column, &zeros, f64::NAN)?;
                    sketch.add(column.0, none)
                }
            });
        }
        Ok(Frame::Numbers(sketch.join(&tables), self.columns.len()))
    }
}

/// Truth values by column; empty where there are none.
fn flags(attrs: &Attrs<'_>, name: &str, width: usize) -> Result<Vec<bool>> {
    match attrs.opt(name) {
        None => Ok(Vec::new()),
        Some(_) => Ok(attrs.column_floats(name, width)?.into_iter().map(|flag| flag != 0.0).collect()),
    }
}

/// The categories of an encoder that is a step of the estimator's own column transformer.
fn encoder_of<'g>(attrs: &Attrs<'g>) -> Result<Vec<View<'g>>> {
    let wrong = || attrs.error("_preprocessor has no encoder");
    let steps = attrs.req("_preprocessor")?.attr("transformers_").and_then(View::items).ok_or_else(wrong)?;
    let encoder = steps.first().and_then(|step| step.items()).and_then(|step| step.get(1).copied());
    let encoder = Attrs::new(encoder.ok_or_else(wrong)?)?;
    // That it is an encoder of a setting that is known is checked where encoders are read.
    read_at(encoder.view, 1)?;
    encoder.estimators("categories_")
}

/// What stands before the trees, and what the columns are; `None` where all are numbers.
pub(super) fn encoder(attrs: &Attrs<'_>) -> Result<Option<(Encoder, Flow)>> {
    let width = attrs.features()?;
    let flags = flags(attrs, "is_categorical_", width)?;
    if !flags.contains(&true) {
        return Ok(None);
    }
    let unreadable = || attrs.unsupported("categories that are neither numbers nor texts");
    let mut takes = vec![Takes::Number; width];
    let mut columns = Vec::new();
    if attrs.opt("_preprocessor").is_some() {
        let mut all = encoder_of(attrs)?.into_iter();
        for column in (0..width).filter(|column| flags[*column]) {
            let wrong = || attrs.error("_preprocessor has fewer categories than there are columns");
            let categories = Categories::read(all.next().ok_or_else(wrong)?).ok_or_else(unreadable)?;
            if categories.takes() == Takes::Text {
                takes[column] = Takes::Text;
            }
            columns.push(Column::Code(column, categories));
        }
        columns.extend((0..width).filter(|column| !flags[*column]).map(Column::Number));
    } else {
        let thresholds = attrs.req("_bin_mapper")?.attr("bin_thresholds_").and_then(View::items);
        let thresholds = thresholds.filter(|all| all.len() == width);
        let thresholds = thresholds.ok_or_else(|| attrs.error("_bin_mapper has no bin_thresholds_"))?;
        for (column, known) in thresholds.into_iter().enumerate() {
            columns.push(match flags[column] {
                true => Column::Known(column, Categories::read(known).ok_or_else(unreadable)?),
                false => Column::Number(column),
            });
        }
    }
    Ok(Some((Encoder { columns }, Flow { takes, gives: Vec::new() })))
}
