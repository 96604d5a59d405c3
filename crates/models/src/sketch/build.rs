//! The words that estimators draw with.
//!
//! Not here: columns (`frame`), what an estimator's answers are called (`roles`).

use super::{
    Binary, Cells, Drawn, Fold, Input, Kind, Op, Output, Rounds, Sketch, Step, Trees, Unary, Wire, undrawn,
};

/// The most steps of a sketch: ensembles draw each member.
const STEPS_MAX: usize = 200_000;

impl Sketch {
    pub(crate) fn step(&mut self, op: Op, inputs: &[Wire]) -> Wire {
        self.steps.push(Step { op, inputs: inputs.to_vec() });
        Wire((self.steps.len() - 1) as u32)
    }

    /// Refuses what grows beyond reason.
    pub(crate) fn check(&self) -> Drawn<()> {
        let inner = |step: &Step| if let Op::Rounds(rounds) = &step.op { rounds.body.steps.len() } else { 0 };
        if self.steps.len() + self.steps.iter().map(inner).sum::<usize>() > STEPS_MAX {
            return undrawn(format!("a model of more than {STEPS_MAX} operations"));
        }
        Ok(())
    }

    pub(crate) fn numbers(&mut self, dims: &[usize], cells: impl Into<Vec<f64>>) -> Wire {
        let cells = cells.into();
        debug_assert_eq!(dims.iter().product::<usize>(), cells.len());
        self.step(Op::Constant(dims.to_vec(), Cells::Numbers(cells)), &[])
    }

    pub(crate) fn number(&mut self, cell: f64) -> Wire {
        self.numbers(&[], vec![cell])
    }

    /// One number for each column.
    pub(crate) fn row(&mut self, cells: &[f64]) -> Wire {
        self.numbers(&[cells.len()], cells.to_vec())
    }

    pub(crate) fn wholes(&mut self, cells: impl IntoIterator<Item = usize>) -> Wire {
        let cells: Vec<i64> = cells.into_iter().map(|cell| cell as i64).collect();
        self.step(Op::Constant(vec![cells.len()], Cells::Wholes(cells)), &[])
    }

    pub(crate) fn whole(&mut self, cell: i64) -> Wire {
        self.step(Op::Constant(Vec::new(), Cells::Wholes(vec![cell])), &[])
    }

    pub(crate) fn unary(&mut self, op: Unary, value: Wire) -> Wire {
        self.step(Op::Unary(op), &[value])
    }

    pub(crate) fn binary(&mut self, op: Binary, a: Wire, b: Wire) -> Wire {
        self.step(Op::Binary(op), &[a, b])
    }

    pub(crate) fn add(&mut self, a: Wire, b: Wire) -> Wire {
        self.binary(Binary::Add, a, b)
    }

    pub(crate) fn subtract(&mut self, a: Wire, b: Wire) -> Wire {
        self.binary(Binary::Subtract, a, b)
    }

    pub(crate) fn multiply(&mut self, a: Wire, b: Wire) -> Wire {
        self.binary(Binary::Multiply, a, b)
    }

    pub(crate) fn divide(&mut self, a: Wire, b: Wire) -> Wire {
        self.binary(Binary::Divide, a, b)
    }

    pub(crate) fn scaled(&mut self, value: Wire, by: f64) -> Wire {
        let by = self.number(by);
        self.multiply(value, by)
    }

    pub(crate) fn plus(&mut self, value: Wire, more: f64) -> Wire {
        let more = self.number(more);
        self.add(value, more)
    }

    /// `1 - value`.
    pub(crate) fn rest_of_one(&mut self, value: Wire) -> Wire {
        let one = self.number(1.0);
        self.subtract(one, value)
    }

    /// A comparison with a number, as truths.
    pub(crate) fn test(&mut self, op: Binary, value: Wire, with: f64) -> Wire {
        let with = self.number(with);
        self.binary(op, value, with)
    }

    /// A comparison with a number, as ones and zeros.
    pub(crate) fn flags(&mut self, op: Binary, value: Wire, with: f64) -> Wire {
        let truths = self.test(op, value, with);
        self.unary(Unary::Number, truths)
    }

    pub(crate) fn choose(&mut self, when: Wire, then: Wire, otherwise: Wire) -> Wire {
        self.step(Op::Choose, &[when, then, otherwise])
    }

