//! From "it is its turn" to "the shim was asked": surroundings once, then the spec of each attempt.

use jiff::{SignedDuration, Timestamp};
use kube::api::{Patch, PatchParams};
use pod_protocol::shim::{CREATE_ERROR, Request};
use serde_json::json;

use super::{Message, Setup, Worker, object_of};
use crate::pod::decide::{Phase, Waiting};
use crate::pod::prepare::{self, Failure, Prepared, Surroundings};
use crate::shim::{Events, Shim};

/// First delay after a failed preparation; it doubles up to the restart back-off's bound.
const RETRY_FIRST_S: i64 = 1;
const RETRY_MAX_S: i64 = 300;
/// On a pod: what stood in for the images of its containers, a JSON object by container.
const STAND_IN_ANNOTATION: &str = "slipway.dev/image-stand-in";

impl Worker {
    /// Starts an attempt, or what must come before; when to try again if it is not time yet.
    pub(super) async fn start(&mut self, name: &str, attempt: u32) -> Option<Timestamp> {
        match &self.setup {
            Setup::Busy => return None,
            Setup::Failed { until, .. } if *until > Timestamp::now() => return Some(*until),
            Setup::Done(surroundings) if self.shim.is_some() => {
                let surroundings = surroundings.clone();
                self.prepare(name, attempt, surroundings);
                return None;
            }
            Setup::None | Setup::Failed { .. } | Setup::Done(_) => {}
        }
        self.begin_setup();
        None
    }

    pub(super) fn begin_setup(&mut self) {
        if let Setup::Failed { failures, .. } = self.setup {
            self.failures = failures;
        }
        self.setup = Setup::Busy;
        let (context, pod, folder) = (self.context.clone(), self.pod.clone(), self.folder.clone());
        let (inbox, mut tokens, has_shim) = (self.inbox.clone(), self.tokens.clone(), self.shim.is_some());
        self.context.work.spawn(async move {
            let result = async {
                let surroundings = prepare::surroundings(&context, &pod, &folder, &mut tokens).await?;
                let shim = match has_shim {
                    true => None,
                    false => Some(prepare::start_shim(&context, &pod, &folder, &surroundings.address).await?),
                };
                Ok((surroundings, shim))
            };
            let result = result.await;
            let _ = inbox.send(Message::Surroundings(result, tokens)).await;
        });
    }

    pub(super) fn set_up(&mut self, result: Result<(Surroundings, Option<(Shim, Events)>), Failure>) {
        match result {
            Ok((surroundings, shim)) => {
                self.address = Some(surroundings.address.clone());
                if let Some((shim, events)) = shim {
                    (self.shim, self.events) = (Some(shim), Some(events));
                }
                self.setup = Setup::Done(surroundings);
                self.failures = 0;
                for container in &mut self.containers {
                    container.waiting = None;
                }
            }
            Err(failure) => {
                let failures = self.failures + 1;
                let until = Timestamp::now() + retry_delay(failures);
                self.context.events.warning(&self.pod, None, &failure.reason, failure.message.clone());
                self.setup = Setup::Failed { until, failures };
                if failure.reason == CREATE_ERROR {
                    let (reason, message) = (failure.reason, failure.message);
                    for container in self.containers.iter_mut().filter(|container| !container.is_running()) {
                        let (reason, message) = (reason.clone(), message.clone());
                        container.waiting = Some(Waiting { reason, message, until, failures });
                    }
                }
            }
        }
    }

    pub(super) fn prepare(&mut self, name: &str, attempt: u32, surroundings: Surroundings) {
        let Some(object) = object_of(&self.pod, name) else { return };
        let Some(container) = self.container(name) else { return };
        if let Phase::Exited { exit, .. } = &container.phase {
            container.previous = Some(exit.clone());
        }
        container.attempt = attempt;
        container.phase = Phase::Starting;
        let (context, pod, folder, inbox) =
            (self.context.clone(), self.pod.clone(), self.folder.clone(), self.inbox.clone());
        let name = name.to_owned();
        self.context.work.spawn(async move {
            let result = prepare::attempt(&context, &pod, &object, attempt, &folder, &surroundings).await;
            let _ = inbox.send(Message::Prepared(name, attempt, result)).await;
        });
    }

    pub(super) fn prepared(&mut self, name: &str, attempt: u32, result: Result<Prepared, Failure>) {
        let (ending, shim) = (self.is_ending(), self.shim.clone());
        let Some(container) = self.container(name) else { return };
        if container.phase != Phase::Starting || container.attempt != attempt {
            return;
        }
        let failure = match result {
            Ok(_) if ending => {
                self.back_to_wait(name, None);
                return;
            }
            Ok(prepared) => {
                container.image_id = prepared.image_id;
                container.waiting = None;
                if let Some(what) = prepared.stand_in {
                    self.note_stand_in(name, what);
                }
                let request = Request::Start { container: name.to_owned(), attempt };
                let asked = shim.is_some_and(|shim| shim.try_ask(request));
                if asked {
                    self.context.events.normal(
                        &self.pod,
                        Some(name),
                        "Created",
                        format!("Created container: {name}"),
                    );
                    return;
                }
                Failure { reason: CREATE_ERROR.into(), message: "the pod's shim is gone".into() }
            }
            Err(failure) => failure,
        };
        self.back_to_wait(name, Some(failure));
    }

    /// Says on the pod itself what stood in for its images, beside the status and without holding it up.
    pub(super) fn note_stand_in(&mut self, name: &str, what: String) {
        if self.stand_ins.insert(name.to_owned(), what).is_some() {
            return;
        }
        let text = serde_json::to_string(&self.stand_ins).unwrap_or_default();
        let patch = json!({"metadata": {"uid": self.uid, "annotations": {STAND_IN_ANNOTATION: text}}});
        let (api, name) = (self.api(), self.name());
        tokio::spawn(async move {
            if let Err(error) = api.patch_metadata(&name, &PatchParams::default(), &Patch::Merge(patch)).await
            {
                tracing::debug!(pod = name, %error, "the stand-in was not noted");
            }
        });
    }

    /// The attempt did not come about: the container is again where it was before it.
    pub(super) fn back_to_wait(&mut self, name: &str, failure: Option<Failure>) {
        let Some(container) = self.container(name) else { return };
        match (container.attempt, container.previous.take()) {
            (0, _) | (_, None) => container.phase = Phase::New,
            (_, Some(exit)) => {
                container.attempt -= 1;
                let at = exit.finished_at.parse().unwrap_or_else(|_| Timestamp::now());
                container.phase = Phase::Exited { exit, at };
            }
        }
        let Some(failure) = failure else { return };
        let failures = container.waiting.as_ref().map_or(0, |waiting| waiting.failures) + 1;
        let until = Timestamp::now() + retry_delay(failures);
        let (mut reason, mut message) = (failure.reason, failure.message);
        if reason == "ErrImagePull" && failures > 1 {
            message = format!("Back-off pulling image: ErrImagePull: {message}");
            reason = "ImagePullBackOff".into();
        }
        container.waiting =
            Some(Waiting { reason: reason.clone(), message: message.clone(), until, failures });
        let text = if reason.contains("ImagePull") {
            format!("Error: {reason}")
        } else {
            format!("Error: {message}")
        };
        self.context.events.warning(&self.pod, Some(name), "Failed", text);
    }
}

fn retry_delay(failures: u32) -> SignedDuration {
    let doublings = failures.saturating_sub(1).min(9);
    SignedDuration::from_secs((RETRY_FIRST_S << doublings).min(RETRY_MAX_S))
}
