//! What the cluster's names mean: Services and their endpoints as a DNS zone. Pure.
//!
//! The names are those of the Kubernetes DNS specification: `SVC.NS.svc.DOMAIN`, `HOST.SVC.NS.svc.DOMAIN` for endpoints of headless
//! Services, and `A-B-C-D.NS.pod.DOMAIN`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;

const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// These addresses; none: the name exists without any.
    Addresses(Vec<Ipv4Addr>),
    /// Another name, which the client must ask elsewhere.
    Alias(String),
    /// No such name in the cluster.
    Unknown,
    /// Not a name of the cluster: ask another server.
    NotOurs,
}

#[derive(Debug, Default)]
struct Entry {
    addresses: Vec<Ipv4Addr>,
    alias: Option<String>,
    /// Endpoints by their first label, for headless Services.
    hosts: BTreeMap<String, Vec<Ipv4Addr>>,
}

/// The names of the cluster.
#[derive(Debug)]
pub(super) struct Zone {
    domain: String,
    namespaces: BTreeSet<String>,
    services: BTreeMap<(String, String), Entry>,
}

impl Zone {
    /// The zone of these objects; `domain` without a final dot, such as `cluster.local`.
    pub(super) fn new<'a>(
        domain: &str,
        services: impl Iterator<Item = &'a Service>,
        slices: impl Iterator<Item = &'a EndpointSlice>,
    ) -> Self {
        let mut zone = Self {
            domain: domain.to_ascii_lowercase(),
            namespaces: BTreeSet::new(),
            services: BTreeMap::new(),
        };
        for service in services {
            let Some(spec) = &service.spec else { continue };
            let namespace = service.namespace().unwrap_or_default();
            let cluster_ip = spec.cluster_ip.as_deref().and_then(|ip| ip.parse().ok());
            let alias = spec.external_name.clone().filter(|_| spec.type_.as_deref() == Some("ExternalName"));
            let entry = Entry { addresses: cluster_ip.into_iter().collect(), alias, hosts: BTreeMap::new() };
            zone.namespaces.insert(namespace.clone());
            zone.services.insert((namespace, service.name_any()), entry);
        }
        let headless: BTreeSet<(String, String)> = zone
            .services
            .iter()
            .filter(|(_, entry)| entry.addresses.is_empty() && entry.alias.is_none())
            .map(|(key, _)| key.clone())
            .collect();
        for slice in slices {
            let Some(service) = slice.labels().get(SERVICE_NAME) else { continue };
            let key = (slice.namespace().unwrap_or_default(), service.clone());
            if let Some(entry) = zone.services.get_mut(&key).filter(|_| headless.contains(&key)) {
                entry.add(slice);
            }
        }
        zone
    }

    /// What `name` (lower case, without a final dot) stands for.
    pub(super) fn answer(&self, name: &str) -> Answer {
        if name == self.domain {
            return Answer::Addresses(Vec::new());
        }
        let Some(rest) = name.strip_suffix(&self.domain).and_then(|rest| rest.strip_suffix('.')) else {
            return Answer::NotOurs;
        };
        let labels: Vec<&str> = rest.split('.').collect();
        match labels.as_slice() {
            ["svc" | "pod"] => Answer::Addresses(Vec::new()),
            [namespace, "svc" | "pod"] if self.namespaces.contains(*namespace) => {
                Answer::Addresses(Vec::new())
            }
            [service, namespace, "svc"] => self.service(namespace, service),
            [host, service, namespace, "svc"] => self.host(namespace, service, host),
            [ip, _namespace, "pod"] => {
                ip.replace('-', ".").parse().map_or(Answer::Unknown, |ip| Answer::Addresses(vec![ip]))
            }
            _ => Answer::Unknown,
        }
    }

    fn entry(&self, namespace: &str, service: &str) -> Option<&Entry> {
        self.services.get(&(namespace.to_owned(), service.to_owned()))
    }

    fn service(&self, namespace: &str, service: &str) -> Answer {
        match self.entry(namespace, service) {
            None => Answer::Unknown,
            Some(Entry { alias: Some(alias), .. }) => Answer::Alias(alias.trim_end_matches('.').to_owned()),
            Some(entry) => Answer::Addresses(entry.addresses.clone()),
        }
    }

    fn host(&self, namespace: &str, service: &str, host: &str) -> Answer {
        let addresses = self.entry(namespace, service).and_then(|entry| entry.hosts.get(host));
        addresses.map_or(Answer::Unknown, |addresses| Answer::Addresses(addresses.clone()))
    }
}

impl Entry {
    fn add(&mut self, slice: &EndpointSlice) {
        for endpoint in &slice.endpoints {
            let ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true);
            let Some(ip) = endpoint.addresses.first().and_then(|ip| ip.parse::<Ipv4Addr>().ok()) else {
                continue;
            };
            if !ready {
                continue;
            }
            if !self.addresses.contains(&ip) {
                self.addresses.push(ip);
            }
            let host = endpoint.hostname.clone().unwrap_or_else(|| ip.to_string().replace('.', "-"));
            let addresses = self.hosts.entry(host).or_default();
            if !addresses.contains(&ip) {
                addresses.push(ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn zone() -> Zone {
        let services: Vec<Service> = serde_json::from_value(json!([
            {"metadata": {"namespace": "ns", "name": "web"}, "spec": {"clusterIP": "10.0.0.7"}},
            {"metadata": {"namespace": "ns", "name": "bare"}, "spec": {"clusterIP": "None"}},
            {"metadata": {"namespace": "ns", "name": "far"}, "spec": {"type": "ExternalName", "externalName": "example.org."}},
        ]))
        .unwrap();
        let slices: Vec<EndpointSlice> =
            serde_json::from_value(json!([{"metadata": {"namespace": "ns", "name": "x",
            "labels": {"kubernetes.io/service-name": "bare"}}, "addressType": "IPv4", "endpoints": [
                {"addresses": ["10.1.0.1"], "hostname": "db-0"}, {"addresses": ["10.1.0.2"]},
                {"addresses": ["10.1.0.3"], "conditions": {"ready": false}}]}]))
            .unwrap();
        Zone::new("cluster.local", services.iter(), slices.iter())
    }

    #[test]
    fn names_mean_what_the_specification_says() {
        let ips = |ips: &[&str]| Answer::Addresses(ips.iter().map(|ip| ip.parse().unwrap()).collect());
        let cases = [
            ("web.ns.svc.cluster.local", ips(&["10.0.0.7"])),
            ("bare.ns.svc.cluster.local", ips(&["10.1.0.1", "10.1.0.2"])),
            ("db-0.bare.ns.svc.cluster.local", ips(&["10.1.0.1"])),
            ("10-1-0-2.bare.ns.svc.cluster.local", ips(&["10.1.0.2"])),
            ("far.ns.svc.cluster.local", Answer::Alias("example.org".into())),
            ("10-9-8-7.ns.pod.cluster.local", ips(&["10.9.8.7"])),
            ("ns.svc.cluster.local", ips(&[])),
            ("none.ns.svc.cluster.local", Answer::Unknown),
            ("web.other.svc.cluster.local", Answer::Unknown),
            ("x.cluster.local", Answer::Unknown),
            ("example.org", Answer::NotOurs),
            ("xcluster.local", Answer::NotOurs),
        ];
        for (name, want) in cases {
            assert_eq!(zone().answer(name), want, "{name}");
        }
    }
}
