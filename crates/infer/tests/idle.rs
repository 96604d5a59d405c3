//! Ten thousand connections that say nothing: what they cost, and that everybody else is served.
//!
//! Counted are the bytes that are allocated and not yet freed, as in `soak.rs`; the test's own ends of the connections
//! are sockets alone and allocate nothing that stays.

#[path = "support/counted.rs"]
mod counted;
mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use counted::live;
use support::Running;

const ROW: &str = r#"{"instances":[[5.1,3.5,1.4,0.2]]}"#;
/// Of the server's memory, for each connection: of an unoptimised build, whose futures are twice as large.
const BYTES_EACH_MAX: usize = 10 << 10;

/// Ten thousand, or as many as this process may have both ends of.
fn count() -> usize {
    let limits = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let _ = rustix::process::setrlimit(
        rustix::process::Resource::Nofile,
        rustix::process::Rlimit { current: limits.maximum, ..limits },
    );
    let files = usize::try_from(limits.maximum.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
    10_000.min(files.saturating_sub(500) / 2)
}

fn open(server: &Running) -> usize {
    let (_, text) = server.ask("GET", "/metrics", "");
    let line = text.lines().find_map(|line| line.strip_prefix("slipway_serve_connections "));
    line.and_then(|count| count.parse().ok()).expect("the metric")
}

fn until(server: &Running, holds: impl Fn(usize) -> bool) {
    let start = Instant::now();
    while !holds(open(server)) {
        assert!(start.elapsed() < Duration::from_secs(60), "{} connections are open", open(server));
    }
}

/// A third says nothing, a third has asked for health, a third has called the model.
fn connect(server: &Running, index: usize) -> TcpStream {
    let mut stream = server.connect();
    let request = match index % 3 {
        0 => return stream,
        1 => "GET /v2/health/ready HTTP/1.1\r\n\r\n".to_owned(),
        _ => format!("POST /v1/models/iris:predict HTTP/1.1\r\ncontent-length: {}\r\n\r\n{ROW}", ROW.len()),
    };
    stream.write_all(request.as_bytes()).expect("sent");
    let mut reply = [0; 512];
    let count = stream.read(&mut reply).expect("a reply");
    assert!(reply[..count].starts_with(b"HTTP/1.1 200"), "{index}");
    stream
}

#[test]
fn ten_thousand_idle_connections_cost_little_and_go_again() {
    let server = Running::start("forest_classifier");
    // What is made once for all.
    (0..30).for_each(|index| drop(connect(&server, index)));
    until(&server, |open| open <= 2);
    let before = live();
    let count = count();
    let mut idle = Vec::with_capacity(count);
    idle.extend((0..count).map(|index| connect(&server, index)));
    until(&server, |open| open >= count);
    let grown = live().saturating_sub(before + count * size_of::<TcpStream>());
    assert!(grown < count * BYTES_EACH_MAX, "{} bytes for each of {count}", grown / count);
    assert_eq!(server.predict(ROW).0, 200);
    drop(idle);
    until(&server, |open| open <= 2);
    let left = live().saturating_sub(before);
    assert!(left < 1 << 20, "{left} bytes are left");
}
