//! Windows that slide over the spatial dimensions: what `Conv`, `ConvTranspose` and the pools have in common.
//!
//! One to three spatial dimensions are taken; fewer than three are three with leading ones, so that the loops are
//! written once.
//!
//! Not here: what is done in a window (`conv`, `pool`).

use models::LoadError;

use super::attrs::Attrs;
use super::value::{Failed, Value};

/// The spatial dimensions of every loop.
pub(crate) const AXES: usize = 3;
/// Sizes, steps and pads of a window, at most: products of these stay far from overflow.
const SIZE_MAX: i64 = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Auto {
    Off,
    /// What is left over is added after, or before.
    Same {
        before: bool,
    },
    Valid,
}

/// The attributes of a window.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    pub(crate) kernel: Vec<usize>,
    strides: Vec<usize>,
    dilations: Vec<usize>,
    pads: Vec<usize>,
    auto: Auto,
    up: bool,
}

/// One spatial dimension of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Axis {
    pub(crate) size: usize,
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    pub(crate) dilation: usize,
    pub(crate) before: usize,
    pub(crate) after: usize,
    /// Windows.
    pub(crate) out: usize,
}

impl Axis {
    const TRIVIAL: Self = Self { size: 1, kernel: 1, stride: 1, dilation: 1, before: 0, after: 0, out: 1 };

    /// The cell that the kernel's cell `at` of window `out` lies on; `None` in the padding.
    pub(crate) fn cell(&self, out: usize, at: usize) -> Option<usize> {
        (out * self.stride + at * self.dilation).checked_sub(self.before).filter(|at| *at < self.size)
    }

    /// The windows whose kernel's cell `at` lies on a cell.
    pub(crate) fn inside(&self, at: usize) -> std::ops::Range<usize> {
        let shift = at * self.dilation;
        let from = self.before.saturating_sub(shift).div_ceil(self.stride);
        let to = (self.size + self.before).saturating_sub(shift).div_ceil(self.stride).min(self.out);
        from.min(to)..to
    }

    fn extent(&self) -> usize {
        self.dilation * (self.kernel - 1) + 1
    }
}

/// The product of a measure over all dimensions.
pub(crate) fn product(axes: &[Axis; AXES], of: impl Fn(&Axis) -> usize) -> usize {
    axes.iter().map(of).product()
}

/// Calls `each` with every cell of the kernel: its place in the row-major kernel, and its place on each axis.
pub(crate) fn kernel_cells(axes: &[Axis; AXES], mut each: impl FnMut(usize, [usize; AXES])) {
    let mut at = 0;
    for z in 0..axes[0].kernel {
        for y in 0..axes[1].kernel {
            for x in 0..axes[2].kernel {
                each(at, [z, y, x]);
                at += 1;
            }
        }
    }
}

/// Calls `each` with cells and with every `stride`th number from the first on; steps of one and two go many at once.
#[inline(always)]
pub(crate) fn with_steps(cells: &mut [f32], from: &[f32], stride: usize, each: impl Fn(&mut f32, f32)) {
    match stride {
        1 => cells.iter_mut().zip(from).for_each(|(cell, x)| each(cell, *x)),
        2 => {
            let (pairs, last) = from.as_chunks::<2>();
            cells.iter_mut().zip(pairs).for_each(|(cell, pair)| each(cell, pair[0]));
            cells.iter_mut().skip(pairs.len()).zip(last).for_each(|(cell, x)| each(cell, *x));
        }
        _ => cells.iter_mut().zip(from.iter().step_by(stride)).for_each(|(cell, x)| each(cell, *x)),
    }
}

/// The line of cells that a kernel's cell sees in a line of windows; `None` in the padding.
pub(crate) fn seen_line(axes: &[Axis; AXES], line: usize, at: [usize; AXES]) -> Option<usize> {
    let z = axes[0].cell(line / axes[1].out, at[0])?;
    let y = axes[1].cell(line % axes[1].out, at[1])?;
    Some((z * axes[1].size + y) * axes[2].size)
}

fn sizes(attrs: Attrs<'_>, name: &str, min: i64) -> Result<Vec<usize>, LoadError> {
    let values = attrs.ints(name)?;
    let size = |x: &i64| {
        let fits = (min..=SIZE_MAX).contains(x);
        fits.then_some(*x as usize).ok_or_else(|| attrs.error(format!("{name} of {x}")))
    };
    values.iter().map(size).collect()
}

