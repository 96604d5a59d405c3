//! Answers of `tensorflow.serving.PredictionService` and `ModelService`.
//!
//! Not here: requests (`tfs`), what a status says (`status`).

use models::{DType, Dims, Signature, Tensor};

use super::{encode_versions, field_of};
use crate::tfs::{VersionStatus, tf_type};
use crate::wire::{
    put_bytes, put_bytes_always, put_f32, put_int, put_len, put_message, put_varint, varint_len,
};

/// Which model answered.
#[derive(Debug, Clone, Copy)]
pub struct Answered<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its version.
    pub version: Option<i64>,
    /// The signature that was used.
    pub signature: &'a str,
}

pub(super) fn put_spec(out: &mut Vec<u8>, field: u32, spec: Answered<'_>) {
    put_message(out, field, |out| {
        put_bytes(out, 1, spec.name.as_bytes());
        if let Some(version) = spec.version {
            put_message(out, 2, |out| put_int(out, 1, version as u64));
        }
        put_bytes(out, 3, spec.signature.as_bytes());
    });
}

/// Appends a `PredictResponse`. Numbers go into the fields of their types, which clients read by name.
pub fn encode_predict<'t>(
    out: &mut Vec<u8>,
    spec: Answered<'_>,
    outputs: impl Iterator<Item = (&'t str, &'t Tensor<'t>)>,
) {
    for (name, tensor) in outputs {
        put_message(out, 1, |out| {
            put_bytes(out, 1, name.as_bytes());
            put_message(out, 2, |out| put_tensor(out, tensor));
        });
    }
    put_spec(out, 2, spec);
}

pub(super) fn put_tensor(out: &mut Vec<u8>, tensor: &Tensor<'_>) {
    put_int(out, 1, u64::from(tf_type(tensor.dtype()).0));
    put_message(out, 2, |out| {
        for dim in tensor.dims() {
            put_message(out, 2, |out| put_int(out, 1, *dim as u64));
        }
    });
    let field = field_of(tensor.dtype());
    macro_rules! varints {
        ($type:ty, $wide:ty) => {{
            let numbers = tensor
                .bytes()
                .chunks_exact(size_of::<$type>())
                .map(|chunk| <$wide>::from(bytemuck::pod_read_unaligned::<$type>(chunk)) as u64);
            let len: usize = numbers.clone().map(varint_len).sum();
            if len > 0 {
                put_len(out, field, len);
                numbers.for_each(|number| put_varint(out, number));
            }
        }};
    }
    match tensor.dtype() {
        DType::F32 | DType::F64 | DType::Bool => put_bytes(out, field, tensor.bytes()),
        DType::Text => tensor.elements().flatten().for_each(|text| put_bytes_always(out, field, text)),
        DType::U8 => varints!(u8, u64),
        DType::I8 => varints!(i8, i64),
        DType::U16 | DType::F16 | DType::BF16 => varints!(u16, u64),
        DType::I16 => varints!(i16, i64),
        DType::I32 => varints!(i32, i64),
        DType::U32 => varints!(u32, u64),
        DType::I64 => varints!(i64, i64),
        DType::U64 => varints!(u64, u64),
    }
}

/// Appends a `ClassificationResult` or, with `field`, such as a member.
pub fn put_classifications<'l>(
    out: &mut Vec<u8>,
    field: u32,
    examples: impl Iterator<Item = impl Iterator<Item = (&'l str, f32)>>,
) {
    put_message(out, field, |out| {
        for classes in examples {
            put_message(out, 1, |out| {
                for (label, score) in classes {
                    put_message(out, 1, |out| {
                        put_bytes(out, 1, label.as_bytes());
                        put_f32(out, 2, score);
                    });
                }
            });
        }
    });
}

/// Appends a `RegressionResult` as a member.
pub fn put_regressions(out: &mut Vec<u8>, field: u32, values: impl Iterator<Item = f32>) {
    put_message(out, field, |out| {
        values.for_each(|value| put_message(out, 1, |out| put_f32(out, 1, value)));
    });
}

/// Appends the `model_spec` that ends a `ClassificationResponse` or `RegressionResponse` (2) or begins an
/// `InferenceResult` (1).
pub fn put_answered(out: &mut Vec<u8>, field: u32, spec: Answered<'_>) {
    put_spec(out, field, spec);
}

/// Appends a `GetModelMetadataResponse` with the signatures by name, each with its method.
pub fn encode_metadata(out: &mut Vec<u8>, spec: Answered<'_>, signatures: &[(&str, &Signature, &str)]) {
    put_spec(out, 1, spec);
    put_message(out, 2, |out| {
        put_bytes(out, 1, b"signature_def");
        put_message(out, 2, |out| {
            put_bytes(out, 1, b"type.googleapis.com/tensorflow.serving.SignatureDefMap");
            put_message(out, 2, |out| {
                for (name, signature, method) in signatures {
                    put_message(out, 1, |out| {
                        put_bytes(out, 1, name.as_bytes());
                        put_message(out, 2, |out| put_signature(out, signature, method));
                    });
                }
            });
        });
    });
}

fn put_signature(out: &mut Vec<u8>, signature: &Signature, method: &str) {
    for (field, specs) in [(1, &signature.inputs), (2, &signature.outputs)] {
        for spec in specs {
            put_message(out, field, |out| {
                put_bytes(out, 1, spec.name.as_bytes());
                put_message(out, 2, |out| {
                    put_bytes(out, 1, spec.name.as_bytes());
                    put_int(out, 2, u64::from(tf_type(spec.dtype).0));
                    put_message(out, 3, |out| {
                        for dim in spec.shape() {
                            put_message(out, 2, |out| put_int(out, 1, dim as u64));
                        }
                        put_int(out, 3, u64::from(spec.dims == Dims::Any));
                    });
                });
            });
        }
    }
    put_bytes(out, 3, method.as_bytes());
}

/// Appends a `GetModelStatusResponse`.
pub fn encode_status(out: &mut Vec<u8>, versions: &[VersionStatus]) {
    encode_versions(out, versions);
}
