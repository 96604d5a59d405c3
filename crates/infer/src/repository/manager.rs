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
use std::time::Instant;

use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use tokio::sync::oneshot;

use super::index::{Index, State};
use super::lazy;
use super::managed::{Key, Managed, Retry, Step};
use super::polls::Polls;
use super::reading::{Readers, order};
use super::recency::Recency;
use crate::cache::{Cache, Cached};
use crate::config::{Config, Loading, Model, Queueing, Source, scan};
use crate::load::Order;
use crate::refusal::{Reason, Refusal};
use crate::served::Served;

/// Versions of files up to this size are freed where their last request ends, in less time than a thread takes to start.
const FREED_HERE_BYTES_MAX: u64 = 256 << 10;

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
    Read { name: Arc<str>, key: Key, mark: u64, is_prompt: bool, result: Result<Box<Served>, String> },
    /// The last request of a version ended.
    Gone { name: Arc<str>, key: Key },
    /// Answer when all models have been tried.
    Settle(Answer),
    /// Read a model (again).
    Load(Arc<str>, Answer),
    /// Let a model answer no more.
    Unload(Arc<str>, Answer),
    /// Have a model that is loaded by calls.
    Wake(Arc<str>, Answer),
    /// These models and no others.
    Reload(Vec<Model>, Answer),
    /// End.
    Stop,
}

pub(super) struct Waiter {
    pub(super) names: BTreeSet<Arc<str>>,
    pub(super) with_labels: bool,
    pub(super) answer: Answer,
}

pub(super) struct Manager {
    pub(super) index: Arc<ArcSwap<Index>>,
    pub(super) sender: Sender<Event>,
    source: Source,
    /// What the source last said.
    listed: Vec<Model>,
    /// Why the source cannot be read, so that it is told once.
    source_error: Option<String>,
    pub(super) loading: Loading,
    cache: Arc<Cache>,
    /// Whether answers are kept where the model does not say.
    caches: bool,
    method: models::Method,
    limits: models::Limits,
    queueing: Queueing,
    engines: Arc<[Arc<dyn models::Engines>]>,
    pub(super) models: BTreeMap<Arc<str>, Managed>,
    /// For which something may have to be done.
    pub(super) due: BTreeSet<Arc<str>>,
    /// Whose entries are to be published.
    pub(super) changed: BTreeSet<Arc<str>>,
    /// When which model is looked at although nothing happened to it.
    pub(super) retries: BTreeSet<(Instant, Arc<str>)>,
    /// Lazy models that are loaded or being loaded.
    pub(super) awake: Recency,
    pub(super) waiters: Vec<Waiter>,
    pub(super) queued: VecDeque<(Order, u64)>,
    pub(super) readers: Readers,
}

impl Manager {
    pub(super) fn new(config: &Config, index: Arc<ArcSwap<Index>>, sender: Sender<Event>) -> Self {
        Self {
            index,
            sender,
            source: config.models.clone(),
            listed: Vec::new(),
            source_error: None,
            loading: config.loading.clone(),
            cache: Arc::new(Cache::new(config.cache.bytes_max)),
            caches: config.cache.by_default,
            method: config.method,
            limits: config.limits,
            queueing: config.queueing.clone(),
            engines: config.engines.clone().into(),
            models: BTreeMap::new(),
            due: BTreeSet::new(),
            changed: BTreeSet::new(),
            retries: BTreeSet::new(),
            awake: Recency::default(),
            waiters: Vec::new(),
            queued: VecDeque::new(),
            readers: Readers::new(),
        }
    }

