//! `inference.GRPCInferenceService`: the Open Inference Protocol, and what KServe, Triton and MLServer add to it.
//!
//! Where those differ, what any of their clients sends is understood, and the answer follows the model's personality:
//! Triton wraps each answer of a stream, MLServer sends it plain.
//!
//! Not here: the messages (`codecs::grpc::oip`).

use std::sync::Arc;

use bytes::Bytes;
use codecs::call::Call;
use codecs::grpc::frame;
use codecs::grpc::oip::{
    self, Head, decode_index, decode_infer, decode_load, decode_name, encode_config, encode_index,
    encode_infer, encode_load, encode_metadata, encode_server, encode_stream_error, encode_truth,
};
use codecs::wire::{put_bytes, put_int, put_message};
use futures::stream::{self, BoxStream, StreamExt};
use models::Outputs;

use super::body::Messages;
use super::envelope::Envelope;
use super::{Context, Outcome, Scratch, evaluate, in_time, malformed, message, unknown};
use crate::bind::Binder;
use crate::control::{self, Order};
use crate::evaluate::Inputs;
use crate::exchange::{Asked, Message, Protocol, Reply};
use crate::http::Meta;
use crate::metrics::{Api, Entry};
use crate::observe::Letter;
use crate::refusal::{Reason, Refusal};
use crate::repository::NotServed;
use crate::routes::classes::{self, Chosen};
use crate::routes::refusal_of;
use crate::routes::v1::malformed as wrong;
use crate::routes::v2::{self, EXTENSIONS, Ids, KSERVE_EXTENSION};
use crate::served::{Personality, Served};

/// Whether this is `ModelStreamInfer`.
pub(super) fn is_stream(path: &str) -> bool {
    path == "/inference.GRPCInferenceService/ModelStreamInfer"
}

/// Where an answer goes.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
enum Wrap {
    #[default]
    Unary,
    /// `ModelStreamInferResponse`.
    Stream,
}

/// The tensors of a `ModelInfer`.
#[derive(Debug, Default)]
pub(super) struct Infer {
    call: Call,
    binder: Binder,
    order: Vec<Chosen>,
    /// Texts of classes.
    made: Outputs,
    version: String,
    ids: Ids,
    wrap: Wrap,
}

impl Protocol for Infer {
    fn way(&self) -> (Api, Entry) {
        (Api::Infer, Entry::Grpc)
    }

