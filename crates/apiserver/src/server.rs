//! The server itself: what all requests share, and how it starts.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, RwLock};
use serde_json::Value;
use store::Store;

use crate::admission::Admission;
use crate::authn::Tokens;
use crate::authz::Policy;
use crate::error::Result;
use crate::openapi::Documents;
use crate::pki::Pki;
use crate::resource::{Registry, Resource};
use crate::services::{Ipv4Range, PortRange};
use crate::streams::PodStreams;

/// What the operator chose, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where clients reach this server; becomes the endpoint of the `kubernetes` Service.
    pub advertise: SocketAddr,
    /// Cluster IPs come from here.
    pub service_range: Ipv4Range,
    /// Node ports come from here.
    pub node_ports: PortRange,
    /// A token that stands for `system:masters`, if the operator wants one.
    pub admin_token: Option<String>,
    /// The namespaces that must exist from the start, beside Kubernetes' own.
    pub namespaces: Vec<String>,
}

/// The embedded Kubernetes API.
pub struct ApiServer {
    pub(crate) store: Store,
    pub(crate) config: Config,
    pub(crate) pki: Pki,
    pub(crate) tokens: Tokens,
    pub(crate) policy: Policy,
    pub(crate) admission: Vec<Arc<dyn Admission>>,
    pub(crate) streams: OnceLock<Arc<dyn PodStreams>>,
    registry: RwLock<Arc<Registry>>,
    /// Held while cluster IPs or node ports are chosen and committed, so that none is given twice.
    pub(crate) allocation: tokio::sync::Mutex<()>,
    /// OpenAPI documents in use.
    pub(crate) documents: Arc<Documents>,
    /// Revision of the CustomResourceDefinitions in the registry.
    crd_revision: Mutex<u64>,
}

impl ApiServer {
    /// Opens the API over a store: makes what every cluster has (namespaces, policy, the `kubernetes` Service) and serves
    /// the CustomResourceDefinitions that are stored.
    ///
    /// # Errors
    /// Failures of the store or of the signing key.
    pub async fn start(
        store: Store,
        pki: Pki,
        config: Config,
        admission: Vec<Arc<dyn Admission>>,
    ) -> Result<Arc<Self>> {
        let tokens = Tokens::new(&pki, config.admin_token.clone())?;
        let server = Arc::new(Self {
            store,
            config,
            pki,
            tokens,
            policy: Policy::default(),
            admission,
            streams: OnceLock::new(),
            registry: RwLock::new(Arc::new(crate::builtin::registry())),
            allocation: tokio::sync::Mutex::new(()),
            documents: Arc::default(),
            crd_revision: Mutex::new(0),
        });
        crate::bootstrap::run(&server).await?;
        server.refresh_custom();
        crate::crd::resume_deletions(&server);
        crate::expiry::spawn(&server);
        Ok(server)
    }

    /// Gives the server its way to the node. Once; later calls change nothing.
    pub fn set_pod_streams(&self, streams: Arc<dyn PodStreams>) {
        // A second node in one process is a mistake of the wiring, and the first stays in charge.
        drop(self.streams.set(streams));
    }

    /// The certificates and keys.
    pub fn pki(&self) -> &Pki {
        &self.pki
    }

    /// What is served now.
    pub fn registry(&self) -> Arc<Registry> {
        self.registry.read().clone()
    }

    /// To be called after each write: keeps in step what is derived from stored objects.
    pub(crate) fn written(&self, key: &str) {
        if key.starts_with("/rbac.authorization.k8s.io/") {
            self.policy.invalidate();
        } else if key.starts_with(crate::crd::PREFIX) {
            self.refresh_custom();
        }
    }

    /// Builds the registry anew from the stored CustomResourceDefinitions.
    pub(crate) fn refresh_custom(&self) {
        let mut seen = self.crd_revision.lock();
        let snapshot = self.store.snapshot();
        // A slower caller with an older view must not undo a newer one.
        if snapshot.revision() < *seen {
            return;
        }
        *seen = snapshot.revision();
        let mut registry = crate::builtin::registry();
        for record in snapshot.range(crate::crd::PREFIX, None) {
            if let Ok(definition) = crate::storage::parse(&record.value) {
                for resource in crate::crd::served(&definition) {
                    registry.add(Arc::new(resource));
                }
            }
        }
        registry.sort_versions();
        *self.registry.write() = Arc::new(registry);
    }

    /// Reads one object as stored.
    pub(crate) fn read(&self, resource: &Resource, namespace: &str, name: &str) -> Option<Value> {
        crate::storage::read(&self.store, &resource.key(namespace, name))
    }

    /// Reads one built-in object by its storage key.
    pub(crate) fn read_key(&self, key: &str) -> Option<Value> {
        crate::storage::read(&self.store, key)
    }
}

impl std::fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiServer").field("advertise", &self.config.advertise).finish_non_exhaustive()
    }
}
