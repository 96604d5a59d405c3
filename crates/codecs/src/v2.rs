//! The Open Inference Protocol (KServe V2) in JSON, and its binary tensor extension.
//!
//! A request is `{"id", "parameters", "inputs": [{"name", "shape", "datatype", "parameters", "data"}], "outputs"}`.
//! With the extension, the JSON text is the body's first `Inference-Header-Content-Length` bytes, and the tensors
//! with the parameter `binary_data_size` follow it in their order as raw little-endian bytes; such and JSON tensors
//! may be mixed. Raw tensors are not copied.
//!
//! Keys may come in any order, data may be flat or nested as the shape says. Not here: HTTP's headers, models.

use std::borrow::Cow;

use models::{DType, RANK_MAX, Shape, Tensor};

use crate::call::{Call, Input, Span, Wanted, Wrong};
use crate::emit::{Style, flat};
use crate::fill::{Found, Rules, read};
use crate::json::{Cursor, JsonError, NotFinite, push_text, push_u64};

const RULES: Rules = Rules { nulls: true, b64: false };
const STYLE: Style = Style { other: NotFinite::Null, b64: false };

/// Decodes a request. `json_len` is the length of the JSON text where the binary extension is used.
pub fn decode(body: &[u8], json_len: Option<usize>, call: &mut Call) -> Result<(), Wrong> {
    call.clear();
    let length = json_len.unwrap_or(body.len());
    let Some(text) = body.get(..length) else {
        return Err(Wrong::request(format!(
            "Inference-Header-Content-Length is {length}, but the body has {} bytes",
            body.len()
        )));
    };
    let mut blobs = Blobs { at: length, end: body.len(), allowed: json_len.is_some() };
    let mut cursor = Cursor::new(text);
    let mut has_inputs = false;
    cursor.object(|cursor, key| -> Result<(), Wrong> {
        match key.as_ref() {
            "id" if cursor.null() => {}
            "id" => {
                // Some clients number their requests.
                let id = if cursor.peek() == Some(b'"') {
                    cursor.text()?
                } else {
                    let raw = cursor.skip()?;
                    Cow::Borrowed(std::str::from_utf8(raw).unwrap_or_default())
                };
                call.id = call.keep(&id, body);
            }
            "parameters" => parameters(cursor, call)?,
            "inputs" => {
                has_inputs = true;
                call.inputs.clear();
                cursor.list(|cursor| input(cursor, call, body, &mut blobs))?;
            }
            "outputs" if cursor.null() => {}
            "outputs" => cursor.list(|cursor| output(cursor, call, body))?,
            _ => drop(cursor.skip()?),
        }
        Ok(())
    })?;
    cursor.end()?;
    if !has_inputs {
        return Err(Wrong::request("Expected \"inputs\" in the request body"));
    }
    if blobs.at != blobs.end {
        let left = blobs.end - blobs.at;
        return Err(Wrong::request(format!("{left} bytes after the last raw tensor belong to none")));
    }
    Ok(())
}

/// The raw tensors behind the JSON text.
struct Blobs {
    at: usize,
    end: usize,
    allowed: bool,
}

impl Blobs {
    fn take(&mut self, name: &str, size: u64) -> Result<Span, Wrong> {
        if !self.allowed {
            let why = "binary_data_size without the header Inference-Header-Content-Length";
            return Err(Wrong::tensor(name, why));
        }
        let left = self.end - self.at;
        let size = usize::try_from(size).ok().filter(|size| *size <= left);
        let size = size.ok_or_else(|| {
            Wrong::tensor(
                name,
                format!("binary_data_size exceeds the {left} bytes that are left of the body"),
            )
        })?;
        let span = Span::body(self.at, self.at + size);
        self.at += size;
        Ok(span)
    }
}

fn unsigned(cursor: &mut Cursor<'_>) -> Result<u64, JsonError> {
    match cursor.integer()? {
        (true, 1..) => cursor.error("expected a number that is not negative"),
        (_, number) => Ok(number),
    }
}

