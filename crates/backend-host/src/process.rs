//! Starting and ending a worker's process.
//!
//! A worker gets its lanes and nothing else: no other descriptor, of the environment only names on a list, a process
//! group of its own so that what it starts ends with it, and the kernel's word that it dies with the thread that started
//! it. That thread is the worker's keeper, which lives as long.
//!
//! Not here: when (`keeper`), what it prints (`logs`).

#![allow(unsafe_code)] // Between fork and exec, which has no safe form.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, PipeReader, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rustix::fs::MemfdFlags;
use rustix::process::{Pid, PidfdFlags, Signal};

use crate::lane::{Ends, Lane};

/// What is started.
#[derive(Debug, Clone)]
pub struct Program {
    /// The program.
    pub program: PathBuf,
    /// Its arguments; `--lanes` and the lanes come behind them.
    pub args: Vec<OsString>,
    /// A script that this binary carries: its path becomes the argument behind [`Program::args`].
    pub script: Option<&'static str>,
    /// The folder to start in; `None` is the server's.
    pub folder: Option<PathBuf>,
    /// Variables that it gets besides those on the list.
    pub env: Vec<(OsString, OsString)>,
}

/// Variables of the server that a worker inherits: who and where it is, how to reach devices and how many threads to use.
/// Anything else may be a secret.
const ENV: [&str; 12] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HF_HOME",
    "SLIPWAY_LOG",
];
/// The same by how they begin.
const ENV_PREFIXES: [&str; 7] = ["LC_", "OMP_", "MKL_", "OPENBLAS_", "CUDA_", "NVIDIA_", "TF_"];

fn is_inherited(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    ENV.contains(&&*name) || ENV_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// A worker's process.
#[derive(Debug)]
pub(crate) struct Process {
    /// `None` once it was waited for: its number may belong to another then.
    pid: Mutex<Option<Pid>>,
    pidfd: OwnedFd,
    is_alive: AtomicBool,
    /// Why it was ended by the server, if it was.
    reason: Mutex<Option<String>>,
}

/// What starting gives.
pub(crate) struct Started {
    pub(crate) process: Process,
    pub(crate) child: Child,
    pub(crate) lanes: Vec<Lane>,
    /// What it prints, on both streams.
    pub(crate) output: PipeReader,
}

/// Starts a program with so many lanes. It dies when the calling thread ends.
pub(crate) fn start(program: &Program, lanes: usize, bytes_max: u64) -> io::Result<Started> {
    let (mut ours, mut theirs): (Vec<Lane>, Vec<Ends>) = (Vec::new(), Vec::new());
    for _ in 0..lanes {
        let (lane, ends) = Lane::create(bytes_max)?;
        ours.push(lane);
        theirs.push(ends);
    }
    let script = program.script.map(script_file).transpose()?;
    let (output, writer) = io::pipe()?;
    let mut command = Command::new(&program.program);
    command.args(&program.args);
    if let Some(script) = &script {
        command.arg(format!("/proc/self/fd/{}", script.as_raw_fd()));
    }
    let pairs = theirs.iter().map(|ends| format!("{}:{}", ends.socket.as_raw_fd(), ends.file.as_raw_fd()));
    command.arg("--lanes").arg(pairs.collect::<Vec<String>>().join(","));
    command.env_clear().envs(std::env::vars_os().filter(|(name, _)| is_inherited(name)));
    command.envs(program.env.iter().map(|(name, value)| (name, value)));
    if let Some(folder) = &program.folder {
        command.current_dir(folder);
    }
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer).process_group(0);
    let kept: Vec<RawFd> = theirs
        .iter()
        .flat_map(|ends| [ends.socket.as_raw_fd(), ends.file.as_raw_fd()])
        .chain(script.as_ref().map(AsRawFd::as_raw_fd))
        .collect();
    let parent = rustix::process::getpid();
    // SAFETY: the closure runs in the new process before exec. It makes system calls only and allocates nothing: `kept`
    // was made before, and errors are numbers.
    unsafe { command.pre_exec(move || prepare(parent, &kept)) };
    let child = command.spawn()?;
    // The server's copies of the worker's ends go with `theirs` and `command`, so that a lane ends with the worker.
    drop(command);
    let pid = Pid::from_child(&child);
    let pidfd = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(error) => {
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
            return Err(error.into());
        }
    };
    // Where memory runs out, the worker is the one to go.
    let _ = std::fs::write(format!("/proc/{}/oom_score_adj", child.id()), "500");
    let process = Process {
        pid: Mutex::new(Some(pid)),
        pidfd,
        is_alive: AtomicBool::new(true),
        reason: Mutex::new(None),
    };
    Ok(Started { process, child, lanes: ours, output })
}

fn script_file(text: &str) -> io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create("slipway-worker", MemfdFlags::CLOEXEC)?);
    file.write_all(text.as_bytes())?;
    Ok(file)
}

/// Runs in the new process, before its program.
fn prepare(parent: Pid, kept: &[RawFd]) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have ended before the kernel knew of the wish.
    if rustix::process::getppid() != Some(parent) {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    // SAFETY: marks descriptors to be closed by exec; nothing is closed here. Kernels without the call answer ENOSYS,
    // and there it is left to each descriptor, which Rust opens so anyway.
    unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    for fd in kept {
        // SAFETY: takes the mark from a descriptor that is open in this process.
        if unsafe { libc::fcntl(*fd, libc::F_SETFD, 0) } == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

impl Process {
    /// Readable once the process has ended.
    pub(crate) fn pidfd(&self) -> &OwnedFd {
        &self.pidfd
    }

    /// Whether calls may still be sent to it.
    pub(crate) fn is_alive(&self) -> bool {
        self.is_alive.load(Ordering::Acquire)
    }

    /// Ends it and what it started. The first reason that is given stays.
    pub(crate) fn kill(&self, reason: Option<&str>) {
        self.is_alive.store(false, Ordering::Release);
        if let Some(reason) = reason {
            self.reason.lock().get_or_insert_with(|| reason.to_owned());
        }
        if let Some(pid) = *self.pid.lock() {
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        }
    }

    /// Ends it, waits for it and tells why it ended.
    pub(crate) fn bury(&self, child: &mut Child) -> String {
        self.kill(None);
        let status = child.wait();
        *self.pid.lock() = None;
        match (self.reason.lock().take(), status) {
            (Some(reason), _) => reason,
            (None, Ok(status)) => describe(status),
            (None, Err(error)) => format!("it cannot be waited for: {error}"),
        }
    }
}

fn describe(status: ExitStatus) -> String {
    let name = |signal| match signal {
        libc::SIGSEGV => "SIGSEGV, a memory fault",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS, a memory fault",
        libc::SIGILL => "SIGILL, an illegal instruction",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL, as the system does when memory runs out",
        libc::SIGTERM => "SIGTERM",
        _ => "",
    };
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("it exited with status {code}"),
        (None, Some(signal)) => {
            format!("it was ended by signal {signal} {}", name(signal)).trim_end().to_owned()
        }
        (None, None) => "it ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_inherited() {
        let inherited = ["PATH", "LC_ALL", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"];
        assert!(inherited.into_iter().all(|name| is_inherited(OsStr::new(name))));
        let secret = ["AWS_SECRET_ACCESS_KEY", "PYTHONPATH", "LD_PRELOAD", "TOKEN", "PATHS", "OMP"];
        assert!(!secret.into_iter().any(|name| is_inherited(OsStr::new(name))));
    }
}
