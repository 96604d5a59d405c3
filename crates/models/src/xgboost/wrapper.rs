//! Pickles: boosters, and the wrappers with scikit-learn's interface (`XGBClassifier` and so on).
//!
//! A pickled booster is the library's own bytes in an attribute; the wrapper adds what its classes are called
//! and that early stopping counts.
//!
//! Not here: the model itself (`model`).

use super::model::Model;
use super::parts::{Learner, Parts};
use crate::booster::{Numbers, Wrapped, counted, wrapped};
use crate::error::{LoadError, Result};
use crate::graph::{Node, View};
use crate::limits::Limits;
use crate::sketch::{Drawn, Frame, Sketch, Wire};
use crate::sklearn::{Estimator, Evaluated, Labels, Role, Rows};

/// The bytes of a pickled `xgboost.core.Booster`.
fn bytes_of(booster: View<'_>) -> Result<&[u8]> {
    let handle = booster.attr("handle");
    match handle.map(View::node) {
        Some(Node::Bytes(bytes)) => Ok(bytes),
        _ => Err(LoadError::attribute(
            booster.class_name(),
            "the attribute handle holds no bytes; is it trained?",
        )),
    }
}

/// Reads an instance of a class of XGBoost.
pub(crate) fn read(view: View<'_>, limits: &Limits, depth: usize) -> Result<Estimator> {
    let class = view.class_name();
    let name = class.rsplit('.').next().unwrap_or_default();
    if name == "Booster" {
        return Ok(Model::new(super::of_bytes(bytes_of(view)?, limits)?)?.read().estimator());
    }
    let is_classifier = match name {
        "XGBClassifier" | "XGBRFClassifier" => true,
        "XGBRegressor" | "XGBRFRegressor" | "XGBRanker" => false,
        _ => return Err(LoadError::unsupported(format!("{class} is not evaluated natively"))),
    };
    let booster = view.attr("_Booster").filter(|booster| !booster.is_none());
    let booster =
        booster.ok_or_else(|| LoadError::attribute(class.clone(), "it is not fitted: no _Booster"))?;
    let parts = super::of_bytes(bytes_of(booster)?, limits)?;
    let kept = rounds(&parts);
    let mut model = Model::new(parts)?;
    if let Some((rounds, parallel)) = kept {
        model.keep_rounds(rounds, parallel);
    }
    let columns = (model.features, model.feature_names.clone());
    let report = (model.detail().to_owned(), model.row_cost_ns());
    let role = if is_classifier { classifier(view, &class, model)? } else { regressor(model) };
    Ok(wrapped(class, depth, role, columns, report))
}

/// The rounds up to the best one, where early stopping found one, and the trees of a round.
fn rounds(parts: &Parts) -> Option<(usize, usize)> {
    match &parts.learner {
        Learner::Trees { parallel, .. } => Some((parts.best_iteration? + 1, *parallel)),
        Learner::Linear(_) => None,
    }
}

fn regressor(model: Model) -> Role {
    Role::Regressor(Box::new(Wrapped { model, classes: 0, has_probabilities: false }))
}

fn classifier(view: View<'_>, class: &str, model: Model) -> Result<Role> {
    if !model.has_probabilities() {
        return Err(LoadError::unsupported(format!("{class} with an objective that gives no probabilities")));
    }
    if !model.is_binary() && model.classes <= 1 {
        return Err(LoadError::unsupported(format!("{class} with several labels a row")));
    }
    let classes = if model.is_binary() { 2 } else { model.groups() };
    // Old versions keep an encoder of labels; newer ones ask for 0, 1, ….
    let encoder = view.attr("_le").and_then(|encoder| encoder.attr("classes_"));
    let labels = encoder.or(view.attr("classes_")).filter(|labels| !labels.is_none());
    let labels = match labels {
        Some(labels) => Labels::of(labels)
            .filter(|labels| labels.len() == classes)
            .ok_or_else(|| LoadError::attribute(class, "classes_ does not fit the booster"))?,
        None => counted(classes),
    };
    Ok(Role::Classifier(Box::new(Wrapped { model, classes, has_probabilities: true }), labels))
}

impl Numbers for Model {
    fn probabilities(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        Model::probabilities(self, rows, |index, value| out[index] = f64::from(value))
    }

    fn targets(&self) -> usize {
        self.width()
    }

    fn predict(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        let mut numbers = vec![0.0_f32; out.len()];
        Model::predict(self, rows, &mut numbers)?;
        out.iter_mut().zip(numbers).for_each(|(slot, number)| *slot = f64::from(number));
        Ok(())
    }

    fn draw_probabilities(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Wire> {
        Model::draw_probabilities(self, sketch, rows)
    }

    fn draw_prediction(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Wire> {
        Model::draw_prediction(self, sketch, rows)
    }
}
