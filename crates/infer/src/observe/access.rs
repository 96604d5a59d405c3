//! The access log: a sample of the calls, one line of JSON each.
//!
//! A call costs a record into a bounded queue; text is made, and written, by a thread of its own. What the queue has no
//! room for is dropped and counted, because a log that stalls must not stall calls.
//!
//! Not here: what a line says (`record`).

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::random::Share;
use super::record::Record;
use crate::background;

/// Records that wait, at most.
const WAITING_MAX: usize = 4096;
/// How long the end of the server waits for its log.
const END_MAX: Duration = Duration::from_secs(2);
/// How often its writer says that nobody reads it, at most: once.
const TOLD_MAX: u64 = 1;

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The standard output.
    Output,
    /// The end of a file, which is made where it is missing.
    File(PathBuf),
}

/// The log.
#[derive(Debug)]
pub(crate) struct Access {
    share: Share,
    sender: Sender<Option<Record>>,
    dropped: AtomicU64,
    /// Closes when the writer has ended.
    ended: Receiver<()>,
}

impl Access {
    /// Opens the target and starts the writer.
    pub(crate) fn start(target: &Target, share: f64) -> io::Result<Self> {
        let out: Box<dyn Write + Send> = match target {
            Target::Output => Box::new(io::stdout()),
            Target::File(path) => Box::new(OpenOptions::new().create(true).append(true).open(path)?),
        };
        let (sender, receiver) = bounded(WAITING_MAX);
        let (alive, ended) = bounded::<()>(0);
        std::thread::Builder::new().name("access-log".into()).spawn(move || {
            write(&receiver, out);
            drop(alive);
        })?;
        Ok(Self { share: Share::new(share), sender, dropped: AtomicU64::new(0), ended })
    }

    /// Whether the call that ends now belongs to the sample.
    pub(crate) fn draw(&self) -> bool {
        self.share.draw()
    }

    /// Gives a record to the writer, or drops it.
    pub(crate) fn log(&self, record: Record) {
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = self.sender.try_send(Some(record))
        {
            self.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Records that were dropped.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Writes what waits and ends. Blocks, though not for a reader that has stopped reading.
    pub(crate) fn end(&self) {
        let _ = self.sender.send_timeout(None, END_MAX);
        let _ = self.ended.recv_timeout(END_MAX);
    }
}

fn write(records: &Receiver<Option<Record>>, out: Box<dyn Write + Send>) {
    background::lower();
    let mut out = BufWriter::with_capacity(64 << 10, out);
    let mut line = Vec::with_capacity(512);
    let (mut told, mut is_over) = (0, false);
    while !is_over && let Ok(first) = records.recv() {
        if first.is_some() {
            std::thread::sleep(background::GATHER);
        }
        let mut written = Ok(());
        for record in std::iter::once(first).chain(records.try_iter()) {
            let Some(record) = record else {
                is_over = true;
                break;
            };
            line.clear();
            record.write(&mut line);
            line.push(b'\n');
            written = written.and(out.write_all(&line));
        }
        if let Err(error) = written.and_then(|()| out.flush())
            && told < TOLD_MAX
        {
            told += 1;
            tracing::warn!(%error, "the access log cannot be written");
        }
    }
}
