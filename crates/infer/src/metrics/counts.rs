//! What is counted of one model's version, by one worker.
//!
//! Times are kept in nanoseconds. Two families of buckets are needed: those of KServe's histograms, with finer ones
//! below its first (5 ms), where this server lives; and TensorFlow Serving's, which grow by 1.8 from 10 us.
//!
//! Not here: which model (`labels`), text (`page`).

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::refusal::Reason;

/// Upper bounds of a phase of a call, in nanoseconds; one more bucket is unbounded.
pub(super) const PHASE: [u64; 22] = [
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    75_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    750_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    7_500_000_000,
    10_000_000_000,
];
/// The same of a whole call: 10 us, and 1.8 times as much from one to the next, as TensorFlow Serving has them.
pub(super) const WHOLE: [u64; 33] = growing();
/// Upper bounds of rows in a request: 1, 2, 4 … 16,384, as TensorFlow Serving has them.
pub(super) const ROWS: [u64; 15] = doubling();

const fn growing() -> [u64; 33] {
    let mut bounds = [0; 33];
    let (mut place, mut bound) = (0, 10_000.0);
    while place < bounds.len() {
        bounds[place] = bound as u64;
        bound *= 1.8;
        place += 1;
    }
    bounds
}

const fn doubling() -> [u64; 15] {
    let mut bounds = [0; 15];
    let mut place = 0;
    while place < bounds.len() {
        bounds[place] = 1 << place;
        place += 1;
    }
    bounds
}

/// What a call asks of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Api {
    /// `:predict` and `Predict`.
    Predict,
    /// The Open Inference Protocol.
    Infer,
    /// `:explain`.
    Explain,
    /// TensorFlow Serving's `Classify`.
    Classify,
    /// TensorFlow Serving's `Regress`.
    Regress,
}

impl Api {
    pub(super) const ALL: [Self; 5] =
        [Self::Predict, Self::Infer, Self::Explain, Self::Classify, Self::Regress];

    /// The word in labels and records, as TensorFlow Serving writes its own.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Predict => "Predict",
            Self::Infer => "Infer",
            Self::Explain => "Explain",
            Self::Classify => "Classify",
            Self::Regress => "Regress",
        }
    }
}

/// Which way a call came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// HTTP with a body in the form of its protocol.
    Rest,
    /// gRPC.
    Grpc,
}

impl Entry {
    pub(super) const ALL: [Self; 2] = [Self::Rest, Self::Grpc];

    /// The word in labels and records, as TensorFlow Serving writes it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Rest => "REST",
            Self::Grpc => "GRPC",
        }
    }
}

/// A call's way as a place in tables.
pub(super) fn way(api: Api, entry: Entry) -> usize {
    api as usize * Entry::ALL.len() + entry as usize
}

/// All ways, in the order of their places.
pub(super) fn ways() -> impl Iterator<Item = (Api, Entry)> {
    Api::ALL.into_iter().flat_map(|api| Entry::ALL.into_iter().map(move |entry| (api, entry)))
}

/// How many ways there are.
pub(super) const WAYS: usize = Api::ALL.len() * Entry::ALL.len();

/// Counts in buckets. `N` is one more than there are bounds.
#[derive(Debug)]
pub(crate) struct Histogram<const N: usize> {
    buckets: [AtomicU64; N],
    sum: AtomicU64,
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Self {
        Self { buckets: std::array::from_fn(|_| AtomicU64::new(0)), sum: AtomicU64::new(0) }
    }
}

impl<const N: usize> Histogram<N> {
    fn observe(&self, bounds: &[u64], value: u64) {
        let bucket = bounds.iter().position(|bound| value <= *bound).unwrap_or(bounds.len());
        self.buckets[bucket.min(N - 1)].fetch_add(1, Relaxed);
        self.sum.fetch_add(value, Relaxed);
    }

    fn reset(&self) {
        self.buckets.iter().for_each(|bucket| bucket.store(0, Relaxed));
        self.sum.store(0, Relaxed);
    }
}

/// The phases of a call that ended, in nanoseconds. A phase that was not reached is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Phases {
    /// Reading the body.
    pub(crate) parse: Option<u64>,
    /// Evaluating, with what waiting that takes.
    pub(crate) predict: Option<u64>,
    /// Writing the answer.
    pub(crate) write: Option<u64>,
    /// Explaining, which is all of these at once.
    pub(crate) explain: Option<u64>,
}

