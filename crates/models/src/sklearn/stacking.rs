//! Stacking: an estimator over the answers of others.
//!
//! Not here: ensembles that vote (`ensemble`).

use super::attrs::Attrs;
use super::labels::Labels;
use super::{Classify, Evaluated, Part, Read, Regress, Role, Rows, read_at};
use crate::error::Result;
use crate::sketch::{Classes, Drawn, Frame, Sketch, Wire, undrawn};

/// What a member contributes as columns.
enum Member {
    /// Probabilities; of two classes only the second.
    Shares(Box<dyn Classify>),
    Decisions(Box<dyn Classify>),
    /// The class's own label, which is a number.
    Picks(Box<dyn Classify>, Vec<f64>),
    Numbers(Box<dyn Regress>),
}

impl Member {
    fn width(&self) -> usize {
        match self {
            Self::Shares(model) if model.classes() == 2 => 1,
            Self::Shares(model) => model.classes(),
            Self::Decisions(model) => model.decisions_width(),
            Self::Picks(..) => 1,
            Self::Numbers(model) => model.targets(),
        }
    }

    fn columns(&self, rows: Rows<'_>) -> Evaluated<Vec<f64>> {
        let mut out = vec![0.0; rows.count * self.width()];
        match self {
            Self::Shares(model) if model.classes() == 2 => {
                let mut both = vec![0.0; rows.count * 2];
                model.probabilities(rows, &mut both)?;
                out.iter_mut().zip(both.chunks_exact(2)).for_each(|(slot, pair)| *slot = pair[1]);
            }
            Self::Shares(model) => model.probabilities(rows, &mut out)?,
            Self::Decisions(model) => model.decisions(rows, &mut out)?,
            Self::Picks(model, labels) => {
                let mut picks = vec![0; rows.count];
                model.pick(rows, &mut picks)?;
                out.iter_mut().zip(picks).for_each(|(slot, pick)| *slot = labels[pick as usize]);
            }
            Self::Numbers(model) => model.predict(rows, &mut out)?,
        }
        Ok(out)
    }

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Wire> {
        Ok(match self {
            Self::Shares(model) => match model.draw(sketch, rows)?.shares {
                Some(shares) if model.classes() == 2 => sketch.column(shares, 1),
                Some(shares) => shares,
                None => return undrawn("probabilities of a member"),
            },
            Self::Decisions(model) => match model.draw(sketch, rows)?.decisions {
                Some((decisions, width)) => sketch.shape(decisions, &[-1, width as i64]),
                None => return undrawn("decisions of a member"),
            },
            Self::Picks(model, labels) => {
                let picks = model.draw(sketch, rows)?.picks;
                let table = sketch.row(labels);
                let said = sketch.pick(table, picks, 0);
                sketch.shape(said, &[-1, 1])
            }
            Self::Numbers(model) => model.draw(sketch, rows)?,
        })
    }
}

struct Stack {
    members: Vec<Member>,
    /// Whether the rows themselves follow the members' columns.
    passthrough: bool,
    features: usize,
}

impl Stack {
    fn width(&self) -> usize {
        let members: usize = self.members.iter().map(Member::width).sum();
        members + if self.passthrough { self.features } else { 0 }
    }

    fn with<T>(&self, rows: Rows<'_>, then: impl FnOnce(Rows<'_>) -> Evaluated<T>) -> Evaluated<T> {
        let width = self.width();
        let mut all = vec![0.0; rows.count * width];
        let mut start = 0;
        for member in &self.members {
            let own = member.width();
            let columns = member.columns(rows)?;
            for (row, values) in columns.chunks_exact(own.max(1)).enumerate() {
                all[row * width + start..][..own].copy_from_slice(values);
            }
            start += own;
        }
        if self.passthrough {
            for (index, row) in rows.iter().enumerate() {
                all[index * width + start..][..row.len()].copy_from_slice(row);
            }
        }
        then(rows.with(&all, width))
    }

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Frame> {
        let mut tables = Vec::new();
        for member in &self.members {
            tables.push(member.draw(sketch, rows)?);
        }
        if self.passthrough {
            tables.push(rows.table(sketch)?);
        }
        Ok(Frame::Numbers(sketch.join(&tables), self.width()))
    }
}

struct Over<T: ?Sized> {
    stack: Stack,
    last: Box<T>,
}

impl Classify for Over<dyn Classify> {
    fn classes(&self) -> usize {
        self.last.classes()
    }

