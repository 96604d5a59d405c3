//! `QuantileTransformer`: a value becomes the share of the training's values below it, or the normal deviate of it.
//!
//! Not here: other transforms of scale (`scale`).

use super::attrs::{Attrs, Matrix};
use super::{Evaluated, Read, Role, Rows, Transform};
use crate::backend::BackendError;
use crate::error::Result;
use crate::sketch::{Binary, Drawn, Frame, Sketch, Unary, Wire};

/// Values this near an end are at the end.
const NEAR: f64 = 1e-7;

struct Quantiles {
    /// A row for each column, ascending.
    quantiles: Matrix,
    references: Vec<f64>,
    is_normal: bool,
}

/// numpy's `interp` over ascending places.
pub(super) fn interpolate(x: f64, places: &[f64], values: &[f64]) -> f64 {
    let last = places.len() - 1;
    // How many places are at most `x`.
    let above = places.partition_point(|place| *place <= x);
    if above == 0 {
        return values[0];
    }
    if above > last {
        return values[last];
    }
    let low = above - 1;
    if places[low] == x {
        return values[low];
    }
    let slope = (values[above] - values[low]) / (places[above] - places[low]);
    slope * (x - places[low]) + values[low]
}

/// The same from the other end: where places are equal, the first counts.
fn interpolate_down(x: f64, places: &[f64], values: &[f64]) -> f64 {
    let last = places.len() - 1;
    let below = places.partition_point(|place| *place < x);
    if below > last {
        return values[last];
    }
    if below == 0 || places[below] == x {
        return values[below];
    }
    let slope = (values[below - 1] - values[below]) / (places[below] - places[below - 1]);
    slope * (places[below] - x) + values[below]
}

impl Transform for Quantiles {
    fn width_out(&self) -> usize {
        self.quantiles.rows
    }

    fn transform(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        let width = rows.width;
        for (index, (cell, slot)) in rows.data.iter().zip(out).enumerate() {
            if cell.is_infinite() {
                let row = index / width.max(1);
                return Err(BackendError::Input(format!("Input X contains infinity (row {row})")));
            }
            *slot = if cell.is_nan() { f64::NAN } else { self.one(index % width, *cell) };
        }
        Ok(())
    }

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Frame> {
        let mut columns = Vec::new();
        for column in 0..self.quantiles.rows {
            let x = rows.column(sketch, column).0;
            columns.push(self.draw_share(sketch, column, x));
        }
        let mut shares = sketch.join(&columns);
        if self.is_normal {
            let deviates = draw_deviate(sketch, shares);
            let end = NEAR - f64::EPSILON;
            let low = sketch.at_least(deviates, deviate(end));
            shares = sketch.at_most(low, deviate(1.0 - end));
        }
        Ok(Frame::Numbers(shares, self.quantiles.rows))
    }
}

impl Quantiles {
    /// Draws the share of the training's values below those of a column.
    fn draw_share(&self, sketch: &mut Sketch, column: usize, x: Wire) -> Wire {
        let places = self.quantiles.row(column);
        let (first, last) = (places[0], places[places.len() - 1]);
        let turned = |all: &[f64]| all.iter().rev().map(|value| -value).collect::<Vec<f64>>();
        let up = sketch.interpolate(x, places, &self.references);
        // The same from the other end, so that of equal places the first counts.
        let mirrored = sketch.unary(Unary::Negative, x);
        let down = sketch.interpolate(mirrored, &turned(places), &turned(&self.references));
        let both = sketch.subtract(up, down);
        let share = sketch.scaled(both, 0.5);
        let (is_low, is_high) = if self.is_normal {
            let (below, above) = (sketch.plus(x, -NEAR), sketch.plus(x, NEAR));
            (sketch.test(Binary::Less, below, first), sketch.test(Binary::Greater, above, last))
        } else {
            (sketch.test(Binary::Equal, x, first), sketch.test(Binary::Equal, x, last))
        };
        let (zero, one) = (sketch.number(0.0), sketch.number(1.0));
        let made = sketch.choose(is_high, one, share);
        let made = sketch.choose(is_low, zero, made);
        // What is missing stays so.
        let is_missing = sketch.unary(Unary::IsMissing, x);
        sketch.choose(is_missing, x, made)
    }

    fn one(&self, column: usize, x: f64) -> f64 {
        let places = self.quantiles.row(column);
        let (first, last) = (places[0], places[places.len() - 1]);
        let (is_low, is_high) =
            if self.is_normal { (x - NEAR < first, x + NEAR > last) } else { (x == first, x == last) };
        let up = interpolate(x, places, &self.references);
        let share = if is_low {
            0.0
        } else if is_high {
            1.0
        } else {
            0.5 * (up + interpolate_down(x, places, &self.references))
        };
        if !self.is_normal {
            return share;
        }
        let end = NEAR - f64::EPSILON;
        deviate(share).max(deviate(end)).min(deviate(1.0 - end))
    }
}

pub(super) fn read(attrs: &Attrs<'_>) -> Result<Read> {
    let width = attrs.features()?;
    let stored = attrs.matrix("quantiles_")?;
    let references = attrs.floats("references_")?;
    if stored.cols != width || stored.rows != references.len() || references.is_empty() {
        return Err(attrs.error("quantiles_ and references_ do not fit the columns"));
    }
    let is_normal = match attrs.text("output_distribution")? {
        "normal" => true,
        "uniform" => false,
        other => return Err(attrs.unsupported(&format!("output_distribution={other:?}"))),
    };
    let count = stored.rows;
    let data = (0..width * count).map(|at| stored.data[at % count * width + at / count]).collect();
    let quantiles = Matrix { rows: width, cols: count, data };
    let detail = format!("{width} columns, {count} quantiles");
    let cost = width as u64 * 60;
    let model = Quantiles { quantiles, references, is_normal };
    Ok(Read::new(Role::Transformer(Box::new(model)), detail, cost))
}

