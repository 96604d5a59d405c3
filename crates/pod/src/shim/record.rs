//! The files that outlive everything: JSON in the pod folder.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Whether a file must be on disk before its writer goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// It must.
    Yes,
    /// It may be lost with the machine.
    No,
}

/// Reads a record.
pub fn read<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    let text = std::fs::read(path).map_err(|error| at(path, &error))?;
    serde_json::from_slice(&text).map_err(|error| at(path, &error.into()))
}

/// Writes a record so that a reader sees all of it or none.
pub fn write<T: Serialize>(path: &Path, value: &T, sync: Sync) -> io::Result<()> {
    let partial = path.with_extension("partial");
    let mut file = File::create(&partial)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    if sync == Sync::Yes {
        file.sync_all()?;
    }
    std::fs::rename(&partial, path)
}

/// Writes a record that must not exist yet, and syncs it: the guard against running an attempt twice.
pub fn create<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    file.sync_all()
}

/// Field 22 of `/proc/PID/stat`: when the process started, in clock ticks since boot.
pub fn start_ticks(pid: u32) -> io::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the program's name in brackets and may hold anything, brackets and blanks too.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let field = after_name.split_ascii_whitespace().nth(19);
    field
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat is odd")))
}

/// The error with the path it is about.
pub fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
