//! Laws of TensorFlow Serving's messages.

use models::Outputs;
use proptest::prelude::*;

use super::answers::put_spec;
use super::*;
use crate::call::GROWTH_MAX;
use crate::wire::{Fields, put_bytes, put_bytes_always, put_f32, put_int, put_message};

fn put_dims(out: &mut Vec<u8>, dims: &[i64]) {
    put_message(out, 2, |out| {
        dims.iter().for_each(|dim| put_message(out, 2, |out| put_int(out, 1, *dim as u64)));
    });
}

fn request(dtype: u64, dims: &[i64], values: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut body = Vec::new();
    put_spec(&mut body, 1, Answered { name: "m", version: Some(7), signature: "s" });
    put_message(&mut body, 2, |out| {
        put_bytes(out, 1, b"x");
        put_message(out, 2, |out| {
            put_int(out, 1, dtype);
            put_dims(out, dims);
            values(out);
        });
    });
    put_bytes(&mut body, 3, b"y");
    body
}

fn decoded(body: &[u8]) -> Result<Call, String> {
    let mut call = Call::new();
    decode_predict(body, &mut call).map_err(|error| error.to_string())?;
    Ok(call)
}

#[test]
fn tensors_come_as_bytes_packed_one_by_one_or_repeated() {
    let floats: Vec<u8> = [1.5_f32, 2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let bodies = [
        (request(1, &[2], |out| put_bytes(out, 4, &floats)), vec![1.5, 2.0]),
        (request(1, &[2], |out| put_bytes(out, 5, &floats)), vec![1.5, 2.0]),
        (request(1, &[1, 2], |out| [1.5, 2.0].iter().for_each(|x| put_f32(out, 5, *x))), vec![1.5, 2.0]),
        (request(1, &[3], |out| put_bytes(out, 5, &floats)), vec![1.5, 2.0, 2.0]),
        (request(3, &[2], |out| put_int(out, 7, (-3_i64) as u64)), vec![-3.0, -3.0]),
        (request(9, &[2], |_| {}), vec![0.0, 0.0]),
        (request(19, &[1], |out| put_int(out, 13, 0x3c00)), vec![1.0]),
    ];
    for (body, want) in bodies {
        let call = decoded(&body).expect("legal");
        let view = call.view(&body);
        assert_eq!((view.model(), view.version(), view.signature()), ("m", Some(7), "s"));
        assert_eq!(view.wanted().map(|(name, _)| name).collect::<Vec<_>>(), ["y"]);
        assert_eq!(*view.tensor(0).expect("x").to_f64s().expect("numbers"), want[..]);
    }
    let body = request(7, &[3], |out| {
        put_bytes_always(out, 8, b"a");
        put_bytes_always(out, 8, b"bc");
    });
    let call = decoded(&body).expect("legal");
    let texts = call.view(&body).tensor(0).expect("x").to_static();
    assert_eq!(texts.texts().collect::<Vec<_>>(), [Some("a"), Some("bc"), Some("bc")]);
}

#[test]
fn what_is_wrong_is_named() {
    for (body, want) in [
        (request(1, &[10_000_000_000], |out| put_f32(out, 5, 1.0)), "but only 1 values are there"),
        (request(1, &[10_000_000_000], |_| {}), "but only 0 values are there"),
        (request(1, &[1], |out| put_bytes(out, 5, &[0; 8])), "takes 4 bytes, got 8"),
        (request(1, &[1], |out| put_bytes(out, 4, &[0; 3])), "takes 4 bytes, got 3"),
        (request(1, &[-1], |_| {}), "negative"),
        (request(1, &[1; 9], |_| {}), "more dimensions"),
        (request(8, &[1], |_| {}), "the type 8 is not served"),
        (request(0, &[1], |_| {}), "no dtype"),
        (request(4, &[1], |out| put_int(out, 7, 256)), "out of the range of UINT8"),
        (request(7, &[1], |out| put_bytes(out, 4, b"abc")), "string_val"),
    ] {
        let got = decoded(&body).map(|_| ()).expect_err(want);
        assert!(got.contains(want), "{want}: {got}");
    }
}

#[test]
fn examples_become_inputs_by_name() {
    let feature = |out: &mut Vec<u8>, name: &str, list: u32, write: &dyn Fn(&mut Vec<u8>)| {
        put_message(out, 1, |out| {
            put_bytes(out, 1, name.as_bytes());
            put_message(out, 2, |out| put_message(out, list, write));
        });
    };
    let mut body = Vec::new();
    put_spec(&mut body, 1, Answered { name: "m", version: None, signature: "" });
    put_message(&mut body, 2, |out| {
        put_message(out, 2, |out| {
            for number in [1.0_f32, 2.5] {
                put_message(out, 1, |out| {
                    put_message(out, 1, |out| {
                        feature(out, "w", 2, &|out| put_bytes(out, 1, &number.to_le_bytes()));
                        feature(out, "other", 1, &|out| put_bytes(out, 1, b"x"));
                    });
                });
            }
            put_message(out, 2, |out| {
                put_message(out, 1, |out| feature(out, "h", 3, &|out| put_int(out, 1, 4)));
            });
        });
    });
    let table = Signature {
        inputs: vec![TensorSpec::new("t", DType::F64, [Some(2)])],
        outputs: Vec::new(),
        columns: vec!["w".into(), "h".into()],
    };
    let mut call = Call::new();
    let input = decode_target(&body, &mut call).expect("legal").input;
    decode_examples(input, &body, &table, &mut call).expect("legal");
    let view = call.view(&body);
    assert_eq!((view.model(), view.dims(0)), ("m", &[2, 2][..]));
    assert_eq!(*view.tensor(0).expect("t").to_f64s().expect("numbers"), [1.0, 4.0, 2.5, 4.0]);
    let missing = Signature { columns: vec!["w".into(), "z".into()], ..table };
    let got = decode_examples(input, &body, &missing, &mut call).expect_err("missing").to_string();
    assert!(got.contains("\"z\": example 0 lacks"), "{got}");
}

#[test]
fn reload_requests_carry_policies_and_labels() {
    let mut body = Vec::new();
    put_message(&mut body, 1, |out| {
        put_message(out, 1, |out| {
            put_message(out, 1, |out| {
                put_bytes(out, 1, b"m");
                put_bytes(out, 2, b"/x");
                put_message(out, 7, |out| put_message(out, 102, |out| put_bytes(out, 1, &[42, 43])));
                put_message(out, 8, |out| {
                    put_bytes(out, 1, b"stable");
                    put_int(out, 2, 42);
                });
            });
        });
    });
    let models = decode_reload(&body).expect("legal").expect("a list");
    assert_eq!(models[0].policy, VersionPolicy::Specific(vec![42, 43]));
    assert_eq!(models[0].labels["stable"], 42);
    assert_eq!(decode_reload(&[]), Ok(None));
}

#[test]
fn what_repetition_makes_takes_little_more_memory_than_it_is_long() {
    let text = [7; 60];
    let count = EXPANDED_MAX / (4 + text.len());
    let mut body = request(7, &[count as i64], |out| put_bytes(out, 8, &text));
    body.extend(request(7, &[1], |out| put_bytes(out, 8, &text)));
    let call = decoded(&body).expect("legal");
    assert!(call.own.len() > EXPANDED_MAX);
    assert!(call.own.room() <= EXPANDED_MAX + GROWTH_MAX);
    let view = call.view(&body);
    let tensor = view.tensor(0).expect("x");
    assert_eq!(tensor.elements().filter(|element| *element == Some(&text[..])).count(), count);
}

proptest! {
    #[test]
    fn tensors_survive(numbers: Vec<i64>, floats: Vec<f32>, small: Vec<i8>) {
        let mut outputs = Outputs::new();
        let shape = |count| Shape::new(&[count]).expect("small");
        outputs.numbers::<i64>(shape(numbers.len())).copy_from_slice(&numbers);
        outputs.numbers::<f32>(shape(floats.len())).copy_from_slice(&floats);
        outputs.numbers::<i8>(shape(small.len())).copy_from_slice(&small);
        let mut answer = Vec::new();
        let spec = Answered { name: "m", version: Some(1), signature: "s" };
        encode_predict(&mut answer, spec, ["a", "b", "c"].into_iter().zip(outputs.tensors()));
        // The answer's fields 1 and 2 are the request's 2 and 1.
        let mut body = Vec::new();
        for field in Fields::of(&answer) {
            let field = field.expect("legal");
            put_bytes_always(&mut body, 3 - field.number, field.bytes().expect("bytes"));
        }
        let call = decoded(&body).expect("legal");
        for (index, was) in outputs.tensors().iter().enumerate() {
            let is = call.view(&body).tensor(index).expect("there").to_static();
            prop_assert_eq!(is.bytes(), was.bytes());
        }
    }

    #[test]
    fn bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0_usize..60, byte: u8) {
        let mut call = Call::new();
        let mut body = request(1, &[2, 3], |out| put_f32(out, 5, 1.0));
        if let Some(place) = body.get_mut(at) {
            *place = byte;
        }
        let table = Signature { inputs: Vec::new(), outputs: Vec::new(), columns: Vec::new() };
        for bytes in [&bytes, &body] {
            let _ = decode_predict(bytes, &mut call);
            prop_assert!(call.own.len() <= EXPANDED_MAX + 8 * bytes.len() + 64);
            let _ = decode_target(bytes, &mut call);
            let _ = decode_examples(bytes, bytes, &table, &mut call);
            let _ = (decode_multi(bytes).is_ok(), decode_reload(bytes).is_ok(), metadata_fields(bytes).is_ok());
        }
    }
}
