//! One model for each class, or for each pair: `OneVsRestClassifier`, `OneVsOneClassifier`.
//!
//! Not here: the models.

use super::attrs::Attrs;
use super::labels::Labels;
use super::{Classify, Evaluated, Read, Role, Rows, argmax, read_at};
use crate::error::Result;
use crate::sketch::{Classes, Drawn, Frame, Sketch, Unary, Wire, undrawn};

/// A model that tells a class from the rest.
enum Member {
    Model(Box<dyn Classify>, bool),
    /// All rows of the training were alike.
    Constant(f64),
}

impl Member {
    /// How sure the model is of the class, added to nothing.
    fn score(&self, rows: Rows<'_>) -> Evaluated<Vec<f64>> {
        match self {
            Self::Constant(says) => Ok(vec![*says; rows.count]),
            Self::Model(model, true) => {
                let mut scores = vec![0.0; rows.count];
                model.decisions(rows, &mut scores)?;
                Ok(scores)
            }
            Self::Model(model, false) => ones(model.as_ref(), rows),
        }
    }

    /// The probability of the class.
    fn share(&self, rows: Rows<'_>) -> Evaluated<Vec<f64>> {
        match self {
            Self::Constant(says) => Ok(vec![*says; rows.count]),
            Self::Model(model, _) => ones(model.as_ref(), rows),
        }
    }

    fn has_shares(&self) -> bool {
        match self {
            Self::Constant(_) => true,
            Self::Model(model, _) => model.has_probabilities(),
        }
    }

    /// Draws the score, the share where there is one, and the picks.
    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<(Wire, Option<Wire>, Wire)> {
        match self {
            Self::Constant(says) => {
                let first = rows.column(sketch, 0).0;
                let missing = sketch.unary(Unary::IsMissing, first);
                let says = sketch.number(*says);
                let column = sketch.choose(missing, says, says);
                Ok((column, Some(column), sketch.second_above(column, 0.0)))
            }
            Self::Model(model, by_decisions) => {
                let drawn = model.draw(sketch, rows)?;
                let share = drawn.shares.map(|shares| sketch.column(shares, 1));
                let score = match (by_decisions, drawn.decisions, share) {
                    (true, Some((decisions, _)), _) => sketch.shape(decisions, &[-1, 1]),
                    (false, _, Some(share)) => share,
                    _ => return undrawn("scores of a member"),
                };
                Ok((score, share, drawn.picks))
            }
        }
    }
}

fn ones(model: &dyn Classify, rows: Rows<'_>) -> Evaluated<Vec<f64>> {
    let mut all = vec![0.0; rows.count * 2];
    model.probabilities(rows, &mut all)?;
    Ok(all.chunks_exact(2).map(|pair| pair[1]).collect())
}

/// How the members' scores become classes.
#[derive(PartialEq)]
enum Scheme {
    Rest,
    Pairs,
}

struct Apart {
    members: Vec<Member>,
    classes: usize,
    scheme: Scheme,
    /// Above it, the second of two classes.
    threshold: f64,
    has_decisions: bool,
}

impl Apart {
    /// A score for each class: `rows × classes`; votes of pairs with a part of their sums.
    fn pairs(&self, rows: Rows<'_>) -> Evaluated<Vec<f64>> {
        let classes = self.classes;
        let mut votes = vec![0.0; rows.count * classes];
        let mut sums = vec![0.0; rows.count * classes];
        let mut picks = vec![0; rows.count];
        let mut pairs = (0..classes).flat_map(|low| (low + 1..classes).map(move |high| (low, high)));
        for member in &self.members {
            let Some((low, high)) = pairs.next() else { break };
            let scores = member.score(rows)?;
            match member {
                Member::Model(model, _) => model.pick(rows, &mut picks)?,
                Member::Constant(says) => picks.fill(u32::from(*says > 0.0)),
            }
            for (row, (score, pick)) in scores.iter().zip(&picks).enumerate() {
                sums[row * classes + low] -= score;
                sums[row * classes + high] += score;
                votes[row * classes + if *pick == 0 { low } else { high }] += 1.0;
            }
        }
        for (vote, sum) in votes.iter_mut().zip(&sums) {
            *vote += sum / (3.0 * (sum.abs() + 1.0));
        }
        Ok(votes)
    }

