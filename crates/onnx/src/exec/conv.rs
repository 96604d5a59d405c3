//! `Conv` and `ConvTranspose`: products of the weights with the cells under each window.
//!
//! The windows of some lines at a time are copied into columns, so memory does not grow with the image. Each row of
//! the batch is computed alone, therefore its bits do not depend on the others.
//!
//! Not here: sizes of windows (`window`), the product itself (`gemm`), convolutions of integers (`conv_integer`).

use std::ops::Range;

use models::LoadError;

use super::attrs::Attrs;
use super::gemm::{A, B, Left, Plus, product};
use super::shifted::Shifted;
use super::value::{Budget, Failed, Value};
use super::window::{AXES, Axis, Window, floats, image, kernel_cells, product as over, seen_line, shaped};
use super::{Op, Operator, input};

/// Cells of the columns that are copied at once, unless one line has more.
const COLUMNS: usize = 1 << 18;
/// Groups at most: their product with a size of the file stays far from overflow.
const GROUPS_MAX: usize = 1 << 24;

/// The operator of a node, if it is one of these.
pub(crate) fn operator(attrs: Attrs<'_>) -> Result<Option<Op>, LoadError> {
    let list = |name: &str| {
        let size = |x: &i64| usize::try_from(*x).ok().filter(|x| *x <= 1 << 24);
        let sizes: Option<Vec<usize>> = attrs.ints(name)?.iter().map(size).collect();
        sizes.ok_or_else(|| attrs.error(format!("{name} out of range")))
    };
    Ok(Some(match attrs.node.op.as_str() {
        "Conv" => Box::new(Conv {
            window: Window::read(attrs)?,
            groups: groups(attrs)?,
            packed: Vec::new(),
            weights: 0,
        }),
        "ConvTranspose" => Box::new(Transposed {
            window: Window::read(attrs)?,
            groups: groups(attrs)?,
            extra: list("output_padding")?,
            wanted: list("output_shape")?,
        }),
        _ => return Ok(None),
    }))
}

/// The attribute `group`.
pub(super) fn groups(attrs: Attrs<'_>) -> Result<usize, LoadError> {
    let groups = attrs.int_or("group", 1)?;
    usize::try_from(groups)
        .ok()
        .filter(|groups| (1..=GROUPS_MAX).contains(groups))
        .ok_or_else(|| attrs.error("group"))
}

struct Conv {
    window: Window,
    groups: usize,
    /// The weights of each group, where they are constants.
    packed: Vec<Left>,
    weights: usize,
}

/// The numbers of one convolution.
pub(super) struct Plan {
    pub(super) axes: [Axis; AXES],
    /// Channels of a group: in and out.
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) groups: usize,
}

impl Plan {
    /// Of a window over an image `x` with the weights `w`.
    pub(super) fn over(window: &Window, groups: usize, x: &[usize], w: &[usize]) -> Result<Self, Failed> {
        let ((_, channels, sizes), (to, from, kernel)) = (shaped(x)?, shaped(w)?);
        if kernel.len() != sizes.len() || channels != from * groups || to % groups != 0 {
            return Err(format!("weights {w:?} in {groups} groups for {x:?}"));
        }
        let axes = window.over(sizes, kernel)?;
        Ok(Self { axes, from, to: to / groups, groups })
    }

    /// The result's shape for `x`; `size` is what an axis of it has.
    pub(super) fn dims(&self, x: &[usize], size: fn(&Axis) -> usize) -> Vec<usize> {
        let mut dims = vec![x[0], self.to * self.groups];
        dims.extend(self.axes[AXES + 2 - x.len()..].iter().map(size));
        dims
    }

    /// Rows of the columns: a group's cells under a window.
    pub(super) fn depth(&self) -> usize {
        self.from * over(&self.axes, |axis| axis.kernel)
    }

    /// Cells of a channel, and windows over it.
    pub(super) fn sizes(&self) -> (usize, usize) {
        (over(&self.axes, |axis| axis.size), over(&self.axes, |axis| axis.out))
    }

    /// Whether every cell is a window.
    fn is_pointwise(&self) -> bool {
        let (size, windows) = self.sizes();
        size == windows && self.axes.iter().all(|axis| axis.kernel == 1 && axis.stride == 1)
    }

