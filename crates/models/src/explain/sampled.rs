//! Shapley values of anything that predicts: KernelSHAP and permutations.
//!
//! A column that is not known takes its values from the background rows, and the model's answers are averaged. With
//! few columns every set is asked and both methods' answers are exact; with more, sets or orders are drawn by a
//! generator with a fixed seed, so that the same question has the same answer.
//!
//! Source: Lundberg & Lee 2017 (KernelSHAP as a weighted regression); Mitchell et al. 2022 (permutations in
//! antithetic pairs).

use super::{Background, Explain, Explanation, check};
use crate::backend::BackendError;

/// A model as a function: `rows × features` numbers to `rows × outputs` numbers.
pub trait Predict: Send + Sync {
    /// Columns of a row.
    fn features(&self) -> usize;
    /// Numbers for each row.
    fn outputs(&self) -> usize;
    /// Appends the answers to `out`.
    fn predict(&self, rows: &[f64], count: usize, out: &mut Vec<f64>) -> Result<(), BackendError>;
}

/// How sets of columns are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sampling {
    /// KernelSHAP with about so many sets; `None`: `2 × features + 2048`, as the package does.
    Kernel(Option<usize>),
    /// So many orders of columns, each also backwards.
    Permutation(usize),
}

/// Sets, or steps of orders, at most: hostile requests cannot ask for more work.
const SETS_MAX: usize = 1 << 16;
/// Rows that the model is asked for at once.
const ROWS_AT_ONCE: usize = 4096;
/// Columns, at most: the regression solves a system of this size.
const FEATURES_MAX: usize = 1000;

/// An explainer that only asks the model.
pub struct Sampled<P> {
    model: P,
    sampling: Sampling,
}

impl<P: Predict> Sampled<P> {
    /// Explains `model`.
    pub fn new(model: P, sampling: Sampling) -> Result<Self, BackendError> {
        if model.features() == 0 || model.features() > FEATURES_MAX {
            let what = format!("{} columns, sampling explains 1 to {FEATURES_MAX}", model.features());
            return Err(BackendError::Input(what));
        }
        Ok(Self { model, sampling })
    }

    /// For each set of known columns, the mean answer over the background: `sets × outputs` numbers.
    fn games(
        &self,
        row: &[f64],
        background: &Background,
        sets: &[Vec<bool>],
    ) -> Result<Vec<f64>, BackendError> {
        let (features, outputs, others) = (row.len(), self.model.outputs(), background.rows());
        let mut games = Vec::with_capacity(sets.len() * outputs);
        let (mut rows, mut answers) = (Vec::new(), Vec::new());
        for sets in sets.chunks((ROWS_AT_ONCE / others).max(1)) {
            rows.clear();
            answers.clear();
            for set in sets {
                for other in background.iter() {
                    rows.extend((0..features).map(|at| if set[at] { row[at] } else { other[at] }));
                }
            }
            self.model.predict(&rows, sets.len() * others, &mut answers)?;
            if answers.len() != sets.len() * others * outputs {
                return Err(BackendError::Internal("the model gave another number of answers".into()));
            }
            for answers in answers.chunks_exact(others * outputs) {
                let mean = |output| answers[output..].iter().step_by(outputs).sum::<f64>() / others as f64;
                games.extend((0..outputs).map(mean));
            }
        }
        Ok(games)
    }

    fn kernel(
        &self,
        row: &[f64],
        background: &Background,
        samples: usize,
        values: &mut [f64],
    ) -> Result<Vec<f64>, BackendError> {
        let (features, outputs) = (row.len(), self.model.outputs());
        let (mut sets, weights) = coalitions(features, samples.min(SETS_MAX));
        sets.push(vec![false; features]);
        sets.push(vec![true; features]);
        let games = self.games(row, background, &sets)?;
        let (none, all) = games[games.len() - 2 * outputs..].split_at(outputs);
        // The last column's value follows from the sum, which leaves a regression without a constraint.
        let unknowns = features - 1;
        let mut normal = vec![0.0; unknowns * unknowns];
        let mut right = vec![0.0; unknowns * outputs];
        let mut coded = vec![0.0; unknowns];
        for (index, weight) in weights.iter().enumerate() {
            let last = f64::from(u8::from(sets[index][unknowns]));
            for (slot, known) in coded.iter_mut().zip(&sets[index]) {
                *slot = f64::from(u8::from(*known)) - last;
            }
            for (at, one) in coded.iter().enumerate().filter(|(_, one)| **one != 0.0) {
                let line = &mut normal[at * unknowns..(at + 1) * unknowns];
                line.iter_mut().zip(&coded).for_each(|(slot, other)| *slot += weight * one * other);
                for output in 0..outputs {
                    let target =
                        games[index * outputs + output] - none[output] - last * (all[output] - none[output]);
                    right[at * outputs + output] += weight * one * target;
                }
            }
        }
        solve(&mut normal, &mut right, unknowns, outputs)
            .ok_or_else(|| BackendError::Internal("too few sets of columns to tell them apart".into()))?;
        for output in 0..outputs {
            let mut rest = all[output] - none[output];
            for feature in 0..unknowns {
                values[feature * outputs + output] = right[feature * outputs + output];
                rest -= right[feature * outputs + output];
            }
            values[unknowns * outputs + output] = rest;
        }
        Ok(none.to_vec())
    }

