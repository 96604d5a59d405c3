//! Arithmetic cell by cell, with numpy's broadcasting.
//!
//! Each type is computed in itself: `float` in `float`, whole numbers with the wrap of their declared width.
//!
//! Not here: sums along axes (`reduce`), products of tables (`linear`).

use std::borrow::Cow;

use models::LoadError;

use super::attrs::Attrs;
use super::value::{Budget, Cells, Failed, Value};
use super::{Op, functions, input, plain};
use crate::proto::Elem;

/// A function of one number in each type.
struct Unary {
    single: fn(f32) -> f32,
    double: fn(f64) -> f64,
}

/// A loop over the pairs of two values.
type Loop = fn(&Pairs, &[f32], &[f32]) -> Vec<f32>;

/// A function of two numbers in each type.
#[derive(Clone, Copy)]
pub(crate) struct Binary {
    single: fn(f32, f32) -> f32,
    double: fn(f64, f64) -> f64,
    whole: fn(i64, i64) -> Option<i64>,
    /// The whole loop over `float`, for the functions that are less than a call.
    quick: Option<Loop>,
}

/// A question about two numbers.
#[derive(Clone, Copy)]
struct Test {
    double: fn(f64, f64) -> bool,
    whole: fn(i64, i64) -> bool,
}

/// The operator of a node, if it is one of these.
pub(crate) fn operator(attrs: Attrs<'_>) -> Result<Option<Op>, LoadError> {
    let op = attrs.node.op.as_str();
    if let Some(function) = unary(op) {
        let quick = quick_unary(op);
        return Ok(Some(plain(move |inputs, _| {
            let value = input(inputs, 0)?;
            Ok(vec![match (&value.cells, quick) {
                (Cells::F32(cells), Some(quick)) => Value::f32s(&value.dims, quick(cells)),
                _ => function.apply(value)?,
            }])
        })));
    }
    let cut = op == "Mod" && attrs.int_or("fmod", 0)? != 0;
    if let Some(function) = binary(if cut { "fmod" } else { op }) {
        return Ok(Some(plain(move |inputs, budget| {
            let mut result = Cow::Borrowed(input(inputs, 0)?);
            // `Sum`, `Max` and `Min` take any number of inputs.
            for at in 1..inputs.len() {
                result = Cow::Owned(function.apply(&result, input(inputs, at)?, budget)?);
            }
            Ok(vec![result.into_owned()])
        })));
    }
    if let Some(test) = test(op) {
        return Ok(Some(plain(move |inputs, budget| {
            Ok(vec![compare(test, op_is_equal(&test), input(inputs, 0)?, input(inputs, 1)?, budget)?])
        })));
    }
    let logic: fn(bool, bool) -> bool = match op {
        "And" => |a, b| a & b,
        "Or" => |a, b| a | b,
        "Xor" => |a, b| a ^ b,
        "Where" => return Ok(Some(plain(|inputs, budget| Ok(vec![choose(inputs, budget)?])))),
        "Clip" => return clip(attrs).map(Some),
        "Not" => {
            return Ok(Some(plain(|inputs, _| {
                let value = input(inputs, 0)?;
                Ok(vec![Value::truths(&value.dims, value.to_truths()?.iter().map(|x| !x).collect())])
            })));
        }
        "IsInf" if attrs.int_or("detect_negative", 1)? == 1 && attrs.int_or("detect_positive", 1)? == 1 => {
            return Ok(Some(plain(|inputs, _| {
                let value = input(inputs, 0)?;
                Ok(vec![Value::truths(
                    &value.dims,
                    value.to_f64s()?.iter().map(|x| x.is_infinite()).collect(),
                )])
            })));
        }
        "IsNaN" => {
            return Ok(Some(plain(|inputs, _| {
                let value = input(inputs, 0)?;
                Ok(vec![Value::truths(&value.dims, value.to_f64s()?.iter().map(|x| x.is_nan()).collect())])
            })));
        }
        _ => return Ok(None),
    };
    Ok(Some(plain(move |inputs, budget| {
        let (a, b) = (input(inputs, 0)?, input(inputs, 1)?);
        let pairs = Pairs::of(&a.dims, &b.dims, budget)?;
        let (x, y) = (a.to_truths()?, b.to_truths()?);
        let cells = pairs.places().map(|(i, j)| logic(x[i], y[j])).collect();
        Ok(vec![Value::truths(&pairs.dims, cells)])
    })))
}

