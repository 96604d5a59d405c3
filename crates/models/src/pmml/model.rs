//! A document compiled for answering.
//!
//! `predict` is the target: a number, or a class under its name; `predict_proba` one probability for each class, in
//! the order of the dictionary. A row without an answer is NaN as a number and an error as a class.
//!
//! Not here: the parts of documents.

use super::expression::{Step, derive};
use super::fields::{Input, Kind, Scope, Words};
use super::mining::{Cells, Predictor};
use super::tree::NONE;
use super::xml::{El, short};
use crate::backend::BackendError;
use crate::booster::{Boost, Read, shape};
use crate::error::Result;
use crate::sketch::{Drawn, Frame, Output, Sketch, undrawn};
use crate::sklearn::flow::{Flow, Takes};
use crate::sklearn::native::Method;
use crate::sklearn::{Evaluated, Labels, Rows};
use crate::tensor::{DType, Outputs};

/// Cells of a block of rows.
const CELLS_MAX: usize = 1 << 18;

/// A document.
pub(super) struct Model {
    inputs: Vec<Input>,
    words: Vec<Words>,
    /// Cells of a row.
    width: usize,
    steps: Vec<Step>,
    predictor: Predictor,
    labels: Option<Labels>,
    class: &'static str,
    detail: String,
}

impl Model {
    pub(super) fn new(root: El<'_>) -> Result<Self> {
        let version = root.need("version")?;
        if !version.starts_with("4.") {
            return Err(root.refuse_value("version", version));
        }
        let (mut scope, mut models, mut global) = (Scope::default(), Vec::new(), None);
        for part in root.children() {
            match part.name() {
                "Header" | "MiningBuildTask" => {}
                "DataDictionary" => scope.dictionary(part)?,
                "TransformationDictionary" => global = Some(part),
                _ => models.push(part),
            }
        }
        let (first, second) = (models.first().copied(), models.get(1));
        let el = first.ok_or_else(|| root.error("it has no model"))?;
        if let Some(second) = second {
            return Err(second.error("a second model; expected one"));
        }
        if !Predictor::is(el) {
            return Err(el.refuse());
        }
        let schema = el.child("MiningSchema").ok_or_else(|| el.error("it has no MiningSchema"))?;
        let inputs = scope.inputs(schema)?;
        let mut steps = Vec::new();
        if let Some(global) = global {
            derive(global, &mut scope, &mut steps)?;
        }
        let predictor = Predictor::read(el, &mut scope, true)?;
        let labels = match predictor.is_classes {
            true if scope.classes.is_empty() => return Err(el.error("it tells no classes apart")),
            true => Some(labels(&scope)),
            false => None,
        };
        let class = match el.name() {
            "TreeModel" => "pmml.TreeModel",
            "RegressionModel" => "pmml.RegressionModel",
            _ => "pmml.MiningModel",
        };
        let detail = detail(el, &scope, &predictor, version);
        let width = scope.slots.len();
        Ok(Self { inputs, words: scope.words, width, steps, predictor, labels, class, detail })
    }

    pub(super) fn read(self) -> Read {
        let takes = |input: &Input| match input.field.kind {
            Kind::Text(_) => Takes::Text,
            _ => Takes::Number,
        };
        let flow = Flow { takes: self.inputs.iter().map(takes).collect(), gives: Vec::new() };
        Read {
            features: self.inputs.len(),
            feature_names: self.inputs.iter().map(|input| input.name.clone()).collect(),
            class: self.class,
            detail: self.detail.clone(),
            row_cost_ns: self.predictor.row_cost_ns() + 5 * self.width as u64,
            flow: (!flow.is_numbers()).then_some(flow),
            model: Box::new(self),
        }
    }

    fn classes_count(&self) -> usize {
        self.labels.as_ref().map_or(0, Labels::len)
    }

    /// The rows as the model sees them.
    fn cells(&self, rows: Rows<'_>) -> Evaluated<Cells> {
        let mut data = vec![f64::NAN; rows.count * self.width];
        for (row, cells) in rows.iter().zip(data.chunks_exact_mut(self.width.max(1))) {
            for (input, cell) in self.inputs.iter().zip(row) {
                cells[input.slot] = input.take(&self.words, rows, *cell)?;
            }
            self.steps.iter().try_for_each(|step| step.run(cells))?;
        }
        Ok(Cells { data, width: self.width, count: rows.count })
    }