    /// Lines of windows that are done at once.
    pub(super) fn lines(&self) -> usize {
        let line = self.depth() * self.axes[2].out;
        (COLUMNS / line.max(1)).clamp(1, (self.axes[0].out * self.axes[1].out).max(1))
    }
}

/// Copies what the windows of `lines` see of `cells` (a group's channels) into `columns`, `[depth, windows]`.
pub(super) fn columns(plan: &Plan, cells: &[f32], lines: Range<usize>, columns: &mut [f32]) {
    let axes = &plan.axes;
    let (size, _) = plan.sizes();
    let kernel = over(axes, |axis| axis.kernel);
    let width = axes[2].out;
    let count = lines.len() * width;
    for channel in 0..plan.from {
        let image = &cells[channel * size..(channel + 1) * size];
        kernel_cells(axes, |place, at| {
            let row = (channel * kernel + place) * count;
            let inside = axes[2].inside(at[2]);
            for (index, line) in lines.clone().enumerate() {
                let out = &mut columns[row + index * width..row + (index + 1) * width];
                let seen = seen_line(axes, line, at);
                let (Some(base), Some(first)) = (seen, axes[2].cell(inside.start, at[2])) else {
                    out.fill(0.0);
                    continue;
                };
                out[..inside.start].fill(0.0);
                out[inside.end..].fill(0.0);
                let from = &image[base + first..];
                let to = &mut out[inside.clone()];
                if axes[2].stride == 1 {
                    to.copy_from_slice(&from[..to.len()]);
                } else {
                    to.iter_mut().zip(from.iter().step_by(axes[2].stride)).for_each(|(to, from)| *to = *from);
                }
            }
        });
    }
}

/// What a convolution is given, its parts checked against each other.
struct Given<'v> {
    plan: Plan,
    cells: &'v [f32],
    weights: &'v [f32],
    bias: Option<&'v [f32]>,
    /// The result's shape.
    dims: Vec<usize>,
}

impl<'v> Given<'v> {
    /// `plan` is made of the image and the weights; `size` is what an axis of the result has.
    fn read(
        inputs: &[Option<&'v Value>],
        plan: impl FnOnce(&Value, &Value) -> Result<Plan, Failed>,
        size: fn(&Axis) -> usize,
    ) -> Result<Self, Failed> {
        let (x, w) = (input(inputs, 0)?, input(inputs, 1)?);
        let plan = plan(x, w)?;
        let dims = plan.dims(&x.dims, size);
        let bias = inputs.get(2).copied().flatten().map(floats).transpose()?;
        if bias.is_some_and(|bias| bias.len() != dims[1]) {
            return Err(format!("a bias for other than {} channels", dims[1]));
        }
        Ok(Self { plan, cells: floats(x)?, weights: floats(w)?, bias, dims })
    }
}

impl Conv {
    /// One row and one group: `out` is `[to, windows]`.
    fn group(
        &self,
        plan: &Plan,
        (x, w, bias): (&[f32], A<'_>, Plus<'_>),
        scratch: &mut Vec<f32>,
        out: &mut [f32],
    ) -> Result<(), Failed> {
        let (depth, (_, windows)) = (plan.depth(), plan.sizes());
        if plan.is_pointwise() {
            return product(out, w, B::Plain(x), (plan.to, depth, windows), bias);
        }
        let (width, step) = (plan.axes[2].out, plan.lines());
        let lines = plan.axes[0].out * plan.axes[1].out;
        let mut part = Vec::new();
        for from in (0..lines).step_by(step) {
            let range = from..(from + step).min(lines);
            let count = range.len() * width;
            scratch.resize(depth * count, 0.0);
            columns(plan, x, range.clone(), scratch);
            if count == windows {
                return product(out, w, B::Plain(scratch), (plan.to, depth, windows), bias);
            }
            part.resize(plan.to * count, 0.0);
            product(&mut part, w, B::Plain(scratch), (plan.to, depth, count), bias)?;
            for (channel, cells) in part.chunks_exact(count).enumerate() {
                let at = channel * windows + from * width;
                out[at..at + count].copy_from_slice(cells);
            }
        }
        Ok(())
    }
}

/// A group of one channel: each output channel is a sum of shifted copies.
pub(super) fn depthwise(plan: &Plan, x: &[f32], w: &[f32], out: &mut [f32]) {
    let axes = &plan.axes;
    let width = axes[2].out;
    kernel_cells(axes, |place, at| {
        let inside = axes[2].inside(at[2]);
        for line in 0..axes[0].out * axes[1].out {
            let seen = seen_line(axes, line, at);
            let (Some(base), Some(first)) = (seen, axes[2].cell(inside.start, at[2])) else { continue };
            let from = &x[base + first..];
            let to = &mut out[line * width..(line + 1) * width][inside.clone()];
            if axes[2].stride == 1 {
                to.iter_mut().zip(from).for_each(|(to, from)| *to += w[place] * from);
            } else {
                let from = from.iter().step_by(axes[2].stride);
                to.iter_mut().zip(from).for_each(|(to, from)| *to += w[place] * from);
            }
        }
    });
}

impl Operator for Conv {
    fn prepare(&mut self, constants: &[Option<&Value>]) -> Result<(), Failed> {
        let Some(w) = constants.get(1).copied().flatten() else { return Ok(()) };
        let (to, from, kernel) = image(w)?;
        let cells = floats(w)?;
        let (rows, depth) = (to / self.groups, from * kernel.iter().product::<usize>());
        self.weights = cells.len();
        // One channel to one is no product at all.
        if depth > 0 && (rows, from) != (1, 1) {
            let group = rows * depth;
            self.packed = cells.chunks_exact(group).map(|group| Left::pack(group, (rows, depth))).collect();
        }
        Ok(())
    }

