//! Host names to addresses without the C library.
//!
//! A static glibc binary cannot call `getaddrinfo` safely: it loads modules of whatever libc the image has. So: literal
//! addresses, `/etc/hosts`, then one UDP question to the servers of `/etc/resolv.conf`, with its search list.
//! Only A records: Services of dual-stack clusters have one as well.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// The addresses of `host`, at least one.
pub fn resolve(host: &str) -> io::Result<Vec<IpAddr>> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    if let Some(address) = in_hosts(&hosts, host) {
        return Ok(vec![address]);
    }
    if host == "localhost" {
        return Ok(vec![Ipv4Addr::LOCALHOST.into()]);
    }
    let config = Config::parse(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default());
    for name in config.candidates(host) {
        for server in &config.servers {
            match ask(*server, &name) {
                Ok(found) if !found.is_empty() => return Ok(found),
                Ok(_) => break,
                Err(_) => {}
            }
        }
    }
    // Retried like a refused connection: the cluster's name server may be starting.
    Err(io::Error::new(io::ErrorKind::HostUnreachable, format!("host `{host}` has no address")))
}

fn in_hosts(hosts: &str, host: &str) -> Option<IpAddr> {
    hosts.lines().find_map(|line| {
        let mut words = line.split('#').next().unwrap_or("").split_whitespace();
        let address = words.next()?.parse().ok()?;
        words.any(|name| name.eq_ignore_ascii_case(host)).then_some(address)
    })
}

#[derive(Debug, PartialEq)]
struct Config {
    servers: Vec<SocketAddr>,
    search: Vec<String>,
    dots: usize,
}

impl Config {
    fn parse(text: &str) -> Self {
        let mut config = Self { servers: Vec::new(), search: Vec::new(), dots: 1 };
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
                    config.servers.extend(address.map(|address| SocketAddr::new(address, 53)));
                }
                Some("search") => config.search = words.map(str::to_owned).collect(),
                Some("options") => {
                    let dots = words.find_map(|word| word.strip_prefix("ndots:")?.parse().ok());
                    config.dots = dots.unwrap_or(config.dots);
                }
                _ => {}
            }
        }
        config
    }

    /// The names to ask for, in the resolver's order.
    fn candidates(&self, host: &str) -> Vec<String> {
        if let Some(whole) = host.strip_suffix('.') {
            return vec![whole.to_owned()];
        }
        let searched = self.search.iter().map(|domain| format!("{host}.{}", domain.trim_end_matches('.')));
        let as_is = std::iter::once(host.to_owned());
        if host.matches('.').count() >= self.dots {
            as_is.chain(searched).collect()
        } else {
            searched.chain(as_is).collect()
        }
    }
}

fn ask(server: SocketAddr, name: &str) -> io::Result<Vec<IpAddr>> {
    let local: SocketAddr = if server.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(local)?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    // The socket's fresh port and connect() are the guard against answers of others.
    let id = (std::process::id() & 0xffff) as u16;
    socket.send(&question(id, name))?;
    let mut answer = [0_u8; 4096];
    let length = socket.recv(&mut answer)?;
    addresses(id, &answer[..length])
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "broken DNS answer"))
}

fn question(id: u16, name: &str) -> Vec<u8> {
    let mut packet = Vec::with_capacity(name.len() + 18);
    packet.extend(id.to_be_bytes());
    // Recursion desired; one question.
    packet.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        let label = &label.as_bytes()[..label.len().min(63)];
        packet.push(label.len() as u8);
        packet.extend(label);
    }
    // End of name, type A, class IN.
    packet.extend([0, 0, 1, 0, 1]);
    packet
}

/// The A records of an answer; none when it cannot be read. A refusal or unknown name is an empty list.
fn addresses(id: u16, packet: &[u8]) -> Option<Vec<IpAddr>> {
    let word = |at: usize| Some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]));
    if word(0)? != id || word(2)? & 0x8000 == 0 {
        return None;
    }
    let (questions, answers) = (word(4)?, word(6)?);
    let mut at = 12;
    for _ in 0..questions {
        at = skip_name(packet, at)? + 4;
    }
    let mut found = Vec::new();
    for _ in 0..answers {
        at = skip_name(packet, at)?;
        let (kind, length) = (word(at)?, usize::from(word(at + 8)?));
        let data = packet.get(at + 10..at + 10 + length)?;
        if let (1, [a, b, c, d]) = (kind, data) {
            found.push(Ipv4Addr::new(*a, *b, *c, *d).into());
        }
        at += 10 + length;
    }
    Some(found)
}

fn skip_name(packet: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *packet.get(at)? {
            0 => return Some(at + 1),
            pointer if pointer & 0xc0 == 0xc0 => return Some(at + 2),
            length => at += 1 + usize::from(length),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_go_through_the_search_list() {
        let config = Config::parse(
            "nameserver 10.0.0.10\nsearch ns.svc.cluster.local svc.cluster.local\noptions ndots:5\n",
        );
        assert_eq!(config.servers, ["10.0.0.10:53".parse().unwrap()]);
        assert_eq!(config.candidates("a.kubeflow.svc")[0], "a.kubeflow.svc.ns.svc.cluster.local");
        assert_eq!(config.candidates("a.b.")[0], "a.b");
        assert_eq!(in_hosts("127.0.0.1 localhost\n10.1.2.3 a b # c", "b"), "10.1.2.3".parse().ok());
    }

    #[test]
    fn an_answer_with_a_compressed_name_is_read() {
        let mut packet = question(7, "a.b");
        packet[2] = 0x81;
        packet[7] = 2;
        packet.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 1, 0, 2, 0xc0, 12]);
        packet.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 10, 0, 0, 9]);
        assert_eq!(addresses(7, &packet).unwrap(), ["10.0.0.9".parse::<IpAddr>().unwrap()]);
        assert_eq!(addresses(8, &packet), None);
        assert_eq!(addresses(7, &packet[..packet.len() - 1]), None);
    }
}
