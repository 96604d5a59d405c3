//! A closed-loop load generator: each connection sends a request when its last one is answered.
//!
//! `load ADDRESS PATH BODY CONNECTIONS SECONDS [HEADER…]`, where a body may be `@FILE`, prints one line of JSON: requests, errors, rate, and quantiles of
//! the latency in microseconds. One thread, one event loop: the generator should be no louder than its subject.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A server that is silent for so long has failed; the run says so instead of hanging.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Seen {
    latencies_ns: Vec<u64>,
    errors: u64,
}

/// The length of a whole reply at the start of the buffer, once its head is there.
fn reply_len(buffer: &[u8]) -> Option<usize> {
    let end = buffer.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&buffer[..end]).ok()?.to_ascii_lowercase();
    let (_, after) = head.split_once("content-length:")?;
    let length: usize = after.split("\r\n").next()?.trim().parse().ok()?;
    Some(end + length)
}

async fn client(address: String, request: Vec<u8>, until: Instant, warm: Instant) -> std::io::Result<Seen> {
    let mut stream = TcpStream::connect(&address).await?;
    stream.set_nodelay(true)?;
    let mut seen = Seen::default();
    let mut buffer = vec![0; 64 << 10];
    // Every reply has the same length, so the head is read once and then only counted.
    let mut known: Option<usize> = None;
    while Instant::now() < until {
        let start = Instant::now();
        stream.write_all(&request).await?;
        let mut filled = 0;
        loop {
            let count = tokio::time::timeout(PATIENCE, stream.read(&mut buffer[filled..])).await??;
            if count == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            filled += count;
            if known.is_none() {
                known = reply_len(&buffer[..filled]);
            }
            if known.is_some_and(|length| filled >= length) {
                break;
            }
        }
        seen.errors += u64::from(!buffer.starts_with(b"HTTP/1.1 200"));
        if start >= warm {
            seen.latencies_ns.push(start.elapsed().as_nanos() as u64);
        }
    }
    Ok(seen)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, address, path, body, connections, seconds, headers @ ..] = args.as_slice() else {
        return Err("usage: load ADDRESS PATH BODY CONNECTIONS SECONDS [HEADER…]".into());
    };
    let body = match body.strip_prefix('@') {
        Some(file) => std::fs::read(file)?,
        None => body.as_bytes().to_vec(),
    };
    let (connections, seconds): (usize, f64) = (connections.parse()?, seconds.parse()?);
    let length = body.len();
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n{headers}content-length: {length}\r\n\r\n"
    );
    let request = [head.into_bytes(), body].concat();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let warm = Instant::now() + Duration::from_millis(300);
    let until = warm + Duration::from_secs_f64(seconds);
    let seen = runtime.block_on(async {
        let spawn = |_| tokio::spawn(client(address.clone(), request.clone(), until, warm));
        let tasks: Vec<_> = (0..connections).map(spawn).collect();
        let mut all = Seen::default();
        for task in tasks {
            match task.await {
                Ok(Ok(seen)) => {
                    all.latencies_ns.extend(seen.latencies_ns);
                    all.errors += seen.errors;
                }
                _ => all.errors += 1,
            }
        }
        all
    });
    let mut latencies = seen.latencies_ns;
    latencies.sort_unstable();
    let at = |share: f64| {
        let index = (latencies.len() as f64 * share) as usize;
        latencies.get(index.min(latencies.len().saturating_sub(1))).map_or(0.0, |ns| *ns as f64 / 1000.0)
    };
    println!(
        "{{\"requests\":{},\"errors\":{},\"rate\":{:.1},\"p50_us\":{:.1},\"p99_us\":{:.1},\"p999_us\":{:.1}}}",
        latencies.len(),
        seen.errors,
        latencies.len() as f64 / seconds,
        at(0.5),
        at(0.99),
        at(0.999)
    );
    Ok(())
}