/// The sum of two numbers.
pub(crate) fn add() -> Binary {
    binary("Add").expect("it is there")
}

fn unary(op: &str) -> Option<Unary> {
    macro_rules! of {
        ($f:expr, $g:expr) => {
            Unary { single: $f, double: $g }
        };
    }
    Some(match op {
        "Neg" => of!(|x| -x, |x| -x),
        "Abs" => of!(f32::abs, f64::abs),
        "Exp" => of!(f32::exp, f64::exp),
        "Log" => of!(f32::ln, f64::ln),
        "Sqrt" => of!(f32::sqrt, f64::sqrt),
        "Reciprocal" => of!(|x| 1.0 / x, |x| 1.0 / x),
        "Sigmoid" => of!(super::post::logistic, |x| {
            let v = 1.0 / (1.0 + (-x.abs()).exp());
            if x < 0.0 { 1.0 - v } else { v }
        }),
        "Tanh" => of!(f32::tanh, f64::tanh),
        "Relu" => of!(|x| if x < 0.0 { 0.0 } else { x }, |x| if x < 0.0 { 0.0 } else { x }),
        "Softplus" => of!(|x: f32| x.max(0.0) + (-x.abs()).exp().ln_1p(), |x: f64| x.max(0.0)
            + (-x.abs()).exp().ln_1p()),
        "Floor" => of!(f32::floor, f64::floor),
        "Ceil" => of!(f32::ceil, f64::ceil),
        "Round" => of!(f32::round_ties_even, f64::round_ties_even),
        "Sin" => of!(f32::sin, f64::sin),
        "Cos" => of!(f32::cos, f64::cos),
        "Tan" => of!(f32::tan, f64::tan),
        "Asin" => of!(f32::asin, f64::asin),
        "Acos" => of!(f32::acos, f64::acos),
        "Atan" => of!(f32::atan, f64::atan),
        "Sinh" => of!(f32::sinh, f64::sinh),
        "Cosh" => of!(f32::cosh, f64::cosh),
        "Sign" => of!(sign_single, sign_double),
        _ => return None,
    })
}

/// The whole loop over `float`, for the functions that are less than a call or that vectors have.
fn quick_unary(op: &str) -> Option<functions::Whole> {
    Some(match op {
        "Exp" => functions::exps,
        "Sigmoid" => functions::logistics,
        "Tanh" => functions::tanhs,
        "Relu" => |cells| cells.iter().map(|x| if *x < 0.0 { 0.0 } else { *x }).collect(),
        _ => return None,
    })
}

fn sign_single(x: f32) -> f32 {
    if x > 0.0 {
        1.0
    } else if x < 0.0 {
        -1.0
    } else {
        x
    }
}

fn sign_double(x: f64) -> f64 {
    if x > 0.0 {
        1.0
    } else if x < 0.0 {
        -1.0
    } else {
        x
    }
}

impl Unary {
    fn apply(&self, value: &Value) -> Result<Value, Failed> {
        let cells = match &value.cells {
            Cells::F32(cells) => Cells::F32(cells.iter().map(|x| (self.single)(*x)).collect()),
            Cells::F64(cells) => Cells::F64(cells.iter().map(|x| (self.double)(*x)).collect()),
            Cells::Int(cells) => Cells::Int(
                cells.iter().map(|x| narrow(value.elem, (self.double)(*x as f64) as i64)).collect(),
            ),
            _ => return Err(format!("{} where numbers are needed", value.elem.name())),
        };
        Ok(Value { dims: value.dims.clone(), elem: value.elem, cells })
    }
}

