//! How the rest of the server asks for changes.
//!
//! Calls go to the manager's thread and are answered when it has carried them out: a load when the model answers or
//! cannot, an unload when no new request finds the model.
//!
//! Not here: who may ask (`routes`, `admin`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;
use crossbeam_channel::Sender;
use tokio::sync::oneshot;

use super::index::Index;
use super::manager::{Answer, Event, Failed, Manager};
use crate::config::{Config, Model};
use crate::refusal::{Reason, Refusal};

/// Calls that wait, at most.
const CALLS_MAX: usize = 64;
/// Requests that wait for a model to be loaded, at most.
const WAKING_MAX: usize = 4096;
/// How long a request without a deadline waits for that.
const WAKING_TIME_MAX: Duration = Duration::from_secs(60);

/// The manager's thread, which ends with this value.
pub(super) struct Control {
    sender: Sender<Event>,
    calls: AtomicUsize,
    waking: AtomicUsize,
}

impl Control {
    /// Starts the manager and waits until every model has been tried.
    pub(super) fn start(config: &Config, index: Arc<ArcSwap<Index>>) -> Result<Self, crate::Error> {
        let models = config.models.read().map_err(crate::Error::Config)?;
        // Bounded by what sends: a reader thread one event, a version that ends one, callers `CALLS_MAX` and
        // `WAKING_MAX`.
        let (sender, receiver) = crossbeam_channel::unbounded();
        let manager = Manager::new(config, index, sender.clone());
        std::thread::Builder::new()
            .name("repository".into())
            .spawn(move || manager.run(models, &receiver))
            .map_err(crate::Error::Worker)?;
        let control = Self { sender, calls: AtomicUsize::new(0), waking: AtomicUsize::new(0) };
        let (answer, settled) = oneshot::channel();
        let _ = control.sender.send(Event::Settle(answer));
        match settled.blocking_recv() {
            Ok(Err(failed)) if may_come(config, &failed) => {
                tracing::warn!(model = %failed.model, why = failed.why, "a model does not answer");
                Ok(control)
            }
            Ok(Err(Failed { model, path, why, .. })) => {
                Err(crate::Error::Load { name: model.to_string(), path, why })
            }
            _ => Ok(control),
        }
    }

    async fn ask(
        &self,
        event: impl FnOnce(Answer) -> Event,
        count: &AtomicUsize,
        max: usize,
        full: &str,
    ) -> Result<(), Refusal> {
        struct Counted<'a>(&'a AtomicUsize);
        impl Drop for Counted<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Relaxed);
            }
        }
        let before = count.fetch_add(1, Relaxed);
        let _counted = Counted(count);
        if before >= max {
            return Err(Refusal::new(Reason::QueueFull, full));
        }
        let (answer, answered) = oneshot::channel();
        let draining = || Refusal::new(Reason::Draining, "the server is about to end");
        self.sender.send(event(answer)).map_err(|_| draining())?;
        answered.await.map_err(|_| draining())?.map_err(Refusal::from)
    }

    async fn call(&self, event: impl FnOnce(Answer) -> Event) -> Result<(), Refusal> {
        self.ask(event, &self.calls, CALLS_MAX, "too many load and unload calls at once").await
    }

    /// Waits until a model that is loaded by calls is there.
    pub(super) async fn wake(&self, name: &str, wait_max: Option<Duration>) -> Result<(), Refusal> {
        let full = "too many requests wait for models to be loaded";
        let asked = self.ask(|answer| Event::Wake(name.into(), answer), &self.waking, WAKING_MAX, full);
        let waited = tokio::time::timeout(wait_max.unwrap_or(WAKING_TIME_MAX), asked).await;
        waited.unwrap_or_else(|_| {
            let text = format!("the deadline passed while model {name} was being loaded");
            Err(Refusal::new(Reason::Deadline, text))
        })
    }

    pub(super) async fn load(&self, name: &str) -> Result<(), Refusal> {
        self.call(|answer| Event::Load(name.into(), answer)).await
    }

    pub(super) async fn unload(&self, name: &str) -> Result<(), Refusal> {
        self.call(|answer| Event::Unload(name.into(), answer)).await
    }

    pub(super) async fn reload(&self, models: Vec<Model>) -> Result<(), Refusal> {
        for model in &models {
            model.check().map_err(|why| Refusal::new(Reason::Malformed, why))?;
        }
        self.call(|answer| Event::Reload(models, answer)).await
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = self.sender.send(Event::Stop);
    }
}

/// Whether the server starts although a model does not answer.
fn may_come(config: &Config, failed: &Failed) -> bool {
    // An empty folder that is looked at again may be filled later, as TensorFlow Serving's users expect.
    let is_empty = failed.why.starts_with("the folder holds no version");
    !config.loading.exit_on_error || (is_empty && config.loading.poll.is_some())
}
