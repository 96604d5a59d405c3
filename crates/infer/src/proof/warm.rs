//! Requests that warm a version up, in the three ways that its author may leave them:
//!
//! * `assets.extra/tf_serving_warmup_requests`, TensorFlow Serving's records of `PredictionLog`;
//! * `warmup.json`, one request of V1 or V2 or a list of them;
//! * `model_warmup` in Triton's `config.pbtxt`, whose files lie in the model's folder under `warmup/`.
//!
//! Not here: reading `config.pbtxt` (`config::warmup`), running a request (`request`).

use std::path::Path;

use codecs::grpc::tfs::decode_multi;
use codecs::wire::{Fields, WireError, put_bytes_always};
use models::{DType, Outputs};
use serde_json::value::RawValue;

use super::record::Records;
use super::request::{Form, Request};
use super::{FILE_BYTES_MAX, Wishes, read};
use crate::config::{Fill, Warmup};
use crate::exchange::TfsCall;
use crate::served::Served;

const RECORDS: &str = "assets.extra/tf_serving_warmup_requests";
const DOCUMENT: &str = "warmup.json";
/// Requests, at most; TensorFlow Serving's bound.
const REQUESTS_MAX: usize = 1000;

/// Runs all of them; how many.
pub(super) fn up(served: &Served, folder: &Path, model: &Path, wishes: &Wishes) -> Result<usize, String> {
    let mut outputs = Outputs::new();
    let mut count = 0;
    let mut run = |name: &str, request: &Request, times: u32| {
        for _ in 0..times {
            let done = request.run(served, &mut outputs);
            done.map_err(|refusal| format!("warm-up request {name} failed: {refusal}"))?;
            count += 1;
        }
        Ok::<(), String>(())
    };
    if let Some(file) = read(&folder.join(RECORDS))? {
        let requests = records(&file).map_err(|why| format!("{RECORDS}: {why}"))?;
        for (place, request) in requests.iter().enumerate() {
            run(&format!("{} of {RECORDS}", place + 1), request, wishes.iterations)?;
        }
    }
    if let Some(text) = read(&folder.join(DOCUMENT))? {
        let requests = document(&text).map_err(|why| format!("{DOCUMENT}: {why}"))?;
        for (place, request) in requests.iter().enumerate() {
            run(&format!("{} of {DOCUMENT}", place + 1), request, wishes.iterations)?;
        }
    }
    for warmup in &wishes.warmups {
        let name = format!("{:?} of config.pbtxt", warmup.name);
        let request = described(warmup, model).map_err(|why| format!("warm-up request {name}: {why}"))?;
        run(&name, &request, warmup.count)?;
    }
    Ok(count)
}

/// The requests in a file of TensorFlow Serving's.
pub(super) fn records(file: &[u8]) -> Result<Vec<Request>, String> {
    let mut requests = Vec::new();
    for (place, record) in Records::of(file).enumerate() {
        if place == REQUESTS_MAX {
            return Err(format!("more than {REQUESTS_MAX} requests"));
        }
        log(record?, &mut requests).map_err(|why| format!("request {}: {why}", place + 1))?;
    }
    Ok(requests)
}

/// The request of a `PredictionLog`.
pub(super) fn log(record: &[u8], requests: &mut Vec<Request>) -> Result<(), String> {
    for field in Fields::of(record) {
        let field = field.map_err(wire)?;
        let call = match field.number {
            2 => TfsCall::Classify,
            3 => TfsCall::Regress,
            // A log of a stream has several requests.
            6 | 7 => TfsCall::Predict,
            4 => {
                logged(field.bytes().map_err(wire)?, |message| tasks(message, requests))?;
                continue;
            }
            5 => return Err("a session_run_log names tensors of a graph, which is not served".to_owned()),
            _ => continue,
        };
        logged(field.bytes().map_err(wire)?, |body| {
            requests.push(Request { form: Form::Tfs(call), body: body.to_vec() });
            Ok(())
        })?;
    }
    Ok(())
}

/// The requests in a log of one kind.
fn logged(log: &[u8], mut each: impl FnMut(&[u8]) -> Result<(), String>) -> Result<(), String> {
    for field in Fields::of(log) {
        let field = field.map_err(wire)?;
        if field.number == 1 {
            each(field.bytes().map_err(wire)?)?;
        }
    }
    Ok(())
}

fn wire(error: WireError) -> String {
    error.to_string()
}

/// The tasks of a `MultiInferenceRequest`, as requests of their own.
fn tasks(message: &[u8], requests: &mut Vec<Request>) -> Result<(), String> {
    let request = decode_multi(message).map_err(|error| error.to_string())?;
    for (spec, method) in &request.tasks {
        let call = match *method {
            "tensorflow/serving/classify" => TfsCall::Classify,
            "tensorflow/serving/regress" => TfsCall::Regress,
            other => {
                return Err(format!("unknown method_name {:?}", other.chars().take(80).collect::<String>()));
            }
        };
        let mut body = Vec::new();
        put_bytes_always(&mut body, 1, spec);
        put_bytes_always(&mut body, 2, request.input);
        requests.push(Request { form: Form::Tfs(call), body });
    }
    Ok(())
}

