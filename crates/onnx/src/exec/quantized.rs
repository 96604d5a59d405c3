//! Operators of 8-bit models: numbers to small integers and back, products of integers.
//!
//! These are the operators as a file names them, one by one; those that stand together as `slipway model quantize` and
//! others write them become one (`join`).
//!
//! Not here: convolutions of integers (`conv_integer`), making such models (`crate::quantize`).

use std::borrow::Cow;

use models::LoadError;

use super::attrs::Attrs;
use super::gemm8::{Left, Right, product, unsigned};
use super::reduce::axis_of;
use super::steps::{Grid, nearest, range, steps};
use super::value::{Budget, Cells, Failed, Value};
use super::{Op, Operator, input, plain};
use crate::proto::Elem;

/// The operator of a node, if it is one of these.
pub(crate) fn operator(attrs: Attrs<'_>) -> Result<Option<Op>, LoadError> {
    let axis = attrs.int_or("axis", 1)?;
    Ok(Some(match attrs.node.op.as_str() {
        "QuantizeLinear" => plain(move |inputs, budget| Ok(vec![quantize(inputs, axis, budget)?])),
        "DequantizeLinear" => plain(move |inputs, budget| Ok(vec![dequantize(inputs, axis, budget)?])),
        "DynamicQuantizeLinear" => plain(|inputs, budget| dynamic(input(inputs, 0)?, budget)),
        "MatMulInteger" => Box::new(MatMulInteger(Factor::new(attrs, 1, 3))),
        "QLinearMatMul" => Box::new(QLinearMatMul(Factor::new(attrs, 3, 5))),
        _ => return Ok(None),
    }))
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

/// The zero points as numbers, and their type; zeros of `uint8` where there are none.
fn zeros(value: Option<&Value>, scales: usize) -> Result<(Vec<f64>, Elem), Failed> {
    match value {
        None => Ok((vec![0.0; scales], Elem::U8)),
        Some(zeros) if zeros.count() == scales => Ok((zeros.to_f64s()?.into_owned(), zeros.elem)),
        Some(zeros) => Err(format!("{} zero points for {scales} scales", zeros.count())),
    }
}

/// Steps as whole numbers of their type.
fn whole(grid: Grid, cells: &[f32], into: &mut Vec<i64>) {
    let mut part = [0; 256];
    for cells in cells.chunks(part.len()) {
        steps(grid, cells, &mut part);
        into.extend(part[..cells.len()].iter().map(|step| i64::from(*step) + grid.low as i64));
    }
}

fn quantize(inputs: &[Option<&Value>], axis: i64, budget: &mut Budget) -> Result<Value, Failed> {
    let (value, scales) = (input(inputs, 0)?, input(inputs, 1)?.to_f32s()?.into_owned());
    let (zeros, elem) = zeros(inputs.get(2).copied().flatten(), scales.len())?;
    let grids = scales.iter().zip(&zeros).map(|(scale, zero)| Grid::new(elem, *scale, *zero));
    let grids = grids.collect::<Result<Vec<_>, _>>()?;
    budget.claim(&value.dims)?;
    let stretch = stretch(value, scales.len(), axis)?;
    let cells = value.to_f32s()?;
    let mut integers = Vec::with_capacity(cells.len());
    for (cells, grid) in cells.chunks(stretch).zip(grids.iter().cycle()) {
        whole(*grid, cells, &mut integers);
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

/// The range of the value itself decides.
fn dynamic(value: &Value, budget: &mut Budget) -> Result<Vec<Value>, Failed> {
    let cells = value.to_f32s()?;
    budget.claim(&value.dims)?;
    let grid = Grid::of(&cells);
    let mut integers = Vec::with_capacity(cells.len());
    whole(grid, &cells, &mut integers);
    Ok(vec![
        Value { dims: value.dims.clone(), elem: Elem::U8, cells: Cells::Int(integers) },
        Value::f32s(&[], vec![grid.scale]),
        Value { dims: Vec::new(), elem: Elem::U8, cells: Cells::Int(vec![grid.zero as i64]) },
    ])
}

/// The right side of a product of integers, `[k, m]`, less its zero points: laid out at load where both are constants.
struct Factor {
    at: usize,
    zeros_at: usize,
    has_zero: bool,
    laid: Option<Right>,
}

impl Factor {
    fn new(attrs: Attrs<'_>, at: usize, zeros_at: usize) -> Self {
        let has_zero = attrs.node.inputs.get(zeros_at).is_some_and(|name| !name.is_empty());
        Self { at, zeros_at, has_zero, laid: None }
    }

    fn prepare(&mut self, constants: &[Option<&Value>]) -> Result<(), Failed> {
        let constant = |at: usize| constants.get(at).copied().flatten();
        let (Some(value), zeros) = (constant(self.at), constant(self.zeros_at)) else { return Ok(()) };
        if value.dims.len() == 2 && (zeros.is_some() || !self.has_zero) {
            self.laid = Some(laid(value, zeros)?);
        }
        Ok(())
    }

    /// `[…, k]` of 8 bits times it: the result's shape and its sums in 32 bits.
    fn times(
        &self,
        (a, zero): (&Value, Option<&Value>),
        inputs: &[Option<&Value>],
        budget: &mut Budget,
    ) -> Result<(Vec<usize>, Vec<i32>), Failed> {
        let b = input(inputs, self.at)?;
        let (Some((k, rows)), [height, m]) = (a.dims.split_last(), b.dims.as_slice()) else {
            return Err(format!("the shapes {:?} and {:?} do not multiply", a.dims, b.dims));
        };
        if k != height {
            return Err(format!("the shapes {:?} and {:?} do not multiply", a.dims, b.dims));
        }
        let mut dims = rows.to_vec();
        dims.push(*m);
        let count = budget.claim(&dims)?;
        budget.work(count, *k)?;
        budget.claim(&[a.count().div_ceil(8) + count.div_ceil(2)])?;
        let zero = match zero {
            None => 0,
            Some(zero) => match zero.to_ints()?.as_ref() {
                [zero] => *zero,
                _ => return Err("zero points for each row, which are not evaluated".into()),
            },
        };
        let mut left = Left::default();
        left.resize(rows.iter().product(), *k);
        let cells = a.to_ints()?;
        for (row, cells) in left.rows().zip(cells.chunks_exact((*k).max(1))) {
            for (slot, cell) in row.iter_mut().zip(cells) {
                *slot = unsigned(a.elem, *cell)?;
            }
        }
        let mut own = None;
        let right = match &self.laid {
            Some(right) => right,
            None => {
                budget.claim(&[b.count()])?;
                own.insert(laid(b, inputs.get(self.zeros_at).copied().flatten())?)
            }
        };
        let mut sums = vec![0; count];
        product(&mut sums, (&left, &[unsigned(a.elem, zero)?]), right, &[])?;
        Ok((dims, sums))
    }

    fn weights(&self) -> usize {
        self.laid.as_ref().map_or(0, |right| right.shape().0 * right.shape().1)
    }
}

/// A table and its zero points, of which there is one, or one for each column.
fn laid(value: &Value, zeros: Option<&Value>) -> Result<Right, Failed> {
    let &[k, m] = value.dims.as_slice() else {
        return Err(format!("the shape {:?} is no table", value.dims));
    };
    let zeros = zeros.map(Value::to_ints).transpose()?.unwrap_or(Cow::Borrowed(&[0]));
    let cells = value.to_ints()?;
    Right::pack((value.elem, &zeros), (k, m), |depth, column| cells[depth * m + column])
}

struct MatMulInteger(Factor);

impl Operator for MatMulInteger {
    fn prepare(&mut self, constants: &[Option<&Value>]) -> Result<(), Failed> {
        self.0.prepare(constants)
    }

    fn run(&self, inputs: &[Option<&Value>], budget: &mut Budget) -> Result<Vec<Value>, Failed> {
        let a = (input(inputs, 0)?, inputs.get(2).copied().flatten());
        let (dims, sums) = self.0.times(a, inputs, budget)?;
        let cells = Cells::Int(sums.into_iter().map(i64::from).collect());
        Ok(vec![Value { dims, elem: Elem::I32, cells }])
    }

    fn cost_ns(&self) -> u64 {
        (self.0.weights() as u64 / 32).max(100)
    }
}

/// A product of integers that becomes integers again: the sum times one factor of `float`, to the nearest, ties to even, then
/// the zero point.
/// How sums of products of integers become integers of the result's scale.
pub(super) struct Rescale {
    /// One for each column or channel.
    pub(super) factors: Vec<f32>,
    pub(super) elem: Elem,
    zero: f32,
    range: (f32, f32),
}

impl Rescale {
    /// By the scales of the value (input 1), of so many columns or channels of the weights (`at`), and of the result (6), and by
    /// its zero point (7).
    pub(super) fn read(inputs: &[Option<&Value>], (at, count): (usize, usize)) -> Result<Self, Failed> {
        let one = |at: usize| match input(inputs, at)?.to_f32s()?.as_ref() {
            [scale] => Ok(*scale),
            scales => Err(format!("{} scales at input {at} where one is needed", scales.len())),
        };
        let (given, made, weights) = (one(1)?, one(6)?, input(inputs, at)?.to_f32s()?);
        if weights.len() != 1 && weights.len() != count {
            return Err(format!("{} scales for {count} columns or channels", weights.len()));
        }
        let zero = input(inputs, 7)?;
        let (range, elem) = (range(zero.elem)?, zero.elem);
        let &[zero] = zero.to_ints()?.as_ref() else {
            return Err("more than one zero point for the result".into());
        };
        let factors = weights.iter().cycle().take(count).map(|scale| given * scale / made).collect();
        Ok(Self { factors, elem, zero: zero as f32, range })
    }

    pub(super) fn of(&self, sum: i32, factor: f32) -> i64 {
        let (low, high) = self.range;
        i64::from((nearest(sum as f32 * factor) + self.zero).clamp(low, high) as i32)
    }
}

struct QLinearMatMul(Factor);

impl Operator for QLinearMatMul {
    fn prepare(&mut self, constants: &[Option<&Value>]) -> Result<(), Failed> {
        self.0.prepare(constants)
    }

    fn run(&self, inputs: &[Option<&Value>], budget: &mut Budget) -> Result<Vec<Value>, Failed> {
        let (dims, sums) = self.0.times((input(inputs, 0)?, Some(input(inputs, 2)?)), inputs, budget)?;
        let steps = Rescale::read(inputs, (4, dims.last().copied().unwrap_or(1)))?;
        let cells =
            sums.iter().zip(steps.factors.iter().cycle()).map(|(sum, by)| steps.of(*sum, *by)).collect();
        Ok(vec![Value { dims, elem: steps.elem, cells: Cells::Int(cells) }])
    }

    fn cost_ns(&self) -> u64 {
        (self.0.weights() as u64 / 32).max(100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::value::Bounds;
    use crate::proto::Node;

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
        let node = Node { op: "MatMulInteger".into(), ..Node::default() };
        let op = operator(Attrs::new(&node)).expect("it is read").expect("it is ours");
        let made = op.run(&[Some(&a), Some(&b), Some(&zero)], &mut budget()).expect("they multiply");
        assert_eq!(made[0].to_ints().expect("integers").as_ref(), [735, 245 * 127]);
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
