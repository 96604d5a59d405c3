//! Imputers: by a value for each column, by models of the other columns.
//!
//! Not here: `KNNImputer` (`impute_near`), missing values that an estimator handles itself.

use super::attrs::Attrs;
use super::flow::{Flow, Gives, Takes};
use super::{Evaluated, Read, Regress, Role, Rows, Transform, check_finite, read_at};
use crate::error::Result;
use crate::graph::{Node, View};
use crate::sketch::{Binary, Cells, Drawn, Frame, Op, Sketch, Unary, Wire, undrawn};

/// What fills a column.
enum Fill {
    Number(f64),
    Text(String),
}

/// Which cells are missing.
pub(super) enum Absent {
    Number(f64),
    Text(String),
}

impl Absent {
    pub(super) fn read(attrs: &Attrs<'_>) -> Result<Self> {
        let Some(value) = attrs.view.attr("missing_values") else { return Ok(Self::Number(f64::NAN)) };
        match (value.node(), value.text(), value.float()) {
            (Node::None, ..) => Ok(Self::Number(f64::NAN)),
            (_, Some(text), _) => Ok(Self::Text(text.to_owned())),
            (_, None, Some(number)) => Ok(Self::Number(number)),
            _ => Err(attrs.unsupported("missing_values that are neither number nor text")),
        }
    }

    pub(super) fn is(&self, rows: Rows<'_>, cell: f64) -> bool {
        let text = |text: &str| matches!(self, Self::Text(missing) if missing == text);
        match (rows.text(cell, text), self) {
            (Some(is_missing), _) => is_missing,
            (None, Self::Number(missing)) => cell == *missing || (cell.is_nan() && missing.is_nan()),
            (None, Self::Text(_)) => false,
        }
    }

    pub(super) fn allows_nan(&self) -> bool {
        matches!(self, Self::Number(missing) if missing.is_nan())
    }

    /// Draws which cells of a column are missing, as truths; `None` where none can be.
    fn draw(&self, sketch: &mut Sketch, (column, is_text): (Wire, bool)) -> Option<Wire> {
        match (self, is_text) {
            (Self::Number(missing), false) if missing.is_nan() => {
                Some(sketch.unary(Unary::IsMissing, column))
            }
            (Self::Number(missing), false) => Some(sketch.test(Binary::Equal, column, *missing)),
            (Self::Text(missing), true) => {
                let text = sketch.step(Op::Constant(vec![1], Cells::Texts(vec![missing.clone()])), &[]);
                Some(sketch.binary(Binary::Equal, column, text))
            }
            // A tensor of texts holds nothing that is missing.
            (Self::Number(_), true) | (Self::Text(_), false) => None,
        }
    }
}

/// Columns of ones and zeros that say what was missing, after all others.
pub(super) fn indicators(attrs: &Attrs<'_>, width: usize) -> Result<Vec<usize>> {
    if !attrs.truth_or("add_indicator", false) {
        return Ok(Vec::new());
    }
    let inner = Attrs::new(attrs.req("indicator_")?)?;
    let columns = inner.floats("features_")?;
    let columns: Vec<usize> = columns.into_iter().map(|column| column as usize).collect();
    match columns.iter().all(|column| *column < width) {
        true => Ok(columns),
        false => Err(attrs.error("indicator_ names columns that do not exist")),
    }
}

/// Fills what is missing with a value for each column.
struct Simple {
    fill: Vec<Fill>,
    absent: Absent,
    /// Columns that were empty in training are dropped.
    kept: Vec<usize>,
    indicators: Vec<usize>,
    has_texts: bool,
}

impl Transform for Simple {
    fn width_out(&self) -> usize {
        self.kept.len() + self.indicators.len()
    }

    fn transform(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        if !self.has_texts {
            check_finite(rows, self.absent.allows_nan())?;
        }
        let mut slots = out.iter_mut();
        for row in rows.iter() {
            for (column, slot) in self.kept.iter().zip(&mut slots) {
                let cell = row[*column];
                *slot = match (self.absent.is(rows, cell), &self.fill[*column]) {
                    (false, _) => cell,
                    (true, Fill::Number(number)) => *number,
                    (true, Fill::Text(text)) => rows.texts.map_or(f64::NAN, |texts| texts.add(text)),
                };
            }
            for (column, slot) in self.indicators.iter().zip(&mut slots) {
                *slot = f64::from(u8::from(self.absent.is(rows, row[*column])));
            }
        }
        Ok(())
    }

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Frame> {
        let mut frames = Vec::new();
        for column in &self.kept {
            let own = rows.column(sketch, *column);
            let absent = self.absent.draw(sketch, own);
            let fill = match (&self.fill[*column], own.1) {
                (Fill::Number(number), false) => sketch.number(*number),
                (Fill::Text(text), true) => {
                    sketch.step(Op::Constant(vec![1], Cells::Texts(vec![text.clone()])), &[])
                }
                _ => return undrawn("SimpleImputer that fills texts with numbers or numbers with texts"),
            };
            let filled = absent.map_or(own.0, |absent| sketch.choose(absent, fill, own.0));
            frames.push(if own.1 { Frame::Columns(vec![(filled, true)]) } else { Frame::Numbers(filled, 1) });
        }
        for column in &self.indicators {
            let own = rows.column(sketch, *column);
            let Some(absent) = self.absent.draw(sketch, own) else {
                return undrawn("SimpleImputer that marks what is missing among texts");
            };
            frames.push(Frame::Numbers(sketch.unary(Unary::Number, absent), 1));
        }
        Ok(Frame::join(sketch, &frames))
    }
}

