//! JSON examples as serialised `tensorflow.Example` messages, for models that parse them themselves.
//!
//! Whole numbers become an `int64_list`, numbers with a fraction or exponent a `float_list`, texts and `b64` objects a
//! `bytes_list`; in a list one number with a fraction makes all of them floats. What an example lacks is taken from the
//! context, as the protobuf parser does with a context that comes before the example.
//!
//! Not here: examples that become the inputs of a signature (`examples` in the module above).

use base64::Engine as _;
use models::{DType, Shape, Signature};

use super::{Parts, own_name};
use crate::call::{Call, Input, Wrong};
use crate::json::{Cursor, JsonError};
use crate::wire::{put_bytes_always, put_len, put_message, put_varint};

/// Bytes that the context may take in all examples together.
const CONTEXT_MAX: usize = 64 << 20;

/// Reads the examples of a classify or regress request as the texts of the signature's only input.
pub fn serialised_examples(
    body: &[u8],
    parts: &Parts<'_>,
    signature: &Signature,
    call: &mut Call,
) -> Result<(), Wrong> {
    call.clear();
    let Some(at) = parts.examples else { return Err(Wrong::request("Missing 'examples' key")) };
    let [spec] = signature.inputs.as_slice() else {
        return Err(Wrong::request("the signature has no single input of examples"));
    };
    let mut context = Vec::new();
    if let Some(at) = parts.context {
        let mut cursor = Cursor::new(body);
        cursor.seek(at);
        example(&mut cursor, &mut context)?;
    }
    let mut cursor = Cursor::new(body);
    cursor.seek(at);
    if cursor.peek() != Some(b'[') {
        return Err(Wrong::request("Expecting 'examples' value to be a list/array"));
    }
    let start = call.own.align();
    let (mut count, mut made) = (0_usize, Vec::new());
    cursor.list(|cursor| -> Result<(), Wrong> {
        made.clear();
        example(cursor, &mut made)?;
        count += 1;
        if count.saturating_mul(context.len()) > CONTEXT_MAX {
            return Err(Wrong::request("the context is too large for so many examples"));
        }
        call.own.push_text_of(&[&context, &made]);
        Ok(())
    })?;
    if count == 0 {
        return Err(Wrong::request("'examples' is empty"));
    }
    let data = call.own.span(start);
    let shape = Shape::new(&[count]).ok_or_else(|| Wrong::request("too many examples"))?;
    let name = own_name(call, &spec.name);
    call.add(Input { name, dtype: DType::Text, shape, data }, body)
}

/// Appends an object's features as an `Example`.
fn example(cursor: &mut Cursor<'_>, out: &mut Vec<u8>) -> Result<(), Wrong> {
    let mut features = Vec::new();
    cursor.object(|cursor, key| -> Result<(), Wrong> {
        let mut value = Vec::new();
        feature(cursor, &mut value).map_err(|error| Wrong::tensor(&key, error.to_string()))?;
        put_message(&mut features, 1, |out| {
            put_bytes_always(out, 1, key.as_bytes());
            put_bytes_always(out, 2, &value);
        });
        Ok(())
    })?;
    put_bytes_always(out, 1, &features);
    Ok(())
}

/// What the values of a feature are.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Bytes,
    Floats,
    Ints,
}

/// Appends a value or a list of values as a `Feature`.
fn feature(cursor: &mut Cursor<'_>, out: &mut Vec<u8>) -> Result<(), JsonError> {
    let mut kind = None;
    let mut ahead = cursor.clone();
    each(&mut ahead, |cursor| {
        let own = kind_of(cursor)?;
        kind = match (kind, own) {
            (None, own) => Some(own),
            (Some(known), own) if known == own => Some(own),
            (Some(Kind::Ints | Kind::Floats), Kind::Ints | Kind::Floats) => Some(Kind::Floats),
            _ => return cursor.error("a feature of texts and numbers"),
        };
        Ok(())
    })?;
    let mut values = Vec::new();
    // An empty list is a feature without a kind.
    let Some(kind) = kind else { return each(cursor, |_| Ok(())) };
    each(cursor, |cursor| {
        match kind {
            Kind::Ints => {
                let (negative, magnitude) = cursor.integer()?;
                let wide = if negative { -i128::from(magnitude) } else { i128::from(magnitude) };
                match i64::try_from(wide) {
                    Ok(number) => put_varint(&mut values, number as u64),
                    Err(_) => return cursor.error("a number out of range"),
                }
            }
            Kind::Floats => values.extend_from_slice(&cursor.float::<f32>()?.to_le_bytes()),
            Kind::Bytes => bytes(cursor, &mut values)?,
        }
        Ok(())
    })?;
    match kind {
        Kind::Bytes => put_bytes_always(out, 1, &values),
        Kind::Floats => packed(out, 2, &values),
        Kind::Ints => packed(out, 3, &values),
    }
    Ok(())
}

fn packed(out: &mut Vec<u8>, list: u32, values: &[u8]) {
    put_message(out, list, |out| {
        put_len(out, 1, values.len());
        out.extend_from_slice(values);
    });
}

