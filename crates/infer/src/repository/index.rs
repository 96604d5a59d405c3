//! The table that requests look into.
//!
//! Which models there are changes rarely, and then the whole table is replaced. What a model is changes often where
//! thousands come and go, so each has a cell of its own, whose entry is replaced alone. Both are read without a lock.
//!
//! Not here: when it changes (`manager`).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use arc_swap::ArcSwap;

use crate::refusal::{Reason, Refusal};
use crate::served::{Personality, Served};

/// Which version of a model is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which<'a> {
    /// The highest that answers.
    Default,
    /// This one.
    Version(u64),
    /// The one that carries this label.
    Label(&'a str),
}

/// Why no version answers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotServed {
    /// No model has this name.
    #[error("Model with name {0} does not exist.")]
    Model(String),
    /// The model has no such version.
    #[error("Model {0} has no version {1}.")]
    Version(String, u64),
    /// The model has no such label.
    #[error("Model {0} has no version labelled {1}.")]
    Label(String, String),
    /// The model is loaded by calls, and is not there now: whoever waits ([`super::Repository::wake`]) will have it.
    #[error("Model with name {0} is not loaded.")]
    Asleep(String),
    /// The model, or the version of it, is known and does not answer: it loads, failed, or was unloaded.
    #[error("Model with name {name} is not ready.")]
    NotReady {
        /// The model.
        name: String,
        /// The state of the version that was asked for, or of the newest.
        state: State,
        /// Why it failed, if it did.
        why: Option<String>,
    },
}

impl From<NotServed> for Refusal {
    fn from(error: NotServed) -> Self {
        let reason = match &error {
            NotServed::Model(_) | NotServed::Version(..) | NotServed::Label(..) => Reason::NotFound,
            NotServed::NotReady { .. } | NotServed::Asleep(_) => Reason::NotReady,
        };
        Self::new(reason, error.to_string())
    }
}

/// The life of a version, as TensorFlow Serving names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Known, not begun.
    Start,
    /// Being read and warmed up.
    Loading,
    /// Answers.
    Available,
    /// Answers no new requests; some may still run.
    Unloading,
    /// Gone, or never came: then with an error.
    End,
}

impl State {
    /// The word of TensorFlow Serving.
    pub fn word(self) -> &'static str {
        match self {
            Self::Start => "START",
            Self::Loading => "LOADING",
            Self::Available => "AVAILABLE",
            Self::Unloading => "UNLOADING",
            Self::End => "END",
        }
    }
}

/// All models at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// In the order of their names.
    pub models: Vec<ModelStatus>,
}

/// One model at one moment.
#[derive(Debug, Clone)]
pub struct ModelStatus {
    /// Its name.
    pub name: Arc<str>,
    /// Whose manners it has.
    pub personality: Personality,
    /// Labels and the versions that carry them.
    pub labels: BTreeMap<String, u64>,
    /// Its versions are loaded by calls, and none is there now.
    pub is_asleep: bool,
    /// Ascending.
    pub versions: Vec<VersionStatus>,
}

/// One version at one moment.
#[derive(Debug, Clone)]
pub struct VersionStatus {
    /// Its number, where the model's folder has versions; else it is version 1.
    pub version: Option<u64>,
    /// Where it is in its life.
    pub state: State,
    /// Why it failed.
    pub error: Option<String>,
    /// The version itself while it answers.
    pub served: Option<Arc<Served>>,
}

/// One version in the index.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    pub(crate) version: Option<u64>,
    pub(crate) state: State,
    pub(crate) error: Option<String>,
    pub(crate) served: Option<Arc<Served>>,
}

/// One model in the index.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) name: Arc<str>,
    pub(crate) personality: Personality,
    /// Whether the server is not ready without it.
    pub(crate) is_wanted: bool,
    /// Nothing of it answers, and a call that waits will have it.
    pub(crate) is_asleep: bool,
    pub(crate) labels: BTreeMap<String, u64>,
    /// Ascending by version.
    pub(crate) slots: Vec<Slot>,
}

impl Entry {
    fn not_ready(&self, slot: Option<&Slot>) -> NotServed {
        NotServed::NotReady {
            name: self.name.to_string(),
            state: slot.map_or(State::Start, |slot| slot.state),
            why: slot.and_then(|slot| slot.error.clone()),
        }
    }

    /// Whether the server is not ready because of it.
    fn is_missing(&self) -> bool {
        self.is_wanted && self.slots.iter().all(|slot| slot.served.is_none())
    }

    fn find(&self, which: Which<'_>) -> Result<Arc<Served>, NotServed> {
        if self.is_asleep {
            return Err(NotServed::Asleep(self.name.to_string()));
        }
        let version = match which {
            Which::Default => {
                let newest = self.slots.iter().rev().find_map(|slot| slot.served.as_ref());
                return newest.cloned().ok_or_else(|| self.not_ready(self.slots.last()));
            }
            Which::Version(version) => version,
            Which::Label(label) => *self
                .labels
                .get(label)
                .ok_or_else(|| NotServed::Label(self.name.to_string(), label.to_owned()))?,
        };
        // A folder without versions is version 1.
        let slot = self.slots.iter().find(|slot| slot.version.unwrap_or(1) == version);
        let slot = slot.ok_or_else(|| NotServed::Version(self.name.to_string(), version))?;
        slot.served.clone().ok_or_else(|| self.not_ready(Some(slot)))
    }

