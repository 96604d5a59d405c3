//! V1's `:predict` for models that take whole documents: classes of the operator's own.
//!
//! The body goes to the model as it came and the model's document comes back as it is. All other protocols reach such a
//! model by tensors. Shadows are not asked here: they compare tensors.
//!
//! Not here: `:predict` of all other models (`routes::v1`).

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use codecs::v1::write_error;

use crate::drive::{Body, Desk};
use crate::http::Meta;
use crate::metrics::{Api, Entry};
use crate::observe::{Outcome, Watch};
use crate::refusal::{Reason, Refusal};
use crate::served::Served;

/// Answers a call; the reply is complete afterwards, whatever happened.
pub(crate) async fn call(served: &Arc<Served>, body: Body<'_>, meta: &Meta, desk: Desk<'_>) {
    let Desk { reply, metrics, shared, tags, .. } = desk;
    reply.clear();
    let timeout = meta.timeout.or(shared.timeout);
    let watch = Watch::begin(shared, metrics, served, (Api::Predict, Entry::Rest), body.len());
    let mut watch = watch.of(timeout, meta.parent);
    let deadline = timeout.and_then(|timeout| watch.marks.arrived.checked_add(timeout));
    let body = match body {
        Body::Small(body) => Bytes::copy_from_slice(body),
        Body::Large(body) => body,
    };
    let (own, kept) = (served.clone(), tags.is_some().then(|| body.clone()));
    watch.marks.parsed = Some(Instant::now());
    let answered = served.aside(move || {
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(Refusal::new(Reason::Deadline, "the deadline passed before the evaluation began"));
        }
        let mut answer = Vec::new();
        own.backend.answer_document(&body, &mut answer)?;
        Ok(answer)
    });
    let answered = answered.await.and_then(|answered| answered);
    let text = match answered {
        Ok(answer) => {
            watch.marks.rows = 1;
            watch.marks.evaluated = Some(Instant::now());
            watch.marks.written = watch.marks.evaluated;
            reply.body = answer;
            String::new()
        }
        Err(refusal) => {
            reply.status = refusal.http();
            reply.reason = Some(refusal.reason);
            if !matches!(refusal.reason, Reason::Malformed | Reason::Input) {
                reply.header("slipway-reason", refusal.reason.word());
            }
            if let Some(after) = refusal.retry_after {
                reply.header("retry-after", &after.as_secs().max(1).to_string());
            }
            write_error(&mut reply.body, &refusal.text);
            refusal.text
        }
    };
    let (status, reason, reply_bytes) = (reply.status, reply.reason, reply.body.len());
    let phases = watch.end(Outcome { status, reason, text: &text, reply_bytes });
    shared.observe.log(tags, watch.marks.arrived, &kept.unwrap_or_default(), reply);
    shared.observe.dress(shared.slot(served), phases, reply);
}
