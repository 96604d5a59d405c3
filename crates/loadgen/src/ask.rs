//! What a server says about itself: its models, and what one of them takes.
//!
//! A few small requests before the measurement, each on a connection of its own. Servers that describe nothing can
//! still be measured, with data whose columns are taken as they are.
//!
//! Not here: the load (`drive`).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use models::{DType, Signature, TensorSpec};
use serde_json::Value;

use crate::http1::{Http1, Reply};
use crate::target::{Protocol, Target};
use crate::{Error, Result};

const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of a description that are read.
const BYTES_MAX: usize = 4 << 20;

/// The answer to a request without a body (`GET`) or with an empty object (`POST`).
pub fn call(target: &Target, method: &str, path: &str) -> Result<(u16, Vec<u8>)> {
    let reach = |source| Error::Reach { address: target.address, source };
    let mut socket = TcpStream::connect_timeout(&target.address, PATIENCE).map_err(reach)?;
    socket.set_read_timeout(Some(PATIENCE)).map_err(reach)?;
    let body = if method == "POST" { "{}" } else { "" };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        target.host,
        body.len()
    );
    socket.write_all(request.as_bytes()).map_err(reach)?;
    let mut reader = Http1::keeping(BYTES_MAX);
    let mut buffer = vec![0; 64 << 10];
    let mut bytes = 0;
    let reply: Reply = loop {
        let count = socket.read(&mut buffer).map_err(reach)?;
        bytes += count;
        if bytes > 2 * BYTES_MAX {
            return Err(Error::Target(format!("{path} answers more than {BYTES_MAX} bytes")));
        }
        let reply = match count {
            0 => reader.ended(),
            count => reader.feed(&buffer[..count]).map_err(Error::Target)?,
        };
        match reply {
            Some(reply) => break reply,
            None if count == 0 => return Err(reach(std::io::ErrorKind::UnexpectedEof.into())),
            None => {}
        }
    };
    // A chunked body's sample has its chunk lines in it; what looks like JSON is between them.
    Ok((reply.status, reader.sample.take().unwrap_or_default()))
}

fn document(target: &Target, method: &str, path: &str) -> Result<Option<Value>> {
    let (status, body) = call(target, method, path)?;
    if status != 200 {
        return Ok(None);
    }
    // From the first bracket: chunk lines may stand before it.
    let start = body.iter().position(|byte| matches!(byte, b'{' | b'[')).unwrap_or(0);
    let mut values = serde_json::Deserializer::from_slice(&body[start..]).into_iter::<Value>();
    Ok(values.next().and_then(std::result::Result::ok))
}

/// The target with its model's name: the URL's, or the only one that the server has.
pub fn with_model(target: Target, protocol: Protocol) -> Result<Target> {
    if !target.model.is_empty() {
        return Ok(target);
    }
    let mut names: Vec<String> = Vec::new();
    if protocol != Protocol::Tfs {
        if let Some(listed) = document(&target, "GET", "/v1/models")? {
            let models = listed.get("models").and_then(Value::as_array).cloned().unwrap_or_default();
            names.extend(models.iter().filter_map(Value::as_str).map(str::to_owned));
        }
        if names.is_empty()
            && let Some(index) = document(&target, "POST", "/v2/repository/index")?
        {
            let models = index.as_array().cloned().unwrap_or_default();
            names.extend(models.iter().filter_map(|model| model.get("name")?.as_str()).map(str::to_owned));
            names.dedup();
        }
    }
    match names.as_slice() {
        [only] => Ok(Target { model: only.clone(), ..target }),
        [] => Err(Error::Target(format!(
            "the server names no model; say which: http://{}/v1/models/NAME",
            target.host
        ))),
        several => Err(Error::Target(format!(
            "the server has {} models ({}); say which: http://{}/v1/models/{}",
            several.len(),
            several.iter().take(5).cloned().collect::<Vec<_>>().join(", "),
            target.host,
            several[0]
        ))),
    }
}

/// What the model takes; `None` where the server does not say.
pub fn signature(target: &Target, protocol: Protocol) -> Result<Option<Signature>> {
    if protocol == Protocol::Tfs {
        let path = format!("/v1/models/{}/metadata", target.model);
        return Ok(document(target, "GET", &path)?.as_ref().and_then(of_tfs));
    }
    let path = format!("/v2/models/{}", target.model);
    Ok(document(target, "GET", &path)?.as_ref().and_then(of_v2))
}

fn of_v2(document: &Value) -> Option<Signature> {
    let input = |input: &Value| {
        let dtype = DType::of_v2_name(input.get("datatype")?.as_str()?.as_bytes())?;
        let shape = input.get("shape")?.as_array()?;
        let size = |size: &Value| size.as_u64().map(|size| size as usize).filter(|size| *size > 0);
        let row: Vec<_> = shape.iter().skip(1).map(size).collect();
        Some(TensorSpec::new(input.get("name")?.as_str()?, dtype, row))
    };
    let inputs: Option<Vec<TensorSpec>> = document.get("inputs")?.as_array()?.iter().map(input).collect();
    made(inputs?)
}

fn of_tfs(document: &Value) -> Option<Signature> {
    let signatures = document.get("metadata")?.get("signature_def")?.get("signature_def")?;
    let inputs = signatures.get("serving_default")?.get("inputs")?.as_object()?;
    let input = |(name, input): (&String, &Value)| {
        let dtype = match input.get("dtype")?.as_str()? {
            "DT_FLOAT" => DType::F32,
            "DT_DOUBLE" => DType::F64,
            "DT_INT64" => DType::I64,
            "DT_INT32" => DType::I32,
            "DT_STRING" => DType::Text,
            _ => return None,
        };
        let dims = input.get("tensor_shape")?.get("dim")?.as_array()?;
        let size = |dim: &Value| dim.get("size")?.as_str()?.parse().ok().filter(|size| *size > 0_usize);
        Some(TensorSpec::new(name.clone(), dtype, dims.iter().skip(1).map(size).collect::<Vec<_>>()))
    };
    made(inputs.iter().map(input).collect::<Option<Vec<_>>>()?)
}

fn made(inputs: Vec<TensorSpec>) -> Option<Signature> {
    (!inputs.is_empty()).then_some(Signature { inputs, outputs: Vec::new(), columns: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn both_kinds_of_metadata_say_what_a_model_takes() {
        let v2 = json!({"inputs": [{"name": "input-0", "datatype": "FP64", "shape": [-1, 4]}]});
        let tfs = json!({"metadata": {"signature_def": {"signature_def": {"serving_default": {"inputs": {
            "x": {"dtype": "DT_FLOAT", "tensor_shape": {"dim": [{"size": "-1"}, {"size": "3"}]}}}}}}}});
        let v2 = of_v2(&v2).expect("it says");
        assert_eq!((v2.inputs[0].dtype, v2.inputs[0].row.as_slice()), (DType::F64, &[Some(4)][..]));
        let tfs = of_tfs(&tfs).expect("it says");
        assert_eq!((tfs.inputs[0].dtype, tfs.inputs[0].row.as_slice()), (DType::F32, &[Some(3)][..]));
        assert!(of_v2(&json!({"inputs": []})).is_none());
    }
}
