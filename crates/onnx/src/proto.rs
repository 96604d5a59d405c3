//! An ONNX file as values: the messages of `onnx.proto` that matter to whoever runs, checks or changes a model.
//!
//! Doc strings, inferred shapes of inner values and training information are dropped: nothing here needs them.
//! Tensors keep the file's own bytes. What a file nests (graphs in attributes) is bounded, what it repeats is
//! bounded by its size.
//!
//! Not here: whether the graph makes sense (`check`), writing (`write`).

use bytes::Bytes;
use models::LoadError;

use crate::wire::{Field, Reader, malformed};

/// How deep graphs may nest in attributes.
const NESTING_MAX: usize = 16;

/// Element types by ONNX's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Elem(pub(crate) i32);

#[allow(dead_code)]
impl Elem {
    pub(crate) const F32: Self = Self(1);
    pub(crate) const U8: Self = Self(2);
    pub(crate) const I8: Self = Self(3);
    pub(crate) const U16: Self = Self(4);
    pub(crate) const I16: Self = Self(5);
    pub(crate) const I32: Self = Self(6);
    pub(crate) const I64: Self = Self(7);
    pub(crate) const TEXT: Self = Self(8);
    pub(crate) const BOOL: Self = Self(9);
    pub(crate) const F16: Self = Self(10);
    pub(crate) const F64: Self = Self(11);
    pub(crate) const U32: Self = Self(12);
    pub(crate) const U64: Self = Self(13);
    pub(crate) const BF16: Self = Self(16);

    /// Bytes of an element; `None` where they differ or are less than one.
    pub(crate) fn size(self) -> Option<usize> {
        match self {
            Self::U8 | Self::I8 | Self::BOOL => Some(1),
            Self::U16 | Self::I16 | Self::F16 | Self::BF16 => Some(2),
            Self::F32 | Self::I32 | Self::U32 => Some(4),
            Self::F64 | Self::I64 | Self::U64 => Some(8),
            _ => None,
        }
    }

    /// The name in ONNX's documents.
    pub(crate) fn name(self) -> String {
        let name = match self.0 {
            1 => "float",
            2 => "uint8",
            3 => "int8",
            4 => "uint16",
            5 => "int16",
            6 => "int32",
            7 => "int64",
            8 => "string",
            9 => "bool",
            10 => "float16",
            11 => "double",
            12 => "uint32",
            13 => "uint64",
            14 => "complex64",
            15 => "complex128",
            16 => "bfloat16",
            other => return format!("element type {other}"),
        };
        name.to_owned()
    }
}

/// Where a tensor's numbers are.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Data {
    /// Little-endian bytes.
    Raw(Bytes),
    /// `float_data`.
    Floats(Vec<f32>),
    /// `double_data`.
    Doubles(Vec<f64>),
    /// `int32_data`, `int64_data`, `uint64_data`: also the smaller types and halves as bits.
    Ints(Vec<i64>),
    /// `string_data`.
    Texts(Vec<Bytes>),
    /// In another file of the model's folder.
    External { location: String, offset: u64, length: Option<u64> },
}

/// `TensorProto`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) elem: Elem,
    pub(crate) dims: Vec<usize>,
    pub(crate) data: Data,
}

/// One dimension of a declared shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Dim {
    Fixed(usize),
    Named(String),
    Unknown,
}

/// A declared type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Type {
    Tensor {
        elem: Elem,
        dims: Option<Vec<Dim>>,
    },
    /// A sequence, a map, an optional or a sparse tensor.
    Other(&'static str),
}

/// `ValueInfoProto`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ValueInfo {
    pub(crate) name: String,
    pub(crate) ty: Type,
}

/// An attribute's value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Attr {
    Float(f32),
    Int(i64),
    Text(Bytes),
    Tensor(Tensor),
    Graph(Box<Graph>),
    Floats(Vec<f32>),
    Ints(Vec<i64>),
    Texts(Vec<Bytes>),
    /// Kinds that nothing here reads.
    Other(&'static str),
}

/// `NodeProto`.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) op: String,
    /// Empty for the default domain.
    pub(crate) domain: String,
    pub(crate) inputs: Vec<String>,
    pub(crate) outputs: Vec<String>,
    pub(crate) attrs: Vec<(String, Attr)>,
}

