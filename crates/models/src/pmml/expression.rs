//! Derived fields: numbers made from other cells of the row.
//!
//! Known are references, constants, `NormContinuous`, `NormDiscrete` and `Apply` with arithmetic; other expressions
//! are refused by name. An expression of something missing is missing.
//!
//! Not here: what names mean (`fields`).

use super::fields::{Kind, Outliers, Scope, Treatment};
use super::xml::{El, short};
use crate::error::Result;
use crate::sklearn::Evaluated;

/// What fills a cell before a model looks at it.
pub(super) enum Step {
    Treat { from: usize, to: usize, treatment: Treatment, name: String },
    Derive { to: usize, kind: Kind, expr: Expr },
}

impl Step {
    pub(super) fn run(&self, cells: &mut [f64]) -> Evaluated {
        match self {
            Self::Treat { from, to, treatment, name } => cells[*to] = treatment.treat(cells[*from], name)?,
            Self::Derive { to, kind, expr } => {
                let value = expr.value(cells);
                // A number that its type cannot hold is none.
                cells[*to] = if value.is_nan() { value } else { kind.hold(value).unwrap_or(f64::NAN) };
            }
        }
        Ok(())
    }
}

/// An expression.
pub(super) enum Expr {
    Constant(f64),
    Cell {
        slot: usize,
        missing: f64,
    },
    /// A broken line through points.
    Norm {
        slot: usize,
        points: Vec<(f64, f64)>,
        outliers: Outliers,
        missing: f64,
    },
    /// 1 for one value, 0 for the others.
    Is {
        slot: usize,
        value: f64,
        missing: f64,
    },
    Apply {
        function: Function,
        args: Vec<Expr>,
        missing: f64,
    },
}

/// A built-in function.
#[derive(Debug, Clone, Copy)]
pub(super) enum Function {
    Add,
    Subtract,
    Multiply,
    Divide,
    Power,
    Min,
    Max,
    Exp,
    Ln,
    Log10,
    Sqrt,
    Abs,
}

impl Function {
    fn read(el: El<'_>, args: usize) -> Result<Self> {
        let name = el.need("function")?;
        let (function, wants) = match name {
            "+" => (Self::Add, 2..=2),
            "-" => (Self::Subtract, 2..=2),
            "*" => (Self::Multiply, 2..=2),
            "/" => (Self::Divide, 2..=2),
            "pow" => (Self::Power, 2..=2),
            "min" => (Self::Min, 1..=usize::MAX),
            "max" => (Self::Max, 1..=usize::MAX),
            "exp" => (Self::Exp, 1..=1),
            "ln" => (Self::Ln, 1..=1),
            "log10" => (Self::Log10, 1..=1),
            "sqrt" => (Self::Sqrt, 1..=1),
            "abs" => (Self::Abs, 1..=1),
            other => return Err(el.refuse_value("function", other)),
        };
        if !wants.contains(&args) {
            return Err(el.error(format!("{name} of {args} arguments")));
        }
        Ok(function)
    }

    fn of(self, args: &[f64]) -> f64 {
        let two = |of: fn(f64, f64) -> f64| args.iter().copied().reduce(of).unwrap_or(f64::NAN);
        let one = |of: fn(f64) -> f64| args.first().copied().map_or(f64::NAN, of);
        match self {
            Self::Add => two(|a, b| a + b),
            Self::Subtract => two(|a, b| a - b),
            Self::Multiply => two(|a, b| a * b),
            Self::Divide => two(|a, b| a / b),
            Self::Power => two(f64::powf),
            Self::Min => two(f64::min),
            Self::Max => two(f64::max),
            Self::Exp => one(f64::exp),
            Self::Ln => one(f64::ln),
            Self::Log10 => one(f64::log10),
            Self::Sqrt => one(f64::sqrt),
            Self::Abs => one(f64::abs),
        }
    }
}

impl Expr {
    /// Whether elements of this name are expressions, or would be.
    pub(super) fn read(el: El<'_>, scope: &mut Scope<'_>) -> Result<Self> {
        let missing = el.float("mapMissingTo")?.unwrap_or(f64::NAN);
        match el.name() {
            "Constant" => match el.attr("missing") {
                Some("true") => Ok(Self::Constant(f64::NAN)),
                _ => Ok(Self::Constant(el.number(&el.text())?)),
            },
            "FieldRef" => Ok(Self::Cell { slot: number(el, scope)?, missing }),
            "NormContinuous" => norm(el, scope, missing),
            "NormDiscrete" => {
                let slot = scope.slot(el, el.need("field")?)?;
                let value = scope.encode(el, scope.slots[slot], el.need("value")?)?;
                Ok(Self::Is { slot, value, missing })
            }
            "Apply" => {
                for name in ["defaultValue", "invalidValueTreatment"] {
                    if let Some(value) = el.attr(name).filter(|value| *value != "returnInvalid") {
                        return Err(el.refuse_value(name, value));
                    }
                }
                let args = el.children().map(|arg| Self::read(arg, scope)).collect::<Result<Vec<_>>>()?;
                Ok(Self::Apply { function: Function::read(el, args.len())?, args, missing })
            }
            _ => Err(el.refuse()),
        }
    }

