//! Keeps one worker alive.
//!
//! A keeper is a thread: it starts the process, has it read the model, hands its lanes to the pool, and sleeps until the
//! process ends or the model goes. A worker that ended is started again, at once the first time and then after pauses
//! that double, so that a model whose worker cannot live costs nearly nothing.
//!
//! Not here: ending a worker that hangs (`hosted`, which knows of the call).

use std::os::fd::OwnedFd;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use models::{DType, Shape, Signature};
use parking_lot::Mutex;
use rustix::event::{EventfdFlags, PollFd, PollFlags};

use crate::hosted::Spec;
use crate::lane::{Ask, Failure, Lane, timespec};
use crate::logs::{self, Tail};
use crate::pool::Pool;
use crate::process::{self, Process};
use crate::protocol::{Kind, Load, Ready};

/// A worker that lived so long is no repeated offender.
const LONG: Duration = Duration::from_secs(60);
/// Between two starts, at most.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Bytes of what a worker tells of its model, at most.
const READY_BYTES_MAX: u64 = 16 << 20;

/// The pause before a start that follows so many ends in a row.
fn pause(ends: u32) -> Duration {
    match ends {
        0 | 1 => Duration::ZERO,
        _ => Duration::from_millis(100).saturating_mul(1 << (ends - 2).min(16)).min(PAUSE_MAX),
    }
}

/// How a keeper is told to end.
#[derive(Debug)]
pub(crate) struct Stop {
    asked: AtomicBool,
    wake: OwnedFd,
    process: Mutex<Option<Arc<Process>>>,
}

impl Stop {
    pub(crate) fn new() -> std::io::Result<Self> {
        let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { asked: AtomicBool::new(false), wake, process: Mutex::new(None) })
    }

    /// Ends the keeper and its worker.
    pub(crate) fn stop(&self) {
        self.asked.store(true, Ordering::Release);
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        if let Some(process) = &*self.process.lock() {
            process.kill(Some("the model was unloaded"));
        }
    }

    fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    /// Makes a process known, so that it is ended with the keeper.
    fn guard(&self, process: Option<Arc<Process>>) {
        let mut slot = self.process.lock();
        *slot = process;
        if let (true, Some(process)) = (self.is_asked(), &*slot) {
            process.kill(None);
        }
    }

    /// Waits until told to end, the process ends, or `timeout` passes.
    fn wait(&self, process: Option<&Process>, timeout: Option<Duration>) {
        let timeout = timeout.map(timespec);
        let mut fds = vec![PollFd::new(&self.wake, PollFlags::IN)];
        fds.extend(process.map(|process| PollFd::new(process.pidfd(), PollFlags::IN)));
        while let Err(rustix::io::Errno::INTR) = rustix::event::poll(&mut fds, timeout.as_ref()) {}
    }
}

/// One worker's place.
pub(crate) struct Keeper {
    pub(crate) spec: Arc<Spec>,
    pub(crate) worker: usize,
    pub(crate) pool: Arc<Pool>,
    pub(crate) stop: Arc<Stop>,
    /// What the model told when it was first read.
    pub(crate) agreed: Arc<Mutex<Option<Ready>>>,
}

/// A worker that answers.
struct Up {
    process: Arc<Process>,
    child: Child,
    since: Instant,
}

impl Keeper {
    /// Keeps until told to end; tells `first` what became of the first start, and ends if that failed.
    pub(crate) fn run(self, first: &dyn Fn(Result<(), String>)) {
        let (model, worker) = (&*self.spec.load.name, self.worker);
        let mut ends = 0;
        let mut is_first = true;
        while !self.stop.is_asked() {
            let end = match self.start() {
                Ok(up) => {
                    if std::mem::take(&mut is_first) {
                        first(Ok(()));
                    }
                    tracing::info!(model, worker, pid = up.child.id(), "a worker answers");
                    let lived = up.since;
                    let end = self.watch(up);
                    ends = if lived.elapsed() >= LONG { 1 } else { ends + 1 };
                    end
                }
                Err(why) if is_first => return first(Err(why)),
                Err(why) => {
                    ends += 1;
                    self.pool.failed(&why);
                    why
                }
            };
            if !self.stop.is_asked() {
                let pause = pause(ends);
                self.pool.events.restarts.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(model, worker, end, ?pause, "a worker ended and is started again");
                self.stop.wait(None, Some(pause));
            }
        }
    }

