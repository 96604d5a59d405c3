//! Which models the metrics tell apart.
//!
//! A version gets a place with its first call, or at a scrape while there is room for all. Places are bounded: what
//! comes when all are taken by versions that still answer is counted at place 0, under the name `other`, so that
//! thousands of models cost a scrape no more than a hundred. The place of a version that is gone keeps its counts
//! until a new version needs it.
//!
//! Not here: counting (`counts`).

use std::sync::Arc;

use parking_lot::Mutex;

use super::Metrics;
use crate::served::Personality;

/// The place of all models that have none.
pub(super) const OTHER: usize = 0;

/// A version's place, which the version holds as long as it lives.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    /// Where it is counted.
    pub(crate) place: usize,
    /// Who is asked for a sample of its calls too, as a place in the list of shadows.
    pub(crate) shadow: Option<usize>,
    /// What its answers say of it, as headers.
    pub(crate) headers: Box<[u8]>,
    _held: Option<Arc<()>>,
}

impl Slot {
    fn new(place: usize, held: Option<Arc<()>>) -> Self {
        Self { place, shadow: None, headers: Box::default(), _held: held }
    }
}

/// Whose counts lie at a place.
#[derive(Debug, Clone)]
pub(super) struct Label {
    pub(super) name: Arc<str>,
    pub(super) version: Option<u64>,
    pub(super) personality: Personality,
    /// Held by all versions of this name and number that live, and by this table.
    held: Arc<()>,
}

impl Label {
    fn is_gone(&self) -> bool {
        Arc::strong_count(&self.held) == 1
    }
}

/// The places of one server.
#[derive(Debug)]
pub(crate) struct Labels {
    max: usize,
    workers: Vec<Arc<Metrics>>,
    /// The label at index `i` has place `i + 1`.
    table: Mutex<Vec<Label>>,
}

impl Labels {
    /// Places for so many models in these workers' counts.
    pub(crate) fn new(max: usize, workers: Vec<Arc<Metrics>>) -> Self {
        Self { max, workers, table: Mutex::default() }
    }

    /// How many places there are.
    pub(super) fn max(&self) -> usize {
        self.max
    }

    /// The workers that count.
    pub(super) fn workers(&self) -> &[Arc<Metrics>] {
        &self.workers
    }

    /// A place for a version. Locks; called once in a version's life.
    pub(crate) fn assign(&self, name: &Arc<str>, version: Option<u64>, personality: Personality) -> Slot {
        let mut table = self.table.lock();
        let is_same = |label: &Label| {
            label.version == version && label.name == *name && label.personality == personality
        };
        if let Some(at) = table.iter().position(is_same) {
            return Slot::new(at + 1, Some(table[at].held.clone()));
        }
        let held = Arc::new(());
        let label = Label { name: name.clone(), version, personality, held: held.clone() };
        if table.len() < self.max {
            table.push(label);
            return Slot::new(table.len(), Some(held));
        }
        let Some(at) = table.iter().position(Label::is_gone) else {
            return Slot::new(OTHER, None);
        };
        self.workers.iter().for_each(|worker| worker.of(at + 1).reset());
        table[at] = label;
        Slot::new(at + 1, Some(held))
    }

    /// Whether so many versions have places without taking any from each other.
    pub(super) fn has_room_for(&self, versions: usize) -> bool {
        versions <= self.max
    }

    /// All places that are taken, with the labels there.
    pub(super) fn all(&self) -> Vec<(usize, Label)> {
        self.table.lock().iter().enumerate().map(|(at, label)| (at + 1, label.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    #[test]
    fn places_are_bounded_kept_and_reused_when_their_version_is_gone() {
        let worker = Arc::new(Metrics::new(2));
        let labels = Labels::new(2, vec![worker.clone()]);
        let assign = |name: &str, version| labels.assign(&name.into(), Some(version), Personality::Kserve);
        let (one, two) = (assign("a", 1), assign("a", 2));
        assert_eq!((one.place, two.place), (1, 2));
        assert_eq!(assign("b", 1).place, OTHER);
        // A reloaded version goes on where it was.
        let again = assign("a", 1);
        assert_eq!(again.place, 1);
        worker.of(1).begin();
        drop(one);
        assert_eq!(assign("b", 1).place, OTHER);
        drop(again);
        let three = assign("b", 1);
        assert_eq!(three.place, 1);
        assert_eq!(worker.of(1).begun.load(Relaxed), 0);
        assert_eq!(labels.all().iter().map(|(_, label)| &*label.name).collect::<Vec<_>>(), ["b", "a"]);
    }
}
