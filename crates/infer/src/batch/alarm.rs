//! Wakes queues at the times that their rules name.
//!
//! One thread for the whole process, started when first needed: waits are of microseconds, and the timers of the event
//! loops tick in milliseconds.
//!
//! Not here: what a queue does when it is woken (`batch`).

use std::collections::BTreeMap;
use std::sync::{OnceLock, Weak};
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};

use crate::served::Served;

/// A queue sets an alarm only for an earlier time than it has, so there are at most as many as calls that wait.
type Order = (Instant, Weak<Served>);

/// Wakes the queue of a version at this time, if the version is still there.
pub(super) fn set(at: Instant, served: Weak<Served>) {
    static SENDER: OnceLock<Sender<Order>> = OnceLock::new();
    let sender = SENDER.get_or_init(|| {
        let (sender, receiver) = unbounded();
        let started = std::thread::Builder::new().name("batch-alarm".into()).spawn(move || run(&receiver));
        if let Err(error) = started {
            tracing::error!(%error, "cannot start the thread that wakes queues");
        }
        sender
    });
    // It fails only where the thread could not be started: batches then go when they are full or the model is idle.
    let _ = sender.send((at, served));
}

fn run(orders: &Receiver<Order>) {
    let mut pending: BTreeMap<(Instant, u64), Weak<Served>> = BTreeMap::new();
    let mut count = 0;
    loop {
        let order = match pending.first_key_value() {
            None => orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(((at, _), _)) => orders.recv_deadline(*at),
        };
        match order {
            Ok((at, served)) => {
                count += 1;
                pending.insert((at, count), served);
            }
            Err(RecvTimeoutError::Timeout) => {
                if let Some((_, served)) = pending.pop_first()
                    && let Some(served) = served.upgrade()
                {
                    super::wake(&served);
                }
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
