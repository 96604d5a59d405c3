//! A SavedModel in TensorFlow as a backend of the model server, with all its signatures.
//!
//! Not here: calls of the library (`session`), which signatures there are (`codecs::saved_model`).

use std::path::Path;
use std::time::Instant;

use codecs::saved_model::{Place, Signed};
use models::{Backend, BackendError, Batch, Entry, Outputs, Signature, default_entry};

use super::session::{Failed, INVALID_ARGUMENT, Point, Session};
use super::{Library, Options};
use crate::cost::Cost;
use crate::error::Error;

/// Where a signature's tensors are fed and fetched.
struct Points {
    inputs: Vec<Point>,
    outputs: Vec<Point>,
}

/// A loaded SavedModel.
pub struct Model {
    session: Session,
    entries: Vec<Entry>,
    points: Vec<Points>,
    default: usize,
    refused: Vec<(String, String)>,
    cost: Cost,
    library: Library,
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.entries.iter().map(|entry| &*entry.name).collect();
        f.debug_struct("Model").field("signatures", &names).field("library", &self.library).finish()
    }
}

impl Model {
    /// Reads a SavedModel's folder.
    pub fn load(library: Library, folder: &Path, options: &Options) -> Result<Self, Error> {
        let failed = |why: String| Error::Model { path: folder.to_owned(), why };
        let (session, graph) = Session::open(library.0, folder, &options.tags, &options.config())
            .map_err(|error| failed(error.text))?;
        let (mut entries, mut points, mut refused) = (Vec::new(), Vec::new(), graph.refused);
        for Signed { entry, inputs, outputs } in graph.signatures {
            let find = |places: &[Place]| {
                places.iter().map(|place| session.point(place)).collect::<Result<Vec<_>, Failed>>()
            };
            match find(&inputs).and_then(|inputs| Ok(Points { inputs, outputs: find(&outputs)? })) {
                Ok(own) => {
                    entries.push(entry);
                    points.push(own);
                }
                Err(Failed { text, .. }) => refused.push((entry.name, text)),
            }
        }
        if entries.is_empty() {
            let all: Vec<String> = refused.iter().map(|(name, why)| format!("{name:?}: {why}")).collect();
            return Err(failed(format!("it has no signature that is served ({})", all.join("; "))));
        }
        let default = default_entry(&entries);
        let cost = Cost::new();
        Ok(Self { session, entries, points, default, refused, cost, library })
    }

    /// The library that runs it.
    pub fn library(&self) -> Library {
        self.library
    }

    /// Signatures that are not served, and why.
    pub fn refused(&self) -> &[(String, String)] {
        &self.refused
    }
}

impl Backend for Model {
    fn signature(&self) -> &Signature {
        &self.entries[self.default].signature
    }

    fn row_cost_ns(&self) -> u64 {
        self.cost.row_ns()
    }

    fn run(&self, batch: &Batch<'_>, outputs: &mut Outputs) -> Result<(), BackendError> {
        self.run_entry(self.default, batch, outputs)
    }

    fn entries(&self) -> &[Entry] {
        &self.entries
    }

    fn run_entry(&self, entry: usize, batch: &Batch<'_>, outputs: &mut Outputs) -> Result<(), BackendError> {
        let (Some(Entry { signature, .. }), Some(points)) = (self.entries.get(entry), self.points.get(entry))
        else {
            return Err(BackendError::Internal(format!("the model has no signature {entry}")));
        };
        crate::check_inputs(signature, batch)?;
        if batch.rows == 0 {
            return crate::no_rows(signature, outputs);
        }
        let start = Instant::now();
        let done = self.session.run(&points.inputs, batch.inputs, &points.outputs, outputs);
        self.cost.count(start.elapsed(), batch.rows);
        done.map_err(|failed| match failed.code {
            INVALID_ARGUMENT => BackendError::Input(failed.text),
            _ => BackendError::Internal(failed.text),
        })
    }
}
