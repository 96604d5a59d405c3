//! ONNX Runtime.
//!
//! The library is opened once in a process, by the first model that needs it. Nothing here copies a graph: the library
//! reads the file by its path, and the files of weights beside it.
//!
//! * [`Library`] is the opened library, [`Model`] a graph as a backend, [`Options`] how it is run.
//! * `session` calls the library; `api` knows where its functions are.

mod api;
mod model;
mod options;
mod session;

use std::path::Path;

pub use model::Model;
pub use options::{Level, Options, Provider};

use crate::discover::{Kind, Places, open_first};
use crate::error::Error;

/// The opened library.
#[derive(Clone, Copy)]
pub struct Library(&'static session::Runtime);

impl std::fmt::Debug for Library {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ONNX Runtime {} at {}", self.version(), self.path().display())
    }
}

impl Library {
    /// Opens the first library of the places that can be used. It stays open.
    pub fn open(places: &Places) -> Result<Self, Error> {
        open_first(Kind::OnnxRuntime, places, Self::open_file)
    }

    fn open_file(path: &Path) -> Result<Self, Error> {
        let api = api::Api::new(crate::library::Library::open(path)?)?;
        let failed = |failed: session::Failed| Error::Open { path: path.to_owned(), why: failed.text };
        let runtime = session::Runtime::new(api).map_err(failed)?;
        // For ever: sessions borrow it, and the library is never closed.
        Ok(Self(Box::leak(Box::new(runtime))))
    }

    /// Its version.
    pub fn version(&self) -> &str {
        &self.0.api.version
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        self.0.api.library.path()
    }

    /// The execution providers that it was built with.
    pub fn providers(&self) -> Result<Vec<String>, Error> {
        let failed = |failed: session::Failed| Error::Open { path: self.path().to_owned(), why: failed.text };
        self.0.providers().map_err(failed)
    }

    /// Refuses providers that the library does not have.
    fn check(&self, options: &Options) -> Result<(), Error> {
        let have = self.providers()?;
        let missing = options.providers.iter().find(|provider| !have.contains(&provider.name));
        match missing {
            None => Ok(()),
            Some(provider) => {
                Err(Error::Option(format!("{self:?} has no {:?}; it has {}", provider.name, have.join(", "))))
            }
        }
    }
}
