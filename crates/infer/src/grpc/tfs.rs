//! `tensorflow.serving.PredictionService` and `ModelService`.
//!
//! Not here: the messages (`codecs::grpc::tfs`).

use std::sync::Arc;

use bytes::Bytes;
use codecs::call::Call;
use codecs::grpc::frame;
use codecs::grpc::tfs::{
    Answered, decode_examples, decode_multi, decode_predict, decode_reload, decode_serialised_examples,
    decode_target, encode_metadata, encode_predict, encode_reload, encode_status, metadata_fields,
    put_answered, put_classifications, put_regressions,
};
use codecs::wire::{put_bytes_always, put_message};
use models::{Outputs, Tensor};

use super::envelope::Envelope;
use super::{Context, Outcome, Scratch, evaluate, malformed, message, unknown};
use crate::bind::{Binder, wrong};
use crate::config::Model;
use crate::control;
use crate::evaluate::Inputs;
use crate::exchange::{Asked, Message, Protocol, Reply, TfsCall};
use crate::http::Meta;
use crate::metrics::{Api, Entry};
use crate::observe::Letter;
use crate::refusal::{Reason, Refusal};
use crate::repository::{NotServed, Which};
use crate::routes::tfs as routes;
use crate::routes::tfs::{check_method, classes, refusal_of, regressions, states, version_number};
use crate::routes::v1::malformed as wrong_message;
use crate::served::Served;

/// The tensors of a call.
#[derive(Debug, Default)]
pub(crate) struct Tensors {
    call: Call,
    binder: Binder,
    which: TfsCall,
    /// The answer is a part of a `MultiInferenceResponse`.
    is_task: bool,
    rows: usize,
}

impl Protocol for Tensors {
    fn way(&self) -> (Api, Entry) {
        (self.which.api(), Entry::Grpc)
    }

    fn another(&self) -> Self {
        Self { which: self.which, ..Self::default() }
    }

    fn choose(&self, served: &Served, body: &[u8]) -> Result<Option<Arc<Served>>, Refusal> {
        let mut call = Call::new();
        decode_target(body, &mut call).map_err(wrong_message)?;
        routes::signature(served, call.view(body).signature())
    }

    fn parse(&mut self, served: &Served, message: Message<'_>) -> Result<Asked, Refusal> {
        let body = message.body;
        match self.which {
            TfsCall::Predict => decode_predict(body, &mut self.call).map_err(wrong_message)?,
            TfsCall::Classify | TfsCall::Regress => {
                check_method(served, self.which)?;
                let request = decode_target(body, &mut self.call).map_err(wrong_message)?;
                let signature = served.backend.signature();
                let decode =
                    if served.named.takes_examples { decode_serialised_examples } else { decode_examples };
                decode(request.input, body, signature, &mut self.call).map_err(wrong_message)?;
            }
        }
        let view = self.call.view(body);
        routes::signature(served, view.signature())?;
        self.rows = self.binder.bind(served, view)?;
        Ok(Asked { rows: self.rows, ..Asked::default() })
    }

    fn inputs<'a>(&'a self, served: &'a Served, body: &'a [u8]) -> Result<Inputs<'a>, Refusal> {
        self.binder.inputs(served, self.call.view(body))
    }

    fn write(
        &mut self,
        served: &Served,
        body: &[u8],
        outputs: &Outputs,
        reply: &mut Reply,
    ) -> Result<(), Refusal> {
        let out = &mut reply.body;
        let at = frame::begin(out);
        let spec = answered(served);
        let (own, classified, regressed) = if self.is_task { (1, 2, 3) } else { (2, 1, 1) };
        match self.which {
            TfsCall::Predict => {
                let chosen = self.chosen(served, body, outputs)?;
                encode_predict(out, spec, chosen.into_iter());
            }
            TfsCall::Classify => {
                let classes = classes(served, outputs, self.rows)?;
                let rows = classes.iter().map(|row| row.iter().map(|(label, score)| (&**label, *score)));
                put_classifications(out, classified, rows);
                put_answered(out, own, spec);
            }
            TfsCall::Regress => {
                put_regressions(out, regressed, regressions(served, outputs, self.rows)?.into_iter());
                put_answered(out, own, spec);
            }
        }
        frame::end(out, at, false);
        Ok(())
    }

    fn refuse(&mut self, _served: Option<&Served>, refusal: &Refusal, reply: &mut Reply) {
        reply.body.extend_from_slice(refusal.text.as_bytes());
    }

    fn shrink(&mut self) {
        self.call.clear();
        self.binder.shrink();
    }
}

