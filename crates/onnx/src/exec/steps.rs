//! Numbers of `float` to steps of a scale and sums of steps back, many at once.
//!
//! Rounding is to the nearest, ties to even, and saturates, as ONNX defines it. The loops are plain Rust, compiled for the
//! widest vectors that the CPU has; every width gives the same bits.
//!
//! Not here: which operators do so (`quantized`, `joined`).
#![allow(unsafe_code)] // See `widest`.

use super::value::Failed;
use super::widest::widest;
use crate::proto::Elem;

/// The least and the greatest of a type.
pub(super) fn range(elem: Elem) -> Result<(f32, f32), Failed> {
    match elem {
        Elem::U8 => Ok((0.0, 255.0)),
        Elem::I8 => Ok((-128.0, 127.0)),
        other => Err(format!("{} where 8-bit integers are needed", other.name())),
    }
}

/// The nearest whole number, ties to even, of what may be 8 bits; what is far from them goes no farther. Adding and
/// taking away a large number rounds so, and many at once: rounding itself is a call on the oldest CPUs.
#[inline(always)]
pub(super) fn nearest(number: f32) -> f32 {
    const FAR: f32 = 1024.0;
    const LARGE: f32 = (3 << 22) as f32;
    (number.clamp(-FAR, FAR) + LARGE) - LARGE
}

/// How a value becomes integers of 8 bits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Grid {
    pub(super) scale: f32,
    pub(super) zero: f32,
    /// The least of the type.
    pub(super) low: f32,
}

impl Grid {
    /// Of a type, with a zero point that has to be one of its numbers.
    pub(super) fn new(elem: Elem, scale: f32, zero: f64) -> Result<Self, Failed> {
        let (low, high) = range(elem)?;
        let zero = zero as f32;
        if zero.fract() != 0.0 || !(low..=high).contains(&zero) {
            return Err(format!("a zero point of {zero} for {}", elem.name()));
        }
        Ok(Self { scale, zero, low })
    }

    /// The range of the cells decides: 255 steps of `uint8` from the least (at most 0) to the greatest (at least 0).
    pub(super) fn of(cells: &[f32]) -> Self {
        let (low, high) = ends(cells);
        // All zeros have no range; any scale says the same of them.
        let scale = if high > low { (high - low) / 255.0 } else { 1.0 };
        Self { scale, zero: (-low / scale).round_ties_even().clamp(0.0, 255.0), low: 0.0 }
    }

    /// The zero point, counted from the least of the type.
    pub(super) fn zero_from_low(&self) -> u8 {
        (self.zero - self.low) as u8
    }
}

widest! {
    /// The least, at most 0, and the greatest, at least 0; missing numbers do not count.
    fn ends(cells: &[f32]) -> (f32, f32) {
        let (mut low, mut high) = ([0.0_f32; 16], [0.0_f32; 16]);
        let (chunks, rest) = cells.as_chunks::<16>();
        for chunk in chunks {
            for at in 0..16 {
                low[at] = if chunk[at] < low[at] { chunk[at] } else { low[at] };
                high[at] = if chunk[at] > high[at] { chunk[at] } else { high[at] };
            }
        }
        let rest = rest.iter().copied();
        (low.into_iter().chain(rest.clone()).fold(0.0, f32::min), high.into_iter().chain(rest).fold(0.0, f32::max))
    }
}

widest! {
    /// The integers of cells, counted from the least of the type.
    fn steps(grid: Grid, cells: &[f32], out: &mut [u8]) {
        /// A number whose last bits count ones.
        const ONES: f32 = (1 << 23) as f32;
        for (slot, cell) in out.iter_mut().zip(cells) {
            let step = (nearest(cell / grid.scale) + grid.zero).max(grid.low).min(grid.low + 255.0);
            *slot = ((step - grid.low) + ONES).to_bits() as u8;
        }
    }
}

widest! {
    /// Cells as they are after they were integers.
    fn there_and_back(grid: Grid, cells: &[f32], out: &mut [f32]) {
        for (slot, cell) in out.iter_mut().zip(cells) {
            let step = (nearest(cell / grid.scale) + grid.zero).max(grid.low).min(grid.low + 255.0);
            *slot = (step - grid.zero) * grid.scale;
        }
    }
}

widest! {
    /// Sums of steps as numbers, each with the scale of its row and its column.
    fn scaled(sums: &[i32], step: f32, scales: &[f32], out: &mut [f32]) {
        for ((slot, sum), scale) in out.iter_mut().zip(sums).zip(scales) {
            *slot = *sum as f32 * (step * scale);
        }
    }
}

widest! {
    /// The same and a number for each column.
    fn scaled_plus(sums: &[i32], step: f32, scales: &[f32], plus: &[f32], out: &mut [f32]) {
        for (((slot, sum), scale), plus) in out.iter_mut().zip(sums).zip(scales).zip(plus) {
            *slot = *sum as f32 * (step * scale) + plus;
        }
    }
}

widest! {
    /// Sums of steps as numbers of one scale, and a number.
    fn scaled_line(sums: &[i32], scale: f32, plus: f32, out: &mut [f32]) {
        for (slot, sum) in out.iter_mut().zip(sums) {
            *slot = *sum as f32 * scale + plus;
        }
    }
}

widest! {
    /// Numbers below zero become zero.
    fn cut(cells: &mut [f32]) {
        for cell in cells {
            *cell = if *cell < 0.0 { 0.0 } else { *cell };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_is_that_of_the_standard_as_far_as_8_bits_go() {
        for step in -4096..=4096 {
            let number = step as f32 / 8.0;
            assert_eq!(nearest(number), number.round_ties_even());
        }
        assert!(nearest(f32::INFINITY) > 255.0 && nearest(-1e30) < -255.0 && nearest(f32::NAN).is_nan());
    }

    #[test]
    fn steps_saturate_at_the_ends_of_their_type() {
        let cells = [-1e30, -3.0, -0.25, 0.0, 0.25, 0.5, 0.75, 63.4, 1e9, f32::INFINITY, f32::NAN];
        for (elem, zero, want) in [
            (Elem::U8, 3.0, [0, 0, 3, 3, 3, 4, 5, 130, 255, 255, 0]),
            (Elem::I8, -1.0, [0, 121, 127, 127, 127, 128, 129, 254, 255, 255, 0]),
        ] {
            let grid = Grid::new(elem, 0.5, zero).expect("a zero point of its type");
            let mut out = [9; 11];
            steps(grid, &cells, &mut out);
            assert_eq!(out, want, "{elem:?}");
            let mut back = [9.0; 11];
            there_and_back(grid, &cells, &mut back);
            let whole = want.map(|step| (f32::from(step) + grid.low - grid.zero) * 0.5);
            assert_eq!(back, whole, "{elem:?}");
        }
        assert!(Grid::new(Elem::U8, 1.0, -1.0).is_err() && Grid::new(Elem::I8, 1.0, 128.0).is_err());
        assert!(Grid::new(Elem::U8, 1.0, 0.5).is_err() && Grid::new(Elem::I32, 1.0, 0.0).is_err());
    }

    #[test]
    fn the_ends_of_cells_are_found_wherever_they_lie() {
        for count in [0, 1, 15, 16, 17, 40] {
            for at in 0..count {
                let mut cells = vec![f32::NAN; count];
                cells[at] = -2.0;
                assert_eq!(ends(&cells), (-2.0, 0.0), "{at} of {count}");
                cells[at] = 3.0;
                assert_eq!(ends(&cells), (0.0, 3.0), "{at} of {count}");
            }
        }
        assert_eq!(ends(&[]), (0.0, 0.0));
    }
}
