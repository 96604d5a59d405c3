//! What every namespace begins with: the ServiceAccount `default` and the ConfigMap `kube-root-ca.crt`.
//!
//! Pods name the account when they name none, and mount the ConfigMap to know the API server's certificate. Both are made
//! again when they are missing while the namespace lives.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use kube::api::{Api, PostParams};

use crate::cache::Key;
use crate::context::Context;
use crate::error::{Doing, Error, status};
use crate::objects::is_deleting;
use crate::queue::{Queue, work};

const COMPONENT: &str = "namespace-content-controller";
const WORKERS: usize = 4;
const ACCOUNT: &str = "default";
const ROOT_CA: &str = "kube-root-ca.crt";
const CA_KEY: &str = "ca.crt";

/// The controller of one cluster.
pub struct Accounts {
    context: Arc<Context>,
    root_ca_pem: String,
    queue: Queue<Key>,
}

impl Accounts {
    /// A controller that publishes this certificate. It starts with `run`.
    pub fn new(context: &Arc<Context>, root_ca_pem: String) -> Arc<Self> {
        let controller = Arc::new(Self { context: context.clone(), root_ca_pem, queue: Queue::default() });
        let queue = controller.queue.clone();
        context.namespaces.on_change(move |change| {
            // Once when it is new; the certificate does not change while this process runs.
            if let (None, Some(namespace)) = (change.old, change.new) {
                queue.add(Key::of(namespace.as_ref()));
            }
        });
        let queue = controller.queue.clone();
        context.accounts.on_change(move |change| {
            if let (Some(account), None) = (change.old, change.new)
                && account.name_any() == ACCOUNT
            {
                queue.add(Key::new("", account.namespace().unwrap_or_default()));
            }
        });
        controller
    }

    /// Works until it is dropped.
    pub async fn run(self: Arc<Self>) {
        let (controller, queue) = (self.clone(), self.queue.clone());
        work(COMPONENT, queue, WORKERS, move |key| {
            let controller = controller.clone();
            async move { controller.reconcile(&key).await }
        })
        .await;
    }

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let namespace =
            self.context.namespaces.get(key).filter(|namespace| !is_deleting(&namespace.metadata));
        if namespace.is_none() {
            return Ok(None);
        }
        if self.context.accounts.get(&Key::new(&key.name, ACCOUNT)).is_none() {
            self.create_account(&key.name).await?;
        }
        self.publish_certificate(&key.name).await?;
        Ok(None)
    }

    async fn create_account(&self, namespace: &str) -> Result<(), Error> {
        let api: Api<ServiceAccount> = Api::namespaced(self.context.client.clone(), namespace);
        let account = ServiceAccount { metadata: meta(namespace, ACCOUNT), ..ServiceAccount::default() };
        match api.create(&PostParams::default(), &account).await {
            Ok(created) => self.context.accounts.observe(created),
            Err(error) if matches!(status(&error), Some(409)) => {}
            Err(error) => {
                return Err(error).doing(|| format!("create account \"{ACCOUNT}\" in \"{namespace}\""));
            }
        }
        Ok(())
    }

    async fn publish_certificate(&self, namespace: &str) -> Result<(), Error> {
        let api: Api<ConfigMap> = Api::namespaced(self.context.client.clone(), namespace);
        let doing = || format!("publish the certificate in \"{namespace}\"");
        let data = [(CA_KEY.to_owned(), self.root_ca_pem.clone())].into();
        match api.get_opt(ROOT_CA).await.doing(doing)? {
            Some(existing) if existing.data.as_ref() == Some(&data) => {}
            Some(mut existing) => {
                existing.data = Some(data);
                api.replace(ROOT_CA, &PostParams::default(), &existing).await.doing(doing)?;
            }
            None => {
                let map = ConfigMap {
                    metadata: meta(namespace, ROOT_CA),
                    data: Some(data),
                    ..ConfigMap::default()
                };
                match api.create(&PostParams::default(), &map).await {
                    Err(error) if status(&error) == Some(409) => {}
                    other => drop(other.doing(doing)?),
                }
            }
        }
        Ok(())
    }
}

fn meta(namespace: &str, name: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.to_owned()), namespace: Some(namespace.to_owned()), ..ObjectMeta::default() }
}