    fn draw_rest(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Classes> {
        let (mut scores, mut shares) = (Vec::new(), Vec::new());
        for member in &self.members {
            sketch.check()?;
            let (score, share, _) = member.draw(sketch, rows)?;
            scores.push(score);
            shares.extend(share);
        }
        let has_shares = self.has_probabilities() && shares.len() == scores.len();
        let decisions = self.has_decisions.then_some(());
        if let [score] = scores.as_slice() {
            return Ok(Classes {
                picks: sketch.second_above(*score, self.threshold),
                shares: has_shares.then(|| sketch.pair(shares[0])),
                decisions: decisions.map(|()| (*score, 1)),
            });
        }
        // Of equals the library takes the last, an argmax the first: so from the other end.
        let turned: Vec<Wire> = scores.iter().rev().copied().collect();
        let turned = sketch.join(&turned);
        let from_end = sketch.argmax(turned);
        let last = sketch.whole(self.classes as i64 - 1);
        let picks = sketch.subtract(last, from_end);
        let all = sketch.join(&scores);
        let shares = has_shares.then(|| {
            let shares = sketch.join(&shares);
            let total = sketch.sum(shares, 1);
            sketch.divide(shares, total)
        });
        Ok(Classes { picks, shares, decisions: decisions.map(|()| (all, self.classes)) })
    }

    fn draw_pairs(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Classes> {
        let classes = self.classes;
        let (mut scores, mut wins) = (Vec::new(), Vec::new());
        for member in &self.members {
            sketch.check()?;
            let (score, _, picks) = member.draw(sketch, rows)?;
            scores.push(score);
            let picks = sketch.unary(Unary::Number, picks);
            wins.push(sketch.shape(picks, &[-1, 1]));
        }
        let (scores, second) = (sketch.join(&scores), sketch.join(&wins));
        let first = sketch.rest_of_one(second);
        let (mut low, mut high) = (Vec::new(), Vec::new());
        let one = |at: usize| (0..classes).map(move |class| f64::from(u8::from(class == at)));
        for i in 0..classes {
            for j in i + 1..classes {
                low.extend(one(i));
                high.extend(one(j));
            }
        }
        let pairs = self.members.len();
        let signs: Vec<f64> = high.iter().zip(&low).map(|(high, low)| high - low).collect();
        let low = sketch.numbers(&[pairs, classes], low);
        let high = sketch.numbers(&[pairs, classes], high);
        let signs = sketch.numbers(&[pairs, classes], signs);
        let (for_low, for_high) = (sketch.product(first, low), sketch.product(second, high));
        let votes = sketch.add(for_low, for_high);
        let sums = sketch.product(scores, signs);
        let size = sketch.unary(Unary::Absolute, sums);
        let size = sketch.plus(size, 1.0);
        let size = sketch.scaled(size, 3.0);
        let squeezed = sketch.divide(sums, size);
        let votes = sketch.add(votes, squeezed);
        let (picks, decisions) = if classes == 2 {
            let second = sketch.column(votes, 1);
            (sketch.second_above(second, self.threshold), second)
        } else {
            (sketch.argmax(votes), votes)
        };
        Ok(Classes { picks, shares: None, decisions: Some((decisions, self.decisions_width())) })
    }
}

impl Classify for Apart {
    fn classes(&self) -> usize {
        self.classes
    }

    fn pick(&self, rows: Rows<'_>, picks: &mut [u32]) -> Evaluated {
        if self.scheme == Scheme::Pairs {
            let votes = self.pairs(rows)?;
            for (pick, votes) in picks.iter_mut().zip(votes.chunks_exact(self.classes)) {
                *pick = if self.classes == 2 { u32::from(votes[1] > self.threshold) } else { argmax(votes) };
            }
            return Ok(());
        }
        if let [member] = self.members.as_slice() {
            let scores = member.score(rows)?;
            let threshold = self.threshold;
            picks.iter_mut().zip(scores).for_each(|(pick, score)| *pick = u32::from(score > threshold));
            return Ok(());
        }
        let mut best = vec![f64::NEG_INFINITY; rows.count];
        for (class, member) in self.members.iter().enumerate() {
            for ((pick, best), score) in picks.iter_mut().zip(&mut best).zip(member.score(rows)?) {
                // Of equals, the library takes the last.
                if score >= *best {
                    (*pick, *best) = (class as u32, score);
                }
            }
        }
        Ok(())
    }

    fn has_probabilities(&self) -> bool {
        self.scheme == Scheme::Rest && self.members.iter().all(Member::has_shares)
    }

    fn probabilities(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        let classes = self.classes;
        if let [member] = self.members.as_slice() {
            for (pair, share) in out.chunks_exact_mut(2).zip(member.share(rows)?) {
                pair.copy_from_slice(&[1.0 - share, share]);
            }
            return Ok(());
        }
        for (class, member) in self.members.iter().enumerate() {
            let shares = member.share(rows)?;
            out.iter_mut().skip(class).step_by(classes).zip(shares).for_each(|(slot, share)| *slot = share);
        }
        for row in out.chunks_exact_mut(classes) {
            let sum: f64 = row.iter().sum();
            row.iter_mut().for_each(|slot| *slot /= sum);
        }
        Ok(())
    }

    fn decisions_width(&self) -> usize {
        match (self.has_decisions, self.classes) {
            (false, _) => 0,
            (true, 2) => 1,
            (true, classes) => classes,
        }
    }

    fn decisions(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        let classes = self.classes;
        if self.scheme == Scheme::Pairs {
            let votes = self.pairs(rows)?;
            match classes {
                2 => out.iter_mut().zip(votes.chunks_exact(2)).for_each(|(slot, pair)| *slot = pair[1]),
                _ => out.copy_from_slice(&votes),
            }
            return Ok(());
        }
        let step = self.members.len();
        for (class, member) in self.members.iter().enumerate() {
            let scores = member.score(rows)?;
            out.iter_mut().skip(class).step_by(step).zip(scores).for_each(|(slot, score)| *slot = score);
        }
        Ok(())
    }

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Classes> {
        match self.scheme {
            Scheme::Rest => self.draw_rest(sketch, rows),
            Scheme::Pairs => self.draw_pairs(sketch, rows),
        }
    }
}

fn read(attrs: &Attrs<'_>, depth: usize, scheme: Scheme) -> Result<Read> {
    if attrs.truth_or("multilabel_", false) {
        return Err(attrs.unsupported("several labels at once"));
    }
    let labels = match attrs.opt("label_binarizer_") {
        Some(binarizer) => {
            let binarizer = Attrs::new(binarizer)?;
            if binarizer
                .opt("y_type_")
                .and_then(|kind| kind.text())
                .is_some_and(|kind| kind.starts_with("multilabel"))
            {
                return Err(attrs.unsupported("several labels at once"));
            }
            Labels::read(&binarizer)?
        }
        None => Labels::read(attrs)?,
    };
    let classes = labels.len();
    let (mut members, mut parts, mut cost, mut features) = (Vec::new(), Vec::new(), 0, None);
    for view in attrs.estimators("estimators_")? {
        if view.class_name().ends_with("._ConstantPredictor") {
            let constant = Attrs::new(view)?;
            let says = constant.floats("y_")?.first().copied();
            members.push(Member::Constant(says.ok_or_else(|| constant.error("y_ is empty"))?));
            continue;
        }
        let mut estimator = read_at(view, depth + 1)?;
        if estimator.flow.is_some() && !estimator.flow().is_numbers() {
            return Err(attrs.unsupported("members that take texts; put the encoder before it"));
        }
        let class = estimator.class.clone();
        let model = match estimator.role {
            Role::Classifier(model, _) if model.classes() == 2 => model,
            _ => return Err(attrs.unsupported(&format!("{class} as a member"))),
        };
        if *features.get_or_insert(estimator.features) != estimator.features {
            return Err(attrs.error("members take different numbers of columns"));
        }
        if parts.is_empty() {
            parts.append(&mut estimator.parts);
        }
        cost += estimator.row_cost_ns;
        let by_decisions = model.decisions_width() == 1;
        if !by_decisions && !model.has_probabilities() {
            return Err(attrs.unsupported(&format!("{class} as a member")));
        }
        members.push(Member::Model(model, by_decisions));
    }
    let expected = match scheme {
        Scheme::Rest if classes == 2 => 1,
        Scheme::Rest => classes,
        Scheme::Pairs => classes * classes.saturating_sub(1) / 2,
    };
    if members.len() != expected || classes < 2 {
        return Err(attrs.error(format!("{} members for {classes} classes", members.len())));
    }
    let has_decisions =
        scheme == Scheme::Pairs || members.iter().all(|member| matches!(member, Member::Model(_, true)));
    let threshold = match members.first() {
        Some(Member::Model(_, true)) => 0.0,
        _ => 0.5,
    };
    let detail = format!("{classes} classes, {} members", members.len());
    let model = Apart { members, classes, scheme, threshold, has_decisions };
    let mut made = Read::new(Role::Classifier(Box::new(model), labels), detail, cost);
    made.inner = parts;
    made.features = Some(features.map_or_else(|| attrs.features(), Ok)?);
    Ok(made)
}

pub(super) fn one_vs_rest(attrs: &Attrs<'_>, depth: usize) -> Result<Read> {
    read(attrs, depth, Scheme::Rest)
}

pub(super) fn one_vs_one(attrs: &Attrs<'_>, depth: usize) -> Result<Read> {
    if attrs.opt("pairwise_indices_").is_some() {
        return Err(attrs.unsupported("pairs of rows (a precomputed kernel)"));
    }
    read(attrs, depth, Scheme::Pairs)
}
