//! `Pipeline`: transforms, then an estimator.
//!
//! The pipeline takes the role of its last step, with the earlier ones in front of it.
//!
//! Not here: transforms side by side (`ColumnTransformer`, `FeatureUnion`).

use std::sync::Arc;

use super::attrs::Attrs;
use super::flow::Flow;
use super::native::Method;
use super::{Classify, Estimator, Evaluated, Part, Read, Regress, Role, Rows, Several, Transform, read_at};
use crate::booster::Boost;
use crate::error::Result;
use crate::sketch::{Classes, Drawn, Frame, Output, Sketch, Wire};
use crate::tensor::{DType, Outputs};

/// Transforms in order.
struct Chain(Vec<Box<dyn Transform>>);

impl Chain {
    fn with<T>(&self, rows: Rows<'_>, then: impl FnOnce(Rows<'_>) -> Evaluated<T>) -> Evaluated<T> {
        let mut data: Option<Vec<f64>> = None;
        let mut width = rows.width;
        for step in &self.0 {
            let mut out = vec![0.0; rows.count * step.width_out()];
            let before = data.as_deref().unwrap_or(rows.data);
            step.transform(rows.with(before, width), &mut out)?;
            width = step.width_out();
            data = Some(out);
        }
        let after = data.as_deref().unwrap_or(rows.data);
        then(rows.with(after, width))
    }
}

impl Chain {
    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Frame> {
        self.0.iter().try_fold(rows.clone(), |rows, step| step.draw(sketch, &rows))
    }
}

struct Before<T: ?Sized> {
    chain: Arc<Chain>,
    last: Box<T>,
}

impl Classify for Before<dyn Classify> {
    fn classes(&self) -> usize {
        self.last.classes()
    }

    fn pick(&self, rows: Rows<'_>, picks: &mut [u32]) -> Evaluated {
        self.chain.with(rows, |rows| self.last.pick(rows, picks))
    }

    fn has_probabilities(&self) -> bool {
        self.last.has_probabilities()
    }

    fn probabilities(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        self.chain.with(rows, |rows| self.last.probabilities(rows, out))
    }

    fn decisions_width(&self) -> usize {
        self.last.decisions_width()
    }

    fn decisions(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        self.chain.with(rows, |rows| self.last.decisions(rows, out))
    }

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Classes> {
        let rows = self.chain.draw(sketch, rows)?;
        self.last.draw(sketch, &rows)
    }
}

impl Boost for Before<dyn Boost> {
    fn output(&self, method: Method) -> Option<(DType, Vec<usize>)> {
        self.last.output(method)
    }

    fn answer(&self, rows: Rows<'_>, method: Method, outputs: &mut Outputs) -> Evaluated {
        self.chain.with(rows, |rows| self.last.answer(rows, method, outputs))
    }

    fn classes(&self) -> Vec<String> {
        self.last.classes()
    }

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Vec<Output>> {
        let rows = self.chain.draw(sketch, rows)?;
        self.last.draw(sketch, &rows)
    }
}

impl Regress for Before<dyn Regress> {
    fn targets(&self) -> usize {
        self.last.targets()
    }

    fn predict(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        self.chain.with(rows, |rows| self.last.predict(rows, out))
    }

    fn has_decisions(&self) -> bool {
        self.last.has_decisions()
    }

    fn decisions(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        self.chain.with(rows, |rows| self.last.decisions(rows, out))
    }

    fn shares(&self) -> usize {
        self.last.shares()
    }

    fn probabilities(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        self.chain.with(rows, |rows| self.last.probabilities(rows, out))
    }

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Wire> {
        let rows = self.chain.draw(sketch, rows)?;
        self.last.draw(sketch, &rows)
    }

    fn draw_decisions(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Wire> {
        let rows = self.chain.draw(sketch, rows)?;
        self.last.draw_decisions(sketch, &rows)
    }
}

impl Several for Before<dyn Several> {
    fn pick(&self, rows: Rows<'_>, picks: &mut [u32]) -> Evaluated {
        self.chain.with(rows, |rows| self.last.pick(rows, picks))
    }

    fn tables(&self) -> Vec<usize> {
        self.last.tables()
    }

    fn probabilities(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        self.chain.with(rows, |rows| self.last.probabilities(rows, out))
    }

