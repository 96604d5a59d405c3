//! From a request's tensors by name to a model's inputs in their order.
//!
//! What clients send is often not what a signature says to the letter, and each of these means one thing only:
//!
//! * a model with one input takes a request's only tensor whatever its name is, as KServe's servers do (Triton's
//!   personality insists on the name);
//! * a table may come as one tensor for each of its columns, which is how KServe's clients send data frames;
//! * where a model takes floating-point numbers, numbers of any type are taken.
//!
//! Tensors that are as the model wants them stay where they lie; others are converted into buffers that are kept
//! from call to call.
//!
//! Not here: reading bodies (`codecs`).

use codecs::call::View;
use models::{DType, Dims, Tensor, TensorSpec};

use crate::evaluate::Inputs;
use crate::refusal::{Reason, Refusal};
use crate::served::{Personality, Served};

/// How the inputs are had from the request.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
enum Plan {
    /// The tensors at `places`.
    #[default]
    Places,
    /// The first tensor, converted.
    Converted,
    /// The columns, joined to a table of this width.
    Joined(usize),
}

/// A request's tensors as a model's inputs.
#[derive(Debug, Default)]
pub(crate) struct Binder {
    plan: Plan,
    rows: usize,
    /// For each input the tensor's index in the request.
    places: Vec<usize>,
    wide: Vec<f64>,
    narrow: Vec<f32>,
}

impl Binder {
    /// Matches, checks and where needed converts; returns the number of rows.
    pub(crate) fn bind(&mut self, served: &Served, view: View<'_>) -> Result<usize, Refusal> {
        self.places.clear();
        self.wide.clear();
        self.narrow.clear();
        self.plan = Plan::Places;
        let signature = served.backend.signature();
        match signature.inputs.as_slice() {
            [only] if view.len() == 1 => self.single(served, only, view),
            inputs if !signature.is_batched() => self.by_name(served, inputs, view),
            [only] if is_width(only, view.len()) && served.personality != Personality::Triton => {
                self.join(served, only, view)
            }
            inputs if inputs.len() > 1 && view.len() == 1 && view.dims(0).get(1) == Some(&inputs.len()) => {
                // A table of all columns, as KServe's clients send an array of objects.
                self.places.push(0);
                self.rows = view.dims(0)[0];
                Ok(self.rows)
            }
            inputs => self.by_name(served, inputs, view),
        }
    }

    /// The inputs that were bound. `view` is of the same request.
    pub(crate) fn inputs<'a>(&'a self, served: &Served, view: View<'a>) -> Result<Inputs<'a>, Refusal> {
        let made = match self.plan {
            Plan::Places => {
                if let [only] = self.places[..] {
                    view.tensor(only).map(|tensor| Inputs::One([tensor]))
                } else {
                    let all: Option<Vec<_>> = self.places.iter().map(|place| view.tensor(*place)).collect();
                    all.map(Inputs::Many)
                }
            }
            Plan::Converted => self.own(view.dims(0)),
            Plan::Joined(width) => self.own(&[self.rows, width]),
        };
        made.ok_or_else(|| wrong(served, "the tensors changed while they were read"))
    }

