//! Single trees, forests and extra trees.
//!
//! A forest's answer is the mean of its trees', added up in the order of the trees and divided once, as the
//! library does with one job: the same sums, so the same ties.
//!
//! Not here: walking (`tree`), boosting (`boost`).

use super::attrs::Attrs;
use super::labels::Labels;
use super::tree::{RawTree, Trees};
use super::{Classify, Evaluated, Read, Regress, Role, Rows, argmax, several};
use crate::error::Result;
use crate::sketch::{Classes, Drawn, Frame, Sketch, Wire};

/// Trees whose answers are averaged.
struct Mean {
    trees: Trees,
    /// Classes or targets.
    width: usize,
    count: f64,
}

impl Mean {
    fn sum(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        match self.width {
            1 => self.trees.add_up::<1>(rows, out)?,
            2 => self.trees.add_up::<2>(rows, out)?,
            3 => self.trees.add_up::<3>(rows, out)?,
            width => self.trees.walk(rows, |row, _, says| {
                for (slot, value) in out[row * width..(row + 1) * width].iter_mut().zip(says) {
                    *slot += value;
                }
            })?,
        }
        if self.count > 1.0 {
            for slot in out {
                *slot /= self.count;
            }
        }
        Ok(())
    }

    fn draw_mean(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Wire> {
        let sums = self.trees.draw_sums(sketch, rows)?;
        if self.count <= 1.0 {
            return Ok(sums);
        }
        let count = sketch.number(self.count);
        Ok(sketch.divide(sums, count))
    }
}

impl Classify for Mean {
    fn classes(&self) -> usize {
        self.width
    }

    fn pick(&self, rows: Rows<'_>, picks: &mut [u32]) -> Evaluated {
        // Most models fit on the stack, and a request of one row then needs no memory at all.
        let mut few = [0.0; 64];
        let needed = rows.count * self.width;
        let mut many = Vec::new();
        let scores = if needed <= few.len() {
            &mut few[..needed]
        } else {
            many.resize(needed, 0.0);
            &mut many[..]
        };
        self.sum(rows, scores)?;
        for (pick, scores) in picks.iter_mut().zip(scores.chunks_exact(self.width)) {
            *pick = argmax(scores);
        }
        Ok(())
    }

    fn has_probabilities(&self) -> bool {
        true
    }

    fn probabilities(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        self.sum(rows, out)
    }

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Classes> {
        let shares = self.draw_mean(sketch, rows)?;
        Ok(Classes { picks: sketch.argmax(shares), shares: Some(shares), decisions: None })
    }
}

impl Regress for Mean {
    fn targets(&self) -> usize {
        self.width
    }

    fn predict(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        self.sum(rows, out)
    }

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Wire> {
        self.draw_mean(sketch, rows)
    }
}

/// Older versions keep counts at the leaves, newer ones shares of one; shares are what is averaged.
pub(super) fn normalise(raw: &mut RawTree) {
    let classes = raw.classes;
    // Every node is asked: weights that add up to one make a root look like shares.
    let mut nodes = raw.values.chunks_exact(classes);
    if nodes.all(|shares| (shares.iter().sum::<f64>() - 1.0).abs() < 1e-9) {
        return;
    }
    for counts in raw.values.chunks_exact_mut(classes) {
        let sum: f64 = counts.iter().sum();
        if sum != 0.0 {
            for count in counts {
                *count /= sum;
            }
        }
    }
}

fn gather(attrs: &Attrs<'_>, trees: &[Attrs<'_>], classes: Option<usize>) -> Result<Mean> {
    let features = attrs.features()?;
    let mut mean = Mean { trees: Trees::new(features, 0), width: 0, count: trees.len() as f64 };
    for (index, tree) in trees.iter().enumerate() {
        let mut raw = RawTree::read(tree)?;
        let width = match classes {
            Some(_) if raw.outputs > 1 => return Err(attrs.unsupported("several outputs")),
            Some(classes) if raw.classes != classes => {
                return Err(attrs.error(format!("a tree of {} classes among {classes}", raw.classes)));
            }
            Some(classes) => {
                normalise(&mut raw);
                classes
            }
            None => raw.outputs * raw.classes,
        };
        if index == 0 {
            mean.width = width;
            mean.trees = Trees::new(features, width);
        }
        mean.trees.add(&raw, 1.0).map_err(|what| attrs.error(format!("tree {index}: {what}")))?;
    }
    if trees.is_empty() {
        return Err(attrs.error("it has no trees"));
    }
    mean.trees = mean.trees.finish();
    Ok(mean)
}

fn described(mean: &Mean) -> (String, u64) {
    (format!("{} trees, {} nodes", mean.trees.count(), mean.trees.nodes()), mean.trees.row_cost_ns())
}

fn classifier_of(attrs: &Attrs<'_>, trees: &[Attrs<'_>]) -> Result<Read> {
    if let Some(labels) = Labels::read_several(attrs)? {
        return several::forest(attrs, trees, labels);
    }
    let labels = Labels::read(attrs)?;
    let mean = gather(attrs, trees, Some(labels.len()))?;
    let (detail, cost) = described(&mean);
    Ok(Read::new(Role::Classifier(Box::new(mean), labels), detail, cost))
}

fn regressor_of(attrs: &Attrs<'_>, trees: &[Attrs<'_>]) -> Result<Read> {
    let mean = gather(attrs, trees, None)?;
    let (detail, cost) = described(&mean);
    Ok(Read::new(Role::Regressor(Box::new(mean)), detail, cost))
}

pub(super) fn members<'g>(attrs: &Attrs<'g>) -> Result<Vec<Attrs<'g>>> {
    attrs.estimators("estimators_")?.into_iter().map(Attrs::new).collect()
}

pub(super) fn single_classifier(attrs: &Attrs<'_>) -> Result<Read> {
    classifier_of(attrs, &[Attrs::new(attrs.view)?])
}

pub(super) fn single_regressor(attrs: &Attrs<'_>) -> Result<Read> {
    regressor_of(attrs, &[Attrs::new(attrs.view)?])
}

pub(super) fn classifier(attrs: &Attrs<'_>) -> Result<Read> {
    classifier_of(attrs, &members(attrs)?)
}

pub(super) fn regressor(attrs: &Attrs<'_>) -> Result<Read> {
    regressor_of(attrs, &members(attrs)?)
}
