//! An ONNX model as a backend of the model server.
//!
//! At load the graph is run once on rows of zeros: what the server then announces (types and widths of the
//! outputs) is what the graph really gave, and a graph whose outputs do not follow the rows is refused. What that run
//! held and computed also says how many rows may go through the graph at a time.
//!
//! Not here: how graphs are run (`exec`).

use bytes::Bytes;
use models::{Backend, BackendError, Batch, DType, LoadError, Outputs, Shape, Signature, Tensor, TensorSpec};

use crate::exec::value::{Bounds, Cells, Failed, Value, WORK_PER_NS, input_error};
use crate::exec::{Program, Run, given, is_tensor};
use crate::mixing::{mixes, rows_of};
use crate::proto::{Dim, Elem, Model, Type, ValueInfo, unsupported};

/// Rows of the run at load.
const PROBE: usize = 3;
/// What a dimension that is free besides the rows is in the run at load.
const PROBE_FREE: usize = 4;

/// The part of a run's limits that a batch may reach before it is cut: free dimensions may grow after the probe.
const SHARE: usize = 4;

/// Cells that a run holds at once where rows are known to be apart: more would not stay in a core's second cache, and one
/// operator after the other would read them from memory. A graph of more weights than that reads these from memory for each
/// part, and its parts hold at least as much.
const CELLS_NEAR: usize = 1 << 17;

/// What a row costs, as the run at load found it.
#[derive(Debug, Clone, Copy)]
struct RowCost {
    /// Cells of the inputs.
    given: usize,
    /// Cells held at once.
    held: usize,
    work: u64,
    /// Cells of the graph's constants, which all rows of a run share.
    weights: usize,
}

impl RowCost {
    fn new(rows: usize, given: usize, weights: usize, run: &Run) -> Self {
        let each = |count: usize| count.div_ceil(rows).max(1);
        Self { given: each(given), held: each(run.peak), work: run.work / rows as u64, weights }
    }

    /// Rows that may go through the graph at a time when a row has `given` cells.
    fn rows_max(&self, given: usize, bounds: Bounds) -> usize {
        let growth = self.growth(given);
        let held = bounds.cells / SHARE / self.held.saturating_mul(growth);
        let work = bounds.work / SHARE as u64 / self.work.saturating_mul(growth as u64).max(1);
        held.min(usize::try_from(work).unwrap_or(usize::MAX)).max(1)
    }

    /// Rows whose values stay near the core, or are worth reading the weights once more.
    fn rows_near(&self, given: usize) -> usize {
        (CELLS_NEAR.max(self.weights) / self.held.saturating_mul(self.growth(given))).max(1)
    }

    /// Attention grows by the square of what is free.
    fn growth(&self, given: usize) -> usize {
        given.div_ceil(self.given).max(1).saturating_pow(2)
    }
}

/// What is told about a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Which tool wrote it.
    pub producer: String,
    /// Domains and versions of its operators.
    pub opsets: Vec<(String, i64)>,
    /// Its nodes and their sizes.
    pub nodes: Vec<(String, String)>,
    /// The classes of its classifier, if it has one.
    pub classes: Vec<String>,
    /// What runs it.
    pub engine: &'static str,
}

/// A loaded ONNX model.
pub struct Onnx {
    program: Program,
    signature: Signature,
    /// Element types of the inputs.
    elems: Vec<Elem>,
    /// The file fixes its batch at one row: rows run one by one.
    single: bool,
    /// Rows have a part in each other's answers.
    mixes: bool,
    row_cost: RowCost,
    bounds: Bounds,
    summary: Summary,
}

impl std::fmt::Debug for Onnx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Onnx")
            .field("signature", &self.signature)
            .field("engine", &self.summary.engine)
            .finish()
    }
}

fn dtype(elem: Elem) -> Option<DType> {
    Some(match elem {
        Elem::F32 => DType::F32,
        Elem::F64 => DType::F64,
        Elem::I8 => DType::I8,
        Elem::I16 => DType::I16,
        Elem::I32 => DType::I32,
        Elem::I64 => DType::I64,
        Elem::U8 => DType::U8,
        Elem::U16 => DType::U16,
        Elem::U32 => DType::U32,
        Elem::U64 => DType::U64,
        Elem::BOOL => DType::Bool,
        Elem::TEXT => DType::Text,
        _ => return None,
    })
}

