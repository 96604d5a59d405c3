//! The API server alone over a folder, for trying clients by hand: `cargo run -p apiserver --example apiserver -- DIR`.
//!
//! No controllers and no node: objects are stored and served, and nothing acts on them.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use apiserver::{ApiServer, Config, Ipv4Range, Pki, PortRange};
use store::Store;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = PathBuf::from(std::env::args().nth(1).ok_or("usage: apiserver DIR")?);
    std::fs::create_dir_all(&dir)?;
    let pki = Pki::open(&dir.join("pki"))?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let advertise = listener.local_addr()?;
    let config = Config {
        advertise,
        service_range: Ipv4Range { base: Ipv4Addr::new(10, 96, 0, 0), prefix: 16 },
        node_ports: PortRange::default(),
        admin_token: None,
        namespaces: vec!["kubeflow".into()],
    };
    let store = Store::open(&dir, store::Options::default())?;
    let server = ApiServer::start(store, pki.clone(), config, Vec::new()).await?;
    let tls = pki.server_tls(&[IpAddr::V4(Ipv4Addr::LOCALHOST)], &[])?;
    let kubeconfig = dir.join("kubeconfig");
    std::fs::write(&kubeconfig, pki.kubeconfig(&format!("https://{advertise}"), "apiserver"))?;
    println!("export KUBECONFIG={}", kubeconfig.display());
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stopping.cancel();
        }
    });
    server.serve(listener, tls, stop).await;
    Ok(())
}
