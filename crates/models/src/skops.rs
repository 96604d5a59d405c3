//! skops files: a zip archive of `schema.json` and `.npy` arrays.
//!
//! The schema names a loader for each value; the ones that hold data are read into the same [`Graph`] as
//! pickles are, so that the estimators know no difference. Loaders that name functions outside of the known
//! libraries are refused like a pickle's globals.
//!
//! Not here: what the classes mean (`sklearn`).

use std::collections::HashMap;
use std::io::{Cursor, Read};

use bytes::Bytes;
use serde_json::Value;

use crate::error::{LoadError, Result};
use crate::graph::{Global, Graph, Id, Node};
use crate::limits::Limits;
use crate::npy;
use crate::pickle::is_admitted;

const FORMAT: &str = "skops";

/// Reads an archive. The second value is the version of skops that wrote it.
pub fn read(bytes: &Bytes, limits: &Limits) -> Result<(Graph, Option<String>)> {
    let archive = zip::ZipArchive::new(Cursor::new(bytes.clone()))
        .map_err(|error| LoadError::malformed(FORMAT, 0, error.to_string()))?;
    let mut reader = Reader {
        archive,
        graph: Graph::new(limits.values_max),
        known: HashMap::new(),
        bytes_left: limits.bytes_max,
        limits,
    };
    if reader.archive.index_for_name("schema.json").is_none() {
        let torch = reader.archive.file_names().any(|name| name.ends_with("data.pkl"));
        let what = if torch { "a PyTorch archive" } else { "a zip archive without schema.json" };
        return Err(LoadError::unsupported(what));
    }
    let schema = reader.member("schema.json")?;
    let schema: Value = serde_json::from_slice(&schema)
        .map_err(|error| LoadError::malformed(FORMAT, 0, error.to_string()))?;
    let root = reader.node(&schema, 0)?;
    reader.graph.set_root(root);
    let version = schema.get("_skops_version").and_then(Value::as_str).map(str::to_owned);
    Ok((reader.graph, version))
}

struct Reader<'a> {
    archive: zip::ZipArchive<Cursor<Bytes>>,
    graph: Graph,
    /// skops writes a value once and refers to it by this number after that.
    known: HashMap<u64, Id>,
    bytes_left: usize,
    limits: &'a Limits,
}

fn malformed(what: impl Into<String>) -> LoadError {
    LoadError::malformed(FORMAT, 0, what)
}

