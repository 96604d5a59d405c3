//! `ConvInteger` and `QLinearConv`: convolutions of 8-bit integers.
//!
//! The products are made by the kernels for `float`, which is exact: a product of two differences of 8-bit integers is
//! below 2^16, so a sum of [`EXACT`] of them is a whole number that `float` has. Longer sums are made part by part and
//! added up as integers. Cells in the padding are zero points, that is zero.
//!
//! `QLinearConv` goes back to 8 bits as ONNX Runtime does: the sum times one factor of `float`, to the nearest, ties to
//! even, then the zero point; what does not fit is cut to the type's range.
//!
//! Not here: `float` (`conv`), numbers to integers and back (`quantized`).

use models::LoadError;

use super::attrs::Attrs;
use super::conv::{Plan, columns, depthwise, groups};
use super::gemm::{A, B, Left, Plus, product};
use super::quantized::{nearest, range};
use super::value::{Budget, Cells, Failed, Value};
use super::window::{Window, image};
use super::{Op, Operator, input};
use crate::proto::Elem;

/// Products of 255 x 255 whose sum is below 2^24.
const EXACT: usize = 258;

/// The operator of a node, if it is one of these.
pub(crate) fn operator(attrs: Attrs<'_>) -> Result<Option<Op>, LoadError> {
    let weights_at = match attrs.node.op.as_str() {
        "ConvInteger" => 1,
        "QLinearConv" => 3,
        _ => return Ok(None),
    };
    let zero_at = weights_at + 2;
    let sums = Sums {
        window: Window::read(attrs)?,
        groups: groups(attrs)?,
        weights_at,
        has_zero: attrs.node.inputs.get(zero_at).is_some_and(|name| !name.is_empty()),
        laid: None,
        weights: 0,
    };
    Ok(Some(if weights_at == 1 { Box::new(ConvInteger(sums)) } else { Box::new(QLinearConv(sums)) }))
}

/// The cells of 8 bits less their zero points, of which there is one, or one for each part of the first dimension.
fn less(value: &Value, zeros: Option<&Value>) -> Result<Vec<f32>, Failed> {
    let (low, high) = range(value.elem)?;
    // A file may keep them in wider fields.
    let bounds = low as i64..=high as i64;
    let fits = |cells: &[i64]| cells.iter().all(|cell| bounds.contains(cell));
    let cells = value.to_ints()?;
    let zeros = match zeros {
        None => vec![0],
        Some(zeros) if zeros.elem == value.elem => zeros.to_ints()?.into_owned(),
        Some(zeros) => return Err(format!("zero points of {} for {}", zeros.elem.name(), value.elem.name())),
    };
    if !fits(&cells) || !fits(&zeros) {
        return Err(format!("numbers outside of {}", value.elem.name()));
    }
    let parts = value.dims.first().copied().unwrap_or(1);
    if zeros.len() != 1 && zeros.len() != parts {
        return Err(format!("{} zero points for {parts} parts", zeros.len()));
    }
    let inner = (cells.len() / zeros.len().max(1)).max(1);
    let mut numbers = Vec::with_capacity(cells.len());
    for (cells, zero) in cells.chunks(inner).zip(&zeros) {
        numbers.extend(cells.iter().map(|cell| (cell - zero) as i32 as f32));
    }
    Ok(numbers)
}

/// Weights less their zero points.
struct Laid {
    plain: Vec<f32>,
    /// For each group, its columns [`EXACT`] by [`EXACT`].
    packed: Vec<Vec<Left>>,
}

impl Laid {
    fn new(w: &Value, zeros: Option<&Value>, groups: usize) -> Result<Self, Failed> {
        let (to, from, kernel) = image(w)?;
        let plain = less(w, zeros)?;
        let (rows, depth) = (to / groups, from * kernel.iter().product::<usize>());
        if rows * depth == 0 {
            return Ok(Self { plain, packed: Vec::new() });
        }
        let part = |group: &[f32], from: usize| {
            let wide = EXACT.min(depth - from);
            let cells: Vec<f32> =
                group.chunks_exact(depth).flat_map(|row| &row[from..from + wide]).copied().collect();
            Left::pack(&cells, (rows, wide))
        };
        let group = |cells: &[f32]| (0..depth).step_by(EXACT).map(|from| part(cells, from)).collect();
        let packed = plain.chunks_exact(rows * depth).map(group).collect();
        Ok(Self { plain, packed })
    }
}

