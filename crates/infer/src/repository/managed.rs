//! One model as the manager sees it: what is wanted, what is there, and what to do next.
//!
//! The rule that keeps a model answering: a version that is no longer wanted goes only when a wanted one answers (or
//! none is wanted at all), as TensorFlow Serving's availability-preserving policy says. A version that cannot be read
//! therefore costs nothing but itself. [`Managed::decide`] is pure; the manager carries its steps out.
//!
//! Not here: disks and threads (`manager`).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::index::{Entry, Slot, State};
use crate::config::{Found, Model};
use crate::served::Served;

/// A version's number, where the folder has versions.
pub(super) type Key = Option<u64>;

/// Versions that ended and are still reported, at most.
const ENDED_MAX: usize = 8;

/// What to do for a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Read this version (again).
    Read(Key),
    /// Let this version answer no new requests.
    Unload(Key),
    /// Stop reporting this version.
    Forget(Key),
}

/// A version that is wanted and lies on disk.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) found: Found,
    /// Of its files when they were last looked at.
    pub(super) mark: u64,
    /// Whether its files stayed the same between two looks, or somebody said that they are complete.
    pub(super) is_settled: bool,
}

/// A version that is or was there.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) state: State,
    pub(super) error: Option<String>,
    /// Why the files that were to replace this version, which answers, cannot be read.
    pub(super) replacement_error: Option<String>,
    pub(super) served: Option<Arc<Served>>,
    /// Of the files that answer or that failed.
    pub(super) mark: u64,
    /// Where these files are.
    pub(super) path: PathBuf,
    /// Of the files that are being read.
    pub(super) reading: Option<u64>,
    pub(super) failures: u32,
    pub(super) retry_at: Option<Instant>,
}

impl Record {
    pub(super) fn new() -> Self {
        Self {
            state: State::Start,
            error: None,
            replacement_error: None,
            served: None,
            mark: 0,
            path: PathBuf::new(),
            reading: None,
            failures: 0,
            retry_at: None,
        }
    }

    /// Takes in what became of reading.
    pub(super) fn read(&mut self, result: Result<Arc<Served>, String>, now: Instant, retry: Retry) {
        self.mark = self.reading.take().unwrap_or(self.mark);
        match result {
            Ok(served) => {
                *self = Self {
                    state: State::Available,
                    served: Some(served),
                    mark: self.mark,
                    path: std::mem::take(&mut self.path),
                    ..Self::new()
                };
            }
            Err(error) => {
                self.failures += 1;
                self.retry_at = (self.failures <= retry.times_max).then(|| now + retry.wait);
                // Files that replace a version in place and cannot be read leave that version as it is.
                if self.served.is_some() {
                    self.replacement_error = Some(error);
                } else {
                    (self.state, self.error) = (State::End, Some(error));
                }
            }
        }
    }

    fn may_be_read(&self, wanted: &Wanted, now: Instant) -> bool {
        if self.reading.is_some() {
            return false;
        }
        let is_moved = wanted.found.path != self.path;
        let is_changed = wanted.is_settled && (wanted.mark != self.mark || is_moved);
        let is_due = self.retry_at.is_some_and(|at| at <= now);
        match (&self.served, self.state) {
            // A numbered version never changes once it answers; a plain folder is replaced in place.
            (Some(_), _) => (is_changed && (wanted.found.version.is_none() || is_moved)) || is_due,
            (None, State::End) if self.error.is_some() => is_changed || is_due,
            (None, _) => wanted.is_settled,
        }
    }
}

/// How failures are tried again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retry {
    pub(super) times_max: u32,
    pub(super) wait: Duration,
}

/// One model.
#[derive(Debug)]
pub(super) struct Managed {
    pub(super) model: Model,
    /// No more in the list: it goes, and then nobody knows of it.
    pub(super) is_removed: bool,
    /// Unloaded by a call, or not loaded yet where calls load: it goes, and is known.
    pub(super) is_held: bool,
    /// Loaded by the first call that needs it, and unloaded where the room is needed for another.
    pub(super) is_lazy: bool,
    /// Whether a lazy model is to be there now.
    pub(super) is_awake: bool,
    pub(super) wanted: BTreeMap<Key, Wanted>,
    pub(super) records: BTreeMap<Key, Record>,
    /// Why its folder could not be looked through.
    pub(super) scan_error: Option<String>,
}

