//! TensorFlow.
//!
//! A SavedModel is read by the library itself: graph, variables and assets from its folder. Its signatures are read from what
//! the library then says of the graph (`codecs::saved_model`).
//!
//! * [`Library`] is the opened library, [`Model`] a SavedModel with all its signatures, [`Options`] how it is loaded.
//! * `session` calls the library; `api` knows its functions.

mod api;
mod model;
mod session;

use std::path::Path;

use codecs::wire::{put_int, put_message, put_varint};
pub use model::Model;

use crate::discover::{Kind, Places, open_first};
use crate::error::Error;

/// The opened library.
#[derive(Clone, Copy)]
pub struct Library(&'static api::Api);

impl std::fmt::Debug for Library {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TensorFlow {} at {}", self.version(), self.path().display())
    }
}

/// Whether a version is 2.6 or newer: since then texts are what `api` says, and the library has functions for them.
fn is_new(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= (2, 6)
}

impl Library {
    /// Opens the first library of the places that can be used. It stays open.
    pub fn open(places: &Places) -> Result<Self, Error> {
        open_first(Kind::TensorFlow, places, Self::open_file)
    }

    fn open_file(path: &Path) -> Result<Self, Error> {
        let api = api::Api::new(crate::library::Library::open(path)?)?;
        let found = session::version(&api);
        if !is_new(&found) {
            let library = Kind::TensorFlow.name();
            return Err(Error::TooOld { library, path: path.to_owned(), found, needed: "2.6" });
        }
        // For ever: sessions borrow it, and the library is never closed.
        Ok(Self(Box::leak(Box::new(api))))
    }

    /// Its version.
    pub fn version(&self) -> String {
        session::version(self.0)
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        self.0.library.path()
    }
}

/// How a SavedModel is loaded.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// The tags of its graph.
    pub tags: Vec<String>,
    /// Threads for one operation; 0 is the library's choice.
    pub intra_op_threads: u32,
    /// Threads for operations beside each other; 0 is the library's choice.
    pub inter_op_threads: u32,
    /// Share of a GPU's memory that is taken at once; 0 is the library's choice.
    pub gpu_memory_fraction: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tags: vec!["serve".into()],
            intra_op_threads: 0,
            inter_op_threads: 0,
            gpu_memory_fraction: 0.0,
        }
    }
}

impl Options {
    /// As a `ConfigProto`.
    fn config(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_int(&mut out, 2, u64::from(self.intra_op_threads));
        put_int(&mut out, 5, u64::from(self.inter_op_threads));
        if self.gpu_memory_fraction > 0.0 {
            put_message(&mut out, 6, |out| {
                const DOUBLE: u64 = 1;
                put_varint(out, 1 << 3 | DOUBLE);
                out.extend_from_slice(&self.gpu_memory_fraction.to_le_bytes());
            });
        }
        // What was placed on a device that is not here runs on the CPU, as in TensorFlow Serving.
        put_int(&mut out, 7, 1);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_a_config() {
        assert_eq!(Options::default().config(), [0x38, 1]);
        let all = Options {
            intra_op_threads: 2,
            inter_op_threads: 300,
            gpu_memory_fraction: 0.5,
            ..Options::default()
        };
        assert_eq!(all.config(), [0x10, 2, 0x28, 0xac, 2, 0x32, 9, 9, 0, 0, 0, 0, 0, 0, 0xe0, 0x3f, 0x38, 1]);
    }

    #[test]
    fn old_libraries_are_told_apart() {
        for (version, want) in
            [("2.21.0", true), ("2.6.0-rc1", true), ("2.5.3", false), ("1.15.5", false), ("", false)]
        {
            assert_eq!(is_new(version), want, "{version}");
        }
    }
}
