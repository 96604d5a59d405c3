//! Products of matrices of `float`.
//!
//! The right side is laid out in panels of 32 columns and the left side in tiles of some rows, so that a tile of the
//! result is summed in registers and both are read forwards. What is constant is laid out once, at load. Blocks of the
//! depth keep a panel's part in the first cache.
//!
//! Each number is the sum of its products in the order of the depth, on top of what is added, whatever the number
//! of rows, the tile or the block: a row's bits do not depend on the rows beside it. Multiplication and addition are
//! fused where the CPU can, which halves the time; so the last bits may differ between kinds of CPU.
//!
//! Not here: `double`, which is summed plainly (`linear`), and which operators multiply (`conv`, `recurrent`).
#![allow(unsafe_code)] // Calls of functions compiled for more than the oldest CPU; see `kernel`, and the loads and stores of `wide`.

#[cfg(test)]
mod tests;

use super::value::Failed;

/// Numbers of a cache line, and of the widest registers.
const LINE: usize = 16;
/// Columns of a panel.
const WIDTH: usize = 2 * LINE;
/// Rows of a tile, at most.
const HIGH_MAX: usize = 12;
/// Rows that pass through all panels before the next; whole tiles of every kernel.
const BLOCK: usize = 96;
/// The depth that is summed before the next panel.
const DEPTH: usize = 768;

/// Some columns of a panel at a depth.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Line([f32; LINE]);

/// The columns of a panel at a depth.
type Lines = [Line; WIDTH / LINE];

/// Where a tile's sums are in the result.
struct Place<'a> {
    /// From the first sum on.
    out: &'a mut [f32],
    /// Rows of the tile, at most as many as the kernel's.
    high: usize,
    /// Columns, at most those of a panel.
    wide: usize,
    /// Columns of the result.
    columns: usize,
}

impl Place<'_> {
    /// Whether the result has all of the tile's sums.
    fn fits(&self) -> bool {
        (1..=HIGH_MAX).contains(&self.high)
            && (1..=WIDTH.min(self.columns)).contains(&self.wide)
            && (self.high - 1) * self.columns + self.wide <= self.out.len()
    }
}

/// Adds the products of a panel's and a tile's parts to the sums of a place.
#[derive(Clone, Copy)]
struct Kernel {
    /// Rows of a tile, at most.
    high: usize,
    tile: fn(&[Lines], &[f32], &mut Place<'_>),
}

/// The best for this CPU.
fn kernel() -> Kernel {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the CPU has what the function is compiled for.
            return Kernel {
                high: 12,
                tile: |panel, rows, place| unsafe { wide::avx512(panel, rows, place) },
            };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the CPU has what the function is compiled for.
            return Kernel { high: 6, tile: |panel, rows, place| unsafe { wide::avx2(panel, rows, place) } };
        }
    }
    Kernel { high: 4, tile: plain }
}

/// In plain Rust.
fn plain(panel: &[Lines], rows: &[f32], place: &mut Place<'_>) {
    for (row, out) in place.out.chunks_mut(place.columns).take(place.high).enumerate() {
        let mut sums = [0.0; WIDTH];
        sums[..place.wide].copy_from_slice(&out[..place.wide]);
        for (lines, number) in panel.iter().zip(rows[row..].iter().step_by(place.high)) {
            for (sums, line) in sums.as_chunks_mut::<LINE>().0.iter_mut().zip(lines) {
                sums.iter_mut().zip(&line.0).for_each(|(sum, weight)| *sum += number * weight);
            }
        }
        out[..place.wide].copy_from_slice(&sums[..place.wide]);
    }
}

#[cfg(target_arch = "x86_64")]
mod wide {
    use std::arch::x86_64::{
        _CMP_LT_OQ, _mm256_castps_si256, _mm256_cmp_ps, _mm256_fmadd_ps, _mm256_load_ps, _mm256_loadu_ps,
        _mm256_maskload_ps, _mm256_maskstore_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm512_fmadd_ps,
        _mm512_load_ps, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps,
    };

    use super::{LINE, Lines, Place};

    /// Calls a function for a tile of as many rows as a place has.
    macro_rules! by_height {
        ($tile:ident, $line:literal, ($panel:expr, $rows:expr, $place:expr), $($high:literal)*) => {
            match $place.high {
                $($high => $tile::<$high, $line>($panel, $rows, $place),)*
                high => unreachable!("a tile of {high} rows"),
            }
        };
    }

