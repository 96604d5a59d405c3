//! A cursor over the bytes of a pickle.
//!
//! Every length that a file states is compared with what is left before anything is allocated, so a count of
//! ten gigabytes costs an error message.
//!
//! Not here: what the bytes mean (`super`).

use bytes::Bytes;

use crate::error::{LoadError, Result};

pub(super) struct Cursor<'a> {
    bytes: &'a Bytes,
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a Bytes) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn offset(&self) -> usize {
        self.at
    }

    pub(super) fn take(&mut self, count: u64, what: &'static str) -> Result<&'a [u8]> {
        let left = self.bytes.len() - self.at;
        let fits = usize::try_from(count).ok().filter(|count| *count <= left);
        let Some(count) = fits else {
            return Err(LoadError::Truncated { what, offset: self.at, needed: count, left });
        };
        let taken = &self.bytes[self.at..self.at + count];
        self.at += count;
        Ok(taken)
    }

    /// Like [`Self::take`], sharing the file's memory instead of copying.
    pub(super) fn share(&mut self, count: u64, what: &'static str) -> Result<Bytes> {
        let start = self.at;
        self.take(count, what)?;
        Ok(self.bytes.slice(start..self.at))
    }

    pub(super) fn byte(&mut self, what: &'static str) -> Result<u8> {
        Ok(self.take(1, what)?[0])
    }

    /// A little-endian unsigned integer of `N` bytes.
    pub(super) fn uint<const N: usize>(&mut self, what: &'static str) -> Result<u64> {
        let taken = self.take(N as u64, what)?;
        Ok(taken.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    /// The bytes up to a line feed, which is consumed.
    pub(super) fn line(&mut self, what: &'static str) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let Some(end) = memchr::memchr(b'\n', rest) else {
            return Err(LoadError::Truncated {
                what,
                offset: self.at,
                needed: rest.len() as u64 + 1,
                left: rest.len(),
            });
        };
        self.at += end + 1;
        Ok(&rest[..end])
    }

    pub(super) fn text_line(&mut self, what: &'static str) -> Result<&'a str> {
        let offset = self.at;
        let line = self.line(what)?;
        std::str::from_utf8(line)
            .map_err(|_| LoadError::malformed("pickle", offset, format!("{what} is not UTF-8")))
    }

    pub(super) fn text(&mut self, count: u64, what: &'static str) -> Result<&'a str> {
        let offset = self.at;
        let taken = self.take(count, what)?;
        // Python writes lone surrogates in a form of its own; no name or label needs them.
        std::str::from_utf8(taken)
            .map_err(|_| LoadError::malformed("pickle", offset, format!("{what} is not UTF-8")))
    }
}
