//! The model server alone, for measuring it without the rest of the binary. It ends in order when it is told to.

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = infer::cli::Args::parse().config(None)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let told = async move {
            let _ = terminate.recv().await;
        };
        infer::run(config, |server| println!("listening {}", server.address()), told).await?;
        Ok(())
    })
}
