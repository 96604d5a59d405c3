//! `slipway`: the platform in one binary. This file only chooses the command.
//!
//! The binary also answers to other programs' names (a link named `kfp`, say): see [`cli::multicall`].

mod cli;
mod cluster;
mod faces;

/// The system's allocator, which the model server can ask who takes memory; it costs a load of a word.
#[global_allocator]
static ALLOCATOR: infer::Allocator = infer::Allocator;

fn main() -> std::process::ExitCode {
    // One TLS provider for the whole process, before anything opens a connection.
    let _ = rustls::crypto::ring::default_provider().install_default();
    cli::run(std::env::args_os().collect())
}
