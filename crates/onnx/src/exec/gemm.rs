//! Products of matrices of `float`.
//!
//! The right side is laid out in panels of sixteen columns and the left side in tiles of some rows, so that a tile of
//! the result is summed in registers and both are read forwards. What is constant is laid out once, at load. Blocks of
//! the depth keep a panel's part in the first cache.
//!
//! Each number is the sum of its products in the order of the depth, on top of what is added, whatever the number
//! of rows, the tile or the block: a row's bits do not depend on the rows beside it. Multiplication and addition are
//! fused where the CPU can, which halves the time; so the last bits may differ between kinds of CPU.
//!
//! Not here: `double`, which is summed plainly (`linear`), and which operators multiply (`conv`, `recurrent`).
#![allow(unsafe_code)] // Calls of functions compiled for more than the oldest CPU; see `kernel`, and the loads and stores of `wide`.

use super::value::Failed;

/// Columns of a panel.
const WIDTH: usize = 16;
/// Rows of a tile, at most.
const HIGH_MAX: usize = 12;
/// Rows that pass through all panels before the next.
const BLOCK: usize = 96;
/// The depth that is summed before the next panel.
const DEPTH: usize = 384;

/// Sums of a tile.
type Sums = [[f32; WIDTH]; HIGH_MAX];

/// Adds the products of a panel's and a tile's parts to sums.
#[derive(Clone, Copy)]
struct Kernel {
    /// Rows of a tile.
    high: usize,
    tile: fn(&[f32], &[f32], &mut Sums),
}

/// The best for this CPU.
fn kernel() -> Kernel {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the CPU has what the function is compiled for.
            return Kernel { high: 12, tile: |panel, rows, sums| unsafe { wide::avx512(panel, rows, sums) } };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the CPU has what the function is compiled for.
            return Kernel { high: 6, tile: |panel, rows, sums| unsafe { wide::avx2(panel, rows, sums) } };
        }
    }
    Kernel { high: 4, tile: plain }
}

