//! Models with weights of 8 bits: the matrix products of a graph, rewritten.
//!
//! * [`Mode::Weights`]: weights lie in the file as integers and become floats at load; answers change by their rounding
//!   alone.
//! * [`Mode::Dynamic`]: also the values before a product become integers, by the range that they have at run time.
//! * [`Mode::Static`]: the same by the range that they had on rows of data.
//!
//! Weights are rounded symmetrically with a scale for each column. Only products with a constant table are rewritten;
//! trees and encoders have none. The forms are those of ONNX Runtime's own quantizer, whose integer kernels they find.
//!
//! Not here: convolutions, measuring (`bin/slipway`).

use std::collections::HashMap;

use bytes::Bytes;
use models::table::Table;
use models::{Backend, LoadError};

use crate::engine::Onnx;
use crate::exec::Program;
use crate::exec::value::{Bounds, Value};
use crate::proto::{Attr, Data, Elem, Model, Node, Tensor, Type, ValueInfo, unsupported};
use crate::write::write;

/// Rows that ranges are learned from, at most.
const CALIBRATION_ROWS: usize = 1000;

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

/// Rewrites a model. `data` is needed for [`Mode::Static`] alone. A model without a product that can be rewritten is
/// refused.
pub fn quantize(bytes: &Bytes, mode: Mode, data: Option<&Table>) -> Result<Quantized> {
    let model = Model::parse(bytes)?;
    let mut making = Making { made: model.clone(), count: 0, changed: Vec::new(), kept: Vec::new() };
    let products = making.products(&model);
    if products.is_empty() {
        let why = if making.kept.is_empty() {
            "it has no matrix product with constant weights (trees have none)".to_owned()
        } else {
            making.kept.join("; ")
        };
        return Err(unsupported(format!("quantizing this model: {why}")));
    }
    let ranges = match (mode, data) {
        (Mode::Static, Some(data)) => ranges(bytes, &model, &products, data)?,
        (Mode::Static, None) => {
            return Err(unsupported("static quantization without data; give rows to learn ranges from"));
        }
        _ => HashMap::new(),
    };
    making.made.graph.nodes.clear();
    for (index, node) in model.graph.nodes.iter().enumerate() {
        match products.iter().find(|product| product.node == index) {
            Some(product) => making.rewrite(node, product, mode, &ranges),
            None => making.made.graph.nodes.push(node.clone()),
        }
    }
    making.drop_unused();
    // The operators came with version 10 (13 for scales by column) of ONNX's own.
    for (domain, version) in &making.made.opsets {
        if domain.is_empty() && *version < 13 {
            return Err(unsupported(format!(
                "quantizing a model of opset {version}; convert it to 13 or later"
            )));
        }
    }
    let bytes = write(&making.made)?;
    Ok(Quantized { bytes, changed: making.changed, kept: making.kept })
}

/// A product whose right side is constant: `[inputs, outputs]` after turning.
struct Product {
    node: usize,
    rows: usize,
    cols: usize,
    weights: Vec<f32>,
    is_double: bool,
    bias: Option<String>,
}

struct Making {
    made: Model,
    count: usize,
    changed: Vec<String>,
    kept: Vec<String>,
}

impl Making {
    fn products(&mut self, model: &Model) -> Vec<Product> {
        let mut found = Vec::new();
        for (index, node) in model.graph.nodes.iter().enumerate() {
            if !node.domain.is_empty() || !matches!(node.op.as_str(), "MatMul" | "Gemm") {
                continue;
            }
            match product(model, index, node) {
                Ok(product) => found.push(product),
                Err(why) => self.kept.push(format!("{}: {why}", node.title())),
            }
        }
        found
    }

    fn name(&mut self, what: &str) -> String {
        self.count += 1;
        format!("slipway_{what}_{}", self.count)
    }

    fn constant(&mut self, what: &str, elem: Elem, dims: &[usize], raw: Vec<u8>) -> String {
        let name = self.name(what);
        let data = Data::Raw(raw.into());
        self.made.graph.initializers.push(Tensor { name: name.clone(), elem, dims: dims.to_vec(), data });
        name
    }

    fn floats(&mut self, what: &str, dims: &[usize], values: &[f32]) -> String {
        let raw = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(what, Elem::F32, dims, raw)
    }

