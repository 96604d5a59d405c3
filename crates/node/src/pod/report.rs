//! Writes a pod's status, the newest one only, beside the pod's task.
//!
//! A status that is overtaken before it is written is never written: what counts is how the pod stands now. So a start
//! never waits for the server to sync what is already history.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long to wait after the API did not take a status.
const RETRY: Duration = Duration::from_secs(1);

/// The writer of one pod's status.
#[derive(Debug)]
pub struct Reporter {
    wanted: watch::Sender<(u64, Option<Arc<PodStatus>>)>,
    written: watch::Receiver<u64>,
    task: JoinHandle<()>,
}

impl Reporter {
    /// Starts it for one pod; it ends with the value.
    pub fn start(api: Api<Pod>, name: String, uid: String) -> Self {
        let (wanted, mut seen) = watch::channel((0, None::<Arc<PodStatus>>));
        let (done, written) = watch::channel(0);
        let task = tokio::spawn(async move {
            while seen.changed().await.is_ok() {
                loop {
                    let (number, status) = seen.borrow_and_update().clone();
                    let Some(status) = status else { break };
                    if write(&api, &name, &uid, &status).await {
                        let _ = done.send(number);
                        break;
                    }
                    tokio::time::sleep(RETRY).await;
                }
            }
        });
        Self { wanted, written, task }
    }

    /// Hands a status over.
    pub fn report(&self, status: PodStatus) {
        self.wanted.send_modify(|wanted| *wanted = (wanted.0 + 1, Some(Arc::new(status))));
    }

    /// The status handed over last.
    pub fn last(&self) -> Option<Arc<PodStatus>> {
        self.wanted.borrow().1.clone()
    }

    /// Waits until the last status is written.
    pub async fn flush(&mut self) {
        let number = self.wanted.borrow().0;
        let _ = self.written.wait_for(|written| *written >= number).await;
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// `false`: to be tried again.
async fn write(api: &Api<Pod>, name: &str, uid: &str, status: &PodStatus) -> bool {
    let patch = Patch::Merge(json!({"metadata": {"uid": uid}, "status": status}));
    match api.patch_status(name, &PatchParams::default(), &patch).await {
        Ok(_) => true,
        // Gone, or another pod of that name: the watch will say so.
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => true,
        Err(error) => {
            tracing::warn!(pod = uid, %error, "the status was not written; trying again");
            false
        }
    }
}