    fn permutation(
        &self,
        row: &[f64],
        background: &Background,
        orders: usize,
        values: &mut [f64],
    ) -> Result<Vec<f64>, BackendError> {
        let (features, outputs) = (row.len(), self.model.outputs());
        let orders = orders.clamp(1, (SETS_MAX / (2 * features)).max(1));
        let mut random = Random::new();
        let mut order: Vec<usize> = (0..features).collect();
        let mut base = Vec::new();
        for _ in 0..orders {
            random.shuffle(&mut order);
            // Columns become known one by one, and unknown again in the same order: the same pass gives the order
            // and its reverse.
            let mut sets = vec![vec![false; features]];
            for known in [true, false] {
                for feature in &order {
                    let mut set = sets.last().cloned().unwrap_or_default();
                    set[*feature] = known;
                    sets.push(set);
                }
            }
            let games = self.games(row, background, &sets)?;
            let game = |at: usize, output: usize| games[at * outputs + output];
            for (at, feature) in order.iter().enumerate() {
                for output in 0..outputs {
                    let gained = game(at + 1, output) - game(at, output);
                    let lost = game(features + at, output) - game(features + at + 1, output);
                    values[feature * outputs + output] += (gained + lost) / (2 * orders) as f64;
                }
            }
            base = games[..outputs].to_vec();
        }
        Ok(base)
    }
}

impl<P: Predict> Explain for Sampled<P> {
    fn features(&self) -> usize {
        self.model.features()
    }

    fn method(&self) -> &'static str {
        match self.sampling {
            Sampling::Kernel(_) => "kernel",
            Sampling::Permutation(_) => "permutation",
        }
    }

    fn explain(
        &self,
        rows: &[f64],
        count: usize,
        background: Option<&Background>,
    ) -> Result<Explanation, BackendError> {
        let (features, outputs) = (self.features(), self.model.outputs());
        check(rows, count, features, background)?;
        let Some(background) = background else {
            let what = "this model can only be asked, which needs background rows";
            return Err(BackendError::Input(what.into()));
        };
        let mut values = vec![0.0; count * features * outputs];
        let mut base = vec![0.0; outputs];
        for (row, values) in rows.chunks_exact(features).zip(values.chunks_exact_mut(features * outputs)) {
            base = match self.sampling {
                Sampling::Kernel(samples) => {
                    self.kernel(row, background, samples.unwrap_or(2 * features + 2048), values)
                }
                Sampling::Permutation(orders) => self.permutation(row, background, orders, values),
            }?;
        }
        Ok(Explanation { outputs, base, values })
    }
}

/// Sets of columns and their weights in the regression, without the empty and the full one: all of them when there
/// are no more than `samples`, else drawn with their complements.
fn coalitions(features: usize, samples: usize) -> (Vec<Vec<bool>>, Vec<f64>) {
    let (mut sets, mut weights) = (Vec::new(), Vec::new());
    if features == 1 {
        return (sets, weights);
    }
    // Shapley's kernel, summed over all sets of a size.
    let of_size = |size: usize| (features - 1) as f64 / (size * (features - size)) as f64;
    if features < usize::BITS as usize - 1 && (1_usize << features) - 2 <= samples {
        let choose = |size: usize| {
            (1..=size).fold(1.0, |product, k| product * (features - size + k) as f64 / k as f64)
        };
        for set in 1..(1_usize << features) - 1 {
            let size = set.count_ones() as usize;
            sets.push((0..features).map(|at| set >> at & 1 == 1).collect());
            weights.push(of_size(size) / choose(size));
        }
        return (sets, weights);
    }
    let mut random = Random::new();
    let total: f64 = (1..features).map(of_size).sum();
    let mut order: Vec<usize> = (0..features).collect();
    while sets.len() < samples {
        let mut left = random.unit() * total;
        let size = (1..features).find(|size| {
            left -= of_size(*size);
            left <= 0.0
        });
        random.shuffle(&mut order);
        let mut set = vec![false; features];
        order[..size.unwrap_or(1)].iter().for_each(|at| set[*at] = true);
        sets.push(set.iter().map(|known| !known).collect());
        sets.push(set);
    }
    let weight = 1.0 / sets.len() as f64;
    weights.resize(sets.len(), weight);
    (sets, weights)
}

