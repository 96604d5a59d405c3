//! Functions of one number with parameters, and their relatives: what networks put between their layers.
//!
//! Only `float` is taken; the functions without parameters, which have other types too, are in `math`.
//!
//! Not here: normalisations (`norm`), softmax (`reduce`).

use models::LoadError;

use super::attrs::Attrs;
use super::math::Pairs;
use super::post::logistic;
use super::value::{Failed, Value};
use super::window::floats;
use super::{Op, input, plain};

/// The operator of a node, if it is one of these.
pub(crate) fn operator(attrs: Attrs<'_>) -> Result<Option<Op>, LoadError> {
    let float = |name: &str, default: f32| attrs.float_or(name, default);
    Ok(Some(match attrs.node.op.as_str() {
        "LeakyRelu" => {
            let alpha = float("alpha", 0.01)?;
            each(move |x| if x < 0.0 { alpha * x } else { x })
        }
        "Elu" => {
            let alpha = float("alpha", 1.0)?;
            each(move |x| if x < 0.0 { alpha * x.exp_m1() } else { x })
        }
        "Celu" => {
            let alpha = float("alpha", 1.0)?;
            each(move |x| if x < 0.0 { alpha * (x / alpha).exp_m1() } else { x })
        }
        "Selu" => {
            let (alpha, gamma) = (float("alpha", 1.673_263_2)?, float("gamma", 1.050_701)?);
            each(move |x| if x <= 0.0 { gamma * alpha * x.exp_m1() } else { gamma * x })
        }
        "ThresholdedRelu" => {
            let alpha = float("alpha", 1.0)?;
            each(move |x| if x > alpha { x } else { 0.0 })
        }
        "HardSigmoid" => {
            let (alpha, beta) = (float("alpha", 0.2)?, float("beta", 0.5)?);
            each(move |x| (alpha * x + beta).clamp(0.0, 1.0))
        }
        "HardSwish" => each(|x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0)),
        "Mish" => each(|x| x * (x.max(0.0) + (-x.abs()).exp().ln_1p()).tanh()),
        "Swish" => {
            let alpha = float("alpha", 1.0)?;
            each(move |x| x * logistic(alpha * x))
        }
        "Softsign" => each(|x| x / (1.0 + x.abs())),
        "Erf" => each(erf),
        "Gelu" => match attrs.text_or("approximate", "none")? {
            "none" => each(|x| 0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))),
            "tanh" => each(|x| {
                let inner = (2.0 / std::f32::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
                0.5 * x * (1.0 + inner.tanh())
            }),
            other => return Err(attrs.error(format!("approximate {other:?}"))),
        },
        "PRelu" => plain(|inputs, budget| {
            let (x, slope) = (input(inputs, 0)?, input(inputs, 1)?);
            let pairs = Pairs::of(&x.dims, &slope.dims, budget)?;
            let (cells, slopes) = (floats(x)?, floats(slope)?);
            let bend = |(i, j): (usize, usize)| if cells[i] < 0.0 { cells[i] * slopes[j] } else { cells[i] };
            let cells = pairs.places().map(bend).collect();
            Ok(vec![Value::f32s(&pairs.dims, cells)])
        }),
        _ => return Ok(None),
    }))
}

fn each(of: impl Fn(f32) -> f32 + Send + Sync + 'static) -> Op {
    plain(move |inputs, budget| -> Result<Vec<Value>, Failed> {
        let x = input(inputs, 0)?;
        budget.claim(&x.dims)?;
        Ok(vec![Value::f32s(&x.dims, floats(x)?.iter().map(|x| of(*x)).collect())])
    })
}

/// The error function by the formula 7.1.26 of Abramowitz and Stegun: 1.5e-7 from the truth at most, as near as `float` tells.
fn erf(x: f32) -> f32 {
    let z = f64::from(x.abs());
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let factors = [1.061_405_429, -1.453_152_027, 1.421_413_741, -0.284_496_736, 0.254_829_592];
    let rest = factors.iter().fold(0.0, |sum, factor| (sum + factor) * t);
    let value = (1.0 - rest * (-z * z).exp()) as f32;
    if x < 0.0 { -value } else { value }
}

#[cfg(test)]
mod tests {
    use super::erf;

    #[test]
    fn the_error_function_is_that_of_tables() {
        let table = [
            (1e-9, 0.0),
            (0.1, 0.112_462_92),
            (0.5, 0.520_499_9),
            (1.0, 0.842_700_8),
            (1.5, 0.966_105_16),
            (1.999, 0.995_301_6),
            (2.001, 0.995_342_9),
            (2.5, 0.999_593),
            (3.0, 0.999_977_9),
            (10.0, 1.0),
        ];
        for (x, y) in table {
            assert!((erf(x) - y).abs() < 3e-7, "erf({x}) = {}", erf(x));
            assert_eq!(erf(-x), -erf(x));
        }
        assert!(erf(f32::NAN).is_nan());
    }
}
