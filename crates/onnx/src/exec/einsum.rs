//! Sums of products by a formula of axes, such as `bhid,bhjd->bhij`.
//!
//! Two values at a time become a batch of products of matrices: axes that both have and that are kept are the batch,
//! those that both have and that nobody needs any more are summed.
//!
//! Not here: the products (`linear`), an axis that one value has twice, which is refused by name.

use std::borrow::Cow;

use models::LoadError;

use super::attrs::Attrs;
use super::linear::matmul;
use super::movement::transposed;
use super::value::{Budget, Cells, Failed, Value};
use super::{Op, input, plain};

/// An axis: a letter, or the place from the right among those that an ellipsis stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Label {
    Letter(u8),
    Rest(usize),
}

/// The axes of a value as the formula has them.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    before: Vec<u8>,
    has_rest: bool,
    after: Vec<u8>,
}

impl Term {
    fn parse(text: &str) -> Result<Self, String> {
        let (before, after) =
            text.split_once("...").map_or((text, None), |(before, after)| (before, Some(after)));
        let letters = |text: &str| match text.bytes().find(|byte| !byte.is_ascii_alphabetic()) {
            Some(_) => Err(format!("{text:?} where letters name axes")),
            None => Ok(text.as_bytes().to_vec()),
        };
        let term = Self {
            before: letters(before)?,
            has_rest: after.is_some(),
            after: letters(after.unwrap_or(""))?,
        };
        let mut all: Vec<u8> = term.letters().collect();
        all.sort_unstable();
        match all.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(twice) => Err(format!("axis {:?} twice in {text:?}", char::from(twice[0]))),
            None => Ok(term),
        }
    }

    fn letters(&self) -> impl Iterator<Item = u8> {
        self.before.iter().chain(&self.after).copied()
    }

    /// Its axes where the ellipsis stands for `rest` of them.
    fn labels(&self, rest: usize) -> Vec<Label> {
        let letters = |letters: &[u8]| letters.iter().copied().map(Label::Letter).collect::<Vec<_>>();
        let rest = (0..if self.has_rest { rest } else { 0 }).rev().map(Label::Rest);
        letters(&self.before).into_iter().chain(rest).chain(letters(&self.after)).collect()
    }
}

/// A formula.
#[derive(Debug, PartialEq, Eq)]
struct Equation {
    inputs: Vec<Term>,
    output: Term,
}

impl Equation {
    fn parse(text: &str) -> Result<Self, String> {
        let text: String = text.chars().filter(|letter| !letter.is_whitespace()).collect();
        let (left, right) =
            text.split_once("->").map_or((text.as_str(), None), |(left, right)| (left, Some(right)));
        let inputs = left.split(',').map(Term::parse).collect::<Result<Vec<_>, _>>()?;
        let count = |letter: u8| inputs.iter().flat_map(Term::letters).filter(|own| *own == letter).count();
        let output = match right {
            Some(right) => Term::parse(right)?,
            // What is there once, in the order of the alphabet, behind what an ellipsis stands for.
            None => Term {
                before: Vec::new(),
                has_rest: inputs.iter().any(|term| term.has_rest),
                after: (b'A'..=b'z').filter(|letter| count(*letter) == 1).collect(),
            },
        };
        if let Some(letter) = output.letters().find(|letter| count(*letter) == 0) {
            return Err(format!("axis {:?} of the result in none of the inputs", char::from(letter)));
        }
        Ok(Self { inputs, output })
    }

