//! What becomes of a number that a model predicts: bounds, a scale, whole numbers.
//!
//! Not here: the models.

use super::xml::El;
use crate::error::Result;

/// A `Target`.
pub(super) struct Rescale {
    min: f64,
    max: f64,
    factor: f64,
    constant: f64,
    cast: Option<Cast>,
    /// What stands for a prediction that is missing.
    default: f64,
}

#[derive(Clone, Copy)]
enum Cast {
    Round,
    Ceiling,
    Floor,
}

impl Rescale {
    /// Reads the `Targets` of a regression.
    pub(super) fn read(targets: El<'_>) -> Result<Option<Self>> {
        let mut all = targets.children();
        let Some(el) = all.next() else { return Ok(None) };
        if el.name() != "Target" {
            return Err(el.refuse());
        }
        if let Some(second) = all.next() {
            return Err(second.refuse());
        }
        let cast = match el.attr("castInteger") {
            None => None,
            Some("round") => Some(Cast::Round),
            Some("ceiling") => Some(Cast::Ceiling),
            Some("floor") => Some(Cast::Floor),
            Some(other) => return Err(el.refuse_value("castInteger", other)),
        };
        let mut default = f64::NAN;
        for value in el.children() {
            if value.name() != "TargetValue" {
                return Err(value.refuse());
            }
            default = value.float("defaultValue")?.unwrap_or(default);
        }
        Ok(Some(Self {
            min: el.float("min")?.unwrap_or(f64::NEG_INFINITY),
            max: el.float("max")?.unwrap_or(f64::INFINITY),
            factor: el.float("rescaleFactor")?.unwrap_or(1.0),
            constant: el.float("rescaleConstant")?.unwrap_or(0.0),
            cast,
            default,
        }))
    }

    pub(super) fn apply(&self, number: f64, is_float: bool) -> f64 {
        let number = if number.is_nan() { self.default } else { number };
        if number.is_nan() {
            return number;
        }
        let number = number.max(self.min).min(self.max);
        let number = hold(number * hold(self.factor, is_float), is_float);
        let number = hold(number + hold(self.constant, is_float), is_float);
        match self.cast {
            None => number,
            // Halves go up, as Java rounds.
            Some(Cast::Round) => (number + 0.5).floor(),
            Some(Cast::Ceiling) => number.ceil(),
            Some(Cast::Floor) => number.floor(),
        }
    }
}

/// The number in the precision of the model's arithmetic.
pub(super) fn hold(number: f64, is_float: bool) -> f64 {
    if is_float { f64::from(number as f32) } else { number }
}
