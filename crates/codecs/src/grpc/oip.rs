//! Messages of `inference.GRPCInferenceService`.
//!
//! KServe, Triton and MLServer share the service's name and most messages. Where they differ, what any of their
//! clients sends is understood: a load request's model is field 2 (Triton, MLServer) or else field 1 (KServe), and
//! the load answer has KServe's two fields, which the others skip as unknown.
//!
//! `ModelInferRequest` is read in place: `raw_input_contents` stay in the request. If they are used at all they must
//! be there for every input, and no input may have typed contents.

mod about;

use models::{DType, RANK_MAX, Shape, Tensor, f64_of_half};

use crate::call::{Call, Input, Span, Wanted, Wrong};
use crate::wire::{
    Field, Fields, Value, WireError, put_bytes, put_bytes_always, put_len, put_message, put_varint,
    varint_len,
};

pub use about::{
    Statistics, decode_index, decode_load, decode_name, encode_config, encode_index, encode_load,
    encode_metadata, encode_server, encode_statistics, encode_stream_error, encode_truth,
};

fn wrong<T>(why: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong::request(why))
}

/// Where a part of the body is; nothing for what is no part of it, as the empty default.
pub(crate) fn span_of(part: &[u8], body: &[u8]) -> Span {
    match part.as_ptr().addr().checked_sub(body.as_ptr().addr()) {
        Some(start) if start + part.len() <= body.len() => Span::body(start, start + part.len()),
        _ => Span::default(),
    }
}

/// Decodes a `ModelInferRequest`.
pub fn decode_infer(body: &[u8], call: &mut Call) -> Result<(), Wrong> {
    call.clear();
    let mut typed = false;
    // Inputs wait for their raw contents, which follow them.
    let mut raw = 0;
    for field in Fields::of(body) {
        let field = field?;
        match field.number {
            1 => call.target.name = span_of(field.text()?.as_bytes(), body),
            2 => call.target.version_text = span_of(field.text()?.as_bytes(), body),
            3 => call.id = span_of(field.text()?.as_bytes(), body),
            4 => parameter(field.bytes()?, call)?,
            5 => typed |= input(field.bytes()?, body, call)?,
            6 => wanted(field.bytes()?, body, call)?,
            7 => {
                raw += 1;
                if raw > crate::call::TENSORS_MAX {
                    return wrong("too many raw_input_contents");
                }
                call.spans.push(span_of(field.bytes()?, body));
            }
            _ => {}
        }
    }
    if raw == 0 {
        return call.inputs.iter().try_for_each(|input| call.check(input, body));
    }
    call.raw = true;
    if typed {
        return wrong("contents and raw_input_contents are both set; use one of them for all inputs");
    }
    let count = call.inputs.len();
    if raw != count {
        return wrong(format!("expected {count} raw_input_contents, one for each input, got {raw}"));
    }
    for (input, data) in call.inputs.iter_mut().zip(&call.spans) {
        input.data = *data;
    }
    call.inputs.iter().try_for_each(|input| call.check(input, body))
}

/// The entry's key and value.
pub(crate) fn entry(message: &[u8]) -> Result<(&str, &[u8]), WireError> {
    let (mut key, mut value) = ("", &[][..]);
    for field in Fields::of(message) {
        let field = field?;
        match field.number {
            1 => key = field.text()?,
            2 => value = field.bytes()?,
            _ => {}
        }
    }
    Ok((key, value))
}

/// A parameter's value, in the few forms that known parameters have.
enum Parameter<'a> {
    Number(u64),
    Text(&'a str),
    Other,
}

fn value_of(message: &[u8]) -> Result<Parameter<'_>, WireError> {
    let mut value = Parameter::Other;
    for field in Fields::of(message) {
        let field = field?;
        value = match (field.number, field.value) {
            (1 | 2 | 5, Value::Varint(number)) => Parameter::Number(number),
            (3, Value::Bytes(_)) => Parameter::Text(field.text()?),
            _ => Parameter::Other,
        };
    }
    Ok(value)
}

fn parameter(message: &[u8], call: &mut Call) -> Result<(), Wrong> {
    let (key, value) = entry(message)?;
    let known = &mut call.parameters;
    match (key, value_of(value)?) {
        ("priority", Parameter::Number(number)) => known.priority = number,
        ("timeout", Parameter::Number(number)) => known.timeout_us = number,
        ("timeout", Parameter::Text(text)) => match text.parse() {
            Ok(number) => known.timeout_us = number,
            Err(_) => return wrong(format!("the parameter timeout is {:?}", text.get(..40).unwrap_or(text))),
        },
        ("sequence_id", Parameter::Number(number)) => known.has_sequence = number != 0,
        ("sequence_id", Parameter::Text(text)) => known.has_sequence = !text.is_empty(),
        ("triton_enable_empty_final_response", Parameter::Number(number)) => known.empty_final = number != 0,
        _ => {}
    }
    Ok(())
}