    /// Calls `with` with the answers of each block of rows and where the block starts.
    fn blocks(
        &self,
        rows: Rows<'_>,
        mut with: impl FnMut(usize, super::mining::Scores) -> Evaluated,
    ) -> Evaluated {
        let step = (CELLS_MAX / self.width.max(1)).max(1);
        for start in (0..rows.count).step_by(step) {
            let mut cells = self.cells(rows.range(start..(start + step).min(rows.count)))?;
            with(start, self.predictor.answer(&mut cells, self.classes_count())?)?;
        }
        Ok(())
    }
}

/// What classes are called: as the dictionary types the target.
fn labels(scope: &Scope<'_>) -> Labels {
    let texts = || Labels::Texts(scope.classes.clone());
    let trimmed = || scope.classes.iter().map(|class| class.trim());
    match scope.target_kind() {
        Some(Kind::Integer) => {
            trimmed().map(|class| class.parse().ok()).collect::<Option<_>>().map_or_else(texts, Labels::Ints)
        }
        Some(Kind::Double | Kind::Float) => trimmed()
            .map(|class| class.parse().ok())
            .collect::<Option<_>>()
            .map_or_else(texts, Labels::Floats),
        Some(Kind::Boolean) => {
            trimmed().map(|class| class.parse().ok()).collect::<Option<_>>().map_or_else(texts, Labels::Bools)
        }
        Some(Kind::Text(_)) | None => texts(),
    }
}

fn detail(el: El<'_>, scope: &Scope<'_>, predictor: &Predictor, version: &str) -> String {
    let mut detail = if predictor.is_classes { "classification" } else { "regression" }.to_owned();
    if let Some(target) = scope.target {
        detail += &format!(" of {:?}", short(target));
    }
    let [trees, nodes, coefficients] = predictor.sizes();
    if let Some(method) = el.child("Segmentation").and_then(|part| part.attr("multipleModelMethod")) {
        detail += &format!(", {}", short(method));
    }
    if trees > 0 {
        detail += &format!(", {trees} trees, {nodes} nodes");
    }
    if coefficients > 0 {
        detail += &format!(", {coefficients} coefficients");
    }
    detail + &format!(", PMML {}", short(version))
}

impl Boost for Model {
    fn draw(&self, _sketch: &mut Sketch, _rows: &Frame) -> Drawn<Vec<Output>> {
        undrawn("a PMML document: its missing values and strategies are its own")
    }

    fn output(&self, method: Method) -> Option<(DType, Vec<usize>)> {
        match (method, &self.labels) {
            (Method::Predict, Some(labels)) => Some((labels.dtype(), Vec::new())),
            (Method::Predict, None) => Some((DType::F64, Vec::new())),
            (Method::Probabilities, Some(labels)) => Some((DType::F64, vec![labels.len()])),
            (Method::Probabilities, None) | (Method::Decisions, _) => None,
        }
    }

    fn answer(&self, rows: Rows<'_>, method: Method, outputs: &mut Outputs) -> Evaluated {
        let Some((_, dims)) = self.output(method) else {
            return Err(BackendError::Internal("this model has no such answer".into()));
        };
        let shape = shape(rows.count, &dims)?;
        match (method, &self.labels) {
            (Method::Predict, Some(labels)) => {
                let mut picks = vec![0; rows.count];
                self.blocks(rows, |start, scores| {
                    if let Some(row) = scores.picks.iter().position(|pick| *pick == NONE) {
                        let row = start + row;
                        return Err(BackendError::Input(format!("the model has no answer for row {row}")));
                    }
                    picks[start..start + scores.picks.len()].copy_from_slice(&scores.picks);
                    Ok(())
                })?;
                labels.write(&picks, shape, outputs);
                Ok(())
            }
            (Method::Predict, None) => {
                let out = outputs.numbers(shape);
                self.blocks(rows, |start, scores| {
                    out[start..start + scores.numbers.len()].copy_from_slice(&scores.numbers);
                    Ok(())
                })
            }
            _ => {
                let (out, classes) = (outputs.numbers(shape), self.classes_count());
                self.blocks(rows, |start, scores| {
                    out[start * classes..][..scores.shares.len()].copy_from_slice(&scores.shares);
                    Ok(())
                })
            }
        }
    }

    fn classes(&self) -> Vec<String> {
        self.labels.as_ref().map(Labels::to_texts).unwrap_or_default()
    }
}
