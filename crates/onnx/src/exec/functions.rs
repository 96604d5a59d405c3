//! The exponential function of `float` and its relatives, many at once.
//!
//! Polynomials without branches, so that a compiler makes vectors of them. Their factors are fits of least relative error
//! to the functions in `double`, within 5e-9; what they are off by is what `float` rounds, a few units of the last place.
//!
//! Not here: probabilities of tree ensembles and linear models (`post`), which are as ONNX Runtime has them.
#![allow(unsafe_code)] // See `widest`.

use super::widest::widest;

/// A function of many numbers.
pub(super) type Whole = fn(&[f32]) -> Vec<f32>;

/// `sum` of a polynomial whose first factor is that of the highest power.
#[inline(always)]
fn polynomial<const N: usize>(x: f32, factors: [f32; N]) -> f32 {
    let mut sum = factors[0];
    for factor in &factors[1..] {
        sum = sum * x + factor;
    }
    sum
}

/// `e` to a power.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    // Adding and taking away this number rounds to a whole one, whose bits are then its last ones.
    const LARGE: f32 = (3 << 22) as f32;
    // Beyond these the result is infinite and 0; comparisons keep what is no number.
    let x = if x > 89.0 { 89.0 } else { x };
    let x = if x < -104.0 { -104.0 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + LARGE;
    let whole = shifted - LARGE;
    // The logarithm of two in two parts, the first with so few bits that its products are exact.
    let rest = (x - whole * 0.693_359_4) + whole * 2.121_944_4e-4;
    let factors = [0.001_395_049_2, 0.008_368_89, 0.041_666_206, 0.166_665_18, 0.5];
    let value = 1.0 + (rest + rest * rest * polynomial(rest, factors));
    // Two to the power in two steps, as one of them may be no normal number.
    let power = shifted.to_bits().wrapping_sub(LARGE.to_bits()).cast_signed();
    let two_to = |power: i32| f32::from_bits(power.wrapping_add(127).cast_unsigned() << 23);
    value * two_to(power >> 1) * two_to(power - (power >> 1))
}

/// `1 / (1 + exp(-x))`.
#[inline(always)]
pub(super) fn logistic(x: f32) -> f32 {
    let v = 1.0 / (1.0 + exp(-x.abs()));
    if x < 0.0 { 1.0 - v } else { v }
}

#[inline(always)]
pub(super) fn tanh(x: f32) -> f32 {
    let (size, square) = (x.abs(), x * x);
    let factors = [-0.005_716_591_6, 0.020_650_2, -0.053_743_385, 0.133_314_91, -0.333_332_84];
    let near = size + size * (square * polynomial(square, factors));
    let far = 1.0 - 2.0 / (exp(2.0 * size) + 1.0);
    (if size < 0.625 { near } else { far }).copysign(x)
}

/// The error function.
#[inline(always)]
pub(super) fn erf(x: f32) -> f32 {
    let (size, square) = (x.abs(), x * x);
    let factors = [
        8.333_747e-5,
        -8.134_076_5e-4,
        0.005_200_269,
        -0.026_859_09,
        0.112_836_9,
        -0.376_126_32,
        0.128_379_17,
    ];
    let near = size + size * polynomial(square, factors);
    // The logarithm of what is left to one; nothing is from 4 on.
    let capped = if size > 4.0 { 4.0 } else { size };
    let factors = [
        1.152_227_7e-5,
        -3.256_525_7e-4,
        0.003_653_763_6,
        -0.023_785_345,
        0.106_263_146,
        0.635_135_9,
        1.128_652_2,
    ];
    let far = 1.0 - exp(-capped * polynomial(capped, factors));
    (if size < 0.92 { near } else { far }).copysign(x)
}

/// In place of a copy: collecting would leave the function that is compiled for this CPU.
#[inline(always)]
fn each(cells: &[f32], of: impl Fn(f32) -> f32) -> Vec<f32> {
    let mut all = cells.to_vec();
    for x in &mut all {
        *x = of(*x);
    }
    all
}

