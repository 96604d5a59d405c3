//! Probabilities of classes from decisions of pairs of them, as libsvm makes them: a sigmoid for each pair, coupled by its
//! iteration with its tolerance.
//!
//! The iteration ends long before its limit, so where it ends is a part of the answer: the drawing goes the same rounds.
//!
//! Not here: the decisions (`svm`).

use crate::sketch::{Binary, Sketch, Unary, Wire};

/// The least share of a pair, libsvm's.
const SHARE_MIN: f64 = 1e-7;
/// The least number of rounds after which the coupling ends, near its goal or not.
const ROUNDS: usize = 100;

/// How near its goal the coupling ends.
fn tolerance(k: usize) -> f64 {
    0.005 / k as f64
}

/// A and B of each pair's sigmoid, pairs in the order (0, 1), (0, 2) and so on.
pub(super) struct Sigmoids(pub(super) Vec<(f64, f64)>);

impl Sigmoids {
    /// The shares of `k` classes of one row, from the pairs' decisions.
    pub(super) fn shares(&self, k: usize, pairs: &[f64], out: &mut [f64]) {
        let mut r = vec![0.0; k * k];
        let mut pair = pairs.iter().zip(&self.0);
        for i in 0..k {
            for j in i + 1..k {
                let Some((sum, (a, b))) = pair.next() else { return };
                let share = sigmoid(*sum, *a, *b).clamp(SHARE_MIN, 1.0 - SHARE_MIN);
                r[i * k + j] = share;
                r[j * k + i] = 1.0 - share;
            }
        }
        // Two classes are coupled too, to the iteration's tolerance, as the library's copy of libsvm does.
        couple(k, &r, out);
    }

    /// Draws the shares of `k` classes from the pairs' decisions: `[rows, k]`.
    pub(super) fn draw(&self, sketch: &mut Sketch, k: usize, pairs: Wire) -> Wire {
        let (slopes, shifts): (Vec<f64>, Vec<f64>) = self.0.iter().copied().unzip();
        let (slopes, shifts) = (sketch.row(&slopes), sketch.row(&shifts));
        let scaled = sketch.multiply(pairs, slopes);
        let moved = sketch.add(scaled, shifts);
        let turned = sketch.unary(Unary::Negative, moved);
        let shares = sketch.unary(Unary::Sigmoid, turned);
        let shares = sketch.at_least(shares, SHARE_MIN);
        let shares = sketch.at_most(shares, 1.0 - SHARE_MIN);
        let rests = sketch.rest_of_one(shares);
        // Each class's share against each other, `[rows, k * k]`, zero against itself.
        let first = sketch.column(shares, 0);
        let zero = sketch.scaled(first, 0.0);
        let all = sketch.join(&[shares, rests, zero]);
        let count = self.0.len();
        let mut places = vec![2 * count; k * k];
        let mut pair = 0;
        for i in 0..k {
            for j in i + 1..k {
                (places[i * k + j], places[j * k + i]) = (pair, count + pair);
                pair += 1;
            }
        }
        let transposed: Vec<usize> = (0..k * k).map(|at| places[at % k * k + at / k]).collect();
        let (r, t) = (sketch.columns(all, &places), sketch.columns(all, &transposed));
        draw_coupled(sketch, k, r, t)
    }
}

fn sigmoid(sum: f64, a: f64, b: f64) -> f64 {
    let x = sum * a + b;
    if x >= 0.0 { (-x).exp() / (1.0 + (-x).exp()) } else { 1.0 / (1.0 + x.exp()) }
}

/// Second method of Wu, Lin and Weng (2004): libsvm's coupling of pairwise probabilities.
fn couple(k: usize, r: &[f64], p: &mut [f64]) {
    let mut q = vec![0.0; k * k];
    for t in 0..k {
        p[t] = 1.0 / k as f64;
        for j in (0..k).filter(|j| *j != t) {
            q[t * k + t] += r[j * k + t] * r[j * k + t];
            q[t * k + j] = -r[j * k + t] * r[t * k + j];
        }
    }
    let tolerance = tolerance(k);
    let mut qp = vec![0.0; k];
    for _ in 0..k.max(ROUNDS) {
        for t in 0..k {
            qp[t] = (0..k).map(|j| q[t * k + j] * p[j]).sum();
        }
        let mut pqp: f64 = p.iter().zip(&qp).map(|(p, qp)| p * qp).sum();
        if qp.iter().all(|qp| (qp - pqp).abs() < tolerance) {
            break;
        }
        for t in 0..k {
            let step = (pqp - qp[t]) / q[t * k + t];
            p[t] += step;
            pqp = (pqp + step * (step * q[t * k + t] + 2.0 * qp[t])) / (1.0 + step) / (1.0 + step);
            for j in 0..k {
                qp[j] = (qp[j] + step * q[t * k + j]) / (1.0 + step);
                p[j] /= 1.0 + step;
            }
        }
    }
}

