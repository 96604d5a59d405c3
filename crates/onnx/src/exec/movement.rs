//! Operators that move, cut, repeat or retype cells.
//!
//! Not here: arithmetic (`math`, `reduce`).

use std::sync::Arc;

use models::LoadError;

use super::attrs::Attrs;
use super::math::narrow;
use super::reduce::axis_of;
use super::value::{Budget, Cells, Failed, Value};
use super::{Op, input, plain};
use crate::proto::{Attr, Elem};

/// The operator of a node, if it is one of these.
pub(crate) fn operator(attrs: Attrs<'_>, opset: i64) -> Result<Option<Op>, LoadError> {
    Ok(Some(match attrs.node.op.as_str() {
        "Identity" => plain(|inputs, _| Ok(vec![input(inputs, 0)?.clone()])),
        // At inference nothing is dropped; the mask, if it is asked for, is all true.
        "Dropout" => plain(|inputs, _| {
            let value = input(inputs, 0)?;
            Ok(vec![value.clone(), Value::truths(&value.dims, vec![true; value.count()])])
        }),
        "Constant" => constant(attrs)?,
        "Cast" => cast_to(attrs)?,
        "Reshape" => reshape(attrs)?,
        "Flatten" => flatten(attrs)?,
        "Squeeze" => squeeze(attrs)?,
        "Unsqueeze" => unsqueeze(attrs)?,
        "Transpose" => transpose(attrs)?,
        "Concat" => concat(attrs)?,
        "Gather" => gather(attrs)?,
        "Slice" => slice(attrs, opset)?,
        "Split" => split(attrs)?,
        "Expand" => plain(|inputs, budget| Ok(vec![expand(input(inputs, 0)?, input(inputs, 1)?, budget)?])),
        "Tile" => plain(|inputs, budget| Ok(vec![tile(input(inputs, 0)?, input(inputs, 1)?, budget)?])),
        "Shape" => shape(attrs)?,
        "ConstantOfShape" => filled(attrs)?,
        _ => return Ok(None),
    }))
}

fn constant(attrs: Attrs<'_>) -> Result<Op, LoadError> {
    let value = match attrs.node.attrs.first() {
        Some((name, Attr::Tensor(_))) => attrs.tensor(name)?,
        Some((_, Attr::Float(x))) => Some(Value::f32s(&[], vec![*x])),
        Some((_, Attr::Int(x))) => Some(Value::ints(&[], vec![*x])),
        Some((_, Attr::Floats(x))) => Some(Value::f32s(&[x.len()], x.clone())),
        Some((_, Attr::Ints(x))) => Some(Value::ints(&[x.len()], x.clone())),
        Some((name, Attr::Texts(_))) => {
            attrs.texts(name).map(|texts| Some(Value::texts(&[texts.len()], texts)))?
        }
        _ => None,
    };
    let value = value.ok_or_else(|| attrs.error("it has no value"))?;
    Ok(plain(move |_, _| Ok(vec![value.clone()])))
}

fn cast_to(attrs: Attrs<'_>) -> Result<Op, LoadError> {
    let to = Elem(i32::try_from(attrs.int_or("to", 0)?).unwrap_or(-1));
    if !matches!(to.0, 1..=9 | 11..=13) {
        return Err(attrs.unsupported(format!("a cast to {}", to.name())));
    }
    Ok(plain(move |inputs, _| Ok(vec![cast(input(inputs, 0)?, to)?])))
}

/// The cells as another type.
pub(crate) fn cast(value: &Value, to: Elem) -> Result<Value, Failed> {
    let cells = match to {
        Elem::F32 => match &value.cells {
            Cells::Text(cells) => Cells::F32(parsed(cells)?),
            _ => Cells::F32(value.to_f32s()?.into_owned()),
        },
        Elem::F64 => match &value.cells {
            Cells::Text(cells) => Cells::F64(parsed(cells)?),
            _ => Cells::F64(value.to_f64s()?.into_owned()),
        },
        Elem::BOOL => match &value.cells {
            Cells::Bool(cells) => Cells::Bool(cells.clone()),
            _ => Cells::Bool(value.to_f64s()?.iter().map(|x| *x != 0.0).collect()),
        },
        Elem::TEXT => Cells::Text(shown(&value.cells)),
        whole => Cells::Int(match &value.cells {
            Cells::Int(cells) => cells.iter().map(|x| narrow(whole, *x)).collect(),
            Cells::Text(cells) => parsed(cells)?,
            _ => value.to_f64s()?.iter().map(|x| narrow(whole, *x as i64)).collect(),
        }),
    };
    Ok(Value { dims: value.dims.clone(), elem: to, cells })
}