fn input(message: &[u8], body: &[u8], call: &mut Call) -> Result<bool, Wrong> {
    if call.inputs.len() == crate::call::TENSORS_MAX {
        return wrong("too many inputs");
    }
    let (mut name, mut dtype) = ("", None);
    let (mut dims, mut rank) = ([0_usize; RANK_MAX], 0);
    let mut bad = None;
    let mut contents: Option<&[u8]> = None;
    for field in Fields::of(message) {
        let field = field?;
        match field.number {
            1 => name = field.text()?,
            2 => {
                let text = field.text()?;
                dtype = DType::of_v2_name(text.as_bytes());
                if dtype.is_none() {
                    let shown: String = text.chars().take(40).collect();
                    bad = Some(format!("the datatype {shown:?} is none"));
                }
            }
            3 => field.ints(|dim| match (usize::try_from(dim as i64), dims.get_mut(rank)) {
                (Ok(dim), Some(place)) => {
                    *place = dim;
                    rank += 1;
                }
                (Err(_), _) => bad = Some("a dimension is negative".to_owned()),
                (_, None) => bad = Some("more dimensions than a tensor can have".to_owned()),
            })?,
            5 => contents = Some(field.bytes()?),
            _ => {}
        }
    }
    if let Some(bad) = bad {
        return Err(Wrong::tensor(name, bad));
    }
    let Some(dtype) = dtype else { return Err(Wrong::tensor(name, "it has no datatype")) };
    let Some(shape) = Shape::new(&dims[..rank]) else {
        return Err(Wrong::tensor(name, "a shape with too many elements"));
    };
    // An empty message is none: KServe's client sets it beside raw contents.
    let typed = contents.filter(|contents| !contents.is_empty());
    let data = match typed {
        Some(contents) => typed_contents(contents, dtype, body, call, name)?,
        None => Span::default(),
    };
    let name = span_of(name.as_bytes(), body);
    // Checked once all contents are known.
    call.inputs.push(Input { name, dtype, shape, data });
    Ok(typed.is_some())
}

fn typed_contents(
    contents: &[u8],
    dtype: DType,
    body: &[u8],
    call: &mut Call,
    name: &str,
) -> Result<Span, Wrong> {
    let wanted = match dtype {
        DType::Bool => 1,
        DType::I8 | DType::I16 | DType::I32 => 2,
        DType::I64 => 3,
        DType::U8 | DType::U16 | DType::U32 => 4,
        DType::U64 => 5,
        DType::F32 => 6,
        DType::F64 => 7,
        DType::Text => 8,
        DType::F16 | DType::BF16 => {
            return Err(Wrong::tensor(name, "FP16 and BF16 go in raw_input_contents only"));
        }
    };
    let start = call.own.align();
    let mut in_place: Option<Span> = None;
    let mut overflow = false;
    for field in Fields::of(contents) {
        let field = field?;
        if field.number != wanted {
            let why = format!("its contents do not lie in the field for {}", dtype.v2_name());
            return Err(Wrong::tensor(name, why));
        }
        match (field.value, dtype) {
            (Value::Bytes(bytes), DType::Text) => call.own.push_text(bytes),
            (Value::Bytes(bytes), DType::F32 | DType::F64 | DType::Bool) => {
                // Packed numbers of fixed size lie as a tensor lies; truth values do unless they are oddly long.
                let plain = dtype != DType::Bool || bytes.iter().all(|byte| *byte < 2);
                if plain && in_place.is_none() && call.own.len() == start {
                    in_place = Some(span_of(bytes, body));
                    continue;
                }
                if let Some(before) = in_place.take() {
                    call.own.extend(&body[before.start..before.end]);
                }
                if plain {
                    call.own.extend(bytes);
                } else {
                    field.ints(|number| call.own.push(u8::from(number != 0)))?;
                }
            }
            _ => {
                if let Some(before) = in_place.take() {
                    call.own.extend(&body[before.start..before.end]);
                }
                overflow |= !one_by_one(&field, dtype, call)?;
            }
        }
    }
    if overflow {
        return Err(Wrong::tensor(name, format!("a number is out of the range of {}", dtype.v2_name())));
    }
    Ok(in_place.unwrap_or_else(|| call.own.span(start)))
}

/// Numbers that have to be converted; false if one does not fit its type.
fn one_by_one(field: &Field<'_>, dtype: DType, call: &mut Call) -> Result<bool, WireError> {
    let own = &mut call.own;
    let mut fits = true;
    macro_rules! narrowed {
        ($type:ty, $wide:ty) => {
            field.ints(|number| {
                let narrow = <$type>::try_from(number as $wide);
                fits &= narrow.is_ok();
                own.push(narrow.unwrap_or_default());
            })?
        };
    }
    match (dtype, field.value) {
        (DType::F32, Value::Fixed32(bits)) => own.push(bits),
        (DType::F64, Value::Fixed64(bits)) => own.push(bits),
        (DType::Bool, Value::Varint(number)) => own.push(u8::from(number != 0)),
        (DType::I8, _) => narrowed!(i8, i64),
        (DType::I16, _) => narrowed!(i16, i64),
        (DType::I32, _) => narrowed!(i32, i64),
        (DType::I64, _) => field.ints(|number| own.push(number))?,
        (DType::U8, _) => narrowed!(u8, u64),
        (DType::U16, _) => narrowed!(u16, u64),
        (DType::U32, _) => narrowed!(u32, u64),
        (DType::U64, _) => field.ints(|number| own.push(number))?,
        _ => return Err(WireError::Type(field.number)),
    }
    Ok(fits)
}

