//! Cluster IPs and node ports: chosen from configured ranges, each given once.
//!
//! What is taken is read from the stored Services themselves, under the server's allocation lock: there is no second
//! record that could disagree with them after a crash.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use serde_json::{Map, Value, json};

use crate::error::{ApiError, Result};
use crate::field::FieldError;
use crate::object;
use crate::server::ApiServer;
use crate::storage;

/// An IPv4 network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv4Range {
    /// First address.
    pub base: Ipv4Addr,
    /// Length of the prefix, 8 to 30.
    pub prefix: u8,
}

impl Ipv4Range {
    /// How many addresses there are.
    pub fn size(&self) -> u32 {
        1 << (32 - u32::from(self.prefix))
    }

    fn first(&self) -> u32 {
        u32::from(self.base) & !(self.size() - 1)
    }

    /// The address at an offset.
    pub fn at(&self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from(self.first() + offset)
    }

    /// True for addresses in the network.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        let number = u32::from(address);
        number >= self.first() && number - self.first() < self.size()
    }
}

impl std::fmt::Display for Ipv4Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.at(0), self.prefix)
    }
}

/// Node ports, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    /// Lowest.
    pub first: u16,
    /// Highest.
    pub last: u16,
}

impl Default for PortRange {
    fn default() -> Self {
        Self { first: 30000, last: 32767 }
    }
}

/// What other Services hold.
#[derive(Debug, Default)]
struct Taken {
    addresses: BTreeSet<Ipv4Addr>,
    ports: BTreeSet<u16>,
}

/// Carries over what was allocated where an update leaves it open.
pub fn keep_allocated(new: &mut Value, old: &Value) {
    let new_type = object::text(new, "/spec/type").to_owned();
    let was_external = object::text(old, "/spec/type") == "ExternalName";
    if new_type == "ExternalName" || was_external {
        return;
    }
    for field in ["clusterIP", "clusterIPs"] {
        let is_open =
            new.pointer(&format!("/spec/{field}")).is_none_or(|value| value.is_null() || value == "");
        if let (true, Some(value)) = (is_open, old.pointer(&format!("/spec/{field}"))) {
            object::section(new, "spec").insert(field.into(), value.clone());
        }
    }
    let needs_ports = matches!(new_type.as_str(), "NodePort" | "LoadBalancer");
    let old_ports = object::items(old, "/spec/ports").to_vec();
    let Some(ports) = new.pointer_mut("/spec/ports").and_then(Value::as_array_mut) else { return };
    for port in ports.iter_mut().filter(|_| needs_ports) {
        let same = |one: &&Value| one["port"] == port["port"] && one.get("protocol") == port.get("protocol");
        let kept = old_ports.iter().find(same).and_then(|one| one.get("nodePort")).cloned();
        if let (Some(kept), true) = (kept, object::int(port, "/nodePort").unwrap_or(0) == 0) {
            port["nodePort"] = kept;
        }
    }
}

/// Chooses or checks the cluster IP and node ports. Call with the allocation lock held until the write is done.
///
/// # Errors
/// `Invalid` in upstream's words for a choice that cannot be honoured, `InternalError` when a range is full.
pub fn allocate(server: &ApiServer, service: &mut Value, old: Option<&Value>) -> Result<()> {
    let taken = taken(server, object::uid(service));
    let mut errors = Vec::new();
    let kind = object::text(service, "/spec/type").to_owned();
    if kind == "ExternalName" {
        object::remove(object::section(service, "spec"), "clusterIP");
        object::remove(object::section(service, "spec"), "clusterIPs");
    } else {
        address(server, service, old, &taken, &mut errors)?;
    }
    ports(server, service, &kind, taken.ports, &mut errors)?;
    if errors.is_empty() {
        return Ok(());
    }
    Err(ApiError::invalid("", "Service", object::name(service), errors))
}

fn taken(server: &ApiServer, own_uid: &str) -> Taken {
    let mut out = Taken::default();
    for service in storage::read_all(&server.store, "/core/services/") {
        if object::uid(&service) == own_uid {
            continue;
        }
        if let Ok(address) = object::text(&service, "/spec/clusterIP").parse() {
            out.addresses.insert(address);
        }
        for port in object::items(&service, "/spec/ports") {
            out.ports.extend(port_number(port));
        }
    }
    out
}

fn port_number(port: &Value) -> Option<u16> {
    object::int(port, "/nodePort").and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0)
}

fn address(
    server: &ApiServer,
    service: &mut Value,
    old: Option<&Value>,
    taken: &Taken,
    errors: &mut Vec<FieldError>,
) -> Result<()> {
    let range = server.config.service_range;
    let mut wanted = object::text(service, "/spec/clusterIP").to_owned();
    if wanted.is_empty() {
        wanted = object::text(service, "/spec/clusterIPs/0").to_owned();
    }
    let had = old.map_or("", |old| object::text(old, "/spec/clusterIP"));
    if !had.is_empty() && had != wanted {
        errors.push(FieldError::invalid("spec.clusterIPs[0]", wanted.as_str(), "may not change once set"));
        return Ok(());
    }
    let chosen = match wanted.as_str() {
        "" => Some(choose_address(range, &taken.addresses)?.to_string()),
        "None" => Some("None".to_owned()),
        text => check_address(range, text, had, &taken.addresses, errors),
    };
    if let Some(chosen) = chosen {
        let spec = object::section(service, "spec");
        spec.insert("clusterIP".into(), chosen.as_str().into());
        spec.insert("clusterIPs".into(), json!([chosen]));
        default_families(spec);
    }
    Ok(())
}

