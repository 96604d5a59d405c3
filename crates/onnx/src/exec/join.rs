//! Nodes of 8-bit models that are one operator together.
//!
//! A file says step by step how a product of integers is made: numbers become integers, integers are multiplied, sums
//! become numbers, scales and a bias follow. Run so, each step writes its values down and reads them again, and the product
//! is the smallest part. Here such nodes are found and become one (`joined`):
//!
//! * `DynamicQuantizeLinear`, `MatMulInteger` or `ConvInteger`, `Cast`, `Mul` by both scales;
//! * `QuantizeLinear` and `DequantizeLinear` (QDQ) before a `MatMul`, `Gemm` or `Conv` of weights that are integers, which
//!   then multiplies integers, as ONNX Runtime does with such files;
//! * behind both, `Add` of a bias and `Relu`;
//! * `QuantizeLinear` and `DequantizeLinear` that are left over, one after the other.
//!
//! Only values that nobody else reads disappear, and only constants of the file are trusted to stay as they are. What does
//! not fit is left as the file has it.
//!
//! Not here: what the joined operators do (`joined`), making such files (`crate::quantize`).

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::flow::outer_names;
use super::joined::{BY_ROWS, CUT};
use super::rows::apart;
use crate::proto::{Attr, Elem, Graph, Node, Tensor};

/// The domain that joined nodes have in reports. Files that name it have no operators of it.
pub(super) const DOMAIN: &str = "slipway";

/// A graph's nodes; those that were joined are owned. Where the graph is a batch's (`is_whole`) and keeps rows apart, ranges
/// that decide at run time are those of rows. Also says whether it keeps them apart.
pub(super) fn joined(graph: &Graph, is_whole: bool) -> (Vec<Cow<'_, Node>>, bool) {
    let mut nodes = together(graph);
    let is_apart = is_whole && apart(graph, &nodes);
    if is_apart {
        for node in &mut nodes {
            if let Cow::Owned(node) = node {
                node.attrs.push((BY_ROWS.into(), Attr::Int(1)));
            }
        }
    }
    (nodes, is_apart)
}

/// Nodes of a graph whose nodes are not in order stay as they are, so that who compiles them finds what is wrong.
fn together(graph: &Graph) -> Vec<Cow<'_, Node>> {
    let Some(view) = View::of(graph) else { return graph.nodes.iter().map(Cow::Borrowed).collect() };
    let mut nodes: Vec<Option<Cow<'_, Node>>> =
        graph.nodes.iter().map(|node| Some(Cow::Borrowed(node))).collect();
    let mut loose = HashSet::new();
    for index in 0..graph.nodes.len() {
        let Some(found) = view.dynamic(index).or_else(|| view.by_ranges(index)) else { continue };
        found.chain.iter().for_each(|at| nodes[*at] = None);
        let last = found.chain.last().copied().unwrap_or(index);
        nodes[last] = Some(Cow::Owned(found.node));
        loose.extend(found.before);
    }
    sweep(graph, &mut nodes, &loose);
    pairs(&view, &mut nodes);
    nodes.into_iter().flatten().collect()
}

/// Drops those of the nodes before joined ones that nobody reads any more.
fn sweep(graph: &Graph, nodes: &mut [Option<Cow<'_, Node>>], loose: &HashSet<usize>) {
    let mut read: HashMap<String, usize> = HashMap::new();
    let kept = nodes.iter().flatten().flat_map(|node| reads(node));
    for name in kept.chain(graph.outputs.iter().map(|output| output.name.clone())) {
        *read.entry(name).or_default() += 1;
    }
    for at in (0..nodes.len()).rev().filter(|at| loose.contains(at)) {
        let is_read = |name: &String| read.get(name).is_some_and(|count| *count > 0);
        if nodes[at].as_ref().is_some_and(|node| node.outputs.iter().any(is_read)) {
            continue;
        }
        let Some(node) = nodes[at].take() else { continue };
        for name in reads(&node) {
            read.entry(name).and_modify(|count| *count -= 1);
        }
    }
}

/// Joins what becomes integers and numbers again right after.
fn pairs(view: &View<'_>, nodes: &mut [Option<Cow<'_, Node>>]) {
    for at in 0..nodes.len() {
        let Some(Cow::Borrowed(node)) = nodes[at] else { continue };
        let Some((first, [value, scale, zero])) = view.round_trip(node) else { continue };
        if view.only_reader(&view.graph.nodes[first].outputs[0]) == Some(at) {
            nodes[first] = None;
            let inputs = vec![value.clone(), scale.clone(), zero.clone()];
            nodes[at] = Some(Cow::Owned(Node { inputs, ..like(node, "RoundTrip") }));
        }
    }
}

