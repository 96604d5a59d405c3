//! `slipway up`: starts the cluster, in the foreground or detached.

use std::{
    fs::{self, OpenOptions},
    io::{IsTerminal, Read, Write},
    os::unix::{fs::OpenOptionsExt, process::CommandExt},
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::DataFolder;
use crate::cluster::{self, config::Config, folder::Folder};

/// Starts the cluster.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  slipway up                                  in the foreground, ^C ends the server (pods stay; `slipway down` ends them)\n  slipway up --detach                         returns when everything answers\n  slipway up --data /tmp/second --detach      a second cluster beside the first"
)]
pub struct Args {
    #[command(flatten)]
    pub data: DataFolder,
    /// Return once everything answers; the server goes on in the background.
    #[arg(long)]
    detach: bool,
    #[command(flatten)]
    pub options: cluster::config::Options,
}

/// The line that a detached server writes to its parent once everything answers.
const READY: &[u8] = b"ready\n";
/// Set for the detached server: it reports on standard output.
const REPORT_ENV: &str = "SLIPWAY_REPORT_READY";

/// Runs the server, or starts it in the background and waits for its word.
pub fn run(args: Args) -> Result<()> {
    let folder = args.data.folder()?;
    folder.make()?;
    // Checked before anything is started, so that a typo is told at once.
    let config = Config::checked(&folder, args.options)?;
    if args.detach {
        return detach(&folder);
    }
    serve(&folder, config)
}

fn serve(folder: &Folder, config: Config) -> Result<()> {
    let started = Instant::now();
    let reports = std::env::var_os(REPORT_ENV).is_some();
    let lock = folder.lock()?;
    telemetry::start(&folder.logs(), cluster::PARTS, !reports)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("slipway").build()?;
    let result = runtime.block_on(cluster::run(folder.clone(), config, |state| {
        if reports {
            let mut out = std::io::stdout();
            // The parent may be gone; the server goes on without it.
            let _ = out.write_all(READY).and_then(|()| out.flush());
        } else {
            print_welcome(folder, state, started.elapsed());
        }
    }));
    // Tasks that wait on nothing but the network must not hold the process.
    runtime.shutdown_timeout(Duration::from_secs(5));
    drop(lock);
    result
}

fn print_welcome(folder: &Folder, state: &cluster::folder::State, took: Duration) {
    if !std::io::stdout().is_terminal() {
        println!("ready in {} ms", took.as_millis());
        return;
    }
    println!(
        "slipway {} is ready ({} ms), data in {}",
        state.version,
        took.as_millis(),
        folder.path().display()
    );
    for (part, address) in &state.addresses {
        println!("  {part:<12} {address}");
    }
    println!("\n  eval \"$(slipway env{})\"", data_hint(folder));
    println!("  kubectl get pods -A");
}

fn data_hint(folder: &Folder) -> String {
    if folder.is_default() { String::new() } else { format!(" --data {}", folder.path().display()) }
}

/// Starts this very command without `--detach` in a session of its own, and waits until it reports or ends.
fn detach(folder: &Folder) -> Result<()> {
    if let Some(state) = folder.running() {
        println!(
            "slipway {} runs already (pid {}), data in {}",
            state.version,
            state.pid,
            folder.path().display()
        );
        return Ok(());
    }
    let log = server_log(folder)?;
    let own = std::env::current_exe().context("cannot find the own binary")?;
    let arguments: Vec<_> = std::env::args_os().skip(1).filter(|argument| argument != "--detach").collect();
    let mut command = Command::new(own);
    command.args(arguments).env(REPORT_ENV, "1").stdin(Stdio::null()).stdout(Stdio::piped());
    command.stderr(OpenOptions::new().append(true).open(&log)?);
    command.process_group(0);
    let mut server = command.spawn().context("cannot start the server")?;
    let mut report = Vec::new();
    let mut out = server.stdout.take().context("the server has no output")?;
    let mut chunk = [0_u8; 64];
    while !report.ends_with(READY) {
        match out.read(&mut chunk)? {
            0 => break,
            length => report.extend_from_slice(&chunk[..length]),
        }
    }
    if report.ends_with(READY) {
        return Ok(());
    }
    let status = server.wait()?;
    let said = fs::read_to_string(&log).unwrap_or_default();
    let tail: Vec<&str> = said.lines().rev().take(5).collect();
    let tail: Vec<&str> = tail.into_iter().rev().collect();
    bail!(
        "the server ended with {status} before it was ready:\n{}\n(its log: {})",
        tail.join("\n"),
        log.display()
    )
}

fn server_log(folder: &Folder) -> Result<PathBuf> {
    fs::create_dir_all(folder.logs())?;
    let log = folder.logs().join("server.log");
    OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&log)?;
    Ok(log)
}
