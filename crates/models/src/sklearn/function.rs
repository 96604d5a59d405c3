//! Functions applied to every value: `FunctionTransformer` with numpy's own, and `PowerTransformer`.
//!
//! Not here: functions of the user's, which are code and are refused.

use super::attrs::Attrs;
use super::{Evaluated, Read, Role, Rows, Transform, check_finite};
use crate::error::Result;
use crate::graph::{Node, View};
use crate::sketch::{Binary, Drawn, Frame, Sketch, Unary, Wire, undrawn};

struct Function {
    function: fn(f64) -> f64,
    /// numpy's name of it; empty for none.
    name: String,
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

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Frame> {
        if self.name.is_empty() {
            return Ok(rows.clone());
        }
        let table = rows.table(sketch)?;
        Ok(Frame::Numbers(draw_named(sketch, &self.name, table)?, self.width))
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

/// numpy's function of this name, drawn.
fn draw_named(sketch: &mut Sketch, name: &str, x: Wire) -> Drawn<Wire> {
    let log_by = |sketch: &mut Sketch, base: f64| {
        let log = sketch.unary(Unary::Log, x);
        let by = sketch.number(base.ln());
        sketch.divide(log, by)
    };
    Ok(match name {
        "abs" | "absolute" => sketch.unary(Unary::Absolute, x),
        "square" => sketch.multiply(x, x),
        "sqrt" => sketch.unary(Unary::Root, x),
        "log" => sketch.unary(Unary::Log, x),
        "log1p" => sketch.log_1p(x),
        "log2" => log_by(sketch, 2.0),
        "log10" => log_by(sketch, 10.0),
        "exp" => sketch.unary(Unary::Exp, x),
        "expm1" => sketch.exp_m1(x),
        "sin" => sketch.unary(Unary::Sine, x),
        "cos" => sketch.unary(Unary::Cosine, x),
        "tan" => {
            let (sine, cosine) = (sketch.unary(Unary::Sine, x), sketch.unary(Unary::Cosine, x));
            sketch.divide(sine, cosine)
        }
        "tanh" => sketch.unary(Unary::Tanh, x),
        "reciprocal" => {
            let one = sketch.number(1.0);
            sketch.divide(one, x)
        }
        "cbrt" => {
            let (size, third) = (sketch.unary(Unary::Absolute, x), sketch.number(1.0 / 3.0));
            let root = sketch.binary(Binary::Power, size, third);
            let sign = sketch.unary(Unary::Sign, x);
            sketch.multiply(root, sign)
        }
        other => return undrawn(format!("FunctionTransformer's numpy.{other}")),
    })
}

pub(super) fn function(attrs: &Attrs<'_>) -> Result<Read> {
    let width = attrs.features()?;
    let arguments = attrs.opt("kw_args").is_some_and(|args| args.pairs().next().is_some());
    let mut name = String::new();
    let function: fn(f64) -> f64 = match attrs.opt("func").map(View::node) {
        None => |x| x,
        Some(Node::Global(global)) if global.module.starts_with("numpy") && !arguments => {
            global.name.as_ref().clone_into(&mut name);
            named(&global.name).ok_or_else(|| attrs.unsupported(&format!("func={global}")))?
        }
        Some(_) => return Err(attrs.unsupported("a function that is not numpy's")),
    };
    let role = Role::Transformer(Box::new(Function { function, name, width }));
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

/// `(e^(lambda log) - 1) / lambda`, and its limit where a lambda is nearly zero.
fn draw_power(sketch: &mut Sketch, log: Wire, lambdas: &[f64], near: f64) -> Wire {
    let is_limit = |lambda: &f64| lambda.abs() < near || *lambda == 0.0;
    let safe: Vec<f64> = lambdas.iter().map(|lambda| if is_limit(lambda) { 1.0 } else { *lambda }).collect();
    let flags: Vec<f64> = lambdas.iter().map(|lambda| f64::from(u8::from(is_limit(lambda)))).collect();
    let safe = sketch.row(&safe);
    let power = sketch.multiply(log, safe);
    let power = sketch.exp_m1(power);
    let power = sketch.divide(power, safe);
    let flags = sketch.row(&flags);
    let limits = sketch.test(Binary::Greater, flags, 0.5);
    sketch.choose(limits, log, power)
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

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Frame> {
        let x = rows.table(sketch)?;
        let mut made = if self.is_box_cox {
            let log = sketch.unary(Unary::Log, x);
            draw_power(sketch, log, &self.lambdas, 0.0)
        } else {
            let is_positive = sketch.test(Binary::AtLeast, x, 0.0);
            let zero = sketch.number(0.0);
            let (up, down) = (sketch.choose(is_positive, x, zero), sketch.choose(is_positive, zero, x));
            let (up, down) = (sketch.log_1p(up), sketch.unary(Unary::Negative, down));
            let down = sketch.log_1p(down);
            let mirrored: Vec<f64> = self.lambdas.iter().map(|lambda| 2.0 - lambda).collect();
            let up = draw_power(sketch, up, &self.lambdas, f64::EPSILON);
            let down = draw_power(sketch, down, &mirrored, f64::EPSILON);
            let down = sketch.unary(Unary::Negative, down);
            sketch.choose(is_positive, up, down)
        };
        if let Some((means, scales)) = &self.standard {
            let (means, scales) = (sketch.row(means), sketch.row(scales));
            let centred = sketch.subtract(made, means);
            made = sketch.divide(centred, scales);
        }
        Ok(Frame::Numbers(made, self.lambdas.len()))
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
