//! Requests from rows of data, in each protocol.
//!
//! They are made once and sent many times, so clarity wins over speed here. Not here: the server's hot path (`codecs`).

use bytes::Bytes;
use codecs::wire::{put_bytes, put_bytes_always, put_message, put_varint};
use models::table::{Column, Table};
use models::{DType, Signature, Tensor};
use serde_json::{Value, json};

use crate::plan::Requests;
use crate::target::{Protocol, Target};
use crate::{Error, Result};

/// Different requests of one run, at most.
const DIFFERENT_MAX: usize = 4096;
/// Bytes of all of them.
const BYTES_MAX: usize = 256 << 20;
/// Rows that are made up where there is no data.
const MADE_UP: usize = 256;

/// Requests of `batch` rows each; with no table, rows of made-up numbers. `signature` is what the server says that
/// the model takes, and needed for every protocol but V1 and TensorFlow Serving's.
pub fn requests(
    target: &Target,
    protocol: Protocol,
    signature: Option<&Signature>,
    table: Option<&Table>,
    batch: usize,
) -> Result<Requests> {
    let bad = |what: String| Error::Target(what);
    let made_up;
    let (signature, table) = match (signature, table) {
        (Some(signature), Some(table)) => (signature.clone(), table),
        (Some(signature), None) => {
            made_up = invented(signature, batch).map_err(bad)?;
            (signature.clone(), &made_up)
        }
        (None, Some(table)) if matches!(protocol, Protocol::V1 | Protocol::Tfs) => (as_it_is(table), table),
        (None, _) => {
            return Err(Error::Target(format!(
                "the server does not say what {:?} takes; give --data, and --protocol v1 or tfs",
                target.model
            )));
        }
    };
    let mut messages = Vec::new();
    let mut bytes = 0;
    let batch = batch.clamp(1, table.rows());
    for first in (0..=table.rows() - batch).step_by(batch).take(DIFFERENT_MAX) {
        let tensors = table.slice(first..first + batch).inputs(&signature);
        let tensors = tensors.map_err(|error| bad(error.to_string()))?;
        let message = message(target, protocol, &signature, &tensors)?;
        bytes += message.len();
        messages.push(message);
        if bytes > BYTES_MAX {
            break;
        }
    }
    Ok(match protocol {
        Protocol::Grpc => Requests::Grpc {
            path: "/inference.GRPCInferenceService/ModelInfer".into(),
            authority: target.host.clone(),
            messages,
        },
        _ => Requests::Http1(messages),
    })
}

/// Rows for a model that says what it takes: numbers between -3 and 3 that follow no pattern.
fn invented(signature: &Signature, batch: usize) -> std::result::Result<Table, String> {
    let mut width = 0;
    for input in &signature.inputs {
        if input.dtype == DType::Text {
            return Err(format!("the input {:?} takes texts; give --data with real ones", input.name));
        }
        let cells: Option<usize> = input.row.iter().copied().product();
        width += cells.ok_or_else(|| {
            format!("the input {:?} takes rows of any width; give --data with real ones", input.name)
        })?;
    }
    let mut state = 1_u64;
    let cells: Vec<f64> = (0..width * MADE_UP.max(batch))
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // Three decimals, so that JSON is as long as with measured numbers.
            ((state >> 33) as f64 / f64::from(1_u32 << 31) * 6000.0).round() / 1000.0 - 3.0
        })
        .collect();
    Ok(Table::of_rows(&cells, width))
}

/// A signature made of the data itself.
fn as_it_is(table: &Table) -> Signature {
    let spec = |name: &str, dtype, row: Vec<Option<usize>>| models::TensorSpec::new(name, dtype, row);
    let has_texts = table.columns().iter().any(|column| matches!(column, Column::Texts(_)));
    let inputs = match (table.names(), has_texts) {
        (Some(names), true) => {
            let each = names.iter().zip(table.columns());
            each.map(|(name, column)| {
                spec(
                    name,
                    if matches!(column, Column::Texts(_)) { DType::Text } else { DType::F64 },
                    Vec::new(),
                )
            })
            .collect()
        }
        (_, true) => vec![spec("input-0", DType::Text, vec![Some(table.width())])],
        (_, false) => vec![spec("input-0", DType::F64, vec![Some(table.width())])],
    };
    Signature { inputs, outputs: Vec::new(), columns: Vec::new() }
}

