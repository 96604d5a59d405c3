//! Which tensors of a request become which inputs.

use codecs::call::Call;
use codecs::v2;
use models::{Backend, BackendError, Batch, Outputs, Signature};

use super::*;

struct Takes(Signature);

impl Backend for Takes {
    fn signature(&self) -> &Signature {
        &self.0
    }

    fn row_cost_ns(&self) -> u64 {
        1
    }

    fn run(&self, _: &Batch<'_>, _: &mut Outputs) -> Result<(), BackendError> {
        Ok(())
    }
}

fn served(inputs: &[(&str, DType, &[Option<usize>])], columns: &[&str], personality: Personality) -> Served {
    let spec = |(name, dtype, row): &(&str, DType, &[Option<usize>])| TensorSpec::new(*name, *dtype, *row);
    let signature = Signature {
        inputs: inputs.iter().map(spec).collect(),
        outputs: Vec::new(),
        columns: columns.iter().map(|name| (*name).to_owned()).collect(),
    };
    Served::new("m".into(), None, personality, Box::new(Takes(signature)))
}

/// The numbers of the first input, or the refusal's text.
fn bound(served: &Served, inputs: &str) -> Result<Vec<f64>, String> {
    let body = format!("{{\"inputs\":[{inputs}]}}");
    let mut call = Call::new();
    v2::decode(body.as_bytes(), None, &mut call).map_err(|wrong| wrong.to_string())?;
    let mut binder = Binder::default();
    let view = call.view(body.as_bytes());
    let rows = binder.bind(served, view).map_err(|refusal| refusal.text)?;
    let inputs = binder.inputs(served, view).map_err(|refusal| refusal.text)?;
    assert_eq!(inputs[0].dims().first(), Some(&rows));
    Ok(inputs[0].to_f64s().map(|all| all.to_vec()).unwrap_or_default())
}

#[test]
fn the_only_input_takes_the_only_tensor_of_any_number_type() {
    let table = served(&[("input-0", DType::F64, &[Some(2)])], &[], Personality::Kserve);
    for (name, dtype) in [("input-0", "FP64"), ("predict", "FP32"), ("", "INT64"), ("x", "UINT8")] {
        let input = format!(r#"{{"name":"{name}","shape":[2,2],"datatype":"{dtype}","data":[1,2,3,4]}}"#);
        assert_eq!(bound(&table, &input), Ok(vec![1.0, 2.0, 3.0, 4.0]), "{dtype}");
    }
    let single = served(&[("x", DType::F32, &[])], &[], Personality::Kserve);
    let input = r#"{"name":"x","shape":[2],"datatype":"FP64","data":[0.5,0.25]}"#;
    assert_eq!(bound(&single, input), Ok(vec![0.5, 0.25]));
    let triton = served(&[("input-0", DType::F64, &[Some(1)])], &[], Personality::Triton);
    let input = r#"{"name":"other","shape":[1,1],"datatype":"FP64","data":[1]}"#;
    assert!(bound(&triton, input).expect_err("refused").contains("unexpected inference input 'other'"));
}

#[test]
fn columns_are_joined_by_name_or_else_in_their_order() {
    let two = r#"{"name":"b","shape":[2],"datatype":"FP32","data":[1,2]},
        {"name":"a","shape":[2,1],"datatype":"INT32","data":[3,4]}"#;
    for (columns, want) in [(&["a", "b"][..], [3.0, 1.0, 4.0, 2.0]), (&[], [1.0, 3.0, 2.0, 4.0])] {
        for dtype in [DType::F64, DType::F32] {
            let table = served(&[("input-0", dtype, &[Some(2)])], columns, Personality::Kserve);
            assert_eq!(bound(&table, two), Ok(want.to_vec()));
        }
    }
}

#[test]
fn several_inputs_are_matched_by_name() {
    let model = served(&[("a", DType::F64, &[]), ("b", DType::Text, &[])], &["a", "b"], Personality::Kserve);
    let right = r#"{"name":"b","shape":[1],"datatype":"BYTES","data":["x"]},
        {"name":"a","shape":[1],"datatype":"FP64","data":[7]}"#;
    assert_eq!(bound(&model, right), Ok(vec![7.0]));
}

#[test]
fn what_does_not_fit_is_named_with_the_model() {
    let table = served(&[("input-0", DType::F64, &[Some(4)])], &["a", "b", "c", "d"], Personality::Kserve);
    let two = served(&[("a", DType::F64, &[]), ("b", DType::F64, &[])], &[], Personality::Kserve);
    let exact = served(&[("n", DType::I64, &[])], &[], Personality::Kserve);
    let a = r#"{"name":"a","shape":[1],"datatype":"FP64","data":[1]}"#;
    for (model, inputs, want) in [
        (
            &table,
            r#"{"name":"input-0","shape":[1,3],"datatype":"FP64","data":[1,2,3]}"#,
            "model \"m\": input \"input-0\": expected the shape [-1, 4], got [1, 3]",
        ),
        (&table, r#"{"name":"x","shape":[4],"datatype":"FP64","data":[1,2,3,4]}"#, "got [4]"),
        (&table, r#"{"name":"x","shape":[],"datatype":"FP64","data":[1]}"#, "got []"),
        (
            &table,
            r#"{"name":"x","shape":[1,4],"datatype":"BYTES","data":["1","2","3","4"]}"#,
            "expected the type FP64, got BYTES",
        ),
        (&table, &[a; 4].join(","), "the column \"a\" is there twice"),
        (&table, &[a; 2].join(","), "unexpected input \"a\", expected [\"input-0\"]"),
        (&table, "", "expected 1 inputs, got 0"),
        (&two, a, "\"b\" is missing"),
        (
            &two,
            r#"{"name":"a","shape":[1],"datatype":"FP64","data":[1]},{"name":"b","shape":[2],"datatype":"FP64","data":[1,2]}"#,
            "2 rows",
        ),
        (
            &exact,
            r#"{"name":"n","shape":[1],"datatype":"FP64","data":[1]}"#,
            "expected the type INT64, got FP64",
        ),
    ] {
        let got = bound(model, inputs).expect_err(want);
        assert!(got.contains(want), "{got}");
    }
}
