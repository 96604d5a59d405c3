//! Functions of one number with parameters, and their relatives: what networks put between their layers.
//!
//! Only `float` is taken; the functions without parameters, which have other types too, are in `math`.
//!
//! Not here: normalisations (`norm`), softmax (`reduce`).

use models::LoadError;

use super::attrs::Attrs;
use super::functions::{erfs, gelus, gelus_near, swishes};
use super::math::Pairs;
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
            whole(move |cells| swishes(cells, alpha))
        }
        "Softsign" => each(|x| x / (1.0 + x.abs())),
        "Erf" => whole(erfs),
        "Gelu" => match attrs.text_or("approximate", "none")? {
            "none" => whole(gelus),
            "tanh" => whole(gelus_near),
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
    whole(move |cells| cells.iter().map(|x| of(*x)).collect())
}

/// All cells at once.
fn whole(of: impl Fn(&[f32]) -> Vec<f32> + Send + Sync + 'static) -> Op {
    plain(move |inputs, budget| -> Result<Vec<Value>, Failed> {
        let x = input(inputs, 0)?;
        budget.claim(&x.dims)?;
        Ok(vec![Value::f32s(&x.dims, of(floats(x)?))])
    })
}
