//! Operators of 8-bit models: numbers to small integers and back, products of integers.
//!
//! Rounding is to the nearest, ties to even, and saturates, as ONNX defines it.
//!
//! Not here: convolutions of integers (`conv_integer`), making such models (`crate::quantize`).

use models::LoadError;

use super::attrs::Attrs;
use super::reduce::axis_of;
use super::value::{Budget, Cells, Failed, Value};
use super::{Op, input, plain};
use crate::proto::Elem;

/// The operator of a node, if it is one of these.
pub(crate) fn operator(attrs: Attrs<'_>) -> Result<Option<Op>, LoadError> {
    let axis = attrs.int_or("axis", 1)?;
    Ok(Some(match attrs.node.op.as_str() {
        "QuantizeLinear" => plain(move |inputs, budget| Ok(vec![quantize(inputs, axis, budget)?])),
        "DequantizeLinear" => plain(move |inputs, budget| Ok(vec![dequantize(inputs, axis, budget)?])),
        "DynamicQuantizeLinear" => plain(|inputs, budget| dynamic(input(inputs, 0)?, budget)),
        "MatMulInteger" => plain(|inputs, budget| Ok(vec![product(inputs, budget)?])),
        _ => return Ok(None),
    }))
}

/// The least and the greatest of a type.
pub(super) fn range(elem: Elem) -> Result<(f32, f32), Failed> {
    match elem {
        Elem::U8 => Ok((0.0, 255.0)),
        Elem::I8 => Ok((-128.0, 127.0)),
        other => Err(format!("{} where 8-bit integers are needed", other.name())),
    }
}

/// How many cells in a row have one scale: all, or those of a part of the axis.
fn stretch(value: &Value, scales: usize, axis: i64) -> Result<usize, Failed> {
    if scales == 1 {
        return Ok(value.count().max(1));
    }
    let axis = axis_of(axis, value.dims.len())?;
    if value.dims[axis] != scales {
        return Err(format!("{scales} scales for {} parts", value.dims[axis]));
    }
    Ok(value.dims[axis + 1..].iter().product::<usize>().max(1))
}

/// The nearest whole number, ties to even, of what may be 8 bits; what is far from them goes no farther. Adding and
/// taking away a large number rounds so, and many at once: rounding itself is a call on the oldest CPUs.
pub(super) fn nearest(number: f32) -> f32 {
    const FAR: f32 = 1024.0;
    const LARGE: f32 = (3 << 22) as f32;
    (number.clamp(-FAR, FAR) + LARGE) - LARGE
}

/// The zero points as numbers, and their type; zeros of `uint8` where there are none.
fn zeros(value: Option<&Value>, scales: usize) -> Result<(Vec<f64>, Elem), Failed> {
    match value {
        None => Ok((vec![0.0; scales], Elem::U8)),
        Some(zeros) if zeros.count() == scales => Ok((zeros.to_f64s()?.into_owned(), zeros.elem)),
        Some(zeros) => Err(format!("{} zero points for {scales} scales", zeros.count())),
    }
}

fn quantize(inputs: &[Option<&Value>], axis: i64, budget: &mut Budget) -> Result<Value, Failed> {
    let (value, scales) = (input(inputs, 0)?, input(inputs, 1)?.to_f32s()?.into_owned());
    let (zeros, elem) = zeros(inputs.get(2).copied().flatten(), scales.len())?;
    let (low, high) = range(elem)?;
    budget.claim(&value.dims)?;
    let stretch = stretch(value, scales.len(), axis)?;
    let cells = value.to_f32s()?;
    let mut integers = Vec::with_capacity(cells.len());
    for (index, cells) in cells.chunks(stretch).enumerate() {
        let (scale, zero) = (scales[index % scales.len()], zeros[index % scales.len()] as f32);
        let one = |cell: &f32| i64::from((nearest(cell / scale) + zero).clamp(low, high) as i32);
        integers.extend(cells.iter().map(one));
    }
    Ok(Value { dims: value.dims.clone(), elem, cells: Cells::Int(integers) })
}

fn dequantize(inputs: &[Option<&Value>], axis: i64, budget: &mut Budget) -> Result<Value, Failed> {
    let (value, scales) = (input(inputs, 0)?, input(inputs, 1)?.to_f32s()?.into_owned());
    let (zeros, _) = zeros(inputs.get(2).copied().flatten(), scales.len())?;
    budget.claim(&value.dims)?;
    let stretch = stretch(value, scales.len(), axis)?;
    let cells = value.to_ints()?;
    let mut floats = Vec::with_capacity(cells.len());
    for (index, cells) in cells.chunks(stretch).enumerate() {
        let (scale, zero) = (scales[index % scales.len()], zeros[index % scales.len()] as f32);
        floats.extend(cells.iter().map(|cell| (*cell as f32 - zero) * scale));
    }
    Ok(Value::f32s(&value.dims, floats))
}

