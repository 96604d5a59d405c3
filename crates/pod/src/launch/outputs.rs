//! After the command: parameters read, artifacts uploaded, the log stored.
//!
//! What the step wrote is not trusted: the kernel resolves each path beneath the artifact's own folder
//! (`openat2`, `RESOLVE_BENEATH`), so a link cannot make the launcher read and upload what lies
//! elsewhere; a link that stays inside is stored as the file it leads to. Every read has a bound.

use std::fs;
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use pod_protocol::launch::{Archive, LaunchReport, LaunchSpec, OutputArtifact, UploadedArtifact};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use sha2::{Digest, Sha256};

use super::archive;
use super::http::{Body, Client};
use super::place::{self, Place};

/// Largest output parameter, in bytes.
const PARAMETER_BYTES_MAX: u64 = 256 * 1024;
/// Largest `output_metadata.json`, in bytes.
const EXECUTOR_OUTPUT_BYTES_MAX: u64 = 1024 * 1024;
/// Most files in one artifact.
const FILES_MAX: usize = 100_000;
const SHA256_HEADER: &str = "x-slipway-sha256";

/// Reads and uploads all outputs into the report. After a failed command what is missing is no error.
pub fn collect(
    spec: &LaunchSpec,
    store: Option<&Client>,
    succeeded: bool,
    report: &mut LaunchReport,
) -> Result<(), String> {
    let mut problems = Vec::new();
    for parameter in &spec.output_parameters {
        match read_text(&parameter.path, PARAMETER_BYTES_MAX) {
            Ok(Some(text)) => {
                report.parameters.insert(parameter.name.clone(), text);
            }
            Ok(None) => match &parameter.default {
                Some(default) => {
                    report.parameters.insert(parameter.name.clone(), default.clone());
                }
                None if succeeded => {
                    problems.push(format!(
                        "output parameter `{}`: {} does not exist",
                        parameter.name, parameter.path
                    ));
                }
                None => {}
            },
            Err(text) => problems.push(format!("output parameter `{}`: {text}", parameter.name)),
        }
    }
    if let Some(path) = &spec.executor_output {
        match read_json(path) {
            Ok(value) => report.executor_output = value,
            Err(text) => problems.push(format!("executor output: {text}")),
        }
    }
    for artifact in &spec.output_artifacts {
        match upload(artifact, store) {
            Ok(Some(uploaded)) => {
                report.artifacts.insert(artifact.name.clone(), uploaded);
            }
            Ok(None) if artifact.optional || !succeeded => {}
            Ok(None) => {
                problems
                    .push(format!("output artifact `{}`: {} does not exist", artifact.name, artifact.path));
            }
            Err(text) => problems.push(format!("output artifact `{}`: {text}", artifact.name)),
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
}

/// Stores the captured log at the spec's `log_uri`.
pub fn upload_log(spec: &LaunchSpec, store: Option<&Client>, log: Option<fs::File>) -> Result<(), String> {
    let (Some(uri), Some(mut log)) = (&spec.log_uri, log) else { return Ok(()) };
    let store = store.ok_or("log: SLIPWAY_ARTIFACTS_URL is not set")?;
    let place = Place::parse(uri)?;
    let size = log.seek(io::SeekFrom::End(0)).map_err(|e| format!("log: {e}"))?;
    put(store, &place, Some(size), None, &|out| {
        let mut log = log.try_clone()?;
        log.rewind()?;
        io::copy(&mut log.take(size), out).map(|_| ())
    })
}

fn read_text(path: &str, bytes_max: u64) -> Result<Option<String>, String> {
    place::check_local(path)?;
    let file = match open_regular(Path::new(path)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("{path}: {error}")),
    };
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(|e| format!("{path}: {e}"))?;
    if bytes.len() as u64 > bytes_max {
        return Err(format!("{path} is larger than {bytes_max} bytes; hand large values on as an artifact"));
    }
    String::from_utf8(bytes).map(Some).map_err(|_| format!("{path} is not UTF-8"))
}

fn read_json(path: &str) -> Result<Option<serde_json::Value>, String> {
    match read_text(path, EXECUTOR_OUTPUT_BYTES_MAX)? {
        Some(text) if !text.trim().is_empty() => {
            serde_json::from_str(&text).map(Some).map_err(|e| format!("{path}: {e}"))
        }
        _ => Ok(None),
    }
}

fn upload(artifact: &OutputArtifact, store: Option<&Client>) -> Result<Option<UploadedArtifact>, String> {
    place::check_local(&artifact.path)?;
    let place = Place::parse(&artifact.uri)?;
    let shown = |e: io::Error| format!("{}: {e}", artifact.path);
    let Some(tree) = Tree::scan(Path::new(&artifact.path)).map_err(shown)? else { return Ok(None) };
    let store = store.ok_or("SLIPWAY_ARTIFACTS_URL is not set")?;
    let mut uploaded = UploadedArtifact { uri: artifact.uri.clone(), ..UploadedArtifact::default() };
    uploaded.files = tree.entries().len() as u64;
    match artifact.archive {
        Archive::TarGz => {
            let counted = std::cell::Cell::new((0_u64, String::new()));
            put(store, &place, None, None, &|out| {
                let mut counter = Counter { out, size: 0, digest: Sha256::new() };
                archive::pack(&tree, &mut counter)?;
                counted.set((counter.size, hex(&counter.digest.finalize())));
                Ok(())
            })?;
            (uploaded.size, uploaded.sha256) = counted.take();
        }
        Archive::None => {
            for entry in tree.entries() {
                let digest = digest_of(tree.open(entry).map_err(shown)?, entry.size).map_err(shown)?;
                let target = if tree.is_folder() { place.join(&entry.relative) } else { place.clone() };
                put(store, &target, Some(entry.size), Some(&digest), &|out| {
                    io::copy(&mut tree.open(entry)?.take(entry.size), out).map(|_| ())
                })?;
                uploaded.size += entry.size;
                if !tree.is_folder() {
                    uploaded.sha256 = digest;
                }
            }
        }
    }
    Ok(Some(uploaded))
}

fn put(
    store: &Client,
    place: &Place,
    size: Option<u64>,
    sha256: Option<&str>,
    write: &dyn Fn(&mut dyn Write) -> io::Result<()>,
) -> Result<(), String> {
    let headers: Vec<(&str, &str)> = sha256.map(|digest| (SHA256_HEADER, digest)).into_iter().collect();
    let body = Body::Stream(size, write);
    store.call("PUT", &place.object_path(), &headers, &body, &mut |_| Ok(())).map_err(|error| error.text)
}

fn digest_of(file: fs::File, size: u64) -> io::Result<String> {
    let mut counter = Counter { out: &mut io::sink(), size: 0, digest: Sha256::new() };
    io::copy(&mut file.take(size), &mut counter)?;
    if counter.size != size {
        return Err(io::Error::other("the file shrank while it was read"));
    }
    Ok(hex(&counter.digest.finalize()))
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Counter<'a> {
    out: &'a mut dyn Write,
    size: u64,
    digest: Sha256,
}

impl Write for Counter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.digest.update(&bytes[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A file of a [`Tree`].
pub struct Entry {
    /// Path below the folder; the name itself for a single file.
    pub relative: String,
    pub size: u64,
    pub mode: u32,
}

/// An output as it lies on disk: one file, or the files of a folder.
pub struct Tree {
    /// The folder that every name is resolved beneath.
    root: OwnedFd,
    name: String,
    folder: bool,
    entries: Vec<Entry>,
}

impl Tree {
    /// What there is at `path`; none when nothing is.
    pub fn scan(path: &Path) -> io::Result<Option<Self>> {
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| io::Error::other("the path has no UTF-8 file name"))?.to_owned();
        let metadata = match fs::symlink_metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if metadata.is_dir() {
            let root = open_folder(path)?;
            let mut tree = Self { root, name, folder: true, entries: Vec::new() };
            tree.walk(path, PathBuf::new())?;
            tree.entries.sort_by(|a, b| a.relative.cmp(&b.relative));
            return Ok(Some(tree));
        }
        let parent = path.parent().unwrap_or(Path::new("/"));
        let mut tree =
            Self { root: open_folder(parent)?, name: name.clone(), folder: false, entries: Vec::new() };
        tree.add(name)?;
        if tree.entries.is_empty() {
            return Err(io::Error::other("is neither a file nor a folder"));
        }
        Ok(Some(tree))
    }

    /// The last name of the path.
    pub fn name(&self) -> String {
        self.name.clone()
    }

    /// Whether the output is a folder.
    pub fn is_folder(&self) -> bool {
        self.folder
    }

    /// Its files, by name.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Opens a file of the tree; a link out of it is an error.
    pub fn open(&self, entry: &Entry) -> io::Result<fs::File> {
        open_beneath(&self.root, &entry.relative)
    }

    fn walk(&mut self, base: &Path, relative: PathBuf) -> io::Result<()> {
        for item in fs::read_dir(base.join(&relative))? {
            let item = item?;
            let child = relative.join(item.file_name());
            if item.file_type()?.is_dir() {
                self.walk(base, child)?;
                continue;
            }
            let Some(text) = child.to_str().filter(|text| place::is_plain(text)) else {
                return Err(io::Error::other(format!("the name {} cannot be stored", child.display())));
            };
            self.add(text.to_owned())?;
        }
        Ok(())
    }

    /// Adds a regular file, or a link to one inside; sockets, pipes, devices and links to folders are left out.
    fn add(&mut self, relative: String) -> io::Result<()> {
        let metadata = open_beneath(&self.root, &relative)?.metadata()?;
        if metadata.is_file() {
            if self.entries.len() == FILES_MAX {
                return Err(io::Error::other(format!("has more than {FILES_MAX} files")));
            }
            self.entries.push(Entry { relative, size: metadata.len(), mode: metadata.mode() });
        }
        Ok(())
    }
}

/// Opens without following the last component when it is a link, and without waiting for a pipe's writer.
fn open_regular(path: &Path) -> io::Result<fs::File> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let file = open_beneath(&open_folder(parent)?, name)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("is not a regular file"));
    }
    Ok(file)
}

