//! From an estimator to its sketch: inputs, the role's own drawing, and what the answers are called.
//!
//! Names are those of other converters, so that clients find what they know: `label` and `probabilities` of
//! classifiers, `variable` of all others.
//!
//! Not here: the drawings (`sklearn`, `xgboost`, `lightgbm`, `catboost`).

use super::{Cells, Drawn, Frame, Input, Kind, Op, Output, Sketch, Unary, Undrawn, Wire};
use crate::sklearn::flow::Takes;
use crate::sklearn::{Estimator, Labels, Role};

/// What a classifier draws.
pub(crate) struct Classes {
    /// The place of each row's class, `[rows]`, integers.
    pub(crate) picks: Wire,
    /// Probabilities, `[rows, classes]`.
    pub(crate) shares: Option<Wire>,
    /// Decisions, `[rows, width]`, and their width.
    pub(crate) decisions: Option<(Wire, usize)>,
}

/// The sketch of an estimator; an error names what cannot be drawn.
pub fn draw(estimator: &Estimator) -> Result<Sketch, Undrawn> {
    let mut sketch = Sketch::default();
    let rows = inputs(&mut sketch, estimator);
    let outputs = answers(&mut sketch, estimator, &rows).map_err(|what| {
        let named = what.0.contains('.') || what.0.contains("operations");
        let text = if named { what.0 } else { format!("{} with {}", estimator.class, what.0) };
        Undrawn(text)
    })?;
    sketch.check()?;
    sketch.outputs = outputs;
    Ok(sketch)
}

fn inputs(sketch: &mut Sketch, estimator: &Estimator) -> Frame {
    let Some(flow) = &estimator.flow else {
        let width = estimator.features;
        sketch.inputs.push(Input { name: "X".into(), kind: Kind::Number, width });
        return Frame::Numbers(sketch.step(Op::Input(0), &[]), width);
    };
    let mut columns = Vec::new();
    for (column, takes) in flow.takes.iter().enumerate() {
        let name = estimator.feature_names.get(column).cloned();
        let is_text = *takes == Takes::Text;
        sketch.inputs.push(Input {
            name: name.unwrap_or_else(|| format!("input-{column}")),
            kind: if is_text { Kind::Text } else { Kind::Number },
            width: 1,
        });
        columns.push((sketch.step(Op::Input(column), &[]), is_text));
    }
    Frame::Columns(columns)
}

fn output(name: &str, kind: Kind, row: Vec<usize>, wire: Wire) -> Output {
    Output { name: name.to_owned(), kind, row, wire }
}

fn answers(sketch: &mut Sketch, estimator: &Estimator, rows: &Frame) -> Drawn<Vec<Output>> {
    Ok(match &estimator.role {
        Role::Classifier(model, labels) => {
            let classes = model.draw(sketch, rows)?;
            let (label, kind) = labelled(sketch, classes.picks, labels);
            let mut outputs = vec![output("label", kind, Vec::new(), label)];
            match (classes.shares, classes.decisions) {
                (Some(shares), _) => {
                    outputs.push(output("probabilities", Kind::Number, vec![model.classes()], shares));
                }
                (None, Some((decisions, width))) => {
                    outputs.push(output("decisions", Kind::Number, vec![width], decisions));
                }
                (None, None) => {}
            }
            outputs
        }
        Role::Several(model, labels) => {
            let drawn = model.draw(sketch, rows)?;
            several(sketch, &drawn, labels)
        }
        Role::Regressor(model) => {
            let wire = model.draw(sketch, rows)?;
            vec![output("variable", Kind::Number, vec![model.targets()], wire)]
        }
        Role::Assigner(model) => {
            let wire = model.draw(sketch, rows)?;
            let flat = sketch.shape(wire, &[-1]);
            let label = sketch.unary(Unary::Whole, flat);
            let mut outputs = vec![output("label", Kind::Whole, Vec::new(), label)];
            if model.has_decisions() {
                let scores = model.draw_decisions(sketch, rows)?;
                outputs.push(output("scores", Kind::Number, vec![1], scores));
            }
            outputs
        }
        Role::Transformer(model) => {
            let wire = model.draw(sketch, rows)?.table(sketch)?;
            vec![output("variable", Kind::Number, vec![model.width_out()], wire)]
        }
        Role::Booster(model) => model.draw(sketch, rows)?,
    })
}

/// The labels of places.
pub(crate) fn labelled(sketch: &mut Sketch, picks: Wire, labels: &Labels) -> (Wire, Kind) {
    let (cells, kind) = match labels {
        Labels::Ints(all) => (Cells::Wholes(all.clone()), Kind::Whole),
        Labels::Floats(all) => (Cells::Numbers(all.clone()), Kind::Number),
        Labels::Texts(all) => (Cells::Texts(all.clone()), Kind::Text),
        Labels::Bools(all) => (Cells::Truths(all.clone()), Kind::Truth),
    };
    let table = sketch.step(Op::Constant(vec![labels.len()], cells), &[]);
    (sketch.pick(table, picks, 0), kind)
}

fn several(sketch: &mut Sketch, drawn: &[Classes], labels: &[Labels]) -> Vec<Output> {
    let mut columns = Vec::new();
    let mut kind = Kind::Text;
    let mut outputs = Vec::new();
    // Columns of different types are all texts.
    let is_mixed = labels.windows(2).any(|pair| pair[0].dtype() != pair[1].dtype());
    for (index, (classes, labels)) in drawn.iter().zip(labels).enumerate() {
        let texts = is_mixed.then(|| Labels::Texts(labels.to_texts()));
        let (label, own) = labelled(sketch, classes.picks, texts.as_ref().unwrap_or(labels));
        columns.push(sketch.shape(label, &[-1, 1]));
        kind = own;
        if let Some(shares) = classes.shares {
            outputs.push(output(&format!("probabilities_{index}"), Kind::Number, vec![labels.len()], shares));
        }
    }
    let label = sketch.join(&columns);
    outputs.insert(0, output("label", kind, vec![columns.len()], label));
    outputs
}