/// What an input declares: its element type, whether its batch is fixed at one, its other dimensions.
fn declared(info: &ValueInfo) -> Result<(Elem, bool, Vec<Option<usize>>), LoadError> {
    let title = format!("input {:?}", info.name);
    let Type::Tensor { elem, dims } = &info.ty else {
        return Err(unsupported(format!("{title} that is no tensor")));
    };
    if dtype(*elem).is_none() {
        return Err(unsupported(format!("{title} of {}", elem.name())));
    }
    let Some(dims) = dims else { return Err(unsupported(format!("{title} without a declared shape"))) };
    let fixed = |dim: &Dim| if let Dim::Fixed(size) = dim { Some(*size) } else { None };
    match dims.split_first() {
        None => Err(unsupported(format!("{title} without rows"))),
        Some((Dim::Fixed(1), rest)) => Ok((*elem, true, rest.iter().map(fixed).collect())),
        Some((Dim::Fixed(rows), _)) => Err(unsupported(format!("{title} with a batch fixed at {rows} rows"))),
        Some((_, rest)) => Ok((*elem, false, rest.iter().map(fixed).collect())),
    }
}

impl Onnx {
    /// Reads a model and runs it once on zeros.
    pub fn load(bytes: &Bytes) -> Result<Self, LoadError> {
        Self::load_within(bytes, Bounds::default())
    }

    /// The same with other bounds for each run, also for those of requests.
    pub fn load_within(bytes: &Bytes, bounds: Bounds) -> Result<Self, LoadError> {
        let model = Model::parse(bytes)?;
        let infos: Vec<_> = given(&model.graph).collect();
        if infos.is_empty() || model.graph.outputs.is_empty() {
            return Err(unsupported("an ONNX graph without inputs or without outputs"));
        }
        let inputs = infos.iter().map(|info| declared(info)).collect::<Result<Vec<_>, _>>()?;
        let is_fixed = inputs[0].1;
        if inputs.iter().any(|input| input.1 != is_fixed) {
            return Err(unsupported(
                "an ONNX graph with a batch of one for some inputs and of any size for others",
            ));
        }
        let program = Program::compile(&model)?.map_err(|title| {
            unsupported(format!(
                "the ONNX operator {title} in the server's own engine; ONNX Runtime may have it"
            ))
        })?;
        // A range over the whole batch, or rounds until all rows are done, would let rows change each other's answers: such a
        // graph gets them one by one.
        let known = ["DynamicQuantizeLinear", "If", "Loop"];
        let may_mix = model.graph.nodes.iter().any(|node| known.contains(&node.op.as_str()));
        let single = is_fixed || (may_mix && !program.is_apart());
        let spec = |(info, input): (&&ValueInfo, &(Elem, bool, Vec<Option<usize>>))| {
            let dtype = dtype(input.0).expect("it was checked");
            TensorSpec::new(info.name.clone(), dtype, input.2.clone())
        };
        let signature = Signature {
            inputs: infos.iter().zip(&inputs).map(spec).collect(),
            outputs: Vec::new(),
            columns: Vec::new(),
        };
        let summary = Summary {
            producer: format!("{} {}", model.producer, model.producer_version).trim().to_owned(),
            opsets: model.opsets.clone(),
            nodes: program.lines(),
            classes: program.classes(),
            engine: "native",
        };
        let elems = inputs.iter().map(|input| input.0).collect();
        let row_cost = RowCost { given: 1, held: 1, work: 0, weights: 0 };
        let mut onnx = Self { program, signature, elems, single, mixes: false, row_cost, bounds, summary };
        (onnx.signature.outputs, onnx.row_cost) = onnx.probe(&model)?;
        if !onnx.single && !onnx.program.is_apart() {
            let row = |spec: &TensorSpec| spec.row.iter().map(|size| size.unwrap_or(PROBE_FREE)).collect();
            let inputs: Vec<_> =
                onnx.elems.iter().copied().zip(onnx.signature.inputs.iter().map(row)).collect();
            onnx.mixes = mixes(&onnx.program, &inputs, bounds);
        }
        Ok(onnx)
    }

