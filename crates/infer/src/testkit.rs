//! Doors for tests of other crates to readers that are nobody else's business.
//!
//! Not here: anything that the server uses.

use crate::http::{self, Chunks, Parsed};
use crate::{events, proof, routes};

/// Reads a request's head, what its path means, and its body in chunks; panics where a promise does not hold.
pub fn http(bytes: &[u8]) {
    let Parsed::Head(head) = http::parse_head(bytes) else { return };
    assert!(head.len <= bytes.len() && head.path.end <= head.len);
    let path = std::str::from_utf8(&bytes[head.path]).unwrap_or("/");
    routes::read_path(path);
    let body = &bytes[head.len..];
    let _ = events::data(body);
    for step in [body.len().max(1), 1] {
        let mut chunks = Chunks::default();
        let mut rest = body;
        while !rest.is_empty() {
            let Ok((used, is_over)) = chunks.feed(&rest[..step.min(rest.len())], 1 << 16) else { break };
            assert!(used <= rest.len() && chunks.body.len() <= 1 << 16);
            rest = &rest[used..];
            if is_over || used == 0 {
                break;
            }
        }
    }
}

/// Reads the documents that lie beside models.
pub fn documents(text: &[u8]) {
    proof::read_documents(text);
}

/// Reads stored warm-up requests.
pub fn records(file: &[u8]) {
    proof::read_records(file);
}
