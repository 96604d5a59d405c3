//! TensorFlow Serving's REST API: bodies of predict, classify and regress, and the answers of status and metadata.
//!
//! Which type a JSON number has is the signature's to say, so reading takes two steps: [`scan`] finds the parts and
//! the signature's name, then [`predict`] or [`examples`] reads the values as that signature's types. Row format
//! (`instances`) interleaves the inputs; the place of every value is noted first and each input is then read into one
//! run of memory.
//!
//! NaN and the infinities are written as words both ways, as TensorFlow Serving does. Not here: paths, codes, models.

mod serialised;
mod write;

use std::borrow::Cow;

use models::{DType, Shape, Signature, TensorSpec};

use crate::call::{Call, Input, Span, Wrong};
use crate::fill::{Found, Rules, read};
use crate::json::{Cursor, JsonError};

pub use serialised::serialised_examples;
pub use write::{
    VersionStatus, write_classifications, write_columns, write_error, write_metadata, write_regressions,
    write_rows, write_status,
};

const RULES: Rules = Rules { nulls: false, b64: true };

/// Which of the two formats a predict request has, and its answer must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `instances`, answered by `predictions`.
    Row,
    /// `inputs`, answered by `outputs`.
    Column,
}

/// Where the parts of a body are.
#[derive(Debug, Clone, Default)]
pub struct Parts<'a> {
    /// The signature that is asked for; none is the default one.
    pub signature: Option<Cow<'a, str>>,
    instances: Option<usize>,
    inputs: Option<usize>,
    examples: Option<usize>,
    context: Option<usize>,
}

impl Parts<'_> {
    /// KServe's V1 reads rows from either key, and from `inputs` where both are there.
    pub fn as_rows(mut self) -> Self {
        self.instances = self.inputs.take().or(self.instances);
        self
    }
}

/// Finds the parts of a body.
pub fn scan(body: &[u8]) -> Result<Parts<'_>, Wrong> {
    let mut cursor = Cursor::new(body);
    if cursor.peek().is_none() {
        return Err(Wrong::request("JSON Parse error: The document is empty"));
    }
    if cursor.peek() != Some(b'{') {
        cursor.skip()?;
        return Err(Wrong::request("Request body is not a JSON object"));
    }
    let mut parts = Parts::default();
    cursor.object(|cursor, key| -> Result<(), Wrong> {
        let at = Some(cursor.offset());
        match key.as_ref() {
            "signature_name" => {
                parts.signature = Some(cursor.text()?);
                return Ok(());
            }
            "instances" => parts.instances = at,
            "inputs" => parts.inputs = at,
            "examples" => parts.examples = at,
            "context" => parts.context = at,
            _ => {}
        }
        cursor.skip()?;
        Ok(())
    })?;
    cursor.end()?;
    Ok(parts)
}

/// Reads the tensors of a predict request, in the order of the signature.
pub fn predict(
    body: &[u8],
    parts: &Parts<'_>,
    signature: &Signature,
    call: &mut Call,
) -> Result<Format, Wrong> {
    call.clear();
    let mut cursor = Cursor::new(body);
    match (parts.instances, parts.inputs) {
        (Some(_), Some(_)) => {
            Err(Wrong::request("Not formatted correctly, both 'inputs' and 'instances' are given"))
        }
        (None, None) => Err(Wrong::request("Missing 'inputs' or 'instances' key")),
        (Some(at), None) => {
            cursor.seek(at);
            rows(&mut cursor, body, signature, call)?;
            Ok(Format::Row)
        }
        (None, Some(at)) => {
            cursor.seek(at);
            columns(&mut cursor, body, signature, call)?;
            Ok(Format::Column)
        }
    }
}

/// Whether an object comes that is no `{"b64": …}`.
fn is_named(cursor: &mut Cursor<'_>) -> bool {
    if cursor.peek() != Some(b'{') {
        return false;
    }
    let mut ahead = cursor.clone();
    ahead.eat(b'{');
    !matches!(ahead.text(), Ok(key) if key == "b64")
}

fn only<'s>(signature: &'s Signature, what: &str) -> Result<&'s TensorSpec, Wrong> {
    match signature.inputs.as_slice() {
        [only] => Ok(only),
        several => Err(Wrong::request(format!(
            "{what}: the signature has {} inputs, so each value needs a name",
            several.len()
        ))),
    }
}

