//! Where the platform's words go: one log file a part, and the terminal for what a person should see.
//!
//! A part is the crate that speaks (`apiserver`, `node`, `workflows`, …): the first segment of the event's target. So
//! `kubectl logs -n kubeflow <part>` shows what that part said, although all of them live in one process.
//! Files are cut over to `<part>.log.1` at [`LOG_BYTES_MAX`]. Not here: the logs of pods, which their shims write.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tracing_subscriber::{EnvFilter, Layer, fmt::MakeWriter, layer::SubscriberExt, util::SubscriberInitExt};

/// Bytes after which a part's log file is cut over; two such files are kept.
pub const LOG_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// The part for events of libraries and of the wiring itself.
pub const OTHER_PART: &str = "slipway";

/// Starts logging: everything at `info` (or as `SLIPWAY_LOG` says) to `<folder>/<part>.log`, warnings to the terminal too.
///
/// # Errors
/// When the folder cannot be made, or logging was started before.
pub fn start(folder: &Path, parts: &[&'static str], terminal: bool) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let filter = || {
        EnvFilter::try_from_env("SLIPWAY_LOG").unwrap_or_else(|_| EnvFilter::new("info,hyper=warn,sqlx=warn"))
    };
    let files = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_writer(PartLogs::new(folder, parts))
        .with_filter(filter());
    let to_terminal = terminal.then(|| {
        tracing_subscriber::fmt::layer()
            .without_time()
            .with_writer(io::stderr)
            .with_filter(EnvFilter::new("warn"))
    });
    tracing_subscriber::registry().with(files).with(to_terminal).try_init().map_err(io::Error::other)
}

/// The log file of a part below the log folder.
pub fn part_log(folder: &Path, part: &str) -> PathBuf {
    folder.join(format!("{part}.log"))
}

/// Chooses the file by the event's target.
struct PartLogs {
    files: HashMap<&'static str, Arc<Mutex<PartFile>>>,
    other: Arc<Mutex<PartFile>>,
}

impl PartLogs {
    fn new(folder: &Path, parts: &[&'static str]) -> Self {
        let open = |part: &str| Arc::new(Mutex::new(PartFile::new(part_log(folder, part))));
        Self { files: parts.iter().map(|part| (*part, open(part))).collect(), other: open(OTHER_PART) }
    }

    fn of_target(&self, target: &str) -> &Arc<Mutex<PartFile>> {
        let part = target.split("::").next().unwrap_or(target);
        self.files.get(part).unwrap_or(&self.other)
    }
}

impl<'a> MakeWriter<'a> for PartLogs {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(self.other.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn make_writer_for(&'a self, meta: &tracing::Metadata<'_>) -> Line<'a> {
        Line(self.of_target(meta.target()).lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One event being written.
struct Line<'a>(MutexGuard<'a, PartFile>);

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A log file that is opened at its first line and cut over at its bound.
struct PartFile {
    path: PathBuf,
    open: Option<(File, u64)>,
}

impl PartFile {
    fn new(path: PathBuf) -> Self {
        Self { path, open: None }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.open.as_ref().is_some_and(|(_, size)| *size >= LOG_BYTES_MAX) {
            self.open = None;
            fs::rename(&self.path, self.path.with_extension("log.1"))?;
        }
        let (file, size) = match &mut self.open {
            Some(open) => open,
            closed => {
                let file = OpenOptions::new().create(true).append(true).open(&self.path)?;
                let size = file.metadata()?.len();
                closed.insert((file, size))
            }
        };
        let written = file.write(bytes)?;
        *size += written as u64;
        Ok(written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_goes_to_the_file_of_its_part_and_unknown_ones_to_the_rest() {
        let folder = std::env::temp_dir().join(format!("slipway-telemetry-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let logs = PartLogs::new(&folder, &["node"]);
        logs.of_target("node::runtime").lock().unwrap().write(b"a\n").unwrap();
        logs.of_target("hyper::client").lock().unwrap().write(b"b\n").unwrap();
        assert_eq!(fs::read_to_string(part_log(&folder, "node")).unwrap(), "a\n");
        assert_eq!(fs::read_to_string(part_log(&folder, OTHER_PART)).unwrap(), "b\n");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_full_file_is_cut_over() {
        let folder = std::env::temp_dir().join(format!("slipway-telemetry-full-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let mut file = PartFile::new(part_log(&folder, "node"));
        file.write(b"old\n").unwrap();
        file.open.as_mut().unwrap().1 = LOG_BYTES_MAX;
        file.write(b"new\n").unwrap();
        assert_eq!(fs::read_to_string(folder.join("node.log")).unwrap(), "new\n");
        assert_eq!(fs::read_to_string(folder.join("node.log.1")).unwrap(), "old\n");
        fs::remove_dir_all(&folder).unwrap();
    }
}
