//! Which InferenceService a host or path means, and where its Service listens.

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    sync::{PoisonError, RwLock},
};

use futures::{StreamExt, stream::BoxStream};
use k8s_openapi::api::core::v1::Service;
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DynamicObject, GroupVersionKind},
    runtime::{watcher, watcher::Event},
};

/// Port of every InferenceService's Service that an unprivileged server can listen on too.
pub const SERVICE_PORT: u16 = 8080;

/// An InferenceService by namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What is known now.
#[derive(Debug, Default)]
pub struct Routes(RwLock<Tables>);

#[derive(Debug, Default)]
struct Tables {
    /// Ready or not, by InferenceService.
    services: HashMap<Target, Known>,
    /// By host, lower case, without port.
    hosts: HashMap<String, Target>,
    /// ClusterIPs of Services.
    addresses: HashMap<Target, Ipv4Addr>,
}

#[derive(Debug, Clone, Default)]
struct Known {
    host: Option<String>,
    is_ready: bool,
}

/// Where a request goes.
#[derive(Debug, PartialEq, Eq)]
pub enum Choice<'a> {
    /// Nobody answers to it.
    None,
    /// Known, but not ready.
    NotReady(Target),
    /// To this address, with this path.
    To(Target, Ipv4Addr, &'a str),
}

impl Routes {
    /// Chooses by path prefix first (it is explicit), then by host.
    pub fn choose<'a>(&self, host: &str, path: &'a str) -> Choice<'a> {
        let tables = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let (target, rest) = match by_path(path) {
            Some((target, rest)) => (target, rest),
            None => {
                let name = host.rsplit_once(':').map_or(host, |(name, _)| name).to_ascii_lowercase();
                let Some(target) = tables.hosts.get(&name) else { return Choice::None };
                (target.clone(), path)
            }
        };
        let Some(known) = tables.services.get(&target) else { return Choice::None };
        match tables.addresses.get(&target) {
            Some(address) if known.is_ready => Choice::To(target, *address, rest),
            _ => Choice::NotReady(target),
        }
    }

    fn set_inference_service(&self, object: &DynamicObject) {
        let target = target_of(object);
        let url = object.data["status"]["url"].as_str().unwrap_or_default();
        let host = url
            .split("://")
            .nth(1)
            .and_then(|rest| rest.split(['/', ':']).next())
            .map(str::to_ascii_lowercase);
        let conditions = object.data["status"]["conditions"].as_array();
        let is_ready = conditions
            .is_some_and(|all| all.iter().any(|one| one["type"] == "Ready" && one["status"] == "True"));
        let mut tables = self.0.write().unwrap_or_else(PoisonError::into_inner);
        tables.forget(&target);
        if let Some(host) = host.clone().filter(|host| !host.is_empty()) {
            tables.hosts.insert(host, target.clone());
        }
        tables.services.insert(target, Known { host, is_ready });
    }

    fn set_service(&self, service: &Service) {
        let ip =
            service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()).and_then(|ip| ip.parse().ok());
        let mut tables = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match ip {
            Some(ip) => tables.addresses.insert(target_of(service), ip),
            None => tables.addresses.remove(&target_of(service)),
        };
    }

    fn remove_inference_service(&self, object: &DynamicObject) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).forget(&target_of(object));
    }

    fn remove_service(&self, service: &Service) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).addresses.remove(&target_of(service));
    }
}

impl Tables {
    fn forget(&mut self, target: &Target) {
        let host = self.services.remove(target).and_then(|known| known.host);
        // Another InferenceService may have taken the host since.
        if let Some(host) = host.filter(|host| self.hosts.get(host) == Some(target)) {
            self.hosts.remove(&host);
        }
    }
}

fn target_of(object: &impl ResourceExt) -> Target {
    Target { namespace: object.namespace().unwrap_or_default(), name: object.name_any() }
}

