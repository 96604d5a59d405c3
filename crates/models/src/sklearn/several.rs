//! Several questions about a row at once: `MultiOutput…`, chains, forests of several outputs.
//!
//! Not here: one question with many classes (everything else), one model for each class (`rest`).

use super::attrs::Attrs;
use super::labels::Labels;
use super::tree::{RawTree, Trees};
use super::{Classify, Estimator, Evaluated, Part, Read, Regress, Role, Rows, Several, argmax, read_at};
use crate::error::Result;
use crate::sketch::{Classes, Drawn, Frame, Sketch, Wire, undrawn};

/// Adds a number to each row.
fn widen(rows: Rows<'_>, more: &[f64], width: usize) -> Vec<f64> {
    let mut all = Vec::with_capacity(rows.count * (rows.width + width));
    for (index, row) in rows.iter().enumerate() {
        all.extend_from_slice(row);
        all.extend_from_slice(&more[index * width..(index + 1) * width]);
    }
    all
}

/// A model for each answer.
struct Apart(Vec<Box<dyn Classify>>);

impl Several for Apart {
    fn pick(&self, rows: Rows<'_>, picks: &mut [u32]) -> Evaluated {
        let mut own = vec![0; rows.count];
        for (answer, model) in self.0.iter().enumerate() {
            model.pick(rows, &mut own)?;
            let slots = picks.iter_mut().skip(answer).step_by(self.0.len());
            slots.zip(&own).for_each(|(slot, pick)| *slot = *pick);
        }
        Ok(())
    }

    fn tables(&self) -> Vec<usize> {
        match self.0.iter().all(|model| model.has_probabilities()) {
            true => self.0.iter().map(|model| model.classes()).collect(),
            false => Vec::new(),
        }
    }

    fn probabilities(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        let all: usize = self.0.iter().map(|model| model.classes()).sum();
        let mut start = 0;
        for model in &self.0 {
            let width = model.classes();
            let mut own = vec![0.0; rows.count * width];
            model.probabilities(rows, &mut own)?;
            for (row, shares) in own.chunks_exact(width.max(1)).enumerate() {
                out[row * all + start..][..width].copy_from_slice(shares);
            }
            start += width;
        }
        Ok(())
    }

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Vec<Classes>> {
        self.0.iter().map(|model| model.draw(sketch, rows)).collect()
    }
}

/// A regression for each target.
struct ApartNumbers(Vec<Box<dyn Regress>>);

impl Regress for ApartNumbers {
    fn targets(&self) -> usize {
        self.0.len()
    }

    fn predict(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        let mut own = vec![0.0; rows.count];
        for (target, model) in self.0.iter().enumerate() {
            own.fill(0.0);
            model.predict(rows, &mut own)?;
            out.iter_mut().skip(target).step_by(self.0.len()).zip(&own).for_each(|(slot, one)| *slot = *one);
        }
        Ok(())
    }

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Wire> {
        let columns = self.0.iter().map(|model| model.draw(sketch, rows)).collect::<Drawn<Vec<Wire>>>()?;
        Ok(sketch.join(&columns))
    }
}

/// Members that all take the same columns; chains give each member the answers before it.
struct Members {
    all: Vec<Estimator>,
    parts: Vec<Part>,
    cost: u64,
    features: usize,
}

fn members(attrs: &Attrs<'_>, depth: usize, grows: bool) -> Result<Members> {
    let mut made = Members { all: Vec::new(), parts: Vec::new(), cost: 0, features: 0 };
    for (index, view) in attrs.estimators("estimators_")?.into_iter().enumerate() {
        let mut estimator = read_at(view, depth + 1)?;
        if estimator.flow.is_some() && !estimator.flow().is_numbers() {
            return Err(attrs.unsupported("members that take texts; put the encoder before it"));
        }
        if index == 0 {
            made.features = estimator.features;
            made.parts.append(&mut estimator.parts);
        }
        let expected = made.features + if grows { index } else { 0 };
        if estimator.features != expected {
            return Err(
                attrs.error(format!("a member takes {} columns and gets {expected}", estimator.features))
            );
        }
        made.cost += estimator.row_cost_ns;
        made.all.push(estimator);
    }
    if made.all.is_empty() {
        return Err(attrs.error("it has no members"));
    }
    Ok(made)
}

fn finish(role: Role, count: usize, read: (Vec<Part>, u64, usize)) -> Read {
    let mut made = Read::new(role, format!("{count} answers"), read.1);
    made.inner = read.0;
    made.features = Some(read.2);
    made
}

/// Models and the labels of each.
type Labelled = (Vec<Box<dyn Classify>>, Vec<Labels>);

