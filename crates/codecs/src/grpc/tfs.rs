//! Messages of `tensorflow.serving.PredictionService` and `ModelService`.
//!
//! A `TensorProto` holds its numbers as raw bytes or in a field for its type; in that field the last value stands
//! for all that are missing, which is how TensorFlow's client sends a constant tensor. Raw bytes and packed floats
//! are read in place; what repetition makes is bounded by [`EXPANDED_MAX`] for a request.
//!
//! Requests with examples are read in two steps, as in [`crate::tfs`]: which model, then its inputs by name.

use models::{DType, RANK_MAX, Shape, Signature, TensorSpec};

use super::oip::{entry, span_of};
use crate::call::{Call, Input, Span, Wanted, Wrong};
use crate::tfs::{Fields as Names, of_tf_type, own_name};
use crate::wire::{Field, Fields, Value, WireError};

mod answers;
mod serialised;
mod status;

pub use answers::{
    Answered, encode_metadata, encode_predict, encode_status, put_answered, put_classifications,
    put_regressions,
};
pub use serialised::decode_serialised_examples;
pub use status::{ModelOrder, VersionPolicy, decode_reload, encode_reload, encode_versions, metadata_fields};

/// Bytes that repeated last values may take in one request.
pub const EXPANDED_MAX: usize = 64 << 20;

/// Reads a `ModelSpec`.
fn model_spec(message: &[u8], body: &[u8], call: &mut Call) -> Result<(), WireError> {
    for field in Fields::of(message) {
        let field = field?;
        match field.number {
            1 => call.target.name = span_of(field.text()?.as_bytes(), body),
            2 => {
                let mut version = 0;
                for field in Fields::of(field.bytes()?) {
                    let field = field?;
                    if field.number == 1 {
                        version = field.int()? as i64;
                    }
                }
                call.target.version = Some(version);
            }
            3 => call.target.signature = span_of(field.text()?.as_bytes(), body),
            4 => call.target.label = span_of(field.text()?.as_bytes(), body),
            _ => {}
        }
    }
    Ok(())
}

/// Decodes a `PredictRequest`.
pub fn decode_predict(body: &[u8], call: &mut Call) -> Result<(), Wrong> {
    call.clear();
    for field in Fields::of(body) {
        let field = field?;
        match field.number {
            1 => model_spec(field.bytes()?, body, call)?,
            2 => {
                let (name, message) = entry(field.bytes()?)?;
                tensor(name, message, body, call)?;
            }
            3 => {
                if call.wanted.len() == crate::call::TENSORS_MAX {
                    return Err(Wrong::request("too many outputs are asked for"));
                }
                let name = span_of(field.text()?.as_bytes(), body);
                call.wanted.push(Wanted { name, binary: None, classes: 0 });
            }
            _ => {}
        }
    }
    Ok(())
}

fn tensor_shape(message: &[u8], name: &str) -> Result<Shape, Wrong> {
    let (mut dims, mut rank) = ([0_usize; RANK_MAX], 0);
    for field in Fields::of(message) {
        let field = field?;
        if field.number == 3 && field.int()? != 0 {
            return Err(Wrong::tensor(name, "a tensor of unknown rank has no values"));
        }
        if field.number != 2 {
            continue;
        }
        let mut size = 0;
        for field in Fields::of(field.bytes()?) {
            let field = field?;
            if field.number == 1 {
                size = field.int()? as i64;
            }
        }
        let size = usize::try_from(size).map_err(|_| Wrong::tensor(name, "a dimension is negative"))?;
        let place = dims.get_mut(rank);
        *place.ok_or_else(|| Wrong::tensor(name, "more dimensions than a tensor can have"))? = size;
        rank += 1;
    }
    Shape::new(&dims[..rank]).ok_or_else(|| Wrong::tensor(name, "a shape with too many elements"))
}

/// The field of a `TensorProto` that has the values of a type.
fn field_of(dtype: DType) -> u32 {
    match dtype {
        DType::F16 | DType::BF16 => 13,
        DType::F32 => 5,
        DType::F64 => 6,
        DType::U8 | DType::I8 | DType::U16 | DType::I16 | DType::I32 => 7,
        DType::Text => 8,
        DType::I64 => 10,
        DType::Bool => 11,
        DType::U32 => 16,
        DType::U64 => 17,
    }
}