pub(crate) fn own_name(call: &mut Call, name: &str) -> Span {
    let start = call.own.len();
    call.own.extend(name.as_bytes());
    call.own.span(start)
}

fn add(
    call: &mut Call,
    body: &[u8],
    spec: &TensorSpec,
    shape: Option<Shape>,
    data: Span,
) -> Result<(), Wrong> {
    let shape = shape.ok_or_else(|| Wrong::tensor(&spec.name, "more dimensions than a tensor can have"))?;
    let name = own_name(call, &spec.name);
    call.add(Input { name, dtype: spec.dtype, shape, data }, body)
}

fn rows(cursor: &mut Cursor<'_>, body: &[u8], signature: &Signature, call: &mut Call) -> Result<(), Wrong> {
    if cursor.peek() != Some(b'[') {
        return Err(Wrong::request("Expecting 'instances' value to be a list/array"));
    }
    let mut ahead = cursor.clone();
    ahead.eat(b'[');
    if ahead.peek() == Some(b']') {
        return Err(Wrong::request("No values in 'instances'"));
    }
    if is_named(&mut ahead) {
        let fields = Fields::of(signature, &mut ahead)?;
        let count = note(cursor, call, &fields, "instances")?;
        return fields.read(body, call, count, false);
    }
    if signature.inputs.len() > 1 && ahead.peek() == Some(b'[') {
        let fields = Fields::Inputs(&signature.inputs);
        let count = note_lists(cursor, call, fields.len())?;
        return fields.read(body, call, count, false);
    }
    let spec = only(signature, "instances")?;
    let (mut found, mut count) = (Found::new(), 0);
    let start = call.own.align();
    cursor.list(|cursor| {
        read(cursor, spec.dtype, RULES, &mut call.own, &mut found).map_err(|error| row(count, &error))?;
        count += 1;
        Ok::<_, Wrong>(())
    })?;
    let data = call.own.span(start);
    add(call, body, spec, found.shape_of_rows(count), data)
}

fn row(index: usize, error: &JsonError) -> Wrong {
    Wrong::request(format!("Failed to process element: {index} of 'instances' list. Error: {error}"))
}

fn columns(
    cursor: &mut Cursor<'_>,
    body: &[u8],
    signature: &Signature,
    call: &mut Call,
) -> Result<(), Wrong> {
    if !is_named(cursor) {
        let spec = only(signature, "inputs")?;
        return column(cursor, body, spec, call);
    }
    let mut seen = 0;
    cursor.object(|cursor, key| -> Result<(), Wrong> {
        let spec = signature.inputs.iter().find(|spec| spec.name == *key);
        let spec = spec.ok_or_else(|| Wrong::tensor(&key, "the signature has no such input"))?;
        seen += 1;
        column(cursor, body, spec, call)
    })?;
    if seen == signature.inputs.len() {
        return Ok(());
    }
    let view = call.view(body);
    let missing = signature.inputs.iter().find(|spec| !view.tensors().any(|(name, _)| name == spec.name));
    let name = missing.map_or("", |spec| spec.name.as_str());
    Err(Wrong::tensor(name, "it is missing in 'inputs', or another is there twice"))
}

fn column(cursor: &mut Cursor<'_>, body: &[u8], spec: &TensorSpec, call: &mut Call) -> Result<(), Wrong> {
    let start = call.own.align();
    let mut found = Found::new();
    read(cursor, spec.dtype, RULES, &mut call.own, &mut found)
        .map_err(|error| Wrong::tensor(&spec.name, error.to_string()))?;
    let data = call.own.span(start);
    add(call, body, spec, Shape::new(found.dims()), data)
}

/// What the names in a row's object or in an example are.
pub(crate) enum Fields<'s> {
    /// Inputs of the signature.
    Inputs(&'s [TensorSpec]),
    /// Columns of the only input, a table of numbers.
    Columns(&'s TensorSpec, &'s [String]),
}

impl<'s> Fields<'s> {
    /// `first` stands at the first row's object.
    fn of(signature: &'s Signature, first: &mut Cursor<'_>) -> Result<Self, Wrong> {
        if let ([only], [_, ..]) = (signature.inputs.as_slice(), signature.columns.as_slice()) {
            first.eat(b'{');
            let by_input = first.peek() == Some(b'"') && first.text()? == only.name.as_str();
            if !by_input {
                return Ok(Self::Columns(only, &signature.columns));
            }
        }
        Ok(Self::Inputs(&signature.inputs))
    }

