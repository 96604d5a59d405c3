//! Node <-> shim: the pod folder and the socket protocol.
//!
//! The node decides, the shim carries out: a [`ContainerSpec`] lists every mount, file and
//! variable, so that the shim knows nothing of Kubernetes and a newer server can talk to a shim
//! that an older one started. Bulky things travel as files in the pod folder, the socket only
//! says which attempt to start; so the folder alone is enough to adopt a pod.
//!
//! The socket carries frames: a 4-byte big-endian length, then that many bytes of JSON, a
//! [`Request`] to the shim or an [`Event`] back. File descriptors for [`Request::Exec`] travel as
//! `SCM_RIGHTS` beside its frame.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Version of the socket protocol and of the files in a pod folder.
pub const VERSION: u32 = 1;
/// The largest frame either side accepts, in bytes.
pub const FRAME_BYTES_MAX: usize = 1 << 20;

/// File names inside a pod folder `DATA/pods/<uid>/`.
pub mod folder {
    /// A [`super::PodSpec`], written by the node.
    pub const POD: &str = "pod.json";
    /// A [`super::ShimRecord`], written by the shim before it serves.
    pub const SHIM: &str = "shim.json";
    /// The shim's unix socket; bound by the node, inherited by the shim as standard input.
    pub const SOCKET: &str = "shim.sock";
    /// What the shim itself has to say (nothing, when all is well).
    pub const SHIM_LOG: &str = "shim.log";
    /// An empty folder on which a container's private root is mounted.
    pub const MOUNT_POINT: &str = "mnt";
    /// One folder a container, with one folder an attempt in it.
    pub const CONTAINERS: &str = "containers";
    /// In an attempt's folder: its [`super::ContainerSpec`].
    pub const SPEC: &str = "spec.json";
    /// In an attempt's folder: made with `O_EXCL` and synced before exec; its text is a [`super::Started`].
    pub const STARTED: &str = "started";
    /// In an attempt's folder: a [`super::Exit`], synced.
    pub const EXIT: &str = "exit.json";
    /// In an attempt's folder: the log in CRI's format; `log.1` is the part rotated away.
    pub const LOG: &str = "log";

    /// The folder of one attempt, relative to the pod folder.
    pub fn attempt(container: &str, attempt: u32) -> String {
        format!("{CONTAINERS}/{container}/{attempt}")
    }
}

/// What the shim is told about the pod as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    /// [`VERSION`].
    pub version: u32,
    /// Uid of the pod.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// A network namespace to join, e.g. `/run/slipway/netns/x`; none: the host's.
    pub netns: Option<String>,
}

/// Who the shim is. A pid alone is never trusted: the start time tells a reused one.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ShimRecord {
    /// [`VERSION`].
    pub version: u32,
    /// Its process id.
    pub pid: u32,
    /// Field 22 of `/proc/PID/stat`, in clock ticks since boot.
    pub start_ticks: u64,
    /// `/proc/sys/kernel/random/boot_id`, as ticks restart with the machine.
    pub boot_id: String,
}

/// One attempt to run one container.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerSpec {
    /// [`VERSION`].
    pub version: u32,
    /// Its name in the pod.
    pub name: String,
    /// 0 for the first.
    pub attempt: u32,
    /// Program and arguments; the program is looked up in the container's own `PATH`.
    pub argv: Vec<String>,
    /// The whole environment, in order; nothing else is inherited.
    pub env: Vec<(String, String)>,
    /// Working folder, made when missing.
    pub workdir: String,
    /// Host name inside.
    pub hostname: String,
    /// Who it runs as.
    pub user: User,
    /// The root folder.
    pub root: Root,
    /// Mounts over the root, in order.
    pub mounts: Vec<Mount>,
    /// The root folder itself is read-only.
    pub read_only_root: bool,
    /// Numbers of the capabilities kept in the bounding set.
    pub capabilities: Vec<u8>,
    /// Keep a standard input open for attach.
    pub stdin: bool,
    /// Run on a pseudo terminal.
    pub tty: bool,
    /// Written to `/proc/PID/oom_score_adj` where allowed; −1000 to 1000.
    pub oom_score_adj: Option<i32>,
    /// Cgroup folders (one a hierarchy) to put the process into.
    pub cgroups: Vec<String>,
    /// Resource limits by `RLIMIT_*` number: soft and hard.
    pub rlimits: Vec<(u32, u64, u64)>,
    /// The log is rotated when it exceeds this many bytes; 0: never.
    pub log_bytes_max: u64,
}

/// Ids of the container's process, as seen inside.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Further groups; dropped when the node has no right to set them.
    pub groups: Vec<u32>,
}

/// What a container's root folder is made of.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Root {
    /// A folder that becomes the read-only lower layer of an overlay; none: an empty tmpfs.
    pub lower: Option<String>,
    /// What is put into it, in order.
    pub entries: Vec<Entry>,
}