fn tensor(name: &str, message: &[u8], body: &[u8], call: &mut Call) -> Result<(), Wrong> {
    let (mut dtype, mut shape, mut content) = (None, Shape::new(&[]), &[][..]);
    for field in Fields::of(message) {
        let field = field?;
        match field.number {
            1 => {
                let number = field.int()?;
                dtype = of_tf_type(number);
                if dtype.is_none() {
                    return Err(Wrong::tensor(name, format!("the type {number} is not served")));
                }
            }
            2 => shape = Some(tensor_shape(field.bytes()?, name)?),
            4 => content = field.bytes()?,
            _ => {}
        }
    }
    let Some(dtype) = dtype else { return Err(Wrong::tensor(name, "it has no dtype")) };
    let shape = shape.ok_or_else(|| Wrong::tensor(name, "it has no shape"))?;
    let data = if content.is_empty() {
        values(name, message, dtype, shape, body, call)?
    } else if dtype == DType::Text {
        return Err(Wrong::tensor(name, "texts go in string_val, not in tensor_content"));
    } else {
        span_of(content, body)
    };
    let name = span_of(name.as_bytes(), body);
    call.add(Input { name, dtype, shape, data }, body)
}

fn values(
    name: &str,
    message: &[u8],
    dtype: DType,
    shape: Shape,
    body: &[u8],
    call: &mut Call,
) -> Result<Span, Wrong> {
    let (wanted, count) = (field_of(dtype), shape.count());
    let start = call.own.align();
    let mut overflow = false;
    let mut last = start;
    let mut texts = 0;
    for field in Fields::of(message) {
        let field = field?;
        if field.number != wanted {
            continue;
        }
        // The usual case: all numbers packed in one run that lies as the tensor does.
        if let (Value::Bytes(bytes), DType::F32 | DType::F64) = (field.value, dtype)
            && Some(bytes.len()) == count.checked_mul(dtype.size())
            && call.own.len() == start
        {
            return Ok(span_of(bytes, body));
        }
        if dtype == DType::Text {
            last = call.own.len();
            texts += 1;
            call.own.push_text(field.bytes()?);
        } else {
            overflow |= !numbers(&field, dtype, call)?;
        }
    }
    if overflow {
        return Err(Wrong::tensor(name, format!("a number is out of the range of {}", dtype.v2_name())));
    }
    let (have, size) = match dtype {
        DType::Text => (texts, (call.own.len() - last).max(4)),
        _ => ((call.own.len() - start) / dtype.size(), dtype.size()),
    };
    if have < count {
        let missing = count - have;
        let room = EXPANDED_MAX.saturating_sub(call.own.len());
        if missing.checked_mul(size).is_none_or(|bytes| bytes > room) {
            let why = format!("{shape:?} has {count} elements, but only {have} values are there");
            return Err(Wrong::tensor(name, why));
        }
        if have == 0 {
            call.own.grow(missing * size).fill(0);
        } else {
            call.own.repeat_last(size, missing);
        }
    }
    Ok(call.own.span(start))
}

fn numbers(field: &Field<'_>, dtype: DType, call: &mut Call) -> Result<bool, WireError> {
    let own = &mut call.own;
    let mut fits = true;
    macro_rules! narrowed {
        ($type:ty) => {
            field.ints(|number| {
                let narrow = <$type>::try_from(number as i64);
                fits &= narrow.is_ok();
                own.push(narrow.unwrap_or_default());
            })?
        };
    }
    match (dtype, field.value) {
        (DType::F32, Value::Fixed32(bits)) => own.push(bits),
        (DType::F64, Value::Fixed64(bits)) => own.push(bits),
        (DType::F32 | DType::F64, Value::Bytes(bytes)) => own.extend(bytes),
        (DType::Bool, _) => field.ints(|number| own.push(u8::from(number != 0)))?,
        (DType::U8, _) => narrowed!(u8),
        (DType::I8, _) => narrowed!(i8),
        (DType::U16 | DType::F16 | DType::BF16, _) => narrowed!(u16),
        (DType::I16, _) => narrowed!(i16),
        (DType::I32, _) => narrowed!(i32),
        (DType::U32, _) => narrowed!(u32),
        (DType::I64 | DType::U64, _) => field.ints(|number| own.push(number))?,
        _ => return Err(WireError::Type(field.number)),
    }
    Ok(fits)
}

