//! Pools: the greatest or the mean under each window, or over a whole channel.
//!
//! Not here: sizes of windows (`window`).

use models::LoadError;

use super::attrs::Attrs;
use super::value::{Budget, Failed, Value};
use super::window::{AXES, Axis, Window, floats, image, product};
use super::{Op, input, plain};

/// The operator of a node, if it is one of these.
pub(crate) fn operator(attrs: Attrs<'_>) -> Result<Option<Op>, LoadError> {
    Ok(Some(match attrs.node.op.as_str() {
        "MaxPool" if attrs.node.outputs.len() > 1 => return Err(attrs.unsupported("an output of places")),
        "MaxPool" if attrs.int_or("storage_order", 0)? != 0 => return Err(attrs.unsupported("storage_order")),
        "MaxPool" => windowed(attrs, greatest)?,
        "AveragePool" if attrs.int_or("count_include_pad", 0)? != 0 => windowed(attrs, mean_padded)?,
        "AveragePool" => windowed(attrs, mean)?,
        "GlobalAveragePool" => {
            whole(|cells| (cells.iter().map(|x| f64::from(*x)).sum::<f64>() / cells.len() as f64) as f32)
        }
        "GlobalMaxPool" => whole(|cells| cells.iter().copied().fold(f32::NEG_INFINITY, greater)),
        _ => return Ok(None),
    }))
}

/// A missing number stays one.
fn greater(a: f32, b: f32) -> f32 {
    if b > a || b.is_nan() { b } else { a }
}

/// A window: the cells of its channel, the dimensions, and its place on each.
struct Seen<'a> {
    cells: &'a [f32],
    axes: &'a [Axis; AXES],
    at: [usize; AXES],
}

impl Seen<'_> {
    fn each(&self, mut tell: impl FnMut(f32)) {
        let axes = self.axes;
        for z in (0..axes[0].kernel).filter_map(|at| axes[0].cell(self.at[0], at)) {
            for y in (0..axes[1].kernel).filter_map(|at| axes[1].cell(self.at[1], at)) {
                let line = (z * axes[1].size + y) * axes[2].size;
                for x in (0..axes[2].kernel).filter_map(|at| axes[2].cell(self.at[2], at)) {
                    tell(self.cells[line + x]);
                }
            }
        }
    }

    /// Cells of the window inside the image and its padding.
    fn padded(&self) -> usize {
        let along = |(axis, out): (&Axis, usize)| {
            let room = axis.size + axis.before + axis.after;
            (0..axis.kernel).filter(|at| out * axis.stride + at * axis.dilation < room).count()
        };
        self.axes.iter().zip(self.at).map(along).product()
    }
}

fn greatest(seen: &Seen<'_>) -> f32 {
    let mut max = f32::NEG_INFINITY;
    seen.each(|x| max = greater(max, x));
    max
}

fn sum(seen: &Seen<'_>) -> (f32, usize) {
    let (mut sum, mut count) = (0.0, 0);
    seen.each(|x| {
        sum += x;
        count += 1;
    });
    (sum, count)
}

fn mean(seen: &Seen<'_>) -> f32 {
    let (sum, count) = sum(seen);
    sum / count.max(1) as f32
}

fn mean_padded(seen: &Seen<'_>) -> f32 {
    sum(seen).0 / seen.padded().max(1) as f32
}

fn windowed(attrs: Attrs<'_>, fold: fn(&Seen<'_>) -> f32) -> Result<Op, LoadError> {
    let window = Window::read(attrs)?;
    if window.kernel.is_empty() {
        return Err(attrs.error("it has no kernel_shape"));
    }
    Ok(plain(move |inputs, budget| {
        let x = input(inputs, 0)?;
        let (batch, channels, sizes) = image(x)?;
        let axes = window.over(sizes, &[])?;
        let mut dims = vec![batch, channels];
        dims.extend(axes[AXES - sizes.len()..].iter().map(|axis| axis.out));
        let count = budget.claim(&dims)?;
        budget.plod(count, product(&axes, |axis| axis.kernel))?;
        let cells = floats(x)?;
        let mut out = Vec::with_capacity(count);
        for cells in cells.chunks_exact(product(&axes, |axis| axis.size).max(1)) {
            for z in 0..axes[0].out {
                for y in 0..axes[1].out {
                    let line = (0..axes[2].out).map(|x| fold(&Seen { cells, axes: &axes, at: [z, y, x] }));
                    out.extend(line);
                }
            }
        }
        if out.len() != count {
            return Err(format!("no cells in {:?}", x.dims));
        }
        Ok(vec![Value::f32s(&dims, out)])
    }))
}

fn whole(fold: fn(&[f32]) -> f32) -> Op {
    plain(move |inputs, budget: &mut Budget| -> Result<Vec<Value>, Failed> {
        let x = input(inputs, 0)?;
        let (batch, channels, sizes) = image(x)?;
        let mut dims = vec![batch, channels];
        dims.extend(sizes.iter().map(|_| 1));
        budget.claim(&dims)?;
        let size: usize = sizes.iter().product();
        if size == 0 {
            return Err(format!("no cells in {:?}", x.dims));
        }
        Ok(vec![Value::f32s(&dims, floats(x)?.chunks_exact(size).map(fold).collect())])
    })
}
