//! Laws of the V1 codec.

use super::*;

fn parsed(body: &str, width: usize, columns: &[&str]) -> Result<(usize, Vec<f64>), String> {
    let columns: Vec<String> = columns.iter().map(|name| (*name).to_owned()).collect();
    let mut batch = vec![9.0];
    match parse(body.as_bytes(), Expected { width, columns: &columns }, &mut batch) {
        Ok(rows) => Ok((rows, batch)),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn rows_of_numbers_are_parsed() {
    let cases: [(&str, usize, &[f64]); 8] = [
        (r#"{"instances": [[5.1, 3.5, 1.4, 0.2]]}"#, 1, &[5.1, 3.5, 1.4, 0.2]),
        ("{\n \"instances\" : [ [1,2,3,4] , [5,6,7,8] ] }\n", 2, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]),
        (r#"{"inputs":[[1,2,3,true]]}"#, 1, &[1.0, 2.0, 3.0, 1.0]),
        (r#"{"instances":[[1,2,3,4]],"inputs":[[4,3,2,1]]}"#, 1, &[4.0, 3.0, 2.0, 1.0]),
        (r#"{"inputs":[[4,3,2,1]],"instances":[[1,2,3,4]]}"#, 1, &[4.0, 3.0, 2.0, 1.0]),
        (r#"{"parameters":{"a":[1,{}]},"instances":[[1,2,3,4]],"id":"x"}"#, 1, &[1.0, 2.0, 3.0, 4.0]),
        (r#"{"instances":[]}"#, 0, &[]),
        (r#"{"instances":[[1e-3,-2E2,0,-0.0]]}"#, 1, &[0.001, -200.0, 0.0, -0.0]),
    ];
    for (body, rows, want) in cases {
        assert_eq!(parsed(body, 4, &[]), Ok((rows, want.to_vec())), "{body}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    let deep = format!(r#"{{"x":{}}}"#, "[".repeat(100_000));
    let cases = [
        (r#"{"instances":[[1,2],[1,2,3]]}"#, "instance 1 has 3 values, expected 2"),
        (r#"{"instances":[[1]]}"#, "instance 0 has 1 values, expected 2"),
        (r#"{"instances":[[1,[2]]]}"#, "instance 0, value 1: a list where"),
        (r#"{"instances":[[1,"a"]]}"#, "instance 0, value 1: a string where"),
        (r#"{"instances":[1,2]}"#, "instance 0 is a number, expected a list"),
        (r#"{"instances":["a"]}"#, "instance 0 is a string"),
        (r#"{"instances":5}"#, "Expected \"instances\" to be a list"),
        (r#"{"inputs":{}}"#, "Expected \"inputs\" to be a list"),
        ("{}", "Expected \"instances\" or \"inputs\""),
        ("[]", "Expected \"instances\" or \"inputs\""),
        ("", "Unrecognized request format: unexpected end"),
        ("{", "Unrecognized request format: expected a text at byte 1"),
        (r#"{"instances":[[1,2]]"#, "Unrecognized request format"),
        (r#"{"instances":[[1,2]]} x"#, "unexpected text after"),
        (r#"{"instances":[[1,2],]}"#, "Unrecognized request format"),
        (r#"{"instances":[[1,02]]}"#, "not a number"),
        (deep.as_str(), "nested too deeply"),
    ];
    for (body, want) in cases {
        let got = parsed(body, 2, &[]).expect_err(want);
        assert!(got.contains(want), "{}: {got}", &body[..body.len().min(60)]);
    }
}

#[test]
fn objects_are_columns_by_name() {
    let body = r#"{"instances":[{"b":2,"a":1},{"a":3,"b":4}]}"#;
    assert_eq!(parsed(body, 2, &["a", "b"]), Ok((2, vec![1.0, 2.0, 3.0, 4.0])));
    assert_eq!(parsed(body, 2, &[]), Ok((2, vec![2.0, 1.0, 4.0, 3.0])), "the first row's order");
    for (body, want) in [
        (r#"{"instances":[{"a":1}]}"#, "lacks the column \"b\""),
        (r#"{"instances":[{"a":1,"b":2,"c":3}]}"#, "unexpected column \"c\""),
        (r#"{"instances":[{"a":1,"b":"x"}]}"#, "value 1: a string"),
    ] {
        let got = parsed(body, 2, &["a", "b"]).expect_err(want);
        assert!(got.contains(want), "{got}");
    }
    let got = parsed(r#"{"instances":[{"a":1,"b":2,"c":3}]}"#, 2, &[]).expect_err("too wide");
    assert_eq!(got, "instance 0 has 3 values, expected 2");
}

#[test]
fn predictions_are_written_as_python_writes_them() {
    let mut out = Vec::new();
    write(&mut out, &[2], Values::I64(&[0, -7]));
    write(&mut out, &[1, 2], Values::F64(&[1.0, 0.1]));
    write(&mut out, &[2], Values::Bool(&[1, 0]));
    write(&mut out, &[0], Values::F64(&[]));
    write_texts(&mut out, &[1], ["se\"tosa"].into_iter());
    write_error(&mut out, "no");
    let want = r#"{"predictions":[0,-7]}{"predictions":[[1.0,0.1]]}{"predictions":[true,false]}{"predictions":[]}{"predictions":["se\"tosa"]}{"error":"no"}"#;
    assert_eq!(String::from_utf8(out).expect("UTF-8"), want);
}

#[test]
fn bytes_never_panic() {
    // A cheap walk around a legal body: every prefix, and every byte replaced by each structural one.
    let body = br#"{"id":"\u0041","instances":[[1.5,-2e3],{"a":null,"b":NaN}]}"#;
    let mut batch = Vec::new();
    let expected = Expected { width: 2, columns: &[] };
    for end in 0..body.len() {
        let _ = parse(&body[..end], expected, &mut batch);
        for byte in b"[]{}\",:\\-1tN \x00\xff" {
            let mut mutated = body.to_vec();
            mutated[end] = *byte;
            let _ = parse(&mutated, expected, &mut batch);
        }
    }
}
