//! The small messages of `inference.GRPCInferenceService`: about the server, its models and their repository.
//!
//! Not here: inference (`oip`).

use models::{DType, Signature, TensorSpec};

use super::{entry, put_shape};
use crate::wire::{
    Fields, WireError, put_bytes, put_bytes_always, put_int, put_len, put_message, put_varint, varint_len,
};

/// The name and version in `ModelReadyRequest`, `ModelMetadataRequest`, `ModelConfigRequest` and
/// `ModelStatisticsRequest`.
pub fn decode_name(body: &[u8]) -> Result<(&str, &str), WireError> {
    let (mut name, mut version) = ("", "");
    for field in Fields::of(body) {
        let field = field?;
        match field.number {
            1 => name = field.text()?,
            2 => version = field.text()?,
            _ => {}
        }
    }
    Ok((name, version))
}

/// Appends the only field of `ServerLiveResponse`, `ServerReadyResponse` and `ModelReadyResponse`.
pub fn encode_truth(out: &mut Vec<u8>, truth: bool) {
    put_int(out, 1, u64::from(truth));
}

/// Appends a `ServerMetadataResponse`.
pub fn encode_server(out: &mut Vec<u8>, name: &str, version: &str, extensions: &[&str]) {
    put_bytes(out, 1, name.as_bytes());
    put_bytes(out, 2, version.as_bytes());
    extensions.iter().for_each(|extension| put_bytes_always(out, 3, extension.as_bytes()));
}

/// Appends a `ModelMetadataResponse`.
pub fn encode_metadata(
    out: &mut Vec<u8>,
    name: &str,
    versions: impl Iterator<Item = String>,
    platform: &str,
    signature: &Signature,
) {
    put_bytes(out, 1, name.as_bytes());
    versions.for_each(|version| put_bytes_always(out, 2, version.as_bytes()));
    put_bytes(out, 3, platform.as_bytes());
    let mut all = |field, specs: &[TensorSpec]| {
        for spec in specs {
            put_message(out, field, |out| {
                put_bytes(out, 1, spec.name.as_bytes());
                put_bytes(out, 2, spec.dtype.v2_name().as_bytes());
                put_shape(out, spec.shape());
            });
        }
    };
    all(4, &signature.inputs);
    all(5, &signature.outputs);
}

/// Triton's number of a type in `model_config.proto`.
fn config_type(dtype: DType) -> u64 {
    match dtype {
        DType::Bool => 1,
        DType::U8 => 2,
        DType::U16 => 3,
        DType::U32 => 4,
        DType::U64 => 5,
        DType::I8 => 6,
        DType::I16 => 7,
        DType::I32 => 8,
        DType::I64 => 9,
        DType::F16 => 10,
        DType::F32 => 11,
        DType::F64 => 12,
        DType::Text => 13,
        DType::BF16 => 14,
    }
}

/// Appends a `ModelConfigResponse` with what there is to say: name, platform, tensors.
pub fn encode_config(out: &mut Vec<u8>, name: &str, platform: &str, batch_max: u64, signature: &Signature) {
    put_message(out, 1, |out| {
        put_bytes(out, 1, name.as_bytes());
        put_bytes(out, 2, platform.as_bytes());
        put_int(out, 4, batch_max);
        for (field, specs) in [(5, &signature.inputs), (6, &signature.outputs)] {
            for spec in specs {
                put_message(out, field, |out| {
                    put_bytes(out, 1, spec.name.as_bytes());
                    put_int(out, 2, config_type(spec.dtype));
                    // Inputs have `format` as field 3, outputs their dimensions.
                    let place = if field == 5 { 4 } else { 3 };
                    let skip = usize::from(batch_max > 0);
                    let len: usize = spec.shape().skip(skip).map(|dim| varint_len(dim as u64)).sum();
                    if len > 0 {
                        put_len(out, place, len);
                        spec.shape().skip(skip).for_each(|dim| put_varint(out, dim as u64));
                    }
                });
            }
        }
        put_bytes(out, 17, platform.as_bytes());
    });
}

/// What is known of a model's calls.
#[derive(Debug, Clone, Copy, Default)]
pub struct Statistics {
    /// Successful calls.
    pub success: u64,
    /// Their nanoseconds in all.
    pub success_ns: u64,
    /// Failed calls.
    pub failed: u64,
    /// Rows that were evaluated.
    pub rows: u64,
    /// Evaluations, of which each is a batch of rows.
    pub executions: u64,
}

/// Appends one model of a `ModelStatisticsResponse`.
pub fn encode_statistics(out: &mut Vec<u8>, name: &str, version: &str, statistics: Statistics) {
    let duration = |out: &mut Vec<u8>, field, count, ns| {
        put_message(out, field, |out| {
            put_int(out, 1, count);
            put_int(out, 2, ns);
        });
    };
    put_message(out, 1, |out| {
        put_bytes(out, 1, name.as_bytes());
        put_bytes(out, 2, version.as_bytes());
        put_int(out, 4, statistics.rows);
        put_int(out, 5, statistics.executions);
        put_message(out, 6, |out| {
            duration(out, 1, statistics.success, statistics.success_ns);
            duration(out, 2, statistics.failed, 0);
        });
    });
}

/// `ready` of a `RepositoryIndexRequest`: only models that answer.
pub fn decode_index(body: &[u8]) -> Result<bool, WireError> {
    let mut ready = false;
    for field in Fields::of(body) {
        let field = field?;
        if field.number == 2 {
            ready = field.int()? != 0;
        }
    }
    Ok(ready)
}

/// Appends one model of a `RepositoryIndexResponse`.
pub fn encode_index(out: &mut Vec<u8>, name: &str, version: &str, state: &str, reason: &str) {
    put_message(out, 1, |out| {
        put_bytes(out, 1, name.as_bytes());
        put_bytes(out, 2, version.as_bytes());
        put_bytes(out, 3, state.as_bytes());
        put_bytes(out, 4, reason.as_bytes());
    });
}

/// The model of a `RepositoryModelLoadRequest` or `…UnloadRequest`, and whether the request carries a configuration or
/// files of its own, which Triton takes.
pub fn decode_load(body: &[u8]) -> Result<(&str, bool), WireError> {
    let (mut first, mut second, mut carries) = ("", "", false);
    for field in Fields::of(body) {
        let field = field?;
        match field.number {
            1 => first = field.text()?,
            2 => second = field.text()?,
            3 => {
                let (key, _) = entry(field.bytes()?)?;
                carries |= key == "config" || key.starts_with("file:");
            }
            _ => {}
        }
    }
    Ok((if second.is_empty() { first } else { second }, carries))
}

/// Appends KServe's `RepositoryModelLoadResponse` or `…UnloadResponse`.
pub fn encode_load(out: &mut Vec<u8>, name: &str, done: bool) {
    put_bytes(out, 1, name.as_bytes());
    put_int(out, 2, u64::from(done));
}

/// Appends Triton's `ModelStreamInferResponse` around an error.
pub fn encode_stream_error(out: &mut Vec<u8>, text: &str, id: &str) {
    put_bytes(out, 1, text.as_bytes());
    if !id.is_empty() {
        put_message(out, 2, |out| put_bytes(out, 3, id.as_bytes()));
    }
}
