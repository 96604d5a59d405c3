//! Products of tables: `MatMul`, `Gemm`, and ONNX-ML's linear models.
//!
//! Every row is summed alone and in the order of its columns, so its answer does not depend on the rows beside it.
//! Tables with many weights go through the kernels of `gemm`.
//!
//! Not here: windows (`conv`), memory (`recurrent`).

use std::borrow::Cow;

use models::LoadError;

use super::attrs::{Attrs, Labels};
use super::gemm::{A, B, Plus, Right, pays, product as kernel};
use super::movement::transposed;
use super::post::{Post, Single, argmax, pair};
use super::value::{Budget, Cells, Failed, Value};
use super::{Op, Operator, input};

/// The operator of a node, if it is one of these.
pub(crate) fn operator(attrs: Attrs<'_>) -> Result<Option<Op>, LoadError> {
    match attrs.node.op.as_str() {
        "MatMul" => Ok(Some(Box::new(MatMul::default()))),
        "Gemm" => gemm(attrs).map(Some),
        _ => Ok(None),
    }
}

/// A constant on the right, laid out.
#[derive(Default)]
struct Constant {
    packed: Option<Right>,
    weights: usize,
}

impl Constant {
    fn prepare(&mut self, constants: &[Option<&Value>], turned: bool) {
        let Some(value) = constants.get(1).copied().flatten() else { return };
        self.weights = value.count();
        if let (&[rows, columns], Cells::F32(cells)) = (value.dims.as_slice(), &value.cells) {
            let shape = if turned { (columns, rows) } else { (rows, columns) };
            self.packed = pays(shape.0, shape.1).then(|| Right::pack(cells, shape, turned));
        }
    }

    fn cost_ns(&self) -> u64 {
        (self.weights as u64 / 8).max(100)
    }

    fn detail(&self) -> String {
        if self.weights == 0 { String::new() } else { format!("{} weights", self.weights) }
    }
}

#[derive(Default)]
struct MatMul {
    constant: Constant,
}

impl Operator for MatMul {
    fn prepare(&mut self, constants: &[Option<&Value>]) -> Result<(), Failed> {
        self.constant.prepare(constants, false);
        Ok(())
    }

    fn run(&self, inputs: &[Option<&Value>], budget: &mut Budget) -> Result<Vec<Value>, Failed> {
        let right = self.constant.packed.as_ref();
        let (a, b) = (input(inputs, 0)?, input(inputs, 1)?);
        Ok(vec![matmul([a, b], [&a.dims, &b.dims], right, budget)?])
    }

    fn cost_ns(&self) -> u64 {
        self.constant.cost_ns()
    }

    fn detail(&self) -> String {
        self.constant.detail()
    }
}

trait Number: Copy + Default + std::ops::Mul<Output = Self> + std::ops::AddAssign {}
impl Number for f32 {}
impl Number for f64 {}

/// `[n, k]` times `[k, m]`.
fn product<X: Number>(a: &[X], b: &[X], (n, k, m): (usize, usize, usize), out: &mut [X]) {
    for row in 0..n {
        let out = &mut out[row * m..(row + 1) * m];
        for (at, x) in a[row * k..(row + 1) * k].iter().enumerate() {
            for (slot, y) in out.iter_mut().zip(&b[at * m..(at + 1) * m]) {
                *slot += *x * *y;
            }
        }
    }
}

/// The product of two values' cells in these shapes.
pub(super) fn matmul(
    [a, b]: [&Value; 2],
    [left, right]: [&[usize]; 2],
    packed: Option<&Right>,
    budget: &mut Budget,
) -> Result<Value, Failed> {
    let refuse = || format!("the shapes {left:?} and {right:?} do not multiply");
    if left.is_empty() || right.is_empty() {
        return Err(refuse());
    }
    // One dimension is a row on the left and a column on the right, and is dropped from the result.
    let (is_row, is_column) = (left.len() == 1, right.len() == 1);
    let (left, right) = (
        if is_row { [&[1], left].concat() } else { left.to_vec() },
        if is_column { [right, &[1]].concat() } else { right.to_vec() },
    );
    let (n, k, m) = (left[left.len() - 2], left[left.len() - 1], right[right.len() - 1]);
    if right[right.len() - 2] != k {
        return Err(refuse());
    }
    let pairs = super::math::Pairs::of(&left[..left.len() - 2], &right[..right.len() - 2], budget)?;
    let mut dims = pairs.dims.clone();
    dims.extend([n, m]);
    let count = budget.claim(&dims)?;
    budget.work(count, k)?;
    macro_rules! run {
        ($x:expr, $y:expr, $zero:expr, $wrap:path) => {{
            let mut out = vec![$zero; count];
            for (index, (i, j)) in pairs.places().enumerate() {
                let (x, y) = (&$x[i * n * k..(i + 1) * n * k], &$y[j * k * m..(j + 1) * k * m]);
                product(x, y, (n, k, m), &mut out[index * n * m..(index + 1) * n * m]);
            }
            $wrap(out)
        }};
    }
    let cells = match (&a.cells, &b.cells) {
        (Cells::F32(x), Cells::F32(y)) if pays(k, m) => {
            let mut out = vec![0.0; count];
            if right.len() == 2 {
                let y = packed.map_or(B::Plain(y), B::Packed);
                kernel(&mut out, A::Plain(x), y, (count / m, k, m), Plus::Nothing)?;
            } else {
                for (index, (i, j)) in pairs.places().enumerate() {
                    let (x, y) = (&x[i * n * k..(i + 1) * n * k], &y[j * k * m..(j + 1) * k * m]);
                    let out = &mut out[index * n * m..(index + 1) * n * m];
                    kernel(out, A::Plain(x), B::Plain(y), (n, k, m), Plus::Nothing)?;
                }
            }
            Cells::F32(out)
        }
        (Cells::F32(x), Cells::F32(y)) => run!(x, y, 0_f32, Cells::F32),
        (Cells::F64(x), Cells::F64(y)) => run!(x, y, 0_f64, Cells::F64),
        _ => return Err(format!("{} times {}", a.elem.name(), b.elem.name())),
    };
    if is_row {
        dims.remove(dims.len() - 2);
    }
    if is_column {
        dims.pop();
    }
    Ok(Value { dims, elem: a.elem, cells })
}