/// What one worker counts of one version.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Counts {
    pub(super) begun: AtomicU64,
    /// By the way in.
    pub(super) answered: [AtomicU64; Entry::ALL.len()],
    pub(super) refused: [[AtomicU64; Reason::ALL.len()]; Entry::ALL.len()],
    pub(super) rows: Histogram<{ ROWS.len() + 1 }>,
    pub(super) parse: Histogram<{ PHASE.len() + 1 }>,
    pub(super) predict: Histogram<{ PHASE.len() + 1 }>,
    pub(super) write: Histogram<{ PHASE.len() + 1 }>,
    pub(super) explain: Histogram<{ PHASE.len() + 1 }>,
    /// Whole calls by their ways, nearly all of which no client of a model goes.
    pub(super) whole: [OnceLock<Box<Histogram<{ WHOLE.len() + 1 }>>>; WAYS],
    /// Evaluations alone, in the buckets of whole calls: only TensorFlow Serving's models are asked for it.
    pub(super) runtime: [OnceLock<Box<Histogram<{ WHOLE.len() + 1 }>>>; Api::ALL.len()],
}

impl Counts {
    /// A call begins.
    pub(crate) fn begin(&self) {
        self.begun.fetch_add(1, Relaxed);
    }

    /// A call ends: answered where there is no reason why not. `whole` is in nanoseconds.
    pub(crate) fn end(&self, (api, entry): (Api, Entry), reason: Option<Reason>, whole: u64, phases: Phases) {
        match reason {
            None => &self.answered[entry as usize],
            Some(reason) => &self.refused[entry as usize][reason.index()],
        }
        .fetch_add(1, Relaxed);
        for (phase, histogram) in [
            (phases.parse, &self.parse),
            (phases.predict, &self.predict),
            (phases.write, &self.write),
            (phases.explain, &self.explain),
        ] {
            if let Some(time) = phase {
                histogram.observe(&PHASE, time);
            }
        }
        self.whole[way(api, entry)].get_or_init(Box::default).observe(&WHOLE, whole);
    }

    /// Rows of a call that was evaluated.
    pub(crate) fn rows(&self, rows: usize) {
        self.rows.observe(&ROWS, rows as u64);
    }

    /// How long an evaluation took, in nanoseconds.
    pub(crate) fn runtime(&self, api: Api, time: u64) {
        self.runtime[api as usize].get_or_init(Box::default).observe(&WHOLE, time);
    }

    /// Forgets everything. Nobody may be counting here meanwhile.
    pub(super) fn reset(&self) {
        self.begun.store(0, Relaxed);
        for count in self.answered.iter().chain(self.refused.iter().flatten()) {
            count.store(0, Relaxed);
        }
        self.rows.reset();
        for histogram in [&self.parse, &self.predict, &self.write, &self.explain] {
            histogram.reset();
        }
        for histogram in self.whole.iter().chain(&self.runtime).filter_map(OnceLock::get) {
            histogram.reset();
        }
    }
}

/// A histogram added up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tally<const N: usize> {
    pub(super) buckets: [u64; N],
    pub(super) sum: u64,
}

impl<const N: usize> Default for Tally<N> {
    fn default() -> Self {
        Self { buckets: [0; N], sum: 0 }
    }
}

impl<const N: usize> Tally<N> {
    pub(super) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    fn add(&mut self, histogram: &Histogram<N>) {
        for (sum, bucket) in self.buckets.iter_mut().zip(&histogram.buckets) {
            *sum += bucket.load(Relaxed);
        }
        self.sum = self.sum.wrapping_add(histogram.sum.load(Relaxed));
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (sum, bucket) in self.buckets.iter_mut().zip(other.buckets) {
            *sum += bucket;
        }
        self.sum = self.sum.wrapping_add(other.sum);
    }
}

/// All workers' counts of one version, or of all versions of a model, added up.
#[derive(Debug, Clone, Default)]
pub(super) struct Totals {
    pub(super) begun: u64,
    pub(super) answered: [u64; Entry::ALL.len()],
    pub(super) refused: [[u64; Reason::ALL.len()]; Entry::ALL.len()],
    pub(super) rows: Tally<{ ROWS.len() + 1 }>,
    pub(super) parse: Tally<{ PHASE.len() + 1 }>,
    pub(super) predict: Tally<{ PHASE.len() + 1 }>,
    pub(super) write: Tally<{ PHASE.len() + 1 }>,
    pub(super) explain: Tally<{ PHASE.len() + 1 }>,
    pub(super) whole: [Tally<{ WHOLE.len() + 1 }>; WAYS],
    pub(super) runtime: [Tally<{ WHOLE.len() + 1 }>; Api::ALL.len()],
}

