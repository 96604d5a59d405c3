//! Support vector machines with kernels, as libsvm evaluates them.
//!
//! Several classes are decided by votes of pairs; their probabilities are made of the pairs' (`coupling`).
//!
//! Not here: `LinearSVC` (`linear`), models trained on sparse data.

use super::attrs::{Attrs, Matrix};
use super::coupling::Sigmoids;
use super::labels::Labels;
use super::linear::dot;
use super::{Classify, Evaluated, Read, Regress, Role, Rows, argmax, check_finite};
use crate::error::Result;
use crate::sketch::{Binary, Classes, Drawn, Frame, Sketch, Unary, Wire};

#[derive(Clone, Copy)]
enum Kernel {
    Linear,
    Polynomial { degree: i32 },
    Radial,
    Sigmoid,
}

struct Machine {
    kernel: Kernel,
    gamma: f64,
    coef0: f64,
    vectors: Matrix,
    /// `classes - 1` rows (one for regression) of weights of the vectors.
    weights: Matrix,
    intercept: Vec<f64>,
}

impl Machine {
    fn read(attrs: &Attrs<'_>) -> Result<Self> {
        if attrs.truth_or("_sparse", false) {
            return Err(attrs.unsupported("support vectors from sparse data"));
        }
        let kernel = match attrs.opt("kernel").and_then(|kernel| kernel.text()) {
            Some("linear") => Kernel::Linear,
            Some("poly") => {
                Kernel::Polynomial { degree: i32::try_from(attrs.int("degree")?).unwrap_or(i32::MAX) }
            }
            Some("rbf") => Kernel::Radial,
            Some("sigmoid") => Kernel::Sigmoid,
            _ => return Err(attrs.unsupported("a kernel of its own")),
        };
        let made = Self {
            kernel,
            gamma: attrs.float("_gamma")?,
            coef0: attrs.float("coef0")?,
            vectors: attrs.matrix("support_vectors_")?,
            weights: attrs.matrix("_dual_coef_")?,
            intercept: attrs.floats("_intercept_")?,
        };
        if made.vectors.cols != attrs.features()? || made.weights.cols != made.vectors.rows {
            return Err(attrs.error("support vectors and their weights do not fit together"));
        }
        Ok(made)
    }

    fn kernels(&self, row: &[f64], out: &mut Vec<f64>) {
        out.clear();
        out.extend((0..self.vectors.rows).map(|index| {
            let vector = self.vectors.row(index);
            match self.kernel {
                Kernel::Linear => dot(row, vector),
                Kernel::Polynomial { degree } => (self.gamma * dot(row, vector) + self.coef0).powi(degree),
                Kernel::Radial => {
                    let square: f64 = row.iter().zip(vector).map(|(x, y)| (x - y) * (x - y)).sum();
                    (-self.gamma * square).exp()
                }
                Kernel::Sigmoid => (self.gamma * dot(row, vector) + self.coef0).tanh(),
            }
        }));
    }

    fn cost(&self) -> u64 {
        (self.vectors.data.len() + self.vectors.rows * 10) as u64
    }

    fn detail(&self) -> String {
        format!("{} support vectors of {} columns", self.vectors.rows, self.vectors.cols)
    }

