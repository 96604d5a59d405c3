//! Values that flow through the small executor.
//!
//! Five kinds of cells carry all of ONNX's element types: `float`, `double`, whole numbers, truths and texts.
//! The declared element type stays beside them, because it decides what a division or a cast does.
//!
//! Not here: operators.

use std::sync::Arc;

use models::{BackendError, LoadError};

use crate::proto::{Data, Elem, Tensor, unsupported};

/// The cells of a value, in row-major order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cells {
    F32(Vec<f32>),
    F64(Vec<f64>),
    /// Every whole number type.
    Int(Vec<i64>),
    Bool(Vec<bool>),
    Text(Vec<Arc<str>>),
}

/// A tensor in the executor.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Value {
    pub(crate) dims: Vec<usize>,
    pub(crate) elem: Elem,
    pub(crate) cells: Cells,
}

/// Why an operator failed: always a text, which the caller puts the node's name before.
pub(crate) type Failed = String;

impl Cells {
    /// Puts cells behind these; `None` where they are of another kind.
    pub(crate) fn append(&mut self, more: Self) -> Option<()> {
        match (self, more) {
            (Self::F32(to), Self::F32(from)) => to.extend(from),
            (Self::F64(to), Self::F64(from)) => to.extend(from),
            (Self::Int(to), Self::Int(from)) => to.extend(from),
            (Self::Bool(to), Self::Bool(from)) => to.extend(from),
            (Self::Text(to), Self::Text(from)) => to.extend(from),
            _ => return None,
        }
        Some(())
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::F32(cells) => cells.len(),
            Self::F64(cells) => cells.len(),
            Self::Int(cells) => cells.len(),
            Self::Bool(cells) => cells.len(),
            Self::Text(cells) => cells.len(),
        }
    }

    /// A copy of these cells, which must exist.
    pub(crate) fn part(&self, range: std::ops::Range<usize>) -> Self {
        match self {
            Self::F32(cells) => Self::F32(cells[range].to_vec()),
            Self::F64(cells) => Self::F64(cells[range].to_vec()),
            Self::Int(cells) => Self::Int(cells[range].to_vec()),
            Self::Bool(cells) => Self::Bool(cells[range].to_vec()),
            Self::Text(cells) => Self::Text(cells[range].to_vec()),
        }
    }

    /// So many cells from each start on, with so many steps from one to the next, which must exist.
    pub(crate) fn runs(&self, starts: &[usize], (count, step): (usize, usize)) -> Self {
        fn of<X: Clone>(cells: &[X], starts: &[usize], (count, step): (usize, usize)) -> Vec<X> {
            let mut all = Vec::with_capacity(starts.len() * count);
            for start in starts.iter().take(if count == 0 { 0 } else { starts.len() }) {
                match step {
                    1 => all.extend_from_slice(&cells[*start..*start + count]),
                    _ => {
                        all.extend(cells[*start..=*start + (count - 1) * step].iter().step_by(step).cloned())
                    }
                }
            }
            all
        }
        let shape = (count, step);
        match self {
            Self::F32(cells) => Self::F32(of(cells, starts, shape)),
            Self::F64(cells) => Self::F64(of(cells, starts, shape)),
            Self::Int(cells) => Self::Int(of(cells, starts, shape)),
            Self::Bool(cells) => Self::Bool(of(cells, starts, shape)),
            Self::Text(cells) => Self::Text(of(cells, starts, shape)),
        }
    }

    /// The cells at these places, which must exist.
    pub(crate) fn pick(&self, places: impl Iterator<Item = usize>) -> Self {
        match self {
            Self::F32(cells) => Self::F32(places.map(|at| cells[at]).collect()),
            Self::F64(cells) => Self::F64(places.map(|at| cells[at]).collect()),
            Self::Int(cells) => Self::Int(places.map(|at| cells[at]).collect()),
            Self::Bool(cells) => Self::Bool(places.map(|at| cells[at]).collect()),
            Self::Text(cells) => Self::Text(places.map(|at| cells[at].clone()).collect()),
        }
    }
}

impl Value {
    pub(crate) fn f32s(dims: &[usize], cells: Vec<f32>) -> Self {
        Self { dims: dims.to_vec(), elem: Elem::F32, cells: Cells::F32(cells) }
    }

    pub(crate) fn f64s(dims: &[usize], cells: Vec<f64>) -> Self {
        Self { dims: dims.to_vec(), elem: Elem::F64, cells: Cells::F64(cells) }
    }

    pub(crate) fn ints(dims: &[usize], cells: Vec<i64>) -> Self {
        Self { dims: dims.to_vec(), elem: Elem::I64, cells: Cells::Int(cells) }
    }

    pub(crate) fn truths(dims: &[usize], cells: Vec<bool>) -> Self {
        Self { dims: dims.to_vec(), elem: Elem::BOOL, cells: Cells::Bool(cells) }
    }