impl Totals {
    /// Adds one worker's counts.
    pub(super) fn add(&mut self, counts: &Counts) {
        // What ended is read before what began, so that no call seems to have ended that never began.
        for (sum, count) in self.answered.iter_mut().zip(&counts.answered) {
            *sum += count.load(Relaxed);
        }
        for (sum, count) in self.refused.iter_mut().flatten().zip(counts.refused.iter().flatten()) {
            *sum += count.load(Relaxed);
        }
        self.begun += counts.begun.load(Relaxed);
        self.rows.add(&counts.rows);
        self.parse.add(&counts.parse);
        self.predict.add(&counts.predict);
        self.write.add(&counts.write);
        self.explain.add(&counts.explain);
        for (tally, histogram) in self.whole.iter_mut().zip(&counts.whole) {
            histogram.get().into_iter().for_each(|histogram| tally.add(histogram));
        }
        for (tally, histogram) in self.runtime.iter_mut().zip(&counts.runtime) {
            histogram.get().into_iter().for_each(|histogram| tally.add(histogram));
        }
    }

    /// Adds another version's.
    pub(super) fn merge(&mut self, other: &Self) {
        self.begun += other.begun;
        for (sum, count) in self.answered.iter_mut().zip(other.answered) {
            *sum += count;
        }
        for (sum, count) in self.refused.iter_mut().flatten().zip(other.refused.iter().flatten()) {
            *sum += count;
        }
        self.rows.merge(&other.rows);
        self.parse.merge(&other.parse);
        self.predict.merge(&other.predict);
        self.write.merge(&other.write);
        self.explain.merge(&other.explain);
        for (tally, more) in self.whole.iter_mut().zip(&other.whole) {
            tally.merge(more);
        }
        for (tally, more) in self.runtime.iter_mut().zip(&other.runtime) {
            tally.merge(more);
        }
    }

    /// Calls that were answered.
    pub(super) fn succeeded(&self) -> u64 {
        self.answered.iter().sum()
    }

    /// Calls that were refused.
    pub(super) fn failed(&self) -> u64 {
        self.refused.iter().flatten().sum()
    }

    /// Calls that were refused for this reason.
    pub(super) fn failed_for(&self, reason: Reason) -> u64 {
        self.refused.iter().map(|entry| entry[reason.index()]).sum()
    }

    /// Calls under way.
    pub(super) fn under_way(&self) -> u64 {
        self.begun.saturating_sub(self.succeeded() + self.failed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_those_of_tensorflow_serving() {
        assert_eq!(&WHOLE[..4], &[10_000, 18_000, 32_400, 58_320]);
        // Some 20 minutes, as its source says.
        assert!((1_400..1_600).contains(&(WHOLE[32] / 1_000_000_000)), "{}", WHOLE[32]);
        assert_eq!((ROWS[0], ROWS[14]), (1, 16_384));
    }

    #[test]
    fn what_is_counted_is_added_up_and_can_be_forgotten() {
        let counts = Counts::default();
        let phases = Phases { parse: Some(7_000), predict: Some(20_000_000_000), ..Phases::default() };
        counts.begin();
        counts.begin();
        counts.begin();
        counts.end((Api::Infer, Entry::Grpc), None, 15_000, phases);
        counts.end((Api::Infer, Entry::Grpc), Some(Reason::Shed), 15_000, Phases::default());
        counts.rows(3);
        let mut totals = Totals::default();
        totals.add(&counts);
        totals.add(&counts);
        let whole = &totals.whole[way(Api::Infer, Entry::Grpc)];
        assert_eq!((totals.begun, totals.succeeded(), totals.failed(), totals.under_way()), (6, 2, 2, 2));
        assert_eq!((whole.buckets[1], whole.count(), whole.sum), (4, 4, 60_000));
        assert_eq!((totals.parse.buckets[1], totals.predict.buckets[PHASE.len()]), (2, 2));
        assert_eq!((totals.rows.buckets[2], totals.rows.sum), (2, 6));
        counts.reset();
        let mut totals = Totals::default();
        totals.add(&counts);
        assert_eq!((totals.begun, totals.failed(), totals.whole[3].count()), (0, 0, 0));
    }
}
