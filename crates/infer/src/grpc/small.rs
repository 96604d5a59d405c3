//! `grpc.health.v1.Health` and server reflection.
//!
//! Not here: their messages (`codecs::grpc::small`).

use std::sync::Arc;

use bytes::Bytes;
use codecs::grpc::descriptor;
use codecs::grpc::small::{
    Asked, Health, decode_health, decode_reflection, encode_files, encode_health, encode_reflection_error,
    encode_services,
};
use futures::stream::{self, BoxStream, StreamExt};

use super::body::Messages;
use super::{Context, Outcome, malformed, message, unknown};
use crate::refusal::{Reason, Refusal};
use crate::repository::Which;

/// The calls that answer with a stream.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Streaming {
    Watch,
    Reflection,
}

pub(super) fn stream(path: &str) -> Option<Streaming> {
    match path {
        "/grpc.health.v1.Health/Watch" => Some(Streaming::Watch),
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
        | "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo" => Some(Streaming::Reflection),
        _ => None,
    }
}

/// The health of a service, or of a model of that name.
fn health(context: &Context, service: &str) -> Option<Health> {
    let repository = &context.shared.repository;
    let serving = match service {
        "" => context.shared.is_ready(),
        service if descriptor::services().any(|known| known == service) => context.shared.is_ready(),
        model => {
            repository.status(model)?;
            repository.find(model, Which::Default).is_ok()
        }
    };
    let serving = serving && !context.shared.is_draining();
    Some(if serving { Health::Serving } else { Health::NotServing })
}

/// `Check`.
pub(super) fn check(context: &Context, method: &str, body: &[u8]) -> Outcome {
    if method != "Check" {
        return Err(unknown(method));
    }
    let service = decode_health(body).map_err(malformed)?;
    match health(context, service) {
        Some(health) => Ok(message(|out| encode_health(out, health))),
        None => Err(Refusal::new(Reason::NotFound, "unknown service")),
    }
}

/// Answers of a streaming call.
pub(super) fn answers(
    which: Streaming,
    context: Arc<Context>,
    messages: Messages,
) -> BoxStream<'static, Result<Bytes, Refusal>> {
    match which {
        Streaming::Watch => watch(context, messages).boxed(),
        Streaming::Reflection => stream::unfold(messages, |mut messages| async move {
            let answer = match messages.next().await {
                Ok(Some(request)) => reflect(&request),
                Ok(None) => return None,
                Err(refusal) => Err(refusal),
            };
            Some((answer, messages))
        })
        .boxed(),
    }
}

/// The health now and whenever it changes, until the server ends.
fn watch(
    context: Arc<Context>,
    mut messages: Messages,
) -> impl futures::Stream<Item = Result<Bytes, Refusal>> + Send {
    let asked = async move { messages.next().await.map(Option::unwrap_or_default) };
    stream::once(asked).flat_map(move |request| {
        let context = context.clone();
        stream::unfold((request, None, false), move |(request, told, is_over)| {
            let context = context.clone();
            async move {
                if is_over {
                    return None;
                }
                let next = match &request {
                    Ok(request) => change(&context, request, told).await,
                    Err(refusal) => Err(refusal.clone()),
                };
                let is_over = next.is_err() || context.shared.is_draining();
                let told = next.as_ref().ok().copied().or(told);
                Some((next.map(|health| message(|out| encode_health(out, health))), (request, told, is_over)))
            }
        })
    })
}

/// Waits until the health is another than the one that was told.
async fn change(context: &Context, request: &[u8], told: Option<Health>) -> Result<Health, Refusal> {
    let service = decode_health(request).map_err(malformed)?;
    let changes = context.shared.repository.changes();
    loop {
        // Before the look: a change after it is not missed.
        let mut changed = std::pin::pin!(changes.notified());
        changed.as_mut().enable();
        let now = health(context, service).unwrap_or(Health::ServiceUnknown);
        if told != Some(now) {
            return Ok(now);
        }
        tokio::select! {
            () = changed => {}
            () = context.shared.drains() => return Ok(Health::NotServing),
        }
    }
}

fn reflect(request: &Bytes) -> Outcome {
    let asked = decode_reflection(request).map_err(malformed)?;
    let missing = |what: &str| {
        message(|out| encode_reflection_error(out, request, Reason::NotFound.grpc(), &format!("no {what}")))
    };
    let file = match asked {
        Asked::Services => {
            return Ok(message(|out| encode_services(out, request, descriptor::services())));
        }
        Asked::File(name) => descriptor::files().iter().find(|file| file.name == name),
        Asked::Symbol(symbol) => descriptor::file_of(symbol),
        Asked::Other => return Ok(missing("extensions")),
    };
    let Some(file) = file else { return Ok(missing("such file or symbol")) };
    let files = descriptor::with_imports(file);
    Ok(message(|out| encode_files(out, request, files.iter().map(|file| &file.bytes[..]))))
}