fn classifiers(attrs: &Attrs<'_>, all: Vec<Estimator>) -> Result<Labelled> {
    let mut models = Vec::new();
    let mut labels = Vec::new();
    for estimator in all {
        let Role::Classifier(model, own) = estimator.role else {
            return Err(attrs.unsupported(&format!("{} as a member", estimator.class)));
        };
        models.push(model);
        labels.push(own);
    }
    Ok((models, labels))
}

fn regressors(attrs: &Attrs<'_>, all: Vec<Estimator>) -> Result<Vec<Box<dyn Regress>>> {
    let one = |estimator: Estimator| match estimator.role {
        Role::Regressor(model) if model.targets() == 1 => Ok(model),
        _ => Err(attrs.unsupported(&format!("{} as a member", estimator.class))),
    };
    all.into_iter().map(one).collect()
}

pub(super) fn multi_classifier(attrs: &Attrs<'_>, depth: usize) -> Result<Read> {
    let read = members(attrs, depth, false)?;
    let (models, labels) = classifiers(attrs, read.all)?;
    let count = models.len();
    let role = Role::Several(Box::new(Apart(models)), labels);
    Ok(finish(role, count, (read.parts, read.cost, read.features)))
}

pub(super) fn multi_regressor(attrs: &Attrs<'_>, depth: usize) -> Result<Read> {
    let read = members(attrs, depth, false)?;
    let models = regressors(attrs, read.all)?;
    let count = models.len();
    Ok(finish(Role::Regressor(Box::new(ApartNumbers(models))), count, (read.parts, read.cost, read.features)))
}

/// What a chain hands on from a member to those after it.
#[derive(Clone, Copy, PartialEq)]
enum HandsOn {
    Label,
    Share,
    Decision,
}

struct Link {
    model: Box<dyn Classify>,
    labels: Vec<f64>,
}

struct Chain {
    links: Vec<Link>,
    /// The answer that each link gives.
    order: Vec<usize>,
    hands_on: HandsOn,
}

impl Chain {
    /// Walks the chain; `visit` gets each link and the rows it sees.
    fn walk(&self, rows: Rows<'_>, mut visit: impl FnMut(usize, Rows<'_>, &[u32]) -> Evaluated) -> Evaluated {
        let count = self.links.len();
        let mut before = vec![0.0; rows.count * count];
        let mut picks = vec![0; rows.count];
        for (index, link) in self.links.iter().enumerate() {
            let own: Vec<f64> =
                (0..rows.count).flat_map(|row| &before[row * count..][..index]).copied().collect();
            let wide = widen(rows, &own, index);
            let seen = Rows::new(&wide, rows.width + index, rows.count);
            link.model.pick(seen, &mut picks)?;
            let handed = self.handed(link, seen, &picks)?;
            for (row, value) in handed.into_iter().enumerate() {
                before[row * count + index] = value;
            }
            visit(index, seen, &picks)?;
        }
        Ok(())
    }

    fn handed(&self, link: &Link, rows: Rows<'_>, picks: &[u32]) -> Evaluated<Vec<f64>> {
        match self.hands_on {
            HandsOn::Label => Ok(picks.iter().map(|pick| link.labels[*pick as usize]).collect()),
            HandsOn::Share => {
                let mut shares = vec![0.0; rows.count * 2];
                link.model.probabilities(rows, &mut shares)?;
                Ok(shares.chunks_exact(2).map(|pair| pair[1]).collect())
            }
            HandsOn::Decision => {
                let mut decisions = vec![0.0; rows.count];
                link.model.decisions(rows, &mut decisions)?;
                Ok(decisions)
            }
        }
    }

    fn is_binary(&self) -> bool {
        self.links.iter().all(|link| link.model.classes() == 2)
    }
}

impl Several for Chain {
    fn pick(&self, rows: Rows<'_>, picks: &mut [u32]) -> Evaluated {
        let count = self.links.len();
        self.walk(rows, |link, _, own| {
            for (row, pick) in own.iter().enumerate() {
                picks[row * count + self.order[link]] = *pick;
            }
            Ok(())
        })
    }

    fn tables(&self) -> Vec<usize> {
        let has = self.is_binary() && self.links.iter().all(|link| link.model.has_probabilities());
        if has { vec![self.links.len()] } else { Vec::new() }
    }

    fn probabilities(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        let count = self.links.len();
        self.walk(rows, |index, rows, _| {
            let mut shares = vec![0.0; rows.count * 2];
            self.links[index].model.probabilities(rows, &mut shares)?;
            for (row, pair) in shares.chunks_exact(2).enumerate() {
                out[row * count + self.order[index]] = pair[1];
            }
            Ok(())
        })
    }

    fn decisions_width(&self) -> usize {
        let has = self.is_binary() && self.links.iter().all(|link| link.model.decisions_width() == 1);
        if has { self.links.len() } else { 0 }
    }

