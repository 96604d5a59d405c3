//! The files of pods under the data folder, from the node's side.
//!
//! `DATA/pods/<uid>/` holds all that is needed to adopt a pod; `pod_protocol::shim::folder` names its files.

use std::fs::File;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use pod_protocol::shim::{Exit, ShimRecord, Started, folder};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// One pod's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodFolder {
    path: PathBuf,
}

/// What a pod folder says of a container's last attempts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attempts {
    /// The highest attempt that was started, and what it left.
    pub last: Option<(u32, Started, Option<Exit>)>,
    /// How the one before ended.
    pub previous: Option<Exit>,
}

impl PodFolder {
    /// The folder of a pod, whether it exists or not.
    pub fn new(data_dir: &Path, uid: &str) -> Self {
        Self { path: data_dir.join("pods").join(uid) }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes it, for the owner's eyes only.
    pub fn create(&self) -> io::Result<()> {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(&self.path)?;
        builder.create(self.path.join(folder::MOUNT_POINT))
    }

    /// Removes it with all in it.
    pub fn remove(&self) -> io::Result<()> {
        match std::fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// The folder of one attempt.
    pub fn attempt(&self, container: &str, attempt: u32) -> PathBuf {
        self.path.join(folder::attempt(container, attempt))
    }

    /// Who the shim is, when there was one.
    pub fn shim(&self) -> Option<ShimRecord> {
        read(&self.path.join(folder::SHIM)).ok()
    }

    /// The attempts of a container that left something, lowest first.
    pub fn attempt_numbers(&self, container: &str) -> Vec<u32> {
        let Ok(items) = std::fs::read_dir(self.path.join(folder::CONTAINERS).join(container)) else {
            return Vec::new();
        };
        let mut numbers: Vec<u32> =
            items.flatten().filter_map(|item| item.file_name().to_str()?.parse().ok()).collect();
        numbers.sort_unstable();
        numbers
    }

    /// What the last two attempts left.
    pub fn attempts(&self, container: &str) -> Attempts {
        let mut attempts = Attempts::default();
        for number in self.attempt_numbers(container) {
            let folder = self.attempt(container, number);
            // An attempt without `started` never ran anything; it will be made again.
            if !folder.join(folder::STARTED).exists() {
                continue;
            }
            let started = read(&folder.join(folder::STARTED)).unwrap_or_default();
            let exit = read(&folder.join(folder::EXIT)).ok();
            let before = attempts.last.replace((number, started, exit));
            attempts.previous = before.and_then(|(_, _, exit)| exit);
        }
        attempts
    }

    /// The containers that started and did not end, as far as the folder knows.
    pub fn running(&self) -> Vec<Started> {
        let Ok(items) = std::fs::read_dir(self.path.join(folder::CONTAINERS)) else {
            return Vec::new();
        };
        let names = items.flatten().filter_map(|item| item.file_name().into_string().ok());
        let last = names.filter_map(|name| self.attempts(&name).last);
        last.filter(|(_, _, exit)| exit.is_none()).map(|(_, started, _)| started).collect()
    }

    /// Forgets all attempts but the given one and the one before it.
    pub fn prune(&self, container: &str, current: u32) {
        for number in self.attempt_numbers(container) {
            if number + 1 < current {
                let _ = std::fs::remove_dir_all(self.attempt(container, number));
            }
        }
    }
}

/// Every pod folder of a data folder, by uid.
pub fn all(data_dir: &Path) -> Vec<(String, PodFolder)> {
    let Ok(items) = std::fs::read_dir(data_dir.join("pods")) else {
        return Vec::new();
    };
    let uid = |item: std::fs::DirEntry| item.file_name().into_string().ok();
    items.flatten().filter_map(uid).map(|uid| (uid.clone(), PodFolder::new(data_dir, &uid))).collect()
}

/// Reads a JSON record.
pub fn read<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    Ok(serde_json::from_slice(&std::fs::read(path)?)?)
}

/// The first bytes of a file as text.
pub fn read_bounded(path: &Path, bytes_max: usize) -> io::Result<String> {
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(File::open(path)?, bytes_max as u64), &mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Writes a JSON record so that a reader sees all of it or none. Not synced: what must survive a power cut is the
/// shim's `started` and `exit.json`.
pub fn write<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    write_text(path, &serde_json::to_vec(value)?)
}

/// Writes bytes so that a reader sees all of them or none.
pub fn write_text(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut partial = path.to_path_buf().into_os_string();
    partial.push(".partial");
    std::fs::write(&partial, text)?;
    std::fs::rename(&partial, path)
}

/// The `pod` binary as a file, written when it is not there yet.
pub fn pod_binary(data_dir: &Path) -> io::Result<PathBuf> {
    let folder = data_dir.join("bin");
    std::fs::create_dir_all(&folder)?;
    let path = folder.join(format!("pod-{}", pod_image::fingerprint()));
    let whole = std::fs::metadata(&path).is_ok_and(|data| data.len() == pod_image::len());
    if !whole {
        let partial = path.with_extension(format!("partial-{}", std::process::id()));
        let mut file = File::create(&partial)?;
        pod_image::unpack(&mut file)?;
        file.set_permissions(PermissionsExt::from_mode(0o755))?;
        file.sync_all()?;
        drop(file);
        std::fs::rename(&partial, &path)?;
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_read_back_from_the_folder() {
        let data = tempfile::tempdir().unwrap();
        let pod = PodFolder::new(data.path(), "u1");
        pod.create().unwrap();
        assert_eq!(pod.attempts("main"), Attempts::default());
        for (number, code) in [(0, Some(1)), (1, Some(2)), (2, None), (10, None)] {
            let folder = pod.attempt("main", number);
            std::fs::create_dir_all(&folder).unwrap();
            if number < 10 {
                write(&folder.join(folder::STARTED), &Started { pid: number, ..Started::default() }).unwrap();
            }
            if let Some(code) = code {
                write(&folder.join(folder::EXIT), &Exit { code, ..Exit::default() }).unwrap();
            }
        }
        let attempts = pod.attempts("main");
        assert_eq!(attempts.last.map(|(number, _, exit)| (number, exit)), Some((2, None)));
        assert_eq!(attempts.previous.map(|exit| exit.code), Some(2));
        pod.prune("main", 2);
        assert_eq!(pod.attempt_numbers("main"), [1, 2, 10]);
        assert_eq!(all(data.path()).len(), 1);
    }
}