impl Window {
    pub(crate) fn read(attrs: Attrs<'_>) -> Result<Self, LoadError> {
        let auto = match attrs.text_or("auto_pad", "NOTSET")? {
            "NOTSET" | "" => Auto::Off,
            "SAME_UPPER" => Auto::Same { before: false },
            "SAME_LOWER" => Auto::Same { before: true },
            "VALID" => Auto::Valid,
            other => return Err(attrs.error(format!("auto_pad {other:?}"))),
        };
        Ok(Self {
            kernel: sizes(attrs, "kernel_shape", 1)?,
            strides: sizes(attrs, "strides", 1)?,
            dilations: sizes(attrs, "dilations", 1)?,
            pads: sizes(attrs, "pads", 0)?,
            auto,
            up: attrs.int_or("ceil_mode", 0)? != 0,
        })
    }

    /// Checks the number of dimensions and says the kernel, which the attributes may leave to the weights.
    fn kernel_for<'k>(&'k self, rank: usize, given: &'k [usize]) -> Result<&'k [usize], Failed> {
        let kernel = if given.is_empty() { &self.kernel } else { given };
        if !(1..=AXES).contains(&rank) {
            return Err(format!("{rank} spatial dimensions; this engine takes 1 to {AXES}"));
        }
        let fits = |list: &[usize], each: usize| list.is_empty() || list.len() == rank * each;
        if kernel.len() != rank
            || !fits(&self.kernel, 1)
            || !fits(&self.strides, 1)
            || !fits(&self.dilations, 1)
            || !fits(&self.pads, 2)
        {
            return Err(format!("kernel, strides, dilations or pads are not for {rank} dimensions"));
        }
        if !self.kernel.is_empty() && self.kernel != kernel {
            return Err(format!("kernel_shape {:?}, the weights have {kernel:?}", self.kernel));
        }
        if kernel.iter().any(|size| *size == 0 || *size as i64 > SIZE_MAX) {
            return Err(format!("a kernel of {kernel:?}"));
        }
        Ok(kernel)
    }

    fn plain(&self, at: usize, rank: usize, size: usize, kernel: usize) -> Axis {
        Axis {
            size,
            kernel,
            stride: self.strides.get(at).copied().unwrap_or(1),
            dilation: self.dilations.get(at).copied().unwrap_or(1),
            before: self.pads.get(at).copied().unwrap_or(0),
            after: self.pads.get(rank + at).copied().unwrap_or(0),
            out: 0,
        }
    }

    /// The dimensions of a window that slides over `sizes`; `kernel` is the weights', or empty.
    pub(crate) fn over(&self, sizes: &[usize], kernel: &[usize]) -> Result<[Axis; AXES], Failed> {
        let rank = sizes.len();
        let kernel = self.kernel_for(rank, kernel)?;
        let mut axes = [Axis::TRIVIAL; AXES];
        for (at, size) in sizes.iter().enumerate() {
            let mut axis = self.plain(at, rank, *size, kernel[at]);
            if self.auto != Auto::Off {
                (axis.before, axis.after) = (0, 0);
            }
            if let Auto::Same { before } = self.auto {
                let windows = size.div_ceil(axis.stride).max(1);
                let total = ((windows - 1) * axis.stride + axis.extent()).saturating_sub(*size);
                axis.before = if before { total.div_ceil(2) } else { total / 2 };
                axis.after = total - axis.before;
            }
            let room = (size + axis.before + axis.after).checked_sub(axis.extent());
            let room = room.ok_or_else(|| format!("a window of {} over {size} cells", axis.extent()))?;
            axis.out = room / axis.stride + 1;
            // A window that is rounded up into the result has to begin before the padding at the end.
            if self.up && room % axis.stride != 0 && axis.out * axis.stride < size + axis.before {
                axis.out += 1;
            }
            axes[AXES - rank + at] = axis;
        }
        Ok(axes)
    }