/// The sums of products under each window.
struct Sums {
    window: Window,
    groups: usize,
    /// The place of the weights among the inputs; their zero points are two places on.
    weights_at: usize,
    has_zero: bool,
    /// The weights, where they and their zero points are constants.
    laid: Option<Laid>,
    weights: usize,
}

impl Sums {
    fn prepare(&mut self, constants: &[Option<&Value>]) -> Result<(), Failed> {
        let constant = |at: usize| constants.get(at).copied().flatten();
        let Some(w) = constant(self.weights_at) else { return Ok(()) };
        self.weights = w.count();
        let zeros = constant(self.weights_at + 2);
        if zeros.is_some() || !self.has_zero {
            self.laid = Some(Laid::new(w, zeros, self.groups)?);
        }
        Ok(())
    }

    /// The result's shape and its sums; `zero` is the image's zero point, `zeros` are the weights'.
    fn run(
        &self,
        (x, zero): (&Value, Option<&Value>),
        (w, zeros): (&Value, Option<&Value>),
        budget: &mut Budget,
    ) -> Result<(Vec<usize>, Vec<i64>), Failed> {
        if zero.is_some_and(|zero| zero.count() != 1) {
            return Err("more than one zero point for the image".into());
        }
        let plan = Plan::over(&self.window, self.groups, x, w)?;
        let (dims, depth) = (plan.dims(x, |axis| axis.out), plan.depth());
        let count = budget.claim(&dims)?;
        budget.work(count, depth)?;
        budget.claim(&x.dims)?;
        budget.claim(&[depth + plan.to, plan.lines(), plan.axes[2].out])?;
        let mut own = None;
        let laid = match &self.laid {
            Some(laid) => laid,
            None => {
                budget.claim(&[2, w.count()])?;
                own.insert(Laid::new(w, zeros, self.groups)?)
            }
        };
        let cells = less(x, zero)?;
        let (size, windows) = plan.sizes();
        let mut sums = vec![0; count];
        let mut scratch = Scratch::default();
        for (index, out) in sums.chunks_exact_mut((plan.to * windows).max(1)).enumerate() {
            let group = index % plan.groups;
            let x = &cells[index * plan.from * size..(index + 1) * plan.from * size];
            if plan.from == 1 && depth <= EXACT {
                let w = &laid.plain[group * plan.to * depth..(group + 1) * plan.to * depth];
                scratch.single(&plan, x, w, out);
            } else if let Some(packed) = laid.packed.get(group) {
                scratch.group(&plan, x, packed, out)?;
            }
        }
        // ONNX sums in 32 bits, which wrap.
        sums.iter_mut().for_each(|sum| *sum = i64::from(*sum as i32));
        Ok((dims, sums))
    }

    fn cost_ns(&self) -> u64 {
        (self.weights as u64 * 4).max(2_000)
    }

    fn detail(&self) -> String {
        format!("{} weights of 8 bits", self.weights)
    }
}

/// What is kept from one group to the next.
#[derive(Default)]
struct Scratch {
    columns: Vec<f32>,
    part: Vec<f32>,
}

impl Scratch {
    /// A group of one channel.
    fn single(&mut self, plan: &Plan, x: &[f32], w: &[f32], out: &mut [i64]) {
        let (_, windows) = plan.sizes();
        for (w, out) in w.chunks_exact(plan.depth()).zip(out.chunks_exact_mut(windows)) {
            self.part.clear();
            self.part.resize(windows, 0.0);
            depthwise(plan, x, w, &mut self.part);
            out.iter_mut().zip(&self.part).for_each(|(out, sum)| *out = i64::from(*sum as i32));
        }
    }

