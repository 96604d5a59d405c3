//! Broken and hostile files: each is refused with the name or the place of what is wrong, none makes the process fail
//! or grow.
//!
//! Not here: damage by chance (`crates/fuzz`).

use bytes::Bytes;
use onnx::{Onnx, is_onnx};

fn fixture(name: &str) -> Vec<u8> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    std::fs::read(path).expect("the fixture is there")
}

#[test]
fn a_file_cut_off_anywhere_is_refused_or_a_model() {
    let whole = fixture("forest_two.onnx");
    for end in (0..whole.len()).step_by(7) {
        let _ = Onnx::load(&Bytes::copy_from_slice(&whole[..end]));
    }
    assert!(Onnx::load(&Bytes::copy_from_slice(&whole[..whole.len() / 2])).is_err());
}

#[test]
fn other_files_are_not_taken_for_models() {
    for other in [&b""[..], b"\x08", b"\x80\x05K\x01.", b"{}", b"tree\nversion=v4\n", b"\x08\x07\x12\x04none"]
    {
        assert!(!is_onnx(&Bytes::copy_from_slice(other)), "{other:?}");
    }
    assert!(is_onnx(&fixture("tree.onnx").into()));
}

fn int(number: u8, mut value: u64) -> Vec<u8> {
    let mut bytes = vec![number << 3];
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn part(number: u8, parts: &[&[u8]]) -> Vec<u8> {
    let inner = parts.concat();
    let mut bytes = int(number, inner.len() as u64);
    bytes[0] |= 2;
    bytes.extend(inner);
    bytes
}

/// A file whose graph has an input `x` of four columns, an output `y` and these parts.
fn file(parts: &[Vec<u8>]) -> Vec<u8> {
    let dims = [part(1, &[&part(2, &[b"N"])]), part(1, &[&int(1, 4)])].concat();
    let tensor = part(2, &[&part(1, &[&int(1, 1), &part(2, &[&dims])])]);
    let given = |number, name: &[u8]| part(number, &[&part(1, &[name]), &tensor]);
    let graph = [parts.concat(), given(11, b"x"), given(12, b"y")].concat();
    let opset = part(8, &[&part(1, &[b""]), &int(2, 17)]);
    [int(1, 8), part(7, &[&graph]), opset].concat()
}

fn node(op: &[u8], domain: &[u8], more: &[u8]) -> Vec<u8> {
    part(
        1,
        &[
            &part(1, &[b"x"]),
            &part(2, &[b"y"]),
            &part(3, &[b"first"]),
            &part(4, &[op]),
            &part(7, &[domain]),
            more,
        ],
    )
}

#[test]
fn hostile_graphs_are_refused_by_name() {
    assert!(Onnx::load(&file(&[node(b"Identity", b"", b"")]).into()).is_ok(), "the frame is sound");
    let weights = |more: &[u8]| part(5, &[&int(2, 1), &part(8, &[b"w"]), more]);
    let outside = part(13, &[&part(1, &[b"location"]), &part(2, &[b"/etc/passwd"])]);
    let mut deep = node(b"Identity", b"", b"");
    for _ in 0..100 {
        deep = node(b"If", b"", &part(5, &[&part(1, &[b"then_branch"]), &part(6, &[&deep]), &int(20, 5)]));
    }
    let cases: Vec<(&str, Vec<u8>, &[&str])> = vec![
        ("an operator of nobody", file(&[node(b"Run", b"evil", b"")]), &["evil.Run", "first"]),
        ("Python", file(&[node(b"PyOp", b"ai.onnx.contrib", b"")]), &["PyOp"]),
        ("functions", [file(&[]), vec![0xca, 1, 0]].concat(), &["functions of its own"]),
        (
            "weights in another file",
            file(&[weights(&[outside, int(14, 1)].concat()), node(b"Identity", b"", b"")]),
            &["\"w\""],
        ),
        ("weights of 10 GB", file(&[weights(&int(1, 10 << 30)), node(b"Identity", b"", b"")]), &["\"w\""]),
        ("deep", file(&[deep]), &["nesting of ONNX graphs"]),
        ("a part too long", [int(1, 8), vec![0x3a, 0xff, 0xff, 0xff, 0x7f]].concat(), &["offset"]),
    ];
    for (name, bytes, wanted) in cases {
        let error = Onnx::load(&bytes.into()).expect_err(name).to_string();
        for word in wanted {
            assert!(error.contains(word), "{name}: {word:?} is not in {error:?}");
        }
    }
}

#[test]
fn a_small_file_that_asks_for_much_is_refused_by_the_name_of_its_node() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).expect("the files are there") {
        let path = entry.expect("an entry").path();
        let error = Onnx::load(&std::fs::read(&path).expect("readable").into());
        let error = error.expect_err(&path.display().to_string()).to_string();
        assert!(error.contains("\"last\""), "{}: {error}", path.display());
        count += 1;
    }
    assert!(count >= 10, "the files are there");
}

#[test]
fn a_row_of_more_than_a_run_may_hold_is_refused_before_it_is_made() {
    let bounds = onnx::Bounds { cells: 4 << 20, work: 1 << 32 };
    let error = Onnx::load_within(&include_bytes!("wide_row.onnx").as_slice().into(), bounds);
    let error = error.expect_err("6,325,442 columns").to_string();
    assert!(error.contains("cells of a row") && error.contains(&bounds.cells.to_string()), "{error}");
}
