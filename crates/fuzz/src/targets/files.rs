//! Models as people store them.
//!
//! A skops file is an archive with checksums, which nearly every change would break: here it is a text of members, put
//! into an archive for the reader. Inputs that are archives themselves are read as they are.
//!
//! Not here: what any of it means (`models`, `onnx`, `codecs::saved_model`).

use std::io::{Cursor, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use codecs::wire::{put_bytes, put_int, put_message};
use models::{Backend, Batch, Buffer, DType, Limits, Method, Native, Outputs, Shape, Storage, Tensor};

pub(super) const BOOSTER_WORDS: &[&[u8]] = &[
    b"\"learner\"",
    b"gbtree",
    b"dart",
    b"gblinear",
    b"tree\n",
    b"Tree=",
    b"num_leaves=",
    b"end of trees",
    b"CBM1",
    b"binf",
];
pub(super) const PMML_WORDS: &[&[u8]] = &[
    b"<True/>",
    b"<False/>",
    b"<SimplePredicate field=\"x1\" operator=\"lessThan\" value=\"1\"/>",
    b"<CompoundPredicate booleanOperator=\"surrogate\">",
    b"<Segment id=\"1\" weight=\"2\">",
    b"<Node id=\"1\" score=\"1\" recordCount=\"3\">",
    b"</Node>",
    b"missingValueStrategy=\"weightedConfidence\"",
    b"multipleModelMethod=\"modelChain\"",
    b"defaultChild=\"1\"",
    b"dataType=\"double\"",
    b"<Apply function=\"if\">",
    b"<Constant>1</Constant>",
    b"<FieldRef field=\"x1\"/>",
];
pub(super) const SKOPS_WORDS: &[&[u8]] = &[
    MEMBER,
    b"{\"__loader__\": \"JsonNode\", \"content\": \"1\"}",
    b"{\"__loader__\": \"ListNode\", \"content\": []}",
    b"\"__loader__\": \"NdArrayNode\", \"type\": \"numpy\", \"file\": \"0.npy\"",
    b"\"__loader__\": \"ObjectNode\"",
    b"\"__loader__\": \"ReduceNode\"",
    b"\"__loader__\": \"FunctionNode\"",
    b"\"__id__\": 1",
    b"\"__class__\": \"DecisionTreeClassifier\"",
    b"\"__module__\": \"sklearn.tree._classes\"",
];

/// Goes before each member: its name to the end of the line, then its bytes.
const MEMBER: &[u8] = b"\xffmember ";

fn limits() -> Limits {
    Limits { bytes_max: 4 << 20, values_max: 100_000, depth_max: 64 }
}

/// Whatever evaluates answers a row or refuses it.
fn exercise(model: &dyn Backend) {
    for fill in [0x3f, 0xff] {
        let inputs = &model.signature().inputs;
        let made = inputs.iter().map(|spec| {
            let row: Vec<usize> =
                [1].into_iter().chain(spec.row.iter().map(|dim| dim.unwrap_or(2))).collect();
            let shape = Shape::new(&row).filter(|shape| shape.count() < 1 << 16)?;
            let bytes = match spec.dtype {
                DType::Text => vec![0; shape.count() * 4],
                other => vec![fill; shape.count() * other.size()],
            };
            Tensor::new(spec.dtype, shape, Storage::Owned(Buffer::of(&bytes)))
        });
        let Some(tensors) = made.collect::<Option<Vec<_>>>() else { return };
        let _ = model.run(&Batch { rows: 1, inputs: &tensors }, &mut Outputs::new());
    }
}

pub(super) fn model(bytes: &[u8]) {
    for method in [Method::Predict, Method::Probabilities] {
        let Ok(loaded) = models::load_bytes("model", Bytes::copy_from_slice(bytes), &limits()) else {
            return;
        };
        if let Ok(model) = Native::new(loaded.estimator, method) {
            exercise(&model);
        }
    }
}

pub(super) fn skops(bytes: &[u8]) {
    if bytes.starts_with(b"PK") {
        return model(bytes);
    }
    if let Some(archive) = archive(bytes) {
        model(&archive);
    }
}

/// The archive of the members that a text lists; `None` where two have one name.
fn archive(text: &[u8]) -> Option<Vec<u8>> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for member in members(text).into_iter().take(64) {
        let end = member.iter().position(|byte| *byte == b'\n')?;
        writer.start_file(std::str::from_utf8(&member[..end]).ok()?, options).ok()?;
        writer.write_all(&member[end + 1..]).ok()?;
    }
    writer.finish().ok().map(Cursor::into_inner)
}