    /// Up to twelve rows of two accumulators; of one where there are no more columns.
    #[target_feature(enable = "avx512f")]
    pub(super) fn avx512(panel: &[Lines], rows: &[f32], place: &mut Place<'_>) {
        if place.wide > LINE {
            by_height!(tile512, 2, (panel, rows, place), 1 2 3 4 5 6 7 8 9 10 11 12);
        } else {
            by_height!(tile512, 1, (panel, rows, place), 1 2 3 4 5 6 7 8 9 10 11 12);
        }
    }

    #[target_feature(enable = "avx512f")]
    fn tile512<const HIGH: usize, const LINES: usize>(panel: &[Lines], rows: &[f32], place: &mut Place<'_>) {
        assert!(place.fits() && place.high == HIGH, "a tile outside of its result");
        let mut masks = [0; LINES];
        for (index, mask) in masks.iter_mut().enumerate() {
            *mask = u16::MAX >> (LINE - LINE.min(place.wide.saturating_sub(index * LINE)));
        }
        let mut all = [[_mm512_setzero_ps(); LINES]; HIGH];
        for (row, sums) in all.iter_mut().enumerate() {
            for (index, sum) in sums.iter_mut().enumerate() {
                let at = place.out.as_ptr().wrapping_add(row * place.columns + index * LINE);
                // SAFETY: the result has the columns of the mask in this row; others are not read.
                *sum = unsafe { _mm512_maskz_loadu_ps(masks[index], at) };
            }
        }
        for (lines, numbers) in panel.iter().zip(rows.as_chunks::<HIGH>().0) {
            let mut weights = [_mm512_setzero_ps(); LINES];
            for (weights, line) in weights.iter_mut().zip(lines) {
                // SAFETY: a line has the sixteen numbers that are read, and lies at a multiple of their size.
                *weights = unsafe { _mm512_load_ps(line.0.as_ptr()) };
            }
            for (sums, number) in all.iter_mut().zip(numbers) {
                let number = _mm512_set1_ps(*number);
                for (sum, weights) in sums.iter_mut().zip(weights) {
                    *sum = _mm512_fmadd_ps(number, weights, *sum);
                }
            }
        }
        for (row, sums) in all.iter().enumerate() {
            for (index, sum) in sums.iter().enumerate() {
                let at = place.out.as_mut_ptr().wrapping_add(row * place.columns + index * LINE);
                // SAFETY: the result has the columns of the mask in this row; others are not written.
                unsafe { _mm512_mask_storeu_ps(at, masks[index], *sum) };
            }
        }
    }

    /// Up to six rows of two accumulators, for one line of a panel after the other.
    #[target_feature(enable = "avx2,fma")]
    pub(super) fn avx2(panel: &[Lines], rows: &[f32], place: &mut Place<'_>) {
        by_height!(tile256, 0, (panel, rows, place), 1 2 3 4 5 6);
        if place.wide > LINE {
            by_height!(tile256, 1, (panel, rows, place), 1 2 3 4 5 6);
        }
    }

    #[target_feature(enable = "avx2,fma")]
    fn tile256<const HIGH: usize, const AT: usize>(panel: &[Lines], rows: &[f32], place: &mut Place<'_>) {
        const HALF: usize = LINE / 2;
        assert!(place.fits() && place.high == HIGH && AT * LINE < place.wide, "a tile outside of its result");
        let mut masks = [_mm256_castps_si256(_mm256_setzero_ps()); 2];
        for (half, mask) in masks.iter_mut().enumerate() {
            let at = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0];
            let wide = place.wide.saturating_sub(AT * LINE + half * HALF).min(HALF);
            // SAFETY: the array has the eight numbers that are read.
            let at = unsafe { _mm256_loadu_ps(at.as_ptr()) };
            *mask = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_LT_OQ>(at, _mm256_set1_ps(wide as f32)));
        }
        let mut all = [[_mm256_setzero_ps(); 2]; HIGH];
        for (row, sums) in all.iter_mut().enumerate() {
            for (half, sum) in sums.iter_mut().enumerate() {
                let at = place.out.as_ptr().wrapping_add(row * place.columns + AT * LINE + half * HALF);
                // SAFETY: the result has the columns of the mask in this row; others are not read.
                *sum = unsafe { _mm256_maskload_ps(at, masks[half]) };
            }
        }
        for (lines, numbers) in panel.iter().zip(rows.as_chunks::<HIGH>().0) {
            let mut weights = [_mm256_setzero_ps(); 2];
            for (weights, half) in weights.iter_mut().zip(lines[AT].0.as_chunks::<HALF>().0) {
                // SAFETY: half a line has the eight numbers that are read, and lies at a multiple of their size.
                *weights = unsafe { _mm256_load_ps(half.as_ptr()) };
            }
            for (sums, number) in all.iter_mut().zip(numbers) {
                let number = _mm256_set1_ps(*number);
                for (sum, weights) in sums.iter_mut().zip(weights) {
                    *sum = _mm256_fmadd_ps(number, weights, *sum);
                }
            }
        }
        for (row, sums) in all.iter().enumerate() {
            for (half, sum) in sums.iter().enumerate() {
                let at = place.out.as_mut_ptr().wrapping_add(row * place.columns + AT * LINE + half * HALF);
                // SAFETY: the result has the columns of the mask in this row; others are not written.
                unsafe { _mm256_maskstore_ps(at, masks[half], *sum) };
            }
        }
    }
}

