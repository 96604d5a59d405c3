//! `ConvInteger` and `QLinearConv`: convolutions of 8-bit integers, and the sums that joined ones begin with.
//!
//! Windows are the rows of a product (`gemm8`), the weights its columns, laid out at load. An image is turned first so
//! that the channels of a cell lie side by side: then a line of a window is copied at once. Cells in the padding are zero
//! points, that is zero.
//!
//! Where a group has one channel and makes few, there is no product to speak of: sums of shifted copies are made by the
//! loops for `float`, which is exact: a product of two differences of 8-bit integers is below 2^16, so a sum of [`EXACT`] of
//! them is a whole number that `float` has.
//!
//! `QLinearConv` goes back to 8 bits as ONNX Runtime does: the sum times one factor of `float`, to the nearest, ties to
//! even, then the zero point; what does not fit is cut to the type's range.
//!
//! Not here: `float` (`conv`), numbers to integers and back (`quantized`, `joined`).

use std::borrow::Cow;
use std::ops::Range;

use models::LoadError;

use super::attrs::Attrs;
use super::conv::{Plan, depthwise, groups};
use super::gemm8::{Left, Right, product, unsigned};
use super::quantized::Rescale;
use super::value::{Budget, Cells, Failed, Value};
use super::window::{Window, image, seen_line};
use super::{Op, Operator, input};
use crate::proto::Elem;

/// Products of 255 x 255 whose sum is below 2^24.
const EXACT: usize = 258;
/// From so many channels on that a group makes, its windows are worth laying out.
const MANY: usize = 8;

/// The operator of a node, if it is one of these.
pub(crate) fn operator(attrs: Attrs<'_>) -> Result<Option<Op>, LoadError> {
    let weights_at = match attrs.node.op.as_str() {
        "ConvInteger" => 1,
        "QLinearConv" => 3,
        _ => return Ok(None),
    };
    let sums = Sums::new(attrs, weights_at, weights_at + 2)?;
    Ok(Some(if weights_at == 1 { Box::new(ConvInteger(sums)) } else { Box::new(QLinearConv(sums)) }))
}

/// Weights as the loops take them.
struct Laid {
    dims: Vec<usize>,
    /// For each group, channels that it makes as columns.
    groups: Vec<Right>,
    /// Where groups have one channel and make few: weights less their zero points.
    single: Vec<f32>,
}

impl Laid {
    fn new(w: &Value, zeros: Option<&Value>, groups: usize) -> Result<Self, Failed> {
        let (to, from, kernel) = image(w)?;
        let (rows, kernel) = (to / groups, kernel.iter().product::<usize>());
        let zeros = match zeros {
            None => Cow::Borrowed(&[0][..]),
            Some(zeros) if zeros.elem == w.elem => zeros.to_ints()?,
            Some(zeros) => {
                return Err(format!("zero points of {} for {}", zeros.elem.name(), w.elem.name()));
            }
        };
        if zeros.len() != 1 && zeros.len() != to {
            return Err(format!("{} zero points for {to} channels", zeros.len()));
        }
        let (depth, cells) = (from * kernel, w.to_ints()?);
        let mut laid = Self { dims: w.dims.clone(), groups: Vec::new(), single: Vec::new() };
        for group in 0..if depth == 0 { 0 } else { groups } {
            let cells = &cells[group * rows * depth..(group + 1) * rows * depth];
            let own = if zeros.len() == 1 { &zeros[..] } else { &zeros[group * rows..(group + 1) * rows] };
            // Channels lie side by side, as they do in a turned image.
            let at = |deep: usize, column: usize| cells[column * depth + deep % from * kernel + deep / from];
            laid.groups.push(Right::pack((w.elem, own), (depth, rows), at)?);
        }
        if is_single(from, rows, depth) {
            let less = |(at, cell): (usize, &i64)| (cell - zeros[at / depth.max(1) % zeros.len()]) as f32;
            laid.single = cells.iter().enumerate().map(less).collect();
        }
        Ok(laid)
    }
}