    fn node(&mut self, op: &str, inputs: &[&str], outputs: &[&str], attrs: Vec<(&str, Attr)>) {
        let name = self.name(op);
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        self.made.graph.nodes.push(Node {
            name,
            op: op.to_owned(),
            domain: String::new(),
            inputs: owned(inputs),
            outputs: owned(outputs),
            attrs: attrs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        });
    }

    /// A node of one input and one output; the output's name.
    fn cast(&mut self, value: &str, to: Elem) -> String {
        let out = self.name("cast");
        self.node("Cast", &[value], &[&out], vec![("to", Attr::Int(i64::from(to.0)))]);
        out
    }

    fn rewrite(&mut self, node: &Node, product: &Product, mode: Mode, ranges: &HashMap<String, (f32, f32)>) {
        let (integers, scales) = rounded(product);
        let dims = [product.rows, product.cols];
        let weights = self.constant("weights", Elem::I8, &dims, integers);
        let scales = self.floats("scales", &[product.cols], &scales);
        let zeros = self.constant("zeros", Elem::I8, &[product.cols], vec![0; product.cols]);
        let value = node.inputs[0].clone();
        let single = if product.is_double { self.cast(&value, Elem::F32) } else { value.clone() };
        let sums = self.name("product");
        match mode {
            Mode::Dynamic => {
                let (small, scale, zero) = (self.name("small"), self.name("scale"), self.name("zero"));
                self.node("DynamicQuantizeLinear", &[&single], &[&small, &scale, &zero], Vec::new());
                let whole = self.name("whole");
                let zero_weights = self.constant("zero", Elem::I8, &[], vec![0]);
                self.node("MatMulInteger", &[&small, &weights, &zero, &zero_weights], &[&whole], Vec::new());
                let floats = self.cast(&whole, Elem::F32);
                let both = self.name("scale");
                self.node("Mul", &[&scale, &scales], &[&both], Vec::new());
                self.node("Mul", &[&floats, &both], &[&sums], Vec::new());
            }
            Mode::Weights | Mode::Static => {
                let wide = self.name("weights");
                let inputs = [weights.as_str(), &scales, &zeros];
                self.node("DequantizeLinear", &inputs, &[&wide], vec![("axis", Attr::Int(1))]);
                let left = match mode {
                    Mode::Static => self.through_integers(&single, ranges.get(&value).copied()),
                    _ => single,
                };
                self.node("MatMul", &[&left, &wide], &[&sums], Vec::new());
            }
        }
        let sums = if product.is_double { self.cast(&sums, Elem::F64) } else { sums };
        let output = node.outputs[0].clone();
        match &product.bias {
            Some(bias) => self.node("Add", &[&sums, bias], &[&output], Vec::new()),
            None => self.node("Identity", &[&sums], &[&output], Vec::new()),
        }
        self.changed.push(format!("{} [{}, {}]", node.title(), product.rows, product.cols));
    }

    /// `QuantizeLinear` and back, with the range that was seen.
    fn through_integers(&mut self, value: &str, range: Option<(f32, f32)>) -> String {
        let (low, high) = range.unwrap_or((0.0, 0.0));
        let (low, high) = (low.min(0.0), high.max(0.0));
        let scale = if high > low { (high - low) / 255.0 } else { 1.0 };
        let zero = (-low / scale).round_ties_even().clamp(0.0, 255.0) as u8;
        let scale = self.floats("scale", &[], &[scale]);
        let zero = self.constant("zero", Elem::U8, &[], vec![zero]);
        let (small, wide) = (self.name("small"), self.name("wide"));
        self.node("QuantizeLinear", &[value, &scale, &zero], &[&small], Vec::new());
        self.node("DequantizeLinear", &[&small, &scale, &zero], &[&wide], Vec::new());
        wide
    }

    /// Drops constants that nothing reads any more.
    fn drop_unused(&mut self) {
        let graph = &mut self.made.graph;
        let mut read: std::collections::HashSet<&str> =
            graph.outputs.iter().map(|output| output.name.as_str()).collect();
        graph.nodes.iter().for_each(|node| read.extend(node.inputs.iter().map(String::as_str)));
        // Graphs in attributes may read anything of the outer one.
        let has_inner =
            graph.nodes.iter().any(|node| node.attrs.iter().any(|(_, attr)| matches!(attr, Attr::Graph(_))));
        if !has_inner {
            let keep: Vec<bool> =
                graph.initializers.iter().map(|tensor| read.contains(tensor.name.as_str())).collect();
            let mut keep = keep.into_iter();
            graph.initializers.retain(|_| keep.next().unwrap_or(true));
        }
    }
}

