//! Laws of TensorFlow Serving's REST codec.

use models::{Outputs, Shape};
use proptest::prelude::*;

use super::*;

fn spec(name: &str, dtype: DType, row: &[Option<usize>]) -> TensorSpec {
    TensorSpec::new(name, dtype, row)
}

fn signature(inputs: Vec<TensorSpec>, columns: &[&str]) -> Signature {
    Signature { inputs, outputs: Vec::new(), columns: columns.iter().map(|name| (*name).into()).collect() }
}

/// Name, dimensions and values of each tensor, as text.
type Shown = Vec<(String, Vec<usize>, String)>;

fn read_all(body: &str, signature: &Signature) -> Result<(Format, Shown), String> {
    let parts = scan(body.as_bytes()).map_err(|error| error.to_string())?;
    let mut call = Call::new();
    let format = predict(body.as_bytes(), &parts, signature, &mut call).map_err(|error| error.to_string())?;
    Ok((format, shown(&call, body)))
}

fn shown(call: &Call, body: &str) -> Shown {
    let view = call.view(body.as_bytes());
    let show = |(name, tensor): (&str, models::Tensor<'_>)| {
        let values = match tensor.to_f64s() {
            Some(numbers) => format!("{numbers:?}"),
            None => format!("{:?}", tensor.elements().map(Option::unwrap_or_default).collect::<Vec<_>>()),
        };
        (name.to_owned(), tensor.dims().to_vec(), values)
    };
    view.tensors().map(show).collect()
}