fn message(
    target: &Target,
    protocol: Protocol,
    signature: &Signature,
    tensors: &[Tensor<'static>],
) -> Result<Bytes> {
    let model = &target.model;
    Ok(match protocol {
        Protocol::V1 | Protocol::Tfs => {
            let path = target.path.clone().unwrap_or_else(|| format!("/v1/models/{model}:predict"));
            let body = json!({ "instances": instances(signature, tensors) }).to_string();
            post(target, &path, "content-type: application/json\r\n", body.as_bytes())
        }
        Protocol::V2 => {
            let body = json!({ "inputs": described(signature, tensors, |tensor| flat(tensor).into()) });
            let headers = "content-type: application/json\r\n";
            post(target, &infer_path(target), headers, body.to_string().as_bytes())
        }
        Protocol::V2Binary => binary(target, signature, tensors),
        Protocol::Grpc => grpc(model, signature, tensors),
    })
}

fn infer_path(target: &Target) -> String {
    target.path.clone().unwrap_or_else(|| format!("/v2/models/{}/infer", target.model))
}

fn post(target: &Target, path: &str, headers: &str, body: &[u8]) -> Bytes {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {}\r\n{headers}content-length: {}\r\n\r\n",
        target.host,
        body.len()
    );
    [head.as_bytes(), body].concat().into()
}

/// The cells of a tensor, one after the other.
fn flat(tensor: &Tensor<'_>) -> Vec<Value> {
    match tensor.to_f64s() {
        Some(numbers) => numbers.iter().map(|number| cell(*number)).collect(),
        None => tensor.texts().map(|text| Value::from(text.unwrap_or_default())).collect(),
    }
}

/// Whole numbers without a fraction: models of integers refuse others.
fn cell(number: f64) -> Value {
    if number.fract() == 0.0 && number.abs() < 9e15 {
        Value::from(number as i64)
    } else {
        Value::from(number)
    }
}

/// A row of a tensor as JSON nests it.
fn nested(cells: &[Value], dims: &[usize]) -> Value {
    match dims {
        [] => cells.first().cloned().unwrap_or(Value::Null),
        [_] => Value::from(cells.to_vec()),
        [first, rest @ ..] => {
            let size = cells.len() / (*first).max(1);
            Value::from(cells.chunks(size.max(1)).map(|part| nested(part, rest)).collect::<Vec<_>>())
        }
    }
}

