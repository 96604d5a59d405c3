//! The registry's MLflow face alone, for the conformance script and for measuring: `registry_alone FOLDER [PORT]`.
//!
//! Not a product: `slipway up` wires the same router with authentication in front of it.

use std::sync::Arc;

use object_store::local::LocalFileSystem;
use registry::{Config, Registry};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let folder = std::path::PathBuf::from(args.next().ok_or("usage: registry_alone FOLDER [PORT]")?);
    let port: u16 = args.next().map_or(Ok(0), |text| text.parse())?;
    std::fs::create_dir_all(folder.join("artifacts"))?;
    let artifacts = Arc::new(LocalFileSystem::new_with_prefix(folder.join("artifacts"))?);
    let url = std::env::var("DATABASE_URL")
        .unwrap_or_else(|_| format!("sqlite://{}/platform.db", folder.display()));
    let registry = Registry::open(Config::new(url, artifacts)).await?;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    println!("http://{}", listener.local_addr()?);
    axum::serve(listener, registry.router()).await?;
    Ok(())
}