#[test]
fn rows_and_columns_are_read_as_the_signatures_types() {
    let x = signature(vec![spec("x", DType::F32, &[])], &[]);
    let two = signature(vec![spec("a", DType::I64, &[Some(2)]), spec("b", DType::Text, &[])], &[]);
    type Want<'a> = &'a [(&'a str, &'a [usize], &'a str)];
    let cases: [(&str, &Signature, Format, Want<'_>); 8] = [
        (r#"{"instances":[1.0,2,5]}"#, &x, Format::Row, &[("x", &[3], "[1.0, 2.0, 5.0]")]),
        (r#"{"instances":[[[1,2]],[[3,4]]]}"#, &x, Format::Row, &[("x", &[2, 1, 2], "[1.0, 2.0, 3.0, 4.0]")]),
        (r#"{"instances":[{"x":1},{"x":-Infinity}]}"#, &x, Format::Row, &[("x", &[2], "[1.0, -inf]")]),
        (r#"{"signature_name":"s","inputs":[1,NaN]}"#, &x, Format::Column, &[("x", &[2], "[1.0, NaN]")]),
        (r#"{"inputs":{"x":[[1],[2]]}}"#, &x, Format::Column, &[("x", &[2, 1], "[1.0, 2.0]")]),
        (r#"{"inputs":3}"#, &x, Format::Column, &[("x", &[], "[3.0]")]),
        (
            r#"{"instances":[{"b":"t","a":[1,2]},{"a":[3,4],"b":{"b64":"/w=="}}]}"#,
            &two,
            Format::Row,
            &[("a", &[2, 2], "[1.0, 2.0, 3.0, 4.0]"), ("b", &[2], "[[116], [255]]")],
        ),
        (
            r#"{"inputs":{"b":["t"],"a":[[1,2]]}}"#,
            &two,
            Format::Column,
            &[("b", &[1], "[[116]]"), ("a", &[1, 2], "[1.0, 2.0]")],
        ),
    ];
    for (body, signature, format, want) in cases {
        let got = read_all(body, signature).expect(body);
        let want: Vec<_> =
            want.iter().map(|(a, b, c)| ((*a).to_owned(), b.to_vec(), (*c).to_owned())).collect();
        assert_eq!(got, (format, want), "{body}");
    }
    let table = signature(vec![spec("input-0", DType::F64, &[Some(2)])], &["w", "h"]);
    let want = vec![("input-0".to_owned(), vec![2, 2], "[1.0, 2.0, 3.0, 4.0]".to_owned())];
    let named = r#"{"instances":[{"h":2,"w":1},{"w":3,"h":4}]}"#;
    assert_eq!(read_all(named, &table), Ok((Format::Row, want.clone())));
    assert_eq!(read_all(r#"{"instances":[[1,2],[3,4]]}"#, &table), Ok((Format::Row, want)));
}

#[test]
fn what_is_wrong_is_named() {
    let x = signature(vec![spec("x", DType::F32, &[])], &[]);
    let two = signature(vec![spec("a", DType::I64, &[]), spec("b", DType::Text, &[])], &[]);
    let deep = format!(r#"{{"instances":{}"#, "[".repeat(100_000));
    for (body, signature, want) in [
        ("", &x, "The document is empty"),
        ("{", &x, "expected a text"),
        ("[1]", &x, "not a JSON object"),
        ("{}", &x, "Missing 'inputs' or 'instances' key"),
        (r#"{"instances":[1],"inputs":[1]}"#, &x, "both 'inputs' and 'instances'"),
        (r#"{"instances":1}"#, &x, "to be a list"),
        (r#"{"instances":[]}"#, &x, "No values"),
        (r#"{"instances":[1,[2]]}"#, &x, "element: 1 of 'instances' list"),
        (r#"{"instances":[[1],[2,3]]}"#, &x, "different lengths"),
        (r#"{"instances":[null]}"#, &x, "expected a number"),
        (r#"{"instances":[1e40]}"#, &x, "out of range"),
        (r#"{"instances":["a"]}"#, &x, "expected a number"),
        (r#"{"instances":[1]}"#, &two, "has 2 inputs"),
        (r#"{"instances":[{"a":1}]}"#, &two, "lacks it"),
        (r#"{"instances":[{"a":1,"b":"x","c":1}]}"#, &two, "the signature has not"),
        (r#"{"instances":[{"a":1,"b":{"b64":"*"}}]}"#, &two, "malformed base64"),
        (r#"{"instances":[{"a":1.5,"b":""}]}"#, &two, "expected an integer"),
        (r#"{"inputs":{"a":1}}"#, &two, "missing"),
        (r#"{"inputs":{"a":1,"z":1}}"#, &two, "no such input"),
        (deep.as_str(), &x, "nested too deeply"),
    ] {
        let got = read_all(body, signature).expect_err(want);
        assert!(got.contains(want), "{want}: {got}");
    }
}

#[test]
fn examples_take_lists_singles_and_the_context() {
    let two = signature(vec![spec("a", DType::F32, &[]), spec("b", DType::Text, &[])], &[]);
    let body = r#"{"context":{"b":["c"]},"examples":[{"a":1,"zz":[[{}]]},{"a":[2.5],"b":"d"}]}"#;
    let parts = scan(body.as_bytes()).expect("legal");
    let mut call = Call::new();
    examples(body.as_bytes(), &parts, &two, &mut call).expect("legal");
    let want = [("a", "[1.0, 2.5]"), ("b", "[[99], [100]]")];
    for ((name, dims, values), want) in shown(&call, body).iter().zip(want) {
        assert_eq!((name.as_str(), dims.as_slice(), values.as_str()), (want.0, &[2][..], want.1));
    }
    let table = signature(vec![spec("t", DType::F64, &[Some(2)])], &["w", "h"]);
    let body = r#"{"examples":[{"w":1,"h":[2]}]}"#;
    let parts = scan(body.as_bytes()).expect("legal");
    examples(body.as_bytes(), &parts, &table, &mut call).expect("legal");
    assert_eq!(shown(&call, body), [("t".to_owned(), vec![1, 2], "[1.0, 2.0]".to_owned())]);
    for (body, want) in [
        (r#"{"examples":[{"w":1}]}"#, "lacks this feature"),
        (r#"{"examples":[]}"#, "empty"),
        (r#"{"examples":[{"w":[1,2],"h":1}]}"#, "list of one value"),
        ("{}", "Missing 'examples'"),
    ] {
        let parts = scan(body.as_bytes()).expect("legal");
        let got = examples(body.as_bytes(), &parts, &table, &mut call).expect_err(want).to_string();
        assert!(got.contains(want), "{want}: {got}");
    }
}

#[test]
fn answers_have_the_requests_format() {
    let mut outputs = Outputs::new();
    let shape = |dims: &[usize]| Shape::new(dims).expect("small");
    outputs.numbers::<f32>(shape(&[2, 2])).copy_from_slice(&[1.0, f32::NAN, f32::NEG_INFINITY, 0.1]);
    outputs.texts(shape(&[2]), ["a", "b"].into_iter());
    let [scores, texts] = outputs.tensors() else { panic!("two") };
    let text = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).expect("UTF-8")
    };
    let rows = text(&|out| write_rows(out, &[("s", scores)]).expect("rows"));
    assert_eq!(rows, r#"{"predictions":[[1.0,NaN],[-Infinity,0.1]]}"#);
    let rows = text(&|out| write_rows(out, &[("s", scores), ("t_bytes", texts)]).expect("rows"));
    let want = r#"{"predictions":[{"s":[1.0,NaN],"t_bytes":{"b64":"YQ=="}},{"s":[-Infinity,0.1],"t_bytes":{"b64":"Yg=="}}]}"#;
    assert_eq!(rows, want);
    assert_eq!(text(&|out| write_columns(out, &[("t", texts)])), r#"{"outputs":["a","b"]}"#);
    let both = text(&|out| write_columns(out, &[("t", texts), ("s", scores)]));
    assert_eq!(both, r#"{"outputs":{"t":["a","b"],"s":[[1.0,NaN],[-Infinity,0.1]]}}"#);
    assert_eq!(text(&|out| write_regressions(out, [1.5].into_iter())), r#"{"results":[1.5]}"#);
    let classes = text(&|out| write_classifications(out, [[("a", 0.5)].into_iter()].into_iter()));
    assert_eq!(classes, r#"{"results":[[["a",0.5]]]}"#);
}

proptest! {
    #[test]
    fn bytes_never_panic(cut in 0_usize..200, at in 0_usize..200, byte: u8) {
        let two = signature(vec![spec("a", DType::F32, &[]), spec("b", DType::Text, &[])], &[]);
        for text in [
            r#"{"instances":[{"a":[1,2],"b":{"b64":"YWJj"}},{"b":"\u0041","a":[NaN,-1e3]}]}"#,
            r#"{"inputs":{"a":[[1],[2]],"b":["x",{"b64":""}]},"signature_name":"q"}"#,
            r#"{"examples":[{"a":1,"b":["x"]},{"a":[2]}],"context":{"b":"c"}}"#,
        ] {
            let mut body = text.as_bytes().to_vec();
            if let Some(place) = body.get_mut(at) {
                *place = byte;
            }
            body.truncate(cut.max(1));
            if let Ok(parts) = scan(&body) {
                let mut call = Call::new();
                let _ = predict(&body, &parts, &two, &mut call);
                let _ = examples(&body, &parts, &two, &mut call);
                prop_assert!(call.own.len() <= 16 * body.len() + 64);
            }
        }
    }
}
