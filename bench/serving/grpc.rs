//! A closed-loop load generator for gRPC: some connections, each with some calls under way at any time.
//!
//! `grpc ADDRESS MODEL CONNECTIONS STREAMS SECONDS` asks for one row of four numbers over and over and prints one line
//! of JSON: calls, errors, rate, quantiles of the latency in microseconds and the bytes of a reply's message. One event
//! loop for one connection, and one for each CPU for more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use codecs::wire::{put_bytes, put_bytes_always, put_message};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Of the last reply, without gRPC's prefix.
static REPLY_BYTES: AtomicUsize = AtomicUsize::new(0);

fn message(model: &str) -> Bytes {
    let numbers: Vec<u8> = [5.1_f64, 3.5, 1.4, 0.2].iter().flat_map(|number| number.to_le_bytes()).collect();
    let mut out = vec![0; 5];
    put_bytes(&mut out, 1, model.as_bytes());
    put_message(&mut out, 5, |out| {
        put_bytes(out, 1, b"input-0");
        put_bytes(out, 2, b"FP64");
        put_bytes(out, 3, &[1, 4]);
    });
    put_bytes_always(&mut out, 7, &numbers);
    let len = (out.len() - 5) as u32;
    out[1..5].copy_from_slice(&len.to_be_bytes());
    out.into()
}

/// The latencies of one connection's calls, and how many failed.
async fn connection(
    address: String,
    message: Bytes,
    streams: usize,
    end: Instant,
) -> Result<(Vec<u32>, u64), Error> {
    let socket = tokio::net::TcpStream::connect(&address).await?;
    socket.set_nodelay(true)?;
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket));
    let (sender, connection) = handshake.await?;
    tokio::spawn(connection);
    let uri: Arc<str> = format!("http://{address}/inference.GRPCInferenceService/ModelInfer").into();
    let mut calls = Vec::new();
    for _ in 0..streams {
        let (mut sender, message, uri) = (sender.clone(), message.clone(), uri.clone());
        calls.push(tokio::spawn(async move {
            let (mut latencies, mut failed) = (Vec::new(), 0);
            while Instant::now() < end {
                let request = http::Request::post(&*uri)
                    .header("content-type", "application/grpc")
                    .header("te", "trailers")
                    .body(Full::new(message.clone()))?;
                let start = Instant::now();
                let body = sender.send_request(request).await?.into_body().collect().await?;
                let status = body.trailers().and_then(|trailers| trailers.get("grpc-status"));
                failed += u64::from(status.is_none_or(|status| status != "0"));
                latencies.push(start.elapsed().as_micros() as u32);
                REPLY_BYTES.store(body.to_bytes().len().saturating_sub(5), Relaxed);
            }
            Ok::<_, Error>((latencies, failed))
        }));
    }
    let (mut all, mut failures) = (Vec::new(), 0);
    for call in calls {
        let (latencies, failed) = call.await??;
        all.extend(latencies);
        failures += failed;
    }
    Ok((all, failures))
}

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, model, connections, streams, seconds] = &arguments[..] else {
        return Err("usage: grpc ADDRESS MODEL CONNECTIONS STREAMS SECONDS".into());
    };
    let (connections, streams): (usize, usize) = (connections.parse()?, streams.parse()?);
    let seconds: u64 = seconds.parse()?;
    let runtime = match connections {
        1 => tokio::runtime::Builder::new_current_thread().enable_all().build()?,
        _ => tokio::runtime::Builder::new_multi_thread().enable_all().build()?,
    };
    let end = Instant::now() + Duration::from_secs(seconds);
    let (message, mut tasks) = (message(model), Vec::new());
    for _ in 0..connections {
        tasks.push(runtime.spawn(connection(address.clone(), message.clone(), streams, end)));
    }
    let (mut all, mut failures) = (Vec::new(), 0);
    for task in tasks {
        let (latencies, failed) = runtime.block_on(task)??;
        all.extend(latencies);
        failures += failed;
    }
    all.sort_unstable();
    let quantile = |share: f64| all.get((all.len() as f64 * share) as usize).copied().unwrap_or(0);
    let rate = all.len() as f64 / seconds as f64;
    println!(
        "{{\"requests\":{},\"errors\":{failures},\"rate\":{rate:.0},\"p50_us\":{},\"p99_us\":{},\"p999_us\":{},\"reply_bytes\":{}}}",
        all.len(),
        quantile(0.5),
        quantile(0.99),
        quantile(0.999),
        REPLY_BYTES.load(Relaxed)
    );
    Ok(())
}
