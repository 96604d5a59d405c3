//! Answers of several models being added up: sums, means, votes.
//!
//! Not here: who answers (`mining`).

use super::mining::{How, Method, Scores};
use super::target::hold;
use super::tree::NONE;

/// Answers of segments being added up.
pub(super) struct Sum {
    method: Method,
    classes: usize,
    /// Numbers, or one for each class.
    total: Vec<f64>,
    /// Of votes: after how many others a class got its first one, counted down; of equals the earliest is the answer.
    turns: Vec<u32>,
    weight: Vec<f64>,
    lost: Vec<bool>,
    is_float: bool,
}

impl Sum {
    pub(super) fn new(method: Method, count: usize, classes: usize, is_float: bool) -> Self {
        let total = vec![0.0; count * classes.max(1)];
        let is_vote = matches!(method.how, How::Vote | How::WeightedVote);
        let turns = if is_vote { vec![0; total.len()] } else { Vec::new() };
        Self { method, classes, total, turns, weight: vec![0.0; count], lost: vec![false; count], is_float }
    }

    pub(super) fn lose(&mut self, row: usize) {
        self.lost[row] |= !self.method.skips;
    }

    /// Adds an answer; `shares` hands over the probabilities of classes.
    pub(super) fn add(
        &mut self,
        row: usize,
        weight: f64,
        number: f64,
        pick: u32,
        shares: impl FnOnce(&mut dyn FnMut(usize, f64)),
    ) {
        let is_lost = if self.classes == 0 { number.is_nan() } else { pick == NONE };
        if is_lost {
            return self.lose(row);
        }
        let is_float = self.is_float;
        let add = |slot: &mut f64, value: f64| *slot = hold(*slot + hold(value, is_float), is_float);
        let weight = match self.method.how {
            How::WeightedVote | How::WeightedAverage | How::WeightedSum => weight,
            _ => 1.0,
        };
        add(&mut self.weight[row], weight);
        let total = &mut self.total[row * self.classes.max(1)..][..self.classes.max(1)];
        match self.method.how {
            How::Vote | How::WeightedVote => {
                add(&mut total[pick as usize], weight);
                let turns = &mut self.turns[row * self.classes..][..self.classes];
                if turns[pick as usize] == 0 {
                    let given = turns.iter().filter(|turn| **turn > 0).count();
                    turns[pick as usize] = u32::MAX - given as u32;
                }
            }
            _ if self.classes > 0 => shares(&mut |class, share| add(&mut total[class], weight * share)),
            How::Sum | How::Average => add(&mut total[0], number),
            _ => add(&mut total[0], weight * number),
        }
    }

    pub(super) fn finish(mut self, scores: &mut Scores) {
        let divides = !matches!(self.method.how, How::Sum | How::WeightedSum);
        for row in 0..self.weight.len() {
            // Nobody answered, or all who did weigh nothing.
            let is_lost = self.lost[row] || self.weight[row] == 0.0;
            let total = &mut self.total[row * self.classes.max(1)..][..self.classes.max(1)];
            if divides && !is_lost {
                total.iter_mut().for_each(|sum| *sum = hold(*sum / self.weight[row], self.is_float));
            }
            match (self.classes, is_lost) {
                (0, true) => scores.numbers[row] = f64::NAN,
                (0, false) => scores.numbers[row] = total[0],
                (_, true) => scores.lose(row),
                (_, false) => {
                    scores.row(row).copy_from_slice(total);
                    scores.pick_most(row);
                    let turns =
                        self.turns.get(row * self.classes..(row + 1) * self.classes).unwrap_or_default();
                    let most = total[scores.picks[row] as usize];
                    let equals = (0..turns.len()).filter(|class| total[*class] == most);
                    if let Some(first) = equals.max_by_key(|class| turns[*class]) {
                        scores.picks[row] = first as u32;
                    }
                }
            }
        }
    }
}
