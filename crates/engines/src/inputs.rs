//! What both engines check before a run.

use models::{BackendError, Batch, Outputs, Shape, Signature};

/// Refuses inputs that the signature does not take.
pub(crate) fn check_inputs(signature: &Signature, batch: &Batch<'_>) -> Result<(), BackendError> {
    let specs = &signature.inputs;
    if batch.inputs.len() != specs.len() {
        let text = format!("{} inputs, the model takes {}", batch.inputs.len(), specs.len());
        return Err(BackendError::Input(text));
    }
    for (spec, tensor) in specs.iter().zip(batch.inputs) {
        let name = &spec.name;
        if tensor.dtype() != spec.dtype {
            let (wanted, got) = (spec.dtype.v2_name(), tensor.dtype().v2_name());
            return Err(BackendError::Input(format!("input {name:?} takes {wanted}, not {got}")));
        }
        let own = tensor.dims();
        let fits = spec.fits(own) && (!signature.is_batched() || own.first() == Some(&batch.rows));
        if !fits {
            let wanted: Vec<i64> = spec.shape().collect();
            let text = format!("input {name:?} has the shape {own:?}, the model takes {wanted:?}");
            return Err(BackendError::Input(text));
        }
    }
    Ok(())
}

/// The answer of no rows, which is not worth a run. What is free in an output's rows is then empty too.
pub(crate) fn no_rows(signature: &Signature, outputs: &mut Outputs) -> Result<(), BackendError> {
    for spec in &signature.outputs {
        let dims: Vec<usize> =
            std::iter::once(0).chain(spec.row.iter().map(|size| size.unwrap_or(0))).collect();
        let shape = Shape::new(&dims).ok_or_else(|| BackendError::Internal("too many dimensions".into()))?;
        outputs.bytes(spec.dtype, shape, &[]);
    }
    Ok(())
}
