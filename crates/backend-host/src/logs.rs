//! What workers print, as lines of the server's log.
//!
//! A worker can print as much as it likes: it is always read, so that it never waits, but only so many lines of so many
//! bytes reach the log; the rest is counted. The last lines are kept to explain an end.
//!
//! Not here: where the log goes.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use parking_lot::Mutex;

/// Bytes of a line, at most; the rest of it is dropped.
const LINE_BYTES_MAX: usize = 2 << 10;
/// Lines a second that reach the log, and how many at once after a quiet time.
const LINES_A_SECOND: f64 = 50.0;
const LINES_AT_ONCE: f64 = 200.0;
/// Last lines that are kept.
const TAIL_LINES: usize = 12;

/// The last lines of a worker.
#[derive(Debug, Default)]
pub(crate) struct Tail(Mutex<VecDeque<String>>);

impl Tail {
    fn push(&self, line: String) {
        let mut lines = self.0.lock();
        if lines.len() == TAIL_LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// The last line that says anything, which after a Python traceback is the error.
    pub(crate) fn last(&self) -> Option<String> {
        self.0.lock().iter().rev().find(|line| !line.trim().is_empty()).cloned()
    }
}

/// How many lines may still pass.
#[derive(Debug)]
struct Budget {
    left: f64,
    at: Instant,
}

impl Budget {
    fn new(now: Instant) -> Self {
        Self { left: LINES_AT_ONCE, at: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.left = (self.left + since * LINES_A_SECOND).min(LINES_AT_ONCE);
        let passes = self.left >= 1.0;
        if passes {
            self.left -= 1.0;
        }
        passes
    }
}

/// Cuts bytes into lines of at most [`LINE_BYTES_MAX`].
#[derive(Debug, Default)]
struct Lines {
    line: Vec<u8>,
}

impl Lines {
    fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8])) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, is_whole) = match part.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (part, false),
            };
            let room = LINE_BYTES_MAX - self.line.len();
            self.line.extend_from_slice(&text[..text.len().min(room)]);
            if is_whole {
                each(self.line.strip_suffix(b"\r").unwrap_or(&self.line));
                self.line.clear();
            }
        }
    }
}

/// Reads until the worker and all that it started have closed their ends. Lines that are not logged are counted in
/// `all_dropped`.
pub(crate) fn follow(
    mut output: impl Read,
    model: &str,
    worker: usize,
    tail: &Arc<Tail>,
    all_dropped: &AtomicU64,
) {
    let mut budget = Budget::new(Instant::now());
    let mut lines = Lines::default();
    let mut dropped = 0_u64;
    let mut print = |line: &[u8]| {
        let text = String::from_utf8_lossy(line).into_owned();
        if budget.take(Instant::now()) {
            if dropped > 0 {
                tracing::warn!(model, worker, dropped, "a worker printed more lines than are logged");
                dropped = 0;
            }
            tracing::info!(model, worker, "worker: {text}");
        } else {
            dropped += 1;
            all_dropped.fetch_add(1, Relaxed);
        }
        tail.push(text);
    };
    let mut bytes = [0; 8 << 10];
    loop {
        match output.read(&mut bytes) {
            Ok(0) => break,
            Ok(count) => lines.feed(&bytes[..count], &mut print),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    lines.feed(b"\n", |line| {
        if !line.is_empty() {
            print(line);
        }
    });
    if dropped > 0 {
        tracing::warn!(model, worker, dropped, "a worker printed more lines than are logged");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn lines_are_cut_and_bounded() {
        let mut lines = Lines::default();
        let mut seen = Vec::new();
        let mut feed = |lines: &mut Lines, bytes: &[u8]| {
            lines.feed(bytes, |line| seen.push(String::from_utf8_lossy(line).into_owned()));
        };
        feed(&mut lines, b"one\ntw");
        feed(&mut lines, b"o\r\n\n");
        for _ in 0..100 {
            feed(&mut lines, &[b'x'; 1000]);
        }
        assert_eq!(lines.line.len(), LINE_BYTES_MAX);
        feed(&mut lines, b"\nlast\n");
        let long = "x".repeat(LINE_BYTES_MAX);
        assert_eq!(seen, ["one", "two", "", long.as_str(), "last"]);
    }

    #[test]
    fn a_flood_is_thinned_and_a_quiet_worker_is_not() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        let passed = (0..100_000).filter(|_| budget.take(start)).count();
        assert_eq!(passed, 200);
        let passed = (0..100_000).filter(|_| budget.take(start + Duration::from_secs(1))).count();
        assert_eq!(passed, 50);
        let passed = (0..1000).filter(|i| budget.take(start + Duration::from_secs(2 + i))).count();
        assert_eq!(passed, 1000);
    }

    #[test]
    fn the_last_line_that_says_something_explains() {
        let tail = Arc::new(Tail::default());
        let printed = (0..100).map(|i| format!("line {i}\n")).collect::<String>() + "ValueError: no\n\n";
        let dropped = AtomicU64::new(0);
        follow(printed.as_bytes(), "m", 0, &tail, &dropped);
        assert_eq!(dropped.load(Relaxed), 0);
        assert_eq!(tail.last().as_deref(), Some("ValueError: no"));
        assert_eq!(tail.0.lock().len(), TAIL_LINES);
    }
}
