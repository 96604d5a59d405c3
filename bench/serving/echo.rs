//! The yardstick: a bare axum server that reads a body and answers as many bytes as the model server does.
//!
//! It parses nothing and evaluates nothing; a model server that keeps up with it spends nothing worth naming
//! on protocol and model.

use axum::Router;
use axum::body::Bytes;
use axum::response::IntoResponse;
use axum::routing::post;
use axum::serve::ListenerExt;

async fn echo(body: Bytes) -> impl IntoResponse {
    // The body is waited for, as any server has to.
    std::hint::black_box(body.len());
    ([("content-type", "application/json")], "{\"predictions\":[0]}")
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".into());
    let threads = std::thread::available_parallelism()?.get();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(address).await?;
        println!("listening {}", listener.local_addr()?);
        let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
        axum::serve(listener, Router::new().route("/v1/models/iris:predict", post(echo))).await?;
        Ok(())
    })
}
