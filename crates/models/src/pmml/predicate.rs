//! Predicates: true, false, or unknown because a value is missing.
//!
//! Not here: what a tree does with the unknown (`tree`).

use super::fields::{Kind, Scope};
use super::xml::{El, array};
use crate::error::Result;

/// How a value is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A predicate over a row's cells.
pub(super) enum Predicate {
    True,
    False,
    Compare { slot: usize, op: Op, value: f64 },
    Missing { slot: usize, is: bool },
    Set { slot: usize, values: Box<[f64]>, inside: bool },
    All(Vec<Predicate>),
    Any(Vec<Predicate>),
    Xor(Vec<Predicate>),
    Surrogate(Vec<Predicate>),
}

impl Predicate {
    /// Whether elements of this name are predicates.
    pub(super) fn is(el: El<'_>) -> bool {
        matches!(el.name(), "True" | "False" | "SimplePredicate" | "SimpleSetPredicate" | "CompoundPredicate")
    }

    pub(super) fn read(el: El<'_>, scope: &mut Scope<'_>) -> Result<Self> {
        match el.name() {
            "True" => Ok(Self::True),
            "False" => Ok(Self::False),
            "SimplePredicate" => simple(el, scope),
            "SimpleSetPredicate" => set(el, scope),
            "CompoundPredicate" => {
                let parts = el.children().map(|part| Self::read(part, scope)).collect::<Result<Vec<_>>>()?;
                match el.need("booleanOperator")? {
                    "and" => Ok(Self::All(parts)),
                    "or" => Ok(Self::Any(parts)),
                    "xor" => Ok(Self::Xor(parts)),
                    "surrogate" => Ok(Self::Surrogate(parts)),
                    other => Err(el.refuse_value("booleanOperator", other)),
                }
            }
            _ => Err(el.refuse()),
        }
    }

    /// `None` is unknown.
    pub(super) fn holds(&self, cells: &[f64]) -> Option<bool> {
        let known = |slot: usize| Some(cells[slot]).filter(|value| !value.is_nan());
        match self {
            Self::True => Some(true),
            Self::False => Some(false),
            Self::Compare { slot, op, value } => known(*slot).map(|own| match op {
                Op::Equal => own == *value,
                Op::NotEqual => own != *value,
                Op::Less => own < *value,
                Op::LessOrEqual => own <= *value,
                Op::Greater => own > *value,
                Op::GreaterOrEqual => own >= *value,
            }),
            Self::Missing { slot, is } => Some(cells[*slot].is_nan() == *is),
            Self::Set { slot, values, inside } => known(*slot).map(|own| values.contains(&own) == *inside),
            Self::All(parts) => decided(parts, cells, false),
            Self::Any(parts) => decided(parts, cells, true),
            Self::Xor(parts) => parts.iter().try_fold(false, |is, part| Some(is ^ part.holds(cells)?)),
            Self::Surrogate(parts) => parts.iter().find_map(|part| part.holds(cells)),
        }
    }
}

/// `by` decides as soon as one part says it; else all have to be known.
fn decided(parts: &[Predicate], cells: &[f64], by: bool) -> Option<bool> {
    let mut is_known = true;
    for part in parts {
        match part.holds(cells) {
            Some(is) if is == by => return Some(by),
            Some(_) => {}
            None => is_known = false,
        }
    }
    is_known.then_some(!by)
}

fn simple(el: El<'_>, scope: &mut Scope<'_>) -> Result<Predicate> {
    let slot = scope.slot(el, el.need("field")?)?;
    let operator = el.need("operator")?;
    let op = match operator {
        "isMissing" | "isNotMissing" => {
            return Ok(Predicate::Missing { slot, is: operator == "isMissing" });
        }
        "equal" => Op::Equal,
        "notEqual" => Op::NotEqual,
        "lessThan" => Op::Less,
        "lessOrEqual" => Op::LessOrEqual,
        "greaterThan" => Op::Greater,
        "greaterOrEqual" => Op::GreaterOrEqual,
        other => return Err(el.refuse_value("operator", other)),
    };
    let kind = scope.slots[slot];
    if matches!(kind, Kind::Text(_)) && !matches!(op, Op::Equal | Op::NotEqual) {
        return Err(el.error(format!("{operator} compares texts")));
    }
    let value = scope.encode(el, kind, el.need("value")?)?;
    Ok(Predicate::Compare { slot, op, value })
}

fn set(el: El<'_>, scope: &mut Scope<'_>) -> Result<Predicate> {
    let slot = scope.slot(el, el.need("field")?)?;
    let inside = match el.need("booleanOperator")? {
        "isIn" => true,
        "isNotIn" => false,
        other => return Err(el.refuse_value("booleanOperator", other)),
    };
    let list = el.child("Array").ok_or_else(|| el.error("it has no Array"))?;
    let kind = scope.slots[slot];
    let values = array(list)?.iter().map(|text| scope.encode(list, kind, text)).collect::<Result<_>>()?;
    Ok(Predicate::Set { slot, values, inside })
}