fn polynomial(x: f64, coefficients: &[f64]) -> f64 {
    coefficients.iter().rev().fold(0.0, |sum, coefficient| sum * x + coefficient)
}

/// The normal deviate of a probability: Wichura's AS 241 (Applied Statistics 37, 1988), to 1e-16.
fn deviate(p: f64) -> f64 {
    let q = p - 0.5;
    if q.abs() <= 0.425 {
        let r = 0.180_625 - q * q;
        return q * polynomial(r, &MIDDLE.0) / polynomial(r, &MIDDLE.1);
    }
    let tail = if q < 0.0 { p } else { 1.0 - p };
    if tail <= 0.0 {
        return if q < 0.0 { f64::NEG_INFINITY } else { f64::INFINITY };
    }
    let r = (-tail.ln()).sqrt();
    let size = if r <= 5.0 {
        polynomial(r - 1.6, &NEARER.0) / polynomial(r - 1.6, &NEARER.1)
    } else {
        polynomial(r - 5.0, &FURTHER.0) / polynomial(r - 5.0, &FURTHER.1)
    };
    if q < 0.0 { -size } else { size }
}

/// Draws the normal deviate of probabilities: each of the three ranges for all, then the one that holds.
fn draw_deviate(sketch: &mut Sketch, p: Wire) -> Wire {
    let ratio = |sketch: &mut Sketch, r: Wire, ratio: &Ratio| {
        let sum = |sketch: &mut Sketch, coefficients: &[f64; 8]| {
            let mut sum = sketch.number(coefficients[7]);
            for coefficient in coefficients[..7].iter().rev() {
                let scaled = sketch.multiply(sum, r);
                sum = sketch.plus(scaled, *coefficient);
            }
            sum
        };
        let (above, below) = (sum(sketch, &ratio.0), sum(sketch, &ratio.1));
        sketch.divide(above, below)
    };
    let q = sketch.plus(p, -0.5);
    let square = sketch.multiply(q, q);
    let limit = sketch.number(0.180_625);
    let r = sketch.subtract(limit, square);
    let middle = ratio(sketch, r, &MIDDLE);
    let middle = sketch.multiply(q, middle);
    let is_left = sketch.test(Binary::Less, q, 0.0);
    let rest = sketch.rest_of_one(p);
    let tail = sketch.choose(is_left, p, rest);
    // The ends have no logarithm; their deviates are infinite and are cut off later.
    let tail = sketch.at_least(tail, f64::MIN_POSITIVE);
    let log = sketch.unary(Unary::Log, tail);
    let log = sketch.unary(Unary::Negative, log);
    let r = sketch.unary(Unary::Root, log);
    let (near, far) = (sketch.plus(r, -1.6), sketch.plus(r, -5.0));
    let (near, far) = (ratio(sketch, near, &NEARER), ratio(sketch, far, &FURTHER));
    let is_far = sketch.test(Binary::Greater, r, 5.0);
    let size = sketch.choose(is_far, far, near);
    let negative = sketch.unary(Unary::Negative, size);
    let outer = sketch.choose(is_left, negative, size);
    let distance = sketch.unary(Unary::Absolute, q);
    let is_outer = sketch.test(Binary::Greater, distance, 0.425);
    sketch.choose(is_outer, outer, middle)
}

/// Coefficients above and below the line, by rising power.
type Ratio = ([f64; 8], [f64; 8]);

const MIDDLE: Ratio = (
    [
        3.387_132_872_796_366_5,
        133.141_667_891_784_38,
        1_971.590_950_306_551_3,
        13_731.693_765_509_46,
        45_921.953_931_549_87,
        67_265.770_927_008_7,
        33_430.575_583_588_13,
        2_509.080_928_730_122_7,
    ],
    [
        1.0,
        42.313_330_701_600_91,
        687.187_007_492_057_9,
        5_394.196_021_424_751,
        21_213.794_301_586_597,
        39_307.895_800_092_71,
        28_729.085_735_721_943,
        5_226.495_278_852_854,
    ],
);
const NEARER: Ratio = (
    [
        1.423_437_110_749_683_5,
        4.630_337_846_156_546,
        5.769_497_221_460_691,
        3.647_848_324_763_204_5,
        1.270_458_252_452_368_4,
        0.241_780_725_177_450_6,
        0.022_723_844_989_269_184,
        7.745_450_142_783_414e-4,
    ],
    [
        1.0,
        2.053_191_626_637_759,
        1.676_384_830_183_803_8,
        0.689_767_334_985_1,
        0.148_103_976_427_480_08,
        0.015_198_666_563_616_457,
        5.475_938_084_995_345e-4,
        1.050_750_071_644_416_9e-9,
    ],
);
const FURTHER: Ratio = (
    [
        6.657_904_643_501_103,
        5.463_784_911_164_114,
        1.784_826_539_917_291_3,
        0.296_560_571_828_504_87,
        0.026_532_189_526_576_124,
        0.001_242_660_947_388_078_4,
        2.711_555_568_743_487_6e-5,
        2.010_334_399_292_288_1e-7,
    ],
    [
        1.0,
        0.599_832_206_555_887_9,
        0.136_929_880_922_735_8,
        0.014_875_361_290_850_615,
        7.868_691_311_456_133e-4,
        1.846_318_317_510_054_8e-5,
        1.421_511_758_316_446e-7,
        2.044_263_103_389_939_8e-15,
    ],
);
