//! Operators that hold graphs: `If` and `Loop`.
//!
//! A graph in an attribute may read every value that its node sees. Such names are found at load and become inputs of the
//! node behind its own, so that values live as long as somebody reads them and a body needs no view of the outside.
//!
//! A loop is bounded by the work of the run, whatever its file says.
//!
//! Not here: `Scan`, sequences.

use std::borrow::Cow;
use std::collections::HashSet;

use models::LoadError;

use super::attrs::Attrs;
use super::value::{Budget, Failed, Value};
use super::{Op, Operator, Program, given};
use crate::proto::{Attr, Graph, Model, Node};

/// What a round costs besides what its operators make, in nanoseconds for each of them.
const ROUND_NS: usize = 100;

/// An operator and the outer values that its graphs read, in the order in which it takes them.
pub(super) type Holding = (Op, Vec<String>);

/// The operator of a node that holds graphs; the inner error is the title of a node that is not one of ours.
pub(super) fn operator(node: &Node, model: &Model) -> Result<Option<Result<Holding, String>>, LoadError> {
    if !node.domain.is_empty() {
        return Ok(None);
    }
    match node.op.as_str() {
        "If" => branches(node, model).map(Some),
        "Loop" => rounds(node, model).map(Some),
        _ => Ok(None),
    }
}

fn graph<'n>(node: &'n Node, name: &str) -> Result<&'n Graph, LoadError> {
    match node.attr(name) {
        Some(Attr::Graph(graph)) => Ok(graph),
        _ => Err(Attrs::new(node).error(format!("the attribute {name} is not a graph"))),
    }
}

/// The names that a graph reads and does not make, each once.
pub(super) fn outer_names(graph: &Graph) -> Vec<String> {
    let mut own: HashSet<&str> = graph.inputs.iter().map(|input| input.name.as_str()).collect();
    own.extend(graph.initializers.iter().map(|tensor| tensor.name.as_str()));
    own.extend(graph.nodes.iter().flat_map(|node| &node.outputs).map(String::as_str));
    let mut names = Vec::new();
    let mut seen = HashSet::new();
    let mut read = |name: &str| {
        if !name.is_empty() && !own.contains(name) && seen.insert(name.to_owned()) {
            names.push(name.to_owned());
        }
    };
    for node in &graph.nodes {
        node.inputs.iter().for_each(|name| read(name));
        for (_, attr) in &node.attrs {
            if let Attr::Graph(inner) = attr {
                outer_names(inner).iter().for_each(|name| read(name));
            }
        }
    }
    graph.outputs.iter().for_each(|output| read(&output.name));
    names
}

/// The one cell of a value.
fn one(value: &Value) -> Result<(), Failed> {
    if value.count() == 1 { Ok(()) } else { Err(format!("{:?} where one cell is needed", value.dims)) }
}

fn truth(value: &Value) -> Result<bool, Failed> {
    one(value)?;
    Ok(value.to_truths()?[0])
}

fn borrowed<'v>(inputs: &[Option<&'v Value>]) -> Result<Vec<Cow<'v, Value>>, Failed> {
    let each =
        |value: &Option<&'v Value>| value.map(Cow::Borrowed).ok_or_else(|| "an input is missing".into());
    inputs.iter().map(each).collect()
}

struct Branches {
    then: Program,
    otherwise: Program,
    /// How many of the outer values are the first branch's.
    split: usize,
}

fn branches(node: &Node, model: &Model) -> Result<Result<Holding, String>, LoadError> {
    let mut programs = Vec::new();
    let mut names = Vec::new();
    let mut split = 0;
    for name in ["then_branch", "else_branch"] {
        let graph = graph(node, name)?;
        if given(graph).next().is_some() {
            return Err(Attrs::new(node).error(format!("its {name} takes inputs")));
        }
        split = names.len();
        let outer = outer_names(graph);
        match Program::of(graph, model, &outer, false)? {
            Ok(program) => programs.push(program),
            Err(title) => return Ok(Err(title)),
        }
        names.extend(outer);
    }
    let (Some(otherwise), Some(then)) = (programs.pop(), programs.pop()) else {
        return Err(Attrs::new(node).error("it has no branches"));
    };
    Ok(Ok((Box::new(Branches { then, otherwise, split }), names)))
}

impl Operator for Branches {
    fn run(&self, inputs: &[Option<&Value>], budget: &mut Budget) -> Result<Vec<Value>, Failed> {
        let Some((Some(when), outer)) = inputs.split_first() else {
            return Err("it has no condition".into());
        };
        let (first, second) = outer.split_at(self.split.min(outer.len()));
        let (program, outer) = if truth(when)? { (&self.then, first) } else { (&self.otherwise, second) };
        program.within(borrowed(outer)?, budget)
    }

    fn cost_ns(&self) -> u64 {
        self.then.cost_ns().max(self.otherwise.cost_ns())
    }

    fn classes(&self) -> Vec<String> {
        self.then.classes()
    }
}

struct Rounds {
    body: Program,
    /// Values that go from round to round.
    carried: usize,
    /// Values that each round adds a slice to.
    scanned: usize,
}

fn rounds(node: &Node, model: &Model) -> Result<Result<Holding, String>, LoadError> {
    let attrs = Attrs::new(node);
    let graph = graph(node, "body")?;
    let takes = given(graph).count();
    let Some(carried) = takes.checked_sub(2).filter(|carried| node.inputs.len() == carried + 2) else {
        return Err(attrs.error(format!("its body takes {takes} values, the node {}", node.inputs.len())));
    };
    let gives = graph.outputs.len();
    let Some(scanned) =
        gives.checked_sub(1 + carried).filter(|scanned| node.outputs.len() <= carried + scanned)
    else {
        return Err(attrs.error(format!("its body gives {gives} values, {carried} go from round to round")));
    };
    let outer = outer_names(graph);
    Ok(Program::of(graph, model, &outer, false)?
        .map(|body| (Box::new(Rounds { body, carried, scanned }) as Op, outer)))
}

