//! A container's environment: Services, `envFrom`, `env` with `valueFrom` and `$(VAR)`, over the image's own.
//!
//! Pure: what must be looked up (config maps, secrets) is fetched before, see `Lookups`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVar, Pod, Secret, Service};
use types::quantity::Quantity;

/// Objects that a container's variables may refer to.
#[derive(Debug, Clone, Default)]
pub struct Lookups {
    /// By name; `None`: it does not exist.
    pub config_maps: BTreeMap<String, Option<ConfigMap>>,
    /// By name; `None`: it does not exist.
    pub secrets: BTreeMap<String, Option<Secret>>,
}

/// What the pod's own fields are read from.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// `status.podIP`.
    pub pod_ip: String,
    /// `status.hostIP`.
    pub host_ip: String,
    /// Whole cores of the node, for limits that are not set.
    pub node_cpus: u64,
    /// Bytes of the node's memory, for limits that are not set.
    pub node_memory: u64,
}

/// Names of the config maps and secrets that a container's variables refer to.
pub fn references(container: &Container) -> (Vec<String>, Vec<String>) {
    let (mut config_maps, mut secrets) = (Vec::new(), Vec::new());
    for from in container.env_from.iter().flatten() {
        config_maps.extend(from.config_map_ref.iter().map(|reference| reference.name.clone()));
        secrets.extend(from.secret_ref.iter().map(|reference| reference.name.clone()));
    }
    for source in container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref()) {
        config_maps.extend(source.config_map_key_ref.iter().map(|reference| reference.name.clone()));
        secrets.extend(source.secret_key_ref.iter().map(|reference| reference.name.clone()));
    }
    (config_maps, secrets)
}

/// The variables of a container, later ones over earlier ones. The error is worded as the kubelet's.
pub fn build(
    container: &Container,
    facts: &Facts<'_>,
    lookups: &Lookups,
    services: &[(String, String)],
) -> Result<Vec<(String, String)>, String> {
    let mut env = Env::default();
    for (name, value) in services {
        env.set(name, value);
    }
    add_env_from(&mut env, container, lookups)?;
    for variable in container.env.iter().flatten() {
        if let Some(value) = value_of(variable, container, facts, lookups, &env)? {
            env.set(&variable.name, &value);
        }
    }
    Ok(env.0)
}

#[derive(Default)]
struct Env(Vec<(String, String)>);

impl Env {
    fn set(&mut self, name: &str, value: &str) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some(entry) => value.clone_into(&mut entry.1),
            None => self.0.push((name.to_owned(), value.to_owned())),
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

fn namespace<'a>(facts: &'a Facts<'_>) -> &'a str {
    facts.pod.metadata.namespace.as_deref().unwrap_or("default")
}

fn add_env_from(env: &mut Env, container: &Container, lookups: &Lookups) -> Result<(), String> {
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or("");
        let mut pairs = BTreeMap::new();
        if let Some(reference) = &from.config_map_ref {
            match lookups.config_maps.get(&reference.name).and_then(Option::as_ref) {
                Some(map) => pairs.extend(map.data.clone().unwrap_or_default()),
                None if reference.optional == Some(true) => {}
                None => return Err(missing("configmap", &reference.name)),
            }
        }
        if let Some(reference) = &from.secret_ref {
            match lookups.secrets.get(&reference.name).and_then(Option::as_ref) {
                Some(secret) => pairs.extend(secret_texts(secret)),
                None if reference.optional == Some(true) => {}
                None => return Err(missing("secret", &reference.name)),
            }
        }
        for (key, value) in pairs.iter().filter(|(key, _)| !key.contains('=')) {
            env.set(&format!("{prefix}{key}"), value);
        }
    }
    Ok(())
}

fn missing(kind: &str, name: &str) -> String {
    format!("{kind} \"{name}\" not found")
}

