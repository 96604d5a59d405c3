//! Explicit image entries: `slipway images add`, kept in `DATA/images/images.json`.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::name;

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Entry {
    /// The image's name; a `*` at the end matches any rest.
    pub name: String,
    /// What it is made of.
    pub from: From,
    /// Files and folders copied into each container's own root.
    pub copy: Vec<Copy>,
    /// Variables, in order.
    pub env: Vec<(String, String)>,
    /// Folders put in front of `PATH`.
    pub path_prepend: Vec<String>,
    /// Working folder.
    pub workdir: Option<String>,
    /// `uid`, `uid:gid` or a name.
    pub user: Option<String>,
    /// What `command` replaces.
    pub entrypoint: Option<Vec<String>>,
}

/// What an image is made of.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum From {
    /// The stand-in root.
    #[default]
    Host,
    /// A folder that holds a root file system.
    Folder(PathBuf),
}

/// A file or folder to copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copy {
    /// On the host.
    pub src: PathBuf,
    /// Absolute path inside.
    pub dest: String,
}

/// Why an entry is refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not a name or pattern.
    #[error("\"{name}\" is not an image name")]
    Name {
        /// As given.
        name: String,
    },
    /// `--copy`.
    #[error("--copy {src}:{dest}: {reason}")]
    Copy {
        /// On the host.
        src: String,
        /// Inside.
        dest: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// The file cannot be read or written.
    #[error("cannot update \"{path}\"")]
    Io {
        /// `images.json`.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// Adds an entry, in place of one of the same name.
pub fn add(data_dir: &Path, entry: Entry) -> Result<(), Error> {
    let bare = entry.name.strip_suffix('*').unwrap_or(&entry.name);
    if name::normalise(bare).is_none() {
        return Err(Error::Name { name: entry.name });
    }
    for copy in &entry.copy {
        let bad =
            |reason| Error::Copy { src: copy.src.display().to_string(), dest: copy.dest.clone(), reason };
        if !copy.src.is_absolute() || !copy.src.exists() {
            return Err(bad("the source must be an absolute path that exists"));
        }
        if !copy.dest.starts_with('/') || copy.dest.split('/').any(|part| part == "..") {
            return Err(bad("the destination must be an absolute path without \"..\""));
        }
    }
    let mut entries = list(data_dir);
    entries.retain(|other| other.name != entry.name);
    entries.push(entry);
    write(data_dir, &entries)
}

/// Removes an entry; `false`: there was none.
pub fn remove(data_dir: &Path, name: &str) -> Result<bool, Error> {
    let mut entries = list(data_dir);
    let before = entries.len();
    entries.retain(|entry| entry.name != name);
    write(data_dir, &entries)?;
    Ok(entries.len() < before)
}

/// All entries, oldest first.
pub fn list(data_dir: &Path) -> Vec<Entry> {
    crate::folder::read(&path(data_dir)).unwrap_or_default()
}

/// The entry for a normalised name: an exact one before a pattern, a later one before an earlier.
pub fn find(data_dir: &Path, full: &str) -> Option<Entry> {
    let mut found: Vec<Entry> =
        list(data_dir).into_iter().filter(|entry| name::matches(&entry.name, full)).collect();
    let exact = found.iter().rposition(|entry| !entry.name.ends_with('*'));
    match exact {
        Some(index) => Some(found.swap_remove(index)),
        None => found.pop(),
    }
}

fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("images/images.json")
}

fn write(data_dir: &Path, entries: &[Entry]) -> Result<(), Error> {
    let path = path(data_dir);
    let result =
        std::fs::create_dir_all(data_dir.join("images")).and_then(|()| crate::folder::write(&path, &entries));
    result.map_err(|source| Error::Io { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exact_entry_goes_before_a_pattern() {
        let data = tempfile::tempdir().unwrap();
        for (name, workdir) in [("a/b:1", "/exact"), ("a/b*", "/pattern")] {
            let entry = Entry { name: name.into(), workdir: Some(workdir.into()), ..Entry::default() };
            add(data.path(), entry).unwrap();
        }
        let workdir = |full: &str| find(data.path(), full).and_then(|entry| entry.workdir);
        assert_eq!(workdir("a/b:1").as_deref(), Some("/exact"));
        assert_eq!(workdir("a/b:2").as_deref(), Some("/pattern"));
        assert!(remove(data.path(), "a/b*").unwrap());
        assert_eq!(workdir("a/b:2"), None);
    }

    #[test]
    fn a_copy_that_leads_out_is_refused() {
        let data = tempfile::tempdir().unwrap();
        for (src, dest) in
            [("/etc/hosts", "/a/../b"), ("/etc/hosts", "relative"), ("/nonexistent-file", "/a")]
        {
            let copy = vec![Copy { src: src.into(), dest: dest.into() }];
            let entry = Entry { name: "a".into(), copy, ..Entry::default() };
            assert!(add(data.path(), entry).is_err(), "{src}:{dest}");
        }
    }
}
