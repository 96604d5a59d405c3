//! Gzipped tar, the way Argo packs artifacts.
//!
//! Packing: the path's last name is the archive's only top-level entry. Unpacking: a single top-level entry becomes the
//! path itself, several become a folder of that name. Members that are neither files nor folders are left
//! out both ways, and none can land outside the target.

use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;

use super::inputs::beside;
use super::outputs::{Entry, Tree};

/// Unpacks `body` to `path`, replacing what an earlier attempt left.
pub fn unpack(body: Box<dyn Read>, path: &Path) -> io::Result<()> {
    let folder = beside(path);
    remove(&folder)?;
    fs::create_dir_all(&folder)?;
    let mut archive = tar::Archive::new(flate2::read::MultiGzDecoder::new(body));
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(false);
    for member in archive.entries()? {
        let mut member = member?;
        let kind = member.header().entry_type();
        if (kind.is_file() || kind.is_dir()) && !member.unpack_in(&folder)? {
            let text = format!("the archive's member {} leads out of it", member.path()?.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
    }
    let mut top = fs::read_dir(&folder)?.collect::<io::Result<Vec<_>>>()?;
    remove(path)?;
    match (top.pop(), top.is_empty()) {
        (Some(only), true) => {
            fs::rename(only.path(), path)?;
            fs::remove_dir(&folder)
        }
        _ => fs::rename(&folder, path),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Writes the tree as a gzipped tar.
pub fn pack(tree: &Tree, out: &mut dyn Write) -> io::Result<()> {
    let gzip = flate2::write::GzEncoder::new(out, flate2::Compression::default());
    let mut archive = tar::Builder::new(gzip);
    let top = tree.name();
    if tree.is_folder() {
        let mut header = header(0o755, 0);
        header.set_entry_type(tar::EntryType::Directory);
        archive.append_data(&mut header, format!("{top}/"), io::empty())?;
    }
    for entry in tree.entries() {
        let file = tree.open(entry)?;
        let name = if tree.is_folder() { format!("{top}/{}", entry.relative) } else { top.clone() };
        let mut header = header(entry.mode, entry.size);
        header.set_entry_type(tar::EntryType::Regular);
        archive.append_data(&mut header, name, exactly(file, entry))?;
    }
    archive.into_inner()?.finish()?.flush()
}

fn header(mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode & 0o777);
    header.set_size(size);
    header
}

/// The file's bytes as they were counted: one that grows meanwhile must not break the archive.
fn exactly(file: fs::File, entry: &Entry) -> impl Read {
    file.take(entry.size)
}
