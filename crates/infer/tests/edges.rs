//! What surrounds a call: compression, other sites' pages, unix sockets, certificates, ages and limits.

mod support;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use infer::config::Tls;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::ServerName;
use support::Running;

const ROW: &str = r#"{"instances":[[5.1,3.5,1.4,0.2]]}"#;

#[test]
fn large_replies_are_packed_for_who_takes_that() {
    let server = Running::start("forest_classifier");
    for (rows, is_packed) in [(10, false), (4_000, true), (60_000, true)] {
        let body = format!("{{\"instances\":[{}]}}", vec!["[5.1,3.5,1.4,0.2]"; rows].join(","));
        let headers = "accept-encoding: br, gzip\r\n";
        let (status, head, reply) = server.send("/v1/models/iris:predict", headers, body.as_bytes());
        assert_eq!((status, head.contains("content-encoding: gzip")), (200, is_packed), "{head}");
        let mut text = String::new();
        match is_packed {
            true => flate2::read::GzDecoder::new(&reply[..]).read_to_string(&mut text).expect("gzip"),
            false => (&reply[..]).read_to_string(&mut text).expect("plain"),
        };
        assert_eq!(text.matches('0').count(), rows);
    }
    let body = format!("{{\"instances\":[{}]}}", vec!["[5.1,3.5,1.4,0.2]"; 4_000].join(","));
    let (_, head, _) =
        server.send("/v1/models/iris:predict", "accept-encoding: gzip;q=0\r\n", body.as_bytes());
    assert!(!head.contains("content-encoding"), "{head}");
}

#[test]
fn pages_of_other_sites_may_call_only_where_that_was_asked_for() {
    let ask = "OPTIONS /v1/models/iris:predict HTTP/1.1\r\norigin: http://x\r\nconnection: close\r\n\r\n";
    let open = Running::with("forest_classifier", |config| config.cors = true);
    let reply = open.exchange(ask.as_bytes());
    assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
    assert!(reply.contains("access-control-allow-origin: *") && reply.contains("allow-methods: GET, POST"));
    let (_, head, _) = open.send("/v1/models/iris:predict", "", ROW.as_bytes());
    assert!(head.contains("access-control-allow-origin: *"), "{head}");
    let closed = Running::start("forest_classifier");
    let reply = closed.exchange(ask.as_bytes());
    assert!(reply.starts_with("HTTP/1.1 405") && !reply.contains("access-control"), "{reply}");
}

