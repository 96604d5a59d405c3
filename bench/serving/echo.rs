//! The yardstick of REST: a bare axum server that reads a body and answers as many bytes as the model server does.
//!
//! `echo [ADDRESS [REPLY_FILE]]`: the reply is the file's bytes, by default the answer to one iris row. It parses
//! nothing and evaluates nothing; a model server that keeps up with it spends nothing worth naming on protocol and
//! model.

use axum::Router;
use axum::body::Bytes;
use axum::response::IntoResponse;
use axum::routing::post;
use axum::serve::ListenerExt;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:0".into());
    let reply = match arguments.next() {
        Some(file) => Bytes::from(std::fs::read(file)?),
        None => Bytes::from_static(b"{\"predictions\":[0]}"),
    };
    let echo = move |body: Bytes| {
        // The body is waited for, as any server has to.
        std::hint::black_box(body.len());
        let reply = reply.clone();
        async move { ([("content-type", "application/json")], reply).into_response() }
    };
    let paths = Router::new()
        .route("/v1/models/iris:predict", post(echo.clone()))
        .route("/v2/models/iris/infer", post(echo));
    let threads = std::thread::available_parallelism()?.get();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(address).await?;
        println!("listening {}", listener.local_addr()?);
        let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
        axum::serve(listener, paths).await?;
        Ok(())
    })
}