#[cfg(test)]
impl Node {
    /// One with one output.
    pub(crate) fn with(op: &str, inputs: &[&str], output: &str, attrs: &[(&str, Attr)]) -> Self {
        Self {
            op: op.into(),
            inputs: inputs.iter().map(|name| (*name).to_owned()).collect(),
            outputs: vec![output.into()],
            attrs: attrs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
            ..Self::default()
        }
    }
}

/// `GraphProto`.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Graph {
    pub(crate) name: String,
    pub(crate) nodes: Vec<Node>,
    pub(crate) initializers: Vec<Tensor>,
    pub(crate) inputs: Vec<ValueInfo>,
    pub(crate) outputs: Vec<ValueInfo>,
}

/// `ModelProto`.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Model {
    pub(crate) ir_version: i64,
    pub(crate) producer: String,
    pub(crate) producer_version: String,
    /// Domain and version.
    pub(crate) opsets: Vec<(String, i64)>,
    pub(crate) graph: Graph,
    pub(crate) metadata: Vec<(String, String)>,
}

type Result<T> = std::result::Result<T, LoadError>;

pub(crate) fn unsupported(what: impl Into<String>) -> LoadError {
    LoadError::Unsupported { what: what.into() }
}

impl Node {
    /// The node as messages name it.
    pub(crate) fn title(&self) -> String {
        let domain = if self.domain.is_empty() { String::new() } else { format!("{}.", self.domain) };
        match (self.name.as_str(), self.outputs.first()) {
            ("", Some(output)) => format!("{domain}{} (for {output:?})", self.op),
            (name, _) => format!("{domain}{} {name:?}", self.op),
        }
    }

    pub(crate) fn attr(&self, name: &str) -> Option<&Attr> {
        self.attrs.iter().find(|(own, _)| own == name).map(|(_, value)| value)
    }
}

impl Model {
    /// Reads a file.
    pub(crate) fn parse(bytes: &Bytes) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        let mut model = Self::default();
        let mut has_graph = false;
        while let Some((number, field)) = reader.next()? {
            match number {
                1 => model.ir_version = field.int(&reader)?,
                2 => model.producer = field.text(&reader)?,
                3 => model.producer_version = field.text(&reader)?,
                7 => {
                    model.graph = graph(field.message(&reader)?, 0)?;
                    has_graph = true;
                }
                8 => model.opsets.push(opset(field.message(&reader)?)?),
                14 => model.metadata.push(entry(field.message(&reader)?)?),
                25 => return Err(unsupported("an ONNX model with functions of its own")),
                _ => {}
            }
        }
        if !has_graph || model.opsets.is_empty() {
            return Err(LoadError::Unknown { what: "no ONNX model: it has no graph or no opset".into() });
        }
        Ok(model)
    }

    /// The version of a domain's operators.
    pub(crate) fn opset(&self, domain: &str) -> Option<i64> {
        self.opsets.iter().find(|(own, _)| own == domain).map(|(_, version)| *version)
    }
}

fn opset(mut reader: Reader<'_>) -> Result<(String, i64)> {
    let (mut domain, mut version) = (String::new(), 0);
    while let Some((number, field)) = reader.next()? {
        match number {
            1 => domain = field.text(&reader)?,
            2 => version = field.int(&reader)?,
            _ => {}
        }
    }
    Ok((plain_domain(domain), version))
}

/// `ai.onnx` is the default domain's other name.
fn plain_domain(domain: String) -> String {
    if domain == "ai.onnx" { String::new() } else { domain }
}

fn entry(mut reader: Reader<'_>) -> Result<(String, String)> {
    let mut entry = (String::new(), String::new());
    while let Some((number, field)) = reader.next()? {
        match number {
            1 => entry.0 = field.text(&reader)?,
            2 => entry.1 = field.text(&reader)?,
            _ => {}
        }
    }
    Ok(entry)
}

fn graph(mut reader: Reader<'_>, depth: usize) -> Result<Graph> {
    if depth > NESTING_MAX {
        return Err(LoadError::TooLarge { what: "nesting of ONNX graphs", limit: NESTING_MAX });
    }
    let mut graph = Graph::default();
    while let Some((number, field)) = reader.next()? {
        match number {
            1 => graph.nodes.push(node(field.message(&reader)?, depth)?),
            2 => graph.name = field.text(&reader)?,
            5 => graph.initializers.push(tensor(field.message(&reader)?)?),
            11 => graph.inputs.push(value_info(field.message(&reader)?)?),
            12 => graph.outputs.push(value_info(field.message(&reader)?)?),
            15 => return Err(unsupported("ONNX weights stored as sparse tensors")),
            _ => {}
        }
    }
    Ok(graph)
}