fn parameters(cursor: &mut Cursor<'_>, call: &mut Call) -> Result<(), Wrong> {
    if cursor.null() {
        return Ok(());
    }
    let known = &mut call.parameters;
    cursor.object(|cursor, key| {
        match key.as_ref() {
            "binary_data_output" => known.binary_output = cursor.truth()?,
            "priority" => known.priority = unsigned(cursor)?,
            "timeout" => known.timeout_us = unsigned(cursor)?,
            "sequence_id" => {
                known.has_sequence = !matches!(cursor.skip()?, b"0" | b"\"\"");
            }
            "triton_enable_empty_final_response" => known.empty_final = cursor.truth()?,
            _ => drop(cursor.skip()?),
        }
        Ok(())
    })
}

fn shape(cursor: &mut Cursor<'_>) -> Result<Shape, JsonError> {
    let mut dims = [0; RANK_MAX];
    let mut rank = 0;
    cursor.list(|cursor| {
        let dim = unsigned(cursor)?;
        if rank == RANK_MAX {
            return cursor.error("more dimensions than a tensor can have");
        }
        let Ok(dim) = usize::try_from(dim) else { return cursor.error("a number out of range") };
        dims[rank] = dim;
        rank += 1;
        Ok(())
    })?;
    match Shape::new(&dims[..rank]) {
        Some(shape) => Ok(shape),
        None => cursor.error("a shape with too many elements"),
    }
}

fn input(cursor: &mut Cursor<'_>, call: &mut Call, body: &[u8], blobs: &mut Blobs) -> Result<(), Wrong> {
    let mut name: Option<Cow<'_, str>> = None;
    let mut dims: Option<Shape> = None;
    let mut dtype: Option<DType> = None;
    let mut size: Option<u64> = None;
    // Where the data lies; and what was read of it, if type and shape came first.
    let mut data: Option<usize> = None;
    let mut done: Option<Span> = None;
    cursor.object(|cursor, key| -> Result<(), Wrong> {
        match key.as_ref() {
            "name" => name = Some(cursor.text()?),
            "shape" => dims = Some(shape(cursor)?),
            "datatype" => {
                let text = cursor.text()?;
                let known = DType::of_v2_name(text.as_bytes());
                let shown = name.as_deref().unwrap_or_default();
                dtype = Some(known.ok_or_else(|| {
                    Wrong::tensor(shown, format!("the datatype {:?} is none", clipped(&text)))
                })?);
            }
            "parameters" if cursor.null() => {}
            "parameters" => cursor.object(|cursor, key| -> Result<(), Wrong> {
                if key == "binary_data_size" {
                    size = Some(unsigned(cursor)?);
                } else {
                    cursor.skip()?;
                }
                Ok(())
            })?,
            "data" => {
                data = Some(cursor.offset());
                match (dtype, dims) {
                    (Some(dtype), Some(dims)) => {
                        let shown = name.as_deref().unwrap_or_default();
                        done = Some(values(cursor, call, dtype, dims, shown)?);
                    }
                    _ => drop(cursor.skip()?),
                }
            }
            _ => drop(cursor.skip()?),
        }
        Ok(())
    })?;
    let Some(name) = name else { return Err(Wrong::request("an input has no \"name\"")) };
    let dtype = dtype.ok_or_else(|| Wrong::tensor(&name, "it has no \"datatype\""))?;
    let shape = dims.ok_or_else(|| Wrong::tensor(&name, "it has no \"shape\""))?;
    let data = match (size, done, data) {
        (Some(_), _, Some(_)) => {
            return Err(Wrong::tensor(&name, "it has both \"data\" and \"binary_data_size\""));
        }
        (Some(size), None, None) => {
            call.raw = true;
            blobs.take(&name, size)?
        }
        (_, Some(done), _) => done,
        (None, None, Some(at)) => {
            let mut again = cursor.clone();
            again.seek(at);
            values(&mut again, call, dtype, shape, &name)?
        }
        (None, _, None) => return Err(Wrong::tensor(&name, "it has no \"data\"")),
    };
    let name = call.keep(&name, body);
    call.add(Input { name, dtype, shape, data }, body)
}

fn clipped(text: &str) -> String {
    text.chars().take(40).collect()
}

