//! Starts one attempt, from the parent's side.
//!
//! The child and the parent work at the same time: while the child builds its root, the parent syncs `started`. The
//! child executes the program only after both, so a program that ran always has its `started` on disk.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Instant;

use pod_protocol::shim::{ContainerSpec, Exit, OOM_KILLED, Started, VERSION, folder};

use super::child::{self, Ends, Failure};
use super::clock;
use super::log::{Lines, Log};
use super::record::{self, Sync};
use super::sys::{self, Side};

/// The namespaces of each container; the network's is the pod's and joined by the shim.
pub const NAMESPACES: i32 =
    libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;

/// One readable end of a container's output.
pub struct Output {
    /// Pipe, or terminal.
    pub fd: OwnedFd,
    /// What it is cut into.
    pub lines: Lines,
}

/// A running attempt.
pub struct Running {
    /// Container.
    pub name: String,
    /// Attempt.
    pub attempt: u32,
    /// Its first process.
    pub pid: i32,
    /// When and as what it started.
    pub started: Started,
    /// Open until the program is executed; a [`Failure`] comes out of it.
    pub status: Option<File>,
    /// Its streams that are still open.
    pub outputs: Vec<Output>,
    /// The write end of its standard input, or its terminal.
    pub input: Option<OwnedFd>,
    /// Its log.
    pub log: Log,
    /// When to kill it.
    pub kill_at: Option<Instant>,
    /// Why its program was not executed.
    pub failure: Option<Failure>,
    cgroups: Vec<String>,
    out_of_memory_before: u64,
    folder: PathBuf,
}

/// Parent ends of a container's standard streams.
struct Streams {
    outputs: Vec<Output>,
    input: Option<OwnedFd>,
}

/// Starts an attempt whose spec is in the pod folder. `Err`: it was refused and nothing happened.
/// `Ok(Err(exit))`: it could not be made, and `exit.json` says so.
pub fn start(pod_folder: &Path, name: &str, attempt: u32) -> Result<Result<Running, Exit>, String> {
    let attempt_folder = pod_folder.join(folder::attempt(name, attempt));
    let spec: ContainerSpec =
        record::read(&attempt_folder.join(folder::SPEC)).map_err(|error| error.to_string())?;
    if spec.version != VERSION {
        return Err(format!("its spec has version {}, this shim knows {VERSION}", spec.version));
    }
    if attempt_folder.join(folder::STARTED).exists() {
        return Err("this attempt was started before".into());
    }
    match launch(pod_folder, &attempt_folder, &spec) {
        Ok(running) => Ok(Ok(running)),
        Err(failure) => {
            // The guard is set for a failed attempt as well: whoever finds the folder sees one that ended.
            let _ = record::create(&attempt_folder.join(folder::STARTED), &Started::default());
            Ok(Err(finish(&attempt_folder, exit_of_failure(failure, None))))
        }
    }
}

fn launch(pod_folder: &Path, attempt_folder: &Path, spec: &ContainerSpec) -> Result<Running, Failure> {
    let failed = |what: &str, error: io::Error| Failure::create(format!("cannot {what}: {error}"));
    let log = Log::open(attempt_folder.join(folder::LOG), spec.log_bytes_max)
        .map_err(|error| failed("open the log", error))?;
    let (stdio, streams) = open_streams(spec).map_err(|error| failed("make the streams", error))?;
    let (go_read, go_write) = sys::pipe().map_err(|error| failed("make a pipe", error))?;
    let (status_read, status_write) = sys::pipe().map_err(|error| failed("make a pipe", error))?;
    let pid = match sys::clone(NAMESPACES).map_err(|error| no_namespaces(spec, &error))? {
        Side::Child => {
            drop((go_write, status_read, streams));
            let ends = Ends { go: File::from(go_read), status: File::from(status_write), stdio };
            child::run(spec, pod_folder, attempt_folder, ends)
        }
        Side::Parent(pid) => pid,
    };
    // Without these the child's ends would never be seen to close.
    drop((stdio, go_read, status_write));
    let mut running = Running {
        name: spec.name.clone(),
        attempt: spec.attempt,
        pid,
        started: Started::default(),
        status: Some(File::from(status_read)),
        outputs: streams.outputs,
        input: streams.input,
        log,
        kill_at: None,
        failure: None,
        out_of_memory_before: out_of_memory_count(&spec.cgroups),
        cgroups: spec.cgroups.clone(),
        folder: attempt_folder.to_path_buf(),
    };
    match release(spec, &mut running, &mut File::from(go_write)) {
        Ok(()) => Ok(running),
        Err(failure) => {
            // Nobody will wait for it by name; the loop reaps it as an unknown child.
            sys::kill(pid, libc::SIGKILL);
            Err(failure)
        }
    }
}