    pub(crate) fn texts(dims: &[usize], cells: Vec<Arc<str>>) -> Self {
        Self { dims: dims.to_vec(), elem: Elem::TEXT, cells: Cells::Text(cells) }
    }

    /// Numbers of the wanted element type.
    pub(crate) fn of_f64s(elem: Elem, dims: &[usize], cells: Vec<f64>) -> Self {
        let dims = dims.to_vec();
        let cells = match elem {
            Elem::F32 => Cells::F32(cells.into_iter().map(|x| x as f32).collect()),
            Elem::F64 => Cells::F64(cells),
            Elem::BOOL => Cells::Bool(cells.into_iter().map(|x| x != 0.0).collect()),
            _ => Cells::Int(cells.into_iter().map(|x| x as i64).collect()),
        };
        Self { dims, elem, cells }
    }

    pub(crate) fn count(&self) -> usize {
        self.cells.len()
    }

    /// The numbers as `float`.
    pub(crate) fn to_f32s(&self) -> Result<std::borrow::Cow<'_, [f32]>, Failed> {
        Ok(match &self.cells {
            Cells::F32(cells) => cells.into(),
            Cells::F64(cells) => cells.iter().map(|x| *x as f32).collect::<Vec<_>>().into(),
            Cells::Int(cells) => cells.iter().map(|x| *x as f32).collect::<Vec<_>>().into(),
            Cells::Bool(cells) => cells.iter().map(|x| f32::from(*x)).collect::<Vec<_>>().into(),
            Cells::Text(_) => return Err("texts where numbers are needed".into()),
        })
    }

    /// The numbers as `double`.
    pub(crate) fn to_f64s(&self) -> Result<std::borrow::Cow<'_, [f64]>, Failed> {
        Ok(match &self.cells {
            Cells::F32(cells) => cells.iter().map(|x| f64::from(*x)).collect::<Vec<_>>().into(),
            Cells::F64(cells) => cells.into(),
            Cells::Int(cells) => cells.iter().map(|x| *x as f64).collect::<Vec<_>>().into(),
            Cells::Bool(cells) => cells.iter().map(|x| f64::from(u8::from(*x))).collect::<Vec<_>>().into(),
            Cells::Text(_) => return Err("texts where numbers are needed".into()),
        })
    }

    /// Whole numbers.
    pub(crate) fn to_ints(&self) -> Result<std::borrow::Cow<'_, [i64]>, Failed> {
        Ok(match &self.cells {
            Cells::Int(cells) => cells.into(),
            Cells::Bool(cells) => cells.iter().map(|x| i64::from(*x)).collect::<Vec<_>>().into(),
            _ => return Err(format!("{} where whole numbers are needed", self.elem.name())),
        })
    }

    pub(crate) fn to_truths(&self) -> Result<&[bool], Failed> {
        match &self.cells {
            Cells::Bool(cells) => Ok(cells),
            _ => Err(format!("{} where truths are needed", self.elem.name())),
        }
    }

    /// Rows and columns of a table; one dimension is one row, as ONNX-ML's operators have it.
    pub(crate) fn table(&self) -> Result<(usize, usize), Failed> {
        match self.dims.as_slice() {
            [width] => Ok((1, *width)),
            [rows, rest @ ..] if !rest.is_empty() => Ok((*rows, rest.iter().product())),
            _ => Err("a number where a table is needed".into()),
        }
    }

    /// A constant of the file.
    pub(crate) fn of_tensor(tensor: &Tensor) -> Result<Self, LoadError> {
        let bad = || unsupported(format!("{} in the tensor {:?}", tensor.elem.name(), tensor.name));
        let cells = match (&tensor.data, tensor.elem) {
            (Data::Raw(raw), elem) => raw_cells(raw, elem).ok_or_else(bad)?,
            (Data::Floats(values), _) => Cells::F32(values.clone()),
            (Data::Doubles(values), _) => Cells::F64(values.clone()),
            (Data::Ints(values), Elem::BOOL) => Cells::Bool(values.iter().map(|x| *x != 0).collect()),
            (Data::Ints(values), Elem::F16) => {
                Cells::F32(values.iter().map(|x| models::f64_of_half(*x as u16) as f32).collect())
            }
            (Data::Ints(values), Elem::BF16) => {
                Cells::F32(values.iter().map(|x| f32::from_bits((*x as u32) << 16)).collect())
            }
            (Data::Ints(values), _) => Cells::Int(values.clone()),
            (Data::Texts(values), _) => {
                let text = |bytes: &bytes::Bytes| std::str::from_utf8(bytes).map(Arc::from);
                let texts: Result<_, _> = values.iter().map(text).collect();
                Cells::Text(texts.map_err(|_| unsupported(format!("bytes in the tensor {:?}", tensor.name)))?)
            }
            (Data::External { .. }, _) => return Err(bad()),
        };
        let elem = if matches!(cells, Cells::F32(_)) { Elem::F32 } else { tensor.elem };
        Ok(Self { dims: tensor.dims.clone(), elem, cells })
    }
}

