//! `slipway serve` as a program: what scripts that start it rely on.
//!
//! Not here: its answers (`crates/infer`).

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

#[test]
fn the_first_line_tells_where_it_listens() {
    let models = concat!(env!("CARGO_MANIFEST_DIR"), "/../../bench/serving");
    let model = tempfile::tempdir().expect("a folder");
    std::fs::copy(format!("{models}/iris.joblib"), model.path().join("iris.joblib")).expect("the model");
    let mut server = Command::new(env!("CARGO_BIN_EXE_slipway"))
        .args(["serve", "--model_name", "iris", "--http_port", "0", "--host", "127.0.0.1", "--model_dir"])
        .arg(model.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut line = String::new();
    BufReader::new(server.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
    let address = line.split_whitespace().next_back().unwrap_or_default().to_owned();
    let connected = std::net::TcpStream::connect(&address);
    server.kill().expect("it ends");
    server.wait().expect("it ended");
    assert!(connected.is_ok(), "{line:?} names no address that answers");
}
