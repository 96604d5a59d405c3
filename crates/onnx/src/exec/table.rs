//! ONNX-ML's operators on tables: scaling, filling, encoding, choosing columns.
//!
//! Not here: models of tables (`ensemble`, `linear`).

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use models::LoadError;

use super::attrs::Attrs;
use super::reduce::axis_of;
use super::value::{Budget, Cells, Failed, Value};
use super::{Op, Operator, input, plain};

/// The operator of a node, if it is one of these.
pub(crate) fn operator(attrs: Attrs<'_>) -> Result<Option<Op>, LoadError> {
    Ok(Some(match attrs.node.op.as_str() {
        "Scaler" => scaler(attrs)?,
        "Normalizer" => normalizer(attrs)?,
        "Imputer" => imputer(attrs)?,
        "Binarizer" => binarizer(attrs)?,
        "LabelEncoder" => label_encoder(attrs)?,
        "CategoryMapper" => category_mapper(attrs)?,
        "OneHotEncoder" => one_hot(attrs)?,
        "ArrayFeatureExtractor" => {
            plain(|inputs, budget| Ok(vec![extract(input(inputs, 0)?, input(inputs, 1)?, budget)?]))
        }
        "FeatureVectorizer" => vectorizer(attrs)?,
        "ZipMap" => Box::new(ZipMap { classes: super::attrs::Labels::read(attrs)?.shown() }),
        _ => return Ok(None),
    }))
}

/// `ZipMap` makes a map for each row of a table of scores. A server answers with tensors, so the table goes on
/// as it is, in the order of the classes.
struct ZipMap {
    classes: Vec<String>,
}

impl Operator for ZipMap {
    fn run(&self, inputs: &[Option<&Value>], _: &mut Budget) -> Result<Vec<Value>, Failed> {
        Ok(vec![input(inputs, 0)?.clone()])
    }

    fn cost_ns(&self) -> u64 {
        0
    }

    fn classes(&self) -> Vec<String> {
        self.classes.clone()
    }
}

/// One number for each column, from a list of one or of as many.
fn of_column(list: &[f32], column: usize) -> f32 {
    if list.len() == 1 { list[0] } else { list[column] }
}

fn check_width(list: usize, width: usize, name: &str) -> Result<(), Failed> {
    if list == 1 || list == width {
        Ok(())
    } else {
        Err(format!("{list} numbers in {name} for {width} columns"))
    }
}

/// Each cell of a table turned with its column's number, in `float`.
fn by_column(value: &Value, f: impl Fn(usize, f32) -> f32) -> Result<Value, Failed> {
    let width = value.dims.last().copied().unwrap_or(1).max(1);
    let cells = value.to_f32s()?;
    let out = cells.iter().enumerate().map(|(at, x)| f(at % width, *x)).collect();
    Ok(Value::f32s(&value.dims, out))
}

fn scaler(attrs: Attrs<'_>) -> Result<Op, LoadError> {
    let (offset, scale) = (attrs.floats("offset")?.to_vec(), attrs.floats("scale")?.to_vec());
    if offset.is_empty() || scale.is_empty() {
        return Err(attrs.error("it has no offset or no scale"));
    }
    Ok(plain(move |inputs, _| {
        let value = input(inputs, 0)?;
        let width = value.dims.last().copied().unwrap_or(1);
        check_width(offset.len(), width, "offset")?;
        check_width(scale.len(), width, "scale")?;
        Ok(vec![by_column(value, |column, x| (x - of_column(&offset, column)) * of_column(&scale, column))?])
    }))
}

