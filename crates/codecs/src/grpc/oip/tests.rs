//! Laws of the messages of `GRPCInferenceService`.

use models::Outputs;
use proptest::prelude::*;

use super::*;
use crate::wire::{Fields, put_bytes, put_bytes_always, put_int, put_len, put_message, put_varint};
use models::Shape;

fn tensor(out: &mut Vec<u8>, name: &str, datatype: &str, dims: &[i64], contents: impl FnOnce(&mut Vec<u8>)) {
    put_message(out, 5, |out| {
        put_bytes(out, 1, name.as_bytes());
        put_bytes(out, 2, datatype.as_bytes());
        put_shape(out, dims.iter().copied());
        put_message(out, 5, contents);
    });
}

fn decoded(body: &[u8]) -> Result<Call, String> {
    let mut call = Call::new();
    decode_infer(body, &mut call).map_err(|error| error.to_string())?;
    Ok(call)
}

#[test]
fn raw_contents_stay_in_the_request_wherever_they_come() {
    let mut body = Vec::new();
    put_bytes_always(&mut body, 7, &1.5_f32.to_le_bytes());
    put_bytes(&mut body, 1, b"m");
    put_bytes(&mut body, 3, b"id");
    tensor(&mut body, "x", "FP32", &[1], |_| {});
    tensor(&mut body, "y", "FP16", &[2], |_| {});
    put_bytes_always(&mut body, 7, &[0, 0x3c, 0, 0xc0]);
    put_message(&mut body, 4, |out| {
        put_bytes(out, 1, b"priority");
        put_message(out, 2, |out| put_int(out, 5, 2));
    });
    let call = decoded(&body).expect("legal");
    let view = call.view(&body);
    assert_eq!((view.model(), view.id(), view.parameters().priority, view.is_raw()), ("m", "id", 2, true));
    assert_eq!(*view.tensor(0).expect("x").to_f64s().expect("numbers"), [1.5]);
    assert_eq!(*view.tensor(1).expect("y").to_f64s().expect("numbers"), [1.0, -2.0]);
    assert!(body.as_ptr_range().contains(&view.tensor(1).expect("y").bytes().as_ptr()));
}