    fn run(&self, values: &[&Value], budget: &mut Budget) -> Result<Value, Failed> {
        if values.len() != self.inputs.len() {
            return Err(format!("{} values for {} terms", values.len(), self.inputs.len()));
        }
        let mut terms = Vec::new();
        let mut rest = 0;
        for (term, value) in self.inputs.iter().zip(values) {
            let own = value.dims.len().checked_sub(term.letters().count());
            let own = own.filter(|own| term.has_rest || *own == 0);
            let own = own.ok_or_else(|| format!("the shape {:?} is not that of its term", value.dims))?;
            rest = rest.max(own);
            terms.push(Summed { labels: term.labels(own), value: Cow::Borrowed(*value) });
        }
        let output = self.output.labels(rest);
        let mut terms = terms.into_iter();
        let mut whole = terms.next().ok_or("no values")?;
        while let Some(next) = terms.next() {
            let later: Vec<Label> =
                terms.as_slice().iter().flat_map(|term| term.labels.iter().copied()).collect();
            let needed = |label: Label| output.contains(&label) || later.contains(&label);
            whole = whole.times(next, &needed, budget)?;
        }
        let whole = whole.without(&|label| output.contains(&label), budget)?;
        Ok(whole.ordered(&output, budget)?.into_owned())
    }
}

/// A value and what its axes are.
struct Summed<'v> {
    labels: Vec<Label>,
    value: Cow<'v, Value>,
}

impl<'v> Summed<'v> {
    fn size(&self, label: Label) -> Option<usize> {
        self.labels.iter().position(|own| *own == label).map(|at| self.value.dims[at])
    }

    /// The value with its axes in this order, which has all of them.
    fn ordered(self, labels: &[Label], budget: &mut Budget) -> Result<Cow<'v, Value>, Failed> {
        let place = |label: &Label| self.labels.iter().position(|own| own == label);
        let order: Vec<usize> = labels.iter().filter_map(place).collect();
        if order.is_sorted() {
            return Ok(self.value);
        }
        transposed(&self.value, &order, budget).map(Cow::Owned)
    }

    /// Sums the axes that are not kept.
    fn without(self, keep: &dyn Fn(Label) -> bool, budget: &mut Budget) -> Result<Self, Failed> {
        let (kept, summed): (Vec<_>, Vec<_>) = self.labels.iter().copied().partition(|label| keep(*label));
        if summed.is_empty() {
            return Ok(self);
        }
        let order: Vec<Label> = kept.iter().chain(&summed).copied().collect();
        let value = self.ordered(&order, budget)?;
        let (dims, inner) = value.dims.split_at(kept.len());
        budget.claim(dims)?;
        let size = inner.iter().product::<usize>();
        let cells = match &value.cells {
            _ if size == 0 => return Err(format!("a sum over no cells of {:?}", value.dims)),
            Cells::F32(cells) => {
                Cells::F32(cells.chunks_exact(size).map(|cells| cells.iter().sum()).collect())
            }
            Cells::F64(cells) => {
                Cells::F64(cells.chunks_exact(size).map(|cells| cells.iter().sum()).collect())
            }
            _ => return Err(format!("{} where numbers with a point are needed", value.elem.name())),
        };
        Ok(Self { labels: kept, value: Cow::Owned(Value { dims: dims.to_vec(), elem: value.elem, cells }) })
    }

    /// Drops the axes of one cell that the other has more of: they are repeated.
    fn narrowed(mut self, other: &Self) -> Self {
        for at in (0..self.labels.len()).rev() {
            if self.value.dims[at] == 1 && other.size(self.labels[at]).is_some_and(|size| size != 1) {
                self.labels.remove(at);
                self.value.to_mut().dims.remove(at);
            }
        }
        self
    }

    /// The products with another, summed over the axes that both have and that are not needed.
    fn times(self, other: Self, needed: &dyn Fn(Label) -> bool, budget: &mut Budget) -> Result<Self, Failed> {
        let (left, right) = (self.narrowed(&other), other);
        let right = right.narrowed(&left);
        let left = left.without(&|label| needed(label) || right.labels.contains(&label), budget)?;
        let right = right.without(&|label| needed(label) || left.labels.contains(&label), budget)?;
        let (both, mine): (Vec<_>, Vec<_>) =
            left.labels.iter().copied().partition(|label| right.labels.contains(label));
        let (batch, inner): (Vec<_>, Vec<_>) = both.into_iter().partition(|label| needed(*label));
        let theirs: Vec<Label> =
            right.labels.iter().copied().filter(|label| !left.labels.contains(label)).collect();
        if let Some(label) =
            batch.iter().chain(&inner).find(|label| left.size(**label) != right.size(**label))
        {
            return Err(format!("{:?} and {:?} for axis {label:?}", left.value.dims, right.value.dims));
        }
        let joined = |parts: [&[Label]; 3]| parts.concat();
        let sizes = |side: &Self, labels: &[Label]| {
            labels.iter().filter_map(|label| side.size(*label)).collect::<Vec<_>>()
        };
        let count = |sizes: &[usize]| sizes.iter().product::<usize>();
        let (outer, rows, columns) = (sizes(&left, &batch), sizes(&left, &mine), sizes(&right, &theirs));
        let depth = count(&sizes(&left, &inner));
        let a = left.ordered(&joined([&batch, &mine, &inner]), budget)?;
        let b = right.ordered(&joined([&batch, &inner, &theirs]), budget)?;
        let shapes = [[count(&outer), count(&rows), depth], [count(&outer), depth, count(&columns)]];
        let mut value = matmul([&a, &b], shapes.each_ref().map(<[usize; 3]>::as_slice), None, budget)?;
        value.dims = [outer, rows, columns].concat();
        Ok(Self { labels: joined([&batch, &mine, &theirs]), value: Cow::Owned(value) })
    }
}

