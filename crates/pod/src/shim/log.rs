//! A container's output as lines of a log file, in the format of Kubernetes' container runtime interface:
//! `<time> <stream> <F|P> <text>`, where `P` marks a piece of a line that is not complete yet.
//!
//! The file is written by the shim itself, so it is whole whatever happens to the server.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;

use super::clock;

/// A longer line is cut into pieces of this many bytes, as containerd does.
const LINE_BYTES_MAX: usize = 16 * 1024;

/// The log file of one attempt.
pub struct Log {
    path: PathBuf,
    file: File,
    written: u64,
    bytes_max: u64,
}

impl Log {
    /// Opens (and makes) the file; it is rotated to `<path>.1` above `bytes_max`, unless that is 0.
    pub fn open(path: PathBuf, bytes_max: u64) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let written = file.metadata()?.len();
        Ok(Self { path, file, written, bytes_max })
    }

    fn append(&mut self, text: &[u8]) {
        // A full disk must not stop the container: what does not fit is lost, as with any runtime.
        if self.file.write_all(text).is_ok() {
            self.written += text.len() as u64;
        }
        if self.bytes_max > 0 && self.written > self.bytes_max {
            self.rotate();
        }
    }

    fn rotate(&mut self) {
        let mut old = self.path.clone().into_os_string();
        old.push(".1");
        if std::fs::rename(&self.path, old).is_err() {
            return;
        }
        if let Ok(file) = OpenOptions::new().create(true).append(true).open(&self.path) {
            self.file = file;
            self.written = 0;
        }
    }
}

/// Cuts one stream into lines.
pub struct Lines {
    stream: &'static str,
    pending: Vec<u8>,
}

impl Lines {
    /// For `stdout` or `stderr`.
    pub fn new(stream: &'static str) -> Self {
        Self { stream, pending: Vec::new() }
    }

    /// Takes what was read; complete lines go to the log with the time of now.
    pub fn push(&mut self, bytes: &[u8], log: &mut Log) {
        let text = self.cut(bytes, &clock::now());
        if !text.is_empty() {
            log.append(&text);
        }
    }

    /// The stream ended: what is left becomes a line.
    pub fn finish(&mut self, log: &mut Log) {
        if !self.pending.is_empty() {
            self.push(b"\n", log);
        }
    }

    fn cut(&mut self, bytes: &[u8], time: &str) -> Vec<u8> {
        let mut out = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.pending.extend_from_slice(piece);
            while self.pending.len() > LINE_BYTES_MAX + 1 {
                let rest = self.pending.split_off(LINE_BYTES_MAX);
                self.write(&mut out, time, b'P');
                self.pending = rest;
            }
            if self.pending.last() == Some(&b'\n') {
                self.pending.pop();
                self.write(&mut out, time, b'F');
            }
        }
        if self.pending.is_empty() {
            self.pending = Vec::new();
        }
        out
    }

    fn write(&mut self, out: &mut Vec<u8>, time: &str, tag: u8) {
        out.extend_from_slice(time.as_bytes());
        out.push(b' ');
        out.extend_from_slice(self.stream.as_bytes());
        out.extend_from_slice(&[b' ', tag, b' ']);
        out.append(&mut self.pending);
        out.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pieces: &[&str], want: &str) {
        let mut lines = Lines::new("stdout");
        let mut out = Vec::new();
        for piece in pieces {
            out.extend(lines.cut(piece.as_bytes(), "T"));
        }
        assert_eq!(String::from_utf8(out).unwrap(), want);
    }

    #[test]
    fn lines_are_written_when_they_are_complete() {
        check(&["a\nb"], "T stdout F a\n");
        check(&["a\nb", "c\n\n"], "T stdout F a\nT stdout F bc\nT stdout F \n");
        check(&["no end"], "");
    }

    #[test]
    fn a_long_line_is_cut_into_pieces() {
        let long = "x".repeat(LINE_BYTES_MAX);
        check(&[&long, "yy\n"], &format!("T stdout P {long}\nT stdout F yy\n"));
        check(&[&long, "\n"], &format!("T stdout F {long}\n"));
    }
}
