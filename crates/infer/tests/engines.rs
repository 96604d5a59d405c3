//! Which graphs of tensors are evaluated here, and which by an engine that is faster.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use codecs::wire::{put_bytes, put_int, put_message};
use infer::Config;
use infer::evaluate::{Call, run_here};
use infer::repository::{Repository, Which};
use models::{Engines, Hosted, Outputs, Tensor, Wanted};

/// An engine that says it is faster, counts who asks for it, and then has nothing to give.
#[derive(Debug, Default)]
struct Faster(AtomicUsize);

impl Engines for Faster {
    fn load(&self, _: &Wanted<'_>) -> Option<Result<Hosted, String>> {
        self.0.fetch_add(1, Relaxed);
        Some(Err("its library is broken".into()))
    }

    fn outruns(&self, _: &Wanted<'_>) -> bool {
        true
    }
}

/// A graph of `layers` products with one square matrix of zeros.
fn network(width: usize, layers: usize) -> Vec<u8> {
    let value = |graph: &mut Vec<u8>, number: u32, name: &str| {
        put_message(graph, number, |value| {
            put_bytes(value, 1, name.as_bytes());
            put_message(value, 2, |kind| {
                put_message(kind, 1, |tensor| {
                    put_int(tensor, 1, 1);
                    put_message(tensor, 2, |shape| {
                        put_message(shape, 1, |dim| put_bytes(dim, 2, b"N"));
                        put_message(shape, 1, |dim| put_int(dim, 1, width as u64));
                    });
                });
            });
        });
    };
    let name = |layer: usize| match layer {
        0 => "x".to_owned(),
        last if last == layers => "y".to_owned(),
        layer => format!("h{layer}"),
    };
    let mut model = Vec::new();
    put_int(&mut model, 1, 8);
    put_message(&mut model, 7, |graph| {
        for layer in 0..layers {
            put_message(graph, 1, |node| {
                put_bytes(node, 1, name(layer).as_bytes());
                put_bytes(node, 1, b"w");
                put_bytes(node, 2, name(layer + 1).as_bytes());
                put_bytes(node, 4, b"MatMul");
            });
        }
        put_message(graph, 5, |weights| {
            put_int(weights, 1, width as u64);
            put_int(weights, 1, width as u64);
            put_int(weights, 2, 1);
            put_bytes(weights, 8, b"w");
            put_bytes(weights, 9, &vec![0; 4 * width * width]);
        });
        value(graph, 11, "x");
        value(graph, 12, "y");
    });
    put_message(&mut model, 8, |opset| put_int(opset, 2, 17));
    model
}

/// How often the engine was asked until the model answered.
fn asked(root: &Path, width: usize, layers: usize) -> usize {
    std::fs::write(root.join("model.onnx"), network(width, layers)).expect("written");
    let faster = Arc::new(Faster::default());
    let mut config = Config::new("net", root);
    config.engines = vec![faster.clone()];
    let repository = Repository::open(&config).expect("a repository");
    let served = repository.find("net", Which::Default).expect("served here all the same");
    let row = vec![1_f32; width];
    let inputs = [Tensor::borrowed(&row, &[1, width]).expect("a row")];
    let mut outputs = Outputs::new();
    run_here(Call { served: &served, rows: 1, inputs: &inputs, priority: 0, deadline: None }, &mut outputs)
        .expect("an answer");
    assert_eq!(outputs.tensors()[0].to_f64s().expect("numbers").len(), width);
    faster.0.load(Relaxed)
}

#[test]
fn a_network_that_takes_long_is_offered_to_a_faster_engine_and_stays_where_that_fails() {
    let root = tempfile::tempdir().expect("a folder");
    assert_eq!(asked(root.path(), 8, 2), 0, "a small one is done before an engine has heard of it");
    assert_eq!(asked(root.path(), 1024, 16), 1);
}
