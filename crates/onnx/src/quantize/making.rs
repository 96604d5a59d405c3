//! The graph while it is rewritten.
//!
//! Names that other nodes read stay what they were, so that a node is rewritten without a look at its neighbours; what
//! is new has names that begin with `slipway_`. A value that several operators read goes through integers once.
//!
//! Not here: which nodes are rewritten, and how (`product`, `conv`).

use std::collections::{HashMap, HashSet};

use super::ranges::Ranges;
use super::{Mode, has_inner_graph};
use crate::proto::{Attr, Data, Elem, Model, Node, Tensor};

/// What `DynamicQuantizeLinear` makes of a value: names of the integers, their scale and their zero point.
#[derive(Debug, Clone)]
pub(super) struct Small {
    pub(super) integers: String,
    pub(super) scale: String,
    pub(super) zero: String,
}

pub(super) struct Making {
    made: Model,
    count: usize,
    /// Names that the file begins with; it may have been rewritten before.
    taken: HashSet<String>,
    /// The range of each value that becomes integers.
    pub(super) ranges: Ranges,
    /// The values that become integers and floats again where they are made.
    pub(super) made_whole: HashSet<String>,
    /// The floats that a value became again.
    twins: HashMap<String, String>,
    smalls: HashMap<String, Small>,
}

impl Making {
    pub(super) fn new(model: &Model) -> Self {
        let mut made = model.clone();
        made.graph.nodes.clear();
        let graph = &model.graph;
        let constants = graph.initializers.iter().map(|tensor| &tensor.name);
        let given = graph.inputs.iter().map(|input| &input.name);
        let named = graph.nodes.iter().flat_map(|node| node.outputs.iter().chain([&node.name]));
        Self {
            made,
            count: 0,
            taken: constants.chain(given).chain(named).cloned().collect(),
            ranges: Ranges::new(),
            made_whole: HashSet::new(),
            twins: HashMap::new(),
            smalls: HashMap::new(),
        }
    }

    /// A name that nothing has.
    pub(super) fn name(&mut self, what: &str) -> String {
        loop {
            self.count += 1;
            let name = format!("slipway_{what}_{}", self.count);
            if !self.taken.contains(&name) {
                return name;
            }
        }
    }

    fn constant(&mut self, what: &str, elem: Elem, dims: &[usize], raw: Vec<u8>) -> String {
        let name = self.name(what);
        let data = Data::Raw(raw.into());
        self.made.graph.initializers.push(Tensor { name: name.clone(), elem, dims: dims.to_vec(), data });
        name
    }

    pub(super) fn floats(&mut self, what: &str, dims: &[usize], values: &[f32]) -> String {
        let raw = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(what, Elem::F32, dims, raw)
    }

    pub(super) fn signed(&mut self, what: &str, dims: &[usize], values: &[i8]) -> String {
        self.constant(what, Elem::I8, dims, values.iter().map(|value| *value as u8).collect())
    }

    pub(super) fn unsigned(&mut self, what: &str, dims: &[usize], values: Vec<u8>) -> String {
        self.constant(what, Elem::U8, dims, values)
    }

    /// A bias in steps of the values' scale times that of each column or channel of the weights, as sums of their products
    /// are: the form that runtimes join.
    pub(super) fn bias(&mut self, bias: &[f32], scales: &[f32], step: f32) -> String {
        let both: Vec<f32> = scales.iter().map(|scale| scale * step).collect();
        let integer = |(bias, both): (&f32, &f32)| (bias / both).round_ties_even() as i32;
        let integers = bias.iter().zip(&both).map(integer).flat_map(i32::to_le_bytes).collect();
        let integers = self.constant("bias", Elem::I32, &[bias.len()], integers);
        let both = self.floats("scales", &[bias.len()], &both);
        self.widened(&[&integers, &both], 0)
    }

    /// A node with a name of its own.
    pub(super) fn node(&mut self, op: &str, inputs: &[&str], outputs: &[&str], attrs: Vec<(String, Attr)>) {
        let name = self.name(op);
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        self.push(Node {
            name,
            op: op.to_owned(),
            domain: String::new(),
            inputs: owned(inputs),
            outputs: owned(outputs),
            attrs,
        });
    }