fn raw_cells(raw: &[u8], elem: Elem) -> Option<Cells> {
    fn each<const N: usize, T>(raw: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
        raw.as_chunks::<N>().0.iter().map(|chunk| read(*chunk)).collect()
    }
    Some(match elem {
        Elem::F32 => Cells::F32(each(raw, f32::from_le_bytes)),
        Elem::F64 => Cells::F64(each(raw, f64::from_le_bytes)),
        Elem::F16 => Cells::F32(each(raw, |b| models::f64_of_half(u16::from_le_bytes(b)) as f32)),
        Elem::BF16 => Cells::F32(each(raw, |b| f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16))),
        Elem::I64 => Cells::Int(each(raw, i64::from_le_bytes)),
        Elem::U64 => Cells::Int(each(raw, |b| u64::from_le_bytes(b) as i64)),
        Elem::I32 => Cells::Int(each(raw, |b| i64::from(i32::from_le_bytes(b)))),
        Elem::U32 => Cells::Int(each(raw, |b| i64::from(u32::from_le_bytes(b)))),
        Elem::I16 => Cells::Int(each(raw, |b| i64::from(i16::from_le_bytes(b)))),
        Elem::U16 => Cells::Int(each(raw, |b| i64::from(u16::from_le_bytes(b)))),
        Elem::I8 => Cells::Int(each(raw, |b| i64::from(i8::from_le_bytes(b)))),
        Elem::U8 => Cells::Int(each(raw, |b: [u8; 1]| i64::from(b[0]))),
        Elem::BOOL => Cells::Bool(each(raw, |b: [u8; 1]| b[0] != 0)),
        _ => return None,
    })
}

/// Products that a core makes in a nanosecond, roughly: the unit of a run's work.
pub(crate) const WORK_PER_NS: u64 = 16;
/// The work of a cell that is made.
const WORK_PER_CELL: u64 = 32;

/// How many cells a run may hold and how much it may compute, so that a small file cannot ask for all memory or time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Cells held at once, of at most 8 bytes unless they are texts.
    pub cells: usize,
    /// Products, of which a core makes some 16 in a nanosecond.
    pub work: u64,
}

impl Default for Bounds {
    /// 256 Mi cells and about a minute.
    fn default() -> Self {
        Self { cells: 256 << 20, work: 1 << 40 }
    }
}

/// What is left of the bounds of a run.
#[derive(Debug)]
pub(crate) struct Budget {
    bounds: Bounds,
    left: usize,
    least: usize,
    work: u64,
}

impl Budget {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { bounds, left: bounds.cells, least: bounds.cells, work: 0 }
    }

    /// Begins an operator while values of `live` cells are held.
    pub(crate) fn start(&mut self, live: usize) -> Result<(), Failed> {
        self.left =
            self.bounds.cells.checked_sub(live).ok_or("the values exceed the limit on cells of a run")?;
        self.least = self.least.min(self.left);
        Ok(())
    }

    /// Cells that are held or claimed now.
    pub(crate) fn held(&self) -> usize {
        self.bounds.cells - self.left
    }

    /// Claims the cells of a shape and tells how many.
    pub(crate) fn claim(&mut self, dims: &[usize]) -> Result<usize, Failed> {
        let count = dims.iter().try_fold(1_usize, |product, dim| product.checked_mul(*dim));
        let count = count.filter(|count| *count <= self.left);
        let count =
            count.ok_or_else(|| format!("a result of shape {dims:?} exceeds the limit on cells of a run"))?;
        self.left -= count;
        self.least = self.least.min(self.left);
        self.spend(count as u64 * WORK_PER_CELL)?;
        Ok(count)
    }

    /// Claims the products behind `cells`, `depth` each.
    pub(crate) fn work(&mut self, cells: usize, depth: usize) -> Result<(), Failed> {
        self.spend((cells as u64).saturating_mul(depth as u64))
    }

    /// Claims the steps behind `cells`, `depth` each, that are made one by one.
    pub(crate) fn plod(&mut self, cells: usize, depth: usize) -> Result<(), Failed> {
        self.work(cells, depth.saturating_mul(WORK_PER_NS as usize))
    }

    fn spend(&mut self, work: u64) -> Result<(), Failed> {
        self.work = self.work.saturating_add(work);
        if self.work > self.bounds.work {
            return Err("it exceeds the limit on the work of a run".into());
        }
        Ok(())
    }

    pub(crate) fn peak(&self) -> usize {
        self.bounds.cells - self.least
    }

    pub(crate) fn work_done(&self) -> u64 {
        self.work
    }
}

/// An operator's failure as the backend's.
pub(crate) fn input_error(failed: Failed) -> BackendError {
    BackendError::Input(failed)
}