/// A whole number in the width of its declared type.
pub(crate) fn narrow(elem: Elem, x: i64) -> i64 {
    match elem {
        Elem::I8 => i64::from(x as i8),
        Elem::U8 => i64::from(x as u8),
        Elem::I16 => i64::from(x as i16),
        Elem::U16 => i64::from(x as u16),
        Elem::I32 => i64::from(x as i32),
        Elem::U32 => i64::from(x as u32),
        _ => x,
    }
}

fn quick(op: &str) -> Option<Loop> {
    Some(match op {
        "Add" | "Sum" => |pairs, x, y| pairs.zip(x, y, |a, b| a + b),
        "Sub" => |pairs, x, y| pairs.zip(x, y, |a, b| a - b),
        "Mul" => |pairs, x, y| pairs.zip(x, y, |a, b| a * b),
        "Div" => |pairs, x, y| pairs.zip(x, y, |a, b| a / b),
        _ => return None,
    })
}

/// The rest of a division that rounds down.
fn floored(a: i64, b: i64) -> Option<i64> {
    let rest = (b != 0).then(|| a.wrapping_rem(b))?;
    Some(if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest })
}

fn binary(op: &str) -> Option<Binary> {
    macro_rules! of {
        ($f:expr, $g:expr, $h:expr) => {
            Binary { single: $f, double: $g, whole: $h, quick: quick(op) }
        };
    }
    Some(match op {
        "Add" | "Sum" => of!(|a, b| a + b, |a, b| a + b, |a, b| Some(a.wrapping_add(b))),
        "Sub" => of!(|a, b| a - b, |a, b| a - b, |a, b| Some(a.wrapping_sub(b))),
        "Mul" => of!(|a, b| a * b, |a, b| a * b, |a, b| Some(a.wrapping_mul(b))),
        "Div" => of!(|a, b| a / b, |a, b| a / b, |a, b| (b != 0).then(|| a.wrapping_div(b))),
        "Mod" => of!(|a, b| a - (a / b).floor() * b, |a, b| a - (a / b).floor() * b, floored),
        "fmod" => of!(|a, b| a % b, |a, b| a % b, |a, b| (b != 0).then(|| a.wrapping_rem(b))),
        "Pow" => of!(f32::powf, f64::powf, |a, b| Some((a as f64).powf(b as f64) as i64)),
        // A missing number is the answer, as numpy's `maximum` has it.
        "Max" => of!(
            |a, b| if a.is_nan() || a > b { a } else { b },
            |a, b| if a.is_nan() || a > b { a } else { b },
            |a, b| Some(a.max(b))
        ),
        "Min" => of!(
            |a, b| if a.is_nan() || a < b { a } else { b },
            |a, b| if a.is_nan() || a < b { a } else { b },
            |a, b| Some(a.min(b))
        ),
        _ => return None,
    })
}

impl Binary {
    /// The result over the broadcast of both.
    pub(crate) fn apply(self, a: &Value, b: &Value, budget: &mut Budget) -> Result<Value, Failed> {
        let pairs = Pairs::of(&a.dims, &b.dims, budget)?;
        let cells = match (&a.cells, &b.cells) {
            (Cells::F32(x), Cells::F32(y)) => Cells::F32(match self.quick {
                Some(quick) => quick(&pairs, x, y),
                None => pairs.map(x, y, self.single),
            }),
            (Cells::F64(x), Cells::F64(y)) => Cells::F64(pairs.map(x, y, self.double)),
            (Cells::Int(x), Cells::Int(y)) => {
                let cells = pairs.places().map(|(i, j)| (self.whole)(x[i], y[j]).map(|x| narrow(a.elem, x)));
                Cells::Int(cells.collect::<Option<_>>().ok_or("a division by zero")?)
            }
            // `Pow` may have an exponent of another type.
            (Cells::F32(x), _) => Cells::F32(pairs.map(x, &b.to_f32s()?, self.single)),
            (Cells::F64(x), _) => Cells::F64(pairs.map(x, &b.to_f64s()?, self.double)),
            _ => return Err(format!("{} beside {}", a.elem.name(), b.elem.name())),
        };
        Ok(Value { dims: pairs.dims, elem: a.elem, cells })
    }
}