/// Solves `normal · x = right` in place (Gauss with partial pivoting); `None` when it has no single solution.
fn solve(normal: &mut [f64], right: &mut [f64], size: usize, columns: usize) -> Option<()> {
    for step in 0..size {
        let pivot = (step..size)
            .max_by(|a, b| normal[a * size + step].abs().total_cmp(&normal[b * size + step].abs()))?;
        if normal[pivot * size + step].abs() < 1e-300 {
            return None;
        }
        for at in 0..size {
            normal.swap(step * size + at, pivot * size + at);
        }
        for at in 0..columns {
            right.swap(step * columns + at, pivot * columns + at);
        }
        for line in 0..size {
            let factor = normal[line * size + step] / normal[step * size + step];
            if line == step || factor == 0.0 {
                continue;
            }
            for at in step..size {
                normal[line * size + at] -= factor * normal[step * size + at];
            }
            for at in 0..columns {
                right[line * columns + at] -= factor * right[step * columns + at];
            }
        }
    }
    for line in 0..size {
        let pivot = normal[line * size + line];
        right[line * columns..(line + 1) * columns].iter_mut().for_each(|value| *value /= pivot);
    }
    Some(())
}

/// SplitMix64 from a fixed seed.
struct Random(u64);

impl Random {
    fn new() -> Self {
        Self(0x5348_4150)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// In [0, 1).
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn shuffle(&mut self, items: &mut [usize]) {
        for at in (1..items.len()).rev() {
            items.swap(at, (self.unit() * (at + 1) as f64) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `x0·x1 + 2·x2 - x3·x0`, and its negative.
    struct Products(usize);

    impl Predict for Products {
        fn features(&self) -> usize {
            self.0
        }
        fn outputs(&self) -> usize {
            2
        }
        fn predict(&self, rows: &[f64], _count: usize, out: &mut Vec<f64>) -> Result<(), BackendError> {
            for row in rows.chunks_exact(self.0) {
                let value = row[0] * row[1] + 2.0 * row[2] - row[3] * row[0];
                out.extend([value, -value]);
            }
            Ok(())
        }
    }

    #[test]
    fn all_methods_agree_where_columns_meet_in_pairs() {
        let rows = [1.0, 2.0, 3.0, 4.0, -1.0, 0.5, 0.0, 2.0];
        let background = Background::new(vec![0.0, 0.0, 1.0, 0.5, 1.0, -1.0, 2.0, 0.0], 4).unwrap();
        let explain = |sampling| {
            Sampled::new(Products(4), sampling).unwrap().explain(&rows, 2, Some(&background)).unwrap()
        };
        let kernel = explain(Sampling::Kernel(None));
        for other in [explain(Sampling::Permutation(1)), explain(Sampling::Permutation(5))] {
            for (one, other) in kernel.values.iter().zip(&other.values) {
                assert!((one - other).abs() < 1e-12, "{one} and {other}");
            }
        }
        let mut says = Vec::new();
        Products(4).predict(&rows, 2, &mut says).unwrap();
        for (index, says) in says.iter().enumerate() {
            let (row, output) = (index / 2, index % 2);
            let sum: f64 = (0..4).map(|feature| kernel.values[(row * 4 + feature) * 2 + output]).sum();
            assert!((kernel.base[output] + sum - says).abs() < 1e-12);
        }
    }

    #[test]
    fn drawn_sets_come_near_and_the_sum_is_exact() {
        let width = 14;
        let row: Vec<f64> = (0..width).map(|at| at as f64 / 3.0).collect();
        let background = Background::new(vec![0.5; width], width).unwrap();
        let model = Sampled::new(Products(width), Sampling::Kernel(Some(2000))).unwrap();
        let drawn = model.explain(&row, 1, Some(&background)).unwrap();
        let exact = Sampled::new(Products(width), Sampling::Permutation(2)).unwrap();
        let exact = exact.explain(&row, 1, Some(&background)).unwrap();
        for (drawn, exact) in drawn.values.iter().zip(&exact.values) {
            assert!((drawn - exact).abs() < 0.05, "{drawn} for {exact}");
        }
        let sum: f64 = drawn.values.iter().step_by(2).sum();
        let mut says = Vec::new();
        Products(width).predict(&row, 1, &mut says).unwrap();
        assert!((sum + drawn.base[0] - says[0]).abs() < 1e-9);
    }
}
