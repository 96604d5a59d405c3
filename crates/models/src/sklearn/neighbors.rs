//! k nearest neighbours, by looking at all of them.
//!
//! Where several points are equally far, the library's choice depends on its search structure; here the first
//! in training order counts, as in its brute-force search of a sorted distance.
//!
//! Not here: metrics other than Minkowski's.

use super::attrs::{Attrs, Matrix};
use super::labels::Labels;
use super::{Classify, Evaluated, Read, Regress, Role, Rows, argmax, check_finite};
use crate::error::Result;
use crate::sketch::{Binary, Classes, Drawn, Frame, Op, Sketch, Unary, Wire};

struct Neighbours {
    points: Matrix,
    /// Classes' indices, or `targets` numbers for each point.
    answers: Vec<f64>,
    targets: usize,
    classes: usize,
    k: usize,
    power: f64,
    by_distance: bool,
}

impl Neighbours {
    fn distance(&self, a: &[f64], b: &[f64]) -> f64 {
        let pairs = a.iter().zip(b).map(|(x, y)| (x - y).abs());
        if self.power == 2.0 {
            pairs.map(|d| d * d).sum::<f64>().sqrt()
        } else if self.power == 1.0 {
            pairs.sum()
        } else if self.power.is_infinite() {
            pairs.fold(0.0, f64::max)
        } else {
            pairs.map(|d| d.powf(self.power)).sum::<f64>().powf(1.0 / self.power)
        }
    }

