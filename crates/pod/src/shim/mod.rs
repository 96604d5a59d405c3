//! `pod shim FOLDER`: one small process that owns all processes of a pod.
//!
//! It lives in a session of its own, so it outlives the server that started it, and it is the parent of the pod's
//! containers, so it alone learns their exit codes. One thread and one poll loop: there is little to get wrong in a
//! process that must not die. When it dies nevertheless, the kernel kills its containers with it (they are first
//! processes of pid namespaces and asked for a death signal), so nothing ever runs unowned.
//!
//! * [`server`] is the loop: connections, children, output, deadlines;
//! * [`container`] starts an attempt from the parent's side, `child` and `root` are the child's side;
//! * [`exec`] runs a further program in a running container;
//! * [`record`] writes what must survive: `started` and `exit.json`.
//!
//! Not here: what to start and when to restart it. The node decides, see `pod_protocol::shim`.

mod child;
mod clock;
mod container;
mod exec;
mod log;
mod record;
mod root;
mod server;
mod sys;
mod wire;

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use pod_protocol::shim::{PodSpec, ShimRecord, VERSION, folder};

/// Serves the pod whose folder is the one argument; standard input is the listening socket.
pub fn run(args: &[OsString]) -> i32 {
    let [folder] = args else {
        eprintln!("usage: pod shim FOLDER   (with the listening socket as standard input)");
        return 64;
    };
    match serve(&PathBuf::from(folder)) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("pod shim {folder:?}: {error}");
            1
        }
    }
}

fn serve(pod_folder: &Path) -> io::Result<()> {
    let listener = UnixListener::from(io::stdin().as_fd().try_clone_to_owned()?);
    listener.set_nonblocking(true)?;
    let spec: PodSpec = record::read(&pod_folder.join(folder::POD))?;
    if spec.version != VERSION {
        return Err(io::Error::other(format!(
            "pod.json has version {}, this shim knows {VERSION}",
            spec.version
        )));
    }
    // It fails only when this is a session leader already, which is just as well.
    let _ = sys::setsid();
    sys::prctl(libc::PR_SET_CHILD_SUBREAPER, 1)?;
    if let Some(path) = &spec.netns {
        join_network(path)?;
    }
    let signals = sys::child_signals()?;
    let shim = who_am_i()?;
    record::write(&pod_folder.join(folder::SHIM), &shim, record::Sync::No)?;
    server::Server::new(pod_folder.to_path_buf(), shim, listener, signals).run()
}

/// Enters the pod's network namespace. Containers have no rights over it, as it belongs to the node, so low ports and
/// ping are opened to everybody in it, which is what container runtimes do.
fn join_network(path: &str) -> io::Result<()> {
    let namespace = File::open(path)?;
    sys::setns(namespace.as_fd(), libc::CLONE_NEWNET)?;
    let _ = std::fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
    let _ = std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647");
    Ok(())
}

fn who_am_i() -> io::Result<ShimRecord> {
    let pid = std::process::id();
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    Ok(ShimRecord {
        version: VERSION,
        pid,
        start_ticks: record::start_ticks(pid)?,
        boot_id: boot_id.trim().into(),
    })
}