    fn parse(&mut self, served: &Served, message: Message<'_>) -> Result<Asked, Refusal> {
        decode_infer(message.body, &mut self.call).map_err(wrong)?;
        let view = self.call.view(message.body);
        v2::select(served, view, &mut self.order)?;
        let rows = self.binder.bind(served, view)?;
        Ok(v2::asked(rows, view))
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
        let view = self.call.view(body);
        v2::version_text(served, &mut self.version);
        let id = match view.id() {
            "" if served.personality == Personality::Kserve => self.ids.next(),
            id => id,
        };
        let specs = &served.backend.signature().outputs;
        let chosen = classes::tensors(&self.order, outputs, &mut self.made)?
            .map(|(place, tensor)| (specs[place].name.as_str(), tensor));
        let head = Head { model: &served.name, version: &self.version, id };
        let out = &mut reply.body;
        let at = frame::begin(out);
        let last = view.parameters().empty_final;
        match (self.wrap, served.personality) {
            (Wrap::Unary, _) | (Wrap::Stream, Personality::MlServer) => {
                encode_infer(out, head, chosen, view.is_raw());
            }
            (Wrap::Stream, _) => put_message(out, 2, |out| {
                encode_infer(out, head, chosen, view.is_raw());
                if last {
                    // Triton's clients of streams that may have many answers a request wait for this one.
                    put_message(out, 4, |out| {
                        put_bytes(out, 1, b"triton_final_response");
                        put_message(out, 2, |out| put_int(out, 1, 1));
                    });
                }
            }),
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

async fn find(context: &Context, name: &str, version: &str, meta: &Meta) -> Result<Arc<Served>, Refusal> {
    let which = v2::which(version)?;
    let mut found = context.shared.repository.find(name, which);
    if let Err(NotServed::Asleep(_)) = found {
        context.wake(name, meta).await?;
        found = context.shared.repository.find(name, which);
    }
    found.map_err(|error| context.shared.observe.lost_to(refusal_of(error, context.shared.personality)))
}

const INFER: Letter =
    Letter { request: "inference.ModelInferRequest", response: "inference.ModelInferResponse" };
const STREAM_INFER: Letter = Letter { response: "inference.ModelStreamInferResponse", ..INFER };

/// `ModelInfer`.
async fn infer(context: &Context, message: Bytes, envelope: &mut Envelope, wrap: Wrap) -> Outcome {
    // The name and version have the numbers that they have in all other requests.
    let (name, version) = decode_name(&message).map_err(malformed)?;
    let served = find(context, name, version, &envelope.meta).await?;
    envelope.letter = match (wrap, served.personality) {
        (Wrap::Unary, _) | (Wrap::Stream, Personality::MlServer) => INFER,
        (Wrap::Stream, _) => STREAM_INFER,
    };
    let mut scratch = Scratch::take();
    let Scratch { oip, outputs, reply, .. } = &mut *scratch;
    oip.wrap = wrap;
    let outcome = evaluate(context, oip, outputs, reply, &served, message, envelope).await;
    scratch.give_back();
    outcome
}

/// Requests of one stream that are worked on at once.
const STREAM_AT_ONCE: usize = 32;

/// The answers of `ModelStreamInfer`, in the order of the requests, several of which are worked on at once.
pub(super) fn answers(
    context: Arc<Context>,
    messages: Messages,
    envelope: Envelope,
) -> BoxStream<'static, Result<Bytes, Refusal>> {
    let requests = stream::unfold(Some(messages), |messages| async move {
        let mut messages = messages?;
        match messages.next_counted().await {
            Ok(Some(request)) => Some((Ok(request), Some(messages))),
            Ok(None) => None,
            // What follows a broken message cannot be read.
            Err(refusal) => Some((Err(refusal), None)),
        }
    });
    let answers = requests.map(move |request| {
        let (context, mut envelope) = (context.clone(), envelope.clone());
        async move {
            let (request, _counted) = request?;
            let timeout = envelope.meta.timeout;
            let work = std::pin::pin!(infer(&context, request.clone(), &mut envelope, Wrap::Stream));
            match in_time(timeout, work).await {
                Ok(answer) => {
                    context.metrics.count_answer(200);
                    Ok(answer)
                }
                Err(refusal) => {
                    context.metrics.count_answer(refusal.http());
                    stream_refusal(&context, &request, refusal)
                }
            }
        }
    });
    answers.buffered(STREAM_AT_ONCE).boxed()
}

/// One request's failure does not end a stream, except where its protocol has no other way to tell.
fn stream_refusal(context: &Context, request: &[u8], refusal: Refusal) -> Outcome {
    if context.shared.personality == Personality::MlServer {
        return Err(refusal);
    }
    let mut id = "";
    for field in codecs::wire::Fields::of(request).flatten() {
        if field.number == 3 {
            id = field.text().unwrap_or_default();
        }
    }
    Ok(message(|out| encode_stream_error(out, &refusal.text, id)))
}

/// The calls of one message.
pub(super) async fn unary(
    context: &Arc<Context>,
    method: &str,
    body: Bytes,
    envelope: &mut Envelope,
) -> Outcome {
    let repository = &context.shared.repository;
    match method {
        "ModelInfer" => infer(context, body, envelope, Wrap::Unary).await,
        "ServerLive" => Ok(message(|out| encode_truth(out, true))),
        "ServerReady" => Ok(message(|out| encode_truth(out, context.shared.is_ready()))),
        "ModelReady" => {
            let (name, version) = decode_name(&body).map_err(malformed)?;
            match repository.find(name, v2::which(version)?) {
                // What sleeps answers whoever calls it, which is what the question is about.
                Ok(_) | Err(NotServed::Asleep(_)) => Ok(message(|out| encode_truth(out, true))),
                Err(NotServed::NotReady { .. }) => Ok(message(|out| encode_truth(out, false))),
                // Triton says of what it does not know that it is not ready.
                Err(_) if context.shared.personality == Personality::Triton => {
                    Ok(message(|out| encode_truth(out, false)))
                }
                Err(error) => Err(error.into()),
            }
        }
        "ServerMetadata" => Ok(message(|out| {
            let [one, two, three, four] = EXTENSIONS;
            let all = [one, two, three, four, KSERVE_EXTENSION];
            encode_server(out, "slipway", env!("CARGO_PKG_VERSION"), &all);
        })),
        "ModelMetadata" => {
            let (name, version) = decode_name(&body).map_err(malformed)?;
            let served = find(context, name, version, &envelope.meta).await?;
            let versions = v2::versions(repository, &served);
            let signature = served.backend.signature();
            Ok(message(|out| {
                encode_metadata(out, &served.name, versions.into_iter(), &served.about.platform, signature);
            }))
        }
        "ModelConfig" => {
            let (name, version) = decode_name(&body).map_err(malformed)?;
            let served = find(context, name, version, &envelope.meta).await?;
            let signature = served.backend.signature();
            Ok(message(|out| encode_config(out, &served.name, &served.about.platform, 0, signature)))
        }
        "RepositoryIndex" => {
            let lines = control::index(repository, decode_index(&body).map_err(malformed)?);
            Ok(message(|out| {
                for line in &lines {
                    encode_index(out, &line.name, &line.version, line.state, &line.reason);
                }
            }))
        }
        "RepositoryModelLoad" | "RepositoryModelUnload" => change(context, method, &body).await,
        _ => Err(unknown(method)),
    }
}

async fn change(context: &Context, method: &str, body: &[u8]) -> Outcome {
    let (name, carries) = decode_load(body).map_err(malformed)?;
    if carries {
        let text = "a load request with a configuration or files of its own is not served";
        return Err(Refusal::new(Reason::Unsupported, text));
    }
    let name = name.to_owned();
    let order = match method {
        "RepositoryModelLoad" => Order::Load(name),
        _ => Order::Unload(name),
    };
    control::carry_out(&order, &context.shared, context.is_open).await?;
    let (Order::Load(name) | Order::Unload(name)) = &order else { return Err(unknown(method)) };
    Ok(message(|out| match context.shared.personality {
        Personality::Kserve => oip::encode_load(out, name, true),
        // Triton's and MLServer's answers are empty.
        _ => encode_load(out, "", false),
    }))
}
