//! One version of a model that answers.
//!
//! A [`Served`] is immutable and shared: requests hold it while they run, and the version that was replaced goes
//! when its last request ends. Freeing a large model takes long, so that is done by a thread of its own.
//!
//! Not here: reading model files (`load`), which versions there are (`repository`).

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use models::Backend;

use crate::explain::Origin;

/// Whose error bodies, codes and colliding paths a model's answers follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Personality {
    /// KServe's Python servers.
    #[default]
    Kserve,
    /// `tensorflow_model_server`.
    TfServing,
    /// Triton Inference Server.
    Triton,
    /// MLServer.
    MlServer,
}

impl std::str::FromStr for Personality {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "kserve" => Self::Kserve,
            "tfserving" => Self::TfServing,
            "triton" => Self::Triton,
            "mlserver" => Self::MlServer,
            other => return Err(format!("{other:?} is none of kserve, tfserving, triton, mlserver")),
        })
    }
}

/// A backend that is freed aside.
pub struct Kept(Option<Box<dyn Backend>>);

impl Kept {
    /// Keeps a backend.
    pub fn new(backend: Box<dyn Backend>) -> Self {
        Self(Some(backend))
    }
}

impl Deref for Kept {
    type Target = dyn Backend;

    fn deref(&self) -> &(dyn Backend + 'static) {
        self.0.as_deref().expect("it is taken only when dropped")
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let backend = self.0.take();
        // Where no thread can be had, the closure and with it the backend is dropped here.
        let _ = std::thread::Builder::new().name("free".into()).spawn(move || drop(backend));
    }
}

/// Tells when the last request that held a version ended.
#[derive(Default)]
pub(crate) struct Gone(Option<Box<dyn Fn() + Send + Sync>>);

impl Gone {
    pub(crate) fn new(tell: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Some(Box::new(tell)))
    }
}

impl Drop for Gone {
    fn drop(&mut self) {
        if let Some(tell) = &self.0 {
            tell();
        }
    }
}

/// What is known about a version besides its backend.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// What wrote it, in the words of the Open Inference Protocol: `sklearn`, `xgboost`, `onnx`.
    pub platform: String,
    /// The file that was read.
    pub file: String,
    /// The file's format.
    pub format: String,
    /// Bytes of the model's files, the estimate of what it takes in memory.
    pub bytes: u64,
    /// How long loading took.
    pub load_time: Duration,
}

/// One version of a model.
pub struct Served {
    /// The model's name.
    pub name: Arc<str>,
    /// Its version, where the model's folder has versions.
    pub version: Option<u64>,
    /// Whose manners it has.
    pub personality: Personality,
    /// What evaluates it.
    pub backend: Kept,
    /// Numbers in a row where the only input is a table; else 0.
    pub width: usize,
    /// Where it came from.
    pub about: About,
    /// What `:explain` reads.
    pub origin: Option<Origin>,
    /// Who is told of its end.
    pub(crate) gone: Gone,
}

impl Served {
    /// A version around a backend.
    pub fn new(
        name: Arc<str>,
        version: Option<u64>,
        personality: Personality,
        backend: Box<dyn Backend>,
    ) -> Self {
        let width = match backend.signature().inputs.as_slice() {
            [only] => match only.row.as_slice() {
                [width] => width.unwrap_or(0),
                _ => 0,
            },
            _ => 0,
        };
        Self {
            name,
            version,
            personality,
            backend: Kept::new(backend),
            width,
            about: About::default(),
            origin: None,
            gone: Gone::default(),
        }
    }
}

impl std::fmt::Debug for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.name)?;
        self.version.map_or(Ok(()), |version| write!(f, "/{version}"))
    }
}