/// `/serving/<namespace>/<name>/rest` -> the target and `/rest`.
fn by_path(path: &str) -> Option<(Target, &str)> {
    let rest = path.strip_prefix("/serving/")?;
    let (namespace, rest) = rest.split_once('/')?;
    let end = rest.find('/').unwrap_or(rest.len());
    let (name, rest) = rest.split_at(end);
    let target = Target { namespace: namespace.to_owned(), name: name.to_owned() };
    Some((target, if rest.is_empty() { "/" } else { rest }))
}

/// Keeps the routes true until dropped.
pub async fn follow(client: Client, routes: std::sync::Arc<Routes>) {
    let kind = GroupVersionKind::gvk("serving.kserve.io", "v1beta1", "InferenceService");
    let kind = ApiResource::from_gvk(&kind);
    let inference_services = Api::<DynamicObject>::all_with(client.clone(), &kind);
    let inference_services = cluster::watch_with(inference_services, &kind, watcher::Config::default());
    let services = cluster::watch(Api::<Service>::all(client), watcher::Config::default());
    let first = each(inference_services, |event| match event {
        Event::Apply(object) | Event::InitApply(object) => routes.set_inference_service(&object),
        Event::Delete(object) => routes.remove_inference_service(&object),
        Event::Init | Event::InitDone => {}
    });
    let second = each(services, |event| match event {
        Event::Apply(service) | Event::InitApply(service) => routes.set_service(&service),
        Event::Delete(service) => routes.remove_service(&service),
        Event::Init | Event::InitDone => {}
    });
    tokio::join!(first, second);
}

async fn each<K>(
    mut events: BoxStream<'static, watcher::Result<Event<K>>>,
    mut handle: impl FnMut(Event<K>),
) {
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => handle(event),
            Err(error) => tracing::warn!(%error, "a watch broke; it starts again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn inference_service(name: &str, url: &str, ready: &str) -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService",
            "metadata": { "name": name, "namespace": "default" },
            "status": { "url": url, "conditions": [{ "type": "Ready", "status": ready }] },
        }))
        .unwrap()
    }

    fn service(name: &str, ip: &str) -> Service {
        serde_json::from_value(
            json!({ "metadata": { "name": name, "namespace": "default" }, "spec": { "clusterIP": ip } }),
        )
        .unwrap()
    }

    #[test]
    fn a_request_goes_by_path_or_host_to_a_ready_service_only() {
        let routes = Routes::default();
        routes.set_inference_service(&inference_service("iris", "http://iris.default.example.com", "True"));
        routes.set_inference_service(&inference_service("slow", "http://slow.default.example.com", "False"));
        routes.set_service(&service("iris", "127.9.128.1"));
        let target = |name: &str| Target { namespace: "default".into(), name: name.into() };
        let ip = "127.9.128.1".parse().unwrap();
        let cases = [
            (
                "by host",
                "iris.default.example.com:7080",
                "/v1/models",
                Choice::To(target("iris"), ip, "/v1/models"),
            ),
            (
                "by path",
                "localhost",
                "/serving/default/iris/v1/models",
                Choice::To(target("iris"), ip, "/v1/models"),
            ),
            ("bare path", "localhost", "/serving/default/iris", Choice::To(target("iris"), ip, "/")),
            ("not ready", "slow.default.example.com", "/", Choice::NotReady(target("slow"))),
            ("unknown host", "evil.example", "/v1/models", Choice::None),
            ("unknown path", "localhost", "/serving/other/iris/", Choice::None),
        ];
        for (name, host, path, want) in cases {
            assert_eq!(routes.choose(host, path), want, "{name}");
        }
    }

    #[test]
    fn a_deleted_service_leaves_no_host_behind() {
        let routes = Routes::default();
        let object = inference_service("iris", "http://iris.default.example.com", "True");
        routes.set_inference_service(&object);
        routes.remove_inference_service(&object);
        assert_eq!(routes.choose("iris.default.example.com", "/"), Choice::None);
    }
}
