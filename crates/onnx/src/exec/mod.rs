//! The executor of our own: a graph's nodes in the file's order, each one an [`Operator`].
//!
//! It runs `ai.onnx.ml` (trees, linear models, encoders), networks (convolutions, attention, recurrence) and the
//! plain operators around them, in the element types of the file, `double` and `int64` included. Everything is decided
//! at load: names become slots, attributes become operators, constant weights are laid out (those of 8 bits after they
//! became floats, once), and a value is dropped after its last reader.
//!
//! A file is not trusted with memory or time: before an operator makes a value it claims the cells, and says how many
//! products it takes, from a [`Budget`] that is the run's.
//!
//! Not here: files (`proto`), batches of the server (`engine`).

mod activation;
mod attrs;
mod conv;
mod conv_integer;
mod einsum;
mod ensemble;
mod flow;
mod functions;
mod gemm;
mod gemm8;
mod join;
mod joined;
mod linear;
mod math;
mod movement;
mod norm;
mod places;
mod pool;
mod post;
mod quantized;
mod recurrent;
mod reduce;
mod resize;
mod rows;
mod shifted;
mod steps;
mod table;
mod trees;
pub(crate) mod value;
mod widest;
mod window;

use std::borrow::Cow;
use std::collections::HashMap;

use models::LoadError;

use crate::proto::{Graph, Model, Node, Type, unsupported};
use attrs::Attrs;
use value::{Bounds, Budget, Failed, Value};

/// One node, ready to run.
pub(crate) trait Operator: Send + Sync {
    /// Told once at load which inputs are constants of the file.
    fn prepare(&mut self, _constants: &[Option<&Value>]) -> Result<(), Failed> {
        Ok(())
    }

    /// The outputs for these inputs; `None` is an optional input that is left out.
    fn run(&self, inputs: &[Option<&Value>], budget: &mut Budget) -> Result<Vec<Value>, Failed>;

    /// Roughly the nanoseconds that a row takes.
    fn cost_ns(&self) -> u64 {
        100
    }

    /// The classes it tells apart, where it is a classifier.
    fn classes(&self) -> Vec<String> {
        Vec::new()
    }

    /// Its sizes, for reports.
    fn detail(&self) -> String {
        String::new()
    }
}

/// A ready node.
pub(crate) type Op = Box<dyn Operator>;

/// An operator that is no more than a function.
struct Plain<F>(F);

impl<F> Operator for Plain<F>
where
    F: Fn(&[Option<&Value>], &mut Budget) -> Result<Vec<Value>, Failed> + Send + Sync,
{
    fn run(&self, inputs: &[Option<&Value>], budget: &mut Budget) -> Result<Vec<Value>, Failed> {
        (self.0)(inputs, budget)
    }
}

/// A function as an operator.
fn plain<F>(run: F) -> Op
where
    F: Fn(&[Option<&Value>], &mut Budget) -> Result<Vec<Value>, Failed> + Send + Sync + 'static,
{
    Box::new(Plain(run))
}

/// The input at a place, which must be there.
fn input<'v>(inputs: &[Option<&'v Value>], at: usize) -> Result<&'v Value, Failed> {
    inputs.get(at).copied().flatten().ok_or_else(|| format!("input {at} is missing"))
}

/// The operator of a node; `None` when it is not one of ours.
fn operator(node: &Node, opset: i64) -> Result<Option<Op>, LoadError> {
    let attrs = Attrs::new(node);
    if node.domain == "ai.onnx.ml" {
        return Ok(Some(match node.op.as_str() {
            "TreeEnsembleClassifier" => ensemble::classifier(attrs)?,
            "TreeEnsembleRegressor" => ensemble::regressor(attrs)?,
            "TreeEnsemble" => ensemble::unified(attrs)?,
            "LinearClassifier" => linear::classifier(attrs)?,
            "LinearRegressor" => linear::regressor(attrs)?,
            _ => return table::operator(attrs),
        }));
    }
    if !node.domain.is_empty() {
        return Ok(None);
    }
    if let Some(op) = math::operator(attrs)? {
        return Ok(Some(op));
    }
    if let Some(op) = reduce::operator(attrs, opset)? {
        return Ok(Some(op));
    }
    if let Some(op) = linear::operator(attrs)? {
        return Ok(Some(op));
    }
    if let Some(op) = einsum::operator(attrs)? {
        return Ok(Some(op));
    }
    if let Some(op) = quantized::operator(attrs)? {
        return Ok(Some(op));
    }
    if let Some(op) = movement::operator(attrs, opset)? {
        return Ok(Some(op));
    }
    network(attrs, opset)
}