    fn watch(&self, up: Up) -> String {
        let Up { process, mut child, .. } = up;
        self.stop.wait(Some(&process), None);
        self.stop.guard(None);
        let end = process.bury(&mut child);
        self.pool.down(&process, self.spec.lanes, &end);
        end
    }

    /// Starts a worker and has it read the model.
    fn start(&self) -> Result<Up, String> {
        let spec = &*self.spec;
        let max = spec.load.memory_bytes_max;
        let started = process::start(&spec.program, spec.lanes, max);
        let mut started =
            started.map_err(|error| format!("cannot start {}: {error}", spec.program.program.display()))?;
        let process = Arc::new(started.process);
        self.stop.guard(Some(process.clone()));
        let tail = Arc::new(Tail::default());
        let (model, worker, own, output) =
            (spec.load.name.clone(), self.worker, tail.clone(), started.output);
        let pool = self.pool.clone();
        let (told, silent) = crossbeam_channel::bounded::<()>(0);
        let follow = move || {
            logs::follow(output, &model, worker, &own, &pool.events.lines_dropped);
            drop(told);
        };
        let follower = std::thread::Builder::new().name("worker-log".into()).spawn(follow);
        let read = match follower {
            Ok(_) => started.lanes.first_mut().map_or_else(
                || Err(Failure::Broken("no lane".into())),
                |lane| read(lane, &spec.load, Instant::now() + spec.start_timeout),
            ),
            Err(error) => Err(Failure::Broken(format!("no thread for its log: {error}"))),
        };
        let agreed = read.and_then(|ready| self.agree(ready));
        if let Err(failure) = agreed {
            self.stop.guard(None);
            let end = process.bury(&mut started.child);
            // What it printed last is on its way; a process that left its group could keep the pipe open.
            let _ = silent.recv_timeout(Duration::from_secs(1));
            return Err(explain(failure, &end, &tail, spec.start_timeout));
        }
        self.pool.up(started.lanes, &process);
        Ok(Up { process, child: started.child, since: Instant::now() })
    }

    /// All workers of a model tell the same, also those that come later.
    fn agree(&self, ready: Ready) -> Result<(), Failure> {
        let mut agreed = self.agreed.lock();
        match &*agreed {
            Some(known) if known.signature != ready.signature => Err(Failure::Broken(
                "it read another model than the first worker: the model's files have changed".into(),
            )),
            Some(_) => Ok(()),
            None => {
                let described = ready.signature.clone();
                Signature::try_from(described).map_err(Failure::Broken)?;
                *agreed = Some(ready);
                Ok(())
            }
        }
    }
}

/// Has a worker read the model.
fn read(lane: &mut Lane, load: &Load, deadline: Instant) -> Result<Ready, Failure> {
    let broken = |error: String| Failure::Broken(error);
    let json = serde_json::to_vec(load).map_err(|error| broken(error.to_string()))?;
    let shape = Shape::new(&[json.len()]).ok_or_else(|| broken("too large".into()))?;
    let ask = Ask { kind: Kind::Load, detail: 0, entry: 0, rows: 0 };
    let header = lane.ask(ask, std::iter::once((DType::U8, shape, &json[..])), deadline)?;
    if header.kind != Kind::Ready {
        return Err(broken(format!("{:?}, expected Ready", header.kind)));
    }
    let json = lane.take_bytes(READY_BYTES_MAX)?;
    let ready = serde_json::from_slice(&json);
    ready.map_err(|error| broken(format!("what it tells of the model: {error}")))
}

fn explain(failure: Failure, end: &str, tail: &Tail, timeout: Duration) -> String {
    let said = || tail.last().map_or_else(String::new, |line| format!("; it said last: {line}"));
    match failure {
        Failure::Refused(_, why) => why,
        Failure::Hung => format!("the worker did not read the model within {timeout:?}{}", said()),
        Failure::Gone | Failure::Unsent => {
            format!("the worker ended while it read the model: {end}{}", said())
        }
        Failure::Broken(why) | Failure::TooLarge(why) => {
            format!("the worker makes no sense: {why}{}", said())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound() {
        let millis: Vec<u128> = (0..8).map(|ends| pause(ends).as_millis()).collect();
        assert_eq!(millis, [0, 0, 100, 200, 400, 800, 1600, 3200]);
        assert_eq!(pause(u32::MAX), PAUSE_MAX);
    }
}