    fn own(&self, dims: &[usize]) -> Option<Inputs<'_>> {
        let tensor = match self.wide.is_empty() {
            true if !self.narrow.is_empty() => Tensor::borrowed(&self.narrow, dims),
            _ => Tensor::borrowed(&self.wide, dims),
        };
        tensor.map(|tensor| Inputs::One([tensor]))
    }

    fn single(&mut self, served: &Served, spec: &TensorSpec, view: View<'_>) -> Result<usize, Refusal> {
        if served.personality == Personality::Triton && view.name(0) != spec.name {
            let got = view.name(0);
            let text = format!("unexpected inference input '{got}', expected '{}'", spec.name);
            return Err(wrong(served, &text));
        }
        self.rows = rows_of(served, spec, view.dims(0))?;
        if !served.backend.signature().is_batched() {
            self.rows = 1;
        }
        let Some(tensor) = view.tensor(0) else { return Err(wrong(served, "a tensor is malformed")) };
        if convertible(served, spec, tensor.dtype())? || !is_in_place(&tensor) {
            self.plan = Plan::Converted;
            self.take(spec.dtype, &tensor, 0, 1);
        } else {
            self.places.push(0);
        }
        Ok(self.rows)
    }

    fn join(&mut self, served: &Served, spec: &TensorSpec, view: View<'_>) -> Result<usize, Refusal> {
        let columns = &served.backend.signature().columns;
        let width = view.len();
        self.rows = view.dims(0).first().copied().unwrap_or(0);
        let cells = self.rows.saturating_mul(width);
        for index in 0..width {
            let name = view.name(index);
            // A model that knows its columns gets them by name, another in the order that they come in.
            let column = match columns.is_empty() {
                true => index,
                false => columns.iter().position(|column| column == name).ok_or_else(|| {
                    wrong(served, &format!("input {name:?} is none of its columns {columns:?}"))
                })?,
            };
            if self.places.contains(&column) {
                return Err(wrong(served, &format!("the column {name:?} is there twice")));
            }
            self.places.push(column);
            let dims = view.dims(index);
            if !matches!(dims, [rows] | [rows, 1] if *rows == self.rows) {
                let text = format!(
                    "column {name:?}: expected the shape [{}] as of the first column, got {dims:?}",
                    self.rows
                );
                return Err(wrong(served, &text));
            }
            let Some(tensor) = view.tensor(index) else { return Err(wrong(served, "a tensor is malformed")) };
            convertible(served, spec, tensor.dtype())?;
            if spec.dtype == DType::F32 {
                self.narrow.resize(cells, 0.0);
            } else {
                self.wide.resize(cells, 0.0);
            }
            self.take(spec.dtype, &tensor, column, width);
        }
        self.plan = Plan::Joined(width);
        Ok(self.rows)
    }

    fn by_name(&mut self, served: &Served, inputs: &[TensorSpec], view: View<'_>) -> Result<usize, Refusal> {
        for index in 0..view.len() {
            let name = view.name(index);
            if !inputs.iter().any(|spec| spec.name == name) {
                let expected: Vec<&str> = inputs.iter().map(|spec| spec.name.as_str()).collect();
                return Err(wrong(served, &format!("unexpected input {name:?}, expected {expected:?}")));
            }
        }
        let mut rows = None;
        for spec in inputs {
            let place = (0..view.len()).find(|index| view.name(*index) == spec.name);
            let place = place.ok_or_else(|| {
                let count = inputs.len();
                wrong(
                    served,
                    &format!("expected {count} inputs, got {}: {:?} is missing", view.len(), spec.name),
                )
            })?;
            let own = rows_of(served, spec, view.dims(place))?;
            if served.backend.signature().is_batched() && *rows.get_or_insert(own) != own {
                let text = format!(
                    "input {:?} has {own} rows, the inputs before have {}",
                    spec.name,
                    rows.unwrap_or(0)
                );
                return Err(wrong(served, &text));
            }
            self.places.push(place);
        }
        if view.len() != inputs.len() {
            let text = format!("expected {} inputs, got {}: one is there twice", inputs.len(), view.len());
            return Err(wrong(served, &text));
        }
        self.rows = rows.unwrap_or(usize::from(!served.backend.signature().is_batched()));
        Ok(self.rows)
    }

    /// Converts a tensor's numbers into every `step`th place from `first` on. With a step of 1 they are appended.
    fn take(&mut self, dtype: DType, tensor: &Tensor<'_>, first: usize, step: usize) {
        if dtype == DType::F32 {
            let out = &mut self.narrow;
            numbers(tensor, |index, number| put(out, first + index * step, step, number as f32));
        } else {
            let out = &mut self.wide;
            numbers(tensor, |index, number| put(out, first + index * step, step, number));
        }
    }

    /// Gives back what a large call left.
    pub(crate) fn shrink(&mut self) {
        const KEEP: usize = 8 << 10;
        if self.wide.capacity() > KEEP {
            self.wide = Vec::new();
        }
        if self.narrow.capacity() > KEEP {
            self.narrow = Vec::new();
        }
    }
}

