//! Damaged requests over real sockets: whatever comes, it is answered or the connection ends, and others go on.
//!
//! `PROPTEST_CASES` and `PROPTEST_RNG_SEED` choose; `make fuzz` sets both.

mod support;

use std::io::{Read, Write};
use std::net::Shutdown;

use infer::Personality;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use support::Running;

fn seeds() -> Vec<Vec<u8>> {
    let post = |path: &str, headers: &str, body: &str| {
        format!("POST {path} HTTP/1.1\r\nhost: h\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
    };
    let rows = r#"{"instances":[[5.1,3.5,1.4,0.2]],"background":[[1,2,3,4]]}"#;
    let tensor =
        r#"{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","parameters":{"binary_data_size":16}}]}"#;
    let length = format!("inference-header-content-length: {}\r\naccept-encoding: gzip\r\n", tensor.len());
    let texts = [
        post("/v1/models/iris:predict", "", rows),
        post("/v1/models/ir%69s/versions/1:classify", "", r#"{"examples":[{"input-0":[1,2,3,4]}]}"#),
        post("/v1/models/iris:explain", "", rows),
        post("/v2/models/iris/infer", &length, &format!("{tensor}0123456789abcdef")),
        post("/v2/repository/models/iris/load", "content-encoding: deflate\r\n", "{}"),
        "GET /v1/models/iris/labels/a/metadata HTTP/1.1\r\n\r\nGET /v2/health/ready HTTP/1.1\r\n\r\n"
            .to_owned(),
        format!(
            "POST /v1/models/iris:predict HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{rows}\r\n0\r\n\r\n",
            rows.len()
        ),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0\0\0\u{1}\u{1}\u{5}\0\0\0\u{1}x".to_owned(),
    ];
    texts.into_iter().map(String::into_bytes).collect()
}

#[test]
fn damaged_requests_are_answered_or_end_their_connection() {
    let server =
        Running::like("forest_classifier", Personality::TfServing, |config| config.body_bytes_max = 1 << 16);
    let seeds = seeds();
    let damage = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 0..6);
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    let cases = (any::<prop::sample::Index>(), damage);
    let mut runner = TestRunner::new(config);
    let result = runner.run(&cases, |(seed, damage)| {
        let mut wire = seed.get(&seeds).clone();
        for (at, byte, kind) in &damage {
            let place = at.index(wire.len().max(1));
            match kind {
                0 if place < wire.len() => wire[place] ^= byte,
                1 => wire.truncate(place),
                2 => wire.splice(place..place, [*byte; 3]).for_each(drop),
                _ => wire.splice(place..place, *b"\r\n").for_each(drop),
            }
        }
        let mut stream = server.connect();
        // The server may refuse and close while we still write.
        let _ = stream.write_all(&wire);
        let _ = stream.shutdown(Shutdown::Write);
        let mut reply = Vec::new();
        match stream.read_to_end(&mut reply) {
            Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => {
                prop_assert!(false, "no end: {error} after {:?}", String::from_utf8_lossy(&wire));
            }
            _ => {}
        }
        let text = String::from_utf8_lossy(&reply);
        prop_assert!(!text.contains("HTTP/1.1 500"), "{text} to {:?}", String::from_utf8_lossy(&wire));
        Ok(())
    });
    result.expect("answers or ends");
    assert_eq!(
        server.predict(r#"{"instances":[[5.1,3.5,1.4,0.2]]}"#),
        (200, r#"{"predictions":[0]}"#.to_owned())
    );
}
