//! The network for root: a namespace a pod, joined by veth pairs to a bridge of the cluster.
//!
//! In slice N (64 to 127) of 10.0.0.0/8 the lower half is the bridge's own subnet: `10.N.0.1` is the node, `10.N.0.10`
//! the name server, pods are from `10.N.1.0` on. The upper half is Services: a local route makes the whole of it the
//! host's, so the proxy's listeners need no address of their own each, and pods reach them through their gateway.
//!
//! Everything has a name that follows from N and the pod's address (`slwN`, `slwNpK`, `/run/netns/slwN-K`), and is
//! looked at before it is made: after a restart of the server pods are found as they were left; after one of the
//! machine they are made again.
//!
//! It drives `ip` (iproute2), two calls a pod, rather than speaking netlink itself: the tool is on every system that runs
//! containers, and its batch mode is one process for all steps. Pods reach each other, Services and the host. The way out to
//! other machines needs forwarding and address translation, which are the host's policy and left to it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use async_trait::async_trait;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use types::net::Ipv4Range;

use super::addresses::{Addresses, remembered_slice};
use super::slices::{self, Claim};
use super::{Attach, Error, Kind, Network, PodAddress};

/// Slices of 10.0.0.0/8 that a cluster may take.
const SLICES: std::ops::RangeInclusive<u8> = 64..=127;
/// The first 256 addresses of a slice are the node's own.
const RESERVED: u32 = 256;
const NETNS_DIR: &str = "/run/netns";
const ROUTES: &str = "/proc/net/route";

/// Pods in namespaces of their own.
pub struct Bridge {
    slice: u8,
    addresses: Addresses,
    /// Held for life: the claim on the slice.
    _claim: Claim,
}

impl Bridge {
    /// Takes the remembered slice, else a free one that no route of the host overlaps, and makes the bridge.
    ///
    /// # Errors
    /// [`Error::Unsupported`] without `ip` or without the right to use it.
    pub async fn open(data_dir: &Path) -> Result<Self, Error> {
        let path = data_dir.join("network.json");
        let routes = fs::read_to_string(ROUTES).unwrap_or_default();
        let free = |slice| match foreign_route(&routes, slice) {
            true => Err(io::ErrorKind::AddrInUse.into()),
            false => Ok(()),
        };
        let claim = slices::claim(10, SLICES, remembered_slice(&path)?, data_dir, free)?;
        let addresses = Addresses::open(path, Some(claim.slice), half(claim.slice, false), RESERVED)?;
        let bridge = Self { slice: claim.slice, addresses, _claim: claim };
        bridge.make().await.map_err(unsupported)?;
        Ok(bridge)
    }

    /// Takes the bridge, its route and every pod's namespace away. For the end of the cluster, when no pod runs any more.
    pub async fn tear_down(self) -> Result<(), Error> {
        for uid in self.addresses.retain(&BTreeSet::new())? {
            tracing::debug!(uid, "the pod's address is given back");
        }
        let prefix = format!("{}-", self.name());
        let names = fs::read_dir(NETNS_DIR).into_iter().flatten().flatten();
        let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut batch: Vec<String> =
            names.filter(|name| name.starts_with(&prefix)).map(|name| format!("netns del {name}")).collect();
        batch.push(format!("route del local {} dev lo", half(self.slice, true)));
        batch.push(format!("link del {}", self.name()));
        ip(&["-force"], &batch).await
    }

    /// The bridge's interface; the first part of all names of this cluster.
    fn name(&self) -> String {
        format!("slw{}", self.slice)
    }

    async fn make(&self) -> Result<(), Error> {
        let (name, services) = (self.name(), half(self.slice, true));
        let mut batch = Vec::new();
        if !Path::new("/sys/class/net").join(&name).exists() {
            batch.push(format!("link add {name} type bridge"));
        }
        batch.push(format!("addr replace {}/17 dev {name}", self.host_ip()));
        batch.push(format!("addr replace {}/32 dev {name}", self.dns_ip()));
        batch.push(format!("link set {name} up"));
        batch.push(format!("route replace local {services} dev lo"));
        ip(&[], &batch).await
    }