fn default_families(spec: &mut Map<String, Value>) {
    spec.entry("ipFamilies").or_insert_with(|| json!(["IPv4"]));
    spec.entry("ipFamilyPolicy").or_insert_with(|| "SingleStack".into());
    spec.entry("internalTrafficPolicy").or_insert_with(|| "Cluster".into());
}

fn check_address(
    range: Ipv4Range,
    text: &str,
    had: &str,
    taken: &BTreeSet<Ipv4Addr>,
    errors: &mut Vec<FieldError>,
) -> Option<String> {
    let field = "spec.clusterIPs";
    let Ok(address) = text.parse::<Ipv4Addr>() else {
        let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        errors.push(FieldError::invalid("spec.clusterIPs[0]", text, detail));
        return None;
    };
    let listed = json!([text]);
    if !range.contains(address) && text != had {
        let detail = format!(
            "failed to allocate IP {text}: the provided IP ({text}) is not in the valid range. The range of valid IPs is {range}"
        );
        errors.push(FieldError::invalid(field, listed, detail));
        return None;
    }
    if taken.contains(&address) {
        let detail = format!("failed to allocate IP {text}: provided IP is already allocated");
        errors.push(FieldError::invalid(field, listed, detail));
        return None;
    }
    Some(text.to_owned())
}

/// Random among the free ones, so that an address just freed is not given again at once.
fn choose_address(range: Ipv4Range, taken: &BTreeSet<Ipv4Addr>) -> Result<Ipv4Addr> {
    use rand::Rng as _;
    // Network, first (the `kubernetes` Service), tenth (DNS by convention) and broadcast are not given.
    let usable = range.size().saturating_sub(2);
    let start = rand::rng().random_range(0..usable.max(1));
    let all = (0..usable).map(|step| 1 + (start + step) % usable);
    let free = all
        .map(|offset| (offset, range.at(offset)))
        .find(|(offset, address)| !matches!(offset, 1 | 10) && !taken.contains(address));
    free.map(|(_, address)| address)
        .ok_or_else(|| ApiError::internal("failed to allocate a serviceIP: range is full"))
}

fn ports(
    server: &ApiServer,
    service: &mut Value,
    kind: &str,
    mut taken: BTreeSet<u16>,
    errors: &mut Vec<FieldError>,
) -> Result<()> {
    let PortRange { first, last } = server.config.node_ports;
    let wants = kind == "NodePort"
        || (kind == "LoadBalancer"
            && service.pointer("/spec/allocateLoadBalancerNodePorts") != Some(&json!(false)));
    let Some(list) = service.pointer_mut("/spec/ports").and_then(Value::as_array_mut) else { return Ok(()) };
    for (index, port) in list.iter_mut().enumerate() {
        if !wants {
            if let Some(map) = port.as_object_mut() {
                object::remove(map, "nodePort");
            }
            continue;
        }
        match port_number(port) {
            Some(number) => {
                let field = format!("spec.ports[{index}].nodePort");
                if !(first..=last).contains(&number) {
                    let detail = format!(
                        "provided port is not in the valid range. The range of valid ports is {first}-{last}"
                    );
                    errors.push(FieldError::invalid(field, number, detail));
                } else if !taken.insert(number) {
                    errors.push(FieldError::invalid(field, number, "provided port is already allocated"));
                }
            }
            None => {
                let number = choose_port(first, last, &taken)?;
                taken.insert(number);
                port["nodePort"] = number.into();
            }
        }
    }
    Ok(())
}

fn choose_port(first: u16, last: u16, taken: &BTreeSet<u16>) -> Result<u16> {
    use rand::Rng as _;
    let count = u32::from(last - first) + 1;
    let start = rand::rng().random_range(0..count);
    let all = (0..count).map(|step| first + u16::try_from((start + step) % count).unwrap_or(0));
    all.into_iter()
        .find(|port| !taken.contains(port))
        .ok_or_else(|| ApiError::internal("failed to allocate a nodePort: range is full"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_range_is_an_error_and_a_free_address_is_found() {
        let range = Ipv4Range { base: Ipv4Addr::new(10, 96, 0, 0), prefix: 29 };
        assert_eq!(range.to_string(), "10.96.0.0/29");
        let mut taken = BTreeSet::new();
        for _ in 0..5 {
            let address = choose_address(range, &taken).unwrap();
            assert!(range.contains(address) && taken.insert(address));
        }
        assert!(choose_address(range, &taken).is_err());
        assert!(!range.contains(Ipv4Addr::new(10, 96, 0, 8)));
    }
}