/// Does the parent's part for the new child and lets it go on.
fn release(spec: &ContainerSpec, running: &mut Running, go: &mut File) -> Result<(), Failure> {
    let failed = |what: &str, error: io::Error| Failure::create(format!("cannot {what}: {error}"));
    map_ids(running.pid, spec).map_err(|error| failed("map the ids of the user namespace", error))?;
    go.write_all(&[1]).map_err(|error| failed("talk to the container", error))?;
    for cgroup in &spec.cgroups {
        let file = Path::new(cgroup).join("cgroup.procs");
        std::fs::write(&file, running.pid.to_string()).map_err(|error| failed("enter the cgroup", error))?;
    }
    if let Some(score) = spec.oom_score_adj {
        // Lowering needs a right that a plain user lacks; the kernel's choice is only a bit less apt then.
        let _ = std::fs::write(format!("/proc/{}/oom_score_adj", running.pid), score.to_string());
    }
    let pid = running.pid as u32;
    let start_ticks = record::start_ticks(pid).map_err(|error| failed("read its start time", error))?;
    running.started = Started { pid, start_ticks, started_at: clock::now() };
    record::create(&running.folder.join(folder::STARTED), &running.started)
        .map_err(|error| failed("record the start", error))?;
    go.write_all(&[1]).map_err(|error| failed("talk to the container", error))
}

/// As root every id of ours is itself inside: files in volumes belong to whom they seem to, and the platform can read
/// them; rights over the host are gone all the same. As a plain user there is one id to give: our own, under the
/// number that the container asks for.
fn map_ids(pid: i32, spec: &ContainerSpec) -> io::Result<()> {
    let (uid, gid) = sys::ids();
    let write = |file: &str, text: &str| std::fs::write(format!("/proc/{pid}/{file}"), text);
    if uid == 0 {
        write("uid_map", &same_inside(&std::fs::read_to_string("/proc/self/uid_map")?))?;
        return write("gid_map", &same_inside(&std::fs::read_to_string("/proc/self/gid_map")?));
    }
    write("uid_map", &format!("{} {uid} 1\n", spec.user.uid))?;
    write("setgroups", "deny")?;
    write("gid_map", &format!("{} {gid} 1\n", spec.user.gid))
}

/// Each range of our own map (inside, outside, count), mapped to itself.
fn same_inside(map: &str) -> String {
    let mut text = String::new();
    for line in map.lines() {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        if let [inside, _, count] = fields[..] {
            text.push_str(&format!("{inside} {inside} {count}\n"));
        }
    }
    text
}

/// Names the first mount that cannot be honoured, and the fix.
fn no_namespaces(spec: &ContainerSpec, error: &io::Error) -> Failure {
    let mount = spec
        .mounts
        .first()
        .map_or(String::from("its root"), |mount| format!("volume {:?} at {:?}", mount.name, mount.target));
    Failure::create(format!(
        "cannot mount {mount}: this machine gives no user and mount namespaces ({error}); allow them with \
         `sysctl -w user.max_user_namespaces=65536 kernel.unprivileged_userns_clone=1 \
         kernel.apparmor_restrict_unprivileged_userns=0` as far as these settings exist, or run as root"
    ))
}

fn open_streams(spec: &ContainerSpec) -> io::Result<([OwnedFd; 3], Streams)> {
    if spec.tty {
        let (master, side) = sys::open_terminal()?;
        sys::set_nonblocking(master.as_fd())?;
        let input = master.try_clone()?;
        let outputs = vec![Output { fd: master, lines: Lines::new("stdout") }];
        return Ok(([side.try_clone()?, side.try_clone()?, side], Streams { outputs, input: Some(input) }));
    }
    let (input_read, input) = if spec.stdin {
        let (read, write) = sys::pipe()?;
        (read, Some(write))
    } else {
        (File::open("/dev/null")?.into(), None)
    };
    let (output_read, output) = sys::pipe()?;
    let (error_read, error) = sys::pipe()?;
    sys::set_nonblocking(output_read.as_fd())?;
    sys::set_nonblocking(error_read.as_fd())?;
    let outputs = vec![
        Output { fd: output_read, lines: Lines::new("stdout") },
        Output { fd: error_read, lines: Lines::new("stderr") },
    ];
    Ok(([input_read, output, error], Streams { outputs, input }))
}