    /// Draws the kernel of each row with each vector: `[rows, vectors]`.
    fn draw_kernels(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Wire> {
        let table = rows.table(sketch)?;
        let count = self.vectors.rows;
        if let Kernel::Radial = self.kernel {
            let deep = sketch.shape(table, &[-1, 1, self.vectors.cols as i64]);
            let vectors = sketch.numbers(&[count, self.vectors.cols], self.vectors.data.clone());
            let off = sketch.subtract(deep, vectors);
            let squares = sketch.multiply(off, off);
            let sums = sketch.sum(squares, 2);
            let sums = sketch.shape(sums, &[-1, count as i64]);
            let scaled = sketch.scaled(sums, -self.gamma);
            return Ok(sketch.unary(Unary::Exp, scaled));
        }
        let dots = sketch.product_with_rows(table, &self.vectors.data, count);
        if let Kernel::Linear = self.kernel {
            return Ok(dots);
        }
        let scaled = sketch.scaled(dots, self.gamma);
        let moved = sketch.plus(scaled, self.coef0);
        Ok(match self.kernel {
            Kernel::Polynomial { degree } => {
                let degree = sketch.number(f64::from(degree));
                sketch.binary(Binary::Power, moved, degree)
            }
            _ => sketch.unary(Unary::Tanh, moved),
        })
    }
}

/// One sum: regression, or in- and outliers by its sign.
struct Single {
    machine: Machine,
    is_sign: bool,
}

impl Single {
    fn sums(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        check_finite(rows, false)?;
        let mut kernels = Vec::new();
        for (row, slot) in rows.iter().zip(out) {
            self.machine.kernels(row, &mut kernels);
            *slot = dot(&kernels, self.machine.weights.row(0)) + self.machine.intercept[0];
        }
        Ok(())
    }

    fn draw_sums(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Wire> {
        let kernels = self.machine.draw_kernels(sketch, rows)?;
        let sums = sketch.product_with_rows(kernels, self.machine.weights.row(0), 1);
        Ok(sketch.plus(sums, self.machine.intercept[0]))
    }
}

impl Regress for Single {
    fn targets(&self) -> usize {
        1
    }

    fn predict(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        self.sums(rows, out)?;
        if self.is_sign {
            out.iter_mut().for_each(|sum| *sum = if *sum > 0.0 { 1.0 } else { -1.0 });
        }
        Ok(())
    }

    fn has_decisions(&self) -> bool {
        self.is_sign
    }

    fn decisions(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        self.sums(rows, out)
    }

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Wire> {
        let sums = self.draw_sums(sketch, rows)?;
        if !self.is_sign {
            return Ok(sums);
        }
        let above = sketch.test(Binary::Greater, sums, 0.0);
        let (inside, outside) = (sketch.number(1.0), sketch.number(-1.0));
        Ok(sketch.choose(above, inside, outside))
    }

    fn draw_decisions(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Wire> {
        self.draw_sums(sketch, rows)
    }
}

struct Pairs {
    machine: Machine,
    classes: usize,
    /// Where each class's vectors begin; one more at the end.
    starts: Vec<usize>,
    /// Empty without probabilities.
    sigmoids: Sigmoids,
    break_ties: bool,
    one_vs_one: bool,
}

impl Pairs {
    /// Calls `visit` with each row's index and its pairs' decisions in libsvm's order and sign.
    fn each(&self, rows: Rows<'_>, mut visit: impl FnMut(usize, &[f64])) -> Evaluated {
        check_finite(rows, false)?;
        let (mut kernels, mut pairs) = (Vec::new(), Vec::new());
        for (index, row) in rows.iter().enumerate() {
            self.machine.kernels(row, &mut kernels);
            pairs.clear();
            for i in 0..self.classes {
                for j in i + 1..self.classes {
                    let (of_i, of_j) =
                        (self.starts[i]..self.starts[i + 1], self.starts[j]..self.starts[j + 1]);
                    let sum = dot(&kernels[of_i.clone()], &self.machine.weights.row(j - 1)[of_i])
                        + dot(&kernels[of_j.clone()], &self.machine.weights.row(i)[of_j]);
                    pairs.push(sum + self.machine.intercept[pairs.len()]);
                }
            }
            visit(index, &pairs);
        }
        Ok(())
    }

    fn votes(&self, pairs: &[f64], votes: &mut [f64]) {
        votes.fill(0.0);
        let mut pair = pairs.iter();
        for i in 0..self.classes {
            for j in i + 1..self.classes {
                let first_wins = pair.next().is_some_and(|sum| *sum > 0.0);
                votes[if first_wins { i } else { j }] += 1.0;
            }
        }
    }

