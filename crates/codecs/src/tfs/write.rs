//! The answers of TensorFlow Serving's REST API.

use models::{Dims, Signature, Tensor, TensorSpec};

use super::tf_type;
use crate::emit::{Style, nested};
use crate::json::{NotFinite, push_float, push_i64, push_text};

/// Texts of outputs whose name ends so are bytes.
fn style_of(name: &str) -> Style {
    Style { other: NotFinite::Words, b64: name.ends_with("_bytes") }
}

/// Appends the answer in row format. All outputs must have the same number of rows; the error says which has not.
pub fn write_rows<'t>(out: &mut Vec<u8>, outputs: &[(&str, &Tensor<'t>)]) -> Result<(), String> {
    let rows = outputs.first().and_then(|(_, tensor)| tensor.dims().first().copied());
    for (name, tensor) in outputs {
        if tensor.dims().first().copied() != rows || rows.is_none() {
            return Err(format!(
                "Tensor name: {name} has inconsistent batch size: {:?}; use the column format",
                tensor.dims()
            ));
        }
    }
    let rows = rows.ok_or("the model gave no output")?;
    out.extend_from_slice(b"{\"predictions\":[");
    for row in 0..rows {
        if row > 0 {
            out.push(b',');
        }
        let single = outputs.len() == 1;
        for (index, (name, tensor)) in outputs.iter().enumerate() {
            if !single {
                out.push(if index == 0 { b'{' } else { b',' });
                push_text(out, name);
                out.push(b':');
            }
            let inner = &tensor.dims()[1..];
            let stride: usize = inner.iter().product();
            nested(out, tensor, inner, row * stride, style_of(name));
        }
        if !single {
            out.push(b'}');
        }
    }
    out.extend_from_slice(b"]}");
    Ok(())
}

/// Appends the answer in column format.
pub fn write_columns(out: &mut Vec<u8>, outputs: &[(&str, &Tensor<'_>)]) {
    out.extend_from_slice(b"{\"outputs\":");
    if let [(name, tensor)] = outputs {
        nested(out, tensor, tensor.dims(), 0, style_of(name));
    } else {
        out.push(b'{');
        for (index, (name, tensor)) in outputs.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            push_text(out, name);
            out.push(b':');
            nested(out, tensor, tensor.dims(), 0, style_of(name));
        }
        out.push(b'}');
    }
    out.push(b'}');
}

/// Appends the answer of classify: for each example its labels with their scores.
pub fn write_classifications<'l>(
    out: &mut Vec<u8>,
    examples: impl Iterator<Item = impl Iterator<Item = (&'l str, f32)>>,
) {
    out.extend_from_slice(b"{\"results\":[");
    for (index, classes) in examples.enumerate() {
        out.extend_from_slice(if index == 0 { b"[" } else { b",[" });
        for (place, (label, score)) in classes.enumerate() {
            out.extend_from_slice(if place == 0 { b"[" } else { b",[" });
            push_text(out, label);
            out.push(b',');
            push_float(out, score, NotFinite::Words);
            out.push(b']');
        }
        out.push(b']');
    }
    out.extend_from_slice(b"]}");
}

/// Appends the answer of regress.
pub fn write_regressions(out: &mut Vec<u8>, values: impl Iterator<Item = f32>) {
    out.extend_from_slice(b"{\"results\":[");
    for (index, value) in values.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        push_float(out, value, NotFinite::Words);
    }
    out.extend_from_slice(b"]}");
}

/// The state of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionStatus {
    /// The version.
    pub version: i64,
    /// `START` 10, `LOADING` 20, `AVAILABLE` 30, `UNLOADING` 40, `END` 50.
    pub state: u32,
    /// The gRPC code of what went wrong; 0 is nothing.
    pub code: u32,
    /// What went wrong.
    pub message: String,
}

impl VersionStatus {
    fn state_name(&self) -> &'static str {
        match self.state {
            10 => "START",
            20 => "LOADING",
            30 => "AVAILABLE",
            40 => "UNLOADING",
            50 => "END",
            _ => "UNKNOWN",
        }
    }
}

/// The names of gRPC's codes.
pub(crate) fn code_name(code: u32) -> &'static str {
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    NAMES.get(code as usize).copied().unwrap_or("UNKNOWN")
}

/// Appends the answer of a model's status.
pub fn write_status(out: &mut Vec<u8>, versions: &[VersionStatus]) {
    out.extend_from_slice(b"{\n \"model_version_status\": [\n");
    for (index, status) in versions.iter().enumerate() {
        if index > 0 {
            out.extend_from_slice(b",\n");
        }
        out.extend_from_slice(b"  {\n   \"version\": \"");
        push_i64(out, status.version);
        out.extend_from_slice(b"\",\n   \"state\": \"");
        out.extend_from_slice(status.state_name().as_bytes());
        out.extend_from_slice(b"\",\n   \"status\": {\n    \"error_code\": \"");
        out.extend_from_slice(code_name(status.code).as_bytes());
        out.extend_from_slice(b"\",\n    \"error_message\": ");
        push_text(out, &status.message);
        out.extend_from_slice(b"\n   }\n  }");
    }
    out.extend_from_slice(b"\n ]\n}\n");
}

/// Appends the answer of a model's metadata: its signatures by name, each with its method.
pub fn write_metadata(out: &mut Vec<u8>, model: &str, version: i64, signatures: &[(&str, &Signature, &str)]) {
    out.extend_from_slice(b"{\"model_spec\":{\"name\":");
    push_text(out, model);
    out.extend_from_slice(b",\"signature_name\":\"\",\"version\":\"");
    push_i64(out, version);
    out.extend_from_slice(b"\"},\"metadata\":{\"signature_def\":{\"signature_def\":{");
    for (index, (name, signature, method)) in signatures.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        push_text(out, name);
        out.extend_from_slice(b":{\"inputs\":");
        infos(out, &signature.inputs);
        out.extend_from_slice(b",\"outputs\":");
        infos(out, &signature.outputs);
        out.extend_from_slice(b",\"method_name\":");
        push_text(out, method);
        out.push(b'}');
    }
    out.extend_from_slice(b"}}}}");
}

fn infos(out: &mut Vec<u8>, specs: &[TensorSpec]) {
    out.push(b'{');
    for (index, spec) in specs.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        push_text(out, &spec.name);
        out.extend_from_slice(b":{\"dtype\":\"");
        out.extend_from_slice(tf_type(spec.dtype).1.as_bytes());
        out.extend_from_slice(b"\",\"tensor_shape\":{\"dim\":[");
        for (place, dim) in spec.shape().enumerate() {
            out.extend_from_slice(if place == 0 { b"{\"size\":\"" } else { b",{\"size\":\"" });
            push_i64(out, dim);
            out.extend_from_slice(b"\",\"name\":\"\"}");
        }
        out.extend_from_slice(b"],\"unknown_rank\":");
        out.extend_from_slice(if spec.dims == Dims::Any { b"true" } else { b"false" });
        out.extend_from_slice(b"},\"name\":");
        push_text(out, &spec.name);
        out.push(b'}');
    }
    out.push(b'}');
}

/// Appends the body of every failure.
pub fn write_error(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(b"{ \"error\": ");
    push_text(out, text);
    out.extend_from_slice(b" }");
}