fn normalizer(attrs: Attrs<'_>) -> Result<Op, LoadError> {
    let norm: fn(&mut [f32]) = match attrs.text_or("norm", "MAX")? {
        "MAX" => |row| {
            let max = row.iter().copied().fold(f32::MIN, f32::max);
            divide(row, max);
        },
        "L1" => |row| {
            let sum = row.iter().map(|x| x.abs()).sum();
            divide(row, sum);
        },
        "L2" => |row| {
            let sum: f32 = row.iter().map(|x| x * x).sum();
            if sum != 0.0 {
                row.iter_mut().for_each(|x| *x = (*x * *x / sum).sqrt().copysign(*x));
            }
        },
        other => return Err(attrs.unsupported(format!("norm {other:?}"))),
    };
    Ok(plain(move |inputs, _| {
        let value = input(inputs, 0)?;
        let (_, width) = value.table()?;
        let mut cells = value.to_f32s()?.into_owned();
        cells.chunks_exact_mut(width.max(1)).for_each(norm);
        Ok(vec![Value::f32s(&value.dims, cells)])
    }))
}

fn divide(row: &mut [f32], by: f32) {
    if by != 0.0 {
        row.iter_mut().for_each(|x| *x /= by);
    }
}

fn imputer(attrs: Attrs<'_>) -> Result<Op, LoadError> {
    let ints = attrs.ints("imputed_value_int64s")?.to_vec();
    if !ints.is_empty() {
        let replaced = attrs.int_or("replaced_value_int64", 0)?;
        return Ok(plain(move |inputs, _| {
            let value = input(inputs, 0)?;
            let width = value.dims.last().copied().unwrap_or(1).max(1);
            check_width(ints.len(), width, "imputed_value_int64s")?;
            let fill = |column: usize| if ints.len() == 1 { ints[0] } else { ints[column] };
            let cells = value.to_ints()?;
            let cells =
                cells.iter().enumerate().map(|(at, x)| if *x == replaced { fill(at % width) } else { *x });
            Ok(vec![Value::ints(&value.dims, cells.collect())])
        }));
    }
    let fill = attrs.floats("imputed_value_floats")?.to_vec();
    let replaced = attrs.float_or("replaced_value_float", 0.0)?;
    if fill.is_empty() {
        return Err(attrs.error("it names no value to fill in"));
    }
    Ok(plain(move |inputs, _| {
        let value = input(inputs, 0)?;
        check_width(fill.len(), value.dims.last().copied().unwrap_or(1), "imputed_value_floats")?;
        let gone = |x: f32| if replaced.is_nan() { x.is_nan() } else { x == replaced };
        Ok(vec![by_column(value, |column, x| if gone(x) { of_column(&fill, column) } else { x })?])
    }))
}

fn binarizer(attrs: Attrs<'_>) -> Result<Op, LoadError> {
    let threshold = attrs.float_or("threshold", 0.0)?;
    Ok(plain(move |inputs, _| Ok(vec![by_column(input(inputs, 0)?, |_, x| f32::from(x > threshold))?])))
}

/// A key of an encoder. Numbers are compared by their bits, with one zero and one "missing".
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Int(i64),
    Bits(u64),
    Text(Arc<str>),
}

impl Key {
    fn of_number(x: f64) -> Self {
        Self::Bits(if x.is_nan() { f64::NAN.to_bits() } else { (x + 0.0).to_bits() })
    }

    fn all(value: &Value) -> Result<Vec<Self>, Failed> {
        Ok(match &value.cells {
            Cells::Text(cells) => cells.iter().cloned().map(Self::Text).collect(),
            Cells::Int(_) | Cells::Bool(_) => value.to_ints()?.iter().map(|x| Self::Int(*x)).collect(),
            _ => value.to_f64s()?.iter().map(|x| Self::of_number(*x)).collect(),
        })
    }
}

