//! The model server alone, for measuring it without the rest of the binary.

use clap::Parser;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = infer::cli::Args::parse().config(None)?;
    let server = infer::Server::start(config)?;
    println!("listening {}", server.address());
    server.join();
    Ok(())
}
