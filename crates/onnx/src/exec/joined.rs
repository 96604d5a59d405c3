//! Operators that stand for several nodes of an 8-bit model (`join`): products and convolutions of integers from numbers
//! to numbers, and numbers that become integers for a moment.
//!
//! Weights are laid out at load; nothing of the file is read at run time but the value. What is computed is what the single
//! nodes say, bit by bit, where these are integers in between (`DynamicQuantizeLinear`), and what ONNX Runtime computes,
//! sums of integers, where the file has numbers in between (QDQ).
//!
//! Not here: which nodes are joined (`join`), the products (`gemm8`), windows (`conv_integer`).

use models::LoadError;

use super::attrs::Attrs;
use super::conv_integer::{Image, Sums};
use super::gemm8::{Left, Right, product};
use super::steps::{Grid, cut, scaled, scaled_line, scaled_plus, steps, there_and_back};
use super::value::{Budget, Failed, Value};
use super::{Op, Operator, input};

/// The attribute that says so of `Ends::by_rows`.
pub(super) const BY_ROWS: &str = "by_rows";

/// The attribute that says that a `Relu` follows.
pub(super) const CUT: &str = "cut";

/// Rows that become integers, are multiplied and become numbers before the next.
const BLOCK: usize = 96;

/// The operator of a joined node.
pub(super) fn operator(attrs: Attrs<'_>) -> Result<Option<Op>, LoadError> {
    Ok(Some(match attrs.node.op.as_str() {
        "Product" => Box::new(Product {
            turned: attrs.int_or("transB", 0)? != 0,
            right: None,
            ends: Ends::new(attrs)?,
        }),
        "Conv" => Box::new(Conv { sums: Sums::joined(attrs)?, ends: Ends::new(attrs)? }),
        "RoundTrip" => Box::new(RoundTrip(None)),
        _ => return Ok(None),
    }))
}

/// The constant at a place, which is there because `join` saw it.
fn constant<'v>(constants: &[Option<&'v Value>], at: usize) -> Result<&'v Value, Failed> {
    input(constants, at)
}

/// How numbers become integers: as the file says, or by their range.
fn grid(constants: &[Option<&Value>], at: usize) -> Result<Option<Grid>, Failed> {
    let Some(scale) = constants.get(at).copied().flatten() else { return Ok(None) };
    let zero = constant(constants, at + 1)?;
    let (scales, zeros) = (scale.to_f32s()?, zero.to_f64s()?);
    let (Some(scale), Some(number)) = (scales.first(), zeros.first()) else {
        return Err("no scale or no zero point".into());
    };
    Grid::new(zero.elem, *scale, *number).map(Some)
}

/// What stands before and behind sums of integers.
struct Ends {
    grid: Option<Grid>,
    /// Where a value's own range decides, that of each of its rows does.
    by_rows: bool,
    /// For each column.
    scales: Vec<f32>,
    whole_bias: Vec<i32>,
    bias: Vec<f32>,
    /// Whether numbers below zero become zero.
    cut: bool,
}

impl Ends {
    fn new(attrs: Attrs<'_>) -> Result<Self, LoadError> {
        let by_rows = attrs.int_or(BY_ROWS, 0)? != 0;
        let cut = attrs.int_or(CUT, 0)? != 0;
        Ok(Self { grid: None, by_rows, scales: Vec::new(), whole_bias: Vec::new(), bias: Vec::new(), cut })
    }

    fn read(&mut self, constants: &[Option<&Value>], columns: usize) -> Result<(), Failed> {
        self.grid = grid(constants, 6)?;
        let given = |at: usize| constants.get(at).copied().flatten();
        let scales = constant(constants, 3)?.to_f32s()?;
        self.scales = scales.iter().cycle().take(columns).copied().collect();
        let whole_bias = given(4).map(Value::to_ints).transpose()?.unwrap_or_default();
        self.whole_bias = whole_bias.iter().map(|step| *step as i32).collect();
        self.bias = given(5).map(Value::to_f32s).transpose()?.unwrap_or_default().into_owned();
        let fits = |count: usize| count == 0 || count == columns;
        if self.scales.len() != columns || !fits(self.whole_bias.len()) || !fits(self.bias.len()) {
            return Err(format!("scales or a bias for other than {columns} columns"));
        }
        Ok(())
    }

    /// How a value becomes integers: one grid for all of it, or one for each row.
    fn grids(&self, value: &Value, cells: &[f32]) -> Vec<Grid> {
        let rows = value.dims.first().copied().unwrap_or(1);
        match self.grid {
            Some(grid) => vec![grid],
            None if self.by_rows && !cells.is_empty() => {
                cells.chunks_exact(cells.len() / rows).map(Grid::of).collect()
            }
            None => vec![Grid::of(cells)],
        }
    }
}

/// `[…, k]` times weights `[k, m]`.
struct Product {
    turned: bool,
    right: Option<Right>,
    ends: Ends,
}

impl Operator for Product {
    fn prepare(&mut self, constants: &[Option<&Value>]) -> Result<(), Failed> {
        let weights = constant(constants, 1)?;
        let &[rows, columns] = weights.dims.as_slice() else {
            return Err("weights that are no table".into());
        };
        let (k, m) = if self.turned { (columns, rows) } else { (rows, columns) };
        let zeros = constants.get(2).copied().flatten().map(Value::to_ints).transpose()?;
        let zeros = zeros.unwrap_or((&[0]).into());
        let cells = weights.to_ints()?;
        let at = |depth: usize, column: usize| {
            cells[if self.turned { column * k + depth } else { depth * m + column }]
        };
        self.right = Some(Right::pack((weights.elem, &zeros), (k, m), at)?);
        self.ends.read(constants, m)
    }