/// The range of the value itself decides: 255 steps from its least (at most 0) to its greatest (at least 0).
fn dynamic(value: &Value, budget: &mut Budget) -> Result<Vec<Value>, Failed> {
    let cells = value.to_f32s()?;
    budget.claim(&value.dims)?;
    let low = cells.iter().copied().fold(0.0_f32, f32::min);
    let high = cells.iter().copied().fold(0.0_f32, f32::max);
    // All zeros have no range; any scale says the same of them.
    let scale = if high > low { (high - low) / 255.0 } else { 1.0 };
    let zero = (-low / scale).round_ties_even().clamp(0.0, 255.0);
    let one = |cell: &f32| i64::from((nearest(cell / scale) + zero).clamp(0.0, 255.0) as i32);
    let cells = Cells::Int(cells.iter().map(one).collect());
    Ok(vec![
        Value { dims: value.dims.clone(), elem: Elem::U8, cells },
        Value::f32s(&[], vec![scale]),
        Value { dims: Vec::new(), elem: Elem::U8, cells: Cells::Int(vec![zero as i64]) },
    ])
}

/// `[…, k]` of 8 bits times `[k, m]` of 8 bits, less their zero points, in 32 bits.
fn product(inputs: &[Option<&Value>], budget: &mut Budget) -> Result<Value, Failed> {
    let (a, b) = (input(inputs, 0)?, input(inputs, 1)?);
    let (Some((k, rows)), [height, m]) = (a.dims.split_last(), b.dims.as_slice()) else {
        return Err(format!("the shapes {:?} and {:?} do not multiply", a.dims, b.dims));
    };
    if k != height {
        return Err(format!("the shapes {:?} and {:?} do not multiply", a.dims, b.dims));
    }
    let less = |at: usize| -> Result<Vec<i32>, Failed> {
        let Some(zero) = inputs.get(at).copied().flatten() else { return Ok(vec![0]) };
        Ok(zero.to_ints()?.iter().map(|zero| *zero as i32).collect())
    };
    let (less_a, less_b) = (less(2)?, less(3)?);
    if less_a.len() != 1 || !(less_b.len() == 1 || less_b.len() == *m) {
        return Err("zero points for each row, which are not evaluated".into());
    }
    let mut dims = rows.to_vec();
    dims.push(*m);
    let count = budget.claim(&dims)?;
    let (left, right) = (a.to_ints()?, b.to_ints()?);
    let mut sums = vec![0_i32; count];
    let mut weights: Vec<i32> = right.iter().map(|weight| *weight as i32).collect();
    for (at, weight) in weights.iter_mut().enumerate() {
        *weight -= less_b[at % m % less_b.len()];
    }
    for (row, out) in left.chunks_exact((*k).max(1)).zip(sums.chunks_exact_mut((*m).max(1))) {
        for (x, weights) in row.iter().zip(weights.chunks_exact((*m).max(1))) {
            let x = *x as i32 - less_a[0];
            out.iter_mut().zip(weights).for_each(|(slot, weight)| *slot = slot.wrapping_add(x * weight));
        }
    }
    let cells = Cells::Int(sums.into_iter().map(i64::from).collect());
    Ok(Value { dims, elem: Elem::I32, cells })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::value::Bounds;

    fn budget() -> Budget {
        Budget::new(Bounds { cells: 1 << 20, ..Bounds::default() })
    }

    #[test]
    fn what_is_quantized_comes_back_within_half_a_step() {
        let value = Value::f32s(&[2, 3], vec![-1.0, 0.0, 0.3, 2.0, 1.999, -0.51]);
        let made = dynamic(&value, &mut budget()).expect("numbers");
        let back = dequantize(&[Some(&made[0]), Some(&made[1]), Some(&made[2])], 1, &mut budget())
            .expect("integers");
        let scale = made[1].to_f32s().expect("a number")[0];
        for (x, y) in value.to_f32s().expect("numbers").iter().zip(back.to_f32s().expect("numbers").iter()) {
            assert!((x - y).abs() <= scale * 0.5 + 1e-6, "{x} became {y}");
        }
        assert_eq!(made[2].to_ints().expect("an integer")[0], 85);
    }

    #[test]
    fn integers_multiply_less_their_zero_points() {
        let whole = |dims: &[usize], elem, cells: &[i64]| Value {
            dims: dims.to_vec(),
            elem,
            cells: Cells::Int(cells.to_vec()),
        };
        let a = whole(&[1, 2], Elem::U8, &[10, 255]);
        let b = whole(&[2, 2], Elem::I8, &[1, -2, 3, 127]);
        let zero = whole(&[], Elem::U8, &[10]);
        let made = product(&[Some(&a), Some(&b), Some(&zero)], &mut budget()).expect("they multiply");
        assert_eq!(made.to_ints().expect("integers").as_ref(), [735, 245 * 127]);
    }

    #[test]
    fn the_nearest_is_that_of_the_standard_as_far_as_8_bits_go() {
        for step in -4096..=4096 {
            let number = step as f32 / 8.0;
            assert_eq!(nearest(number), number.round_ties_even());
        }
        assert!(nearest(f32::INFINITY) > 255.0 && nearest(-1e30) < -255.0 && nearest(f32::NAN).is_nan());
    }

    #[test]
    fn scales_may_differ_by_column() {
        let value = Value::f32s(&[2, 2], vec![1.0, 1.0, 2.0, 300.0]);
        let scales = Value::f32s(&[2], vec![1.0, 0.5]);
        let zeros = Value { dims: vec![2], elem: Elem::I8, cells: Cells::Int(vec![0, 0]) };
        let made = quantize(&[Some(&value), Some(&scales), Some(&zeros)], 1, &mut budget()).expect("numbers");
        assert_eq!(made.to_ints().expect("integers").as_ref(), [1, 2, 2, 127]);
    }
}