fn test(op: &str) -> Option<Test> {
    Some(match op {
        "Less" => Test { double: |a, b| a < b, whole: |a, b| a < b },
        "LessOrEqual" => Test { double: |a, b| a <= b, whole: |a, b| a <= b },
        "Greater" => Test { double: |a, b| a > b, whole: |a, b| a > b },
        "GreaterOrEqual" => Test { double: |a, b| a >= b, whole: |a, b| a >= b },
        "Equal" => Test { double: |a, b| a == b, whole: |a, b| a == b },
        _ => return None,
    })
}

/// Only equality is asked of texts and truths.
fn op_is_equal(test: &Test) -> bool {
    (test.whole)(0, 0) && !(test.whole)(0, 1) && !(test.whole)(1, 0)
}

fn compare(test: Test, is_equal: bool, a: &Value, b: &Value, budget: &mut Budget) -> Result<Value, Failed> {
    let pairs = Pairs::of(&a.dims, &b.dims, budget)?;
    let cells = match (&a.cells, &b.cells) {
        (Cells::Int(x), Cells::Int(y)) => pairs.map(x, y, test.whole),
        (Cells::Text(x), Cells::Text(y)) if is_equal => pairs.places().map(|(i, j)| x[i] == y[j]).collect(),
        (Cells::Bool(x), Cells::Bool(y)) if is_equal => pairs.map(x, y, |a, b| a == b),
        _ => pairs.map(&a.to_f64s()?, &b.to_f64s()?, test.double),
    };
    Ok(Value::truths(&pairs.dims, cells))
}

fn choose(inputs: &[Option<&Value>], budget: &mut Budget) -> Result<Value, Failed> {
    let (condition, a, b) = (input(inputs, 0)?, input(inputs, 1)?, input(inputs, 2)?);
    let truths = condition.to_truths()?;
    let outer = Pairs::of(&a.dims, &b.dims, budget)?;
    let whole = Pairs::of(&condition.dims, &outer.dims, budget)?;
    let places: Vec<(usize, usize)> = outer.places().collect();
    // Which side each cell comes from, and its place there.
    let picks = whole.places().map(|(at, pair)| (truths[at], places[pair]));
    macro_rules! pick {
        ($($kind:ident),*) => {
            match (&a.cells, &b.cells) {
                $((Cells::$kind(x), Cells::$kind(y)) => Cells::$kind(
                    picks.map(|(first, (i, j))| if first { x[i].clone() } else { y[j].clone() }).collect(),
                ),)*
                _ => return Err(format!("{} beside {}", a.elem.name(), b.elem.name())),
            }
        };
    }
    let cells = pick!(F32, F64, Int, Bool, Text);
    Ok(Value { dims: whole.dims.clone(), elem: a.elem, cells })
}

fn clip(attrs: Attrs<'_>) -> Result<Op, LoadError> {
    // Bounds are attributes before opset 11 and inputs after.
    let bound = |name: &str| attrs.has(name).then(|| attrs.float_or(name, 0.0)).transpose();
    let (low, high) = (bound("min")?, bound("max")?);
    let (max, min) = (binary("Max").expect("it is there"), binary("Min").expect("it is there"));
    Ok(plain(move |inputs, budget| {
        let mut value = input(inputs, 0)?.clone();
        let given = |at: usize, own: Option<f32>| match inputs.get(at).copied().flatten() {
            Some(bound) => Some(bound.clone()),
            None => own.map(|bound| Value::of_f64s(value_elem(inputs), &[], vec![f64::from(bound)])),
        };
        if let Some(low) = given(1, low) {
            value = max.apply(&value, &low, budget)?;
        }
        if let Some(high) = given(2, high) {
            value = min.apply(&value, &high, budget)?;
        }
        Ok(vec![value])
    }))
}

fn value_elem(inputs: &[Option<&Value>]) -> Elem {
    inputs.first().copied().flatten().map_or(Elem::F32, |value| value.elem)
}

/// The cells of two values that meet when both are broadcast.
pub(crate) struct Pairs {
    pub(crate) dims: Vec<usize>,
    a: Vec<usize>,
    b: Vec<usize>,
    count: usize,
    same: bool,
}

