//! Signatures of a TensorFlow SavedModel: what `saved_model.pb` says of them.
//!
//! A SavedModel holds graphs with tags; each has signatures: names of inputs and outputs with the places in the graph
//! that they are. Only these are read here; the graph itself is TensorFlow's to read. A signature that has a tensor of a
//! kind that is not served (sparse, composite, complex) is left out with the reason, because the others may still be
//! asked for.
//!
//! What rows are: where every input and output is free in its first dimension, that is the rows; else the signature is
//! called as it is. Classify and regress signatures take a text for each example, also where their graph declares no shape,
//! as graphs of TensorFlow 1 do.
//!
//! Not here: running it (`engines`).

use models::{CLASSIFY, Dims, Entry, PREDICT, RANK_MAX, REGRESS, Signature, TensorSpec};

use crate::grpc::oip::entry as map_entry;
use crate::tfs::of_tf_type;
use crate::wire::{Fields, Value, WireError};

/// Signatures of a graph, at most.
const SIGNATURES_MAX: usize = 1024;
/// The signature by which TensorFlow 2 marks what runs when the model is loaded.
const INITIALISER: &str = "__saved_model_init_op";

/// Where a tensor is in a graph.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    /// The operation's name.
    pub operation: String,
    /// Which of its outputs.
    pub output: u32,
}

/// A signature with the places of its tensors, each in the order of the entry's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// What it is to callers.
    pub entry: Entry,
    /// Where inputs are fed.
    pub inputs: Vec<Place>,
    /// Where outputs are fetched.
    pub outputs: Vec<Place>,
}

/// One graph of a SavedModel, as far as it is read here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MetaGraph {
    /// Its tags; `serve` is the one that servers load.
    pub tags: Vec<String>,
    /// The TensorFlow that wrote it.
    pub version: String,
    /// Its signatures, sorted by name.
    pub signatures: Vec<Signed>,
    /// Signatures that are not served, and why.
    pub refused: Vec<(String, String)>,
}

impl MetaGraph {
    /// Reads a `MetaGraphDef`.
    pub fn read(message: &[u8]) -> Result<Self, WireError> {
        let mut graph = Self::default();
        for field in Fields::of(message) {
            let field = field?;
            match field.number {
                1 => graph.read_info(field.bytes()?)?,
                5 if graph.signatures.len() + graph.refused.len() < SIGNATURES_MAX => {
                    let (name, message) = map_entry(field.bytes()?)?;
                    if name == INITIALISER {
                        continue;
                    }
                    match signed(name, message)? {
                        Ok(signed) => graph.signatures.push(signed),
                        Err(why) => graph.refused.push((name.to_owned(), why)),
                    }
                }
                _ => {}
            }
        }
        graph.signatures.sort_by(|one, other| one.entry.name.cmp(&other.entry.name));
        // A map has a name once; of a file that repeats one the first counts.
        graph.signatures.dedup_by(|one, other| one.entry.name == other.entry.name);
        Ok(graph)
    }

