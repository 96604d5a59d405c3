//! Elements of a tensor to JSON values: flat, nested, or one row of it.
//!
//! Not here: the answer around them.

use models::{DType, Tensor, f64_of_half};

use base64::Engine as _;

use crate::json::{NotFinite, push_float, push_i64, push_text, push_u64};

/// How a protocol spells elements.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    /// Numbers that are not finite.
    pub(crate) other: NotFinite,
    /// All texts as `{"b64": "…"}`; else only those that are not UTF-8.
    pub(crate) b64: bool,
}

/// Appends elements `from..to`, separated by commas, without brackets.
pub(crate) fn flat(out: &mut Vec<u8>, tensor: &Tensor<'_>, from: usize, to: usize, style: Style) {
    macro_rules! numbers {
        ($type:ty, $push:expr) => {{
            let size = size_of::<$type>();
            let bytes = tensor.bytes().get(from * size..to * size).unwrap_or_default();
            for (index, chunk) in bytes.chunks_exact(size).enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                $push(out, bytemuck::pod_read_unaligned::<$type>(chunk));
            }
        }};
    }
    match tensor.dtype() {
        DType::F64 => numbers!(f64, |out, x| push_float(out, x, style.other)),
        DType::F32 => numbers!(f32, |out, x| push_float(out, x, style.other)),
        DType::F16 => numbers!(u16, |out, x| push_float(out, f64_of_half(x) as f32, style.other)),
        DType::BF16 => {
            numbers!(u16, |out, x| push_float(out, f32::from_bits(u32::from(x) << 16), style.other));
        }
        DType::I64 => numbers!(i64, push_i64),
        DType::U64 => numbers!(u64, push_u64),
        DType::I32 => numbers!(i32, |out, x| push_i64(out, i64::from(x))),
        DType::U32 => numbers!(u32, |out, x| push_i64(out, i64::from(x))),
        DType::I16 => numbers!(i16, |out, x| push_i64(out, i64::from(x))),
        DType::U16 => numbers!(u16, |out, x| push_i64(out, i64::from(x))),
        DType::I8 => numbers!(i8, |out, x| push_i64(out, i64::from(x))),
        DType::U8 => numbers!(u8, |out, x| push_i64(out, i64::from(x))),
        DType::Bool => numbers!(u8, |out: &mut Vec<u8>, x| {
            out.extend_from_slice(if x == 0 { b"false" } else { b"true" });
        }),
        DType::Text => {
            for (index, bytes) in tensor.elements().take(to).skip(from).flatten().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                text(out, bytes, style);
            }
        }
    }
}

fn text(out: &mut Vec<u8>, bytes: &[u8], style: Style) {
    match std::str::from_utf8(bytes) {
        Ok(text) if !style.b64 => push_text(out, text),
        _ => {
            out.extend_from_slice(b"{\"b64\":\"");
            let start = out.len();
            out.resize(start + bytes.len().div_ceil(3) * 4, 0);
            let written = base64::engine::general_purpose::STANDARD.encode_slice(bytes, &mut out[start..]);
            out.truncate(start + written.unwrap_or(0));
            out.extend_from_slice(b"\"}");
        }
    }
}

/// Appends elements from `from` on, nested as `dims`.
pub(crate) fn nested(out: &mut Vec<u8>, tensor: &Tensor<'_>, dims: &[usize], from: usize, style: Style) {
    match dims {
        [] => flat(out, tensor, from, from + 1, style),
        [count] => {
            out.push(b'[');
            flat(out, tensor, from, from + count, style);
            out.push(b']');
        }
        [count, inner @ ..] => {
            let stride: usize = inner.iter().product();
            out.push(b'[');
            for index in 0..*count {
                if index > 0 {
                    out.push(b',');
                }
                nested(out, tensor, inner, from + index * stride, style);
            }
            out.push(b']');
        }
    }
}