fn secret_texts(secret: &Secret) -> BTreeMap<String, String> {
    let data = secret.data.clone().unwrap_or_default();
    data.into_iter().map(|(key, value)| (key, String::from_utf8_lossy(&value.0).into_owned())).collect()
}

fn value_of(
    variable: &EnvVar,
    container: &Container,
    facts: &Facts<'_>,
    lookups: &Lookups,
    env: &Env,
) -> Result<Option<String>, String> {
    let Some(source) = &variable.value_from else {
        return Ok(Some(expand(variable.value.as_deref().unwrap_or(""), |name| {
            env.get(name).map(str::to_owned)
        })));
    };
    if let Some(reference) = &source.field_ref {
        return field(&reference.field_path, facts).map(Some);
    }
    if let Some(reference) = &source.resource_field_ref {
        let divisor = reference.divisor.as_ref().map(|quantity| quantity.0.as_str());
        return resource(container, &reference.resource, divisor, facts).map(Some);
    }
    let key_missing = |key: &str, kind: &str, name: &str| {
        format!("couldn't find key {key} in {kind} {}/{name}", namespace(facts))
    };
    if let Some(reference) = &source.config_map_key_ref {
        let map = lookups.config_maps.get(&reference.name).and_then(Option::as_ref);
        let value = map.and_then(|map| map.data.as_ref()?.get(&reference.key).cloned());
        return match (value, map, reference.optional == Some(true)) {
            (Some(value), _, _) => Ok(Some(value)),
            (None, _, true) => Ok(None),
            (None, None, false) => Err(missing("configmap", &reference.name)),
            (None, Some(_), false) => Err(key_missing(&reference.key, "ConfigMap", &reference.name)),
        };
    }
    if let Some(reference) = &source.secret_key_ref {
        let secret = lookups.secrets.get(&reference.name).and_then(Option::as_ref);
        let value = secret.and_then(|secret| secret_texts(secret).remove(&reference.key));
        return match (value, secret, reference.optional == Some(true)) {
            (Some(value), _, _) => Ok(Some(value)),
            (None, _, true) => Ok(None),
            (None, None, false) => Err(missing("secret", &reference.name)),
            (None, Some(_), false) => Err(key_missing(&reference.key, "Secret", &reference.name)),
        };
    }
    Err(format!("environment variable {} has an unknown source", variable.name))
}

/// A field of the pod by the downward API's path.
pub fn field(path: &str, facts: &Facts<'_>) -> Result<String, String> {
    let metadata = &facts.pod.metadata;
    let spec = facts.pod.spec.as_ref();
    let text = |value: Option<&String>| Ok(value.cloned().unwrap_or_default());
    if let Some((map, key)) = path.strip_suffix("']").and_then(|path| path.split_once("['")) {
        let map = match map {
            "metadata.labels" => metadata.labels.as_ref(),
            "metadata.annotations" => metadata.annotations.as_ref(),
            _ => return Err(format!("unsupported fieldPath: {path}")),
        };
        return text(map.and_then(|map| map.get(key)));
    }
    let lines = |map: Option<&BTreeMap<String, String>>| {
        let line = |(key, value): (&String, &String)| format!("{key}={value:?}");
        Ok(map.into_iter().flatten().map(line).collect::<Vec<_>>().join("\n"))
    };
    match path {
        "metadata.name" => text(metadata.name.as_ref()),
        "metadata.namespace" => text(metadata.namespace.as_ref()),
        "metadata.uid" => text(metadata.uid.as_ref()),
        "metadata.labels" => lines(metadata.labels.as_ref()),
        "metadata.annotations" => lines(metadata.annotations.as_ref()),
        "spec.nodeName" => text(spec.and_then(|spec| spec.node_name.as_ref())),
        "spec.serviceAccountName" => text(spec.and_then(|spec| spec.service_account_name.as_ref())),
        "status.podIP" | "status.podIPs" => Ok(facts.pod_ip.clone()),
        "status.hostIP" | "status.hostIPs" => Ok(facts.host_ip.clone()),
        _ => Err(format!("unsupported fieldPath: {path}")),
    }
}

