//! Tables of data from files: CSV, NPY, NPZ, and the JSON that clients send.
//!
//! What a person has at hand to try a model on. A column is numbers (with NaN for what is missing) or texts; a
//! table knows how to become the inputs that a [`Signature`] asks for.
//!
//! Not here: model files (`container`), reading from disk.

mod csv;
mod json;

use bytes::Bytes;

use crate::array::{Kind, NdArray};
use crate::backend::Signature;
use crate::npy;
use crate::tensor::{DType, Tensor};

/// The most cells a file of data may have.
const CELLS_MAX: usize = 200_000_000;

/// The cells of one column.
#[derive(Debug, Clone, PartialEq)]
pub enum Column {
    /// Numbers; NaN is missing.
    Numbers(Vec<f64>),
    /// Texts.
    Texts(Vec<String>),
}

/// Rows of named columns.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    names: Option<Vec<String>>,
    columns: Vec<Column>,
    rows: usize,
}

/// Why a file of data cannot be used; a text for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TableError(pub(crate) String);

type Result<T> = std::result::Result<T, TableError>;

fn error<T>(what: impl Into<String>) -> Result<T> {
    Err(TableError(what.into()))
}

impl Table {
    /// Reads a file by the ending of its name: `csv` (and `tsv`), `npy`, `npz`, `json`.
    pub fn read(file: &str, bytes: &Bytes) -> Result<Self> {
        let ending = file.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
        match ending.as_str() {
            "csv" | "tsv" => csv::read(bytes, if ending == "tsv" { '\t' } else { ',' }),
            "npy" => Self::of_npy(bytes),
            "npz" => of_npz(bytes),
            "json" => json::read(bytes),
            other => error(format!("the ending {other:?} of {file:?} is none of csv, tsv, npy, npz, json")),
        }
    }

    /// A table of numbers without names: `data` is row by row.
    pub fn of_rows(data: &[f64], width: usize) -> Self {
        let rows = data.len().checked_div(width).unwrap_or(0);
        let column = |at: usize| Column::Numbers(data.iter().skip(at).step_by(width).copied().collect());
        Self { names: None, columns: (0..width).map(column).collect(), rows }
    }

    pub(crate) fn new(names: Option<Vec<String>>, columns: Vec<Column>, rows: usize) -> Result<Self> {
        if columns.is_empty() || rows == 0 {
            return error("the file has no rows");
        }
        if columns.len().saturating_mul(rows) > CELLS_MAX {
            return error(format!("the file has more than {CELLS_MAX} cells"));
        }
        Ok(Self { names, columns, rows })
    }

    fn of_npy(bytes: &Bytes) -> Result<Self> {
        let array = npy::read(bytes).map_err(|error| TableError(error.to_string()))?;
        Self::of_array(&array)
    }

    fn of_array(array: &NdArray) -> Result<Self> {
        let (rows, width) = match array.shape.as_slice() {
            [rows] => (*rows, 1),
            // Images, say: a column for each cell of a row.
            [rows, cells @ ..] if !cells.is_empty() => (*rows, cells.iter().product()),
            shape => return error(format!("an array of shape {shape:?}; expected rows and columns")),
        };
        if matches!(array.dtype.kind, Kind::Text | Kind::Bytes) {
            let all = array.to_texts().unwrap_or_default();
            let column = |at: usize| Column::Texts(all.iter().skip(at).step_by(width).cloned().collect());
            return Self::new(None, (0..width).map(column).collect(), rows);
        }
        match array.to_f64s() {
            Some(all) if width > 0 && all.len() == rows * width => {
                Self::new(None, Self::of_rows(&all, width).columns, rows)
            }
            _ => error(format!("an array of {} is neither numbers nor texts", array.dtype.name())),
        }
    }

    /// How many rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How many columns.
    pub fn width(&self) -> usize {
        self.columns.len()
    }

    /// The columns.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The names of the columns, if the file has them.
    pub fn names(&self) -> Option<&[String]> {
        self.names.as_deref()
    }

    /// Takes a column out, by its name or its number from 0: what the model is to predict, say.
    pub fn take(&mut self, column: &str) -> Result<Column> {
        let by_name = self.names.as_ref().and_then(|names| names.iter().position(|name| name == column));
        let at = by_name.or_else(|| column.parse().ok()).filter(|at| *at < self.columns.len());
        let Some(at) = at else {
            let known = match &self.names {
                Some(names) => names.join(", "),
                None => format!("0 to {}", self.columns.len() - 1),
            };
            return error(format!("no column {column:?}; there are {known}"));
        };
        if let Some(names) = &mut self.names {
            names.remove(at);
        }
        Ok(self.columns.remove(at))
    }

    /// Only these rows.
    pub fn slice(&self, rows: std::ops::Range<usize>) -> Self {
        let range = rows.start.min(self.rows)..rows.end.min(self.rows);
        let cut = |column: &Column| match column {
            Column::Numbers(all) => Column::Numbers(all[range.clone()].to_vec()),
            Column::Texts(all) => Column::Texts(all[range.clone()].to_vec()),
        };
        Self { names: self.names.clone(), columns: self.columns.iter().map(cut).collect(), rows: range.len() }
    }

