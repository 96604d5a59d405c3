//! `slipway serve`: the model server alone.

use anyhow::Result;
use tokio::signal::unix::{SignalKind, signal};

use super::block_on;

/// The model server's own flags.
pub type Args = infer::cli::Args;

/// Serves until it is told to end.
pub fn run(args: Args) -> Result<()> {
    let pod_ip = std::env::var("SLIPWAY_POD_IP").ok().and_then(|ip| ip.parse().ok());
    let config = args.config(pod_ip).map_err(anyhow::Error::msg)?;
    for flag in args.without_effect() {
        eprintln!("slipway serve: {flag} has no effect here");
    }
    block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let told = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        // Port 0 means that only this line tells the port.
        let ready = |server: &infer::Server| println!("slipway serve: listening on {}", server.address());
        infer::run(config, ready, told).await?;
        Ok(())
    })
}
