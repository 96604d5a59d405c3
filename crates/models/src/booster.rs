//! What boosted models of other libraries have in common: a backend's face over them.
//!
//! A booster is asked in the library's own words: `predict` is what KServe's server for the format answers,
//! `predict_proba` one probability for each class, `decision_function` the raw scores. The wrappers with
//! scikit-learn's interface (`XGBClassifier`, `LGBMClassifier`, …) become its roles, so that they work in
//! pipelines too.
//!
//! Not here: files and trees (`xgboost`, `lightgbm`, `catboost`).

use crate::backend::BackendError;
use crate::error::Result as Loaded;
use crate::graph::View;
use crate::limits::Limits;
use crate::sketch::{Classes, Drawn, Frame, Kind, Output, Sketch, Wire, undrawn};
use crate::sklearn::flow::Flow;
use crate::sklearn::native::Method;
use crate::sklearn::{Classify, Estimator, Evaluated, Labels, NO_SKETCH, Part, Regress, Role, Rows, argmax};
use crate::tensor::{DType, Outputs, Shape};
use crate::{catboost, lightgbm, xgboost};

/// A boosted model.
pub(crate) trait Boost: Send + Sync {
    /// The type of an answer and its dimensions after the rows; `None` where there is no such answer.
    fn output(&self, method: Method) -> Option<(DType, Vec<usize>)>;

    /// Answers `rows`, which have as many columns as the model.
    fn answer(&self, rows: Rows<'_>, method: Method, outputs: &mut Outputs) -> Evaluated;

    /// The names of classes, if the model knows them.
    fn classes(&self) -> Vec<String> {
        Vec::new()
    }

    /// Draws its answers.
    fn draw(&self, _sketch: &mut Sketch, _rows: &Frame) -> Drawn<Vec<Output>> {
        undrawn(NO_SKETCH)
    }
}

/// The answers of a drawn booster: its prediction, and probabilities where it has some.
pub(crate) fn drawn_outputs(
    prediction: (Wire, Vec<usize>),
    probabilities: Option<(Wire, usize)>,
) -> Vec<Output> {
    let number = |name: &str, wire, row| Output { name: name.to_owned(), kind: Kind::Number, row, wire };
    let mut outputs = vec![number("variable", prediction.0, prediction.1)];
    outputs.extend(probabilities.map(|(wire, width)| number("probabilities", wire, vec![width])));
    outputs
}

/// A model that was read from one of the libraries' own files.
pub(crate) struct Read {
    pub(crate) model: Box<dyn Boost>,
    pub(crate) features: usize,
    pub(crate) feature_names: Vec<String>,
    /// For example `xgboost.Booster`.
    pub(crate) class: &'static str,
    /// Booster, objective, sizes.
    pub(crate) detail: String,
    pub(crate) row_cost_ns: u64,
    /// Its columns, where some are texts.
    pub(crate) flow: Option<Flow>,
}

impl Read {
    pub(crate) fn estimator(self) -> Estimator {
        let part = Part { depth: 0, step: None, class: self.class.into(), detail: self.detail };
        Estimator {
            role: Role::Booster(self.model),
            features: self.features,
            feature_names: self.feature_names,
            class: self.class.into(),
            version: None,
            parts: vec![part],
            row_cost_ns: self.row_cost_ns,
            flow: self.flow,
            inner: None,
            width_max: self.features,
        }
    }
}

/// Reads an instance in a pickle whose class is a boosting library's; `None` for all others.
pub(crate) fn read_wrapper(view: View<'_>, depth: usize) -> Option<Loaded<Estimator>> {
    // The file has been read within its own limits; what it embeds is a part of it.
    let limits = Limits::default();
    let class = view.object()?.class.module.clone();
    match class.split('.').next()? {
        "xgboost" => Some(xgboost::read_wrapper(view, &limits, depth)),
        "lightgbm" => Some(lightgbm::read_wrapper(view, &limits, depth)),
        "catboost" => Some(catboost::read_wrapper(view, &limits, depth)),
        _ => None,
    }
}

/// What a wrapper's reader found, as an estimator.
pub(crate) fn wrapped(
    class: String,
    depth: usize,
    role: Role,
    (features, feature_names): (usize, Vec<String>),
    (detail, row_cost_ns): (String, u64),
) -> Estimator {
    let parts = vec![Part { depth, step: None, class: class.clone(), detail }];
    let (flow, inner, version) = (None, None, None);
    let width_max = features;
    Estimator { role, features, feature_names, class, version, parts, row_cost_ns, flow, inner, width_max }
}

/// The shape of an answer.
pub(crate) fn shape(count: usize, dims: &[usize]) -> Result<Shape, BackendError> {
    let all: Vec<usize> = [count].into_iter().chain(dims.iter().copied()).collect();
    Shape::new(&all).ok_or_else(|| BackendError::Input("the batch is too large".into()))
}

/// Probabilities as a wrapper with scikit-learn's interface knows them.
pub(crate) struct Wrapped<M> {
    pub(crate) model: M,
    pub(crate) classes: usize,
    pub(crate) has_probabilities: bool,
}

/// Numbers of a booster, in 64 bits.
pub(crate) trait Numbers: Send + Sync {
    /// One probability for each class.
    fn probabilities(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated;
    /// How many numbers a prediction has.
    fn targets(&self) -> usize;
    /// The prediction.
    fn predict(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated;
    /// Draws the probabilities, `[rows, classes]`.
    fn draw_probabilities(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Wire>;
    /// Draws the prediction, `[rows, targets]`.
    fn draw_prediction(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Wire>;
}

impl<M: Numbers> Classify for Wrapped<M> {
    fn classes(&self) -> usize {
        self.classes
    }

    fn pick(&self, rows: Rows<'_>, picks: &mut [u32]) -> Evaluated {
        let mut all = vec![0.0; picks.len() * self.classes];
        self.model.probabilities(rows, &mut all)?;
        for (pick, row) in picks.iter_mut().zip(all.chunks_exact(self.classes)) {
            // With two classes, a half is the first: the wrappers ask for more than a half.
            *pick = argmax(row);
        }
        Ok(())
    }

    fn has_probabilities(&self) -> bool {
        self.has_probabilities
    }

    fn probabilities(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        self.model.probabilities(rows, out)
    }

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Classes> {
        let shares = self.model.draw_probabilities(sketch, rows)?;
        Ok(Classes { picks: sketch.argmax(shares), shares: Some(shares), decisions: None })
    }
}

impl<M: Numbers> Regress for Wrapped<M> {
    fn targets(&self) -> usize {
        self.model.targets()
    }

    fn predict(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        self.model.predict(rows, out)
    }

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Wire> {
        self.model.draw_prediction(sketch, rows)
    }
}

/// Labels `0, 1, …` of a model that has no others.
pub(crate) fn counted(classes: usize) -> Labels {
    Labels::Ints((0..classes as i64).collect())
}
