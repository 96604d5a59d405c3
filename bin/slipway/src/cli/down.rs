//! `slipway down`: ends the server, then every pod, also when the server is already dead.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

use super::DataFolder;
use crate::cluster::folder::{Folder, State};

/// Seconds a server may take to end before it is killed: what it acknowledged is on disk already.
const SERVER_GRACE: Duration = Duration::from_secs(20);

/// Time that the processes of a pod get to end by themselves.
const POD_GRACE: Duration = Duration::from_secs(10);

/// Ends the server and all pods, also when the server is already dead.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  slipway down --data /tmp/try")]
pub struct Args {
    #[command(flatten)]
    data: DataFolder,
}

/// Ends everything that belongs to the folder; doing it twice does no harm.
pub fn run(args: &Args) -> Result<()> {
    let folder = args.data.folder()?;
    end_all(&folder)
}

/// Ends the server first, so that it starts nothing anew, then the pods that it left.
pub fn end_all(folder: &Folder) -> Result<()> {
    if !folder.path().exists() {
        return Ok(());
    }
    if let Some(state) = folder.running() {
        end_server(&state)?;
    }
    if folder.is_locked() {
        bail!("a server still holds {}; its record is gone, end it by hand", folder.path().display());
    }
    let path = folder.path().to_path_buf();
    super::block_on(async move { Ok(node::stop_all(&path, POD_GRACE).await) })?;
    folder.clear_state();
    Ok(())
}

fn end_server(state: &State) -> Result<()> {
    let pid = Pid::from_raw(i32::try_from(state.pid)?).context("the recorded pid is 0")?;
    // A pidfd names the process itself; the start time was compared just before.
    let Ok(server) = pidfd_open(pid, PidfdFlags::empty()) else { return Ok(()) };
    for signal in [Signal::TERM, Signal::KILL] {
        if pidfd_send_signal(&server, signal).is_err() {
            return Ok(());
        }
        let timeout = Timespec { tv_sec: i64::try_from(SERVER_GRACE.as_secs())?, tv_nsec: 0 };
        if poll(&mut [PollFd::new(&server, PollFlags::IN)], Some(&timeout))? > 0 {
            return Ok(());
        }
    }
    bail!("the server (pid {}) does not end", state.pid)
}
