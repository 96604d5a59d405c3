//! `https://` and `http://`: one file, or a tar archive that is unpacked as KServe does.

use std::io::Read;
use std::path::Path;

use super::{Context, Sink};
use crate::Error;

pub(super) async fn fetch(context: &Context<'_>, url: &str, sink: &mut Sink) -> Result<(), Error> {
    let path = url.split(['?', '#']).next().unwrap_or(url);
    let name = path.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or("model").to_owned();
    if name.ends_with(".zip") {
        return Err(Error::NotYet { uri: url.to_owned(), what: "unpacking a zip from the web" });
    }
    // No token: the address is the user's, not ours.
    let response = context.send(url, context.http.get(url)).await?;
    sink.save(&name, url, response).await?;
    let gzipped = name.ends_with(".tgz") || name.ends_with(".tar.gz");
    if !gzipped && !name.ends_with(".tar") {
        return Ok(());
    }
    let dest = sink.dest.clone();
    let (files, bytes) = tokio::task::spawn_blocking(move || unpack(&dest, &name, gzipped))
        .await
        .expect("unpacking does not panic")?;
    sink.files = files;
    sink.bytes = bytes;
    Ok(())
}

/// Unpacks and removes the archive. `tar` refuses to write outside `dest`; links are not taken at all.
fn unpack(dest: &Path, name: &str, gzipped: bool) -> Result<(u64, u64), Error> {
    let archive_path = dest.join(name);
    let io = |e| Error::io(&archive_path, e);
    let file = std::io::BufReader::new(std::fs::File::open(&archive_path).map_err(io)?);
    let reader: Box<dyn Read> =
        if gzipped { Box::new(flate2::read::MultiGzDecoder::new(file)) } else { Box::new(file) };
    let mut archive = tar::Archive::new(reader);
    let (mut files, mut bytes) = (0, 0);
    for entry in archive.entries().map_err(io)? {
        let mut entry = entry.map_err(io)?;
        let kind = entry.header().entry_type();
        if !kind.is_file() && !kind.is_dir() {
            continue;
        }
        files += u64::from(kind.is_file());
        bytes += entry.size();
        if files > super::FILES_MAX || bytes > super::BYTES_MAX {
            return Err(Error::TooLarge { name: name.to_owned(), bytes_max: super::BYTES_MAX });
        }
        if !entry.unpack_in(dest).map_err(io)? {
            let name = entry.path().map(|path| path.display().to_string()).unwrap_or_default();
            return Err(Error::BadName {
                name,
                reason: "the archive's member leads out of the folder".to_owned(),
            });
        }
    }
    std::fs::remove_file(&archive_path).map_err(io)?;
    Ok((files, bytes))
}