    /// A node; what it makes goes through integers where that was asked for.
    pub(super) fn push(&mut self, mut node: Node) {
        let mut whole = Vec::new();
        for output in &mut node.outputs {
            if self.made_whole.contains(output.as_str()) {
                let raw = self.name("raw");
                whole.push((raw.clone(), std::mem::replace(output, raw)));
            }
        }
        self.made.graph.nodes.push(node);
        for (raw, output) in whole {
            // From here on it is made of integers.
            self.made_whole.remove(&output);
            self.round_trip(&raw, &output, &output);
            self.twins.insert(output.clone(), output);
        }
    }

    /// A node of one input and one output; the output's name.
    pub(super) fn cast(&mut self, value: &str, to: Elem) -> String {
        let out = self.name("cast");
        self.node("Cast", &[value], &[&out], vec![("to".to_owned(), Attr::Int(i64::from(to.0)))]);
        out
    }

    /// `DequantizeLinear` of constants with a scale for each part of an axis.
    pub(super) fn widened(&mut self, inputs: &[&str], axis: i64) -> String {
        let out = self.name("wide");
        self.node("DequantizeLinear", inputs, &[&out], vec![("axis".to_owned(), Attr::Int(axis))]);
        out
    }

    /// `DynamicQuantizeLinear` of a value.
    pub(super) fn small(&mut self, value: &str) -> Small {
        if let Some(small) = self.smalls.get(value) {
            return small.clone();
        }
        let (integers, scale, zero) = (self.name("small"), self.name("scale"), self.name("zero"));
        self.node("DynamicQuantizeLinear", &[value], &[&integers, &scale, &zero], Vec::new());
        let small = Small { integers, scale, zero };
        self.smalls.insert(value.to_owned(), small.clone());
        small
    }

    /// The value as an operator reads it: as it is, or of integers ([`Mode::Static`]). `seen` is its name in the ranges.
    pub(super) fn read(&mut self, value: &str, seen: &str, mode: Mode) -> String {
        if mode != Mode::Static {
            return value.to_owned();
        }
        if let Some(twin) = self.twins.get(value) {
            return twin.clone();
        }
        let twin = self.name("wide");
        self.round_trip(value, &twin, seen);
        self.twins.insert(value.to_owned(), twin.clone());
        twin
    }

    /// `QuantizeLinear` and back, with the range that was seen.
    fn round_trip(&mut self, value: &str, output: &str, seen: &str) {
        let (scale, zero) = self.grid(seen);
        let scale = self.floats("scale", &[], &[scale]);
        let zero = self.unsigned("zero", &[], vec![zero]);
        let small = self.name("small");
        self.node("QuantizeLinear", &[value, &scale, &zero], &[&small], Vec::new());
        self.node("DequantizeLinear", &[&small, &scale, &zero], &[output], Vec::new());
    }

    /// The scale and the zero point for the range that a value was seen in: 255 steps, one of which is zero.
    pub(super) fn grid(&self, seen: &str) -> (f32, u8) {
        let (low, high) = self.ranges.get(seen).copied().unwrap_or((0.0, 0.0));
        let (low, high) = (low.min(0.0), high.max(0.0));
        let scale = ((f64::from(high) - f64::from(low)) / 255.0) as f32;
        // A single value has no range; any scale says the same of zero.
        let scale = if scale >= f32::MIN_POSITIVE { scale } else { 1.0 };
        (scale, (-low / scale).round_ties_even().clamp(0.0, 255.0) as u8)
    }

    /// The model, without the constants that nothing reads any more.
    pub(super) fn finish(mut self) -> Model {
        if !has_inner_graph(&self.made) {
            let graph = &mut self.made.graph;
            let outputs = graph.outputs.iter().map(|output| output.name.as_str());
            let inputs = graph.nodes.iter().flat_map(|node| node.inputs.iter().map(String::as_str));
            let read: HashSet<&str> = outputs.chain(inputs).collect();
            let is_read = |name: &str| read.contains(name);
            // Older files list their constants among the inputs.
            let constants: HashSet<String> =
                graph.initializers.iter().map(|tensor| tensor.name.clone()).collect();
            graph.inputs.retain(|input| !constants.contains(&input.name) || is_read(&input.name));
            graph.initializers.retain(|tensor| is_read(&tensor.name));
        }
        self.made
    }
}