fn parsed<X: std::str::FromStr>(cells: &[Arc<str>]) -> Result<Vec<X>, Failed> {
    cells.iter().map(|text| text.trim().parse().map_err(|_| format!("{text:?} is no number"))).collect()
}

fn shown(cells: &Cells) -> Vec<Arc<str>> {
    match cells {
        Cells::F32(cells) => cells.iter().map(|x| Arc::from(x.to_string())).collect(),
        Cells::F64(cells) => cells.iter().map(|x| Arc::from(x.to_string())).collect(),
        Cells::Int(cells) => cells.iter().map(|x| Arc::from(x.to_string())).collect(),
        Cells::Bool(cells) => cells.iter().map(|x| Arc::from(if *x { "1" } else { "0" })).collect(),
        Cells::Text(cells) => cells.clone(),
    }
}

/// The same cells in another shape.
fn shaped(value: &Value, dims: Vec<usize>) -> Value {
    Value { dims, elem: value.elem, cells: value.cells.clone() }
}

fn reshape(attrs: Attrs<'_>) -> Result<Op, LoadError> {
    let own = attrs.has("shape").then(|| attrs.ints("shape").map(<[i64]>::to_vec)).transpose()?;
    let keep_zero = attrs.int_or("allowzero", 0)? != 0;
    Ok(plain(move |inputs, _| {
        let value = input(inputs, 0)?;
        let wanted = match &own {
            Some(own) => own.clone(),
            None => input(inputs, 1)?.to_ints()?.into_owned(),
        };
        let refuse = || format!("{:?} cannot become {wanted:?}", value.dims);
        let mut dims = Vec::with_capacity(wanted.len());
        let mut open = None;
        for (axis, size) in wanted.iter().enumerate() {
            dims.push(match *size {
                -1 if open.is_none() => {
                    open = Some(axis);
                    1
                }
                0 if !keep_zero => *value.dims.get(axis).ok_or_else(refuse)?,
                size => usize::try_from(size).map_err(|_| refuse())?,
            });
        }
        let known =
            dims.iter().try_fold(1_usize, |product, size| product.checked_mul(*size)).ok_or_else(refuse)?;
        if let Some(axis) = open {
            // Of no cells, no rows can be inferred but none.
            dims[axis] = value.count().checked_div(known).unwrap_or(0);
        }
        if dims.iter().product::<usize>() != value.count() {
            return Err(refuse());
        }
        Ok(vec![shaped(value, dims)])
    }))
}

fn flatten(attrs: Attrs<'_>) -> Result<Op, LoadError> {
    let axis = attrs.int_or("axis", 1)?;
    Ok(plain(move |inputs, _| {
        let value = input(inputs, 0)?;
        let rank = value.dims.len();
        let at = if axis == rank as i64 { rank } else { axis_of(axis, rank)? };
        let dims = vec![value.dims[..at].iter().product(), value.dims[at..].iter().product()];
        Ok(vec![shaped(value, dims)])
    }))
}

/// The axes of `Squeeze` and `Unsqueeze`: an attribute before opset 13, an input after.
fn axes(own: &[i64], inputs: &[Option<&Value>]) -> Result<Vec<i64>, Failed> {
    match inputs.get(1).copied().flatten() {
        Some(axes) => Ok(axes.to_ints()?.into_owned()),
        None => Ok(own.to_vec()),
    }
}