fn is_single(from: usize, to: usize, depth: usize) -> bool {
    from == 1 && depth <= EXACT && to < MANY
}

/// Images of numbers counted from the least of their type.
#[derive(Clone, Copy)]
pub(super) struct Image<'v> {
    pub(super) cells: &'v [u8],
    /// The zero point of all, or of each row of the batch.
    pub(super) zeros: &'v [u8],
}

/// Numbers of 8 bits counted from the least of their type, and their one zero point.
fn small(value: &Value, zero: Option<&Value>) -> Result<(Vec<u8>, u8), Failed> {
    let zero = match zero {
        None => 0,
        Some(zero) if zero.elem != value.elem => {
            return Err(format!("a zero point of {} for {}", zero.elem.name(), value.elem.name()));
        }
        Some(zero) => match zero.to_ints()?.as_ref() {
            [zero] => *zero,
            _ => return Err("more than one zero point for the image".into()),
        },
    };
    let cells = value.to_ints()?.iter().map(|cell| unsigned(value.elem, *cell)).collect::<Result<_, _>>()?;
    Ok((cells, unsigned(value.elem, zero)?))
}

/// What takes sums: the place of the first in the result, their channel, and sums of windows one after the other.
pub(super) type Take<'t> = &'t mut dyn FnMut(usize, usize, &[i32]);

/// The sums of products under each window.
pub(super) struct Sums {
    window: Window,
    groups: usize,
    /// The places of the weights and their zero points among the inputs.
    weights_at: usize,
    zeros_at: usize,
    has_zero: bool,
    /// The weights, where they and their zero points are constants.
    laid: Option<Laid>,
    weights: usize,
}

impl Sums {
    fn new(attrs: Attrs<'_>, weights_at: usize, zeros_at: usize) -> Result<Self, LoadError> {
        Ok(Self {
            window: Window::read(attrs)?,
            groups: groups(attrs)?,
            weights_at,
            zeros_at,
            has_zero: attrs.node.inputs.get(zeros_at).is_some_and(|name| !name.is_empty()),
            laid: None,
            weights: 0,
        })
    }

    /// Of a joined node.
    pub(super) fn joined(attrs: Attrs<'_>) -> Result<Self, LoadError> {
        Self::new(attrs, 1, 2)
    }

    pub(super) fn prepare(&mut self, constants: &[Option<&Value>]) -> Result<(), Failed> {
        let constant = |at: usize| constants.get(at).copied().flatten();
        let Some(w) = constant(self.weights_at) else { return Ok(()) };
        self.weights = w.count();
        let zeros = constant(self.zeros_at);
        if zeros.is_some() || !self.has_zero {
            self.laid = Some(Laid::new(w, zeros, self.groups)?);
        }
        Ok(())
    }

    /// The windows over an image of a shape by the constant weights.
    pub(super) fn plan(&self, dims: &[usize]) -> Result<Plan, Failed> {
        let laid = self.laid.as_ref().ok_or("its weights are not laid out")?;
        Plan::over(&self.window, self.groups, dims, &laid.dims)
    }

