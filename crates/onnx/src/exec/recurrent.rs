//! `LSTM`, `GRU` and `RNN` with the activations that frameworks export.
//!
//! The products with the inputs are made for all steps at once; a step adds the products with what it remembers.
//!
//! Not here: lengths that differ by row, peepholes and other activations, which are refused by the node's name.

use models::LoadError;

use super::attrs::Attrs;
use super::functions::{logistic, tanh};
use super::gemm::{A, B, Plus, Right, product};
use super::value::{Budget, Failed, Value};
use super::window::floats;
use super::{Op, Operator, input};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Lstm,
    Gru {
        /// Whether the reset comes after the product.
        late: bool,
    },
    Rnn {
        relu: bool,
    },
}

impl Kind {
    fn gates(self) -> usize {
        match self {
            Self::Lstm => 4,
            Self::Gru { .. } => 3,
            Self::Rnn { .. } => 1,
        }
    }
}

struct Recurrent {
    kind: Kind,
    /// For each direction, whether it runs from the end.
    backward: Vec<bool>,
    hidden: usize,
    /// The input's and the memory's weights of each direction, where they are constants.
    packed: Vec<(Right, Right)>,
    weights: usize,
}

/// The operator of a node, if it is one of these.
pub(crate) fn operator(attrs: Attrs<'_>) -> Result<Option<Op>, LoadError> {
    let op = attrs.node.op.as_str();
    if !matches!(op, "LSTM" | "GRU" | "RNN") {
        return Ok(None);
    }
    let backward = match attrs.text_or("direction", "forward")? {
        "forward" => vec![false],
        "reverse" => vec![true],
        "bidirectional" => vec![false, true],
        other => return Err(attrs.error(format!("direction {other:?}"))),
    };
    if attrs.has("clip") || attrs.int_or("input_forget", 0)? != 0 || attrs.int_or("layout", 0)? != 0 {
        return Err(attrs.unsupported("clip, input_forget or layout=1"));
    }
    let names = attrs.texts("activations")?;
    let given: Vec<String> = names.iter().map(|name| name.to_lowercase()).collect();
    let usual = |one: &[&str]| given.is_empty() || given.chunks(one.len()).all(|chunk| chunk == one);
    let kind = match op {
        "LSTM" if usual(&["sigmoid", "tanh", "tanh"]) => Kind::Lstm,
        "GRU" if usual(&["sigmoid", "tanh"]) => {
            Kind::Gru { late: attrs.int_or("linear_before_reset", 0)? != 0 }
        }
        "RNN" if usual(&["tanh"]) => Kind::Rnn { relu: false },
        "RNN" if usual(&["relu"]) => Kind::Rnn { relu: true },
        _ => return Err(attrs.unsupported(format!("the activations {given:?}"))),
    };
    let hidden = usize::try_from(attrs.int_or("hidden_size", 0)?).ok().filter(|size| *size <= 1 << 20);
    let hidden = hidden.ok_or_else(|| attrs.error("hidden_size"))?;
    Ok(Some(Box::new(Recurrent { kind, backward, hidden, packed: Vec::new(), weights: 0 })))
}

/// The sizes of a run.
struct Sizes {
    steps: usize,
    batch: usize,
    width: usize,
    hidden: usize,
    /// Numbers of all gates.
    gates: usize,
}

/// What one direction remembers: `[batch, hidden]` each.
struct Memory {
    hidden: Vec<f32>,
    cell: Vec<f32>,
}

impl Recurrent {
    fn sizes(&self, x: &Value, w: &Value, r: &Value) -> Result<Sizes, Failed> {
        let &[steps, batch, width] = x.dims.as_slice() else {
            return Err(format!("the shape {:?} where [steps, batch, width] is needed", x.dims));
        };
        let hidden = if self.hidden > 0 { self.hidden } else { r.dims.last().copied().unwrap_or(0) };
        let (directions, gates) = (self.backward.len(), self.kind.gates() * hidden);
        if hidden == 0 || w.dims != [directions, gates, width] || r.dims != [directions, gates, hidden] {
            return Err(format!("weights {:?} and {:?} for inputs {:?}", w.dims, r.dims, x.dims));
        }
        Ok(Sizes { steps, batch, width, hidden, gates })
    }

