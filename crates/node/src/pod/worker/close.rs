//! The end of a pod: what it held is given back, then its folder and its object go.

use std::time::Duration;

use kube::api::{DeleteParams, Preconditions};
use pod_protocol::shim::Request;

use super::{Message, Worker};
use crate::cgroups;
use crate::volumes;

impl Worker {
    /// Nothing will run any more: the shim may leave, the address is free.
    pub(super) async fn release(&mut self) {
        if let Some(shim) = self.shim.take() {
            shim.ask(Request::Shutdown { grace_ms: 0 }).await;
        }
        self.events = None;
        if let Err(error) = self.context.config.network.detach(&self.uid).await {
            tracing::warn!(pod = %self.uid, %error, "the pod's address was not taken back");
        }
        cgroups::remove(&self.context.cgroups, &self.uid);
        let _ = std::fs::remove_dir_all(volumes::memory_folder_of(&self.uid));
    }

    /// Removes the folder and, when it is to be deleted, the object.
    pub(super) async fn remove(&mut self) {
        if !self.gone {
            self.reporter.flush().await;
            let preconditions = Preconditions { uid: Some(self.uid.clone()), resource_version: None };
            let params = DeleteParams {
                preconditions: Some(preconditions),
                ..DeleteParams::default().grace_period(0)
            };
            match self.api().delete(&self.name(), &params).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {}
                Err(error) => {
                    tracing::warn!(pod = %self.uid, %error, "the pod object was not deleted; trying again");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    let _ = self.inbox.try_send(Message::Pod(self.pod.clone()));
                    return;
                }
            }
        }
        if let Err(error) = self.folder.remove() {
            tracing::warn!(pod = %self.uid, %error, "the pod folder was not removed");
        }
        self.removed = true;
    }
}