/// The operator of a graph's node and the outer values that it reads; the inner error is the title of a node that is not
/// one of ours.
fn holding(node: &Node, is_joined: bool, model: &Model) -> Result<Result<flow::Holding, String>, LoadError> {
    let title = node.title();
    let alone = |op: Option<Op>| op.map(|op| (op, Vec::new())).ok_or(title.clone());
    if is_joined {
        return Ok(alone(joined::operator(Attrs::new(node))?));
    }
    let opset = model.opset(&node.domain);
    let opset =
        opset.ok_or_else(|| unsupported(format!("{title}: the model names no opset of its domain")))?;
    match flow::operator(node, model)? {
        Some(holding) => Ok(holding),
        None => Ok(alone(operator(node, opset)?)),
    }
}

/// The operators of networks.
fn network(attrs: Attrs<'_>, opset: i64) -> Result<Option<Op>, LoadError> {
    for family in [
        conv::operator,
        conv_integer::operator,
        pool::operator,
        norm::operator,
        recurrent::operator,
        activation::operator,
    ] {
        if let Some(op) = family(attrs)? {
            return Ok(Some(op));
        }
    }
    if let Some(op) = resize::operator(attrs, opset)? {
        return Ok(Some(op));
    }
    places::operator(attrs, opset)
}

struct Step {
    op: Op,
    title: String,
    inputs: Vec<Option<usize>>,
    outputs: Vec<Option<usize>>,
    /// Slots that nobody reads afterwards.
    free: Vec<usize>,
}

/// What came of a run.
pub(crate) struct Run {
    pub(crate) values: Vec<Value>,
    /// Cells that it held at once, at most.
    pub(crate) peak: usize,
    /// Its work; see [`value::WORK_PER_NS`].
    pub(crate) work: u64,
}

/// A graph that can be run.
pub(crate) struct Program {
    constants: Vec<(usize, Value)>,
    steps: Vec<Step>,
    inputs: Vec<usize>,
    outputs: Vec<usize>,
    slots: usize,
    /// Whether rows of a batch are known to have no part in each other's answers.
    is_apart: bool,
}

/// The slots of names while a graph is compiled.
#[derive(Default)]
struct Names<'g>(HashMap<&'g str, usize>);

impl<'g> Names<'g> {
    fn define(&mut self, name: &'g str) -> Result<usize, LoadError> {
        let slot = self.0.len();
        match self.0.insert(name, slot) {
            None => Ok(slot),
            Some(_) => Err(LoadError::Attribute {
                class: "graph".into(),
                what: format!("the value {name:?} is made twice"),
            }),
        }
    }

    fn find(&self, name: &str, reader: &str) -> Result<usize, LoadError> {
        let found = self.0.get(name).copied();
        found.ok_or_else(|| LoadError::Attribute {
            class: reader.to_owned(),
            what: format!("it reads {name:?}, which nothing before it makes"),
        })
    }
}

/// The inputs that a caller gives: older files list the constants too.
pub(crate) fn given(graph: &Graph) -> impl Iterator<Item = &crate::proto::ValueInfo> {
    graph.inputs.iter().filter(|input| !graph.initializers.iter().any(|tensor| tensor.name == input.name))
}