/// A matrix on the left, laid out: tile after tile, in each the rows side by side.
pub(crate) struct Left(Vec<f32>);

/// A matrix on the right, laid out: panel after panel, in each its rows one after the other.
pub(crate) struct Right(Vec<Lines>);

impl Left {
    /// Lays out `[n, k]`.
    pub(crate) fn pack(cells: &[f32], (n, k): (usize, usize)) -> Self {
        let mut packed = Vec::new();
        tiles(&cells[..n * k], k, kernel().high, &mut packed);
        Self(packed)
    }
}

impl Right {
    /// Lays out `[k, m]`, or its turned form `[m, k]`.
    pub(crate) fn pack(cells: &[f32], shape: (usize, usize), turned: bool) -> Self {
        let mut packed = Vec::new();
        panels(cells, shape, turned, &mut packed);
        Self(packed)
    }
}

fn tiles(cells: &[f32], depth: usize, high: usize, packed: &mut Vec<f32>) {
    packed.clear();
    if depth == 0 {
        return;
    }
    packed.resize(cells.len(), 0.0);
    for (rows, tile) in cells.chunks(high * depth).zip(packed.chunks_mut(high * depth)) {
        let high = rows.len() / depth;
        for (row, numbers) in rows.chunks_exact(depth).enumerate() {
            tile[row..].iter_mut().step_by(high).zip(numbers).for_each(|(slot, number)| *slot = *number);
        }
    }
}

fn panels(cells: &[f32], (depth, columns): (usize, usize), turned: bool, packed: &mut Vec<Lines>) {
    packed.clear();
    if depth == 0 {
        return;
    }
    packed.resize(columns.div_ceil(WIDTH) * depth, [Line([0.0; LINE]); WIDTH / LINE]);
    for (index, panel) in packed.chunks_exact_mut(depth).enumerate() {
        let own = index * WIDTH..columns.min((index + 1) * WIDTH);
        for (line, from) in own.step_by(LINE).enumerate() {
            let wide = LINE.min(columns - from);
            if turned {
                let columns = cells.chunks_exact(depth).skip(from).take(wide);
                for (column, numbers) in columns.enumerate() {
                    panel.iter_mut().zip(numbers).for_each(|(lines, number)| lines[line].0[column] = *number);
                }
            } else if wide == LINE {
                // Of a known size, which is no call.
                for (lines, numbers) in panel.iter_mut().zip(cells.chunks_exact(columns)) {
                    lines[line].0.copy_from_slice(&numbers[from..from + LINE]);
                }
            } else {
                for (lines, numbers) in panel.iter_mut().zip(cells.chunks_exact(columns)) {
                    lines[line].0[..wide].copy_from_slice(&numbers[from..from + wide]);
                }
            }
        }
    }
}

fn shifted(cells: &[f32], starts: &[usize], columns: usize, packed: &mut Vec<Lines>) {
    packed.reserve(columns.div_ceil(WIDTH) * starts.len());
    for from in (0..columns).step_by(WIDTH) {
        packed.extend(starts.iter().map(|start| {
            let (lines, _) = cells[start + from..start + from + WIDTH].as_chunks::<LINE>();
            [Line(lines[0]), Line(lines[1])]
        }));
    }
}

