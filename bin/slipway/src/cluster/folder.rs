//! The data folder: where a cluster keeps its state, and the record of the server that owns it.
//!
//! `state.json` names the server by pid **and** start time (`/proc/PID/stat`), because a pid alone may be somebody
//! else's by now. The exclusive lock on `lock` is what keeps a second server out; the record only informs.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

/// A cluster's data folder.
#[derive(Debug, Clone)]
pub struct Folder(PathBuf);

/// What `slipway status -o json` shows, kept while a server runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    /// Process id of the server.
    pub pid: u32,
    /// Its start time in clock ticks since boot.
    pub start_ticks: u64,
    /// `slipway`'s version.
    pub version: String,
    /// `loopback` or `bridge`.
    pub network: String,
    /// URLs of what answers, by part.
    pub addresses: BTreeMap<String, String>,
}

impl Folder {
    /// The folder given, or the default below the user's data home.
    pub fn resolve(given: Option<&Path>) -> Result<Self> {
        if let Some(path) = given {
            return Ok(Self(std::path::absolute(path)?));
        }
        if let Some(path) = std::env::var_os("SLIPWAY_DATA") {
            return Ok(Self(std::path::absolute(path)?));
        }
        let home = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from);
        let home =
            home.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/share")));
        let home = home.context("neither HOME nor XDG_DATA_HOME is set; name a folder with --data DIR")?;
        Ok(Self(home.join("slipway")))
    }

    /// Whether no `--data` was given: then the kubeconfig context is just `slipway`.
    pub fn is_default(&self) -> bool {
        std::env::var_os("SLIPWAY_DATA").is_none()
            && Self::resolve(None).is_ok_and(|default| default.0 == self.0)
    }

    /// Makes the folder, for its owner only.
    pub fn make(&self) -> Result<()> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0)
            .with_context(|| format!("cannot make the data folder {}", self.0.display()))
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Logs of the parts.
    pub fn logs(&self) -> PathBuf {
        self.0.join("logs")
    }

    /// The cluster's own kubeconfig, always written.
    pub fn kubeconfig(&self) -> PathBuf {
        self.0.join("kubeconfig")
    }

    /// Takes the folder for this process until the file is dropped.
    pub fn lock(&self) -> Result<File> {
        let path = self.0.join("lock");
        let file = OpenOptions::new().create(true).write(true).truncate(false).mode(0o600).open(&path)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let owner = self.state().map(|state| format!(" (pid {})", state.pid)).unwrap_or_default();
            bail!(
                "another server{owner} runs on {}; `slipway status --data {0}` shows it, `slipway down --data {0}` ends it",
                self.0.display()
            );
        }
        Ok(file)
    }

    /// Whether a server holds the folder.
    pub fn is_locked(&self) -> bool {
        let Ok(file) = File::open(self.0.join("lock")) else { return false };
        flock(&file, FlockOperation::NonBlockingLockShared).is_err()
    }

    /// The record of the last server, if any.
    pub fn state(&self) -> Option<State> {
        let text = fs::read(self.0.join("state.json")).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// The record of the server, if that very process still runs.
    pub fn running(&self) -> Option<State> {
        let state = self.state()?;
        let ticks = start_ticks(state.pid).ok()?;
        (ticks == state.start_ticks && self.is_locked()).then_some(state)
    }

    /// Writes the record of this process.
    pub fn write_state(&self, state: &State) -> Result<()> {
        write_atomically(&self.0.join("state.json"), &serde_json::to_vec_pretty(state)?, 0o600)?;
        Ok(())
    }

    /// Removes the record: the server ended in order.
    pub fn clear_state(&self) {
        // A record that stays behind does no harm: `running` compares start times.
        let _ = fs::remove_file(self.0.join("state.json"));
    }
}

/// When a process started, in clock ticks since boot: field 22 of `/proc/PID/stat`.
pub fn start_ticks(pid: u32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The command name (field 2) may hold anything but ends at the last parenthesis.
    let after_name = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    let field = after_name.split_whitespace().nth(19);
    field
        .and_then(|ticks| ticks.parse().ok())
        .ok_or_else(|| io::Error::other("no start time in /proc/PID/stat"))
}

/// Writes a file so that a reader sees the old content or the new, never a part, also after a power cut.
pub fn write_atomically(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder.join(format!(".{name}.{}", std::process::id()));
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(mode).open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, Folder) {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::resolve(Some(dir.path())).unwrap();
        (dir, folder)
    }

    #[test]
    fn a_second_server_is_kept_out_of_the_folder() {
        let (_dir, folder) = folder();
        let _first = folder.lock().unwrap();
        let refused = folder.lock().unwrap_err().to_string();
        assert!(refused.contains("another server"), "{refused}");
        assert!(folder.is_locked());
    }

    #[test]
    fn a_reused_pid_is_not_taken_for_the_server() {
        let (_dir, folder) = folder();
        let _lock = folder.lock().unwrap();
        let pid = std::process::id();
        let mut state = State {
            pid,
            start_ticks: start_ticks(pid).unwrap(),
            version: String::new(),
            network: String::new(),
            addresses: BTreeMap::new(),
        };
        folder.write_state(&state).unwrap();
        assert!(folder.running().is_some());
        state.start_ticks += 1;
        folder.write_state(&state).unwrap();
        assert!(folder.running().is_none());
    }
}