    /// NaN is missing.
    pub(super) fn value(&self, cells: &[f64]) -> f64 {
        let or = |value: f64, missing: f64| if value.is_nan() { missing } else { value };
        match self {
            Self::Constant(value) => *value,
            Self::Cell { slot, missing } => or(cells[*slot], *missing),
            Self::Norm { slot, points, outliers, missing } => {
                or(line(points, *outliers, cells[*slot]), *missing)
            }
            Self::Is { slot, missing, .. } if cells[*slot].is_nan() => *missing,
            Self::Is { slot, value, .. } => f64::from(u8::from(cells[*slot] == *value)),
            Self::Apply { function, args, missing } => {
                let args: Vec<f64> = args.iter().map(|arg| arg.value(cells)).collect();
                if args.iter().any(|arg| arg.is_nan()) { *missing } else { function.of(&args) }
            }
        }
    }
}

/// The cell of a field that is numbers.
fn number(el: El<'_>, scope: &Scope<'_>) -> Result<usize> {
    let name = el.need("field")?;
    let slot = scope.slot(el, name)?;
    match scope.slots[slot] {
        Kind::Text(_) => Err(el.error(format!("the field {:?} is texts, not numbers", short(name)))),
        _ => Ok(slot),
    }
}

fn norm(el: El<'_>, scope: &Scope<'_>, missing: f64) -> Result<Expr> {
    let slot = number(el, scope)?;
    let mut points = Vec::new();
    for part in el.children() {
        if part.name() != "LinearNorm" {
            return Err(part.refuse());
        }
        let need = |name: &str| part.float(name)?.ok_or_else(|| part.error(format!("it has no {name}")));
        points.push((need("orig")?, need("norm")?));
    }
    let rises = points.windows(2).all(|pair| pair[0].0 < pair[1].0);
    if points.len() < 2 || !rises {
        return Err(el.error("it needs two LinearNorm or more, whose orig rises"));
    }
    Ok(Expr::Norm { slot, points, outliers: Outliers::read(el)?, missing })
}

fn line(points: &[(f64, f64)], outliers: Outliers, value: f64) -> f64 {
    let (first, last) = (points[0], points[points.len() - 1]);
    if value.is_nan() {
        return value;
    }
    let is_out = value < first.0 || value > last.0;
    match outliers {
        Outliers::Missing if is_out => return f64::NAN,
        Outliers::Extreme if is_out => return if value < first.0 { first.1 } else { last.1 },
        _ => {}
    }
    let above = points.iter().position(|point| value <= point.0).unwrap_or(points.len() - 1).max(1);
    let (low, high) = (points[above - 1], points[above]);
    low.1 + (value - low.0) / (high.0 - low.0) * (high.1 - low.1)
}

/// Reads the `DerivedField`s of transformations; each sees those before it.
pub(super) fn derive<'d>(all: El<'d>, scope: &mut Scope<'d>, steps: &mut Vec<Step>) -> Result<()> {
    for el in all.children() {
        if el.name() != "DerivedField" {
            return Err(el.refuse());
        }
        let name = el.need("name")?;
        let inner = el.children().find(|child| child.name() != "Value");
        let inner = inner.ok_or_else(|| el.error("it has no expression"))?;
        // A reference to texts is another name for them.
        if inner.name() == "FieldRef" && inner.attr("mapMissingTo").is_none() {
            let slot = scope.slot(inner, inner.need("field")?)?;
            if matches!(scope.slots[slot], Kind::Text(_)) && el.attr("dataType") == Some("string") {
                scope.alias(name, slot);
                continue;
            }
        }
        let expr = Expr::read(inner, scope)?;
        let kind = scope.kind(el)?;
        if matches!(kind, Kind::Text(_)) {
            return Err(el.refuse_value("dataType", "string"));
        }
        let to = scope.add(name, kind);
        steps.push(Step::Derive { to, kind, expr });
    }
    Ok(())
}
