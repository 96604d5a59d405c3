//! Functions applied to every value: `FunctionTransformer` with numpy's own, and `PowerTransformer`.
//!
//! Not here: functions of the user's, which are code and are refused.

use super::attrs::Attrs;
use super::{Evaluated, Read, Role, Rows, Transform, check_finite};
use crate::error::Result;
use crate::graph::{Node, View};

struct Function {
    function: fn(f64) -> f64,
    width: usize,
}

impl Transform for Function {
    fn width_out(&self) -> usize {
        self.width
    }

    fn transform(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        out.iter_mut().zip(rows.data).for_each(|(slot, x)| *slot = (self.function)(*x));
        Ok(())
    }
}

/// numpy's function of this name.
fn named(name: &str) -> Option<fn(f64) -> f64> {
    let function: fn(f64) -> f64 = match name {
        "abs" | "absolute" => f64::abs,
        "square" => |x| x * x,
        "sqrt" => f64::sqrt,
        "log" => f64::ln,
        "log1p" => f64::ln_1p,
        "log2" => f64::log2,
        "log10" => f64::log10,
        "exp" => f64::exp,
        "expm1" => f64::exp_m1,
        "sin" => f64::sin,
        "cos" => f64::cos,
        "tan" => f64::tan,
        "tanh" => f64::tanh,
        "reciprocal" => |x| 1.0 / x,
        "cbrt" => f64::cbrt,
        _ => return None,
    };
    Some(function)
}

pub(super) fn function(attrs: &Attrs<'_>) -> Result<Read> {
    let width = attrs.features()?;
    let arguments = attrs.opt("kw_args").is_some_and(|args| args.pairs().next().is_some());
    let function: fn(f64) -> f64 = match attrs.opt("func").map(View::node) {
        None => |x| x,
        Some(Node::Global(global)) if global.module.starts_with("numpy") && !arguments => {
            named(&global.name).ok_or_else(|| attrs.unsupported(&format!("func={global}")))?
        }
        Some(_) => return Err(attrs.unsupported("a function that is not numpy's")),
    };
    let role = Role::Transformer(Box::new(Function { function, width }));
    Ok(Read::new(role, format!("{width} columns"), width as u64 * 10))
}

struct Power {
    lambdas: Vec<f64>,
    is_box_cox: bool,
    /// Means and scales of a `StandardScaler` behind it.
    standard: Option<(Vec<f64>, Vec<f64>)>,
}

/// Yeo and Johnson (2000), with the limits that the library switches to.
fn yeo_johnson(x: f64, lambda: f64) -> f64 {
    if x.is_nan() {
        x
    } else if x >= 0.0 {
        if lambda.abs() < f64::EPSILON { x.ln_1p() } else { (lambda * x.ln_1p()).exp_m1() / lambda }
    } else if (lambda - 2.0).abs() < f64::EPSILON {
        -(-x).ln_1p()
    } else {
        -((2.0 - lambda) * (-x).ln_1p()).exp_m1() / (2.0 - lambda)
    }
}

fn box_cox(x: f64, lambda: f64) -> f64 {
    if lambda == 0.0 { x.ln() } else { (lambda * x.ln()).exp_m1() / lambda }
}

impl Transform for Power {
    fn width_out(&self) -> usize {
        self.lambdas.len()
    }

    fn transform(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        check_finite(rows, true)?;
        for (row, out) in rows.iter().zip(out.chunks_exact_mut(self.lambdas.len().max(1))) {
            for (column, (slot, x)) in out.iter_mut().zip(row).enumerate() {
                let lambda = self.lambdas[column];
                *slot = if self.is_box_cox { box_cox(*x, lambda) } else { yeo_johnson(*x, lambda) };
                if let Some((means, scales)) = &self.standard {
                    *slot = (*slot - means[column]) / scales[column];
                }
            }
        }
        Ok(())
    }
}

pub(super) fn power(attrs: &Attrs<'_>) -> Result<Read> {
    let width = attrs.features()?;
    let is_box_cox = match attrs.text("method")? {
        "box-cox" => true,
        "yeo-johnson" => false,
        other => return Err(attrs.unsupported(&format!("method={other:?}"))),
    };
    let standard = match attrs.truth_or("standardize", true) {
        true => {
            let scaler = Attrs::new(attrs.req("_scaler")?)?;
            Some((scaler.column_floats("mean_", width)?, scaler.column_floats("scale_", width)?))
        }
        false => None,
    };
    let lambdas = attrs.column_floats("lambdas_", width)?;
    let role = Role::Transformer(Box::new(Power { lambdas, is_box_cox, standard }));
    Ok(Read::new(role, format!("{width} columns"), width as u64 * 30))
}