    /// The dimensions of a transposed window: `size` counts the result's cells, `out` the input's. `extra` and `wanted`
    /// are the attributes `output_padding` and `output_shape`, or empty.
    pub(crate) fn under(
        &self,
        sizes: &[usize],
        kernel: &[usize],
        extra: &[usize],
        wanted: &[usize],
    ) -> Result<[Axis; AXES], Failed> {
        let rank = sizes.len();
        let kernel = self.kernel_for(rank, kernel)?;
        let mut axes = [Axis::TRIVIAL; AXES];
        for (at, size) in sizes.iter().enumerate() {
            let mut axis = self.plain(at, rank, 0, kernel[at]);
            axis.out = *size;
            let extra = extra.get(at).copied().unwrap_or(0);
            let full = size.checked_sub(1).ok_or("no cells")? * axis.stride + axis.extent() + extra;
            let same = matches!(self.auto, Auto::Same { .. }).then_some(size * axis.stride);
            let wanted = wanted.get(at).copied().or(same);
            match wanted {
                Some(wanted) => {
                    let total = full.saturating_sub(wanted);
                    let before = matches!(self.auto, Auto::Same { before: true });
                    axis.before = if before { total.div_ceil(2) } else { total / 2 };
                    axis.size = wanted;
                }
                None => {
                    let cut = if self.auto == Auto::Valid { 0 } else { axis.before + axis.after };
                    if self.auto == Auto::Valid {
                        axis.before = 0;
                    }
                    axis.size = full.checked_sub(cut).ok_or("pads larger than the result")?;
                }
            }
            axes[AXES - rank + at] = axis;
        }
        Ok(axes)
    }
}

/// Batch, channels and spatial sizes of an image.
pub(crate) fn image(value: &Value) -> Result<(usize, usize, &[usize]), Failed> {
    shaped(&value.dims)
}

/// Batch, channels and spatial sizes of a shape.
pub(crate) fn shaped(dims: &[usize]) -> Result<(usize, usize, &[usize]), Failed> {
    match dims {
        [batch, channels, sizes @ ..] if !sizes.is_empty() => Ok((*batch, *channels, sizes)),
        dims => Err(format!("the shape {dims:?} where [batch, channels, ...] is needed")),
    }
}

/// The cells of a value of `float`.
pub(crate) fn floats(value: &Value) -> Result<&[f32], Failed> {
    match &value.cells {
        super::value::Cells::F32(cells) => Ok(cells),
        _ => Err(format!("{}; this engine has it for float", value.elem.name())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(size: usize, kernel: usize, stride: usize, dilation: usize, before: usize, after: usize) -> Axis {
        let window = Window {
            kernel: vec![kernel],
            strides: vec![stride],
            dilations: vec![dilation],
            pads: vec![before, after],
            auto: Auto::Off,
            up: false,
        };
        window.over(&[size], &[]).expect("it fits")[2]
    }

    #[test]
    fn windows_inside_are_those_whose_cell_exists() {
        for (size, kernel, stride, dilation, pads) in [
            (5, 3, 1, 1, (1, 1)),
            (7, 3, 2, 1, (0, 2)),
            (9, 2, 3, 4, (3, 0)),
            (1, 1, 1, 1, (0, 0)),
            (4, 3, 2, 2, (4, 4)),
        ] {
            let axis = axis(size, kernel, stride, dilation, pads.0, pads.1);
            for at in 0..kernel {
                let inside = axis.inside(at);
                for out in 0..axis.out {
                    assert_eq!(inside.contains(&out), axis.cell(out, at).is_some(), "{axis:?} {at} {out}");
                }
            }
        }
    }

    #[test]
    fn sizes_are_those_of_the_standard() {
        assert_eq!(axis(8, 3, 1, 1, 1, 1).out, 8);
        assert_eq!(axis(8, 3, 2, 1, 0, 0).out, 3);
        assert_eq!(axis(8, 3, 1, 2, 0, 0).out, 4);
        let mut window = Window {
            kernel: vec![2],
            strides: vec![2],
            dilations: vec![],
            pads: vec![],
            auto: Auto::Same { before: false },
            up: false,
        };
        let same = window.over(&[5], &[]).expect("it fits")[2];
        assert_eq!((same.out, same.before, same.after), (3, 0, 1));
        window.auto = Auto::Off;
        window.up = true;
        assert_eq!(window.over(&[5], &[]).expect("it fits")[2].out, 3);
        assert!(window.over(&[1], &[]).is_err(), "a window larger than the image");
    }
}