impl Managed {
    pub(super) fn new(model: Model) -> Self {
        Self {
            model,
            is_removed: false,
            is_held: false,
            is_lazy: false,
            is_awake: false,
            wanted: BTreeMap::new(),
            records: BTreeMap::new(),
            scan_error: None,
        }
    }

    /// Whether nothing of it is wanted.
    pub(super) fn rests(&self) -> bool {
        self.is_removed || self.is_held || self.sleeps()
    }

    /// Whether it waits for a call that needs it.
    pub(super) fn sleeps(&self) -> bool {
        self.is_lazy && !self.is_awake
    }

    fn answers(&self) -> bool {
        self.records.values().any(|record| record.served.is_some())
    }

    fn is_reading(&self) -> bool {
        self.records.values().any(|record| record.reading.is_some())
    }

    /// Whether a lazy model was tried, and nothing came of it; then it goes to sleep when the next try may be made,
    /// so that it is made by a call that needs it.
    pub(super) fn is_to_sleep(&self, now: Instant) -> bool {
        let is_over = |record: &Record| record.retry_at.is_none_or(|at| at <= now);
        let failed = self.wanted.is_empty() || self.records.values().any(|record| record.error.is_some());
        let is_idle = !self.answers() && !self.is_reading();
        self.is_lazy && self.is_awake && failed && is_idle && self.records.values().all(is_over)
    }

    /// Whether it answers and nothing of it is being read, so that it may be put to sleep.
    pub(super) fn is_idle(&self) -> bool {
        self.answers() && !self.is_reading()
    }

    /// Bytes of its versions that answer.
    pub(super) fn bytes(&self) -> u64 {
        self.records.values().flat_map(|record| &record.served).map(|served| served.about.bytes).sum()
    }

    /// Takes in what the list now says of the model. A description that cannot be served changes nothing.
    pub(super) fn become_model(&mut self, model: Model) {
        if model.error.is_some() {
            self.scan_error.clone_from(&model.error);
            return;
        }
        self.model = model;
    }

    /// Takes in a look at the disk: the versions and the marks of their files.
    pub(super) fn saw(&mut self, found: Vec<(Found, u64)>, is_told: bool) {
        let before = std::mem::take(&mut self.wanted);
        for (found, mark) in found {
            let seen = before.get(&found.version);
            let is_settled = is_told || seen.is_some_and(|seen| seen.mark == mark);
            self.wanted.insert(found.version, Wanted { found, mark, is_settled });
        }
    }

    /// What to do now.
    pub(super) fn decide(&self, now: Instant) -> Vec<Step> {
        let mut steps = Vec::new();
        let is_wanted = |key: &Key| !self.rests() && self.wanted.contains_key(key);
        if !self.rests() {
            for (key, wanted) in &self.wanted {
                let may = match self.records.get(key) {
                    Some(record) => record.may_be_read(wanted, now),
                    None => wanted.is_settled,
                };
                if may {
                    steps.push(Step::Read(*key));
                }
            }
        }
        let nothing_wanted = self.rests() || self.wanted.is_empty();
        let one_answers = self.records.iter().any(|(key, record)| is_wanted(key) && record.served.is_some());
        let mut ended = 0;
        // From the newest down, so that the oldest are forgotten.
        for (key, record) in self.records.iter().rev() {
            if is_wanted(key) || record.reading.is_some() {
                continue;
            }
            match record.state {
                State::Available if nothing_wanted || one_answers => steps.push(Step::Unload(*key)),
                State::End => {
                    ended += 1;
                    if ended > ENDED_MAX || self.sleeps() {
                        steps.push(Step::Forget(*key));
                    }
                }
                _ => {}
            }
        }
        steps
    }

    /// When `decide` may say something new without an event.
    pub(super) fn next_retry(&self) -> Option<Instant> {
        self.records
            .values()
            .filter(|record| record.reading.is_none())
            .filter_map(|record| record.retry_at)
            .min()
    }

    /// Whether everything wanted was tried.
    pub(super) fn is_settled(&self) -> bool {
        self.records.values().all(|record| record.reading.is_none())
            && (self.rests() || self.wanted.keys().all(|key| self.records.contains_key(key)))
    }

