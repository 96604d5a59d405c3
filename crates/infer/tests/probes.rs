//! Health is told however much there is to do: over HTTP, gRPC and TLS, while every compute thread is busy and more
//! calls wait.
//!
//! No time is measured: nothing that is evaluated ends before all probes were answered.

mod support;

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use infer::config::{Mode, Pem, Source, Tls};
use infer::{Config, Personality, Server};
use models::{
    Backend, BackendError, Batch, DType, Dims, Engines, Hosted, Outputs, Shape, Signature, TensorSpec, Wanted,
};
use parking_lot::{Condvar, Mutex, MutexGuard};
use support::Running;
use support::grpc::{Client, INFER};

const ROW: &str = r#"{"instances":[[1.0]]}"#;

/// The compute threads, which are the process's and not a server's: a test that wants to see all of them busy must have
/// them to itself, or two of them wait for each other's.
fn compute_threads() -> MutexGuard<'static, ()> {
    static THREADS: Mutex<()> = Mutex::new(());
    THREADS.lock()
}

/// How many evaluations have begun, and whether they may end.
#[derive(Debug, Default)]
struct Gate(Mutex<(usize, bool)>, Condvar);

impl Gate {
    fn begun(&self, count: usize) {
        let mut seen = self.0.lock();
        while seen.0 < count {
            let late = self.1.wait_for(&mut seen, Duration::from_secs(60)).timed_out();
            assert!(!late, "{count} evaluations begin, {} did", seen.0);
        }
    }

    fn open(&self) {
        self.0.lock().1 = true;
        self.1.notify_all();
    }
}

/// Takes as long as the test wants.
struct Endless(Arc<Gate>, Signature);

impl Backend for Endless {
    fn signature(&self) -> &Signature {
        &self.1
    }

    fn row_cost_ns(&self) -> u64 {
        1_000_000_000
    }

    fn run(&self, batch: &Batch<'_>, outputs: &mut Outputs) -> Result<(), BackendError> {
        let mut seen = self.0.0.lock();
        seen.0 += 1;
        self.0.1.notify_all();
        while !seen.1 {
            self.0.1.wait(&mut seen);
        }
        outputs.numbers::<f64>(Shape::new(&[batch.rows]).expect("small")).fill(1.0);
        Ok(())
    }
}

#[derive(Debug)]
struct Engine(Arc<Gate>);

impl Engines for Engine {
    fn load(&self, _: &Wanted<'_>) -> Option<Result<Hosted, String>> {
        let spec = |name: &str, row: &[Option<usize>]| TensorSpec {
            name: name.into(),
            dtype: DType::F64,
            row: row.to_vec(),
            dims: Dims::Rows,
        };
        let signature = Signature {
            inputs: vec![spec("x", &[Some(1)])],
            outputs: vec![spec("y", &[])],
            columns: Vec::new(),
        };
        let backend = Box::new(Endless(self.0.clone(), signature));
        Some(Ok(Hosted { platform: "test".into(), format: "test".into(), backend }))
    }
}

/// One model that ends when the gate is opened, and one thread that serves.
fn endless(config: &mut Config, gate: &Arc<Gate>) {
    let Source::Fixed(models) = &mut config.models else { panic!("one model") };
    std::fs::write(models[0].path.join("model.joblib"), "what only the test's engine reads")
        .expect("written");
    config.engines = vec![Arc::new(Engine(gate.clone()))];
    config.queueing.mode = Mode::Alone;
    config.workers = Some(1);
}

/// A server whose compute threads are all busy, with as many calls again that wait; the callers end with the gate.
fn busy() -> (Client, Arc<Gate>, Vec<std::thread::JoinHandle<u16>>) {
    let gate = Arc::new(Gate::default());
    let client = Client::new(Personality::Kserve, |config| {
        endless(config, &gate);
    });
    let address = client.server.0.as_ref().expect("running").address();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let callers = (0..2 * threads + 2).map(|_| std::thread::spawn(move || call(address))).collect();
    gate.begun(threads);
    (client, gate, callers)
}

fn call(address: std::net::SocketAddr) -> u16 {
    let mut stream = std::net::TcpStream::connect(address).expect("a connection");
    let head = "POST /v1/models/iris:predict HTTP/1.1\r\nconnection: close\r\ncontent-length";
    write!(stream, "{head}: {}\r\n\r\n{ROW}", ROW.len()).expect("sent");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("a reply");
    reply.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status")
}