/// Draws the coupling of `r`, `[rows, k * k]`, whose transposed is `t`. A row that is near its goal stays as it is while others go on.
fn draw_coupled(sketch: &mut Sketch, k: usize, r: Wire, t: Wire) -> Wire {
    let (rows, square) = (-1, k as i64);
    let diagonal: Vec<f64> = (0..k * k).map(|at| f64::from(u8::from(at / k == at % k))).collect();
    let on = sketch.numbers(&[k, k], diagonal);
    let products = sketch.multiply(r, t);
    let products = sketch.shape(products, &[rows, square, square]);
    let off = sketch.unary(Unary::Negative, products);
    // On the diagonal the squares of the others' shares; `r` has zeros there.
    let squares = sketch.multiply(t, t);
    let squares = sketch.shape(squares, &[rows, square, square]);
    let sums = sketch.sum(squares, 2);
    let spread = sketch.multiply(sums, on);
    let q = sketch.add(off, spread);
    let flat = sketch.shape(sums, &[rows, square]);
    let first = sketch.column(r, 0);
    let zero = sketch.scaled(first, 0.0);
    let equal = sketch.row(&vec![1.0 / k as f64; k]);
    let start = sketch.add(zero, equal);
    sketch
        .rounds(start, &[q, flat], k.max(ROUNDS), |body, p, given| draw_round(body, k, p, given[0], given[1]))
}

/// Draws a round of the coupling from the shares, `q` and its diagonal; the next shares, and whether a row is off its goal.
fn draw_round(sketch: &mut Sketch, k: usize, p: Wire, q: Wire, diagonal: Wire) -> (Wire, Wire) {
    let deep = sketch.shape(p, &[-1, 1, k as i64]);
    let products = sketch.multiply(q, deep);
    let sums = sketch.sum(products, 2);
    let mut qp = sketch.shape(sums, &[-1, k as i64]);
    let products = sketch.multiply(p, qp);
    let mut pqp = sketch.sum(products, 1);
    let off = sketch.subtract(qp, pqp);
    let off = sketch.unary(Unary::Absolute, off);
    let off = sketch.greatest(off, 1);
    let near = sketch.test(Binary::Less, off, tolerance(k));
    let goes_on = sketch.unary(Unary::Not, near);
    let mut next = p;
    for class in 0..k {
        let (own_qp, own_q) = (sketch.column(qp, class), sketch.column(diagonal, class));
        let above = sketch.subtract(pqp, own_qp);
        let step = sketch.divide(above, own_q);
        let scale = sketch.plus(step, 1.0);
        let one: Vec<f64> = (0..k).map(|at| f64::from(u8::from(at == class))).collect();
        let one = sketch.row(&one);
        let more = sketch.multiply(step, one);
        let moved = sketch.add(next, more);
        next = sketch.divide(moved, scale);
        let (grown, doubled) = (sketch.multiply(step, own_q), sketch.scaled(own_qp, 2.0));
        let inner = sketch.add(grown, doubled);
        let inner = sketch.multiply(step, inner);
        let sum = sketch.add(pqp, inner);
        let sum = sketch.divide(sum, scale);
        pqp = sketch.divide(sum, scale);
        let place = sketch.wholes([class]);
        let row = sketch.pick(q, place, 1);
        let row = sketch.shape(row, &[-1, k as i64]);
        let more = sketch.multiply(step, row);
        let moved = sketch.add(qp, more);
        qp = sketch.divide(moved, scale);
    }
    let next = sketch.choose(goes_on, next, p);
    let count = sketch.unary(Unary::Number, goes_on);
    let count = sketch.sum(count, 0);
    (next, sketch.test(Binary::Greater, count, 0.5))
}
