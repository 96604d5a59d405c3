//! The table that requests look into. Immutable once it is published.
//!
//! Not here: when it changes (`manager`).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

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
            NotServed::NotReady { .. } => Reason::NotReady,
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

    fn find(&self, which: Which<'_>) -> Result<Arc<Served>, NotServed> {
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
            versions: self.slots.iter().map(version).collect(),
        }
    }
}

/// All models.
#[derive(Debug, Clone, Default)]
pub(crate) struct Index {
    pub(crate) models: HashMap<Arc<str>, Arc<Entry>>,
    /// Tells of the next index; all that follow each other have the same.
    pub(crate) changes: Arc<tokio::sync::Notify>,
}

impl Index {
    pub(crate) fn find(&self, name: &str, which: Which<'_>) -> Result<Arc<Served>, NotServed> {
        match self.models.get(name) {
            Some(entry) => entry.find(which),
            None => Err(NotServed::Model(name.to_owned())),
        }
    }

    /// Adds a version that answers.
    pub(crate) fn put(&mut self, served: Arc<Served>) {
        let entry = self.models.entry(served.name.clone()).or_insert_with(|| {
            let (name, personality) = (served.name.clone(), served.personality);
            Arc::new(Entry { name, personality, is_wanted: true, labels: BTreeMap::new(), slots: Vec::new() })
        });
        let entry = Arc::make_mut(entry);
        entry.slots.retain(|slot| slot.version != served.version);
        let at = entry.slots.partition_point(|slot| slot.version < served.version);
        let version = served.version;
        entry.slots.insert(at, Slot { version, state: State::Available, error: None, served: Some(served) });
    }

    pub(crate) fn status(&self, name: &str) -> Option<ModelStatus> {
        self.models.get(name).map(|entry| entry.status())
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let mut models: Vec<ModelStatus> = self.models.values().map(|entry| entry.status()).collect();
        models.sort_by(|one, other| one.name.cmp(&other.name));
        Snapshot { models }
    }

    pub(crate) fn is_ready(&self) -> bool {
        let answers = |entry: &Entry| entry.slots.iter().any(|slot| slot.served.is_some());
        self.models.values().all(|entry| !entry.is_wanted || answers(entry))
    }
}