fn wanted(message: &[u8], body: &[u8], call: &mut Call) -> Result<(), Wrong> {
    let mut wanted = Wanted { name: Span::default(), binary: None, classes: 0 };
    for field in Fields::of(message) {
        let field = field?;
        match field.number {
            1 => wanted.name = span_of(field.text()?.as_bytes(), body),
            2 => {
                let (key, value) = entry(field.bytes()?)?;
                match (key, value_of(value)?) {
                    ("binary_data", Parameter::Number(number)) => wanted.binary = Some(number != 0),
                    ("classification", Parameter::Number(number)) => {
                        wanted.classes = u32::try_from(number).unwrap_or(u32::MAX);
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }
    if call.wanted.len() == crate::call::TENSORS_MAX {
        return wrong("too many outputs are asked for");
    }
    call.wanted.push(wanted);
    Ok(())
}

/// The head of an answer.
pub use crate::v2::Head;

/// Appends a `ModelInferResponse`, its tensors raw or typed.
pub fn encode_infer<'t>(
    out: &mut Vec<u8>,
    head: Head<'_>,
    outputs: impl Iterator<Item = (&'t str, &'t Tensor<'t>)> + Clone,
    raw: bool,
) {
    put_bytes(out, 1, head.model.as_bytes());
    put_bytes(out, 2, head.version.as_bytes());
    put_bytes(out, 3, head.id.as_bytes());
    for (name, tensor) in outputs.clone() {
        put_message(out, 5, |out| {
            put_bytes(out, 1, name.as_bytes());
            put_bytes(out, 2, tensor.dtype().v2_name().as_bytes());
            put_shape(out, tensor.dims().iter().map(|dim| *dim as i64));
            if !raw {
                put_message(out, 5, |out| typed(out, tensor));
            }
        });
    }
    if raw {
        for (_, tensor) in outputs {
            put_bytes_always(out, 6, tensor.bytes());
        }
    }
}

fn put_shape(out: &mut Vec<u8>, dims: impl Iterator<Item = i64> + Clone) {
    let len: usize = dims.clone().map(|dim| varint_len(dim as u64)).sum();
    if len > 0 {
        put_len(out, 3, len);
        dims.for_each(|dim| put_varint(out, dim as u64));
    }
}

fn typed(out: &mut Vec<u8>, tensor: &Tensor<'_>) {
    macro_rules! varints {
        ($field:expr, $type:ty, $wide:ty) => {{
            let numbers = tensor
                .bytes()
                .chunks_exact(size_of::<$type>())
                .map(|chunk| <$wide>::from(bytemuck::pod_read_unaligned::<$type>(chunk)) as u64);
            let len: usize = numbers.clone().map(varint_len).sum();
            put_len(out, $field, len);
            numbers.for_each(|number| put_varint(out, number));
        }};
    }
    if tensor.bytes().is_empty() {
        return;
    }
    match tensor.dtype() {
        DType::Bool => put_bytes(out, 1, tensor.bytes()),
        DType::I8 => varints!(2, i8, i64),
        DType::I16 => varints!(2, i16, i64),
        DType::I32 => varints!(2, i32, i64),
        DType::I64 => varints!(3, i64, i64),
        DType::U8 => varints!(4, u8, u64),
        DType::U16 => varints!(4, u16, u64),
        DType::U32 => varints!(4, u32, u64),
        DType::U64 => varints!(5, u64, u64),
        DType::F32 => put_bytes(out, 6, tensor.bytes()),
        DType::F64 => put_bytes(out, 7, tensor.bytes()),
        // Halves have no field of their own; single precision holds them exactly.
        DType::F16 | DType::BF16 => {
            put_len(out, 6, tensor.bytes().len() * 2);
            for chunk in tensor.bytes().chunks_exact(2) {
                let bits = u16::from_le_bytes([chunk[0], chunk[1]]);
                let number = match tensor.dtype() {
                    DType::F16 => f64_of_half(bits) as f32,
                    _ => f32::from_bits(u32::from(bits) << 16),
                };
                out.extend_from_slice(&number.to_le_bytes());
            }
        }
        DType::Text => tensor.elements().flatten().for_each(|text| put_bytes_always(out, 8, text)),
    }
}

#[cfg(test)]
mod tests;
