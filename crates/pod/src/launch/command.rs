//! The user's command: started as a child, its output passed through, signals forwarded.
//!
//! Without anything to capture the child has the container's own standard output: no byte is copied. Otherwise two pipes
//! are read in one `poll` loop together with a signal descriptor, so nothing waits for anything else.
//! As the container's first process the launcher also reaps what the child left behind.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Child, Command, Stdio};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

use super::{Failure, code};

/// How much of standard output is reported as the result: its last bytes.
const RESULT_BYTES_MAX: usize = 256 * 1024;
/// How much of the log is stored.
const LOG_BYTES_MAX: u64 = 64 << 20;

/// What to keep of the output.
#[derive(Clone, Copy)]
pub struct Capture {
    /// The last of standard output.
    pub result: bool,
    /// Standard output and error, for the artifact store.
    pub log: bool,
}

/// A command that ended.
pub struct Done {
    /// 128 + signal when a signal ended it.
    pub exit_code: i32,
    pub result: Option<String>,
    pub log: Option<fs::File>,
}

/// Runs `argv` with the further environment to its end.
pub fn run(argv: &[OsString], environment: &[(String, OsString)], capture: Capture) -> Result<Done, Failure> {
    let broken = |what: &str, error: &dyn std::fmt::Display| {
        Failure::new(code::NOT_RUNNABLE, format!("{what}: {error}"))
    };
    // Blocked before the child exists: no signal falls between. The child gets an empty mask from the library.
    let mask: SigSet = [
        Signal::SIGCHLD,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGQUIT,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGWINCH,
    ]
    .into_iter()
    .collect();
    mask.thread_block().map_err(|e| broken("signal mask", &e))?;
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK);
    let signals = signals.map_err(|e| broken("signal descriptor", &e))?;
    let mut tee = Tee::new(capture).map_err(|e| broken("log file", &e))?;
    let mut child = start(argv, environment, capture.result || capture.log)?;
    let status = follow(&mut child, &signals, &mut tee).map_err(|e| broken("waiting for the command", &e))?;
    Ok(Done { exit_code: status, result: tee.result(), log: tee.log })
}

fn start(argv: &[OsString], environment: &[(String, OsString)], piped: bool) -> Result<Child, Failure> {
    let mut command = Command::new(&argv[0]);
    command.args(&argv[1..]).envs(environment.iter().map(|(name, value)| (name, value)));
    // They may be large, and tell a nested program nothing.
    command.env_remove(pod_protocol::launch::SPEC_ENV).env_remove(pod_protocol::launch::SPEC_FILE_ENV);
    if piped {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
    }
    command.spawn().map_err(|error| {
        let code = match error.kind() {
            io::ErrorKind::NotFound => code::NOT_FOUND,
            _ => code::NOT_RUNNABLE,
        };
        Failure::new(code, format!("command `{}`: {error}", argv[0].to_string_lossy()))
    })
}

