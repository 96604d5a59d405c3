//! Listeners and what they accept: TCP ports and unix sockets, for HTTP and for gRPC.
//!
//! Not here: which worker gets a connection (`server`), what happens on it (`connection`, `grpc`).

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use crate::{Config, Error};

/// Connections that the kernel has accepted and we have not.
const BACKLOG: i32 = 4096;

/// What a listener's connections speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Face {
    /// HTTP/1.1, and gRPC where a client begins with HTTP/2.
    Http,
    /// gRPC only.
    Grpc,
    /// As [`Face::Http`], and load, unload and reload calls are carried out.
    Admin,
}

/// An open listener.
pub(crate) enum Listener {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

/// An accepted connection on its way to a worker.
pub(crate) enum Accepted {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

/// All listeners of a server.
#[derive(Default)]
pub(crate) struct Listeners {
    pub(crate) all: Vec<(Face, Listener)>,
    /// Where HTTP is served.
    pub(crate) http: Option<SocketAddr>,
    /// Where gRPC is served.
    pub(crate) grpc: Option<SocketAddr>,
    /// Where load and unload calls are carried out.
    pub(crate) admin: Option<SocketAddr>,
    /// Files of unix sockets, which go with the server.
    pub(crate) sockets: Vec<PathBuf>,
}

impl Listeners {
    /// Opens everything that is configured.
    pub(crate) fn open(config: &Config) -> Result<Self, Error> {
        let mut listeners = Self::default();
        if !config.without_http {
            listeners.http = Some(listeners.port(Face::Http, config.http, config.reuse_port)?);
        }
        if let Some(address) = config.grpc {
            listeners.grpc = match listeners.port(Face::Grpc, address, config.reuse_port) {
                Ok(own) => Some(own),
                Err(error) if config.grpc_required || config.without_http => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, "gRPC has no port of its own; the port of HTTP takes it");
                    None
                }
            };
        }
        if let Some(address) = config.admin {
            listeners.admin = Some(listeners.port(Face::Admin, address, config.reuse_port)?);
        }
        for (face, path) in [
            (Face::Http, &config.http_socket),
            (Face::Grpc, &config.grpc_socket),
            (Face::Admin, &config.admin_socket),
        ] {
            if let Some(path) = path {
                listeners.socket(face, path)?;
            }
        }
        Ok(listeners)
    }

    fn port(&mut self, face: Face, address: SocketAddr, reuse: bool) -> Result<SocketAddr, Error> {
        let failed = |source| Error::Listen { address, source };
        let listener = bind(address, reuse).map_err(failed)?;
        let own = listener.local_addr().map_err(failed)?;
        self.all.push((face, Listener::Tcp(listener)));
        Ok(own)
    }

    fn socket(&mut self, face: Face, path: &Path) -> Result<(), Error> {
        let open = || {
            // Left over from a server that was killed; a file of any other kind is somebody's.
            if std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
                std::fs::remove_file(path)?;
            }
            let listener = std::os::unix::net::UnixListener::bind(path)?;
            listener.set_nonblocking(true)?;
            if face == Face::Admin {
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
            }
            Ok(listener)
        };
        let listener = open().map_err(|source| Error::Socket { path: path.to_owned(), source })?;
        self.sockets.push(path.to_owned());
        self.all.push((face, Listener::Unix(listener)));
        Ok(())
    }
}

fn bind(address: SocketAddr, reuse: bool) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restarted server takes its port back while old connections are still in TIME_WAIT.
    socket.set_reuse_address(true)?;
    // Another server of the same user may have the port too, if it says so as well.
    socket.set_reuse_port(reuse)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A program of the kernel's packet filter, which sees a segment from its TCP header on: drops what has the flag SYN.
const NO_SYN: [SockFilter; 4] = {
    // BPF_LD | BPF_B | BPF_ABS: the byte of the flags. BPF_JMP | BPF_JSET | BPF_K: whether SYN is among them.
    // BPF_RET | BPF_K: how much of the segment is let through.
    const FLAGS: u32 = 13;
    const SYN: u32 = 2;
    [
        SockFilter::new(0x30, 0, 0, FLAGS),
        SockFilter::new(0x45, 0, 1, SYN),
        SockFilter::new(0x06, 0, 0, 0),
        SockFilter::new(0x06, 0, 0, u32::MAX),
    ]
};

/// A listener on an event loop.
pub(crate) enum Watched {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

impl Watched {
    pub(crate) fn new(listener: Listener) -> io::Result<Self> {
        Ok(match listener {
            Listener::Tcp(listener) => Self::Tcp(tokio::net::TcpListener::from_std(listener)?),
            Listener::Unix(listener) => Self::Unix(tokio::net::UnixListener::from_std(listener)?),
        })
    }

    /// Lets the kernel begin no more connections on a port that another server has too: their first packet is dropped,
    /// and when clients send it again, which is after a second, it finds the other one. Connections that have begun are
    /// still to be accepted. Without this, one that comes between the last look and the close is reset.
    pub(crate) fn begin_no_more(&self) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => socket2::SockRef::from(listener).attach_filter(&NO_SYN),
            Self::Unix(_) => Ok(()),
        }
    }

    /// What the kernel has accepted and nobody has taken yet; then the listener is closed.
    pub(crate) fn rest(self) -> Vec<Accepted> {
        // The event loop learns late of what came last; the listener itself does not.
        let mut all = Vec::new();
        match self {
            Self::Tcp(listener) => {
                let Ok(listener) = listener.into_std() else { return all };
                let taken = listener.incoming().map_while(Result::ok);
                all.extend(taken.filter(|stream| stream.set_nonblocking(true).is_ok()).map(Accepted::Tcp));
            }
            Self::Unix(listener) => {
                let Ok(listener) = listener.into_std() else { return all };
                let taken = listener.incoming().map_while(Result::ok);
                all.extend(taken.filter(|stream| stream.set_nonblocking(true).is_ok()).map(Accepted::Unix));
            }
        }
        all
    }

    pub(crate) async fn accept(&self) -> io::Result<Accepted> {
        Ok(match self {
            Self::Tcp(listener) => Accepted::Tcp(listener.accept().await?.0.into_std()?),
            Self::Unix(listener) => Accepted::Unix(listener.accept().await?.0.into_std()?),
        })
    }
}
