//! The node's end of a shim's socket: start a shim, adopt one, talk to it.
//!
//! The node binds the socket and hands it to the shim as standard input, so that connecting needs no waiting: what is
//! written before the shim runs is read when it does.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use pod_protocol::shim::{Event, FRAME_BYTES_MAX, PodSpec, Request, ShimRecord, Started, VERSION, folder};
use rustix::time::Timespec;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::folder::{self as files, PodFolder};

/// Requests or events that may wait on one shim's connection.
const QUEUE_MAX: usize = 64;

/// How long a killed container may take to be gone; longer means that the kernel holds it (a dead disk or device).
const ORPHAN_WAIT: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// A control connection to a living shim. Dropping it does the shim no harm.
#[derive(Debug, Clone)]
pub struct Shim {
    requests: mpsc::Sender<Request>,
}

/// Events of a shim; closed when the shim is gone.
pub type Events = mpsc::Receiver<Event>;

impl Shim {
    /// Asks for something without waiting. `false`: the shim is gone, or does not keep up.
    pub fn try_ask(&self, request: Request) -> bool {
        self.requests.try_send(request).is_ok()
    }

    /// Asks for something; the answer comes as an event. `false`: the shim is gone.
    pub async fn ask(&self, request: Request) -> bool {
        self.requests.send(request).await.is_ok()
    }
}

/// Starts a shim for a pod whose folder exists.
pub async fn spawn(binary: &Path, pod: &PodFolder, spec: &PodSpec) -> io::Result<(Shim, Events)> {
    files::write(&pod.path().join(folder::POD), spec)?;
    let (reached, place) = reach(pod.path())?;
    let _ = std::fs::remove_file(&place);
    let listener = UnixListener::bind(&place)?;
    let log = File::options().create(true).append(true).open(pod.path().join(folder::SHIM_LOG))?;
    let mut command = tokio::process::Command::new(binary);
    command.arg("shim").arg(pod.path()).env_clear().current_dir("/");
    command.stdin(OwnedFd::from(listener)).stdout(Stdio::null()).stderr(log).kill_on_drop(false);
    let mut child = command.spawn()?;
    // Only to leave no zombie while this server lives.
    tokio::spawn(async move { child.wait().await });
    let stream = UnixStream::connect(&place)?;
    drop(reached);
    serve(stream)
}

/// Connects to the shim of a pod folder when it still lives; `None`: it does not.
pub async fn adopt(pod: &PodFolder) -> Option<(Shim, Events)> {
    let record = pod.shim()?;
    if !is_alive(&record) {
        return None;
    }
    serve(connect(pod.path()).ok()?).ok()
}

/// Opens a connection of its own, for an exec or an attach.
pub fn connect(pod_folder: &Path) -> io::Result<UnixStream> {
    let (_reached, place) = reach(pod_folder)?;
    UnixStream::connect(place)
}

/// The same process as the record says: pid and start time, in the same boot.
pub fn is_alive(record: &ShimRecord) -> bool {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    boot.trim() == record.boot_id && start_ticks(record.pid) == Some(record.start_ticks)
}

/// When a process that is no zombie started, in clock ticks since boot.
pub fn start_ticks(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Ends a container whose shim is gone, and waits until the kernel is done with it. The kernel was asked to let it die
/// with its shim, but does so in its own time: what is told as ended must have ended.
pub async fn end_orphan(started: &Started) {
    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
    let pid = i32::try_from(started.pid).ok().and_then(rustix::process::Pid::from_raw);
    let Some(process) = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else { return };
    // Asked when the process is held: its number may be another's by now.
    if start_ticks(started.pid) != Some(started.start_ticks) {
        return;
    }
    let _ = pidfd_send_signal(&process, Signal::KILL);
    let ended = tokio::task::spawn_blocking(move || {
        let mut seen = [PollFd::new(&process, PollFlags::IN)];
        poll(&mut seen, Some(&ORPHAN_WAIT)).is_ok_and(|ready| ready > 0)
    });
    if !matches!(ended.await, Ok(true)) {
        tracing::warn!(pid = started.pid, "a container does not die, the kernel holds it");
    }
}

/// A short path to the socket: the kernel allows 107 bytes, a data folder may be deeper.
fn reach(pod_folder: &Path) -> io::Result<(File, PathBuf)> {
    let opened = File::open(pod_folder)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{}", opened.as_raw_fd(), folder::SOCKET));
    Ok((opened, path))
}

fn serve(stream: UnixStream) -> io::Result<(Shim, Events)> {
    stream.set_nonblocking(true)?;
    let (mut read, mut write) = tokio::net::UnixStream::from_std(stream)?.into_split();
    let (requests, mut asked) = mpsc::channel::<Request>(QUEUE_MAX);
    let (told, events) = mpsc::channel(QUEUE_MAX);
    tokio::spawn(async move {
        let mut next = Some(Request::Hello { version: VERSION });
        while let Some(request) = next {
            let Ok(bytes) = frame(&request) else { break };
            if write.write_all(&bytes).await.is_err() {
                break;
            }
            next = asked.recv().await;
        }
    });
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = told.closed() => break,
                event = read_event(&mut read) => {
                    let Ok(event) = event else { break };
                    if told.send(event).await.is_err() {
                        break;
                    }
                }
            }
        }
    });
    Ok((Shim { requests }, events))
}

/// One frame.
pub async fn read_event(read: &mut (impl tokio::io::AsyncRead + Unpin)) -> io::Result<Event> {
    let length = read.read_u32().await? as usize;
    if length > FRAME_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut body = vec![0; length];
    read.read_exact(&mut body).await?;
    Ok(serde_json::from_slice(&body)?)
}

/// A request as bytes.
pub fn frame(request: &Request) -> io::Result<Vec<u8>> {
    let body = serde_json::to_vec(request)?;
    let mut bytes = (body.len() as u32).to_be_bytes().to_vec();
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

/// Sends a request with descriptors.
pub fn send_with_fds(stream: &UnixStream, request: &Request, fds: &[OwnedFd]) -> io::Result<()> {
    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
    let bytes = frame(request)?;
    let raw: Vec<i32> = fds.iter().map(|fd| fd.as_fd().as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let parts = [io::IoSlice::new(&bytes)];
    let sent = sendmsg::<()>(stream.as_raw_fd(), &parts, &rights, MsgFlags::MSG_NOSIGNAL, None)?;
    if sent < bytes.len() {
        io::Write::write_all(&mut &*stream, &bytes[sent..])?;
    }
    Ok(())
}
