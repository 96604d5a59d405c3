//! What a model file holds, as inert data.
//!
//! Values live in one table and refer to each other by index: shared and cyclic references cost nothing,
//! dropping a deeply nested file cannot overflow the stack, and the number of values is the bound on memory.
//! An instance of a Python class is its class's name, its arguments and its state; no code belongs to it.
//!
//! Not here: what a class means (`sklearn`).

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::array::{Dtype, Elements, NdArray};
use crate::error::{LoadError, Result};

/// A value's place in its [`Graph`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Id(pub(crate) u32);

/// A Python global: a module and a name in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Global {
    /// For example `sklearn.tree._classes`.
    pub module: Arc<str>,
    /// For example `DecisionTreeClassifier`.
    pub name: Arc<str>,
}

impl fmt::Display for Global {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.module, self.name)
    }
}

/// An instance of a class that only `sklearn` gives a meaning to.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// Its class.
    pub class: Global,
    /// What it was made from.
    pub args: Vec<Id>,
    /// What `__setstate__` would get.
    pub state: Option<Id>,
    /// What a list-like instance was extended by.
    pub items: Vec<Id>,
    /// What a dict-like instance was updated by.
    pub pairs: Vec<(Id, Id)>,
}

/// One value.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Node {
    None,
    Bool(bool),
    Int(i64),
    /// An integer beyond 64 bits: such have no meaning in a model, but random seeds may be some.
    BigInt,
    Float(f64),
    Text(Box<str>),
    Bytes(Bytes),
    List(Vec<Id>),
    Tuple(Vec<Id>),
    Set(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    Object(Box<Object>),
    Dtype(Arc<Dtype>),
    Array(Box<NdArray>),
}

/// All values of a file.
#[derive(Debug)]
pub struct Graph {
    nodes: Vec<Node>,
    values_max: usize,
    root: Id,
}

impl Graph {
    /// An empty table that takes at most `values_max` values.
    pub fn new(values_max: usize) -> Self {
        let nodes = vec![Node::None, Node::Bool(false), Node::Bool(true)];
        Self { nodes, values_max: values_max.min(u32::MAX as usize - 1), root: Id(0) }
    }

    /// Python's `None`.
    pub const NONE: Id = Id(0);

    /// A truth value, shared.
    pub fn truth(value: bool) -> Id {
        Id(1 + u32::from(value))
    }

    /// Adds a value.
    pub fn add(&mut self, node: Node) -> Result<Id> {
        if self.nodes.len() >= self.values_max {
            return Err(LoadError::TooLarge { what: "number of values", limit: self.values_max });
        }
        self.nodes.push(node);
        Ok(Id((self.nodes.len() - 1) as u32))
    }

    /// A value.
    pub fn get(&self, id: Id) -> &Node {
        &self.nodes[id.0 as usize]
    }

    pub(crate) fn get_mut(&mut self, id: Id) -> &mut Node {
        &mut self.nodes[id.0 as usize]
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn set_root(&mut self, id: Id) {
        self.root = id;
    }

    /// The value that the file is about.
    pub fn root(&self) -> View<'_> {
        self.view(self.root)
    }

    /// A value with its table.
    pub fn view(&self, id: Id) -> View<'_> {
        View { graph: self, id }
    }
}

/// A value with the table it lives in.
#[derive(Clone, Copy)]
pub struct View<'g> {
    graph: &'g Graph,
    id: Id,
}

impl<'g> View<'g> {
    /// Its place.
    pub fn id(self) -> Id {
        self.id
    }