    /// What there is to know about it.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// The outputs and the cost as a run on rows of zeros has them.
    fn probe(&self, model: &Model) -> Result<(Vec<TensorSpec>, RowCost), LoadError> {
        let rows = if self.single { 1 } else { PROBE };
        let free = self.signature.inputs.iter().any(|input| input.row.contains(&None));
        let limit = self.bounds.cells.min(64 << 20);
        let zeros = self.signature.inputs.iter().zip(&self.elems).map(|(spec, elem)| {
            let mut dims = vec![rows];
            dims.extend(spec.row.iter().map(|size| size.unwrap_or(PROBE_FREE)));
            let count = dims.iter().try_fold(1_usize, |product, size| product.checked_mul(*size));
            let count = count.filter(|count| *count <= limit);
            let count = count.ok_or(LoadError::TooLarge { what: "cells of a row", limit })?;
            Ok(match elem {
                &Elem::TEXT => Value::texts(&dims, vec!["".into(); count]),
                elem => Value::of_f64s(*elem, &dims, vec![0.0; count]),
            })
        });
        let zeros = zeros.collect::<Result<Vec<_>, LoadError>>()?;
        let given = zeros.iter().map(Value::count).sum();
        let run = self.program.run(zeros, self.bounds);
        let run =
            run.map_err(|what| unsupported(format!("this graph: on a row of zeros it fails: {what}")))?;
        let weights =
            model.graph.initializers.iter().map(|tensor| tensor.dims.iter().product::<usize>()).sum();
        let cost = RowCost::new(rows, given, weights, &run);
        let outputs = model.graph.outputs.iter().zip(run.values);
        let specs = outputs
            .map(|(info, value)| {
                let title = format!("output {:?}", info.name);
                // Halves are widened in a run; the file's own types are announced.
                let elem = match &info.ty {
                    Type::Tensor { elem, .. } if is_tensor(&info.ty) && elem.0 != 0 => *elem,
                    _ => value.elem,
                };
                let dtype = dtype(elem).ok_or_else(|| unsupported(format!("{title} of {}", elem.name())))?;
                if value.dims.first() != Some(&rows) {
                    return Err(unsupported(format!(
                        "{title}, whose shape {:?} does not follow the rows",
                        value.dims
                    )));
                }
                let row: Vec<_> = value.dims[1..].iter().map(|size| (!free).then_some(*size)).collect();
                Ok(TensorSpec::new(info.name.clone(), dtype, row))
            })
            .collect::<Result<_, LoadError>>()?;
        Ok((specs, cost))
    }

    /// Runs rows, no more at a time than fit the limits of a run.
    fn evaluate(&self, rows: usize, values: Vec<Value>) -> Result<Vec<Value>, Failed> {
        let given = values.iter().map(Value::count).sum::<usize>().div_ceil(rows);
        let most = self.row_cost.rows_max(given, self.bounds);
        let step = match (self.single, self.program.is_apart()) {
            (true, _) => 1,
            (false, true) => most.min(self.row_cost.rows_near(given)),
            // A batch that is too large for that fails by the limits of a run.
            (false, false) if self.mixes => rows,
            (false, false) => most,
        };
        if rows <= step {
            return Ok(self.program.run(values, self.bounds)?.values);
        }
        let mut whole = Vec::new();
        for from in (0..rows).step_by(step) {
            let part = rows_of(&values, from..(from + step).min(rows));
            append(&mut whole, self.program.run(part, self.bounds)?.values)?;
        }
        Ok(whole)
    }

    /// Whether a run takes one row.
    pub(crate) fn runs_row_by_row(&self) -> bool {
        self.single
    }