impl Running {
    /// Reads what stream `index` has now. `false`: the stream ended and is gone.
    pub fn read_output(&mut self, index: usize, buffer: &mut [u8]) -> bool {
        let Some(output) = self.outputs.get_mut(index) else {
            return false;
        };
        match sys::read(output.fd.as_fd(), buffer) {
            Ok(count) if count > 0 => {
                output.lines.push(&buffer[..count], &mut self.log);
                true
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => true,
            // A terminal whose other side is closed gives an error instead of an end.
            Ok(_) | Err(_) => {
                output.lines.finish(&mut self.log);
                self.outputs.remove(index);
                false
            }
        }
    }

    /// Asks the status pipe, after it became readable or the child ended, whether the program was executed.
    pub fn take_failure(&mut self) -> Option<Failure> {
        let mut text = Vec::new();
        self.status.take()?.read_to_end(&mut text).ok()?;
        if text.is_empty() { None } else { serde_json::from_slice(&text).ok() }
    }

    /// The first process ended: reads the rest of its output and writes `exit.json`.
    pub fn end(mut self, wait_status: i32, failure: Option<Failure>) -> Exit {
        // All other processes died with the first one, so what is in the pipes now is all there will be. A stream can
        // be kept open by nobody but a program that was given it by another one: no waiting for its end.
        let mut buffer = vec![0; 65_536];
        while !self.outputs.is_empty() {
            let before = self.outputs.len();
            let (mut fds, ready) = (Vec::new(), libc::POLLIN);
            for output in &self.outputs {
                fds.push(libc::pollfd {
                    fd: std::os::fd::AsRawFd::as_raw_fd(&output.fd),
                    events: ready,
                    revents: 0,
                });
            }
            if sys::poll(&mut fds, 0).is_err() || fds.iter().all(|fd| fd.revents == 0) {
                break;
            }
            for index in (0..before).rev() {
                if fds[index].revents != 0 {
                    self.read_output(index, &mut buffer);
                }
            }
        }
        for output in &mut self.outputs {
            output.lines.finish(&mut self.log);
        }
        let (code, signal) = sys::exit_of(wait_status);
        let started_at = Some(self.started.started_at.clone());
        let exit = match failure {
            Some(failure) => exit_of_failure(failure, started_at),
            None => {
                let killed = signal == Some(libc::SIGKILL) || code == 137;
                let out_of_memory = killed && out_of_memory_count(&self.cgroups) > self.out_of_memory_before;
                let reason = out_of_memory.then(|| OOM_KILLED.to_owned());
                Exit { code, signal, reason, message: None, started_at, finished_at: clock::now() }
            }
        };
        finish(&self.folder, exit)
    }
}

fn exit_of_failure(failure: Failure, started_at: Option<String>) -> Exit {
    let (reason, message) = (Some(failure.reason), Some(failure.message));
    Exit { code: 128, signal: None, reason, message, started_at, finished_at: clock::now() }
}

fn finish(attempt_folder: &Path, exit: Exit) -> Exit {
    if let Err(error) = record::write(&attempt_folder.join(folder::EXIT), &exit, Sync::Yes) {
        eprintln!("cannot write {}: {error}", attempt_folder.join(folder::EXIT).display());
    }
    // The writable layer of an image root goes with the attempt; the log stays.
    let _ = std::fs::remove_dir_all(attempt_folder.join("upper"));
    let _ = std::fs::remove_dir_all(attempt_folder.join("work"));
    exit
}

/// How often the kernel killed in these cgroups for memory, by either version's file.
fn out_of_memory_count(cgroups: &[String]) -> u64 {
    let count = |file: PathBuf| -> Option<u64> {
        let text = std::fs::read_to_string(file).ok()?;
        text.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
    };
    let one = |cgroup: &String| {
        let folder = Path::new(cgroup);
        count(folder.join("memory.events")).or_else(|| count(folder.join("memory.oom_control"))).unwrap_or(0)
    };
    cgroups.iter().map(one).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_ranges_are_mapped_to_themselves() {
        assert_eq!(same_inside("         0          0 4294967295\n"), "0 0 4294967295\n");
        assert_eq!(same_inside("0 1000 1\n1 100000 65536\n"), "0 0 1\n1 1 65536\n");
    }
}
