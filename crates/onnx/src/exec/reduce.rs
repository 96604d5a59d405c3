//! Along an axis: sums, means, extremes, the place of the greatest, softmax, the greatest few.
//!
//! Sums run in the element type and in the order of the cells.
//!
//! Not here: arithmetic cell by cell (`math`).

use models::LoadError;

use super::attrs::Attrs;
use super::value::{Budget, Cells, Failed, Value};
use super::{Op, functions, input, plain};

/// The operator of a node, if it is one of these.
pub(crate) fn operator(attrs: Attrs<'_>, opset: i64) -> Result<Option<Op>, LoadError> {
    let op = attrs.node.op.as_str();
    if let Some(fold) = Fold::named(op) {
        return reducer(attrs, fold).map(Some);
    }
    Ok(Some(match op {
        "ArgMax" | "ArgMin" => arg(attrs, op == "ArgMax")?,
        "Softmax" | "LogSoftmax" => softmax(attrs, opset, op == "LogSoftmax")?,
        "TopK" => top(attrs)?,
        "CumSum" => running(attrs)?,
        _ => return Ok(None),
    }))
}

/// What comes of the cells of one reduction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fold {
    Sum,
    Mean,
    Max,
    Min,
    Product,
    AbsSum,
    Length,
    SquareSum,
    LogSum,
    LogSumExp,
}

impl Fold {
    fn named(op: &str) -> Option<Self> {
        Some(match op {
            "ReduceSum" => Self::Sum,
            "ReduceMean" => Self::Mean,
            "ReduceMax" => Self::Max,
            "ReduceMin" => Self::Min,
            "ReduceProd" => Self::Product,
            "ReduceL1" => Self::AbsSum,
            "ReduceL2" => Self::Length,
            "ReduceSumSquare" => Self::SquareSum,
            "ReduceLogSum" => Self::LogSum,
            "ReduceLogSumExp" => Self::LogSumExp,
            _ => return None,
        })
    }
}

macro_rules! folded {
    ($name:ident, $X:ty) => {
        fn $name(fold: Fold, cells: impl Iterator<Item = $X> + Clone) -> $X {
            let max =
                || cells.clone().fold(<$X>::NEG_INFINITY, |a, b| if b.is_nan() || b > a { b } else { a });
            match fold {
                Fold::Sum => cells.sum(),
                Fold::Mean => {
                    let (count, sum) = cells.fold((0_usize, 0.0), |(count, sum), x| (count + 1, sum + x));
                    sum / count as $X
                }
                Fold::Max => max(),
                Fold::Min => cells.fold(<$X>::INFINITY, |a, b| if b.is_nan() || b < a { b } else { a }),
                Fold::Product => cells.product(),
                Fold::AbsSum => cells.map(<$X>::abs).sum(),
                Fold::Length => cells.map(|x| x * x).sum::<$X>().sqrt(),
                Fold::SquareSum => cells.map(|x| x * x).sum(),
                Fold::LogSum => cells.sum::<$X>().ln(),
                Fold::LogSumExp => {
                    let max = max();
                    if max.is_finite() { max + cells.map(|x| (x - max).exp()).sum::<$X>().ln() } else { max }
                }
            }
        }
    };
}
folded!(fold_single, f32);
folded!(fold_double, f64);

fn fold_whole(fold: Fold, cells: impl Iterator<Item = i64> + Clone) -> i64 {
    match fold {
        Fold::Sum => cells.fold(0, i64::wrapping_add),
        Fold::Max => cells.max().unwrap_or(i64::MIN),
        Fold::Min => cells.min().unwrap_or(i64::MAX),
        Fold::Product => cells.fold(1, i64::wrapping_mul),
        Fold::AbsSum => cells.map(i64::wrapping_abs).fold(0, i64::wrapping_add),
        Fold::SquareSum => cells.map(|x| x.wrapping_mul(x)).fold(0, i64::wrapping_add),
        other => fold_double(other, cells.map(|x| x as f64)) as i64,
    }
}

/// An axis of a value; negative ones count from the end.
pub(crate) fn axis_of(axis: i64, rank: usize) -> Result<usize, Failed> {
    let at = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(at)
        .ok()
        .filter(|at| *at < rank)
        .ok_or_else(|| format!("axis {axis} of {rank} dimensions"))
}

