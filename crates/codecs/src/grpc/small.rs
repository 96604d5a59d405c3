//! Messages of `grpc.health.v1.Health` and `grpc.reflection.v1.ServerReflection` (also `v1alpha`, which is the same).

use crate::wire::{Fields, WireError, put_bytes, put_bytes_always, put_int, put_message};

/// The only field of a `HealthCheckRequest`: the service; empty is the server as a whole.
pub fn decode_health(body: &[u8]) -> Result<&str, WireError> {
    let mut service = "";
    for field in Fields::of(body) {
        let field = field?;
        if field.number == 1 {
            service = field.text()?;
        }
    }
    Ok(service)
}

/// A service's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It answers.
    Serving = 1,
    /// It does not now.
    NotServing = 2,
    /// There is none of that name; only `Watch` says so in a message.
    ServiceUnknown = 3,
}

/// Appends a `HealthCheckResponse`.
pub fn encode_health(out: &mut Vec<u8>, health: Health) {
    put_int(out, 1, health as u64);
}

/// What a reflection request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked<'a> {
    /// The file of this name.
    File(&'a str),
    /// The file that has this symbol.
    Symbol(&'a str),
    /// The names of all services.
    Services,
    /// Something about extensions, which nothing here has.
    Other,
}

/// Decodes a `ServerReflectionRequest`.
pub fn decode_reflection(body: &[u8]) -> Result<Asked<'_>, WireError> {
    let mut asked = Asked::Other;
    for field in Fields::of(body) {
        let field = field?;
        match field.number {
            3 => asked = Asked::File(field.text()?),
            4 => asked = Asked::Symbol(field.text()?),
            7 => asked = Asked::Services,
            _ => {}
        }
    }
    Ok(asked)
}

/// Appends a `ServerReflectionResponse` with these files.
pub fn encode_files<'f>(out: &mut Vec<u8>, request: &[u8], files: impl Iterator<Item = &'f [u8]>) {
    put_bytes(out, 2, request);
    put_message(out, 4, |out| files.for_each(|file| put_bytes_always(out, 1, file)));
}

/// Appends a `ServerReflectionResponse` with the names of services.
pub fn encode_services<'f>(out: &mut Vec<u8>, request: &[u8], services: impl Iterator<Item = &'f str>) {
    put_bytes(out, 2, request);
    put_message(out, 6, |out| {
        for service in services {
            put_message(out, 1, |out| put_bytes(out, 1, service.as_bytes()));
        }
    });
}

/// Appends a `ServerReflectionResponse` with an error.
pub fn encode_reflection_error(out: &mut Vec<u8>, request: &[u8], code: u32, text: &str) {
    put_bytes(out, 2, request);
    put_message(out, 7, |out| {
        put_int(out, 1, u64::from(code));
        put_bytes(out, 2, text.as_bytes());
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reflection_requests_are_told_apart() {
        for (field, want) in [(3, Asked::File("a")), (4, Asked::Symbol("a")), (7, Asked::Services)] {
            let mut body = Vec::new();
            put_bytes(&mut body, 1, b"host");
            put_bytes(&mut body, field, b"a");
            assert_eq!(decode_reflection(&body), Ok(want));
        }
    }
}
