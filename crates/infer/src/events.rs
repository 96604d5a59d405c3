//! CloudEvents around calls, as KServe's Python servers take and give them.
//!
//! A *binary* event has its attributes in `ce-…` headers and a plain body; a *structured* one is a JSON object with the
//! body under `data`. The answer is an event of the same mode, from `io.kserve.inference.MODEL`. Refusals are no events.
//!
//! Not here: sending events to a log.

use std::time::SystemTime;

use codecs::json::{Cursor, push_text};

use crate::date::timestamp;
use crate::exchange::Reply;
use crate::routes::v2::Ids;
use crate::served::Served;

/// How a request carries an event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Not at all.
    #[default]
    None,
    /// In headers.
    Binary,
    /// Around the body.
    Structured,
}

const KIND: &str = "io.kserve.inference.response";

/// Where the data of a structured event lies in its text.
pub(crate) fn data(text: &[u8]) -> Result<std::ops::Range<usize>, &'static str> {
    let mut found = None;
    let mut has_version = false;
    let walked = Cursor::new(text).object(|cursor, key| {
        has_version |= key == "specversion";
        cursor.peek();
        let start = cursor.offset();
        cursor.skip()?;
        if key == "data" {
            found = Some(start..cursor.offset());
        }
        Ok::<_, codecs::json::JsonError>(())
    });
    match (walked, has_version, found) {
        (Err(_), ..) => Err("Failed to decode or parse binary json cloudevent: it is no JSON object"),
        (_, false, _) => Err("Failed to decode or parse binary json cloudevent: it has no specversion"),
        (_, _, None) => Err("Failed to decode or parse binary json cloudevent: it has no data"),
        (_, _, Some(found)) => Ok(found),
    }
}

/// Makes an answer an event.
pub(crate) fn wrap(mode: Mode, served: &Served, ids: &mut Ids, reply: &mut Reply) {
    let now = timestamp(SystemTime::now());
    let source = format!("io.kserve.inference.{}", served.name);
    match mode {
        Mode::None => {}
        Mode::Binary => {
            reply.header("ce-specversion", "1.0");
            reply.header("ce-id", ids.next());
            reply.header("ce-type", KIND);
            reply.header("ce-source", &source);
            reply.header("ce-time", &now);
        }
        Mode::Structured => {
            let mut out = Vec::with_capacity(reply.body.len() + 256);
            out.extend_from_slice(b"{\"specversion\":\"1.0\",\"id\":");
            push_text(&mut out, ids.next());
            for (key, value) in [("type", KIND), ("source", &source), ("time", &now)] {
                out.push(b',');
                push_text(&mut out, key);
                out.push(b':');
                push_text(&mut out, value);
            }
            out.extend_from_slice(b",\"data\":");
            out.extend_from_slice(&reply.body);
            out.push(b'}');
            reply.body = out;
            reply.kind = "application/cloudevents+json";
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_of_an_event_is_found() {
        let text = br#"{"specversion":"1.0","id":"1","data": {"instances":[[1]]} ,"x":{"data":2}}"#;
        let range = data(text).expect("data");
        assert_eq!(&text[range], br#"{"instances":[[1]]}"#);
        for text in [&b"[]"[..], b"{", br#"{"data":1}"#, br#"{"specversion":"1.0"}"#] {
            assert!(data(text).is_err());
        }
    }
}
