//! From a sketch of an estimator to an ONNX model.
//!
//! A sketch's operations are ONNX's, one for one but for a few; numbers stay 64-bit, so that answers are the library's
//! to its last digits. Trees become `TreeEnsemble` of ONNX-ML 5, the only form of trees that adds up in 64 bits; ONNX
//! Runtime has it since 1.19.
//!
//! Not here: what an estimator computes (`models::sketch`), the file's bytes (`write`).

use bytes::Bytes;
use models::sketch::{Binary, Cells, Fold, Kind, Op, Rounds, Sketch, Step, TreeNode, Trees, Unary, draw};
use models::{Estimator, LoadError};

use crate::proto::{Attr, Data, Dim, Elem, Graph, Model, Node, Tensor, Type, ValueInfo};
use crate::write::write;

/// The version of ONNX's own operators, and of the IR that came with it.
const OPSET: i64 = 21;
const IR_VERSION: i64 = 10;
/// The version of ONNX-ML's operators.
const OPSET_ML: i64 = 5;
const ML: &str = "ai.onnx.ml";
/// `<=` among the modes of nodes.
const AT_MOST: u8 = 0;

/// Writes an estimator as an ONNX file. What has no form in ONNX is refused by the name of its class.
pub fn convert(estimator: &Estimator) -> Result<Bytes, LoadError> {
    let sketch =
        draw(estimator).map_err(|what| LoadError::Unsupported { what: format!("{what}, in ONNX") })?;
    write(&model_of(&sketch))
}

fn model_of(sketch: &Sketch) -> Model {
    let names = sketch.inputs.iter().map(|input| input.name.clone()).collect();
    let mut making = Making { graph: Graph::default(), prefix: "slipway".into(), inputs: names, shapes: 0 };
    making.graph.name = "model".into();
    for input in &sketch.inputs {
        let dims = vec![Dim::Named("rows".into()), Dim::Fixed(input.width)];
        making.graph.inputs.push(info(&input.name, elem(input.kind), Some(dims)));
    }
    making.steps(sketch);
    for output in &sketch.outputs {
        let mut dims = vec![Dim::Named("rows".into())];
        dims.extend(output.row.iter().map(|size| Dim::Fixed(*size)));
        let shape: Vec<i64> = [-1].into_iter().chain(output.row.iter().map(|size| *size as i64)).collect();
        let value = making.name(sketch, output.wire.step());
        making.reshape(&value, &shape, &output.name);
        making.graph.outputs.push(info(&output.name, elem(output.kind), Some(dims)));
    }
    Model {
        ir_version: IR_VERSION,
        producer: "slipway".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        opsets: vec![(String::new(), OPSET), (ML.into(), OPSET_ML)],
        graph: making.graph,
        metadata: Vec::new(),
    }
}

fn elem(kind: Kind) -> Elem {
    match kind {
        Kind::Number => Elem::F64,
        Kind::Whole => Elem::I64,
        Kind::Text => Elem::TEXT,
        Kind::Truth => Elem::BOOL,
    }
}

fn info(name: &str, elem: Elem, dims: Option<Vec<Dim>>) -> ValueInfo {
    ValueInfo { name: name.to_owned(), ty: Type::Tensor { elem, dims } }
}

/// Which steps an output needs: estimators also draw what nobody asks for in the end.
fn needed(sketch: &Sketch) -> Vec<bool> {
    let mut needed = vec![false; sketch.steps.len()];
    for output in &sketch.outputs {
        needed[output.wire.step()] = true;
    }
    for (index, step) in sketch.steps.iter().enumerate().rev() {
        if needed[index] {
            step.inputs.iter().for_each(|input| needed[input.step()] = true);
        }
    }
    needed
}

struct Making {
    graph: Graph,
    /// What the names of its values begin with.
    prefix: String,
    /// The names of the caller's columns.
    inputs: Vec<String>,
    /// Constants that only say shapes and axes.
    shapes: usize,
}

fn doubles(values: &[f64]) -> Data {
    Data::Raw(values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>().into())
}

fn wholes(values: &[i64]) -> Data {
    Data::Raw(values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>().into())
}