    /// The pod's namespace, made if it is not there.
    async fn namespace(&self, address: Ipv4Addr) -> Result<PathBuf, Error> {
        let offset = u32::from(address) - u32::from(self.pod_range().base());
        let (netns, link) = (format!("{}-{offset}", self.name()), format!("{}p{offset}", self.name()));
        let path = Path::new(NETNS_DIR).join(&netns);
        let complete = path.exists() && Path::new("/sys/class/net").join(&link).exists();
        if complete {
            return Ok(path);
        }
        // What an interrupted attempt left is taken away first; usually there is nothing.
        if path.exists() {
            ip(&["-force"], &[format!("netns del {netns}")]).await?;
        }
        let outside = [
            format!("netns add {netns}"),
            format!("link add {link} type veth peer name eth0 netns {netns}"),
            format!("link set {link} master {} up", self.name()),
        ];
        ip(&[], &outside).await?;
        let inside = [
            "link set lo up".to_owned(),
            format!("addr add {address}/17 dev eth0"),
            "link set eth0 up".to_owned(),
            format!("route add default via {}", self.host_ip()),
        ];
        ip(&["-n", &netns], &inside).await?;
        Ok(path)
    }

    async fn remove_namespace(&self, address: Ipv4Addr) -> Result<(), Error> {
        let offset = u32::from(address) - u32::from(self.pod_range().base());
        let (netns, link) = (format!("{}-{offset}", self.name()), format!("{}p{offset}", self.name()));
        let mut batch = Vec::new();
        // The link goes with the last process of the namespace; deleting it makes the address free at once.
        if Path::new("/sys/class/net").join(&link).exists() {
            batch.push(format!("link del {link}"));
        }
        if Path::new(NETNS_DIR).join(&netns).exists() {
            batch.push(format!("netns del {netns}"));
        }
        if batch.is_empty() { Ok(()) } else { ip(&["-force"], &batch).await }
    }
}

fn half(slice: u8, upper: bool) -> Ipv4Range {
    let base = Ipv4Addr::new(10, slice, if upper { 128 } else { 0 }, 0);
    Ipv4Range::new(base, 17).expect("the base of a half has no bit after the 17th")
}

/// Whether a route that is not this network's own leads into the slice. Lines: interface, destination and mask in
/// little-endian hexadecimal (columns 1, 2 and 8).
fn foreign_route(routes: &str, slice: u8) -> bool {
    let own = format!("slw{slice}");
    let ours = u32::from(Ipv4Addr::new(10, slice, 0, 0));
    routes.lines().skip(1).any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| {
            fields.get(at).and_then(|text| u32::from_str_radix(text, 16).ok()).map(u32::swap_bytes)
        };
        let (Some(name), Some(to), Some(mask)) = (fields.first(), number(1), number(7)) else { return false };
        // The default route leads everywhere and says nothing.
        *name != own && mask != 0 && (to ^ ours) & mask & 0xffff_0000 == 0
    })
}

/// Runs `ip` with a batch of commands.
async fn ip(flags: &[&str], batch: &[String]) -> Result<(), Error> {
    let kernel = |source| Error::Kernel { doing: format!("run ip {}", batch.join("; ")), source };
    let mut command = Command::new("ip");
    command
        .args(flags)
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.kill_on_drop(true).spawn().map_err(kernel)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all((batch.join("\n") + "\n").as_bytes()).await.map_err(kernel)?;
    }
    let output = child.wait_with_output().await.map_err(kernel)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let kind =
        if said.contains("not permitted") { io::ErrorKind::PermissionDenied } else { io::ErrorKind::Other };
    Err(kernel(io::Error::new(kind, said)))
}

/// The first commands show what is missing; later ones fail for their own reasons.
fn unsupported(error: Error) -> Error {
    let Error::Kernel { source, .. } = &error else { return error };
    let reason = match source.kind() {
        io::ErrorKind::NotFound => {
            "the program \"ip\" is missing; install iproute2, or use --network loopback"
        }
        io::ErrorKind::PermissionDenied => "it needs root or CAP_NET_ADMIN; or use --network loopback",
        _ => return error,
    };
    Error::Unsupported { kind: Kind::Bridge.as_str(), reason: reason.to_owned() }
}