    /// Works until it is told to end.
    pub(super) fn run(mut self, models: Vec<Model>, events: &Receiver<Event>) {
        self.listed.clone_from(&models);
        self.replace(models, true);
        self.choose_first();
        let mut polls = Polls::new(&self.source, self.loading.poll, Instant::now());
        self.act();
        loop {
            let retry = self.retries.first().map(|(at, _)| *at);
            let wake = [polls.next(), retry].into_iter().flatten().min();
            let mut event = match wake {
                None => events.recv().ok(),
                Some(at) => match events.recv_deadline(at) {
                    Ok(event) => Some(event),
                    Err(RecvTimeoutError::Timeout) => {
                        self.poll(&mut polls);
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

    /// Of a folder of models some may be named that are loaded at the start.
    fn choose_first(&mut self) {
        let Source::Folder { only: Some(only), .. } = &self.source else { return };
        for (name, managed) in &mut self.models {
            let is_first = only.iter().any(|wanted| **wanted == **name);
            if managed.is_lazy && is_first {
                managed.is_awake = true;
                self.awake.put(name, 0);
            } else if !managed.is_lazy {
                managed.is_held = !is_first;
            }
        }
        let awake: BTreeSet<Arc<str>> = self.awake.names().cloned().collect();
        self.look(|managed| awake.contains(&managed.model.name), true);
    }

    /// Does what is due by the clock.
    fn poll(&mut self, polls: &mut Polls) {
        let now = Instant::now();
        while self.retries.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, name)) = self.retries.pop_first() else { break };
            self.doze(&name, now);
            self.due.insert(name);
        }
        if polls.source.is_due(now) {
            self.read_source();
        }
        if polls.folders.is_due(now) {
            self.look(|_| true, false);
        }
    }

    /// Reads the list of models again and follows it where it changed. A list that cannot be read changes nothing.
    fn read_source(&mut self) {
        match self.source.read() {
            Ok(models) => {
                self.source_error = None;
                if models != self.listed {
                    tracing::info!(models = models.len(), "the list of models changed");
                    self.listed.clone_from(&models);
                    self.replace(models, false);
                }
            }
            Err(error) => {
                if self.source_error.as_ref() != Some(&error) {
                    tracing::warn!(error, "the list of models cannot be read; what is served stays");
                }
                self.source_error = Some(error);
            }
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Read { name, key, mark, is_prompt, result } => {
                self.readers.done(is_prompt);
                self.read(&name, key, mark, result);
            }
            Event::Gone { name, key } => {
                let record = self.models.get_mut(&name).and_then(|managed| managed.records.get_mut(&key));
                if let Some(record) = record.filter(|record| record.state == State::Unloading) {
                    record.state = State::End;
                    self.due.insert(name.clone());
                    self.changed.insert(name);
                }
            }
            Event::Settle(answer) => {
                let names = self.models.keys().cloned().collect();
                self.waiters.push(Waiter { names, with_labels: false, answer });
            }
            Event::Load(name, answer) => {
                if matches!(self.source, Source::Folder { .. }) {
                    self.read_source();
                }
                let known = self.models.get_mut(&name).filter(|managed| !managed.is_removed);
                let Some(managed) = known else { return self.no_such_model(&name, answer) };
                managed.is_held = false;
                if managed.is_lazy && !self.rouse(&name) {
                    return Self::no_room(&name, answer);
                }
                let Some(managed) = self.models.get_mut(&name) else { return };
                // Whoever asks for a load wants failures tried again.
                managed.records.retain(|_, record| record.error.is_none() || record.reading.is_some());
                Self::look_at(std::iter::once(managed), &mut self.due, true);
                self.waiters.push(Waiter { names: [name].into(), with_labels: false, answer });
            }
            Event::Unload(name, answer) => match self.models.get_mut(&name) {
                Some(managed) => {
                    managed.is_held = true;
                    managed.is_awake = false;
                    self.awake.remove(&name);
                    self.due.insert(name.clone());
                    self.changed.insert(name);
                    self.act();
                    let _ = answer.send(Ok(()));
                }
                None => self.no_such_model(&name, answer),
            },
            Event::Reload(models, answer) => {
                let names = models.iter().map(|model| model.name.clone()).collect();
                self.replace(models, true);
                self.waiters.push(Waiter { names, with_labels: true, answer });
            }
            Event::Wake(name, answer) => self.wake(name, answer),
            Event::Stop => {}
        }
    }

    pub(super) fn no_such_model(&self, name: &Arc<str>, answer: Answer) {
        let why = format!("Model with name {name} does not exist.");
        let failed = Failed { model: name.clone(), path: Default::default(), reason: Reason::NotFound, why };
        let _ = answer.send(Err(failed));
    }

    /// Makes these the models. Those that are there already keep their versions, and stay unloaded where a call
    /// unloaded them, unless somebody tells otherwise.
    fn replace(&mut self, models: Vec<Model>, is_told: bool) {
        let holds_new = !is_told && matches!(self.source, Source::Folder { only: Some(_), .. });
        let names: BTreeSet<Arc<str>> = models.iter().map(|model| model.name.clone()).collect();
        for (name, managed) in &mut self.models {
            if !names.contains(name) {
                managed.is_removed = true;
                self.awake.remove(name);
                self.due.insert(name.clone());
                self.changed.insert(name.clone());
            }
        }
        for model in models {
            let name = model.name.clone();
            self.changed.insert(name.clone());
            match self.models.get_mut(&name) {
                Some(managed) => {
                    managed.is_removed = false;
                    managed.is_held &= !is_told;
                    managed.become_model(model);
                }
                None => {
                    let is_lazy = self.loading.lazy.is_some();
                    let is_held = holds_new && !is_lazy;
                    let managed = Managed { is_held, is_lazy, ..Managed::new(model) };
                    self.models.insert(name, managed);
                }
            }
        }
        self.look(|_| true, is_told);
    }

    /// Looks through the folders of models. Where somebody said that files are complete, they are taken as they are.
    fn look(&mut self, which: impl Fn(&Managed) -> bool, is_told: bool) {
        let looked = self.models.values_mut().filter(|managed| !managed.rests() && which(managed));
        Self::look_at(looked, &mut self.due, is_told);
    }

    pub(super) fn look_at<'m>(
        models: impl Iterator<Item = &'m mut Managed>,
        due: &mut BTreeSet<Arc<str>>,
        is_told: bool,
    ) {
        for managed in models {
            due.insert(managed.model.name.clone());
            if let Some(error) = &managed.model.error {
                managed.scan_error = Some(error.clone());
                continue;
            }
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
        let due = std::mem::take(&mut self.due);
        for name in &due {
            let Some(managed) = self.models.get_mut(name) else { continue };
            for step in managed.decide(now) {
                self.changed.insert(name.clone());
                match step {
                    Step::Read(key) => {
                        let (method, limits) = (self.method, self.limits);
                        let context = (&self.loading, &self.queueing, &self.engines, &self.readers);
                        orders.extend(order(managed, key, method, limits, context));
                    }
                    Step::Unload(key) => unload(managed, key),
                    Step::Forget(key) => {
                        managed.records.remove(&key);
                        if managed.records.is_empty() {
                            // An emptied map keeps room for a dozen records, which thousands of models do not need.
                            managed.records = BTreeMap::new();
                        }
                    }
                }
            }
            self.retries.extend(managed.next_retry().map(|at| (at, name.clone())));
        }
        self.queued.extend(orders);
        self.start_readers();
        self.publish();
        self.answer();
        due.iter().for_each(|name| self.doze(name, now));
        self.publish();
    }

    fn read(&mut self, name: &Arc<str>, key: Key, mark: u64, result: Result<Box<Served>, String>) {
        let Some(managed) = self.models.get_mut(name) else { return };
        let is_wanted = !managed.rests() && managed.wanted.contains_key(&key);
        let Some(record) = managed.records.get_mut(&key) else { return };
        if record.reading != Some(mark) {
            return;
        }
        self.due.insert(name.clone());
        self.changed.insert(name.clone());
        if !is_wanted && record.served.is_none() {
            managed.records.remove(&key);
            return;
        }
        let retry = Retry { times_max: self.loading.retries_max, wait: self.loading.retry_wait };
        let retry = if managed.is_lazy { lazy::retry(retry) } else { retry };
        let result = self.make_room(name, result);
        let Some(managed) = self.models.get_mut(name) else { return };
        let caches = managed.model.cache.unwrap_or(self.caches);
        let cached = caches.then(|| Cached::new(self.cache.clone()));
        let Some(record) = managed.records.get_mut(&key) else { return };
        let sender = self.sender.clone();
        let result = result.map(|mut served| {
            let name = name.clone();
            served.gone.tell(move || {
                let _ = sender.send(Event::Gone { name: name.clone(), key });
            });
            served.cached = cached;
            if served.about.bytes <= FREED_HERE_BYTES_MAX {
                served.backend.free_here();
            }
            Arc::new(*served)
        });
        if let Err(error) = &result {
            let stays = record.served.is_some();
            tracing::warn!(model = %name, version = key, error, stays, "a version cannot be read");
        }
        record.read(result, Instant::now(), retry);
    }

    fn publish(&mut self) {
        if self.changed.is_empty() {
            return;
        }
        let index = self.index.load_full();
        let (mut new, mut gone) = (Vec::new(), Vec::new());
        for name in std::mem::take(&mut self.changed) {
            match self.models.get(&name) {
                // A model that is gone from the list is reported until its last version has ended.
                Some(managed) if managed.is_removed && is_over(managed) => {
                    self.models.remove(&name);
                    gone.push(name);
                }
                Some(managed) => {
                    let entry = Arc::new(managed.entry(self.loading.labels_ahead));
                    if !index.replace(&entry) {
                        new.push(entry);
                    }
                }
                None => gone.push(name),
            }
        }
        if !new.is_empty() || !gone.is_empty() {
            let mut index = Index::clone(&index);
            new.into_iter().for_each(|entry| index.insert(Arc::unwrap_or_clone(entry)));
            gone.iter().for_each(|name| index.remove(name));
            self.index.store(Arc::new(index));
        }
        index.changes.notify_waiters();
    }

    fn answer(&mut self) {
        let models = &self.models;
        let is_done = |waiter: &mut Waiter| {
            waiter.names.iter().all(|name| models.get(name).is_none_or(Managed::is_settled))
        };
        for waiter in self.waiters.extract_if(.., is_done) {
            let failed = waiter.names.iter().find_map(|name| {
                // What is not wanted is not missed.
                let managed = models.get(name).filter(|managed| !managed.rests())?;
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
