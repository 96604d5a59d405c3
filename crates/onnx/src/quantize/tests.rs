//! Quantized models against their originals.
//!
//! Not here: ONNX Runtime's answers for them (`tests/quantized.rs`).

use models::{Backend, Batch, Outputs};

use super::*;
use crate::engine::Onnx;
use crate::proto::{Data, Dim, Graph, Type, ValueInfo};

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

fn info(name: &str, row: &[usize]) -> ValueInfo {
    let mut dims = vec![Dim::Named("rows".into())];
    dims.extend(row.iter().map(|size| Dim::Fixed(*size)));
    ValueInfo { name: name.into(), ty: Type::Tensor { elem: Elem::F32, dims: Some(dims) } }
}

/// A model from `X`, whose rows have this shape, to `Y`.
fn model(nodes: Vec<Node>, initializers: Vec<Tensor>, row: &[usize]) -> Model {
    let graph = Graph {
        name: "network".into(),
        nodes,
        initializers,
        inputs: vec![info("X", row)],
        outputs: vec![ValueInfo { name: "Y".into(), ty: Type::Tensor { elem: Elem::F32, dims: None } }],
    };
    Model { ir_version: 8, opsets: vec![(String::new(), 17)], graph, ..Model::default() }
}

fn file(model: &Model) -> Bytes {
    write(model).expect("it has a form")
}

/// Two layers: a `MatMul`, and a `Gemm` of turned weights with a bias.
fn network() -> Bytes {
    let nodes = vec![
        Node::with("MatMul", &["X", "first"], "a", &[]),
        Node::with("Relu", &["a"], "b", &[]),
        Node::with("Gemm", &["b", "second", "bias"], "Y", &[("transB", Attr::Int(1))]),
    ];
    let weights = vec![tensor("first", &[48, 64], 1), tensor("second", &[8, 64], 2), tensor("bias", &[8], 3)];
    file(&model(nodes, weights, &[48]))
}

/// Images through a convolution with a bias, one channel by channel, and one of two groups around which a value goes
/// past; a product at the end.
fn images() -> Bytes {
    let same = ("auto_pad", Attr::Text(Bytes::from_static(b"SAME_UPPER")));
    let nodes = vec![
        Node::with("Conv", &["X", "first", "bias"], "a", &[("pads", Attr::Ints(vec![1; 4]))]),
        Node::with("Relu", &["a"], "b", &[]),
        Node::with(
            "Conv",
            &["b", "second"],
            "c",
            &[("group", Attr::Int(64)), ("strides", Attr::Ints(vec![2, 2])), same],
        ),
        Node::with("Conv", &["c", "third", "bias"], "d", &[("group", Attr::Int(2))]),
        Node::with("Add", &["c", "d"], "e", &[]),
        Node::with("GlobalAveragePool", &["e"], "f", &[]),
        Node::with("Flatten", &["f"], "g", &[]),
        Node::with("MatMul", &["g", "last"], "Y", &[]),
    ];
    let weights = vec![
        tensor("first", &[64, 3, 3, 3], 1),
        tensor("second", &[64, 1, 3, 3], 2),
        tensor("third", &[64, 32, 1, 1], 3),
        tensor("bias", &[64], 4),
        tensor("last", &[64, 10], 5),
    ];
    file(&model(nodes, weights, &[3, 9, 10]))
}

/// Signals: a convolution in one dimension after another, both with activations.
fn signals() -> Bytes {
    let nodes = vec![
        Node::with("Conv", &["X", "first", "bias"], "a", &[("dilations", Attr::Ints(vec![2]))]),
        Node::with("Clip", &["a", "", "six"], "b", &[]),
        Node::with(
            "Conv",
            &["b", "second"],
            "c",
            &[("strides", Attr::Ints(vec![3])), ("pads", Attr::Ints(vec![2, 1]))],
        ),
        Node::with("LeakyRelu", &["c"], "d", &[]),
        Node::with("Flatten", &["d"], "Y", &[]),
    ];
    let six = Tensor { name: "six".into(), elem: Elem::F32, dims: vec![], data: Data::Floats(vec![2.0]) };
    let weights = vec![
        tensor("first", &[24, 4, 5], 1),
        tensor("second", &[8, 24, 4], 2),
        tensor("bias", &[24], 3),
        six,
    ];
    file(&model(nodes, weights, &[4, 40]))
}