    /// One row and one group: `out` is `[to, windows]`.
    fn group(&mut self, plan: &Plan, x: &[f32], packed: &[Left], out: &mut [i64]) -> Result<(), Failed> {
        let (depth, (_, windows)) = (plan.depth(), plan.sizes());
        let width = plan.axes[2].out;
        let (lines, step) = (plan.axes[0].out * plan.axes[1].out, plan.lines());
        for from in (0..lines).step_by(step) {
            let range = from..(from + step).min(lines);
            let count = range.len() * width;
            self.columns.resize(depth * count, 0.0);
            columns(plan, x, range, &mut self.columns);
            self.part.resize(plan.to * count, 0.0);
            for (left, right) in packed.iter().zip(self.columns.chunks(EXACT * count)) {
                let shape = (plan.to, right.len() / count, count);
                product(&mut self.part, A::Packed(left), B::Plain(right), shape, Plus::Nothing)?;
                for (channel, sums) in self.part.chunks_exact(count).enumerate() {
                    let at = channel * windows + from * width;
                    out[at..at + count]
                        .iter_mut()
                        .zip(sums)
                        .for_each(|(out, sum)| *out += i64::from(*sum as i32));
                }
            }
        }
        Ok(())
    }
}

struct ConvInteger(Sums);

impl Operator for ConvInteger {
    fn prepare(&mut self, constants: &[Option<&Value>]) -> Result<(), Failed> {
        self.0.prepare(constants)
    }

    fn run(&self, inputs: &[Option<&Value>], budget: &mut Budget) -> Result<Vec<Value>, Failed> {
        let given = |at: usize| inputs.get(at).copied().flatten();
        let (x, w) = (input(inputs, 0)?, input(inputs, 1)?);
        let (dims, sums) = self.0.run((x, given(2)), (w, given(3)), budget)?;
        Ok(vec![Value { dims, elem: Elem::I32, cells: Cells::Int(sums) }])
    }

    fn cost_ns(&self) -> u64 {
        self.0.cost_ns()
    }

    fn detail(&self) -> String {
        self.0.detail()
    }
}

struct QLinearConv(Sums);

impl Operator for QLinearConv {
    fn prepare(&mut self, constants: &[Option<&Value>]) -> Result<(), Failed> {
        self.0.prepare(constants)
    }

    fn run(&self, inputs: &[Option<&Value>], budget: &mut Budget) -> Result<Vec<Value>, Failed> {
        let one = |at: usize| match input(inputs, at)?.to_f32s()?.as_ref() {
            [scale] => Ok(*scale),
            scales => Err(format!("{} scales at input {at} where one is needed", scales.len())),
        };
        let (x, w) = (input(inputs, 0)?, input(inputs, 3)?);
        let (dims, mut sums) =
            self.0.run((x, Some(input(inputs, 2)?)), (w, Some(input(inputs, 5)?)), budget)?;
        let channels = dims[1];
        let scales = input(inputs, 4)?.to_f32s()?;
        if scales.len() != 1 && scales.len() != channels {
            return Err(format!("{} scales for {channels} channels", scales.len()));
        }
        let bias = inputs.get(8).copied().flatten().map(Value::to_ints).transpose()?;
        if bias.as_ref().is_some_and(|bias| bias.len() != channels) {
            return Err(format!("a bias for other than {channels} channels"));
        }
        let (x_scale, y_scale, y_zero) = (one(1)?, one(6)?, input(inputs, 7)?);
        let (low, high) = range(y_zero.elem)?;
        let &[zero] = y_zero.to_ints()?.as_ref() else {
            return Err("more than one zero point for the result".into());
        };
        let windows: usize = dims[2..].iter().product();
        for (at, sums) in sums.chunks_exact_mut(windows.max(1)).enumerate() {
            let channel = at % channels;
            let factor = x_scale * scales[channel % scales.len()] / y_scale;
            let plus = bias.as_ref().map_or(0, |bias| bias[channel]);
            for sum in sums {
                let steps = nearest(sum.wrapping_add(plus) as i32 as f32 * factor);
                *sum = i64::from((steps + zero as f32).clamp(low, high) as i32);
            }
        }
        Ok(vec![Value { dims, elem: y_zero.elem, cells: Cells::Int(sums) }])
    }

