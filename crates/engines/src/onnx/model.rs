//! A graph in ONNX Runtime as a backend of the model server.
//!
//! What the file declares about its first dimensions decides how calls are put together: where all inputs and outputs are
//! free there, they are rows; where all are fixed at one, rows are run one by one; anything else is called as it is. Names of
//! free dimensions are not trusted, so the graph is run once on zeros at load, which warms it up as well: an output that
//! does not follow the rows then makes the whole graph one without rows. A graph that cannot run on zeros is taken at its
//! word.
//!
//! A row's answer may differ in its last bits with the number of rows beside it: the library picks other kernels for other
//! sizes.
//!
//! Not here: calls of the library (`session`).

use std::path::Path;
use std::time::Instant;

use models::{
    Backend, BackendError, Batch, DType, Dims, Outputs, RANK_MAX, Shape, Signature, Tensor, TensorSpec,
};

use super::session::{Declared, Failed, INVALID_ARGUMENT, Session};
use super::{Library, Options};
use crate::cost::Cost;
use crate::error::Error;

/// Rows of the run at load, and what a dimension that is free besides them is then.
const PROBE: usize = 2;
/// Numbers in an input of the run at load, at most: what a small file may ask for.
const PROBE_CELLS_MAX: usize = 16 << 20;

/// A loaded graph.
pub struct Model {
    session: Session,
    signature: Signature,
    /// Rows are run one by one.
    single: bool,
    cost: Cost,
    library: Library,
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model").field("signature", &self.signature).field("library", &self.library).finish()
    }
}

/// The library's number of a type.
pub(super) fn element(dtype: DType) -> i32 {
    match dtype {
        DType::F32 => 1,
        DType::U8 => 2,
        DType::I8 => 3,
        DType::U16 => 4,
        DType::I16 => 5,
        DType::I32 => 6,
        DType::I64 => 7,
        DType::Text => 8,
        DType::Bool => 9,
        DType::F16 => 10,
        DType::F64 => 11,
        DType::U32 => 12,
        DType::U64 => 13,
        DType::BF16 => 16,
    }
}

/// The type of the library's number; complex numbers and those of less than a byte are not served.
pub(super) fn dtype(element: i32) -> Option<DType> {
    Some(match element {
        1 => DType::F32,
        2 => DType::U8,
        3 => DType::I8,
        4 => DType::U16,
        5 => DType::I16,
        6 => DType::I32,
        7 => DType::I64,
        8 => DType::Text,
        9 => DType::Bool,
        10 => DType::F16,
        11 => DType::F64,
        12 => DType::U32,
        13 => DType::U64,
        16 => DType::BF16,
        _ => return None,
    })
}

/// How the first dimensions are declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rows {
    Many,
    Single,
    None,
}

fn rows_of(declared: &[Declared]) -> Rows {
    let firsts: Vec<Option<i64>> = declared.iter().map(|one| one.dims.first().copied()).collect();
    if firsts.iter().all(|first| first.is_some_and(|size| size < 0)) {
        Rows::Many
    } else if firsts.iter().all(|first| *first == Some(1)) {
        Rows::Single
    } else {
        Rows::None
    }
}

fn spec(declared: &Declared, rows: Rows, what: &str) -> Result<TensorSpec, Error> {
    const KINDS: [&str; 7] =
        ["nothing", "tensor", "sequence", "map", "opaque value", "sparse tensor", "optional"];
    let name = &declared.name;
    let Some(element) = declared.element else {
        let kind = usize::try_from(declared.kind).ok().and_then(|kind| KINDS.get(kind)).unwrap_or(&"unknown");
        return Err(Error::Unsupported(format!("{what} {name:?} is a {kind}, only tensors are served")));
    };
    let dtype = dtype(element).ok_or_else(|| {
        Error::Unsupported(format!("{what} {name:?} has the element type {element} of ONNX"))
    })?;
    if declared.dims.len() > RANK_MAX {
        let rank = declared.dims.len();
        return Err(Error::Unsupported(format!("{what} {name:?} has {rank} dimensions, at most {RANK_MAX}")));
    }
    let skipped = usize::from(rows != Rows::None);
    let row: Vec<_> = declared.dims[skipped..].iter().map(|dim| usize::try_from(*dim).ok()).collect();
    let dims = if rows == Rows::None { Dims::Whole } else { Dims::Rows };
    Ok(TensorSpec { dims, ..TensorSpec::new(name.clone(), dtype, row) })
}

