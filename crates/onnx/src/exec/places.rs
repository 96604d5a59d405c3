//! Operators that take cells from computed places: pads, triangles, gathering and scattering, blocks, resizing.
//!
//! Each one says for every cell of its result where it comes from.
//!
//! Not here: the plain movers (`movement`).

use models::LoadError;

use super::attrs::Attrs;
use super::reduce::axis_of;
use super::value::{Budget, Cells, Failed, Value};
use super::{Op, input, plain};
use crate::proto::Elem;

/// The operator of a node, if it is one of these.
pub(crate) fn operator(attrs: Attrs<'_>, opset: i64) -> Result<Option<Op>, LoadError> {
    Ok(Some(match attrs.node.op.as_str() {
        "Pad" => pad(attrs, opset)?,
        "Trilu" => triangle(attrs)?,
        "Range" => plain(|inputs, budget| Ok(vec![counted(inputs, budget)?])),
        "GatherElements" => gather_elements(attrs)?,
        "GatherND" => gather_nd(attrs)?,
        "ScatterND" => scatter_nd(attrs)?,
        "DepthToSpace" | "SpaceToDepth" => blocks(attrs)?,
        "Size" => plain(|inputs, _| Ok(vec![Value::ints(&[], vec![input(inputs, 0)?.count() as i64])])),
        _ => return Ok(None),
    }))
}

/// Steps between neighbours along each axis.
pub(crate) fn steps(dims: &[usize]) -> Vec<usize> {
    let mut steps = vec![1; dims.len()];
    for axis in (0..dims.len().saturating_sub(1)).rev() {
        steps[axis] = steps[axis + 1] * dims[axis + 1];
    }
    steps
}

/// Calls `each` with the index of every cell of a shape, in row-major order.
fn indexes(dims: &[usize], mut each: impl FnMut(&[usize])) {
    if dims.contains(&0) {
        return;
    }
    let mut index = vec![0; dims.len()];
    loop {
        each(&index);
        let Some(axis) = (0..dims.len()).rev().find(|axis| index[*axis] + 1 < dims[*axis]) else { return };
        index[axis] += 1;
        index[axis + 1..].fill(0);
    }
}

/// Cells from places; `None` takes `fill`, which has one cell of the same type.
fn taken(value: &Value, fill: &Value, places: &[Option<usize>]) -> Result<Cells, Failed> {
    macro_rules! take {
        ($($kind:ident),*) => {
            match (&value.cells, &fill.cells) {
                $((Cells::$kind(cells), Cells::$kind(fill)) if fill.len() == 1 => Cells::$kind(
                    places.iter().map(|at| at.map_or_else(|| fill[0].clone(), |at| cells[at].clone())).collect(),
                ),)*
                _ => return Err(format!("{} filled up by {}", value.elem.name(), fill.elem.name())),
            }
        };
    }
    Ok(take!(F32, F64, Int, Bool, Text))
}

fn zero(elem: Elem) -> Value {
    if elem == Elem::TEXT { Value::texts(&[], vec!["".into()]) } else { Value::of_f64s(elem, &[], vec![0.0]) }
}

#[derive(Clone, Copy, PartialEq)]
enum Beyond {
    Constant,
    Reflect,
    Edge,
    Wrap,
}

/// The cell that stands for place `at` of an axis of `size` cells.
fn beyond(mode: Beyond, at: i64, size: i64) -> Option<i64> {
    match mode {
        _ if (0..size).contains(&at) => Some(at),
        Beyond::Constant => None,
        _ if size == 0 => None,
        Beyond::Edge => Some(at.clamp(0, size - 1)),
        Beyond::Wrap => Some(at.rem_euclid(size)),
        Beyond::Reflect if size == 1 => Some(0),
        Beyond::Reflect => {
            let at = at.rem_euclid(2 * (size - 1));
            Some(at.min(2 * (size - 1) - at))
        }
    }
}

