//! Pickles of the wrappers with scikit-learn's interface: the `.cbm` file lies in an attribute.
//!
//! Not here: the model itself (`model`).

use super::model::Model;
use crate::booster::wrapped;
use crate::error::{LoadError, Result};
use crate::graph::{Node, View};
use crate::limits::Limits;
use crate::sklearn::{Estimator, Role};

/// Reads an instance of a class of CatBoost.
pub(crate) fn read(view: View<'_>, limits: &Limits, depth: usize) -> Result<Estimator> {
    let class = view.class_name();
    let bytes = match view.attr("__model").map(View::node) {
        Some(Node::Bytes(bytes)) => bytes,
        _ => return Err(LoadError::attribute(class, "it is not fitted: no __model")),
    };
    if !bytes.starts_with(b"CBM1") {
        return Err(LoadError::attribute(class, "__model is no cbm file"));
    }
    let model = Model::new(super::cbm::read(bytes, limits)?)?;
    let report = (model.detail().to_owned(), model.row_cost_ns());
    let (columns, flow) = (model.columns(), model.flow());
    let role = match class.rsplit('.').next().unwrap_or_default() {
        "CatBoostClassifier" => match model.labels().cloned() {
            Some(labels) => Role::Classifier(Box::new(model), labels),
            None => return Err(LoadError::unsupported(format!("{class} of several labels at once"))),
        },
        "CatBoostRegressor" | "CatBoostRanker" => Role::Regressor(Box::new(model)),
        "CatBoost" => Role::Booster(Box::new(model)),
        _ => return Err(LoadError::unsupported(format!("{class} is not evaluated natively"))),
    };
    let mut estimator = wrapped(class, depth, role, columns, report);
    estimator.flow = flow;
    Ok(estimator)
}
