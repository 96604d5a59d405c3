//! Laws of the V2 codec.

use models::{DType, Outputs, Shape, Tensor};
use proptest::prelude::*;

use super::*;

fn decoded(body: &[u8], json_len: Option<usize>) -> Result<Call, String> {
    let mut call = Call::new();
    decode(body, json_len, &mut call).map_err(|error| error.to_string())?;
    Ok(call)
}

fn one(body: &str) -> Result<Tensor<'static>, String> {
    let call = decoded(body.as_bytes(), None)?;
    let tensor = call.view(body.as_bytes()).tensor(0).expect("one input");
    Ok(tensor.to_static())
}

#[test]
fn every_datatype_is_parsed_to_itself() {
    let case = |datatype: &str, data: &str| {
        one(&format!(r#"{{"inputs":[{{"name":"x","shape":[2],"datatype":"{datatype}","data":{data}}}]}}"#))
            .expect(datatype)
    };
    assert_eq!(case("FP32", "[0.1,-2e3]").slice::<f32>(), Some(&[0.1_f32, -2000.0][..]));
    assert_eq!(case("FP64", "[0.1,Infinity]").slice::<f64>(), Some(&[0.1, f64::INFINITY][..]));
    assert_eq!(case("INT8", "[-128,127]").slice::<i8>(), Some(&[-128_i8, 127][..]));
    assert_eq!(case("INT16", "[-32768,1.0]").slice::<i16>(), Some(&[-32768_i16, 1][..]));
    assert_eq!(case("INT32", "[-2147483648,1e3]").slice::<i32>(), Some(&[i32::MIN, 1000][..]));
    let long = "[-9223372036854775808,9223372036854775807]";
    assert_eq!(case("INT64", long).slice::<i64>(), Some(&[i64::MIN, i64::MAX][..]));
    assert_eq!(case("UINT8", "[0,255]").slice::<u8>(), Some(&[0_u8, 255][..]));
    assert_eq!(case("UINT64", "[0,18446744073709551615]").slice::<u64>(), Some(&[0, u64::MAX][..]));
    assert_eq!(case("BOOL", "[true,0]").bytes(), [1, 0]);
    let texts = case("BYTES", r#"["a\n","é"]"#);
    assert_eq!(texts.texts().collect::<Vec<_>>(), [Some("a\n"), Some("é")]);
    assert!(case("FP32", "[null,NaN]").slice::<f32>().expect("floats").iter().all(|x| x.is_nan()));
}

#[test]
fn keys_come_in_any_order_and_data_nests_or_not() {
    for body in [
        r#"{"id":"7","inputs":[{"data":[[1,2],[3,4]],"datatype":"INT32","shape":[2,2],"name":"x"}],"more":[{}]}"#,
        r#"{"inputs":[{"name":"x","shape":[2,2],"datatype":"INT32","parameters":{"a":{}},"data":[1,2,3,4]}],"id":"7"}"#,
    ] {
        let call = decoded(body.as_bytes(), None).expect(body);
        let view = call.view(body.as_bytes());
        assert_eq!((view.id(), view.name(0), view.dims(0)), ("7", "x", &[2, 2][..]));
        assert_eq!(view.tensor(0).expect("one").slice::<i32>(), Some(&[1, 2, 3, 4][..]));
    }
}

#[test]
fn raw_and_json_tensors_mix_and_raw_ones_stay_in_the_body() {
    let json = r#"{"parameters":{"binary_data_output":true,"priority":3},"inputs":[
        {"name":"a","shape":[1],"datatype":"FP64","parameters":{"binary_data_size":8}},
        {"name":"j","shape":[1],"datatype":"INT32","data":[5]},
        {"name":"b","shape":[2],"datatype":"BYTES","parameters":{"binary_data_size":10}}],
        "outputs":[{"name":"y","parameters":{"binary_data":false}},{"name":"z"}]}"#;
    let mut body = json.as_bytes().to_vec();
    body.extend_from_slice(&1.5_f64.to_le_bytes());
    body.extend_from_slice(&[1, 0, 0, 0, 0xff, 1, 0, 0, 0, b'q']);
    let call = decoded(&body, Some(json.len())).expect("legal");
    let view = call.view(&body);
    assert_eq!(*view.tensor(0).expect("a").to_f64s().expect("numbers"), [1.5]);
    assert_eq!(view.tensor(1).expect("j").slice::<i32>(), Some(&[5][..]));
    let texts = view.tensor(2).expect("b");
    assert_eq!(texts.elements().collect::<Vec<_>>(), [Some(&[0xff][..]), Some(b"q")]);
    assert!(body.as_ptr_range().contains(&texts.bytes().as_ptr()));
    assert!(view.is_raw() && !view.is_binary("y") && view.is_binary("z"));
    assert_eq!(view.parameters().priority, 3);
    body.push(0);
    assert!(decoded(&body, Some(json.len())).expect_err("one too many").contains("1 bytes after"));
    body.truncate(json.len() + 12);
    assert!(decoded(&body, Some(json.len())).expect_err("cut").contains("binary_data_size exceeds the 4"));
    assert!(decoded(&body, Some(usize::MAX)).expect_err("beyond").contains("but the body has"));
}

#[test]
fn what_is_wrong_is_named() {
    let deep =
        format!(r#"{{"inputs":[{{"name":"x","shape":[1],"datatype":"FP32","data":{}"#, "[".repeat(9999));
    for (body, want) in [
        ("", "expected an object"),
        ("[]", "expected an object"),
        ("{}", "Expected \"inputs\""),
        (r#"{"inputs":[{}]}"#, "no \"name\""),
        (r#"{"inputs":[{"name":"x"}]}"#, "no \"datatype\""),
        (r#"{"inputs":[{"name":"x","datatype":"FP31"}]}"#, "\"FP31\" is none"),
        (r#"{"inputs":[{"name":"x","datatype":"FP32","data":[1]}]}"#, "no \"shape\""),
        (r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1]}]}"#, "no \"data\""),
        (r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[2],"data":[1]}]}"#, "takes 8 bytes, got 4"),
        (r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[-1],"data":[1]}]}"#, "not negative"),
        (
            r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[4294967296,4294967296],"data":[1]}]}"#,
            "too many",
        ),
        (
            r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1000000000000],"data":[1]}]}"#,
            "4000000000000 bytes",
        ),
        (
            r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1,1,1,1,1,1,1,1,1],"data":[1]}]}"#,
            "more dimensions",
        ),
        (
            r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[2,2],"data":[[1,2],[3]]}]}"#,
            "different lengths",
        ),
        (
            r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[4,1],"data":[[1,2],[3,4]]}]}"#,
            "the shape [2, 2]",
        ),
        (r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[2],"data":[1,[2]]}]}"#, "one depth"),
        (r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":["a"]}]}"#, "expected a number"),
        (r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[1e39]}]}"#, "out of range"),
        (r#"{"inputs":[{"name":"x","datatype":"FP64","shape":[1],"data":[1e999]}]}"#, "out of range"),
        (r#"{"inputs":[{"name":"x","datatype":"INT8","shape":[1],"data":[128]}]}"#, "out of range"),
        (r#"{"inputs":[{"name":"x","datatype":"INT32","shape":[1],"data":[1.5]}]}"#, "expected an integer"),
        (
            r#"{"inputs":[{"name":"x","datatype":"UINT64","shape":[1],"data":[18446744073709551616]}]}"#,
            "out of range",
        ),
        (r#"{"inputs":[{"name":"x","datatype":"FP16","shape":[1],"data":[1]}]}"#, "raw bytes"),
        (r#"{"inputs":[{"name":"x","datatype":"BYTES","shape":[1],"data":[1]}]}"#, "expected a text"),
        (
            r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"parameters":{"binary_data_size":4}}]}"#,
            "without the header",
        ),
        (deep.as_str(), "nested too deeply"),
    ] {
        let got = decoded(body.as_bytes(), None).map(|_| ()).expect_err(want);
        assert!(got.contains(want), "{want}: {got}");
    }
}