impl Tensors {
    /// For a call of this kind.
    pub(crate) fn of(which: TfsCall) -> Self {
        Self { which, ..Self::default() }
    }

    /// The outputs that `output_filter` names, or all.
    fn chosen<'t>(
        &self,
        served: &'t Served,
        body: &[u8],
        outputs: &'t Outputs,
    ) -> Result<Vec<(&'t str, &'t Tensor<'static>)>, Refusal> {
        let specs = &served.backend.signature().outputs;
        let named = specs.iter().map(|spec| spec.name.as_str()).zip(outputs.tensors());
        let view = self.call.view(body);
        if view.wanted().len() == 0 {
            return Ok(named.collect());
        }
        let mut chosen = Vec::new();
        for (name, _) in view.wanted() {
            let found = named.clone().find(|(own, _)| *own == name);
            chosen.push(found.ok_or_else(|| {
                let has: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
                wrong(served, &format!("output tensor alias not found in signature: {name}, it has {has:?}"))
            })?);
        }
        Ok(chosen)
    }
}

fn answered(served: &Served) -> Answered<'_> {
    Answered {
        name: &served.name,
        version: Some(version_number(served.version)),
        signature: &served.named.name,
    }
}

/// The version that a request's `ModelSpec` asks for.
fn which<'a>(call: &'a Call, body: &'a [u8]) -> Result<Which<'a>, Refusal> {
    let view = call.view(body);
    match (view.version(), view.label()) {
        (None, "") => Ok(Which::Default),
        (None, label) => Ok(Which::Label(label)),
        (Some(version), _) => match u64::try_from(version) {
            Ok(version) => Ok(Which::Version(version)),
            Err(_) => {
                let text = format!("Servable not found for request: Specific({}, {version})", view.model());
                Err(Refusal::new(Reason::NotFound, text))
            }
        },
    }
}

async fn find(context: &Context, call: &Call, body: &[u8], meta: &Meta) -> Result<Arc<Served>, Refusal> {
    let name = call.view(body).model();
    if name.is_empty() {
        return Err(Refusal::new(Reason::Malformed, "Missing ModelSpec"));
    }
    let which = which(call, body)?;
    let mut found = routes::find(&context.shared.repository, name, which);
    if let Err(NotServed::Asleep(_)) = found {
        context.wake(name, meta).await?;
        found = routes::find(&context.shared.repository, name, which);
    }
    found.map_err(|error| context.shared.observe.lost_to(refusal_of(&error, name, which)))
}

/// What the messages of a call are called. The part of a `MultiInference` is asked as a call of its own.
fn letter(which: TfsCall, is_task: bool) -> Letter {
    let (request, response) = match which {
        TfsCall::Predict => ("tensorflow.serving.PredictRequest", "tensorflow.serving.PredictResponse"),
        TfsCall::Classify => {
            ("tensorflow.serving.ClassificationRequest", "tensorflow.serving.ClassificationResponse")
        }
        TfsCall::Regress => ("tensorflow.serving.RegressionRequest", "tensorflow.serving.RegressionResponse"),
    };
    Letter { request, response: if is_task { "tensorflow.serving.InferenceResult" } else { response } }
}

async fn run(
    context: &Context,
    body: Bytes,
    envelope: &mut Envelope,
    which: TfsCall,
    is_task: bool,
) -> Outcome {
    let mut scratch = Scratch::take();
    let Scratch { tfs, outputs, reply, .. } = &mut *scratch;
    decode_target(&body, &mut tfs.call).map_err(wrong_message)?;
    let served = find(context, &tfs.call, &body, &envelope.meta).await?;
    envelope.letter = letter(which, is_task);
    tfs.which = which;
    tfs.is_task = is_task;
    let outcome = evaluate(context, tfs, outputs, reply, &served, body, envelope).await;
    scratch.give_back();
    outcome
}

