//! Threads for what is too long for an event loop.
//!
//! One pool serves the whole process: as many threads as CPUs that the process may use, started when first
//! needed. Its queue is bounded; what does not fit is refused at once, because work that waits behind a full
//! queue is late anyway.
//!
//! Not here: what the work is (`evaluate`, `connection`).

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use crate::refusal::{Reason, Refusal};

type Job = Box<dyn FnOnce() + Send>;

/// Pieces of work that wait, at most.
const WAITING_MAX: usize = 4096;

struct Pool {
    sender: Sender<Job>,
    receiver: Receiver<Job>,
    threads: AtomicUsize,
    threads_max: usize,
}

fn pool() -> &'static Pool {
    static POOL: OnceLock<Pool> = OnceLock::new();
    POOL.get_or_init(|| {
        let (sender, receiver) = bounded(WAITING_MAX);
        Pool { sender, receiver, threads: AtomicUsize::new(0), threads_max: threads() }
    })
}

/// CPUs that the process may use: quotas and affinity count.
pub(crate) fn threads() -> usize {
    static COUNT: OnceLock<usize> = OnceLock::new();
    *COUNT.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// Gives work to the pool; refused when too much waits already.
pub(crate) fn submit(work: impl FnOnce() + Send + 'static) -> Result<(), Refusal> {
    let pool = pool();
    grow(pool);
    match pool.sender.try_send(Box::new(work)) {
        Ok(()) => Ok(()),
        Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
            Err(Refusal::new(Reason::QueueFull, "the server has too much to do; try again later"))
        }
    }
}

/// Whether work waits for a thread.
pub(crate) fn is_waited_for() -> bool {
    !pool().receiver.is_empty()
}

/// Runs work on the pool and waits for what it returns.
pub(crate) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Refusal> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    submit(move || {
        // Nobody waits any more for what was not begun.
        if !sender.is_closed() {
            let _ = sender.send(work());
        }
    })?;
    // The sender is dropped without a word only when the work panicked.
    receiver.await.map_err(|_| Refusal::new(Reason::Internal, "the evaluation failed"))
}

/// Starts one more thread while there are fewer than CPUs.
fn grow(pool: &'static Pool) {
    let count = pool.threads.load(Relaxed);
    if count >= pool.threads_max {
        return;
    }
    if pool.threads.compare_exchange(count, count + 1, Relaxed, Relaxed).is_err() {
        return;
    }
    let receiver = pool.receiver.clone();
    let started = std::thread::Builder::new().name(format!("compute-{count}")).spawn(move || run(&receiver));
    if let Err(error) = started {
        pool.threads.fetch_sub(1, Relaxed);
        tracing::error!(%error, "cannot start a compute thread");
    }
}

fn run(jobs: &Receiver<Job>) {
    for job in jobs {
        // A panic costs the call that caused it; its channel closes, and its caller learns of that.
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(job)).is_err() {
            tracing::error!("an evaluation panicked");
        }
    }
}
