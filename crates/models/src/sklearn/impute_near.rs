//! `KNNImputer`: what is missing becomes the mean of what the nearest rows of the training have.
//!
//! Not here: other imputers (`impute`).

use super::attrs::{Attrs, Matrix};
use super::impute::{Absent, draw_absent, indicators, with_indicators};
use super::{Evaluated, Read, Role, Rows, Transform, check_finite};
use crate::error::Result;
use crate::sketch::{Binary, Drawn, Frame, Op, Sketch, Unary, Wire};

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

impl Nearest {
    /// Draws the distances to all points, `[rows, points]`; infinite where nothing is in both.
    fn draw_distances(&self, sketch: &mut Sketch, table: Wire, absent: Wire) -> Wire {
        let (count, width) = (self.points.rows, self.points.cols);
        let zero = sketch.number(0.0);
        let present = sketch.unary(Unary::Not, absent);
        let present = sketch.unary(Unary::Number, present);
        let there: Vec<f64> =
            self.points.data.iter().map(|cell| f64::from(u8::from(!cell.is_nan()))).collect();
        let cells: Vec<f64> =
            self.points.data.iter().map(|cell| if cell.is_nan() { 0.0 } else { *cell }).collect();
        let filled = sketch.choose(absent, zero, table);
        let deep = |sketch: &mut Sketch, value| sketch.shape(value, &[-1, 1, width as i64]);
        let (filled, present) = (deep(sketch, filled), deep(sketch, present));
        let (points, there) =
            (sketch.numbers(&[count, width], cells), sketch.numbers(&[count, width], there));
        let both = sketch.multiply(present, there);
        let off = sketch.subtract(filled, points);
        let squares = sketch.multiply(off, off);
        let squares = sketch.multiply(squares, both);
        let flat = |sketch: &mut Sketch, value| {
            let sum = sketch.sum(value, 2);
            sketch.shape(sum, &[-1, count as i64])
        };
        let (sums, shared) = (flat(sketch, squares), flat(sketch, both));
        let none = sketch.test(Binary::Equal, shared, 0.0);
        let (one, far) = (sketch.number(1.0), sketch.number(f64::INFINITY));
        let safe = sketch.choose(none, one, shared);
        let mean = sketch.divide(sums, safe);
        let scaled = sketch.scaled(mean, width as f64);
        let distances = sketch.unary(Unary::Root, scaled);
        sketch.choose(none, far, distances)
    }

    /// Draws what fills a column: what the nearest points that have it say, or its mean where all are out of reach.
    fn draw_value(&self, sketch: &mut Sketch, distances: Wire, column: usize) -> Wire {
        let has = |point: &usize| !self.points.row(*point)[column].is_nan();
        let donors: Vec<usize> = (0..self.points.rows).filter(has).collect();
        let mean = sketch.number(self.means[column]);
        let k = self.k.min(donors.len());
        if k == 0 {
            return mean;
        }
        let own = sketch.columns(distances, &donors);
        let near = sketch.step(Op::Smallest(k), &[own]);
        let places = sketch.step(Op::SmallestPlaces(k), &[own]);
        let values: Vec<f64> = donors.iter().map(|point| self.points.row(*point)[column]).collect();
        let values = sketch.row(&values);
        let values = sketch.pick(values, places, 0);
        let weights = if self.by_distance {
            let one = sketch.number(1.0);
            let same = sketch.flags(Binary::Equal, near, 0.0);
            let any = sketch.greatest(same, 1);
            let has_same = sketch.test(Binary::Greater, any, 0.5);
            let safe = sketch.choose(has_same, one, near);
            let inverse = sketch.divide(one, safe);
            sketch.choose(has_same, same, inverse)
        } else {
            sketch.flags(Binary::Less, near, f64::INFINITY)
        };
        let said = sketch.multiply(weights, values);
        let (sum, total) = (sketch.sum(said, 1), sketch.sum(weights, 1));
        let none = sketch.test(Binary::Equal, total, 0.0);
        let one = sketch.number(1.0);
        let safe = sketch.choose(none, one, total);
        let value = sketch.divide(sum, safe);
        sketch.choose(none, mean, value)
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

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Frame> {
        let table = rows.table(sketch)?;
        let absent = draw_absent(sketch, &self.absent, table);
        let distances = self.draw_distances(sketch, table, absent);
        let mut columns = Vec::new();
        for column in &self.kept {
            let (own, is_absent) = (sketch.column(table, *column), sketch.column(absent, *column));
            let value = self.draw_value(sketch, distances, *column);
            columns.push(sketch.choose(is_absent, value, own));
        }
        let made = sketch.join(&columns);
        Ok(with_indicators(sketch, made, self.kept.len(), absent, &self.indicators))
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