impl Reader<'_> {
    fn member(&mut self, name: &str) -> Result<Bytes> {
        let file = self.archive.by_name(name).map_err(|error| malformed(format!("{name}: {error}")))?;
        let mut out = Vec::new();
        let read = file.take(self.bytes_left as u64 + 1).read_to_end(&mut out);
        read.map_err(|error| malformed(format!("{name}: {error}")))?;
        if out.len() > self.bytes_left {
            return Err(LoadError::TooLarge {
                what: "unpacked archive in bytes",
                limit: self.limits.bytes_max,
            });
        }
        self.bytes_left -= out.len();
        Ok(out.into())
    }

    fn node(&mut self, value: &Value, depth: usize) -> Result<Id> {
        if depth > self.limits.depth_max.min(200) {
            return Err(LoadError::TooLarge {
                what: "nesting of values",
                limit: self.limits.depth_max.min(200),
            });
        }
        let number = value.get("__id__").and_then(Value::as_u64);
        if let Some(id) = number.and_then(|number| self.known.get(&number)) {
            return Ok(*id);
        }
        let id = self.make(value, depth + 1)?;
        if let Some(number) = number {
            self.known.insert(number, id);
        }
        Ok(id)
    }

    fn make(&mut self, value: &Value, depth: usize) -> Result<Id> {
        let loader = value
            .get("__loader__")
            .and_then(Value::as_str)
            .ok_or_else(|| malformed("a value without loader"))?;
        let content = value.get("content");
        match loader {
            "JsonNode" => self.json(content),
            "ListNode" => {
                let items = self.list(content, depth)?;
                self.graph.add(Node::List(items))
            }
            "TupleNode" => {
                let items = self.list(content, depth)?;
                self.graph.add(Node::Tuple(items))
            }
            "SetNode" => {
                let items = self.list(content, depth)?;
                self.graph.add(Node::Set(items))
            }
            "DictNode" | "DefaultDictNode" | "OrderedDictNode" => self.dict(value, depth),
            "NdArrayNode" => self.array(value, depth),
            "BytesNode" | "BytearrayNode" => {
                let bytes = self.file(value)?;
                self.graph.add(Node::Bytes(bytes))
            }
            "TypeNode" | "FunctionNode" | "UfuncNode" => {
                let global = match content {
                    Some(content) if content.get("function").is_some() => {
                        global_of(content, "module_path", "function")?
                    }
                    _ => global_of(value, "__module__", "__class__")?,
                };
                self.graph.add(Node::Global(global))
            }
            "MethodNode" | "OperatorFuncNode" => Err(LoadError::unsupported(format!("skops {loader}"))),
            _ => self.object(value, content, depth),
        }
    }

    fn file(&mut self, value: &Value) -> Result<Bytes> {
        let name =
            value.get("file").and_then(Value::as_str).ok_or_else(|| malformed("a value without file"))?;
        self.member(name)
    }

    /// A number, text, truth value or `None`, as JSON within JSON.
    fn json(&mut self, content: Option<&Value>) -> Result<Id> {
        let text =
            content.and_then(Value::as_str).ok_or_else(|| malformed("a JSON value that is no text"))?;
        let node = match text {
            "NaN" => Node::Float(f64::NAN),
            "Infinity" => Node::Float(f64::INFINITY),
            "-Infinity" => Node::Float(f64::NEG_INFINITY),
            _ => match serde_json::from_str(text).map_err(|error| malformed(error.to_string()))? {
                Value::Null => return Ok(Graph::NONE),
                Value::Bool(value) => return Ok(Graph::truth(value)),
                Value::String(text) => Node::Text(text.into()),
                Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                    (Some(int), _) => Node::Int(int),
                    (None, Some(float)) if text.contains(['.', 'e', 'E']) => Node::Float(float),
                    _ => Node::BigInt,
                },
                Value::Array(_) | Value::Object(_) => {
                    return Err(malformed("a JSON value that is a container"));
                }
            },
        };
        self.graph.add(node)
    }

    fn list(&mut self, content: Option<&Value>, depth: usize) -> Result<Vec<Id>> {
        let items = content.and_then(Value::as_array).ok_or_else(|| malformed("a list without content"))?;
        items.iter().map(|item| self.node(item, depth)).collect()
    }

    /// Keys are JSON texts; `key_types` says what they were.
    fn dict(&mut self, value: &Value, depth: usize) -> Result<Id> {
        let content = value.get("content").and_then(Value::as_object);
        let content = content.ok_or_else(|| malformed("a dict without content"))?;
        let types = value.pointer("/key_types/content").and_then(Value::as_array);
        let mut pairs = Vec::with_capacity(content.len());
        for (index, (key, item)) in content.iter().enumerate() {
            let kind = types.and_then(|types| types.get(index)).and_then(|kind| kind.get("__class__"));
            let int = match kind.and_then(Value::as_str) {
                Some("int" | "int64" | "int32") => key.parse().ok(),
                _ => None,
            };
            let key = self.graph.add(int.map_or_else(|| Node::Text(key.as_str().into()), Node::Int))?;
            pairs.push((key, self.node(item, depth)?));
        }
        self.graph.add(Node::Dict(pairs))
    }

    fn array(&mut self, value: &Value, depth: usize) -> Result<Id> {
        if value.get("type").and_then(Value::as_str) == Some("numpy") {
            let array = npy::read(&self.file(value)?)?;
            return self.graph.add(Node::Array(Box::new(array)));
        }
        // An array of objects, as lists within lists: one list in C order is what the estimators look at.
        let dims = value.pointer("/shape/content").and_then(Value::as_array).map_or(1, Vec::len);
        let mut items = self.list(value.get("content"), depth)?;
        for _ in 1..dims {
            let mut flat = Vec::new();
            for id in items {
                match self.graph.get(id) {
                    Node::List(inner) if flat.len() + inner.len() <= self.limits.values_max => {
                        flat.extend(inner)
                    }
                    _ => return Err(malformed("an array of objects that has another shape")),
                }
            }
            items = flat;
        }
        self.graph.add(Node::List(items))
    }

    /// An instance: its class, what it was made from and its state.
    fn object(&mut self, value: &Value, content: Option<&Value>, depth: usize) -> Result<Id> {
        let class = global_of(value, "__module__", "__class__")?;
        let args = match value.pointer("/__reduce__/args/content") {
            Some(args) => self.list(Some(args), depth)?,
            None => Vec::new(),
        };
        let state = match content {
            Some(content) if content.get("__loader__").is_some() => Some(self.node(content, depth)?),
            Some(Value::Object(parts)) => {
                let mut pairs = Vec::new();
                for (key, part) in parts.iter().filter(|(_, part)| part.get("__loader__").is_some()) {
                    let key = self.graph.add(Node::Text(key.as_str().into()))?;
                    pairs.push((key, self.node(part, depth)?));
                }
                Some(self.graph.add(Node::Dict(pairs))?)
            }
            _ => None,
        };
        self.graph.add_object(class, args, state)
    }
}

fn global_of(value: &Value, module: &str, name: &str) -> Result<Global> {
    let text = |key: &str| value.get(key).and_then(Value::as_str);
    let (Some(module), Some(name)) = (text(module), text(name)) else {
        return Err(malformed("a value without class"));
    };
    if !is_admitted(module, name) {
        let reason = "not on the list of names that a model may use";
        return Err(LoadError::Refused { global: format!("{module}.{name}"), reason, offset: 0 });
    }
    Ok(Global { module: module.into(), name: name.into() })
}