fn squeeze(attrs: Attrs<'_>) -> Result<Op, LoadError> {
    let own = attrs.ints("axes")?.to_vec();
    Ok(plain(move |inputs, _| {
        let value = input(inputs, 0)?;
        let axes = axes(&own, inputs)?;
        let rank = value.dims.len();
        let mut gone: Vec<bool> = value.dims.iter().map(|size| axes.is_empty() && *size == 1).collect();
        for axis in axes {
            let at = axis_of(axis, rank)?;
            if value.dims[at] != 1 {
                return Err(format!("axis {axis} has {} cells and cannot go", value.dims[at]));
            }
            gone[at] = true;
        }
        let dims = value.dims.iter().zip(gone).filter(|(_, gone)| !gone).map(|(size, _)| *size).collect();
        Ok(vec![shaped(value, dims)])
    }))
}

fn unsqueeze(attrs: Attrs<'_>) -> Result<Op, LoadError> {
    let own = attrs.ints("axes")?.to_vec();
    Ok(plain(move |inputs, _| {
        let value = input(inputs, 0)?;
        let axes = axes(&own, inputs)?;
        let rank = value.dims.len() + axes.len();
        let mut new = vec![false; rank];
        for axis in axes {
            new[axis_of(axis, rank)?] = true;
        }
        let mut rest = value.dims.iter();
        let dims = new.into_iter().map(|new| if new { Some(1) } else { rest.next().copied() });
        Ok(vec![shaped(value, dims.collect::<Option<_>>().ok_or("an axis is named twice")?)])
    }))
}

fn transpose(attrs: Attrs<'_>) -> Result<Op, LoadError> {
    let own = attrs.has("perm").then(|| attrs.ints("perm").map(<[i64]>::to_vec)).transpose()?;
    Ok(plain(move |inputs, budget| {
        let value = input(inputs, 0)?;
        let rank = value.dims.len();
        let order = match &own {
            None => (0..rank).rev().collect::<Vec<_>>(),
            Some(own) => own.iter().map(|axis| axis_of(*axis, rank)).collect::<Result<_, _>>()?,
        };
        Ok(vec![transposed(value, &order, budget)?])
    }))
}

/// The value with its axes in this order.
pub(super) fn transposed(value: &Value, order: &[usize], budget: &mut Budget) -> Result<Value, Failed> {
    let rank = value.dims.len();
    let mut seen = order.to_vec();
    seen.sort_unstable();
    if seen != (0..rank).collect::<Vec<_>>() {
        return Err(format!("the order {order:?} is none of {rank} axes"));
    }
    let mut steps = vec![1; rank];
    for axis in (0..rank.saturating_sub(1)).rev() {
        steps[axis] = steps[axis + 1] * value.dims[axis + 1];
    }
    let dims: Vec<usize> = order.iter().map(|axis| value.dims[*axis]).collect();
    budget.claim(&dims)?;
    let Some((last, rest)) = order.split_last() else { return Ok(value.clone()) };
    let mut starts = vec![0];
    for axis in rest {
        let step = steps[*axis];
        starts = starts.iter().flat_map(|at| (0..value.dims[*axis]).map(move |i| at + i * step)).collect();
    }
    let cells = value.cells.runs(&starts, (value.dims[*last], steps[*last]));
    Ok(Value { dims, elem: value.elem, cells })
}

fn concat(attrs: Attrs<'_>) -> Result<Op, LoadError> {
    let axis = attrs.int_or("axis", 1)?;
    Ok(plain(move |inputs, budget| {
        let first = input(inputs, 0)?;
        let axis = axis_of(axis, first.dims.len())?;
        let mut dims = first.dims.clone();
        dims[axis] = 0;
        let mut parts = Vec::with_capacity(inputs.len());
        for at in 0..inputs.len() {
            let part = input(inputs, at)?;
            let fits = part.dims.len() == dims.len()
                && part.dims.iter().zip(&first.dims).enumerate().all(|(own, (a, b))| own == axis || a == b);
            if !fits || part.elem != first.elem {
                return Err(format!(
                    "{} {:?} and {} {:?} do not join",
                    first.elem.name(),
                    first.dims,
                    part.elem.name(),
                    part.dims
                ));
            }
            dims[axis] += part.dims[axis];
            parts.push(part);
        }
        budget.claim(&dims)?;
        let outer: usize = dims[..axis].iter().product();
        let inner: usize = dims[axis + 1..].iter().product();
        macro_rules! join {
            ($($kind:ident),*) => {
                match &first.cells {
                    $(Cells::$kind(_) => {
                        let mut out = Vec::with_capacity(outer * dims[axis] * inner);
                        for group in 0..outer {
                            for part in &parts {
                                let Cells::$kind(cells) = &part.cells else { return Err("mixed types".into()) };
                                let size = part.dims[axis] * inner;
                                out.extend_from_slice(&cells[group * size..(group + 1) * size]);
                            }
                        }
                        Cells::$kind(out)
                    })*
                }
            };
        }
        let cells = join!(F32, F64, Int, Bool, Text);
        Ok(vec![Value { dims, elem: first.elem, cells }])
    }))
}