    /// What a direction remembers at first: an input `[directions, batch, hidden]`, or zeros.
    fn start(&self, at: Option<&Value>, direction: usize, sizes: &Sizes) -> Result<Vec<f32>, Failed> {
        let size = sizes.batch * sizes.hidden;
        let Some(value) = at else { return Ok(vec![0.0; size]) };
        if value.dims != [self.backward.len(), sizes.batch, sizes.hidden] {
            return Err(format!("a first state of the shape {:?}", value.dims));
        }
        Ok(floats(value)?[direction * size..(direction + 1) * size].to_vec())
    }

    /// Runs one direction; `tell` gets each step's number and hidden state.
    fn direction(
        &self,
        at: usize,
        sizes: &Sizes,
        (x, w, r): (&[f32], &[f32], &[f32]),
        bias: &[f32],
        memory: &mut Memory,
        mut tell: impl FnMut(usize, &[f32]),
    ) -> Result<(), Failed> {
        let (gates, batch, hidden) = (sizes.gates, sizes.batch, sizes.hidden);
        let packed = self.packed.get(at);
        let w = packed
            .map_or(B::Turned(&w[at * gates * sizes.width..(at + 1) * gates * sizes.width]), |both| {
                B::Packed(&both.0)
            });
        let remembered = &r[at * gates * hidden..(at + 1) * gates * hidden];
        let r = packed.map_or(B::Turned(remembered), |both| B::Packed(&both.1));
        let (outer, inner) = bias.split_at(gates);
        let mut all = vec![0.0; sizes.steps * batch * gates];
        product(&mut all, A::Plain(x), w, (sizes.steps * batch, sizes.width, gates), Plus::Columns(outer))?;
        let mut recalled = vec![0.0; batch * gates];
        for index in 0..sizes.steps {
            let step = if self.backward[at] { sizes.steps - 1 - index } else { index };
            let given = &mut all[step * batch * gates..(step + 1) * batch * gates];
            let shape = (batch, hidden, gates);
            product(&mut recalled, A::Plain(&memory.hidden), r, shape, Plus::Columns(inner))?;
            if self.kind == (Kind::Gru { late: false }) {
                self.early_gru(given, &mut recalled, (remembered, inner), sizes, memory)?;
            } else {
                self.step(given, &recalled, sizes, memory);
            }
            tell(step, &memory.hidden);
        }
        Ok(())
    }

    fn step(&self, given: &[f32], recalled: &[f32], sizes: &Sizes, memory: &mut Memory) {
        let size = sizes.hidden;
        let rows = given.chunks_exact(sizes.gates).zip(recalled.chunks_exact(sizes.gates));
        let states = memory.hidden.chunks_exact_mut(size).zip(memory.cell.chunks_exact_mut(size));
        for ((given, recalled), (hidden, cell)) in rows.zip(states) {
            for at in 0..size {
                let gate = |gate: usize| given[gate * size + at] + recalled[gate * size + at];
                match self.kind {
                    Kind::Lstm => {
                        // Input, output, forget, cell.
                        let kept = logistic(gate(2)) * cell[at] + logistic(gate(0)) * tanh(gate(3));
                        cell[at] = kept;
                        hidden[at] = logistic(gate(1)) * tanh(kept);
                    }
                    Kind::Gru { .. } => {
                        // Update, reset, hidden.
                        let (update, reset) = (logistic(gate(0)), logistic(gate(1)));
                        let new = tanh(given[2 * size + at] + reset * recalled[2 * size + at]);
                        hidden[at] = (1.0 - update) * new + update * hidden[at];
                    }
                    Kind::Rnn { relu } => {
                        hidden[at] = if relu { gate(0).max(0.0) } else { tanh(gate(0)) };
                    }
                }
            }
        }
    }

