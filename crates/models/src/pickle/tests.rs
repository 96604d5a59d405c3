//! Laws of the reader, on hand-made pickles.

use bytes::Bytes;

use super::read;
use crate::error::LoadError;
use crate::graph::Node;
use crate::limits::Limits;

fn small() -> Limits {
    Limits { bytes_max: 1 << 20, values_max: 10_000, depth_max: 64 }
}

fn refused(file: &[u8]) -> String {
    read(&Bytes::copy_from_slice(file), &small()).expect_err("refused").to_string()
}

#[test]
fn code_is_named_and_not_run() {
    let cases: [(&[u8], &str); 7] = [
        (b"cposix\nsystem\n(S'id'\ntR.", "refused: posix.system"),
        (b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x02id\x85R.", "refused: posix.system"),
        (b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.", "refused: builtins.eval"),
        (b"(S'id'\niposix\nsystem\n.", "refused: posix.system"),
        (
            b"\x80\x04\x8c\x17cloudpickle.cloudpickle\x8c\x0e_make_function\x93.",
            "carries Python code of its own",
        ),
        (b"c__main__\nModel\n.", "__main__.Model: the class was defined in a script"),
        // A known class called as what it is not: a state for a global.
        (b"csklearn.tree\nX\n}b.", "takes no state"),
    ];
    for (file, want) in cases {
        let got = refused(file);
        assert!(got.contains(want), "{got}");
    }
}

#[test]
fn what_a_file_claims_is_bounded_by_what_it_holds() {
    let deep: Vec<u8> = [b'('; 1000].into_iter().chain(*b".").collect();
    let many: Vec<u8> = [b']'; 20_000].into_iter().chain(*b".").collect();
    // One large tuple in the memo, copied by a hundred calls of five bytes each.
    let mut copies = b"\x80\x04cbuiltins\nlist\n\x94(".to_vec();
    copies.extend([b'N'; 1000]);
    copies.extend(b"t\x94");
    for _ in 0..100 {
        copies.extend(b"h\x00h\x01\x85R0");
    }
    copies.extend(b"N.");
    // A stack of references costs a byte each and no value.
    let stack: Vec<u8> = [b'N'; 20_000].into_iter().chain(*b".").collect();
    let cases: [(&[u8], &str); 9] = [
        (b"\x80\x04B\xff\xff\xff\xff.", "truncated: bytes"),
        (b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\xff.", "truncated: bytes"),
        (b"\x80\x02X\xff\xff\xff\x7fabc", "truncated: a text"),
        (b"Nr\xff\xff\xff\xff.", "memo index"),
        (b"Np4000000000\n.", "memo index"),
        (&deep, "nesting of containers"),
        (&many, "number of values"),
        (&copies, "copies of containers"),
        (&stack, "stack of the pickle"),
    ];
    for (file, want) in cases {
        let got = refused(file);
        assert!(got.contains(want), "{want}: {got}");
    }
}

#[test]
fn broken_programs_are_errors() {
    let cases: [(&[u8], &str); 12] = [
        (b"", "truncated"),
        (b".", "underflow"),
        (b"N", "truncated"),
        (b"t.", "no mark"),
        (b"N(R.", "underflow"),
        (b"h\x05.", "memo entry 5"),
        (b"\x80\x06N.", "protocol 6"),
        (b"\xfe.", "unknown opcode 0xfe"),
        (b"Pabc\n.", "persistent ids"),
        (b"\x97.", "out-of-band"),
        (b"}Ns.", "underflow"),
        (b"NNR.", "it is no class"),
    ];
    for (file, want) in cases {
        let got = refused(file);
        assert!(got.contains(want), "{want}: {got}");
    }
}

#[test]
fn arrays_must_match_their_shape() {
    let mut file =
        b"cnumpy.core.multiarray\n_reconstruct\n(tR(K\x01(K\x05tcnumpy\ndtype\n(S'f8'\ntR\x89".to_vec();
    file.extend(b"U\x03abctb.");
    assert!(refused(&file).contains("has other data") || refused(&file).contains("without data"));
}

#[test]
fn plain_values_of_every_protocol_are_read() {
    let cases: [(&[u8], Node); 8] = [
        (b"I42\n.", Node::Int(42)),
        (b"I01\n.", Node::Bool(true)),
        (b"L-7L\n.", Node::Int(-7)),
        (b"F1.5\n.", Node::Float(1.5)),
        (b"\x80\x02\x8a\x02\x00\xff.", Node::Int(-256)),
        (b"\x80\x02G?\xf8\x00\x00\x00\x00\x00\x00.", Node::Float(1.5)),
        (b"V\\u00e9\n.", Node::Text("é".into())),
        (b"\x80\x04\x95\x04\x00\x00\x00\x00\x00\x00\x00\x8c\x01a\x94.", Node::Text("a".into())),
    ];
    for (file, want) in cases {
        let pickled = read(&Bytes::copy_from_slice(file), &small()).expect("legal");
        assert_eq!(pickled.graph.root().node(), &want);
    }
}

#[test]
fn cycles_are_data() {
    // A list that contains itself.
    let pickled = read(&Bytes::from_static(b"\x80\x04]\x94h\x00a."), &small()).expect("legal");
    let root = pickled.graph.root();
    assert_eq!(root.items().expect("a list")[0].id(), root.id());
}

#[test]
fn errors_say_where() {
    let error = read(&Bytes::from_static(b"NNcos\nsystem\n."), &small()).expect_err("refused");
    assert!(matches!(error, LoadError::Refused { offset: 2, .. }), "{error}");
}
