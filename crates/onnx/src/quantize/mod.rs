//! Models with weights of 8 bits: the matrix products and convolutions of a graph, rewritten.
//!
//! * [`Mode::Weights`]: weights lie in the file as integers and become floats at load; answers change by their rounding
//!   alone.
//! * [`Mode::Dynamic`]: also the values before an operator become integers, by the range that they have at run time.
//! * [`Mode::Static`]: the same by the range that they had on rows of data.
//!
//! Weights are rounded symmetrically with a scale for each column of a product and each channel of a convolution. Only
//! operators with constant weights are rewritten; trees and encoders have none. The forms are those of ONNX Runtime's
//! own quantizer, whose integer kernels they find.
//!
//! * `product` and `conv` say what of an operator can be rewritten, and to what.
//! * `making` is the graph while it is rewritten: names, constants, values that went through integers.
//! * `ranges` runs the model on data.
//!
//! Not here: measuring (`bin/slipway`).

mod conv;
mod making;
mod product;
mod ranges;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use models::LoadError;
use models::table::Table;

use crate::exec::value::Value;
use crate::proto::{Attr, Elem, Model, Node, Tensor, unsupported};
use crate::write::write;
use conv::Conv;
use making::Making;
use product::Product;

/// What becomes integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Weights in the file.
    Weights,
    /// Weights, and values by their range at run time.
    Dynamic,
    /// Weights, and values by their range on data.
    Static,
}

/// A model that was rewritten.
#[derive(Debug, Clone)]
pub struct Quantized {
    /// The file.
    pub bytes: Bytes,
    /// Nodes that were rewritten, with the shapes of their weights.
    pub changed: Vec<String>,
    /// Nodes that could have been and were not, with the reason.
    pub kept: Vec<String>,
}

type Result<T> = std::result::Result<T, LoadError>;

/// A node that can be rewritten.
enum Target {
    Product(Product),
    Conv(Conv),
}

/// Rewrites a model. `data` is needed for [`Mode::Static`] alone. A model without an operator that can be rewritten is
/// refused.
pub fn quantize(bytes: &Bytes, mode: Mode, data: Option<&Table>) -> Result<Quantized> {
    let model = Model::parse(bytes)?;
    let (targets, kept) = targets(&model);
    if targets.is_empty() {
        let why = if kept.is_empty() {
            "it has no matrix product and no convolution with constant weights (trees have none)".to_owned()
        } else {
            kept.join("; ")
        };
        return Err(unsupported(format!("quantizing this model: {why}")));
    }
    // The operators came with version 10 (13 for scales by column) of ONNX's own.
    let old = model.opsets.iter().find(|(domain, version)| domain.is_empty() && *version < 13);
    if let Some((_, version)) = old {
        return Err(unsupported(format!("quantizing a model of opset {version}; convert it to 13 or later")));
    }
    let mut making = Making::new(&model);
    match (mode, data) {
        (Mode::Static, Some(data)) => {
            let (read, made) = watched(&model, &targets);
            making.ranges = ranges::learn(bytes, &model, read.union(&made).cloned().collect(), data)?;
            making.made_whole = made;
        }
        (Mode::Static, None) => {
            return Err(unsupported("static quantization without data; give rows to learn ranges from"));
        }
        _ => {}
    }
    let mut changed = Vec::new();
    for (index, node) in model.graph.nodes.iter().enumerate() {
        let dims = match targets.get(&index) {
            None => {
                making.push(node.clone());
                continue;
            }
            Some(Target::Product(product)) => {
                product.rewrite(node, mode, &mut making);
                vec![product.rows, product.cols]
            }
            Some(Target::Conv(conv)) => {
                conv.rewrite(node, mode, &mut making);
                conv.dims.clone()
            }
        };
        changed.push(format!("{} {dims:?}", node.title()));
    }
    Ok(Quantized { bytes: write(&making.finish())?, changed, kept })
}

/// The nodes that can be rewritten, by their places, and why others cannot.
fn targets(model: &Model) -> (HashMap<usize, Target>, Vec<String>) {
    let (mut targets, mut kept) = (HashMap::new(), Vec::new());
    for (index, node) in model.graph.nodes.iter().enumerate() {
        if !node.domain.is_empty() {
            continue;
        }
        let found = match node.op.as_str() {
            "MatMul" | "Gemm" => Product::of(model, node).map(Target::Product),
            "Conv" => Conv::of(model, node).map(Target::Conv),
            _ => continue,
        };
        match found {
            Ok(target) => drop(targets.insert(index, target)),
            Err(why) => kept.push(format!("{}: {why}", node.title())),
        }
    }
    (targets, kept)
}