fn put<T>(out: &mut Vec<T>, at: usize, step: usize, number: T) {
    if step == 1 {
        out.push(number);
    } else if let Some(slot) = out.get_mut(at) {
        *slot = number;
    }
}

fn numbers(tensor: &Tensor<'_>, mut each: impl FnMut(usize, f64)) {
    macro_rules! all {
        ($type:ty, $wide:expr) => {
            for (index, chunk) in tensor.bytes().chunks_exact(size_of::<$type>()).enumerate() {
                each(index, $wide(bytemuck::pod_read_unaligned::<$type>(chunk)));
            }
        };
    }
    match tensor.dtype() {
        DType::F64 => all!(f64, |x| x),
        DType::F32 => all!(f32, f64::from),
        DType::U64 => all!(u64, |x| x as f64),
        DType::I64 => all!(i64, |x| x as f64),
        DType::U32 => all!(u32, f64::from),
        DType::I32 => all!(i32, f64::from),
        DType::U16 => all!(u16, f64::from),
        DType::I16 => all!(i16, f64::from),
        DType::F16 => all!(u16, models::f64_of_half),
        DType::BF16 => all!(u16, |x| f64::from(f32::from_bits(u32::from(x) << 16))),
        DType::I8 => all!(i8, f64::from),
        DType::Bool | DType::U8 => all!(u8, f64::from),
        DType::Text => {}
    }
}

/// Whether the model's only input is a table of so many columns.
fn is_width(spec: &TensorSpec, count: usize) -> bool {
    count > 1 && spec.row == [Some(count)] && matches!(spec.dtype, DType::F64 | DType::F32)
}

/// Whether the type has to be converted; an error where it cannot be.
fn convertible(served: &Served, spec: &TensorSpec, got: DType) -> Result<bool, Refusal> {
    if got == spec.dtype {
        return Ok(false);
    }
    if matches!(spec.dtype, DType::F64 | DType::F32) && got != DType::Text {
        return Ok(true);
    }
    let (expected, got) = (spec.dtype.v2_name(), got.v2_name());
    Err(wrong(served, &format!("input {:?}: expected the type {expected}, got {got}", spec.name)))
}

/// Whether a backend can read floating-point numbers without copying them.
fn is_in_place(tensor: &Tensor<'_>) -> bool {
    match tensor.dtype() {
        DType::F64 => tensor.slice::<f64>().is_some(),
        DType::F32 => tensor.slice::<f32>().is_some(),
        _ => true,
    }
}

/// Checks a tensor's dimensions and returns its rows; what has none counts as one.
fn rows_of(served: &Served, spec: &TensorSpec, dims: &[usize]) -> Result<usize, Refusal> {
    let same = spec.fits(dims);
    if spec.dims != Dims::Rows && same {
        return Ok(1);
    }
    if let [rows, inner @ ..] = dims
        && spec.dims == Dims::Rows
    {
        // Rows without numbers would cost a few bytes each to claim and much to answer.
        let hollow = *rows > 0 && inner.contains(&0);
        if !hollow && (same || (spec.row.is_empty() && inner == [1])) {
            return Ok(*rows);
        }
    }
    let expected: Vec<i64> = spec.shape().collect();
    Err(wrong(served, &format!("input {:?}: expected the shape {expected:?}, got {dims:?}", spec.name)))
}

pub(crate) fn wrong(served: &Served, why: &str) -> Refusal {
    Refusal::new(Reason::Input, format!("model {:?}: {why}", &*served.name))
}

#[cfg(test)]
mod tests;