#[test]
fn unix_sockets_are_served_and_cleaned_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("http.sock");
    // As a killed server leaves it.
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket"));
    let server = Running::with("forest_classifier", |config| {
        config.http_socket = Some(path.clone());
        config.without_http = true;
    });
    let mut stream = UnixStream::connect(&path).expect("a connection");
    let request = format!(
        "POST /v1/models/iris:predict HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{ROW}",
        ROW.len()
    );
    stream.write_all(request.as_bytes()).expect("sent");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("a reply");
    assert!(reply.ends_with(r#"{"predictions":[0]}"#), "{reply}");
    drop(server);
    assert!(!path.exists());
}

#[test]
fn the_admins_port_loads_and_unloads_where_others_may_not() {
    let server = Running::with("forest_classifier", |config| config.admin = Some(([127, 0, 0, 1], 0).into()));
    let (status, answer) = server.ask("POST", "/v2/repository/models/iris/unload", "");
    assert!(status == 403 && answer.contains("--admin_port"), "{answer}");
    let admin = server.0.as_ref().and_then(infer::Server::admin_address).expect("a port");
    for (action, ready) in [("unload", 503), ("load", 200)] {
        let mut stream = std::net::TcpStream::connect(admin).expect("a connection");
        let head = format!("POST /v2/repository/models/iris/{action} HTTP/1.1\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).expect("sent");
        let mut reply = String::new();
        stream.read_to_string(&mut reply).expect("a reply");
        assert!(reply.ends_with(&format!(r#"{{"name":"iris","{action}":true}}"#)), "{reply}");
        assert_eq!(server.ask("GET", "/v2/models/iris/ready", "").0, ready);
    }
}

#[test]
fn events_are_answered_by_events() {
    let server = Running::start("forest_classifier");
    let binary =
        "ce-specversion: 1.0\r\nce-id: 7\r\nce-type: t\r\nce-source: s\r\ncontent-type: application/json\r\n";
    let (status, head, reply) = server.send("/v1/models/iris:predict", binary, ROW.as_bytes());
    assert_eq!((status, &reply[..]), (200, &br#"{"predictions":[0]}"#[..]));
    for line in [
        "ce-specversion: 1.0",
        "ce-type: io.kserve.inference.response",
        "ce-source: io.kserve.inference.iris",
    ] {
        assert!(head.contains(line), "{head}");
    }
    let event = format!(r#"{{"specversion":"1.0","id":"7","type":"t","source":"s","data":{ROW}}}"#);
    let structured = "content-type: application/cloudevents+json; charset=utf-8\r\n";
    let (status, head, reply) = server.send("/v1/models/iris:predict", structured, event.as_bytes());
    assert!(status == 200 && head.contains("content-type: application/cloudevents+json"), "{head}");
    let reply: serde_json::Value = serde_json::from_slice(&reply).expect("JSON");
    assert_eq!(reply["data"], serde_json::json!({"predictions": [0]}));
    assert_eq!((reply["specversion"].as_str(), reply["id"].as_str().map(str::len)), (Some("1.0"), Some(36)));
    let (status, _, reply) = server.send("/v1/models/iris:predict", structured, ROW.as_bytes());
    assert!(status == 400 && reply.windows(11).any(|part| part == b"specversion"));
    let (status, head, _) = server.send("/v1/models/iris:predict", binary, b"{}");
    assert!(status == 400 && !head.contains("ce-type"), "{head}");
}

#[test]
fn a_connection_that_is_old_is_told_to_leave() {
    let server = Running::with("forest_classifier", |config| config.connection_age = Some(Duration::ZERO));
    let reply = server.exchange(b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n");
    assert_eq!((reply.matches("HTTP/1.1 200").count(), reply.contains("connection: close")), (1, true));
}

#[test]
fn more_connections_than_allowed_wait_for_others_to_end() {
    let server = Running::with("forest_classifier", |config| config.connections_max = 1);
    let mut first = server.connect();
    first.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("sent");
    let mut start = [0; 12];
    first.read_exact(&mut start).expect("a reply");
    let mut second = server.connect();
    second.write_all(b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n").expect("sent");
    second.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    assert!(second.read(&mut start).is_err(), "it has to wait");
    drop(first);
    second.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    second.read_exact(&mut start).expect("a reply");
    assert_eq!(&start, b"HTTP/1.1 200");
}

#[test]
fn a_draining_server_is_not_ready_and_still_answers() {
    let server = Running::with("forest_classifier", |config| config.drain.grace = Duration::from_millis(300));
    assert_eq!(server.ask("GET", "/v2/health/ready", "").0, 200);
    server.0.as_ref().expect("running").stop();
    assert_eq!(server.ask("GET", "/v2/health/ready", "").0, 503);
    assert_eq!(server.predict(ROW).0, 200);
    let reply = server.exchange(b"GET / HTTP/1.1\r\n\r\n");
    assert!(reply.contains("connection: close"), "{reply}");
}

/// An authority of the test's own.
struct Authority(Issuer<'static, KeyPair>, String);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate").pem();
        Self(Issuer::new(params, key), certificate)
    }

    /// Writes `NAME.pem` and `NAME.key`.
    fn issue(&self, folder: &Path, name: &str) {
        let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).expect("written");
        std::fs::write(folder.join(format!("{name}.pem")), certificate.pem()).expect("written");
    }
}

/// A whole HTTP exchange over TLS, or why there is none.
fn secure(server: &Running, authority: &Authority, identity: Option<&Path>) -> Result<String, String> {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.1.as_bytes()).expect("PEM")).expect("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let chain = vec![CertificateDer::from_pem_file(path.with_extension("pem")).expect("PEM")];
            let key = PrivateKeyDer::from_pem_file(path.with_extension("key")).expect("PEM");
            builder.with_client_auth_cert(chain, key).expect("an identity")
        }
    };
    let name = ServerName::try_from("localhost").expect("a name");
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut socket = server.connect();
    let mut stream = rustls::Stream::new(&mut client, &mut socket);
    let request = format!(
        "POST /v1/models/iris:predict HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{ROW}",
        ROW.len()
    );
    stream.write_all(request.as_bytes()).map_err(|error| error.to_string())?;
    let mut reply = String::new();
    match stream.read_to_string(&mut reply) {
        Err(error) if reply.is_empty() => Err(error.to_string()),
        _ => Ok(reply),
    }
}

#[test]
fn certificates_are_shown_asked_for_and_renewed() {
    let folder = tempfile::tempdir().expect("a folder");
    let (old, new, clients) = (Authority::new("old"), Authority::new("new"), Authority::new("clients"));
    old.issue(folder.path(), "server");
    clients.issue(folder.path(), "client");
    old.issue(folder.path(), "stranger");
    std::fs::write(folder.path().join("clients.pem"), &clients.1).expect("written");
    let server = Running::with("forest_classifier", |config| {
        config.tls = Some(Tls {
            certificate: folder.path().join("server.pem").into(),
            key: folder.path().join("server.key").into(),
            client_authorities: Some(folder.path().join("clients.pem").into()),
        });
    });
    let client = folder.path().join("client");
    let reply = secure(&server, &old, Some(&client)).expect("a reply");
    assert!(reply.ends_with(r#"{"predictions":[0]}"#), "{reply}");
    secure(&server, &old, None).expect_err("no certificate");
    secure(&server, &old, Some(&folder.path().join("stranger"))).expect_err("another authority's");
    secure(&server, &new, Some(&client)).expect_err("not yet renewed");
    // A key that does not fit yet: the old certificate stays.
    std::fs::write(folder.path().join("server.pem"), "rubbish").expect("written");
    std::thread::sleep(Duration::from_millis(1_050));
    secure(&server, &old, Some(&client)).expect("the old one stays");
    new.issue(folder.path(), "server");
    std::thread::sleep(Duration::from_millis(1_050));
    secure(&server, &new, Some(&client)).expect("renewed");
}

#[test]
fn upstreams_code_for_a_wrong_input_is_there_for_who_needs_it() {
    let body = r#"{"instances":[[5.1,3.5,1.4]]}"#;
    assert_eq!(Running::start("forest_classifier").predict(body).0, 400);
    let server = Running::with("forest_classifier", |config| config.upstream_codes = true);
    assert_eq!(server.predict(body).0, 500);
    assert_eq!(server.predict("{").0, 400);
}

#[test]
fn a_half_closed_connection_is_answered_if_its_request_was_whole() {
    let server = Running::start("forest_classifier");
    // Half closed after a whole request: answered.
    let whole =
        format!("POST /v1/models/iris:predict HTTP/1.1\r\ncontent-length: {}\r\n\r\n{ROW}", ROW.len());
    assert!(server.exchange(whole.as_bytes()).ends_with(r#"{"predictions":[0]}"#));
    // Half closed within one: nothing to answer, and the connection ends.
    assert_eq!(server.exchange(&whole.as_bytes()[..whole.len() - 3]), "");
}