/// One thing in a root folder. Paths are absolute inside the container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Entry {
    /// A file or folder of the host, bind-mounted read-only.
    Bind {
        /// On the host.
        source: String,
        /// Inside.
        target: String,
    },
    /// A symbolic link.
    Link {
        /// Its text.
        text: String,
        /// Inside.
        target: String,
    },
    /// A folder.
    Folder {
        /// Inside.
        target: String,
        /// Unix mode.
        mode: u32,
    },
    /// A file with this text.
    File {
        /// Inside.
        target: String,
        /// Its content.
        text: String,
        /// Unix mode.
        mode: u32,
    },
    /// A private, writable copy of a file or folder of the host.
    Copy {
        /// On the host.
        source: String,
        /// Inside.
        target: String,
    },
}

/// A mount over the root.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Mount {
    /// What the user calls it (the volume), for messages.
    pub name: String,
    /// File or folder on the host; none: a fresh tmpfs.
    pub source: Option<String>,
    /// Path below `source`; resolved so that no link leads out of it. Made as a folder when missing.
    pub sub_path: Option<String>,
    /// Absolute path inside.
    pub target: String,
    /// Not writable from inside.
    pub read_only: bool,
    /// For a tmpfs: its limit in bytes; 0: the kernel's default.
    pub size_bytes: u64,
}

/// Text of the file [`folder::STARTED`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Started {
    /// Host pid of the container's first process.
    pub pid: u32,
    /// Its start in clock ticks since boot.
    pub start_ticks: u64,
    /// RFC 3339 with nanoseconds, UTC.
    pub started_at: String,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Exit {
    /// Exit code; 128 + signal when killed by one; 128 when it could not be started.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// `OOMKilled`, `StartError` or `CreateContainerError`; none: as the code says.
    pub reason: Option<String>,
    /// Why it could not be started.
    pub message: Option<String>,
    /// RFC 3339 with nanoseconds, UTC; none: it never ran.
    pub started_at: Option<String>,
    /// RFC 3339 with nanoseconds, UTC.
    pub finished_at: String,
}

/// [`Exit::reason`]: the kernel killed it for memory.
pub const OOM_KILLED: &str = "OOMKilled";
/// [`Exit::reason`]: the program could not be executed.
pub const START_ERROR: &str = "StartError";
/// [`Exit::reason`]: the root or a mount could not be made.
pub const CREATE_ERROR: &str = "CreateContainerError";

/// To the shim.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type")]
pub enum Request {
    /// First on every control connection; answered by [`Event::Hello`], then events flow.
    Hello {
        /// The caller's [`VERSION`].
        version: u32,
    },
    /// Start an attempt whose spec is in the pod folder.
    Start {
        /// Container.
        container: String,
        /// Attempt.
        attempt: u32,
    },
    /// Signal the container's first process; kill everything in it when the time is up.
    Stop {
        /// Container.
        container: String,
        /// First signal; 15 when none.
        signal: Option<i32>,
        /// Milliseconds until the kill.
        grace_ms: u64,
    },
    /// Run a program in a running container, on a connection of its own. Three descriptors come
    /// along: standard input, output and error. With `tty` all three are one terminal.
    Exec {
        /// Container.
        container: String,
        /// Program and arguments.
        argv: Vec<String>,
        /// The descriptors are a terminal to control.
        tty: bool,
        /// Kill it when this connection closes.
        kill_on_close: bool,
    },
    /// Asks for a descriptor of the container's standard input (or terminal).
    Stdin {
        /// Container.
        container: String,
    },
    /// Stop everything, then leave.
    Shutdown {
        /// Milliseconds until the kill.
        grace_ms: u64,
    },
}

/// From the shim.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type")]
pub enum Event {
    /// Answer to [`Request::Hello`]: who the shim is and what runs now.
    Hello {
        /// The shim's [`VERSION`].
        version: u32,
        /// Who it is.
        shim: ShimRecord,
        /// Running attempts by container; ended ones are in the folder.
        running: BTreeMap<String, u32>,
    },
    /// The program was executed.
    Started {
        /// Container.
        container: String,
        /// Attempt.
        attempt: u32,
        /// When and as what.
        started: Started,
    },
    /// It ended, or could not be started; `exit.json` is written.
    Exited {
        /// Container.
        container: String,
        /// Attempt.
        attempt: u32,
        /// How.
        exit: Exit,
    },
    /// A program run by [`Request::Exec`] ended.
    ExecExited {
        /// Its code; 128 + signal.
        code: i32,
        /// Why it could not be run.
        error: Option<String>,
    },
    /// Answer to [`Request::Stdin`]; a descriptor comes along.
    Stdin,
    /// The request makes no sense now.
    Refused {
        /// Why.
        message: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_spec_still_reads() {
        let spec: ContainerSpec =
            serde_json::from_str(r#"{"version":1,"name":"a","argv":["true"]}"#).unwrap();
        assert_eq!((spec.name.as_str(), spec.attempt, spec.user.uid), ("a", 0, 0));
    }

    #[test]
    fn requests_are_tagged_by_type() {
        let text = serde_json::to_string(&Request::Start { container: "main".into(), attempt: 2 }).unwrap();
        assert_eq!(text, r#"{"type":"start","container":"main","attempt":2}"#);
    }
}
