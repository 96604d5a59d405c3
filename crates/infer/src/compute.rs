//! Threads for what is too long for an event loop.
//!
//! One pool serves the whole process: as many threads as CPUs that the process may use, started when first
//! needed and each kept within its node (`numa`). Its queue is bounded; what does not fit is refused at once, because work that waits behind a full
//! queue is late anyway.
//!
//! A model whose calls wait for another process has a pool of its own, because a call that hangs there must not hold a
//! thread that other models need.
//!
//! Not here: what the work is (`evaluate`, `connection`).

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use crate::numa;
use crate::refusal::{Reason, Refusal};

type Job = Box<dyn FnOnce() + Send>;

/// Pieces of work that wait, at most.
const WAITING_MAX: usize = 4096;
/// The same for a model's own pool and each of its threads.
const OWN_WAITING_MAX: usize = 64;

/// Threads with a queue. They end with it.
pub(crate) struct Pool {
    sender: Sender<Job>,
    receiver: Receiver<Job>,
    name: &'static str,
    /// Its threads compute, and stay near the memory that they use; those that wait for other processes run anywhere.
    is_bound: bool,
    threads: AtomicUsize,
    threads_max: usize,
}

fn shared() -> &'static Pool {
    static POOL: OnceLock<Pool> = OnceLock::new();
    POOL.get_or_init(|| Pool { is_bound: true, ..Pool::new("compute", threads(), WAITING_MAX) })
}

/// CPUs that the process may use: quotas and affinity count.
pub(crate) fn threads() -> usize {
    static COUNT: OnceLock<usize> = OnceLock::new();
    *COUNT.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// Gives work to the pool of all; refused when too much waits already.
pub(crate) fn submit(work: impl FnOnce() + Send + 'static) -> Result<(), Refusal> {
    shared().submit(work)
}

/// Whether work waits for a thread of it.
pub(crate) fn is_waited_for() -> bool {
    shared().is_waited_for()
}

/// Runs work on the pool of all and waits for what it returns.
pub(crate) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Refusal> {
    shared().aside(work).await
}

impl Pool {
    fn new(name: &'static str, threads_max: usize, waiting_max: usize) -> Self {
        let (sender, receiver) = bounded(waiting_max);
        Self { sender, receiver, name, is_bound: false, threads: AtomicUsize::new(0), threads_max }
    }

    /// A pool for one model, of at least one thread.
    pub(crate) fn own(threads: usize) -> Self {
        let threads = threads.max(1);
        Self::new("model", threads, threads.saturating_mul(OWN_WAITING_MAX))
    }

    /// Its threads, at most.
    pub(crate) fn threads(&self) -> usize {
        self.threads_max
    }

    /// Whether work waits for a thread.
    pub(crate) fn is_waited_for(&self) -> bool {
        !self.receiver.is_empty()
    }

    /// Gives work to the pool; refused when too much waits already.
    pub(crate) fn submit(&self, work: impl FnOnce() + Send + 'static) -> Result<(), Refusal> {
        self.grow();
        match self.sender.try_send(Box::new(work)) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                Err(Refusal::new(Reason::QueueFull, "the server has too much to do; try again later"))
            }
        }
    }

    /// Runs work and waits for what it returns. What nobody waits for any more when its turn comes is not begun.
    pub(crate) async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        self.submit(move || {
            if !sender.is_closed() {
                let _ = sender.send(work());
            }
        })?;
        // The sender is dropped without a word only when the work panicked.
        receiver.await.map_err(|_| Refusal::new(Reason::Internal, "the evaluation failed"))
    }

    /// Starts one more thread while there are fewer than allowed.
    fn grow(&self) {
        let count = self.threads.load(Relaxed);
        if count >= self.threads_max {
            return;
        }
        if self.threads.compare_exchange(count, count + 1, Relaxed, Relaxed).is_err() {
            return;
        }
        let receiver = self.receiver.clone();
        let name = format!("{}-{count}", self.name);
        let (is_bound, of) = (self.is_bound, self.threads_max);
        let started = std::thread::Builder::new().name(name).spawn(move || {
            if is_bound {
                numa::bind(count, of)
            } else {
                numa::free()
            }
            run(&receiver);
        });
        if let Err(error) = started {
            self.threads.fetch_sub(1, Relaxed);
            tracing::error!(%error, "cannot start a compute thread");
        }
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
