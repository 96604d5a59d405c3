//! The report on a SavedModel, which needs no TensorFlow: its signatures are a protobuf message.
//!
//! A graph is a program to TensorFlow, which has operations that read and write files; that is why such a model is not
//! called safe, and why it runs in a process of its own.

use std::path::Path;

use codecs::saved_model::{MetaGraph, read};
use models::{Entry, Folder, Format, Inspection, Limits, Line, TensorSpec};

use super::Disk;

const FILE: &str = "saved_model.pb";

/// The report on the folder or file at `path`, if it is a SavedModel.
pub(super) fn inspect(path: &Path, limits: &Limits) -> Option<Inspection> {
    let folder = if path.ends_with(FILE) { path.parent()? } else { path };
    if !folder.join(FILE).is_file() {
        return None;
    }
    let bytes = Disk::new(folder).read(FILE, limits.bytes_max);
    let (size, graphs) = match &bytes {
        Ok(bytes) => (bytes.len(), read(bytes).map_err(|error| format!("malformed SavedModel: {error}"))),
        Err(error) => (0, Err(format!("cannot read {FILE}: {error}"))),
    };
    let format = Format {
        name: "SavedModel".into(),
        packing: "none".into(),
        protocol: None,
        bytes: size,
        bytes_unpacked: size,
        mlflow_flavor: None,
    };
    let mut report = Inspection {
        file: FILE.into(),
        format: Some(format),
        estimators: Vec::new(),
        safe: false,
        features: None,
        feature_names: Vec::new(),
        classes: Vec::new(),
        sklearn_version: None,
        methods: Vec::new(),
        served_by: None,
        problem: None,
    };
    let graphs = match graphs {
        Ok(graphs) => graphs,
        Err(why) => return Some(Inspection { problem: Some(why), ..report }),
    };
    report.estimators = graphs.iter().flat_map(lines).collect();
    let mut names: Vec<String> =
        graphs.iter().flat_map(|graph| &graph.signatures).map(|one| one.entry.name.clone()).collect();
    names.sort();
    names.dedup();
    match names.is_empty() {
        true => report.problem = Some("no graph in it has a signature that is served".into()),
        false => {
            report.served_by = Some("TensorFlow, in a process of its own, where its library is found".into())
        }
    }
    report.methods = names;
    Some(report)
}

/// A graph, and its signatures below it.
fn lines(graph: &MetaGraph) -> Vec<Line> {
    let line =
        |depth, class: &str, detail: String| Line { depth, step: None, class: class.to_owned(), detail };
    let (tags, version) = (graph.tags.join(","), &graph.version);
    let mut all = vec![line(0, "graph", format!("tags {tags}, written by TensorFlow {version}"))];
    all.extend(graph.signatures.iter().map(|one| line(1, &one.entry.name, described(&one.entry))));
    all.extend(graph.refused.iter().map(|(name, why)| line(1, name, format!("not served: {why}"))));
    all
}

fn described(entry: &Entry) -> String {
    let tensors = |specs: &[TensorSpec]| {
        let one = |spec: &TensorSpec| {
            let dims: Vec<String> = spec.shape().map(|dim| dim.to_string()).collect();
            let dims = if spec.dims == models::Dims::Any { "any".to_owned() } else { dims.join(",") };
            format!("{} {}[{dims}]", spec.name, spec.dtype.v2_name())
        };
        specs.iter().map(one).collect::<Vec<_>>().join(", ")
    };
    let purpose = entry.method.rsplit('/').next().unwrap_or_default();
    format!("{purpose}: {} -> {}", tensors(&entry.signature.inputs), tensors(&entry.signature.outputs))
}

#[cfg(test)]
mod tests {
    use codecs::wire::{put_bytes, put_bytes_always, put_int, put_message};

    use super::*;

    fn put_tensor(out: &mut Vec<u8>, field: u32, name: &str) {
        put_message(out, field, |out| {
            put_bytes(out, 1, name.as_bytes());
            put_message(out, 2, |out| {
                put_bytes(out, 1, format!("{name}:0").as_bytes());
                put_int(out, 2, 1);
                put_message(out, 3, |out| put_message(out, 2, |out| put_int(out, 1, u64::MAX)));
            });
        });
    }

    #[test]
    fn signatures_are_shown_without_tensorflow() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(inspect(folder.path(), &Limits::default()).is_none());
        let mut file = Vec::new();
        put_message(&mut file, 2, |out| {
            put_message(out, 1, |out| {
                put_bytes_always(out, 4, b"serve");
                put_bytes_always(out, 5, b"2.21.0");
            });
            put_message(out, 5, |out| {
                put_bytes(out, 1, b"serving_default");
                put_message(out, 2, |out| {
                    put_tensor(out, 1, "x");
                    put_tensor(out, 2, "y");
                });
            });
        });
        std::fs::write(folder.path().join(FILE), &file).expect("written");
        for path in [folder.path().to_owned(), folder.path().join(FILE)] {
            let report = inspect(&path, &Limits::default()).expect("a SavedModel");
            assert_eq!((report.problem, report.methods), (None, vec!["serving_default".to_owned()]));
            let shown: Vec<String> =
                report.estimators.iter().map(|line| format!("{} {}", line.class, line.detail)).collect();
            assert_eq!(
                shown,
                [
                    "graph tags serve, written by TensorFlow 2.21.0",
                    "serving_default predict: x FP32[-1] -> y FP32[-1]",
                ]
            );
        }
        std::fs::write(folder.path().join(FILE), &file[..file.len() - 1]).expect("written");
        let report = inspect(folder.path(), &Limits::default()).expect("a SavedModel");
        assert!(report.problem.expect("cut off").contains("malformed"));
    }
}