    fn status(&self) -> ModelStatus {
        let version = |slot: &Slot| VersionStatus {
            version: slot.version,
            state: slot.state,
            error: slot.error.clone(),
            served: slot.served.clone(),
        };
        ModelStatus {
            name: self.name.clone(),
            personality: self.personality,
            labels: self.labels.clone(),
            is_asleep: self.is_asleep,
            versions: self.slots.iter().map(version).collect(),
        }
    }
}

/// One model's place in the index.
#[derive(Debug)]
pub(crate) struct Cell {
    entry: ArcSwap<Entry>,
    /// When it was last asked for, in nanoseconds since [`Index::since`].
    used: AtomicU64,
}

impl Cell {
    fn of(entry: Entry) -> Self {
        Self { entry: ArcSwap::from_pointee(entry), used: AtomicU64::new(0) }
    }

    /// When it was last asked for; only differences mean something.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }
}

/// How often lazy models came and went.
#[derive(Debug, Default)]
pub(crate) struct Turnover {
    /// Loads that a call asked for.
    pub(crate) loads: AtomicU64,
    /// Loads of these that failed.
    pub(crate) failures: AtomicU64,
    /// Models that went to sleep to make room.
    pub(crate) evictions: AtomicU64,
    /// Lazy models that are loaded or being loaded.
    pub(crate) awake: AtomicUsize,
}

/// All models. Clones share the cells of those that both have.
#[derive(Debug, Clone, Default)]
pub(crate) struct Index {
    models: HashMap<Arc<str>, Arc<Cell>>,
    /// Since when uses are counted; absent where nobody asks.
    since: Option<Instant>,
    /// How many models the server is not ready without.
    missing: Arc<AtomicUsize>,
    /// Tells of the next change; all that follow each other have the same.
    pub(crate) changes: Arc<tokio::sync::Notify>,
    /// Counted for all that follow each other together.
    pub(crate) turnover: Arc<Turnover>,
}

impl Index {
    /// An index that notes when models were last asked for.
    pub(crate) fn noting(since: Option<Instant>) -> Self {
        Self { since, ..Self::default() }
    }

    /// Whether models are loaded by calls.
    pub(crate) fn is_noting(&self) -> bool {
        self.since.is_some()
    }

    pub(crate) fn find(&self, name: &str, which: Which<'_>) -> Result<Arc<Served>, NotServed> {
        let Some(cell) = self.models.get(name) else { return Err(NotServed::Model(name.to_owned())) };
        self.touch(cell);
        cell.entry.load().find(which)
    }

    /// Notes that a model was asked for.
    pub(crate) fn touch(&self, cell: &Cell) {
        if let Some(since) = self.since {
            cell.used.store(u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX), Relaxed);
        }
    }

    pub(crate) fn cell(&self, name: &str) -> Option<&Arc<Cell>> {
        self.models.get(name)
    }

    /// Puts an entry in the place of the model's last one; false, and nothing is done, where it had none.
    pub(crate) fn replace(&self, entry: &Arc<Entry>) -> bool {
        let Some(cell) = self.models.get(&entry.name) else { return false };
        let before = cell.entry.swap(entry.clone());
        match (before.is_missing(), entry.is_missing()) {
            (false, true) => drop(self.missing.fetch_add(1, Relaxed)),
            (true, false) => drop(self.missing.fetch_sub(1, Relaxed)),
            _ => {}
        }
        true
    }

    /// Adds a model that was not there.
    pub(crate) fn insert(&mut self, entry: Entry) {
        self.missing.fetch_add(usize::from(entry.is_missing()), Relaxed);
        self.models.insert(entry.name.clone(), Arc::new(Cell::of(entry)));
    }

    pub(crate) fn remove(&mut self, name: &str) {
        if let Some(cell) = self.models.remove(name) {
            self.missing.fetch_sub(usize::from(cell.entry.load().is_missing()), Relaxed);
        }
    }

    /// Adds a version that answers.
    pub(crate) fn put(&mut self, served: Arc<Served>) {
        let mut entry = match self.models.get(&served.name) {
            Some(cell) => Entry::clone(&cell.entry.load()),
            None => Entry {
                name: served.name.clone(),
                personality: served.personality,
                is_wanted: true,
                is_asleep: false,
                labels: BTreeMap::new(),
                slots: Vec::new(),
            },
        };
        self.remove(&served.name);
        entry.slots.retain(|slot| slot.version != served.version);
        let at = entry.slots.partition_point(|slot| slot.version < served.version);
        let version = served.version;
        entry.slots.insert(at, Slot { version, state: State::Available, error: None, served: Some(served) });
        self.insert(entry);
    }

    pub(crate) fn status(&self, name: &str) -> Option<ModelStatus> {
        self.models.get(name).map(|cell| cell.entry.load().status())
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let mut models: Vec<ModelStatus> =
            self.models.values().map(|cell| cell.entry.load().status()).collect();
        models.sort_by(|one, other| one.name.cmp(&other.name));
        Snapshot { models }
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.missing.load(Relaxed) == 0
    }
}
