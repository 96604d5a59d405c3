//! `MatMul` and `Gemm` with constants on the right.
//!
//! Not here: how values before them become integers (`making`).

use super::{Making, Mode, constant, finite, scale, steps};
use crate::proto::{Attr, Elem, Model, Node};

/// A product whose right side is constant: `[inputs, outputs]` after turning.
pub(super) struct Product {
    pub(super) rows: usize,
    pub(super) cols: usize,
    weights: Vec<f32>,
    is_double: bool,
    bias: Option<String>,
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
        Ok(Self { rows, cols, weights, is_double: tensor.elem == Elem::F64, bias })
    }

    pub(super) fn rewrite(&self, node: &Node, mode: Mode, making: &mut Making) {
        let (integers, scales) = self.rounded();
        let weights = making.signed("weights", &[self.rows, self.cols], &integers);
        let scales = making.floats("scales", &[self.cols], &scales);
        let value = &node.inputs[0];
        let single = if self.is_double { making.cast(value, Elem::F32) } else { value.clone() };
        let sums = making.name("product");
        if mode == Mode::Dynamic {
            let small = making.small(&single);
            let whole = making.name("whole");
            let zero = making.signed("zero", &[], &[0]);
            making.node(
                "MatMulInteger",
                &[&small.integers, &weights, &small.zero, &zero],
                &[&whole],
                Vec::new(),
            );
            let floats = making.cast(&whole, Elem::F32);
            let both = making.name("scale");
            making.node("Mul", &[&small.scale, &scales], &[&both], Vec::new());
            making.node("Mul", &[&floats, &both], &[&sums], Vec::new());
        } else {
            let zeros = making.signed("zeros", &[self.cols], &vec![0; self.cols]);
            let wide = making.widened(&[&weights, &scales, &zeros], 1);
            let left = making.read(&single, value, mode);
            making.node("MatMul", &[&left, &wide], &[&sums], Vec::new());
        }
        let sums = if self.is_double { making.cast(&sums, Elem::F64) } else { sums };
        let output = node.outputs[0].as_str();
        match &self.bias {
            Some(bias) => making.node("Add", &[&sums, bias], &[output], Vec::new()),
            None => making.node("Identity", &[&sums], &[output], Vec::new()),
        }
    }

    /// The weights as integers of 8 bits, and the scale of each column.
    fn rounded(&self) -> (Vec<i8>, Vec<f32>) {
        let mut sizes = vec![0.0_f32; self.cols];
        for row in self.weights.chunks_exact(self.cols.max(1)) {
            sizes.iter_mut().zip(row).for_each(|(size, weight)| *size = size.max(weight.abs()));
        }
        let scales: Vec<f32> = sizes.into_iter().map(scale).collect();
        let cells = self.weights.iter().enumerate();
        (cells.map(|(at, weight)| steps(*weight, scales[at % self.cols])).collect(), scales)
    }
}
