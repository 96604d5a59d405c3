//! What is joined, what is not, and that answers stay the same.
//!
//! Not here: answers of ONNX Runtime (`tests/fixtures.rs`).

use super::*;
use crate::exec::Program;
use crate::exec::value::{Bounds, Cells, Value};
use crate::proto::{Data, Dim, Model, Type, ValueInfo};
use crate::quantize::{Mode, quantize};

fn fixture(name: &str) -> Model {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    Model::parse(&std::fs::read(path).expect("readable").into()).expect("well formed")
}

fn answers(model: &Model, rows: usize) -> Vec<Value> {
    let Type::Tensor { dims: Some(dims), .. } = &model.graph.inputs[0].ty else { panic!("a shape") };
    let mut dims: Vec<usize> =
        dims.iter().map(|dim| if let Dim::Fixed(size) = dim { *size } else { 1 }).collect();
    dims[0] = rows;
    let count = dims.iter().product();
    let cells = (0..count).map(|at| ((at * 37 % 101) as f32 - 40.0) / (17.0 + (at / 90) as f32)).collect();
    let program = Program::compile(model).expect("well formed").expect("known operators");
    program.run(vec![Value::f32s(&dims, cells)], Bounds::default()).expect("it runs").values
}

/// The same model, whose integers everybody may read: nothing in it can be joined.
fn apart(model: &Model) -> Model {
    let mut model = model.clone();
    let made = model.graph.nodes.iter().filter(|node| node.op.ends_with("Integer"));
    let names: Vec<String> = made.map(|node| node.outputs[0].clone()).collect();
    assert!(!names.is_empty());
    let ty = Type::Tensor { elem: Elem::I32, dims: None };
    model.graph.outputs.extend(names.into_iter().map(|name| ValueInfo { name, ty: ty.clone() }));
    model
}

#[test]
fn joined_nodes_answer_bit_by_bit_as_they_do_one_by_one() {
    for name in ["net_images_dynamic.onnx", "net_signals_dynamic.onnx"] {
        let model = fixture(name);
        let ops: Vec<String> = joined(&model.graph, true).0.iter().map(|node| node.op.clone()).collect();
        assert!(!ops.iter().any(|op| op.ends_with("Integer") || op.contains("Quantize")), "{name}: {ops:?}");
        assert!(joined(&apart(&model).graph, true).0.iter().all(|node| node.domain.is_empty()), "{name}");
        assert_eq!(answers(&model, 1)[0], answers(&apart(&model), 1)[0], "{name}");
    }
}

#[test]
fn ranges_that_decide_at_run_time_are_those_of_each_row() {
    for name in ["net_images_dynamic.onnx", "net_signals_dynamic.onnx"] {
        let model = fixture(name);
        let (Cells::F32(one), Cells::F32(four)) =
            (answers(&model, 1).remove(0).cells, answers(&model, 4).remove(0).cells)
        else {
            panic!("numbers");
        };
        assert_eq!(one[..], four[..one.len()], "{name}");
        assert_ne!(one[..], four[one.len()..2 * one.len()], "{name}: rows differ");
    }
}

#[test]
fn a_static_file_multiplies_integers_and_keeps_what_others_read() {
    let model = fixture("net_images_static.onnx");
    let (nodes, _) = joined(&model.graph, true);
    let count = |op: &str| nodes.iter().filter(|node| node.op == op && node.domain == DOMAIN).count();
    assert_eq!((count("Conv"), count("Product")), (3, 1));
    assert!(nodes.iter().all(|node| node.domain == DOMAIN || !node.op.contains("Quantize")), "none are left");
    // A scale that is given with the request is not trusted to be what it was.
    let mut open = model.clone();
    let zeros =
        open.graph.nodes.iter().find(|node| node.op == "QuantizeLinear").expect("one").inputs[1].clone();
    let at = open.graph.initializers.iter().position(|tensor| tensor.name == zeros).expect("a constant");
    let tensor = open.graph.initializers.remove(at);
    open.graph.inputs.push(ValueInfo { name: tensor.name, ty: Type::Tensor { elem: Elem::F32, dims: None } });
    assert!(joined(&open.graph, true).0.iter().any(|node| node.op == "QuantizeLinear"));
}

#[test]
fn a_bias_and_a_cut_go_with_their_product_and_what_is_read_twice_stays() {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let node = |op: &str, inputs: &[&str], output: &str| Node {
        op: op.into(),
        inputs: names(inputs),
        outputs: names(&[output]),
        ..Node::default()
    };
    let tensor = |name: &str, dims: &[usize]| {
        let cells = (0..dims.iter().product()).map(|at: usize| at as f32 / 3.0 - 2.0).collect();
        Tensor { name: name.into(), elem: Elem::F32, dims: dims.to_vec(), data: Data::Floats(cells) }
    };
    let shape = vec![Dim::Named("rows".into()), Dim::Fixed(3)];
    let info = |name: &str| ValueInfo {
        name: name.into(),
        ty: Type::Tensor { elem: Elem::F32, dims: Some(shape.clone()) },
    };
    let graph = Graph {
        nodes: vec![
            node("MatMul", &["x", "w"], "a"),
            node("Add", &["b", "a"], "c"),
            node("Relu", &["c"], "d"),
            node("MatMul", &["d", "v"], "e"),
            node("Relu", &["e"], "f"),
            node("Add", &["e", "f"], "y"),
        ],
        initializers: vec![tensor("w", &[3, 5]), tensor("b", &[5]), tensor("v", &[5, 3])],
        inputs: vec![info("x")],
        outputs: vec![info("y")],
        ..Graph::default()
    };
    let model = Model { ir_version: 8, opsets: vec![(String::new(), 17)], graph, ..Model::default() };
    let bytes = crate::write::write(&model).expect("it has a form");
    let small = Model::parse(&quantize(&bytes, Mode::Dynamic, None).expect("it can be").bytes).expect("ours");
    let ops: Vec<String> = joined(&small.graph, true).0.iter().map(|node| node.op.clone()).collect();
    assert_eq!(ops, ["Product", "Product", "Relu", "Add"]);
    assert_eq!(answers(&small, 1)[0], answers(&apart(&small), 1)[0]);
}

#[test]
fn nodes_that_make_nothing_or_go_in_circles_are_left_to_who_compiles_them() {
    let part = |op: &str, change: &dyn Fn(&mut Node)| {
        let mut model = fixture("net_images_dynamic.onnx");
        model.graph.nodes.iter_mut().filter(|node| node.op == op).for_each(change);
        model
    };
    let empty =
        ["ConvInteger", "Cast", "Mul", "Add", "Relu"].map(|op| part(op, &|node| node.outputs.clear()));
    let mut circle = fixture("net_images_dynamic.onnx");
    let at = circle.graph.nodes.iter().position(|node| node.op == "Relu").expect("one");
    let node = &mut circle.graph.nodes[at];
    node.op = "Identity".into();
    node.outputs = node.inputs.clone();
    for model in empty.iter().chain([&circle]) {
        joined(&model.graph, true);
        assert!(Program::compile(model).is_err());
    }
}
