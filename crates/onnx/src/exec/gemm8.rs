//! Products of matrices of 8-bit integers, summed in 32 bits.
//!
//! The left side is `uint8`, row by row, the right side `int8`, laid out once in panels of sixteen columns in each of which
//! four numbers of a column's depth lie side by side: that is what a CPU with VNNI multiplies and adds up in one step. CPUs
//! without it widen both to 16 bits and add up pairs, which cuts nothing off either (sums of pairs in 16 bits would).
//! Other types go into these by a shift of both the numbers and their zero points, which changes no difference.
//!
//! Zero points stay out of the loops: the sum of `(a - x)(b - y)` is that of `a b`, less `x` times the column's sum, less `y`
//! times the row's, plus `x y` for each step of the depth. Integers are exact in any order, and 32 bits wrap as ONNX has it:
//! a number does not depend on the kernel, the tile, or the rows beside it.
//!
//! Not here: `float` (`gemm`), scales (`quantized`, `joined`), windows (`conv_integer`).
#![allow(unsafe_code)] // Calls of functions compiled for more than the oldest CPU; see `kernel`, and the loads and stores of `wide`.

use super::value::Failed;
use crate::proto::Elem;

/// Columns of a panel.
const WIDTH: usize = 16;
/// Steps of the depth that lie side by side.
const DEEP: usize = 4;
/// Numbers of a panel for [`DEEP`] steps of the depth.
const STEP: usize = WIDTH * DEEP;
/// Rows of a tile, at most.
const HIGH: usize = 12;
/// Rows that pass through all panels before the next.
const BLOCK: usize = 96;
/// Half of the numbers of 8 bits: between `uint8` and `int8`.
const HALF: i32 = 128;

/// Sums of a panel's columns.
type Sums = [i32; WIDTH];

/// Adds products to sums: of `P` panels of a size, and `H` rows that lie so far apart.
type Tile<const H: usize, const P: usize> = fn(&[i8], &[u8], usize, &mut [[Sums; P]; H]);

/// The tiles of a kind of CPU.
#[derive(Clone, Copy)]
struct Kernel {
    tall: Tile<HIGH, 1>,
    four: Tile<4, 1>,
    wide: Tile<1, 4>,
    single: Tile<1, 1>,
}

/// The best for this CPU.
fn kernel() -> Kernel {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni") {
            return wide::VNNI;
        }
        if is_x86_feature_detected!("avx2") {
            return wide::AVX2;
        }
    }
    PLAIN
}

const PLAIN: Kernel = Kernel { tall: plain, four: plain, wide: plain, single: plain };

/// The four numbers of a row at a step of the depth.
fn quad(rows: &[u8], at: usize) -> [u8; DEEP] {
    *rows[at..].first_chunk().expect("rows are whole steps long")
}

