//! An open-loop load generator: requests come at their times, whether or not earlier ones are answered.
//!
//! `open ADDRESS PATH BODY RATE SECONDS TIMEOUT_MS CONNECTIONS` prints one line of JSON. Each request says in
//! `x-envoy-expected-rq-timeout-ms` how long its answer is of use; `good` are the answers that came in that time, counted from when the
//! request was due, so that a request that had to wait for a connection has waited. Beside them a probe of the
//! server's health comes on a connection of its own every 20 ms. One thread, one event loop.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A server that is silent for so long has failed.
const PATIENCE: Duration = Duration::from_secs(20);
const PROBE_EVERY: Duration = Duration::from_millis(20);

#[derive(Default)]
struct Seen {
    good: u64,
    late: u64,
    refused: u64,
    errors: u64,
    unsent: u64,
    latencies_us: Vec<f64>,
    probes_us: Vec<f64>,
}

struct Client {
    address: String,
    request: Vec<u8>,
    timeout: Duration,
    free: RefCell<Vec<TcpStream>>,
    seen: RefCell<Seen>,
}

/// The status and length of a whole reply at the start of the buffer, once it is there.
fn reply(buffer: &[u8]) -> Option<u16> {
    let end = buffer.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&buffer[..end]).ok()?.to_ascii_lowercase();
    let (_, after) = head.split_once("content-length:")?;
    let length: usize = after.split("\r\n").next()?.trim().parse().ok()?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    (buffer.len() >= end + length).then_some(status)
}

impl Client {
    fn saw(&self, answered: &std::io::Result<u16>, took: Duration) {
        let mut seen = self.seen.borrow_mut();
        match answered {
            Ok(200) => {
                seen.latencies_us.push(took.as_secs_f64() * 1e6);
                if took <= self.timeout { seen.good += 1 } else { seen.late += 1 }
            }
            Ok(503 | 504) => seen.refused += 1,
            Ok(_) | Err(_) => seen.errors += 1,
        }
    }

    fn probed(&self, answered: &std::io::Result<u16>, took: Duration) {
        let mut seen = self.seen.borrow_mut();
        match answered {
            Ok(200) => seen.probes_us.push(took.as_secs_f64() * 1e6),
            _ => seen.errors += 1,
        }
    }
}

async fn exchange(stream: &mut TcpStream, request: &[u8]) -> std::io::Result<u16> {
    stream.write_all(request).await?;
    let (mut buffer, mut filled) = (vec![0; 16 << 10], 0);
    loop {
        let count = tokio::time::timeout(PATIENCE, stream.read(&mut buffer[filled..])).await??;
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        filled += count;
        if let Some(status) = reply(&buffer[..filled]) {
            return Ok(status);
        }
    }
}

async fn request(client: Rc<Client>, due: Instant) {
    let taken = client.free.borrow_mut().pop();
    let Some(mut stream) = taken else {
        client.seen.borrow_mut().unsent += 1;
        return;
    };
    let answered = exchange(&mut stream, &client.request).await;
    client.saw(&answered, due.elapsed());
    if answered.is_ok() {
        client.free.borrow_mut().push(stream);
    } else if let Ok(stream) = TcpStream::connect(&client.address).await {
        let _ = stream.set_nodelay(true);
        client.free.borrow_mut().push(stream);
    }
}

async fn probe(client: Rc<Client>, until: Instant) {
    let request = b"GET /v2/health/live HTTP/1.1\r\nhost: probe\r\nconnection: close\r\n\r\n";
    while Instant::now() < until {
        let start = Instant::now();
        let answered = match TcpStream::connect(&client.address).await {
            Ok(mut stream) => exchange(&mut stream, request).await,
            Err(error) => Err(error),
        };
        client.probed(&answered, start.elapsed());
        tokio::time::sleep_until((start + PROBE_EVERY).into()).await;
    }
}

/// Times between requests that come independently of each other.
struct Gaps(u64, f64);

impl Iterator for Gaps {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let share = ((self.0 >> 11) as f64 + 1.0) / (1_u64 << 53) as f64;
        Some(Duration::from_secs_f64(-share.min(1.0).ln() / self.1))
    }
}

async fn run(client: Rc<Client>, rate: f64, seconds: f64, connections: usize) -> std::io::Result<()> {
    for _ in 0..connections {
        let stream = TcpStream::connect(&client.address).await?;
        stream.set_nodelay(true)?;
        client.free.borrow_mut().push(stream);
    }
    let start = Instant::now();
    let end = start + Duration::from_secs_f64(seconds);
    let probes = tokio::task::spawn_local(probe(client.clone(), end));
    let mut due = start;
    let mut tasks = Vec::new();
    for gap in Gaps(1, rate) {
        due += gap;
        if due >= end {
            break;
        }
        if due > Instant::now() {
            tokio::time::sleep_until(due.into()).await;
        }
        tasks.push(tokio::task::spawn_local(request(client.clone(), due)));
    }
    for task in tasks {
        let _ = task.await;
    }
    let _ = probes.await;
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, address, path, body, rate, seconds, timeout_ms, connections] = args.as_slice() else {
        return Err("usage: open ADDRESS PATH BODY RATE SECONDS TIMEOUT_MS CONNECTIONS".into());
    };
    let (rate, seconds): (f64, f64) = (rate.parse()?, seconds.parse()?);
    let timeout: f64 = timeout_ms.parse()?;
    let length = body.len();
    let text = format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\nx-envoy-expected-rq-timeout-ms: {timeout_ms}\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    let client = Rc::new(Client {
        address: address.clone(),
        request: text.into_bytes(),
        timeout: Duration::from_secs_f64(timeout / 1000.0),
        free: RefCell::default(),
        seen: RefCell::default(),
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, run(client.clone(), rate, seconds, connections.parse()?))?;
    let mut seen = client.seen.take();
    let quantile = |all: &mut Vec<f64>, share: f64| {
        all.sort_unstable_by(f64::total_cmp);
        let index = (all.len() as f64 * share) as usize;
        all.get(index.min(all.len().saturating_sub(1))).copied().unwrap_or(0.0)
    };
    let requests = seen.good + seen.late + seen.refused + seen.unsent;
    println!(
        "{{\"requests\":{requests},\"errors\":{},\"good_rate\":{:.1},\"late\":{},\"refused\":{},\"unsent\":{},\
         \"p50_us\":{:.1},\"p99_us\":{:.1},\"probes\":{},\"probe_p99_us\":{:.1},\"probe_max_us\":{:.1}}}",
        seen.errors,
        seen.good as f64 / seconds,
        seen.late,
        seen.refused,
        seen.unsent,
        quantile(&mut seen.latencies_us, 0.5),
        quantile(&mut seen.latencies_us, 0.99),
        seen.probes_us.len(),
        quantile(&mut seen.probes_us, 0.99),
        quantile(&mut seen.probes_us, 1.0),
    );
    Ok(())
}