fn signature(inputs: &[Declared], outputs: &[Declared], rows: Rows) -> Result<Signature, Error> {
    let all = |declared: &[Declared], what| {
        declared.iter().map(|one| spec(one, rows, what)).collect::<Result<Vec<_>, Error>>()
    };
    Ok(Signature { inputs: all(inputs, "input")?, outputs: all(outputs, "output")?, columns: Vec::new() })
}

impl Model {
    /// Reads a graph and runs it once on zeros.
    pub fn load(library: Library, path: &Path, options: &Options) -> Result<Self, Error> {
        library.check(options)?;
        let failed = |failed: Failed| Error::Model { path: path.to_owned(), why: failed.text };
        let session = Session::open(library.0, path, options).map_err(failed)?;
        let (inputs, outputs) = (session.inputs().map_err(failed)?, session.outputs().map_err(failed)?);
        if outputs.is_empty() {
            return Err(Error::Unsupported("a graph without outputs".into()));
        }
        let (of_inputs, of_outputs) = (rows_of(&inputs), rows_of(&outputs));
        let rows = if of_inputs == of_outputs && !inputs.is_empty() { of_inputs } else { Rows::None };
        let own = signature(&inputs, &outputs, rows)?;
        let single = rows == Rows::Single;
        let mut model = Self { session, signature: own, single, cost: Cost::new(), library };
        if !model.follows_rows() {
            model.single = false;
            model.signature = signature(&inputs, &outputs, Rows::None)?;
        }
        Ok(model)
    }

    /// The library that runs it.
    pub fn library(&self) -> Library {
        self.library
    }

    /// Runs the graph on zeros; false where an output has other rows than the inputs.
    fn follows_rows(&self) -> bool {
        let rows = if self.single { 1 } else { PROBE };
        let zeros = self.signature.inputs.iter().map(|spec| zeros(spec, rows));
        let Some(inputs) = zeros.collect::<Option<Vec<_>>>() else { return true };
        let mut outputs = Outputs::new();
        if self.session.run(&inputs, &mut outputs).is_err() || !self.signature.is_batched() {
            return true;
        }
        outputs.tensors().iter().all(|tensor| tensor.dims().first() == Some(&rows))
    }

    fn run_rows(&self, batch: &Batch<'_>, outputs: &mut Outputs) -> Result<(), Failed> {
        if !self.single || batch.rows == 1 {
            return self.session.run(batch.inputs, outputs);
        }
        let mut parts: Vec<Outputs> = Vec::with_capacity(batch.rows);
        for row in 0..batch.rows {
            let inputs: Option<Vec<Tensor<'_>>> =
                batch.inputs.iter().map(|tensor| row_of(tensor, row)).collect();
            let inputs =
                inputs.ok_or_else(|| Failed { code: INVALID_ARGUMENT, text: "texts row by row".into() })?;
            let mut part = Outputs::new();
            self.session.run(&inputs, &mut part)?;
            parts.push(part);
        }
        join(&parts, self.signature.outputs.len(), outputs)
    }
}

impl Backend for Model {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn row_cost_ns(&self) -> u64 {
        self.cost.row_ns()
    }

    fn run(&self, batch: &Batch<'_>, outputs: &mut Outputs) -> Result<(), BackendError> {
        crate::check_inputs(&self.signature, batch)?;
        if batch.rows == 0 {
            return crate::no_rows(&self.signature, outputs);
        }
        let start = Instant::now();
        let done = self.run_rows(batch, outputs);
        self.cost.count(start.elapsed(), batch.rows);
        done.map_err(|failed| match failed.code {
            INVALID_ARGUMENT => BackendError::Input(failed.text),
            _ => BackendError::Internal(failed.text),
        })
    }
}

/// Zeros for an input; `None` where they would be many.
fn zeros(spec: &TensorSpec, rows: usize) -> Option<Tensor<'static>> {
    let mut dims: Vec<usize> = spec.row.iter().map(|size| size.unwrap_or(PROBE)).collect();
    if spec.dims == Dims::Rows {
        dims.insert(0, rows);
    }
    let shape = Shape::new(&dims)?;
    let cells = Some(shape.count()).filter(|count| *count <= PROBE_CELLS_MAX)?;
    // An empty text is a length of four bytes.
    let bytes = vec![0_u8; cells * if spec.dtype == DType::Text { 4 } else { spec.dtype.size() }];
    Tensor::new(spec.dtype, shape, models::Storage::Owned(models::Buffer::of(&bytes)))
}