    /// Those of examples.
    pub(crate) fn of_examples(signature: &'s Signature) -> Self {
        match (signature.inputs.as_slice(), signature.columns.as_slice()) {
            ([only], [_, ..]) => Self::Columns(only, &signature.columns),
            (inputs, _) => Self::Inputs(inputs),
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Inputs(inputs) => inputs.len(),
            Self::Columns(_, columns) => columns.len(),
        }
    }

    pub(crate) fn name(&self, index: usize) -> &str {
        match self {
            Self::Inputs(inputs) => &inputs[index].name,
            Self::Columns(_, columns) => &columns[index],
        }
    }

    pub(crate) fn position(&self, name: &str) -> Option<usize> {
        (0..self.len()).find(|index| self.name(*index) == name)
    }

    /// Reads the noted values. In examples a single value and a list of one are the same.
    fn read(&self, body: &[u8], call: &mut Call, count: usize, examples: bool) -> Result<(), Wrong> {
        let width = self.len();
        match self {
            Self::Inputs(inputs) => {
                for (place, spec) in inputs.iter().enumerate() {
                    let start = call.own.align();
                    let mut found = Found::new();
                    let scalar = examples && spec.row.is_empty();
                    for index in 0..count {
                        let at = call.notes[index * width + place];
                        value(body, at, spec.dtype, call, &mut found, examples && !scalar, scalar)
                            .map_err(|error| row(index, &error))?;
                    }
                    let data = call.own.span(start);
                    add(call, body, spec, found.shape_of_rows(count), data)?;
                }
                Ok(())
            }
            Self::Columns(spec, columns) => {
                let start = call.own.align();
                let mut found = Found::new();
                for place in 0..count * width {
                    let at = call.notes[place];
                    value(body, at, spec.dtype, call, &mut found, false, examples)
                        .map_err(|error| row(place / width, &error))?;
                }
                let data = call.own.span(start);
                if !found.dims().is_empty() {
                    return Err(Wrong::tensor(&spec.name, "a column's value is a list"));
                }
                add(call, body, spec, Shape::new(&[count, columns.len()]), data)
            }
        }
    }
}

/// Reads the value at a place: `as_list` takes a single value as a list of one, `as_scalar` the other way round.
fn value(
    body: &[u8],
    at: usize,
    dtype: DType,
    call: &mut Call,
    found: &mut Found,
    as_list: bool,
    as_scalar: bool,
) -> Result<(), JsonError> {
    let mut cursor = Cursor::new(body);
    cursor.seek(at);
    let is_list = cursor.peek() == Some(b'[');
    if as_scalar && is_list {
        cursor.eat(b'[');
        read(&mut cursor, dtype, RULES, &mut call.own, found)?;
        return cursor.expect(b']', "expected a list of one value");
    }
    if as_list && !is_list {
        let mut single = Found::new();
        read(&mut cursor, dtype, RULES, &mut call.own, &mut single)?;
        return found.one().map_or_else(|| cursor.error("lists of different lengths in one dimension"), Ok);
    }
    read(&mut cursor, dtype, RULES, &mut call.own, found)
}

const ABSENT: usize = usize::MAX;

/// Notes where each row's values are, and returns the number of rows. Every name must be there, and no other.
fn note(cursor: &mut Cursor<'_>, call: &mut Call, fields: &Fields<'_>, what: &str) -> Result<usize, Wrong> {
    let width = fields.len();
    let mut count = 0;
    cursor.list(|cursor| -> Result<(), Wrong> {
        if cursor.peek() != Some(b'{') {
            return Err(Wrong::request(format!(
                "element {count} of '{what}' is no object as the ones before"
            )));
        }
        let start = call.notes.len();
        call.notes.resize(start + width, ABSENT);
        // Nearly every client writes the names in one order, and then each is where it is looked for first.
        let mut next = 0;
        cursor.object(|cursor, key| -> Result<(), Wrong> {
            let guess = (next < width && fields.name(next) == key).then_some(next);
            next += 1;
            let place = guess.or_else(|| fields.position(&key)).ok_or_else(|| {
                Wrong::tensor(&key, format!("element {count} of '{what}' has it, the signature has not"))
            })?;
            call.notes[start + place] = cursor.offset();
            cursor.skip()?;
            Ok(())
        })?;
        if let Some(missing) = call.notes[start..].iter().position(|at| *at == ABSENT) {
            return Err(Wrong::tensor(fields.name(missing), format!("element {count} of '{what}' lacks it")));
        }
        count += 1;
        Ok(())
    })?;
    Ok(count)
}

