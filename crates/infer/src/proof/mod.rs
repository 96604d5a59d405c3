//! What a version must show before it answers.
//!
//! * `digest`: its files are those that were meant, where somebody said which.
//! * `golden`: it answers stored requests as stored, where some lie with it.
//! * `warm`: it answers the requests that warm it up, where there are any, so that no client meets cold caches.
//!
//! What fails here fails the load, with the reason, and the version before goes on answering. Requests run through
//! the very code that reads and writes a client's (`request`), so that what was shown is what clients will see.
//!
//! Not here: when versions are read (`repository`), the formats of requests (`codecs`).

mod digest;
mod golden;
mod record;
mod request;
mod warm;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

pub(crate) use digest::{Digests, checked, checked_md5};

use crate::config::Warmup;
use crate::served::Served;

/// Bytes of a document or a file of requests, at most.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// What is asked of a version besides what lies in its folder.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wishes {
    /// The SHA-256 of its file, as lower-case hexadecimal digits.
    pub(crate) sha256: Option<String>,
    /// The MD5 of files, by path in the model's folder.
    pub(crate) md5: BTreeMap<String, String>,
    /// Requests that the model's configuration describes.
    pub(crate) warmups: Vec<Warmup>,
    /// How often each stored request warms a version up; 0 is not at all.
    pub(crate) iterations: u32,
}

/// Holds a version against its golden rows and warms it up. `folder` is the version's, `model` that of its model.
/// Blocks. The error is a text for people.
pub(crate) fn prove(served: &Served, folder: &Path, model: &Path, wishes: &Wishes) -> Result<(), String> {
    golden::hold(served, folder)?;
    if wishes.iterations == 0 {
        return Ok(());
    }
    let start = Instant::now();
    let count = warm::up(served, folder, model, wishes)?;
    if count > 0 {
        tracing::info!(model = ?served, requests = count, time = ?start.elapsed(), "warmed up");
    }
    Ok(())
}

/// Reads a text as each of the documents that may lie in a folder.
#[cfg(any(test, feature = "testkit"))]
pub(crate) fn read_documents(text: &[u8]) {
    let _ = warm::document(text);
    let _ = golden::Document::read(text);
    let _ = Digests::default().document(text);
}

/// Reads a file as stored warm-up requests, and what would be one of its records.
#[cfg(any(test, feature = "testkit"))]
pub(crate) fn read_records(file: &[u8]) {
    let _ = warm::records(file);
    let _ = warm::log(file, &mut Vec::new());
}

/// A file's bytes; `None` where there is none. The path of a file in a "folder" that is a file itself is none.
fn read(path: &Path) -> Result<Option<Vec<u8>>, String> {
    use std::io::{ErrorKind, Read};
    let failed = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("{} is larger than {FILE_BYTES_MAX} bytes", path.display()));
    }
    Ok(Some(bytes))
}
