//! Normalisations: by stored moments, or by the moments of the cells themselves.
//!
//! Moments are summed in `double`: what ONNX Runtime sums in blocks of `float` comes out the same to its last bits.
//!
//! Not here: sums as operators (`reduce`).

use models::LoadError;

use super::attrs::Attrs;
use super::reduce::axis_of;
use super::value::{Failed, Value};
use super::window::{floats, image};
use super::{Op, input, plain};

/// The operator of a node, if it is one of these.
pub(crate) fn operator(attrs: Attrs<'_>) -> Result<Option<Op>, LoadError> {
    Ok(Some(match attrs.node.op.as_str() {
        "BatchNormalization" => stored(attrs)?,
        "LayerNormalization" => tail(attrs, true)?,
        "RMSNormalization" | "SimplifiedLayerNormalization" => tail(attrs, false)?,
        "InstanceNormalization" => grouped(attrs, None)?,
        "GroupNormalization" => {
            let groups = usize::try_from(attrs.int_or("num_groups", 0)?).ok().filter(|groups| *groups > 0);
            grouped(attrs, Some(groups.ok_or_else(|| attrs.error("num_groups"))?))?
        }
        "LRN" => across(attrs)?,
        _ => return Ok(None),
    }))
}

fn stored(attrs: Attrs<'_>) -> Result<Op, LoadError> {
    let epsilon = attrs.float_or("epsilon", 1e-5)?;
    if attrs.int_or("training_mode", 0)? != 0 || attrs.int_or("spatial", 1)? != 1 {
        return Err(attrs.unsupported("training_mode or spatial=0"));
    }
    Ok(plain(move |inputs, budget| {
        let x = input(inputs, 0)?;
        let &[_, channels, ref sizes @ ..] = x.dims.as_slice() else {
            return Err(format!("the shape {:?} where [batch, channels, ...] is needed", x.dims));
        };
        let of = |at: usize| -> Result<&[f32], Failed> {
            let cells = floats(input(inputs, at)?)?;
            if cells.len() == channels {
                Ok(cells)
            } else {
                Err(format!("input {at} is not for {channels} channels"))
            }
        };
        let (scale, bias, mean, variance) = (of(1)?, of(2)?, of(3)?, of(4)?);
        let factor: Vec<f32> =
            scale.iter().zip(variance).map(|(scale, variance)| scale / (variance + epsilon).sqrt()).collect();
        let shift: Vec<f32> = (0..channels).map(|at| bias[at] - mean[at] * factor[at]).collect();
        budget.claim(&x.dims)?;
        let size = sizes.iter().product::<usize>().max(1);
        let mut out = floats(x)?.to_vec();
        for (index, cells) in out.chunks_exact_mut(size).enumerate() {
            let at = index % channels;
            cells.iter_mut().for_each(|x| *x = *x * factor[at] + shift[at]);
        }
        Ok(vec![Value::f32s(&x.dims, out)])
    }))
}

/// The sum of a function of the cells, in some sums side by side.
fn sum(cells: &[f32], of: impl Fn(f64) -> f64) -> f64 {
    let mut sums = [0.0; 8];
    for cells in cells.chunks(8) {
        sums.iter_mut().zip(cells).for_each(|(sum, x)| *sum += of(f64::from(*x)));
    }
    sums.iter().sum()
}

/// Mean and one over the deviation.
fn moments(cells: &[f32], centred: bool, epsilon: f32) -> (f32, f32) {
    let count = cells.len() as f64;
    let mean = if centred { sum(cells, |x| x) / count } else { 0.0 };
    let square = sum(cells, |x| (x - mean) * (x - mean)) / count;
    (mean as f32, (1.0 / (square + f64::from(epsilon)).sqrt()) as f32)
}