    fn read_info(&mut self, message: &[u8]) -> Result<(), WireError> {
        for field in Fields::of(message) {
            let field = field?;
            match field.number {
                4 => self.tags.push(field.text()?.to_owned()),
                5 => self.version = field.text()?.to_owned(),
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether it has exactly these tags.
    pub fn is_tagged(&self, tags: &[&str]) -> bool {
        self.tags.len() == tags.len() && tags.iter().all(|tag| self.tags.iter().any(|own| own == tag))
    }
}

/// Reads the graphs of a `SavedModel`.
pub fn read(message: &[u8]) -> Result<Vec<MetaGraph>, WireError> {
    let mut graphs = Vec::new();
    for field in Fields::of(message) {
        let field = field?;
        if let (2, Value::Bytes(bytes)) = (field.number, field.value) {
            graphs.push(MetaGraph::read(bytes)?);
        }
    }
    Ok(graphs)
}

/// A `TensorInfo`.
struct Info {
    place: Place,
    number: u64,
    /// `None` is any number of dimensions.
    dims: Option<Vec<i64>>,
    kind: Option<&'static str>,
}

fn info(message: &[u8]) -> Result<Info, WireError> {
    // A shape that is not there is one of unknown rank.
    let mut info = Info { place: Place::default(), number: 0, dims: None, kind: Some("constant") };
    for field in Fields::of(message) {
        let field = field?;
        match field.number {
            1 => {
                let name = field.text()?;
                let (operation, output) = name.rsplit_once(':').unwrap_or((name, "0"));
                let output = output.parse().unwrap_or(0);
                info.place = Place { operation: operation.to_owned(), output };
                info.kind = None;
            }
            2 => info.number = field.int()?,
            3 => info.dims = shape(field.bytes()?)?,
            4 => info.kind = Some("sparse tensor"),
            5 => info.kind = Some("composite tensor"),
            _ => {}
        }
    }
    Ok(info)
}

fn shape(message: &[u8]) -> Result<Option<Vec<i64>>, WireError> {
    let mut dims = Vec::new();
    for field in Fields::of(message) {
        let field = field?;
        match field.number {
            2 => {
                let mut size = 0;
                for field in Fields::of(field.bytes()?) {
                    let field = field?;
                    if field.number == 1 {
                        size = field.int()? as i64;
                    }
                }
                dims.push(size);
            }
            3 if field.int()? != 0 => return Ok(None),
            _ => {}
        }
    }
    Ok(Some(dims))
}

/// Tensors by name, sorted.
type Infos<'m> = Vec<(&'m str, Info)>;

fn signed(name: &str, message: &[u8]) -> Result<Result<Signed, String>, WireError> {
    let (mut inputs, mut outputs, mut method) = (Infos::new(), Infos::new(), PREDICT);
    for field in Fields::of(message) {
        let field = field?;
        match field.number {
            1 | 2 => {
                let (key, message) = map_entry(field.bytes()?)?;
                let list = if field.number == 1 { &mut inputs } else { &mut outputs };
                list.push((key, info(message)?));
            }
            3 => method = field.text()?,
            _ => {}
        }
    }
    inputs.sort_by_key(|(key, _)| *key);
    outputs.sort_by_key(|(key, _)| *key);
    Ok(entry(name, method, &inputs, &outputs))
}

fn entry(name: &str, method: &str, inputs: &Infos<'_>, outputs: &Infos<'_>) -> Result<Signed, String> {
    if outputs.is_empty() {
        return Err("it has no outputs".into());
    }
    let of_examples = method == CLASSIFY || method == REGRESS;
    let is_free = |(_, info): &(&str, Info)| match info.dims.as_deref() {
        Some(dims) => dims.first().is_some_and(|first| *first < 0),
        None => of_examples,
    };
    let batched = !inputs.is_empty() && inputs.iter().chain(outputs).all(is_free);
    let specs = |infos: &Infos<'_>, is_input: bool| {
        let all = infos.iter().map(|(key, info)| spec(key, info, batched, is_input));
        all.collect::<Result<Vec<_>, String>>()
    };
    let signature =
        Signature { inputs: specs(inputs, true)?, outputs: specs(outputs, false)?, columns: Vec::new() };
    let places = |infos: &Infos<'_>| infos.iter().map(|(_, info)| info.place.clone()).collect();
    let entry = Entry { name: name.to_owned(), method: method.to_owned(), signature };
    Ok(Signed { entry, inputs: places(inputs), outputs: places(outputs) })
}

fn spec(key: &str, info: &Info, batched: bool, is_input: bool) -> Result<TensorSpec, String> {
    if let Some(kind) = info.kind {
        return Err(format!("{key:?} is a {kind}"));
    }
    let number = info.number;
    let dtype = of_tf_type(number).ok_or_else(|| format!("{key:?} has the type {number} of TensorFlow"))?;
    let Some(dims) = &info.dims else {
        // Examples come one by one; what is made of them has some numbers each.
        let row = if is_input { vec![] } else { vec![None] };
        let spec = TensorSpec::new(key, dtype, row);
        return Ok(if batched { spec } else { TensorSpec { dims: Dims::Any, row: Vec::new(), ..spec } });
    };
    if dims.len() > RANK_MAX {
        return Err(format!("{key:?} has {} dimensions, at most {RANK_MAX}", dims.len()));
    }
    let row: Vec<_> = dims[usize::from(batched)..].iter().map(|dim| usize::try_from(*dim).ok()).collect();
    let dims = if batched { Dims::Rows } else { Dims::Whole };
    Ok(TensorSpec { dims, ..TensorSpec::new(key, dtype, row) })
}

#[cfg(test)]
mod tests {
    use models::DType;