#[async_trait]
impl Network for Bridge {
    fn kind(&self) -> Kind {
        Kind::Bridge
    }

    async fn attach(&self, pod: Attach<'_>) -> Result<PodAddress, Error> {
        if pod.host_network {
            return Ok(PodAddress { ip: self.host_ip(), netns: None });
        }
        let ip = self.addresses.take(pod.uid)?;
        let netns = self.namespace(ip).await?;
        Ok(PodAddress { ip, netns: Some(netns) })
    }

    async fn detach(&self, uid: &str) -> Result<(), Error> {
        if let Some(ip) = self.addresses.of(uid) {
            self.remove_namespace(ip).await?;
        }
        self.addresses.give_back(uid)
    }

    async fn retain(&self, uids: &BTreeSet<String>) -> Result<Vec<String>, Error> {
        let gone = self.addresses.unlisted(uids);
        for uid in &gone {
            self.detach(uid).await?;
        }
        Ok(gone)
    }

    fn pod_range(&self) -> Ipv4Range {
        half(self.slice, false)
    }

    fn service_range(&self) -> Ipv4Range {
        half(self.slice, true)
    }

    fn host_ip(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, self.slice, 0, 1)
    }

    fn dns_ip(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, self.slice, 0, 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_that_the_host_routes_elsewhere_is_not_taken() {
        let routes = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n\
            eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\n\
            vpn0\t0000420A\t00000000\t0001\t0\t0\t0\t0000FFFF\n\
            slw70\t0000460A\t00000000\t0001\t0\t0\t0\t0080FFFF\n\
            vpn1\t0000480A\t00000000\t0001\t0\t0\t0\t0000F8FF\n";
        let cases = [(64, false), (66, true), (70, false), (71, false), (72, true), (79, true), (80, false)];
        for (slice, want) in cases {
            assert_eq!(foreign_route(routes, slice), want, "10.{slice}.0.0/16");
        }
    }

    /// Needs the right to make links; elsewhere the error must say so.
    #[tokio::test]
    async fn pods_reach_each_other_and_services_from_namespaces_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let bridge = match Bridge::open(dir.path()).await {
            Ok(bridge) => bridge,
            Err(error) => {
                assert!(matches!(error, Error::Unsupported { .. }), "{error:?}");
                return;
            }
        };
        let attach = |uid| bridge.attach(Attach { uid, host_network: false });
        let (a, b) = (attach("a").await.unwrap(), attach("b").await.unwrap());
        assert_eq!(attach("a").await.unwrap(), a, "a second attach changes nothing");
        let service = bridge.service_range().nth(7).unwrap();
        let listener = tokio::net::TcpListener::bind((service, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let accept = tokio::spawn(async move { listener.accept().await.unwrap().1 });
        let seen = run_in(&a, &format!("exec 3<>/dev/tcp/{service}/{port}")).await;
        assert!(seen, "a pod reaches a Service address");
        assert_eq!(accept.await.unwrap().ip(), a.ip, "with its own address");
        let refused = run_in(&a, &format!("exec 3<>/dev/tcp/{}/1", b.ip)).await;
        assert!(!refused, "nothing listens there");
        bridge.detach("a").await.unwrap();
        assert!(!a.netns.unwrap().exists());
        assert_eq!(bridge.retain(&BTreeSet::new()).await.unwrap(), ["b"]);
        assert!(!b.netns.unwrap().exists());
        bridge.tear_down().await.unwrap();
    }

    async fn run_in(pod: &PodAddress, script: &str) -> bool {
        let netns = pod.netns.as_ref().unwrap().file_name().unwrap().to_owned();
        let command = ["bash", "-c", script];
        let mut ip = Command::new("ip");
        ip.args(["netns", "exec"]).arg(netns).args(command).stderr(Stdio::null());
        ip.status().await.unwrap().success()
    }
}