    pub(crate) fn product(&mut self, a: Wire, b: Wire) -> Wire {
        self.binary(Binary::Product, a, b)
    }

    /// `value @ rows.T`, the rows being one after the other.
    pub(crate) fn product_with_rows(&mut self, value: Wire, data: &[f64], rows: usize) -> Wire {
        let cols = data.len().checked_div(rows).unwrap_or(0);
        let turned: Vec<f64> =
            (0..cols).flat_map(|col| (0..rows).map(move |row| data[row * cols + col])).collect();
        let turned = self.numbers(&[cols, rows], turned);
        self.product(value, turned)
    }

    /// The sum along an axis, which stays.
    pub(crate) fn sum(&mut self, value: Wire, axis: i64) -> Wire {
        self.step(Op::Fold(Fold::Sum, axis), &[value])
    }

    /// The greatest along an axis, which stays.
    pub(crate) fn greatest(&mut self, value: Wire, axis: i64) -> Wire {
        self.step(Op::Fold(Fold::Max, axis), &[value])
    }

    pub(crate) fn argmax(&mut self, value: Wire) -> Wire {
        self.step(Op::ArgMax, &[value])
    }

    pub(crate) fn softmax(&mut self, value: Wire) -> Wire {
        self.step(Op::Softmax, &[value])
    }

    pub(crate) fn shape(&mut self, value: Wire, dims: &[i64]) -> Wire {
        self.step(Op::Shape(dims.to_vec()), &[value])
    }

    /// Parts along an axis.
    pub(crate) fn pick(&mut self, value: Wire, places: Wire, axis: i64) -> Wire {
        self.step(Op::Pick(axis), &[value, places])
    }

    /// Some columns of a table.
    pub(crate) fn columns(&mut self, table: Wire, columns: &[usize]) -> Wire {
        let places = self.wholes(columns.iter().copied());
        self.pick(table, places, 1)
    }

    pub(crate) fn column(&mut self, table: Wire, column: usize) -> Wire {
        self.columns(table, &[column])
    }

    /// Tables side by side.
    pub(crate) fn join(&mut self, tables: &[Wire]) -> Wire {
        match tables {
            [only] => *only,
            several => self.step(Op::Join(1), several),
        }
    }

    /// Values up to `high`; what is missing stays.
    pub(crate) fn at_most(&mut self, value: Wire, high: f64) -> Wire {
        let (bound, above) = (self.number(high), self.test(Binary::Greater, value, high));
        self.choose(above, bound, value)
    }

    /// Values from `low` on; what is missing stays.
    pub(crate) fn at_least(&mut self, value: Wire, low: f64) -> Wire {
        let (bound, below) = (self.number(low), self.test(Binary::Less, value, low));
        self.choose(below, bound, value)
    }

    /// A score of one column as a row's place of its class: 1 above zero.
    pub(crate) fn second_above(&mut self, score: Wire, bound: f64) -> Wire {
        let above = self.test(Binary::Greater, score, bound);
        let picks = self.unary(Unary::Whole, above);
        self.shape(picks, &[-1])
    }

    /// `[1 - share, share]` of one column.
    pub(crate) fn pair(&mut self, share: Wire) -> Wire {
        let rest = self.rest_of_one(share);
        self.join(&[rest, share])
    }

    /// Shares of a sum; all equal where it is zero.
    pub(crate) fn shares(&mut self, value: Wire, count: usize) -> Wire {
        let total = self.sum(value, 1);
        let is_zero = self.test(Binary::Equal, total, 0.0);
        let (one, equal) = (self.number(1.0), self.number(1.0 / count as f64));
        let safe = self.choose(is_zero, one, total);
        let divided = self.divide(value, safe);
        self.choose(is_zero, equal, divided)
    }

    /// A one in the column of each place: `[rows, count]`.
    pub(crate) fn one_hot(&mut self, places: Wire, count: usize) -> Wire {
        let places = self.shape(places, &[-1, 1]);
        let all = self.wholes(0..count);
        let truths = self.binary(Binary::Equal, places, all);
        self.unary(Unary::Number, truths)
    }

