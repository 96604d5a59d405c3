//! Versions on their way from the disk: what is to be read, and the threads that read it.
//!
//! Not here: which versions (`managed`), what reading is (`load`).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};

use super::index::State;
use super::managed::{Key, Managed, Record};
use super::manager::{Event, Manager};
use crate::config::{Loading, Mode, Queueing};
use crate::load::{self, Order};
use crate::proof::Wishes;

/// The threads that read, which live as long as this value. They are few and stay, so that what models leave in the
/// allocator's arenas is used again by the next ones.
pub(super) struct Readers {
    orders: Sender<(Order, u64)>,
    taken: Receiver<(Order, u64)>,
    threads: usize,
    /// Orders that were given and not answered.
    busy: usize,
}

impl Readers {
    pub(super) fn new() -> Self {
        let (orders, taken) = crossbeam_channel::unbounded();
        Self { orders, taken, threads: 0, busy: 0 }
    }

    /// An order was answered.
    pub(super) fn done(&mut self) {
        self.busy = self.busy.saturating_sub(1);
    }

    /// Gives an order to a thread; one more is started where all have one.
    fn read(&mut self, order: (Order, u64), events: &Sender<Event>) {
        self.busy += 1;
        if self.threads < self.busy {
            let (taken, sender) = (self.taken.clone(), events.clone());
            let body = move || taken.iter().for_each(|order| read(&order, &sender));
            match std::thread::Builder::new().name("load".into()).spawn(body) {
                Ok(_) => self.threads += 1,
                Err(error) if self.threads == 0 => {
                    let (Order { name, version: key, .. }, mark) = order;
                    let result = Err(format!("cannot start a thread to read it: {error}"));
                    let _ = events.send(Event::Read { name, key, mark, result });
                    return;
                }
                Err(error) => tracing::warn!(%error, "cannot start one more thread that reads models"),
            }
        }
        let _ = self.orders.send(order);
    }
}

fn read((order, mark): &(Order, u64), events: &Sender<Event>) {
    // A reader that panics on a file costs that file.
    let result = catch_unwind(AssertUnwindSafe(|| load::load(order).map(Box::new)));
    let result = result.unwrap_or_else(|_| Err("reading it panicked".to_owned()));
    let _ = events.send(Event::Read { name: order.name.clone(), key: order.version, mark: *mark, result });
}

impl Manager {
    /// Has as many of the queued versions read as may be read at once.
    pub(super) fn start_readers(&mut self) {
        while self.readers.busy < self.loading.threads.max(1) {
            let Some(order) = self.queued.pop_front() else { return };
            self.readers.read(order, &self.sender);
        }
    }
}

/// What is to be read of a version that is wanted, with the mark of its files.
pub(super) fn order(
    managed: &mut Managed,
    key: Key,
    method: models::Method,
    limits: models::Limits,
    (loading, queueing, engines): (&Loading, &Queueing, &Arc<[Arc<dyn models::Engines>]>),
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
        class: model.class.clone(),
        engines: engines.clone(),
    };
    Some((order, wanted.mark))
}
