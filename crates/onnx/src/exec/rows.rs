//! Whether a graph keeps the rows of a batch apart, whatever their numbers.
//!
//! Where it does, values of a batch are those of its rows one after the other: the range of a value can be taken row by row
//! (`joined`), and a batch can go through in parts that stay in the caches (`engine`). Proved by a list of operators and how
//! they must be used; a graph with any other is taken for one that may mix rows.
//!
//! Not here: what the engine does about the others (`engine`).

use std::borrow::{Borrow, Cow};
use std::collections::HashMap;

use super::value::Value;
use crate::proto::{Attr, Graph, Node, Tensor, Type};

/// Functions of each cell alone.
const CELLS: &[&str] = &[
    "Abs",
    "Cast",
    "Ceil",
    "Celu",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "LeakyRelu",
    "Log",
    "Mish",
    "Neg",
    "Not",
    "Reciprocal",
    "Relu",
    "Round",
    "Selu",
    "Sigmoid",
    "Sign",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Tanh",
    "ThresholdedRelu",
];

/// Functions of cells that meet.
const PAIRS: &[&str] = &[
    "Add", "And", "Clip", "Div", "Equal", "Greater", "Less", "Max", "Min", "Mul", "Or", "PRelu", "Pow",
    "Sub", "Sum", "Where",
];

/// Windows and norms over what is behind the channels or along them.
const IMAGES: &[&str] = &[
    "AveragePool",
    "Conv",
    "ConvTranspose",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "GroupNormalization",
    "InstanceNormalization",
    "LRN",
    "MaxPool",
];

/// Whether every output has a row for each of the inputs' rows, which no other row has a part in.
pub(super) fn apart<'g, N: Borrow<Node>>(graph: &'g Graph, nodes: &'g [N]) -> bool {
    let mut view = View { ranks: HashMap::new(), constants: HashMap::new() };
    for input in super::given(graph) {
        let Type::Tensor { dims: Some(dims), .. } = &input.ty else { return false };
        view.ranks.insert(&input.name, dims.len());
    }
    if view.ranks.values().any(|rank| *rank < 2) {
        return false;
    }
    for tensor in &graph.initializers {
        view.constants.insert(&tensor.name, Constant { dims: &tensor.dims, tensor: Some(tensor) });
    }
    let all = nodes.iter().all(|node| view.keeps(node.borrow()));
    all && graph.outputs.iter().all(|output| view.ranks.contains_key(output.name.as_str()))
}

#[derive(Clone, Copy)]
struct Constant<'g> {
    dims: &'g [usize],
    /// Its cells, where no operator made them.
    tensor: Option<&'g Tensor>,
}

/// What is known of values: the rank of those whose first axis is the rows, and constants.
struct View<'g> {
    ranks: HashMap<&'g str, usize>,
    constants: HashMap<&'g str, Constant<'g>>,
}

fn int(node: &Node, name: &str, default: i64) -> i64 {
    match node.attr(name) {
        Some(Attr::Int(value)) => *value,
        _ => default,
    }
}

impl<'g> View<'g> {
    /// Whether a node's outputs are rows apart or constants; they are known afterwards.
    fn keeps(&mut self, node: &'g Node) -> bool {
        if let Some(constant) = self.made_of_constants(node) {
            self.constants.extend(node.outputs.iter().map(|name| (name.as_str(), constant)));
            return true;
        }
        let Some(rank) = self.rank(node).filter(|rank| *rank >= 2) else { return false };
        self.ranks.extend(node.outputs.iter().map(|name| (name.as_str(), rank)));
        true
    }

