//! The host's Python, for images that promise one.
//!
//! Found by asking an interpreter where it lives: a path is not enough, because it may be a version manager's script,
//! a link, or part of a virtual environment that needs a second folder.

use std::path::{Path, PathBuf};
use std::time::Duration;

use pod_protocol::shim::Entry;
use serde::Deserialize;

/// An interpreter that takes longer to say where it is, is not used.
const ANSWER_MAX: Duration = Duration::from_secs(20);
const QUESTION: &str = "import json,sys,platform;print(json.dumps(dict(executable=sys.executable,prefix=sys.prefix,\
                        base_prefix=sys.base_prefix,version=platform.python_version())))";
/// Holds `python` for hosts that only have `python3`.
const ALIASES: &str = "/run/slipway/bin";

/// A Python installation of the host.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Python {
    /// The interpreter.
    pub executable: PathBuf,
    /// Its installation or virtual environment.
    pub prefix: PathBuf,
    /// The installation under a virtual environment; otherwise the same.
    pub base_prefix: PathBuf,
    /// E.g. `3.11.7`.
    pub version: String,
}

/// The configured interpreter, or the first one on `PATH` that answers and may be shown to containers.
pub async fn find(configured: Option<PathBuf>, data_dir: &Path) -> Option<Python> {
    let candidates: Vec<PathBuf> = match configured {
        Some(path) => vec![path],
        None => {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let mut all: Vec<PathBuf> =
                std::env::split_paths(&path).map(|folder| folder.join("python3")).collect();
            all.push("/usr/bin/python3".into());
            all
        }
    };
    let home = std::env::var_os("HOME").map(PathBuf::from);
    for candidate in candidates {
        if !candidate.is_file() {
            continue;
        }
        let mut command = tokio::process::Command::new(&candidate);
        command.args(["-I", "-c", QUESTION]).kill_on_drop(true).current_dir("/");
        let Ok(Ok(output)) = tokio::time::timeout(ANSWER_MAX, command.output()).await else {
            continue;
        };
        let Ok(python) = serde_json::from_slice::<Python>(&output.stdout) else {
            continue;
        };
        let private: Vec<&Path> = home.iter().map(PathBuf::as_path).chain([data_dir]).collect();
        if python.extra_folders().iter().all(|folder| may_be_shown(folder, &private)) {
            return Some(python);
        }
        tracing::warn!(prefix = %python.prefix.display(), "this Python holds private folders and is not used");
    }
    None
}

/// The folder's path, when it may be bound into a container.
pub fn shown(folder: &Path, data_dir: &Path) -> Option<String> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let private: Vec<&Path> = home.iter().map(PathBuf::as_path).chain([data_dir]).collect();
    may_be_shown(folder, &private).then(|| folder.to_string_lossy().into_owned())
}

/// A folder that is, or contains, a private one must not be bound into a container.
fn may_be_shown(folder: &Path, private: &[&Path]) -> bool {
    folder.is_absolute() && folder != Path::new("/") && !private.iter().any(|path| path.starts_with(folder))
}

impl Python {
    /// Its folders that are not part of the system folders.
    fn extra_folders(&self) -> Vec<&Path> {
        let mut folders = vec![self.base_prefix.as_path()];
        if self.prefix != self.base_prefix {
            folders.push(&self.prefix);
        }
        folders.retain(|folder| !folder.starts_with("/usr"));
        folders
    }

    /// What goes into a root: its folders at their own paths, and a `python` where there is none.
    pub fn entries(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        for folder in self.extra_folders() {
            let path = folder.to_string_lossy().into_owned();
            entries.push(Entry::Bind { source: path.clone(), target: path });
        }
        entries.push(Entry::Folder { target: ALIASES.into(), mode: 0o755 });
        for alias in ["python", "python3"] {
            if !self.bin().join(alias).exists() {
                let text = self.executable.to_string_lossy().into_owned();
                entries.push(Entry::Link { text, target: format!("{ALIASES}/{alias}") });
            }
        }
        entries
    }

    /// What goes in front of `PATH`.
    pub fn path(&self) -> String {
        format!("{}:{ALIASES}", self.bin().display())
    }

    fn bin(&self) -> PathBuf {
        self.prefix.join("bin")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_that_holds_private_folders_is_refused() {
        let private = [Path::new("/home/u"), Path::new("/srv/data")];
        let cases = [
            ("/home/u/.venv", true),
            ("/home/u", false),
            ("/home", false),
            ("/", false),
            ("/srv", false),
            ("/opt/py", true),
        ];
        for (folder, want) in cases {
            assert_eq!(may_be_shown(Path::new(folder), &private), want, "{folder}");
        }
    }

    #[test]
    fn a_virtual_environment_brings_its_base() {
        let python = Python {
            executable: "/w/venv/bin/python3".into(),
            prefix: "/w/venv".into(),
            base_prefix: "/opt/python".into(),
            version: "3.12.1".into(),
        };
        assert_eq!(python.extra_folders(), [Path::new("/opt/python"), Path::new("/w/venv")]);
        assert!(python.path().starts_with("/w/venv/bin:"));
    }
}