/// The requests of a `warmup.json`.
pub(super) fn document(text: &[u8]) -> Result<Vec<Request>, String> {
    let text = std::str::from_utf8(text).map_err(|error| error.to_string())?;
    if !text.trim_start().starts_with('[') {
        return Ok(vec![Request::of_json(text)?]);
    }
    let all: Vec<&RawValue> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if all.len() > REQUESTS_MAX {
        return Err(format!("{} requests, at most {REQUESTS_MAX}", all.len()));
    }
    let request = |(place, raw): (usize, &&RawValue)| {
        Request::of_json(raw.get()).map_err(|why| format!("request {}: {why}", place + 1))
    };
    all.iter().enumerate().map(request).collect()
}

/// The request that Triton's configuration describes, with its tensors in binary form.
fn described(warmup: &Warmup, model: &Path) -> Result<Request, String> {
    let mut head = String::from("{\"inputs\":[");
    let mut data = Vec::new();
    for (place, input) in warmup.inputs.iter().enumerate() {
        let rows = warmup.batch.unwrap_or(1);
        let bytes = input.dims.iter().try_fold(rows, |product, dim| product.checked_mul(*dim));
        let bytes = bytes.and_then(|count| count.checked_mul(input.dtype.size().max(4)));
        if bytes.is_none_or(|bytes| (bytes + data.len()) as u64 > FILE_BYTES_MAX) {
            return Err(format!("its tensors take more than {FILE_BYTES_MAX} bytes"));
        }
        let count: usize = input.dims.iter().product();
        let one = match &input.fill {
            Fill::Zero => filled(input.dtype, count, |_| 0),
            // Small whole numbers are legal everywhere, and the same in every run.
            Fill::Random => filled(input.dtype, count, |index| (index * 7 + 3) % 11),
            Fill::File(file) => {
                let path = model.join("warmup").join(file);
                read(&path)?.ok_or_else(|| format!("{} is not there", path.display()))?
            }
        };
        let before = data.len();
        (0..rows).for_each(|_| data.extend_from_slice(&one));
        let dims = warmup.batch.iter().chain(&input.dims);
        let description = serde_json::json!({
            "name": input.name,
            "datatype": input.dtype.v2_name(),
            "shape": dims.collect::<Vec<_>>(),
            "parameters": {"binary_data_size": data.len() - before},
        });
        if place > 0 {
            head.push(',');
        }
        head.push_str(&description.to_string());
    }
    head.push_str("]}");
    let form = Form::V2(Some(head.len()));
    let mut body = head.into_bytes();
    body.append(&mut data);
    Ok(Request { form, body })
}

/// Elements in the layout of their type, each a small whole number or a text of it.
fn filled(dtype: DType, count: usize, number: impl Fn(usize) -> usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for index in 0..count {
        let value = number(index) as u8;
        match dtype {
            DType::Bool => bytes.push(value & 1),
            DType::U8 | DType::I8 => bytes.push(value),
            DType::U16 | DType::I16 => bytes.extend_from_slice(&u16::from(value).to_le_bytes()),
            DType::U32 | DType::I32 => bytes.extend_from_slice(&u32::from(value).to_le_bytes()),
            DType::U64 | DType::I64 => bytes.extend_from_slice(&u64::from(value).to_le_bytes()),
            DType::F32 => bytes.extend_from_slice(&f32::from(value).to_le_bytes()),
            DType::F64 => bytes.extend_from_slice(&f64::from(value).to_le_bytes()),
            // Zero or one.
            DType::F16 => bytes.extend_from_slice(&[0, if value == 0 { 0 } else { 0x3c }]),
            DType::BF16 => bytes.extend_from_slice(if value == 0 { &[0, 0] } else { &[0x80, 0x3f] }),
            DType::Text => {
                let text = value.to_string();
                bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
                bytes.extend_from_slice(text.as_bytes());
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use codecs::wire::put_message;

    use super::super::record::written;
    use super::*;

    fn logged(field: u32, body: &[u8]) -> Vec<u8> {
        let mut record = Vec::new();
        put_message(&mut record, field, |out| put_bytes_always(out, 1, body));
        record
    }

    #[test]
    fn logs_of_each_kind_are_requests() {
        let mut multi = Vec::new();
        for method in ["classify", "regress"] {
            put_message(&mut multi, 1, |out| {
                put_bytes_always(out, 1, b"spec");
                put_bytes_always(out, 2, format!("tensorflow/serving/{method}").as_bytes());
            });
        }
        put_bytes_always(&mut multi, 2, b"input");
        let all = [logged(6, b"p"), logged(2, b"c"), logged(3, b"r"), logged(4, &multi)];
        let file = written(&all.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let requests = records(&file).expect("records");
        let forms: Vec<Form> = requests.iter().map(|request| request.form).collect();
        let (predict, classify, regress) = (TfsCall::Predict, TfsCall::Classify, TfsCall::Regress);
        assert_eq!(forms, [predict, classify, regress, classify, regress].map(Form::Tfs));
        assert_eq!((&*requests[0].body, requests[3].body.len()), (&b"p"[..], 13));
        let session = written(&[&logged(5, b"")]);
        assert!(records(&session).expect_err("refused").contains("session_run_log"));
        let empty = logged(6, b"");
        let many = written(&vec![&*empty; REQUESTS_MAX + 1]);
        assert!(records(&many).expect_err("too many").contains("1000"));
    }

    #[test]
    fn a_document_is_one_request_or_several() {
        assert_eq!(document(br#"{"instances":[[1]]}"#).map(|all| all.len()), Ok(1));
        assert_eq!(document(br#" [{"instances":[[1]]},{"inputs":[[1]]}]"#).map(|all| all.len()), Ok(2));
        assert!(document(br#"[{"instances":[[1]]},{}]"#).expect_err("no form").starts_with("request 2"));
    }
}
