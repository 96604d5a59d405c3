//! Why an engine does not serve a model.

use std::path::PathBuf;

/// Why a library or a model cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The library is nowhere.
    #[error("{library} was not found; looked for it in {}", shown(.looked))]
    NotFound {
        /// Its name.
        library: &'static str,
        /// The folders.
        looked: Vec<PathBuf>,
    },
    /// The library is there and cannot be opened.
    #[error("cannot open {path:?}: {why}")]
    Open {
        /// The file.
        path: PathBuf,
        /// The linker's words.
        why: String,
    },
    /// The library lacks what is needed.
    #[error("{library} {found} at {path:?} is too old; {needed} or newer is needed")]
    TooOld {
        /// Its name.
        library: &'static str,
        /// Its file.
        path: PathBuf,
        /// Its version.
        found: String,
        /// The oldest that is used.
        needed: &'static str,
    },
    /// An option that the library does not have.
    #[error("{0}")]
    Option(String),
    /// The model cannot be read.
    #[error("cannot load {path:?}: {why}")]
    Model {
        /// The file or folder.
        path: PathBuf,
        /// The library's words.
        why: String,
    },
    /// The model is read, and something in it is not served.
    #[error("unsupported: {0}")]
    Unsupported(String),
}

/// What a library says went wrong in a call: its own code and its words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failed {
    pub(crate) code: i32,
    pub(crate) text: String,
}

fn shown(folders: &[PathBuf]) -> String {
    let all: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
    if all.is_empty() { "no folder".into() } else { all.join(", ") }
}
