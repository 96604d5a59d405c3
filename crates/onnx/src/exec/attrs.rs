//! Typed access to a node's attributes, with messages that name node and attribute.
//!
//! Not here: what they mean.

use std::sync::Arc;

use models::LoadError;

use super::value::Value;
use crate::proto::{Attr, Node, unsupported};

type Result<T> = std::result::Result<T, LoadError>;

/// The attributes of one node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attrs<'n> {
    pub(crate) node: &'n Node,
}

impl<'n> Attrs<'n> {
    pub(crate) fn new(node: &'n Node) -> Self {
        Self { node }
    }

    pub(crate) fn error(self, what: impl std::fmt::Display) -> LoadError {
        LoadError::Attribute { class: self.node.title(), what: what.to_string() }
    }

    pub(crate) fn unsupported(self, what: impl std::fmt::Display) -> LoadError {
        unsupported(format!("{} with {what}", self.node.title()))
    }

    fn wrong(self, name: &str, expected: &str) -> LoadError {
        self.error(format!("the attribute {name} is not {expected}"))
    }

    pub(crate) fn has(self, name: &str) -> bool {
        self.node.attr(name).is_some()
    }

    pub(crate) fn int_or(self, name: &str, default: i64) -> Result<i64> {
        match self.node.attr(name) {
            None => Ok(default),
            Some(Attr::Int(value)) => Ok(*value),
            Some(_) => Err(self.wrong(name, "a whole number")),
        }
    }

    pub(crate) fn float_or(self, name: &str, default: f32) -> Result<f32> {
        match self.node.attr(name) {
            None => Ok(default),
            Some(Attr::Float(value)) => Ok(*value),
            Some(_) => Err(self.wrong(name, "a number")),
        }
    }

    pub(crate) fn text_or<'a>(self, name: &str, default: &'a str) -> Result<&'a str>
    where
        'n: 'a,
    {
        match self.node.attr(name) {
            None => Ok(default),
            Some(Attr::Text(bytes)) => std::str::from_utf8(bytes).map_err(|_| self.wrong(name, "a text")),
            Some(_) => Err(self.wrong(name, "a text")),
        }
    }

    /// Floats; none when absent.
    pub(crate) fn floats(self, name: &str) -> Result<&'n [f32]> {
        match self.node.attr(name) {
            None => Ok(&[]),
            Some(Attr::Floats(values)) => Ok(values),
            Some(_) => Err(self.wrong(name, "numbers")),
        }
    }

    /// Whole numbers; none when absent.
    pub(crate) fn ints(self, name: &str) -> Result<&'n [i64]> {
        match self.node.attr(name) {
            None => Ok(&[]),
            Some(Attr::Ints(values)) => Ok(values),
            Some(_) => Err(self.wrong(name, "whole numbers")),
        }
    }

    /// Texts; none when absent.
    pub(crate) fn texts(self, name: &str) -> Result<Vec<Arc<str>>> {
        match self.node.attr(name) {
            None => Ok(Vec::new()),
            Some(Attr::Texts(values)) => {
                let text = |bytes: &bytes::Bytes| std::str::from_utf8(bytes).map(Arc::from);
                values
                    .iter()
                    .map(text)
                    .collect::<std::result::Result<_, _>>()
                    .map_err(|_| self.wrong(name, "texts"))
            }
            Some(_) => Err(self.wrong(name, "texts")),
        }
    }

    /// A tensor.
    pub(crate) fn tensor(self, name: &str) -> Result<Option<Value>> {
        match self.node.attr(name) {
            None => Ok(None),
            Some(Attr::Tensor(tensor)) => Value::of_tensor(tensor).map(Some),
            Some(_) => Err(self.wrong(name, "a tensor")),
        }
    }

    /// Numbers from the attribute of floats, or, where that is absent, from its twin of doubles in a tensor.
    pub(crate) fn numbers(self, name: &str) -> Result<Vec<f64>> {
        if let Some(tensor) = self.tensor(&format!("{name}_as_tensor"))? {
            return tensor.to_f64s().map(std::borrow::Cow::into_owned).map_err(|what| self.error(what));
        }
        Ok(self.floats(name)?.iter().map(|x| f64::from(*x)).collect())
    }
}

/// The classes a classifier tells apart.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Labels {
    Ints(Vec<i64>),
    Texts(Vec<Arc<str>>),
}

impl Labels {
    /// Reads whichever attribute is there: ONNX-ML has spelled them three ways.
    pub(crate) fn read(attrs: Attrs<'_>) -> Result<Self> {
        for name in ["classlabels_strings", "classlabels_int64s", "classlabels_ints"] {
            match attrs.node.attr(name) {
                Some(Attr::Texts(values)) if !values.is_empty() => {
                    return Ok(Self::Texts(attrs.texts(name)?));
                }
                Some(Attr::Ints(values)) if !values.is_empty() => return Ok(Self::Ints(values.clone())),
                _ => {}
            }
        }
        Err(attrs.error("it names no classes"))
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Ints(labels) => labels.len(),
            Self::Texts(labels) => labels.len(),
        }
    }

    /// The labels of these classes as a value of one dimension.
    pub(crate) fn pick(&self, picks: &[usize]) -> Value {
        match self {
            Self::Ints(labels) => Value::ints(&[picks.len()], picks.iter().map(|at| labels[*at]).collect()),
            Self::Texts(labels) => {
                Value::texts(&[picks.len()], picks.iter().map(|at| labels[*at].clone()).collect())
            }
        }
    }

    /// For reports.
    pub(crate) fn shown(&self) -> Vec<String> {
        match self {
            Self::Ints(labels) => labels.iter().map(ToString::to_string).collect(),
            Self::Texts(labels) => labels.iter().map(ToString::to_string).collect(),
        }
    }
}