/// The values of `statistics_`, which are objects where columns are texts.
fn fills(attrs: &Attrs<'_>) -> Result<Vec<Fill>> {
    if let Ok(numbers) = attrs.floats("statistics_") {
        return Ok(numbers.into_iter().map(Fill::Number).collect());
    }
    let one = |view: View<'_>| match (view.text(), view.float()) {
        (Some(text), _) => Ok(Fill::Text(text.to_owned())),
        (None, Some(number)) => Ok(Fill::Number(number)),
        _ if view.is_none() => Ok(Fill::Number(f64::NAN)),
        _ => Err(attrs.unsupported("statistics_ that are neither numbers nor texts")),
    };
    if let Some(items) = attrs.req("statistics_")?.items() {
        return items.into_iter().map(one).collect();
    }
    let texts = attrs.req("statistics_")?.texts();
    let texts = texts.ok_or_else(|| attrs.unsupported("statistics_ that are neither numbers nor texts"))?;
    Ok(texts.into_iter().map(Fill::Text).collect())
}

pub(super) fn simple(attrs: &Attrs<'_>) -> Result<Read> {
    let width = attrs.features()?;
    let fill = fills(attrs)?;
    if fill.len() != width {
        return Err(attrs.error(format!("statistics_ has {} elements, expected {width}", fill.len())));
    }
    let keeps_empty = attrs.truth_or("keep_empty_features", false) || attrs.text("strategy")? == "constant";
    let is_empty = |column: &usize| matches!(fill[*column], Fill::Number(number) if number.is_nan());
    let kept: Vec<usize> = (0..width).filter(|column| keeps_empty || !is_empty(column)).collect();
    let indicators = indicators(attrs, width)?;
    let has_texts = fill.iter().any(|fill| matches!(fill, Fill::Text(_)));
    let takes =
        fill.iter().map(|fill| if matches!(fill, Fill::Text(_)) { Takes::Text } else { Takes::Number });
    let gives = kept.iter().map(|column| match fill[*column] {
        Fill::Text(_) => Gives::Text,
        Fill::Number(_) => Gives::Number,
    });
    let gives = gives.chain(indicators.iter().map(|_| Gives::Number)).collect();
    let flow = Flow { takes: takes.collect(), gives };
    let absent = Absent::read(attrs)?;
    let role = Role::Transformer(Box::new(Simple { fill, absent, kept, indicators, has_texts }));
    let mut made = Read::new(role, format!("{width} columns"), width as u64);
    made.flow = has_texts.then_some(flow);
    Ok(made)
}

/// Draws which cells of a table of numbers are missing, as truths.
pub(super) fn draw_absent(sketch: &mut Sketch, absent: &Absent, table: Wire) -> Wire {
    absent.draw(sketch, (table, false)).unwrap_or_else(|| {
        // No number is a text.
        let missing = sketch.unary(Unary::IsMissing, table);
        let present = sketch.unary(Unary::Not, missing);
        sketch.binary(Binary::And, missing, present)
    })
}

/// A table and, behind it, what was missing in some columns.
pub(super) fn with_indicators(
    sketch: &mut Sketch,
    table: Wire,
    width: usize,
    absent: Wire,
    columns: &[usize],
) -> Frame {
    if columns.is_empty() {
        return Frame::Numbers(table, width);
    }
    let flags = sketch.columns(absent, columns);
    let flags = sketch.unary(Unary::Number, flags);
    Frame::Numbers(sketch.join(&[table, flags]), width + columns.len())
}

/// One step of an iterative imputer: the column, the columns it is predicted from, the model.
struct Step {
    column: usize,
    from: Vec<usize>,
    model: Box<dyn Regress>,
}

/// Predicts what is missing from the other columns, round after round.
struct Iterative {
    initial: Box<dyn Transform>,
    steps: Vec<Step>,
    low: Vec<f64>,
    high: Vec<f64>,
    absent: Absent,
    indicators: Vec<usize>,
}

impl Transform for Iterative {
    fn width_out(&self) -> usize {
        self.low.len() + self.indicators.len()
    }

