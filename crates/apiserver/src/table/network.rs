//! Cells of Services, endpoints and the kinds of `networking.k8s.io`.

use serde_json::Value;

use super::cells::count;
use super::{age, format, name};
use crate::object::{int, items, text};
use crate::resource::Resource;

/// The cells of a row.
pub fn cells(resource: &Resource, object: &Value) -> Vec<Value> {
    match resource.kind.as_str() {
        "Service" => service(object),
        "Endpoints" => {
            let mut all = Vec::new();
            for subset in items(object, "/subsets") {
                for address in items(subset, "/addresses") {
                    let ports = items(subset, "/ports").iter();
                    all.extend(
                        ports.map(|port| format!("{}:{}", text(address, "/ip"), count(port, "/port"))),
                    );
                }
            }
            vec![name(object), listed(&all, 3).into(), age(object)]
        }
        "EndpointSlice" => {
            let ports: Vec<String> =
                items(object, "/ports").iter().map(|port| count(port, "/port").to_string()).collect();
            let addresses: Vec<String> = items(object, "/endpoints")
                .iter()
                .flat_map(|one| items(one, "/addresses"))
                .filter_map(|one| one.as_str().map(Into::into))
                .collect();
            let ports = if ports.is_empty() { "<unset>".into() } else { listed(&ports, 3) };
            let addresses = if addresses.is_empty() { "<unset>".into() } else { listed(&addresses, 3) };
            vec![
                name(object),
                text(object, "/addressType").into(),
                ports.into(),
                addresses.into(),
                age(object),
            ]
        }
        "Ingress" => {
            let rules = items(object, "/spec/rules").iter();
            let hosts: Vec<String> =
                rules.map(|one| text(one, "/host").to_owned()).filter(|one| !one.is_empty()).collect();
            let hosts = if hosts.is_empty() { "*".into() } else { listed(&hosts, 3) };
            let balancers = items(object, "/status/loadBalancer/ingress").iter();
            let address: Vec<&str> = balancers.map(|one| text(one, "/ip")).collect();
            let ports = if items(object, "/spec/tls").is_empty() { "80" } else { "80, 443" };
            let class = format::or_none(text(object, "/spec/ingressClassName"));
            vec![
                name(object),
                class.into(),
                hosts.into(),
                address.join(",").into(),
                ports.into(),
                age(object),
            ]
        }
        "IngressClass" => {
            vec![name(object), text(object, "/spec/controller").into(), "<none>".into(), age(object)]
        }
        "NetworkPolicy" => {
            vec![name(object), format::selector(object.pointer("/spec/podSelector")).into(), age(object)]
        }
        _ => vec![name(object), age(object)],
    }
}

fn listed(all: &[String], max: usize) -> String {
    if all.is_empty() {
        return "<none>".into();
    }
    let shown = all.iter().take(max).cloned().collect::<Vec<_>>().join(",");
    if all.len() > max { format!("{shown} + {} more...", all.len() - max) } else { shown }
}

fn service(object: &Value) -> Vec<Value> {
    let kind = text(object, "/spec/type");
    let balancers: Vec<&str> = items(object, "/status/loadBalancer/ingress")
        .iter()
        .map(|one| if text(one, "/ip").is_empty() { text(one, "/hostname") } else { text(one, "/ip") })
        .collect();
    let own: Vec<&str> = items(object, "/spec/externalIPs").iter().filter_map(Value::as_str).collect();
    let external = match kind {
        "ExternalName" => text(object, "/spec/externalName").to_owned(),
        "LoadBalancer" if balancers.is_empty() && own.is_empty() => "<pending>".into(),
        "LoadBalancer" => balancers.into_iter().chain(own).collect::<Vec<_>>().join(","),
        _ => format::or_none(&own.join(",")),
    };
    let ports: Vec<String> = items(object, "/spec/ports")
        .iter()
        .map(|port| {
            let protocol = if text(port, "/protocol").is_empty() { "TCP" } else { text(port, "/protocol") };
            let number = int(port, "/port").unwrap_or(0);
            match int(port, "/nodePort").filter(|port| *port > 0) {
                Some(node) => format!("{number}:{node}/{protocol}"),
                None => format!("{number}/{protocol}"),
            }
        })
        .collect();
    vec![
        name(object),
        kind.into(),
        format::or_none(text(object, "/spec/clusterIP")).into(),
        external.into(),
        format::or_none(&ports.join(",")).into(),
        age(object),
        format::labels(object.pointer("/spec/selector")).into(),
    ]
}