/// `limits.cpu` and so on, in units of the divisor, rounded up.
pub fn resource(
    container: &Container,
    name: &str,
    divisor: Option<&str>,
    facts: &Facts<'_>,
) -> Result<String, String> {
    let (side, kind) =
        name.split_once('.').ok_or_else(|| format!("unsupported container resource: {name}"))?;
    let resources = container.resources.as_ref();
    let limits = resources.and_then(|resources| resources.limits.as_ref());
    let requests = resources.and_then(|resources| resources.requests.as_ref());
    let chosen = match side {
        "limits" => limits.and_then(|map| map.get(kind)),
        "requests" => requests.and_then(|map| map.get(kind)),
        _ => return Err(format!("unsupported container resource: {name}")),
    };
    let millis = match chosen {
        Some(quantity) => quantity.0.parse::<Quantity>().map_err(|error| error.to_string())?.millis(),
        None if side == "limits" && kind == "cpu" => (facts.node_cpus * 1000) as i64,
        None if side == "limits" && kind == "memory" => (facts.node_memory as i64).saturating_mul(1000),
        None => 0,
    };
    let divisor = match divisor {
        None | Some("" | "0") => 1000,
        Some(text) => text.parse::<Quantity>().map_err(|error| error.to_string())?.millis().max(1),
    };
    Ok((millis.saturating_add(divisor - 1) / divisor).to_string())
}

/// Replaces `$(NAME)` by what `lookup` gives; unknown names stay, `$$` is a dollar.
pub fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some((name, tail)) = after.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match lookup(name) {
                Some(value) => out.push_str(&value),
                None => out.push_str(&format!("$({name})")),
            }
            rest = tail;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