    fn decisions_width(&self) -> usize {
        self.last.decisions_width()
    }

    fn decisions(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        self.chain.with(rows, |rows| self.last.decisions(rows, out))
    }

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Vec<Classes>> {
        let rows = self.chain.draw(sketch, rows)?;
        self.last.draw(sketch, &rows)
    }
}

impl Transform for Before<dyn Transform> {
    fn width_out(&self) -> usize {
        self.last.width_out()
    }

    fn transform(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        self.chain.with(rows, |rows| self.last.transform(rows, out))
    }

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Frame> {
        let rows = self.chain.draw(sketch, rows)?;
        self.last.draw(sketch, &rows)
    }
}

/// Rows as they are.
pub(super) struct Identity(pub(super) usize);

impl Transform for Identity {
    fn width_out(&self) -> usize {
        self.0
    }

    fn transform(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        out.copy_from_slice(rows.data);
        Ok(())
    }

    fn draw(&self, _sketch: &mut Sketch, rows: &Frame) -> Drawn<Frame> {
        Ok(rows.clone())
    }
}

pub(super) fn read(attrs: &Attrs<'_>, depth: usize) -> Result<Read> {
    let mut inner: Vec<Part> = Vec::new();
    let mut steps: Vec<Estimator> = Vec::new();
    for step in attrs.estimators("steps")? {
        let pair = step.items().unwrap_or_default();
        let [name, member, ..] = pair.as_slice() else {
            return Err(attrs.error("a step is not a pair of name and estimator"));
        };
        if member.is_none() || member.text() == Some("passthrough") {
            continue;
        }
        let mut estimator = read_at(*member, depth + 1)?;
        if let Some(part) = estimator.parts.first_mut() {
            part.step = name.text().map(str::to_owned);
        }
        inner.append(&mut estimator.parts);
        steps.push(estimator);
    }
    let mut made = join(attrs, steps)?;
    made.inner = inner;
    Ok(made)
}

/// Puts transforms before an estimator's role.
pub(super) fn before(transforms: Vec<Box<dyn Transform>>, role: Role) -> Role {
    if transforms.is_empty() {
        return role;
    }
    let chain = Arc::new(Chain(transforms));
    match role {
        Role::Classifier(last, labels) => Role::Classifier(Box::new(Before { chain, last }), labels),
        Role::Several(last, labels) => Role::Several(Box::new(Before { chain, last }), labels),
        Role::Regressor(last) => Role::Regressor(Box::new(Before { chain, last })),
        Role::Assigner(last) => Role::Assigner(Box::new(Before { chain, last })),
        Role::Transformer(last) => Role::Transformer(Box::new(Before { chain, last })),
        Role::Booster(last) => Role::Booster(Box::new(Before { chain, last })),
    }
}

fn join(attrs: &Attrs<'_>, steps: Vec<Estimator>) -> Result<Read> {
    let detail = format!("{} steps", steps.len());
    let cost: u64 = steps.iter().map(|step| step.row_cost_ns).sum();
    let features = match steps.first() {
        Some(first) => first.features,
        None => attrs.features()?,
    };
    let feature_names = steps.first().map(|first| first.feature_names.clone()).unwrap_or_default();
    let mut flow = Flow::identity(features);
    let mut chain = Vec::new();
    let mut width = features;
    let mut width_max = 0;
    let mut last = None;
    let count = steps.len();
    for (index, step) in steps.into_iter().enumerate() {
        if step.features != width {
            return Err(
                attrs.error(format!("{} takes {} columns and gets {width}", step.class, step.features))
            );
        }
        flow = flow.then(attrs, &step.flow())?;
        width_max = width_max.max(step.width_max);
        if index + 1 == count {
            last = Some(step.role);
            continue;
        }
        match (step.role, step.inner) {
            (Role::Transformer(transform), _) | (_, Some(transform)) => {
                width = transform.width_out();
                chain.push(transform);
            }
            _ => return Err(attrs.unsupported(&format!("{} as an inner step", step.class))),
        }
    }
    let role = match last {
        None => Role::Transformer(Box::new(Identity(features))),
        Some(last) => before(chain, last),
    };
    let mut made = Read::new(role, detail, cost);
    made.features = Some(features);
    made.feature_names = feature_names;
    made.flow = Some(flow);
    made.width_max = width_max;
    Ok(made)
}