fn values(
    cursor: &mut Cursor<'_>,
    call: &mut Call,
    dtype: DType,
    shape: Shape,
    name: &str,
) -> Result<Span, Wrong> {
    if cursor.peek() != Some(b'[') {
        return Err(Wrong::tensor(name, "\"data\" is not a list"));
    }
    let start = call.own.align();
    let mut found = Found::new();
    read(cursor, dtype, RULES, &mut call.own, &mut found)
        .map_err(|error| Wrong::tensor(name, error.to_string()))?;
    // Flat data is counted by `Call::add`; nested data has the shape's nesting.
    let dims = found.dims();
    let flat = dims.len() == 1;
    if !flat && dims != shape.dims() {
        return Err(Wrong::tensor(name, format!("the data has the shape {dims:?}, not {shape:?}")));
    }
    Ok(call.own.span(start))
}

fn output(cursor: &mut Cursor<'_>, call: &mut Call, body: &[u8]) -> Result<(), Wrong> {
    let mut name: Option<Cow<'_, str>> = None;
    let mut wanted = Wanted { name: Span::default(), binary: None, classes: 0 };
    cursor.object(|cursor, key| -> Result<(), Wrong> {
        match key.as_ref() {
            "name" => name = Some(cursor.text()?),
            "parameters" if cursor.null() => {}
            "parameters" => cursor.object(|cursor, key| -> Result<(), Wrong> {
                match key.as_ref() {
                    "binary_data" => wanted.binary = Some(cursor.truth()?),
                    "classification" => {
                        wanted.classes = u32::try_from(unsigned(cursor)?).unwrap_or(u32::MAX);
                    }
                    _ => drop(cursor.skip()?),
                }
                Ok(())
            })?,
            _ => drop(cursor.skip()?),
        }
        Ok(())
    })?;
    let Some(name) = name else { return Err(Wrong::request("an output has no \"name\"")) };
    wanted.name = call.keep(&name, body);
    if call.wanted.len() == crate::call::TENSORS_MAX {
        return Err(Wrong::request("too many outputs are asked for"));
    }
    call.wanted.push(wanted);
    Ok(())
}

/// The head of an answer.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// The model's name.
    pub model: &'a str,
    /// The version that answered; empty for none.
    pub version: &'a str,
    /// The request's id; empty for none.
    pub id: &'a str,
}

/// Appends the answer's JSON text and, behind it, the raw tensors. Returns the length of the JSON text if any
/// tensor is raw: then it goes into `Inference-Header-Content-Length`.
pub fn encode<'t>(
    out: &mut Vec<u8>,
    head: Head<'_>,
    outputs: impl Iterator<Item = (&'t str, &'t Tensor<'t>, bool)> + Clone,
) -> Option<usize> {
    let start = out.len();
    out.extend_from_slice(b"{\"model_name\":");
    push_text(out, head.model);
    if !head.version.is_empty() {
        out.extend_from_slice(b",\"model_version\":");
        push_text(out, head.version);
    }
    if !head.id.is_empty() {
        out.extend_from_slice(b",\"id\":");
        push_text(out, head.id);
    }
    out.extend_from_slice(b",\"outputs\":[");
    let mut any_raw = false;
    for (index, (name, tensor, raw)) in outputs.clone().enumerate() {
        out.extend_from_slice(if index == 0 { b"{\"name\":" } else { b",{\"name\":" });
        push_text(out, name);
        out.extend_from_slice(b",\"datatype\":\"");
        out.extend_from_slice(tensor.dtype().v2_name().as_bytes());
        out.extend_from_slice(b"\",\"shape\":[");
        for (place, dim) in tensor.dims().iter().enumerate() {
            if place > 0 {
                out.push(b',');
            }
            push_u64(out, *dim as u64);
        }
        if raw {
            any_raw = true;
            out.extend_from_slice(b"],\"parameters\":{\"binary_data_size\":");
            push_u64(out, tensor.bytes().len() as u64);
            out.extend_from_slice(b"}}");
        } else {
            out.extend_from_slice(b"],\"data\":[");
            flat(out, tensor, 0, tensor.dims().iter().product(), STYLE);
            out.extend_from_slice(b"]}");
        }
    }
    out.extend_from_slice(b"]}");
    let length = out.len() - start;
    for (_, tensor, raw) in outputs {
        if raw {
            out.extend_from_slice(tensor.bytes());
        }
    }
    any_raw.then_some(length)
}

#[cfg(test)]
mod tests;
