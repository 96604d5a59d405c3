//! Which versions a model's folder holds.
//!
//! A folder whose only content is folders named by numbers holds versions, as TensorFlow Serving and Triton lay them
//! out (documents that describe the model may lie beside them). Anything else is one model, which then is version 1.
//! Each find carries a mark of its files, so that a change is seen without reading them.
//!
//! Not here: what is done about a find (`repository`).

use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::VersionPolicy;

/// Documents that may lie beside folders of versions.
const BESIDE: [&str; 6] = [
    "config.pbtxt",
    "model-settings.json",
    "README.md",
    "labels.txt",
    "batching_params.pbtxt",
    "slipway.json",
];
/// Files of a model that its mark covers, at most, and folders within folders.
const FILES_MAX: usize = 10_000;
const DEPTH_MAX: usize = 8;

/// One version on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its number, where the folder has versions.
    pub version: Option<u64>,
    /// Its folder, or its file.
    pub path: PathBuf,
}

impl Found {
    /// A number that changes when one of the files does: their names, sizes, times and identities.
    pub fn mark(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let mut left = FILES_MAX;
        mark(&self.path, 0, &mut left, &mut hasher);
        hasher.finish()
    }
}

/// The versions at `path` that the policy chooses, ascending. No version is no error: one may come.
pub fn scan(path: &Path, policy: &VersionPolicy) -> std::io::Result<Vec<Found>> {
    let Some(mut versions) = versions(path)? else {
        return Ok(vec![Found { version: None, path: path.to_owned() }]);
    };
    versions.sort_by_key(|(version, _)| *version);
    // `1` and `001` are one version; which folder it is does not matter, but it must stay the same.
    versions.dedup_by_key(|(version, _)| *version);
    let chosen = choose(&versions.iter().map(|(version, _)| *version).collect::<Vec<u64>>(), policy);
    versions.retain(|(version, _)| chosen.contains(version));
    Ok(versions.into_iter().map(|(version, path)| Found { version: Some(version), path }).collect())
}

/// Of versions in ascending order, those that the policy chooses.
fn choose(versions: &[u64], policy: &VersionPolicy) -> Vec<u64> {
    match policy {
        VersionPolicy::All => versions.to_vec(),
        VersionPolicy::Latest(count) => versions[versions.len().saturating_sub(*count as usize)..].to_vec(),
        VersionPolicy::Specific(wanted) => {
            versions.iter().copied().filter(|version| wanted.contains(version)).collect()
        }
    }
}

/// The folders of versions, or `None` where the folder is a model itself. A path that leads nowhere holds no version.
fn versions(path: &Path) -> std::io::Result<Option<Vec<(u64, PathBuf)>>> {
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => return Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Some(Vec::new())),
        Err(error) => return Err(error),
    };
    let mut versions = Vec::new();
    let mut is_empty = true;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with('.') {
            continue;
        }
        is_empty = false;
        let is_folder = std::fs::metadata(entry.path()).is_ok_and(|metadata| metadata.is_dir());
        match (is_folder, number(&name)) {
            (true, Some(version)) => versions.push((version, entry.path())),
            // TensorFlow Serving passes over folders with other names: temporary ones, before they are renamed.
            (true, None) => {}
            (false, _) if BESIDE.contains(&&*name) => {}
            (false, _) => return Ok(None),
        }
    }
    // A folder of nothing but folders with words for names may be a model too (MLflow's, a SavedModel's assets).
    Ok((!versions.is_empty() || is_empty).then_some(versions))
}

fn number(name: &str) -> Option<u64> {
    name.bytes().all(|byte| byte.is_ascii_digit()).then(|| name.parse().ok()).flatten()
}

fn mark(path: &Path, depth: usize, left: &mut usize, hasher: &mut DefaultHasher) {
    let Ok(metadata) = std::fs::metadata(path) else { return };
    if *left == 0 {
        return;
    }
    *left -= 1;
    path.hash(hasher);
    if !metadata.is_dir() {
        (metadata.len(), metadata.ino(), metadata.mtime(), metadata.mtime_nsec()).hash(hasher);
        return;
    }
    let Ok(entries) = std::fs::read_dir(path) else { return };
    if depth == DEPTH_MAX {
        return;
    }
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        // Kubernetes' config maps are links into `..data`, which is followed once, by the links.
        if !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("..")) {
            mark(&path, depth + 1, left, hasher);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for file in files {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            std::fs::write(path, file).expect("written");
        }
        folder
    }

    #[test]
    fn policies_choose_among_the_versions_of_a_folder() {
        let versions = ["1/m.pkl", "002/m.pkl", "10/m.pkl", "tmp-11/m.pkl", "config.pbtxt", ".hidden"];
        type Case<'a> = (&'a [&'a str], VersionPolicy, &'a [Option<u64>]);
        let cases: [Case<'_>; 9] = [
            (&versions, VersionPolicy::Latest(1), &[Some(10)]),
            (&versions, VersionPolicy::Latest(2), &[Some(2), Some(10)]),
            (&versions, VersionPolicy::Latest(9), &[Some(1), Some(2), Some(10)]),
            (&versions, VersionPolicy::All, &[Some(1), Some(2), Some(10)]),
            (&versions, VersionPolicy::Specific(vec![2, 3]), &[Some(2)]),
            (&["m.pkl"], VersionPolicy::Latest(1), &[None]),
            (&["m.pkl", "1/other"], VersionPolicy::All, &[None]),
            (&["MLmodel", "data/m.pkl"], VersionPolicy::All, &[None]),
            (&[], VersionPolicy::All, &[]),
        ];
        for (files, policy, want) in cases {
            let folder = folder(files);
            let found = scan(folder.path(), &policy).expect("a scan");
            let found: Vec<Option<u64>> = found.iter().map(|found| found.version).collect();
            assert_eq!(found, want, "{files:?} {policy:?}");
        }
        assert_eq!(scan(Path::new("/no/such/folder"), &VersionPolicy::All).expect("a scan"), []);
    }

    #[test]
    fn a_mark_changes_with_the_files_and_only_then() {
        let folder = folder(&["a/b.pkl"]);
        let found = Found { version: None, path: folder.path().to_owned() };
        let before = found.mark();
        assert_eq!(found.mark(), before);
        std::fs::write(folder.path().join("a/b.pkl"), "longer than before").expect("written");
        let changed = found.mark();
        assert_ne!(changed, before);
        std::fs::write(folder.path().join("a/c"), "").expect("written");
        assert_ne!(found.mark(), changed);
    }
}
