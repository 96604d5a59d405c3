//! Ensembles of any estimators: bagging, AdaBoost, voting.
//!
//! Not here: ensembles of trees alone, which are compiled together (`forest`, `boost`, `isolation`); stacking.

use super::attrs::Attrs;
use super::labels::Labels;
use super::{Classify, Estimator, Evaluated, Part, Read, Regress, Role, Rows, argmax, read_at, softmax};
use crate::error::{LoadError, Result};
use crate::sketch::{Binary, Classes, Drawn, Frame, Op, Sketch, Unary, Wire, undrawn};

/// A classifier among others.
struct Member {
    model: Box<dyn Classify>,
    /// The ensemble's index of each of its classes.
    classes: Vec<u32>,
    /// The columns it sees; all if `None`.
    columns: Option<Vec<usize>>,
    weight: f64,
}

fn with_columns<T>(
    rows: Rows<'_>,
    columns: Option<&[usize]>,
    then: impl FnOnce(Rows<'_>) -> Evaluated<T>,
) -> Evaluated<T> {
    let Some(columns) = columns else { return then(rows) };
    let data: Vec<f64> = rows.iter().flat_map(|row| columns.iter().map(|column| row[*column])).collect();
    then(rows.with(&data, columns.len()))
}

impl Member {
    fn picks(&self, rows: Rows<'_>) -> Evaluated<Vec<u32>> {
        let mut picks = vec![0; rows.count];
        with_columns(rows, self.columns.as_deref(), |rows| self.model.pick(rows, &mut picks))?;
        picks.iter_mut().for_each(|pick| *pick = self.classes[*pick as usize]);
        Ok(picks)
    }

    /// Probabilities in the ensemble's order of classes.
    fn shares(&self, rows: Rows<'_>, classes: usize) -> Evaluated<Vec<f64>> {
        let own = self.model.classes();
        let mut shares = vec![0.0; rows.count * own];
        with_columns(rows, self.columns.as_deref(), |rows| self.model.probabilities(rows, &mut shares))?;
        let mut mapped = vec![0.0; rows.count * classes];
        for (from, to) in shares.chunks_exact(own).zip(mapped.chunks_exact_mut(classes)) {
            for (share, class) in from.iter().zip(&self.classes) {
                to[*class as usize] = *share;
            }
        }
        Ok(mapped)
    }

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Classes> {
        match &self.columns {
            None => self.model.draw(sketch, rows),
            Some(columns) => {
                let rows = rows.select(sketch, columns);
                self.model.draw(sketch, &rows)
            }
        }
    }

    /// Probabilities in the ensemble's order of classes.
    fn draw_shares(&self, sketch: &mut Sketch, drawn: &Classes, classes: usize) -> Drawn<Wire> {
        let Some(shares) = drawn.shares else { return undrawn("probabilities of a member") };
        if self.classes.iter().copied().eq(0..classes as u32) {
            return Ok(shares);
        }
        let mut cells = vec![0.0; self.classes.len() * classes];
        for (own, class) in self.classes.iter().enumerate() {
            cells[own * classes + *class as usize] = 1.0;
        }
        let places = sketch.numbers(&[self.classes.len(), classes], cells);
        Ok(sketch.product(shares, places))
    }

    /// A one for the class that wins, in the ensemble's order.
    fn draw_votes(&self, sketch: &mut Sketch, drawn: &Classes, classes: usize) -> Wire {
        let own = sketch.wholes(self.classes.iter().map(|class| *class as usize));
        let picks = sketch.pick(own, drawn.picks, 0);
        sketch.one_hot(picks, classes)
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Rule {
    /// The mean of probabilities (of votes, where a member has none).
    Mean,
    /// Weighted mean of probabilities.
    Soft,
    /// Weighted votes.
    Hard,
    /// AdaBoost's discrete form; the flag says whether other classes lose what one wins (since 1.4).
    Samme { symmetric: bool },
    /// AdaBoost's real form (until 1.5).
    SammeReal,
}

struct Committee {
    members: Vec<Member>,
    classes: usize,
    rule: Rule,
}

impl Committee {
    /// Scores of each class, whose greatest wins.
    fn scores(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        let k = self.classes;
        for member in &self.members {
            match self.rule {
                Rule::Mean if !member.model.has_probabilities() => self.votes(member, rows, 1.0, 0.0, out)?,
                Rule::Mean | Rule::Soft => {
                    let shares = member.shares(rows, k)?;
                    let weight = if self.rule == Rule::Soft { member.weight } else { 1.0 };
                    out.iter_mut().zip(shares).for_each(|(slot, share)| *slot += share * weight);
                }
                Rule::Hard => self.votes(member, rows, member.weight, 0.0, out)?,
                Rule::Samme { symmetric } => {
                    let lost = if symmetric { -1.0 / (k as f64 - 1.0) * member.weight } else { 0.0 };
                    self.votes(member, rows, member.weight, lost, out)?;
                }
                Rule::SammeReal => {
                    let mut shares = member.shares(rows, k)?;
                    for (logs, slots) in shares.chunks_exact_mut(k).zip(out.chunks_exact_mut(k)) {
                        logs.iter_mut().for_each(|share| *share = share.max(f64::EPSILON).ln());
                        let mean = logs.iter().sum::<f64>() * (1.0 / k as f64);
                        slots
                            .iter_mut()
                            .zip(logs)
                            .for_each(|(slot, log)| *slot += (k as f64 - 1.0) * (*log - mean));
                    }
                }
            }
        }
        let divisor = match self.rule {
            Rule::Hard => return Ok(()),
            Rule::Mean => self.members.len() as f64,
            Rule::Soft | Rule::Samme { .. } | Rule::SammeReal => {
                self.members.iter().map(|member| member.weight).sum()
            }
        };
        out.iter_mut().for_each(|slot| *slot /= divisor);
        Ok(())
    }

    fn votes(&self, member: &Member, rows: Rows<'_>, won: f64, lost: f64, out: &mut [f64]) -> Evaluated {
        let picks = member.picks(rows)?;
        for (pick, slots) in picks.into_iter().zip(out.chunks_exact_mut(self.classes)) {
            for (class, slot) in slots.iter_mut().enumerate() {
                *slot += if class == pick as usize { won } else { lost };
            }
        }
        Ok(())
    }

    fn is_boosted(&self) -> bool {
        matches!(self.rule, Rule::Samme { .. } | Rule::SammeReal)
    }

    /// What one member adds to the scores.
    fn draw_member(&self, sketch: &mut Sketch, member: &Member, drawn: &Classes) -> Drawn<Wire> {
        let k = self.classes;
        Ok(match self.rule {
            Rule::Mean if !member.model.has_probabilities() => member.draw_votes(sketch, drawn, k),
            Rule::Mean => member.draw_shares(sketch, drawn, k)?,
            Rule::Soft => {
                let shares = member.draw_shares(sketch, drawn, k)?;
                sketch.scaled(shares, member.weight)
            }
            Rule::Hard | Rule::Samme { .. } => {
                let votes = member.draw_votes(sketch, drawn, k);
                let lost = match self.rule {
                    Rule::Samme { symmetric: true } => -1.0 / (k as f64 - 1.0) * member.weight,
                    _ => 0.0,
                };
                let (won, lost) = (sketch.number(member.weight), sketch.number(lost));
                let is_won = sketch.test(Binary::Greater, votes, 0.5);
                sketch.choose(is_won, won, lost)
            }
            Rule::SammeReal => {
                let shares = member.draw_shares(sketch, drawn, k)?;
                let shares = sketch.at_least(shares, f64::EPSILON);
                let logs = sketch.unary(Unary::Log, shares);
                let sum = sketch.sum(logs, 1);
                let mean = sketch.scaled(sum, 1.0 / k as f64);
                let off = sketch.subtract(logs, mean);
                sketch.scaled(off, k as f64 - 1.0)
            }
        })
    }

    /// The scores, and the mean of the members' decisions where bagging has such.
    fn draw_scores(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<(Wire, Option<Wire>)> {
        let mut sum: Option<Wire> = None;
        let mut decisions: Option<Wire> = None;
        for member in &self.members {
            sketch.check()?;
            let drawn = member.draw(sketch, rows)?;
            let own = self.draw_member(sketch, member, &drawn)?;
            sum = Some(sum.map_or(own, |sum| sketch.add(sum, own)));
            if let Some((own, _)) = drawn.decisions {
                decisions = Some(decisions.map_or(own, |sum| sketch.add(sum, own)));
            }
        }
        let Some(sum) = sum else { return undrawn("an ensemble without members") };
        let divisor = match self.rule {
            Rule::Hard => return Ok((sum, None)),
            Rule::Mean => self.members.len() as f64,
            _ => self.members.iter().map(|member| member.weight).sum(),
        };
        let by = sketch.number(divisor);
        let decisions = decisions.map(|decisions| sketch.divide(decisions, by));
        Ok((sketch.divide(sum, by), decisions))
    }
}

impl Classify for Committee {
    fn classes(&self) -> usize {
        self.classes
    }

    fn pick(&self, rows: Rows<'_>, picks: &mut [u32]) -> Evaluated {
        let mut scores = vec![0.0; rows.count * self.classes];
        self.scores(rows, &mut scores)?;
        for (pick, scores) in picks.iter_mut().zip(scores.chunks_exact(self.classes)) {
            *pick = argmax(scores);
        }
        Ok(())
    }

    fn has_probabilities(&self) -> bool {
        self.rule != Rule::Hard
    }

    fn probabilities(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        self.scores(rows, out)?;
        if self.is_boosted() {
            for scores in out.chunks_exact_mut(self.classes) {
                if let [first, second] = scores {
                    let decision = *second - *first;
                    (*first, *second) = (-decision / 2.0, decision / 2.0);
                } else {
                    let by = self.classes as f64 - 1.0;
                    scores.iter_mut().for_each(|score| *score /= by);
                }
                softmax(scores);
            }
        }
        Ok(())
    }

    fn decisions_width(&self) -> usize {
        match (self.rule, self.classes) {
            // Bagging has the mean of its members' decisions, where they have any.
            (Rule::Mean, _) => {
                self.members.iter().map(|member| member.model.decisions_width()).min().unwrap_or(0)
            }
            (Rule::Soft | Rule::Hard, _) => 0,
            (Rule::Samme { .. } | Rule::SammeReal, 2) => 1,
            (Rule::Samme { .. } | Rule::SammeReal, classes) => classes,
        }
    }

    fn decisions(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        if self.rule == Rule::Mean {
            let mut own = vec![0.0; out.len()];
            for member in &self.members {
                own.fill(0.0);
                with_columns(rows, member.columns.as_deref(), |rows| member.model.decisions(rows, &mut own))?;
                out.iter_mut().zip(&own).for_each(|(slot, one)| *slot += one);
            }
            out.iter_mut().for_each(|slot| *slot /= self.members.len() as f64);
            return Ok(());
        }
        if self.classes != 2 {
            return self.scores(rows, out);
        }
        let mut scores = vec![0.0; rows.count * 2];
        self.scores(rows, &mut scores)?;
        for (slot, pair) in out.iter_mut().zip(scores.chunks_exact(2)) {
            *slot = pair[1] - pair[0];
        }
        Ok(())
    }

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Classes> {
        let (scores, of_members) = self.draw_scores(sketch, rows)?;
        let picks = sketch.argmax(scores);
        let width = self.decisions_width();
        if !self.is_boosted() {
            let shares = (self.rule != Rule::Hard).then_some(scores);
            let decisions = of_members.filter(|_| width > 0).map(|decisions| (decisions, width));
            return Ok(Classes { picks, shares, decisions });
        }
        let (inner, decisions) = if self.classes == 2 {
            let (first, second) = (sketch.column(scores, 0), sketch.column(scores, 1));
            let decision = sketch.subtract(second, first);
            let half = sketch.scaled(decision, 0.5);
            let negative = sketch.unary(Unary::Negative, half);
            (sketch.join(&[negative, half]), decision)
        } else {
            let by = sketch.number(self.classes as f64 - 1.0);
            (sketch.divide(scores, by), scores)
        };
        Ok(Classes { picks, shares: Some(sketch.softmax(inner)), decisions: Some((decisions, width)) })
    }
}

/// A regressor among others, the columns it sees (all if `None`), and its weight.
type Numeric = (Box<dyn Regress>, Option<Vec<usize>>, f64);

/// Regressors whose answers are averaged, or of which the weighted median is taken.
struct Average {
    members: Vec<Numeric>,
    targets: usize,
    is_median: bool,
}

impl Regress for Average {
    fn targets(&self) -> usize {
        self.targets
    }

    fn predict(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        let mut all = Vec::new();
        for (model, columns, _) in &self.members {
            let mut own = vec![0.0; out.len()];
            with_columns(rows, columns.as_deref(), |rows| model.predict(rows, &mut own))?;
            all.push(own);
        }
        let weights: Vec<f64> = self.members.iter().map(|(.., weight)| *weight).collect();
        let total: f64 = weights.iter().sum();
        for (index, slot) in out.iter_mut().enumerate() {
            if self.is_median {
                *slot = median(&all, index, &weights);
            } else {
                *slot =
                    all.iter().zip(&weights).map(|(own, weight)| own[index] * weight).sum::<f64>() / total;
            }
        }
        Ok(())
    }

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Wire> {
        let mut all = Vec::new();
        for (model, columns, _) in &self.members {
            sketch.check()?;
            let own = match columns {
                None => model.draw(sketch, rows)?,
                Some(columns) => {
                    let rows = rows.select(sketch, columns);
                    model.draw(sketch, &rows)?
                }
            };
            all.push(own);
        }
        let weights: Vec<f64> = self.members.iter().map(|(.., weight)| *weight).collect();
        if self.is_median {
            return draw_median(sketch, &all, &weights, self.targets);
        }
        let mut sum: Option<Wire> = None;
        for (own, weight) in all.into_iter().zip(&weights) {
            let own = if *weight == 1.0 { own } else { sketch.scaled(own, *weight) };
            sum = Some(sum.map_or(own, |sum| sketch.add(sum, own)));
        }
        let Some(sum) = sum else { return undrawn("an ensemble without members") };
        let total = sketch.number(weights.iter().sum());
        Ok(sketch.divide(sum, total))
    }
}

/// The weighted median, drawn: answers in order of size, running sums of their weights, the first that has half.
fn draw_median(sketch: &mut Sketch, all: &[Wire], weights: &[f64], targets: usize) -> Drawn<Wire> {
    if targets != 1 {
        return undrawn("a median of several targets");
    }
    let count = all.len();
    let side_by_side = sketch.join(all);
    let sorted = sketch.step(Op::Smallest(count), &[side_by_side]);
    let places = sketch.step(Op::SmallestPlaces(count), &[side_by_side]);
    let table = sketch.row(weights);
    let own = sketch.pick(table, places, 0);
    let below = (0..count).flat_map(|i| (0..count).map(move |j| f64::from(u8::from(i <= j))));
    let below: Vec<f64> = below.collect();
    let below = sketch.numbers(&[count, count], below);
    let running = sketch.product(own, below);
    let half = 0.5 * weights.iter().sum::<f64>();
    let reached = sketch.flags(Binary::AtLeast, running, half);
    let first = sketch.argmax(reached);
    let hot = sketch.one_hot(first, count);
    let said = sketch.multiply(sorted, hot);
    Ok(sketch.sum(said, 1))
}

/// The first answer, in order of size, at which half of the weight is reached.
fn median(all: &[Vec<f64>], index: usize, weights: &[f64]) -> f64 {
    let mut order: Vec<(f64, f64)> =
        all.iter().zip(weights).map(|(own, weight)| (own[index], *weight)).collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0));
    let total: f64 = order.iter().map(|(_, weight)| weight).sum();
    let mut sum = 0.0;
    for (answer, weight) in &order {
        sum += weight;
        if sum >= 0.5 * total {
            return *answer;
        }
    }
    order.last().map_or(0.0, |(answer, _)| *answer)
}

/// What all ensembles read: members, their columns, the report's lines.
struct Members {
    estimators: Vec<Estimator>,
    columns: Vec<Option<Vec<usize>>>,
    parts: Vec<Part>,
    cost: u64,
    features: usize,
}

fn members(attrs: &Attrs<'_>, depth: usize) -> Result<Members> {
    let mut made =
        Members { estimators: Vec::new(), columns: Vec::new(), parts: Vec::new(), cost: 0, features: 0 };
    // Voting keeps no width of its own: it is its members'.
    let mut features = attrs.features().ok();
    let subsets = attrs.opt("estimators_features_").and_then(|subsets| subsets.items()).unwrap_or_default();
    for (index, view) in attrs.estimators("estimators_")?.into_iter().enumerate() {
        let mut estimator = read_at(view, depth + 1)?;
        let features = *features.get_or_insert(estimator.features);
        made.features = features;
        let columns = match subsets.get(index).map(|subset| subset.floats()) {
            None => None,
            Some(Some(columns)) if columns.iter().all(|column| (*column as usize) < features) => {
                Some(columns.into_iter().map(|column| column as usize).collect::<Vec<_>>())
            }
            Some(_) => return Err(attrs.error("estimators_features_ names columns that do not exist")),
        };
        let columns = columns.filter(|columns| !columns.iter().copied().eq(0..features));
        let width = columns.as_ref().map_or(features, Vec::len);
        if estimator.features != width {
            return Err(
                attrs.error(format!("a member takes {} columns and gets {width}", estimator.features))
            );
        }
        made.cost += estimator.row_cost_ns;
        // Members are alike; the first stands for all in the report.
        if index == 0 {
            made.parts.append(&mut estimator.parts);
        }
        made.estimators.push(estimator);
        made.columns.push(columns);
    }
    if made.estimators.is_empty() {
        return Err(attrs.error("it has no members"));
    }
    Ok(made)
}

/// The ensemble's index of each of a member's classes. Bagging and voting give their members indices to learn.
fn classes_of(attrs: &Attrs<'_>, own: &Labels, all: &Labels, are_indices: bool) -> Result<Vec<u32>> {
    let wrong = || attrs.error("a member has classes that the ensemble does not have");
    if are_indices {
        let Labels::Ints(ints) = own else { return Err(wrong()) };
        let index = |int: &i64| u32::try_from(*int).ok().filter(|index| (*index as usize) < all.len());
        return ints.iter().map(index).collect::<Option<Vec<u32>>>().ok_or_else(wrong);
    }
    let texts = all.to_texts();
    let place = |text: String| texts.iter().position(|one| *one == text).map(|place| place as u32);
    own.to_texts().into_iter().map(place).collect::<Option<Vec<u32>>>().ok_or_else(wrong)
}

fn committee(
    attrs: &Attrs<'_>,
    depth: usize,
    rule: Rule,
    weights: Option<Vec<f64>>,
    are_indices: bool,
) -> Result<Read> {
    let labels = Labels::read(attrs)?;
    let read = members(attrs, depth)?;
    let weights = weights.unwrap_or_else(|| vec![1.0; read.estimators.len()]);
    if weights.len() < read.estimators.len() || labels.is_empty() {
        return Err(attrs.unsupported("members that were dropped"));
    }
    let mut members = Vec::new();
    for ((estimator, columns), weight) in read.estimators.into_iter().zip(read.columns).zip(weights) {
        let Role::Classifier(model, own) = estimator.role else {
            return Err(attrs.error(format!("{} among classifiers", estimator.class)));
        };
        let needs_probabilities = matches!(rule, Rule::Soft | Rule::SammeReal);
        if needs_probabilities && !model.has_probabilities() {
            return Err(attrs.error(format!("{} has no probabilities", estimator.class)));
        }
        let classes = classes_of(attrs, &own, &labels, are_indices)?;
        members.push(Member { model, classes, columns, weight });
    }
    let detail = format!("{} members", members.len());
    let model = Committee { members, classes: labels.len(), rule };
    let mut made = Read::new(Role::Classifier(Box::new(model), labels), detail, read.cost);
    made.inner = read.parts;
    made.features = Some(read.features);
    Ok(made)
}

fn average(attrs: &Attrs<'_>, depth: usize, weights: Option<Vec<f64>>, is_median: bool) -> Result<Read> {
    let read = members(attrs, depth)?;
    let weights = weights.unwrap_or_else(|| vec![1.0; read.estimators.len()]);
    if weights.len() < read.estimators.len() {
        return Err(attrs.unsupported("members that were dropped"));
    }
    let mut members = Vec::new();
    let mut targets = 1;
    for ((estimator, columns), weight) in read.estimators.into_iter().zip(read.columns).zip(weights) {
        let Role::Regressor(model) = estimator.role else {
            return Err(attrs.error(format!("{} among regressors", estimator.class)));
        };
        if !members.is_empty() && model.targets() != targets {
            return Err(LoadError::attribute(attrs.class.clone(), "its members have different targets"));
        }
        targets = model.targets();
        members.push((model, columns, weight));
    }
    let detail = format!("{} members", members.len());
    let mut made =
        Read::new(Role::Regressor(Box::new(Average { members, targets, is_median })), detail, read.cost);
    made.inner = read.parts;
    made.features = Some(read.features);
    Ok(made)
}

pub(super) fn bagging_classifier(attrs: &Attrs<'_>, depth: usize) -> Result<Read> {
    committee(attrs, depth, Rule::Mean, None, true)
}

pub(super) fn bagging_regressor(attrs: &Attrs<'_>, depth: usize) -> Result<Read> {
    average(attrs, depth, None, false)
}

pub(super) fn ada_classifier(attrs: &Attrs<'_>, depth: usize) -> Result<Read> {
    let rule = match attrs.opt("algorithm").and_then(|value| value.text()) {
        Some("SAMME.R") => Rule::SammeReal,
        _ => Rule::Samme { symmetric: attrs.is_at_least(1, 4) },
    };
    committee(attrs, depth, rule, Some(attrs.floats("estimator_weights_")?), false)
}

pub(super) fn ada_regressor(attrs: &Attrs<'_>, depth: usize) -> Result<Read> {
    average(attrs, depth, Some(attrs.floats("estimator_weights_")?), true)
}

fn voting_weights(attrs: &Attrs<'_>) -> Result<Option<Vec<f64>>> {
    match attrs.opt("weights") {
        Some(_) if attrs.estimators("estimators")?.len() != attrs.estimators("estimators_")?.len() => {
            Err(attrs.unsupported("weights and members that were dropped"))
        }
        Some(_) => attrs.floats("weights").map(Some),
        None => Ok(None),
    }
}

pub(super) fn voting_classifier(attrs: &Attrs<'_>, depth: usize) -> Result<Read> {
    let rule = match attrs.text("voting")? {
        "soft" => Rule::Soft,
        "hard" => Rule::Hard,
        other => return Err(attrs.unsupported(&format!("voting={other:?}"))),
    };
    committee(attrs, depth, rule, voting_weights(attrs)?, true)
}

pub(super) fn voting_regressor(attrs: &Attrs<'_>, depth: usize) -> Result<Read> {
    average(attrs, depth, voting_weights(attrs)?, false)
}
