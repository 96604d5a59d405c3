//! The columns that an estimator draws on: one table of numbers, or single columns some of which are texts.
//!
//! Not here: operations on them (`build`).

use super::{Drawn, Sketch, Wire, undrawn};

/// Columns.
#[derive(Debug, Clone)]
pub(crate) enum Frame {
    /// A table of numbers and its width.
    Numbers(Wire, usize),
    /// Columns, and whether each is texts.
    Columns(Vec<(Wire, bool)>),
}

impl Frame {
    pub(crate) fn width(&self) -> usize {
        match self {
            Self::Numbers(_, width) => *width,
            Self::Columns(columns) => columns.len(),
        }
    }

    /// The table, where all columns are numbers.
    pub(crate) fn table(&self, sketch: &mut Sketch) -> Drawn<Wire> {
        match self {
            Self::Numbers(table, _) => Ok(*table),
            Self::Columns(columns) if columns.iter().any(|(_, is_text)| *is_text) => {
                undrawn("a column of texts where numbers are needed")
            }
            Self::Columns(columns) => {
                let wires: Vec<Wire> = columns.iter().map(|(wire, _)| *wire).collect();
                Ok(sketch.join(&wires))
            }
        }
    }

    /// One column, `[rows, 1]`, and whether it is texts.
    pub(crate) fn column(&self, sketch: &mut Sketch, column: usize) -> (Wire, bool) {
        match self {
            Self::Numbers(table, _) => (sketch.column(*table, column), false),
            Self::Columns(columns) => columns[column],
        }
    }

    /// Some of the columns.
    pub(crate) fn select(&self, sketch: &mut Sketch, columns: &[usize]) -> Self {
        match self {
            Self::Numbers(..) if columns.iter().copied().eq(0..self.width()) => self.clone(),
            Self::Numbers(table, _) => Self::Numbers(sketch.columns(*table, columns), columns.len()),
            Self::Columns(all) => Self::Columns(columns.iter().map(|column| all[*column]).collect()),
        }
    }

    /// Frames side by side.
    pub(crate) fn join(sketch: &mut Sketch, frames: &[Self]) -> Self {
        let tables: Option<Vec<(Wire, usize)>> = frames
            .iter()
            .filter(|frame| frame.width() > 0)
            .map(|frame| if let Self::Numbers(table, width) = frame { Some((*table, *width)) } else { None })
            .collect();
        if let Some(tables) = tables.filter(|tables| !tables.is_empty()) {
            let wires: Vec<Wire> = tables.iter().map(|(wire, _)| *wire).collect();
            return Self::Numbers(sketch.join(&wires), tables.iter().map(|(_, width)| width).sum());
        }
        let mut columns = Vec::new();
        for frame in frames {
            for column in 0..frame.width() {
                columns.push(frame.column(sketch, column));
            }
        }
        Self::Columns(columns)
    }
}