/// A list under one of the names that an encoder's versions have for it, with the default for what it lacks.
fn listed(attrs: Attrs<'_>, side: &str) -> Result<Option<(Value, Value)>, LoadError> {
    if let Some(list) = attrs.tensor(&format!("{side}_tensor"))? {
        let default = match attrs.tensor("default_tensor")? {
            Some(default) => default,
            None if matches!(list.cells, Cells::Text(_)) => Value::texts(&[1], vec!["_Unused".into()]),
            None => Value::of_f64s(
                list.elem,
                &[1],
                vec![if matches!(list.cells, Cells::Int(_)) { -1.0 } else { -0.0 }],
            ),
        };
        return Ok(Some((list, default)));
    }
    let texts = attrs.texts(&format!("{side}_strings"))?;
    if !texts.is_empty() {
        let default = attrs.text_or("default_string", "_Unused")?;
        return Ok(Some((Value::texts(&[texts.len()], texts), Value::texts(&[1], vec![default.into()]))));
    }
    let ints = attrs.ints(&format!("{side}_int64s"))?;
    if !ints.is_empty() {
        let default = attrs.int_or("default_int64", -1)?;
        return Ok(Some((Value::ints(&[ints.len()], ints.to_vec()), Value::ints(&[1], vec![default]))));
    }
    let floats = attrs.floats(&format!("{side}_floats"))?;
    let default = attrs.float_or("default_float", -0.0)?;
    Ok((!floats.is_empty())
        .then(|| (Value::f32s(&[floats.len()], floats.to_vec()), Value::f32s(&[1], vec![default]))))
}

/// The places of a list's keys; the first of equals counts.
fn index<K: Hash + Eq>(keys: impl IntoIterator<Item = K>) -> HashMap<K, usize> {
    let mut places = HashMap::new();
    for (at, key) in keys.into_iter().enumerate() {
        places.entry(key).or_insert(at);
    }
    places
}

/// A map from keys to the cells of a list whose last cell is for keys that are not there.
fn encoder(keys: Vec<Key>, values: &Value, default: &Value) -> Result<Op, Failed> {
    let cells = match (&values.cells, &default.cells) {
        (Cells::F32(x), Cells::F32(d)) if d.len() == 1 => Cells::F32([&x[..], d].concat()),
        (Cells::F64(x), Cells::F64(d)) if d.len() == 1 => Cells::F64([&x[..], d].concat()),
        (Cells::Int(x), Cells::Int(d)) if d.len() == 1 => Cells::Int([&x[..], d].concat()),
        (Cells::Text(x), Cells::Text(d)) if d.len() == 1 => Cells::Text([&x[..], d].concat()),
        _ => return Err("its values and its default have different types".into()),
    };
    if keys.len() + 1 != cells.len() {
        return Err(format!("{} keys for {} values", keys.len(), cells.len() - 1));
    }
    let (unknown, elem, places) = (keys.len(), values.elem, index(keys));
    Ok(plain(move |inputs, _| {
        let value = input(inputs, 0)?;
        let keys = Key::all(value)?;
        let picks = keys.iter().map(|key| places.get(key).copied().unwrap_or(unknown));
        Ok(vec![Value { dims: value.dims.clone(), elem, cells: cells.pick(picks) }])
    }))
}

fn label_encoder(attrs: Attrs<'_>) -> Result<Op, LoadError> {
    if attrs.has("classes_strings") {
        return mapper(attrs, "classes_strings", None);
    }
    let keys = listed(attrs, "keys")?.ok_or_else(|| attrs.error("it has no keys"))?.0;
    let (values, default) = listed(attrs, "values")?.ok_or_else(|| attrs.error("it has no values"))?;
    let keys = Key::all(&keys).map_err(|what| attrs.error(what))?;
    encoder(keys, &values, &default).map_err(|what| attrs.error(what))
}

fn category_mapper(attrs: Attrs<'_>) -> Result<Op, LoadError> {
    mapper(attrs, "cats_strings", Some("cats_int64s"))
}