    fn pick(&self, rows: Rows<'_>, picks: &mut [u32]) -> Evaluated {
        self.stack.with(rows, |rows| self.last.pick(rows, picks))
    }

    fn has_probabilities(&self) -> bool {
        self.last.has_probabilities()
    }

    fn probabilities(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        self.stack.with(rows, |rows| self.last.probabilities(rows, out))
    }

    fn decisions_width(&self) -> usize {
        self.last.decisions_width()
    }

    fn decisions(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        self.stack.with(rows, |rows| self.last.decisions(rows, out))
    }

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Classes> {
        let rows = self.stack.draw(sketch, rows)?;
        self.last.draw(sketch, &rows)
    }
}

impl Regress for Over<dyn Regress> {
    fn targets(&self) -> usize {
        self.last.targets()
    }

    fn predict(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        self.stack.with(rows, |rows| self.last.predict(rows, out))
    }

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Wire> {
        let rows = self.stack.draw(sketch, rows)?;
        self.last.draw(sketch, &rows)
    }
}

fn member(attrs: &Attrs<'_>, role: Role, method: &str) -> Result<Member> {
    match (role, method) {
        (Role::Classifier(model, _), "predict_proba") if model.has_probabilities() => {
            Ok(Member::Shares(model))
        }
        (Role::Classifier(model, _), "decision_function") if model.decisions_width() > 0 => {
            Ok(Member::Decisions(model))
        }
        (Role::Classifier(model, Labels::Ints(labels)), "predict") => {
            Ok(Member::Picks(model, labels.into_iter().map(|label| label as f64).collect()))
        }
        (Role::Regressor(model), "predict") => Ok(Member::Numbers(model)),
        _ => Err(attrs.unsupported(&format!("stack_method {method:?} of a member"))),
    }
}

fn read(attrs: &Attrs<'_>, depth: usize) -> Result<(Stack, Role, Vec<Part>, u64)> {
    let views = attrs.estimators("estimators_")?;
    let methods = attrs.req("stack_method_")?.texts().unwrap_or_default();
    if views.len() != methods.len() {
        return Err(attrs.error("stack_method_ has another length than estimators_"));
    }
    let mut stack =
        Stack { members: Vec::new(), passthrough: attrs.truth_or("passthrough", false), features: 0 };
    let (mut parts, mut cost) = (Vec::new(), 0);
    for (view, method) in views.into_iter().zip(&methods) {
        let mut estimator = read_at(view, depth + 1)?;
        if !stack.members.is_empty() && estimator.features != stack.features {
            return Err(attrs.error("its members take different columns"));
        }
        stack.features = estimator.features;
        cost += estimator.row_cost_ns;
        parts.append(&mut estimator.parts);
        stack.members.push(member(attrs, estimator.role, method)?);
    }
    let mut last = read_at(attrs.req("final_estimator_")?, depth + 1)?;
    if last.features != stack.width() {
        return Err(attrs.error(format!(
            "the last takes {} columns and gets {}",
            last.features,
            stack.width()
        )));
    }
    if let Some(part) = last.parts.first_mut() {
        part.step = Some("final_estimator".into());
    }
    parts.append(&mut last.parts);
    Ok((stack, last.role, parts, cost + last.row_cost_ns))
}

fn finish(role: Role, features: usize, members: usize, parts: Vec<Part>, cost: u64) -> Read {
    let mut made = Read::new(role, format!("{members} members"), cost);
    made.inner = parts;
    made.features = Some(features);
    made
}

pub(super) fn classifier(attrs: &Attrs<'_>, depth: usize) -> Result<Read> {
    let labels = Labels::read(attrs)?;
    let (stack, last, parts, cost) = read(attrs, depth)?;
    let Role::Classifier(last, own) = last else {
        return Err(attrs.error("the last estimator is no classifier"));
    };
    if own.len() != labels.len() {
        return Err(attrs.error("the last estimator has other classes"));
    }
    let (features, members) = (stack.features, stack.members.len());
    let role = Role::Classifier(Box::new(Over { stack, last }), labels);
    Ok(finish(role, features, members, parts, cost))
}

pub(super) fn regressor(attrs: &Attrs<'_>, depth: usize) -> Result<Read> {
    let (stack, last, parts, cost) = read(attrs, depth)?;
    let Role::Regressor(last) = last else { return Err(attrs.error("the last estimator is no regressor")) };
    let (features, members) = (stack.features, stack.members.len());
    Ok(finish(Role::Regressor(Box::new(Over { stack, last })), features, members, parts, cost))
}