fn product(model: &Model, index: usize, node: &Node) -> std::result::Result<Product, String> {
    let weights = node.inputs.get(1).ok_or("it has one input")?;
    let tensor = model.graph.initializers.iter().find(|tensor| tensor.name == *weights);
    let tensor = tensor.ok_or("its weights are not constant")?;
    let &[height, width] = tensor.dims.as_slice() else { return Err("its weights are no table".into()) };
    let is_double = match tensor.elem {
        Elem::F32 => false,
        Elem::F64 => true,
        other => return Err(format!("its weights are {}", other.name())),
    };
    let int = |name: &str| match node.attr(name) {
        Some(Attr::Int(value)) => *value,
        _ => 0,
    };
    let is_one = |name: &str| matches!(node.attr(name), None | Some(Attr::Float(1.0)));
    if int("transA") != 0 || !is_one("alpha") || !is_one("beta") {
        return Err("a Gemm with factors or a turned left side".into());
    }
    let cells = Value::of_tensor(tensor).map_err(|error| error.to_string())?;
    let cells = cells.to_f32s()?.into_owned();
    if cells.iter().any(|cell| !cell.is_finite()) {
        return Err("its weights are not all finite".into());
    }
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
    Ok(Product { node: index, rows, cols, weights, is_double, bias })
}

/// The weights as integers of 8 bits, and the scale of each column.
fn rounded(product: &Product) -> (Vec<u8>, Vec<f32>) {
    let mut scales = vec![0.0_f32; product.cols];
    for row in product.weights.chunks_exact(product.cols) {
        scales.iter_mut().zip(row).for_each(|(scale, weight)| *scale = scale.max(weight.abs()));
    }
    // A column of zeros has no range; any scale says the same of it.
    scales.iter_mut().for_each(|scale| *scale = if *scale > 0.0 { *scale / 127.0 } else { 1.0 });
    let one = |(at, weight): (usize, &f32)| {
        let steps = (weight / scales[at % product.cols]).round_ties_even().clamp(-127.0, 127.0);
        (steps as i8) as u8
    };
    let integers = product.weights.iter().enumerate().map(one).collect();
    (integers, scales)
}

/// The least and the greatest that the left side of each product was on rows of data.
fn ranges(
    bytes: &Bytes,
    model: &Model,
    products: &[Product],
    data: &Table,
) -> Result<HashMap<String, (f32, f32)>> {
    let failed = |what: String| unsupported(format!("learning ranges from the data: {what}"));
    let mut watched = model.clone();
    let mut names: Vec<String> =
        products.iter().map(|p| model.graph.nodes[p.node].inputs[0].clone()).collect();
    names.sort();
    names.dedup();
    let seen =
        |name: &String| ValueInfo { name: name.clone(), ty: Type::Tensor { elem: Elem::F32, dims: None } };
    watched.graph.outputs = names.iter().map(seen).collect();
    let program = match Program::compile(&watched)? {
        Ok(program) => program,
        Err(title) => return Err(failed(format!("{title} is not evaluated by this build"))),
    };
    let plain = Onnx::load(bytes)?;
    let mut ranges: HashMap<String, (f32, f32)> = HashMap::new();
    for first in (0..data.rows().min(CALIBRATION_ROWS)).step_by(64) {
        let part = data.slice(first..(first + 64).min(CALIBRATION_ROWS));
        let inputs = part.inputs(plain.signature()).map_err(|error| failed(error.to_string()))?;
        let values = plain.values(part.rows(), &inputs).map_err(failed)?;
        for (name, value) in names.iter().zip(program.run(values, Bounds::default()).map_err(failed)?.values)
        {
            let cells = value.to_f32s().map_err(failed)?;
            let range = ranges.entry(name.clone()).or_insert((0.0, 0.0));
            for cell in cells.iter().filter(|cell| cell.is_finite()) {
                *range = (range.0.min(*cell), range.1.max(*cell));
            }
        }
    }
    Ok(ranges)
}

#[cfg(test)]
mod tests {
    use models::{Batch, Outputs};

    use super::*;
    use crate::proto::{Dim, Graph};

