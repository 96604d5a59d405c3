//! What every [`Backend`] promises, as tests.
//!
//! Each backend's own tests call [`check_backend`] with rows that its model takes; the suite then holds it to
//! the trait's documentation. It panics with the law that is broken.
//!
//! Not here: whether the answers are right (fixtures of each backend).

use crate::backend::{Backend, BackendError, Batch};
use crate::tensor::{Outputs, Tensor};

/// Runs the whole suite on a backend whose only input is a table of numbers. `rows` are at least two rows.
pub fn check_backend(backend: &dyn Backend, rows: &[Vec<f64>]) {
    assert!(rows.len() >= 2, "the suite needs two rows or more");
    rows_come_back_in_order(backend, rows);
    a_row_answers_the_same_alone_and_in_a_batch(backend, rows);
    no_rows_have_an_answer(backend, rows[0].len());
    a_wrong_shape_is_refused(backend, rows);
}

fn run(backend: &dyn Backend, rows: &[Vec<f64>], width: usize) -> Result<Vec<Vec<u8>>, BackendError> {
    let flat: Vec<f64> = rows.iter().flatten().copied().collect();
    let tensor = Tensor::borrowed(&flat, &[rows.len(), width]).expect("rows of equal width");
    let mut outputs = Outputs::new();
    backend.run(&Batch { rows: rows.len(), inputs: &[tensor] }, &mut outputs)?;
    assert_eq!(
        outputs.tensors().len(),
        backend.signature().outputs.len(),
        "one tensor for each declared output"
    );
    let mut answers = vec![Vec::new(); rows.len()];
    for (tensor, spec) in outputs.tensors().iter().zip(&backend.signature().outputs) {
        assert_eq!(tensor.dtype(), spec.dtype, "the declared dtype");
        assert_eq!(tensor.dims()[0], rows.len(), "one answer for each row");
        if tensor.dtype().size() == 0 {
            for (answer, text) in answers.iter_mut().zip(tensor.texts()) {
                answer.extend(text.expect("a text").as_bytes());
            }
        } else if !rows.is_empty() {
            let stride = tensor.bytes().len() / rows.len();
            for (answer, bytes) in answers.iter_mut().zip(tensor.bytes().chunks_exact(stride)) {
                answer.extend(bytes);
            }
        }
    }
    Ok(answers)
}

fn rows_come_back_in_order(backend: &dyn Backend, rows: &[Vec<f64>]) {
    let width = rows[0].len();
    let forward = run(backend, rows, width).expect("legal rows");
    let reversed: Vec<Vec<f64>> = rows.iter().rev().cloned().collect();
    let mut backward = run(backend, &reversed, width).expect("legal rows");
    backward.reverse();
    assert_eq!(forward, backward, "row i of the result answers row i of the batch");
}

fn a_row_answers_the_same_alone_and_in_a_batch(backend: &dyn Backend, rows: &[Vec<f64>]) {
    let width = rows[0].len();
    let together = run(backend, rows, width).expect("legal rows");
    for (row, want) in rows.iter().zip(&together) {
        let alone = run(backend, std::slice::from_ref(row), width).expect("a legal row");
        assert_eq!(&alone[0], want, "a row answers the same alone and in a batch, to the bit");
    }
}

fn no_rows_have_an_answer(backend: &dyn Backend, width: usize) {
    assert_eq!(run(backend, &[], width).expect("no rows are legal"), Vec::<Vec<u8>>::new());
}

fn a_wrong_shape_is_refused(backend: &dyn Backend, rows: &[Vec<f64>]) {
    let wide: Vec<Vec<f64>> = rows.iter().map(|row| row.iter().copied().chain([0.0]).collect()).collect();
    let refused = run(backend, &wide, rows[0].len() + 1);
    assert!(matches!(refused, Err(BackendError::Input(_))), "a row that is too wide is the caller's mistake");
    let texts = vec!["x"; rows.len() * rows[0].len()];
    let tensor = Tensor::of_texts(&texts, &[rows.len(), rows[0].len()]).expect("fits");
    let mut outputs = Outputs::new();
    let refused = backend.run(&Batch { rows: rows.len(), inputs: &[tensor] }, &mut outputs);
    assert!(matches!(refused, Err(BackendError::Input(_))), "texts are refused where numbers are asked for");
    let refused = backend.run(&Batch { rows: 1, inputs: &[] }, &mut outputs);
    assert!(matches!(refused, Err(BackendError::Input(_))), "a missing input is the caller's mistake");
}
