//! KServe's V1 protocol: `{"instances": [[…], …]}` in, `{"predictions": […]}` out.
//!
//! The body may use `inputs` instead; where both are present `inputs` counts, as in KServe's Python server.
//! Other keys are skipped. Rows are of three kinds:
//!
//! * lists of numbers: parsed into one flat buffer, the path of nearly every request;
//! * objects (`{"sepal_length": 5.1, …}`): columns by name, in the order of the first row;
//! * anything else: kept as text positions for a clear refusal.
//!
//! Not here: comparing a row's width with a model (`infer` does), status codes.

use std::borrow::Cow;

use crate::json::{Cursor, JsonError, push_f64, push_i64, push_text};

/// Why a body is no request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// It is not JSON.
    #[error("Unrecognized request format: {0}")]
    Json(#[from] JsonError),
    /// It has neither key.
    #[error("Expected \"instances\" or \"inputs\" in the request body")]
    NoInstances,
    /// The key's value is no list.
    #[error("Expected \"{0}\" to be a list")]
    NotAList(&'static str),
    /// A row has another number of values than the rows before it.
    #[error("instance {row} has {got} values, expected {expected}")]
    Width {
        /// The row's index.
        row: usize,
        /// How many values it has.
        got: usize,
        /// How many the model takes, or the first row has.
        expected: usize,
    },
    /// A row is no list of numbers.
    #[error("instance {row} is {got}, expected a list of numbers")]
    Row {
        /// The row's index.
        row: usize,
        /// What it is.
        got: &'static str,
    },
    /// A value in a row is no number.
    #[error("instance {row}, value {column}: {got} where a number is expected")]
    Value {
        /// The row's index.
        row: usize,
        /// The column's index.
        column: usize,
        /// What it is.
        got: &'static str,
    },
    /// Objects as rows, and a column of the model is missing in one.
    #[error("instance {row} lacks the column {column:?}")]
    Column {
        /// The row's index.
        row: usize,
        /// The column's name.
        column: String,
    },
    /// Objects as rows, and a column that the model does not know.
    #[error("instance {row} has the unexpected column {column:?}")]
    ExtraColumn {
        /// The row's index.
        row: usize,
        /// The column's name.
        column: String,
    },
}

/// What the model's only input looks like.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// Numbers in a row.
    pub width: usize,
    /// Names of the columns; empty if the model has none.
    pub columns: &'a [String],
}