/// A request's parts besides its tensors.
#[derive(Debug, Clone, Default)]
pub struct Request<'a> {
    /// The `Input` message, for [`decode_examples`].
    pub input: &'a [u8],
    /// The tasks of a `MultiInferenceRequest`: `ModelSpec` and method.
    pub tasks: Vec<(&'a [u8], &'a str)>,
}

/// Reads the model of a `ClassificationRequest`, `RegressionRequest`, `GetModelMetadataRequest` or
/// `GetModelStatusRequest` into the call, and returns where the input is.
pub fn decode_target<'a>(body: &'a [u8], call: &mut Call) -> Result<Request<'a>, Wrong> {
    call.clear();
    let mut request = Request::default();
    for field in Fields::of(body) {
        let field = field?;
        match (field.number, field.value) {
            (1, Value::Bytes(bytes)) => model_spec(bytes, body, call)?,
            (2, Value::Bytes(bytes)) => request.input = bytes,
            _ => {}
        }
    }
    Ok(request)
}

/// Reads the tasks of a `MultiInferenceRequest`.
pub fn decode_multi(body: &[u8]) -> Result<Request<'_>, Wrong> {
    const TASKS_MAX: usize = 64;
    let mut request = Request::default();
    for field in Fields::of(body) {
        let field = field?;
        match field.number {
            1 => {
                let (mut spec, mut method) = (&[][..], "");
                for field in Fields::of(field.bytes()?) {
                    let field = field?;
                    match field.number {
                        1 => spec = field.bytes()?,
                        2 => method = field.text()?,
                        _ => {}
                    }
                }
                request.tasks.push((spec, method));
                if request.tasks.len() > TASKS_MAX {
                    return Err(Wrong::request("too many tasks"));
                }
            }
            2 => request.input = field.bytes()?,
            _ => {}
        }
    }
    Ok(request)
}

/// Reads the `ModelSpec` of a task into the call.
pub fn decode_spec(spec: &[u8], body: &[u8], call: &mut Call) -> Result<(), Wrong> {
    call.clear();
    Ok(model_spec(spec, body, call)?)
}

/// Reads an `Input`'s examples as the signature's inputs; the target in the call stays.
pub fn decode_examples(
    input: &[u8],
    body: &[u8],
    signature: &Signature,
    call: &mut Call,
) -> Result<(), Wrong> {
    let target = call.target;
    call.clear();
    call.target = target;
    let names = Names::of_examples(signature);
    let width = names.len();
    // The context's features come first and are the values that examples begin with.
    call.spans.resize(width, Span::default());
    let mut count = 0;
    for field in Fields::of(input) {
        let field = field?;
        if !matches!(field.number, 1 | 2) {
            continue;
        }
        let list = field.bytes()?;
        for field in Fields::of(list) {
            let field = field?;
            if field.number == 2 {
                example(field.bytes()?, body, &names, call, 0)?;
            }
        }
        for field in Fields::of(list) {
            let field = field?;
            if field.number != 1 {
                continue;
            }
            let start = call.spans.len();
            call.spans.extend_from_within(..width);
            example(field.bytes()?, body, &names, call, start)?;
            if let Some(missing) = call.spans[start..].iter().position(|span| span.is_empty()) {
                return Err(Wrong::tensor(
                    names.name(missing),
                    format!("example {count} lacks this feature"),
                ));
            }
            count += 1;
        }
    }
    if count == 0 {
        return Err(Wrong::request("Input is empty."));
    }
    call.spans.drain(..width);
    match names {
        Names::Inputs(inputs) => {
            for (place, spec) in inputs.iter().enumerate() {
                gather(spec, (0..count).map(|index| index * width + place), body, call, None)?;
            }
            Ok(())
        }
        Names::Columns(spec, _) => gather(spec, 0..count * width, body, call, Some(width)),
    }
}

