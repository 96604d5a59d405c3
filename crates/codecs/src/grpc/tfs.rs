//! Messages of `tensorflow.serving.PredictionService` and `ModelService`.
//!
//! A `TensorProto` holds its numbers as raw bytes or in a field for its type; in that field the last value stands
//! for all that are missing, which is how TensorFlow's client sends a constant tensor. Raw bytes and packed floats
//! are read in place; what repetition makes is bounded by [`EXPANDED_MAX`] for a request.
//!
//! Requests with examples are read in two steps, as in [`crate::tfs`]: which model, then its inputs by name.

use models::{DType, Dims, RANK_MAX, Shape, Signature, Tensor, TensorSpec};

use super::oip::{entry, span_of};
use crate::call::{Call, Input, Span, Wanted, Wrong};
use crate::tfs::{Fields as Names, VersionStatus, of_tf_type, own_name, tf_type};
use crate::wire::{
    Field, Fields, Value, WireError, put_bytes, put_bytes_always, put_f32, put_int, put_len, put_message,
    put_varint, varint_len,
};

mod serialised;
mod status;

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
            let from = call.own.len() - size;
            (0..missing).for_each(|_| call.own.repeat(from, size));
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

fn put_spec(out: &mut Vec<u8>, field: u32, spec: Answered<'_>) {
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

fn put_tensor(out: &mut Vec<u8>, tensor: &Tensor<'_>) {
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

#[cfg(test)]
mod tests;
