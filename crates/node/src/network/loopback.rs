//! The network that needs no rights: a /16 slice of 127.0.0.0/8 a cluster.
//!
//! Linux answers on every address of 127.0.0.0/8 without any being configured, so each pod and Service can have its
//! own. In slice N: `127.N.0.1` is the node, `127.N.0.10` the name server, pods are from `127.N.1.0` on in the lower half,
//! Services in the upper half.
//! Which N is free is the affair of `slices`.
//!
//! Not isolated: a process that binds 0.0.0.0 takes the port on every address. What the node does about that is its part.

use std::collections::BTreeSet;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

use async_trait::async_trait;
use types::net::Ipv4Range;

use super::addresses::{Addresses, remembered_slice};
use super::slices::{self, Claim};
use super::{Attach, Error, Kind, Network, PodAddress};

/// Slices that a cluster may take. Below are the host's own habits (127.0.0.1, 127.0.0.53, 127.0.1.1).
const SLICES: std::ops::RangeInclusive<u8> = 16..=250;
/// The first 256 addresses of a slice are the node's own.
const RESERVED: u32 = 256;

/// Pods and Services on addresses of 127.0.0.0/8.
pub struct Loopback {
    slice: u8,
    addresses: Addresses,
    /// Held for life: the claim on the slice.
    _claim: Claim,
}

impl Loopback {
    /// Takes the remembered slice, else a free one, and opens the addresses in `data_dir/network.json`.
    pub fn open(data_dir: &Path) -> Result<Self, Error> {
        let path = data_dir.join("network.json");
        let remembered = remembered_slice(&path)?;
        let claim = slices::claim(127, SLICES, remembered, data_dir, prove)?;
        let addresses = Addresses::open(path, Some(claim.slice), pod_range(claim.slice), RESERVED)?;
        Ok(Self { slice: claim.slice, addresses, _claim: claim })
    }

    /// The second octet of every address of this cluster.
    pub fn slice(&self) -> u8 {
        self.slice
    }
}

/// Proves that the slice's addresses work here by binding one.
fn prove(slice: u8) -> io::Result<()> {
    std::net::TcpListener::bind((Ipv4Addr::new(127, slice, 0, 1), 0)).map(drop)
}

fn half(slice: u8, upper: bool) -> Ipv4Range {
    let base = Ipv4Addr::new(127, slice, if upper { 128 } else { 0 }, 0);
    Ipv4Range::new(base, 17).expect("the base of a half has no bit after the 17th")
}

fn pod_range(slice: u8) -> Ipv4Range {
    half(slice, false)
}

#[async_trait]
impl Network for Loopback {
    fn kind(&self) -> Kind {
        Kind::Loopback
    }

    async fn attach(&self, pod: Attach<'_>) -> Result<PodAddress, Error> {
        let ip = if pod.host_network { self.host_ip() } else { self.addresses.take(pod.uid)? };
        Ok(PodAddress { ip, netns: None })
    }

    async fn detach(&self, uid: &str) -> Result<(), Error> {
        self.addresses.give_back(uid)
    }

    async fn retain(&self, uids: &BTreeSet<String>) -> Result<Vec<String>, Error> {
        self.addresses.retain(uids)
    }

    fn pod_range(&self) -> Ipv4Range {
        pod_range(self.slice)
    }

    fn service_range(&self) -> Ipv4Range {
        half(self.slice, true)
    }

    fn host_ip(&self) -> Ipv4Addr {
        Ipv4Addr::new(127, self.slice, 0, 1)
    }

    fn dns_ip(&self) -> Ipv4Addr {
        Ipv4Addr::new(127, self.slice, 0, 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str) -> Attach<'_> {
        Attach { uid, host_network: false }
    }

    #[tokio::test]
    async fn two_clusters_never_share_a_slice() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = Loopback::open(a.path()).unwrap();
        let second = Loopback::open(b.path()).unwrap();
        assert_ne!(first.slice(), second.slice());
        assert!(!first.pod_range().contains(second.attach(pod("x")).await.unwrap().ip));
    }

    #[tokio::test]
    async fn a_restarted_cluster_keeps_its_addresses() {
        let dir = tempfile::tempdir().unwrap();
        let before = Loopback::open(dir.path()).unwrap();
        let (slice, address) = (before.slice(), before.attach(pod("x")).await.unwrap());
        drop(before);
        let after = Loopback::open(dir.path()).unwrap();
        assert_eq!((after.slice(), after.attach(pod("x")).await.unwrap()), (slice, address));
        after.detach("x").await.unwrap();
        after.detach("x").await.unwrap();
        assert_ne!(after.attach(pod("y")).await.unwrap().ip, after.host_ip());
    }

    #[tokio::test]
    async fn a_pod_on_the_hosts_network_has_the_nodes_address() {
        let dir = tempfile::tempdir().unwrap();
        let network = Loopback::open(dir.path()).unwrap();
        let address = network.attach(Attach { uid: "h", host_network: true }).await.unwrap();
        assert_eq!(address, PodAddress { ip: network.host_ip(), netns: None });
        assert!(network.pod_range().contains(network.dns_ip()));
        assert!(!network.service_range().contains(network.host_ip()));
    }
}
