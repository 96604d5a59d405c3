//! Probes and hooks: how a container is asked how it is, and told what is coming.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, ExecAction, HTTPGetAction, LifecycleHandler, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::folder::PodFolder;
use crate::streams;

/// What is read of an answer.
const ANSWER_BYTES_MAX: u64 = 10 * 1024;

/// Which probe of a container it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Until it succeeds the others wait.
    Startup,
    /// Its failure restarts the container.
    Liveness,
    /// Its failure takes the pod out of Services.
    Readiness,
}

impl Kind {
    /// As events say it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// One try failed.
    Failed(String),
    /// The threshold of successes is reached.
    Good,
    /// The threshold of failures is reached.
    Bad(String),
}

/// Whom to ask.
#[derive(Debug, Clone)]
pub struct Target {
    /// The container.
    pub container: Arc<Container>,
    /// Its pod's address.
    pub ip: String,
    /// Its pod's folder, for exec.
    pub folder: PodFolder,
}

/// A probe's finding about an attempt.
pub type Report = (String, u32, Kind, Finding);

/// Asks until the task is aborted; tells every change and every failed try.
pub fn watch(
    target: Target,
    attempt: u32,
    kind: Kind,
    probe: Probe,
    report: impl Fn(Report) + Send + Sync + 'static,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let seconds =
            |value: Option<i32>, default: i32| Duration::from_secs(value.unwrap_or(default).max(0) as u64);
        let period = seconds(probe.period_seconds, 10).max(Duration::from_secs(1));
        let limit = seconds(probe.timeout_seconds, 1).max(Duration::from_secs(1));
        let needed = probe.success_threshold.unwrap_or(1).max(1);
        let allowed = probe.failure_threshold.unwrap_or(3).max(1);
        tokio::time::sleep(seconds(probe.initial_delay_seconds, 0)).await;
        let (mut successes, mut failures, mut known) = (0, 0, None);
        // A fresh server is usually up long before the first period is over: ask sooner until the first success.
        let mut wait = Duration::from_millis(50).min(period);
        loop {
            let found = tokio::time::timeout(limit, ask(&target, &probe)).await;
            let found = found.unwrap_or_else(|_| Err(format!("probe timed out after {}s", limit.as_secs())));
            let say = |finding| report((target.container.name.clone(), attempt, kind, finding));
            match found {
                Ok(()) => {
                    (successes, failures) = (successes + 1, 0);
                    if successes >= needed && known != Some(true) {
                        known = Some(true);
                        say(Finding::Good);
                        if kind == Kind::Startup {
                            return;
                        }
                    }
                }
                Err(message) if known.is_none() && kind == Kind::Readiness && wait < period => {
                    // Early tries are ours, not the user's: they count for nothing when they fail.
                    tracing::trace!(message, "not ready yet");
                }
                Err(message) => {
                    (successes, failures) = (0, failures + 1);
                    if failures >= allowed && known != Some(false) {
                        known = Some(false);
                        say(Finding::Bad(message));
                    } else {
                        say(Finding::Failed(message));
                    }
                }
            }
            let early = known.is_none() && kind == Kind::Readiness;
            tokio::time::sleep(if early { wait } else { period }).await;
            wait = (wait * 2).min(period);
        }
    })
}

async fn ask(target: &Target, probe: &Probe) -> Result<(), String> {
    if let Some(http) = &probe.http_get {
        return http_get(target, http).await;
    }
    if let Some(tcp) = &probe.tcp_socket {
        let host = tcp.host.clone().filter(|host| !host.is_empty()).unwrap_or_else(|| target.ip.clone());
        let port = port(&target.container, &tcp.port)?;
        return connect(&host, port).await.map(drop);
    }
    if let Some(exec) = &probe.exec {
        return run(target, exec).await;
    }
    Err("this kind of probe is not supported by this node; use httpGet, tcpSocket or exec".into())
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    let connected = TcpStream::connect((host, port)).await;
    connected.map_err(|error| match error.kind() {
        std::io::ErrorKind::ConnectionRefused => {
            format!("dial tcp {host}:{port}: connect: connection refused")
        }
        _ => format!("dial tcp {host}:{port}: {error}"),
    })
}

fn port(container: &Container, port: &IntOrString) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let mut ports = container.ports.iter().flatten();
            let named = ports.find(|port| port.name.as_deref() == Some(name)).map(|port| port.container_port);
            named.or_else(|| name.parse().ok())
        }
    };
    let number = number.ok_or_else(|| format!("couldn't find port: {port:?}"))?;
    u16::try_from(number).map_err(|_| format!("invalid port number: {number}"))
}

async fn http_get(target: &Target, action: &HTTPGetAction) -> Result<(), String> {
    if action.scheme.as_deref() == Some("HTTPS") {
        return Err("HTTPS probes are not supported by this node".into());
    }
    let host = action.host.clone().filter(|host| !host.is_empty()).unwrap_or_else(|| target.ip.clone());
    let port = port(&target.container, &action.port)?;
    let path = action.path.clone().filter(|path| path.starts_with('/')).unwrap_or_else(|| "/".into());
    let mut headers = String::new();
    let mut own_host = None;
    for header in action.http_headers.iter().flatten() {
        if header.name.eq_ignore_ascii_case("host") {
            own_host = Some(header.value.clone());
        } else {
            headers.push_str(&format!("{}: {}\r\n", header.name, header.value));
        }
    }
    let asked = own_host.unwrap_or_else(|| format!("{host}:{port}"));
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {asked}\r\nUser-Agent: kube-probe/1.34\r\nAccept: */*\r\n{headers}Connection: close\r\n\r\n"
    );
    let url = format!("Get \"http://{host}:{port}{path}\"");
    let mut stream = connect(&host, port).await.map_err(|error| format!("{url}: {error}"))?;
    stream.write_all(request.as_bytes()).await.map_err(|error| format!("{url}: {error}"))?;
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.map_err(|_| format!("{url}: EOF"))?;
    let code: u16 = std::str::from_utf8(&head[9..]).ok().and_then(|code| code.parse().ok()).unwrap_or(0);
    // The rest is read so that the server sees its answer taken.
    let _ = stream.take(ANSWER_BYTES_MAX).read_to_end(&mut Vec::new()).await;
    if (200..400).contains(&code) {
        Ok(())
    } else {
        Err(format!("HTTP probe failed with statuscode: {code}"))
    }
}

async fn run(target: &Target, action: &ExecAction) -> Result<(), String> {
    let argv = action.command.clone().unwrap_or_default();
    let (code, output) = streams::run(&target.folder, &target.container.name, argv)
        .await
        .map_err(|error| error.to_string())?;
    if code == 0 {
        Ok(())
    } else {
        Err(if output.is_empty() { format!("command exited with {code}") } else { output })
    }
}

/// Runs a lifecycle hook.
pub async fn hook(target: &Target, handler: &LifecycleHandler) -> Result<(), String> {
    if let Some(exec) = &handler.exec {
        return run(target, exec).await;
    }
    if let Some(http) = &handler.http_get {
        return http_get(target, http).await;
    }
    if let Some(sleep) = &handler.sleep {
        tokio::time::sleep(Duration::from_secs(sleep.seconds.max(0) as u64)).await;
    }
    Ok(())
}
