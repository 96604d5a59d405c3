//! Pickles: boosters, and the wrappers with scikit-learn's interface (`LGBMClassifier` and so on).
//!
//! A pickled booster is the text of its model in an attribute; the wrapper adds what its classes are called.
//!
//! Not here: the model itself (`model`).

use super::model::Model;
use crate::booster::{Numbers, Wrapped, counted, wrapped};
use crate::error::{LoadError, Result};
use crate::graph::View;
use crate::limits::Limits;
use crate::sketch::{Drawn, Frame, Sketch, Wire};
use crate::sklearn::{Estimator, Evaluated, Labels, Role, Rows};

/// The model of a pickled `lightgbm.basic.Booster`.
fn booster(view: View<'_>, limits: &Limits) -> Result<Model> {
    let text = view.attr("_handle").or(view.attr("handle")).and_then(View::text);
    let text = text.ok_or_else(|| {
        LoadError::attribute(view.class_name(), "the attribute handle holds no text; is it trained?")
    })?;
    let mut model = Model::new(super::text::read(text, limits)?)?;
    let best = view.attr("best_iteration").and_then(View::int).unwrap_or(0);
    if let Some(best) = usize::try_from(best).ok().filter(|best| *best > 0) {
        model.keep_rounds(best);
    }
    Ok(model)
}

/// Reads an instance of a class of LightGBM.
pub(crate) fn read(view: View<'_>, limits: &Limits, depth: usize) -> Result<Estimator> {
    let class = view.class_name();
    let name = class.rsplit('.').next().unwrap_or_default();
    if name == "Booster" {
        return Ok(booster(view, limits)?.read().estimator());
    }
    let is_classifier = match name {
        "LGBMClassifier" => true,
        "LGBMRegressor" | "LGBMRanker" => false,
        _ => return Err(LoadError::unsupported(format!("{class} is not evaluated natively"))),
    };
    let inner = view.attr("_Booster").filter(|inner| !inner.is_none());
    let inner = inner.ok_or_else(|| LoadError::attribute(class.clone(), "it is not fitted: no _Booster"))?;
    let model = booster(inner, limits)?;
    let columns = (model.features, model.feature_names.clone());
    let report = (model.detail().to_owned(), model.row_cost_ns());
    let role = if is_classifier {
        classifier(view, &class, model)?
    } else {
        Role::Regressor(Box::new(Wrapped { model, classes: 0, has_probabilities: false }))
    };
    Ok(wrapped(class, depth, role, columns, report))
}

fn classifier(view: View<'_>, class: &str, model: Model) -> Result<Role> {
    if !model.has_probabilities() {
        return Err(LoadError::unsupported(format!("{class} with an objective that gives no probabilities")));
    }
    let classes = if model.is_binary() { 2 } else { model.groups() };
    let encoder = view.attr("_le").and_then(|encoder| encoder.attr("classes_"));
    let labels = match encoder.or(view.attr("_classes")).filter(|labels| !labels.is_none()) {
        Some(labels) => Labels::of(labels)
            .filter(|labels| labels.len() == classes)
            .ok_or_else(|| LoadError::attribute(class, "its classes do not fit the booster"))?,
        None => counted(classes),
    };
    Ok(Role::Classifier(Box::new(Wrapped { model, classes, has_probabilities: true }), labels))
}

impl Numbers for Model {
    fn probabilities(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        Model::probabilities(self, rows, out);
        Ok(())
    }

    fn targets(&self) -> usize {
        self.groups()
    }

    fn predict(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        Model::predict(self, rows, out);
        Ok(())
    }

    fn draw_probabilities(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Wire> {
        Model::draw_probabilities(self, sketch, rows)
    }

    fn draw_prediction(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Wire> {
        Model::draw_prediction(self, sketch, rows)
    }
}
