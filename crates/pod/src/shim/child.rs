//! The container's first process from `clone` to `exec`.
//!
//! It runs in its new namespaces with every right over them and none over the host's. The order matters: the ids are
//! mapped by the parent before anything is made; the root is built while the old one is still visible; rights go last.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use pod_protocol::shim::{CREATE_ERROR, ContainerSpec, START_ERROR};
use serde::{Deserialize, Serialize};

use super::{root, sys};

/// The search path of a container that sets none, as container runtimes have it.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The highest capability the kernel may know.
const CAPABILITY_MAX: u8 = 63;

/// Why a program does not run; travels through the status pipe.
#[derive(Debug, Serialize, Deserialize)]
pub struct Failure {
    /// [`CREATE_ERROR`] or [`START_ERROR`].
    pub reason: String,
    /// In words, with the mount or program it is about.
    pub message: String,
}

impl Failure {
    /// The surroundings could not be made.
    pub fn create(message: impl Into<String>) -> Self {
        Self { reason: CREATE_ERROR.into(), message: message.into() }
    }

    /// The program could not be executed.
    pub fn start(message: impl Into<String>) -> Self {
        Self { reason: START_ERROR.into(), message: message.into() }
    }
}

/// What the child holds of the pipes to its parent, and its standard streams.
pub struct Ends {
    /// One byte when the ids are mapped, one when `started` is on disk.
    pub go: File,
    /// A [`Failure`]; closed by a successful exec.
    pub status: File,
    /// Standard input, output, error; one terminal for all with `tty`.
    pub stdio: [OwnedFd; 3],
}

/// Becomes the container. Never returns.
pub fn run(spec: &ContainerSpec, pod_folder: &Path, attempt_folder: &Path, mut ends: Ends) -> ! {
    let Err(failure) = become_container(spec, pod_folder, attempt_folder, &mut ends);
    report(&mut ends.status, &failure)
}

/// Tells the parent and leaves.
pub fn report(status: &mut File, failure: &Failure) -> ! {
    let text = serde_json::to_vec(failure).unwrap_or_default();
    let _ = status.write_all(&text);
    sys::exit_now(128)
}

fn become_container(
    spec: &ContainerSpec,
    pod_folder: &Path,
    attempt_folder: &Path,
    ends: &mut Ends,
) -> Result<std::convert::Infallible, Failure> {
    wait_for_go(&mut ends.go);
    root::build(spec, pod_folder, attempt_folder).map_err(Failure::create)?;
    let named = sys::set_hostname(&spec.hostname);
    named
        .map_err(|error| Failure::create(format!("cannot set the host name {:?}: {error}", spec.hostname)))?;
    enter_workdir(spec)?;
    settle(spec, ends)?;
    wait_for_go(&mut ends.go);
    Err(Failure::start(execute(spec, &spec.argv)))
}

/// The parent's word; when it is gone there is nobody to run for.
fn wait_for_go(go: &mut File) {
    if go.read_exact(&mut [0]).is_err() {
        sys::exit_now(128);
    }
}

fn enter_workdir(spec: &ContainerSpec) -> Result<(), Failure> {
    let workdir = Path::new(if spec.workdir.is_empty() { "/" } else { &spec.workdir });
    if !workdir.exists() {
        let _ = std::fs::DirBuilder::new().recursive(true).mode(0o755).create(workdir);
    }
    std::env::set_current_dir(workdir)
        .map_err(|error| Failure::create(format!("cannot enter the working folder {workdir:?}: {error}")))
}

/// Streams, limits, user, rights: everything between the surroundings and the program.
pub fn settle(spec: &ContainerSpec, ends: &Ends) -> Result<(), Failure> {
    let step = |what: &str, result: io::Result<()>| {
        result.map_err(|error| Failure::create(format!("cannot {what}: {error}")))
    };
    // It fails only for a session leader.
    let _ = sys::setsid();
    if spec.tty {
        step("take the terminal", sys::control_terminal(ends.stdio[0].as_fd()))?;
    }
    let [input, output, error] = &ends.stdio;
    step("set the standard streams", sys::set_stdio([input.as_fd(), output.as_fd(), error.as_fd()]))?;
    for (resource, soft, hard) in &spec.rlimits {
        step("set a resource limit", sys::set_limit(*resource, *soft, *hard))?;
    }
    for capability in 0..=CAPABILITY_MAX {
        if !spec.capabilities.contains(&capability) {
            // Above the kernel's last one it is an error of no matter.
            let _ = sys::prctl(libc::PR_CAPBSET_DROP, u64::from(capability));
        }
    }
    step("become the user", sys::become_user(spec.user.uid, spec.user.gid, &spec.user.groups))?;
    step("give up new rights", sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1))?;
    // After the change of user, which resets it.
    step("ask for a death signal", sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as u64))
}

/// Executes `argv` with the container's environment; returns why it could not.
pub fn execute(spec: &ContainerSpec, argv: &[String]) -> String {
    let Some(program) = argv.first() else {
        return "no command specified".into();
    };
    let found = match find(program, &spec.env) {
        Ok(found) => found,
        Err(message) => return format!("exec: {program:?}: {message}"),
    };
    let strings = |texts: Vec<String>| -> Option<Vec<CString>> {
        texts.into_iter().map(|text| CString::new(text).ok()).collect()
    };
    let env = spec.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let (Some(argv), Some(env), Ok(path)) = (strings(argv.to_vec()), strings(env), CString::new(found))
    else {
        return format!("exec: {program:?}: an argument or variable holds a NUL byte");
    };
    sys::close_on_exec_from_3();
    sys::reset_signals();
    let error = sys::exec(&path, &argv, &env);
    format!("exec {program}: {}", plain(&error))
}

/// Where the program is: itself when it has a slash, else the first hit in the container's `PATH`.
fn find(program: &str, env: &[(String, String)]) -> Result<String, String> {
    if program.contains('/') {
        return match std::fs::metadata(program) {
            Err(error) => Err(format!("stat {program}: {}", plain(&error))),
            Ok(data) if data.is_dir() => Err("is a directory".into()),
            Ok(_) => Ok(program.to_owned()),
        };
    }
    let path = env.iter().rev().find(|(name, _)| name == "PATH").map_or(DEFAULT_PATH, |(_, value)| value);
    for folder in path.split(':') {
        let candidate = format!("{}/{program}", if folder.is_empty() { "." } else { folder });
        if std::fs::metadata(&candidate).is_ok_and(|data| data.is_file() && executable(&data)) {
            return Ok(candidate);
        }
    }
    Err("executable file not found in $PATH".into())
}

fn executable(data: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    data.permissions().mode() & 0o111 != 0
}

/// The system's words, as other runtimes print them.
fn plain(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ENOENT) => "no such file or directory".into(),
        Some(libc::EACCES) => "permission denied".into(),
        Some(libc::ENOEXEC) => "exec format error".into(),
        _ => error.to_string(),
    }
}
