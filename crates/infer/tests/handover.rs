//! A restart without a gap: two servers share a port, and the first ends.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use infer::{Config, Server};
use support::fixture;

const REQUEST: &[u8] = b"POST /v1/models/iris:predict HTTP/1.1\r\nhost: h\r\ncontent-length: 35\r\n\r\n{\"instances\":[[5.1,3.5,1.4,0.2]]}  ";

fn start(address: SocketAddr) -> Server {
    let mut config = Config::new("iris", fixture("forest_classifier"));
    config.http = address;
    config.reuse_port = true;
    config.workers = Some(2);
    config.drain.grace = Duration::from_millis(100);
    Server::start(config).expect("a server")
}

/// One request; whether the connection takes another.
fn ask(stream: &mut TcpStream) -> std::io::Result<bool> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(REQUEST)?;
    let (mut reply, mut buffer) = (Vec::new(), [0; 4096]);
    while !reply.ends_with(b"]}") {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        reply.extend_from_slice(&buffer[..count]);
    }
    assert!(reply.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&reply));
    let head = String::from_utf8_lossy(&reply).to_ascii_lowercase();
    Ok(!head.contains("connection: close"))
}

/// Asks all the time, on connections that are used for so many requests at most.
fn client(
    address: SocketAddr,
    requests: u64,
    ended: &AtomicBool,
    answered: &AtomicU64,
) -> std::io::Result<()> {
    while !ended.load(Relaxed) {
        let mut stream = TcpStream::connect(address)?;
        for _ in 0..requests {
            let keeps = ask(&mut stream)?;
            answered.fetch_add(1, Relaxed);
            if !keeps || ended.load(Relaxed) {
                break;
            }
        }
    }
    Ok(())
}

/// Waits until so many more requests are answered, or a client has failed.
fn await_answers(answered: &AtomicU64, more: u64, has_failed: impl Fn() -> bool) {
    let until = answered.load(Relaxed) + more;
    while answered.load(Relaxed) < until && !has_failed() {
        std::thread::yield_now();
    }
}

#[test]
fn a_port_that_passes_from_server_to_server_loses_no_request() {
    let mut server = start(([127, 0, 0, 1], 0).into());
    let address = server.address();
    let (ended, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let client = |requests| {
            let (ended, answered) = (&ended, &answered);
            scope.spawn(move || client(address, requests, ended, answered))
        };
        // Some connect anew for each request, others stay as long as they may.
        let clients = [1, 1, u64::MAX, u64::MAX].map(client);
        let has_failed = || clients.iter().any(|client| client.is_finished());
        for _ in 0..2 {
            await_answers(&answered, 100, has_failed);
            let next = start(address);
            server.stop();
            server.join();
            server = next;
        }
        await_answers(&answered, 100, has_failed);
        ended.store(true, Relaxed);
        for client in clients {
            client.join().expect("a client").expect("every request is answered");
        }
        server.stop();
        server.join();
    });
}