fn constant(name: &str, dims: &[usize], cells: &Cells) -> Tensor {
    let (elem, data) = match cells {
        Cells::Numbers(values) => (Elem::F64, doubles(values)),
        Cells::Wholes(values) => (Elem::I64, wholes(values)),
        Cells::Texts(values) => (
            Elem::TEXT,
            Data::Texts(values.iter().map(|text| Bytes::copy_from_slice(text.as_bytes())).collect()),
        ),
        Cells::Truths(values) => {
            (Elem::BOOL, Data::Raw(values.iter().map(|truth| u8::from(*truth)).collect::<Vec<u8>>().into()))
        }
    };
    Tensor { name: name.to_owned(), elem, dims: dims.to_vec(), data }
}

impl Making {
    fn steps(&mut self, sketch: &Sketch) {
        let needed = needed(sketch);
        for (index, step) in sketch.steps.iter().enumerate().filter(|(index, _)| needed[*index]) {
            let to = self.name(sketch, index);
            self.step(sketch, step, &to);
        }
    }

    /// The name of a step's value: the caller's for inputs.
    fn name(&self, sketch: &Sketch, step: usize) -> String {
        match &sketch.steps[step].op {
            Op::Input(at) => self.inputs[*at].clone(),
            _ => format!("{}_{step}", self.prefix),
        }
    }

    fn node(&mut self, op: &str, inputs: &[String], outputs: &[&str], attrs: Vec<(&str, Attr)>) {
        self.graph.nodes.push(Node {
            name: format!("{op}_{}", self.graph.nodes.len()),
            op: op.to_owned(),
            domain: String::new(),
            inputs: inputs.to_vec(),
            outputs: outputs.iter().map(|output| (*output).to_owned()).collect(),
            attrs: attrs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        });
    }

    /// A constant list of whole numbers.
    fn list(&mut self, values: &[i64]) -> String {
        let name = format!("{}_list_{}", self.prefix, self.shapes);
        self.shapes += 1;
        self.graph.initializers.push(Tensor {
            name: name.clone(),
            elem: Elem::I64,
            dims: vec![values.len()],
            data: wholes(values),
        });
        name
    }

    fn reshape(&mut self, value: &str, shape: &[i64], to: &str) {
        let shape = self.list(shape);
        self.node("Reshape", &[value.to_owned(), shape], &[to], Vec::new());
    }

    fn cast(&mut self, value: String, to: Elem, output: &str) {
        self.node("Cast", &[value], &[output], vec![("to", Attr::Int(i64::from(to.0)))]);
    }

    fn step(&mut self, sketch: &Sketch, step: &Step, to: &str) {
        let inputs: Vec<String> = step.inputs.iter().map(|input| self.name(sketch, input.step())).collect();
        match &step.op {
            Op::Input(_) => {}
            Op::Constant(dims, cells) => self.graph.initializers.push(constant(to, dims, cells)),
            Op::Unary(op) => self.unary(*op, inputs, to),
            Op::Binary(op) => self.node(binary(*op), &inputs, &[to], Vec::new()),
            Op::Choose => self.node("Where", &inputs, &[to], Vec::new()),
            Op::Fold(fold, axis) => {
                let op = if *fold == Fold::Sum { "ReduceSum" } else { "ReduceMax" };
                let axes = self.list(&[*axis]);
                let inputs = [inputs[0].clone(), axes];
                self.node(op, &inputs, &[to], vec![("keepdims", Attr::Int(1))]);
            }
            Op::ArgMax => {
                let attrs = vec![("axis", Attr::Int(-1)), ("keepdims", Attr::Int(0))];
                self.node("ArgMax", &inputs, &[to], attrs);
            }
            Op::Softmax => self.node("Softmax", &inputs, &[to], vec![("axis", Attr::Int(-1))]),
            Op::Pick(axis) => self.node("Gather", &inputs, &[to], vec![("axis", Attr::Int(*axis))]),
            Op::Join(axis) => self.node("Concat", &inputs, &[to], vec![("axis", Attr::Int(*axis))]),
            Op::Shape(dims) => self.reshape(&inputs[0], dims, to),
            Op::Code(texts) => self.code(inputs, texts, to),
            Op::Smallest(count) => {
                self.smallest(&inputs[0], *count, &[to, &format!("{to}_places")]);
            }
            Op::SmallestPlaces(count) => {
                self.smallest(&inputs[0], *count, &[&format!("{to}_values"), to]);
            }
            Op::Trees(trees) => self.trees(inputs, trees, to),
            Op::Rounds(rounds) => self.rounds(inputs, rounds, to),
        }
    }

