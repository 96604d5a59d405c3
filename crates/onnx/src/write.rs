//! An ONNX model as the bytes of its file: the other direction of `proto`.
//!
//! What `proto` drops at reading (doc strings, inferred shapes) is not there to be written; attributes of kinds that it
//! does not read are refused, because leaving them out would change the model.
//!
//! Not here: what is written (`convert`, `quantize`).

use bytes::Bytes;
use models::LoadError;

use crate::proto::{Attr, Data, Dim, Graph, Model, Node, Tensor, Type, ValueInfo, unsupported};
use crate::wire::Writer;

type Result<T> = std::result::Result<T, LoadError>;

/// The bytes of a model's file.
pub(crate) fn write(model: &Model) -> Result<Bytes> {
    let mut out = Writer::default();
    out.int(1, model.ir_version);
    out.text(2, &model.producer);
    out.text(3, &model.producer_version);
    let mut failed = None;
    out.message(7, |out| failed = graph(&model.graph, out).err());
    if let Some(error) = failed {
        return Err(error);
    }
    for (domain, version) in &model.opsets {
        out.message(8, |out| {
            out.text(1, domain);
            out.int(2, *version);
        });
    }
    for (key, value) in &model.metadata {
        out.message(14, |out| {
            out.text(1, key);
            out.text(2, value);
        });
    }
    Ok(out.finish())
}

/// Writes messages of one field, keeping the first failure.
fn each<T>(
    out: &mut Writer,
    number: u32,
    all: &[T],
    write: impl Fn(&T, &mut Writer) -> Result<()>,
) -> Result<()> {
    all.iter().try_for_each(|one| {
        let mut done = Ok(());
        out.message(number, |out| done = write(one, out));
        done
    })
}

fn graph(graph: &Graph, out: &mut Writer) -> Result<()> {
    each(out, 1, &graph.nodes, node)?;
    out.text(2, &graph.name);
    each(out, 5, &graph.initializers, tensor)?;
    each(out, 11, &graph.inputs, value_info)?;
    each(out, 12, &graph.outputs, value_info)
}

fn node(node: &Node, out: &mut Writer) -> Result<()> {
    // An input that is left out is an empty name and keeps its place.
    node.inputs.iter().for_each(|input| out.bytes(1, input.as_bytes()));
    node.outputs.iter().for_each(|output| out.bytes(2, output.as_bytes()));
    out.text(3, &node.name);
    out.text(4, &node.op);
    each(out, 5, &node.attrs, |(name, value), out| {
        attribute(name, value, out).map_err(|_| lost(node, name))
    })?;
    out.text(7, &node.domain);
    Ok(())
}

fn lost(node: &Node, name: &str) -> LoadError {
    unsupported(format!("writing the attribute {name:?} of {}", node.title()))
}

fn attribute(name: &str, value: &Attr, out: &mut Writer) -> Result<()> {
    out.text(1, name);
    let kind = match value {
        Attr::Float(value) => {
            out.float(2, *value);
            1
        }
        Attr::Int(value) => {
            out.int(3, *value);
            2
        }
        Attr::Text(value) => {
            out.bytes(4, value);
            3
        }
        Attr::Tensor(value) => {
            let mut done = Ok(());
            out.message(5, |out| done = tensor(value, out));
            done?;
            4
        }
        Attr::Graph(value) => {
            let mut done = Ok(());
            out.message(6, |out| done = graph(value, out));
            done?;
            5
        }
        Attr::Floats(values) => {
            out.floats(7, values);
            6
        }
        Attr::Ints(values) => {
            out.ints(8, values);
            7
        }
        Attr::Texts(values) => {
            values.iter().for_each(|value| out.bytes(9, value));
            8
        }
        Attr::Other(what) => return Err(unsupported(format!("an attribute of {what}"))),
    };
    out.int(20, kind);
    Ok(())
}

fn tensor(tensor: &Tensor, out: &mut Writer) -> Result<()> {
    let dims: Vec<i64> = tensor.dims.iter().map(|size| *size as i64).collect();
    if !dims.is_empty() {
        out.ints(1, &dims);
    }
    out.int(2, i64::from(tensor.elem.0));
    match &tensor.data {
        Data::Raw(raw) => out.bytes(9, raw),
        Data::Floats(values) => out.floats(4, values),
        Data::Doubles(values) => out.doubles(10, values),
        Data::Ints(values) => out.ints(if matches!(tensor.elem.0, 7) { 7 } else { 5 }, values),
        Data::Texts(values) => values.iter().for_each(|value| out.bytes(6, value)),
        Data::External { .. } => {
            return Err(unsupported(format!(
                "writing the tensor {:?}, which lies in another file",
                tensor.name
            )));
        }
    }
    out.text(8, &tensor.name);
    Ok(())
}

fn value_info(info: &ValueInfo, out: &mut Writer) -> Result<()> {
    out.text(1, &info.name);
    let Type::Tensor { elem, dims } = &info.ty else {
        return Err(unsupported(format!("writing {:?}, which is no tensor", info.name)));
    };
    out.message(2, |out| {
        out.message(1, |out| {
            out.int(1, i64::from(elem.0));
            let Some(dims) = dims else { return };
            out.message(2, |out| {
                dims.iter().for_each(|dim| {
                    out.message(1, |out| match dim {
                        Dim::Fixed(size) => out.int(1, *size as i64),
                        Dim::Named(name) => out.text(2, name),
                        Dim::Unknown => {}
                    });
                });
            });
        });
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fixture_reads_back_as_it_was_written() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        let mut count = 0;
        for entry in std::fs::read_dir(folder).expect("the fixtures are there") {
            let path = entry.expect("an entry").path();
            if path.extension().is_none_or(|ending| ending != "onnx") {
                continue;
            }
            let bytes = Bytes::from(std::fs::read(&path).expect("readable"));
            let model = Model::parse(&bytes).expect("a model");
            // Sequences and maps have no form here; such models are refused and not changed.
            let Ok(written) = write(&model) else { continue };
            // As text: numbers that are none differ from themselves.
            let again = Model::parse(&written).expect("well formed");
            assert_eq!(format!("{again:?}"), format!("{model:?}"), "{}", path.display());
            count += 1;
        }
        assert!(count > 20, "{count} fixtures");
    }
}
