//! Whether the rows of a batch have a part in each other's answers, found by trying.
//!
//! A sum over the first axis, a softmax along it or a formula that leaves it out mixes rows. That may be meant for the rows of
//! one call, but a server that puts the rows of many together must not run such a graph on all of them. What the operators
//! are known to keep apart (`exec::rows`) is not tried.
//!
//! Not here: operators that are known to mix rows by what they find in them (`engine`), which a trial may miss.

use crate::exec::Program;
use crate::exec::value::{Bounds, Cells, Value};
use crate::proto::Elem;

/// Rows of the trial.
const ROWS: usize = 2;
/// Differences that the order of a sum may make.
const NEAR: f64 = 1e-3;

/// Whether a row has another answer beside another row than alone. `dims` are the inputs' shapes without rows; `false` where
/// the graph does not take the numbers of the trial.
pub(crate) fn mixes(program: &Program, inputs: &[(Elem, Vec<usize>)], bounds: Bounds) -> bool {
    let Some(values) = inputs.iter().map(|(elem, row)| varied(*elem, row)).collect::<Option<Vec<_>>>() else {
        return false;
    };
    let Ok(whole) = program.run(values.clone(), bounds) else { return false };
    (0..ROWS).any(|row| {
        let alone = program.run(rows_of(&values, row..row + 1), bounds);
        alone.is_ok_and(|alone| {
            let pairs = whole.values.iter().zip(&alone.values);
            pairs.clone().any(|(whole, _)| whole.dims.first() != Some(&ROWS))
                || pairs.zip(0..).any(|((whole, alone), _)| {
                    !near(&rows_of(std::slice::from_ref(whole), row..row + 1)[0], alone)
                })
        })
    })
}

/// Rows of which no two are the same; nothing for texts.
fn varied(elem: Elem, row: &[usize]) -> Option<Value> {
    let count = row.iter().product::<usize>().checked_mul(ROWS)?;
    let number = |at: usize| match elem {
        Elem::F32 | Elem::F64 => ((at * 37 + 11) % 101) as f64 / 50.0 - 1.0,
        // Small enough for what is looked up in a table.
        _ => ((at + at / (count / ROWS).max(1)) % 2) as f64,
    };
    let dims = [&[ROWS], row].concat();
    (elem != Elem::TEXT).then(|| Value::of_f64s(elem, &dims, (0..count).map(number).collect()))
}

fn near(a: &Value, b: &Value) -> bool {
    let number =
        |a: f64, b: f64| (a - b).abs() <= NEAR * (1.0 + a.abs()) || a == b || (a.is_nan() && b.is_nan());
    a.dims == b.dims
        && match (&a.cells, &b.cells) {
            (Cells::F32(a), Cells::F32(b)) => {
                a.iter().zip(b).all(|(a, b)| number(f64::from(*a), f64::from(*b)))
            }
            (Cells::F64(a), Cells::F64(b)) => a.iter().zip(b).all(|(a, b)| number(*a, *b)),
            (a, b) => a == b,
        }
}

/// Some rows of values.
pub(crate) fn rows_of(values: &[Value], rows: std::ops::Range<usize>) -> Vec<Value> {
    let cut = |value: &Value| {
        let stride: usize = value.dims[1..].iter().product();
        let mut dims = value.dims.clone();
        dims[0] = rows.len();
        let cells = value.cells.part(rows.start * stride..rows.end * stride);
        Value { dims, elem: value.elem, cells }
    };
    values.iter().map(cut).collect()
}

#[cfg(test)]
mod tests {
    use models::Backend;

    use super::*;
    use crate::engine::Onnx;
    use crate::proto::{Attr, Dim, Graph, Model, Node, Type, ValueInfo};
    use crate::write::write;

    /// The graph of nodes from `X`, `[rows, 2, 3]`, to `Y`.
    fn loaded(nodes: Vec<Node>) -> Onnx {
        let info =
            |name: &str, dims| ValueInfo { name: name.into(), ty: Type::Tensor { elem: Elem::F32, dims } };
        let graph = Graph {
            name: "network".into(),
            nodes,
            inputs: vec![info("X", Some(vec![Dim::Named("rows".into()), Dim::Fixed(2), Dim::Fixed(3)]))],
            outputs: vec![info("Y", None)],
            ..Graph::default()
        };
        let model = Model { ir_version: 8, opsets: vec![(String::new(), 17)], graph, ..Model::default() };
        Onnx::load(&write(&model).expect("it has a form")).expect("it loads")
    }

    fn ints(name: &str, ints: &[i64]) -> (String, Attr) {
        (name.into(), Attr::Ints(ints.to_vec()))
    }

    #[test]
    fn what_reaches_across_rows_is_told_from_what_does_not() {
        let with = |op: &str, inputs: &[&str], output: &str, attrs: Vec<(String, Attr)>| Node {
            attrs,
            ..Node::with(op, inputs, output, &[])
        };
        let text = |formula: &'static str| vec![("equation".into(), Attr::Text(formula.as_bytes().into()))];
        let cases = [
            (
                true,
                vec![
                    with("ReduceMean", &["X"], "m", vec![ints("axes", &[0])]),
                    with("Sub", &["X", "m"], "Y", vec![]),
                ],
            ),
            (true, vec![with("Softmax", &["X"], "Y", vec![("axis".into(), Attr::Int(0))])]),
            (true, vec![with("Einsum", &["X", "X"], "Y", text("bij,cij->bij"))]),
            (false, vec![with("Einsum", &["X", "X"], "Y", text("bij,bkj->bik"))]),
            (false, vec![with("ReduceMean", &["X"], "Y", vec![ints("axes", &[1])])]),
            (
                false,
                vec![
                    with("Transpose", &["X"], "t", vec![ints("perm", &[1, 0, 2])]),
                    with("Relu", &["t"], "r", vec![]),
                    with("Transpose", &["r"], "Y", vec![ints("perm", &[1, 0, 2])]),
                ],
            ),
        ];
        for (want, nodes) in cases {
            let title = format!("{nodes:?}");
            assert_eq!(loaded(nodes).keeps_rows_apart(), !want, "{title}");
        }
    }
}