impl Operator for Rounds {
    fn run(&self, inputs: &[Option<&Value>], budget: &mut Budget) -> Result<Vec<Value>, Failed> {
        let (own, outer) = inputs.split_at((2 + self.carried).min(inputs.len()));
        let (Some(most), Some(when)) = (own.first(), own.get(1)) else {
            return Err("it takes a number of rounds and a condition".into());
        };
        let most = match most {
            Some(most) => one(most).and_then(|()| Ok(most.to_ints()?[0]))?,
            None => i64::MAX,
        };
        let mut goes_on = when.map_or(Ok(true), truth)?;
        let mut state: Vec<Cow<'_, Value>> = borrowed(&own[2..])?;
        let mut slices: Vec<Vec<Value>> = vec![Vec::new(); self.scanned];
        let held = budget.held();
        let mut scanned = 0;
        for round in 0..most {
            if !goes_on {
                break;
            }
            budget.start(held + scanned)?;
            budget.plod(1 + self.body.steps.len(), ROUND_NS)?;
            let mut values = vec![
                Cow::Owned(Value::ints(&[], vec![round])),
                Cow::Owned(Value::truths(&[], vec![goes_on])),
            ];
            values.append(&mut state);
            values.extend(borrowed(outer)?);
            let mut made = self.body.within(values, budget)?.into_iter();
            goes_on = truth(&made.next().ok_or("its body says not whether to go on")?)?;
            state = made.by_ref().take(self.carried).map(Cow::Owned).collect();
            for (all, slice) in slices.iter_mut().zip(made) {
                scanned += slice.count();
                all.push(slice);
            }
        }
        budget.start(held)?;
        let mut values: Vec<Value> = state.into_iter().map(Cow::into_owned).collect();
        for all in slices {
            values.push(stacked(all, budget)?);
        }
        Ok(values)
    }

    fn cost_ns(&self) -> u64 {
        self.body.cost_ns()
    }

    fn classes(&self) -> Vec<String> {
        self.body.classes()
    }
}

/// Values of one shape along a new first axis.
fn stacked(slices: Vec<Value>, budget: &mut Budget) -> Result<Value, Failed> {
    let count = slices.len();
    let mut slices = slices.into_iter();
    // What no round gave has no type either; nobody can read more from it than that there is nothing.
    let Some(mut whole) = slices.next() else { return Ok(Value::f64s(&[0], Vec::new())) };
    let row = std::mem::take(&mut whole.dims);
    whole.dims = [count].into_iter().chain(row.iter().copied()).collect();
    budget.claim(&whole.dims)?;
    for slice in slices {
        if slice.dims != row || slice.elem != whole.elem {
            return Err(format!("rounds give {row:?} and {:?}", slice.dims));
        }
        whole.cells.append(slice.cells).ok_or("rounds give values of different types")?;
    }
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::value::Bounds;
    use crate::proto::{Dim, Elem, Type, ValueInfo};

    fn info(name: &str) -> ValueInfo {
        let dims = Some(vec![Dim::Named("rows".into())]);
        ValueInfo { name: name.into(), ty: Type::Tensor { elem: Elem::F64, dims } }
    }

    fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> Node {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Node { op: op.into(), inputs: names(inputs), outputs: names(outputs), ..Node::default() }
    }

    /// A loop without an end around these nodes, which make `next` of `state`.
    fn endless(nodes: Vec<Node>) -> Program {
        let body = Graph {
            nodes,
            inputs: vec![info("round"), info("goes_on"), info("state")],
            outputs: vec![info("goes_on"), info("next")],
            ..Graph::default()
        };
        let mut holder = node("Loop", &["", "", "x"], &["y"]);
        holder.attrs.push(("body".into(), Attr::Graph(Box::new(body))));
        Program::compile(&around(holder)).expect("well formed").expect("known operators")
    }

    /// A model of one node from `x` to `y`.
    fn around(holder: Node) -> Model {
        let graph = Graph {
            nodes: vec![holder],
            inputs: vec![info("x")],
            outputs: vec![info("y")],
            ..Graph::default()
        };
        Model { opsets: vec![(String::new(), 21)], graph, ..Model::default() }
    }

    #[test]
    fn a_loop_without_an_end_stops_at_the_bounds_of_the_run() {
        let mut twice = node("Concat", &["state", "state"], &["next"]);
        twice.attrs.push(("axis".into(), Attr::Int(0)));
        let cases = [
            ("nothing to do", vec![node("Identity", &["state"], &["next"])], "limit on the work"),
            ("a state that grows", vec![twice], "limit on cells"),
        ];
        for (name, nodes, wanted) in cases {
            let program = endless(nodes);
            let bounds = Bounds { cells: 1 << 16, work: 1 << 24 };
            let error = program.run(vec![Value::f64s(&[2], vec![0.0; 2])], bounds).err().expect(name);
            assert!(error.contains("Loop") && error.contains(wanted), "{name}: {error}");
        }
    }

    #[test]
    fn a_body_that_reads_what_nobody_makes_is_refused_by_its_name() {
        let body = Graph { outputs: vec![info("nowhere")], ..Graph::default() };
        let mut holder = node("If", &["x"], &["y"]);
        holder.attrs.push(("then_branch".into(), Attr::Graph(Box::new(body.clone()))));
        holder.attrs.push(("else_branch".into(), Attr::Graph(Box::new(body))));
        let error = Program::compile(&around(holder)).err().expect("it is refused").to_string();
        assert!(error.contains("nowhere"), "{error}");
    }
}