fn reducer(attrs: Attrs<'_>, fold: Fold) -> Result<Op, LoadError> {
    let own = attrs.ints("axes")?.to_vec();
    let keep = attrs.int_or("keepdims", 1)? != 0;
    let idle = attrs.int_or("noop_with_empty_axes", 0)? != 0;
    Ok(plain(move |inputs, budget| {
        let value = input(inputs, 0)?;
        let axes = match inputs.get(1).copied().flatten() {
            Some(axes) => axes.to_ints()?.into_owned(),
            None => own.clone(),
        };
        if axes.is_empty() && idle {
            return Ok(vec![value.clone()]);
        }
        let rank = value.dims.len();
        let mut gone = vec![axes.is_empty(); rank];
        for axis in axes {
            gone[axis_of(axis, rank)?] = true;
        }
        Ok(vec![reduced(value, &gone, keep, fold, budget)?])
    }))
}

/// The steps between cells along the axes that `take` names.
fn offsets(dims: &[usize], take: impl Fn(usize) -> bool) -> Vec<usize> {
    let mut offsets = vec![0];
    let mut step: usize = dims.iter().product();
    for (axis, size) in dims.iter().enumerate() {
        step = step.checked_div(*size).unwrap_or(0);
        if take(axis) {
            offsets = offsets.iter().flat_map(|at| (0..*size).map(move |index| at + index * step)).collect();
        }
    }
    offsets
}

fn reduced(
    value: &Value,
    gone: &[bool],
    keep: bool,
    fold: Fold,
    budget: &mut Budget,
) -> Result<Value, Failed> {
    budget.claim(&value.dims)?;
    let bases = offsets(&value.dims, |axis| !gone[axis]);
    let inner = offsets(&value.dims, |axis| gone[axis]);
    let dims = value.dims.iter().zip(gone).filter(|(_, gone)| keep || !**gone);
    let dims: Vec<usize> = dims.map(|(size, gone)| if *gone { 1 } else { *size }).collect();
    macro_rules! each {
        ($cells:expr, $fold:path) => {
            bases.iter().map(|base| $fold(fold, inner.iter().map(|at| $cells[base + at]))).collect()
        };
    }
    let cells = match &value.cells {
        Cells::F32(cells) => Cells::F32(each!(cells, fold_single)),
        Cells::F64(cells) => Cells::F64(each!(cells, fold_double)),
        Cells::Int(cells) => Cells::Int(each!(cells, fold_whole)),
        _ => return Err(format!("{} where numbers are needed", value.elem.name())),
    };
    Ok(Value { dims, elem: value.elem, cells })
}

fn arg(attrs: Attrs<'_>, greatest: bool) -> Result<Op, LoadError> {
    let axis = attrs.int_or("axis", 0)?;
    let keep = attrs.int_or("keepdims", 1)? != 0;
    let last = attrs.int_or("select_last_index", 0)? != 0;
    Ok(plain(move |inputs, budget| {
        let value = input(inputs, 0)?;
        let axis = axis_of(axis, value.dims.len())?;
        budget.claim(&value.dims)?;
        let cells = value.to_f64s()?;
        let bases = offsets(&value.dims, |own| own != axis);
        let inner = offsets(&value.dims, |own| own == axis);
        let pick = |base: &usize| {
            let mut best = 0;
            for (index, at) in inner.iter().enumerate().skip(1) {
                let (x, old) = (cells[base + at], cells[base + inner[best]]);
                let better = if greatest { x > old } else { x < old };
                if better || (last && x == old) {
                    best = index;
                }
            }
            best as i64
        };
        let mut dims = value.dims.clone();
        if keep {
            dims[axis] = 1;
        } else {
            dims.remove(axis);
        }
        Ok(vec![Value::ints(&dims, bases.iter().map(pick).collect())])
    }))
}

