//! Folders of small files that change as a whole: config maps, secrets, tokens, the downward API.
//!
//! The files lie in a folder named by time, `..data` points at it, and each visible name points through `..data`.
//! Renaming a new `..data` over the old one swaps all files at once, so a reader never sees half of a change.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path};

use jiff::Timestamp;

/// Content and mode by path below the volume.
pub type Files = BTreeMap<String, (Vec<u8>, u32)>;

const DATA: &str = "..data";

/// Makes the folder show exactly these files. Nothing is touched when it does already.
pub fn write(folder: &Path, files: &Files) -> io::Result<()> {
    for path in files.keys() {
        let legal = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
        if path.is_empty() || !legal || path.starts_with("..") {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("the path {path:?} leads out of the volume"),
            ));
        }
    }
    std::fs::create_dir_all(folder)?;
    let old = std::fs::read_link(folder.join(DATA)).ok();
    if old.as_ref().is_some_and(|old| is_same(&folder.join(old), files)) {
        return Ok(());
    }
    let stamp = format!("..{}", Timestamp::now().strftime("%Y_%m_%d_%H_%M_%S.%N"));
    for (path, (content, mode)) in files {
        let file = folder.join(&stamp).join(path);
        if let Some(parent) = file.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&file, content)?;
        std::fs::set_permissions(&file, PermissionsExt::from_mode(*mode))?;
    }
    std::fs::create_dir_all(folder.join(&stamp))?;
    let next = folder.join("..data_tmp");
    let _ = std::fs::remove_file(&next);
    symlink(&stamp, &next)?;
    std::fs::rename(&next, folder.join(DATA))?;
    show(folder, files)?;
    if let Some(old) = old {
        let _ = std::fs::remove_dir_all(folder.join(old));
    }
    Ok(())
}

/// The visible names: one link for each first component.
fn show(folder: &Path, files: &Files) -> io::Result<()> {
    let first = |path: &String| path.split('/').next().unwrap_or_default().to_owned();
    let wanted: std::collections::BTreeSet<String> = files.keys().map(first).collect();
    for item in std::fs::read_dir(folder)? {
        let name = item?.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") && !wanted.contains(&name) {
            std::fs::remove_file(folder.join(name))?;
        }
    }
    for name in wanted {
        let link = folder.join(&name);
        if std::fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(&name), link)?;
        }
    }
    Ok(())
}

fn is_same(current: &Path, files: &Files) -> bool {
    let all_equal = files.iter().all(|(path, (content, mode))| {
        let file = current.join(path);
        let same_mode = std::fs::metadata(&file).is_ok_and(|data| data.permissions().mode() & 0o777 == *mode);
        same_mode && std::fs::read(file).is_ok_and(|old| old == *content)
    });
    all_equal && count(current) == files.len()
}

fn count(folder: &Path) -> usize {
    let Ok(items) = std::fs::read_dir(folder) else {
        return 0;
    };
    items.flatten().map(|item| if item.path().is_dir() { count(&item.path()) } else { 1 }).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(pairs: &[(&str, &str)]) -> Files {
        pairs.iter().map(|(path, text)| ((*path).to_owned(), (text.as_bytes().to_vec(), 0o644))).collect()
    }

    #[test]
    fn a_change_swaps_all_files_at_once() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &files(&[("a", "1"), ("sub/b", "2")])).unwrap();
        assert_eq!(std::fs::read_to_string(folder.path().join("sub/b")).unwrap(), "2");
        let before = std::fs::read_link(folder.path().join(DATA)).unwrap();
        write(folder.path(), &files(&[("a", "1"), ("sub/b", "2")])).unwrap();
        assert_eq!(std::fs::read_link(folder.path().join(DATA)).unwrap(), before);
        write(folder.path(), &files(&[("c", "3")])).unwrap();
        assert_eq!(std::fs::read_to_string(folder.path().join("c")).unwrap(), "3");
        assert!(!folder.path().join("a").exists() && !folder.path().join(before).exists());
    }

    #[test]
    fn a_path_that_leads_out_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for path in ["../x", "/x", "a/../../x", "", "..data"] {
            assert!(write(folder.path(), &files(&[(path, "")])).is_err(), "{path:?}");
        }
    }
}
