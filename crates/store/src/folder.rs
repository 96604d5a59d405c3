//! The `VERSION` file of a data folder.
//!
//! It holds one number, the format of everything in the folder. It exists from the first day so that an older binary
//! can refuse a newer folder instead of misreading it.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use crate::Error;

/// The newest folder format that this binary reads and the one it writes.
pub(crate) const FORMAT: u32 = 1;

/// Makes the folder if needed and checks or writes its `VERSION`.
pub(crate) fn prepare(dir: &Path) -> Result<(), Error> {
    fs::create_dir_all(dir).map_err(Error::file("create", dir))?;
    let path = dir.join("VERSION");
    match fs::read_to_string(&path) {
        Ok(text) => check(&path, &text),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => write(dir, &path),
        Err(e) => Err(Error::file("read", &path)(e)),
    }
}

fn check(path: &Path, text: &str) -> Result<(), Error> {
    let found: u32 = text.trim().parse().map_err(|_| Error::Corrupt {
        what: path.display().to_string(),
        detail: format!("it says {:?} instead of a number", text.trim()),
    })?;
    if found > FORMAT {
        return Err(Error::Newer { path: path.to_owned(), found, known: FORMAT });
    }
    Ok(())
}

/// Write, sync, rename, sync the folder: after a power cut there is the whole file or none.
fn write(dir: &Path, path: &Path) -> Result<(), Error> {
    let draft = dir.join("VERSION.new");
    let mut file = File::create(&draft).map_err(Error::file("create", &draft))?;
    writeln!(file, "{FORMAT}").and_then(|()| file.sync_all()).map_err(Error::file("write", &draft))?;
    fs::rename(&draft, path).map_err(Error::file("rename", &draft))?;
    sync(dir)
}

/// Makes new names in the folder durable.
pub(crate) fn sync(dir: &Path) -> Result<(), Error> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(Error::file("sync", dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_binary_refuses_a_newer_folder() {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path()).unwrap();
        prepare(dir.path()).unwrap();
        fs::write(dir.path().join("VERSION"), "2\n").unwrap();
        let refused = prepare(dir.path()).unwrap_err();
        assert!(matches!(refused, Error::Newer { found: 2, known: 1, .. }));
        assert!(refused.to_string().contains("newer binary"));
        fs::write(dir.path().join("VERSION"), "x").unwrap();
        assert!(matches!(prepare(dir.path()), Err(Error::Corrupt { .. })));
    }
}