    /// The library's one-vs-rest form: votes, and confidences squeezed so that they only break ties.
    fn one_vs_rest(&self, pairs: &[f64], out: &mut [f64]) {
        let mut confidence = vec![0.0; self.classes];
        out.fill(0.0);
        let mut pair = pairs.iter();
        for i in 0..self.classes {
            for j in i + 1..self.classes {
                let sum = pair.next().copied().unwrap_or_default();
                confidence[i] += sum;
                confidence[j] -= sum;
                out[if sum < 0.0 { j } else { i }] += 1.0;
            }
        }
        for (slot, sum) in out.iter_mut().zip(confidence) {
            *slot += sum / (3.0 * (sum.abs() + 1.0));
        }
    }

    /// Draws the decisions of pairs: sums of kernels with the weights of the two classes' vectors.
    fn draw_pairs(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Wire> {
        let kernels = self.machine.draw_kernels(sketch, rows)?;
        let count = self.machine.vectors.rows;
        let mut weights = Vec::new();
        let mut pairs = 0;
        for i in 0..self.classes {
            for j in i + 1..self.classes {
                let mut row = vec![0.0; count];
                let (of_i, of_j) = (self.starts[i]..self.starts[i + 1], self.starts[j]..self.starts[j + 1]);
                row[of_i.clone()].copy_from_slice(&self.machine.weights.row(j - 1)[of_i]);
                row[of_j.clone()].copy_from_slice(&self.machine.weights.row(i)[of_j]);
                weights.extend(row);
                pairs += 1;
            }
        }
        let sums = sketch.product_with_rows(kernels, &weights, pairs);
        let intercept = sketch.row(&self.machine.intercept[..pairs]);
        Ok(sketch.add(sums, intercept))
    }

    /// Draws votes by class: `first` says which pairs' first class wins.
    fn draw_votes(&self, sketch: &mut Sketch, first: Wire) -> Wire {
        let first = sketch.unary(Unary::Number, first);
        let second = sketch.rest_of_one(first);
        let (for_first, for_second) = self.sides();
        let pairs = for_first.len() / self.classes;
        let (a, b) = (
            sketch.numbers(&[pairs, self.classes], for_first),
            sketch.numbers(&[pairs, self.classes], for_second),
        );
        let (a, b) = (sketch.product(first, a), sketch.product(second, b));
        sketch.add(a, b)
    }

    /// For each pair, a one at its first class, and at its second.
    fn sides(&self) -> (Vec<f64>, Vec<f64>) {
        let (mut first, mut second) = (Vec::new(), Vec::new());
        let one = |at: usize| (0..self.classes).map(move |class| f64::from(u8::from(class == at)));
        for i in 0..self.classes {
            for j in i + 1..self.classes {
                first.extend(one(i));
                second.extend(one(j));
            }
        }
        (first, second)
    }

    fn draw_one_vs_rest(&self, sketch: &mut Sketch, pairs: Wire) -> Wire {
        // Here a sum of zero is the first class's.
        let first = sketch.test(Binary::AtLeast, pairs, 0.0);
        let votes = self.draw_votes(sketch, first);
        let (first, second) = self.sides();
        let signs: Vec<f64> = first.iter().zip(&second).map(|(a, b)| a - b).collect();
        let signs = sketch.numbers(&[first.len() / self.classes, self.classes], signs);
        let sums = sketch.product(pairs, signs);
        let size = sketch.unary(Unary::Absolute, sums);
        let size = sketch.plus(size, 1.0);
        let size = sketch.scaled(size, 3.0);
        let squeezed = sketch.divide(sums, size);
        sketch.add(votes, squeezed)
    }
}

impl Classify for Pairs {
    fn classes(&self) -> usize {
        self.classes
    }

    fn pick(&self, rows: Rows<'_>, picks: &mut [u32]) -> Evaluated {
        let mut scores = vec![0.0; self.classes];
        self.each(rows, |row, pairs| {
            if self.break_ties && self.classes > 2 {
                self.one_vs_rest(pairs, &mut scores);
            } else {
                self.votes(pairs, &mut scores);
            }
            picks[row] = argmax(&scores);
        })
    }