/// The values that a node reads, those of the graphs in it included.
fn reads(node: &Node) -> Vec<String> {
    let mut names = node.inputs.clone();
    for (_, attr) in &node.attrs {
        if let Attr::Graph(inner) = attr {
            names.extend(outer_names(inner));
        }
    }
    names
}

/// A joined node in the place of another.
fn like(node: &Node, op: &str) -> Node {
    Node {
        name: node.name.clone(),
        op: op.into(),
        domain: DOMAIN.into(),
        inputs: Vec::new(),
        outputs: node.outputs.clone(),
        attrs: node.attrs.clone(),
    }
}

/// A node in the place of several.
struct Found {
    node: Node,
    /// The nodes that it replaces, in the file's order.
    chain: Vec<usize>,
    /// Nodes before them that others may read too.
    before: Vec<usize>,
}

/// The names of the inputs of a joined product or convolution, in their order; empty where there is none.
#[derive(Default)]
struct Parts {
    value: String,
    weights: String,
    weight_zeros: String,
    weight_scales: String,
    /// A bias in steps of both scales.
    whole_bias: String,
    bias: String,
    scale: String,
    zero: String,
}

impl Parts {
    fn inputs(self) -> Vec<String> {
        vec![
            self.value,
            self.weights,
            self.weight_zeros,
            self.weight_scales,
            self.whole_bias,
            self.bias,
            self.scale,
            self.zero,
        ]
    }
}

/// Who makes and reads what in a graph, whose values each have one maker before all their readers.
struct View<'g> {
    graph: &'g Graph,
    constants: HashMap<&'g str, &'g Tensor>,
    makers: HashMap<&'g str, usize>,
    /// `None` stands for the caller.
    readers: HashMap<String, Vec<Option<usize>>>,
}

/// The weights of an operator of integers.
#[derive(Clone, Copy)]
struct Weights<'g> {
    tensor: &'g Tensor,
    /// Columns of a product, channels of a convolution.
    columns: usize,
    is_conv: bool,
}

impl Weights<'_> {
    /// Whether a constant of `float` has one cell, or one for each column or channel, where these lie in the result.
    fn take(&self, tensor: &Tensor, one: bool) -> bool {
        let rest = if self.is_conv { self.tensor.dims.len() - 2 } else { 0 };
        let each = tensor.dims.first() == Some(&self.columns)
            && tensor.dims.len() == 1 + rest
            && tensor.dims[1..].iter().all(|size| *size == 1);
        tensor.elem == Elem::F32 && (each || (one && matches!(tensor.dims.as_slice(), [] | [1])))
    }
}

impl<'g> View<'g> {
    /// Nothing where nodes are not in order.
    fn of(graph: &'g Graph) -> Option<Self> {
        let mut readers: HashMap<String, Vec<Option<usize>>> = HashMap::new();
        let mut makers = HashMap::new();
        for (at, node) in graph.nodes.iter().enumerate() {
            reads(node).into_iter().for_each(|name| readers.entry(name).or_default().push(Some(at)));
            for name in node.outputs.iter().filter(|name| !name.is_empty()) {
                if readers.contains_key(name) || makers.insert(name.as_str(), at).is_some() {
                    return None;
                }
            }
        }
        for output in &graph.outputs {
            readers.entry(output.name.clone()).or_default().push(None);
        }
        let constants = graph.initializers.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
        Some(Self { graph, constants, makers, readers })
    }

    /// ONNX's own node that makes a value, where it is of an operator.
    fn maker(&self, name: &str, op: &str) -> Option<(usize, &'g Node)> {
        let at = *self.makers.get(name)?;
        let node = &self.graph.nodes[at];
        (node.op == op && node.domain.is_empty()).then_some((at, node))
    }

    fn only_reader(&self, name: &str) -> Option<usize> {
        match self.readers.get(name)?.as_slice() {
            [only] => *only,
            _ => None,
        }
    }

    /// ONNX's own node that alone reads a value, where it is of an operator; what it makes.
    fn reader(&self, name: &str, op: &str) -> Option<(usize, &'g Node, &'g String)> {
        let at = self.only_reader(name)?;
        let node = &self.graph.nodes[at];
        let [made] = node.outputs.as_slice() else { return None };
        (node.op == op && node.domain.is_empty()).then_some((at, node, made))
    }