    /// Makes all sums, each on top of its channel's number in `plus` where that has any. `w` is read where the weights are
    /// no constants.
    pub(super) fn run(
        &self,
        plan: &Plan,
        image: Image<'_>,
        w: Option<(&Value, Option<&Value>)>,
        plus: &[i32],
        budget: &mut Budget,
        take: Take<'_>,
    ) -> Result<(), Failed> {
        let (depth, (size, windows)) = (plan.depth(), plan.sizes());
        let images = image.cells.len() / (plan.from * size).max(1);
        budget.work(images * plan.to * windows, depth)?;
        budget.claim(&[2, plan.from, size])?;
        budget.claim(&[depth + 2 * plan.to, plan.lines(), plan.axes[2].out])?;
        let mut own = None;
        let laid = match (&self.laid, w) {
            (Some(laid), _) => laid,
            (None, Some((w, zeros))) => {
                budget.claim(&[2, w.count()])?;
                own.insert(Laid::new(w, zeros, self.groups)?)
            }
            (None, None) => return Err("its weights are not laid out".into()),
        };
        let mut scratch = Scratch::default();
        for (index, x) in image.cells.chunks_exact((plan.from * size).max(1)).enumerate() {
            let group = index % plan.groups;
            let image = (x, image.zeros[index / plan.groups % image.zeros.len()]);
            let plus = if plus.is_empty() { plus } else { &plus[group * plan.to..(group + 1) * plan.to] };
            let mut take = |channel: usize, from: usize, sums: &[i32]| {
                take((index * plan.to + channel) * windows + from, group * plan.to + channel, sums);
            };
            if is_single(plan.from, plan.to, depth) {
                let w = &laid.single[group * plan.to * depth..(group + 1) * plan.to * depth];
                scratch.single(plan, image, w, plus, &mut take);
            } else if let Some(right) = laid.groups.get(group) {
                scratch.group(plan, image, right, plus, &mut take)?;
            }
        }
        Ok(())
    }

    /// The result's shape and its sums, of a value of integers.
    fn whole(
        &self,
        (x, zero): (&Value, Option<&Value>),
        (w, zeros): (&Value, Option<&Value>),
        budget: &mut Budget,
        take: impl Fn(usize, i32) -> i64,
    ) -> Result<(Vec<usize>, Vec<i64>), Failed> {
        let plan = Plan::over(&self.window, self.groups, &x.dims, &w.dims)?;
        let dims = plan.dims(&x.dims, |axis| axis.out);
        let mut out = vec![0; budget.claim(&dims)?];
        budget.claim(&[x.count().div_ceil(8)])?;
        let (cells, zero) = small(x, zero)?;
        let image = Image { cells: &cells, zeros: &[zero] };
        self.run(&plan, image, Some((w, zeros)), &[], budget, &mut |at, channel, sums| {
            let slots = &mut out[at..at + sums.len()];
            slots.iter_mut().zip(sums).for_each(|(slot, sum)| *slot = take(channel, *sum));
        })?;
        Ok((dims, out))
    }

    pub(super) fn cost_ns(&self) -> u64 {
        (self.weights as u64 * 4).max(2_000)
    }

    pub(super) fn detail(&self) -> String {
        format!("{} weights of 8 bits", self.weights)
    }
}

/// What is kept from one group to the next.
#[derive(Default)]
struct Scratch {
    floats: Vec<f32>,
    part: Vec<f32>,
    turned: Vec<u8>,
    left: Left,
    sums: Vec<i32>,
    line: Vec<i32>,
}

impl Scratch {
    /// A group of one channel.
    fn single(
        &mut self,
        plan: &Plan,
        (x, zero): (&[u8], u8),
        w: &[f32],
        plus: &[i32],
        take: &mut dyn FnMut(usize, usize, &[i32]),
    ) {
        let (_, windows) = plan.sizes();
        self.floats.clear();
        self.floats.extend(x.iter().map(|cell| f32::from(*cell) - f32::from(zero)));
        for (channel, w) in w.chunks_exact(plan.depth()).enumerate() {
            self.part.clear();
            self.part.resize(windows, 0.0);
            depthwise(plan, &self.floats, w, &mut self.part);
            let plus = plus.get(channel).copied().unwrap_or(0);
            self.line.clear();
            self.line.extend(self.part.iter().map(|sum| (*sum as i32).wrapping_add(plus)));
            take(channel, 0, &self.line);
        }
    }