fn end(gate: &Gate, callers: Vec<std::thread::JoinHandle<u16>>) {
    gate.open();
    for caller in callers {
        assert_eq!(caller.join().expect("answered"), 200);
    }
}

#[test]
fn probes_are_answered_while_every_compute_thread_is_busy() {
    let _alone = compute_threads();
    let (client, gate, callers) = busy();
    for path in
        ["/v2/health/live", "/v2/health/ready", "/v2/models/iris/ready", "/v1/models/iris", "/metrics"]
    {
        assert_eq!(client.server.ask("GET", path, "").0, 200, "{path}");
    }
    for (path, body) in [
        ("/grpc.health.v1.Health/Check", &b""[..]),
        ("/grpc.health.v1.Health/Check", b"\x0a\x04iris"),
        ("/inference.GRPCInferenceService/ServerLive", b""),
        ("/inference.GRPCInferenceService/ServerReady", b""),
        ("/inference.GRPCInferenceService/ModelReady", b"\x0a\x04iris"),
    ] {
        assert_eq!(*client.call(path, body).only(), [8, 1][..], "{path}");
        // Kubelets open a connection for each probe, also to the port of HTTP.
        let port = client.server.0.as_ref().map(Server::address).expect("a port");
        let again = Client::at(Running::none(), port);
        assert_eq!(*again.call(path, body).only(), [8, 1][..], "{path}");
    }
    // The connection that asks for health has a call of its own under way, which waits.
    let request = support::grpc::framed(&infer_of_one_row());
    let call = support::grpc::raw(client.sender.clone(), INFER, &[], vec![request]);
    let waiting = client.runtime.spawn(call);
    assert_eq!(*client.call("/grpc.health.v1.Health/Check", b"").only(), [8, 1][..]);
    end(&gate, callers);
    assert_eq!(client.runtime.block_on(waiting).expect("answered").code, 0);
}

fn infer_of_one_row() -> Vec<u8> {
    use codecs::wire::{put_bytes, put_bytes_always, put_message};
    let mut out = Vec::new();
    put_bytes(&mut out, 1, b"iris");
    put_message(&mut out, 5, |out| {
        put_bytes(out, 1, b"x");
        put_bytes(out, 2, b"FP64");
        put_bytes(out, 3, &[1, 1]);
    });
    put_bytes_always(&mut out, 7, &1_f64.to_le_bytes());
    out
}

#[test]
fn probes_over_tls_are_answered_while_every_compute_thread_is_busy() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let _alone = compute_threads();
    let own = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let gate = Arc::new(Gate::default());
    let server = Running::with("forest_classifier", |config| {
        endless(config, &gate);
        config.tls = Some(Tls {
            certificate: Pem::Text(own.cert.pem().into_bytes().into()),
            key: Pem::Text(own.signing_key.serialize_pem().into_bytes().into()),
            client_authorities: None,
        });
    });
    let mut roots = rustls::RootCertStore::empty();
    roots.add(own.cert.der().clone()).expect("a root");
    let address = server.0.as_ref().expect("running").address();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let ask = |request: String| {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        async move {
            let stream = tokio::net::TcpStream::connect(address).await.expect("a connection");
            let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
            let mut stream = connector.connect(name, stream).await.expect("a handshake");
            stream.write_all(request.as_bytes()).await.expect("sent");
            let mut reply = Vec::new();
            // The server may end without TLS's own goodbye.
            let _ = stream.read_to_end(&mut reply).await;
            String::from_utf8_lossy(&reply).into_owned()
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let head = "POST /v1/models/iris:predict HTTP/1.1\r\nconnection: close\r\ncontent-length";
    let call = format!("{head}: {}\r\n\r\n{ROW}", ROW.len());
    let callers: Vec<_> = (0..2 * threads + 2).map(|_| runtime.spawn(ask(call.clone()))).collect();
    gate.begun(threads);
    for path in ["/v2/health/live", "/v2/health/ready", "/v2/models/iris/ready"] {
        let probe = format!("GET {path} HTTP/1.1\r\nconnection: close\r\n\r\n");
        let asked =
            runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), ask(probe)).await });
        let reply = asked.expect("answered");
        assert!(reply.starts_with("HTTP/1.1 200"), "{path}: {reply}");
    }
    gate.open();
    for caller in callers {
        let reply = runtime.block_on(caller).expect("answered");
        assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
    }
}