    /// Why nothing answers, if nothing does.
    pub(super) fn failure(&self) -> Option<String> {
        if self.answers() {
            return None;
        }
        let why = self.records.values().rev().find_map(|record| record.error.clone());
        let why = why.or_else(|| self.scan_error.clone());
        Some(why.unwrap_or_else(|| "the folder holds no version that is wanted".to_owned()))
    }

    /// Why the newest wanted version does not answer, if it failed.
    pub(super) fn newest_failure(&self) -> Option<String> {
        let (key, _) = self.wanted.last_key_value()?;
        let record = self.records.get(key)?;
        let error = if record.served.is_none() { &record.error } else { &record.replacement_error };
        error.clone()
    }

    /// Labels that are asked for and cannot be given.
    pub(super) fn labels_in_vain(&self) -> Vec<String> {
        let answers = |version: &u64| self.record_of(*version).is_some_and(|record| record.served.is_some());
        let vain = self.model.labels.iter().filter(|(_, version)| !answers(version));
        vain.map(|(label, version)| format!("{label} (version {version} does not answer)")).collect()
    }

    fn record_of(&self, version: u64) -> Option<&Record> {
        self.records.get(&Some(version)).or_else(|| self.records.get(&None).filter(|_| version == 1))
    }

    /// The model as requests see it.
    pub(super) fn entry(&self, labels_ahead: bool) -> Entry {
        let answers = |version: u64| self.record_of(version).is_some_and(|record| record.served.is_some());
        let labels = self.model.labels.iter().filter(|(_, version)| labels_ahead || answers(**version));
        let slot = |(key, record): (&Key, &Record)| Slot {
            version: *key,
            state: record.state,
            error: record.error.clone(),
            served: record.served.clone(),
        };
        let mut slots: Vec<Slot> = self.records.iter().map(slot).collect();
        if slots.is_empty() && self.is_lazy {
            // Its folder is looked at when it is needed; what was in it then is known.
            let version = self.wanted.keys().next_back().copied().flatten();
            slots.push(Slot { version, state: State::Start, error: None, served: None });
        }
        let failed = self.records.values().any(|record| record.error.is_some());
        let comes = self.is_lazy && (self.sleeps() || self.is_reading() || !failed);
        Entry {
            name: self.model.name.clone(),
            personality: self.model.personality,
            is_wanted: !self.rests() && !self.is_lazy,
            is_asleep: comes && !self.is_held && !self.is_removed && !self.answers(),
            labels: labels.map(|(label, version)| (label.clone(), *version)).collect(),
            slots,
        }
    }
}

#[cfg(test)]
mod tests {
    use models::{BackendError, Batch, DType, Outputs, Signature, TensorSpec};

    use super::*;

    struct Nothing(Signature);

    impl models::Backend for Nothing {
        fn signature(&self) -> &Signature {
            &self.0
        }
        fn row_cost_ns(&self) -> u64 {
            1
        }
        fn run(&self, _batch: &Batch<'_>, _outputs: &mut Outputs) -> Result<(), BackendError> {
            Ok(())
        }
    }

    fn served() -> Arc<Served> {
        let spec = TensorSpec::new("input-0", DType::F64, [Some(1)]);
        let signature = Signature { inputs: vec![spec.clone()], outputs: vec![spec], columns: Vec::new() };
        Arc::new(Served::new("m".into(), None, Default::default(), Box::new(Nothing(signature))))
    }

    fn record(word: &str) -> Record {
        let new = Record::new();
        match word {
            "up" => {
                let path = "/m".into();
                Record { state: State::Available, served: Some(served()), mark: 7, path, ..new }
            }
            "reading" => Record { state: State::Loading, reading: Some(7), ..new },
            "failed" => {
                Record { state: State::End, error: Some("bad".into()), mark: 7, path: "/m".into(), ..new }
            }
            "elsewhere" => Record { path: "/other".into(), ..record("up") },
            "due" => Record { retry_at: Some(Instant::now()), ..record("failed") },
            "ended" => Record { state: State::End, ..new },
            other => panic!("{other}"),
        }
    }

    fn managed(wanted: &[(Key, u64)], records: &[(Key, &str)]) -> Managed {
        let mut managed = Managed::new(Model::new("m", "/m"));
        let found = |key: Key, mark| (Found { version: key, path: "/m".into() }, mark);
        managed.saw(wanted.iter().map(|(key, mark)| found(*key, *mark)).collect(), true);
        managed.records = records.iter().map(|(key, word)| (*key, record(word))).collect();
        managed
    }