fn pad(attrs: Attrs<'_>, opset: i64) -> Result<Op, LoadError> {
    let mode = match attrs.text_or("mode", "constant")? {
        "constant" => Beyond::Constant,
        "reflect" => Beyond::Reflect,
        "edge" => Beyond::Edge,
        "wrap" => Beyond::Wrap,
        other => return Err(attrs.error(format!("mode {other:?}"))),
    };
    // Before opset 11 both were attributes.
    let own = (opset < 11)
        .then(|| Ok::<_, LoadError>((attrs.ints("pads")?.to_vec(), attrs.float_or("value", 0.0)?)))
        .transpose()?;
    Ok(plain(move |inputs, budget| {
        let value = input(inputs, 0)?;
        let rank = value.dims.len();
        let (given, fill) = match &own {
            Some((pads, fill)) => (pads.clone(), Value::f32s(&[], vec![*fill])),
            None => {
                let fill = inputs.get(2).copied().flatten().cloned();
                (input(inputs, 1)?.to_ints()?.into_owned(), fill.unwrap_or_else(|| zero(value.elem)))
            }
        };
        let axes = match inputs.get(3).copied().flatten() {
            Some(axes) => {
                axes.to_ints()?.iter().map(|axis| axis_of(*axis, rank)).collect::<Result<_, _>>()?
            }
            None => (0..rank).collect::<Vec<_>>(),
        };
        if given.len() != 2 * axes.len() {
            return Err(format!("{} pads for {} axes", given.len(), axes.len()));
        }
        let mut before = vec![0_i64; rank];
        let mut dims = value.dims.clone();
        for (at, axis) in axes.iter().enumerate() {
            before[*axis] = given[at];
            let size = given[at].checked_add(given[axes.len() + at]);
            let size = size.and_then(|pads| pads.checked_add(value.dims[*axis] as i64));
            let size = size.and_then(|size| usize::try_from(size).ok());
            dims[*axis] = size.ok_or_else(|| format!("pads {given:?} for {:?}", value.dims))?;
        }
        let mut places = Vec::with_capacity(budget.claim(&dims)?);
        let steps = steps(&value.dims);
        indexes(&dims, |index| {
            let cell = index.iter().enumerate().try_fold(0, |sum, (axis, at)| {
                let at = beyond(mode, *at as i64 - before[axis], value.dims[axis] as i64)?;
                Some(sum + at as usize * steps[axis])
            });
            places.push(cell);
        });
        let cells = taken(value, &fill, &places)?;
        Ok(vec![Value { dims, elem: value.elem, cells }])
    }))
}

fn triangle(attrs: Attrs<'_>) -> Result<Op, LoadError> {
    let upper = attrs.int_or("upper", 1)? != 0;
    Ok(plain(move |inputs, budget| {
        let value = input(inputs, 0)?;
        let shift = match inputs.get(1).copied().flatten() {
            Some(shift) => shift.to_ints()?.first().copied().unwrap_or(0),
            None => 0,
        };
        let &[.., rows, columns] = value.dims.as_slice() else {
            return Err(format!("the shape {:?} is no matrix", value.dims));
        };
        let count = budget.claim(&value.dims)?;
        let kept = |at: usize| {
            let (row, column) = ((at / columns % rows) as i64, (at % columns) as i64);
            let above = column - row >= shift;
            let kept = if upper { above } else { column - row <= shift };
            kept.then_some(at)
        };
        let places: Vec<Option<usize>> = (0..count).map(kept).collect();
        let cells = taken(value, &zero(value.elem), &places)?;
        Ok(vec![Value { dims: value.dims.clone(), elem: value.elem, cells }])
    }))
}

fn counted(inputs: &[Option<&Value>], budget: &mut Budget) -> Result<Value, Failed> {
    let (start, limit, delta) = (input(inputs, 0)?, input(inputs, 1)?, input(inputs, 2)?);
    let one = |value: &Value| value.to_f64s()?.first().copied().ok_or_else(|| "no number".to_owned());
    let (from, to, by) = (one(start)?, one(limit)?, one(delta)?);
    let count = ((to - from) / by).ceil().max(0.0);
    if !count.is_finite() || count > 1e12 {
        return Err(format!("a range from {from} to {to} by {by}"));
    }
    let count = budget.claim(&[count as usize])?;
    let cells = (0..count).map(|at| from + at as f64 * by).collect();
    Ok(Value::of_f64s(start.elem, &[count], cells))
}

fn gather_elements(attrs: Attrs<'_>) -> Result<Op, LoadError> {
    let axis = attrs.int_or("axis", 0)?;
    Ok(plain(move |inputs, budget| {
        let (value, picks) = (input(inputs, 0)?, input(inputs, 1)?);
        let axis = axis_of(axis, value.dims.len())?;
        let inside = |own: usize| own == axis || picks.dims[own] <= value.dims[own];
        if picks.dims.len() != value.dims.len() || !(0..value.dims.len()).all(inside) {
            return Err(format!("indexes {:?} for {:?}", picks.dims, value.dims));
        }
        let ints = picks.to_ints()?;
        let mut places = Vec::with_capacity(budget.claim(&picks.dims)?);
        let steps = steps(&value.dims);
        let mut failed = None;
        indexes(&picks.dims, |index| {
            let own = ints[places.len()];
            let at = axis_of(own, value.dims[axis]);
            failed =
                failed.take().or_else(|| at.is_err().then(|| format!("index {own} of {}", value.dims[axis])));
            let pick = at.unwrap_or(0);
            let along = |own: usize| if own == axis { pick } else { index[own] };
            places.push((0..index.len()).map(|own| along(own) * steps[own]).sum::<usize>());
        });
        if let Some(failed) = failed {
            return Err(failed);
        }
        Ok(vec![Value {
            dims: picks.dims.clone(),
            elem: value.elem,
            cells: value.cells.pick(places.into_iter()),
        }])
    }))
}