fn node(mut reader: Reader<'_>, depth: usize) -> Result<Node> {
    let mut node = Node::default();
    while let Some((number, field)) = reader.next()? {
        match number {
            1 => node.inputs.push(field.text(&reader)?),
            2 => node.outputs.push(field.text(&reader)?),
            3 => node.name = field.text(&reader)?,
            4 => node.op = field.text(&reader)?,
            5 => node.attrs.push(attribute(field.message(&reader)?, depth)?),
            7 => node.domain = plain_domain(field.text(&reader)?),
            8 if !field.bytes(&reader)?.is_empty() => {
                return Err(unsupported("an ONNX node with an overload"));
            }
            _ => {}
        }
    }
    Ok(node)
}

fn attribute(mut reader: Reader<'_>, depth: usize) -> Result<(String, Attr)> {
    let offset = reader.offset();
    let mut name = String::new();
    let mut kind = 0;
    let mut single = None;
    let (mut floats, mut ints, mut texts) = (Vec::new(), Vec::new(), Vec::new());
    while let Some((number, field)) = reader.next()? {
        match number {
            1 => name = field.text(&reader)?,
            2 => single = Some(Attr::Float(field.float(&reader)?)),
            3 => single = Some(Attr::Int(field.int(&reader)?)),
            4 => single = Some(Attr::Text(reader.share(field.bytes(&reader)?))),
            5 => single = Some(Attr::Tensor(tensor(field.message(&reader)?)?)),
            6 => single = Some(Attr::Graph(Box::new(graph(field.message(&reader)?, depth + 1)?))),
            7 => field.floats(&reader, &mut floats)?,
            8 => field.ints(&reader, &mut ints)?,
            9 => texts.push(reader.share(field.bytes(&reader)?)),
            20 => kind = field.int(&reader)?,
            21 => return Err(unsupported("an ONNX function's attribute reference")),
            _ => {}
        }
    }
    // The kind decides: proto3 leaves out zeros, and before IR version 2 there was none.
    let value = match (kind, single) {
        (1, None) => Attr::Float(0.0),
        (2, None) => Attr::Int(0),
        (3, None) => Attr::Text(Bytes::new()),
        (6, _) => Attr::Floats(floats),
        (7, _) => Attr::Ints(ints),
        (8, _) => Attr::Texts(texts),
        (9..=14, _) => Attr::Other("tensors, graphs or types"),
        (0, None) if !floats.is_empty() => Attr::Floats(floats),
        (0, None) if !ints.is_empty() => Attr::Ints(ints),
        (0, None) if !texts.is_empty() => Attr::Texts(texts),
        (_, Some(single)) => single,
        (_, None) => return Err(malformed(offset, format!("the attribute {name:?} has no value"))),
    };
    Ok((name, value))
}

fn value_info(mut reader: Reader<'_>) -> Result<ValueInfo> {
    let mut info = ValueInfo { name: String::new(), ty: Type::Other("no type") };
    while let Some((number, field)) = reader.next()? {
        match number {
            1 => info.name = field.text(&reader)?,
            2 => info.ty = declared(field.message(&reader)?)?,
            _ => {}
        }
    }
    Ok(info)
}

fn declared(mut reader: Reader<'_>) -> Result<Type> {
    let mut ty = Type::Other("no type");
    while let Some((number, field)) = reader.next()? {
        match number {
            1 => {
                let mut inner = field.message(&reader)?;
                let (mut elem, mut dims) = (Elem(0), None);
                while let Some((number, field)) = inner.next()? {
                    match number {
                        1 => elem = elem_of(field, &inner)?,
                        2 => dims = Some(shape(field.message(&inner)?)?),
                        _ => {}
                    }
                }
                ty = Type::Tensor { elem, dims };
            }
            4 => ty = Type::Other("sequence"),
            5 => ty = Type::Other("map"),
            8 => ty = Type::Other("sparse tensor"),
            9 => ty = Type::Other("optional"),
            _ => {}
        }
    }
    Ok(ty)
}

