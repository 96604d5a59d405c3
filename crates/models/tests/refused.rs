//! Model files of every format that were made to hurt: each is refused with the name or the place of what is wrong,
//! within the limits, and what they name is not executed.
//!
//! Not here: damage by chance (`crates/fuzz`), the sandbox of pickles case by case (`pickle::tests`).

use std::io::{Cursor, Write};
use std::path::Path;

use bytes::Bytes;
use models::{Limits, load_bytes};

const LIMITS: Limits = Limits { bytes_max: 1 << 20, values_max: 100_000, depth_max: 64 };

/// Each case: what it is, the file, what the error has to say.
type Case = (&'static str, Vec<u8>, &'static [&'static str]);

fn check(cases: Vec<Case>) {
    let mut wrong = Vec::new();
    for (name, file, wanted) in cases {
        let said = match load_bytes("model", Bytes::from(file), &LIMITS) {
            Ok(_) => "it loads".to_owned(),
            Err(error) => error.to_string(),
        };
        if !wanted.iter().all(|word| said.contains(word)) {
            wrong.push(format!("{name}: expected {wanted:?}, got {said:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn zlib(plain: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    packer.write_all(plain).expect("memory");
    packer.finish().expect("memory")
}

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)).expect("a fixture")
}

/// What Python would run when it reads the pickle.
fn command(text: &str) -> Vec<u8> {
    let len = [text.len() as u8];
    [&b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c"[..], &len, text.as_bytes(), b"\x85R."].concat()
}

#[test]
fn pickles_that_name_code_are_refused_and_nothing_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let mark = folder.path().join("mark");
    let evil = command(&format!("touch {}", mark.display()));
    let in_array = b"\x80\x04\x8c\x16numpy._core.multiarray\x8c\x0c_reconstruct\x93\x8c\x05posix\x8c\x06system\x93K\x00\x85C\x01b\x87R.".to_vec();
    check(vec![
        ("pickle", evil.clone(), &["posix.system", "offset", "nothing was executed"]),
        ("joblib", zlib(&evil), &["posix.system", "offset", "nothing was executed"]),
        (
            "cloudpickle",
            b"\x80\x04\x8c\x17cloudpickle.cloudpickle\x8c\x0e_make_function\x93.".to_vec(),
            &["_make_function"],
        ),
        ("within an array", in_array, &["posix.system"]),
        (
            "a class",
            b"\x80\x04\x8c\x14sklearn.neighbors._x\x8c\x05Thing\x93)\x81}b.".to_vec(),
            &["sklearn.neighbors._x.Thing"],
        ),
        ("eval", b"cbuiltins\neval\n(S'1'\ntR.".to_vec(), &["builtins.eval"]),
        ("an opcode", b"\x80\x04\xff.".to_vec(), &["0xff", "offset 2"]),
        ("10 GB", b"\x80\x04\x8d\0\0\0\x80\x02\0\0\0.".to_vec(), &["truncated", "10737418240", "offset"]),
        ("a bomb", zlib(&vec![0; 8 << 20]), &["unpacked file", "1048576"]),
        ("cut packing", zlib(&fixture("1.9.1/pickle_4.model"))[..400].to_vec(), &["truncated", "packed"]),
    ]);
    assert!(!mark.exists());
}

fn skops(members: &[(&str, &[u8])], method: zip::CompressionMethod) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in members {
        let options = zip::write::SimpleFileOptions::default().compression_method(method);
        writer.start_file(*name, options).expect("memory");
        writer.write_all(bytes).expect("memory");
    }
    writer.finish().expect("memory").into_inner()
}

fn schema(text: &str) -> Vec<u8> {
    skops(&[("schema.json", text.as_bytes())], zip::CompressionMethod::Stored)
}

fn npy(head: &str, body: &[u8]) -> Vec<u8> {
    let len = (head.len() as u16).to_le_bytes();
    let file = [b"\x93NUMPY\x01\0", &len[..], head.as_bytes(), body].concat();
    let node = r#"{"__loader__":"NdArrayNode","type":"numpy","file":"a.npy"}"#;
    skops(&[("schema.json", node.as_bytes()), ("a.npy", &file)], zip::CompressionMethod::Stored)
}

#[test]
fn skops_files_are_refused_by_name() {
    let function = r#"{"__loader__":"FunctionNode","__module__":"builtins","__class__":"function","content":{"module_path":"os","function":"system"}}"#;
    let bomb = skops(&[("schema.json", &[b' '; 8 << 20])], zip::CompressionMethod::Deflated);
    check(vec![
        ("a function", schema(function), &["os.system", "nothing was executed"]),
        (
            "a class",
            schema(r#"{"__loader__":"ObjectNode","__module__":"evil","__class__":"Thing","content":{}}"#),
            &["evil.Thing"],
        ),
        ("a method", schema(r#"{"__loader__":"MethodNode"}"#), &["MethodNode"]),
        ("no loader", schema("[]"), &["a value without loader"]),
        ("no schema", skops(&[("data.txt", b"")], zip::CompressionMethod::Stored), &["without schema.json"]),
        ("no JSON", schema("{"), &["malformed skops", "line 1"]),
        (
            "a way out",
            schema(r#"{"__loader__":"BytesNode","file":"../../etc/passwd"}"#),
            &["../../etc/passwd"],
        ),
        ("deep", schema(&r#"{"__loader__":"ListNode","content":["#.repeat(10_000)), &["recursion"]),
        (
            "objects in an array",
            npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}\n", b"x"),
            &["numpy object array"],
        ),
        (
            "10 GB in an array",
            npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1342177280,)}\n", b"x"),
            &["truncated", "10737418240"],
        ),
        (
            "more than is counted",
            npy("{'descr': '<f8', 'fortran_order': False, 'shape': (4294967296, 4294967296, 16)}\n", b""),
            &["truncated: an array"],
        ),
        ("a bomb", bomb, &["unpacked archive", "1048576"]),
    ]);
}

#[test]
fn boosters_are_refused_by_name_or_place() {
    let json = |booster: &str| {
        format!(
            "{{\"learner\":{{\"gradient_booster\":{booster},\"objective\":{{\"name\":\"reg:squarederror\"}},\"learner_model_param\":{{\"num_feature\":\"1\"}}}}}}"
        )
    };
    let deep = format!("{{\"learner\":{}", "[".repeat(100_000));
    let binary = fixture("boosted/xgboost-1.0.2/base_score.model");
    check(vec![
        ("XGBoost's booster", json("{\"name\":\"gbmystery\",\"model\":{}}").into_bytes(), &["gbmystery"]),
        ("XGBoost's JSON", b"{\"learner\": nul}".to_vec(), &["malformed JSON", "offset 12"]),
        ("XGBoost's JSON, deep", deep.into_bytes(), &["nesting of the document"]),
        ("UBJSON of 10 GB", b"{L\0\0\0\0\0\0\0\x07learner[$d#L\0\0\0\x02\x80\0\0\0".to_vec(), &["10737418240", "offset 30"]),
        ("UBJSON below zero", b"{l\xff\xff\xff\xffa".to_vec(), &["UBJSON", "offset"]),
        ("UBJSON's marker", b"{i\x01a?}".to_vec(), &["UBJSON", "offset 5"]),
        ("XGBoost's old form, cut", binary[..binary.len() / 2].to_vec(), &["truncated", "offset"]),
        ("LightGBM's objective", b"tree\nversion=v4\nnum_tree_per_iteration=1\nmax_feature_idx=0\nobjective=mystery\n\nend of trees\n".to_vec(), &["mystery"]),
        ("LightGBM's number", b"tree\nversion=v4\nmax_feature_idx=99999999999999999999\nobjective=regression\n\nend of trees\n".to_vec(), &["max_feature_idx"]),
        ("CatBoost's JSON", b"{\"oblivious_trees\":[{\"splits\":[{\"split_index\":99}],\"leaf_values\":[1,2]}],\"features_info\":{}}".to_vec(), &["99"]),
        ("cbm of 4 GB", b"CBM1\xff\xff\xff\xff".to_vec(), &["4 GB"]),
        ("cbm, cut", b"CBM1\0\0\0\x7fabc".to_vec(), &["truncated", "offset 8"]),
        ("cbm, a place too far", b"CBM1\x08\0\0\0\xff\xff\xff\x0f\0\0\0\0".to_vec(), &["offset"]),
    ]);
}

#[test]
fn a_wrong_tree_is_named() {
    let tree = |left: &str, feature: &str| {
        format!(
            "tree\nversion=v4\nnum_tree_per_iteration=1\nmax_feature_idx=0\nobjective=regression\n\nTree=0\n\
             num_leaves=3\nsplit_feature={feature}\nthreshold=0.5 0.5\ndecision_type=2 2\nleft_child={left}\n\
             right_child=-2 -3\nleaf_value=1 2 3\n\nend of trees\n"
        )
        .into_bytes()
    };
    assert!(load_bytes("model", tree("1 -1", "0 0").into(), &LIMITS).is_ok());
    check(vec![
        ("a loop", tree("0 -1", "0 0"), &["tree 0", "form no tree"]),
        ("a child too far", tree("7 -1", "0 0"), &["tree 0", "does not exist"]),
        ("a leaf too far", tree("1 -9", "0 0"), &["tree 0", "does not exist"]),
        ("a column too far", tree("1 -1", "0 3"), &["tree 0", "column 3"]),
        ("too few", tree("1", "0 0"), &["tree 0", "left_child has 1"]),
    ]);
    let set = |threshold: &str| {
        format!(
            "tree\nversion=v4\nnum_tree_per_iteration=1\nmax_feature_idx=0\nobjective=regression\n\nTree=0\n\
             num_leaves=2\nnum_cat=1\nsplit_feature=0\nthreshold={threshold}\ndecision_type=1\nleft_child=-1\n\
             right_child=-2\nleaf_value=1 2\ncat_boundaries=0 1\ncat_threshold=6\n\nend of trees\n"
        )
        .into_bytes()
    };
    assert!(load_bytes("model", set("0").into(), &LIMITS).is_ok());
    check(vec![
        ("a set too far", set("1"), &["tree 0", "categories 1 does not exist"]),
        ("a set much too far", set("1e300"), &["tree 0", "does not exist"]),
        ("a set below zero", set("-1"), &["tree 0", "categories -1 does not exist"]),
    ]);
}

#[test]
fn documents_are_refused_by_name_or_place() {
    let pmml = |body: &str| {
        format!("<PMML version=\"4.4\" xmlns=\"http://www.dmg.org/PMML-4_4\"><DataDictionary><DataField name=\"x\" optype=\"continuous\" dataType=\"double\"/><DataField name=\"y\" optype=\"continuous\" dataType=\"double\"/></DataDictionary>{body}</PMML>").into_bytes()
    };
    let schema = "<MiningSchema><MiningField name=\"x\"/><MiningField name=\"y\" usageType=\"target\"/></MiningSchema>";
    let laughs =
        "<!DOCTYPE a [<!ENTITY a \"ha\"><!ENTITY b \"&a;&a;&a;&a;\">]><PMML version=\"4.4\">&b;</PMML>";
    let outside =
        "<?xml version=\"1.0\"?><!DOCTYPE p [<!ENTITY f SYSTEM \"file:///etc/passwd\">]><PMML>&f;</PMML>";
    check(vec![
        ("entities", laughs.into(), &["document type"]),
        ("a file", outside.into(), &["document type"]),
        ("another root", b"<?xml version=\"1.0\"?><svg/>".to_vec(), &["svg"]),
        ("an open element", b"<PMML version=\"4.4\"><Header></PMML>".to_vec(), &["malformed XML", "offset"]),
        ("deep", format!("<PMML>{}", "<a>".repeat(100_000)).into_bytes(), &["XML"]),
        ("another model", pmml("<NeuralNetwork functionName=\"regression\"/>"), &["NeuralNetwork"]),
        (
            "a tree's field",
            pmml(&format!(
                "<TreeModel functionName=\"regression\">{schema}<Node score=\"1\"><True/><Node score=\"1\"><SimplePredicate field=\"z\" operator=\"equal\" value=\"1\"/></Node></Node></TreeModel>"
            )),
            &["z"],
        ),
        (
            "a number",
            pmml(&format!(
                "<RegressionModel functionName=\"regression\">{schema}<RegressionTable intercept=\"one\"/></RegressionModel>"
            )),
            &["RegressionTable", "line 1", "one is no number"],
        ),
    ]);
}

#[test]
fn other_files_are_refused_by_what_they_are() {
    check(vec![
        ("nothing", Vec::new(), &["the file is empty"]),
        ("Keras", b"\x89HDF\r\n\x1a\n".to_vec(), &["HDF5"]),
        ("a program", b"\x7fELF\x02\x01".to_vec(), &["7f 45 4c 46"]),
        ("PyTorch", skops(&[("m/data.pkl", b"")], zip::CompressionMethod::Stored), &["PyTorch"]),
        ("above the limit", vec![b'{'; (1 << 20) + 1], &["file in bytes"]),
    ]);
}