/// Rows of numbers between -1 and 1.
fn rows(count: usize, width: usize) -> Table {
    let cells: Vec<f64> = numbers(width * count, 9).into_iter().map(f64::from).collect();
    Table::of_rows(&cells, width)
}

fn answers(bytes: &Bytes, data: &Table) -> Vec<f64> {
    let model = Onnx::load(bytes).expect("it loads");
    let inputs = data.inputs(model.signature()).expect("they fit");
    let mut outputs = Outputs::new();
    model.run(&Batch { rows: data.rows(), inputs: &inputs }, &mut outputs).expect("it answers");
    outputs.tensors()[0].to_f64s().expect("numbers").to_vec()
}

/// The largest difference of the answers, in parts of the largest answer.
fn off(plain: &Bytes, small: &Bytes, data: &Table) -> f64 {
    let (want, got) = (answers(plain, data), answers(small, data));
    let scale = want.iter().map(|x| x.abs()).fold(0.0, f64::max);
    want.iter().zip(&got).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max) / scale
}

#[test]
fn answers_stay_near_and_weights_shrink_in_every_mode() {
    for (name, plain, width, count, part) in [
        ("products", network(), 48, 2, 2.0),
        ("images", images(), 3 * 9 * 10, 4, 2.0),
        ("signals", signals(), 4 * 40, 2, 1.3),
    ] {
        let data = rows(20, width);
        for (mode, near) in [(Mode::Weights, 0.01), (Mode::Dynamic, 0.03), (Mode::Static, 0.03)] {
            let made = quantize(&plain, mode, Some(&data)).expect("it can be");
            assert_eq!((made.changed.len(), made.kept.len()), (count, 0), "{name} {mode:?}");
            let shrunk = made.bytes.len() as f64 * part < plain.len() as f64;
            assert!(shrunk, "{name} {mode:?}: {} of {}", made.bytes.len(), plain.len());
            let off = off(&plain, &made.bytes, &data);
            assert!(off > 0.0 && off < near, "{name} {mode:?}: {off}");
        }
    }
}

#[test]
fn a_row_answers_the_same_alone_and_among_others() {
    for (plain, width) in [(network(), 48), (images(), 3 * 9 * 10)] {
        let made = quantize(&plain, Mode::Dynamic, None).expect("it can be");
        let all = answers(&made.bytes, &rows(3, width));
        let last = answers(&made.bytes, &rows(3, width).slice(2..3));
        assert_eq!(all[all.len() / 3 * 2..], last);
    }
}

fn ops(bytes: &Bytes) -> Vec<String> {
    let model = Model::parse(bytes).expect("a model");
    model.graph.nodes.into_iter().map(|node| node.op).collect()
}

#[test]
fn a_value_goes_through_integers_once_and_right_behind_its_activation() {
    let (q, d) = ("QuantizeLinear", "DequantizeLinear");
    let data = rows(5, 4 * 40);
    let small = quantize(&signals(), Mode::Static, Some(&data)).expect("it can be").bytes;
    // The image; weights and bias, then the activation; weights, then what the second makes.
    let want = [q, d, d, d, "Conv", "Clip", q, d, d, "Conv", q, d, "LeakyRelu", "Flatten"];
    assert_eq!(ops(&small), want);
    let both = vec![
        Node::with("Conv", &["X", "first"], "a", &[]),
        Node::with("Conv", &["X", "second"], "b", &[]),
        Node::with("Add", &["a", "b"], "Y", &[]),
    ];
    let weights = vec![tensor("first", &[4, 2, 3], 1), tensor("second", &[4, 2, 3], 2)];
    let small =
        quantize(&file(&model(both, weights, &[2, 8])), Mode::Dynamic, None).expect("it can be").bytes;
    assert_eq!(ops(&small).iter().filter(|op| *op == "DynamicQuantizeLinear").count(), 1);
}

#[test]
fn a_large_bias_beside_small_weights_keeps_its_size() {
    let cells = |name: &str, dims: &[usize], cells: &[f32]| Tensor {
        name: name.into(),
        elem: Elem::F32,
        dims: dims.to_vec(),
        data: Data::Floats(cells.to_vec()),
    };
    let nodes = vec![Node::with("Conv", &["X", "w", "b"], "Y", &[])];
    // Weights of nothing, of next to nothing, and usual ones.
    let weights = vec![cells("w", &[3, 1, 1], &[0.0, 1e-12, 0.5]), cells("b", &[3], &[3.0, -2.0, 1.0])];
    let plain = file(&model(nodes, weights, &[1, 4]));
    let data = rows(9, 4);
    let made = quantize(&plain, Mode::Static, Some(&data)).expect("it can be");
    let off = off(&plain, &made.bytes, &data);
    assert!(off < 0.01, "{off}");
}