    use super::*;
    use crate::wire::{put_bytes, put_bytes_always, put_int, put_message};

    fn put_info(out: &mut Vec<u8>, place: &str, number: u64, dims: Option<&[i64]>) {
        put_bytes(out, 1, place.as_bytes());
        put_int(out, 2, number);
        put_message(out, 3, |out| match dims {
            None => put_int(out, 3, 1),
            Some(dims) => {
                for dim in dims {
                    put_message(out, 2, |out| put_int(out, 1, *dim as u64));
                }
            }
        });
    }

    type Info<'a> = (&'a str, &'a str, u64, Option<&'a [i64]>);

    fn put_signature(out: &mut Vec<u8>, name: &str, method: &str, inputs: &[Info<'_>], outputs: &[Info<'_>]) {
        put_message(out, 5, |out| {
            put_bytes(out, 1, name.as_bytes());
            put_message(out, 2, |out| {
                for (field, infos) in [(1, inputs), (2, outputs)] {
                    for (key, place, number, dims) in infos {
                        put_message(out, field, |out| {
                            put_bytes(out, 1, key.as_bytes());
                            put_message(out, 2, |out| put_info(out, place, *number, *dims));
                        });
                    }
                }
                put_bytes(out, 3, method.as_bytes());
            });
        });
    }

    /// A `MetaGraphDef` with signatures as `put` writes them.
    fn graph(put: impl FnOnce(&mut Vec<u8>)) -> MetaGraph {
        let mut out = Vec::new();
        put_message(&mut out, 1, |out| {
            put_bytes_always(out, 4, b"serve");
            put_bytes_always(out, 5, b"2.21.0");
        });
        put(&mut out);
        let mut file = Vec::new();
        put_int(&mut file, 1, 1);
        put_bytes_always(&mut file, 2, &out);
        read(&file).expect("legal").remove(0)
    }