/// Parses a body into `batch`, which is cleared first. Returns the number of rows; on success `batch` has
/// `rows × expected.width` numbers.
pub fn parse(body: &[u8], expected: Expected<'_>, batch: &mut Vec<f64>) -> Result<usize, RequestError> {
    batch.clear();
    let mut cursor = Cursor::new(body);
    if !cursor.eat(b'{') {
        cursor.skip()?;
        return Err(RequestError::NoInstances);
    }
    // `inputs` counts even where `instances` came first, so the positions are found before rows are parsed,
    // except in the usual body that has only one key.
    let mut found: Option<(&'static str, usize)> = None;
    if !cursor.eat(b'}') {
        loop {
            let key = cursor.text()?;
            cursor.expect(b':', "expected a colon")?;
            let name = match key.as_ref() {
                "instances" => Some("instances"),
                "inputs" => Some("inputs"),
                _ => None,
            };
            match name {
                Some(name) if found.is_none() => {
                    let start = cursor.clone();
                    if let Some(rows) = only_key(&mut cursor, name, expected, batch)? {
                        return Ok(rows);
                    }
                    cursor = start;
                    found = Some((name, cursor.offset()));
                    cursor.skip()?;
                }
                Some("inputs") => {
                    found = Some(("inputs", cursor.offset()));
                    cursor.skip()?;
                }
                _ => drop(cursor.skip()?),
            }
            if !cursor.eat(b',') {
                break;
            }
        }
        cursor.expect(b'}', "expected a comma or a closing brace")?;
    }
    cursor.end()?;
    let Some((name, at)) = found else { return Err(RequestError::NoInstances) };
    let mut cursor = Cursor::new(body);
    cursor.seek(at);
    batch.clear();
    rows(&mut cursor, name, expected, batch)
}

/// Parses the rows in place if nothing follows them; `None` if other keys do.
fn only_key(
    cursor: &mut Cursor<'_>,
    name: &'static str,
    expected: Expected<'_>,
    batch: &mut Vec<f64>,
) -> Result<Option<usize>, RequestError> {
    let count = rows(cursor, name, expected, batch)?;
    if !cursor.eat(b'}') {
        return Ok(None);
    }
    cursor.end()?;
    Ok(Some(count))
}

fn rows(
    cursor: &mut Cursor<'_>,
    name: &'static str,
    expected: Expected<'_>,
    batch: &mut Vec<f64>,
) -> Result<usize, RequestError> {
    batch.clear();
    if !cursor.eat(b'[') {
        cursor.skip()?;
        return Err(RequestError::NotAList(name));
    }
    if cursor.eat(b']') {
        return Ok(0);
    }
    let mut names: Vec<Cow<'_, str>> = Vec::new();
    let mut count = 0;
    loop {
        match cursor.peek() {
            Some(b'[') => list_row(cursor, count, expected.width, batch)?,
            Some(b'{') => object_row(cursor, count, expected, &mut names, batch)?,
            _ => {
                let got = kind_of(cursor)?;
                return Err(RequestError::Row { row: count, got });
            }
        }
        count += 1;
        if !cursor.eat(b',') {
            break;
        }
    }
    cursor.expect(b']', "expected a comma or a closing bracket")?;
    Ok(count)
}

fn kind_of(cursor: &mut Cursor<'_>) -> Result<&'static str, RequestError> {
    let got = match cursor.peek() {
        Some(b'"') => "a string",
        Some(b'[') => "a list",
        Some(b'{') => "an object",
        Some(b'n') => "null",
        Some(b't' | b'f') => "a truth value",
        _ => "a number",
    };
    cursor.skip()?;
    Ok(got)
}

fn list_row(
    cursor: &mut Cursor<'_>,
    row: usize,
    width: usize,
    batch: &mut Vec<f64>,
) -> Result<(), RequestError> {
    cursor.expect(b'[', "expected a list")?;
    let start = batch.len();
    if !cursor.eat(b']') {
        cursor.numbers(|run| batch.extend_from_slice(run));
        loop {
            match cursor.number()? {
                Some(number) => batch.push(number),
                None => {
                    let got = kind_of(cursor)?;
                    return Err(RequestError::Value { row, column: batch.len() - start, got });
                }
            }
            if cursor.eat(b',') {
                continue;
            }
            cursor.expect(b']', "expected a comma or a closing bracket")?;
            break;
        }
    }
    let got = batch.len() - start;
    if got == width { Ok(()) } else { Err(RequestError::Width { row, got, expected: width }) }
}

/// A row as an object. Without names in the model, the first row's order is the order of the columns, as it is
/// in the data frame that KServe's server makes.
fn object_row<'a>(
    cursor: &mut Cursor<'a>,
    row: usize,
    expected: Expected<'_>,
    names: &mut Vec<Cow<'a, str>>,
    batch: &mut Vec<f64>,
) -> Result<(), RequestError> {
    cursor.expect(b'{', "expected an object")?;
    let start = batch.len();
    let learns = expected.columns.is_empty() && row == 0;
    let width = expected.width;
    batch.resize(start + width, f64::NAN);
    // Which columns of this row are there: a missing one is an error, not a missing value.
    let mut seen = vec![false; width];
    let mut got = 0;
    if !cursor.eat(b'}') {
        loop {
            let key = cursor.text()?;
            cursor.expect(b':', "expected a colon")?;
            let known = if expected.columns.is_empty() {
                names.iter().position(|name| *name == key)
            } else {
                expected.columns.iter().position(|name| *name == *key)
            };
            let column = match known {
                Some(column) => column,
                None if learns => {
                    names.push(key.clone());
                    names.len() - 1
                }
                None => return Err(RequestError::ExtraColumn { row, column: key.into_owned() }),
            };
            let Some(number) = cursor.number()? else {
                let got = kind_of(cursor)?;
                return Err(RequestError::Value { row, column, got });
            };
            if column < width {
                batch[start + column] = number;
                seen[column] = true;
            }
            got = got.max(column + 1);
            if !cursor.eat(b',') {
                break;
            }
        }
        cursor.expect(b'}', "expected a comma or a closing brace")?;
    }
    if learns && got != width {
        return Err(RequestError::Width { row, got, expected: width });
    }
    match seen.iter().position(|seen| !seen) {
        None => Ok(()),
        Some(missing) => {
            let named = expected.columns.get(missing).cloned();
            let column =
                named.or_else(|| names.get(missing).map(|name| name.to_string())).unwrap_or_default();
            Err(RequestError::Column { row, column })
        }
    }
}

/// The elements of an answer.
#[derive(Debug, Clone, Copy)]
pub enum Values<'a> {
    /// Numbers.
    F64(&'a [f64]),
    /// Numbers of single precision, written as Python writes them: widened.
    F32(&'a [f32]),
    /// Integers.
    I64(&'a [i64]),
    /// Integers.
    I32(&'a [i32]),
    /// Truth values, one byte each.
    Bool(&'a [u8]),
}

/// Appends `{"predictions":…}` with the nesting of `dims`.
pub fn write(out: &mut Vec<u8>, dims: &[usize], values: Values<'_>) {
    out.extend_from_slice(b"{\"predictions\":");
    match values {
        Values::F64(all) => nested(out, dims, &mut all.iter(), &mut |out, value| push_f64(out, *value)),
        Values::F32(all) => {
            nested(out, dims, &mut all.iter(), &mut |out, value| push_f64(out, f64::from(*value)))
        }
        Values::I64(all) => nested(out, dims, &mut all.iter(), &mut |out, value| push_i64(out, *value)),
        Values::I32(all) => {
            nested(out, dims, &mut all.iter(), &mut |out, value| push_i64(out, i64::from(*value)))
        }
        Values::Bool(all) => nested(out, dims, &mut all.iter(), &mut |out, value| {
            out.extend_from_slice(if *value == 0 { b"false" } else { b"true" });
        }),
    }
    out.push(b'}');
}

/// Appends `{"predictions":…}` of texts.
pub fn write_texts<'a>(out: &mut Vec<u8>, dims: &[usize], mut texts: impl Iterator<Item = &'a str>) {
    out.extend_from_slice(b"{\"predictions\":");
    nested(out, dims, &mut texts, &mut |out, text| push_text(out, text));
    out.push(b'}');
}

fn nested<T>(
    out: &mut Vec<u8>,
    dims: &[usize],
    values: &mut dyn Iterator<Item = T>,
    push: &mut dyn FnMut(&mut Vec<u8>, T),
) {
    let Some((count, inner)) = dims.split_first() else {
        if let Some(value) = values.next() {
            push(out, value);
        }
        return;
    };
    out.push(b'[');
    for index in 0..*count {
        if index > 0 {
            out.push(b',');
        }
        nested(out, inner, values, push);
    }
    out.push(b']');
}

/// Appends `{"error":…}`, the shape of every failure in KServe's servers.
pub fn write_error(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(b"{\"error\":");
    push_text(out, text);
    out.push(b'}');
}

#[cfg(test)]
mod tests;
