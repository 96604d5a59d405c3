//! The access log: a sample of the calls, one line of JSON each.
//!
//! A call costs a record into a bounded queue; text is made, and written, by a thread of its own. What the queue has no
//! room for is dropped and counted, because a log that stalls must not stall calls.
//!
//! Not here: what a line says (`record`).

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

use super::queue::{Bounds, Receiver, Sender, queue};
use super::random::Share;
use super::record::Record;
use super::ship::Ship;
use crate::background;

/// Records that wait, at most, and as many as are written without more waiting.
const BOUNDS: Bounds =
    Bounds { items_max: 4096, bytes_max: usize::MAX, enough: 1024, gather: background::GATHER };
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
    sender: Sender<Record>,
    ship: Option<Ship>,
}

impl Access {
    /// Opens the target and starts the writer.
    pub(crate) fn start(target: &Target, share: f64) -> io::Result<Self> {
        let out: Box<dyn Write + Send> = match target {
            Target::Output => Box::new(io::stdout()),
            Target::File(path) => Box::new(OpenOptions::new().create(true).append(true).open(path)?),
        };
        let stop = CancellationToken::new();
        let (sender, receiver) = queue(BOUNDS, stop.clone());
        let ship = Ship::start("access-log", stop, vec![Box::pin(write(receiver, out))])?;
        Ok(Self { share: Share::new(share), sender, ship })
    }

    /// Whether the call that ends now belongs to the sample.
    pub(crate) fn draw(&self) -> bool {
        self.share.draw()
    }

    /// Gives a record to the writer, or drops it.
    pub(crate) fn log(&self, record: Record) {
        self.sender.offer(record);
    }

    /// Records that were dropped.
    pub(crate) fn dropped(&self) -> u64 {
        self.sender.dropped()
    }

    /// Writes what waits and ends. Blocks, though not for a reader that has stopped reading.
    pub(crate) fn end(&self) {
        self.ship.iter().for_each(Ship::end);
    }
}

/// Writes what comes. The thread is this log's own, so that writing may block it.
async fn write(mut records: Receiver<Record>, out: Box<dyn Write + Send>) {
    let mut out = BufWriter::with_capacity(64 << 10, out);
    let (mut handful, mut line) = (Vec::new(), Vec::with_capacity(512));
    let mut told = 0;
    while records.take(&mut handful).await {
        let mut written = Ok(());
        for record in handful.drain(..) {
            line.clear();
            record.item.write(&mut line);
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