fn open_folder(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

fn open_beneath(root: &OwnedFd, relative: &str) -> io::Result<fs::File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let opened = rustix::fs::openat2(root, relative, flags, Mode::empty(), ResolveFlags::BENEATH);
    let opened = match opened {
        // Kernels before 5.6 and strict seccomp profiles: no links at all there.
        Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => {
            rustix::fs::openat(root, relative, flags | OFlags::NOFOLLOW, Mode::empty())
        }
        other => other,
    };
    match opened {
        Ok(file) => Ok(file.into()),
        Err(rustix::io::Errno::XDEV | rustix::io::Errno::LOOP) => {
            Err(io::Error::other(format!("`{relative}` is a link that leads out of the artifact's folder")))
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_followed_inside_only() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        fs::create_dir_all(out.join("a")).unwrap();
        fs::write(out.join("a/f"), "abc").unwrap();
        std::os::unix::fs::symlink("a/f", out.join("l")).unwrap();
        let tree = Tree::scan(&out).unwrap().unwrap();
        let names: Vec<_> = tree.entries().iter().map(|e| (e.relative.as_str(), e.size)).collect();
        assert_eq!(names, [("a/f", 3), ("l", 3)]);
        for target in ["/etc/hostname", "../secret"] {
            let link = out.join("out-link");
            fs::write(folder.path().join("secret"), "s").unwrap();
            std::os::unix::fs::symlink(target, &link).unwrap();
            let error = Tree::scan(&out).err().unwrap();
            assert!(error.to_string().contains("leads out"), "{error}");
            let error = Tree::scan(&link).err().unwrap();
            assert!(error.to_string().contains("leads out"), "{error}");
            fs::remove_file(link).unwrap();
        }
        assert!(Tree::scan(&folder.path().join("none")).unwrap().is_none());
    }

    #[test]
    fn an_archive_unpacks_to_what_was_packed() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        fs::create_dir_all(out.join("a")).unwrap();
        fs::write(out.join("a/f"), "abc").unwrap();
        for (source, check) in [(out.clone(), "a/f"), (out.join("a/f"), "")] {
            let mut packed = Vec::new();
            archive::pack(&Tree::scan(&source).unwrap().unwrap(), &mut packed).unwrap();
            let target = folder.path().join("target");
            archive::unpack(Box::new(io::Cursor::new(packed.clone())), &target).unwrap();
            archive::unpack(Box::new(io::Cursor::new(packed)), &target).unwrap();
            let read = if check.is_empty() { target.clone() } else { target.join(check) };
            assert_eq!(fs::read(read).unwrap(), b"abc");
        }
    }
}