/// `PredictionService`.
pub(super) async fn predictions(
    context: &Arc<Context>,
    method: &str,
    body: Bytes,
    envelope: &mut Envelope,
) -> Outcome {
    match method {
        "Predict" => run(context, body, envelope, TfsCall::Predict, false).await,
        "Classify" => run(context, body, envelope, TfsCall::Classify, false).await,
        "Regress" => run(context, body, envelope, TfsCall::Regress, false).await,
        "MultiInference" => multi(context, &body, envelope).await,
        "GetModelMetadata" => metadata(context, &body, &envelope.meta).await,
        _ => Err(unknown(method)),
    }
}

/// Each task is a call of its own on the same examples.
async fn multi(context: &Context, body: &Bytes, envelope: &mut Envelope) -> Outcome {
    let request = decode_multi(body).map_err(wrong_message)?;
    if request.tasks.is_empty() {
        return Err(Refusal::new(Reason::Malformed, "Inference request must have at least one task"));
    }
    let mut results = Vec::new();
    for (spec, method) in &request.tasks {
        let which = match *method {
            "tensorflow/serving/classify" => TfsCall::Classify,
            "tensorflow/serving/regress" => TfsCall::Regress,
            other => {
                let shown: String = other.chars().take(80).collect();
                let text = format!("Unsupported signature method_name: {shown}");
                return Err(Refusal::new(Reason::Unsupported, text));
            }
        };
        let mut task = Vec::with_capacity(spec.len() + request.input.len() + 20);
        put_bytes_always(&mut task, 1, spec);
        put_bytes_always(&mut task, 2, request.input);
        results.push(run(context, task.into(), envelope, which, true).await?);
    }
    Ok(message(|out| {
        for result in &results {
            put_message(out, 1, |out| out.extend_from_slice(&result[frame::PREFIX..]));
        }
    }))
}

async fn metadata(context: &Context, body: &Bytes, meta: &Meta) -> Outcome {
    let mut call = Call::new();
    decode_target(body, &mut call).map_err(wrong_message)?;
    let fields = metadata_fields(body).map_err(malformed)?;
    if fields.is_empty() {
        return Err(Refusal::new(
            Reason::Malformed,
            "GetModelMetadataRequest must specify at least one metadata_field",
        ));
    }
    if let Some(other) = fields.iter().find(|field| **field != "signature_def") {
        let text = format!("Metadata field {other} is not supported");
        return Err(Refusal::new(Reason::Malformed, text));
    }
    let served = find(context, &call, body, meta).await?;
    let signatures = routes::signatures(&served);
    let spec = Answered { signature: "", ..answered(&served) };
    Ok(message(|out| encode_metadata(out, spec, &signatures)))
}

/// `ModelService`.
pub(super) async fn models(context: &Arc<Context>, method: &str, body: Bytes) -> Outcome {
    match method {
        "GetModelStatus" => {
            let mut call = Call::new();
            decode_target(&body, &mut call).map_err(wrong_message)?;
            let name = call.view(&body).model();
            if name.is_empty() {
                return Err(Refusal::new(Reason::Malformed, "Missing ModelSpec"));
            }
            let states = states(context.shared.repository.status(name), name, which(&call, &body)?)?;
            Ok(message(|out| encode_status(out, &states)))
        }
        "HandleReloadConfigRequest" => {
            if !context.is_open {
                return Err(control::not_open());
            }
            let orders = decode_reload(&body)
                .map_err(malformed)?
                .ok_or_else(|| Refusal::new(Reason::Malformed, "ServerConfig has no model_config_list"))?;
            let models: Vec<Model> = orders.into_iter().map(Model::from).collect();
            for model in &models {
                model.check().map_err(malformed)?;
            }
            context.shared.repository.reload(models).await?;
            Ok(message(|out| encode_reload(out, 0, "")))
        }
        _ => Err(unknown(method)),
    }
}
