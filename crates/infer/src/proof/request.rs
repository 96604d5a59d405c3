//! A stored request, and running it as if a client had sent it.
//!
//! Reading, evaluating and writing are those of the protocols; only the queue before the model is left out, because
//! the model is in none yet.
//!
//! Not here: where requests are stored (`warm`, `golden`).

use models::{Batch, Outputs};

use crate::exchange::{Message, Protocol, Reply, TfsCall};
use crate::grpc::Tensors;
use crate::http::Meta;
use crate::refusal::Refusal;
use crate::routes::v1::V1;
use crate::routes::v2::V2;
use crate::served::Served;

/// How a request is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// The body of V1's `:predict`.
    V1,
    /// The body of V2's `infer`; so many bytes of it are JSON where binary tensors follow.
    V2(Option<usize>),
    /// A message of TensorFlow Serving's `PredictionService`.
    Tfs(TfsCall),
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) form: Form,
    pub(super) body: Vec<u8>,
}

impl Request {
    /// A request in JSON, whose form shows in it: V2's `inputs` is a list of tensors with names.
    pub(super) fn of_json(body: &str) -> Result<Self, String> {
        #[derive(serde::Deserialize)]
        struct Named {
            #[serde(rename = "name")]
            _name: String,
            #[serde(rename = "datatype")]
            _datatype: String,
        }
        #[derive(serde::Deserialize)]
        struct Probe<'a> {
            #[serde(borrow)]
            inputs: Option<&'a serde_json::value::RawValue>,
            #[serde(borrow)]
            instances: Option<&'a serde_json::value::RawValue>,
        }
        let probe: Probe<'_> = serde_json::from_str(body).map_err(|error| error.to_string())?;
        let tensors = |raw: &serde_json::value::RawValue| {
            serde_json::from_str::<Vec<Named>>(raw.get()).is_ok_and(|tensors| !tensors.is_empty())
        };
        let form = match (probe.instances, probe.inputs) {
            (Some(_), None) => Form::V1,
            (None, Some(inputs)) if tensors(inputs) => Form::V2(None),
            (None, Some(_)) => Form::V1,
            _ => return Err("a request has either \"instances\" (V1) or \"inputs\" (V2)".to_owned()),
        };
        Ok(Self { form, body: body.as_bytes().to_vec() })
    }

    /// Runs it; the rows, and the model's tensors in `outputs`.
    pub(super) fn run(&self, served: &Served, outputs: &mut Outputs) -> Result<usize, Refusal> {
        let meta = match self.form {
            Form::V2(json_len) => Meta { json_len, ..Meta::default() },
            Form::V1 | Form::Tfs(_) => Meta::default(),
        };
        match self.form {
            Form::V1 => through(&mut V1::default(), served, &self.body, &meta, outputs),
            Form::V2(_) => through(&mut V2::default(), served, &self.body, &meta, outputs),
            Form::Tfs(which) => through(&mut Tensors::of(which), served, &self.body, &meta, outputs),
        }
    }
}

fn through<P: Protocol>(
    protocol: &mut P,
    served: &Served,
    body: &[u8],
    meta: &Meta,
    outputs: &mut Outputs,
) -> Result<usize, Refusal> {
    let other = if served.has_others() { protocol.choose(served, body)? } else { None };
    let served = other.as_deref().unwrap_or(served);
    let asked = protocol.parse(served, Message { body, meta })?;
    let inputs = protocol.inputs(served, body)?;
    outputs.clear();
    served.backend.run(&Batch { rows: asked.rows, inputs: &inputs }, outputs)?;
    drop(inputs);
    let mut reply = Reply::default();
    reply.clear();
    protocol.write(served, body, outputs, &mut reply)?;
    Ok(asked.rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_of_a_request_shows_in_it() {
        for (body, want) in [
            (r#"{"instances":[[1]]}"#, Ok(Form::V1)),
            (r#"{"inputs":[[1]]}"#, Ok(Form::V1)),
            (r#"{"inputs":{"x":[1]}}"#, Ok(Form::V1)),
            (r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[1]}]}"#, Ok(Form::V2(None))),
            (r#"{"instances":[],"inputs":[]}"#, Err("either")),
            (r#"{"x":1}"#, Err("either")),
            ("[1]", Err("expected")),
        ] {
            match (Request::of_json(body), want) {
                (Ok(request), Ok(form)) => assert_eq!(request.form, form, "{body}"),
                (Err(error), Err(word)) => assert!(error.contains(word), "{body}: {error}"),
                (got, want) => panic!("{body}: got {got:?}, want {want:?}"),
            }
        }
    }
}
