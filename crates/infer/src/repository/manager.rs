//! The thread that changes what is served.
//!
//! It owns the truth about all models, looks through their folders, has versions read by threads of their own, and
//! publishes an index after each change. Everything that happens reaches it as an [`Event`], one after the other, so
//! that nothing here is locked.
//!
//! Folders are looked through at intervals, not watched: models lie on network volumes and behind the links of
//! Kubernetes' volumes, whose changes no kernel reports.
//!
//! Not here: what to do (`managed`), how others ask (`control`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use tokio::sync::oneshot;

use super::index::{Index, State};
use super::managed::{Key, Managed, Record, Retry, Step};
use crate::config::{Config, Loading, Model, scan};
use crate::load::{self, Order};
use crate::refusal::{Reason, Refusal};
use crate::served::{Gone, Served};

/// Where an answer goes.
pub(super) type Answer = oneshot::Sender<Result<(), Failed>>;

/// Why a model does not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failed {
    pub(crate) model: Arc<str>,
    pub(crate) path: std::path::PathBuf,
    pub(crate) reason: Reason,
    pub(crate) why: String,
}

/// What reaches the manager.
pub(super) enum Event {
    /// A version was read.
    Read { name: Arc<str>, key: Key, mark: u64, result: Result<Box<Served>, String> },
    /// The last request of a version ended.
    Gone { name: Arc<str>, key: Key },
    /// Answer when all models have been tried.
    Settle(Answer),
    /// Read a model (again).
    Load(Arc<str>, Answer),
    /// Let a model answer no more.
    Unload(Arc<str>, Answer),
    /// These models and no others.
    Reload(Vec<Model>, Answer),
    /// End.
    Stop,
}

struct Waiter {
    names: BTreeSet<Arc<str>>,
    with_labels: bool,
    answer: Answer,
}

pub(super) struct Manager {
    index: Arc<ArcSwap<Index>>,
    sender: Sender<Event>,
    loading: Loading,
    method: models::Method,
    limits: models::Limits,
    models: BTreeMap<Arc<str>, Managed>,
    changed: BTreeSet<Arc<str>>,
    waiters: Vec<Waiter>,
    queued: VecDeque<(Order, u64)>,
    readers: usize,
}

impl Manager {
    pub(super) fn new(config: &Config, index: Arc<ArcSwap<Index>>, sender: Sender<Event>) -> Self {
        Self {
            index,
            sender,
            loading: config.loading.clone(),
            method: config.method,
            limits: config.limits,
            models: BTreeMap::new(),
            changed: BTreeSet::new(),
            waiters: Vec::new(),
            queued: VecDeque::new(),
            readers: 0,
        }
    }

    /// Works until it is told to end.
    pub(super) fn run(mut self, models: Vec<Model>, events: &Receiver<Event>) {
        self.replace(models);
        let mut polled = Instant::now();
        self.act();
        loop {
            let mut event = match self.next_wake(polled) {
                None => events.recv().ok(),
                Some(at) => match events.recv_deadline(at) {
                    Ok(event) => Some(event),
                    Err(RecvTimeoutError::Timeout) => {
                        let is_due = self.loading.poll.is_some_and(|poll| polled.elapsed() >= poll);
                        if is_due {
                            self.look(|_| true, false);
                            polled = Instant::now();
                        }
                        self.act();
                        continue;
                    }
                    Err(RecvTimeoutError::Disconnected) => None,
                },
            };
            // What has piled up is published once.
            while let Some(happened) = event {
                if matches!(happened, Event::Stop) {
                    return;
                }
                self.take(happened);
                event = events.try_recv().ok();
            }
            self.act();
        }
    }