    /// Numbers between -1 and 1 that follow no pattern.
    fn numbers(count: usize, seed: u64) -> Vec<f32> {
        let mut state = seed;
        let next = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..count).map(next).collect()
    }

    fn tensor(name: &str, dims: &[usize], seed: u64) -> Tensor {
        let cells = numbers(dims.iter().product(), seed);
        Tensor { name: name.into(), elem: Elem::F32, dims: dims.to_vec(), data: Data::Floats(cells) }
    }

    fn info(name: &str, width: usize) -> ValueInfo {
        let dims = Some(vec![Dim::Named("rows".into()), Dim::Fixed(width)]);
        ValueInfo { name: name.into(), ty: Type::Tensor { elem: Elem::F32, dims } }
    }

    /// Two layers: a `MatMul`, and a `Gemm` of turned weights with a bias.
    fn network() -> Bytes {
        let node = |op: &str, inputs: &[&str], output: &str, attrs: &[(&str, Attr)]| Node {
            op: op.into(),
            inputs: inputs.iter().map(|name| (*name).to_owned()).collect(),
            outputs: vec![output.into()],
            attrs: attrs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
            ..Node::default()
        };
        let graph = Graph {
            name: "network".into(),
            nodes: vec![
                node("MatMul", &["X", "first"], "a", &[]),
                node("Relu", &["a"], "b", &[]),
                node("Gemm", &["b", "second", "bias"], "Y", &[("transB", Attr::Int(1))]),
            ],
            initializers: vec![
                tensor("first", &[48, 64], 1),
                tensor("second", &[8, 64], 2),
                tensor("bias", &[8], 3),
            ],
            inputs: vec![info("X", 48)],
            outputs: vec![info("Y", 8)],
        };
        let opsets = vec![(String::new(), 17)];
        write(&Model { ir_version: 8, opsets, graph, ..Model::default() }).expect("it has a form")
    }

    fn answers(bytes: &Bytes, data: &Table) -> Vec<f64> {
        let model = Onnx::load(bytes).expect("it loads");
        let inputs = data.inputs(model.signature()).expect("they fit");
        let mut outputs = Outputs::new();
        model.run(&Batch { rows: data.rows(), inputs: &inputs }, &mut outputs).expect("it answers");
        outputs.tensors()[0].to_f64s().expect("numbers").to_vec()
    }

    #[test]
    fn answers_stay_near_and_weights_shrink_in_every_mode() {
        let plain = network();
        let cells: Vec<f64> = numbers(48 * 20, 9).into_iter().map(f64::from).collect();
        let data = Table::of_rows(&cells, 48);
        let want = answers(&plain, &data);
        let scale = want.iter().map(|x| x.abs()).fold(0.0, f64::max);
        for (mode, near) in [(Mode::Weights, 0.01), (Mode::Dynamic, 0.03), (Mode::Static, 0.03)] {
            let made = quantize(&plain, mode, Some(&data)).expect("it can be");
            assert_eq!((made.changed.len(), made.kept.len()), (2, 0), "{mode:?}");
            assert!(made.bytes.len() * 2 < plain.len(), "{mode:?}: {} of {}", made.bytes.len(), plain.len());
            let got = answers(&made.bytes, &data);
            let off = want.iter().zip(&got).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max) / scale;
            assert!(off > 0.0 && off < near, "{mode:?}: {off}");
        }
    }

    #[test]
    fn a_row_answers_the_same_alone_and_among_others() {
        let made = quantize(&network(), Mode::Dynamic, None).expect("it can be");
        let cells: Vec<f64> = numbers(48 * 3, 5).into_iter().map(f64::from).collect();
        let all = answers(&made.bytes, &Table::of_rows(&cells, 48));
        let last = answers(&made.bytes, &Table::of_rows(&cells[96..], 48));
        assert_eq!(all[16..], last);
    }

    #[test]
    fn what_has_no_products_is_refused_with_the_reason() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        let forest = Bytes::from(std::fs::read(folder.join("forest.onnx")).expect("readable"));
        let error = quantize(&forest, Mode::Dynamic, None).expect_err("trees").to_string();
        assert!(error.contains("no matrix product"), "{error}");
        let error = quantize(&network(), Mode::Static, None).expect_err("no data").to_string();
        assert!(error.contains("without data"), "{error}");
    }
}