    /// The columns in the order of these names; the others are left out.
    fn by_names(&self, wanted: &[String]) -> Option<Vec<&Column>> {
        let names = self.names.as_ref()?;
        let place = |name: &String| names.iter().position(|own| own == name);
        wanted.iter().map(|name| place(name).map(|at| &self.columns[at])).collect()
    }

    /// The inputs that a model asks for: columns by name where both know names, else all in their order.
    pub fn inputs(&self, signature: &Signature) -> Result<Vec<Tensor<'static>>> {
        match signature.inputs.as_slice() {
            [only] => {
                // A row of several dimensions is folded from as many columns as it has cells; none is any.
                let cells: Option<usize> = only.row.iter().copied().product();
                let width = cells.filter(|_| !only.row.is_empty());
                let columns = self.chosen(&signature.columns, width)?;
                let per_row: Vec<usize> = match only.row.as_slice() {
                    [] => Vec::new(),
                    [_] => vec![columns.len()],
                    dims => self.folded(dims, columns.len())?,
                };
                Ok(vec![self.tensor(&columns, only.dtype, &per_row)?])
            }
            many => {
                let names: Vec<String> = many.iter().map(|input| input.name.clone()).collect();
                let columns = self.chosen(&names, Some(many.len()))?;
                let each = many.iter().zip(columns);
                each.map(|(spec, column)| self.tensor(&[column], spec.dtype, &vec![1; spec.row.len()]))
                    .collect()
            }
        }
    }

    /// A row of several dimensions, folded from the columns.
    fn folded(&self, dims: &[Option<usize>], width: usize) -> Result<Vec<usize>> {
        let fixed: Option<Vec<usize>> = dims.iter().copied().collect();
        match fixed {
            Some(fixed) if fixed.iter().product::<usize>() == width => Ok(fixed),
            _ => error(format!("{width} columns do not fill a row of shape {dims:?}")),
        }
    }

    fn chosen(&self, names: &[String], width: Option<usize>) -> Result<Vec<&Column>> {
        if let Some(columns) = self.by_names(names).filter(|columns| !columns.is_empty()) {
            return Ok(columns);
        }
        let all: Vec<&Column> = self.columns.iter().collect();
        match width {
            Some(width) if width != all.len() => error(format!(
                "the data has {} columns, the model takes {width}; `--drop COLUMN` leaves one out{}",
                all.len(),
                match (&self.names, names) {
                    (Some(own), [_, ..]) =>
                        format!(" (data: {}; model: {})", own.join(", "), names.join(", ")),
                    _ => String::new(),
                }
            )),
            _ => Ok(all),
        }
    }

    fn tensor(&self, columns: &[&Column], dtype: DType, per_row: &[usize]) -> Result<Tensor<'static>> {
        let mut dims = vec![self.rows];
        dims.extend_from_slice(per_row);
        let too_large = || TableError("the data is too large for one tensor".into());
        let has_texts = columns.iter().any(|column| matches!(column, Column::Texts(_)));
        if dtype == DType::Text || has_texts {
            let cell = |row: usize, column: &Column| match column {
                Column::Texts(all) => all[row].clone(),
                Column::Numbers(all) => all[row].to_string(),
            };
            let cells: Vec<String> =
                (0..self.rows).flat_map(|row| columns.iter().map(move |column| cell(row, column))).collect();
            if dtype != DType::Text
                && let Some(bad) = cells.iter().find(|cell| cell.parse::<f64>().is_err())
            {
                return error(format!("the model takes numbers, the data has the text {bad:?}"));
            }
            return Tensor::of_texts(&cells, &dims).ok_or_else(too_large);
        }
        let mut cells = Vec::with_capacity(self.rows * columns.len());
        for row in 0..self.rows {
            for column in columns {
                if let Column::Numbers(all) = column {
                    cells.push(all[row]);
                }
            }
        }
        // Backends take every type of numbers whose values fit; the widest says all of them.
        let tensor = match dtype {
            DType::F32 => Tensor::owned(&cells.iter().map(|cell| *cell as f32).collect::<Vec<_>>(), &dims),
            DType::I64 => Tensor::owned(&cells.iter().map(|cell| *cell as i64).collect::<Vec<_>>(), &dims),
            DType::I32 => Tensor::owned(&cells.iter().map(|cell| *cell as i32).collect::<Vec<_>>(), &dims),
            _ => Tensor::owned(&cells, &dims),
        };
        tensor.ok_or_else(too_large)
    }
}