/// The variables that tell a pod about Services: its own namespace's, and the API server's.
pub fn service_variables(
    services: &[std::sync::Arc<Service>],
    namespace: &str,
    links: bool,
) -> Vec<(String, String)> {
    let mut variables = Vec::new();
    for service in services {
        let of = service.metadata.namespace.as_deref().unwrap_or("default");
        let name = service.metadata.name.as_deref().unwrap_or("");
        let is_api = of == "default" && name == "kubernetes";
        if !(is_api || (links && of == namespace)) {
            continue;
        }
        let Some(spec) = &service.spec else { continue };
        let Some(ip) = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None") else {
            continue;
        };
        let Some(first) = spec.ports.as_ref().and_then(|ports| ports.first()) else { continue };
        let prefix = name.to_uppercase().replace('-', "_");
        let mut add = |suffix: &str, value: String| variables.push((format!("{prefix}{suffix}"), value));
        add("_SERVICE_HOST", ip.to_owned());
        add("_SERVICE_PORT", first.port.to_string());
        for port in spec.ports.iter().flatten() {
            if let Some(port_name) = port.name.as_deref().filter(|name| !name.is_empty()) {
                let suffix = port_name.to_uppercase().replace('-', "_");
                add(&format!("_SERVICE_PORT_{suffix}"), port.port.to_string());
            }
        }
        for (index, port) in spec.ports.iter().flatten().enumerate() {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let url = format!("{}://{ip}:{}", protocol.to_lowercase(), port.port);
            if index == 0 {
                add("_PORT", url.clone());
            }
            let middle = format!("_PORT_{}_{}", port.port, protocol.to_uppercase());
            add(&middle, url);
            add(&format!("{middle}_PROTO"), protocol.to_lowercase());
            add(&format!("{middle}_PORT"), port.port.to_string());
            add(&format!("{middle}_ADDR"), ip.to_owned());
        }
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(text: &str) -> Pod {
        serde_json::from_str(text).unwrap()
    }

    fn check(container: &str, want: Result<&[(&str, &str)], &str>) {
        let pod = pod(
            r#"{"metadata":{"name":"p","namespace":"n","uid":"u","labels":{"a":"b"}},"spec":{"containers":[]}}"#,
        );
        let container: Container = serde_json::from_str(container).unwrap();
        let facts = Facts {
            pod: &pod,
            pod_ip: "1.2.3.4".into(),
            host_ip: "h".into(),
            node_cpus: 2,
            node_memory: 1 << 30,
        };
        let mut lookups = Lookups::default();
        let map = serde_json::from_str(r#"{"data":{"k":"v","x":"y"}}"#).unwrap();
        lookups.config_maps.insert("cm".into(), Some(map));
        let got = build(&container, &facts, &lookups, &[("S".into(), "t".into())]);
        let want = want.map(|pairs| {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<Vec<_>>()
        });
        assert_eq!(got, want.map_err(str::to_owned));
    }

    #[test]
    fn variables_come_from_where_the_spec_says() {
        check(
            r#"{"name":"c","env":[{"name":"A","value":"1"},{"name":"B","value":"$(A)-$(Z)-$$(A)"}]}"#,
            Ok(&[("S", "t"), ("A", "1"), ("B", "1-$(Z)-$(A)")]),
        );
        check(
            r#"{"name":"c","envFrom":[{"prefix":"P_","configMapRef":{"name":"cm"}}],"env":[{"name":"P_x","value":"own"}]}"#,
            Ok(&[("S", "t"), ("P_k", "v"), ("P_x", "own")]),
        );
        check(
            r#"{"name":"c","env":[{"name":"IP","valueFrom":{"fieldRef":{"fieldPath":"status.podIP"}}},
            {"name":"L","valueFrom":{"fieldRef":{"fieldPath":"metadata.labels['a']"}}}]}"#,
            Ok(&[("S", "t"), ("IP", "1.2.3.4"), ("L", "b")]),
        );
        check(
            r#"{"name":"c","resources":{"limits":{"cpu":"1500m"}},"env":[
            {"name":"C","valueFrom":{"resourceFieldRef":{"resource":"limits.cpu"}}},
            {"name":"M","valueFrom":{"resourceFieldRef":{"resource":"limits.memory","divisor":"1Mi"}}}]}"#,
            Ok(&[("S", "t"), ("C", "2"), ("M", "1024")]),
        );
        check(
            r#"{"name":"c","env":[{"name":"K","valueFrom":{"configMapKeyRef":{"name":"no","key":"k"}}}]}"#,
            Err("configmap \"no\" not found"),
        );
        check(
            r#"{"name":"c","env":[{"name":"K","valueFrom":{"configMapKeyRef":{"name":"cm","key":"no"}}}]}"#,
            Err("couldn't find key no in ConfigMap n/cm"),
        );
        check(
            r#"{"name":"c","env":[{"name":"K","valueFrom":{"secretKeyRef":{"name":"no","key":"k","optional":true}}}]}"#,
            Ok(&[("S", "t")]),
        );
    }

    #[test]
    fn services_are_told_in_the_old_docker_way() {
        let service: Service = serde_json::from_str(
            r#"{"metadata":{"name":"my-db","namespace":"n"},"spec":{"clusterIP":"10.0.0.1","ports":[{"name":"sql","port":5432}]}}"#,
        ).unwrap();
        let variables = service_variables(&[service.into()], "n", true);
        let names: Vec<&str> = variables.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            [
                "MY_DB_SERVICE_HOST",
                "MY_DB_SERVICE_PORT",
                "MY_DB_SERVICE_PORT_SQL",
                "MY_DB_PORT",
                "MY_DB_PORT_5432_TCP",
                "MY_DB_PORT_5432_TCP_PROTO",
                "MY_DB_PORT_5432_TCP_PORT",
                "MY_DB_PORT_5432_TCP_ADDR"
            ]
        );
    }
}
