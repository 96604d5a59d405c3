//! Gauss–Legendre quadrature on [0, 1]: with `n` points, exact for polynomials up to degree `2n - 1`.

/// Points in (0, 1) and their weights, which add up to one.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Quadrature {
    pub(super) points: Vec<f64>,
    pub(super) weights: Vec<f64>,
}

impl Quadrature {
    /// The rule with `n` points, `n` at least 1: Newton's method on the Legendre polynomial from Chebyshev's roots.
    pub(super) fn new(n: usize) -> Self {
        let (mut points, mut weights) = (vec![0.0; n], vec![0.0; n]);
        for index in 0..n {
            let mut x = (std::f64::consts::PI * (index as f64 + 0.75) / (n as f64 + 0.5)).cos();
            let mut slope = 1.0;
            // Newton doubles the digits with each step; it is at the last bit long before.
            for _ in 0..100 {
                let value;
                (value, slope) = legendre(n, x);
                let step = value / slope;
                x -= step;
                if step.abs() < 1e-16 {
                    break;
                }
            }
            points[index] = 0.5 * (1.0 - x);
            weights[index] = 1.0 / ((1.0 - x * x) * slope * slope);
        }
        Self { points, weights }
    }
}

/// The Legendre polynomial of degree `n` at `x` and its derivative there.
fn legendre(n: usize, x: f64) -> (f64, f64) {
    let (mut before, mut value) = (1.0, x);
    for k in 2..=n {
        let k = k as f64;
        (before, value) = (value, ((2.0 * k - 1.0) * x * value - (k - 1.0) * before) / k);
    }
    (value, n as f64 * (x * value - before) / (x * x - 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polynomials_up_to_twice_the_points_are_integrated_exactly() {
        for n in 1..=64 {
            let rule = Quadrature::new(n);
            for degree in [0, 1, n, 2 * n - 1] {
                let sum: f64 =
                    rule.points.iter().zip(&rule.weights).map(|(x, w)| w * x.powi(degree as i32)).sum();
                let exact = 1.0 / (degree as f64 + 1.0);
                assert!((sum - exact).abs() < 1e-13, "{n} points, degree {degree}: {sum} for {exact}");
            }
            assert!(rule.points.iter().all(|x| *x > 0.0 && *x < 1.0), "{n} points");
        }
    }
}