/// The only array of an archive, or the one that is called as tables of features are.
fn of_npz(bytes: &Bytes) -> Result<Table> {
    use std::io::Read;
    let archive = zip::ZipArchive::new(std::io::Cursor::new(bytes.clone()));
    let mut archive = archive.map_err(|error| TableError(format!("no npz archive: {error}")))?;
    let names: Vec<String> = archive.file_names().map(str::to_owned).collect();
    let usual = ["X.npy", "x.npy", "data.npy", "features.npy", "arr_0.npy", "x_test.npy", "X_test.npy"];
    let chosen = match names.as_slice() {
        [only] => Some(only.clone()),
        _ => usual.iter().find(|name| names.iter().any(|own| own == *name)).map(|name| (*name).to_owned()),
    };
    let Some(chosen) = chosen else {
        return error(format!("an archive of {}; name the array of features X", names.join(", ")));
    };
    let member = archive.by_name(&chosen).map_err(|error| TableError(error.to_string()))?;
    let limit = CELLS_MAX as u64 * 8;
    let mut inner = Vec::new();
    let read = member.take(limit + 1).read_to_end(&mut inner);
    read.map_err(|error| TableError(format!("{chosen}: {error}")))?;
    if inner.len() as u64 > limit {
        return error(format!("{chosen} is larger than {limit} bytes"));
    }
    Table::of_npy(&inner.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::TensorSpec;

    fn signature(row: Vec<Option<usize>>, columns: &[&str]) -> Signature {
        Signature {
            inputs: vec![TensorSpec::new("X", DType::F64, row)],
            outputs: Vec::new(),
            columns: columns.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    fn csv(text: &str) -> Result<Table> {
        Table::read("rows.csv", &Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn a_line_without_numbers_names_the_columns() {
        let table = csv("a,b,kind\r\n1,2,\"x, \"\"y\"\"\"\n3,,z\n").expect("a table");
        assert_eq!(table.names().expect("names"), ["a", "b", "kind"]);
        assert_eq!(table.columns()[2], Column::Texts(vec!["x, \"y\"".into(), "z".into()]));
        let Column::Numbers(b) = &table.columns()[1] else { panic!("numbers") };
        assert!(b[0] == 2.0 && b[1].is_nan());
        assert!(csv("1,2\n3,4").expect("a table").names().is_none());
    }

    #[test]
    fn columns_are_found_by_name_and_else_by_place() {
        let table = csv("y,b,a\n9,2,1\n9,4,3\n").expect("a table");
        let inputs = table.inputs(&signature(vec![Some(2)], &["a", "b"])).expect("they are there");
        assert_eq!(*inputs[0].to_f64s().expect("numbers"), [1.0, 2.0, 3.0, 4.0]);
        let error = table.inputs(&signature(vec![Some(2)], &[])).expect_err("three for two");
        assert!(error.to_string().contains("3 columns, the model takes 2"), "{error}");
        let mut table = table;
        table.take("y").expect("it is there");
        assert!(table.inputs(&signature(vec![Some(2)], &[])).is_ok());
    }

    #[test]
    fn rows_of_several_dimensions_are_folded_from_columns() {
        let header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1, 2, 3), }\n";
        let cells: Vec<u8> = (0..12).flat_map(|cell| (cell as f32).to_le_bytes()).collect();
        let file = [&b"\x93NUMPY\x01\x00"[..], &[header.len() as u8, 0], header, &cells].concat();
        let table = Table::read("images.npy", &file.into()).expect("a table");
        assert_eq!((table.rows(), table.width()), (2, 6));
        let inputs = table.inputs(&signature(vec![Some(1), Some(2), Some(3)], &[])).expect("they fit");
        assert_eq!(inputs[0].dims(), [2, 1, 2, 3]);
        assert_eq!(*inputs[0].to_f64s().expect("numbers"), (0..12).map(f64::from).collect::<Vec<_>>());
        let error =
            table.inputs(&signature(vec![Some(1), Some(2), Some(4)], &[])).expect_err("six for eight");
        assert!(error.to_string().contains("6 columns, the model takes 8"), "{error}");
    }

    #[test]
    fn what_is_no_table_is_refused_with_its_line() {
        for (text, word) in [("1,2\n3\n", "line 2"), ("", "no rows"), ("a,b\n", "no rows"), ("\"x", "quote")]
        {
            let error = csv(text).expect_err(word).to_string();
            assert!(error.contains(word), "{text:?}: {error}");
        }
    }

    #[test]
    fn json_of_either_protocol_is_read() {
        let same = [
            r#"{"instances": [[1, 2.5], [3, null]]}"#,
            r#"[[1, 2.5], [3, null]]"#,
            r#"{"inputs": [{"name": "x", "shape": [2, 2], "datatype": "FP64", "data": [1, 2.5, 3, null]}]}"#,
        ];
        for text in same {
            let table = Table::read("x.json", &Bytes::copy_from_slice(text.as_bytes())).expect(text);
            let Column::Numbers(second) = &table.columns()[1] else { panic!("numbers") };
            assert!(table.rows() == 2 && second[0] == 2.5 && second[1].is_nan(), "{text}");
        }
        let rows = br#"{"instances": [{"a": 1, "k": "u"}, {"k": "v", "a": 2}]}"#;
        let table = Table::read("x.json", &Bytes::from_static(rows)).expect("dicts");
        assert_eq!(table.names().expect("names"), ["a", "k"]);
        assert_eq!(table.columns()[1], Column::Texts(vec!["u".into(), "v".into()]));
        let ragged = Table::read("x.json", &Bytes::from_static(b"[[1], [1, 2]]")).expect_err("ragged");
        assert!(ragged.to_string().contains("row 1"), "{ragged}");
    }
}