/// The values that become integers before a target reads them, and those that do right where they are made: what a
/// convolution makes, or, where nothing but a `Relu` or `Clip` reads that, what that makes. A runtime can then join the
/// three into one operator of integers, and no steps are spent on what the activation cuts off.
fn watched(model: &Model, targets: &HashMap<usize, Target>) -> (HashSet<String>, HashSet<String>) {
    let (mut read, mut made) = (HashSet::new(), HashSet::new());
    let readers = readers(model);
    for (index, target) in targets {
        let node = &model.graph.nodes[*index];
        read.insert(node.inputs[0].clone());
        if let Target::Conv(_) = target {
            let output = &node.outputs[0];
            let only = match readers.get(output.as_str()).map(Vec::as_slice) {
                Some([Some(reader)]) => Some(*reader),
                _ => None,
            };
            let activation = only.filter(|node| matches!(node.op.as_str(), "Relu" | "Clip"));
            made.insert(activation.map_or(output, |node| &node.outputs[0]).clone());
        }
    }
    (read, made)
}

/// Who reads each value; `None` stands for the caller and for graphs in attributes, which may read anything.
fn readers(model: &Model) -> HashMap<&str, Vec<Option<&Node>>> {
    let mut readers: HashMap<&str, Vec<Option<&Node>>> = HashMap::new();
    let hides = has_inner_graph(model);
    for node in &model.graph.nodes {
        node.inputs.iter().for_each(|name| readers.entry(name).or_default().push(Some(node)));
        if hides {
            node.outputs.iter().for_each(|name| readers.entry(name).or_default().push(None));
        }
    }
    model.graph.outputs.iter().for_each(|output| readers.entry(&output.name).or_default().push(None));
    readers
}

fn has_inner_graph(model: &Model) -> bool {
    model.graph.nodes.iter().any(|node| node.attrs.iter().any(|(_, attr)| matches!(attr, Attr::Graph(_))))
}

/// The constant that a node reads at a place.
fn constant<'m>(
    model: &'m Model,
    node: &Node,
    at: usize,
    what: &str,
) -> std::result::Result<&'m Tensor, String> {
    let name = node.inputs.get(at).ok_or_else(|| format!("it has no {what}"))?;
    let tensor = model.graph.initializers.iter().find(|tensor| tensor.name == *name);
    tensor.ok_or_else(|| format!("its {what} are not constant"))
}

/// The numbers of a constant, which have to be finite.
fn finite(tensor: &Tensor, what: &str) -> std::result::Result<Vec<f32>, String> {
    if !matches!(tensor.elem, Elem::F32 | Elem::F64) {
        return Err(format!("its {what} are {}", tensor.elem.name()));
    }
    let cells = Value::of_tensor(tensor).map_err(|error| error.to_string())?;
    let cells = cells.to_f32s()?.into_owned();
    if cells.iter().all(|cell| cell.is_finite()) {
        Ok(cells)
    } else {
        Err(format!("its {what} are not all finite"))
    }
}

/// Steps of a bias, at most: half of 32 bits, so that the sums on top of it do not wrap.
const BIAS_STEPS: f32 = (1 << 30) as f32;

/// The scale for weights beside a bias that is kept in steps of it times `step`: large enough that those are not too many.
/// Weights near zero beside a large bias lose steps; the sums do not.
fn scale_beside(size: f32, bias: f32, step: f32) -> f32 {
    match (scale(size), bias.abs() / step / BIAS_STEPS) {
        // No weights but a bias: its steps are as fine as they can be.
        (_, least) if size == 0.0 && least > 0.0 => least.max(f32::MIN_POSITIVE),
        (own, least) => own.max(least),
    }
}

/// The scale for weights whose greatest size is this: 127 steps on each side of zero.
fn scale(size: f32) -> f32 {
    // Zeros have no range; any scale says the same of them.
    if size > 0.0 { (size / 127.0).max(f32::MIN_POSITIVE) } else { 1.0 }
}

/// A weight in steps of its scale, of which 127 fit on each side.
fn steps(weight: f32, scale: f32) -> i8 {
    (weight / scale).round_ties_even().clamp(-127.0, 127.0) as i8
}