/// The operator of a node, if it is this one.
pub(crate) fn operator(attrs: Attrs<'_>) -> Result<Option<Op>, LoadError> {
    if attrs.node.op != "Einsum" {
        return Ok(None);
    }
    let equation = Equation::parse(attrs.text_or("equation", "")?).map_err(|what| attrs.unsupported(what))?;
    Ok(Some(plain(move |inputs, budget| {
        let values = (0..inputs.len()).map(|at| input(inputs, at)).collect::<Result<Vec<_>, _>>()?;
        Ok(vec![equation.run(&values, budget)?])
    })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::value::Bounds;

    fn value(dims: &[usize]) -> Value {
        let count = dims.iter().product();
        Value::f64s(dims, (0..count).map(|at| ((at * 7 + dims.len()) % 11) as f64 - 4.0).collect())
    }

    fn run(formula: &str, shapes: &[&[usize]]) -> Result<Value, String> {
        let values: Vec<Value> = shapes.iter().map(|dims| value(dims)).collect();
        let equation = Equation::parse(formula)?;
        equation.run(&values.iter().collect::<Vec<_>>(), &mut Budget::new(Bounds::default()))
    }

    /// The sums by the definition: over every place of every letter. Not for ellipses.
    fn plainly(formula: &str, shapes: &[&[usize]]) -> (Vec<usize>, Vec<f64>) {
        let (left, right) = formula.split_once("->").expect("explicit");
        let terms: Vec<&[u8]> = left.split(',').map(str::as_bytes).collect();
        let mut letters: Vec<u8> = right.bytes().collect();
        letters.extend(terms.concat().into_iter().filter(|letter| !right.as_bytes().contains(letter)));
        letters.dedup();
        let all: Vec<u8> = letters
            .iter()
            .enumerate()
            .filter(|(at, x)| !letters[..*at].contains(x))
            .map(|(_, x)| *x)
            .collect();
        let size = |letter: &u8| {
            let own =
                |(term, dims): (&&[u8], &&[usize])| term.iter().position(|x| x == letter).map(|at| dims[at]);
            terms.iter().zip(shapes).filter_map(own).max().expect("it is somewhere")
        };
        let sizes: Vec<usize> = all.iter().map(size).collect();
        let dims = sizes[..right.len()].to_vec();
        let inner: usize = sizes[right.len()..].iter().product();
        let mut sums = vec![0.0; dims.iter().product()];
        for index in 0..sizes.iter().product() {
            let mut left = index;
            let mut at = vec![0; sizes.len()];
            for (at, size) in at.iter_mut().zip(&sizes).rev() {
                (*at, left) = (left % size, left / size);
            }
            let cell = |(term, dims): (&&[u8], &&[usize])| {
                let place = |sum: usize, (letter, size): (&u8, &usize)| {
                    let own = at[all.iter().position(|x| x == letter).expect("known")];
                    sum * size + if *size == 1 { 0 } else { own }
                };
                let Cells::F64(cells) = value(dims).cells else { panic!("numbers") };
                cells[term.iter().zip(dims.iter()).fold(0, place)]
            };
            sums[index / inner] += terms.iter().zip(shapes).map(cell).product::<f64>();
        }
        (dims, sums)
    }

    #[test]
    fn formulas_are_sums_over_all_places() {
        let cases: &[(&str, &[&[usize]])] = &[
            ("ij,jk->ik", &[&[3, 4], &[4, 5]]),
            ("bhid,bhjd->bhij", &[&[2, 3, 4, 5], &[2, 3, 6, 5]]),
            ("bij,bkj->kib", &[&[2, 3, 4], &[2, 5, 4]]),
            ("i,j->ji", &[&[3], &[4]]),
            ("ij->ji", &[&[3, 4]]),
            ("ijk->j", &[&[2, 3, 4]]),
            ("ij,ij->ij", &[&[3, 4], &[3, 4]]),
            ("ij,j->", &[&[3, 4], &[4]]),
            ("ij,jk,kl->il", &[&[2, 3], &[3, 4], &[4, 5]]),
            ("bi,bk->b", &[&[2, 3], &[2, 4]]),
            ("bij,bjk->bik", &[&[1, 3, 4], &[2, 4, 5]]),
            ("ij,kj->ik", &[&[3, 4], &[2, 1]]),
        ];
        for (formula, shapes) in cases {
            let got = run(formula, shapes).expect("it runs");
            let (dims, sums) = plainly(formula, shapes);
            assert_eq!((&got.dims, got.cells), (&dims, Cells::F64(sums)), "{formula}");
        }
    }

    #[test]
    fn an_ellipsis_is_what_is_left_and_a_result_left_out_is_what_is_there_once() {
        let same = |left: &str, right: &str, shapes: &[&[usize]], written: &[&[usize]]| {
            let (left, right) = (run(left, shapes).expect("it runs"), run(right, written).expect("it runs"));
            assert_eq!(left.cells, right.cells);
        };
        let both: &[&[usize]] = &[&[2, 3, 4], &[2, 4, 5]];
        same("...ij,...jk->...ik", "bij,bjk->bik", both, both);
        same("...ij,jk", "bij,jk->bik", &[&[2, 3, 4], &[4, 5]], &[&[2, 3, 4], &[4, 5]]);
        same("kj,ji", "kj,ji->ik", &[&[3, 4], &[4, 5]], &[&[3, 4], &[4, 5]]);
        same("i...->...", "ijk->jk", &[&[2, 3, 4]], &[&[2, 3, 4]]);
        assert_eq!(run("...ij,...jk->...ik", &[&[3, 4], &[2, 4, 5]]).expect("it runs").dims, [2, 3, 5]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for formula in ["ii->i", "i1->i", "ij->k", "i,j->ii", "i....->i"] {
            assert!(Equation::parse(formula).is_err(), "{formula}");
        }
        for (formula, shapes) in [
            ("ij,jk->ik", [&[3, 4][..], &[5, 6]]),
            ("ij,jk->ik", [&[3, 4, 1], &[4, 6]]),
            ("i...j,j->i", [&[3], &[4]]),
        ] {
            assert!(run(formula, &shapes).is_err(), "{formula}");
        }
        assert!(run("ij,jk->ik", &[&[3, 4]]).is_err());
    }
}