fn tail(attrs: Attrs<'_>, centred: bool) -> Result<Op, LoadError> {
    let (axis, epsilon) = (attrs.int_or("axis", -1)?, attrs.float_or("epsilon", 1e-5)?);
    if attrs.node.outputs.iter().skip(1).any(|name| !name.is_empty()) {
        return Err(attrs.unsupported("outputs of mean or deviation"));
    }
    Ok(plain(move |inputs, budget| {
        let x = input(inputs, 0)?;
        let at = axis_of(axis, x.dims.len())?;
        let size = x.dims[at..].iter().product::<usize>().max(1);
        let scale = floats(input(inputs, 1)?)?;
        let bias = inputs.get(2).copied().flatten().map(floats).transpose()?;
        if scale.len() != size || bias.is_some_and(|bias| bias.len() != size) {
            return Err(format!("scale and bias are not for {size} cells"));
        }
        budget.claim(&x.dims)?;
        let mut out = floats(x)?.to_vec();
        for cells in out.chunks_exact_mut(size) {
            let (mean, by) = moments(cells, centred, epsilon);
            cells.iter_mut().zip(scale).for_each(|(x, scale)| *x = (*x - mean) * by * scale);
            if let Some(bias) = bias {
                cells.iter_mut().zip(bias).for_each(|(x, bias)| *x += bias);
            }
        }
        Ok(vec![Value::f32s(&x.dims, out)])
    }))
}

fn grouped(attrs: Attrs<'_>, groups: Option<usize>) -> Result<Op, LoadError> {
    let epsilon = attrs.float_or("epsilon", 1e-5)?;
    Ok(plain(move |inputs, budget| {
        let x = input(inputs, 0)?;
        let (_, channels, sizes) = image(x)?;
        let groups = groups.unwrap_or(channels);
        let (scale, bias) = (floats(input(inputs, 1)?)?, floats(input(inputs, 2)?)?);
        let known = scale.len() == bias.len() && (scale.len() == channels || scale.len() == groups);
        if groups == 0 || channels % groups != 0 || !known {
            return Err(format!("{groups} groups, {} scales for {channels} channels", scale.len()));
        }
        budget.claim(&x.dims)?;
        let size = sizes.iter().product::<usize>().max(1);
        let members = channels / groups;
        let mut out = floats(x)?.to_vec();
        for (index, cells) in out.chunks_exact_mut((size * members).max(1)).enumerate() {
            let group = index % groups;
            let (mean, by) = moments(cells, true, epsilon);
            for (member, cells) in cells.chunks_exact_mut(size).enumerate() {
                // Before opset 21 a group had one scale.
                let at = if scale.len() == channels { group * members + member } else { group };
                cells.iter_mut().for_each(|x| *x = (*x - mean) * by * scale[at] + bias[at]);
            }
        }
        Ok(vec![Value::f32s(&x.dims, out)])
    }))
}

/// Across channels, as AlexNet had it.
fn across(attrs: Attrs<'_>) -> Result<Op, LoadError> {
    let (alpha, beta) = (attrs.float_or("alpha", 1e-4)?, attrs.float_or("beta", 0.75)?);
    let bias = attrs.float_or("bias", 1.0)?;
    let width = usize::try_from(attrs.int_or("size", 0)?).ok().filter(|size| *size > 0);
    let width = width.ok_or_else(|| attrs.error("size"))?;
    Ok(plain(move |inputs, budget| {
        let x = input(inputs, 0)?;
        let (_, channels, sizes) = image(x)?;
        let size = sizes.iter().product::<usize>().max(1);
        let count = budget.claim(&x.dims)?;
        budget.plod(count, width.min(channels))?;
        let cells = floats(x)?;
        let place = |at: usize| {
            let (base, channel) = (at - at % (channels * size) + at % size, at / size % channels);
            let to = channel.saturating_add(width / 2).min(channels - 1);
            let near = channel.saturating_sub((width - 1) / 2)..=to;
            let square: f32 = near.map(|channel| cells[base + channel * size].powi(2)).sum();
            cells[at] / (bias + alpha / width as f32 * square).powf(beta)
        };
        Ok(vec![Value::f32s(&x.dims, (0..count).map(place).collect())])
    }))
}
