//! Imputers: by a value for each column, by the nearest rows, by models of the other columns.
//!
//! Not here: missing values that an estimator handles itself.

use super::attrs::{Attrs, Matrix};
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
enum Absent {
    Number(f64),
    Text(String),
}

impl Absent {
    fn read(attrs: &Attrs<'_>) -> Result<Self> {
        let Some(value) = attrs.view.attr("missing_values") else { return Ok(Self::Number(f64::NAN)) };
        match (value.node(), value.text(), value.float()) {
            (Node::None, ..) => Ok(Self::Number(f64::NAN)),
            (_, Some(text), _) => Ok(Self::Text(text.to_owned())),
            (_, None, Some(number)) => Ok(Self::Number(number)),
            _ => Err(attrs.unsupported("missing_values that are neither number nor text")),
        }
    }

    fn is(&self, rows: Rows<'_>, cell: f64) -> bool {
        let text = |text: &str| matches!(self, Self::Text(missing) if missing == text);
        match (rows.text(cell, text), self) {
            (Some(is_missing), _) => is_missing,
            (None, Self::Number(missing)) => cell == *missing || (cell.is_nan() && missing.is_nan()),
            (None, Self::Text(_)) => false,
        }
    }

    fn allows_nan(&self) -> bool {
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
fn indicators(attrs: &Attrs<'_>, width: usize) -> Result<Vec<usize>> {
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

/// Fills what is missing with the mean of the nearest rows of the training.
struct Nearest {
    points: Matrix,
    /// Means of columns, for rows that are near to none.
    means: Vec<f64>,
    k: usize,
    by_distance: bool,
    absent: Absent,
    kept: Vec<usize>,
    indicators: Vec<usize>,
}

impl Nearest {
    /// The distance over the columns that both rows have, scaled up to all; `None` if there is none.
    fn distance(&self, row: &[f64], point: &[f64]) -> Option<f64> {
        let (mut sum, mut present) = (0.0, 0_usize);
        for (x, y) in row.iter().zip(point) {
            if !x.is_nan() && !y.is_nan() {
                sum += (x - y) * (x - y);
                present += 1;
            }
        }
        (present > 0).then(|| (sum / present as f64 * row.len() as f64).sqrt())
    }

    fn value(&self, distances: &[Option<f64>], column: usize) -> f64 {
        let has = |point: &usize| !self.points.row(*point)[column].is_nan();
        let mut donors: Vec<(f64, usize)> = (0..self.points.rows)
            .filter(has)
            .map(|point| (distances[point].unwrap_or(f64::INFINITY), point))
            .collect();
        if donors.iter().all(|(distance, _)| distance.is_infinite()) {
            return self.means[column];
        }
        donors.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        donors.truncate(self.k);
        let has_same = donors.iter().any(|(distance, _)| *distance == 0.0);
        let (mut sum, mut total) = (0.0, 0.0);
        for (distance, point) in donors {
            let weight = match (self.by_distance, has_same) {
                _ if distance.is_infinite() => 0.0,
                (false, _) => 1.0,
                (true, true) => f64::from(u8::from(distance == 0.0)),
                (true, false) => 1.0 / distance,
            };
            sum += weight * self.points.row(point)[column];
            total += weight;
        }
        sum / total
    }
}

impl Transform for Nearest {
    fn width_out(&self) -> usize {
        self.kept.len() + self.indicators.len()
    }

    fn transform(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        check_finite(rows, self.absent.allows_nan())?;
        let mut slots = out.iter_mut();
        let mut plain = vec![0.0; rows.width];
        for row in rows.iter() {
            for (slot, cell) in plain.iter_mut().zip(row) {
                *slot = if self.absent.is(rows, *cell) { f64::NAN } else { *cell };
            }
            let needs = self.kept.iter().any(|column| plain[*column].is_nan());
            let far = |point| self.distance(&plain, self.points.row(point));
            let distances: Vec<Option<f64>> =
                if needs { (0..self.points.rows).map(far).collect() } else { Vec::new() };
            for (column, slot) in self.kept.iter().zip(&mut slots) {
                let cell = plain[*column];
                *slot = if cell.is_nan() { self.value(&distances, *column) } else { cell };
            }
            for (column, slot) in self.indicators.iter().zip(&mut slots) {
                *slot = f64::from(u8::from(plain[*column].is_nan()));
            }
        }
        Ok(())
    }

    fn draw(&self, _sketch: &mut Sketch, _rows: &Frame) -> Drawn<Frame> {
        undrawn("sklearn.impute.KNNImputer")
    }
}

pub(super) fn nearest(attrs: &Attrs<'_>) -> Result<Read> {
    let width = attrs.features()?;
    let mut points = attrs.matrix("_fit_X")?;
    let masked = attrs.matrix("_mask_fit_X")?;
    let k = attrs.size("n_neighbors")?;
    if points.cols != width || masked.data.len() != points.data.len() || k == 0 {
        return Err(attrs.error("_fit_X, _mask_fit_X and n_neighbors do not fit together"));
    }
    if attrs.text("metric")? != "nan_euclidean" {
        return Err(attrs.unsupported("a metric other than nan_euclidean"));
    }
    // Version 1.0 wrote no mask of the columns that have values.
    let is_valid =
        |column: usize| masked.data.iter().skip(column).step_by(width.max(1)).any(|masked| *masked == 0.0);
    let valid = match attrs.opt("_valid_mask") {
        Some(_) => attrs.column_floats("_valid_mask", width)?,
        None => (0..width).map(|column| f64::from(u8::from(is_valid(column)))).collect(),
    };
    let by_distance = match attrs.text("weights")? {
        "distance" => true,
        "uniform" => false,
        other => return Err(attrs.unsupported(&format!("weights={other:?}"))),
    };
    let is_masked = points.data.iter_mut().zip(&masked.data);
    is_masked.filter(|(_, masked)| **masked != 0.0).for_each(|(cell, _)| *cell = f64::NAN);
    let mean = |column: usize| {
        let cells = (0..points.rows).map(|point| points.row(point)[column]).filter(|cell| !cell.is_nan());
        let (sum, count) = cells.fold((0.0, 0), |(sum, count), cell| (sum + cell, count + 1));
        if count > 0 { sum / f64::from(count) } else { 0.0 }
    };
    let means = (0..width).map(mean).collect();
    let keeps_empty = attrs.truth_or("keep_empty_features", false);
    let is_empty = valid.contains(&0.0);
    if keeps_empty && is_empty {
        return Err(attrs.unsupported("keep_empty_features and an empty column"));
    }
    let kept = (0..width).filter(|column| valid[*column] != 0.0).collect();
    let indicators = indicators(attrs, width)?;
    let cost = points.data.len() as u64 * 2;
    let detail = format!("{} rows of {width} columns", points.rows);
    let absent = Absent::read(attrs)?;
    let model = Nearest { points, means, k, by_distance, absent, kept, indicators };
    Ok(Read::new(Role::Transformer(Box::new(model)), detail, cost))
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

    fn draw(&self, _sketch: &mut Sketch, _rows: &Frame) -> Drawn<Frame> {
        undrawn("sklearn.impute.IterativeImputer")
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
