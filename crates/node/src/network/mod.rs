//! The network of the cluster's pods and Services, behind one trait with two implementations.
//!
//! * `loopback` needs no rights: pods share the host's network and each has an address of its own in a /16 slice of
//!   127.0.0.0/8 that belongs to this cluster.
//! * `bridge` (root or CAP_NET_ADMIN): a network namespace a pod, joined by veth pairs to a bridge, with pod and
//!   Service ranges outside 127.0.0.0/8 that the host reaches.
//!
//! On top of either stand the Service proxy (`proxy`: layer-4 listeners at the Services' addresses) and the cluster's
//! name server (`dns`); both learn what they serve from the Kubernetes API alone.
//!
//! Not here: which pods run (the node's pod loop calls `attach` and `detach`), and who gives a Service its address
//! (the API server, from `Network::service_range`).

mod addresses;
mod bridge;
pub mod dns;
mod loopback;
pub mod proxy;
mod seen;
mod slices;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use async_trait::async_trait;
use types::net::Ipv4Range;

pub use bridge::Bridge;
pub use loopback::Loopback;

/// What a pod asks of the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attach<'a> {
    /// `metadata.uid` of the pod: the key of its address.
    pub uid: &'a str,
    /// `spec.hostNetwork`: the pod gets the host's address and no namespace.
    pub host_network: bool,
}

/// Where a pod is in the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodAddress {
    /// What `status.podIP` says.
    pub ip: Ipv4Addr,
    /// The network namespace that the pod's processes must enter; `None`: the host's own.
    pub netns: Option<PathBuf>,
}

/// Which implementation a network is; `slipway status` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Addresses in 127.0.0.0/8, the host's own namespace.
    Loopback,
    /// A namespace a pod, veth and a bridge.
    Bridge,
}

impl Kind {
    /// `loopback` or `bridge`, as flags and `status` write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::Bridge => "bridge",
        }
    }
}

/// Why the network could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Every slice that a cluster may take is held by another one, or used by the host.
    #[error("no free slice of {first_octet}.0.0.0/8: {tried} are taken")]
    NoFreeSlice {
        /// 127 for loopback, 10 for bridge.
        first_octet: u8,
        /// How many slices were tried.
        tried: u32,
    },
    /// The pod range is used up.
    #[error("the pod range {range} has no free address")]
    RangeFull {
        /// The range of pods.
        range: Ipv4Range,
    },
    /// The file that remembers addresses cannot be read or written.
    #[error("cannot {doing} the addresses in \"{path}\"")]
    State {
        /// `read`, `write` or `parse`.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The kernel refused a link, an address or a namespace.
    #[error("cannot {doing}")]
    Kernel {
        /// What was being done, with its object.
        doing: String,
        /// The cause.
        source: std::io::Error,
    },
    /// This implementation does not work on this machine.
    #[error("the {kind} network cannot be used here: {reason}")]
    Unsupported {
        /// `loopback` or `bridge`.
        kind: &'static str,
        /// What is missing, and what to do about it.
        reason: String,
    },
}

/// The network of one cluster on one node.
///
/// # Rules for implementations
/// * `attach` is idempotent: a uid keeps its address until `detach`, also across restarts of the server.
/// * `detach` of an unknown uid succeeds. An address is not given out again at once after `detach`.
/// * Ranges and addresses of the node never change during the life of the value.
#[async_trait]
pub trait Network: Send + Sync {
    /// Which implementation this is.
    fn kind(&self) -> Kind;

    /// Gives the pod its address; the same one each time it is called for a uid.
    async fn attach(&self, pod: Attach<'_>) -> Result<PodAddress, Error>;

    /// Takes the pod's address back, once nothing of the pod runs any more.
    async fn detach(&self, uid: &str) -> Result<(), Error>;

    /// After a restart: forgets every pod that is not in `uids`, and says which they were. The others keep their address.
    async fn retain(&self, uids: &BTreeSet<String>) -> Result<Vec<String>, Error>;

    /// Addresses of pods.
    fn pod_range(&self) -> Ipv4Range;

    /// Addresses of Services (`spec.clusterIP`); the API server allocates from it.
    fn service_range(&self) -> Ipv4Range;

    /// The node's own address (`status.hostIP`), where the platform's faces listen for pods.
    fn host_ip(&self) -> Ipv4Addr;

    /// Where the cluster's name server listens.
    fn dns_ip(&self) -> Ipv4Addr;
}
