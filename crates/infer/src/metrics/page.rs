//! The whole of a scrape.
//!
//! Not here: how the names and labels of each peer look (`peers`), how a line looks (`text`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::counts::Totals;
use super::labels::OTHER;
use super::text::Text;
use super::{own, peers, process, queues, stores};
use crate::served::{Personality, Served};
use crate::shared::Shared;

/// Counts of one version.
pub(super) struct Row {
    pub(super) name: Arc<str>,
    pub(super) version: Option<u64>,
    pub(super) personality: Personality,
    pub(super) totals: Totals,
    pub(super) queued: Queued,
}

/// What the queue of a version that answers has counted.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Queued {
    /// Calls that ran in batches.
    pub(super) calls: u64,
    /// These batches.
    pub(super) batches: u64,
    /// How long calls waited, in nanoseconds.
    pub(super) age_ns: u64,
}

impl Queued {
    fn of(served: &Served) -> Self {
        let Some(counts) = served.queue.counts() else { return Self::default() };
        let [calls, batches, age_ns] =
            [&counts.calls, &counts.batches, &counts.age_ns].map(|count| count.load(Relaxed));
        Self { calls, batches, age_ns }
    }
}

impl Row {
    /// The version's number as its peers write it; what has none is version 1.
    pub(super) fn version(&self) -> String {
        self.version.unwrap_or(1).to_string()
    }
}

/// All versions with the same name added up, in the order of names.
pub(super) fn by_name(rows: &[Row], personality: Personality) -> BTreeMap<Arc<str>, Totals> {
    let mut all: BTreeMap<Arc<str>, Totals> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.personality == personality) {
        all.entry(row.name.clone()).or_default().merge(&row.totals);
    }
    all
}

/// Writes what a scrape reads.
pub(crate) fn render(shared: &Shared) -> String {
    let mut text = Text::default();
    let answering = answering(shared);
    let rows = rows(shared, &answering);
    peers::write(&mut text, &rows);
    own::write(&mut text, shared, &rows);
    let shown = &answering[..answering.len().min(shared.labels.max())];
    queues::write(&mut text, shown);
    stores::cache(&mut text, shown);
    stores::workers(&mut text, shown);
    stores::lazy(&mut text, &shared.repository);
    process::write(&mut text);
    text.0
}

/// The versions that answer, in the order of names and versions.
fn answering(shared: &Shared) -> Vec<Arc<Served>> {
    let models = shared.repository.snapshot().models.into_iter();
    models.flat_map(|model| model.versions.into_iter().filter_map(|version| version.served)).collect()
}

/// The counts of all places, in the order of names and versions; the place of all others last, and only when
/// something was counted there.
fn rows(shared: &Shared, answering: &[Arc<Served>]) -> Vec<Row> {
    let labels = &shared.labels;
    // A model that nobody has called yet shows zeros, which is what a rate begins from.
    if labels.has_room_for(answering.len()) {
        answering.iter().for_each(|served| _ = shared.slot(served));
    }
    let sum = |place: usize| {
        let mut totals = Totals::default();
        labels.workers().iter().filter_map(|worker| worker.seen(place)).for_each(|counts| totals.add(counts));
        totals
    };
    let mut rows: Vec<Row> = labels
        .all()
        .into_iter()
        .map(|(place, label)| Row {
            name: label.name,
            version: label.version,
            personality: label.personality,
            totals: sum(place),
            queued: Queued::default(),
        })
        .collect();
    rows.sort_by(|one, other| (&one.name, one.version).cmp(&(&other.name, other.version)));
    for row in &mut rows {
        let is_own = |served: &&Arc<Served>| served.name == row.name && served.version == row.version;
        row.queued = answering.iter().find(is_own).map(|served| Queued::of(served)).unwrap_or_default();
    }
    let others = sum(OTHER);
    if others.begun > 0 {
        let personality = shared.personality;
        rows.push(Row {
            name: "other".into(),
            version: None,
            personality,
            totals: others,
            queued: Queued::default(),
        });
    }
    rows
}

/// A sum over all workers.
pub(super) fn over_workers(shared: &Shared, of: impl Fn(&super::Metrics) -> u64) -> u64 {
    shared.metrics.iter().map(|metrics| of(metrics)).sum()
}

/// Answers by class of status.
pub(super) fn answered(shared: &Shared) -> [(&'static str, u64); 3] {
    let class = |index: usize| over_workers(shared, |metrics| metrics.answered[index].load(Relaxed));
    [("2xx", class(0)), ("4xx", class(1)), ("5xx", class(2))]
}