fn elem_of(field: Field<'_>, reader: &Reader<'_>) -> Result<Elem> {
    Ok(Elem(i32::try_from(field.int(reader)?).unwrap_or(-1)))
}

fn shape(mut reader: Reader<'_>) -> Result<Vec<Dim>> {
    let mut dims = Vec::new();
    while let Some((number, field)) = reader.next()? {
        if number != 1 {
            continue;
        }
        let mut inner = field.message(&reader)?;
        let mut dim = Dim::Unknown;
        while let Some((number, field)) = inner.next()? {
            match number {
                // Some writers mean "any" by -1 or 0.
                1 => {
                    let size = usize::try_from(field.int(&inner)?).ok().filter(|size| *size > 0);
                    dim = size.map_or(Dim::Unknown, Dim::Fixed);
                }
                2 => dim = Dim::Named(field.text(&inner)?),
                _ => {}
            }
        }
        dims.push(dim);
    }
    Ok(dims)
}

fn tensor(mut reader: Reader<'_>) -> Result<Tensor> {
    let offset = reader.offset();
    let mut out =
        Tensor { name: String::new(), elem: Elem(0), dims: Vec::new(), data: Data::Raw(Bytes::new()) };
    let (mut dims, mut floats, mut doubles, mut ints, mut texts) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut raw = None;
    let mut external = Vec::new();
    let mut is_external = false;
    while let Some((number, field)) = reader.next()? {
        match number {
            1 => field.ints(&reader, &mut dims)?,
            2 => out.elem = elem_of(field, &reader)?,
            3 => return Err(unsupported("a tensor in segments")),
            4 => field.floats(&reader, &mut floats)?,
            5 | 7 | 11 => field.ints(&reader, &mut ints)?,
            6 => texts.push(reader.share(field.bytes(&reader)?)),
            8 => out.name = field.text(&reader)?,
            9 => raw = Some(reader.share(field.bytes(&reader)?)),
            10 => field.doubles(&reader, &mut doubles)?,
            13 => external.push(entry(field.message(&reader)?)?),
            14 => is_external = field.int(&reader)? == 1,
            _ => {}
        }
    }
    let bad = |what: &str| malformed(offset, format!("the tensor {:?} {what}", out.name));
    for dim in dims {
        out.dims.push(usize::try_from(dim).map_err(|_| bad("has a negative dimension"))?);
    }
    let count = out.dims.iter().try_fold(1_usize, |product, dim| product.checked_mul(*dim));
    let Some(count) = count else { return Err(bad("has more elements than can be counted")) };
    if is_external {
        out.data = external_of(&external).ok_or_else(|| bad("names no external file"))?;
        return Ok(out);
    }
    out.data = match (raw, out.elem) {
        (Some(raw), _) => Data::Raw(raw),
        (None, Elem::F32) => Data::Floats(floats),
        (None, Elem::F64) => Data::Doubles(doubles),
        (None, Elem::TEXT) => Data::Texts(texts),
        (None, _) => Data::Ints(ints),
    };
    let fits = match (&out.data, out.elem.size()) {
        (Data::Raw(raw), Some(size)) => count.checked_mul(size) == Some(raw.len()),
        (Data::Raw(_), None) => {
            return Err(unsupported(format!("{} in the tensor {:?}", out.elem.name(), out.name)));
        }
        (Data::Floats(values), _) => values.len() == count,
        (Data::Doubles(values), _) => values.len() == count,
        (Data::Ints(values), Some(_)) => values.len() == count,
        (Data::Ints(_), None) => {
            return Err(unsupported(format!("{} in the tensor {:?}", out.elem.name(), out.name)));
        }
        (Data::Texts(values), _) => values.len() == count,
        (Data::External { .. }, _) => true,
    };
    if !fits {
        return Err(bad(&format!("does not hold the {count} elements of its shape")));
    }
    Ok(out)
}

fn external_of(entries: &[(String, String)]) -> Option<Data> {
    let of = |key: &str| entries.iter().find(|(own, _)| own == key).map(|(_, value)| value.as_str());
    let location = of("location")?.to_owned();
    let offset = of("offset").map_or(Some(0), |text| text.parse().ok())?;
    let length = match of("length") {
        Some(text) => Some(text.parse().ok()?),
        None => None,
    };
    Some(Data::External { location, offset, length })
}