    fn decisions(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        let count = self.links.len();
        self.walk(rows, |index, rows, _| {
            let mut own = vec![0.0; rows.count];
            self.links[index].model.decisions(rows, &mut own)?;
            for (row, decision) in own.into_iter().enumerate() {
                out[row * count + self.order[index]] = decision;
            }
            Ok(())
        })
    }

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Vec<Classes>> {
        let mut columns = vec![rows.table(sketch)?];
        let mut all: Vec<Option<Classes>> = self.links.iter().map(|_| None).collect();
        for (index, link) in self.links.iter().enumerate() {
            let seen = Frame::Numbers(sketch.join(&columns), rows.width() + index);
            let drawn = link.model.draw(sketch, &seen)?;
            let handed = match self.hands_on {
                HandsOn::Label => {
                    let labels = sketch.row(&link.labels);
                    Some(sketch.pick(labels, drawn.picks, 0))
                }
                HandsOn::Share => drawn.shares.map(|shares| sketch.column(shares, 1)),
                HandsOn::Decision => drawn.decisions.map(|(decisions, _)| decisions),
            };
            let Some(handed) = handed else { return undrawn("sklearn.multioutput.ClassifierChain") };
            columns.push(sketch.shape(handed, &[-1, 1]));
            all[self.order[index]] = Some(drawn);
        }
        let all: Option<Vec<Classes>> = all.into_iter().collect();
        all.map_or_else(|| undrawn("sklearn.multioutput.ClassifierChain"), Ok)
    }
}

struct NumberChain {
    links: Vec<Box<dyn Regress>>,
    order: Vec<usize>,
}

impl Regress for NumberChain {
    fn targets(&self) -> usize {
        self.links.len()
    }

    fn predict(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        let count = self.links.len();
        let mut before = vec![0.0; rows.count * count];
        for (index, link) in self.links.iter().enumerate() {
            let own: Vec<f64> =
                (0..rows.count).flat_map(|row| &before[row * count..][..index]).copied().collect();
            let wide = widen(rows, &own, index);
            let mut answers = vec![0.0; rows.count];
            link.predict(Rows::new(&wide, rows.width + index, rows.count), &mut answers)?;
            for (row, answer) in answers.into_iter().enumerate() {
                before[row * count + index] = answer;
                out[row * count + self.order[index]] = answer;
            }
        }
        Ok(())
    }

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Wire> {
        let mut columns = vec![rows.table(sketch)?];
        for (index, link) in self.links.iter().enumerate() {
            let seen = Frame::Numbers(sketch.join(&columns), rows.width() + index);
            columns.push(link.draw(sketch, &seen)?);
        }
        let answers = sketch.join(&columns[1..]);
        let mut places = vec![0; self.order.len()];
        self.order.iter().enumerate().for_each(|(link, answer)| places[*answer] = link);
        Ok(sketch.columns(answers, &places))
    }
}

/// `order_`: which answer each link gives.
fn order(attrs: &Attrs<'_>, count: usize) -> Result<Vec<usize>> {
    let places: Vec<usize> = attrs.floats("order_")?.into_iter().map(|place| place as usize).collect();
    let mut sorted = places.clone();
    sorted.sort_unstable();
    if !sorted.into_iter().eq(0..count) {
        return Err(attrs.error("order_ is no order of its members"));
    }
    Ok(places)
}

pub(super) fn chain_classifier(attrs: &Attrs<'_>, depth: usize) -> Result<Read> {
    let read = members(attrs, depth, true)?;
    let order = order(attrs, read.all.len())?;
    let (models, labels) = classifiers(attrs, read.all)?;
    let numbers = |labels: &Labels| match labels {
        Labels::Ints(all) => Ok(all.iter().map(|label| *label as f64).collect()),
        Labels::Floats(all) => Ok(all.clone()),
        Labels::Bools(all) => Ok(all.iter().map(|label| f64::from(u8::from(*label))).collect()),
        Labels::Texts(_) => Err(attrs.unsupported("labels that are texts")),
    };
    let numbers: Vec<Vec<f64>> = labels.iter().map(numbers).collect::<Result<_>>()?;
    let mut answers = vec![Labels::Floats(Vec::new()); order.len()];
    for (place, labels) in order.iter().zip(&numbers) {
        answers[*place] = Labels::Floats(labels.clone());
    }
    let hands_on = match attrs.opt("chain_method_").and_then(|method| method.text()) {
        None | Some("predict") => HandsOn::Label,
        Some("predict_proba") => HandsOn::Share,
        Some("decision_function") => HandsOn::Decision,
        Some(other) => return Err(attrs.unsupported(&format!("chain_method {other:?}"))),
    };
    let links: Vec<Link> =
        models.into_iter().zip(numbers).map(|(model, labels)| Link { model, labels }).collect();
    let chain = Chain { links, order, hands_on };
    let can = match hands_on {
        HandsOn::Label => true,
        HandsOn::Share => !chain.tables().is_empty(),
        HandsOn::Decision => chain.decisions_width() > 0,
    };
    if !can {
        return Err(attrs.unsupported("members without the chain's method"));
    }
    let count = chain.links.len();
    Ok(finish(Role::Several(Box::new(chain), answers), count, (read.parts, read.cost, read.features)))
}