    /// A step of a GRU whose reset comes before the product.
    fn early_gru(
        &self,
        given: &[f32],
        recalled: &mut [f32],
        (r, inner): (&[f32], &[f32]),
        sizes: &Sizes,
        memory: &mut Memory,
    ) -> Result<(), Failed> {
        let (size, gates) = (sizes.hidden, sizes.gates);
        let gate = |row: usize, gate: usize, at: usize| row * gates + gate * size + at;
        let reset: Vec<f32> = (0..sizes.batch * size)
            .map(|index| {
                let at = gate(index / size, 1, index % size);
                logistic(given[at] + recalled[at]) * memory.hidden[index]
            })
            .collect();
        let mut new = vec![0.0; sizes.batch * size];
        let (weights, bias) = (&r[2 * size * size..], &inner[2 * size..]);
        let shape = (sizes.batch, size, size);
        product(&mut new, A::Plain(&reset), B::Turned(weights), shape, Plus::Columns(bias))?;
        for (index, hidden) in memory.hidden.iter_mut().enumerate() {
            let (row, at) = (index / size, index % size);
            let update = logistic(given[gate(row, 0, at)] + recalled[gate(row, 0, at)]);
            let fresh = tanh(given[gate(row, 2, at)] + new[index]);
            *hidden = (1.0 - update) * fresh + update * *hidden;
        }
        Ok(())
    }
}

impl Operator for Recurrent {
    fn prepare(&mut self, constants: &[Option<&Value>]) -> Result<(), Failed> {
        let constant = |at: usize| constants.get(at).copied().flatten();
        let (Some(w), Some(r)) = (constant(1), constant(2)) else { return Ok(()) };
        let (&[directions, gates, width], &[count, own, hidden]) = (w.dims.as_slice(), r.dims.as_slice())
        else {
            return Ok(());
        };
        let (w, r) = (floats(w)?, floats(r)?);
        self.weights = w.len() + r.len();
        if directions != count || gates != own || gates == 0 || width == 0 || hidden == 0 {
            return Ok(());
        }
        let pairs = w.chunks_exact(gates * width).zip(r.chunks_exact(gates * hidden));
        let pack = |(w, r)| (Right::pack(w, (width, gates), true), Right::pack(r, (hidden, gates), true));
        self.packed = pairs.map(pack).collect();
        Ok(())
    }

    fn run(&self, inputs: &[Option<&Value>], budget: &mut Budget) -> Result<Vec<Value>, Failed> {
        let (x, w, r) = (input(inputs, 0)?, input(inputs, 1)?, input(inputs, 2)?);
        let optional = |at: usize| inputs.get(at).copied().flatten();
        let sizes = self.sizes(x, w, r)?;
        let (steps, batch, hidden) = (sizes.steps, sizes.batch, sizes.hidden);
        if let Some(lengths) = optional(4)
            && lengths.to_ints()?.iter().any(|length| *length != steps as i64)
        {
            return Err("lengths that differ by row (sequence_lens)".into());
        }
        if optional(7).is_some() {
            return Err("peepholes".into());
        }
        let directions = self.backward.len();
        let zeros;
        let bias = match optional(3) {
            Some(bias) => floats(bias)?,
            None => {
                zeros = vec![0.0; directions * 2 * sizes.gates];
                &zeros
            }
        };
        if bias.len() != directions * 2 * sizes.gates {
            return Err(format!("{} biases for {} gates", bias.len(), sizes.gates));
        }
        let count = budget.claim(&[steps, directions, batch, hidden])?;
        budget.claim(&[steps + 1, batch, sizes.gates])?;
        budget.work(steps * batch * sizes.gates, (sizes.width + hidden) * directions)?;
        let (x, w, r) = (floats(x)?, floats(w)?, floats(r)?);
        let mut whole = vec![0.0; count];
        let (mut last, mut cells) = (Vec::new(), Vec::new());
        for direction in 0..directions {
            let mut memory = Memory {
                hidden: self.start(optional(5), direction, &sizes)?,
                cell: self.start(optional(6), direction, &sizes)?,
            };
            let bias = &bias[direction * 2 * sizes.gates..(direction + 1) * 2 * sizes.gates];
            self.direction(direction, &sizes, (x, w, r), bias, &mut memory, |step, state| {
                let at = (step * directions + direction) * batch * hidden;
                whole[at..at + state.len()].copy_from_slice(state);
            })?;
            last.extend(memory.hidden);
            cells.extend(memory.cell);
        }
        let state = [directions, batch, hidden];
        let mut outputs =
            vec![Value::f32s(&[steps, directions, batch, hidden], whole), Value::f32s(&state, last)];
        if self.kind == Kind::Lstm {
            outputs.push(Value::f32s(&state, cells));
        }
        Ok(outputs)
    }

    fn cost_ns(&self) -> u64 {
        // Each weight meets some ten steps.
        (self.weights as u64 * 2).max(2_000)
    }

    fn detail(&self) -> String {
        format!("{} weights", self.weights)
    }
}