/// The left side of a product.
#[derive(Clone, Copy)]
pub(crate) enum A<'a> {
    /// Row by row.
    Plain(&'a [f32]),
    Packed(&'a Left),
}

/// The right side of a product.
#[derive(Clone, Copy)]
pub(crate) enum B<'a> {
    /// Row by row.
    Plain(&'a [f32]),
    /// Column by column.
    Turned(&'a [f32]),
    /// Rows that lie among some cells, each from its start on, with [`B::COLUMNS_BEHIND`] cells behind the last of them.
    Shifted {
        cells: &'a [f32],
        starts: &'a [usize],
    },
    Packed(&'a Right),
}

impl B<'_> {
    /// Cells behind the end of a row that are read, though they count for nothing.
    pub(crate) const COLUMNS_BEHIND: usize = WIDTH;
}

/// What is added to a product.
#[derive(Clone, Copy)]
pub(crate) enum Plus<'a> {
    Nothing,
    /// A number for each column.
    Columns(&'a [f32]),
    /// A number for each row.
    Rows(&'a [f32]),
}

/// Cells of a right side of few columns that may be laid out in panels: more would take many times their own memory.
const THIN_MAX: usize = 1 << 20;
/// From so many weights on these products are quicker than a plain loop.
const WEIGHTS_MIN: usize = 256;

/// Whether products with `[k, m]` on the right are for this module rather than for a plain loop. Rows do not count: their
/// bits may not depend on how many there are.
pub(crate) fn pays(k: usize, m: usize) -> bool {
    let (own, padded) = (k.saturating_mul(m), k.saturating_mul(m.next_multiple_of(WIDTH)));
    own >= WEIGHTS_MIN && (padded <= THIN_MAX || padded / 4 <= own)
}

/// `out = a x b + plus` for `[n, k]` and `[k, m]`; fails where the sides do not have these sizes.
pub(crate) fn product(
    out: &mut [f32],
    a: A<'_>,
    b: B<'_>,
    shape: (usize, usize, usize),
    plus: Plus<'_>,
) -> Result<(), Failed> {
    run(kernel(), out, a, b, shape, plus)
}

fn run(
    kernel: Kernel,
    out: &mut [f32],
    a: A<'_>,
    b: B<'_>,
    (n, k, m): (usize, usize, usize),
    plus: Plus<'_>,
) -> Result<(), Failed> {
    begin(out, (n, m), plus)?;
    if out.is_empty() || k == 0 {
        return Ok(());
    }
    let misfit = || format!("a product of {n} x {k} x {m} cells of other sizes");
    let (mut own_right, mut own_left) = (Vec::new(), Vec::new());
    let right = match b {
        B::Packed(right) => &right.0,
        B::Shifted { cells, starts } => {
            let last = starts.iter().max().copied().unwrap_or(0);
            if starts.len() != k || last.saturating_add(m.next_multiple_of(WIDTH)) > cells.len() {
                return Err(misfit());
            }
            shifted(cells, starts, m, &mut own_right);
            &own_right
        }
        B::Plain(cells) | B::Turned(cells) => {
            let cells = cells.get(..k * m).ok_or_else(misfit)?;
            panels(cells, (k, m), matches!(b, B::Turned(_)), &mut own_right);
            &own_right
        }
    };
    let high = kernel.high;
    let fits = match a {
        A::Packed(left) => left.0.len() == n * k,
        A::Plain(cells) => cells.len() == n * k,
    };
    if !fits || right.len() != m.div_ceil(WIDTH) * k {
        return Err(misfit());
    }
    // Whole tiles, so that a block of a packed left side begins where one does.
    for (block, out) in out.chunks_mut(BLOCK * m).enumerate() {
        let rows = block * BLOCK * k..n.min((block + 1) * BLOCK) * k;
        let left = match a {
            A::Packed(left) => &left.0[rows],
            // A row alone is laid out as it is.
            A::Plain(cells) if rows.len() == k => &cells[rows],
            A::Plain(cells) => {
                tiles(&cells[rows], k, high, &mut own_left);
                &own_left
            }
        };
        for from in (0..k).step_by(DEPTH) {
            let depth = from..k.min(from + DEPTH);
            for (index, panel) in right.chunks_exact(k).enumerate() {
                let (column, panel) = (index * WIDTH, &panel[depth.clone()]);
                for (tile, rows) in left.chunks(high * k).enumerate() {
                    let high = rows.len() / k;
                    let rows = &rows[depth.start * high..depth.end * high];
                    let out = &mut out[tile * kernel.high * m + column..];
                    let wide = WIDTH.min(m - column);
                    (kernel.tile)(panel, rows, &mut Place { out, high, wide, columns: m });
                }
            }
        }
    }
    Ok(())
}

/// Fills in what is added.
fn begin(out: &mut [f32], (n, m): (usize, usize), plus: Plus<'_>) -> Result<(), Failed> {
    let fits = out.len() == n * m
        && match plus {
            Plus::Nothing => true,
            Plus::Columns(cells) => cells.len() == m,
            Plus::Rows(cells) => cells.len() == n,
        };
    if !fits {
        return Err(format!("{} cells for a product of {n} x {m}", out.len()));
    }
    match plus {
        Plus::Nothing => out.fill(0.0),
        Plus::Columns(cells) if m > 0 => out.chunks_exact_mut(m).for_each(|row| row.copy_from_slice(cells)),
        Plus::Rows(cells) if m > 0 => out.chunks_exact_mut(m).zip(cells).for_each(|(row, x)| row.fill(*x)),
        Plus::Columns(_) | Plus::Rows(_) => {}
    }
    Ok(())
}
