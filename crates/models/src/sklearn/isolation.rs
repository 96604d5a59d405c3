//! Isolation forests: how few cuts set a row apart.
//!
//! Not here: other outlier detectors (`svm` has `OneClassSVM`).

use super::attrs::Attrs;
use super::tree::{RawTree, Trees};
use super::{Evaluated, Read, Regress, Role, Rows};
use crate::error::Result;
use crate::sketch::{Binary, Drawn, Frame, Sketch, Unary, Wire};

struct Isolation {
    trees: Trees,
    /// The depth that a row of no distinction has, over all trees.
    denominator: f64,
    offset: f64,
}

impl Isolation {
    fn sums(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        self.trees.add_up::<1>(rows, out)?;
        for slot in out {
            let share = if self.denominator == 0.0 { 1.0 } else { *slot / self.denominator };
            *slot = -(-share).exp2() - self.offset;
        }
        Ok(())
    }

    fn draw_scores(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Wire> {
        let sums = self.trees.draw_sums(sketch, rows)?;
        let share = if self.denominator == 0.0 {
            let nothing = sketch.scaled(sums, 0.0);
            sketch.plus(nothing, 1.0)
        } else {
            let denominator = sketch.number(self.denominator);
            sketch.divide(sums, denominator)
        };
        let power = sketch.scaled(share, -std::f64::consts::LN_2);
        let power = sketch.unary(Unary::Exp, power);
        let score = sketch.unary(Unary::Negative, power);
        Ok(sketch.plus(score, -self.offset))
    }
}

impl Regress for Isolation {
    fn targets(&self) -> usize {
        1
    }

    fn predict(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        self.sums(rows, out)?;
        out.iter_mut().for_each(|score| *score = if *score < 0.0 { -1.0 } else { 1.0 });
        Ok(())
    }

    fn has_decisions(&self) -> bool {
        true
    }

    fn decisions(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        self.sums(rows, out)
    }

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Wire> {
        let scores = self.draw_scores(sketch, rows)?;
        let below = sketch.test(Binary::Less, scores, 0.0);
        let (outside, inside) = (sketch.number(-1.0), sketch.number(1.0));
        Ok(sketch.choose(below, outside, inside))
    }

    fn draw_decisions(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Wire> {
        self.draw_scores(sketch, rows)
    }
}

/// The mean length of a search that fails among so many points.
fn average_path_length(count: f64) -> f64 {
    const EULER_GAMMA: f64 = 0.577_215_664_901_532_9;
    if count <= 1.0 {
        0.0
    } else if count <= 2.0 {
        1.0
    } else {
        2.0 * ((count - 1.0).ln() + EULER_GAMMA) - 2.0 * (count - 1.0) / count
    }
}

/// Replaces what nodes say by the length of the path to them.
fn path_lengths(raw: &mut RawTree, samples: &[f64]) -> Option<()> {
    raw.values = vec![0.0; raw.left.len()];
    (raw.outputs, raw.classes) = (1, 1);
    let mut todo = vec![(0_usize, 1.0)];
    let mut visited = 0;
    while let Some((node, depth)) = todo.pop() {
        visited += 1;
        if visited > raw.left.len() {
            return None;
        }
        *raw.values.get_mut(node)? = depth + average_path_length(*samples.get(node)?) - 1.0;
        if raw.left[node] >= 0 {
            todo.push((usize::try_from(raw.left[node]).ok()?, depth + 1.0));
            todo.push((usize::try_from(raw.right[node]).ok()?, depth + 1.0));
        }
    }
    Some(())
}

pub(super) fn read(attrs: &Attrs<'_>) -> Result<Read> {
    let features = attrs.features()?;
    let mut trees = Trees::new(features, 1);
    let subsets = attrs.estimators("estimators_features_")?;
    for (member, subset) in attrs.estimators("estimators_")?.into_iter().zip(subsets) {
        let member = Attrs::new(member)?;
        let mut raw = RawTree::read(&member)?;
        let tree = member.req("tree_")?;
        let samples = tree.attr("nodes").and_then(|nodes| nodes.array()?.field_f64s("n_node_samples"));
        let columns = subset.floats().ok_or_else(|| attrs.error("estimators_features_ holds no numbers"))?;
        for feature in raw.feature.iter_mut().filter(|feature| **feature >= 0) {
            let column = usize::try_from(*feature).ok().and_then(|index| columns.get(index));
            *feature = *column.ok_or_else(|| attrs.error("a split on a column that does not exist"))? as i64;
        }
        // Missing values are refused, whatever the trees could do with them.
        raw.missing_left = None;
        samples
            .and_then(|samples| path_lengths(&mut raw, &samples))
            .ok_or_else(|| attrs.error("a tree's nodes form no tree"))?;
        trees.add(&raw, 1.0).map_err(|what| attrs.error(format!("a tree: {what}")))?;
    }
    let trees = trees.finish();
    let denominator = trees.count() as f64 * average_path_length(attrs.float("_max_samples")?);
    let detail = format!("{} trees, {} nodes", trees.count(), trees.nodes());
    let cost = trees.row_cost_ns();
    let model = Isolation { trees, denominator, offset: attrs.float("offset_")? };
    Ok(Read::new(Role::Assigner(Box::new(model)), detail, cost))
}