/// Copies output and forwards signals until the child has ended and its pipes are empty.
fn follow(child: &mut Child, signals: &SignalFd, tee: &mut Tee) -> io::Result<i32> {
    let pid = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
    let mut out = child.stdout.take();
    let mut err = child.stderr.take();
    for pipe in [out.as_ref().map(AsFd::as_fd), err.as_ref().map(AsFd::as_fd)].into_iter().flatten() {
        rustix::io::ioctl_fionbio(pipe, true)?;
    }
    let mut ended = None;
    loop {
        let mut fds = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        fds.extend(out.as_ref().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
        fds.extend(err.as_ref().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
        // After the end only what is in the pipes already: a grandchild may hold them open for ever.
        let timeout = if ended.is_some() { PollTimeout::ZERO } else { PollTimeout::NONE };
        let ready = match poll(&mut fds, timeout) {
            Err(nix::errno::Errno::EINTR) => continue,
            other => other?,
        };
        if let (Some(status), 0) = (ended, ready) {
            return Ok(status);
        }
        let was_ended = ended.is_some();
        if drain(&mut out, |bytes| tee.stdout(bytes))? {
            out = None;
        }
        if drain(&mut err, |bytes| tee.stderr(bytes))? {
            err = None;
        }
        if let Some(status) = take_signals(signals, pid)? {
            ended = Some(status);
        }
        if was_ended && out.is_none() && err.is_none() {
            return Ok(ended.unwrap_or_default());
        }
    }
}

/// Reads what is there; whether the pipe is at its end.
fn drain<R: Read>(pipe: &mut Option<R>, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<bool> {
    let Some(pipe) = pipe else { return Ok(false) };
    let mut buffer = [0_u8; 64 * 1024];
    match pipe.read(&mut buffer) {
        Ok(0) => Ok(true),
        Ok(count) => take(&buffer[..count]).map(|()| false),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Forwards what arrived and reaps; the child's exit code once it ended.
fn take_signals(signals: &SignalFd, child: Pid) -> io::Result<Option<i32>> {
    let mut ended = None;
    while let Some(info) = signals.read_signal()? {
        let signal = Signal::try_from(info.ssi_signo as i32)?;
        if signal == Signal::SIGCHLD {
            ended = reap(child)?.or(ended);
        } else {
            // Gone already is fine: its exit is on the way.
            let _ = kill(child, signal);
        }
    }
    Ok(ended)
}

fn reap(child: Pid) -> io::Result<Option<i32>> {
    let mut ended = None;
    loop {
        // Looked at before it is taken, so that only children of this process are ever waited for by id.
        match waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT) {
            Ok(WaitStatus::StillAlive) | Err(nix::errno::Errno::ECHILD) => return Ok(ended),
            Ok(status) => {
                let Some(pid) = status.pid() else { return Ok(ended) };
                let status = waitpid(pid, None)?;
                if pid == child {
                    ended = match status {
                        WaitStatus::Exited(_, code) => Some(code),
                        WaitStatus::Signaled(_, signal, _) => Some(128 + signal as i32),
                        _ => ended,
                    };
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Where captured output goes besides the container's own.
struct Tee {
    tail: Option<Vec<u8>>,
    log: Option<fs::File>,
    log_left: u64,
}

impl Tee {
    fn new(capture: Capture) -> io::Result<Self> {
        let log = if capture.log { Some(log_file()?) } else { None };
        Ok(Self { tail: capture.result.then(Vec::new), log, log_left: LOG_BYTES_MAX })
    }

    fn stdout(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(tail) = &mut self.tail {
            tail.extend_from_slice(bytes);
            // Cut at twice the bound, so that each byte is moved once at most.
            if tail.len() > 2 * RESULT_BYTES_MAX {
                tail.drain(..tail.len() - RESULT_BYTES_MAX);
            }
        }
        self.keep(bytes)?;
        pass_on(rustix::stdio::stdout(), bytes)
    }

    fn stderr(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.keep(bytes)?;
        pass_on(rustix::stdio::stderr(), bytes)
    }

    fn keep(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(log) = &mut self.log else { return Ok(()) };
        if self.log_left == 0 {
            return Ok(());
        }
        let most = usize::try_from(self.log_left).unwrap_or(usize::MAX).min(bytes.len());
        log.write_all(&bytes[..most])?;
        self.log_left -= most as u64;
        if self.log_left == 0 {
            log.write_all(format!("\n[log cut after {LOG_BYTES_MAX} bytes]\n").as_bytes())?;
        }
        Ok(())
    }

    fn result(&self) -> Option<String> {
        let tail = self.tail.as_ref()?;
        let start = tail.len().saturating_sub(RESULT_BYTES_MAX);
        // Lossy: a result cut inside a character, or in another encoding, is still a result.
        Some(String::from_utf8_lossy(&tail[start..]).into_owned())
    }
}

/// A file without a name: on disk where there is a writable folder, else in memory.
fn log_file() -> io::Result<fs::File> {
    for folder in [std::env::temp_dir(), "/tmp".into(), "/var/tmp".into()] {
        let path = folder.join(format!(".slipway-log-{}", std::process::id()));
        let opened = fs::OpenOptions::new().read(true).write(true).create_new(true).open(&path);
        if let Ok(file) = opened {
            fs::remove_file(path)?;
            return Ok(file);
        }
    }
    Ok(rustix::fs::memfd_create("log", rustix::fs::MemfdFlags::CLOEXEC)?.into())
}

fn pass_on(target: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(target, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(rustix::io::Errno::INTR) => {}
            // Nobody reads the container's output any more: the step goes on.
            Err(rustix::io::Errno::PIPE) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