    fn has_probabilities(&self) -> bool {
        !self.sigmoids.0.is_empty()
    }

    fn probabilities(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        let k = self.classes;
        self.each(rows, |row, pairs| self.sigmoids.shares(k, pairs, &mut out[row * k..(row + 1) * k]))
    }

    fn decisions_width(&self) -> usize {
        match self.classes {
            2 => 1,
            classes if self.one_vs_one => classes * (classes - 1) / 2,
            classes => classes,
        }
    }

    fn decisions(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        let width = self.decisions_width();
        self.each(rows, |row, pairs| {
            let out = &mut out[row * width..(row + 1) * width];
            if self.classes == 2 {
                out[0] = -pairs[0];
            } else if self.one_vs_one {
                out.copy_from_slice(pairs);
            } else {
                self.one_vs_rest(pairs, out);
            }
        })
    }

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Classes> {
        let pairs = self.draw_pairs(sketch, rows)?;
        let scores = if self.break_ties && self.classes > 2 {
            self.draw_one_vs_rest(sketch, pairs)
        } else {
            let first = sketch.test(Binary::Greater, pairs, 0.0);
            self.draw_votes(sketch, first)
        };
        let picks = sketch.argmax(scores);
        let decisions = match self.classes {
            2 => sketch.unary(Unary::Negative, pairs),
            _ if self.one_vs_one => pairs,
            _ => self.draw_one_vs_rest(sketch, pairs),
        };
        let shares = self.has_probabilities().then(|| self.sigmoids.draw(sketch, self.classes, pairs));
        Ok(Classes { picks, shares, decisions: Some((decisions, self.decisions_width())) })
    }
}

pub(super) fn classifier(attrs: &Attrs<'_>) -> Result<Read> {
    let labels = Labels::read(attrs)?;
    let machine = Machine::read(attrs)?;
    let classes = labels.len();
    let counts = attrs.floats("_n_support")?;
    let mut starts = vec![0];
    for count in &counts {
        starts.push(starts[starts.len() - 1] + *count as usize);
    }
    let pairs = classes * classes.saturating_sub(1) / 2;
    let sigmoids = |name: &str| attrs.floats(name).unwrap_or_default();
    let (a, b) = (sigmoids("_probA"), sigmoids("_probB"));
    let with_probabilities = attrs.truth_or("probability", false) && a.len() == pairs && b.len() == pairs;
    let fits = classes >= 2
        && counts.len() == classes
        && starts[classes] == machine.vectors.rows
        && machine.weights.rows == classes - 1
        && machine.intercept.len() == pairs;
    if !fits {
        return Err(attrs.error("classes, support vectors and weights do not fit together"));
    }
    let (detail, cost) = (machine.detail(), machine.cost());
    let model = Pairs {
        machine,
        classes,
        starts,
        sigmoids: Sigmoids(if with_probabilities { a.into_iter().zip(b).collect() } else { Vec::new() }),
        break_ties: attrs.truth_or("break_ties", false),
        one_vs_one: attrs.opt("decision_function_shape").and_then(|shape| shape.text()) == Some("ovo"),
    };
    Ok(Read::new(Role::Classifier(Box::new(model), labels), detail, cost))
}

fn single(attrs: &Attrs<'_>, is_sign: bool) -> Result<(Box<Single>, String, u64)> {
    let machine = Machine::read(attrs)?;
    if machine.weights.rows != 1 || machine.intercept.len() != 1 {
        return Err(attrs.error("it has more than one sum"));
    }
    let (detail, cost) = (machine.detail(), machine.cost());
    Ok((Box::new(Single { machine, is_sign }), detail, cost))
}

pub(super) fn regressor(attrs: &Attrs<'_>) -> Result<Read> {
    let (model, detail, cost) = single(attrs, false)?;
    Ok(Read::new(Role::Regressor(model), detail, cost))
}

pub(super) fn one_class(attrs: &Attrs<'_>) -> Result<Read> {
    let (model, detail, cost) = single(attrs, true)?;
    Ok(Read::new(Role::Assigner(model), detail, cost))
}