    /// The caller's tensors as the values that the graph takes.
    pub(crate) fn values(&self, rows: usize, inputs: &[Tensor<'_>]) -> Result<Vec<Value>, Failed> {
        self.inputs(&Batch { rows, inputs })
    }

    fn inputs(&self, batch: &Batch<'_>) -> Result<Vec<Value>, Failed> {
        let specs = &self.signature.inputs;
        if batch.inputs.len() != specs.len() {
            return Err(format!("{} inputs, the model takes {}", batch.inputs.len(), specs.len()));
        }
        let each = specs.iter().zip(&self.elems).zip(batch.inputs);
        each.map(|((spec, elem), tensor)| value_of(spec, *elem, tensor, batch.rows)).collect()
    }
}

/// A tensor of the server as the input that the graph declares; numbers of other types are converted where that
/// changes no value.
fn value_of(spec: &TensorSpec, elem: Elem, tensor: &Tensor<'_>, rows: usize) -> Result<Value, Failed> {
    let dims = tensor.dims();
    let name = &spec.name;
    let fits = dims.len() == spec.row.len() + 1
        && dims[0] == rows
        && dims[1..].iter().zip(&spec.row).all(|(size, wanted)| wanted.is_none_or(|wanted| wanted == *size));
    if !fits {
        let wanted: Vec<String> =
            spec.row.iter().map(|size| size.map_or("any".into(), |size| size.to_string())).collect();
        return Err(format!(
            "input {name:?} has the shape {dims:?}; the model takes [rows, {}]",
            wanted.join(", ")
        ));
    }
    if elem == Elem::TEXT {
        let texts = tensor.dtype() == DType::Text;
        let texts = texts
            .then(|| tensor.texts().map(|text| text.map(std::sync::Arc::from)).collect::<Option<Vec<_>>>());
        let texts = texts.flatten().ok_or_else(|| format!("input {name:?} takes texts in UTF-8"))?;
        return Ok(Value::texts(dims, texts));
    }
    if elem == Elem::F32
        && let Some(cells) = tensor.slice::<f32>()
    {
        return Ok(Value::f32s(dims, cells.to_vec()));
    }
    if elem == Elem::I64
        && let Some(cells) = tensor.slice::<i64>()
    {
        return Ok(Value::ints(dims, cells.to_vec()));
    }
    let cells = tensor.to_f64s().ok_or_else(|| format!("input {name:?} takes numbers"))?;
    let whole = !matches!(elem, Elem::F32 | Elem::F64 | Elem::BOOL);
    if whole && let Some(odd) = cells.iter().find(|x| x.fract() != 0.0 || x.abs() > 9e15) {
        return Err(format!("input {name:?} takes whole numbers, not {odd}"));
    }
    Ok(Value::of_f64s(elem, dims, cells.into_owned()))
}

/// Appends the outputs of runs over consecutive rows.
fn append(whole: &mut Vec<Value>, part: Vec<Value>) -> Result<(), Failed> {
    if whole.is_empty() {
        *whole = part;
        return Ok(());
    }
    for (to, from) in whole.iter_mut().zip(part) {
        if to.dims[1..] != from.dims[1..] {
            return Err(format!(
                "rows with answers of the shapes {:?} and {:?}",
                &to.dims[1..],
                &from.dims[1..]
            ));
        }
        to.dims[0] += from.dims[0];
        to.cells.append(from.cells).ok_or("rows with answers of different types")?;
    }
    Ok(())
}

impl Backend for Onnx {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn row_cost_ns(&self) -> u64 {
        self.program.cost_ns().max(self.row_cost.work / WORK_PER_NS)
    }

    fn keeps_rows_apart(&self) -> bool {
        !self.mixes
    }