/// The cells of `value` at these places along an axis; the axis becomes `shape`.
fn picked(
    value: &Value,
    axis: usize,
    picks: &[usize],
    shape: &[usize],
    budget: &mut Budget,
) -> Result<Value, Failed> {
    let mut dims = value.dims[..axis].to_vec();
    dims.extend(shape);
    dims.extend(&value.dims[axis + 1..]);
    budget.claim(&dims)?;
    let inner: usize = value.dims[axis + 1..].iter().product();
    let size = value.dims[axis];
    let outer: usize = value.dims[..axis].iter().product();
    let places = (0..outer).flat_map(|group| {
        picks.iter().flat_map(move |pick| (0..inner).map(move |at| (group * size + pick) * inner + at))
    });
    Ok(Value { dims, elem: value.elem, cells: value.cells.pick(places) })
}

fn gather(attrs: Attrs<'_>) -> Result<Op, LoadError> {
    let axis = attrs.int_or("axis", 0)?;
    Ok(plain(move |inputs, budget| {
        let (value, indexes) = (input(inputs, 0)?, input(inputs, 1)?);
        let axis = axis_of(axis, value.dims.len())?;
        let size = value.dims[axis];
        let ints = indexes.to_ints()?;
        let picks =
            ints.iter().map(|index| axis_of(*index, size).map_err(|_| format!("index {index} of {size}")));
        Ok(vec![picked(value, axis, &picks.collect::<Result<Vec<_>, _>>()?, &indexes.dims, budget)?])
    }))
}

fn slice(attrs: Attrs<'_>, opset: i64) -> Result<Op, LoadError> {
    let own = (opset < 10)
        .then(|| {
            Ok::<_, LoadError>((
                attrs.ints("starts")?.to_vec(),
                attrs.ints("ends")?.to_vec(),
                attrs.ints("axes")?.to_vec(),
            ))
        })
        .transpose()?;
    Ok(plain(move |inputs, budget| {
        let mut value = input(inputs, 0)?.clone();
        let list = |at: usize| -> Result<Vec<i64>, Failed> {
            Ok(inputs
                .get(at)
                .copied()
                .flatten()
                .map(|list| list.to_ints().map(std::borrow::Cow::into_owned))
                .transpose()?
                .unwrap_or_default())
        };
        let (starts, ends, axes) = match &own {
            Some(own) => own.clone(),
            None => (list(1)?, list(2)?, list(3)?),
        };
        let steps = if own.is_some() { Vec::new() } else { list(4)? };
        if ends.len() != starts.len() {
            return Err("starts and ends differ in length".into());
        }
        for (index, (start, end)) in starts.iter().zip(&ends).enumerate() {
            let axis = axis_of(axes.get(index).copied().unwrap_or(index as i64), value.dims.len())?;
            let step = steps.get(index).copied().unwrap_or(1);
            let picks = range(*start, *end, step, value.dims[axis])?;
            value = picked(&value, axis, &picks, &[picks.len()], budget)?;
        }
        Ok(vec![value])
    }))
}