/// One row of a tensor. Texts have no fixed places, so they are read up to it.
fn row_of<'t>(tensor: &'t Tensor<'_>, row: usize) -> Option<Tensor<'t>> {
    let mut dims = tensor.dims().to_vec();
    dims[0] = 1;
    let shape = Shape::new(&dims)?;
    let stride = shape.count();
    let (start, end) = if tensor.dtype() == DType::Text {
        let lengths: Vec<usize> =
            tensor.elements().map(|text| text.map_or(0, |text| text.len() + 4)).collect();
        let start = lengths.get(..row * stride)?.iter().sum::<usize>();
        (start, start + lengths.get(row * stride..(row + 1) * stride)?.iter().sum::<usize>())
    } else {
        let size = stride * tensor.dtype().size();
        (row * size, (row + 1) * size)
    };
    Tensor::new(tensor.dtype(), shape, models::Storage::Borrowed(tensor.bytes().get(start..end)?))
}

/// Puts the outputs of rows together.
fn join(parts: &[Outputs], count: usize, outputs: &mut Outputs) -> Result<(), Failed> {
    let odd = || Failed { code: 0, text: "rows have answers of different shapes".into() };
    for place in 0..count {
        let tensors: Option<Vec<_>> = parts.iter().map(|part| part.tensors().get(place)).collect();
        let tensors = tensors.ok_or_else(odd)?;
        let Some(first) = tensors.first() else { return Ok(()) };
        if tensors.iter().any(|one| one.dims() != first.dims() || one.dims().first() != Some(&1)) {
            return Err(odd());
        }
        let mut dims = first.dims().to_vec();
        dims[0] = parts.len();
        let bytes: Vec<u8> = tensors.iter().flat_map(|one| one.bytes()).copied().collect();
        let added = Shape::new(&dims).is_some_and(|shape| outputs.bytes(first.dtype(), shape, &bytes));
        if !added {
            return Err(odd());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(dims: &[&[i64]]) -> Vec<Declared> {
        let one =
            |dims: &&[i64]| Declared { name: "x".into(), element: Some(1), kind: 1, dims: dims.to_vec() };
        dims.iter().map(one).collect()
    }

    #[test]
    fn first_dimensions_decide_what_rows_are() {
        type Case<'a> = (&'a [&'a [i64]], Rows);
        let cases: [Case<'_>; 6] = [
            (&[&[-1, 4], &[-1]], Rows::Many),
            (&[&[1, 4], &[1]], Rows::Single),
            (&[&[1, 4], &[-1]], Rows::None),
            (&[&[8, 4]], Rows::None),
            (&[&[]], Rows::None),
            (&[&[-1, 4], &[]], Rows::None),
        ];
        for (dims, want) in cases {
            assert_eq!(rows_of(&declared(dims)), want, "{dims:?}");
        }
    }

    #[test]
    fn what_is_no_tensor_is_refused_by_name() {
        let map = Declared { name: "probabilities".into(), element: None, kind: 2, dims: Vec::new() };
        let error = spec(&map, Rows::Many, "output").expect_err("no tensor").to_string();
        assert!(error.contains("output \"probabilities\" is a sequence"), "{error}");
        let complex = Declared { element: Some(14), ..declared(&[&[-1]]).remove(0) };
        let error = spec(&complex, Rows::Many, "input").expect_err("complex").to_string();
        assert!(error.contains("\"x\"") && error.contains("14"), "{error}");
    }

    #[test]
    fn types_have_one_number_each() {
        for number in 0..30 {
            assert!(dtype(number).is_none_or(|own| element(own) == number), "{number}");
        }
    }

    #[test]
    fn rows_are_cut_out_and_put_together_again() {
        let texts = Tensor::of_texts(&["a", "", "long", "b"], &[2, 2]).expect("fits");
        let numbers = Tensor::owned(&[1_i16, 2, 3, 4], &[2, 2]).expect("fits");
        let mut outputs = Outputs::new();
        let parts: Vec<Outputs> = (0..2)
            .map(|row| {
                let mut part = Outputs::new();
                for tensor in [&texts, &numbers] {
                    let own = row_of(tensor, row).expect("a row");
                    part.bytes(own.dtype(), Shape::new(own.dims()).expect("small"), own.bytes());
                }
                part
            })
            .collect();
        join(&parts, 2, &mut outputs).expect("equal rows");
        assert_eq!(outputs.tensors()[0].bytes(), texts.bytes());
        assert_eq!(outputs.tensors()[1].bytes(), numbers.bytes());
        assert_eq!(outputs.tensors()[1].dims(), [2, 2]);
    }
}