    fn run(&self, batch: &Batch<'_>, outputs: &mut Outputs) -> Result<(), BackendError> {
        let values = self.inputs(batch).map_err(input_error)?;
        if batch.rows == 0 {
            return self.no_rows(outputs);
        }
        let results = self.evaluate(batch.rows, values).map_err(input_error)?;
        for (value, spec) in results.into_iter().zip(&self.signature.outputs) {
            if value.dims.first() != Some(&batch.rows) {
                let what =
                    format!("output {:?} has the shape {:?} for {} rows", spec.name, value.dims, batch.rows);
                return Err(BackendError::Internal(what));
            }
            give(value, spec, outputs)?;
        }
        Ok(())
    }
}

impl Onnx {
    fn no_rows(&self, outputs: &mut Outputs) -> Result<(), BackendError> {
        for spec in &self.signature.outputs {
            let mut dims = vec![0];
            dims.extend(spec.row.iter().map(|size| size.unwrap_or(0)));
            let shape =
                Shape::new(&dims).ok_or_else(|| BackendError::Internal("too many dimensions".into()))?;
            outputs.bytes(spec.dtype, shape, &[]);
        }
        Ok(())
    }
}

/// Adds a result in the announced type.
fn give(value: Value, spec: &TensorSpec, outputs: &mut Outputs) -> Result<(), BackendError> {
    let shape = Shape::new(&value.dims);
    let shape =
        shape.ok_or_else(|| BackendError::Internal(format!("{:?}: too many dimensions", spec.name)))?;
    let mistyped =
        || BackendError::Internal(format!("{:?}: {} was announced otherwise", spec.name, value.elem.name()));
    macro_rules! whole {
        ($cells:expr, $T:ty) => {
            outputs.numbers::<$T>(shape).iter_mut().zip($cells.iter()).for_each(|(slot, x)| *slot = *x as $T)
        };
    }
    match (spec.dtype, &value.cells) {
        (DType::F32, Cells::F32(cells)) => outputs.numbers::<f32>(shape).copy_from_slice(cells),
        (DType::F64, Cells::F64(cells)) => outputs.numbers::<f64>(shape).copy_from_slice(cells),
        (DType::F32, Cells::F64(cells)) => whole!(cells, f32),
        (DType::F64, Cells::F32(cells)) => whole!(cells, f64),
        (DType::Text, Cells::Text(cells)) => outputs.texts(shape, cells.iter().map(AsRef::as_ref)),
        (DType::Bool, Cells::Bool(cells)) => outputs.truths(shape, cells.iter().copied()),
        (DType::Bool, Cells::Int(cells)) => outputs.truths(shape, cells.iter().map(|x| *x != 0)),
        (DType::I8, Cells::Int(cells)) => whole!(cells, i8),
        (DType::I16, Cells::Int(cells)) => whole!(cells, i16),
        (DType::I32, Cells::Int(cells)) => whole!(cells, i32),
        (DType::I64, Cells::Int(cells)) => outputs.numbers::<i64>(shape).copy_from_slice(cells),
        (DType::U8, Cells::Int(cells)) => whole!(cells, u8),
        (DType::U16, Cells::Int(cells)) => whole!(cells, u16),
        (DType::U32, Cells::Int(cells)) => whole!(cells, u32),
        (DType::U64, Cells::Int(cells)) => whole!(cells, u64),
        _ => return Err(mistyped()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(model: &Onnx, rows: usize) -> Vec<u8> {
        let cells: Vec<f32> = (0..rows * 720).map(|at| (at % 101) as f32 / 50.0 - 1.0).collect();
        let input = Tensor::borrowed(&cells, &[rows, 8, 9, 10]).expect("it fits");
        let mut outputs = Outputs::new();
        model.run(&Batch { rows, inputs: &[input] }, &mut outputs).expect("it answers");
        outputs.tensors()[0].bytes().to_vec()
    }

    #[test]
    fn a_batch_that_is_too_much_for_one_run_goes_in_parts_with_the_same_answers() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/net_conv_same.onnx");
        let mut model = Onnx::load(&std::fs::read(path).expect("readable").into()).expect("it loads");
        let (given, held) = (model.row_cost.given, model.row_cost.held);
        assert_eq!(given, 720);
        assert!((720..20_000).contains(&held), "{held} cells of a row");
        assert!(model.row_cost.rows_max(given, model.bounds) > 1_000, "small images go together");
        let whole = answers(&model, 5);
        model.row_cost.held = model.bounds.cells / SHARE / 2;
        assert_eq!(model.row_cost.rows_max(given, model.bounds), 2);
        assert_eq!(model.row_cost.rows_max(2 * given, model.bounds), 1, "what is free grows by its square");
        assert_eq!(answers(&model, 5), whole);
    }

    #[test]
    fn a_part_of_a_batch_holds_as_much_as_the_core_keeps_or_as_the_weights_that_it_reads() {
        let cost = |held, weights| RowCost { given: 10, held, work: 1, weights };
        assert_eq!(cost(1 << 10, 1 << 12).rows_near(10), 128);
        assert_eq!(cost(1 << 16, 1 << 12).rows_near(10), 2);
        assert_eq!(cost(1 << 16, 1 << 24).rows_near(10), 256);
        assert_eq!(cost(1 << 20, 1 << 12).rows_near(10), 1);
    }
}
