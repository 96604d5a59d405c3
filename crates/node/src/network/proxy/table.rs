//! What listens where: Services joined with their EndpointSlices. Pure.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::ResourceExt;
use types::net::Ipv4Range;

const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Upstream's default of `sessionAffinityConfig.clientIP.timeoutSeconds`: three hours.
const AFFINITY_SECONDS: i32 = 10_800;

/// Who gets the connections of one listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// `namespace/service:port`, for logs.
    pub(super) name: String,
    /// Ready endpoints, sorted; never empty.
    pub(super) endpoints: Vec<SocketAddr>,
    /// How long a client stays with its endpoint; `None`: no affinity.
    pub(super) affinity: Option<Duration>,
}

/// Listeners by address.
pub(super) type Table = BTreeMap<SocketAddr, Route>;

/// The listeners that these objects ask for. Cluster addresses outside `range` belong to someone else and are left.
pub(super) fn table<'a>(
    services: impl Iterator<Item = &'a Service>,
    slices: impl Iterator<Item = &'a EndpointSlice>,
    range: Ipv4Range,
    host_ip: Ipv4Addr,
) -> Table {
    let ready = ready_endpoints(slices);
    let mut table = Table::new();
    for service in services {
        let Some(spec) = &service.spec else { continue };
        let Some(cluster_ip) = cluster_ip(service).filter(|ip| range.contains(*ip)) else { continue };
        let namespace = service.namespace().unwrap_or_default();
        for port in spec.ports.iter().flatten().filter(|port| is_tcp(port.protocol.as_deref())) {
            let port_name = port.name.clone().unwrap_or_default();
            let key = (namespace.clone(), service.name_any(), port_name);
            let Some(endpoints) = ready.get(&key) else { continue };
            let name = format!("{namespace}/{}:{}", service.name_any(), port.port);
            let route = Route { name, endpoints: endpoints.clone(), affinity: affinity(service) };
            for address in addresses(port, cluster_ip, host_ip) {
                table.insert(address, route.clone());
            }
        }
    }
    table
}

fn addresses(port: &ServicePort, cluster_ip: Ipv4Addr, host_ip: Ipv4Addr) -> Vec<SocketAddr> {
    let at = |ip: Ipv4Addr, port: i32| {
        let port = u16::try_from(port).ok().filter(|port| *port > 0)?;
        Some(SocketAddr::new(IpAddr::V4(ip), port))
    };
    let node_port = port.node_port.unwrap_or(0);
    // Node ports are for the host: its loopback address and the node's own, never all interfaces.
    let candidates = [at(cluster_ip, port.port), at(Ipv4Addr::LOCALHOST, node_port), at(host_ip, node_port)];
    candidates.into_iter().flatten().collect()
}

fn cluster_ip(service: &Service) -> Option<Ipv4Addr> {
    service.spec.as_ref()?.cluster_ip.as_ref()?.parse().ok()
}

fn is_tcp(protocol: Option<&str>) -> bool {
    protocol.is_none_or(|protocol| protocol == "TCP")
}

fn affinity(service: &Service) -> Option<Duration> {
    let spec = service.spec.as_ref()?;
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return None;
    }
    let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let seconds = config.and_then(|config| config.timeout_seconds).unwrap_or(AFFINITY_SECONDS);
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

type PortKey = (String, String, String);