    /// One row and one group.
    fn group(
        &mut self,
        plan: &Plan,
        (x, zero): (&[u8], u8),
        right: &Right,
        plus: &[i32],
        take: &mut dyn FnMut(usize, usize, &[i32]),
    ) -> Result<(), Failed> {
        let (size, _) = plan.sizes();
        let cells = if plan.from == 1 || size == 1 {
            x
        } else {
            self.turned.resize(x.len(), 0);
            for (channel, plane) in x.chunks_exact(size).enumerate() {
                let slots = self.turned[channel..].iter_mut().step_by(plan.from);
                slots.zip(plane).for_each(|(slot, cell)| *slot = *cell);
            }
            &self.turned
        };
        let (to, width) = (plan.to, plan.axes[2].out);
        let (lines, step) = (plan.axes[0].out * plan.axes[1].out, plan.lines());
        for from in (0..lines).step_by(step) {
            let range = from..(from + step).min(lines);
            let count = range.len() * width;
            self.left.resize(count, plan.depth());
            windows(plan, (cells, zero), range, &mut self.left);
            self.sums.resize(count * to, 0);
            product(&mut self.sums, (&self.left, &[zero]), right, plus)?;
            for channel in 0..to {
                self.line.clear();
                self.line.extend(self.sums[channel..].iter().step_by(to));
                take(channel, from * width, &self.line);
            }
        }
        Ok(())
    }
}

/// Copies what each window of `lines` sees of a turned image, `[cells, channels]`, into a row, `[kernel, channels]`.
fn windows(plan: &Plan, (cells, zero): (&[u8], u8), lines: Range<usize>, left: &mut Left) {
    let [deep, high, wide] = plan.axes;
    let (channels, line_size) = (plan.from, wide.kernel * plan.from);
    let mut rows = left.rows();
    for line in lines {
        let seen = |at: usize| seen_line(&plan.axes, line, [at / high.kernel, at % high.kernel, 0]);
        let seen: Vec<Option<usize>> = (0..deep.kernel * high.kernel).map(seen).collect();
        for (window, row) in (0..wide.out).zip(&mut rows) {
            let first = window * wide.stride;
            let inside = wide.before.saturating_sub(first).min(wide.kernel)
                ..(wide.size + wide.before).saturating_sub(first).min(wide.kernel);
            for (base, slots) in seen.iter().zip(row.chunks_exact_mut(line_size)) {
                let Some(base) = base else {
                    slots.fill(zero);
                    continue;
                };
                if wide.dilation == 1 && !inside.is_empty() {
                    let from = (base + first + inside.start - wide.before) * channels;
                    let (before, rest) = slots.split_at_mut(inside.start * channels);
                    let (seen, after) = rest.split_at_mut(inside.len() * channels);
                    before.fill(zero);
                    seen.copy_from_slice(&cells[from..from + seen.len()]);
                    after.fill(zero);
                    continue;
                }
                for (at, slots) in slots.chunks_exact_mut(channels).enumerate() {
                    match wide.cell(window, at) {
                        Some(cell) => {
                            let from = (base + cell) * channels;
                            slots.copy_from_slice(&cells[from..from + channels]);
                        }
                        None => slots.fill(zero),
                    }
                }
            }
        }
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
        let (dims, sums) = self.0.whole((x, given(2)), (w, given(3)), budget, |_, sum| i64::from(sum))?;
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
        let (x, w) = (input(inputs, 0)?, input(inputs, 3)?);
        let channels = w.dims.first().copied().unwrap_or(0);
        let result = Rescale::read(inputs, (4, channels))?;
        let bias = inputs.get(8).copied().flatten().map(Value::to_ints).transpose()?;
        if bias.as_ref().is_some_and(|bias| bias.len() != channels) {
            return Err(format!("a bias for other than {channels} channels"));
        }
        let steps = |channel: usize, sum: i32| {
            let plus = bias.as_ref().map_or(0, |bias| bias[channel] as i32);
            result.of(sum.wrapping_add(plus), result.factors[channel])
        };
        let (dims, sums) =
            self.0.whole((x, Some(input(inputs, 2)?)), (w, Some(input(inputs, 5)?)), budget, steps)?;
        Ok(vec![Value { dims, elem: result.elem, cells: Cells::Int(sums) }])
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