/// A tile in plain Rust.
fn plain<const H: usize, const P: usize>(
    panels: &[i8],
    rows: &[u8],
    stride: usize,
    sums: &mut [[Sums; P]; H],
) {
    for (panel, steps) in panels.chunks_exact(panels.len() / P).enumerate() {
        for (step, columns) in steps.as_chunks::<STEP>().0.iter().enumerate() {
            for (row, sums) in sums.iter_mut().enumerate() {
                let numbers = quad(rows, row * stride + step * DEEP);
                for (sum, weights) in sums[panel].iter_mut().zip(columns.as_chunks::<DEEP>().0) {
                    let products = numbers.iter().zip(weights).map(|(x, w)| i32::from(*x) * i32::from(*w));
                    *sum = sum.wrapping_add(products.sum());
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod wide {
    use std::arch::x86_64::{
        __m256i, _mm_loadu_si128, _mm_set1_epi32, _mm256_add_epi32, _mm256_cvtepi8_epi16,
        _mm256_cvtepu8_epi16, _mm256_madd_epi16, _mm256_setzero_si256, _mm256_storeu_si256,
        _mm512_dpbusd_epi32, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_storeu_si512,
    };

    use super::{DEEP, Kernel, STEP, Sums, WIDTH, quad};

    // SAFETY: `kernel` gives them out where the CPU has what the functions are compiled for.
    pub(super) const VNNI: Kernel = Kernel {
        tall: |panels, rows, stride, sums| unsafe { vnni(panels, rows, stride, sums) },
        four: |panels, rows, stride, sums| unsafe { vnni(panels, rows, stride, sums) },
        wide: |panels, rows, stride, sums| unsafe { vnni(panels, rows, stride, sums) },
        single: |panels, rows, stride, sums| unsafe { vnni(panels, rows, stride, sums) },
    };

    // SAFETY: as above.
    pub(super) const AVX2: Kernel = Kernel {
        tall: |panels, rows, stride, sums| unsafe { avx2(panels, rows, stride, sums) },
        four: |panels, rows, stride, sums| unsafe { avx2(panels, rows, stride, sums) },
        wide: |panels, rows, stride, sums| unsafe { avx2(panels, rows, stride, sums) },
        single: |panels, rows, stride, sums| unsafe { avx2(panels, rows, stride, sums) },
    };

    /// Four products at a time are added to each of sixteen sums.
    #[target_feature(enable = "avx512f,avx512vnni")]
    fn vnni<const H: usize, const P: usize>(
        panels: &[i8],
        rows: &[u8],
        stride: usize,
        sums: &mut [[Sums; P]; H],
    ) {
        let size = panels.len() / P;
        let steps = size / STEP;
        assert!(rows.len() >= (H - 1) * stride + steps * DEEP, "a tile of {} cells", rows.len());
        let mut all =
            // SAFETY: the arrays have the sixteen numbers that are read.
            sums.map(|sums| sums.map(|sums| unsafe { _mm512_loadu_si512(sums.as_ptr().cast()) }));
        for step in 0..steps {
            // SAFETY: each panel has as many steps, of 64 bytes.
            let weights: [_; P] = std::array::from_fn(|panel| unsafe {
                _mm512_loadu_si512(panels.as_ptr().add(panel * size + step * STEP).cast())
            });
            for (row, sums) in all.iter_mut().enumerate() {
                // SAFETY: the rows are as long as was asserted.
                let numbers =
                    unsafe { rows.as_ptr().add(row * stride + step * DEEP).cast::<i32>().read_unaligned() };
                let numbers = _mm512_set1_epi32(numbers);
                for (sum, weights) in sums.iter_mut().zip(&weights) {
                    *sum = _mm512_dpbusd_epi32(*sum, numbers, *weights);
                }
            }
        }
        for (out, sum) in sums.iter_mut().flatten().zip(all.into_iter().flatten()) {
            // SAFETY: the array has room for the sixteen numbers that are written.
            unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), sum) };
        }
    }

    /// Numbers of 16 bits: sums of pairs, of which a column has two, for four columns in each register.
    #[target_feature(enable = "avx2")]
    fn avx2<const H: usize, const P: usize>(
        panels: &[i8],
        rows: &[u8],
        stride: usize,
        sums: &mut [[Sums; P]; H],
    ) {
        let size = panels.len() / P;
        // Two rows of one panel are what the registers hold.
        for panel in 0..P {
            let steps = &panels[panel * size..(panel + 1) * size];
            let mut row = 0;
            while row < H {
                let pair = if row + 1 < H { [row, row + 1] } else { [row, row] };
                let [first, second] = pairs(steps, rows, pair.map(|row| row * stride));
                add(&mut sums[row][panel], first);
                if pair[0] != pair[1] {
                    add(&mut sums[row + 1][panel], second);
                }
                row += 2;
            }
        }
    }

    #[target_feature(enable = "avx2")]
    fn pairs(steps: &[i8], rows: &[u8], from: [usize; 2]) -> [[__m256i; 4]; 2] {
        let mut all = [[_mm256_setzero_si256(); 4]; 2];
        for (step, columns) in steps.as_chunks::<STEP>().0.iter().enumerate() {
            let numbers = from.map(|from| {
                _mm256_cvtepu8_epi16(_mm_set1_epi32(i32::from_le_bytes(quad(rows, from + step * DEEP))))
            });
            for (part, columns) in columns.as_chunks::<16>().0.iter().enumerate() {
                // SAFETY: the array has the sixteen bytes that are read.
                let weights = _mm256_cvtepi8_epi16(unsafe { _mm_loadu_si128(columns.as_ptr().cast()) });
                for (sums, numbers) in all.iter_mut().zip(&numbers) {
                    sums[part] = _mm256_add_epi32(sums[part], _mm256_madd_epi16(*numbers, weights));
                }
            }
        }
        all
    }

    /// Adds both sums of each column.
    #[target_feature(enable = "avx2")]
    fn add(sums: &mut Sums, parts: [__m256i; 4]) {
        let mut halves = [0_i32; 2 * WIDTH];
        for (part, halves) in parts.into_iter().zip(halves.as_chunks_mut::<8>().0) {
            // SAFETY: the array has room for the eight numbers that are written.
            unsafe { _mm256_storeu_si256(halves.as_mut_ptr().cast(), part) };
        }
        for (sum, halves) in sums.iter_mut().zip(halves.as_chunks::<2>().0) {
            *sum = sum.wrapping_add(halves[0].wrapping_add(halves[1]));
        }
    }
}

/// The matrix on the left: `uint8`, each row filled up to whole steps of the depth.
#[derive(Debug, Default)]
pub(crate) struct Left {
    cells: Vec<u8>,
    depth: usize,
}

impl Left {
    /// How far apart rows lie.
    fn stride(&self) -> usize {
        self.depth.next_multiple_of(DEEP)
    }

    /// Makes room for `[n, k]`. What is behind a row's end meets zeros.
    pub(crate) fn resize(&mut self, n: usize, k: usize) {
        self.depth = k;
        let stride = self.stride();
        self.cells.resize(n * stride, 0);
    }

    /// The rows that there is room for, each with what fills it up.
    pub(crate) fn rows(&mut self) -> std::slice::ChunksExactMut<'_, u8> {
        let stride = self.stride().max(1);
        self.cells.chunks_exact_mut(stride)
    }

    fn sums(&self) -> impl Iterator<Item = i32> {
        let sum = |row: &[u8]| row[..self.depth].iter().map(|x| i32::from(*x)).fold(0, i32::wrapping_add);
        self.cells.chunks_exact(self.stride().max(1)).map(sum)
    }
}

/// A number of 8 bits, moved into `uint8`.
pub(crate) fn unsigned(elem: Elem, number: i64) -> Result<u8, Failed> {
    moved(elem, number, 0).map(|number| number as u8)
}

/// A number of 8 bits, moved so that its type begins at `low`.
fn moved(elem: Elem, number: i64, low: i64) -> Result<i64, Failed> {
    let own = match elem {
        Elem::U8 => 0,
        Elem::I8 => i64::from(-HALF),
        other => return Err(format!("{} where 8-bit integers are needed", other.name())),
    };
    // A file may keep them in wider fields.
    let fits = (own..=own + 255).contains(&number);
    fits.then_some(number - own + low).ok_or_else(|| format!("numbers outside of {}", elem.name()))
}

/// The matrix on the right, laid out, less zero points that are one for each column.
#[derive(Debug)]
pub(crate) struct Right {
    panels: Vec<i8>,
    depth: usize,
    columns: usize,
    /// What a step of the left side's zero point adds to each column.
    steps: Vec<i32>,
    /// The zero point of each column; none where all are zero.
    zeros: Vec<i32>,
}

impl Right {
    /// Lays out `[k, m]` of 8 bits, whose cells `at` tells by step of the depth and column; `zeros` has one for all columns
    /// or one for each.
    pub(crate) fn pack(
        (elem, zeros): (Elem, &[i64]),
        (k, m): (usize, usize),
        at: impl Fn(usize, usize) -> i64,
    ) -> Result<Self, Failed> {
        let low = i64::from(-HALF);
        if zeros.len() != 1 && zeros.len() != m {
            return Err(format!("{} zero points for {m} columns", zeros.len()));
        }
        let zeros = (0..m).map(|column| moved(elem, zeros[column % zeros.len()], low).map(|x| x as i32));
        let zeros = zeros.collect::<Result<Vec<_>, _>>()?;
        let size = k.div_ceil(DEEP) * STEP;
        let mut panels = vec![0_i8; m.div_ceil(WIDTH) * size];
        let mut sums = vec![0_i32; m];
        for depth in 0..k {
            for (column, sum) in sums.iter_mut().enumerate() {
                let number = moved(elem, at(depth, column), low)? as i8;
                *sum = sum.wrapping_add(i32::from(number));
                let place = column / WIDTH * size + depth / DEEP * STEP;
                panels[place + column % WIDTH * DEEP + depth % DEEP] = number;
            }
        }
        let steps =
            sums.iter().zip(&zeros).map(|(sum, zero)| (k as i32).wrapping_mul(*zero).wrapping_sub(*sum));
        let steps = steps.collect();
        let zeros = if zeros.iter().all(|zero| *zero == 0) { Vec::new() } else { zeros };
        Ok(Self { panels, depth: k, columns: m, steps, zeros })
    }

    /// Its depth and its columns.
    pub(crate) fn shape(&self) -> (usize, usize) {
        (self.depth, self.columns)
    }

    /// What the sums of a row begin with, whose zero point is this.
    fn begin(&self, out: &mut [i32], zero: u8, plus: &[i32]) {
        if plus.is_empty() {
            out.iter_mut().zip(&self.steps).for_each(|(x, step)| *x = step.wrapping_mul(i32::from(zero)));
            return;
        }
        for ((x, step), plus) in out.iter_mut().zip(&self.steps).zip(plus) {
            *x = step.wrapping_mul(i32::from(zero)).wrapping_add(*plus);
        }
    }
}

/// `out = (a - zeros) x (b - its zero points) + plus`; `zeros` has one for all rows or one for each, `plus` a number for each
/// column or none. Fails where the sides do not have fitting sizes.
pub(crate) fn product(
    out: &mut [i32],
    (a, zeros): (&Left, &[u8]),
    b: &Right,
    plus: &[i32],
) -> Result<(), Failed> {
    run(kernel(), out, (a, zeros), b, plus)
}

fn run(
    kernel: Kernel,
    out: &mut [i32],
    (a, zeros): (&Left, &[u8]),
    b: &Right,
    plus: &[i32],
) -> Result<(), Failed> {
    let (k, m, stride) = (a.depth, b.columns, a.stride());
    let rows = if k == 0 { out.len() / m.max(1) } else { a.cells.len() / stride };
    if k != b.depth
        || out.len() != rows * m
        || !(plus.is_empty() || plus.len() == m)
        || !(zeros.len() == 1 || zeros.len() == rows)
    {
        return Err(format!("a product of {rows} x {k} and {} x {m} cells into {}", b.depth, out.len()));
    }
    if out.is_empty() {
        return Ok(());
    }
    for (out, zero) in out.chunks_exact_mut(m).zip(zeros.iter().cycle()) {
        b.begin(out, *zero, plus);
    }
    if k == 0 {
        return Ok(());
    }
    for (out, rows) in out.chunks_mut(BLOCK * m).zip(a.cells.chunks(BLOCK * stride)) {
        block(kernel, out, (rows, stride), b);
    }
    if !b.zeros.is_empty() {
        for (out, sum) in out.chunks_exact_mut(m).zip(a.sums()) {
            out.iter_mut().zip(&b.zeros).for_each(|(x, zero)| *x = x.wrapping_sub(zero.wrapping_mul(sum)));
        }
    }
    Ok(())
}

/// Adds the products of some rows to theirs.
fn block(kernel: Kernel, out: &mut [i32], (rows, stride): (&[u8], usize), b: &Right) {
    let (count, m) = (rows.len() / stride, b.columns);
    let size = stride / DEEP * STEP;
    let tall = count / HIGH * HIGH;
    let four = tall + (count - tall) / 4 * 4;
    for (index, panel) in b.panels.chunks_exact(size).enumerate() {
        for row in (0..tall).step_by(HIGH) {
            tile(kernel.tall, panel, (&rows[row * stride..], stride), &mut out[row * m..], (index, m));
        }
        for row in (tall..four).step_by(4) {
            tile(kernel.four, panel, (&rows[row * stride..], stride), &mut out[row * m..], (index, m));
        }
    }
    // One row alone takes panels side by side, so that sums need not wait for each other.
    for row in four..count {
        let (rows, out) = (&rows[row * stride..], &mut out[row * m..(row + 1) * m]);
        let together = b.panels.len() / (4 * size);
        for (index, panels) in b.panels.chunks_exact(4 * size).enumerate() {
            tile(kernel.wide, panels, (rows, stride), out, (4 * index, m));
        }
        for (index, panel) in b.panels.chunks_exact(size).enumerate().skip(4 * together) {
            tile(kernel.single, panel, (rows, stride), out, (index, m));
        }
    }
}

/// Adds a tile's products to the rows that begin at `out`, from the column where panel `index` begins.
fn tile<const H: usize, const P: usize>(
    run: Tile<H, P>,
    panels: &[i8],
    (rows, stride): (&[u8], usize),
    out: &mut [i32],
    (index, m): (usize, usize),
) {
    let from = index * WIDTH;
    let mut sums = [[[0; WIDTH]; P]; H];
    run(panels, rows, stride, &mut sums);
    for (sums, out) in sums.iter().zip(out.chunks_exact_mut(m)) {
        for (x, sum) in out[from..].iter_mut().zip(sums.as_flattened()) {
            *x = x.wrapping_add(*sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(count: usize, seed: usize) -> Vec<i64> {
        (0..count).map(|at| ((at * 7919 + seed * 104_729) % 256) as i64).collect()
    }

    fn left(cells: &[i64], (n, k): (usize, usize)) -> Left {
        let mut left = Left::default();
        left.resize(n, k);
        for (row, cells) in left.rows().zip(cells.chunks_exact(k)) {
            // What fills a row up must not matter.
            row.fill(201);
            row.iter_mut().zip(cells).for_each(|(slot, cell)| *slot = *cell as u8);
        }
        left
    }

    fn kernels() -> Vec<Kernel> {
        let mut all = vec![kernel(), PLAIN];
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            all.push(wide::AVX2);
        }
        all
    }

    #[test]
    fn every_kernel_gives_the_sums_of_differences() {
        let shapes =
            [(1, 3, 5), (1, 64, 100), (2, 1, 1), (5, 17, 33), (19, 300, 40), (200, 9, 20), (12, 5, 64)];
        for (n, k, m) in shapes {
            for (elem, low) in [(Elem::I8, -128), (Elem::U8, 0)] {
                let a = cells(n * k, 1);
                let b: Vec<i64> = cells(k * m, 2).into_iter().map(|cell| cell + low).collect();
                let zeros: Vec<i64> = cells(m, 3).into_iter().map(|cell| cell + low).collect();
                let plus: Vec<i32> = (0..m as i32).map(|column| column * 1000 - 7).collect();
                let each: Vec<u8> = cells(n, 4).into_iter().map(|zero| zero as u8).collect();
                for (zeros, zero) in [(&zeros[..], vec![77]), (&[0], each.clone()), (&[low + 128], each)] {
                    let right = Right::pack((elem, zeros), (k, m), |depth, column| b[depth * m + column]);
                    let right = right.expect("they fit");
                    let want: Vec<i32> = (0..n * m)
                        .map(|at| {
                            let (row, column) = (at / m, at % m);
                            let less = zeros[column % zeros.len()];
                            let product = |at: usize| {
                                (a[row * k + at] - i64::from(zero[row % zero.len()]))
                                    * (b[at * m + column] - less)
                            };
                            (0..k).map(product).sum::<i64>() as i32 + plus[column]
                        })
                        .collect();
                    for kernel in kernels() {
                        let mut out = vec![-1; n * m];
                        run(kernel, &mut out, (&left(&a, (n, k)), &zero), &right, &plus).expect("they fit");
                        assert_eq!(out, want, "{n}x{k}x{m} {elem:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_largest_products_are_not_cut_and_32_bits_wrap() {
        let k = 70_000;
        let right = Right::pack((Elem::I8, &[0]), (k, 1), |_, _| -128).expect("they fit");
        let whole = (k as i64 * 255 * -128) as i32;
        for kernel in kernels() {
            let mut out = vec![0; 5];
            run(kernel, &mut out, (&left(&vec![255; 5 * k], (5, k)), &[0]), &right, &[]).expect("they fit");
            assert_eq!(out, [whole; 5]);
        }
    }

    #[test]
    fn sizes_and_numbers_that_do_not_fit_are_refused_and_nothing_is_a_legal_size() {
        let right = Right::pack((Elem::I8, &[0]), (2, 3), |_, _| 1).expect("they fit");
        let left = left(&[1; 4], (2, 2));
        assert!(product(&mut [0; 5], (&left, &[0]), &right, &[]).is_err());
        assert!(product(&mut [0; 6], (&left, &[0]), &right, &[1]).is_err());
        assert!(product(&mut [0; 6], (&left, &[0; 3]), &right, &[]).is_err());
        assert!(Right::pack((Elem::I8, &[0]), (1, 1), |_, _| 128).is_err());
        assert!(Right::pack((Elem::U8, &[0]), (1, 1), |_, _| -1).is_err());
        assert!(Right::pack((Elem::I32, &[0]), (1, 1), |_, _| 1).is_err());
        assert!(Right::pack((Elem::I8, &[0, 0]), (1, 3), |_, _| 1).is_err());
        let none = Right::pack((Elem::U8, &[3]), (0, 2), |_, _| 1).expect("nothing fits");
        let mut out = [9; 4];
        product(&mut out, (&Left::default(), &[5]), &none, &[1, 2]).expect("nothing fits");
        assert_eq!(out, [1, 2, 1, 2]);
    }
}