    fn cost_ns(&self) -> u64 {
        self.0.cost_ns()
    }

    fn detail(&self) -> String {
        self.0.detail()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::value::Bounds;
    use crate::proto::{Attr, Node};

    fn bytes(dims: &[usize], elem: Elem, cells: Vec<i64>) -> Value {
        Value { dims: dims.to_vec(), elem, cells: Cells::Int(cells) }
    }

    /// What the operator makes; `laid` says whether it is told of its constants.
    fn run(op: &str, inputs: &[Value], laid: bool) -> Result<Value, Failed> {
        let names = (0..inputs.len()).map(|at| format!("v{at}")).collect();
        let attrs = vec![("pads".to_owned(), Attr::Ints(vec![1, 0]))];
        let node = Node { op: op.into(), inputs: names, attrs, ..Node::default() };
        let mut op = operator(Attrs::new(&node)).expect("it is read").expect("it is ours");
        let given: Vec<Option<&Value>> = inputs.iter().map(Some).collect();
        if laid {
            let constants: Vec<_> = given.iter().enumerate().map(|(at, v)| v.filter(|_| at > 0)).collect();
            op.prepare(&constants).expect("they fit");
        }
        let mut budget = Budget::new(Bounds { cells: 1 << 20, ..Bounds::default() });
        Ok(op.run(&given, &mut budget)?.remove(0))
    }

    #[test]
    fn sums_past_the_whole_numbers_of_float_are_exact() {
        let channels = 2 * EXACT + 7;
        let x = bytes(&[1, channels, 1], Elem::U8, vec![255; channels]);
        let w = bytes(&[3, channels, 1], Elem::U8, vec![255; 3 * channels]);
        let less = bytes(&[3], Elem::U8, vec![0, 255, 254]);
        let inputs = [x, w, bytes(&[], Elem::U8, vec![0]), less];
        let whole = 255 * channels as i64;
        for laid in [true, false] {
            let made = run("ConvInteger", &inputs, laid).expect("it runs");
            // The first window lies in the padding.
            assert_eq!((made.dims, made.elem), (vec![1, 3, 2], Elem::I32));
            assert_eq!(made.cells, Cells::Int(vec![0, 255 * whole, 0, 0, 0, whole]));
        }
    }

    #[test]
    fn results_go_to_the_nearest_with_ties_to_even_and_are_cut_at_the_ends() {
        let small = |cells: Vec<i64>| bytes(&[1, 1, cells.len()], Elem::I8, cells);
        let scale = |x: f32| Value::f32s(&[], vec![x]);
        let zero = |x: i64| bytes(&[], Elem::I8, vec![x]);
        let inputs = [
            small(vec![0, 1, 2, 3, 5, -1, 100, -100]),
            scale(0.5),
            zero(0),
            bytes(&[1, 1, 1], Elem::I8, vec![3]),
            scale(1.0),
            zero(0),
            scale(1.0),
            zero(-1),
            Value { dims: vec![1], elem: Elem::I32, cells: Cells::Int(vec![0]) },
        ];
        let made = run("QLinearConv", &inputs, true).expect("it runs");
        // The padding, then halves of 3, 6, 9, 15, -3, 300, -300, less one.
        assert_eq!(made.cells, Cells::Int(vec![-1, -1, 1, 2, 3, 7, -3, 127, -128]));
    }

    #[test]
    fn numbers_that_no_8_bits_hold_are_refused() {
        let image = |cell: i64, elem| bytes(&[1, 1, 1], elem, vec![cell]);
        for (x, w) in [(256, 1), (-1, 1), (1, i64::MIN), (1, 1 << 40)] {
            let inputs = [image(x, Elem::U8), image(w, Elem::I8)];
            assert!(run("ConvInteger", &inputs, false).expect_err("too wide").contains("outside"), "{x} {w}");
        }
        let inputs = [image(1, Elem::I32), image(1, Elem::I8)];
        assert!(run("ConvInteger", &inputs, false).expect_err("32 bits").contains("int32"));
    }
}