    /// Calls `visit` with a row's index and its neighbours' places and weights.
    fn nearest(&self, rows: Rows<'_>, mut visit: impl FnMut(usize, &[(f64, usize)])) -> Evaluated {
        check_finite(rows, false)?;
        let mut all = Vec::with_capacity(self.points.rows);
        for (index, row) in rows.iter().enumerate() {
            all.clear();
            all.extend(
                (0..self.points.rows).map(|point| (self.distance(row, self.points.row(point)), point)),
            );
            let order = |a: &(f64, usize), b: &(f64, usize)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1));
            if self.k < all.len() {
                all.select_nth_unstable_by(self.k - 1, order);
            }
            let few = &mut all[..self.k];
            few.sort_unstable_by(order);
            // A point at no distance leaves no say to the others.
            let has_same = few.iter().any(|(distance, _)| *distance == 0.0);
            for (distance, _) in few.iter_mut() {
                *distance = match (self.by_distance, has_same) {
                    (false, _) => 1.0,
                    (true, true) => f64::from(u8::from(*distance == 0.0)),
                    (true, false) => 1.0 / *distance,
                };
            }
            visit(index, few);
        }
        Ok(())
    }

    fn votes(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        self.nearest(rows, |row, few| {
            for (weight, point) in few {
                out[row * self.classes + self.answers[*point] as usize] += weight;
            }
        })
    }

    /// Draws the distances to all points: `[rows, points]`, without a last root where it changes no order.
    fn draw_distances(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Wire> {
        let table = rows.table(sketch)?;
        let count = self.points.rows;
        let deep = sketch.shape(table, &[-1, 1, self.points.cols as i64]);
        let points = sketch.numbers(&[count, self.points.cols], self.points.data.clone());
        let off = sketch.subtract(deep, points);
        let off = sketch.unary(Unary::Absolute, off);
        let folded = if self.power.is_infinite() {
            sketch.greatest(off, 2)
        } else if self.power == 1.0 {
            sketch.sum(off, 2)
        } else if self.power == 2.0 {
            let squares = sketch.multiply(off, off);
            sketch.sum(squares, 2)
        } else {
            let power = sketch.number(self.power);
            let powers = sketch.binary(Binary::Power, off, power);
            sketch.sum(powers, 2)
        };
        let flat = sketch.shape(folded, &[-1, count as i64]);
        Ok(if self.power == 2.0 {
            sketch.unary(Unary::Root, flat)
        } else if self.power == 1.0 || self.power.is_infinite() {
            flat
        } else {
            let power = sketch.number(1.0 / self.power);
            sketch.binary(Binary::Power, flat, power)
        })
    }

    /// Draws the neighbours' places and their weights: `[rows, k]` each.
    fn draw_nearest(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<(Wire, Wire)> {
        let distances = self.draw_distances(sketch, rows)?;
        let places = sketch.step(Op::SmallestPlaces(self.k), &[distances]);
        let near = sketch.step(Op::Smallest(self.k), &[distances]);
        let (one, same) = (sketch.number(1.0), sketch.flags(Binary::Equal, near, 0.0));
        if !self.by_distance {
            // Ones in the shape of the neighbours.
            let missing = sketch.unary(Unary::IsMissing, near);
            return Ok((places, sketch.choose(missing, one, one)));
        }
        let any = sketch.greatest(same, 1);
        let has_same = sketch.test(Binary::Greater, any, 0.5);
        let safe = sketch.choose(has_same, one, near);
        let inverse = sketch.divide(one, safe);
        Ok((places, sketch.choose(has_same, same, inverse)))
    }
}

impl Classify for Neighbours {
    fn classes(&self) -> usize {
        self.classes
    }

    fn pick(&self, rows: Rows<'_>, picks: &mut [u32]) -> Evaluated {
        let mut votes = vec![0.0; rows.count * self.classes];
        self.votes(rows, &mut votes)?;
        for (pick, votes) in picks.iter_mut().zip(votes.chunks_exact(self.classes)) {
            *pick = argmax(votes);
        }
        Ok(())
    }

    fn has_probabilities(&self) -> bool {
        true
    }

    fn probabilities(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        self.votes(rows, out)?;
        for votes in out.chunks_exact_mut(self.classes) {
            let sum: f64 = votes.iter().sum();
            let sum = if sum == 0.0 { 1.0 } else { sum };
            votes.iter_mut().for_each(|vote| *vote /= sum);
        }
        Ok(())
    }

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Classes> {
        let (places, weights) = self.draw_nearest(sketch, rows)?;
        // What each point adds to each class, then the neighbours' rows of it: `[rows, k, classes]`.
        let ones = self
            .answers
            .iter()
            .flat_map(|class| (0..self.classes).map(move |own| f64::from(u8::from(own == *class as usize))));
        let ones: Vec<f64> = ones.collect();
        let table = sketch.numbers(&[self.points.rows, self.classes], ones);
        let said = sketch.pick(table, places, 0);
        let weights = sketch.shape(weights, &[0, 0, 1]);
        let said = sketch.multiply(said, weights);
        let votes = sketch.sum(said, 1);
        let votes = sketch.shape(votes, &[-1, self.classes as i64]);
        let picks = sketch.argmax(votes);
        let total = sketch.sum(votes, 1);
        let (is_zero, one) = (sketch.test(Binary::Equal, total, 0.0), sketch.number(1.0));
        let total = sketch.choose(is_zero, one, total);
        Ok(Classes { picks, shares: Some(sketch.divide(votes, total)), decisions: None })
    }
}

impl Regress for Neighbours {
    fn targets(&self) -> usize {
        self.targets
    }

    fn predict(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        let targets = self.targets;
        self.nearest(rows, |row, few| {
            let total: f64 = few.iter().map(|(weight, _)| weight).sum();
            for (target, slot) in out[row * targets..(row + 1) * targets].iter_mut().enumerate() {
                let sum: f64 =
                    few.iter().map(|(weight, point)| weight * self.answers[point * targets + target]).sum();
                *slot = sum / total;
            }
        })
    }

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Wire> {
        let (places, weights) = self.draw_nearest(sketch, rows)?;
        let table = sketch.numbers(&[self.points.rows, self.targets], self.answers.clone());
        let said = sketch.pick(table, places, 0);
        let deep = sketch.shape(weights, &[0, 0, 1]);
        let said = sketch.multiply(said, deep);
        let sums = sketch.sum(said, 1);
        let sums = sketch.shape(sums, &[-1, self.targets as i64]);
        let total = sketch.sum(weights, 1);
        Ok(sketch.divide(sums, total))
    }
}

fn neighbours(attrs: &Attrs<'_>, classes: usize) -> Result<Neighbours> {
    let points = attrs.matrix("_fit_X")?;
    let answers = attrs.matrix("_y")?;
    let targets = if classes > 0 || answers.rows == 1 { 1 } else { answers.cols };
    let by_distance = match attrs.opt("weights").and_then(|value| value.text()) {
        Some("distance") => true,
        Some("uniform") => false,
        _ => return Err(attrs.unsupported("weights of its own")),
    };
    let power = match attrs.text("effective_metric_")? {
        "euclidean" => 2.0,
        "manhattan" | "cityblock" | "l1" => 1.0,
        "chebyshev" | "infinity" => f64::INFINITY,
        "minkowski" => {
            attrs.req("effective_metric_params_")?.entry("p").and_then(|p| p.float()).unwrap_or(2.0)
        }
        other => return Err(attrs.unsupported(&format!("metric={other:?}"))),
    };
    let k = attrs.size("n_neighbors")?;
    let fits = points.cols == attrs.features()? && answers.data.len() == points.rows * targets;
    let in_range = classes == 0 || answers.data.iter().all(|class| *class >= 0.0 && *class < classes as f64);
    if !fits || !in_range || k == 0 || k > points.rows {
        return Err(attrs.error("the points, their answers and n_neighbors do not fit together"));
    }
    Ok(Neighbours { points, answers: answers.data, targets, classes, k, power, by_distance })
}

fn finish(role: impl FnOnce(Box<Neighbours>) -> Role, model: Neighbours) -> Read {
    let detail = format!("{} points of {} columns", model.points.rows, model.points.cols);
    let cost = (model.points.data.len() * 2) as u64;
    Read::new(role(Box::new(model)), detail, cost)
}

pub(super) fn classifier(attrs: &Attrs<'_>) -> Result<Read> {
    if attrs.truth_or("outputs_2d_", false) {
        return Err(attrs.unsupported("several outputs"));
    }
    let labels = Labels::read(attrs)?;
    let model = neighbours(attrs, labels.len())?;
    Ok(finish(|model| Role::Classifier(model, labels), model))
}

pub(super) fn regressor(attrs: &Attrs<'_>) -> Result<Read> {
    Ok(finish(|model| Role::Regressor(model), neighbours(attrs, 0)?))
}