    fn transform(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        check_finite(rows, self.absent.allows_nan())?;
        let width = rows.width;
        let mut filled = vec![0.0; rows.data.len()];
        self.initial.transform(rows, &mut filled)?;
        for step in &self.steps {
            let missing: Vec<usize> = (0..rows.count)
                .filter(|row| self.absent.is(rows, rows.data[row * width + step.column]))
                .collect();
            if missing.is_empty() {
                continue;
            }
            let mut cells = Vec::with_capacity(missing.len() * step.from.len());
            for row in &missing {
                cells.extend(step.from.iter().map(|column| filled[row * width + column]));
            }
            let mut predicted = vec![0.0; missing.len()];
            step.model.predict(Rows::new(&cells, step.from.len(), missing.len()), &mut predicted)?;
            for (row, value) in missing.iter().zip(predicted) {
                // Not `clamp`, which refuses bounds that are no numbers.
                filled[row * width + step.column] =
                    value.max(self.low[step.column]).min(self.high[step.column]);
            }
        }
        let wide = self.width_out();
        for (index, row) in rows.iter().enumerate() {
            let out = &mut out[index * wide..][..wide];
            out[..width].copy_from_slice(&filled[index * width..][..width]);
            for (slot, column) in out[width..].iter_mut().zip(&self.indicators) {
                *slot = f64::from(u8::from(self.absent.is(rows, row[*column])));
            }
        }
        Ok(())
    }

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Frame> {
        let width = self.low.len();
        let table = rows.table(sketch)?;
        let absent = draw_absent(sketch, &self.absent, table);
        let filled = self.initial.draw(sketch, rows)?.table(sketch)?;
        let mut columns: Vec<Wire> = (0..width).map(|column| sketch.column(filled, column)).collect();
        for step in &self.steps {
            let from: Vec<Wire> = step.from.iter().map(|column| columns[*column]).collect();
            let from = Frame::Numbers(sketch.join(&from), step.from.len());
            let value = step.model.draw(sketch, &from)?;
            let value = sketch.shape(value, &[-1, 1]);
            let value = sketch.at_least(value, self.low[step.column]);
            let value = sketch.at_most(value, self.high[step.column]);
            let is_absent = sketch.column(absent, step.column);
            columns[step.column] = sketch.choose(is_absent, value, columns[step.column]);
        }
        let made = sketch.join(&columns);
        Ok(with_indicators(sketch, made, width, absent, &self.indicators))
    }
}

/// The three things of a step, which is a named tuple.
fn step(attrs: &Attrs<'_>, view: View<'_>, width: usize, depth: usize) -> Result<Step> {
    let wrong = || attrs.error("imputation_sequence_ holds no triplets");
    let fields = view.args().or(view.items()).ok_or_else(wrong)?;
    let [column, from, model] = fields.as_slice() else { return Err(wrong()) };
    let column = column.int().and_then(|column| usize::try_from(column).ok()).ok_or_else(wrong)?;
    let from = from.floats().ok_or_else(wrong)?;
    let from: Vec<usize> = from.into_iter().map(|column| column as usize).collect();
    let estimator = read_at(*model, depth + 1)?;
    let class = estimator.class.clone();
    let Role::Regressor(model) = estimator.role else {
        return Err(attrs.unsupported(&format!("{class} as its estimator")));
    };
    if column >= width || from.iter().any(|column| *column >= width) || estimator.features != from.len() {
        return Err(attrs.error("imputation_sequence_ names columns that do not exist"));
    }
    if model.targets() != 1 {
        return Err(wrong());
    }
    Ok(Step { column, from, model })
}

pub(super) fn iterative(attrs: &Attrs<'_>, depth: usize) -> Result<Read> {
    if attrs.truth_or("sample_posterior", false) {
        return Err(attrs.unsupported("sample_posterior, which draws its answers"));
    }
    let width = attrs.features()?;
    let initial = read_at(attrs.req("initial_imputer_")?, depth + 1)?;
    let Role::Transformer(initial) = initial.role else {
        return Err(attrs.error("initial_imputer_ is no imputer"));
    };
    if initial.width_out() != width {
        return Err(attrs.unsupported("columns that were empty in training"));
    }
    let mut steps = Vec::new();
    let mut cost = width as u64;
    for view in attrs.estimators("imputation_sequence_")? {
        steps.push(step(attrs, view, width, depth)?);
        cost += width as u64;
    }
    let bounds = |name: &str| attrs.column_floats(name, width);
    let (low, high) = (bounds("_min_value")?, bounds("_max_value")?);
    let indicators = indicators(attrs, width)?;
    let detail = format!("{width} columns, {} steps", steps.len());
    let absent = Absent::read(attrs)?;
    let model = Iterative { initial, steps, low, high, absent, indicators };
    Ok(Read::new(Role::Transformer(Box::new(model)), detail, cost))
}