/// Notes where an `Example`'s features are.
fn example(
    message: &[u8],
    body: &[u8],
    names: &Names<'_>,
    call: &mut Call,
    start: usize,
) -> Result<(), WireError> {
    for field in Fields::of(message) {
        let field = field?;
        if field.number != 1 {
            continue;
        }
        for field in Fields::of(field.bytes()?) {
            let field = field?;
            if field.number == 1 {
                let (name, feature) = entry(field.bytes()?)?;
                if let Some(place) = names.position(name) {
                    call.spans[start + place] = span_of(feature, body);
                }
            }
        }
    }
    Ok(())
}

/// Reads noted features into one tensor. `width` is that of a table whose columns they are.
fn gather(
    spec: &TensorSpec,
    places: impl Iterator<Item = usize>,
    body: &[u8],
    call: &mut Call,
    width: Option<usize>,
) -> Result<(), Wrong> {
    let start = call.own.align();
    let (mut rows, mut each) = (0, None);
    for place in places {
        let span = call.spans[place];
        let count = feature(&body[span.start..span.end], spec, call)?;
        if *each.get_or_insert(count) != count {
            return Err(Wrong::tensor(&spec.name, "examples have features of different lengths"));
        }
        rows += 1;
    }
    let each = each.unwrap_or(0);
    let data = call.own.span(start);
    let shape = match width {
        Some(_) if each != 1 => {
            return Err(Wrong::tensor(&spec.name, "a column's feature is no single value"));
        }
        Some(width) => Shape::new(&[rows / width, width]),
        None if spec.row.is_empty() && each == 1 => Shape::new(&[rows]),
        None => Shape::new(&[rows, each]),
    };
    let shape = shape.ok_or_else(|| Wrong::tensor(&spec.name, "a shape with too many elements"))?;
    let name = own_name(call, &spec.name);
    call.add(Input { name, dtype: spec.dtype, shape, data }, body)
}

/// Appends a `Feature`'s values as the input's type; how many.
fn feature(message: &[u8], spec: &TensorSpec, call: &mut Call) -> Result<usize, Wrong> {
    let own = &mut call.own;
    let mut count = 0;
    let mut fits = true;
    for list in Fields::of(message) {
        let list = list?;
        for value in Fields::of(list.bytes()?) {
            let value = value?;
            if value.number != 1 {
                continue;
            }
            match (list.number, spec.dtype) {
                (1, DType::Text) => {
                    own.push_text(value.bytes()?);
                    count += 1;
                }
                (2, DType::F32 | DType::F64) => {
                    let mut push = |number: f32| {
                        count += 1;
                        if spec.dtype == DType::F32 { own.push(number) } else { own.push(f64::from(number)) }
                    };
                    match value.value {
                        Value::Fixed32(bits) => push(f32::from_bits(bits)),
                        Value::Bytes(bytes) if bytes.len() % 4 == 0 => {
                            let chunks = bytes.chunks_exact(4);
                            chunks.for_each(|chunk| push(bytemuck::pod_read_unaligned(chunk)));
                        }
                        _ => return Err(WireError::Type(1).into()),
                    }
                }
                (3, DType::I64 | DType::I32 | DType::F64 | DType::F32 | DType::Bool) => {
                    value.ints(|number| {
                        let number = number as i64;
                        count += 1;
                        match spec.dtype {
                            DType::I64 => own.push(number),
                            DType::F64 => own.push(number as f64),
                            DType::F32 => own.push(number as f32),
                            DType::Bool => own.push(u8::from(number != 0)),
                            _ => {
                                fits &= i32::try_from(number).is_ok();
                                own.push(number as i32);
                            }
                        }
                    })?
                }
                _ => {
                    let why = format!("the feature's list is not of the type {}", spec.dtype.v2_name());
                    return Err(Wrong::tensor(&spec.name, why));
                }
            }
        }
    }
    if fits { Ok(count) } else { Err(Wrong::tensor(&spec.name, "a number is out of range")) }
}

#[cfg(test)]
mod tests;