/// What a node makes of weights of 8 bits, where it can be made at load. Many nodes may read the same weights, so no more
/// cells are made than are left in `room`, which is what the file has.
fn widened(
    node: &Node,
    op: &dyn Operator,
    inputs: &[Option<usize>],
    constants: &[Option<&Value>],
    room: &mut usize,
) -> Result<Option<Vec<Value>>, Failed> {
    let is_constant = inputs.iter().zip(constants).all(|(slot, value)| slot.is_none() || value.is_some());
    let cells = constants.first().copied().flatten().map_or(0, Value::count);
    if node.op != "DequantizeLinear" || !is_constant || cells > *room {
        return Ok(None);
    }
    *room -= cells;
    op.run(constants, &mut Budget::new(Bounds::default())).map(Some)
}

impl Program {
    /// Compiles; the inner error is the title of a node that is not one of ours.
    pub(crate) fn compile(model: &Model) -> Result<Result<Self, String>, LoadError> {
        Self::of(&model.graph, model, &[], true)
    }

    /// Compiles a graph of a model. Its inputs are followed by the values of an outer graph that it reads by these names.
    /// `is_whole` says that the graph is the model's, whose inputs are a batch of rows.
    fn of(
        graph: &Graph,
        model: &Model,
        outer: &[String],
        is_whole: bool,
    ) -> Result<Result<Self, String>, LoadError> {
        let (nodes, is_apart) = join::joined(graph, is_whole);
        let mut names = Names::default();
        let mut program = Self {
            constants: Vec::new(),
            steps: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            slots: 0,
            is_apart,
        };
        for input in given(graph) {
            program.inputs.push(names.define(&input.name)?);
        }
        for name in outer {
            program.inputs.push(names.define(name)?);
        }
        for tensor in &graph.initializers {
            program.constants.push((names.define(&tensor.name)?, Value::of_tensor(tensor)?));
        }
        // The place of a slot among the constants.
        let mut places: HashMap<usize, usize> =
            program.constants.iter().enumerate().map(|(at, (slot, _))| (*slot, at)).collect();
        let mut room: usize = program.constants.iter().map(|(_, value)| value.count()).sum();
        for node in &nodes {
            let title = node.title();
            let is_joined = matches!(node, Cow::Owned(_));
            let (mut op, read) = match holding(node, is_joined, model)? {
                Ok(holding) => holding,
                Err(title) => return Ok(Err(title)),
            };
            let slot_of = |name: &String| (!name.is_empty()).then(|| names.find(name, &title)).transpose();
            let mut inputs = node.inputs.iter().chain(&read).map(slot_of).collect::<Result<Vec<_>, _>>()?;
            let constant = |slot: &Option<usize>| {
                let at = places.get(slot.as_ref()?)?;
                program.constants.get(*at).map(|(_, value)| value)
            };
            let constants: Vec<Option<&Value>> = inputs.iter().map(constant).collect();
            let prepared = op.prepare(&constants);
            prepared.map_err(|what| unsupported(format!("{title}: {what}")))?;
            if is_joined {
                // It has read its constants.
                inputs.truncate(1);
            }
            let widened = widened(node, &*op, &inputs, &constants, &mut room);
            if let Some(made) = widened.map_err(|what| unsupported(format!("{title}: {what}")))? {
                for (name, value) in node.outputs.iter().zip(made) {
                    let slot = names.define(name)?;
                    places.insert(slot, program.constants.len());
                    program.constants.push((slot, value));
                }
                continue;
            }
            let mut outputs = Vec::with_capacity(node.outputs.len());
            for name in &node.outputs {
                outputs.push((!name.is_empty()).then(|| names.define(name)).transpose()?);
            }
            program.steps.push(Step { op, title, inputs, outputs, free: Vec::new() });
        }
        for output in &graph.outputs {
            program.outputs.push(names.find(&output.name, "graph")?);
        }
        program.slots = names.0.len();
        program.drop_unread();
        program.plan_frees();
        Ok(Ok(program))
    }

