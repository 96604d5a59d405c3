//! `Resize`: nearest cells, or lines between them, along any axes.
//!
//! Axis by axis: each one becomes a weighted sum of at most two cells of the axis before.
//!
//! Not here: cubic curves, antialiasing and crops, which are refused by the node's name.

use models::LoadError;

use super::attrs::Attrs;
use super::reduce::axis_of;
use super::value::{Failed, Value};
use super::window::floats;
use super::{Op, input, plain};

#[derive(Debug, Clone, Copy)]
enum Place {
    HalfPixel,
    HalfPixelTorch,
    Asymmetric,
    AlignCorners,
}

#[derive(Debug, Clone, Copy)]
enum Round {
    PreferFloor,
    PreferCeil,
    Floor,
    Ceil,
}

impl Place {
    /// The place in an axis of `from` cells that cell `at` of `to` cells stands for.
    fn of(self, at: usize, from: usize, to: usize, scale: f64) -> f64 {
        let at = at as f64;
        match self {
            Self::HalfPixelTorch if to == 1 => 0.0,
            Self::HalfPixel | Self::HalfPixelTorch => (at + 0.5) / scale - 0.5,
            Self::Asymmetric => at / scale,
            Self::AlignCorners if to == 1 => 0.0,
            Self::AlignCorners => at * (from - 1) as f64 / (to - 1) as f64,
        }
    }
}

impl Round {
    fn of(self, x: f64) -> f64 {
        match self {
            Self::PreferFloor => (x - 0.5).ceil(),
            Self::PreferCeil => (x + 0.5).floor(),
            Self::Floor => x.floor(),
            Self::Ceil => x.ceil(),
        }
    }
}

/// The operator of a node, if it is this one.
pub(crate) fn operator(attrs: Attrs<'_>, opset: i64) -> Result<Option<Op>, LoadError> {
    if attrs.node.op != "Resize" {
        return Ok(None);
    }
    let linear = match attrs.text_or("mode", "nearest")? {
        "nearest" => false,
        "linear" => true,
        other => return Err(attrs.unsupported(format!("the mode {other:?}"))),
    };
    let default = if opset < 11 { "asymmetric" } else { "half_pixel" };
    let place = match attrs.text_or("coordinate_transformation_mode", default)? {
        "half_pixel" => Place::HalfPixel,
        "pytorch_half_pixel" => Place::HalfPixelTorch,
        "asymmetric" => Place::Asymmetric,
        "align_corners" => Place::AlignCorners,
        other => return Err(attrs.unsupported(format!("the places {other:?}"))),
    };
    let default = if opset < 11 { "floor" } else { "round_prefer_floor" };
    let round = match attrs.text_or("nearest_mode", default)? {
        "round_prefer_floor" => Round::PreferFloor,
        "round_prefer_ceil" => Round::PreferCeil,
        "floor" => Round::Floor,
        "ceil" => Round::Ceil,
        other => return Err(attrs.error(format!("nearest_mode {other:?}"))),
    };
    let stretch = attrs.text_or("keep_aspect_ratio_policy", "stretch")? == "stretch";
    if attrs.int_or("antialias", 0)? != 0 || !stretch {
        return Err(attrs.unsupported("antialias or a kept aspect ratio"));
    }
    let axes = attrs.ints("axes")?.to_vec();
    let (scales_at, sizes_at) = if opset < 11 { (1, 4) } else { (2, 3) };
    Ok(Some(plain(move |inputs, budget| {
        let x = input(inputs, 0)?;
        let axes = match axes.as_slice() {
            [] => (0..x.dims.len()).collect::<Vec<_>>(),
            axes => axes.iter().map(|axis| axis_of(*axis, x.dims.len())).collect::<Result<_, _>>()?,
        };
        let given = |at: usize| inputs.get(at).copied().flatten().filter(|value| value.count() > 0);
        let wanted = wanted(x, &axes, given(scales_at), given(sizes_at))?;
        let mut value = x.clone();
        for (axis, (to, scale)) in axes.iter().zip(wanted) {
            let from = value.dims[*axis];
            if from == to && scale == 1.0 {
                continue;
            }
            let mut dims = value.dims.clone();
            dims[*axis] = to;
            budget.claim(&dims)?;
            let weigh = |at: usize| weights(place.of(at, from, to, scale), from, linear, round);
            value = along(&value, *axis, &(0..to).map(weigh).collect::<Vec<_>>())?;
        }
        Ok(vec![value])
    })))
}

/// Size and scale of each axis.
fn wanted(
    x: &Value,
    axes: &[usize],
    scales: Option<&Value>,
    sizes: Option<&Value>,
) -> Result<Vec<(usize, f64)>, Failed> {
    let fits = |list: &Value| {
        if list.count() == axes.len() {
            Ok(())
        } else {
            Err(format!("{} sizes for {} axes", list.count(), axes.len()))
        }
    };
    if axes.iter().any(|axis| x.dims[*axis] == 0) {
        return Err(format!("no cells in {:?}", x.dims));
    }
    match (scales, sizes) {
        (_, Some(sizes)) => {
            fits(sizes)?;
            let size = |(axis, size): (&usize, &i64)| {
                let size = usize::try_from(*size).ok().filter(|size| (1..=1 << 24).contains(size));
                let size = size.ok_or_else(|| "a size out of range".to_owned())?;
                Ok((size, size as f64 / x.dims[*axis] as f64))
            };
            axes.iter().zip(sizes.to_ints()?.iter()).map(size).collect()
        }
        (Some(scales), None) => {
            fits(scales)?;
            let size = |(axis, scale): (&usize, &f64)| {
                let size = (x.dims[*axis] as f64 * scale).floor();
                let fits = (1.0..=16_777_216.0).contains(&size);
                if fits { Ok((size as usize, *scale)) } else { Err(format!("a scale of {scale}")) }
            };
            axes.iter().zip(scales.to_f64s()?.iter()).map(size).collect()
        }
        (None, None) => Err("it has neither scales nor sizes".into()),
    }
}

/// Two cells and the second one's share.
type Blend = (usize, usize, f32);

fn weights(at: f64, from: usize, linear: bool, round: Round) -> Blend {
    let last = (from - 1) as f64;
    if !linear {
        let cell = round.of(at).clamp(0.0, last) as usize;
        return (cell, cell, 0.0);
    }
    let at = at.clamp(0.0, last);
    let low = at.floor();
    (low as usize, (low + 1.0).min(last) as usize, (at - low) as f32)
}

fn along(value: &Value, axis: usize, blends: &[Blend]) -> Result<Value, Failed> {
    let mut dims = value.dims.clone();
    dims[axis] = blends.len();
    let inner: usize = value.dims[axis + 1..].iter().product();
    let size = value.dims[axis] * inner;
    if size == 0 {
        return Err(format!("no cells in {:?}", value.dims));
    }
    let mut out = Vec::with_capacity(dims.iter().product());
    for group in floats(value)?.chunks_exact(size) {
        for (low, high, share) in blends {
            let (low, high) = (&group[low * inner..][..inner], &group[high * inner..][..inner]);
            if *share == 0.0 {
                out.extend_from_slice(low);
            } else {
                out.extend(low.iter().zip(high).map(|(a, b)| a * (1.0 - share) + b * share));
            }
        }
    }
    Ok(Value::f32s(&dims, out))
}
