//! Graphs of tensors, run by rten.
//!
//! Its answer for a single row differs in the last bits from that for several, so a single row is doubled. It
//! knows `float`, `int32`, `int8` and `uint8`: other whole numbers become `int32` where they fit, `double` is
//! refused. Threads are the caller's: a run uses the one it is called on.
//!
//! Not here: graphs with `ai.onnx.ml` (`exec`).

use std::sync::Arc;

use bytes::Bytes;
use models::LoadError;
use rten::{ModelOptions, NodeId, RunOptions, ThreadPool, ValueOrView};
use rten_tensor::prelude::*;

use crate::exec::value::{Cells, Failed, Value};
use crate::proto::{Attr, Data, Elem, Graph, Model, Type, unsupported};

/// Cells of a constant that is made or repeated, at most: what a small file may ask for at load.
const INPUTS_MAX: usize = 256;

/// A graph in rten.
pub(crate) struct Tensors {
    model: rten::Model,
    inputs: Vec<NodeId>,
    outputs: Vec<NodeId>,
    pool: Arc<ThreadPool>,
    weights: usize,
}

/// Refuses what rten would compute in another type or without a bound.
fn check(graph: &Graph) -> Result<(), LoadError> {
    for tensor in &graph.initializers {
        if tensor.elem == Elem::F64 {
            return Err(unsupported(format!("weights of double ({:?}) in a graph of tensors", tensor.name)));
        }
        if matches!(tensor.data, Data::External { .. }) {
            return Err(unsupported(format!("weights outside the file ({:?})", tensor.name)));
        }
    }
    for node in &graph.nodes {
        let has_kernel = node.attr("kernel_shape").is_some();
        if matches!(node.op.as_str(), "Conv" | "ConvTranspose" | "ConvInteger") && !has_kernel {
            return Err(unsupported(format!("{} without kernel_shape", node.title())));
        }
        for (_, attr) in &node.attrs {
            if let Attr::Graph(inner) = attr {
                check(inner)?;
            }
        }
    }
    Ok(())
}

impl Tensors {
    pub(crate) fn new(bytes: &Bytes, model: &Model) -> Result<Self, LoadError> {
        check(&model.graph)?;
        let given: Vec<_> = crate::exec::given(&model.graph).collect();
        if given.len() > INPUTS_MAX {
            return Err(LoadError::TooLarge { what: "inputs of a graph", limit: INPUTS_MAX });
        }
        for info in &given {
            if matches!(info.ty, Type::Tensor { elem: Elem::F64 | Elem::TEXT, .. }) {
                return Err(unsupported(format!(
                    "the input {:?} of double or text in a graph of tensors",
                    info.name
                )));
            }
        }
        let mut options = ModelOptions::with_all_ops();
        options.prepack_weights(true);
        let failed = |error: &dyn std::fmt::Display| unsupported(format!("this graph: {error}"));
        let loaded = options.load(bytes.to_vec()).map_err(|error| failed(&error))?;
        let id = |name: &str| loaded.node_id(name).map_err(|error| failed(&error));
        let inputs = given.iter().map(|info| id(&info.name)).collect::<Result<_, _>>()?;
        let outputs = model.graph.outputs.iter().map(|info| id(&info.name)).collect::<Result<_, _>>()?;
        let weights = loaded.total_params();
        Ok(Self { model: loaded, inputs, outputs, pool: Arc::new(ThreadPool::with_num_threads(1)), weights })
    }

    /// Runs the graph; the first dimension of every input is `rows`.
    pub(crate) fn run(&self, rows: usize, given: Vec<Value>) -> Result<Vec<Value>, Failed> {
        let alone = rows == 1;
        let inputs = given.into_iter().map(|value| to_rten(if alone { doubled(&value) } else { value }));
        let inputs: Vec<rten::Value> = inputs.collect::<Result<_, _>>()?;
        let inputs: Vec<(NodeId, ValueOrView<'_>)> =
            self.inputs.iter().copied().zip(inputs.into_iter().map(ValueOrView::from)).collect();
        let options = RunOptions::default().with_thread_pool(Some(self.pool.clone()));
        let outputs =
            self.model.run(inputs, &self.outputs, Some(options)).map_err(|error| error.to_string())?;
        outputs
            .into_iter()
            .map(|value| of_rten(value).map(|value| if alone { halved(&value) } else { value }))
            .collect()
    }

    /// Roughly the nanoseconds that a row takes: each weight once.
    pub(crate) fn cost_ns(&self) -> u64 {
        (self.weights as u64 / 4).max(2_000)
    }

    pub(crate) fn detail(&self) -> String {
        format!("{} weights", self.weights)
    }
}

/// The single row twice.
fn doubled(value: &Value) -> Value {
    let mut dims = value.dims.clone();
    dims[0] = 2;
    let count = value.count();
    Value { dims, elem: value.elem, cells: value.cells.pick((0..count).chain(0..count)) }
}

/// The first of two rows.
fn halved(value: &Value) -> Value {
    match value.dims.first() {
        Some(2) => {
            let mut dims = value.dims.clone();
            dims[0] = 1;
            Value { dims, elem: value.elem, cells: value.cells.pick(0..value.count() / 2) }
        }
        // It does not follow the rows; who asked says so.
        _ => value.clone(),
    }
}

fn to_rten(value: Value) -> Result<rten::Value, Failed> {
    let whole = |cells: Vec<i64>| -> Result<Vec<i32>, Failed> {
        let fit =
            |x: i64| i32::try_from(x).map_err(|_| format!("{x} exceeds int32, in which this engine counts"));
        cells.into_iter().map(fit).collect()
    };
    let dims = value.dims.as_slice();
    Ok(match (value.cells, value.elem) {
        (Cells::F32(cells), _) => rten_tensor::Tensor::from_data(dims, cells).into(),
        (Cells::Int(cells), Elem::I8) => {
            rten_tensor::Tensor::from_data(dims, cells.into_iter().map(|x| x as i8).collect::<Vec<_>>())
                .into()
        }
        (Cells::Int(cells), Elem::U8) => {
            rten_tensor::Tensor::from_data(dims, cells.into_iter().map(|x| x as u8).collect::<Vec<_>>())
                .into()
        }
        (Cells::Int(cells), _) => rten_tensor::Tensor::from_data(dims, whole(cells)?).into(),
        (Cells::Bool(cells), _) => {
            rten_tensor::Tensor::from_data(dims, cells.into_iter().map(i32::from).collect::<Vec<_>>()).into()
        }
        (_, elem) => return Err(format!("{} in a graph of tensors", elem.name())),
    })
}

fn of_rten(value: rten::Value) -> Result<Value, Failed> {
    fn whole<T: Copy + Into<i64>>(tensor: &rten_tensor::Tensor<T>, elem: Elem) -> Value {
        let cells = tensor.to_vec().into_iter().map(Into::into).collect();
        Value { dims: tensor.shape().to_vec(), elem, cells: Cells::Int(cells) }
    }
    Ok(match value {
        rten::Value::FloatTensor(tensor) => Value::f32s(tensor.shape(), tensor.to_vec()),
        rten::Value::Int32Tensor(tensor) => whole(&tensor, Elem::I32),
        rten::Value::Int8Tensor(tensor) => whole(&tensor, Elem::I8),
        rten::Value::UInt8Tensor(tensor) => whole(&tensor, Elem::U8),
        _ => return Err("an output that is no tensor".into()),
    })
}