#[test]
fn constants_that_an_older_file_lists_among_its_inputs_leave_with_their_readers() {
    let mut old = Model::parse(&network()).expect("a model");
    old.graph.inputs.push(info("second", &[64]));
    let made = quantize(&file(&old), Mode::Weights, None).expect("it can be");
    let inputs = Onnx::load(&made.bytes).expect("it loads").signature().inputs.len();
    assert_eq!(inputs, 1);
}

#[test]
fn a_file_may_be_rewritten_twice() {
    // The second is a product of two values until it is left out.
    let nodes = vec![
        Node::with("MatMul", &["X", "w"], "a", &[]),
        Node::with("Transpose", &["v"], "t", &[]),
        Node::with("MatMul", &["a", "t"], "Y", &[]),
    ];
    let weights = vec![tensor("w", &[8, 8], 1), tensor("v", &[8, 8], 2)];
    let once = quantize(&file(&model(nodes, weights, &[8])), Mode::Weights, None).expect("one can be");
    assert_eq!((once.changed.len(), once.kept.len()), (1, 1));
    let mut made = Model::parse(&once.bytes).expect("a model");
    made.graph.nodes.retain(|node| node.op != "Transpose");
    made.graph.nodes.iter_mut().flat_map(|node| &mut node.inputs).filter(|name| *name == "t").for_each(
        |name| {
            *name = "v".into();
        },
    );
    let twice = quantize(&file(&made), Mode::Dynamic, None).expect("the other can be");
    assert_eq!((twice.changed.len(), twice.kept.len()), (1, 1));
    Onnx::load(&twice.bytes).expect("no name is made twice");
}

#[test]
fn a_convolution_whose_weights_or_bias_are_made_at_run_time_is_kept_with_the_reason() {
    let nodes = vec![
        Node::with("Relu", &["bias"], "made", &[]),
        Node::with("Conv", &["X", "w", "made"], "a", &[]),
        Node::with("Conv", &["a", "v"], "Y", &[]),
    ];
    let weights = vec![tensor("bias", &[4], 1), tensor("w", &[4, 2, 3], 2), tensor("v", &[4, 4, 1], 3)];
    let made = quantize(&file(&model(nodes, weights, &[2, 8])), Mode::Weights, None).expect("one can be");
    assert_eq!(made.changed.len(), 1);
    assert!(made.kept[0].contains("biases are not constant"), "{:?}", made.kept);
}

#[test]
fn weights_become_floats_at_load_and_no_more_of_them_than_the_file_has() {
    let steps = |bytes: &Bytes| -> Vec<String> {
        let nodes = Onnx::load(bytes).expect("it loads").summary().nodes.clone();
        nodes.into_iter().filter(|(title, _)| title.contains("DequantizeLinear")).map(|node| node.0).collect()
    };
    let made = quantize(&images(), Mode::Weights, None).expect("it can be");
    assert_eq!(ops(&made.bytes).iter().filter(|op| *op == "DequantizeLinear").count(), 4);
    assert!(steps(&made.bytes).is_empty(), "{:?}", steps(&made.bytes));
    // Three floats for each integer of the file, which is room for one.
    let cells = Data::Raw(Bytes::from(vec![7; 64]));
    let weights = vec![
        Tensor { name: "w".into(), elem: Elem::I8, dims: vec![8, 8], data: cells },
        Tensor { name: "s".into(), elem: Elem::F32, dims: vec![], data: Data::Floats(vec![0.5]) },
    ];
    let mut nodes = Vec::new();
    for (value, wide, next) in [("X", "a", "b"), ("b", "c", "d"), ("d", "e", "Y")] {
        nodes.push(Node::with("DequantizeLinear", &["w", "s"], wide, &[]));
        nodes.push(Node::with("MatMul", &[value, wide], next, &[]));
    }
    assert_eq!(steps(&file(&model(nodes, weights, &[8]))).len(), 2);
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
