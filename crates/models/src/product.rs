//! The product of a batch with a matrix that is known long before.
//!
//! The matrix is laid out at load in panels of eight columns, so that a product reads it once and forwards for a whole
//! block of rows; a tile of some rows and eight columns is summed in registers. That is what a batch gains: one row
//! alone waits for the matrix to come from memory.
//!
//! Each number of the result is the sum of its products in the order of the matrix's rows, by multiplications and
//! additions of their own, whatever the number of rows, the tile or the CPU: the same bits always. That is why none of
//! the crates for this is used; they fuse the two operations where the CPU can.
//!
//! Not here: biases and activations (`sklearn::network`).
#![allow(unsafe_code)] // Calls of functions compiled for more than the oldest CPU; see `kernel`, and the loads and stores of `wide`.

/// Columns of a panel.
const WIDTH: usize = 8;
/// Rows that pass through all panels before the next: with a usual width they stay in the second cache.
const BLOCK: usize = 64;

/// A matrix in panels.
pub(crate) struct Panels {
    rows: usize,
    cols: usize,
    /// One panel after the other, each with its rows one after the other; the last is filled up with zeros.
    data: Vec<f64>,
}

impl Panels {
    /// `data` has `rows × cols` numbers, row by row.
    pub(crate) fn new(rows: usize, cols: usize, data: &[f64]) -> Self {
        assert_eq!(data.len(), rows * cols, "a matrix has its own size");
        let panels = cols.div_ceil(WIDTH);
        let mut own = vec![0.0; panels * rows * WIDTH];
        for (row, numbers) in data.chunks_exact(cols.max(1)).enumerate() {
            for (panel, numbers) in numbers.chunks(WIDTH).enumerate() {
                let at = (panel * rows + row) * WIDTH;
                own[at..at + numbers.len()].copy_from_slice(numbers);
            }
        }
        Self { rows, cols, data: own }
    }

    /// Rows of the matrix.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// The matrix row by row, as it was given.
    pub(crate) fn to_rows(&self) -> Vec<f64> {
        let cell = |row: usize, col: usize| self.data[(col / WIDTH * self.rows + row) * WIDTH + col % WIDTH];
        (0..self.rows).flat_map(|row| (0..self.cols).map(move |col| cell(row, col))).collect()
    }

    /// Columns of the matrix.
    pub(crate) fn cols(&self) -> usize {
        self.cols
    }

    /// How many numbers it has.
    pub(crate) fn len(&self) -> usize {
        self.rows * self.cols
    }

    /// The product of `left` (`count × rows`) with the matrix, into `out` (`count × cols`).
    pub(crate) fn times(&self, left: &[f64], count: usize, out: &mut [f64]) {
        assert!(left.len() == count * self.rows && out.len() == count * self.cols, "shapes that fit");
        let (high, tile) = kernel();
        times(self, left, out, high, tile);
    }
}

/// Sums of a tile: for each of its rows the numbers of eight columns.
type Sums = [[f64; WIDTH]; HIGH_MAX];
/// Rows of a tile, at most.
const HIGH_MAX: usize = 8;
/// Sums a tile of so many rows; the rows are packed.
type Tile = fn(&[f64], &[f64], &mut Sums);

/// The best for this CPU, with the rows of its tiles.
fn kernel() -> (usize, Tile) {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the CPU has what the function is compiled for.
            return (8, |panel, rows, sums| unsafe { wide::tile_avx512(panel, rows, sums) });
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the CPU has what the function is compiled for.
            return (4, |panel, rows, sums| unsafe { wide::tile_avx2(panel, rows, sums) });
        }
    }
    (1, tile_plain)
}

fn times(panels: &Panels, left: &[f64], out: &mut [f64], high: usize, tile: Tile) {
    let (depth, cols) = (panels.rows, panels.cols);
    if depth == 0 {
        out.fill(0.0);
        return;
    }
    let mut packed = Vec::new();
    let mut sums = [[0.0; WIDTH]; HIGH_MAX];
    for (left, out) in left.chunks(BLOCK * depth).zip(out.chunks_mut((BLOCK * cols).max(1))) {
        let whole = left.chunks_exact(high * depth);
        let (rest, tiles) = (whole.remainder(), whole.len());
        pack(whole, depth, high, &mut packed);
        for (index, panel) in panels.data.chunks_exact(depth * WIDTH).enumerate() {
            let first = index * WIDTH;
            for (at, rows) in packed.chunks_exact(high * depth).enumerate() {
                tile(panel, rows, &mut sums);
                for (row, sums) in sums.iter().take(high).enumerate() {
                    put(out, (at * high + row) * cols, first, cols, sums);
                }
            }
            for (row, numbers) in rest.chunks_exact(depth).enumerate() {
                tile_plain(panel, numbers, &mut sums);
                put(out, (tiles * high + row) * cols, first, cols, &sums[0]);
            }
        }
    }
}

/// Lays a tile's rows side by side, so that a step reads forwards only.
fn pack<'a>(tiles: impl Iterator<Item = &'a [f64]>, depth: usize, high: usize, packed: &mut Vec<f64>) {
    packed.clear();
    for tile in tiles {
        for at in 0..depth {
            packed.extend(tile.iter().skip(at).step_by(depth).take(high));
        }
    }
}

fn put(out: &mut [f64], row: usize, first: usize, cols: usize, sums: &[f64; WIDTH]) {
    let wide = WIDTH.min(cols - first);
    out[row + first..row + first + wide].copy_from_slice(&sums[..wide]);
}

