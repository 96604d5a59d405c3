//! Broken and hostile files: each is refused with a reason, none makes the process fail or grow.

use bytes::Bytes;
use onnx::{Onnx, is_onnx};
use proptest::prelude::*;

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

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn changed_bytes_never_panic(
        which in prop::sample::select(vec!["forest_two.onnx", "logistic.onnx", "columns.onnx", "modes.onnx", "free.onnx", "imputed.onnx"]),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = fixture(which);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let _ = Onnx::load(&bytes.into());
    }
}
