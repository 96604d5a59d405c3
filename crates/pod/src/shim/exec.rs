//! Runs a further program in a running container.
//!
//! Entering a pid namespace works for children only, so a helper enters and clones the program as the shim's own
//! child (`CLONE_PARENT`), tells its pid and leaves. The shim then reaps the program like any other.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use pod_protocol::shim::{ContainerSpec, folder};
use serde::{Deserialize, Serialize};

use super::child::{self, Ends, Failure};
use super::record;
use super::sys::{self, Side};

/// What the helper and the program say through the status pipe, one line each.
#[derive(Debug, Serialize, Deserialize)]
enum Word {
    /// The program's pid.
    Pid(i32),
    /// It could not be run.
    Failed(String),
}

/// A program being started.
pub struct Starting {
    /// The helper's pid, to be reaped.
    pub helper: i32,
    /// Closed when the program was executed or failed.
    pub status: File,
}

/// What became of it.
pub enum Outcome {
    /// It runs under this pid.
    Runs(i32),
    /// It does not; its pid if it got one.
    Failed(Option<i32>, String),
}

/// What is to be run, where.
pub struct Order<'a> {
    /// The pod folder.
    pub pod_folder: &'a Path,
    /// Container and attempt.
    pub container: (&'a str, u32),
    /// The container's first process.
    pub pid: i32,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// The streams are a terminal.
    pub tty: bool,
    /// Standard input, output, error.
    pub stdio: [OwnedFd; 3],
}

/// Starts the helper.
pub fn start(order: Order<'_>) -> Result<Starting, String> {
    let (name, attempt) = order.container;
    let attempt_folder = order.pod_folder.join(folder::attempt(name, attempt));
    let mut spec: ContainerSpec =
        record::read(&attempt_folder.join(folder::SPEC)).map_err(|error| error.to_string())?;
    spec.tty = order.tty;
    let process = sys::pidfd_open(order.pid).map_err(|error| format!("the container is gone: {error}"))?;
    let (status_read, status_write) = sys::pipe().map_err(|error| error.to_string())?;
    match sys::clone(0).map_err(|error| error.to_string())? {
        Side::Child => {
            drop(status_read);
            let mut status = File::from(status_write);
            let ends = Ends { go: File::from(process), status: clone_or_exit(&status), stdio: order.stdio };
            let message = enter(&spec, &order.argv, ends);
            say(&mut status, &Word::Failed(message));
            sys::exit_now(126)
        }
        Side::Parent(helper) => Ok(Starting { helper, status: File::from(status_read) }),
    }
}

impl Starting {
    /// After the pipe became readable: what became of it. Waits at most until the program is executed.
    pub fn outcome(mut self) -> Outcome {
        let mut text = String::new();
        let _ = self.status.read_to_string(&mut text);
        let (mut pid, mut failure) = (None, None);
        for line in text.lines() {
            match serde_json::from_str(line) {
                Ok(Word::Pid(value)) => pid = Some(value),
                Ok(Word::Failed(message)) => failure = Some(message),
                Err(_) => {}
            }
        }
        match (pid, failure) {
            (Some(pid), None) => Outcome::Runs(pid),
            (pid, failure) => Outcome::Failed(pid, failure.unwrap_or_else(|| "the container is gone".into())),
        }
    }
}

fn clone_or_exit(file: &File) -> File {
    file.try_clone().unwrap_or_else(|_| sys::exit_now(126))
}

fn say(status: &mut File, word: &Word) {
    let mut text = serde_json::to_vec(word).unwrap_or_default();
    text.push(b'\n');
    let _ = status.write_all(&text);
}

/// The helper: joins the container's cgroups and namespaces. `ends.go` is a handle of its first process.
/// Returns only with the reason of a failure.
fn enter(spec: &ContainerSpec, argv: &[String], mut ends: Ends) -> String {
    for cgroup in &spec.cgroups {
        if let Err(error) = std::fs::write(Path::new(cgroup).join("cgroup.procs"), "0") {
            return format!("cannot enter the cgroup: {error}");
        }
    }
    if let Err(error) = sys::setns(ends.go.as_fd(), super::container::NAMESPACES) {
        return format!("cannot enter the container: {error}");
    }
    match sys::clone(libc::CLONE_PARENT) {
        Err(error) => format!("cannot clone: {error}"),
        Ok(Side::Parent(pid)) => {
            say(&mut ends.status, &Word::Pid(pid));
            sys::exit_now(0)
        }
        Ok(Side::Child) => {
            let message = run(spec, argv, &ends);
            say(&mut ends.status, &Word::Failed(message));
            sys::exit_now(126)
        }
    }
}

fn run(spec: &ContainerSpec, argv: &[String], ends: &Ends) -> String {
    let workdir = if spec.workdir.is_empty() { "/" } else { &spec.workdir };
    if let Err(error) = std::env::set_current_dir(workdir) {
        return format!("cannot enter {workdir:?}: {error}");
    }
    match child::settle(spec, ends) {
        Err(Failure { message, .. }) => message,
        Ok(()) => child::execute(spec, argv),
    }
}