    /// The value itself.
    pub fn node(self) -> &'g Node {
        self.graph.get(self.id)
    }

    /// Whether it is `None`.
    pub fn is_none(self) -> bool {
        matches!(self.node(), Node::None)
    }

    /// The class's full name, or the Python type of plain data.
    pub fn class_name(self) -> String {
        match self.node() {
            Node::None => "NoneType".into(),
            Node::Bool(_) => "bool".into(),
            Node::Int(_) | Node::BigInt => "int".into(),
            Node::Float(_) => "float".into(),
            Node::Text(_) => "str".into(),
            Node::Bytes(_) => "bytes".into(),
            Node::List(_) => "list".into(),
            Node::Tuple(_) => "tuple".into(),
            Node::Set(_) => "set".into(),
            Node::Dict(_) => "dict".into(),
            Node::Global(global) => format!("a reference to {global}"),
            Node::Object(object) => object.class.to_string(),
            Node::Dtype(_) => "numpy.dtype".into(),
            Node::Array(_) => "numpy.ndarray".into(),
        }
    }

    /// The instance, if it is one.
    pub fn object(self) -> Option<&'g Object> {
        match self.node() {
            Node::Object(object) => Some(object),
            _ => None,
        }
    }

    /// What an instance was made from; `None` for plain data.
    pub fn args(self) -> Option<Vec<View<'g>>> {
        Some(self.object()?.args.iter().map(|id| self.graph.view(*id)).collect())
    }

    /// An attribute; `None` when it is missing (a Python `None` is a value).
    pub fn attr(self, name: &str) -> Option<View<'g>> {
        let state = self.graph.view(self.object()?.state?);
        match state.node() {
            // `(dict, slots)`: what the default protocol makes of a class with slots.
            Node::Tuple(parts) if parts.len() == 2 => {
                parts.iter().find_map(|part| self.graph.view(*part).entry(name))
            }
            _ => state.entry(name),
        }
    }

    /// The attributes of an instance, as a dict.
    pub fn state(self) -> Option<View<'g>> {
        let state = self.graph.view(self.object()?.state?);
        match state.node() {
            Node::Tuple(parts) => {
                let is_dict = |part: &View<'_>| matches!(part.node(), Node::Dict(_));
                parts.iter().map(|part| self.graph.view(*part)).find(is_dict)
            }
            _ => Some(state),
        }
    }

    /// A dict's entry by a text key.
    pub fn entry(self, name: &str) -> Option<View<'g>> {
        self.pairs().find(|(key, _)| key.text() == Some(name)).map(|(_, value)| value)
    }

    /// A dict's entries; nothing for other values.
    pub fn pairs(self) -> impl Iterator<Item = (View<'g>, View<'g>)> {
        let pairs: &[(Id, Id)] = match self.node() {
            Node::Dict(pairs) => pairs,
            Node::Object(object) => &object.pairs,
            _ => &[],
        };
        pairs.iter().map(move |(key, value)| (self.graph.view(*key), self.graph.view(*value)))
    }

    /// The elements of a list, tuple, set or object array; `None` for other values.
    pub fn items(self) -> Option<Vec<View<'g>>> {
        let ids: Vec<Id> = match self.node() {
            Node::List(ids) | Node::Tuple(ids) | Node::Set(ids) => ids.clone(),
            Node::Array(array) => match &array.elements {
                Elements::Objects(ids) => array.in_c_order(ids.clone())?,
                Elements::Raw(_) => return None,
            },
            _ => return None,
        };
        Some(ids.into_iter().map(|id| self.graph.view(id)).collect())
    }

    /// A text (also numpy's).
    pub fn text(self) -> Option<&'g str> {
        match self.node() {
            Node::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The array, if it is one.
    pub fn array(self) -> Option<&'g NdArray> {
        match self.node() {
            Node::Array(array) => Some(array),
            _ => None,
        }
    }

    /// A truth value (also numpy's).
    pub fn truth(self) -> Option<bool> {
        match self.node() {
            Node::Bool(value) => Some(*value),
            Node::Array(array) if array.len() == 1 => Some(*array.to_i64s()?.first()? != 0),
            _ => None,
        }
    }

    /// An integer (also numpy's).
    pub fn int(self) -> Option<i64> {
        match self.node() {
            Node::Int(int) => Some(*int),
            Node::Bool(value) => Some(i64::from(*value)),
            Node::Array(array) if array.len() == 1 => array.to_i64s()?.first().copied(),
            _ => None,
        }
    }

    /// A number (also numpy's).
    pub fn float(self) -> Option<f64> {
        match self.node() {
            Node::Float(float) => Some(*float),
            Node::Int(int) => Some(*int as f64),
            Node::Bool(value) => Some(f64::from(u8::from(*value))),
            Node::Array(array) if array.len() == 1 => array.to_f64s()?.first().copied(),
            _ => None,
        }
    }

    /// Numbers of an array, a list or one number.
    pub fn floats(self) -> Option<Vec<f64>> {
        match self.node() {
            Node::Array(array) if matches!(array.elements, Elements::Raw(_)) => array.to_f64s(),
            Node::Float(_) | Node::Int(_) => Some(vec![self.float()?]),
            _ => self.items()?.into_iter().map(View::float).collect(),
        }
    }

    /// Texts of an array (of dtype `U` or `object`) or a list.
    pub fn texts(self) -> Option<Vec<String>> {
        match self.node() {
            Node::Array(array) if matches!(array.elements, Elements::Raw(_)) => array.to_texts(),
            _ => self.items()?.into_iter().map(|item| item.text().map(str::to_owned)).collect(),
        }
    }
}

impl fmt::Debug for View<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.class_name(), self.id.0)
    }
}