struct Gemm {
    alpha: f32,
    beta: f32,
    turn_a: bool,
    turn_b: bool,
    constant: Constant,
}

fn gemm(attrs: Attrs<'_>) -> Result<Op, LoadError> {
    let (alpha, beta) = (attrs.float_or("alpha", 1.0)?, attrs.float_or("beta", 1.0)?);
    let (turn_a, turn_b) = (attrs.int_or("transA", 0)? != 0, attrs.int_or("transB", 0)? != 0);
    Ok(Box::new(Gemm { alpha, beta, turn_a, turn_b, constant: Constant::default() }))
}

impl Operator for Gemm {
    fn prepare(&mut self, constants: &[Option<&Value>]) -> Result<(), Failed> {
        self.constant.prepare(constants, self.turn_b);
        Ok(())
    }

    fn run(&self, inputs: &[Option<&Value>], budget: &mut Budget) -> Result<Vec<Value>, Failed> {
        let mut side = |at: usize, turn: bool| -> Result<Cow<'_, Value>, Failed> {
            let value = input(inputs, at)?;
            Ok(if turn { Cow::Owned(transposed(value, &[1, 0], budget)?) } else { Cow::Borrowed(value) })
        };
        let a = side(0, self.turn_a)?;
        let addend = inputs.get(2).copied().flatten();
        let packed = self.constant.packed.as_ref().map(|packed| (packed, self.turn_b));
        if let (Some(packed), Some(Value { dims, cells: Cells::F32(cells), .. })) = (packed, addend)
            && (self.alpha, self.beta) == (1.0, 1.0)
            && matches!(dims.as_slice(), [columns] | [1, columns] if *columns > 1)
        {
            return Ok(vec![laid_out(&a, input(inputs, 1)?, packed, Plus::Columns(cells), budget)?]);
        }
        let mut result = match packed {
            Some(packed) => laid_out(&a, input(inputs, 1)?, packed, Plus::Nothing, budget)?,
            None => {
                let b = side(1, self.turn_b)?;
                matmul([&a, &b], [&a.dims, &b.dims], None, budget)?
            }
        };
        scale(&mut result, self.alpha);
        let Some(addend) = addend else { return Ok(vec![result]) };
        let mut addend = addend.clone();
        scale(&mut addend, self.beta);
        Ok(vec![super::math::add().apply(&result, &addend, budget)?])
    }

    fn cost_ns(&self) -> u64 {
        self.constant.cost_ns()
    }

    fn detail(&self) -> String {
        self.constant.detail()
    }
}

/// A table times constants that are laid out already.
fn laid_out(
    a: &Value,
    b: &Value,
    (packed, turned): (&Right, bool),
    plus: Plus<'_>,
    budget: &mut Budget,
) -> Result<Value, Failed> {
    let refuse = || format!("the shapes {:?} and {:?} do not multiply", a.dims, b.dims);
    let (&[n, k], &[rows, columns]) = (a.dims.as_slice(), b.dims.as_slice()) else { return Err(refuse()) };
    let (inner, m) = if turned { (columns, rows) } else { (rows, columns) };
    let Cells::F32(cells) = &a.cells else { return Err(format!("{} times float", a.elem.name())) };
    if k != inner {
        return Err(refuse());
    }
    let count = budget.claim(&[n, m])?;
    budget.work(count, k)?;
    let mut out = vec![0.0; count];
    kernel(&mut out, A::Plain(cells), B::Packed(packed), (n, k, m), plus)?;
    Ok(Value::f32s(&[n, m], out))
}

