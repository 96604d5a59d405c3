//! A request for a model that is loaded by calls: it waits, and then is looked at again.
//!
//! Its body stays where it is, with the client or the system, so that requests that wait take no memory of ours.
//!
//! Not here: loading (`repository`).

use std::ops::Range;
use std::time::Duration;

use codecs::v1::write_error;

use super::Connection;
use crate::http::Verb;
use crate::refusal::{Reason, Refusal};
use crate::routes::{Routed, route};
use crate::stream::Stream;

impl<S: Stream> Connection<S> {
    /// Waits for the model, and looks again what the request at `path` of the input buffer asks for.
    pub(super) async fn woken(
        &mut self,
        model: &str,
        verb: Verb,
        path: Range<usize>,
        timeout: Option<Duration>,
    ) -> Routed {
        let timeout = timeout.or(self.shared.timeout);
        let woken = self.shared.repository.wake(model, timeout).await;
        let reply = &mut self.scratch.reply;
        reply.clear();
        let refusal = match woken {
            Ok(()) => {
                let path = std::str::from_utf8(&self.input[path]).unwrap_or("/\u{fffd}");
                match route(verb, path, &self.shared, reply) {
                    Routed::Asleep(model) => {
                        let text = format!("model {model} was unloaded again before the request came to it");
                        Refusal::new(Reason::Shed, text)
                    }
                    routed => return routed,
                }
            }
            Err(refusal) => refusal,
        };
        reply.clear();
        reply.status = refusal.http();
        reply.header("slipway-reason", refusal.reason.word());
        if let Some(after) = refusal.retry_after {
            reply.header("retry-after", itoa::Buffer::new().format(after.as_secs().max(1)));
        }
        write_error(&mut reply.body, &refusal.text);
        Routed::Answered
    }
}
