//! A server over a fixture, and what tests ask it with.
#![allow(dead_code, reason = "not every test file uses all of it")]

pub mod collector;
pub mod grpc;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use infer::config::Source;
use infer::{Config, Personality, Server};

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tests/fixtures/1.9.1").join(format!("{name}.model"))
}

/// A server that ends with the test.
pub struct Running(pub Option<Server>, tempfile::TempDir);

impl Running {
    pub fn start(name: &str) -> Self {
        Self::with(name, |_| {})
    }

    pub fn with(name: &str, change: impl FnOnce(&mut Config)) -> Self {
        // The file has an ending that a folder would not be searched for: a path to a file is taken as it is.
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::copy(fixture(name), folder.path().join("model.joblib")).expect("a copy");
        let mut config = Config::new("iris", folder.path());
        config.http = ([127, 0, 0, 1], 0).into();
        config.workers = Some(2);
        change(&mut config);
        Self(Some(Server::start(config).expect("a server")), folder)
    }

    /// No server: for a client of one that another value ends.
    pub fn none() -> Self {
        Self(None, tempfile::tempdir().expect("a folder"))
    }

    /// A server whose models have these manners.
    pub fn like(name: &str, personality: Personality, change: impl FnOnce(&mut Config)) -> Self {
        Self::with(name, |config| {
            config.personality = personality;
            let Source::Fixed(models) = &mut config.models else { panic!("one model") };
            models.iter_mut().for_each(|model| model.personality = personality);
            change(config);
        })
    }

    pub fn connect(&self) -> TcpStream {
        let address = self.0.as_ref().expect("running").address();
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        stream
    }

    /// Sends bytes and reads until the server closes.
    pub fn exchange(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        stream.write_all(bytes).expect("sent");
        stream.shutdown(Shutdown::Write).expect("half closed");
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).expect("a reply");
        String::from_utf8(reply).expect("UTF-8")
    }

    pub fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: h\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
        );
        let reply = self.exchange(request.as_bytes());
        let (head, body) = reply.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        (status, body.to_owned())
    }

    /// Sends a request with more headers; status, head and raw body of the reply.
    pub fn send(&self, path: &str, headers: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n{headers}connection: close\r\n\r\n",
            body.len()
        );
        let mut stream = self.connect();
        stream.write_all(head.as_bytes()).expect("sent");
        stream.write_all(body).expect("sent");
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).expect("a reply");
        let end = reply.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
        let head = String::from_utf8(reply[..end].to_vec()).expect("UTF-8");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        (status, head, reply[end + 4..].to_vec())
    }

    /// Asks the admin's port.
    pub fn ask_admin(&self, method: &str, path: &str) -> (u16, String) {
        let address = self.0.as_ref().and_then(Server::admin_address).expect("an admin's port");
        let mut stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        let request = format!("{method} {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).expect("a reply");
        let reply = String::from_utf8_lossy(&reply);
        let (head, body) = reply.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        (status, body.to_owned())
    }

    pub fn predict(&self, body: &str) -> (u16, String) {
        self.ask("POST", "/v1/models/iris:predict", body)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(server) = self.0.take() {
            server.stop();
            server.join();
        }
    }
}