    #[test]
    fn signatures_are_read_with_the_places_of_their_tensors() {
        let made = graph(|out| {
            put_signature(out, "z", "", &[("x", "b/x:3", 1, Some(&[-1]))], &[("y", "y", 9, Some(&[-1, 2]))]);
            let inputs: [Info<'_>; 2] =
                [("b", "in_b:0", 7, Some(&[-1])), ("a", "in_a:0", 1, Some(&[-1, 4, -1]))];
            put_signature(out, "serving_default", PREDICT, &inputs, &[("o", "call:1", 2, Some(&[-1]))]);
            put_signature(out, INITIALISER, "", &[], &[("op", "NoOp", 0, None)]);
        });
        assert_eq!(
            (made.is_tagged(&["serve"]), made.is_tagged(&[]), &*made.version),
            (true, false, "2.21.0")
        );
        assert_eq!(made.refused, []);
        let [default, other] = &made.signatures[..] else { panic!("two signatures") };
        let spec = |name: &str, dtype, row: &[Option<usize>]| TensorSpec::new(name, dtype, row);
        assert_eq!(
            default.entry.signature.inputs,
            [spec("a", DType::F32, &[Some(4), None]), spec("b", DType::Text, &[]),]
        );
        assert_eq!(default.inputs[0], Place { operation: "in_a".into(), output: 0 });
        assert_eq!(default.outputs[0], Place { operation: "call".into(), output: 1 });
        assert_eq!((&*other.entry.name, &*other.entry.method), ("z", PREDICT));
        assert_eq!(other.inputs[0], Place { operation: "b/x".into(), output: 3 });
        assert_eq!(other.outputs[0], Place { operation: "y".into(), output: 0 });
        assert!(other.entry.signature.is_batched());
    }

    #[test]
    fn shapes_decide_whether_there_are_rows() {
        type Case<'a> = (&'a str, Option<&'a [i64]>, Option<&'a [i64]>, Dims, Dims);
        let cases: [Case<'_>; 7] = [
            (PREDICT, Some(&[-1]), Some(&[-1, 3]), Dims::Rows, Dims::Rows),
            (PREDICT, Some(&[]), Some(&[-1]), Dims::Whole, Dims::Whole),
            (PREDICT, Some(&[-1]), Some(&[]), Dims::Whole, Dims::Whole),
            (PREDICT, Some(&[8, 2]), Some(&[8]), Dims::Whole, Dims::Whole),
            (PREDICT, None, Some(&[-1]), Dims::Any, Dims::Whole),
            (CLASSIFY, None, None, Dims::Rows, Dims::Rows),
            (REGRESS, None, Some(&[-1, 1]), Dims::Rows, Dims::Rows),
        ];
        for (method, input, output, want_input, want_output) in cases {
            let made = graph(|out| {
                put_signature(out, "s", method, &[("x", "x:0", 7, input)], &[("y", "y:0", 1, output)]);
            });
            let signature = &made.signatures[0].entry.signature;
            let got = (signature.inputs[0].dims, signature.outputs[0].dims);
            assert_eq!(got, (want_input, want_output), "{method} {input:?} {output:?}");
        }
    }

    #[test]
    fn a_signature_that_is_not_served_costs_only_itself() {
        let made = graph(|out| {
            put_signature(out, "complex", "", &[("x", "x:0", 8, Some(&[-1]))], &[("y", "y:0", 1, None)]);
            put_signature(out, "nothing", "", &[("x", "x:0", 1, Some(&[-1]))], &[]);
            put_signature(out, "good", "", &[], &[("y", "y:0", 1, Some(&[2]))]);
            put_message(out, 5, |out| {
                put_bytes(out, 1, b"sparse");
                put_message(out, 2, |out| {
                    put_message(out, 1, |out| {
                        put_bytes(out, 1, b"x");
                        put_message(out, 2, |out| put_message(out, 4, |out| put_bytes(out, 1, b"values:0")));
                    });
                    put_message(out, 2, |out| {
                        put_bytes(out, 1, b"y");
                        put_message(out, 2, |out| put_info(out, "y:0", 1, None));
                    });
                });
            });
        });
        let names: Vec<&str> = made.signatures.iter().map(|one| &*one.entry.name).collect();
        assert_eq!(names, ["good"]);
        let why: Vec<(&str, &str)> = made.refused.iter().map(|(name, why)| (&**name, &**why)).collect();
        assert_eq!(
            why,
            [
                ("complex", "\"x\" has the type 8 of TensorFlow"),
                ("nothing", "it has no outputs"),
                ("sparse", "\"x\" is a sparse tensor"),
            ]
        );
    }

    #[test]
    fn bytes_that_are_no_message_are_refused() {
        assert_eq!(read(&[0x12, 5, 1]), Err(WireError::Truncated));
        assert_eq!(read(&[0x12, 2, 0x2a, 9]), Err(WireError::Truncated));
        assert_eq!(read(&[]), Ok(Vec::new()));
    }
}
