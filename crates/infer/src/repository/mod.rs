//! The models that a server knows, and which of their versions answer.
//!
//! Readers look into an [`Index`] without a lock; whoever changes what is served makes a new index, or a new entry of
//! one model, and swaps it in. A request keeps the [`Served`] it found, so a swap touches no request.
//!
//! Not here: reading model files (`load`), evaluating (`evaluate`).

mod control;
mod index;
mod lazy;
mod managed;
mod manager;
mod polls;
mod reading;
mod recency;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use control::Control;
pub(crate) use index::{Index, Turnover};
pub use index::{ModelStatus, NotServed, Snapshot, State, VersionStatus, Which};

use crate::config::{Config, Model};
use crate::refusal::{Reason, Refusal};
use crate::served::Served;

/// The models of a server; cheap to clone.
#[derive(Clone)]
pub struct Repository {
    index: Arc<ArcSwap<Index>>,
    /// Absent where what is served never changes.
    control: Option<Arc<Control>>,
}

impl Repository {
    /// A repository of these versions, of which the highest of each name is its default.
    pub fn of(all: Vec<Served>) -> Self {
        let mut index = Index::default();
        for served in all {
            index.put(Arc::new(served));
        }
        Self { index: Arc::new(ArcSwap::from_pointee(index)), control: None }
    }

    /// A repository that reads the configured models and follows their folders until its last clone is dropped.
    /// Blocks until every model has been tried.
    pub fn open(config: &Config) -> Result<Self, crate::Error> {
        let since = config.loading.lazy.map(|_| std::time::Instant::now());
        let index = Arc::new(ArcSwap::from_pointee(Index::noting(since)));
        let control = Control::start(config, index.clone())?;
        Ok(Self { index, control: Some(Arc::new(control)) })
    }

    /// Reads a model (again) and waits until it answers.
    pub async fn load(&self, name: &str) -> Result<(), Refusal> {
        self.control()?.load(name).await
    }

    /// Lets a model answer no new requests. It is known afterwards and can be loaded again.
    pub async fn unload(&self, name: &str) -> Result<(), Refusal> {
        self.control()?.unload(name).await
    }

    /// Makes these the models that are served, and waits until each answers or cannot. Models that stay keep
    /// answering throughout.
    pub async fn reload(&self, models: Vec<Model>) -> Result<(), Refusal> {
        self.control()?.reload(models).await
    }

    /// Waits until a model that is loaded by calls ([`NotServed::Asleep`]) is there, at most so long, or a minute.
    ///
    /// # Errors
    /// It cannot be loaded, there is no room, too many wait, or the time is up.
    pub async fn wake(&self, name: &str, wait_max: Option<Duration>) -> Result<(), Refusal> {
        self.control()?.wake(name, wait_max).await
    }

    fn control(&self) -> Result<&Control, Refusal> {
        let fixed = || Refusal::new(Reason::Unsupported, "what this server serves never changes");
        self.control.as_deref().ok_or_else(fixed)
    }

    /// The version that answers. Without a lock and without an allocation.
    pub fn find(&self, name: &str, which: Which<'_>) -> Result<Arc<Served>, NotServed> {
        self.index.load().find(name, which)
    }

    /// All models with the states of their versions, in the order of their names.
    pub fn snapshot(&self) -> Snapshot {
        self.index.load().snapshot()
    }

    /// One model with the states of its versions.
    pub fn status(&self, name: &str) -> Option<ModelStatus> {
        self.index.load().status(name)
    }

    /// Wakes whoever waits when something of the above changes.
    pub(crate) fn changes(&self) -> Arc<tokio::sync::Notify> {
        self.index.load().changes.clone()
    }

    /// How often lazy models came and went; absent where there are none.
    pub(crate) fn turnover(&self) -> Option<Arc<Turnover>> {
        let index = self.index.load();
        index.is_noting().then(|| index.turnover.clone())
    }

    /// Whether every model that is to be served has a version that answers.
    pub fn is_ready(&self) -> bool {
        self.index.load().is_ready()
    }
}