/// The indexes from `start` to `end`, as Python's slices have them.
fn range(start: i64, end: i64, step: i64, size: usize) -> Result<Vec<usize>, Failed> {
    if step == 0 {
        return Err("a step of 0".into());
    }
    let size = size as i64;
    let (low, high) = if step > 0 { (0, size) } else { (-1, size - 1) };
    let place = |at: i64| (if at < 0 { at.saturating_add(size) } else { at }).clamp(low, high);
    let (mut at, end) = (place(start), place(end));
    let mut picks = Vec::new();
    while if step > 0 { at < end } else { at > end } {
        picks.push(at as usize);
        at = at.saturating_add(step);
    }
    Ok(picks)
}

fn split(attrs: Attrs<'_>) -> Result<Op, LoadError> {
    let axis = attrs.int_or("axis", 0)?;
    let own = attrs.ints("split")?.to_vec();
    let parts = attrs.node.outputs.len();
    Ok(plain(move |inputs, budget| {
        let value = input(inputs, 0)?;
        let axis = axis_of(axis, value.dims.len())?;
        let size = value.dims[axis];
        let sizes = match inputs.get(1).copied().flatten() {
            Some(sizes) => sizes.to_ints()?.into_owned(),
            None if own.is_empty() => {
                let each = size.div_ceil(parts.max(1));
                (0..parts).map(|at| each.min(size.saturating_sub(at * each)) as i64).collect()
            }
            None => own.clone(),
        };
        let mut from = 0_usize;
        let mut out = Vec::with_capacity(sizes.len());
        for wanted in sizes {
            let to = usize::try_from(wanted).ok().and_then(|wanted| from.checked_add(wanted));
            let to: usize =
                to.filter(|to| *to <= size).ok_or_else(|| format!("a part of {wanted} of {size}"))?;
            let picks: Vec<usize> = (from..to).collect();
            out.push(picked(value, axis, &picks, &[picks.len()], budget)?);
            from = to;
        }
        Ok(out)
    }))
}

fn sizes(value: &Value) -> Result<Vec<usize>, Failed> {
    let ints = value.to_ints()?;
    ints.iter().map(|size| usize::try_from(*size).map_err(|_| format!("a size of {size}"))).collect()
}

fn expand(value: &Value, shape: &Value, budget: &mut Budget) -> Result<Value, Failed> {
    let pairs = super::math::Pairs::of(&value.dims, &sizes(shape)?, budget)?;
    let cells = value.cells.pick(pairs.places().map(|(at, _)| at));
    Ok(Value { dims: pairs.dims, elem: value.elem, cells })
}

fn tile(value: &Value, repeats: &Value, budget: &mut Budget) -> Result<Value, Failed> {
    let repeats = sizes(repeats)?;
    if repeats.len() != value.dims.len() {
        return Err(format!("{} repeats for {} dimensions", repeats.len(), value.dims.len()));
    }
    let mut value = value.clone();
    for (axis, times) in repeats.into_iter().enumerate() {
        let size = value.dims[axis];
        let mut dims = value.dims.clone();
        dims[axis] = size.checked_mul(times).ok_or("too many repeats")?;
        budget.claim(&dims)?;
        let picks: Vec<usize> = (0..times).flat_map(|_| 0..size).collect();
        value = picked(&value, axis, &picks, &[picks.len()], budget)?;
    }
    Ok(value)
}

fn shape(attrs: Attrs<'_>) -> Result<Op, LoadError> {
    let (start, end) = (attrs.int_or("start", 0)?, attrs.int_or("end", i64::MAX)?);
    Ok(plain(move |inputs, _| {
        let dims = &input(inputs, 0)?.dims;
        let sizes: Vec<i64> =
            range(start, end, 1, dims.len())?.into_iter().map(|at| dims[at] as i64).collect();
        Ok(vec![Value::ints(&[sizes.len()], sizes)])
    }))
}

fn filled(attrs: Attrs<'_>) -> Result<Op, LoadError> {
    let value = attrs.tensor("value")?.unwrap_or_else(|| Value::f32s(&[1], vec![0.0]));
    if value.count() != 1 {
        return Err(attrs.error("its value is not one cell"));
    }
    Ok(plain(move |inputs, budget| {
        let dims = sizes(input(inputs, 0)?)?;
        let count = budget.claim(&dims)?;
        Ok(vec![Value { dims, elem: value.elem, cells: value.cells.pick(std::iter::repeat_n(0, count)) }])
    }))
}