/// The first cell of each slice that the last dimension of `picks` names, behind `skip` leading dimensions, and a slice's size.
fn slices(value: &Value, picks: &Value, skip: usize) -> Result<(Vec<usize>, usize), Failed> {
    let refuse = || format!("indexes {:?} for {:?}", picks.dims, value.dims);
    let depth = *picks.dims.last().ok_or_else(refuse)?;
    let fits = skip < picks.dims.len() && skip + depth <= value.dims.len();
    if !fits || depth == 0 || picks.dims[..skip] != value.dims[..skip] {
        return Err(refuse());
    }
    let steps = steps(&value.dims);
    let batch = value.dims[..skip].iter().product::<usize>().max(1);
    let ints = picks.to_ints()?;
    let each = (ints.len() / depth / batch).max(1);
    let whole: usize = value.dims[skip..].iter().product();
    let first = |(at, index): (usize, &[i64])| {
        let along = index.iter().enumerate().map(|(axis, index)| {
            let at = axis_of(*index, value.dims[skip + axis]);
            at.map(|at| at * steps[skip + axis]).map_err(|_| format!("index {index:?} of {:?}", value.dims))
        });
        Ok::<_, Failed>(at / each * whole + along.sum::<Result<usize, Failed>>()?)
    };
    let firsts = ints.chunks_exact(depth).enumerate().map(first).collect::<Result<_, _>>()?;
    Ok((firsts, value.dims[skip + depth..].iter().product()))
}

fn gather_nd(attrs: Attrs<'_>) -> Result<Op, LoadError> {
    let skip = usize::try_from(attrs.int_or("batch_dims", 0)?).map_err(|_| attrs.error("batch_dims"))?;
    Ok(plain(move |inputs, budget| {
        let (value, picks) = (input(inputs, 0)?, input(inputs, 1)?);
        let (firsts, size) = slices(value, picks, skip)?;
        let depth = picks.dims[picks.dims.len() - 1];
        let mut dims = picks.dims[..picks.dims.len() - 1].to_vec();
        dims.extend(&value.dims[skip + depth..]);
        budget.claim(&dims)?;
        let places = firsts.iter().flat_map(|first| *first..*first + size);
        Ok(vec![Value { dims, elem: value.elem, cells: value.cells.pick(places) }])
    }))
}

fn scatter_nd(attrs: Attrs<'_>) -> Result<Op, LoadError> {
    if attrs.text_or("reduction", "none")? != "none" {
        return Err(attrs.unsupported("a reduction"));
    }
    Ok(plain(|inputs, budget| {
        let (value, picks, updates) = (input(inputs, 0)?, input(inputs, 1)?, input(inputs, 2)?);
        let (firsts, size) = slices(value, picks, 0)?;
        if updates.count() != firsts.len() * size {
            return Err(format!("{:?} updates for indexes {:?}", updates.dims, picks.dims));
        }
        budget.claim(&value.dims)?;
        let mut result = value.clone();
        macro_rules! put {
            ($($kind:ident),*) => {
                match (&mut result.cells, &updates.cells) {
                    $((Cells::$kind(cells), Cells::$kind(new)) => {
                        for (index, first) in firsts.iter().enumerate() {
                            cells[*first..first + size].clone_from_slice(&new[index * size..(index + 1) * size]);
                        }
                    })*
                    _ => return Err(format!("{} into {}", updates.elem.name(), value.elem.name())),
                }
            };
        }
        put!(F32, F64, Int, Bool, Text);
        Ok(vec![result])
    }))
}

fn blocks(attrs: Attrs<'_>) -> Result<Op, LoadError> {
    let deep = attrs.node.op == "SpaceToDepth";
    let size =
        usize::try_from(attrs.int_or("blocksize", 0)?).ok().filter(|size| (1..=1 << 10).contains(size));
    let size = size.ok_or_else(|| attrs.error("blocksize"))?;
    let by_column = match attrs.text_or("mode", "DCR")? {
        "DCR" => false,
        "CRD" if !deep => true,
        other => return Err(attrs.error(format!("mode {other:?}"))),
    };
    Ok(plain(move |inputs, budget| {
        let value = input(inputs, 0)?;
        let &[batch, channels, height, width] = value.dims.as_slice() else {
            return Err(format!(
                "the shape {:?} where [batch, channels, height, width] is needed",
                value.dims
            ));
        };
        let square = size * size;
        let fits = if deep { height % size == 0 && width % size == 0 } else { channels % square == 0 };
        if !fits {
            return Err(format!("blocks of {size} do not fit {:?}", value.dims));
        }
        let dims = if deep {
            vec![batch, channels * square, height / size, width / size]
        } else {
            vec![batch, channels / square, height * size, width * size]
        };
        let mut places = Vec::with_capacity(budget.claim(&dims)?);
        indexes(&dims, |index| {
            let &[n, c, y, x] = index else { return };
            let (c, y, x) = if deep {
                let block = c / channels;
                (c % channels, y * size + block / size, x * size + block % size)
            } else {
                let block = (y % size) * size + x % size;
                let from = if by_column { c * square + block } else { block * (channels / square) + c };
                (from, y / size, x / size)
            };
            places.push(((n * channels + c) * height + y) * width + x);
        });
        Ok(vec![Value { dims, elem: value.elem, cells: value.cells.pick(places.into_iter()) }])
    }))
}