    fn next_wake(&self, polled: Instant) -> Option<Instant> {
        let poll = self.loading.poll.map(|poll| polled + poll.max(Duration::from_millis(10)));
        let retry = self.models.values().filter_map(Managed::next_retry).min();
        [poll, retry].into_iter().flatten().min()
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Read { name, key, mark, result } => self.read(&name, key, mark, result),
            Event::Gone { name, key } => {
                let record = self.models.get_mut(&name).and_then(|managed| managed.records.get_mut(&key));
                if let Some(record) = record.filter(|record| record.state == State::Unloading) {
                    record.state = State::End;
                    self.changed.insert(name);
                }
            }
            Event::Settle(answer) => {
                let names = self.models.keys().cloned().collect();
                self.waiters.push(Waiter { names, with_labels: false, answer });
            }
            Event::Load(name, answer) => match self.models.get_mut(&name) {
                Some(managed) => {
                    managed.is_held = false;
                    // Whoever asks for a load wants failures tried again.
                    managed.records.retain(|_, record| record.error.is_none() || record.reading.is_some());
                    self.look(|managed| managed.model.name == name, true);
                    self.waiters.push(Waiter { names: [name].into(), with_labels: false, answer });
                }
                None => self.no_such_model(&name, answer),
            },
            Event::Unload(name, answer) => match self.models.get_mut(&name) {
                Some(managed) => {
                    managed.is_held = true;
                    self.changed.insert(name);
                    self.act();
                    let _ = answer.send(Ok(()));
                }
                None => self.no_such_model(&name, answer),
            },
            Event::Reload(models, answer) => {
                let names = models.iter().map(|model| model.name.clone()).collect();
                self.replace(models);
                self.waiters.push(Waiter { names, with_labels: true, answer });
            }
            Event::Stop => {}
        }
    }

    fn no_such_model(&self, name: &Arc<str>, answer: Answer) {
        let why = format!("Model with name {name} does not exist.");
        let failed = Failed { model: name.clone(), path: Default::default(), reason: Reason::NotFound, why };
        let _ = answer.send(Err(failed));
    }

    /// Makes these the models. Those that are there already keep their versions.
    fn replace(&mut self, models: Vec<Model>) {
        let names: BTreeSet<Arc<str>> = models.iter().map(|model| model.name.clone()).collect();
        for (name, managed) in &mut self.models {
            if !names.contains(name) {
                managed.is_held = true;
                managed.wanted.clear();
                self.changed.insert(name.clone());
            }
        }
        for model in models {
            let name = model.name.clone();
            self.changed.insert(name.clone());
            match self.models.get_mut(&name) {
                Some(managed) => {
                    managed.is_held = false;
                    managed.model = model;
                }
                None => {
                    self.models.insert(name, Managed::new(model));
                }
            }
        }
        self.look(|_| true, true);
    }

    /// Looks through the folders of models. Where somebody said that files are complete, they are taken as they are.
    fn look(&mut self, which: impl Fn(&Managed) -> bool, is_told: bool) {
        for managed in self.models.values_mut().filter(|managed| !managed.is_held && which(managed)) {
            match scan(&managed.model.path, &managed.model.policy) {
                Ok(found) => {
                    managed.scan_error = None;
                    let with_mark = |found: crate::config::Found| {
                        // Files of a numbered version that answers are not looked at any more.
                        let known = managed.records.get(&found.version);
                        let known = known.filter(|record| found.version.is_some() && record.served.is_some());
                        let mark = known.map_or_else(|| found.mark(), |record| record.mark);
                        (found, mark)
                    };
                    let found = found.into_iter().map(with_mark).collect();
                    managed.saw(found, is_told);
                }
                // What cannot be looked at stays as it was: a volume that is away for a moment unloads nothing.
                Err(error) => {
                    let (name, path) = (&managed.model.name, managed.model.path.display());
                    let text = format!("cannot look through {path}: {error}");
                    if managed.scan_error.as_ref() != Some(&text) {
                        tracing::warn!(model = %name, %path, %error, "cannot look through the folder");
                    }
                    managed.scan_error = Some(text);
                }
            }
        }
    }

    /// Carries out what is to be done, publishes what changed, answers who waits.
    fn act(&mut self) {
        let now = Instant::now();
        let mut orders = Vec::new();
        for (name, managed) in &mut self.models {
            for step in managed.decide(now) {
                self.changed.insert(name.clone());
                match step {
                    Step::Read(key) => orders.extend(order(managed, key, self.method, self.limits)),
                    Step::Unload(key) => unload(managed, key),
                    Step::Forget(key) => {
                        managed.records.remove(&key);
                    }
                }
            }
        }
        self.queued.extend(orders);
        self.start_readers();
        self.publish();
        self.answer();
    }

    fn start_readers(&mut self) {
        while self.readers < self.loading.threads.max(1) {
            let Some((order, mark)) = self.queued.pop_front() else { return };
            let sender = self.sender.clone();
            let (name, key) = (order.name.clone(), order.version);
            let body = move || {
                // A reader that panics on a file costs that file.
                let result = std::panic::catch_unwind(|| load::load(&order).map(Box::new));
                let result = result.unwrap_or_else(|_| Err("reading it panicked".to_owned()));
                let event = Event::Read { name: order.name.clone(), key: order.version, mark, result };
                let _ = sender.send(event);
            };
            self.readers += 1;
            if let Err(error) = std::thread::Builder::new().name("load".into()).spawn(body) {
                let result = Err(format!("cannot start a thread to read it: {error}"));
                let _ = self.sender.send(Event::Read { name, key, mark, result });
            }
        }
    }

    fn read(&mut self, name: &Arc<str>, key: Key, mark: u64, result: Result<Box<Served>, String>) {
        self.readers = self.readers.saturating_sub(1);
        let Some(managed) = self.models.get_mut(name) else { return };
        let is_wanted = !managed.is_held && managed.wanted.contains_key(&key);
        let Some(record) = managed.records.get_mut(&key) else { return };
        if record.reading != Some(mark) {
            return;
        }
        self.changed.insert(name.clone());
        if !is_wanted && record.served.is_none() {
            managed.records.remove(&key);
            return;
        }
        let sender = self.sender.clone();
        let result = result.map(|mut served| {
            let name = name.clone();
            served.gone = Gone::new(move || {
                let _ = sender.send(Event::Gone { name: name.clone(), key });
            });
            Arc::new(*served)
        });
        if let Err(error) = &result {
            let stays = record.served.is_some();
            tracing::warn!(model = %name, version = key, error, stays, "a version cannot be read");
        }
        let retry = Retry { times_max: self.loading.retries_max, wait: self.loading.retry_wait };
        record.read(result, Instant::now(), retry);
    }

    fn publish(&mut self) {
        if self.changed.is_empty() {
            return;
        }
        let mut index = Index::clone(&self.index.load());
        for name in std::mem::take(&mut self.changed) {
            match self.models.get(&name) {
                // A model that is gone from the list is reported until its last version has ended.
                Some(managed) if managed.is_held && managed.wanted.is_empty() && is_over(managed) => {
                    index.models.remove(&name);
                    self.models.remove(&name);
                }
                Some(managed) => {
                    index.models.insert(name, Arc::new(managed.entry(self.loading.labels_ahead)));
                }
                None => {
                    index.models.remove(&name);
                }
            }
        }
        let changes = index.changes.clone();
        self.index.store(Arc::new(index));
        changes.notify_waiters();
    }

    fn answer(&mut self) {
        let models = &self.models;
        let is_done = |waiter: &mut Waiter| {
            waiter.names.iter().all(|name| models.get(name).is_none_or(Managed::is_settled))
        };
        for waiter in self.waiters.extract_if(.., is_done) {
            let failed = waiter.names.iter().find_map(|name| {
                let managed = models.get(name)?;
                let why = managed.failure().or_else(|| managed.newest_failure());
                let labels = managed.labels_in_vain();
                let vain = waiter.with_labels && !self.loading.labels_ahead && !labels.is_empty();
                let why = match why {
                    Some(why) => (Reason::NotReady, why),
                    None if vain => (Reason::Input, format!("cannot give labels: {}", labels.join(", "))),
                    None => return None,
                };
                let (model, path) = (managed.model.name.clone(), managed.model.path.clone());
                Some(Failed { model, path, reason: why.0, why: why.1 })
            });
            let _ = waiter.answer.send(failed.map_or(Ok(()), Err));
        }
    }
}

fn is_over(managed: &Managed) -> bool {
    managed.records.values().all(|record| record.state == State::End)
}

fn order(
    managed: &mut Managed,
    key: Key,
    method: models::Method,
    limits: models::Limits,
) -> Option<(Order, u64)> {
    let wanted = managed.wanted.get(&key)?;
    let record = managed.records.entry(key).or_insert_with(Record::new);
    record.reading = Some(wanted.mark);
    record.retry_at = None;
    if record.served.is_none() {
        (record.state, record.error) = (State::Loading, None);
    }
    let model = &managed.model;
    let order = Order {
        name: model.name.clone(),
        version: key,
        path: wanted.found.path.clone(),
        personality: model.personality,
        method: model.method.unwrap_or(method),
        limits,
    };
    Some((order, wanted.mark))
}

/// The requests that hold the version finish; the event `Gone` tells of the last.
fn unload(managed: &mut Managed, key: Key) {
    if let Some(record) = managed.records.get_mut(&key) {
        record.state = State::Unloading;
        record.served = None;
        tracing::info!(model = %managed.model.name, version = key, "a version answers no more");
    }
}

impl From<Failed> for Refusal {
    fn from(failed: Failed) -> Self {
        Refusal::new(failed.reason, failed.why)
    }
}