#[test]
fn answers_are_flat_json_or_raw() {
    let mut outputs = Outputs::new();
    outputs.numbers::<f32>(Shape::new(&[1, 2]).expect("small")).copy_from_slice(&[0.1, f32::NAN]);
    outputs.texts(Shape::new(&[1]).expect("small"), ["a\"b"].into_iter());
    let [one, two] = outputs.tensors() else { panic!("two") };
    let head = Head { model: "m", version: "1", id: "7" };
    let mut out = Vec::new();
    assert_eq!(encode(&mut out, head, [("y", one, false), ("z", two, false)].into_iter()), None);
    let want = r#"{"model_name":"m","model_version":"1","id":"7","outputs":[{"name":"y","datatype":"FP32","shape":[1,2],"data":[0.1,null]},{"name":"z","datatype":"BYTES","shape":[1],"data":["a\"b"]}]}"#;
    assert_eq!(String::from_utf8_lossy(&out), want);
    out.clear();
    let head = Head { model: "m", version: "", id: "" };
    let length = encode(&mut out, head, [("y", one, true), ("z", two, false)].into_iter()).expect("raw");
    assert!(out[..length].ends_with(br#""data":["a\"b"]}]}"#));
    assert_eq!(&out[length..], one.bytes());
}

fn dtypes() -> impl Strategy<Value = (DType, Vec<u8>)> {
    let all =
        vec![DType::Bool, DType::U8, DType::I16, DType::U32, DType::I64, DType::U64, DType::F32, DType::F64];
    (prop::sample::select(all), prop::collection::vec(any::<u8>(), 0..256)).prop_map(|(dtype, mut bytes)| {
        bytes.truncate(bytes.len() / dtype.size() * dtype.size());
        if dtype == DType::Bool {
            bytes.iter_mut().for_each(|byte| *byte &= 1);
        }
        (dtype, bytes)
    })
}

proptest! {
    #[test]
    fn numbers_survive_json((dtype, bytes) in dtypes()) {
        let count = bytes.len() / dtype.size();
        let shape = Shape::new(&[count]).expect("small");
        let tensor = Tensor::new(dtype, shape, models::Storage::Borrowed(&bytes)).expect("fits");
        let mut out = Vec::new();
        encode(&mut out, Head { model: "m", version: "", id: "" }, [("x", &tensor, false)].into_iter());
        // An answer's outputs have the form of a request's inputs.
        let text = String::from_utf8(out).expect("UTF-8").replace("\"outputs\"", "\"inputs\"");
        let back = one(&text).expect("legal");
        let floats = matches!(dtype, DType::F32 | DType::F64);
        if floats {
            let (was, is) = (tensor.to_f64s().expect("numbers"), back.to_f64s().expect("numbers"));
            for (was, is) in was.iter().zip(is.iter()) {
                prop_assert!(was.to_bits() == is.to_bits() || !was.is_finite() && is.is_nan());
            }
        } else {
            prop_assert_eq!(back.bytes(), &bytes[..]);
        }
    }

    #[test]
    fn bytes_never_panic_and_memory_is_bounded(cut in 0_usize..400, at in 0_usize..400, byte: u8, json in 0_usize..500) {
        let mut body = br#"{"id":"\u0041","parameters":{"timeout":5},"inputs":[{"name":"x","shape":[2,1],"datatype":"INT64","data":[[1],[-2]]},{"data":["a\u00e9"],"name":"y","shape":[1],"datatype":"BYTES"},{"name":"z","shape":[1],"datatype":"FP32","parameters":{"binary_data_size":4}}],"outputs":[{"name":"o","parameters":{"classification":2}}]}abcd"#.to_vec();
        if let Some(place) = body.get_mut(at) {
            *place = byte;
        }
        body.truncate(cut.max(1));
        let mut call = Call::new();
        let _ = decode(&body, None, &mut call);
        let _ = decode(&body, Some(json), &mut call);
        prop_assert!(call.own.len() <= 8 * body.len() + 64);
    }
}