    /// A loop whose first value goes from round to round; its body reads the others where they are.
    fn rounds(&mut self, mut inputs: Vec<String>, rounds: &Rounds, to: &str) {
        let before = std::mem::replace(&mut inputs[0], format!("{to}_before"));
        let mut body = Making { graph: Graph::default(), prefix: format!("{to}_body"), inputs, shapes: 0 };
        body.graph.name = format!("{to}_body");
        body.graph.inputs = vec![
            info(&format!("{to}_round"), Elem::I64, Some(Vec::new())),
            info(&format!("{to}_goes_on"), Elem::BOOL, Some(Vec::new())),
            info(&body.inputs[0], Elem::F64, None),
        ];
        body.steps(&rounds.body);
        let mut outputs =
            rounds.body.outputs.iter().map(|output| body.name(&rounds.body, output.wire.step()));
        let (Some(after), Some(more)) = (outputs.next(), outputs.next()) else { return };
        let (goes_on, value) = (format!("{to}_more"), format!("{to}_after"));
        body.reshape(&more, &[], &goes_on);
        body.node("Identity", &[after], &[&value], Vec::new());
        body.graph.outputs =
            vec![info(&goes_on, Elem::BOOL, Some(Vec::new())), info(&value, Elem::F64, None)];
        let most = self.list(&[rounds.most as i64]);
        let attrs = vec![("body", Attr::Graph(Box::new(body.graph)))];
        self.node("Loop", &[most, String::new(), before], &[to], attrs);
    }

    fn unary(&mut self, op: Unary, mut inputs: Vec<String>, to: &str) {
        let plain = match op {
            Unary::Negative => "Neg",
            Unary::Absolute => "Abs",
            Unary::Exp => "Exp",
            Unary::Log => "Log",
            Unary::Root => "Sqrt",
            Unary::Sigmoid => "Sigmoid",
            Unary::Tanh => "Tanh",
            Unary::Sine => "Sin",
            Unary::Cosine => "Cos",
            Unary::Floor => "Floor",
            Unary::Sign => "Sign",
            Unary::IsMissing => "IsNaN",
            Unary::Not => "Not",
            Unary::Number | Unary::Whole | Unary::Single => {
                let value = inputs.swap_remove(0);
                let between = format!("{to}_single");
                return match op {
                    Unary::Number => self.cast(value, Elem::F64, to),
                    Unary::Whole => self.cast(value, Elem::I64, to),
                    _ => {
                        self.cast(value, Elem::F32, &between);
                        self.cast(between, Elem::F64, to);
                    }
                };
            }
        };
        self.node(plain, &inputs, &[to], Vec::new());
    }

    fn smallest(&mut self, value: &str, count: usize, outputs: &[&str]) {
        let count = self.list(&[count as i64]);
        let attrs = vec![("axis", Attr::Int(-1)), ("largest", Attr::Int(0)), ("sorted", Attr::Int(1))];
        self.node("TopK", &[value.to_owned(), count], outputs, attrs);
    }

    fn ml(&mut self, op: &str, inputs: &[String], to: &str, attrs: Vec<(&str, Attr)>) {
        self.node(op, inputs, &[to], attrs);
        if let Some(node) = self.graph.nodes.last_mut() {
            node.domain = ML.into();
        }
    }

    fn code(&mut self, inputs: Vec<String>, texts: &[String], to: &str) {
        let keys = texts.iter().map(|text| Bytes::copy_from_slice(text.as_bytes())).collect();
        let attrs = vec![
            ("keys_strings", Attr::Texts(keys)),
            ("values_int64s", Attr::Ints((0..texts.len() as i64).collect())),
            ("default_int64", Attr::Int(texts.len() as i64)),
        ];
        self.ml("LabelEncoder", &inputs, to, attrs);
    }