    fn made_of_constants(&self, node: &'g Node) -> Option<Constant<'g>> {
        match (node.op.as_str(), node.attr("value")) {
            ("Constant", Some(Attr::Tensor(tensor))) => {
                Some(Constant { dims: &tensor.dims, tensor: Some(tensor) })
            }
            ("DequantizeLinear", _) => {
                let value = self.constants.get(node.inputs.first()?.as_str())?;
                Some(Constant { tensor: None, ..*value })
            }
            _ => None,
        }
    }

    /// The rank of an input whose first axis is the rows.
    fn led(&self, node: &Node, at: usize) -> Option<usize> {
        self.ranks.get(node.inputs.get(at)?.as_str()).copied()
    }

    /// Whether the inputs from a place on are constants or left out.
    fn rest_is_constant(&self, node: &Node, from: usize) -> bool {
        let is_constant = |name: &String| name.is_empty() || self.constants.contains_key(name.as_str());
        node.inputs.iter().skip(from).all(is_constant)
    }

    /// The whole numbers of a constant.
    fn ints(&self, node: &Node, at: usize) -> Option<Vec<i64>> {
        let tensor = self.constants.get(node.inputs.get(at)?.as_str())?.tensor?;
        let value = Value::of_tensor(tensor).ok()?;
        value.to_ints().ok().map(Cow::into_owned)
    }

    /// The rank of a node's outputs, where it keeps rows apart.
    fn rank(&self, node: &Node) -> Option<usize> {
        let op = node.op.as_str();
        if node.domain == super::join::DOMAIN {
            // The other inputs are constants.
            return self.led(node, 0);
        }
        if !node.domain.is_empty() {
            return None;
        }
        if CELLS.contains(&op) && node.inputs.len() == 1 {
            return self.led(node, 0);
        }
        if PAIRS.contains(&op) {
            return self.together(node);
        }
        let first = self.led(node, 0);
        if IMAGES.contains(&op) {
            let fits = node.outputs.len() == 1 && self.rest_is_constant(node, 1);
            return first.filter(|rank| fits && *rank >= 3);
        }
        // An axis that is not the rows'.
        let inner = |rank: usize, axis: i64| if axis < 0 { rank as i64 + axis >= 1 } else { axis >= 1 };
        match op {
            "MatMul" => match (first, self.led(node, 1)) {
                (Some(left), Some(right)) => (left == right && left >= 3).then_some(left),
                (Some(left), None) => {
                    let right = self.constants.get(node.inputs.get(1)?.as_str())?;
                    (right.dims.len() == 2).then_some(left)
                }
                _ => None,
            },
            "Gemm" => {
                let is_row = |name: &String| {
                    let bias = self.constants.get(name.as_str());
                    name.is_empty() || bias.is_some_and(|bias| bias.dims.len() < 2 || bias.dims[0] == 1)
                };
                let fits = int(node, "transA", 0) == 0 && self.rest_is_constant(node, 1);
                first.filter(|_| fits && node.inputs.get(2).is_none_or(is_row))
            }
            "BatchNormalization" => {
                first.filter(|_| node.outputs.len() == 1 && self.rest_is_constant(node, 1))
            }
            "Softmax" | "LogSoftmax" | "LayerNormalization" => {
                let axis = int(node, "axis", -1);
                let fits = node.outputs.len() == 1 && self.rest_is_constant(node, 1);
                first.filter(|rank| fits && inner(*rank, axis))
            }
            "Flatten" => first.filter(|_| int(node, "axis", 1) == 1).map(|_| 2),
            "Transpose" => match node.attr("perm") {
                Some(Attr::Ints(perm)) if perm.first() == Some(&0) => first,
                _ => None,
            },
            "Reshape" => {
                let shape = self.ints(node, 1)?;
                let keeps = shape.first() == Some(&0) && int(node, "allowzero", 0) == 0;
                first.filter(|_| keeps).map(|_| shape.len())
            }
            "Concat" => {
                let same = (0..node.inputs.len()).all(|at| self.led(node, at) == first);
                first.filter(|rank| same && inner(*rank, int(node, "axis", 0)))
            }
            "Split" => {
                let fits = self.rest_is_constant(node, 1);
                first.filter(|rank| fits && inner(*rank, int(node, "axis", 0)))
            }
            _ => None,
        }
    }

    /// Values that meet cell by cell: rows meet only their own.
    fn together(&self, node: &Node) -> Option<usize> {
        let rank = (0..node.inputs.len()).find_map(|at| self.led(node, at))?;
        let fits = |name: &String| {
            let own = self.ranks.get(name.as_str());
            let constant = self.constants.get(name.as_str());
            name.is_empty()
                || own == Some(&rank)
                || constant.is_some_and(|constant| {
                    let dims = constant.dims;
                    dims.len() < rank || (dims.len() == rank && dims[0] == 1)
                })
        };
        node.inputs.iter().all(fits).then_some(rank)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{Data, Dim, Elem, ValueInfo};

    /// Whether these nodes keep the rows of `x`, `[rows, 2, 3]`, apart; there are constants `one` (`[3]`), `two` (`[3, 3]`),
    /// `rows` (`[2, 2, 3]`) and shapes.
    fn check(nodes: Vec<Node>) -> bool {
        let tensor = |name: &str, dims: &[usize], cells: Vec<i64>| Tensor {
            name: name.into(),
            elem: Elem::I64,
            dims: dims.to_vec(),
            data: Data::Ints(cells),
        };
        let dims = vec![Dim::Named("rows".into()), Dim::Fixed(2), Dim::Fixed(3)];
        let graph = Graph {
            nodes,
            initializers: vec![
                tensor("one", &[3], vec![1; 3]),
                tensor("two", &[3, 3], vec![1; 9]),
                tensor("rows", &[2, 2, 3], vec![1; 12]),
                tensor("kept", &[2], vec![0, 6]),
                tensor("mixed", &[2], vec![-1, 2]),
            ],
            inputs: vec![ValueInfo {
                name: "x".into(),
                ty: Type::Tensor { elem: Elem::F32, dims: Some(dims) },
            }],
            outputs: vec![ValueInfo { name: "y".into(), ty: Type::Tensor { elem: Elem::F32, dims: None } }],
            ..Graph::default()
        };
        apart(&graph, &graph.nodes)
    }

    #[test]
    fn rows_are_apart_where_no_operator_touches_their_axis() {
        let ints = |cells: &[i64]| Attr::Ints(cells.to_vec());
        for (name, wanted, last) in [
            ("cells", true, Node::with("Relu", &["x"], "y", &[])),
            ("a row on each", true, Node::with("Add", &["one", "x"], "y", &[])),
            ("rows of a constant", false, Node::with("Add", &["x", "rows"], "y", &[])),
            ("weights", true, Node::with("MatMul", &["x", "two"], "y", &[])),
            ("rows as weights", false, Node::with("MatMul", &["two", "x"], "y", &[])),
            ("each row with itself", true, Node::with("MatMul", &["x", "x"], "y", &[])),
            ("along the last axis", true, Node::with("Softmax", &["x"], "y", &[])),
            ("along the rows", false, Node::with("Softmax", &["x"], "y", &[("axis", Attr::Int(0))])),
            (
                "along the rows, from behind",
                false,
                Node::with("Softmax", &["x"], "y", &[("axis", Attr::Int(-3))]),
            ),
            ("inner axes turned", true, Node::with("Transpose", &["x"], "y", &[("perm", ints(&[0, 2, 1]))])),
            ("rows turned", false, Node::with("Transpose", &["x"], "y", &[("perm", ints(&[1, 0, 2]))])),
            ("rows kept", true, Node::with("Reshape", &["x", "kept"], "y", &[])),
            ("rows of another length", false, Node::with("Reshape", &["x", "mixed"], "y", &[])),
            ("side by side", true, Node::with("Concat", &["x", "x"], "y", &[("axis", Attr::Int(2))])),
            ("one under the other", false, Node::with("Concat", &["x", "x"], "y", &[("axis", Attr::Int(0))])),
            ("a sum", false, Node::with("ReduceSum", &["x"], "y", &[])),
            ("an operator that nobody listed", false, Node::with("CumSum", &["x", "one"], "y", &[])),
        ] {
            assert_eq!(check(vec![last]), wanted, "{name}");
        }
        let flat = Node::with("Flatten", &["x"], "f", &[]);
        let meeting = Node::with("Add", &["x", "f"], "y", &[]);
        assert!(!check(vec![flat, meeting]), "rows of two ranks meet others");
        assert!(!check(vec![Node::with("Identity", &["one"], "y", &[])]), "no rows at all");
    }
}