/// Calls with the cursor at each value of a list, or at the only value.
fn each(
    cursor: &mut Cursor<'_>,
    mut value: impl FnMut(&mut Cursor<'_>) -> Result<(), JsonError>,
) -> Result<(), JsonError> {
    if cursor.peek() == Some(b'[') { cursor.list(value) } else { value(cursor) }
}

/// Skips a value and says what it is.
fn kind_of(cursor: &mut Cursor<'_>) -> Result<Kind, JsonError> {
    match cursor.peek() {
        Some(b'"' | b'{') => cursor.skip().map(|_| Kind::Bytes),
        Some(b'0'..=b'9' | b'-' | b'N' | b'I') => {
            let text = cursor.skip()?;
            let is_whole = text.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'-'));
            Ok(if is_whole { Kind::Ints } else { Kind::Floats })
        }
        _ => cursor.error("a feature is a number, a text, {\"b64\": …}, or a list of them"),
    }
}

/// Appends a text or `{"b64": …}` as a member of a `BytesList`.
fn bytes(cursor: &mut Cursor<'_>, values: &mut Vec<u8>) -> Result<(), JsonError> {
    if cursor.peek() != Some(b'{') {
        let text = cursor.text()?;
        put_bytes_always(values, 1, text.as_bytes());
        return Ok(());
    }
    let mut seen = 0;
    cursor.object(|cursor, key| {
        seen += 1;
        if key != "b64" || seen > 1 {
            return cursor.error("expected {\"b64\": …}");
        }
        let text = cursor.text()?;
        match base64::engine::general_purpose::STANDARD.decode(text.as_bytes()) {
            Ok(decoded) => put_bytes_always(values, 1, &decoded),
            Err(_) => return cursor.error("malformed base64"),
        }
        Ok(())
    })?;
    if seen == 1 { Ok(()) } else { cursor.error("expected {\"b64\": …}") }
}

#[cfg(test)]
mod tests {
    use models::TensorSpec;

    use super::*;
    use crate::wire::{Fields, Value};

    /// Each example as `name: kind values`, features in the order of the wire.
    fn read(body: &str) -> Result<Vec<Vec<String>>, String> {
        let inputs = vec![TensorSpec::new("inputs", DType::Text, [])];
        let signature = Signature { inputs, outputs: Vec::new(), columns: Vec::new() };
        let mut call = Call::new();
        let body = body.as_bytes();
        let parts = super::super::scan(body).map_err(|wrong| wrong.to_string())?;
        serialised_examples(body, &parts, &signature, &mut call).map_err(|wrong| wrong.to_string())?;
        let tensor = call.view(body).tensor(0).expect("one tensor");
        Ok(tensor.elements().map(|example| shown(example.expect("legal"))).collect())
    }

    fn only(message: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
        Fields::of(message).map(|field| {
            let field = field.expect("legal");
            (field.number, field.bytes().expect("a message"))
        })
    }

    fn shown(example: &[u8]) -> Vec<String> {
        let features = only(example).flat_map(|(_, features)| only(features)).map(|(_, entry)| {
            let parts: Vec<_> = only(entry).collect();
            let name = String::from_utf8_lossy(parts[0].1).into_owned();
            let lists = only(parts[1].1).map(|(kind, list)| {
                let values = Fields::of(list).map(|field| match field.expect("legal").value {
                    Value::Bytes(bytes) => format!("{bytes:?}"),
                    other => format!("{other:?}"),
                });
                format!("{kind}={}", values.collect::<Vec<_>>().join(","))
            });
            format!("{name}: {}", lists.collect::<Vec<_>>().join(" "))
        });
        features.collect()
    }

    #[test]
    fn values_become_lists_of_their_kinds() {
        let body = r#"{"examples":[{"i":[1,-1],"f":[1,2.5],"s":["a",{"b64":"/w=="}],"e":[]},{}]}"#;
        let minus = [255_u8; 9].iter().chain(&[1]).map(u8::to_string).collect::<Vec<_>>().join(", ");
        assert_eq!(
            read(body),
            Ok(vec![
                vec![
                    format!("i: 3=[1, {minus}]"),
                    "f: 2=[0, 0, 128, 63, 0, 0, 32, 64]".to_owned(),
                    "s: 1=[97],[255]".to_owned(),
                    "e: ".to_owned(),
                ],
                Vec::new(),
            ])
        );
    }

    #[test]
    fn the_context_comes_before_each_example() {
        let body = r#"{"context":{"c":7},"examples":[{"x":1},{"x":2}]}"#;
        let want = |x: u8| vec!["c: 3=[7]".to_owned(), format!("x: 3=[{x}]")];
        assert_eq!(read(body), Ok(vec![want(1), want(2)]));
    }

    #[test]
    fn what_is_no_feature_is_refused() {
        for (body, word) in [
            ("{}", "Missing 'examples'"),
            (r#"{"examples":{}}"#, "list/array"),
            (r#"{"examples":[]}"#, "empty"),
            (r#"{"examples":[{"x":["a",1]}]}"#, "texts and numbers"),
            (r#"{"examples":[{"x":true}]}"#, "\"x\""),
            (r#"{"examples":[{"x":[[1]]}]}"#, "\"x\""),
            (r#"{"examples":[{"x":{"b64":"!"}}]}"#, "base64"),
            (r#"{"examples":[{"x":99999999999999999999}]}"#, "range"),
        ] {
            let error = read(body).expect_err(word);
            assert!(error.contains(word), "{body}: {error}");
        }
    }
}
