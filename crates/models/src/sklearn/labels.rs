//! What classes are called.
//!
//! `classes_` decides the type of the answer: integers stay integers, texts texts, truth values truth values.
//!
//! Not here: choosing a class.

use super::attrs::Attrs;
use crate::array::{Elements, Kind};
use crate::error::Result;
use crate::graph::{Node, View};
use crate::tensor::{DType, Outputs, Shape};

/// The labels of classes, by index.
#[derive(Debug, Clone, PartialEq)]
pub enum Labels {
    /// Integers.
    Ints(Vec<i64>),
    /// Numbers.
    Floats(Vec<f64>),
    /// Texts.
    Texts(Vec<String>),
    /// Truth values.
    Bools(Vec<bool>),
}

impl Labels {
    pub(super) fn read(attrs: &Attrs<'_>) -> Result<Self> {
        // Classifiers that are regressions inside keep their classes in a helper.
        let binarizer = attrs.opt("_label_binarizer").and_then(|helper| helper.attr("classes_"));
        let value = match attrs.opt("classes_").or(binarizer) {
            Some(value) => value,
            None => attrs.req("classes_")?,
        };
        if let Some(items) = value.items()
            && items.iter().any(|item| item.array().is_some_and(|array| !array.shape.is_empty()))
        {
            return Err(attrs.unsupported("several outputs (multi-output classification)"));
        }
        Self::of(value).ok_or_else(|| attrs.error("classes_ holds neither numbers nor texts"))
    }

    /// `classes_` of several answers: a list of arrays; `None` where there is one answer.
    pub(super) fn read_several(attrs: &Attrs<'_>) -> Result<Option<Vec<Self>>> {
        let Some(items) = attrs.req("classes_")?.items() else { return Ok(None) };
        let is_list = |item: &View<'_>| {
            item.items().is_some() || item.array().is_some_and(|array| !array.shape.is_empty())
        };
        if items.is_empty() || !items.iter().all(is_list) {
            return Ok(None);
        }
        let all: Option<Vec<Self>> = items.into_iter().map(Self::of).collect();
        all.map(Some).ok_or_else(|| attrs.error("classes_ holds neither numbers nor texts"))
    }

    /// The labels of a list or an array.
    pub(crate) fn of(value: View<'_>) -> Option<Self> {
        if let Node::Array(array) = value.node()
            && matches!(array.elements, Elements::Raw(_))
        {
            return match array.dtype.kind {
                Kind::Bool => Some(Self::Bools(array.to_i64s()?.into_iter().map(|int| int != 0).collect())),
                Kind::Int | Kind::Uint => array.to_i64s().map(Self::Ints),
                Kind::Float => array.to_f64s().map(Self::Floats),
                _ => array.to_texts().map(Self::Texts),
            };
        }
        if let Some(texts) = value.texts() {
            return Some(Self::Texts(texts));
        }
        let items = value.items()?;
        if items.iter().all(|item| matches!(item.node(), Node::Bool(_))) {
            return Some(Self::Bools(items.into_iter().map(View::truth).collect::<Option<_>>()?));
        }
        let ints: Option<Vec<i64>> = items.iter().map(|item| item.int()).collect();
        match ints {
            Some(ints) => Some(Self::Ints(ints)),
            None => value.floats().map(Self::Floats),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Ints(all) => all.len(),
            Self::Floats(all) => all.len(),
            Self::Texts(all) => all.len(),
            Self::Bools(all) => all.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The type of the answer.
    pub fn dtype(&self) -> DType {
        match self {
            Self::Ints(_) => DType::I64,
            Self::Floats(_) => DType::F64,
            Self::Texts(_) => DType::Text,
            Self::Bools(_) => DType::Bool,
        }
    }

    /// As texts, for reports.
    pub fn to_texts(&self) -> Vec<String> {
        match self {
            Self::Ints(all) => all.iter().map(i64::to_string).collect(),
            Self::Floats(all) => all.iter().map(f64::to_string).collect(),
            Self::Texts(all) => all.clone(),
            Self::Bools(all) => all.iter().map(bool::to_string).collect(),
        }
    }

    /// The type of answers whose columns have labels of their own.
    pub(super) fn common(all: &[Self]) -> DType {
        match all {
            [first, rest @ ..] if rest.iter().all(|one| one.dtype() == first.dtype()) => first.dtype(),
            _ => DType::Text,
        }
    }

    /// Writes the labels of picks of several columns; columns of different types as texts.
    pub(super) fn write_all(all: &[Self], picks: &[u32], shape: Shape, outputs: &mut Outputs) {
        let width = all.len().max(1);
        let cell = |(place, pick): (usize, &u32)| (&all[place % width], *pick as usize);
        let cells = picks.iter().enumerate().map(cell);
        match Self::common(all) {
            DType::I64 => {
                let ints =
                    cells.map(|(labels, pick)| if let Self::Ints(all) = labels { all[pick] } else { 0 });
                outputs.numbers(shape).iter_mut().zip(ints).for_each(|(slot, int)| *slot = int);
            }
            DType::F64 => {
                let floats =
                    cells.map(|(labels, pick)| if let Self::Floats(all) = labels { all[pick] } else { 0.0 });
                outputs.numbers(shape).iter_mut().zip(floats).for_each(|(slot, float)| *slot = float);
            }
            DType::Bool => {
                let truths = cells.map(|(labels, pick)| matches!(labels, Self::Bools(all) if all[pick]));
                outputs.truths(shape, truths);
            }
            _ => {
                let texts: Vec<Vec<String>> = all.iter().map(Self::to_texts).collect();
                let each = picks.iter().enumerate();
                outputs.texts(shape, each.map(|(place, pick)| texts[place % width][*pick as usize].as_str()));
            }
        }
    }

    /// Writes the label of each pick.
    pub(crate) fn write(&self, picks: &[u32], shape: Shape, outputs: &mut Outputs) {
        match self {
            Self::Ints(all) => copy(all, picks, outputs.numbers(shape)),
            Self::Floats(all) => copy(all, picks, outputs.numbers(shape)),
            Self::Texts(all) => outputs.texts(shape, picks.iter().map(|pick| all[*pick as usize].as_str())),
            Self::Bools(all) => outputs.truths(shape, picks.iter().map(|pick| all[*pick as usize])),
        }
    }
}

fn copy<T: Copy>(all: &[T], picks: &[u32], out: &mut [T]) {
    for (slot, pick) in out.iter_mut().zip(picks) {
        *slot = all[*pick as usize];
    }
}
