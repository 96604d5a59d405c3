//! What upstream says about the fields of built-in kinds: packed by the build script, unpacked while a document is made.
//!
//! Unpacked it is half a megabyte that nobody needs between two requests, so there is no static copy.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Read as _;

use flate2::read::GzDecoder;
use serde::Deserialize as _;

static PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/prose.json.gz"));

/// A definition's text and those of its fields.
type Entry<'a> = (Cow<'a, str>, HashMap<Cow<'a, str>, Cow<'a, str>>);

/// The texts by definition; the default has none.
#[derive(Default)]
pub(super) struct Prose<'a>(HashMap<Cow<'a, str>, Entry<'a>>);

/// The unpacked table, to be read by [`Prose::parse`].
pub(super) fn unpack() -> Vec<u8> {
    let mut text = Vec::new();
    GzDecoder::new(PACKED).read_to_end(&mut text).expect("the embedded table is whole: a test reads it");
    text
}

impl<'a> Prose<'a> {
    /// Reads an unpacked table and borrows from it what it can.
    pub fn parse(text: &'a [u8]) -> Self {
        let mut reader = serde_json::Deserializer::from_slice(text);
        Self(HashMap::deserialize(&mut reader).expect("the embedded table is JSON: a test reads it"))
    }

    /// The text of a definition, such as `io.k8s.api.core.v1.Probe`.
    pub fn of(&self, definition: &str) -> Option<&str> {
        self.0.get(definition).map(|(text, _)| text.as_ref()).filter(|text| !text.is_empty())
    }

    /// The text of a definition's field.
    pub fn of_field(&self, definition: &str, field: &str) -> Option<&str> {
        self.0.get(definition)?.1.get(field).map(Cow::as_ref)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_definition_of_the_table_of_facts_is_described() {
        let text = unpack();
        let prose = Prose::parse(&text);
        let silent: Vec<&str> =
            crate::facts::table::names().filter(|name| prose.of(name).is_none()).collect();
        assert!(silent.is_empty(), "add their kinds to build.rs: {silent:?}");
        let text = prose.of_field("io.k8s.api.core.v1.Container", "livenessProbe").unwrap();
        assert!(text.starts_with("Periodic probe of container liveness."), "{text}");
    }
}
