//! Exec, attach and port-forward: streams into running pods.
//!
//! The shim runs the program on descriptors that the node gives it, so bytes never pass through the shim; when the
//! server goes away the streams break and the program with them, as with any exec.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use pod_protocol::shim::{Event, Request};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use crate::folder::PodFolder;
use crate::shim;

/// What is kept of a probe's or hook's output.
const OUTPUT_BYTES_MAX: u64 = 10 * 1024;

/// A program running in a container.
#[derive(Debug)]
pub struct Exec {
    stream: tokio::net::UnixStream,
    /// Its standard input, when asked for; the terminal with `tty`.
    pub stdin: Option<pipe::Sender>,
    /// Its standard output; none with `tty`.
    pub stdout: Option<pipe::Receiver>,
    /// Its standard error; none with `tty`.
    pub stderr: Option<pipe::Receiver>,
    /// The terminal, with `tty`.
    pub terminal: Option<Terminal>,
}

/// The near side of a pseudo terminal.
#[derive(Debug)]
pub struct Terminal {
    master: tokio::io::unix::AsyncFd<OwnedFd>,
}

/// Starts a program in a running container. It is killed when the result is dropped.
pub fn exec(
    folder: &PodFolder,
    container: &str,
    argv: Vec<String>,
    stdin: bool,
    tty: bool,
) -> io::Result<Exec> {
    let request = Request::Exec { container: container.to_owned(), argv, tty, kill_on_close: true };
    let socket = shim::connect(folder.path())?;
    let mut started =
        Exec { stream: nonblocking(&socket)?, stdin: None, stdout: None, stderr: None, terminal: None };
    let fds = if tty {
        let (master, side) = open_terminal()?;
        started.terminal = Some(Terminal { master: crate::ready::watch(master)? });
        vec![side.try_clone()?, side.try_clone()?, side]
    } else {
        let input = if stdin {
            let (sender, receiver) = pipe::pipe()?;
            started.stdin = Some(sender);
            receiver.into_blocking_fd()?
        } else {
            std::fs::File::open("/dev/null")?.into()
        };
        let (output, stdout) = pipe::pipe()?;
        let (error, stderr) = pipe::pipe()?;
        (started.stdout, started.stderr) = (Some(stdout), Some(stderr));
        vec![input, output.into_blocking_fd()?, error.into_blocking_fd()?]
    };
    shim::send_with_fds(&socket, &request, &fds)?;
    Ok(started)
}

fn nonblocking(socket: &std::os::unix::net::UnixStream) -> io::Result<tokio::net::UnixStream> {
    socket.set_nonblocking(true)?;
    tokio::net::UnixStream::from_std(socket.try_clone()?)
}

impl Exec {
    /// Waits for the program's end: its exit code (128 + signal), and why it could not be run.
    pub async fn wait(&mut self) -> io::Result<(i32, Option<String>)> {
        loop {
            if let Event::ExecExited { code, error } = shim::read_event(&mut self.stream).await? {
                return Ok((code, error));
            }
        }
    }
}

impl Terminal {
    /// Sets the size that programs on it see.
    pub fn resize(&self, columns: u16, rows: u16) -> io::Result<()> {
        let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(rustix::termios::tcsetwinsize(self.master.get_ref(), size)?)
    }

    /// Reads what programs wrote; 0: all of them are gone.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self
            .master
            .async_io(tokio::io::Interest::READABLE, |fd| Ok(rustix::io::read(fd, &mut *buffer)?))
            .await;
        match read {
            // The other side is closed.
            Err(error) if error.raw_os_error() == Some(libc::EIO) => Ok(0),
            other => other,
        }
    }

    /// Types.
    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = self
                .master
                .async_io(tokio::io::Interest::WRITABLE, |fd| Ok(rustix::io::write(fd, bytes)?))
                .await?;
            bytes = &bytes[written..];
        }
        Ok(())
    }
}

fn open_terminal() -> io::Result<(OwnedFd, OwnedFd)> {
    use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let side = ioctl_tiocgptpeer(&master, flags)?;
    rustix::io::ioctl_fionbio(master.as_fd(), true)?;
    Ok((master, side))
}

/// Runs a program to its end: exit code, and the first bytes of its output and error.
pub async fn run(folder: &PodFolder, container: &str, argv: Vec<String>) -> io::Result<(i32, String)> {
    let mut program = exec(folder, container, argv, false, false)?;
    let (stdout, stderr) = (program.stdout.take(), program.stderr.take());
    let read = |stream: Option<pipe::Receiver>| async move {
        let mut text = Vec::new();
        if let Some(stream) = stream {
            let _ = stream.take(OUTPUT_BYTES_MAX).read_to_end(&mut text).await;
        }
        text
    };
    let (ended, output, error) = tokio::join!(program.wait(), read(stdout), read(stderr));
    let (code, failure) = ended?;
    let text = failure.unwrap_or_else(|| String::from_utf8_lossy(&[output, error].concat()).into_owned());
    Ok((code, text))
}
