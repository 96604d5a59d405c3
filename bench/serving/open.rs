//! Load by the clock for the benchmarks: crate `loadgen` with a deadline on each request and probes of health beside it.
//!
//! `open ADDRESS PATH BODY RATE SECONDS ASKED_MS CONNECTIONS` prints one line of JSON. A rate of 0 is a closed loop of
//! that many connections; a `PATH` of `grpc:MODEL` calls that model over gRPC with rows that are made up. `good` are
//! answers within the asked time, counted from when the request was due, so that a request that waited for a connection
//! has waited; an asked time of 0 asks for none. Refusals for want of time or room (503, 504) are no failures.
//!
//! Not here: `slipway model bench`, which is for people and knows neither deadlines nor probes.

use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use loadgen::{Histogram, Pace, Plan, Protocol, Report, Requests, Spacing, Target, ask};
use serde_json::json;

const PROBE_EVERY: Duration = Duration::from_millis(20);

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Probes of health, each on a connection of its own, as a kubelet makes them.
fn probe(address: SocketAddr, ended: &AtomicBool) -> (Histogram, u64) {
    use std::io::{Read, Write};
    let (mut seen, mut failed) = (Histogram::default(), 0);
    let exchange = || -> std::io::Result<bool> {
        let mut socket = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        socket.write_all(b"GET /v2/health/live HTTP/1.1\r\nhost: probe\r\nconnection: close\r\n\r\n")?;
        let mut reply = Vec::new();
        socket.read_to_end(&mut reply)?;
        Ok(reply.starts_with(b"HTTP/1.1 200"))
    };
    while !ended.load(Relaxed) {
        let start = Instant::now();
        match exchange() {
            Ok(true) => seen.record(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)),
            _ => failed += 1,
        }
        std::thread::sleep(PROBE_EVERY.saturating_sub(start.elapsed()));
    }
    (seen, failed)
}

fn requests(target: Target, path: &str, body: &str, asked_ms: f64) -> Result<(Target, Requests), Error> {
    if let Some(model) = path.strip_prefix("grpc:") {
        let target = Target { model: model.to_owned(), ..target };
        let signature = ask::signature(&target, Protocol::Grpc)?;
        let requests = loadgen::requests(&target, Protocol::Grpc, signature.as_ref(), None, 1)?;
        return Ok((target, requests));
    }
    let timeout = match asked_ms > 0.0 {
        true => format!("x-envoy-expected-rq-timeout-ms: {asked_ms}\r\n"),
        false => String::new(),
    };
    let (host, length) = (&target.host, body.len());
    let text = format!(
        "POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n{timeout}content-length: {length}\r\n\r\n{body}"
    );
    Ok((target, Requests::Http1(vec![Bytes::from(text)])))
}

fn plan(rate: f64, seconds: f64, connections: usize) -> Plan {
    let spacing = Spacing::Poisson;
    Plan {
        pace: if rate > 0.0 { Pace::Open { rate, spacing } } else { Pace::Closed },
        duration: Duration::from_secs_f64(seconds),
        patience: Duration::from_secs(20),
        connections,
        streams: 16,
        ..Plan::default()
    }
}

fn document(report: &Report, asked_ms: f64, (probes, probes_failed): &(Histogram, u64)) -> serde_json::Value {
    let us = |latency: Duration| latency.as_nanos() as f64 / 1000.0;
    let asked = Duration::from_secs_f64(if asked_ms > 0.0 { asked_ms / 1000.0 } else { 3600.0 });
    let share = report.latency.share_within(asked);
    let is_refusal =
        |what: &str| matches!(what, "HTTP 503" | "HTTP 504" | "grpc-status 14" | "grpc-status 4");
    let refused: u64 =
        report.failures.iter().filter(|(what, _)| is_refusal(what)).map(|(_, count)| count).sum();
    let quantile = |share| us(report.latency.quantile(share));
    json!({
        "due": report.due,
        "answered": report.answered,
        "failed": report.failed() - refused,
        "failures": report.failures,
        "refused": refused,
        "late": ((1.0 - share) * report.answered as f64).round(),
        "rate": report.rate(),
        "good_rate": share * report.rate(),
        "seconds": report.seconds,
        "connections": report.connections,
        "cut_short": report.is_cut,
        "p50_us": quantile(0.5),
        "p99_us": quantile(0.99),
        "p999_us": quantile(0.999),
        "max_us": us(report.latency.max()),
        "sent_late_p99_us": us(report.lateness.quantile(0.99)),
        "probes": probes.total(),
        "probes_failed": probes_failed,
        "probe_p99_us": us(probes.quantile(0.99)),
        "probe_max_us": us(probes.max()),
    })
}

fn main() -> Result<(), Error> {
    let args: Vec<String> = std::env::args().collect();
    let [_, address, path, body, rate, seconds, asked_ms, connections] = args.as_slice() else {
        return Err("usage: open ADDRESS PATH BODY RATE SECONDS ASKED_MS CONNECTIONS".into());
    };
    let (rate, seconds, asked_ms): (f64, f64, f64) = (rate.parse()?, seconds.parse()?, asked_ms.parse()?);
    let (target, requests) = requests(Target::parse(address)?, path, body, asked_ms)?;
    let plan = plan(rate, seconds, connections.parse()?);
    let ended = AtomicBool::new(false);
    let (report, probes) = std::thread::scope(|scope| {
        let probes = scope.spawn(|| probe(target.address, &ended));
        let report = loadgen::run(&target, &requests, &plan);
        ended.store(true, Relaxed);
        (report, probes.join())
    });
    let probes = probes.map_err(|_| "the probes panicked")?;
    println!("{}", document(&report?, asked_ms, &probes));
    Ok(())
}