/// A tile of four rows in plain Rust.
fn plain(panel: &[f32], rows: &[f32], sums: &mut Sums) {
    for (weights, numbers) in panel.as_chunks::<WIDTH>().0.iter().zip(rows.as_chunks::<4>().0) {
        for (sum, number) in sums.iter_mut().zip(numbers) {
            for (sum, weight) in sum.iter_mut().zip(weights) {
                *sum += number * weight;
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod wide {
    use std::arch::x86_64::{
        _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_storeu_ps, _mm512_fmadd_ps, _mm512_loadu_ps,
        _mm512_set1_ps, _mm512_storeu_ps,
    };

    use super::{Sums, WIDTH};

    /// Twelve rows, each with one accumulator.
    #[target_feature(enable = "avx512f")]
    pub(super) fn avx512(panel: &[f32], rows: &[f32], sums: &mut Sums) {
        // SAFETY: the arrays have the sixteen numbers that are read.
        let mut all: [_; 12] = std::array::from_fn(|row| unsafe { _mm512_loadu_ps(sums[row].as_ptr()) });
        for (weights, numbers) in panel.as_chunks::<WIDTH>().0.iter().zip(rows.as_chunks::<12>().0) {
            // SAFETY: the array has the sixteen numbers that are read.
            let weights = unsafe { _mm512_loadu_ps(weights.as_ptr()) };
            for (sum, number) in all.iter_mut().zip(numbers) {
                *sum = _mm512_fmadd_ps(_mm512_set1_ps(*number), weights, *sum);
            }
        }
        for (out, sum) in sums.iter_mut().zip(all) {
            // SAFETY: the array has room for the sixteen numbers that are written.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), sum) };
        }
    }

    /// Six rows, each with two accumulators.
    #[target_feature(enable = "avx2,fma")]
    pub(super) fn avx2(panel: &[f32], rows: &[f32], sums: &mut Sums) {
        // SAFETY: the arrays have the sixteen numbers that are read, half by half.
        let halves = |numbers: &[f32; WIDTH]| unsafe {
            [_mm256_loadu_ps(numbers.as_ptr()), _mm256_loadu_ps(numbers[8..].as_ptr())]
        };
        let mut all: [_; 6] = std::array::from_fn(|row| halves(&sums[row]));
        for (weights, numbers) in panel.as_chunks::<WIDTH>().0.iter().zip(rows.as_chunks::<6>().0) {
            let [low, high] = halves(weights);
            for (sum, number) in all.iter_mut().zip(numbers) {
                let number = _mm256_set1_ps(*number);
                sum[0] = _mm256_fmadd_ps(number, low, sum[0]);
                sum[1] = _mm256_fmadd_ps(number, high, sum[1]);
            }
        }
        for (out, sum) in sums.iter_mut().zip(all) {
            // SAFETY: the array has room for the sixteen numbers that are written, half by half.
            unsafe {
                _mm256_storeu_ps(out.as_mut_ptr(), sum[0]);
                _mm256_storeu_ps(out[8..].as_mut_ptr(), sum[1]);
            }
        }
    }
}

/// A matrix on the left, laid out: tile after tile, in each the rows side by side.
pub(crate) struct Left(Vec<f32>);

/// A matrix on the right, laid out: panel after panel, in each its rows one after the other.
pub(crate) struct Right(Vec<f32>);

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
    packed.resize(cells.len().div_ceil(high * depth) * high * depth, 0.0);
    for (rows, tile) in cells.chunks(high * depth).zip(packed.chunks_exact_mut(high * depth)) {
        for (row, numbers) in rows.chunks_exact(depth).enumerate() {
            tile[row..].iter_mut().step_by(high).zip(numbers).for_each(|(slot, number)| *slot = *number);
        }
    }
}

fn panels(cells: &[f32], (depth, columns): (usize, usize), turned: bool, packed: &mut Vec<f32>) {
    packed.clear();
    if depth == 0 {
        return;
    }
    packed.resize(columns.div_ceil(WIDTH) * depth * WIDTH, 0.0);
    for (index, panel) in packed.chunks_exact_mut(depth * WIDTH).enumerate() {
        let from = index * WIDTH;
        let wide = WIDTH.min(columns - from);
        if turned {
            for (column, numbers) in cells[from * depth..].chunks_exact(depth).take(wide).enumerate() {
                let slots = panel[column..].iter_mut().step_by(WIDTH);
                slots.zip(numbers).for_each(|(slot, number)| *slot = *number);
            }
        } else {
            for (slots, numbers) in panel.chunks_exact_mut(WIDTH).zip(cells.chunks_exact(columns)) {
                slots[..wide].copy_from_slice(&numbers[from..from + wide]);
            }
        }
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
    Packed(&'a Right),
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
        B::Plain(cells) | B::Turned(cells) => {
            let cells = cells.get(..k * m).ok_or_else(misfit)?;
            panels(cells, (k, m), matches!(b, B::Turned(_)), &mut own_right);
            &own_right
        }
    };
    let high = kernel.high;
    let fits = match a {
        A::Packed(left) => left.0.len() == n.div_ceil(high) * high * k,
        A::Plain(cells) => cells.len() == n * k,
    };
    if !fits || right.len() != m.div_ceil(WIDTH) * WIDTH * k {
        return Err(misfit());
    }
    // Whole tiles, so that a block of a packed left side begins where one does.
    for (block, out) in out.chunks_mut(BLOCK * m).enumerate() {
        let left = match a {
            A::Packed(left) => &left.0[block * BLOCK * k..left.0.len().min((block + 1) * BLOCK * k)],
            A::Plain(cells) => {
                let rows = &cells[block * BLOCK * k..cells.len().min((block + 1) * BLOCK * k)];
                tiles(rows, k, high, &mut own_left);
                &own_left
            }
        };
        for from in (0..k).step_by(DEPTH) {
            let depth = from..k.min(from + DEPTH);
            for (index, panel) in right.chunks_exact(k * WIDTH).enumerate() {
                let panel = &panel[depth.start * WIDTH..depth.end * WIDTH];
                for (tile, rows) in left.chunks_exact(k * high).enumerate() {
                    let rows = &rows[depth.start * high..depth.end * high];
                    add(kernel, (panel, rows), &mut out[tile * high * m..], (index * WIDTH, m));
                }
            }
        }
    }
    Ok(())
}

/// Adds a tile's products to the rows that begin at `out`, from column `from` of `m`.
fn add(kernel: Kernel, (panel, rows): (&[f32], &[f32]), out: &mut [f32], (from, m): (usize, usize)) {
    let wide = WIDTH.min(m - from);
    let mut sums = [[0.0; WIDTH]; HIGH_MAX];
    for (sums, out) in sums.iter_mut().zip(out.chunks_exact(m)).take(kernel.high) {
        sums[..wide].copy_from_slice(&out[from..from + wide]);
    }
    (kernel.tile)(panel, rows, &mut sums);
    for (sums, out) in sums.iter().zip(out.chunks_exact_mut(m)).take(kernel.high) {
        out[from..from + wide].copy_from_slice(&sums[..wide]);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|at| (((at * 37 + seed * 101) % 97) as f32 - 48.0) / 31.0).collect()
    }

    fn kernels() -> Vec<Kernel> {
        let mut all = vec![kernel(), Kernel { high: 4, tile: plain }];
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the CPU has what the function is compiled for.
            all.push(Kernel { high: 6, tile: |panel, rows, sums| unsafe { wide::avx2(panel, rows, sums) } });
        }
        all
    }

    const SHAPES: [(usize, usize, usize); 7] =
        [(1, 3, 5), (2, 1, 1), (5, 17, 33), (7, 900, 40), (33, 64, 65), (12, 5, 16), (200, 9, 20)];

    #[test]
    fn every_kernel_gives_the_sums() {
        for (n, k, m) in SHAPES {
            let (a, b) = (cells(n * k, 1), cells(k * m, 2));
            for kernel in kernels() {
                let mut out = vec![f32::NAN; n * m];
                run(kernel, &mut out, A::Plain(&a), B::Plain(&b), (n, k, m), Plus::Nothing).unwrap();
                for (at, got) in out.iter().enumerate() {
                    let (row, column) = (at / m, at % m);
                    let products =
                        (0..k).map(|at| f64::from(a[row * k + at]) * f64::from(b[at * m + column]));
                    let want: f64 = products.sum();
                    assert!((f64::from(*got) - want).abs() < 1e-3, "{n}x{k}x{m}, {}: {at}", kernel.high);
                }
            }
        }
    }

    #[test]
    fn a_row_has_the_same_bits_alone_and_however_the_sides_are_laid_out() {
        for (n, k, m) in SHAPES {
            let (a, b) = (cells(n * k, 1), cells(k * m, 2));
            let turned: Vec<f32> =
                (0..m).flat_map(|column| (0..k).map(move |row| row * m + column)).map(|at| b[at]).collect();
            let mut whole = vec![0.0; n * m];
            product(&mut whole, A::Plain(&a), B::Plain(&b), (n, k, m), Plus::Nothing).unwrap();
            let (left, right) = (Left::pack(&a, (n, k)), Right::pack(&turned, (k, m), true));
            for (a, b) in [
                (A::Packed(&left), B::Plain(&b)),
                (A::Plain(&a), B::Packed(&right)),
                (A::Plain(&a), B::Turned(&turned)),
            ] {
                let mut out = vec![0.0; n * m];
                product(&mut out, a, b, (n, k, m), Plus::Nothing).unwrap();
                assert_eq!(out, whole, "{n}x{k}x{m}");
            }
            for (row, want) in a.chunks_exact(k).zip(whole.chunks_exact(m)) {
                let mut out = vec![0.0; m];
                product(&mut out, A::Plain(row), B::Plain(&b), (1, k, m), Plus::Nothing).unwrap();
                assert_eq!(out, want, "{n}x{k}x{m}, alone");
            }
        }
    }

    #[test]
    fn what_is_added_goes_to_its_row_or_column() {
        let (a, b) = (cells(6, 1), cells(12, 2));
        let run = |plus: Plus<'_>| {
            let mut out = vec![9.0; 8];
            product(&mut out, A::Plain(&a), B::Plain(&b), (2, 3, 4), plus).unwrap();
            out
        };
        let bare = run(Plus::Nothing);
        let near = |got: &[f32], plus: &dyn Fn(usize) -> f32| {
            got.iter().enumerate().all(|(at, x)| (x - bare[at] - plus(at)).abs() < 1e-5)
        };
        assert!(near(&run(Plus::Columns(&[1.0, 2.0, 3.0, 4.0])), &|at| (at % 4 + 1) as f32));
        assert!(near(&run(Plus::Rows(&[1.0, 2.0])), &|at| (at / 4 + 1) as f32));
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused_and_nothing_is_a_legal_size() {
        let mut out = vec![0.0; 4];
        assert!(
            product(&mut out, A::Plain(&[1.0; 3]), B::Plain(&[1.0; 4]), (2, 2, 2), Plus::Nothing).is_err()
        );
        assert!(
            product(&mut out, A::Plain(&[1.0; 4]), B::Plain(&[1.0; 3]), (2, 2, 2), Plus::Nothing).is_err()
        );
        assert!(
            product(&mut out, A::Plain(&[1.0; 4]), B::Plain(&[1.0; 4]), (2, 2, 2), Plus::Rows(&[1.0]))
                .is_err()
        );
        product(&mut out, A::Plain(&[]), B::Plain(&[]), (2, 0, 2), Plus::Rows(&[1.0, 2.0])).unwrap();
        assert_eq!(out, [1.0, 1.0, 2.0, 2.0]);
        product(&mut [], A::Plain(&[]), B::Plain(&[]), (0, 3, 0), Plus::Nothing).unwrap();
    }
}
