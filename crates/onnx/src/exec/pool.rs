//! Pools: the greatest or the mean under each window, or over a whole channel.
//!
//! Not here: sizes of windows (`window`).

use models::LoadError;

use super::attrs::Attrs;
use super::value::{Budget, Failed, Value};
use super::window::{AXES, Axis, Window, floats, image, product, seen_line, with_steps};
use super::{Op, input, plain};

/// The operator of a node, if it is one of these.
pub(crate) fn operator(attrs: Attrs<'_>) -> Result<Option<Op>, LoadError> {
    Ok(Some(match attrs.node.op.as_str() {
        "MaxPool" if attrs.node.outputs.len() > 1 => return Err(attrs.unsupported("an output of places")),
        "MaxPool" if attrs.int_or("storage_order", 0)? != 0 => return Err(attrs.unsupported("storage_order")),
        "MaxPool" => windowed(attrs, Keep::Greatest)?,
        "AveragePool" if attrs.int_or("count_include_pad", 0)? != 0 => {
            windowed(attrs, Keep::Mean { padded: true })?
        }
        "AveragePool" => windowed(attrs, Keep::Mean { padded: false })?,
        "GlobalAveragePool" => {
            whole(|cells| (cells.iter().map(|x| f64::from(*x)).sum::<f64>() / cells.len() as f64) as f32)
        }
        "GlobalMaxPool" => whole(|cells| cells.iter().copied().fold(f32::NEG_INFINITY, greater)),
        _ => return Ok(None),
    }))
}

/// A missing number stays one.
fn greater(a: f32, b: f32) -> f32 {
    // No branch, so that many go at once.
    if (b > a) | b.is_nan() { b } else { a }
}

/// What is kept of the cells of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keep {
    Greatest,
    /// The mean over the cells, those of the padding included or not.
    Mean {
        padded: bool,
    },
}

/// Cells of each window along an axis; in the padding too, where `padded`.
fn seen(axis: &Axis, padded: bool) -> Vec<usize> {
    let room = axis.size + axis.before + axis.after;
    let counts = |out: usize, at: usize| {
        if padded { out * axis.stride + at * axis.dilation < room } else { axis.cell(out, at).is_some() }
    };
    (0..axis.out).map(|out| (0..axis.kernel).filter(|at| counts(out, *at)).count()).collect()
}

/// A channel's windows: what lines on top of each other keep, and then what neighbours in this line keep.
fn channel(keep: Keep, axes: &[Axis; AXES], cells: &[f32], line: &mut Vec<f32>, out: &mut [f32]) {
    let none = if keep == Keep::Greatest { f32::NEG_INFINITY } else { 0.0 };
    let add = |kept: &mut [f32], from: &[f32], stride: usize| match keep {
        Keep::Greatest => with_steps(kept, from, stride, |kept, x| *kept = greater(*kept, x)),
        Keep::Mean { .. } => with_steps(kept, from, stride, |kept, x| *kept += x),
    };
    let (size, width) = (axes[2].size, axes[2].out);
    for (index, out) in out.chunks_exact_mut(width).enumerate() {
        line.clear();
        line.resize(size, none);
        for z in 0..axes[0].kernel {
            for y in 0..axes[1].kernel {
                if let Some(base) = seen_line(axes, index, [z, y, 0]) {
                    add(line, &cells[base..base + size], 1);
                }
            }
        }
        out.fill(none);
        for at in 0..axes[2].kernel {
            let inside = axes[2].inside(at);
            if let Some(first) = axes[2].cell(inside.start, at) {
                add(&mut out[inside], &line[first..], axes[2].stride);
            }
        }
    }
}

fn windowed(attrs: Attrs<'_>, keep: Keep) -> Result<Op, LoadError> {
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
        let (size, windows) = (product(&axes, |axis| axis.size), product(&axes, |axis| axis.out));
        if size == 0 {
            return Err(format!("no cells in {:?}", x.dims));
        }
        let counts = match keep {
            Keep::Greatest => Vec::new(),
            Keep::Mean { padded } => {
                for axis in &axes {
                    budget.plod(axis.out, axis.kernel)?;
                }
                let [z, y, x] = [0, 1, 2].map(|axis| seen(&axes[axis], padded));
                let plane =
                    |z: &usize| y.iter().flat_map(|y| x.iter().map(move |x| z * y * x)).collect::<Vec<_>>();
                z.iter().flat_map(plane).map(|count| count.max(1) as f32).collect()
            }
        };
        let (mut out, mut line) = (vec![0.0; count], Vec::new());
        for (cells, out) in floats(x)?.chunks_exact(size).zip(out.chunks_exact_mut(windows)) {
            channel(keep, &axes, cells, &mut line, out);
            out.iter_mut().zip(&counts).for_each(|(out, count)| *out /= count);
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
