//! The loop against small servers whose behaviour is known.
//!
//! Not here: a real model server (`bin/slipway`'s tests).

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use loadgen::{Error, Pace, Plan, Requests, Spacing, Target, run};

/// Serves each connection in a thread; `answer` gets the number of the request.
fn server(answer: impl Fn(u64) -> &'static str + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let (answer, count) = (Arc::new(answer), Arc::new(AtomicU64::new(0)));
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let (answer, count) = (answer.clone(), count.clone());
            std::thread::spawn(move || serve(socket, &*answer, &count));
        }
    });
    address
}

/// Requests are as long as the test's, so that counting bytes finds them.
fn serve(mut socket: TcpStream, answer: &dyn Fn(u64) -> &'static str, count: &AtomicU64) {
    let mut request = vec![0; REQUEST.len()];
    while socket.read_exact(&mut request).is_ok() {
        let reply = answer(count.fetch_add(1, Ordering::Relaxed));
        if reply.is_empty() || socket.write_all(reply.as_bytes()).is_err() {
            return;
        }
    }
}

const REQUEST: &str = "POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}";
const GOOD: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const BUSY: &str = "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n";

fn requests() -> Requests {
    Requests::Http1(vec![REQUEST.into()])
}

fn target(address: SocketAddr) -> Target {
    Target::parse(&address.to_string()).expect("an address")
}

fn open(rate: f64, duration: Duration) -> Plan {
    let pace = Pace::Open { rate, spacing: Spacing::Even };
    Plan { pace, duration, warmup: Duration::ZERO, ..Plan::default() }
}

#[test]
fn an_open_loop_sends_what_the_schedule_says() {
    let target = target(server(|_| GOOD));
    let report = run(&target, &requests(), &open(2000.0, Duration::from_millis(500))).expect("it answers");
    assert_eq!((report.due, report.answered, report.failed()), (1000, 1000, 0));
    assert_eq!((report.latency.total(), report.sample.as_deref()), (1000, Some("ok")));
    assert!((report.rate() - 2000.0).abs() < 1e-6);
}

#[test]
fn a_stall_is_charged_to_everyone_who_was_due_in_it() {
    let stall = Duration::from_millis(300);
    let slow = move |count| {
        if count == 100 {
            std::thread::sleep(stall);
        }
        GOOD
    };
    let plan = Plan { connections: 1, ..open(1000.0, Duration::from_millis(600)) };
    let report = run(&target(server(slow)), &requests(), &plan).expect("it answers");
    // One request in 600 was slow to serve, but those of the stall's first half waited at least the other half.
    let waited = report.latency.total() as f64 * (1.0 - report.latency.share_within(stall / 2));
    assert!(waited >= 100.0, "{waited} requests waited");
    assert_eq!(report.answered, 600);
}

#[test]
fn a_closed_loop_keeps_its_connections_busy() {
    let plan = Plan {
        connections: 4,
        warmup: Duration::ZERO,
        duration: Duration::from_millis(200),
        ..Plan::default()
    };
    let report = run(&target(server(|_| GOOD)), &requests(), &plan).expect("it answers");
    assert_eq!((report.connections, report.failed()), (4, 0));
    assert!(report.answered > 4 && report.answered == report.due, "{report:?}");
}

#[test]
fn failures_are_counted_by_what_they_are() {
    let answer = |count: u64| match count % 4 {
        0 => BUSY,
        1 => "",
        _ => GOOD,
    };
    let report =
        run(&target(server(answer)), &requests(), &open(1000.0, Duration::from_millis(200))).expect("some");
    let counts: Vec<(&str, u64)> =
        report.failures.iter().map(|(what, count)| (what.as_str(), *count)).collect();
    assert_eq!(counts, [("HTTP 503", 50), ("the server closed the connection", 50)]);
    assert_eq!(report.answered, 100);
}

#[test]
fn a_server_that_never_answers_ends_the_run() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let target = target(listener.local_addr().expect("bound"));
    let plan = Plan { patience: Duration::from_millis(200), ..open(100.0, Duration::from_millis(100)) };
    let report = run(&target, &requests(), &plan).expect("a report");
    assert_eq!((report.answered, report.failed()), (0, 10));
    drop(listener);
    let error = run(&target, &requests(), &plan).expect_err("nobody is there");
    assert!(matches!(error, Error::Reach { .. }), "{error}");
}

#[test]
fn a_hopeless_schedule_is_given_up() {
    let slow = |_| {
        std::thread::sleep(Duration::from_millis(20));
        GOOD
    };
    let plan = Plan {
        connections: 1,
        behind_max: Duration::from_millis(100),
        ..open(10_000.0, Duration::from_secs(60))
    };
    let report = run(&target(server(slow)), &requests(), &plan).expect("a report");
    assert!(report.is_cut && report.seconds < 60.0 && report.failed() > 0, "{report:?}");
}
