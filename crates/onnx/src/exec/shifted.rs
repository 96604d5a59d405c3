//! Convolutions whose windows step by one cell: in an image with its padding around it every cell of the kernel sees the
//! same cells, shifted, so that one long run takes the place of many short lines.
//!
//! Windows that begin in one line and end in the next are computed too and left out.
//!
//! Not here: other steps and images of three dimensions (`conv`).

use super::conv::Plan;
use super::gemm::{A, B, Plus, product};
use super::value::{Budget, Failed};
use super::window::{Axis, kernel_cells};

/// Columns that a product may read behind the last window.
const BEHIND: usize = B::COLUMNS_BEHIND;

/// A group's image with its padding around it.
pub(super) struct Shifted<'p> {
    plan: &'p Plan,
    /// Cells of a line.
    wide: usize,
    /// Cells of a channel.
    plane: usize,
    /// Where each cell of the kernel sees the first window, channel by channel.
    starts: Vec<usize>,
    cells: Vec<f32>,
    part: Vec<f32>,
}

impl<'p> Shifted<'p> {
    /// Nothing where windows step farther, and where padding would be most of the work.
    pub(super) fn new(plan: &'p Plan, budget: &mut Budget) -> Result<Option<Self>, Failed> {
        let [z, y, x] = &plan.axes;
        let padded = |axis: &Axis| axis.size + axis.before + axis.after;
        let covers =
            |axis: &Axis| axis.stride == 1 && axis.out + axis.dilation * (axis.kernel - 1) <= padded(axis);
        let is_flat = padded(z) == 1 && z.kernel == 1;
        let (wide, plane) = (padded(x), padded(x) * padded(y));
        if !(is_flat && covers(x) && covers(y) && wide <= x.out + x.out / 2) {
            return Ok(None);
        }
        budget.claim(&[plan.from, plane])?;
        budget.claim(&[plan.to, plan.lines(), wide])?;
        let mut starts = Vec::with_capacity(plan.depth());
        for channel in 0..plan.from {
            kernel_cells(&plan.axes, |_, [_, line, cell]| {
                starts.push(channel * plane + line * y.dilation * wide + cell * x.dilation);
            });
        }
        let cells = vec![0.0; plan.from * plane + BEHIND];
        Ok(Some(Self { plan, wide, plane, starts, cells, part: Vec::new() }))
    }

    /// Takes the image of a row and a group, `[from, height, width]`.
    pub(super) fn take(&mut self, image: &[f32]) {
        let [_, y, x] = &self.plan.axes;
        let lines = image.chunks_exact(x.size.max(1));
        for (index, line) in lines.enumerate() {
            let (channel, at) = (index / y.size, index % y.size);
            let start = channel * self.plane + (y.before + at) * self.wide + x.before;
            self.cells[start..start + x.size].copy_from_slice(line);
        }
    }

    /// The products with the weights: `out` is `[to, windows]`.
    pub(super) fn products(&mut self, w: A<'_>, bias: Plus<'_>, out: &mut [f32]) -> Result<(), Failed> {
        let (height, width, step) = (self.plan.axes[1].out, self.plan.axes[2].out, self.plan.lines());
        for from in (0..height).step_by(step) {
            let count = (step.min(height - from) - 1) * self.wide + width;
            self.part.resize(self.plan.to * count, 0.0);
            let seen = B::Shifted { cells: &self.cells[from * self.wide..], starts: &self.starts };
            product(&mut self.part, w, seen, (self.plan.to, self.starts.len(), count), bias)?;
            for (own, out) in self.part.chunks_exact(count).zip(out.chunks_exact_mut(height * width)) {
                self.lines(own, &mut out[from * width..]);
            }
        }
        Ok(())
    }

    /// One channel's sum of shifted copies: `out` is `[windows]`.
    pub(super) fn sum(&mut self, w: &[f32], bias: f32, out: &mut [f32]) {
        let (height, width) = (self.plan.axes[1].out, self.plan.axes[2].out);
        self.part.clear();
        self.part.resize((height - 1) * self.wide + width, bias);
        for (start, w) in self.starts.iter().zip(w) {
            self.part.iter_mut().zip(&self.cells[*start..]).for_each(|(sum, x)| *sum += w * x);
        }
        self.lines(&self.part, out);
    }

    /// Copies the windows of each line.
    fn lines(&self, from: &[f32], to: &mut [f32]) {
        let width = self.plan.axes[2].out;
        for (from, to) in from.chunks(self.wide).zip(to.chunks_exact_mut(width)) {
            to.copy_from_slice(&from[..width]);
        }
    }
}