widest! {
    fn exps(cells: &[f32]) -> Vec<f32> {
        each(cells, exp)
    }
}

widest! {
    fn logistics(cells: &[f32]) -> Vec<f32> {
        each(cells, logistic)
    }
}

widest! {
    fn tanhs(cells: &[f32]) -> Vec<f32> {
        each(cells, tanh)
    }
}

widest! {
    fn erfs(cells: &[f32]) -> Vec<f32> {
        each(cells, erf)
    }
}

widest! {
    fn swishes(cells: &[f32], alpha: f32) -> Vec<f32> {
        each(cells, |x| x * logistic(alpha * x))
    }
}

widest! {
    fn gelus(cells: &[f32]) -> Vec<f32> {
        each(cells, |x| 0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2)))
    }
}

widest! {
    /// By the hyperbolic tangent.
    fn gelus_near(cells: &[f32]) -> Vec<f32> {
        // The root of two over pi.
        let inner = |x: f32| 0.797_884_6 * (x + 0.044_715 * x * x * x);
        each(cells, |x| 0.5 * x * (1.0 + tanh(inner(x))))
    }
}

widest! {
    /// Softmax of each row of so many cells, in place; the logarithms of it where `log` says so.
    fn softmax(cells: &mut [f32], size: usize, log: bool) {
        const LANES: usize = 16;
        for row in cells.chunks_exact_mut(size) {
            let mut most = [f32::NEG_INFINITY; LANES];
            let (parts, rest) = row.as_chunks::<LANES>();
            let greater = |most: &mut f32, x: &f32| *most = if *x > *most { *x } else { *most };
            parts.iter().for_each(|part| most.iter_mut().zip(part).for_each(|(most, x)| greater(most, x)));
            most.iter_mut().zip(rest).for_each(|(most, x)| greater(most, x));
            let most = most.iter().fold(f32::NEG_INFINITY, |a, b| if *b > a { *b } else { a });
            let mut sums = [0.0; LANES];
            if log {
                let (parts, rest) = row.as_chunks::<LANES>();
                for part in parts {
                    sums.iter_mut().zip(part).for_each(|(sum, x)| *sum += exp(x - most));
                }
                sums.iter_mut().zip(rest).for_each(|(sum, x)| *sum += exp(x - most));
                let sum = sums.iter().sum::<f32>().ln();
                row.iter_mut().for_each(|x| *x = *x - most - sum);
            } else {
                row.iter_mut().for_each(|x| *x = exp(*x - most));
                let (parts, rest) = row.as_chunks::<LANES>();
                parts.iter().for_each(|part| sums.iter_mut().zip(part).for_each(|(sum, x)| *sum += x));
                sums.iter_mut().zip(rest).for_each(|(sum, x)| *sum += x);
                let sum = sums.iter().sum::<f32>();
                row.iter_mut().for_each(|x| *x /= sum);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of both signs from very small to very large, and those at the borders of the pieces.
    fn numbers() -> impl Iterator<Item = f32> {
        let near = (-20_000..20_000).map(|at| at as f32 / 171.3);
        let small = (0..200).map(|at| 2.0_f32.powi(-at));
        let borders = [0.0, 0.625, 0.92, 4.0, 87.3, 88.72, 88.73, 89.0, 103.9, 104.0, 1e10, f32::INFINITY];
        let both = small.chain(borders).flat_map(|x| [x, -x]);
        near.chain(both)
    }

    /// Units of the last place that a number is off.
    fn units(got: f32, want: f64) -> f64 {
        let nearest = want as f32;
        if got == nearest {
            return 0.0;
        }
        let unit = f64::from(
            (nearest.abs().max(f32::MIN_POSITIVE)).next_up() - nearest.abs().max(f32::MIN_POSITIVE),
        );
        (f64::from(got) - want).abs() / unit
    }

    #[test]
    fn functions_are_those_of_double_within_units_of_the_last_place() {
        for x in numbers() {
            let wide = f64::from(x);
            assert!(units(exp(x), wide.exp()) <= 2.0, "exp({x}) = {}", exp(x));
            assert!(units(tanh(x), wide.tanh()) <= 2.0, "tanh({x}) = {}", tanh(x));
            let want = 1.0 / (1.0 + (-wide).exp());
            assert!((f64::from(logistic(x)) - want).abs() <= 1.2e-7, "logistic({x}) = {}", logistic(x));
        }
        assert_eq!((exp(0.0), exp(-200.0), exp(200.0)), (1.0, 0.0, f32::INFINITY));
        for of in [exp, tanh, logistic, erf] {
            assert!(of(f32::NAN).is_nan());
        }
        assert!(tanh(-0.0).is_sign_negative() && erf(-0.0).is_sign_negative());
    }

    #[test]
    fn the_error_function_is_that_of_tables_and_an_integral() {
        let table = [
            (1e-9, 1.128_379_2e-9),
            (0.1, 0.112_462_92),
            (0.5, 0.520_499_9),
            (1.0, 0.842_700_8),
            (1.5, 0.966_105_16),
            (1.999, 0.995_301_6),
            (2.001, 0.995_342_9),
            (2.5, 0.999_593),
            (3.0, 0.999_977_9),
            (10.0, 1.0),
        ];
        for (x, y) in table {
            assert!((erf(x) - y).abs() <= 1.2e-7 * y, "erf({x}) = {}", erf(x));
            assert_eq!(erf(-x), -erf(x));
        }
        // The integral in `double` by steps of a thousandth, each by Simpson's rule.
        let mut want = 0.0;
        for at in 0..4_000 {
            let bell = |x: f64| 2.0 / std::f64::consts::PI.sqrt() * (-x * x).exp();
            let (from, step) = (f64::from(at) / 1e3, 1e-3);
            let x = from as f32;
            assert!(
                (f64::from(erf(x)) - want - bell(from) * (f64::from(x) - from)).abs() <= 1.5e-7,
                "erf({x}) = {}",
                erf(x)
            );
            want += step / 6.0 * (bell(from) + 4.0 * bell(from + step / 2.0) + bell(from + step));
        }
    }

    #[test]
    fn many_at_once_have_the_bits_of_each_alone() {
        let cells: Vec<f32> = numbers().collect();
        let both = |many: Whole, one: fn(f32) -> f32| {
            for (got, x) in many(&cells).iter().zip(&cells) {
                assert_eq!(got.to_bits(), one(*x).to_bits(), "{x}");
            }
        };
        both(exps, exp);
        both(tanhs, tanh);
        both(logistics, logistic);
        both(erfs, erf);
    }

    #[test]
    fn shares_of_a_row_are_exponentials_over_their_sum() {
        for size in [1, 3, 16, 50] {
            let cells: Vec<f32> = (0..2 * size).map(|at| (at * 37 % 23) as f32 / 3.0 - 90.0).collect();
            let (mut shares, mut logs) = (cells.clone(), cells.clone());
            softmax(&mut shares, size, false);
            softmax(&mut logs, size, true);
            for (row, (shares, logs)) in cells.chunks(size).zip(shares.chunks(size).zip(logs.chunks(size))) {
                let sum: f64 = row.iter().map(|x| f64::from(*x).exp()).sum();
                for (x, (share, log)) in row.iter().zip(shares.iter().zip(logs)) {
                    let want = f64::from(*x).exp() / sum;
                    assert!((f64::from(*share) / want - 1.0).abs() < 1e-6, "{share} for {want}");
                    assert!((f64::from(*log) - want.ln()).abs() < 1e-5, "{log} for {}", want.ln());
                }
            }
        }
        let mut lost = [1.0, f32::NAN, 2.0];
        softmax(&mut lost, 3, false);
        assert!(lost.iter().all(|x| x.is_nan()));
    }
}