    fn constant(&self, name: &str) -> Option<&'g Tensor> {
        self.constants.get(name).copied()
    }

    /// The constant of two inputs, whose other one is `name`.
    fn beside(&self, node: &'g Node, name: &str) -> Option<&'g Tensor> {
        other(node, name).and_then(|name| self.constant(name))
    }

    /// Weights of 8 bits and their zero points, which may be left out.
    fn weights(&self, node: &Node, names: [&str; 2], columns_at: usize) -> Option<Weights<'g>> {
        let tensor = self.constant(names[0])?;
        let is_conv = node.op.starts_with("Conv");
        let rank_fits = if is_conv { (3..=5).contains(&tensor.dims.len()) } else { tensor.dims.len() == 2 };
        let columns = *tensor.dims.get(columns_at)?;
        let zeros_fit = names[1].is_empty() || {
            let zeros = self.constant(names[1])?;
            zeros.elem == tensor.elem
                && (matches!(zeros.dims.as_slice(), [] | [1]) || zeros.dims == [columns])
        };
        let is_small = matches!(tensor.elem, Elem::U8 | Elem::I8);
        let fits = rank_fits && zeros_fit && is_small && !tensor.dims.contains(&0);
        fits.then_some(Weights { tensor, columns, is_conv })
    }

    /// What begins with a product of integers that are made by the range of a value.
    fn dynamic(&self, index: usize) -> Option<Found> {
        let node = &self.graph.nodes[index];
        if !node.domain.is_empty() || !matches!(node.op.as_str(), "MatMulInteger" | "ConvInteger") {
            return None;
        }
        let name = |at: usize| node.inputs.get(at).map_or("", String::as_str);
        let (small_at, small) = self.maker(name(0), "DynamicQuantizeLinear")?;
        let [integers, scale, zero] = small.outputs.as_slice() else { return None };
        if name(0) != integers || name(2) != zero {
            return None;
        }
        let weights = self.weights(node, [name(1), name(3)], usize::from(node.op == "MatMulInteger"))?;
        let (cast_at, cast, floats) = self.reader(node.outputs.first()?, "Cast")?;
        if !matches!(cast.attr("to"), Some(Attr::Int(1))) {
            return None;
        }
        let (scaled_at, scaled, made) = self.reader(floats, "Mul")?;
        let (both_at, both) = self.maker(other(scaled, floats)?, "Mul")?;
        let scales = self.beside(both, scale).filter(|scales| weights.take(scales, true))?;
        let parts = Parts {
            value: small.inputs.first()?.clone(),
            weights: name(1).into(),
            weight_zeros: name(3).into(),
            weight_scales: scales.name.clone(),
            ..Parts::default()
        };
        let chain = vec![index, cast_at, scaled_at];
        Some(self.with_rest(weights, (node, made), parts, chain, vec![small_at, both_at]))
    }

    /// A product of numbers that were integers, by weights that are integers.
    fn by_ranges(&self, index: usize) -> Option<Found> {
        let node = &self.graph.nodes[index];
        let has = |name: &str, number: f32| match node.attr(name) {
            None => true,
            Some(Attr::Float(value)) => *value == number,
            Some(_) => false,
        };
        let int = |node: &Node, name: &str, default: i64| match node.attr(name) {
            Some(Attr::Int(value)) => *value,
            _ => default,
        };
        let turned = node.op == "Gemm" && int(node, "transB", 0) != 0;
        let columns_at = match node.op.as_str() {
            "MatMul" | "Gemm" => usize::from(!turned),
            "Conv" => 0,
            _ => return None,
        };
        if !node.domain.is_empty() || int(node, "transA", 0) != 0 || !has("alpha", 1.0) || !has("beta", 1.0) {
            return None;
        }
        let (back_at, back) = self.maker(node.inputs.first()?, "DequantizeLinear")?;
        let (first_at, [value, scale, zero]) = self.round_trip(back)?;
        let (wide_at, wide) = self.maker(node.inputs.get(1)?, "DequantizeLinear")?;
        let name = |at: usize| wide.inputs.get(at).map_or("", String::as_str);
        let weights = self.weights(node, [name(0), name(2)], columns_at)?;
        let scales = self.constant(name(1)).filter(|scales| scales.elem == Elem::F32)?;
        let rank = weights.tensor.dims.len() as i64;
        let axis = int(wide, "axis", 1);
        let each = scales.dims == [weights.columns]
            && axis.rem_euclid(rank) == columns_at as i64
            && axis.abs() <= rank;
        if !(each || matches!(scales.dims.as_slice(), [] | [1])) || wide.attr("block_size").is_some() {
            return None;
        }
        let mut parts = Parts {
            value: value.clone(),
            weights: name(0).into(),
            weight_zeros: name(2).into(),
            weight_scales: scales.name.clone(),
            scale: scale.clone(),
            zero: zero.clone(),
            ..Parts::default()
        };
        let mut before = vec![first_at, back_at, wide_at];
        if let Some(bias) = node.inputs.get(2).filter(|bias| !bias.is_empty()) {
            before.extend(self.bias(bias, (scale, scales), weights.columns, &mut parts)?);
        }
        let [made] = node.outputs.as_slice() else { return None };
        Some(self.with_rest(weights, (node, made), parts, vec![index], before))
    }

    /// What a product or convolution and what follows the value that it made are together: a bias, and what cuts off below
    /// zero.
    fn with_rest(
        &self,
        weights: Weights<'_>,
        (first, mut made): (&'g Node, &'g String),
        mut parts: Parts,
        mut chain: Vec<usize>,
        before: Vec<usize>,
    ) -> Found {
        loop {
            if let Some((at, _, same)) = self.reader(made, "Identity") {
                made = same;
                chain.push(at);
            } else if parts.bias.is_empty()
                && let Some((at, add, sum)) = self.reader(made, "Add")
                && let Some(plus) = self.beside(add, made).filter(|plus| weights.take(plus, false))
            {
                (made, parts.bias) = (sum, plus.name.clone());
                chain.push(at);
            } else {
                break;
            }
        }
        let cut = self.reader(made, "Relu");
        if let Some((at, _, rest)) = cut {
            made = rest;
            chain.push(at);
        }
        let op = if weights.is_conv { "Conv" } else { "Product" };
        let mut node = Node { outputs: vec![made.clone()], inputs: parts.inputs(), ..like(first, op) };
        node.attrs.push((CUT.into(), Attr::Int(i64::from(cut.is_some()))));
        Found { node, chain, before }
    }

    /// A bias of numbers, or of integers in steps of both scales; the node before it.
    fn bias(
        &self,
        name: &str,
        (scale, scales): (&str, &Tensor),
        columns: usize,
        parts: &mut Parts,
    ) -> Option<Option<usize>> {
        let is_row = |dims: &[usize]| dims == [columns] || dims == [1, columns];
        if let Some(bias) = self.constant(name) {
            parts.bias = name.into();
            return (bias.elem == Elem::F32 && is_row(&bias.dims)).then_some(None);
        }
        let (at, wide) = self.maker(name, "DequantizeLinear")?;
        let whole = self.constant(wide.inputs.first()?)?;
        let steps = floats(self.constant(wide.inputs.get(1)?)?)?;
        let (scale, scales) = (floats(self.constant(scale)?)?, floats(scales)?);
        let one =
            |column: usize| scale.first().zip(scales.get(column % scales.len().max(1))).map(|(a, b)| a * b);
        let is_both = steps.len() == columns && (0..columns).all(|column| one(column) == Some(steps[column]));
        let has_zero = wide.inputs.get(2).is_some_and(|name| !name.is_empty());
        let fits = whole.elem == Elem::I32 && is_row(&whole.dims) && is_both && !has_zero;
        parts.whole_bias = whole.name.clone();
        fits.then_some(Some(at))
    }

    /// What a value was before it became integers and numbers again by one scale and one zero point of 8 bits, and these; the
    /// first of the two nodes.
    fn round_trip(&self, back: &'g Node) -> Option<(usize, [&'g String; 3])> {
        if back.op != "DequantizeLinear" || !back.domain.is_empty() {
            return None;
        }
        let (at, first) = self.maker(back.inputs.first()?, "QuantizeLinear")?;
        let ([value, scale, zero], [_, same @ ..]) = (first.inputs.as_slice(), back.inputs.as_slice()) else {
            return None;
        };
        let is_one = |tensor: &Tensor| matches!(tensor.dims.as_slice(), [] | [1]);
        let scales = self.constant(scale).filter(|scale| is_one(scale) && scale.elem == Elem::F32)?;
        let zeros =
            self.constant(zero).filter(|zero| is_one(zero) && matches!(zero.elem, Elem::U8 | Elem::I8))?;
        let usual = floats(scales)?.first().is_some_and(|scale| *scale > 0.0 && scale.is_finite());
        (same == [scale.clone(), zeros.name.clone()] && usual).then_some((at, [value, scale, zero]))
    }
}

/// The other one of two inputs.
fn other<'n>(node: &'n Node, name: &str) -> Option<&'n str> {
    match node.inputs.as_slice() {
        [first, second] if first == name => Some(second),
        [first, second] if second == name => Some(first),
        _ => None,
    }
}

fn floats(tensor: &Tensor) -> Option<Vec<f32>> {
    let value = super::Value::of_tensor(tensor).ok()?;
    value.to_f32s().ok().map(Cow::into_owned)
}