/// Texts to numbers or back, by the type of the input.
fn mapper(attrs: Attrs<'_>, texts: &str, ints: Option<&str>) -> Result<Op, LoadError> {
    let texts = attrs.texts(texts)?;
    let ints = match ints {
        Some(name) => attrs.ints(name)?.to_vec(),
        None => (0..texts.len() as i64).collect(),
    };
    let failed = |what: Failed| attrs.error(what);
    let (text, int) = (
        Value::texts(&[1], vec![attrs.text_or("default_string", "_Unused")?.into()]),
        Value::ints(&[1], vec![attrs.int_or("default_int64", -1)?]),
    );
    let (all_texts, all_ints) = (Value::texts(&[texts.len()], texts), Value::ints(&[ints.len()], ints));
    let to_ints = encoder(Key::all(&all_texts).map_err(failed)?, &all_ints, &int).map_err(failed)?;
    let to_texts = encoder(Key::all(&all_ints).map_err(failed)?, &all_texts, &text).map_err(failed)?;
    Ok(plain(move |inputs, budget| match &input(inputs, 0)?.cells {
        Cells::Text(_) => to_ints.run(inputs, budget),
        _ => to_texts.run(inputs, budget),
    }))
}

fn one_hot(attrs: Attrs<'_>) -> Result<Op, LoadError> {
    let texts = attrs.texts("cats_strings")?;
    let ints = attrs.ints("cats_int64s")?;
    let zeros = attrs.int_or("zeros", 1)? != 0;
    let width = texts.len().max(ints.len());
    if width == 0 {
        return Err(attrs.error("it names no categories"));
    }
    let (texts, ints) = (index(texts), index(ints.to_vec()));
    Ok(plain(move |inputs, budget| {
        let value = input(inputs, 0)?;
        let mut dims = value.dims.clone();
        dims.push(width);
        let mut out = vec![0_f32; budget.claim(&dims)?];
        let places: Vec<Option<usize>> = match &value.cells {
            Cells::Text(cells) => cells.iter().map(|text| texts.get(text).copied()).collect(),
            _ => value.to_f64s()?.iter().map(|x| ints.get(&(*x as i64)).copied()).collect(),
        };
        for (row, place) in out.chunks_exact_mut(width).zip(places) {
            match place {
                Some(place) => row[place] = 1.0,
                None if zeros => {}
                None => return Err("a category that the encoder does not know".into()),
            }
        }
        Ok(vec![Value::f32s(&dims, out)])
    }))
}

fn extract(value: &Value, columns: &Value, budget: &mut Budget) -> Result<Value, Failed> {
    let width = *value.dims.last().ok_or("a number where a table is needed")?;
    let columns = columns.to_ints()?;
    let picks = columns
        .iter()
        .map(|column| axis_of(*column, width).map_err(|_| format!("column {column} of {width}")));
    let picks = picks.collect::<Result<Vec<_>, _>>()?;
    // One dimension comes out as one row.
    let mut dims = if value.dims.len() == 1 { vec![1] } else { value.dims[..value.dims.len() - 1].to_vec() };
    let rows: usize = dims.iter().product();
    dims.push(picks.len());
    budget.claim(&dims)?;
    let places = (0..rows).flat_map(|row| picks.iter().map(move |pick| row * width + pick));
    Ok(Value { dims, elem: value.elem, cells: value.cells.pick(places) })
}

fn vectorizer(attrs: Attrs<'_>) -> Result<Op, LoadError> {
    let widths = attrs.ints("inputdimensions")?.to_vec();
    Ok(plain(move |inputs, budget| {
        let mut parts = Vec::with_capacity(inputs.len());
        let mut rows = None;
        let mut width = 0;
        for at in 0..inputs.len() {
            let value = input(inputs, at)?;
            let (own, columns) = if value.dims.len() == 1 { (value.dims[0], 1) } else { value.table()? };
            if rows.is_some_and(|rows| rows != own)
                || widths.get(at).is_some_and(|wanted| *wanted != columns as i64)
            {
                return Err(format!("input {at} of shape {:?} does not fit", value.dims));
            }
            rows = Some(own);
            width += columns;
            parts.push((value.to_f32s()?, columns));
        }
        let rows = rows.unwrap_or(0);
        let mut out = Vec::with_capacity(budget.claim(&[rows, width])?);
        for row in 0..rows {
            for (cells, columns) in &parts {
                out.extend_from_slice(&cells[row * columns..(row + 1) * columns]);
            }
        }
        Ok(vec![Value::f32s(&[rows, width], out)])
    }))
}