    /// Drops constants that no step reads: those that were put together at load.
    fn drop_unread(&mut self) {
        let mut read = vec![false; self.slots];
        let inputs = self.steps.iter().flat_map(|step| step.inputs.iter().flatten());
        inputs.chain(&self.outputs).for_each(|slot| read[*slot] = true);
        self.constants.retain(|(slot, _)| read[*slot]);
    }

    fn plan_frees(&mut self) {
        let mut last = vec![None; self.slots];
        for (index, step) in self.steps.iter().enumerate() {
            for slot in step.inputs.iter().chain(&step.outputs).flatten() {
                last[*slot] = Some(index);
            }
        }
        for slot in &self.outputs {
            last[*slot] = None;
        }
        for (slot, index) in last.into_iter().enumerate() {
            if let Some(index) = index {
                self.steps[index].free.push(slot);
            }
        }
    }

    /// Runs the graph on the caller's inputs, in the order of the file.
    pub(crate) fn run(&self, given: Vec<Value>, bounds: Bounds) -> Result<Run, Failed> {
        let mut budget = Budget::new(bounds);
        let values = self.within(given.into_iter().map(Cow::Owned).collect(), &mut budget)?;
        Ok(Run { values, peak: budget.peak(), work: budget.work_done() })
    }

    /// Runs the graph as a part of another's run, beside what is held already.
    fn within<'v>(&'v self, given: Vec<Cow<'v, Value>>, budget: &mut Budget) -> Result<Vec<Value>, Failed> {
        let owned = |value: &Cow<'_, Value>| if let Cow::Owned(value) = value { value.count() } else { 0 };
        let mut live: usize = budget.held() + given.iter().map(owned).sum::<usize>();
        let mut slots: Vec<Option<Cow<'v, Value>>> = vec![None; self.slots];
        for (slot, value) in &self.constants {
            slots[*slot] = Some(Cow::Borrowed(value));
        }
        for (slot, value) in self.inputs.iter().zip(given) {
            slots[*slot] = Some(value);
        }
        for step in &self.steps {
            budget.start(live)?;
            let made = {
                let inputs: Vec<Option<&Value>> =
                    step.inputs.iter().map(|slot| slot.and_then(|slot| slots[slot].as_deref())).collect();
                step.op.run(&inputs, budget).map_err(|what| format!("{}: {what}", step.title))?
            };
            if made.len() < step.outputs.len() {
                return Err(format!("{}: it has no output {}", step.title, made.len()));
            }
            for (slot, value) in step.outputs.iter().zip(made) {
                if let Some(slot) = slot {
                    live += value.count();
                    slots[*slot] = Some(Cow::Owned(value));
                }
            }
            for slot in &step.free {
                if let Some(Cow::Owned(value)) = slots[*slot].take() {
                    live -= value.count();
                }
            }
        }
        let take = |slot: &usize| {
            let value = slots[*slot].as_deref().cloned();
            value.ok_or_else(|| "an output was never made".to_owned())
        };
        self.outputs.iter().map(take).collect()
    }

    /// Whether rows of a batch are known to have no part in each other's answers; then also ranges are those of rows.
    pub(crate) fn is_apart(&self) -> bool {
        self.is_apart
    }

    /// Roughly the nanoseconds that a row takes.
    pub(crate) fn cost_ns(&self) -> u64 {
        self.steps.iter().map(|step| step.op.cost_ns()).fold(0, u64::saturating_add)
    }

    /// The classes of its classifier.
    pub(crate) fn classes(&self) -> Vec<String> {
        self.steps
            .iter()
            .map(|step| step.op.classes())
            .find(|classes| !classes.is_empty())
            .unwrap_or_default()
    }

    /// Its nodes and their sizes, for reports.
    pub(crate) fn lines(&self) -> Vec<(String, String)> {
        self.steps.iter().map(|step| (step.title.clone(), step.op.detail())).collect()
    }
}

/// Whether a declared type is a tensor at all.
pub(crate) fn is_tensor(ty: &Type) -> bool {
    matches!(ty, Type::Tensor { .. })
}
