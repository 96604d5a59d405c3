//! The bodies of requests as data: `instances` of the V1 protocol, `inputs` of V2, or a list of rows.
//!
//! Not here: the wire itself (`codecs`), which takes no detour over trees.

use serde_json::Value;

use super::{Column, Result, Table, TableError, error};

/// Cells of a column as they come.
#[derive(Default)]
struct Cells {
    numbers: Vec<f64>,
    texts: Vec<String>,
    has_texts: bool,
}

impl Cells {
    fn push(&mut self, cell: &Value, row: usize) -> Result<()> {
        let (number, text) = match cell {
            Value::Null => (f64::NAN, String::new()),
            Value::Bool(truth) => (f64::from(u8::from(*truth)), truth.to_string()),
            Value::Number(number) => (number.as_f64().unwrap_or(f64::NAN), number.to_string()),
            Value::String(text) => {
                self.has_texts = true;
                (f64::NAN, text.clone())
            }
            _ => return error(format!("row {row}: a cell is neither a number nor a text")),
        };
        self.numbers.push(number);
        self.texts.push(text);
        Ok(())
    }

    fn column(self) -> Column {
        if self.has_texts { Column::Texts(self.texts) } else { Column::Numbers(self.numbers) }
    }
}

pub(super) fn read(bytes: &[u8]) -> Result<Table> {
    let document: Value =
        serde_json::from_slice(bytes).map_err(|error| TableError(format!("the file is no JSON: {error}")))?;
    if let Some(inputs) = document.get("inputs").and_then(Value::as_array) {
        return of_inputs(inputs);
    }
    match document.get("instances").unwrap_or(&document) {
        Value::Array(rows) => of_rows(rows),
        _ => error("expected a list of rows, {\"instances\": […]} or {\"inputs\": […]}"),
    }
}

fn of_rows(rows: &[Value]) -> Result<Table> {
    let names: Option<Vec<String>> = match rows.first() {
        Some(Value::Object(first)) => Some(first.keys().cloned().collect()),
        _ => None,
    };
    let width = match (&names, rows.first()) {
        (Some(names), _) => names.len(),
        (None, Some(Value::Array(first))) => first.len(),
        _ => 1,
    };
    let mut columns: Vec<Cells> = (0..width).map(|_| Cells::default()).collect();
    for (index, row) in rows.iter().enumerate() {
        let ragged = || TableError(format!("row {index} has other columns than row 0, which has {width}"));
        match (row, &names) {
            (Value::Object(row), Some(names)) if row.len() == width => {
                for (name, column) in names.iter().zip(&mut columns) {
                    column.push(row.get(name).ok_or_else(ragged)?, index)?;
                }
            }
            (Value::Array(row), None) if row.len() == width => {
                row.iter().zip(&mut columns).try_for_each(|(cell, column)| column.push(cell, index))?;
            }
            (Value::Array(_) | Value::Object(_), _) => return Err(ragged()),
            (cell, None) if width == 1 => columns[0].push(cell, index)?,
            _ => return Err(ragged()),
        }
    }
    Table::new(names, columns.into_iter().map(Cells::column).collect(), rows.len())
}

/// One tensor of rows, or one tensor for each column.
fn of_inputs(inputs: &[Value]) -> Result<Table> {
    let [only] = inputs else {
        let mut names = Vec::new();
        let mut columns = Vec::new();
        let mut rows = 0;
        for (index, input) in inputs.iter().enumerate() {
            let cells = flat(input)?;
            if index > 0 && cells.len() != rows {
                return error(format!("input {index} has {} cells, the first {rows}", cells.len()));
            }
            rows = cells.len();
            names.push(input.get("name").and_then(Value::as_str).unwrap_or_default().to_owned());
            let mut column = Cells::default();
            cells.iter().enumerate().try_for_each(|(row, cell)| column.push(cell, row))?;
            columns.push(column.column());
        }
        return Table::new(Some(names), columns, rows);
    };
    let cells = flat(only)?;
    let shape: Vec<u64> = only
        .get("shape")
        .and_then(Value::as_array)
        .map(|shape| shape.iter().filter_map(Value::as_u64).collect())
        .unwrap_or_default();
    let width = match shape.as_slice() {
        [_] => 1,
        [_, rest @ ..] => rest.iter().product::<u64>() as usize,
        [] => return error("the input has no shape"),
    };
    if width == 0 || cells.len() % width != 0 {
        return error(format!("{} cells do not fill the shape {shape:?}", cells.len()));
    }
    let mut columns: Vec<Cells> = (0..width).map(|_| Cells::default()).collect();
    for (index, cell) in cells.iter().enumerate() {
        columns[index % width].push(cell, index / width)?;
    }
    Table::new(None, columns.into_iter().map(Cells::column).collect(), cells.len() / width)
}

/// The cells of an input, whether its data is nested or not.
fn flat(input: &Value) -> Result<Vec<&Value>> {
    let mut cells = Vec::new();
    flatten(input.get("data").unwrap_or(&Value::Null), &mut cells, 0)?;
    Ok(cells)
}

fn flatten<'v>(value: &'v Value, cells: &mut Vec<&'v Value>, depth: usize) -> Result<()> {
    match value {
        Value::Array(items) if depth < 16 => {
            items.iter().try_for_each(|item| flatten(item, cells, depth + 1))
        }
        Value::Array(_) => error("data is nested too deep"),
        cell => {
            cells.push(cell);
            Ok(())
        }
    }
}