#[test]
fn typed_contents_are_read_packed_and_one_by_one() {
    let floats: Vec<u8> = [1.5_f32, 2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let mut body = Vec::new();
    tensor(&mut body, "p", "FP32", &[2], |out| put_bytes(out, 6, &floats));
    tensor(&mut body, "u", "FP32", &[2], |out| {
        put_f32s(out, &[1.5, 2.0]);
    });
    tensor(&mut body, "i", "INT8", &[3], |out| {
        put_len(out, 2, 12);
        [1, (-128_i64) as u64, 127].iter().for_each(|x| put_varint(out, *x));
    });
    tensor(&mut body, "b", "BOOL", &[2], |out| put_bytes(out, 1, &[1, 0]));
    tensor(&mut body, "t", "BYTES", &[2], |out| {
        put_bytes_always(out, 8, b"");
        put_bytes_always(out, 8, b"\xff");
    });
    let call = decoded(&body).expect("legal");
    let view = call.view(&body);
    let numbers = |index: usize| view.tensor(index).expect("there").to_f64s().expect("numbers").to_vec();
    assert_eq!((numbers(0), numbers(1)), (vec![1.5, 2.0], vec![1.5, 2.0]));
    assert_eq!((numbers(2), numbers(3)), (vec![1.0, -128.0, 127.0], vec![1.0, 0.0]));
    let texts = view.tensor(4).expect("there");
    assert_eq!(texts.elements().collect::<Vec<_>>(), [Some(&b""[..]), Some(b"\xff")]);
    assert!(!view.is_raw());
}

fn put_f32s(out: &mut Vec<u8>, numbers: &[f32]) {
    numbers.iter().for_each(|number| crate::wire::put_f32(out, 6, *number));
}

#[test]
fn what_is_wrong_is_named() {
    let with = |datatype: &str, dims: &[i64], raws: &[&[u8]], contents: fn(&mut Vec<u8>)| {
        let mut body = Vec::new();
        tensor(&mut body, "x", datatype, dims, contents);
        raws.iter().for_each(|raw| put_bytes_always(&mut body, 7, raw));
        decoded(&body).map(|_| ()).expect_err("refused")
    };
    for (got, want) in [
        (with("FP32", &[2], &[&[0; 4]], |_| {}), "takes 8 bytes, got 4"),
        (with("FP32", &[1], &[&[0; 4], &[0; 4]], |_| {}), "expected 1 raw_input_contents"),
        (with("FP32", &[1], &[&[0; 4]], |out| put_f32s(out, &[1.0])), "both set"),
        (with("FP32", &[-1], &[], |_| {}), "negative"),
        (with("FP32", &[1; 9], &[], |_| {}), "more dimensions"),
        (with("FP32", &[i64::MAX, 4], &[], |_| {}), "too many elements"),
        (with("FP32", &[2_500_000_000], &[&[0; 4]], |_| {}), "takes 10000000000 bytes, got 4"),
        (with("nope", &[1], &[], |_| {}), "\"nope\" is none"),
        (with("INT32", &[1], &[], |out| put_f32s(out, &[1.0])), "do not lie in the field"),
        (with("INT8", &[1], &[], |out| put_int(out, 2, 300)), "out of the range of INT8"),
        (with("FP16", &[1], &[], |out| put_f32s(out, &[1.0])), "raw_input_contents only"),
        (with("BYTES", &[1], &[&[9, 0, 0, 0, 1]], |_| {}), "do not hold"),
    ] {
        assert!(got.contains(want), "{want}: {got}");
    }
    assert!(decoded(&[0x2a, 0xff, 0xff, 0x7f]).map(|_| ()).expect_err("cut").contains("ends within a field"));
}

/// An answer as a request: outputs and inputs have the same fields, their raw contents other numbers.
fn as_request(answer: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for field in Fields::of(answer) {
        let field = field.expect("legal");
        let number = if field.number == 6 { 7 } else { field.number };
        put_bytes_always(&mut out, number, field.bytes().expect("bytes"));
    }
    out
}

proptest! {
    #[test]
    fn tensors_survive_raw_and_typed(numbers: Vec<i64>, floats: Vec<f64>, raw: bool) {
        let mut outputs = Outputs::new();
        let shape = |count| Shape::new(&[count]).expect("small");
        outputs.numbers::<i64>(shape(numbers.len())).copy_from_slice(&numbers);
        outputs.numbers::<f64>(shape(floats.len())).copy_from_slice(&floats);
        let texts: Vec<String> = numbers.iter().map(i64::to_string).collect();
        outputs.texts(shape(texts.len()), texts.iter().map(String::as_str));
        let named = ["a", "b", "c"].into_iter().zip(outputs.tensors());
        let mut out = Vec::new();
        encode_infer(&mut out, Head { model: "m", version: "2", id: "" }, named, raw);
        let body = as_request(&out);
        let call = decoded(&body).expect("legal");
        let view = call.view(&body);
        prop_assert_eq!(view.version_text(), "2");
        for (index, was) in outputs.tensors().iter().enumerate() {
            let is = view.tensor(index).expect("there");
            prop_assert_eq!(is.dims(), was.dims());
            prop_assert_eq!(is.bytes(), was.bytes());
        }
    }

    #[test]
    fn bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0_usize..100, byte: u8) {
        let mut call = Call::new();
        let _ = decode_infer(&bytes, &mut call);
        let mut body = Vec::new();
        put_bytes(&mut body, 1, b"m");
        tensor(&mut body, "x", "INT16", &[2], |out| {
            put_int(out, 2, 5);
            put_int(out, 2, 6);
        });
        put_bytes_always(&mut body, 7, b"abcd");
        if let Some(place) = body.get_mut(at) {
            *place = byte;
        }
        let _ = decode_infer(&body, &mut call);
        prop_assert!(call.own.len() <= 8 * body.len().max(bytes.len()) + 64);
        let _ = (decode_name(&bytes), decode_index(&bytes), decode_load(&bytes));
    }
}