fn ready_endpoints<'a>(slices: impl Iterator<Item = &'a EndpointSlice>) -> HashMap<PortKey, Vec<SocketAddr>> {
    let mut ready: HashMap<PortKey, Vec<SocketAddr>> = HashMap::new();
    for slice in slices {
        let Some(service) = slice.labels().get(SERVICE_NAME) else { continue };
        let namespace = slice.namespace().unwrap_or_default();
        for port in slice.ports.iter().flatten().filter(|port| is_tcp(port.protocol.as_deref())) {
            let Some(number) = port.port.and_then(|number| u16::try_from(number).ok()) else { continue };
            let ips = slice.endpoints.iter().filter(|endpoint| is_ready(endpoint)).filter_map(address);
            let targets: Vec<SocketAddr> = ips.map(|ip| SocketAddr::new(ip, number)).collect();
            if targets.is_empty() {
                continue;
            }
            let key = (namespace.clone(), service.clone(), port.name.clone().unwrap_or_default());
            ready.entry(key).or_default().extend(targets);
        }
    }
    for endpoints in ready.values_mut() {
        endpoints.sort();
        endpoints.dedup();
    }
    ready
}

/// An endpoint without conditions counts as ready, as the API says.
fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
}

fn address(endpoint: &Endpoint) -> Option<IpAddr> {
    endpoint.addresses.first()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(extra: serde_json::Value) -> Service {
        let mut object = json!({"metadata": {"namespace": "ns", "name": "web"}, "spec": {
            "clusterIP": "127.9.128.7", "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}});
        for (key, value) in extra.as_object().unwrap() {
            object["spec"][key] = value.clone();
        }
        serde_json::from_value(object).unwrap()
    }

    fn slice(endpoints: serde_json::Value) -> EndpointSlice {
        serde_json::from_value(json!({"metadata": {"namespace": "ns", "name": "web-x",
            "labels": {"kubernetes.io/service-name": "web"}}, "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}], "endpoints": endpoints}))
        .unwrap()
    }

    fn check(services: &[Service], slices: &[EndpointSlice], want: &[(&str, &[&str])]) {
        let range = "127.9.128.0/17".parse().unwrap();
        let found = table(services.iter(), slices.iter(), range, Ipv4Addr::new(127, 9, 0, 1));
        let found: Vec<(String, Vec<String>)> = found
            .iter()
            .map(|(at, route)| (at.to_string(), route.endpoints.iter().map(ToString::to_string).collect()))
            .collect();
        let want: Vec<(String, Vec<String>)> = want
            .iter()
            .map(|(at, to)| ((*at).to_owned(), to.iter().map(|ip| (*ip).to_owned()).collect()))
            .collect();
        assert_eq!(found, want);
    }

    #[test]
    fn a_port_listens_for_its_ready_endpoints_and_only_while_there_are_any() {
        let two = slice(json!([
            {"addresses": ["127.9.1.2"], "conditions": {"ready": true}},
            {"addresses": ["127.9.1.1"]},
            {"addresses": ["127.9.1.3"], "conditions": {"ready": false}},
        ]));
        let none = slice(json!([{"addresses": ["127.9.1.3"], "conditions": {"ready": false}}]));
        check(&[service(json!({}))], &[two], &[("127.9.128.7:80", &["127.9.1.1:8080", "127.9.1.2:8080"])]);
        check(&[service(json!({}))], &[none], &[]);
        check(&[service(json!({}))], &[], &[]);
    }

    #[test]
    fn headless_external_foreign_and_udp_ports_have_no_listener() {
        let ready = || [slice(json!([{"addresses": ["127.9.1.1"]}]))];
        check(&[service(json!({"clusterIP": "None"}))], &ready(), &[]);
        check(&[service(json!({"clusterIP": "127.44.128.7"}))], &ready(), &[]);
        let udp = json!({"ports": [{"name": "http", "port": 53, "protocol": "UDP"}]});
        check(&[service(udp)], &ready(), &[]);
    }

    #[test]
    fn a_node_port_listens_on_the_hosts_own_addresses() {
        let ports = json!({"ports": [{"name": "http", "port": 80, "nodePort": 30080}]});
        let to: &[&str] = &["127.9.1.1:8080"];
        let want = [("127.0.0.1:30080", to), ("127.9.0.1:30080", to), ("127.9.128.7:80", to)];
        check(&[service(ports)], &[slice(json!([{"addresses": ["127.9.1.1"]}]))], &want);
    }
}