/// A tile of one row.
fn tile_plain(panel: &[f64], row: &[f64], sums: &mut Sums) {
    let mut own = [0.0; WIDTH];
    for (weights, number) in panel.as_chunks::<WIDTH>().0.iter().zip(row) {
        for (sum, weight) in own.iter_mut().zip(weights) {
            *sum += number * weight;
        }
    }
    sums[0] = own;
}

#[cfg(target_arch = "x86_64")]
mod wide {
    use std::arch::x86_64::{
        _mm256_add_pd, _mm256_loadu_pd, _mm256_mul_pd, _mm256_set1_pd, _mm256_setzero_pd, _mm256_storeu_pd,
        _mm512_add_pd, _mm512_loadu_pd, _mm512_mul_pd, _mm512_set1_pd, _mm512_setzero_pd, _mm512_storeu_pd,
    };

    use super::{Sums, WIDTH};

    /// Eight rows, each with one accumulator.
    #[target_feature(enable = "avx512f")]
    pub(super) fn tile_avx512(panel: &[f64], rows: &[f64], sums: &mut Sums) {
        let mut all = [_mm512_setzero_pd(); 8];
        for (weights, numbers) in panel.as_chunks::<WIDTH>().0.iter().zip(rows.as_chunks::<8>().0) {
            // SAFETY: the array has the eight numbers that are read.
            let weights = unsafe { _mm512_loadu_pd(weights.as_ptr()) };
            for (sum, number) in all.iter_mut().zip(numbers) {
                *sum = _mm512_add_pd(*sum, _mm512_mul_pd(_mm512_set1_pd(*number), weights));
            }
        }
        for (out, sum) in sums.iter_mut().zip(all) {
            // SAFETY: the array has room for the eight numbers that are written.
            unsafe { _mm512_storeu_pd(out.as_mut_ptr(), sum) };
        }
    }

    /// Four rows, each with two accumulators.
    #[target_feature(enable = "avx2")]
    pub(super) fn tile_avx2(panel: &[f64], rows: &[f64], sums: &mut Sums) {
        let mut all = [[_mm256_setzero_pd(); 2]; 4];
        for (weights, numbers) in panel.as_chunks::<WIDTH>().0.iter().zip(rows.as_chunks::<4>().0) {
            // SAFETY: the array has the eight numbers that are read.
            let halves =
                unsafe { [_mm256_loadu_pd(weights.as_ptr()), _mm256_loadu_pd(weights[4..].as_ptr())] };
            for (sum, number) in all.iter_mut().zip(numbers) {
                let number = _mm256_set1_pd(*number);
                sum[0] = _mm256_add_pd(sum[0], _mm256_mul_pd(number, halves[0]));
                sum[1] = _mm256_add_pd(sum[1], _mm256_mul_pd(number, halves[1]));
            }
        }
        for (out, sum) in sums.iter_mut().zip(all) {
            // SAFETY: the array has room for the eight numbers that are written.
            unsafe {
                _mm256_storeu_pd(out.as_mut_ptr(), sum[0]);
                _mm256_storeu_pd(out[4..].as_mut_ptr(), sum[1]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize, seed: u64) -> Vec<f64> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1_u64 << 53) as f64 - 0.5
        };
        (0..count).map(|_| next()).collect()
    }

    /// As one would write it: one sum for each number, in order.
    fn plain(left: &[f64], matrix: &[f64], depth: usize, cols: usize) -> Vec<f64> {
        let mut out = Vec::new();
        for row in left.chunks_exact(depth) {
            for col in 0..cols {
                let products = row.iter().enumerate().map(|(at, number)| number * matrix[at * cols + col]);
                out.push(products.fold(0.0, |sum, product| sum + product));
            }
        }
        out
    }

    #[test]
    fn every_kernel_gives_the_bits_of_the_plain_sum() {
        for (count, depth, cols) in [(1, 1, 1), (1, 37, 9), (3, 5, 8), (8, 64, 17), (67, 33, 25), (130, 7, 3)]
        {
            let (left, matrix) = (numbers(count * depth, 1), numbers(depth * cols, 2));
            let want = plain(&left, &matrix, depth, cols);
            let panels = Panels::new(depth, cols, &matrix);
            let mut out = vec![f64::NAN; count * cols];
            let mut check = |name: &str, run: &dyn Fn(&mut [f64])| {
                out.fill(f64::NAN);
                run(&mut out);
                let same = out.iter().zip(&want).all(|(got, want)| got.to_bits() == want.to_bits());
                assert!(same, "{name}: {count} x {depth} x {cols}");
            };
            check("chosen", &|out| panels.times(&left, count, out));
            check("plain", &|out| times(&panels, &left, out, 1, tile_plain));
            #[cfg(target_arch = "x86_64")]
            if is_x86_feature_detected!("avx2") {
                // SAFETY: the CPU has what the function is compiled for.
                let tile: Tile = |panel, rows, sums| unsafe { wide::tile_avx2(panel, rows, sums) };
                check("AVX2", &|out| times(&panels, &left, out, 4, tile));
            }
        }
    }

    #[test]
    fn nothing_is_a_legal_size() {
        Panels::new(3, 2, &[0.0; 6]).times(&[], 0, &mut []);
        let mut out = [1.0; 2];
        Panels::new(0, 2, &[]).times(&[], 1, &mut out);
        assert_eq!(out, [0.0; 2]);
    }
}