fn softmax(attrs: Attrs<'_>, opset: i64, log: bool) -> Result<Op, LoadError> {
    let axis = attrs.int_or("axis", if opset < 13 { 1 } else { -1 })?;
    Ok(plain(move |inputs, budget| {
        let value = input(inputs, 0)?;
        let rank = value.dims.len();
        budget.claim(&value.dims)?;
        // Before opset 13 the axes from this one on were taken as one.
        let from = if opset < 13 && axis == rank as i64 { rank } else { axis_of(axis, rank)? };
        let taken = |own: usize| if opset < 13 { own >= from } else { own == from };
        let size = value.dims[from..].iter().product::<usize>();
        if let Cells::F32(cells) = &value.cells
            && (opset < 13 || from + 1 == rank)
            && size > 0
        {
            let mut out = cells.clone();
            functions::softmax(&mut out, size, log);
            return Ok(vec![Value::f32s(&value.dims, out)]);
        }
        let bases = offsets(&value.dims, |own| !taken(own));
        let inner = offsets(&value.dims, taken);
        macro_rules! each {
            ($cells:expr, $zero:expr) => {{
                let mut out = $cells.clone();
                for base in &bases {
                    let max = inner
                        .iter()
                        .map(|at| $cells[base + at])
                        .fold($zero, |a, b| if b > a { b } else { a });
                    let sum = inner.iter().map(|at| ($cells[base + at] - max).exp()).fold(0.0, |a, b| a + b);
                    for at in &inner {
                        let x = $cells[base + at] - max;
                        out[base + at] = if log { x - sum.ln() } else { x.exp() / sum };
                    }
                }
                out
            }};
        }
        let cells = match &value.cells {
            Cells::F32(cells) => Cells::F32(each!(cells, f32::NEG_INFINITY)),
            Cells::F64(cells) => Cells::F64(each!(cells, f64::NEG_INFINITY)),
            _ => return Err(format!("{} where numbers are needed", value.elem.name())),
        };
        Ok(vec![Value { dims: value.dims.clone(), elem: value.elem, cells }])
    }))
}

fn top(attrs: Attrs<'_>) -> Result<Op, LoadError> {
    let axis = attrs.int_or("axis", -1)?;
    let greatest = attrs.int_or("largest", 1)? != 0;
    let own = attrs.int_or("k", -1)?;
    Ok(plain(move |inputs, budget| {
        let value = input(inputs, 0)?;
        let axis = axis_of(axis, value.dims.len())?;
        let k = match inputs.get(1).copied().flatten() {
            Some(k) => k.to_ints()?.first().copied().unwrap_or(-1),
            None => own,
        };
        let size = value.dims[axis];
        let k = usize::try_from(k)
            .ok()
            .filter(|k| *k <= size)
            .ok_or_else(|| format!("the first {k} of {size}"))?;
        let mut dims = value.dims.clone();
        dims[axis] = k;
        budget.claim(&value.dims)?;
        let cells = value.to_f64s()?;
        let step: usize = value.dims[axis + 1..].iter().product();
        let outer: usize = value.dims[..axis].iter().product();
        let mut places = vec![0_usize; outer * k * step];
        let mut picks = vec![0_i64; outer * k * step];
        for group in 0..outer {
            for lane in 0..step {
                let at = |index: usize| (group * size + index) * step + lane;
                let mut order: Vec<usize> = (0..size).collect();
                // The lower index comes first among equals.
                order.sort_by(|i, j| {
                    let ordering = cells[at(*i)].total_cmp(&cells[at(*j)]);
                    if greatest { ordering.reverse() } else { ordering }
                });
                for (rank, index) in order.into_iter().take(k).enumerate() {
                    let to = (group * k + rank) * step + lane;
                    places[to] = at(index);
                    picks[to] = index as i64;
                }
            }
        }
        let picked = value.cells.pick(places.into_iter());
        Ok(vec![Value { dims: dims.clone(), elem: value.elem, cells: picked }, Value::ints(&dims, picks)])
    }))
}

fn running(attrs: Attrs<'_>) -> Result<Op, LoadError> {
    if attrs.int_or("exclusive", 0)? != 0 || attrs.int_or("reverse", 0)? != 0 {
        return Err(attrs.unsupported("exclusive or reverse"));
    }
    Ok(plain(|inputs, budget| {
        let mut value = input(inputs, 0)?.clone();
        let axis = input(inputs, 1)?.to_ints()?.first().copied().ok_or("no axis")?;
        let axis = axis_of(axis, value.dims.len())?;
        budget.claim(&value.dims)?;
        let step: usize = value.dims[axis + 1..].iter().product();
        let size = value.dims[axis];
        macro_rules! add {
            ($cells:expr, $add:expr) => {
                for at in 0..$cells.len() {
                    if (at / step) % size > 0 {
                        $cells[at] = $add($cells[at], $cells[at - step]);
                    }
                }
            };
        }
        match &mut value.cells {
            Cells::F32(cells) => add!(cells, |a: f32, b: f32| a + b),
            Cells::F64(cells) => add!(cells, |a: f64, b: f64| a + b),
            Cells::Int(cells) => add!(cells, i64::wrapping_add),
            _ => return Err(format!("{} where numbers are needed", value.elem.name())),
        }
        Ok(vec![value])
    }))
}