    fn run(&self, inputs: &[Option<&Value>], budget: &mut Budget) -> Result<Vec<Value>, Failed> {
        let (x, right) = (input(inputs, 0)?, self.right.as_ref().ok_or("its weights are not laid out")?);
        let (k, m) = right.shape();
        let mut dims = x.dims.clone();
        if dims.pop() != Some(k) {
            return Err(format!("the shapes {:?} and {:?} do not multiply", x.dims, [k, m]));
        }
        dims.push(m);
        let count = budget.claim(&dims)?;
        budget.work(count, k)?;
        let cells = x.to_f32s()?;
        let block = BLOCK.min(count / m);
        budget.claim(&[block, k.div_ceil(8) + m])?;
        let grids = self.ends.grids(x, &cells);
        let each = (count / m / grids.len()).max(1);
        let zeros: Vec<u8> = grids.iter().map(Grid::zero_from_low).collect();
        let mut out = vec![0.0; count];
        let (mut left, mut sums, mut own) = (Left::default(), vec![0; block * m], Vec::new());
        for (index, (cells, out)) in cells.chunks(BLOCK * k).zip(out.chunks_mut(BLOCK * m)).enumerate() {
            let grid = |row: usize| (index * BLOCK + row) / each;
            left.resize(cells.len() / k, k);
            for (row, (slots, cells)) in left.rows().zip(cells.chunks_exact(k)).enumerate() {
                steps(grids[grid(row)], cells, slots);
            }
            let zeros = if grids.len() == 1 {
                &zeros
            } else {
                own.clear();
                own.extend((0..cells.len() / k).map(|row| zeros[grid(row)]));
                &own
            };
            let sums = &mut sums[..out.len()];
            product(sums, (&left, zeros), right, &self.ends.whole_bias)?;
            for (row, (sums, out)) in sums.chunks_exact(m).zip(out.chunks_exact_mut(m)).enumerate() {
                let step = grids[grid(row)].scale;
                if self.ends.bias.is_empty() {
                    scaled(sums, step, &self.ends.scales, out);
                } else {
                    scaled_plus(sums, step, &self.ends.scales, &self.ends.bias, out);
                }
                if self.ends.cut {
                    cut(out);
                }
            }
        }
        Ok(vec![Value::f32s(&dims, out)])
    }

    fn cost_ns(&self) -> u64 {
        let weights = self.right.as_ref().map_or(0, |right| right.shape().0 * right.shape().1);
        (weights as u64 / 32).max(100)
    }

    fn detail(&self) -> String {
        let (k, m) = self.right.as_ref().map_or((0, 0), Right::shape);
        format!("{} weights of 8 bits", k * m)
    }
}

/// A convolution.
struct Conv {
    sums: Sums,
    ends: Ends,
}

impl Operator for Conv {
    fn prepare(&mut self, constants: &[Option<&Value>]) -> Result<(), Failed> {
        self.sums.prepare(constants)?;
        let channels = constant(constants, 1)?.dims.first().copied().unwrap_or(0);
        self.ends.read(constants, channels)
    }

    fn run(&self, inputs: &[Option<&Value>], budget: &mut Budget) -> Result<Vec<Value>, Failed> {
        let x = input(inputs, 0)?;
        let plan = self.sums.plan(&x.dims)?;
        let cells = x.to_f32s()?;
        let grids = self.ends.grids(x, &cells);
        let count = budget.claim(&plan.dims(&x.dims, |axis| axis.out))?;
        budget.claim(&[cells.len().div_ceil(8)])?;
        let mut integers = vec![0; cells.len()];
        let each = (cells.len() / grids.len()).max(1);
        for ((grid, cells), slots) in grids.iter().zip(cells.chunks(each)).zip(integers.chunks_mut(each)) {
            steps(*grid, cells, slots);
        }
        let zeros: Vec<u8> = grids.iter().map(Grid::zero_from_low).collect();
        let image = Image { cells: &integers, zeros: &zeros };
        let mut out = vec![0.0; count];
        let (bias, scales) = (&self.ends.bias, &self.ends.scales);
        let row = (count / x.dims[0].max(1)).max(1);
        self.sums.run(&plan, image, None, &self.ends.whole_bias, budget, &mut |at, channel, sums| {
            let plus = bias.get(channel).copied().unwrap_or(0.0);
            let scale = grids[at / row % grids.len()].scale * scales[channel];
            let out = &mut out[at..at + sums.len()];
            scaled_line(sums, scale, plus, out);
            if self.ends.cut {
                cut(out);
            }
        })?;
        Ok(vec![Value::f32s(&plan.dims(&x.dims, |axis| axis.out), out)])
    }

    fn cost_ns(&self) -> u64 {
        self.sums.cost_ns()
    }

    fn detail(&self) -> String {
        self.sums.detail()
    }
}

/// Numbers that become integers and numbers again.
struct RoundTrip(Option<Grid>);

impl Operator for RoundTrip {
    fn prepare(&mut self, constants: &[Option<&Value>]) -> Result<(), Failed> {
        self.0 = grid(constants, 1)?;
        Ok(())
    }

    fn run(&self, inputs: &[Option<&Value>], budget: &mut Budget) -> Result<Vec<Value>, Failed> {
        let value = input(inputs, 0)?;
        let grid = self.0.ok_or("it has no scale")?;
        let mut out = vec![0.0; budget.claim(&value.dims)?];
        there_and_back(grid, &value.to_f32s()?, &mut out);
        Ok(vec![Value::f32s(&value.dims, out)])
    }
}
