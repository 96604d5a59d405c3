//! Before the command: folders, files, artifacts.
//!
//! A file appears under its name only when it is whole, so a container that is restarted finds no half input.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use pod_protocol::launch::{Archive, InputArtifact, InputFile, LaunchSpec};
use serde::Deserialize;

use super::archive;
use super::http::{Body, Client, Response};
use super::place::{self, Place};

/// Largest listing of a folder that is taken, in bytes.
const LISTING_BYTES_MAX: u64 = 64 << 20;

/// One line of the face's listing.
#[derive(Deserialize)]
struct Line {
    key: String,
}

/// Provides all inputs of the spec, in its order: folders, files, artifacts.
pub fn provide(spec: &LaunchSpec, store: Option<&Client>) -> Result<(), String> {
    for folder in &spec.folders {
        place::check_local(folder)?;
        fs::create_dir_all(folder).map_err(|e| format!("folder {folder}: {e}"))?;
    }
    for file in &spec.files {
        place::check_local(&file.path)?;
        write_file(file).map_err(|e| format!("file {}: {e}", file.path))?;
    }
    for artifact in &spec.input_artifacts {
        fetch(artifact, store).map_err(|text| format!("input artifact `{}`: {text}", artifact.name))?;
    }
    Ok(())
}

fn write_file(file: &InputFile) -> io::Result<()> {
    let path = Path::new(&file.path);
    make_parent(path)?;
    fs::write(path, &file.text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(file.mode.unwrap_or(0o644)))
}

fn make_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

fn fetch(artifact: &InputArtifact, store: Option<&Client>) -> Result<(), String> {
    place::check_local(&artifact.path)?;
    let source = Place::parse(&artifact.uri)?;
    let store = store.ok_or("SLIPWAY_ARTIFACTS_URL is not set")?;
    let path = Path::new(&artifact.path);
    make_parent(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let found = match artifact.archive {
        Archive::None => fetch_plain(store, &source, path)?,
        Archive::TarGz => {
            download(store, &source, &mut |response| archive::unpack(response.body, path))?.is_some()
        }
    };
    if !found {
        let text = format!("{} does not exist", artifact.uri);
        return if artifact.optional { Ok(()) } else { Err(text) };
    }
    match artifact.mode {
        Some(mode) => fs::set_permissions(path, fs::Permissions::from_mode(mode))
            .map_err(|e| format!("{}: {e}", path.display())),
        None => Ok(()),
    }
}

/// An object as a file, else the objects below it as a folder; whether there was anything.
fn fetch_plain(store: &Client, source: &Place, path: &Path) -> Result<bool, String> {
    if download(store, source, &mut |response| save(response.body, path))?.is_some() {
        return Ok(true);
    }
    let mut listing = String::new();
    store
        .call("GET", &source.list_path(), &[], &Body::Empty, &mut |response| {
            listing.clear();
            response.body.take(LISTING_BYTES_MAX).read_to_string(&mut listing)
        })
        .map_err(|error| error.text)?;
    let below = format!("{}/", source.key);
    for line in listing.lines() {
        let line: Line = serde_json::from_str(line).map_err(|e| format!("listing of {below}: {e}"))?;
        let relative = line.key.strip_prefix(&below).filter(|relative| place::is_plain(relative));
        let relative = relative
            .ok_or_else(|| format!("the listing holds `{}`, which is not below `{below}`", line.key))?;
        let target = path.join(relative);
        make_parent(&target).map_err(|e| format!("{}: {e}", target.display()))?;
        // An object that went away since the listing is an error: half a folder is no input.
        download(store, &source.join(relative), &mut |response| save(response.body, &target))?
            .ok_or_else(|| format!("`{}` went away while the folder was fetched", line.key))?;
    }
    Ok(!listing.is_empty())
}

/// Hands the object to `take`; none when there is no such object.
fn download<T>(
    store: &Client,
    source: &Place,
    take: &mut dyn FnMut(Response) -> io::Result<T>,
) -> Result<Option<T>, String> {
    match store.call("GET", &source.object_path(), &[], &Body::Empty, take) {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.status == Some(404) => Ok(None),
        Err(error) => Err(error.text),
    }
}

fn save(mut body: Box<dyn Read>, path: &Path) -> io::Result<()> {
    let partial = beside(path);
    let mut file = fs::File::create(&partial)?;
    let copied = io::copy(&mut body, &mut file).and_then(|_| fs::rename(&partial, path));
    if copied.is_err() {
        let _ = fs::remove_file(&partial);
    }
    copied
}

/// A name beside `path`, on the same file system, for what is not whole yet.
pub fn beside(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.part", std::process::id()));
    path.with_file_name(name)
}