fn scale(value: &mut Value, by: f32) {
    if by == 1.0 {
        return;
    }
    match &mut value.cells {
        Cells::F32(cells) => cells.iter_mut().for_each(|x| *x *= by),
        Cells::F64(cells) => cells.iter_mut().for_each(|x| *x *= f64::from(by)),
        _ => {}
    }
}

/// Coefficients of one row for each score.
struct Scores {
    coefficients: Vec<f32>,
    intercepts: Vec<f32>,
    width: usize,
    count: usize,
}

impl Scores {
    fn new(attrs: Attrs<'_>, count: usize) -> Result<Self, LoadError> {
        let coefficients = attrs.floats("coefficients")?.to_vec();
        let intercepts = attrs.floats("intercepts")?.to_vec();
        if count == 0 || coefficients.is_empty() || !coefficients.len().is_multiple_of(count) {
            return Err(attrs.error(format!("{} coefficients for {count} scores", coefficients.len())));
        }
        if !intercepts.is_empty() && intercepts.len() != count {
            return Err(attrs.error(format!("{} intercepts for {count} scores", intercepts.len())));
        }
        Ok(Self { width: coefficients.len() / count, coefficients, intercepts, count })
    }

    /// The scores of each row, in `float`.
    fn rows(&self, value: &Value, budget: &mut Budget) -> Result<(usize, Vec<f32>), Failed> {
        let (rows, width) = value.table()?;
        if width != self.width {
            return Err(format!("rows of {width} columns, the model has {}", self.width));
        }
        let cells = value.to_f32s()?;
        let mut out = Vec::with_capacity(budget.claim(&[rows, self.count])?);
        for row in 0..rows {
            let row = &cells[row * width..(row + 1) * width];
            for at in 0..self.count {
                let weights = &self.coefficients[at * width..(at + 1) * width];
                let sum: f32 = row.iter().zip(weights).map(|(x, w)| x * w).sum();
                out.push(sum + self.intercepts.get(at).copied().unwrap_or(0.0));
            }
        }
        Ok((rows, out))
    }
}

struct Classifier {
    scores: Scores,
    labels: Labels,
    post: Post,
}

/// `LinearClassifier`.
pub(crate) fn classifier(attrs: Attrs<'_>) -> Result<Op, LoadError> {
    let labels = Labels::read(attrs)?;
    let intercepts = attrs.floats("intercepts")?.len();
    let count = if intercepts > 0 { intercepts } else { labels.len() };
    if count != labels.len() && !(count == 1 && labels.len() == 2) {
        return Err(attrs.error(format!("{count} scores for {} classes", labels.len())));
    }
    Ok(Box::new(Classifier { scores: Scores::new(attrs, count)?, labels, post: Post::read(attrs)? }))
}

impl Operator for Classifier {
    fn run(&self, inputs: &[Option<&Value>], budget: &mut Budget) -> Result<Vec<Value>, Failed> {
        let (rows, mut scores) = self.scores.rows(input(inputs, 0)?, budget)?;
        let (count, classes) = (self.scores.count, self.labels.len());
        let mut picks = Vec::with_capacity(rows);
        if count == 1 && classes == 2 {
            let mut both = Vec::with_capacity(budget.claim(&[rows, 2])?);
            for score in scores {
                picks.push(usize::from(score > 0.0));
                let single = if self.post == Post::Logistic { Single::Margin } else { Single::Share };
                both.extend(pair(self.post, single, score));
            }
            return Ok(vec![self.labels.pick(&picks), Value::f32s(&[rows, 2], both)]);
        }
        for row in scores.chunks_exact_mut(count) {
            picks.push(argmax(row));
            self.post.apply(row);
        }
        Ok(vec![self.labels.pick(&picks), Value::f32s(&[rows, count], scores)])
    }

    fn classes(&self) -> Vec<String> {
        self.labels.shown()
    }

    fn detail(&self) -> String {
        format!("{} columns, {} classes", self.scores.width, self.labels.len())
    }
}

struct Regressor {
    scores: Scores,
    post: Post,
}

/// `LinearRegressor`.
pub(crate) fn regressor(attrs: Attrs<'_>) -> Result<Op, LoadError> {
    let targets =
        usize::try_from(attrs.int_or("targets", 1)?).map_err(|_| attrs.error("targets out of range"))?;
    Ok(Box::new(Regressor { scores: Scores::new(attrs, targets)?, post: Post::read(attrs)? }))
}

impl Operator for Regressor {
    fn run(&self, inputs: &[Option<&Value>], budget: &mut Budget) -> Result<Vec<Value>, Failed> {
        let (rows, mut scores) = self.scores.rows(input(inputs, 0)?, budget)?;
        for row in scores.chunks_exact_mut(self.scores.count) {
            self.post.apply(row);
        }
        Ok(vec![Value::f32s(&[rows, self.scores.count], scores)])
    }

    fn detail(&self) -> String {
        format!("{} columns, {} targets", self.scores.width, self.scores.count)
    }
}