fn instances(signature: &Signature, tensors: &[Tensor<'static>]) -> Vec<Value> {
    let rows = tensors.first().map_or(0, |tensor| tensor.dims()[0]);
    let cells: Vec<Vec<Value>> = tensors.iter().map(flat).collect();
    let value = |row: usize, at: usize| {
        let size = cells[at].len() / rows.max(1);
        nested(&cells[at][row * size..(row + 1) * size], &tensors[at].dims()[1..])
    };
    let named = |row: usize| {
        let each = signature.inputs.iter().enumerate();
        Value::Object(each.map(|(at, input)| (input.name.clone(), value(row, at))).collect())
    };
    (0..rows).map(|row| if tensors.len() == 1 { value(row, 0) } else { named(row) }).collect()
}

fn described(
    signature: &Signature,
    tensors: &[Tensor<'static>],
    data: impl Fn(&Tensor<'static>) -> Value,
) -> Vec<Value> {
    let one = |(input, tensor): (&models::TensorSpec, &Tensor<'static>)| {
        json!({
            "name": input.name,
            "shape": tensor.dims(),
            "datatype": tensor.dtype().v2_name(),
            "data": data(tensor),
        })
    };
    signature.inputs.iter().zip(tensors).map(one).collect()
}

fn binary(target: &Target, signature: &Signature, tensors: &[Tensor<'static>]) -> Bytes {
    let mut inputs = described(signature, tensors, |_| Value::Null);
    for (input, tensor) in inputs.iter_mut().zip(tensors) {
        if let Some(input) = input.as_object_mut() {
            input.remove("data");
            input.insert("parameters".into(), json!({ "binary_data_size": tensor.bytes().len() }));
        }
    }
    let head = json!({ "inputs": inputs, "parameters": { "binary_data_output": true } }).to_string();
    let mut body = head.clone().into_bytes();
    tensors.iter().for_each(|tensor| body.extend_from_slice(tensor.bytes()));
    let headers = format!(
        "content-type: application/octet-stream\r\ninference-header-content-length: {}\r\n",
        head.len()
    );
    post(target, &infer_path(target), &headers, &body)
}

/// A `ModelInferRequest` with raw tensors, behind the five bytes of its length.
fn grpc(model: &str, signature: &Signature, tensors: &[Tensor<'static>]) -> Bytes {
    let mut out = vec![0; 5];
    put_bytes(&mut out, 1, model.as_bytes());
    for (input, tensor) in signature.inputs.iter().zip(tensors) {
        put_message(&mut out, 5, |out| {
            put_bytes(out, 1, input.name.as_bytes());
            put_bytes(out, 2, tensor.dtype().v2_name().as_bytes());
            let mut shape = Vec::new();
            tensor.dims().iter().for_each(|size| put_varint(&mut shape, *size as u64));
            put_bytes(out, 3, &shape);
        });
    }
    tensors.iter().for_each(|tensor| put_bytes_always(&mut out, 7, tensor.bytes()));
    let length = (out.len() - 5) as u32;
    out[1..5].copy_from_slice(&length.to_be_bytes());
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use models::TensorSpec;

    fn one_input() -> Signature {
        let input = TensorSpec::new("input-0", DType::F64, [Some(2)]);
        Signature { inputs: vec![input], outputs: Vec::new(), columns: Vec::new() }
    }

    fn target() -> Target {
        Target { model: "m".into(), ..Target::parse("127.0.0.1:1").expect("an address") }
    }

    fn first(protocol: Protocol, batch: usize) -> String {
        let table = Table::of_rows(&[1.0, 2.5, 3.0, -4.0], 2);
        let made = requests(&target(), protocol, Some(&one_input()), Some(&table), batch).expect("requests");
        assert_eq!(made.len(), 2 / batch);
        match made {
            Requests::Http1(all) => String::from_utf8_lossy(&all[0]).into_owned(),
            Requests::Grpc { messages, .. } => String::from_utf8_lossy(&messages[0]).into_owned(),
        }
    }

    #[test]
    fn rows_are_written_as_each_protocol_has_them() {
        let v1 = first(Protocol::V1, 2);
        assert!(v1.starts_with("POST /v1/models/m:predict HTTP/1.1\r\nhost: 127.0.0.1:1\r\n"), "{v1}");
        assert!(v1.ends_with("content-length: 30\r\n\r\n{\"instances\":[[1,2.5],[3,-4]]}"), "{v1}");
        let v2 = first(Protocol::V2, 1);
        let body = r#"{"inputs":[{"name":"input-0","shape":[1,2],"datatype":"FP64","data":[1,2.5]}]}"#;
        assert!(v2.starts_with("POST /v2/models/m/infer ") && v2.ends_with(body), "{v2}");
        let binary = first(Protocol::V2Binary, 1);
        assert!(
            binary.contains("\"binary_data_size\":16") && binary.contains("inference-header"),
            "{binary}"
        );
        assert!(first(Protocol::Grpc, 1).contains("FP64"));
    }

    #[test]
    fn rows_are_made_up_only_where_it_is_known_what_they_are() {
        let made = requests(&target(), Protocol::V1, Some(&one_input()), None, 1).expect("made up");
        assert_eq!(made.len(), MADE_UP);
        let error = requests(&target(), Protocol::V2, None, None, 1).expect_err("it is not known");
        assert!(error.to_string().contains("--data"), "{error}");
    }
}
