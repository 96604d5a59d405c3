//! What `REDUCE`, `NEWOBJ` and `BUILD` make: inert data.
//!
//! Each admitted callable has one branch here that says which arguments it takes; other arguments are an
//! error, never a guess. Arrays are checked against their shape before they exist.
//!
//! Not here: which callables there are (`admit`).

use std::sync::Arc;

use bytes::Bytes;

use super::Machine;
use super::admit::{Maker, admit};
use crate::array::{Dtype, Elements, Kind, NdArray};
use crate::error::{LoadError, Result};
use crate::graph::{Global, Graph, Id, Node, Object};

impl Machine<'_> {
    fn known_global(&self, id: Id) -> Result<(Global, Maker)> {
        let Node::Global(global) = self.graph.get(id) else {
            return Err(
                self.malformed(format!("{} is called, but it is no class", self.view(id).class_name()))
            );
        };
        match admit(&global.module, &global.name) {
            Some(maker) => Ok((global.clone(), maker)),
            None => Err(self.malformed(format!("{global} is not admitted"))),
        }
    }

    fn arguments(&mut self, id: Id) -> Result<Vec<Id>> {
        let Node::Tuple(args) = self.graph.get(id) else {
            return Err(self.malformed("the arguments of a call are not a tuple"));
        };
        let args = args.clone();
        self.charge(args.len())?;
        Ok(args)
    }

    /// `callable(*args)`.
    pub(super) fn call(&mut self, callable: Id, args: Id, offset: usize) -> Result<()> {
        let (global, maker) = self.known_global(callable)?;
        let args = self.arguments(args)?;
        let node = match maker {
            Maker::Dtype => self.dtype(&args)?,
            Maker::EmptyArray => empty_array(),
            Maker::Scalar => self.scalar(&args)?,
            Maker::FromBuffer => self.over_buffer(&args)?,
            Maker::NumpyValue | Maker::Plain => return self.plain(&global, &args),
            // A factory (`defaultdict(list)`) is never called here, so it is dropped.
            Maker::Dict => Node::Dict(self.entries(&args)?),
            Maker::Set => Node::Set(self.elements(&args)?),
            Maker::List => Node::List(self.elements(&args)?),
            Maker::Tuple => Node::Tuple(self.elements(&args)?),
            Maker::Bytes => self.bytes_of(&global, &args)?,
            Maker::Instance => {
                let [class, rest @ ..] = args.as_slice() else {
                    return Err(self.malformed("an instance without a class"));
                };
                let (class, rest) = (*class, self.graph.add(Node::Tuple(rest.to_vec()))?);
                return self.instance(class, rest, offset);
            }
            Maker::JoblibArray | Maker::Label => label(global, args),
        };
        self.push_node(node)
    }

    /// `class.__new__(class, *args)`.
    pub(super) fn instance(&mut self, class: Id, args: Id, offset: usize) -> Result<()> {
        let (global, maker) = self.known_global(class)?;
        match maker {
            Maker::JoblibArray | Maker::Label => {
                let args = self.arguments(args)?;
                self.push_node(label(global, args))
            }
            Maker::Instance => Err(self.malformed(format!("{global} is no class"))),
            _ => self.call(class, args, offset),
        }
    }

    fn elements(&mut self, args: &[Id]) -> Result<Vec<Id>> {
        let Some(first) = args.first() else { return Ok(Vec::new()) };
        let items = match self.graph.get(*first) {
            Node::List(items) | Node::Tuple(items) | Node::Set(items) => items.clone(),
            _ => return Err(self.malformed("a collection is made from something that is none")),
        };
        self.charge(items.len())?;
        Ok(items)
    }

    fn entries(&mut self, args: &[Id]) -> Result<Vec<(Id, Id)>> {
        let pair = |id: &Id| match self.graph.get(*id) {
            Node::List(two) | Node::Tuple(two) if two.len() == 2 => Ok((two[0], two[1])),
            _ => Err(self.malformed("a dict's entry is not a pair")),
        };
        let pairs = match args.first().map(|id| self.graph.get(*id)) {
            Some(Node::Dict(pairs)) => pairs.clone(),
            Some(Node::List(items)) => items.iter().map(pair).collect::<Result<Vec<_>>>()?,
            _ => Vec::new(),
        };
        self.charge(pairs.len())?;
        Ok(pairs)
    }

    fn plain(&mut self, global: &Global, args: &[Id]) -> Result<()> {
        match args {
            [one] => self.push(*one),
            [] => self.push_node(Node::Int(0)),
            _ => Err(self.malformed(format!("{global} is called with {} arguments", args.len()))),
        }
    }

    fn bytes_of(&mut self, global: &Global, args: &[Id]) -> Result<Node> {
        let first = args.first().map(|id| self.graph.get(*id));
        let encoding = args.get(1).and_then(|id| self.view(*id).text());
        match (first, encoding) {
            (None, _) => Ok(Node::Bytes(Bytes::new())),
            (Some(Node::Bytes(bytes)), _) => Ok(Node::Bytes(bytes.clone())),
            (Some(Node::Text(text)), Some("latin1" | "latin-1")) => {
                let bytes: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
                self.charge(bytes.as_ref().map_or(0, Vec::len))?;
                bytes
                    .map(|bytes| Node::Bytes(bytes.into()))
                    .ok_or_else(|| self.malformed("a text that is not Latin-1"))
            }
            _ => Err(self.malformed(format!("{global} with these arguments"))),
        }
    }

    fn dtype(&self, args: &[Id]) -> Result<Node> {
        let text = args.first().and_then(|id| self.view(*id).text());
        let Some(text) = text else { return Err(self.malformed("a dtype without a name")) };
        match Dtype::parse(text) {
            Some(dtype) => Ok(Node::Dtype(Arc::new(dtype))),
            None => Err(LoadError::unsupported(format!("numpy dtype {text:?}"))),
        }
    }

    fn dtype_of(&self, id: Option<&Id>) -> Result<Arc<Dtype>> {
        match id.map(|id| self.graph.get(*id)) {
            Some(Node::Dtype(dtype)) => Ok(dtype.clone()),
            // `numpy.float64` and its like stand for the dtype of that name.
            Some(Node::Global(global)) if &*global.module == "numpy" => {
                let short = match &*global.name {
                    "float64" => "f8",
                    "float32" => "f4",
                    "int64" => "i8",
                    "int32" => "i4",
                    "bool" | "bool_" => "b1",
                    _ => return Err(LoadError::unsupported(format!("{global} as a dtype"))),
                };
                Ok(Arc::new(Dtype::parse(short).ok_or_else(|| self.malformed("a dtype"))?))
            }
            _ => Err(self.malformed("a dtype is missing")),
        }
    }

    fn scalar(&self, args: &[Id]) -> Result<Node> {
        let dtype = self.dtype_of(args.first())?;
        let elements = match args.get(1).map(|id| self.graph.get(*id)) {
            Some(Node::Bytes(bytes)) => Elements::Raw(bytes.clone()),
            Some(_) if dtype.kind == Kind::Object => return Ok(self.graph.get(args[1]).clone()),
            _ => return Err(self.malformed("a numpy scalar without bytes")),
        };
        self.array(dtype, Vec::new(), false, elements)
    }

    fn over_buffer(&self, args: &[Id]) -> Result<Node> {
        let [buffer, dtype, shape, order, ..] = args else {
            return Err(self.malformed("a buffer without a shape"));
        };
        let Node::Bytes(bytes) = self.graph.get(*buffer) else {
            return Err(self.malformed("a buffer that is no bytes"));
        };
        let fortran = self.view(*order).text() == Some("F");
        let dtype = self.dtype_of(Some(dtype))?;
        self.array(dtype, self.shape(*shape)?, fortran, Elements::Raw(bytes.clone()))
    }

    fn shape(&self, id: Id) -> Result<Vec<usize>> {
        let items = match self.graph.get(id) {
            Node::Tuple(items) | Node::List(items) => items.as_slice(),
            Node::Int(_) => &[id],
            _ => return Err(self.malformed("a shape that is no tuple")),
        };
        if items.len() > 32 {
            return Err(self.malformed("an array of more than 32 dimensions"));
        }
        let dims = items.iter().map(|id| self.view(*id).int().and_then(|dim| usize::try_from(dim).ok()));
        dims.collect::<Option<Vec<usize>>>().ok_or_else(|| self.malformed("a dimension that is no size"))
    }

    /// An array whose bytes match its shape.
    fn array(&self, dtype: Arc<Dtype>, shape: Vec<usize>, fortran: bool, elements: Elements) -> Result<Node> {
        let count = NdArray::count_of(&shape);
        let fits = match (&elements, count) {
            (Elements::Raw(bytes), Some(count)) => count.checked_mul(dtype.size) == Some(bytes.len()),
            (Elements::Objects(ids), Some(count)) => count == ids.len(),
            (_, None) => false,
        };
        if !fits {
            return Err(self.malformed(format!(
                "an array of shape {shape:?} and dtype {} has other data",
                dtype.name()
            )));
        }
        Ok(Node::Array(Box::new(NdArray { dtype, shape, fortran, elements })))
    }

    /// `BUILD`: gives the value below its state.
    pub(super) fn set_state(&mut self, depth: usize) -> Result<()> {
        let state = self.pop()?;
        let target = self.top()?;
        let node = match self.graph.get(target) {
            Node::Dtype(dtype) => {
                let dtype = dtype.clone();
                self.dtype_state(&dtype, state)?
            }
            Node::Array(_) => self.array_state(state)?,
            // Attributes of an `OrderedDict` or a set carry nothing that is looked at.
            Node::Dict(_) | Node::Set(_) | Node::List(_) => return Ok(()),
            Node::Object(object) if is_joblib_array(&object.class) => self.joblib_array(state, depth)?,
            Node::Object(_) => {
                if let Node::Object(object) = self.graph.get_mut(target) {
                    object.state = Some(state);
                }
                return Ok(());
            }
            _ => return Err(self.malformed(format!("{} takes no state", self.view(target).class_name()))),
        };
        *self.graph.get_mut(target) = node;
        Ok(())
    }

    /// `(version, order, subarray, names, fields, size, alignment, flags)`.
    fn dtype_state(&self, dtype: &Dtype, state: Id) -> Result<Node> {
        let Node::Tuple(parts) = self.graph.get(state) else { return Err(self.malformed("a dtype's state")) };
        if parts.len() < 5 {
            return Err(self.malformed("a dtype's state is too short"));
        }
        let mut made = dtype.clone();
        made.big_endian = self.view(parts[1]).text() == Some(">");
        if !self.view(parts[2]).is_none() {
            return Err(LoadError::unsupported("a numpy dtype with arrays as elements"));
        }
        let size = parts.get(5).and_then(|id| self.view(*id).int()).unwrap_or(-1);
        if let (Ok(size), Kind::Void | Kind::Text | Kind::Bytes) = (usize::try_from(size), made.kind) {
            made.size = size.min(1 << 24);
        }
        let fields = self.view(parts[4]);
        for (name, field) in fields.pairs() {
            let items = field.items().unwrap_or_default();
            let (Some(name), [dtype, offset, ..]) = (name.text(), items.as_slice()) else {
                return Err(self.malformed("a dtype's field"));
            };
            let (Node::Dtype(dtype), Some(offset)) = (dtype.node(), offset.int()) else {
                return Err(self.malformed("a dtype's field"));
            };
            let offset = usize::try_from(offset).map_err(|_| self.malformed("a field's offset"))?;
            made.fields.push((name.to_owned(), offset, dtype.clone()));
        }
        Ok(Node::Dtype(Arc::new(made)))
    }

    /// `(version, shape, dtype, is_fortran, bytes or list)`.
    fn array_state(&mut self, state: Id) -> Result<Node> {
        let parts = self.arguments(state)?;
        let [_, shape, dtype, fortran, data] = parts.as_slice() else {
            return Err(self.malformed("an array's state does not have five parts"));
        };
        let shape = self.shape(*shape)?;
        let dtype = self.dtype_of(Some(dtype))?;
        let fortran = self.view(*fortran).truth().unwrap_or(false);
        let elements = match self.graph.get(*data) {
            Node::Bytes(bytes) => Elements::Raw(bytes.clone()),
            Node::List(items) => Elements::Objects(items.clone()),
            _ => return Err(self.malformed("an array without data")),
        };
        if let Elements::Objects(items) = &elements {
            self.charge(items.len())?;
        }
        self.array(dtype, shape, fortran, elements)
    }

    /// joblib's marker: `{subclass, shape, order, dtype, allow_mmap[, numpy_array_alignment_bytes]}`, then the
    /// array's bytes (or, for objects, another pickle).
    fn joblib_array(&mut self, state: Id, depth: usize) -> Result<Node> {
        self.by_joblib = true;
        let wrapper = self.view(state);
        let (Some(shape), Some(dtype)) = (wrapper.entry("shape"), wrapper.entry("dtype")) else {
            return Err(self.malformed("joblib's array marker lacks shape or dtype"));
        };
        let fortran = wrapper.entry("order").and_then(|order| order.text()) == Some("F");
        let is_aligned = wrapper.entry("numpy_array_alignment_bytes").is_some_and(|bytes| !bytes.is_none());
        let shape = self.shape(shape.id())?;
        let dtype = self.dtype_of(Some(&dtype.id()))?;
        if dtype.kind == Kind::Object {
            return self.joblib_objects(depth);
        }
        if is_aligned {
            let padding = self.cursor.byte("joblib's padding")?;
            self.cursor.take(u64::from(padding), "joblib's padding")?;
        }
        let size = NdArray::count_of(&shape).and_then(|count| count.checked_mul(dtype.size));
        let Some(size) = size else { return Err(self.malformed("an array's size overflows")) };
        let bytes = self.cursor.share(size as u64, "an array's data")?;
        self.array(dtype, shape, fortran, Elements::Raw(bytes))
    }

    fn joblib_objects(&mut self, depth: usize) -> Result<Node> {
        if depth == 0 || self.marks.len() >= self.depth_max {
            return Err(LoadError::TooLarge { what: "nesting of pickles", limit: self.depth_max });
        }
        // The inner pickle is a program of its own: it sees neither our memo nor our stack.
        let memo = std::mem::take(&mut self.memo);
        let marks = std::mem::take(&mut self.marks);
        let stack = std::mem::take(&mut self.stack);
        let inner = self.run(depth.min(16) - 1);
        self.memo = memo;
        self.marks = marks;
        self.stack = stack;
        match self.graph.get(inner?) {
            Node::Array(array) => Ok(Node::Array(array.clone())),
            _ => Err(self.malformed("an object array that is no array")),
        }
    }
}

fn is_joblib_array(class: &Global) -> bool {
    admit(&class.module, &class.name) == Some(Maker::JoblibArray)
}

/// What `_reconstruct` returns; `BUILD` fills it.
fn empty_array() -> Node {
    let dtype = Arc::new(Dtype { kind: Kind::Int, size: 1, big_endian: false, fields: Vec::new() });
    Node::Array(Box::new(NdArray {
        dtype,
        shape: vec![0],
        fortran: false,
        elements: Elements::Raw(Bytes::new()),
    }))
}

fn label(class: Global, args: Vec<Id>) -> Node {
    Node::Object(Box::new(Object { class, args, state: None, items: Vec::new(), pairs: Vec::new() }))
}

impl Graph {
    /// A label without a pickle, for the other containers.
    pub(crate) fn add_object(&mut self, class: Global, args: Vec<Id>, state: Option<Id>) -> Result<Id> {
        self.add(Node::Object(Box::new(Object { class, args, state, items: Vec::new(), pairs: Vec::new() })))
    }
}
