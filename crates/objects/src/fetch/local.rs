//! Files that the pod sees already: copied, so that the model's volume is complete by itself.

use std::path::{Path, PathBuf};

use super::Sink;
use crate::Error;

pub(super) async fn fetch(path: &Path, sink: &mut Sink) -> Result<(), Error> {
    let metadata = tokio::fs::metadata(path).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::NotFound(format!("file://{}", path.display())),
        _ => Error::io(path, error),
    })?;
    if metadata.is_file() {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        return copy(path, &name, metadata.len(), sink).await;
    }
    let mut folders = vec![(path.to_owned(), String::new())];
    while let Some((folder, prefix)) = folders.pop() {
        let mut entries = tokio::fs::read_dir(&folder).await.map_err(|e| Error::io(&folder, e))?;
        while let Some(entry) = entries.next_entry().await.map_err(|e| Error::io(&folder, e))? {
            let name = entry.file_name().to_string_lossy().into_owned();
            let relative = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
            let kind = entry.file_type().await.map_err(|e| Error::io(entry.path(), e))?;
            // A link out of the folder would copy what the URI does not name; ConfigMap volumes link within.
            let real = if kind.is_symlink() { real_inside(&entry.path(), path).await? } else { entry.path() };
            let metadata = tokio::fs::metadata(&real).await.map_err(|e| Error::io(&real, e))?;
            if metadata.is_dir() && !kind.is_symlink() {
                folders.push((real, relative));
            } else if metadata.is_file() {
                copy(&real, &relative, metadata.len(), sink).await?;
            }
        }
    }
    Ok(())
}

async fn real_inside(link: &Path, root: &Path) -> Result<PathBuf, Error> {
    let real = tokio::fs::canonicalize(link).await.map_err(|e| Error::io(link, e))?;
    let root = tokio::fs::canonicalize(root).await.map_err(|e| Error::io(root, e))?;
    if real.starts_with(&root) {
        return Ok(real);
    }
    let reason = format!("it is a link that leads out of {}", root.display());
    Err(Error::BadName { name: link.display().to_string(), reason })
}

async fn copy(from: &Path, relative: &str, size: u64, sink: &mut Sink) -> Result<(), Error> {
    let path = sink.prepare(relative, size).await?;
    let partial = path.with_added_extension("part");
    tokio::fs::copy(from, &partial).await.map_err(|e| Error::io(from, e))?;
    tokio::fs::rename(&partial, &path).await.map_err(|e| Error::io(&path, e))
}
