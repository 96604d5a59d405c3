//! A server with an engine, and the models that it serves.
#![allow(dead_code, reason = "not every test file uses all of it")]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use backend_host::Python;
use infer::config::{Model, Source};
use infer::{Config, Server};
use models::{Class, Engines};
use serde_json::Value;

/// A row for the native model.
pub const ROW: &str = r#"{"instances":[[5.1,3.5,1.4,0.2]]}"#;

/// So many rows for it that they leave the event loop.
pub fn many_rows() -> String {
    format!(r#"{{"instances":[{}[5.1,3.5,1.4,0.2]]}}"#, "[6.7,3.0,5.2,2.3],".repeat(4000))
}

/// The Python that tests use, as an engine; `None` skips the test.
pub fn python() -> Option<Python> {
    let cache = std::env::var_os("SLIPWAY_CACHE").map(PathBuf::from).or_else(|| {
        let home = std::env::var_os("HOME")?;
        Some(Path::new(&home).join(".cache/slipway"))
    })?;
    let program = cache.join("python/bin/python");
    if program.exists() {
        return Some(Python::new(program));
    }
    assert!(std::env::var_os("CI").is_none(), "no {}: run `make deps`", program.display());
    eprintln!("skipped: no {}; `make deps` installs it", program.display());
    None
}

fn make(more: &str) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/make_models.py");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("models{more}-{}", std::process::id()));
    let python = python().expect("looked for before");
    let made = Command::new(python.program).arg(script).arg(&folder).arg(more).output().expect("it starts");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    folder
}

/// The folder of the models that `make_models.py` makes.
pub fn made() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| make("--plain"))
}

/// The same with one that needs MLflow, which takes some seconds to be imported.
pub fn made_with_mlflow() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| make("--mlflow"))
}

/// What the models in a folder answer.
pub fn expected(folder: &Path) -> Value {
    let text = std::fs::read(folder.join("expected.json")).expect("made");
    serde_json::from_slice(&text).expect("JSON")
}

pub fn copy_classes(folder: &Path) {
    std::fs::write(folder.join("models.py"), include_str!("../models.py")).expect("written");
}

/// A class of `models.py` as a model.
pub fn class(name: &str, class: &str) -> Model {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("classes-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("made");
        copy_classes(&folder);
        folder
    });
    let class = Class { name: class.into(), code: None, settings: None };
    Model { class: Some(class), ..Model::new(name, folder) }
}

/// A model that the server evaluates itself.
pub fn native() -> Model {
    forest("native")
}

/// The same by another name.
pub fn forest(name: &str) -> Model {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tests/fixtures/1.9.1");
    Model::new(name, fixtures.join("forest_classifier.model"))
}

/// A server that ends with the test.
pub struct Running(Option<Server>);

fn start_of(source: Source, python: Option<Python>) -> Result<Server, infer::Error> {
    let mut config = Config::of(source);
    config.http = ([127, 0, 0, 1], 0).into();
    config.workers = Some(1);
    config.engines = python.into_iter().map(|python| Arc::new(python) as Arc<dyn Engines>).collect();
    Server::start(config)
}

pub fn start(models: Vec<Model>, python: Option<Python>) -> Result<Server, infer::Error> {
    start_of(Source::Fixed(models), python)
}

impl Running {
    pub fn start(models: Vec<Model>, python: Option<Python>) -> Self {
        Self::of(Source::Fixed(models), python)
    }

    pub fn of(source: Source, python: Option<Python>) -> Self {
        Self(Some(start_of(source, python).expect("a server")))
    }

    pub fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let address = self.0.as_ref().expect("running").address();
        let mut stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(120))).expect("a timeout");
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: h\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).expect("sent");
        stream.shutdown(Shutdown::Write).expect("half closed");
        let mut reply = String::new();
        stream.read_to_string(&mut reply).expect("a reply");
        let (head, body) = reply.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        (status, serde_json::from_str(body).unwrap_or_else(|_| Value::from(body)))
    }

    /// Where it listens.
    pub fn host(&self) -> String {
        self.0.as_ref().expect("running").address().to_string()
    }

    pub fn predict(&self, model: &str, body: &str) -> (u16, Value) {
        self.ask("POST", &format!("/v1/models/{model}:predict"), body)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(server) = self.0.take() else { return };
        server.stop();
        server.join();
    }
}

/// Memory of this process.
pub fn resident_bytes() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").expect("statm");
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("pages");
    pages * 4096
}
