//! `Conv` with constant weights, of one to three spatial dimensions.
//!
//! * Weights alone: `DequantizeLinear` of each channel before the same `Conv`.
//! * Dynamic: `DynamicQuantizeLinear`, `ConvInteger`, then the scales and the bias in `float`. Its weights are `uint8`
//!   with one zero point of 128: releases of ONNX Runtime that are in use have no kernel for `int8` there and refuse
//!   such a file (its issues 12558 and 15888), and none takes a zero point for each channel.
//! * Static: `QuantizeLinear` and `DequantizeLinear` around the same `Conv` (QDQ), not `QLinearConv`. ONNX Runtime
//!   itself joins these into `QLinearConv` when it loads the file (with a following `Relu` or `Clip`), so nothing is
//!   lost on a CPU; its other providers (TensorRT, OpenVINO, QNN, NNAPI) take only this form, and where one of them has
//!   no such kernel the `Conv` is still there to be run in `float`. The weights are `uint8` here too: on x86 without
//!   VNNI, ONNX Runtime's products of `uint8` and `int8` are summed by pairs in 16 bits, which cuts off large ones, and
//!   those of `uint8` and `uint8` are not. The bias is `int32` in steps of both scales, which the joining asks for.
//!
//! Not here: `ConvTranspose`, which ONNX Runtime has no integer kernel for.

use super::{Making, Mode, constant, finite, scale, scale_beside, steps};
use crate::proto::{Elem, Model, Node};

/// The zero point of unsigned weights.
const MIDDLE: u8 = 128;
/// A convolution whose weights and bias are constant.
pub(super) struct Conv {
    /// Output channels, channels of a group, kernel.
    pub(super) dims: Vec<usize>,
    weights: Vec<f32>,
    bias: Option<Vec<f32>>,
}

impl Conv {
    pub(super) fn of(model: &Model, node: &Node) -> Result<Self, String> {
        let tensor = constant(model, node, 1, "weights")?;
        let dims = tensor.dims.clone();
        if !(3..=5).contains(&dims.len()) || dims.contains(&0) {
            return Err(format!("its weights have the shape {dims:?}, not [out, in, kernel]"));
        }
        if tensor.elem != Elem::F32 {
            return Err(format!("its weights are {}", tensor.elem.name()));
        }
        let weights = finite(tensor, "weights")?;
        let has_bias = node.inputs.get(2).is_some_and(|name| !name.is_empty());
        let bias = if has_bias { Some(finite(constant(model, node, 2, "biases")?, "biases")?) } else { None };
        if let Some(bias) = &bias
            && bias.len() != dims[0]
        {
            return Err(format!("{} biases for {} channels", bias.len(), dims[0]));
        }
        Ok(Self { dims, weights, bias })
    }

    pub(super) fn rewrite(&self, node: &Node, mode: Mode, making: &mut Making) {
        match mode {
            Mode::Weights => self.weights_alone(node, making),
            Mode::Dynamic => self.dynamic(node, making),
            Mode::Static => self.by_ranges(node, making),
        }
    }

    fn weights_alone(&self, node: &Node, making: &mut Making) {
        let channels = self.dims[0];
        let scales = self.scales(None);
        let weights = making.signed("weights", &self.dims, &self.rounded(&scales));
        let scales = making.floats("scales", &[channels], &scales);
        let zeros = making.signed("zeros", &[channels], &vec![0; channels]);
        let mut same = node.clone();
        same.inputs[1] = making.widened(&[&weights, &scales, &zeros], 0);
        making.push(same);
    }

    fn dynamic(&self, node: &Node, making: &mut Making) {
        let channels = self.dims[0];
        let scales = self.scales(None);
        let weights = self.unsigned(making, &scales);
        // A number for each channel of the result, whose rows come first.
        let mut each = vec![1; self.dims.len() - 1];
        each[0] = channels;
        let scales = making.floats("scales", &each, &scales);
        let small = making.small(&node.inputs[0]);
        let zero = making.unsigned("zero", &[], vec![MIDDLE]);
        let whole = making.name("whole");
        let inputs = [small.integers.as_str(), &weights, &small.zero, &zero];
        making.node("ConvInteger", &inputs, &[&whole], node.attrs.clone());
        let floats = making.cast(&whole, Elem::F32);
        let both = making.name("scale");
        making.node("Mul", &[&small.scale, &scales], &[&both], Vec::new());
        let output = node.outputs[0].as_str();
        match &self.bias {
            None => making.node("Mul", &[&floats, &both], &[output], Vec::new()),
            Some(bias) => {
                let bias = making.floats("bias", &each, bias);
                let sums = making.name("sums");
                making.node("Mul", &[&floats, &both], &[&sums], Vec::new());
                making.node("Add", &[&sums, &bias], &[output], Vec::new());
            }
        }
    }

    fn by_ranges(&self, node: &Node, making: &mut Making) {
        let channels = self.dims[0];
        let value = &node.inputs[0];
        let (step, _) = making.grid(value);
        let scales = self.scales(Some(step));
        let mut same = node.clone();
        same.inputs[0] = making.read(value, value, Mode::Static);
        let weights = self.unsigned(making, &scales);
        let names = [
            weights,
            making.floats("scales", &[channels], &scales),
            making.unsigned("zeros", &[channels], vec![MIDDLE; channels]),
        ];
        same.inputs[1] = making.widened(&[&names[0], &names[1], &names[2]], 0);
        if let Some(bias) = &self.bias {
            same.inputs[2] = making.bias(bias, &scales, step);
        }
        making.push(same);
    }

    /// The scale of each output channel; `step` is that of the image where the bias is to be in steps of both.
    fn scales(&self, step: Option<f32>) -> Vec<f32> {
        let each = self.weights.chunks_exact(self.weights.len() / self.dims[0]);
        let sizes = each.map(|channel| channel.iter().fold(0.0_f32, |size, weight| size.max(weight.abs())));
        let one = |(channel, size)| match (step, &self.bias) {
            (Some(step), Some(bias)) => scale_beside(size, bias[channel], step),
            _ => scale(size),
        };
        sizes.enumerate().map(one).collect()
    }

    fn rounded(&self, scales: &[f32]) -> Vec<i8> {
        let inner = self.weights.len() / self.dims[0];
        self.weights.iter().enumerate().map(|(at, weight)| steps(*weight, scales[at / inner])).collect()
    }

    fn unsigned(&self, making: &mut Making, scales: &[f32]) -> String {
        let cells = self.rounded(scales).into_iter().map(|steps| MIDDLE.wrapping_add_signed(steps)).collect();
        making.unsigned("weights", &self.dims, cells)
    }
}