    fn trees(&mut self, inputs: Vec<String>, trees: &Trees, to: &str) {
        let made = Ensemble::of(trees);
        let tensor = |name: &str, elem, dims, data| {
            Attr::Tensor(Tensor { name: name.to_owned(), elem, dims: vec![dims], data })
        };
        let count = made.splits.len();
        let modes = Data::Raw(vec![AT_MOST; count].into());
        let attrs = vec![
            ("aggregate_function", Attr::Int(1)),
            ("post_transform", Attr::Int(0)),
            ("n_targets", Attr::Int(trees.width as i64)),
            ("tree_roots", Attr::Ints(made.roots)),
            ("nodes_featureids", Attr::Ints(made.columns)),
            ("nodes_splits", tensor("nodes_splits", Elem::F64, count, doubles(&made.splits))),
            ("nodes_modes", tensor("nodes_modes", Elem::U8, count, modes)),
            ("nodes_truenodeids", Attr::Ints(made.yes)),
            ("nodes_falsenodeids", Attr::Ints(made.no)),
            ("nodes_trueleafs", Attr::Ints(made.yes_is_leaf)),
            ("nodes_falseleafs", Attr::Ints(made.no_is_leaf)),
            ("nodes_missing_value_tracks_true", Attr::Ints(made.missing_yes)),
            ("leaf_targetids", Attr::Ints(made.leaf_targets)),
            (
                "leaf_weights",
                tensor("leaf_weights", Elem::F64, made.leaf_weights.len(), doubles(&made.leaf_weights)),
            ),
        ];
        self.ml("TreeEnsemble", &inputs, to, attrs);
    }
}

fn binary(op: Binary) -> &'static str {
    match op {
        Binary::Add => "Add",
        Binary::Subtract => "Sub",
        Binary::Multiply => "Mul",
        Binary::Divide => "Div",
        Binary::Power => "Pow",
        Binary::Less => "Less",
        Binary::Greater => "Greater",
        Binary::AtLeast => "GreaterOrEqual",
        Binary::Equal => "Equal",
        Binary::And => "And",
        Binary::Or => "Or",
        Binary::Product => "MatMul",
    }
}

/// The attributes of `TreeEnsemble`: splits and leaves in lists of their own.
#[derive(Default)]
struct Ensemble {
    roots: Vec<i64>,
    columns: Vec<i64>,
    splits: Vec<f64>,
    yes: Vec<i64>,
    no: Vec<i64>,
    yes_is_leaf: Vec<i64>,
    no_is_leaf: Vec<i64>,
    missing_yes: Vec<i64>,
    leaf_targets: Vec<i64>,
    leaf_weights: Vec<f64>,
}

impl Ensemble {
    fn of(trees: &Trees) -> Self {
        let mut made = Self::default();
        // The place of each node in its list; leaves of a tree add to the tree's target.
        let mut places = vec![0_i64; trees.nodes.len()];
        let mut alone = Vec::new();
        let mut splits = 0;
        for (tree, root) in trees.roots.iter().enumerate() {
            let end = trees.roots.get(tree + 1).map_or(trees.nodes.len(), |next| *next as usize);
            let own = *root as usize..end;
            for (node, place) in trees.nodes[own.clone()].iter().zip(&mut places[own]) {
                match node {
                    TreeNode::Leaf(number) => {
                        *place = made.leaf_weights.len() as i64;
                        made.leaf_weights.push(trees.weights[*number as usize]);
                        made.leaf_targets.push(i64::from(trees.targets[tree]));
                    }
                    TreeNode::Split { .. } => {
                        *place = splits;
                        splits += 1;
                    }
                }
            }
        }
        for node in &trees.nodes {
            let TreeNode::Split { column, threshold, missing_left, left, right } = *node else { continue };
            let is_leaf = |at: u32| i64::from(matches!(trees.nodes[at as usize], TreeNode::Leaf(_)));
            made.columns.push(i64::from(column));
            made.splits.push(threshold);
            made.missing_yes.push(i64::from(missing_left));
            made.yes.push(places[left as usize]);
            made.no.push(places[right as usize]);
            made.yes_is_leaf.push(is_leaf(left));
            made.no_is_leaf.push(is_leaf(right));
        }
        for root in &trees.roots {
            let place = places[*root as usize];
            match trees.nodes[*root as usize] {
                TreeNode::Split { .. } => made.roots.push(place),
                TreeNode::Leaf(_) => {
                    alone.push(place);
                    made.roots.push(splits + alone.len() as i64 - 1);
                }
            }
        }
        // A tree that is one leaf has no form but a split whose ways both lead there.
        for leaf in alone {
            made.columns.push(0);
            made.splits.push(0.0);
            made.missing_yes.push(0);
            made.yes.push(leaf);
            made.no.push(leaf);
            made.yes_is_leaf.push(1);
            made.no_is_leaf.push(1);
        }
        made
    }
}