fn members(text: &[u8]) -> Vec<&[u8]> {
    let mut starts: Vec<usize> = text
        .windows(MEMBER.len())
        .enumerate()
        .filter(|(_, part)| *part == MEMBER)
        .map(|(at, _)| at)
        .collect();
    starts.push(text.len());
    starts.windows(2).map(|pair| &text[pair[0] + MEMBER.len()..pair[1]]).collect()
}

/// The text of an archive's members.
fn unpacked(archive: &[u8]) -> Option<Vec<u8>> {
    let mut reader = zip::ZipArchive::new(Cursor::new(archive)).ok()?;
    let mut text = Vec::new();
    for index in 0..reader.len() {
        let mut member = reader.by_index(index).ok()?;
        text.extend_from_slice(&[MEMBER, member.name().as_bytes(), b"\n"].concat());
        member.read_to_end(&mut text).ok()?;
    }
    Some(text)
}

/// A graph may be large and take a minute, as the server has it; what a search calls too much is less.
const GRAPH_BOUNDS: onnx::Bounds = onnx::Bounds { cells: 4 << 20, work: 1 << 32 };

/// ONNX, and whatever begins otherwise as a SavedModel: the two have no first bytes in common.
pub(super) fn graph(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    if onnx::is_onnx(&bytes) {
        if let Ok(model) = onnx::Onnx::load_within(&bytes, GRAPH_BOUNDS) {
            exercise(&model);
        }
        return;
    }
    let Ok(graphs) = codecs::saved_model::read(&bytes) else { return };
    for signed in graphs.iter().flat_map(|graph| &graph.signatures) {
        assert_eq!(signed.inputs.len(), signed.entry.signature.inputs.len());
        assert_eq!(signed.outputs.len(), signed.entry.signature.outputs.len());
    }
}

fn crates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The files of a folder that are no larger than `len_max` once they are unpacked.
fn files(folder: &str, len_max: usize, takes: fn(&str) -> bool) -> Vec<Vec<u8>> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(crates().join(folder))
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    paths.sort();
    let read = |path: PathBuf| {
        let name = path.file_name()?.to_string_lossy().into_owned();
        let bytes = std::fs::read(&path).ok().filter(|_| takes(&name))?;
        if !name.ends_with(".gz") {
            return Some(bytes);
        }
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(bytes.as_slice()).take(1 << 20).read_to_end(&mut plain).ok()?;
        Some(plain)
    };
    paths.into_iter().filter_map(read).filter(|bytes| bytes.len() <= len_max).collect()
}

pub(super) fn pickles() -> Vec<Vec<u8>> {
    let is_pickle = |name: &str| name.ends_with(".model") && !name.starts_with("skops");
    let folders = ["1.9.1", "1.0.2", "more/1.9.1", "texts/1.9.1"];
    let of = |folder: &&str| files(&format!("models/tests/fixtures/{folder}"), 16 << 10, is_pickle);
    let mut all: Vec<Vec<u8>> = folders.iter().flat_map(of).collect();
    for folder in ["xgboost-3.2.0", "lightgbm-4.3.0", "catboost-1.2.10"] {
        let is_wrapped = |name: &str| name.ends_with(".joblib");
        all.extend(files(&format!("models/tests/fixtures/boosted/{folder}"), 16 << 10, is_wrapped));
    }
    all
}