pub(super) fn chain_regressor(attrs: &Attrs<'_>, depth: usize) -> Result<Read> {
    let read = members(attrs, depth, true)?;
    let order = order(attrs, read.all.len())?;
    let links = regressors(attrs, read.all)?;
    let count = links.len();
    let role = Role::Regressor(Box::new(NumberChain { links, order }));
    Ok(finish(role, count, (read.parts, read.cost, read.features)))
}

/// Trees whose leaves have shares of each answer's classes, averaged.
struct Forest {
    trees: Trees,
    classes: Vec<usize>,
    width: usize,
    count: f64,
}

impl Forest {
    fn sum(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        let width = self.width;
        self.trees.walk(rows, |row, _, says| {
            out[row * width..(row + 1) * width].iter_mut().zip(says).for_each(|(slot, value)| *slot += value);
        })?;
        if self.count > 1.0 {
            out.iter_mut().for_each(|slot| *slot /= self.count);
        }
        Ok(())
    }
}

impl Several for Forest {
    fn pick(&self, rows: Rows<'_>, picks: &mut [u32]) -> Evaluated {
        let mut shares = vec![0.0; rows.count * self.width];
        self.sum(rows, &mut shares)?;
        let mut picks = picks.iter_mut();
        for row in shares.chunks_exact(self.width) {
            let mut rest = row;
            for (classes, pick) in self.classes.iter().zip(&mut picks) {
                let (own, after) = rest.split_at(*classes);
                *pick = argmax(own);
                rest = after;
            }
        }
        Ok(())
    }

    fn tables(&self) -> Vec<usize> {
        self.classes.clone()
    }

    fn probabilities(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        self.sum(rows, out)
    }

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Vec<Classes>> {
        let mut sums = self.trees.draw_sums(sketch, rows)?;
        if self.count > 1.0 {
            let count = sketch.number(self.count);
            sums = sketch.divide(sums, count);
        }
        let mut first = 0;
        let mut all = Vec::new();
        for classes in &self.classes {
            let columns: Vec<usize> = (first..first + classes).collect();
            let shares = sketch.columns(sums, &columns);
            all.push(Classes { picks: sketch.argmax(shares), shares: Some(shares), decisions: None });
            first += classes;
        }
        Ok(all)
    }
}

/// Leaves are padded to the answer with most classes; the padding goes, and counts become shares of one.
fn shares(raw: &RawTree, classes: &[usize]) -> Vec<f64> {
    let mut all = Vec::new();
    for node in raw.values.chunks_exact(raw.outputs * raw.classes) {
        for (own, count) in node.chunks_exact(raw.classes).zip(classes) {
            let sum: f64 = own[..*count].iter().sum();
            // Shares of newer versions add up to one but for rounding, and stay as they are.
            let divisor = if sum == 0.0 || (sum - 1.0).abs() < 1e-9 { 1.0 } else { sum };
            all.extend(own[..*count].iter().map(|value| value / divisor));
        }
    }
    all
}

/// A tree or forest of several answers.
pub(super) fn forest(attrs: &Attrs<'_>, trees: &[Attrs<'_>], labels: Vec<Labels>) -> Result<Read> {
    let classes: Vec<usize> = labels.iter().map(Labels::len).collect();
    let width: usize = classes.iter().sum();
    if classes.contains(&0) {
        return Err(attrs.error("an answer without classes"));
    }
    let mut all = Trees::new(attrs.features()?, width);
    for (index, tree) in trees.iter().enumerate() {
        let mut raw = RawTree::read(tree)?;
        if raw.outputs != classes.len() || classes.iter().any(|count| *count > raw.classes) {
            return Err(attrs.error(format!("tree {index} has other answers")));
        }
        raw.values = shares(&raw, &classes);
        (raw.outputs, raw.classes) = (1, width);
        all.add(&raw, 1.0).map_err(|what| attrs.error(format!("tree {index}: {what}")))?;
    }
    let detail = format!("{} trees, {} nodes, {} answers", all.count(), all.nodes(), classes.len());
    let cost = all.row_cost_ns();
    let model = Forest { count: trees.len() as f64, trees: all.finish(), classes, width };
    Ok(Read::new(Role::Several(Box::new(model), labels), detail, cost))
}