    #[test]
    fn a_version_goes_only_when_a_wanted_one_answers() {
        use Step::{Read, Unload};
        let (one, two) = (Some(1), Some(2));
        type Case<'a> = (&'a str, &'a [(Key, u64)], &'a [(Key, &'a str)], &'a [Step]);
        let cases: [Case<'_>; 13] = [
            ("the first is read", &[(one, 7)], &[], &[Read(one)]),
            ("what is read is not read again", &[(one, 7)], &[(one, "reading")], &[]),
            ("what answers stays", &[(one, 7)], &[(one, "up")], &[]),
            ("a numbered version does not change", &[(one, 8)], &[(one, "up")], &[]),
            ("a plain folder does", &[(None, 8)], &[(None, "up")], &[Read(None)]),
            ("a folder of the same number elsewhere", &[(one, 7)], &[(one, "elsewhere")], &[Read(one)]),
            ("load before unload", &[(two, 7)], &[(one, "up")], &[Read(two)]),
            ("and while it loads", &[(two, 7)], &[(one, "up"), (two, "reading")], &[]),
            ("and when it failed", &[(two, 7)], &[(one, "up"), (two, "failed")], &[]),
            ("then unload", &[(two, 7)], &[(one, "up"), (two, "up")], &[Unload(one)]),
            ("better files are tried", &[(two, 8)], &[(two, "failed")], &[Read(two)]),
            ("a retry is due", &[(two, 7)], &[(two, "due")], &[Read(two)]),
            ("all is taken away", &[], &[(one, "up"), (two, "ended")], &[Unload(one)]),
        ];
        for (name, wanted, records, want) in cases {
            assert_eq!(managed(wanted, records).decide(Instant::now()), want, "{name}");
        }
        let mut held = managed(&[(one, 7)], &[(one, "up")]);
        held.is_held = true;
        assert_eq!(held.decide(Instant::now()), [Unload(one)]);
    }

    #[test]
    fn what_was_read_is_not_read_again() {
        let retry = Retry { times_max: 1, wait: Duration::from_secs(60) };
        for key in [None, Some(1)] {
            let mut managed = managed(&[(key, 7)], &[]);
            let new = Record { reading: Some(7), path: "/m".into(), ..Record::new() };
            managed.records.insert(key, new);
            managed.records.get_mut(&key).expect("a record").read(Ok(served()), Instant::now(), retry);
            assert_eq!(managed.decide(Instant::now()), [], "{key:?}");
        }
    }

    #[test]
    fn files_that_still_grow_are_not_read() {
        let found = Found { version: Some(2), path: "/m/2".into() };
        let mut managed = managed(&[], &[]);
        for (mark, want) in [(1, &[][..]), (2, &[]), (2, &[Step::Read(Some(2))])] {
            managed.saw(vec![(found.clone(), mark)], false);
            assert_eq!(managed.decide(Instant::now()), want, "{mark}");
        }
    }

    #[test]
    fn a_failed_replacement_leaves_the_version_that_answers() {
        let now = Instant::now();
        let retry = Retry { times_max: 1, wait: Duration::from_secs(60) };
        let mut managed = managed(&[(None, 8)], &[(None, "up")]);
        let record = managed.records.get_mut(&None).expect("a record");
        record.reading = Some(8);
        record.read(Err("half a file".into()), now, retry);
        assert_eq!((record.state, record.error.clone()), (State::Available, None));
        assert!(record.served.is_some());
        assert_eq!(managed.decide(now), [], "the same files are not read over and over");
        assert_eq!(managed.next_retry(), Some(now + retry.wait));
        assert_eq!(managed.decide(now + retry.wait), [Step::Read(None)]);
    }

    #[test]
    fn labels_are_carried_by_versions_that_answer() {
        let mut managed = managed(&[(Some(2), 7)], &[(Some(2), "up")]);
        managed.model.labels = [("stable".to_owned(), 2), ("canary".to_owned(), 3)].into();
        assert_eq!(managed.entry(false).labels.keys().collect::<Vec<_>>(), ["stable"]);
        assert_eq!(managed.entry(true).labels.len(), 2);
        assert_eq!(managed.labels_in_vain(), ["canary (version 3 does not answer)"]);
    }
}