    fn run(&self, inputs: &[Option<&Value>], budget: &mut Budget) -> Result<Vec<Value>, Failed> {
        let over = |x: &Value, w: &Value| Plan::over(&self.window, self.groups, &x.dims, &w.dims);
        let Given { plan, cells, weights, bias, dims } = Given::read(inputs, over, |axis| axis.out)?;
        let count = budget.claim(&dims)?;
        let depth = plan.depth();
        budget.work(count, depth)?;
        budget.claim(&[depth, plan.lines(), plan.axes[2].out])?;
        let (size, windows) = plan.sizes();
        let mut out = vec![0.0; count];
        let mut scratch = Vec::new();
        let mut shifted = if plan.is_pointwise() { None } else { Shifted::new(&plan, budget)? };
        for (index, out) in out.chunks_exact_mut((plan.to * windows).max(1)).enumerate() {
            let group = index % plan.groups;
            let x = &cells[index * plan.from * size..(index + 1) * plan.from * size];
            let w = &weights[group * plan.to * depth..(group + 1) * plan.to * depth];
            let bias = bias.map(|bias| &bias[group * plan.to..(group + 1) * plan.to]);
            if let Some(shifted) = &mut shifted {
                shifted.take(x);
                if (plan.to, plan.from) == (1, 1) {
                    shifted.sum(w, bias.map_or(0.0, |bias| bias[0]), out);
                } else {
                    let w = self.packed.get(group).map_or(A::Plain(w), A::Packed);
                    shifted.products(w, bias.map_or(Plus::Nothing, Plus::Rows), out)?;
                }
                continue;
            }
            if plan.from == 1 {
                for (at, out) in out.chunks_exact_mut(windows).enumerate() {
                    out.fill(bias.map_or(0.0, |bias| bias[at]));
                    depthwise(&plan, x, &w[at * depth..(at + 1) * depth], out);
                }
                continue;
            }
            let w = self.packed.get(group).map_or(A::Plain(w), A::Packed);
            self.group(&plan, (x, w, bias.map_or(Plus::Nothing, Plus::Rows)), &mut scratch, out)?;
        }
        Ok(vec![Value::f32s(&dims, out)])
    }

    fn cost_ns(&self) -> u64 {
        // Each weight meets some hundred windows.
        (self.weights as u64 * 4).max(2_000)
    }