/// How far apart neighbours along each axis of `dims` lie in a value of shape `own`; 0 where it is repeated.
fn strides(own: &[usize], dims: &[usize]) -> Vec<usize> {
    let mut strides = vec![0; dims.len()];
    let mut step = 1;
    for (back, size) in own.iter().rev().enumerate() {
        strides[dims.len() - 1 - back] = if *size == 1 { 0 } else { step };
        step *= size;
    }
    strides
}

/// The shape that both have after broadcasting.
pub(crate) fn broadcast(a: &[usize], b: &[usize]) -> Result<Vec<usize>, Failed> {
    let rank = a.len().max(b.len());
    let at = |dims: &[usize], axis: usize| (axis + dims.len()).checked_sub(rank).map_or(1, |axis| dims[axis]);
    (0..rank)
        .map(|axis| match (at(a, axis), at(b, axis)) {
            (x, y) if x == y => Ok(x),
            (1, y) => Ok(y),
            (x, 1) => Ok(x),
            _ => Err(format!("the shapes {a:?} and {b:?} do not go together")),
        })
        .collect()
}

impl Pairs {
    pub(crate) fn of(a: &[usize], b: &[usize], budget: &mut Budget) -> Result<Self, Failed> {
        let dims = broadcast(a, b)?;
        let count = budget.claim(&dims)?;
        let (x, y) = (strides(a, &dims), strides(b, &dims));
        Ok(Self { same: a == b, a: x, b: y, dims, count })
    }

    fn map<X: Copy, Y>(&self, x: &[X], y: &[X], f: fn(X, X) -> Y) -> Vec<Y> {
        if self.same {
            return x.iter().zip(y).map(|(x, y)| f(*x, *y)).collect();
        }
        self.places().map(|(i, j)| f(x[i], y[j])).collect()
    }

    /// [`Self::map`] with the function in the loop, and without places where one side is repeated as a whole.
    fn zip(&self, x: &[f32], y: &[f32], f: impl Fn(f32, f32) -> f32) -> Vec<f32> {
        let both = |(x, y): (&f32, &f32)| f(*x, *y);
        if self.same {
            x.iter().zip(y).map(both).collect()
        } else if y.len() == 1 && x.len() == self.count {
            x.iter().map(|x| f(*x, y[0])).collect()
        } else if x.len() == 1 && y.len() == self.count {
            y.iter().map(|y| f(x[0], *y)).collect()
        } else if self.repeats(&self.b, y.len()) && x.len() == self.count {
            let mut cells = Vec::with_capacity(self.count);
            x.chunks_exact(y.len()).for_each(|x| cells.extend(x.iter().zip(y).map(both)));
            cells
        } else if self.repeats(&self.a, x.len()) && y.len() == self.count {
            let mut cells = Vec::with_capacity(self.count);
            y.chunks_exact(x.len()).for_each(|y| cells.extend(x.iter().zip(y).map(both)));
            cells
        } else {
            self.places().map(|(i, j)| f(x[i], y[j])).collect()
        }
    }

    /// Whether a value of `len` cells and these steps is the last dimensions, repeated along the first.
    fn repeats(&self, steps: &[usize], len: usize) -> bool {
        let mut step = 1;
        for (size, own) in self.dims.iter().zip(steps).rev() {
            let fits = if step < len { *size == 1 || *own == step } else { *size == 1 || *own == 0 };
            if !fits {
                return false;
            }
            if step < len {
                step *= size;
            }
        }
        step == len
    }

    /// The places of both values' cells, in row-major order of the result.
    pub(crate) fn places(&self) -> impl Iterator<Item = (usize, usize)> {
        let mut index = vec![0_usize; self.dims.len()];
        let (mut i, mut j) = (0, 0);
        (0..self.count).map(move |_| {
            let now = (i, j);
            for axis in (0..index.len()).rev() {
                index[axis] += 1;
                i += self.a[axis];
                j += self.b[axis];
                if index[axis] < self.dims[axis] {
                    break;
                }
                i -= self.a[axis] * self.dims[axis];
                j -= self.b[axis] * self.dims[axis];
                index[axis] = 0;
            }
            now
        })
    }
}
