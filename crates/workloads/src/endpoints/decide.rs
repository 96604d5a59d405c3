//! The EndpointSlices of a Service: pure.
//!
//! Pods that resolve the Service's ports to the same numbers share slices of at most 100 endpoints, as upstream packs them.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use types::selector::Selector;

use crate::objects::{is_deleting, is_finished, is_ready, node_of};

/// The label that ties a slice to its Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The label that says whose slice it is.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Ours and upstream's controller name.
pub const MANAGER: &str = "endpointslice-controller.k8s.io";
const HEADLESS: &str = "service.kubernetes.io/headless";
const ENDPOINTS_MAX: usize = 100;

/// The content of one slice.
#[derive(Clone, Debug, PartialEq)]
pub struct Content {
    /// Labels beside those of the Service.
    pub labels: BTreeMap<String, String>,
    /// Ports, the same for all endpoints.
    pub ports: Vec<EndpointPort>,
    /// One a pod, by address.
    pub endpoints: Vec<Endpoint>,
}

/// Whether this controller makes slices for it.
pub fn is_selecting(service: &Service) -> bool {
    let Some(spec) = &service.spec else { return false };
    let selects = spec.selector.as_ref().is_some_and(|selector| !selector.is_empty());
    selects && spec.type_.as_deref() != Some("ExternalName") && !is_deleting(&service.metadata)
}

/// Whether the Service selects the pod.
pub fn selects(service: &Service, pod: &Pod) -> bool {
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector
        .is_some_and(|selector| !selector.is_empty() && Selector::from_labels(selector).matches(pod.labels()))
}

/// What the Service's slices must contain. At least one, so that a Service without pods has an empty one.
pub fn decide(service: &Service, pods: &[Arc<Pod>]) -> Vec<Content> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let even_unready = spec.publish_not_ready_addresses == Some(true);
    let labels = labels(service);
    let mut groups: BTreeMap<String, (Vec<EndpointPort>, Vec<Endpoint>)> = BTreeMap::new();
    let members = pods.iter().filter(|pod| !is_finished(pod) && selects(service, pod));
    for pod in members {
        let Some(endpoint) = endpoint(pod, even_unready) else { continue };
        let ports: Vec<EndpointPort> =
            spec.ports.iter().flatten().filter_map(|port| resolve(port, pod)).collect();
        let key = ports.iter().map(|port| format!("{:?}={:?};", port.name, port.port)).collect();
        groups.entry(key).or_insert_with(|| (ports, Vec::new())).1.push(endpoint);
    }
    if groups.is_empty() {
        return vec![Content { labels, ports: Vec::new(), endpoints: Vec::new() }];
    }
    let mut contents = Vec::new();
    for (ports, mut endpoints) in groups.into_values() {
        endpoints.sort_by(|a, b| a.addresses.cmp(&b.addresses));
        for part in endpoints.chunks(ENDPOINTS_MAX) {
            contents.push(Content { labels: labels.clone(), ports: ports.clone(), endpoints: part.to_vec() });
        }
    }
    contents
}

/// What a slice contains now, for comparison.
pub fn content(slice: &EndpointSlice) -> Content {
    Content {
        labels: slice.labels().clone(),
        ports: slice.ports.clone().unwrap_or_default(),
        endpoints: slice.endpoints.clone(),
    }
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.labels().clone();
    labels.insert(SERVICE_NAME.to_owned(), service.name_any());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    let headless = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None");
    if headless {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels
}

/// A pod without an address is no endpoint yet.
fn endpoint(pod: &Pod, even_unready: bool) -> Option<Endpoint> {
    let ip = pod.status.as_ref()?.pod_ip.clone().filter(|ip| !ip.is_empty())?;
    let (serving, terminating) = (even_unready || is_ready(pod), is_deleting(&pod.metadata));
    let spec = pod.spec.as_ref()?;
    // Only pods that ask for a name of their own in a subdomain get a hostname.
    let hostname = spec.hostname.clone().filter(|_| spec.subdomain.is_some());
    Some(Endpoint {
        addresses: vec![ip],
        conditions: Some(EndpointConditions {
            ready: Some(even_unready || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname,
        node_name: node_of(pod).map(ToOwned::to_owned),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            name: Some(pod.name_any()),
            namespace: pod.namespace(),
            uid: pod.uid(),
            ..ObjectReference::default()
        }),
        ..Endpoint::default()
    })
}

/// The port's number on this pod; a name that no container has leaves the port out.
fn resolve(port: &ServicePort, pod: &Pod) -> Option<EndpointPort> {
    let number = match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => named_port(pod, name, port.protocol.as_deref().unwrap_or("TCP")),
    }?;
    Some(EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(number),
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
        app_protocol: port.app_protocol.clone(),
    })
}