    fn detail(&self) -> String {
        format!("{} weights", self.weights)
    }
}

struct Transposed {
    window: Window,
    groups: usize,
    extra: Vec<usize>,
    wanted: Vec<usize>,
}

impl Transposed {
    fn plan(&self, x: &Value, w: &Value) -> Result<Plan, Failed> {
        let ((_, channels, sizes), (inner, to, kernel)) = (image(x)?, image(w)?);
        if kernel.len() != sizes.len() || channels != inner || channels % self.groups != 0 {
            return Err(format!("weights {:?} in {} groups for {:?}", w.dims, self.groups, x.dims));
        }
        let axes = self.window.under(sizes, kernel, &self.extra, &self.wanted)?;
        Ok(Plan { axes, from: channels / self.groups, to, groups: self.groups })
    }
}

/// Adds the columns `[to x kernel, cells of lines]` to the cells that they stand for.
fn scatter(plan: &Plan, columns: &[f32], lines: Range<usize>, out: &mut [f32]) {
    let axes = &plan.axes;
    let (size, _) = plan.sizes();
    let kernel = over(axes, |axis| axis.kernel);
    let width = axes[2].out;
    for channel in 0..plan.to {
        let image = &mut out[channel * size..(channel + 1) * size];
        kernel_cells(axes, |place, at| {
            let row = (channel * kernel + place) * lines.len() * width;
            let inside = axes[2].inside(at[2]);
            for (index, line) in lines.clone().enumerate() {
                let seen = seen_line(axes, line, at);
                let (Some(base), Some(first)) = (seen, axes[2].cell(inside.start, at[2])) else { continue };
                let from = &columns[row + index * width..row + (index + 1) * width][inside.clone()];
                let to = image[base + first..].iter_mut().step_by(axes[2].stride);
                to.zip(from).for_each(|(to, from)| *to += from);
            }
        });
    }
}

impl Operator for Transposed {
    fn run(&self, inputs: &[Option<&Value>], budget: &mut Budget) -> Result<Vec<Value>, Failed> {
        let under = |x: &Value, w: &Value| self.plan(x, w);
        let Given { plan, cells, weights, bias, dims } = Given::read(inputs, under, |axis| axis.size)?;
        let count = budget.claim(&dims)?;
        let (size, windows) = plan.sizes();
        let rows = plan.to * over(&plan.axes, |axis| axis.kernel);
        let lines = plan.axes[0].out * plan.axes[1].out;
        let step = (COLUMNS / (rows * plan.axes[2].out).max(1)).clamp(1, lines.max(1));
        budget.claim(&[rows, step, plan.axes[2].out])?;
        budget.work(cells.len(), rows)?;
        // The weights of a group as `[to x kernel, from]`.
        let inner = plan.from;
        let turn = |group: &[f32]| -> Vec<f32> {
            (0..rows).flat_map(|row| (0..inner).map(move |at| at * rows + row)).map(|at| group[at]).collect()
        };
        let turned: Vec<f32> = weights.chunks_exact((inner * rows).max(1)).flat_map(turn).collect();
        let mut out = vec![0.0; count];
        let mut columns = Vec::new();
        for (index, out) in out.chunks_exact_mut((plan.to * size).max(1)).enumerate() {
            let group = index % plan.groups;
            if let Some(bias) = bias {
                let own = &bias[group * plan.to..(group + 1) * plan.to];
                out.chunks_exact_mut(size).zip(own).for_each(|(out, bias)| out.fill(*bias));
            }
            let x = &cells[index * plan.from * windows..(index + 1) * plan.from * windows];
            let w = &turned[group * rows * plan.from..(group + 1) * rows * plan.from];
            let width = plan.axes[2].out;
            for from in (0..lines).step_by(step) {
                let range = from..(from + step).min(lines);
                let count = range.len() * width;
                let seen: Vec<f32> = x
                    .chunks_exact(windows)
                    .flat_map(|channel| &channel[from * width..from * width + count])
                    .copied()
                    .collect();
                columns.resize(rows * count, 0.0);
                product(&mut columns, A::Plain(w), B::Plain(&seen), (rows, plan.from, count), Plus::Nothing)?;
                scatter(&plan, &columns, range, out);
            }
        }
        Ok(vec![Value::f32s(&dims, out)])
    }
}
