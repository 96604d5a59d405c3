//! `MatMul` and `Gemm` with constants on the right.
//!
//! A bias is added in `float`, but for [`Mode::Static`] and a constant of one row, which stays in the `Gemm`, as `int32`:
//! ONNX Runtime makes a `MatMul` and an `Add` of floats into a `Gemm` of floats before it looks for integers, and then finds
//! none.
//!
//! Not here: how values before them become integers (`making`).

use super::{Making, Mode, constant, finite, scale, scale_beside, steps};
use crate::proto::{Attr, Elem, Model, Node};

/// A product whose right side is constant: `[inputs, outputs]` after turning.
pub(super) struct Product {
    pub(super) rows: usize,
    pub(super) cols: usize,
    weights: Vec<f32>,
    is_double: bool,
    bias: Option<String>,
    /// The bias, where it is a constant for each column.
    columns: Option<Vec<f32>>,
}

impl Product {
    pub(super) fn of(model: &Model, node: &Node) -> Result<Self, String> {
        let tensor = constant(model, node, 1, "weights")?;
        let &[height, width] = tensor.dims.as_slice() else { return Err("its weights are no table".into()) };
        let int = |name: &str| match node.attr(name) {
            Some(Attr::Int(value)) => *value,
            _ => 0,
        };
        let is_one = |name: &str| matches!(node.attr(name), None | Some(Attr::Float(1.0)));
        if int("transA") != 0 || !is_one("alpha") || !is_one("beta") {
            return Err("a Gemm with factors or a turned left side".into());
        }
        let cells = finite(tensor, "weights")?;
        let turned = node.op == "Gemm" && int("transB") != 0;
        let (rows, cols) = if turned { (width, height) } else { (height, width) };
        let weights = if turned {
            (0..rows)
                .flat_map(|row| (0..cols).map(move |col| (row, col)))
                .map(|(row, col)| cells[col * rows + row])
                .collect()
        } else {
            cells
        };
        let bias = node.inputs.get(2).filter(|bias| !bias.is_empty()).cloned();
        let columns = constant(model, node, 2, "biases")
            .ok()
            .filter(|bias| matches!(bias.dims.as_slice(), [width] | [1, width] if *width == cols));
        let columns = columns.and_then(|bias| finite(bias, "biases").ok());
        Ok(Self { rows, cols, weights, is_double: tensor.elem == Elem::F64, bias, columns })
    }

    pub(super) fn rewrite(&self, node: &Node, mode: Mode, making: &mut Making) {
        let value = &node.inputs[0];
        let (step, _) = making.grid(value);
        let inner_bias = self.columns.as_deref().filter(|_| mode == Mode::Static);
        let scales = self.scales(inner_bias.map(|bias| (bias, step)));
        let integers: Vec<i8> = self
            .weights
            .iter()
            .enumerate()
            .map(|(at, weight)| steps(*weight, scales[at % self.cols]))
            .collect();
        let weights = making.signed("weights", &[self.rows, self.cols], &integers);
        let names = (weights, making.floats("scales", &[self.cols], &scales));
        let single = if self.is_double { making.cast(value, Elem::F32) } else { value.clone() };
        let sums = making.name("product");
        if mode == Mode::Dynamic {
            dynamic(&single, (&names.0, &names.1), &sums, making);
        } else {
            let zeros = making.signed("zeros", &[self.cols], &vec![0; self.cols]);
            let wide = making.widened(&[&names.0, &names.1, &zeros], 1);
            let left = making.read(&single, value, mode);
            match inner_bias {
                None => making.node("MatMul", &[&left, &wide], &[&sums], Vec::new()),
                Some(bias) => {
                    let bias = making.bias(bias, &scales, step);
                    making.node("Gemm", &[&left, &wide, &bias], &[&sums], Vec::new());
                }
            }
        }
        let sums = if self.is_double { making.cast(&sums, Elem::F64) } else { sums };
        let output = node.outputs[0].as_str();
        match self.bias.as_ref().filter(|_| inner_bias.is_none()) {
            Some(bias) => making.node("Add", &[&sums, bias], &[output], Vec::new()),
            None => making.node("Identity", &[&sums], &[output], Vec::new()),
        }
    }

    /// The scale of each column; beside a bias in steps of it and of the values' scale, where there is one.
    fn scales(&self, bias: Option<(&[f32], f32)>) -> Vec<f32> {
        let mut sizes = vec![0.0_f32; self.cols];
        for row in self.weights.chunks_exact(self.cols.max(1)) {
            sizes.iter_mut().zip(row).for_each(|(size, weight)| *size = size.max(weight.abs()));
        }
        let one = |(column, size)| match bias {
            Some((bias, step)) => scale_beside(size, bias[column], step),
            None => scale(size),
        };
        sizes.into_iter().enumerate().map(one).collect()
    }
}

/// The product of a value that becomes integers at run time, and weights with their scales.
fn dynamic(value: &str, (weights, scales): (&str, &str), sums: &str, making: &mut Making) {
    let small = making.small(value);
    let whole = making.name("whole");
    let zero = making.signed("zero", &[], &[0]);
    making.node("MatMulInteger", &[&small.integers, weights, &small.zero, &zero], &[&whole], Vec::new());
    let floats = making.cast(&whole, Elem::F32);
    let both = making.name("scale");
    making.node("Mul", &[&small.scale, scales], &[&both], Vec::new());
    making.node("Mul", &[&floats, &both], &[sums], Vec::new());
}