fn named_port(pod: &Pod, name: &str, protocol: &str) -> Option<i32> {
    let spec = pod.spec.as_ref()?;
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
    let named = ports.find(|port| {
        port.name.as_deref() == Some(name) && port.protocol.as_deref().unwrap_or("TCP") == protocol
    });
    named.map(|port| port.container_port).or_else(|| name.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn service(spec: Value) -> Service {
        let mut object = json!({"metadata": {"name": "web", "namespace": "ns"}, "spec": {"selector": {"app": "web"},
            "ports": [{"name": "http", "port": 80, "targetPort": "web"}]}});
        for (key, value) in spec.as_object().unwrap() {
            object["spec"][key] = value.clone();
        }
        serde_json::from_value(object).unwrap()
    }

    fn pod(name: &str, ip: &str, ready: &str, port: i32) -> Arc<Pod> {
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": name, "namespace": "ns", "labels": {"app": "web"}},
                "spec": {"nodeName": "n", "containers": [{"name": "c", "ports": [{"name": "web", "containerPort": port}]}]},
                "status": {"phase": "Running", "podIP": ip, "conditions": [{"type": "Ready", "status": ready}]}}))
            .unwrap(),
        )
    }

    fn summary(contents: &[Content]) -> Vec<String> {
        let endpoint = |of: &Endpoint| {
            let ready = of.conditions.as_ref().unwrap().ready.unwrap();
            format!("{}{}", of.addresses[0], if ready { "" } else { "!" })
        };
        let one = |content: &Content| {
            let ports: Vec<String> =
                content.ports.iter().map(|port| port.port.unwrap().to_string()).collect();
            let endpoints: Vec<String> = content.endpoints.iter().map(endpoint).collect();
            format!("{}:{}", endpoints.join(","), ports.join(","))
        };
        contents.iter().map(one).collect()
    }

    #[test]
    fn pods_become_endpoints_with_their_own_ports() {
        let web = service(json!({}));
        let pods = [
            pod("b", "10.0.0.2", "True", 8080),
            pod("a", "10.0.0.1", "False", 8080),
            pod("c", "10.0.0.3", "True", 9090),
        ];
        assert_eq!(summary(&decide(&web, &pods)), ["10.0.0.1!,10.0.0.2:8080", "10.0.0.3:9090"]);
        assert_eq!(summary(&decide(&web, &[])), [":"], "an empty slice says that there is none");
        let eager = service(json!({"publishNotReadyAddresses": true}));
        assert_eq!(summary(&decide(&eager, &pods[1..2])), ["10.0.0.1:8080"]);
        let numbered = service(json!({"ports": [{"port": 80, "targetPort": 1234}]}));
        assert_eq!(summary(&decide(&numbered, &pods[..1])), ["10.0.0.2:1234"]);
    }

    #[test]
    fn pods_of_others_without_an_address_or_ended_are_no_endpoints() {
        let web = service(json!({}));
        let change = |pod: &Arc<Pod>, change: fn(&mut Pod)| {
            let mut pod = pod.as_ref().clone();
            change(&mut pod);
            Arc::new(pod)
        };
        let base = pod("a", "10.0.0.1", "True", 80);
        let other = change(&base, |pod| drop(pod.labels_mut().insert("app".into(), "x".into())));
        let no_ip = change(&base, |pod| pod.status.as_mut().unwrap().pod_ip = None);
        let ended = change(&base, |pod| pod.status.as_mut().unwrap().phase = Some("Succeeded".into()));
        assert_eq!(summary(&decide(&web, &[other, no_ip, ended])), [":"]);
    }

    #[test]
    fn headless_services_are_labelled_and_large_ones_are_split() {
        let headless = service(json!({"clusterIP": "None"}));
        assert!(decide(&headless, &[])[0].labels.contains_key(HEADLESS));
        let many: Vec<_> = (0..250)
            .map(|n| pod(&format!("p{n}"), &format!("10.0.{}.{}", n / 200, n % 200), "True", 80))
            .collect();
        let sizes: Vec<usize> =
            decide(&service(json!({})), &many).iter().map(|slice| slice.endpoints.len()).collect();
        assert_eq!(sizes, [100, 100, 50]);
        assert!(!is_selecting(&service(json!({"selector": {}}))));
    }
}