pub(super) fn skops_files() -> Vec<Vec<u8>> {
    let archives = files("models/tests/fixtures/1.9.1", 16 << 10, |name| name.starts_with("skops"));
    let mut all: Vec<Vec<u8>> = archives.iter().filter_map(|archive| unpacked(archive)).collect();
    all.extend(archives);
    let schema = |content: &str| [MEMBER, b"schema.json\n", content.as_bytes()].concat();
    all.push(schema(r#"{"__loader__":"DictNode","__id__":1,"key_types":{"content":[{"__class__":"str"}]},"content":{"a":{"__loader__":"JsonNode","content":"1.5","__id__":2}}}"#));
    all
}

pub(super) fn boosters() -> Vec<Vec<u8>> {
    let folders = [
        "xgboost-3.2.0",
        "xgboost-1.7.6",
        "xgboost-1.0.2",
        "lightgbm-4.7.0",
        "lightgbm-2.3.1",
        "catboost-1.2.10",
        "catboost-0.26",
    ];
    let of = |folder: &&str| {
        let folder = format!("models/tests/fixtures/boosted/{folder}");
        files(&folder, 24 << 10, |name| !name.contains("expected") && !name.contains("joblib"))
    };
    folders.iter().flat_map(of).collect()
}

pub(super) fn documents() -> Vec<Vec<u8>> {
    let of = |folder: &str| {
        files(&format!("models/tests/fixtures/pmml/4/{folder}"), 6 << 10, |name| name.ends_with(".pmml"))
    };
    [of("hand"), of("jpmml")].concat()
}

pub(super) fn graphs() -> Vec<Vec<u8>> {
    let mut all = files("onnx/tests/fixtures", 8 << 10, |name| name.ends_with(".onnx"));
    all.push(saved_model());
    all
}

/// A SavedModel with a signature that has rows, and one that is not served.
fn saved_model() -> Vec<u8> {
    let info = |out: &mut Vec<u8>, name: &[u8], kind: u64, sizes: &[u64]| {
        put_bytes(out, 1, name);
        put_int(out, 2, kind);
        put_message(out, 3, |out| {
            sizes.iter().for_each(|size| put_message(out, 2, |out| put_int(out, 1, *size)));
        });
    };
    let tensor = |out: &mut Vec<u8>, field, key: &[u8], name: &[u8]| {
        put_message(out, field, |out| {
            put_bytes(out, 1, key);
            put_message(out, 2, |out| info(out, name, 1, &[u64::MAX, 4]));
        });
    };
    let mut file = Vec::new();
    put_int(&mut file, 1, 1);
    put_message(&mut file, 2, |out| {
        put_message(out, 1, |out| {
            put_bytes(out, 4, b"serve");
            put_bytes(out, 5, b"2.17.0");
        });
        put_message(out, 5, |out| {
            put_bytes(out, 1, b"serving_default");
            put_message(out, 2, |out| {
                tensor(out, 1, b"x", b"serve_x:0");
                tensor(out, 2, b"y", b"Call:0");
                put_bytes(out, 3, b"tensorflow/serving/predict");
            });
        });
        put_message(out, 5, |out| {
            put_bytes(out, 1, b"sparse");
            put_message(out, 2, |out| {
                put_message(out, 1, |out| {
                    put_bytes(out, 1, b"x");
                    put_message(out, 2, |out| put_message(out, 4, |out| put_bytes(out, 1, b"v:0")));
                });
            });
        });
    });
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_members_is_the_archive_it_was_made_of() {
        let folder = "models/tests/fixtures/1.9.1";
        let [archive] = &files(folder, 16 << 10, |name| name == "skops_tree.model")[..] else {
            panic!("the fixture")
        };
        let text = unpacked(archive).expect("an archive");
        let again = super::archive(&text).expect("members");
        let load = |bytes: &[u8]| models::load_bytes("x", Bytes::copy_from_slice(bytes), &limits());
        let (one, other) = (load(archive).expect("a model"), load(&again).expect("the same model"));
        assert_eq!(format!("{:?}", one.estimator), format!("{:?}", other.estimator));
    }

    #[test]
    fn seeds_hold_every_format() {
        let begin =
            |seeds: &[Vec<u8>], start: &[u8]| seeds.iter().filter(|seed| seed.starts_with(start)).count();
        let boosters = boosters();
        for start in [&b"{\""[..], b"{L", b"binf", b"tree", b"CBM1"] {
            assert!(begin(&boosters, start) >= 2, "{}", start.escape_ascii());
        }
        let pickles = pickles();
        for start in [&[0x80][..], b"x", b"BZh", &[0x1f, 0x8b], &[0x5d, 0, 0], b"\xfd7zXZ", b"\x04\"M\x18"] {
            assert!(begin(&pickles, start) >= 1, "{}", start.escape_ascii());
        }
        assert!(begin(&skops_files(), MEMBER) >= 3);
        assert!(documents().len() >= 10);
    }
}
