//! Taking a pod over from the server before: what still runs, and how the rest ended.

use std::collections::BTreeMap;

use pod_protocol::shim::{Event, folder};

use super::{Worker, object_of, unknown_exit};
use crate::folder as files;
use crate::pod::prepare;
use crate::shim;

impl Worker {
    /// Learns from the folder what happened before, and joins what still runs.
    pub(super) async fn adopt(&mut self) {
        if !self.folder.path().exists() {
            return;
        }
        // Before anything else: probes of what runs need it.
        self.address = prepare::attach(&self.context, &self.pod).await.ok();
        let mut running = BTreeMap::new();
        if let Some((shim, mut events)) = shim::adopt(&self.folder).await
            && let Some(Event::Hello { running: now, .. }) = events.recv().await
        {
            running = now;
            (self.shim, self.events) = (Some(shim), Some(events));
        }
        for index in 0..self.containers.len() {
            let name = self.containers[index].name.clone();
            let attempts = self.folder.attempts(&name);
            let Some((number, started, exit)) = attempts.last else { continue };
            let runs = running.get(&name) == Some(&number);
            // Asked after the shim: what ended meanwhile has left its record.
            let exit =
                exit.or_else(|| files::read(&self.folder.attempt(&name, number).join(folder::EXIT)).ok());
            let container = &mut self.containers[index];
            container.attempt = number;
            container.previous = attempts.previous;
            container.quick_ends = number + 1;
            match exit {
                Some(exit) => self.ended(&name, exit),
                None if runs => {
                    self.started(&name, &started);
                    self.trust_status(&name, number);
                }
                None => {
                    shim::end_orphan(&started).await;
                    let exit = unknown_exit(&started);
                    let _ = files::write(&self.folder.attempt(&name, number).join(folder::EXIT), &exit);
                    self.ended(&name, exit);
                }
            }
        }
        let phase = self.pod.status.as_ref().and_then(|status| status.phase.as_deref());
        self.finished = matches!(phase, Some("Succeeded" | "Failed")) && running.is_empty();
        self.over_deadline =
            self.pod.status.as_ref().and_then(|status| status.reason.as_deref()) == Some("DeadlineExceeded");
        if self.finished {
            self.release().await;
        }
    }

    /// What was ready before the server went away counts as ready until a probe says otherwise: a restart of the
    /// server must not take pods out of their Services.
    pub(super) fn trust_status(&mut self, name: &str, attempt: u32) {
        let status = self.pod.status.as_ref();
        let mut told = status.iter().flat_map(|status| {
            status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten())
        });
        let told = told.find(|told| told.name == name && told.restart_count == attempt as i32).cloned();
        let (Some(told), Some(object)) = (told, object_of(&self.pod, name)) else { return };
        let Some(container) = self.container(name) else { return };
        let was_starting = !container.started;
        container.image_id = told.image_id;
        container.ready |= told.ready;
        container.started |= told.started == Some(true);
        if was_starting && container.started {
            for task in self.probes.remove(name).into_iter().flatten() {
                task.abort();
            }
            self.watch_probes(name, attempt, object);
        }
    }
}