/// Notes where the values of rows that are lists are: one for each input, in the order of the signature, which is how
/// KServe's clients send an array of objects.
fn note_lists(cursor: &mut Cursor<'_>, call: &mut Call, width: usize) -> Result<usize, Wrong> {
    let mut count = 0;
    cursor.list(|cursor| -> Result<(), Wrong> {
        let start = call.notes.len();
        cursor.list(|cursor| -> Result<(), JsonError> {
            call.notes.push(cursor.offset());
            cursor.skip().map(drop)
        })?;
        let got = call.notes.len() - start;
        if got != width {
            return Err(Wrong::request(format!("instance {count} has {got} values, expected {width}")));
        }
        count += 1;
        Ok(())
    })?;
    Ok(count)
}

/// Reads the examples of a classify or regress request as the signature's inputs. Features that the signature does
/// not name are skipped, as TensorFlow's parser of examples does; what an example lacks is taken from the context.
pub fn examples(body: &[u8], parts: &Parts<'_>, signature: &Signature, call: &mut Call) -> Result<(), Wrong> {
    call.clear();
    let Some(at) = parts.examples else { return Err(Wrong::request("Missing 'examples' key")) };
    let fields = Fields::of_examples(signature);
    let width = fields.len();
    // The context's features come first and are the values that rows begin with.
    call.notes.resize(width, ABSENT);
    if let Some(context) = parts.context {
        let mut cursor = Cursor::new(body);
        cursor.seek(context);
        features(&mut cursor, call, &fields, 0)?;
    }
    let mut cursor = Cursor::new(body);
    cursor.seek(at);
    if cursor.peek() != Some(b'[') {
        return Err(Wrong::request("Expecting 'examples' value to be a list/array"));
    }
    let mut count = 0;
    cursor.list(|cursor| -> Result<(), Wrong> {
        let start = call.notes.len();
        call.notes.extend_from_within(..width);
        features(cursor, call, &fields, start)?;
        if let Some(missing) = call.notes[start..].iter().position(|at| *at == ABSENT) {
            return Err(Wrong::tensor(fields.name(missing), format!("example {count} lacks this feature")));
        }
        count += 1;
        Ok(())
    })?;
    if count == 0 {
        return Err(Wrong::request("'examples' is empty"));
    }
    call.notes.drain(..width);
    fields.read(body, call, count, true)
}

fn features(
    cursor: &mut Cursor<'_>,
    call: &mut Call,
    fields: &Fields<'_>,
    start: usize,
) -> Result<(), Wrong> {
    cursor.object(|cursor, key| -> Result<(), Wrong> {
        if let Some(place) = fields.position(&key) {
            call.notes[start + place] = cursor.offset();
        }
        cursor.skip()?;
        Ok(())
    })
}

/// TensorFlow's number and name of a type.
pub fn tf_type(dtype: DType) -> (u32, &'static str) {
    match dtype {
        DType::F32 => (1, "DT_FLOAT"),
        DType::F64 => (2, "DT_DOUBLE"),
        DType::I32 => (3, "DT_INT32"),
        DType::U8 => (4, "DT_UINT8"),
        DType::I16 => (5, "DT_INT16"),
        DType::I8 => (6, "DT_INT8"),
        DType::Text => (7, "DT_STRING"),
        DType::I64 => (9, "DT_INT64"),
        DType::Bool => (10, "DT_BOOL"),
        DType::BF16 => (14, "DT_BFLOAT16"),
        DType::U16 => (17, "DT_UINT16"),
        DType::F16 => (19, "DT_HALF"),
        DType::U32 => (22, "DT_UINT32"),
        DType::U64 => (23, "DT_UINT64"),
    }
}

/// The type of TensorFlow's number; complex, quantized and reference types are not served.
pub fn of_tf_type(number: u64) -> Option<DType> {
    Some(match number {
        1 => DType::F32,
        2 => DType::F64,
        3 => DType::I32,
        4 => DType::U8,
        5 => DType::I16,
        6 => DType::I8,
        7 => DType::Text,
        9 => DType::I64,
        10 => DType::Bool,
        14 => DType::BF16,
        17 => DType::U16,
        19 => DType::F16,
        22 => DType::U32,
        23 => DType::U64,
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
