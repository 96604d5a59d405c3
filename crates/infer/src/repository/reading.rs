//! Versions on their way from the disk: what is to be read, and the threads that read it.
//!
//! Not here: which versions (`managed`), what reading is (`load`).

use super::index::State;
use super::managed::{Key, Managed, Record};
use super::manager::{Event, Manager};
use crate::config::{Loading, Mode, Queueing};
use crate::load::{self, Order};
use crate::proof::Wishes;

impl Manager {
    /// Has as many of the queued versions read as may be read at once.
    pub(super) fn start_readers(&mut self) {
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
}

/// What is to be read of a version that is wanted, with the mark of its files.
pub(super) fn order(
    managed: &mut Managed,
    key: Key,
    method: models::Method,
    limits: models::Limits,
    loading: &Loading,
    queueing: &Queueing,
) -> Option<(Order, u64)> {
    let wanted = managed.wanted.get(&key)?;
    let record = managed.records.entry(key).or_insert_with(Record::new);
    record.reading = Some(wanted.mark);
    record.path.clone_from(&wanted.found.path);
    record.retry_at = None;
    if record.served.is_none() {
        (record.state, record.error) = (State::Loading, None);
    }
    let model = &managed.model;
    let order = Order {
        name: model.name.clone(),
        version: key,
        path: match &model.file {
            Some(file) => wanted.found.path.join(file),
            None => wanted.found.path.clone(),
        },
        folder: wanted.found.path.clone(),
        model: model.path.clone(),
        wishes: Wishes {
            sha256: model.sha256.clone(),
            warmups: model.warmups.clone(),
            iterations: loading.warmup_iterations,
        },
        personality: model.personality,
        method: model.method.unwrap_or(method),
        limits,
        queueing: Queueing {
            mode: model.batching.clone().map_or_else(|| queueing.mode.clone(), Mode::Fixed),
            ..queueing.clone()
        },
    };
    Some((order, wanted.mark))
}
