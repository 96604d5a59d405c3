//! Versions on their way from the disk: what is to be read, and the threads that read it.
//!
//! Not here: which versions (`managed`), what reading is (`load`).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};

use super::index::State;
use super::managed::{Key, Managed, Record};
use super::manager::{Event, Manager};
use crate::background;
use crate::config::{Loading, Mode, Queueing};
use crate::load::{self, Order};
use crate::proof::Wishes;
use crate::served::Served;

/// The threads that read, which live as long as this value. They are few and stay, so that what models leave in the
/// allocator's arenas is used again by the next ones.
///
/// There are two lines of them: what somebody waits for is read at once, at the start of the server and where a call
/// needs a model that sleeps; everything else makes way for requests (`background`).
pub(super) struct Readers {
    prompt: Line,
    calm: Line,
    /// What there is at the start has not all been queued.
    is_starting: bool,
}

struct Line {
    orders: Sender<(Order, u64)>,
    taken: Receiver<(Order, u64)>,
    threads: usize,
    /// Orders that were given and not answered.
    busy: usize,
}

impl Readers {
    pub(super) fn new() -> Self {
        Self { prompt: Line::new(), calm: Line::new(), is_starting: true }
    }

    fn line(&mut self, is_prompt: bool) -> &mut Line {
        if is_prompt { &mut self.prompt } else { &mut self.calm }
    }

    fn busy(&self) -> usize {
        self.prompt.busy + self.calm.busy
    }

    /// An order was answered.
    pub(super) fn done(&mut self, is_prompt: bool) {
        let line = self.line(is_prompt);
        line.busy = line.busy.saturating_sub(1);
    }

    /// Gives an order to a thread; one more is started where all have one.
    fn read(&mut self, order: (Order, u64), events: &Sender<Event>) {
        let is_prompt = order.0.is_prompt;
        let line = self.line(is_prompt);
        line.busy += 1;
        if line.threads < line.busy {
            let (taken, sender) = (line.taken.clone(), events.clone());
            let body = move || {
                if !is_prompt {
                    background::lower();
                }
                taken.iter().for_each(|order| read(&order, &sender));
            };
            match std::thread::Builder::new().name("load".into()).spawn(body) {
                Ok(_) => line.threads += 1,
                Err(error) if line.threads == 0 => {
                    let result = Err(format!("cannot start a thread to read it: {error}"));
                    answer(&order, result, events);
                    return;
                }
                Err(error) => tracing::warn!(%error, "cannot start one more thread that reads models"),
            }
        }
        let _ = line.orders.send(order);
    }
}

impl Line {
    fn new() -> Self {
        let (orders, taken) = crossbeam_channel::unbounded();
        Self { orders, taken, threads: 0, busy: 0 }
    }
}

fn read(order: &(Order, u64), events: &Sender<Event>) {
    // A reader that panics on a file costs that file.
    let result = catch_unwind(AssertUnwindSafe(|| load::load(&order.0).map(Box::new)));
    let result = result.unwrap_or_else(|_| Err("reading it panicked".to_owned()));
    answer(order, result, events);
}

fn answer((order, mark): &(Order, u64), result: Result<Box<Served>, String>, events: &Sender<Event>) {
    let (name, key, is_prompt) = (order.name.clone(), order.version, order.is_prompt);
    let _ = events.send(Event::Read { name, key, mark: *mark, is_prompt, result });
}

impl Manager {
    /// Has as many of the queued versions read as may be read at once.
    pub(super) fn start_readers(&mut self) {
        self.readers.is_starting = false;
        while self.readers.busy() < self.loading.threads.max(1) {
            // Whoever waits for a version does not wait behind those that nobody waits for.
            let first = self.queued.iter().position(|(order, _)| order.is_prompt).unwrap_or(0);
            let Some(order) = self.queued.remove(first) else { return };
            self.readers.read(order, &self.sender);
        }
    }
}

/// What an order takes from the server.
type Context<'a> = (&'a Loading, &'a Queueing, &'a Arc<[Arc<dyn models::Engines>]>, &'a Readers);

/// What is to be read of a version that is wanted, with the mark of its files.
pub(super) fn order(
    managed: &mut Managed,
    key: Key,
    method: models::Method,
    limits: models::Limits,
    (loading, queueing, engines, readers): Context<'_>,
) -> Option<(Order, u64)> {
    let wanted = managed.wanted.get(&key)?;
    let record = managed.records.entry(key).or_insert_with(Record::new);
    record.reading = Some(wanted.mark);
    record.path.clone_from(&wanted.found.path);
    record.retry_at = None;
    if record.served.is_none() {
        (record.state, record.error) = (State::Loading, None);
    }
    let (model, is_lazy) = (&managed.model, managed.is_lazy);
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
            md5: model.md5.clone(),
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
        is_prompt: readers.is_starting || is_lazy,
    };
    Some((order, wanted.mark))
}