    /// `ln(1 + x)` to the last bits also near zero (Kahan's correction).
    pub(crate) fn log_1p(&mut self, x: Wire) -> Wire {
        let u = self.plus(x, 1.0);
        let is_tiny = self.test(Binary::Equal, u, 1.0);
        let two = self.number(2.0);
        let safe = self.choose(is_tiny, two, u);
        let log = self.unary(Unary::Log, safe);
        let off = self.plus(safe, -1.0);
        let scaled = self.multiply(x, log);
        let corrected = self.divide(scaled, off);
        // Infinity over infinity is not a number, and the logarithm itself is right there.
        let is_huge = self.test(Binary::Greater, u, 1e300);
        let right = self.choose(is_huge, log, corrected);
        self.choose(is_tiny, x, right)
    }

    /// `e^x - 1` to the last bits also near zero (Kahan's correction).
    pub(crate) fn exp_m1(&mut self, x: Wire) -> Wire {
        let u = self.unary(Unary::Exp, x);
        let off = self.plus(u, -1.0);
        let size = self.unary(Unary::Absolute, x);
        // Far from zero the difference is right as it is.
        let is_near = self.test(Binary::Less, size, 0.5);
        let is_one = self.test(Binary::Equal, u, 1.0);
        let two = self.number(2.0);
        let safe = self.choose(is_one, two, u);
        let log = self.unary(Unary::Log, safe);
        let near = self.multiply(off, x);
        let near = self.divide(near, log);
        let near = self.choose(is_one, x, near);
        self.choose(is_near, near, off)
    }

    /// numpy's `interp` of one column over ascending places.
    pub(crate) fn interpolate(&mut self, x: Wire, places: &[f64], values: &[f64]) -> Wire {
        let last = places.len() - 1;
        let row = self.row(places);
        let reached = self.binary(Binary::AtLeast, x, row);
        let reached = self.unary(Unary::Number, reached);
        let above = self.sum(reached, 1);
        // Places of the ends of the piece; outside of all they are an end itself.
        let low = self.plus(above, -1.0);
        let low = self.at_least(low, 0.0);
        let high = self.at_most(above, last as f64);
        let (low, high) = (self.unary(Unary::Whole, low), self.unary(Unary::Whole, high));
        let (table, said) = (self.row(places), self.row(values));
        let (x0, x1) = (self.pick(table, low, 0), self.pick(table, high, 0));
        let (y0, y1) = (self.pick(said, low, 0), self.pick(said, high, 0));
        let width = self.subtract(x1, x0);
        let is_point = self.test(Binary::Equal, width, 0.0);
        let one = self.number(1.0);
        let safe = self.choose(is_point, one, width);
        let rise = self.subtract(y1, y0);
        let slope = self.divide(rise, safe);
        let run = self.subtract(x, x0);
        let run = self.multiply(slope, run);
        let between = self.add(run, y0);
        let (first, end) = (self.number(values[0]), self.number(values[last]));
        let is_below = self.test(Binary::Less, above, 0.5);
        let is_above = self.test(Binary::Greater, above, last as f64 + 0.5);
        let made = self.choose(is_below, first, between);
        self.choose(is_above, end, made)
    }

    /// The value after at most `most` rounds. A round is drawn from its inputs, the value first and then `given`; it gives
    /// the next value, of the same shape, and whether there is another round.
    pub(crate) fn rounds(
        &mut self,
        value: Wire,
        given: &[Wire],
        most: usize,
        round: impl FnOnce(&mut Self, Wire, &[Wire]) -> (Wire, Wire),
    ) -> Wire {
        let mut body = Self::default();
        let mut inputs = Vec::new();
        for at in 0..=given.len() {
            body.inputs.push(Input { name: format!("given-{at}"), kind: Kind::Number, width: 1 });
            inputs.push(body.step(Op::Input(at), &[]));
        }
        let (next, goes_on) = round(&mut body, inputs[0], &inputs[1..]);
        let output = |name: &str, kind, wire| Output { name: name.to_owned(), kind, row: Vec::new(), wire };
        body.outputs = vec![output("next", Kind::Number, next), output("goes_on", Kind::Truth, goes_on)];
        let all: Vec<Wire> = [value].iter().chain(given).copied().collect();
        self.step(Op::Rounds(Box::new(Rounds { most, body })), &all)
    }

    /// The sum of what trees say, by target.
    pub(crate) fn trees(&mut self, table: Wire, trees: Trees) -> Wire {
        self.step(Op::Trees(Box::new(trees)), &[table])
    }
}
